"""A job on disk: its shards, its identity, and what it refuses to go on with."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import pneumolib
from pneumolib.errors import ArtifactError, ConfigError, DataError
from pneumolib.models.detector import Detector, load_detector
from pneumolib.scale.inputs import Input
from pneumolib.scale.manifest import MANIFEST, Manifest, clear, default_shard_size, open_job, read_manifest
from pneumolib.scale.parts import blank_row, write_part
from pneumolib.scale.tally import Tally

Archive = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "job").mkdir()
    return tmp_path / "job"


def begin(folder: Path, archive: Path, detector: Detector, **settings: object) -> Manifest:
    """Open a job and finish its first shard."""
    manifest = open_job(folder, Input(archive), detector, **settings)  # type: ignore[arg-type]
    n = manifest.size(0)
    write_part(folder, 0, [blank_row() | {"path": "x"}] * n, manifest.job, Tally(images=n))
    return manifest


@pytest.mark.parametrize("size", [1, 4, 7, 10, 100])
def test_shards_hold_every_member_once_and_in_order(
    folder: Path, archive: Archive, detector: Detector, size: int
) -> None:
    source = Input(archive(10))
    manifest = open_job(folder, source, detector, shard_size=size)
    found = [member for shard in range(manifest.shards) for member in manifest.members(folder, shard)]
    assert found == list(source.members())
    assert [len(manifest.members(folder, s)) for s in range(manifest.shards)] == [
        manifest.size(s) for s in range(manifest.shards)
    ]
    assert read_manifest(folder) == manifest


def test_the_size_of_shards_follows_the_number_of_images() -> None:
    assert [default_shard_size(n) for n in (1, 2000, 20_000, 64_000, 10_000_000)] == [32, 32, 313, 1000, 1000]


def test_the_copy_of_the_detector_is_the_detector(folder: Path, archive: Archive, detector: Detector) -> None:
    manifest = open_job(folder, Input(archive(3)), detector)
    assert load_detector(folder / "_detector").sha256 == detector.sha256 == manifest.detector["sha256"]


def test_the_same_job_goes_on_even_where_the_archive_has_moved(
    folder: Path, archive: Archive, detector: Detector
) -> None:
    place = archive(10)
    before = begin(folder, place, detector, shard_size=4)
    place.rename(place.with_name("moved"))
    after = open_job(folder, Input(place.with_name("moved")), detector)
    assert (after.job, after.offsets, after.shard_size) == (before.job, before.offsets, 4)
    assert after.root == str(place.with_name("moved"))


def remove(place: Path) -> None:
    (place / "0" / "0003.jpeg").unlink()


def add(place: Path) -> None:
    (place / "0" / "0003b.jpeg").write_bytes(b"x")


def touch(place: Path) -> None:
    os.utime(place / "0" / "0003.jpeg", ns=(1, 1))


def alter(place: Path) -> None:
    path = place / "0" / "0003.jpeg"
    changed = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes() + b"x")
    os.utime(path, ns=(changed, changed))


@pytest.mark.parametrize("change", [remove, add, touch, alter])
def test_a_changed_input_is_refused_with_the_first_change_and_the_way_out(
    folder: Path, archive: Archive, detector: Detector, change: Callable[[Path], None]
) -> None:
    place = archive(10)
    begin(folder, place, detector)
    change(place)
    with pytest.raises(DataError, match=r"(?s)has changed.*first at 0/0003.*--anew"):
        open_job(folder, Input(place), detector)
    assert sorted(os.listdir(folder)) == ["_detector", MANIFEST, "_members.jsonl", "part-0000000.parquet"]


def test_another_operating_point_is_refused(folder: Path, archive: Archive, detector: Detector) -> None:
    place = archive(10)
    begin(folder, place, detector)
    with pytest.raises(DataError, match=r"another operating point.*Allowed: balanced\. Received: high_sensitivity"):
        open_job(folder, Input(place), detector, operating_point="high_sensitivity")


def test_another_detector_is_refused(
    folder: Path, archive: Archive, detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = archive(10)
    begin(folder, place, detector)
    monkeypatch.setattr(Detector, "sha256", "0" * 64)
    with pytest.raises(DataError, match=r"another detector.*Received: .*SHA-256 000000000000"):
        open_job(folder, Input(place), detector)


def test_another_version_of_the_package_is_refused(folder: Path, archive: Archive, detector: Detector) -> None:
    place = archive(10)
    begin(folder, place, detector)
    values = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(values | {"pneumolib": "0.0.1"}))
    with pytest.raises(DataError, match=f"another version.*Allowed: 0.0.1. Received: {pneumolib.__version__}"):
        open_job(folder, Input(place), detector)


def test_another_size_of_shards_is_refused(folder: Path, archive: Archive, detector: Detector) -> None:
    place = archive(10)
    begin(folder, place, detector, shard_size=4)
    with pytest.raises(ConfigError, match=r"Allowed: 4\. Received: 5"):
        open_job(folder, Input(place), detector, shard_size=5)


def test_where_nothing_is_finished_nothing_can_be_mixed(folder: Path, archive: Archive, detector: Detector) -> None:
    place = archive(10)
    before = open_job(folder, Input(place), detector)
    add(place)
    after = open_job(folder, Input(place), detector)
    assert (before.images, after.images) == (10, 11)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": 99}', '{"format": 1, "root": "x"}'])
def test_a_damaged_manifest_is_refused(folder: Path, content: str) -> None:
    (folder / MANIFEST).write_text(content)
    with pytest.raises(ArtifactError):
        read_manifest(folder)


def test_nothing_to_score_is_an_error_that_says_what_is_there(folder: Path, tmp_path: Path, detector: Detector) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.pdf").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no images to score.*\.jpeg.*Received: 1 \.pdf"):
        open_job(folder, Input(tmp_path / "set"), detector)
    assert os.listdir(folder) == []


def test_clearing_takes_what_is_the_jobs_and_nothing_else(folder: Path, archive: Archive, detector: Detector) -> None:
    begin(folder, archive(10), detector)
    (folder / ".part-0000001.parquet.abc.tmp").write_bytes(b"x")
    (folder / "shard-0000001.doing").write_bytes(b"")
    (folder / "mine.parquet").write_bytes(b"x")
    clear(folder, keep_parts=True)
    assert sorted(os.listdir(folder)) == [MANIFEST, "mine.parquet", "part-0000000.parquet"]
    clear(folder)
    assert os.listdir(folder) == ["mine.parquet"]
