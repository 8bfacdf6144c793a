"""The detector on disk: damaged, foreign and hostile folders are refused before anything in them is interpreted."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pneumolib.config import Config
from pneumolib.data.radiograph import draw
from pneumolib.errors import ArtifactError
from pneumolib.evaluation.calibration import OperatingPoint
from pneumolib.models import artifact
from pneumolib.models.detector import load_detector, make_detector
from pneumolib.models.familiarity import Familiarity, fit_familiarity
from pneumolib.models.reference import fit_reference
from pneumolib.models.resnet import build_model

FILES = ("model.onnx", "weights.safetensors", "familiarity.safetensors")


def familiarity(config: Config) -> Familiarity:
    """Any that fits the widths of the network's style and features."""
    rng = np.random.default_rng(0)
    style = 2 * (config.width + 2 * config.width + 4 * config.width)

    def drawn(n: int) -> dict[str, Any]:
        return {"style": rng.normal(size=(n, style)), "features": rng.normal(size=(n, 8 * config.width))}

    return fit_familiarity(drawn(40), drawn(20), rng.integers(0, 3, 40))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = Config(size=32, width=4, precision="float32")
    detector = make_detector(
        build_model(config),
        config,
        name="for-the-test",
        temperature=1.3,
        operating_points={"balanced": OperatingPoint("balanced", 0.5, 0.9, 0.9, "for the test")},
        reference=fit_reference(np.stack([draw("normal", seed, size=(64, 64)) for seed in range(10)])),
        card={"phantom": False},
        familiarity=familiarity(config),
    )
    folder = tmp_path_factory.mktemp("saved") / "detector"
    detector.save(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "detector"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest as someone would who can write files."""
    path = folder / artifact.MANIFEST
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def replace(folder: Path, name: str, content: bytes) -> None:
    """Put other content into a file and the right hash of it into the manifest."""
    (folder / name).write_bytes(content)
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edit(folder, lambda values: values["files"].update({name: entry}))


def test_the_folder_holds_four_files_of_which_three_are_known_by_hash(saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} == {"manifest.json", *FILES}
    files = json.loads((saved / "manifest.json").read_text())["files"]
    for name, entry in files.items():
        content = (saved / name).read_bytes()
        assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert load_detector(saved).temperature == 1.3


def test_the_manifest_survives_a_round_trip(saved: Path) -> None:
    content = (saved / "manifest.json").read_bytes()
    assert artifact.parse_manifest(content).to_json() == content


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["one bit", "cut off", "longer", "empty"])
def test_a_file_that_was_changed_is_refused(folder: Path, name: str, harm: str) -> None:
    path = folder / name
    content = bytearray(path.read_bytes())
    if harm == "one bit":
        content[len(content) // 2] ^= 1
    path.write_bytes({"one bit": content, "cut off": content[:-1], "longer": content + b"0", "empty": b""}[harm])
    with pytest.raises(ArtifactError, match=name):
        load_detector(folder)


@pytest.mark.parametrize("name", ["manifest.json", *FILES])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=name):
        load_detector(folder)


def test_a_file_too_many_is_refused_but_not_a_hidden_one(folder: Path) -> None:
    (folder / ".DS_Store").write_bytes(b"left by a file manager")
    load_detector(folder)
    (folder / "more.py").write_text("raise SystemExit")
    with pytest.raises(ArtifactError, match=r"more\.py"):
        load_detector(folder)


@pytest.mark.parametrize("name", ["manifest.json", *FILES])
def test_links_are_not_followed(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    with pytest.raises(ArtifactError, match="links"):
        load_detector(folder)


def test_a_pipe_in_place_of_a_file_does_not_hang(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    os.mkfifo(folder / "model.onnx")
    with pytest.raises(ArtifactError, match="plain files"):
        load_detector(folder)


@pytest.mark.parametrize(("step", "way_out"), [(1, "pip install -U pneumolib"), (-1, "train it again")])
def test_another_format_is_refused_with_the_way_out(folder: Path, step: int, way_out: str) -> None:
    edit(folder, lambda values: values.update(format=artifact.FORMAT + step, unheard_of=True))
    with pytest.raises(ArtifactError, match=rf"{way_out}.*Received: {artifact.FORMAT + step}"):
        load_detector(folder)


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no format": lambda v: v.pop("format"),
    "an entry too many": lambda v: v.update(code="import os"),
    "an entry too few": lambda v: v.pop("reference"),
    "an unknown setting": lambda v: v["config"].update(lambda_layer="x"),
    "a setting out of range": lambda v: v["config"].update(size=10**9),
    "a config that is no object": lambda v: v.update(config=[1]),
    "other classes": lambda v: v.update(classes=["normal", "viral", "bacterial"]),
    "temperature zero": lambda v: v.update(temperature=0),
    "temperature true": lambda v: v.update(temperature=True),
    "temperature text": lambda v: v.update(temperature="1"),
    "no balanced point": lambda v: v.update(operating_points={}),
    "points in a list": lambda v: v.update(operating_points=[1]),
    "a threshold of one": lambda v: v["operating_points"]["balanced"].update(threshold=1),
    "a point with more": lambda v: v["operating_points"]["balanced"].update(more=1),
    "a point with less": lambda v: v["operating_points"]["balanced"].pop("rule"),
    "no pattern": lambda v: v["reference"].update(pattern=[]),
    "a card in a list": lambda v: v.update(card=[]),
    "a name of an object": lambda v: v.update(name={}),
    "a path outside": lambda v: v["files"].update({"../secret": v["files"]["model.onnx"]}),
    "another path": lambda v: v.update(files={"/etc/passwd": v["files"]["model.onnx"]}),
    "a size too large": lambda v: v["files"]["model.onnx"].update(bytes=1 << 40),
    "a size below zero": lambda v: v["files"]["model.onnx"].update(bytes=-1),
    "a hash in capitals": lambda v: v["files"]["model.onnx"].update(sha256="A" * 64),
    "files in a list": lambda v: v.update(files=["model.onnx", "weights.safetensors"]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_manifest_that_breaks_its_rules_is_refused(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    edit(folder, change)
    with pytest.raises(ArtifactError):
        load_detector(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b"\xff\xfe", b'{"format": 1, "temperature": NaN}', b"[" * 200_000, b" " * (2 << 20)],
    ids=["empty", "cut off", "null", "list", "no text", "not a number", "deep", "huge"],
)
def test_what_is_no_manifest_is_refused(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        load_detector(folder)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("name", FILES)
def test_a_pickle_with_the_right_hash_runs_nothing(folder: Path, tmp_path: Path, name: str) -> None:
    marker = tmp_path / "it ran"
    replace(folder, name, pickle.dumps(Bomb(marker)))
    with pytest.raises(ArtifactError):
        load_detector(folder).keras_model()
    assert not marker.exists()


def test_weights_of_another_form_with_the_right_hash_are_refused(folder: Path) -> None:
    from safetensors.numpy import load, save

    whole = load((folder / "weights.safetensors").read_bytes())
    first = sorted(whole)[0]
    for arrays, word in [
        ({k: v for k, v in whole.items() if k != first}, first),
        (whole | {"more": np.zeros(3, np.float32)}, "more"),
        (whole | {first: whole[first][..., :1]}, first),
        (whole | {first: whole[first].astype(np.float64)}, "float64"),
    ]:
        replace(folder, "weights.safetensors", save({k: np.array(v, order="C") for k, v in arrays.items()}))
        with pytest.raises(ArtifactError, match=word):
            load_detector(folder).keras_model()


def test_a_graph_of_another_form_with_the_right_hash_is_refused(folder: Path) -> None:
    from onnx import TensorProto, helper

    def graph(inputs: list[Any], outputs: list[Any]) -> bytes:
        made = helper.make_graph([helper.make_node("Identity", ["image"], ["logits"])], "g", inputs, outputs)
        return helper.make_model(made, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()

    value = helper.make_tensor_value_info
    for content in (
        graph([value("image", TensorProto.FLOAT, ["n", 3])], [value("logits", TensorProto.FLOAT, ["n", 3])]),
        b"no graph",
    ):
        replace(folder, "model.onnx", content)
        with pytest.raises(ArtifactError, match="graph"):
            load_detector(folder)


def test_a_graph_that_reads_other_files_is_not_opened(folder: Path, tmp_path: Path) -> None:
    import onnx

    model = onnx.load_from_string((folder / "model.onnx").read_bytes())
    tensor = model.graph.initializer[0]
    (tmp_path / "secret").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", str(tmp_path / "secret")
    replace(folder, "model.onnx", model.SerializeToString())
    with pytest.raises(ArtifactError, match="refers to other files"):
        load_detector(folder)


def test_a_file_that_changes_after_loading_is_not_read(folder: Path) -> None:
    detector = load_detector(folder)
    (folder / "weights.safetensors").write_bytes(b"something else")
    with pytest.raises(ArtifactError, match="not the file that was saved"):
        detector.keras_model()


def test_saving_replaces_no_folder_but_a_detector(saved: Path, tmp_path: Path) -> None:
    other = tmp_path / "photographs"
    other.mkdir()
    (other / "holiday.jpeg").write_bytes(b"dear")
    with pytest.raises(ArtifactError, match="neither"):
        load_detector(saved).save(other)
    assert (other / "holiday.jpeg").read_bytes() == b"dear"


def test_a_damaged_detector_is_not_copied(folder: Path, tmp_path: Path) -> None:
    detector = load_detector(folder)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(ArtifactError, match="weights"):
        detector.save(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_an_interrupted_save_leaves_what_was_there(
    saved: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    detector = load_detector(saved)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            detector.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["detector"]

    detector.save(folder)
    load_detector(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["detector"]
