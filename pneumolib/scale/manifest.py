"""A scoring job on disk: what is scored, with what, in which shards, so that a second call goes on with the first.

The job's folder holds ``_manifest.json`` (the facts below), ``_members.jsonl`` (a line for each file, in order),
``_detector`` (a copy of the detector) and a part for each finished shard. The manifest is written last: where it
stands, the rest is whole. It names the job by a fingerprint of the files' names, sizes, times or checksums, of the
detector and of the operating point; a call with another fingerprint is refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pneumolib
from pneumolib.data.pictures import DICOM_SUFFIXES, SUFFIXES
from pneumolib.errors import ArtifactError, ConfigError, DataError
from pneumolib.models.detector import Detector
from pneumolib.scale.attempts import forget_accidents
from pneumolib.scale.inputs import Input, Member, text
from pneumolib.scale.parts import TEMPORARY, part_path, replacing

FORMAT = 1
MANIFEST, MEMBERS, DETECTOR, LOCK = "_manifest.json", "_members.jsonl", "_detector", "_lock"
SUCCESS = "_SUCCESS"  # stands in a folder of parts when the job is finished
MAX_SHARD = 65_536
_NOTE = ".doing"
_PARTS = part_path(Path(), 0).name.replace("0", "[0-9]")


@dataclass(frozen=True)
class Manifest:
    """What a job is, as ``_manifest.json`` says it."""

    root: str  # where the members are read
    listing: str  # SHA-256 of the members' lines
    images: int
    shard_size: int
    offsets: tuple[int, ...]  # where the lines of each shard begin, bytes
    detector: dict[str, Any]  # name, version, sha256, phantom
    operating_point: str
    phantom: bool  # was the mark of a synthetic data set met among the files?
    left_out: dict[str, int]  # suffix -> files of other kinds
    pneumolib: str = pneumolib.__version__
    format: int = FORMAT

    @property
    def job(self) -> str:
        """The fingerprint: 16 hexadecimal digits of all that decides a row."""
        facts = [self.format, self.pneumolib, self.listing, self.detector["sha256"], self.operating_point]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    @property
    def shards(self) -> int:
        """The number of shards."""
        return len(self.offsets)

    def size(self, shard: int) -> int:
        """Return the number of members of a shard."""
        return min(self.shard_size, self.images - shard * self.shard_size)

    def members(self, folder: Path, shard: int) -> list[Member]:
        """Return the members of a shard of the job in `folder`."""
        with open(folder / MEMBERS, "rb") as file:
            file.seek(self.offsets[shard])
            return [Member.from_json(line) for line in itertools.islice(file, self.size(shard))]

    def save(self, folder: Path) -> None:
        """Write it into the job's folder."""
        with replacing(folder / MANIFEST) as path:
            path.write_text(json.dumps(dataclasses.asdict(self)) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of the job in `folder`.

    Raises:
        ArtifactError: it is damaged, or of another version.
    """
    try:
        values = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise ArtifactError(
                f"The job in {folder} was begun by another version of pneumolib. Go on with that version, or start "
                f"anew. Allowed: format {FORMAT}. Received: {values['format']}"
            )
        return Manifest(**{**values, "offsets": tuple(values["offsets"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"The job in {folder} is damaged: {MANIFEST}: {error}. Start anew.") from error


def open_job(
    folder: Path,
    source: Input,
    detector: Detector,
    *,
    operating_point: str = "balanced",
    shard_size: int | None = None,
) -> Manifest:
    """Return the manifest of the job that scores `source`: the one in `folder`, if it is this very job, or a new one.

    Args:
        folder: exists, and is empty or holds a job.
        source: what is scored; listed here, each time.
        detector: what it is scored with; copied into the folder, for the workers.
        operating_point: by which decisions are made.
        shard_size: images of a shard; None leaves it to the number of images, or to the job that is there.

    Raises:
        DataError: there is nothing to score, or the folder holds another job.
        ConfigError: the job that is there has shards of another size.
        ArtifactError: the job that is there is damaged.
    """
    try:
        return _open(folder, source, detector, operating_point, shard_size)
    finally:
        (folder / f"{MEMBERS}{TEMPORARY}").unlink(missing_ok=True)


def _open(folder: Path, source: Input, detector: Detector, operating_point: str, shard_size: int | None) -> Manifest:
    listed = _list(folder / f"{MEMBERS}{TEMPORARY}", source, shard_size)
    known = {"name": detector.name, "version": detector.version, "sha256": detector.sha256}
    manifest = Manifest(
        root=source.root,
        detector={**known, "phantom": bool(detector.card.get("phantom"))},
        operating_point=operating_point,
        phantom=source.phantom,
        left_out=dict(source.left_out.most_common()),
        **listed,
    )
    if (folder / MANIFEST).is_file() and has_parts(folder):
        before = read_manifest(folder)
        _require_same(folder, before, manifest)
        if shard_size not in (None, before.shard_size):
            raise ConfigError(
                f"The job in {folder} was begun with another shard size; leave it out, or start anew. "
                f"Allowed: {before.shard_size}. Received: {shard_size}"
            )
        # The archive may have moved; its files are the same.
        manifest = dataclasses.replace(before, root=manifest.root)
    os.replace(folder / f"{MEMBERS}{TEMPORARY}", folder / MEMBERS)
    detector.save(folder / DETECTOR)
    manifest.save(folder)
    for note in folder.glob(f"*{_NOTE}"):
        forget_accidents(note)
    return manifest


def note_path(folder: Path, shard: int) -> Path:
    """Return where the note of the attempts at a shard stands."""
    return folder / f"shard-{shard:07d}{_NOTE}"


def has_parts(folder: Path) -> bool:
    """Return whether any shard of the job in `folder` is finished."""
    return next(folder.glob(_PARTS), None) is not None


def clear(folder: Path, *, keep_parts: bool = False) -> None:
    """Delete what a job has put into its folder, or all but its parts and its manifest, and nothing else."""
    for path in folder.glob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)
    for path in folder.glob(f"*{_NOTE}"):
        path.unlink(missing_ok=True)
    if not keep_parts:
        # Without its manifest a folder is no job, so that goes first.
        (folder / MANIFEST).unlink(missing_ok=True)
        (folder / SUCCESS).unlink(missing_ok=True)
        for path in folder.glob(_PARTS):
            path.unlink(missing_ok=True)
    for name in (MEMBERS, f"{MEMBERS}{TEMPORARY}"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / DETECTOR, ignore_errors=True)


def _list(path: Path, source: Input, shard_size: int | None) -> dict[str, Any]:
    """Write the members' lines to `path`; return the fields of the manifest that describe them."""
    digest, images = hashlib.sha256(), 0
    with open(path, "wb") as file:
        for member in source.members():
            line = member.to_json().encode() + b"\n"
            digest.update(line)
            file.write(line)
            images += 1
    if not images:
        others = ", ".join(f"{n:,} {kind}" for kind, n in source.left_out.most_common(5)) or "nothing at all"
        raise DataError(
            f"There are no images to score. Allowed: {', '.join((*SUFFIXES, *DICOM_SUFFIXES))}, or names without a "
            f"suffix. Received: {others}"
        )
    size = shard_size or default_shard_size(images)
    return {"listing": digest.hexdigest(), "images": images, "shard_size": size, "offsets": _offsets(path, size)}


def default_shard_size(images: int) -> int:
    """Return how many images a shard has: few enough that all cores of a machine work, no more than 1,000."""
    return min(1000, max(32, -(-images // 64)))


def _offsets(path: Path, size: int) -> tuple[int, ...]:
    offsets, place = [], 0
    with open(path, "rb") as file:
        for number, line in enumerate(file):
            if number % size == 0:
                offsets.append(place)
            place += len(line)
    return tuple(offsets)


def _require_same(folder: Path, before: Manifest, now: Manifest) -> None:
    if before.job == now.job:
        return
    if before.listing != now.listing:
        what = f"The input has changed since the job in {folder} was begun{_first_change(folder)}"
        allowed, received = f"{before.images:,} files as they were", f"{now.images:,} files"
    elif before.detector["sha256"] != now.detector["sha256"]:
        what = f"The job in {folder} was begun with another detector"
        allowed, received = (f"{m.detector['name']}, SHA-256 {m.detector['sha256'][:12]}…" for m in (before, now))
    elif before.operating_point != now.operating_point:
        what = f"The job in {folder} was begun with another operating point"
        allowed, received = before.operating_point, now.operating_point
    else:
        what = f"The job in {folder} was begun with another version of pneumolib"
        allowed, received = before.pneumolib, now.pneumolib
    raise DataError(
        f"{what}; scores of both would be mixed. Name another output, or start anew with --anew (resume=False). "
        f"Allowed: {allowed}. Received: {received}"
    )


def _first_change(folder: Path) -> str:
    """Name the first member that differs from what the job in `folder` has listed."""
    if not (folder / MEMBERS).is_file():
        return ""
    with open(folder / MEMBERS, "rb") as old, open(folder / f"{MEMBERS}{TEMPORARY}", "rb") as new:
        for lines in itertools.zip_longest(old, new):
            if lines[0] != lines[1]:
                first = min(Member.from_json(line).path for line in lines if line)
                return f", first at {text(first)}"
    return ""
