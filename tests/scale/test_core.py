"""From members to rows: the answers of the detector, errors as rows, one file in memory, one part a shard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pneumolib.errors import DataError, ImageTooLargeError, MissingExtraError
from pneumolib.models.detector import Detector
from pneumolib.scale import core
from pneumolib.scale.attempts import MAX_DEATHS
from pneumolib.scale.core import BATCH, Worker, score_batch
from pneumolib.scale.inputs import Input, Member
from pneumolib.scale.manifest import note_path, open_job
from pneumolib.scale.parts import part_path
from pneumolib.scale.tally import Tally

Archive = Callable[..., Path]


def members(n: int) -> list[Member]:
    return [Member(str(i), 1) for i in range(n)]


def test_rows_say_what_predict_says(detector: Detector, pictures: list[bytes]) -> None:
    tally = Tally()
    rows = score_batch(
        detector, members(12), lambda m: pictures[int(m.path)], operating_point="high_sensitivity", tally=tally
    )
    for row, answer in zip(rows, detector.predict(pictures, operating_point="high_sensitivity"), strict=True):
        assert row["probability"] == answer.probability
        assert row["decision"] == answer.decision
        assert row["threshold"] == answer.threshold
        assert {name: row[name] for name in answer.subtypes} == answer.subtypes
        assert (row["input_ok"], row["input_reason"]) == (answer.input.ok, answer.input.reason)
        assert row["input_code"] == answer.input.code
        assert row["detector_sha256"] == detector.sha256
        assert row["error"] is None
    assert tally.images == 12 == tally.pneumonia + tally.normal + tally.refused
    assert tally.read_bytes == sum(map(len, pictures))
    assert min(tally.read_seconds, tally.decode_seconds, tally.network_seconds) > 0


@pytest.mark.parametrize(
    ("error", "said", "kind"),
    [
        (DataError("it cannot be read from the zip"), "it cannot be read from the zip", "DataError"),
        (ImageTooLargeError("too large"), "too large", "ImageTooLargeError"),
        (PermissionError(13, "Permission denied"), "Permission denied", "PermissionError"),
        (KeyError("what a decoder may raise"), "'what a decoder may raise'", "KeyError"),
    ],
)
def test_whatever_one_file_raises_is_a_row_and_the_others_are_scored(
    detector: Detector, pictures: list[bytes], error: Exception, said: str, kind: str
) -> None:
    def read(member: Member) -> bytes:
        if member.path == "1":
            raise error
        return pictures[0]

    tally = Tally()
    rows = score_batch(detector, members(3), read, tally=tally)
    assert [row["path"] for row in rows] == ["0", "1", "2"]
    assert (rows[1]["error"], rows[1]["error_type"], rows[1]["probability"]) == (said, kind, None)
    assert rows[0]["probability"] == rows[2]["probability"] is not None
    assert (tally.images, tally.errors) == (3, 1)


def test_a_batch_of_nothing_readable_is_rows_too(detector: Detector) -> None:
    rows = score_batch(detector, members(2), lambda member: b"GIF89a")
    assert [row["error_type"] for row in rows] == ["UnsupportedImageError"] * 2
    assert not rows[0]["error"].startswith("image:")


def test_want_of_memory_is_no_fault_of_the_file(
    detector: Detector, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.Image.Image.resize", full)
    with pytest.raises(MemoryError):
        score_batch(detector, members(1), lambda member: pictures[0])


def test_a_reader_that_is_not_installed_is_no_fault_of_the_file(
    detector: Detector, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: object) -> None:
        raise MissingExtraError("Install the extra: pip install 'pneumolib[dicom]'")

    monkeypatch.setattr(Detector, "prepare", lacking)
    with pytest.raises(MissingExtraError, match="dicom"):
        score_batch(detector, members(1), lambda member: pictures[0])


def test_one_files_bytes_are_held_at_a_time(detector: Detector, pictures: list[bytes]) -> None:
    class Counted(bytes):
        held = most = 0

        def __new__(cls, content: bytes) -> Counted:
            cls.held += 1
            cls.most = max(cls.most, cls.held)
            return super().__new__(cls, content)

        def __del__(self) -> None:
            Counted.held -= 1

    files = [*pictures, b"no image", b""] * 2
    score_batch(detector, members(len(files)), lambda member: Counted(files[int(member.path)]))
    assert Counted.most == 1


def test_answers_do_not_depend_on_who_else_is_in_the_batch(detector: Detector, pictures: list[bytes]) -> None:
    together = score_batch(detector, members(12), lambda member: pictures[int(member.path)])
    alone = [row for m in members(12) for row in score_batch(detector, [m], lambda member: pictures[int(member.path)])]
    assert together == alone


@pytest.fixture
def job(tmp_path: Path, archive: Archive, detector: Detector) -> Path:
    folder = tmp_path / "job"
    folder.mkdir()
    open_job(folder, Input(archive(2 * BATCH + 3, {"0/bad.png": b"no image"})), detector, shard_size=1000)
    return folder


def test_a_worker_scores_a_shard_batch_by_batch_into_a_part(job: Path) -> None:
    steps: list[int] = []
    answer = Worker(job, hangs=None).attempt(0, steps.append)
    assert answer["done"] == 0
    assert steps == [BATCH, BATCH, 4]
    assert answer["tally"]["images"] == 2 * BATCH + 4
    assert answer["tally"]["errors"] == 1
    assert pq.read_metadata(part_path(job, 0)).num_rows == 2 * BATCH + 4
    assert not note_path(job, 0).exists()


def test_an_input_that_is_gone_stops_the_job_and_makes_no_rows(job: Path, archive: Archive, tmp_path: Path) -> None:
    worker = Worker(job, hangs=None)
    (tmp_path / "archive").rename(tmp_path / "unmounted")
    answer = worker.attempt(0)
    assert "not there any more" in answer["error"]
    assert not part_path(job, 0).exists()


def test_one_missing_file_is_a_row(job: Path, tmp_path: Path) -> None:
    (tmp_path / "archive" / "1" / "0001.jpeg").unlink()
    assert Worker(job, hangs=None).attempt(0)["tally"]["errors"] == 2


def test_a_full_disk_stops_the_job_and_says_so(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(core, "write_part", full)
    answer = Worker(job, hangs=None).attempt(0)
    assert "No space left on device" in answer["error"]
    assert note_path(job, 0).read_bytes().startswith(b" ")


def test_deaths_at_no_file_end_in_advice(job: Path) -> None:
    note_path(job, 0).write_text(f"-1\n[[-1, {MAX_DEATHS - 1}]]\n")
    assert "fewer workers" in Worker(job, hangs=None).attempt(0)["error"]


def test_a_deadly_file_is_left_out_as_a_row(job: Path) -> None:
    note_path(job, 0).write_text(f"5\n[[5, {MAX_DEATHS - 1}]]\n")
    answer = Worker(job, hangs=None).attempt(0)
    assert (answer["tally"]["errors"], answer["tally"]["deaths"]) == (2, MAX_DEATHS)
    row = pq.read_table(part_path(job, 0)).to_pylist()[5]
    assert "crashed, ran out of memory or hung" in row["error"]
