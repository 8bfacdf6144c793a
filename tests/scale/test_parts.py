"""Parts: whole or not there, the same bytes each time, joined in order."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pneumolib.errors import DataError, MissingExtraError
from pneumolib.scale import parts
from pneumolib.scale.parts import (
    Row,
    blank_row,
    finished_part,
    join_parts,
    part_path,
    read_about,
    replacing,
    write_part,
)
from pneumolib.scale.tally import Tally


def rows(shard: int, n: int = 3) -> list[Row]:
    return [
        blank_row() | {"path": f"{shard}/{i} \u00fc\n.png", "probability": i / 7, "input_ok": True} for i in range(n)
    ]


def some(n: int = 3) -> Tally:
    return Tally(images=n, pneumonia=n - 1, errors=1, read_seconds=1.5)


def test_a_part_gives_back_its_counts_and_not_its_times(tmp_path: Path) -> None:
    write_part(tmp_path, 4, rows(4), "job", some())
    assert finished_part(tmp_path, 4, 3, "job") == Tally(images=3, pneumonia=2, errors=1)
    assert os.listdir(tmp_path) == [part_path(tmp_path, 4).name]


@pytest.mark.parametrize(("shard", "images", "job"), [(5, 3, "job"), (4, 2, "job"), (4, 3, "other")])
def test_a_part_that_is_missing_or_of_other_work_does_not_count(
    tmp_path: Path, shard: int, images: int, job: str
) -> None:
    write_part(tmp_path, 4, rows(4), "job", some())
    assert finished_part(tmp_path, shard, images, job) is None


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"x" * 500])
def test_a_damaged_part_does_not_count(tmp_path: Path, damage: bytes) -> None:
    part_path(tmp_path, 0).write_bytes(damage)
    assert finished_part(tmp_path, 0, 3, "job") is None


def test_a_foreign_parquet_file_does_not_count(tmp_path: Path) -> None:
    pq.write_table(pq.core.pa.table({"path": ["a", "b", "c"]}), part_path(tmp_path, 0))
    assert finished_part(tmp_path, 0, 3, "job") is None
    with pytest.raises(DataError, match="pneumolib score did not write"):
        read_about(part_path(tmp_path, 0))


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_part(tmp_path / name, 0, rows(0), "job", some())
    assert part_path(tmp_path / "a", 0).read_bytes() == part_path(tmp_path / "b", 0).read_bytes()


@pytest.mark.parametrize("group", [2, 7, 1000])
def test_parts_are_joined_in_order_whatever_the_size_of_the_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    monkeypatch.setattr(parts, "GROUP", group)
    for shard in (2, 0, 1):
        write_part(tmp_path, shard, rows(shard), "job", some())
    out = tmp_path / "all.parquet"
    assert join_parts(tmp_path, 3, out, {"counts": {"images": 9}}) == 9
    assert pq.read_table(out).to_pylist() == [row for shard in range(3) for row in rows(shard)]
    assert read_about(out) == {"counts": {"images": 9}}


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_text("before")

    def write_half() -> None:
        with replacing(target) as path:
            path.write_text("half")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk"):
        write_half()
    assert target.read_text() == "before"
    assert os.listdir(tmp_path) == ["x"]


def test_without_pyarrow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pneumolib\[score\]'"):
        parts.arrow()
