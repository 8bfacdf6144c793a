"""Many files: each is answered as it would be alone, in order, side by side, whatever the others are."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from pneumolib.data.radiograph import draw
from pneumolib.errors import ArtifactError, ConfigError
from pneumolib.models.detector import Detector, load_detector
from pneumolib.models.files import Answer, predict_files
from pneumolib.models.heat_files import HeatFolder


@pytest.fixture(scope="module")
def detector() -> Detector:
    return load_detector(threads=1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six X-rays, and amid them a text, a folder, a picture without contrast, and a file that is not there."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{seed}.png" for seed in range(6)]
    for seed, path in enumerate(paths):
        Image.fromarray(draw(("normal", "bacterial", "viral")[seed % 3], seed, size=(240, 300))).save(path)
    (folder / "text.png").write_text("no picture")
    (folder / "folder.png").mkdir()
    Image.new("L", (300, 240), 128).save(folder / "gray.png")
    paths[2:2] = [folder / name for name in ("text.png", "folder.png", "gray.png", "missing.png")]
    return paths


@pytest.mark.parametrize("workers", [1, 3, None])
def test_every_file_is_answered_as_alone_and_in_order(
    detector: Detector, files: list[Path], workers: int | None
) -> None:
    answers = list(predict_files(detector, files, operating_point="high_sensitivity", workers=workers))
    assert [answer.path for answer in answers] == files
    unreadable = {"text.png", "folder.png", "missing.png"}
    for answer in answers:
        assert answer.heat_map is None
        if answer.path.name in unreadable:
            assert answer.outcome == "unreadable"
            assert answer.prediction is None
            assert str(answer.path) in (answer.problem or "")
        else:
            assert answer.prediction == detector.predict(answer.path, operating_point="high_sensitivity")
            assert answer.outcome == ("refused" if answer.path.name == "gray.png" else "scored")
            assert answer.problem is None


def test_no_file_is_no_answer(detector: Detector) -> None:
    assert list(predict_files(detector, [])) == []


def test_a_wrong_operating_point_is_told_before_the_first_file(detector: Detector) -> None:
    with pytest.raises(ConfigError, match=r"balanced.*Received: 'mine'"):
        predict_files(detector, [Path("missing.png")], operating_point="mine")


def test_heat_maps_change_no_answer_and_come_where_there_is_one(
    detector: Detector, files: list[Path], tmp_path: Path
) -> None:
    names = [Path(path.name) for path in files]
    plain = list(predict_files(detector, files))
    drawn = list(predict_files(detector, files, heat_folder=HeatFolder(tmp_path), heat_names=names, workers=3))
    for before, after in zip(plain, drawn, strict=True):
        assert (after.path, after.prediction, after.problem) == (before.path, before.prediction, before.problem)
        expected = tmp_path / f"{after.path.name}.png" if before.outcome == "scored" else None
        assert after.heat_map == expected
    assert sorted(tmp_path.iterdir()) == sorted(answer.heat_map for answer in drawn if answer.heat_map)


def test_a_heat_map_that_fails_leaves_the_answer(detector: Detector, files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "0.png.png").write_text("mine")
    names = [Path(path.name) for path in files]
    first, second, *_ = predict_files(detector, files, heat_folder=HeatFolder(tmp_path), heat_names=names)
    assert first.outcome == second.outcome == "scored"
    assert first.heat_map is None
    assert "not written over another file" in (first.problem or "")
    assert (second.heat_map, second.problem) == (tmp_path / "1.png.png", None)


class Stub:
    """A detector that answers by a function of the path."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.asked = answer, list[Path]()

    def predict(self, x: Any, *, operating_point: str) -> Any:
        if isinstance(x, list):
            return []
        self.asked.append(x)
        return self.answer(x)


PATHS = [Path(str(number)) for number in range(100)]


def scored(stub: Any, **settings: Any) -> Any:
    return predict_files(stub, PATHS, **settings)


def test_files_are_scored_side_by_side_and_a_slow_one_keeps_its_place() -> None:
    other = threading.Event()

    def answer(path: Path) -> str:
        if path == PATHS[0]:
            assert other.wait(60), "no other file was begun beside the first"
        other.set()
        return path.name

    assert [found.prediction for found in scored(Stub(answer), workers=2)] == [path.name for path in PATHS]


@pytest.mark.parametrize("workers", [1, 2])
def test_after_the_end_no_file_is_begun(workers: int) -> None:
    stub = Stub(lambda path: path.name)
    answers = scored(stub, workers=workers)
    assert next(answers) == Answer(PATHS[0], "0")  # type: ignore[arg-type]
    answers.close()
    assert len(stub.asked) < 20


def test_what_the_system_refuses_is_named_and_a_fault_of_ours_is_not_hidden() -> None:
    def answer(path: Path) -> None:
        raise PermissionError(13, "Permission denied") if path == PATHS[0] else ZeroDivisionError

    answers = scored(Stub(answer), workers=2)
    assert next(answers) == Answer(PATHS[0], problem="0: Permission denied")
    with pytest.raises(ZeroDivisionError):
        next(answers)


def test_a_detector_without_weights_for_heat_is_told_before_the_first_file(tmp_path: Path) -> None:
    class Damaged(Stub):
        def classifier(self) -> None:
            raise ArtifactError("The detector's weights are damaged.")

    with pytest.raises(ArtifactError, match="damaged"):
        scored(Damaged(None), heat_folder=HeatFolder(tmp_path), heat_names=PATHS)
