"""The whole of it: one call, every kind of input and output, the same rows each time."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from pneumolib.errors import ArtifactError, ConfigError, DataError, DataNotFoundError
from pneumolib.models.detector import Detector, load_detector
from pneumolib.scale import score as module
from pneumolib.scale.core import ScoringError
from pneumolib.scale.parts import blank_row
from pneumolib.scale.score import score

Archive = Callable[..., Path]
BAD = {"0/bad.jpeg": b"no image", "1/empty.png": b""}
QUICK = {"workers": 1, "progress": False}


def test_folder_zip_and_list_give_the_same_rows_and_parts_are_gone(archive: Archive, tmp_path: Path) -> None:
    place = archive(30, BAD)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        for path in place.rglob("*.*"):
            packed.write(path, path.relative_to(place))
    (place / "list.txt").write_text("".join(f"{p.relative_to(place)}\n" for p in sorted(place.rglob("*.*"))))
    tables = {}
    for name in ("archive", "a.zip", "archive/list.txt"):
        summary = score(tmp_path / name, tmp_path / "out.parquet", resume=False, **QUICK)
        assert (summary.images, summary.errors, summary.scored) == (32, 2, 32)
        assert summary.pneumonia + summary.normal + summary.refused == 30
        tables[name] = pq.read_table(tmp_path / "out.parquet")
        assert {p.name for p in tmp_path.iterdir()} == {"archive", "a.zip", "out.parquet"}
    first, *others = tables.values()
    assert all(other.equals(first) for other in others)
    assert first.column_names == list(blank_row())


def test_a_dicom_tree_is_scored_by_what_its_files_are(tmp_path: Path) -> None:
    data = pytest.importorskip("pydicom.data")
    tree = Path(data.__file__).parent / "test_files" / "dicomdirtests"
    for name in ("DICOMDIR", "77654033/CR1/6154", "77654033/CR2/6247", "77654033/CT2/17106"):
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes((tree / name).read_bytes())
    summary = score(tmp_path / "tree", tmp_path / "o.parquet", **QUICK)
    assert (summary.images, summary.errors, summary.left_out) == (3, 1, {"DICOMDIR": 1})
    rows = pq.read_table(tmp_path / "o.parquet").to_pylist()
    assert [row["path"] for row in rows] == ["77654033/CR1/6154", "77654033/CR2/6247", "77654033/CT2/17106"]
    assert [row["error"] is None for row in rows] == [True, True, False]
    assert "no digital radiograph" in rows[2]["error"]


def test_rows_are_what_predict_says(archive: Archive, tmp_path: Path, detector: Detector) -> None:
    place = archive(9)
    score(place, tmp_path / "o.parquet", detector=detector, **QUICK)
    for row in pd.read_parquet(tmp_path / "o.parquet").to_dict("records"):
        answer = detector.predict(place / row["path"])
        assert (row["probability"], row["threshold"]) == (answer.probability, answer.threshold)
        assert row["decision"] == answer.decision or (pd.isna(row["decision"]) and answer.decision is None)


@pytest.mark.parametrize(("workers", "shard_size"), [(1, 5), (2, 1000), (2, 7)])
def test_the_table_is_the_same_whatever_the_workers_and_shards(
    archive: Archive, tmp_path: Path, workers: int, shard_size: int
) -> None:
    place = archive(20, BAD)
    score(place, tmp_path / "a.parquet", **QUICK)
    score(place, tmp_path / "b.parquet", workers=workers, shard_size=shard_size, progress=False)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_folder_of_parts_is_the_result_where_the_name_is_no_parquet_file(archive: Archive, tmp_path: Path) -> None:
    place = archive(20)
    score(place, tmp_path / "one.parquet", **QUICK)
    score(place, tmp_path / "parts", shard_size=8, **QUICK)
    assert {path.name for path in (tmp_path / "parts").iterdir() if path.suffix != ".parquet"} == {
        "_SUCCESS", "_lock", "_manifest.json",
    }  # fmt: skip
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "parts"), pd.read_parquet(tmp_path / "one.parquet"))


@pytest.mark.parametrize("out", ["o.parquet", "parts"])
def test_a_second_call_finds_everything_done(
    archive: Archive, tmp_path: Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = archive(10, BAD)
    before = score(place, tmp_path / out, **QUICK)
    monkeypatch.setattr(module, "ENGINES", {"local": None})
    after = score(place, tmp_path / out, **QUICK)
    assert after.scored == 0
    assert (after.images, after.errors, after.pneumonia) == (before.images, before.errors, before.pneumonia)
    assert {p.name for p in tmp_path.iterdir()} == {"archive", out}


@pytest.mark.parametrize("out", ["o.parquet", "parts"])
def test_other_scores_are_never_written_over_without_being_asked(archive: Archive, tmp_path: Path, out: str) -> None:
    place = archive(10)
    score(place, tmp_path / out, **QUICK)
    (place / "new.png").write_bytes(b"x")
    with pytest.raises(DataError, match="--anew"):
        score(place, tmp_path / out, **QUICK)
    assert {p.name for p in tmp_path.iterdir()} == {"archive", out}
    assert pq.read_table(tmp_path / out).num_rows == 10
    assert score(place, tmp_path / out, resume=False, **QUICK).images == 11
    assert pq.read_table(tmp_path / out).num_rows == 11


def test_what_is_done_is_not_done_again(archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = archive(20)

    def stops(folder: Path, shards: list[int], workers: int | None):
        for shard in shards[:2]:
            yield from module.run_local(folder, [shard], workers)
        raise ScoringError("stopped")

    with monkeypatch.context() as patched:
        patched.setitem(module.ENGINES, "local", stops)
        with pytest.raises(ScoringError, match="stopped"):
            score(place, tmp_path / "o.parquet", shard_size=6, **QUICK)
    assert len(list((tmp_path / "o.parquet.parts").glob("part-*"))) == 2
    summary = score(place, tmp_path / "o.parquet", **QUICK)
    assert (summary.images, summary.scored) == (20, 8)
    assert "12 were done before" in str(summary)
    assert pq.read_table(tmp_path / "o.parquet").num_rows == 20


def test_an_engine_that_loses_a_part_is_caught(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loses(folder: Path, shards: list[int], workers: int | None):
        yield from module.run_local(folder, shards[1:], workers)

    monkeypatch.setitem(module.ENGINES, "local", loses)
    with pytest.raises(ScoringError, match=r"1 parts are not whole, 4 of 10 images"):
        score(archive(10), tmp_path / "o.parquet", shard_size=6, **QUICK)
    assert not (tmp_path / "o.parquet").exists()


def test_the_output_may_stand_in_the_input(archive: Archive) -> None:
    place = archive(5)
    assert score(place, place / "scores.parquet", **QUICK).images == 5
    assert score(place, place / "scores.parquet", **QUICK).scored == 0


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"engine": "dask"}, ConfigError, "Allowed: local, ray. Received: 'dask'"),
        ({"workers": 0}, ConfigError, "workers must be None, or 1 or more. Received: 0"),
        ({"shard_size": 0}, ConfigError, "shard_size must be None, or 1 to 65,536. Received: 0"),
        ({"operating_point": "best"}, ConfigError, "no such operating point.*Received: 'best'"),
        ({"input": "nowhere"}, DataNotFoundError, "nothing to score at that path"),
        ({"input": "empty"}, DataError, "no images to score.*Received: nothing at all"),
        ({"detector": "nowhere"}, DataNotFoundError, "no detector there"),
        ({"out": "file/x.parquet"}, DataError, "cannot be written to file/x.parquet: "),
        ({"out": "file"}, DataError, "cannot be written to file: "),
        ({"out": "folder.parquet"}, DataError, "A folder stands where"),
        ({"out": "foreign.parquet"}, DataError, "pneumolib score did not write"),
        ({"out": "archive"}, DataError, "new folder, or one that pneumolib score has begun"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing_behind(
    archive: Archive,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
    error: type[Exception],
    said: str,
) -> None:
    archive(3)
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "folder.parquet"):
        Path(folder).mkdir()
    Path("file").write_text("x")
    Path("foreign.parquet").write_text("x")
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(error, match=said):
        score(**{"input": "archive", "out": "out.parquet", **QUICK, **changes})  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_phantoms_detector_is_used_only_when_it_was_loaded_on_purpose(
    archive: Archive, tmp_path: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = archive(3)
    monkeypatch.setitem(detector._manifest.card, "phantom", True)
    detector.save(tmp_path / "phantom")
    with pytest.raises(ArtifactError, match="allow_phantom"):
        score(place, tmp_path / "o.parquet", detector=tmp_path / "phantom", **QUICK)
    loaded = load_detector(tmp_path / "phantom", allow_phantom=True, threads=1)
    summary = score(place, tmp_path / "o.parquet", detector=loaded, **QUICK)
    assert summary.phantom
    assert str(summary).startswith("PHANTOM: ")


@pytest.mark.skipif(sys.platform == "win32", reason="has no such locks")
def test_two_jobs_never_write_to_one_place_at_once(archive: Archive, tmp_path: Path) -> None:
    place, folder = archive(3), tmp_path / "o.parquet.parts"
    folder.mkdir()
    with module._locked(folder / "_lock"), pytest.raises(DataError, match="at this moment"):
        score(place, tmp_path / "o.parquet", **QUICK)
    assert score(place, tmp_path / "o.parquet", **QUICK).images == 3


def test_the_summary_says_what_became_of_all_files(archive: Archive, tmp_path: Path) -> None:
    text = str(score(archive(6, BAD | {"notes.pdf": b"x"}), tmp_path / "o.parquet", **QUICK))
    assert text.startswith("8 images: ")
    assert "2 not readable" in text
    assert "left out: 1 files of other kinds (1 .pdf)" in text
    assert text.endswith(f"written: {tmp_path / 'o.parquet'}")


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_an_archive_larger_than_memory_is_scored(tmp_path: Path) -> None:
    """12 pictures of 49 MB each: more than a process may ask for, which has room for its libraries and for a few."""
    side, limit, n = 7000, 500 * 2**20, 12
    header = b"BM" + (54 + 1024 + side * side).to_bytes(4, "little") + bytes(4) + (54 + 1024).to_bytes(4, "little")
    header += (40).to_bytes(4, "little") + side.to_bytes(4, "little") * 2 + b"\1\0\x08\0" + bytes(24)
    header += b"".join(bytes([i, i, i, 0]) for i in range(256))
    (tmp_path / "set").mkdir()
    for number in range(n):
        with open(tmp_path / "set" / f"{number}.bmp", "wb") as file:
            file.write(header)
            file.truncate(len(header) + side * side)
    assert n * side * side > limit
    program = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_DATA, ({limit}, {limit}))\n"
        "from pneumolib.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = ["score", str(tmp_path / "set"), "--out", str(tmp_path / "o.parquet"), "--workers", "1"]
    done = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert pq.read_table(tmp_path / "o.parquet")["input_ok"].to_pylist() == [False] * n
