"""Scores as Parquet: a part for each shard, written whole or not at all, and the parts joined into one file.

A part is written under a temporary name, flushed to the disk and renamed, so that what bears a part's name is a
finished part of this very job; writing it again changes nothing. The same scores give the same bytes.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pneumolib.errors import DataError, MissingExtraError
from pneumolib.scale.tally import Tally

Row = dict[str, Any]

GROUP = 65_536  # rows, or a few more, of the joined file that stand together and are in memory at a time
TEMPORARY = ".tmp"
_KEY = b"pneumolib"
_COLUMNS = {
    "path": "string",
    "probability": "double",
    "decision": "string",
    "threshold": "double",
    "operating_point": "string",
    "bacterial": "double",
    "viral": "double",
    "input_ok": "bool",
    "input_reason": "string",
    "input_code": "string",
    "error": "string",
    "error_type": "string",
    "detector_name": "string",
    "detector_version": "string",
    "detector_sha256": "string",
}


def blank_row() -> Row:
    """Return a row in which nothing is said yet; its keys are the columns of the scores, in order."""
    return dict.fromkeys(_COLUMNS)


def part_path(folder: Path, shard: int) -> Path:
    """Return where the part of a shard stands."""
    return folder / f"part-{shard:07d}.parquet"


def write_part(folder: Path, shard: int, rows: Sequence[Row], job: str, tally: Tally) -> None:
    """Write the part of one shard.

    Args:
        folder: of the job.
        shard: its number.
        rows: as `blank_row` makes them, in order.
        job: the job's fingerprint; a part of another job does not count as finished.
        tally: of the rows; its counts are kept with them.

    Raises:
        OSError: the disk is full, or the folder is not to be written to.
        MissingExtraError: pyarrow is not installed.
    """
    about = {"job": job, "shard": shard, "counts": tally.counts()}
    table = arrow().Table.from_pylist(list(rows), schema=_schema(about))
    with replacing(part_path(folder, shard)) as path:
        parquet().write_table(table, path, compression="zstd")


def finished_part(folder: Path, shard: int, images: int, job: str) -> Tally | None:
    """Return the counts of a shard whose part is whole and of this job, else None."""
    path = part_path(folder, shard)
    if not path.is_file():
        return None
    try:
        facts = parquet().read_metadata(path)
        about = json.loads(facts.metadata[_KEY])
        if (about["job"], about["shard"], facts.num_rows) == (job, shard, images):
            return Tally.from_dict(about["counts"])
    except (arrow().ArrowException, OSError, KeyError, TypeError, ValueError):
        pass  # damaged, or of another make: it is written anew
    return None


def join_parts(folder: Path, shards: int, out: Path, about: dict[str, Any]) -> int:
    """Write the parts, in order, as one Parquet file, and return the number of its rows.

    Args:
        folder: of the job.
        shards: how many parts there are.
        out: the file; one that stands there is replaced when the new one is whole.
        about: plain values to keep in the file; `read_about` gives them back.

    Raises:
        OSError: the disk is full, or `out` is not to be written.
    """
    pa, pq, rows = arrow(), parquet(), 0
    schema = _schema(about)
    with replacing(out) as path, pq.ParquetWriter(path, schema, compression="zstd") as writer:
        waiting: list[Any] = []
        for shard in range(shards):
            with pq.ParquetFile(part_path(folder, shard), pre_buffer=False) as part:
                waiting.append(part.read(use_threads=False).replace_schema_metadata(schema.metadata))
            if sum(table.num_rows for table in waiting) >= GROUP or shard == shards - 1:
                group = pa.concat_tables(waiting)
                writer.write_table(group)
                rows += group.num_rows
                waiting = []
    return rows


def read_about(path: Path) -> dict[str, Any]:
    """Return what `join_parts` kept in a file.

    Raises:
        DataError: it is no Parquet file, or not of our make.
    """
    try:
        about: dict[str, Any] = json.loads(parquet().read_metadata(path).metadata[_KEY])
    except (arrow().ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"Something stands there that pneumolib score did not write: {path}. Name another file, or move it away."
        ) from error
    return about


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to; what was written takes the name of `path` when it is whole."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{TEMPORARY}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if hasattr(os, "O_DIRECTORY"):
        # The new name is on the disk only when the folder is.
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def arrow() -> Any:
    """Return the module `pyarrow`; `MissingExtraError` where it is not installed."""
    return _module("pyarrow")


def parquet() -> Any:
    """Return the module `pyarrow.parquet`; `MissingExtraError` where it is not installed."""
    return _module("pyarrow.parquet")


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"Scores are written with {error.name}, which is not installed. Install the extra: "
            "pip install 'pneumolib[score]'"
        ) from error


def _schema(about: dict[str, Any]) -> Any:
    pa = arrow()
    kinds = {"string": pa.string(), "double": pa.float64(), "bool": pa.bool_()}
    fields = [pa.field(name, kinds[kind], nullable=name != "path") for name, kind in _COLUMNS.items()]
    return pa.schema(fields, metadata={_KEY: json.dumps(about)})
