"""Exports: the same calibrated answers in every runtime, whole or not at all, and clear about what they leave out."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pneumolib import runtime
from pneumolib.config import Config
from pneumolib.data.images import square
from pneumolib.data.radiograph import draw
from pneumolib.errors import ArtifactError, ConfigError, DataError, MissingExtraError
from pneumolib.evaluation.calibration import OperatingPoint
from pneumolib.models import export as module
from pneumolib.models import export_graphs
from pneumolib.models.detector import Detector, load_detector, make_detector
from pneumolib.models.export import BOUNDS, PRECISIONS, ExportResult, export
from pneumolib.models.export_runs import open_export
from pneumolib.models.reference import fit_reference
from pneumolib.models.resnet import build_model

WAYS = [(format, precision) for format, precisions in PRECISIONS.items() for precision in precisions]
DOCS = (Path(__file__).resolve().parents[2] / "docs" / "export.md").read_text(encoding="utf-8")


def x_rays(first: int, n: int) -> NDArray[np.uint8]:
    subtypes = ("normal", "bacterial", "viral")
    return np.stack([square(draw(subtypes[i % 3], i, size=(96, 112)), 64) for i in range(first, first + n)])


def make(**card: Any) -> Detector:
    with runtime.seeded(0):
        model = build_model(Config.preset("ci", width=8), precision="float32")
    rng = np.random.default_rng(3)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            n = layer.gamma.shape
            means, variances = rng.normal(0, 0.1, n), rng.uniform(0.5, 2, n)
            layer.set_weights([rng.uniform(0.5, 1.5, n), rng.normal(0, 0.1, n), means, variances])
    # Random weights answer all alike: the logits are centred and spread, so that answers are undecided and differ.
    images = x_rays(0, 12)
    pooled = runtime.keras().Model(model.input, model.get_layer("pooled").output)
    values = np.asarray(pooled(images[..., None].astype(np.float32)))
    kernel = rng.normal(size=(values.shape[1], 3))
    kernel *= 0.5 / (values @ kernel).std(0)
    model.get_layer("logits").set_weights([kernel, -(values @ kernel).mean(0)])
    point = OperatingPoint(name="balanced", threshold=0.6, sensitivity=0.9, specificity=0.8, rule="for the test")
    return make_detector(
        model,
        Config.preset("ci", width=8),
        name="for-the-test",
        temperature=1.7,
        operating_points={"balanced": point},
        reference=fit_reference(images),
        card=card,
    )


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make()


@pytest.fixture(scope="module")
def exports(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], ExportResult]:
    """The detector in every format and precision."""
    place = tmp_path_factory.mktemp("exports")
    images = x_rays(100, 30)
    return {
        (format, precision): export(
            detector, place / f"{format}-{precision}", format=format, precision=precision, representative=images
        )
        for format, precision in WAYS
    }


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_it_answers_as_the_detector_does_for_any_number_of_images(
    exports: dict[tuple[str, str], ExportResult], detector: Detector, way: tuple[str, str]
) -> None:
    result, images = exports[way], x_rays(200, 12)
    answer = open_export(result.folder, way[0])
    expected = detector.predict_images(images)
    assert np.ptp(expected, axis=0).min() > 0.1, "the answers must differ from image to image"
    for n in (12, 1, 5):
        answers = answer(images[:n, ..., None].astype(np.float32))
        assert answers.dtype == np.float32
        np.testing.assert_allclose(answers, expected[:n], rtol=0, atol=BOUNDS[way[1]])
        np.testing.assert_allclose(answers.sum(1), 1, atol=0.01)
    assert 0 <= result.max_difference <= result.bound == BOUNDS[way[1]]
    assert (result.max_difference > 1e-5) == (way[1] != "float32")
    assert result.latency_ms > 0
    assert f"{result.n_images} images" in str(result)


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_the_json_beside_it_says_what_it_is(
    exports: dict[tuple[str, str], ExportResult], detector: Detector, way: tuple[str, str]
) -> None:
    folder = exports[way].folder
    facts = json.loads((folder / "detector.json").read_text(encoding="utf-8"))
    assert facts["detector"] == {"name": "for-the-test", "version": detector.version, "sha256": detector.sha256}
    assert (facts["export"]["format"], facts["export"]["precision"]) == way
    assert facts["classes"] == list(detector.class_names)
    assert facts["operating_points"]["balanced"]["threshold"] == 0.6
    assert facts["input"]["shape"] == [None, 64, 64, 1]
    assert facts["input_check"]["in_graph"] is False
    assert "no medical device" in facts["notice"]
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    del found["detector.json"]
    sums = {name: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for name, c in found.items()}
    assert facts["files"] == sums
    assert set(exports[way].files) == {*found, "detector.json"}
    assert exports[way].n_bytes == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_fewer_bits_take_fewer_bytes(exports: dict[tuple[str, str], ExportResult]) -> None:
    size = {way: result.n_bytes for way, result in exports.items()}
    assert size["litert", "float16"] < 0.7 * size["litert", "float32"]
    for format in ("litert", "onnx"):  # what OpenVINO writes of so small a network is mostly its text
        assert size[format, "int8"] < 0.6 * size[format, "float32"]


def test_a_session_as_tensorflow_serving_makes_it_finds_the_signature(
    exports: dict[tuple[str, str], ExportResult], detector: Detector
) -> None:
    tf = runtime.tensorflow()
    images = x_rays(200, 3)
    with runtime.quiet(), tf.Graph().as_default(), tf.compat.v1.Session() as session:
        folder = exports["saved_model", "float32"].folder / "1"
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
        signature = loaded.signature_def["serving_default"]
        ((given, x),) = signature.inputs.items()
        ((told, p),) = signature.outputs.items()
        answers = session.run(p.name, {x.name: images[..., None]})
    assert (given, told) == ("image", "probabilities")
    assert [d.size for d in x.tensor_shape.dim] == [-1, 64, 64, 1]
    assert [d.size for d in p.tensor_shape.dim] == [-1, 3]
    np.testing.assert_allclose(answers, detector.predict_images(images), atol=1e-5)


def test_what_differs_is_refused_and_leaves_what_stood_there(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(detector, tmp_path / "out", format="onnx")
    before = (tmp_path / "out/1/model.onnx").read_bytes()
    right = export_graphs.onnx
    monkeypatch.setattr(export_graphs, "onnx", lambda model, temperature, images: right(model, 1.01 * temperature))
    for name in ("out", "new"):
        with pytest.raises(ArtifactError, match=r"not kept.*Allowed: 1e-05\. Received"):
            export(detector, tmp_path / name, format="onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out/1/model.onnx").read_bytes() == before


def test_an_export_is_replaced_whole_and_nothing_else_is(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    export(detector, tmp_path / "empty", format="litert")
    export(detector, tmp_path / "empty", format="onnx")
    assert sorted(p.name for p in (tmp_path / "empty").rglob("*")) == ["1", "detector.json", "model.onnx"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/detector.json").write_text('{"format": 2}')
    (tmp_path / "file").write_text("mine")
    for name in ("mine", "file"):
        with pytest.raises(ArtifactError, match="neither"):
            export(detector, tmp_path / name, format="onnx")
    with pytest.raises(ArtifactError, match="cannot be written"):
        export(detector, tmp_path / "file" / "below", format="onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "mine"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"format": "torch"}, ConfigError, "Allowed: saved_model, onnx, litert, openvino. Received: 'torch'"),
        ({"format": "onnx", "precision": "float16"}, ConfigError, "Allowed: float32, int8. Received: 'float16'"),
        ({"format": "litert", "precision": "int8"}, ConfigError, "20 or more. Received: 0"),
        ({"format": "onnx", "representative": np.zeros((20, 32, 32), np.uint8)}, DataError, r"uint8 \[N, 64, 64\]"),
        ({"format": "onnx", "representative": np.zeros((20, 64, 64))}, DataError, "Received: float64"),
    ],
)
def test_what_is_not_offered_is_said_before_anything_is_written(
    detector: Detector, tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        export(detector, tmp_path / "out", **changes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("format", "package"), [("litert", "ai_edge_litert"), ("openvino", "openvino")])
def test_a_missing_package_names_the_extra(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package}.*pneumolib\[export\]"):
        export(detector, tmp_path / "out", format=format)


def test_a_phantom_stays_one(tmp_path: Path) -> None:
    export(make(phantom=True), tmp_path / "out", format="onnx")
    facts = json.loads((tmp_path / "out/detector.json").read_text(encoding="utf-8"))
    assert facts["phantom"] is True
    assert facts["notice"].startswith("PHANTOM")


def test_the_comparison_asks_where_the_detector_that_ships_is_undecided() -> None:
    detector = load_detector()
    p = detector.probability(module._trial_images(detector.size))
    assert len(np.unique(np.digitize(p, [0.5, 0.6, 0.7, 0.8, 0.9]))) == 6


def test_the_script_of_the_docs_runs_without_tensorflow(
    exports: dict[tuple[str, str], ExportResult], detector: Detector, tmp_path: Path
) -> None:
    (script,) = (b for b in re.findall(r"```python\n(.*?)```", DOCS, flags=re.DOTALL) if "ai_edge_litert" in b)
    picture = tmp_path / "x-ray.png"
    Image.fromarray(draw("viral", 7, size=(96, 112))).save(picture)
    block = "import sys; sys.modules.update(tensorflow=None, keras=None, onnxruntime=None)\n"
    command = [sys.executable, "-W", "error", "-c", block + script]
    for precision in PRECISIONS["litert"]:
        arguments = [str(exports["litert", precision].folder), str(picture)]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        decision, probability = done.stdout.split()
        expected = detector.predict(picture).probability
        assert float(probability) == pytest.approx(expected, abs=BOUNDS[precision] + 1e-4)
        assert decision == ("pneumonia" if float(probability) >= 0.6 else "normal")


def test_the_snippets_of_the_docs_name_what_the_graph_has(exports: dict[tuple[str, str], ExportResult]) -> None:
    shipped = load_detector()
    (triton,) = re.findall(r"```protobuf\n(.*?)```", DOCS, flags=re.DOTALL)
    assert re.findall(r'name: "(\w+)" data_type: TYPE_FP32 dims: (\[.*?\])', triton) == [
        ("image", f"[{shipped.size}, {shipped.size}, 1]"),
        ("probabilities", f"[{len(shipped.class_names)}]"),
    ]
    for format, place in re.findall(r"^\| `(\w+)` \|.*?\| `([^`]+)`", DOCS, flags=re.MULTILINE):
        assert place in exports[format, "float32"].files


def test_openvino_is_imported_with_its_reporting_off(tmp_path: Path) -> None:
    code = "from pneumolib.models.export_graphs import import_openvino; print(import_openvino().__version__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"HOME": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("20")
    assert not list(tmp_path.iterdir())
