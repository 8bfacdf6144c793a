"""A detector on disk: four files in one folder, each known by size and SHA-256 before a byte of it is interpreted.

====================== ==========================================================================================
``manifest.json``      settings, temperature, operating points, reference statistics, card; size and hash of the rest
``model.onnx``         the light graph, for ONNX Runtime
``weights.safetensors``  the Keras weights, by variable path; the architecture comes from this package, by its config
``familiarity.safetensors``  what inner statistics of training images are like (`Familiarity`); may be missing
====================== ==========================================================================================

Nothing in it is code and nothing is unpickled. The names of the files are fixed, so a manifest cannot point anywhere;
links are not followed. The hashes tell that the folder is whole and unaltered since it was saved, not who made it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pneumolib.config import Config
from pneumolib.errors import ArtifactError, ConfigError
from pneumolib.evaluation.calibration import OperatingPoint
from pneumolib.models.folders import replaced
from pneumolib.models.reference import require_reference

FORMAT = 2
MANIFEST, GRAPH, WEIGHTS = "manifest.json", "model.onnx", "weights.safetensors"
FAMILIARITY = "familiarity.safetensors"
MAX_MANIFEST_BYTES = 1 << 20
MAX_FILE_BYTES = 1 << 30


@dataclass(frozen=True)
class Manifest:
    """What ``manifest.json`` says, checked."""

    name: str
    version: str  # of pneumolib, when the detector was made
    config: Config
    temperature: float
    operating_points: dict[str, OperatingPoint]
    reference: dict[str, Any]
    card: dict[str, Any]
    files: dict[str, tuple[int, str]]  # size in bytes and SHA-256 of each other file

    def to_json(self) -> bytes:
        """Return the manifest as UTF-8 JSON; `parse_manifest` is its inverse."""
        values = {
            "format": FORMAT,
            "name": self.name,
            "version": self.version,
            "config": self.config.to_dict(),
            "classes": list(self.config.class_names),
            "temperature": self.temperature,
            "operating_points": {name: dataclasses.asdict(point) for name, point in self.operating_points.items()},
            "reference": self.reference,
            "card": self.card,
            "files": {name: {"bytes": size, "sha256": digest} for name, (size, digest) in self.files.items()},
        }
        return (json.dumps(_plain(values), indent=1, allow_nan=False) + "\n").encode()


def parse_manifest(content: bytes) -> Manifest:
    """Return the manifest that `content` holds.

    Raises:
        ArtifactError: it is no manifest, is damaged, or comes from a later version of the package.
    """
    try:
        values = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{MANIFEST} is no JSON: {error}") from error
    if not isinstance(values, dict) or not isinstance(values.get("format"), int):
        raise ArtifactError(f"{MANIFEST} is not the manifest of a detector: it names no format.")
    if values["format"] != FORMAT:
        way_out = (
            "a newer version may: pip install -U pneumolib"
            if values["format"] > FORMAT
            else "an earlier version made it; train it again"
        )
        raise ArtifactError(
            f"This detector is in a format that this version of pneumolib does not know; {way_out}. "
            f"Allowed: {FORMAT}. Received: {values['format']}"
        )
    try:
        return _checked(values)
    except (KeyError, TypeError, AttributeError, ConfigError) as error:
        raise ArtifactError(f"{MANIFEST} is damaged: {type(error).__name__}: {error}") from error


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest in `folder`, having seen that nothing is missing and nothing else is there.

    Raises:
        ArtifactError: a file is missing, too many, a link, or the manifest is not right.
    """
    manifest = parse_manifest(_read_plain(folder / MANIFEST, MAX_MANIFEST_BYTES))
    # Hidden files are what file managers and synchronisers leave; they are never opened.
    present = {entry for entry in os.listdir(folder) if not entry.startswith(".")}
    for problem, names in (
        ("lacks", {MANIFEST, *manifest.files} - present),
        ("holds files that are no part of it:", present - {MANIFEST, *manifest.files}),
    ):
        if names:
            raise ArtifactError(f"The detector in {folder} {problem} {', '.join(sorted(names))}. Copy it again, whole.")
    return manifest


def read_file(folder: Path, manifest: Manifest, name: str) -> bytes:
    """Return the bytes of the file `name`, which have the size and the hash that the manifest says.

    Raises:
        ArtifactError: they have not, or the file is a link.
    """
    size, digest = manifest.files[name]
    content = _read_plain(folder / name, size)
    if len(content) != size or hashlib.sha256(content).hexdigest() != digest:
        raise ArtifactError(
            f"{folder / name} is not the file that was saved: its size or its SHA-256 differs from the manifest's "
            "(damaged, cut off or replaced); it was not opened. Copy the detector again, or train it again."
        )
    return content


def describe_files(files: Mapping[str, bytes]) -> dict[str, tuple[int, str]]:
    """Return size and SHA-256 of each of `files`, as a `Manifest` holds them."""
    return {name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in files.items()}


def write_artifact(folder: Path, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Write manifest and files so that `folder` never holds half a detector; one that stands there is replaced.

    Raises:
        ArtifactError: `folder` holds something that is no detector, or cannot be written to.
    """
    if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtifactError(f"A detector is saved into a new folder, or over a detector; this is neither: {folder}")
    with replaced(folder) as partial:
        for name, content in {**files, MANIFEST: manifest.to_json()}.items():
            with open(partial / name, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())


def _read_plain(path: Path, limit: int) -> bytes:
    """Read at most one byte more than `limit` of a file that is no link."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise ArtifactError(f"The files of a detector are plain files; links and others are not opened: {path}")
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise ArtifactError(f"A file of the detector cannot be read: {path}: {error.strerror or error}") from error
    if len(content) > limit:
        raise ArtifactError(f"{path} is larger than it may be: more than {limit} bytes. It was not opened.")
    return content


def _checked(values: dict[str, Any]) -> Manifest:
    known = {f.name for f in dataclasses.fields(Manifest)} | {"format", "classes"}
    _require(set(values) == known, f"its entries must be {', '.join(sorted(known))}")
    _require(_is_text(values["name"]) and _is_text(values["version"]), "name and version must be short texts")
    config = Config.from_dict(values["config"])
    _require(values["classes"] == list(config.class_names), "its classes are not those of its config")
    _require(_is_number(values["temperature"]) and values["temperature"] > 0, "temperature must be more than 0")
    points = {}
    for name, fields in values["operating_points"].items():
        numbers = [fields[key] for key in ("threshold", "sensitivity", "specificity")]
        _require(all(_is_number(n) and 0 <= n <= 1 for n in numbers), "an operating point's numbers must be in 0..1")
        _require(0 < fields["threshold"] < 1, "a threshold must lie between 0 and 1")
        _require(fields["name"] == name and isinstance(fields["rule"], str), "an operating point needs name and rule")
        points[name] = OperatingPoint(**fields)
    _require("balanced" in points, "there must be an operating point 'balanced'")
    require_reference(values["reference"])
    _require(isinstance(values["card"], dict), "card must be an object")
    names = {GRAPH, WEIGHTS}
    _require(
        set(values["files"]) in (names, names | {FAMILIARITY}),
        f"files must be {GRAPH}, {WEIGHTS}, perhaps {FAMILIARITY}",
    )
    files = {}
    for name, entry in values["files"].items():
        size, digest = entry["bytes"], entry["sha256"]
        _require(type(size) is int and 0 < size <= MAX_FILE_BYTES, f"the size of {name} is out of range")
        _require(isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest), f"the SHA-256 of {name} is none")
        files[name] = (size, digest)
    return Manifest(
        name=values["name"],
        version=values["version"],
        config=config,
        temperature=float(values["temperature"]),
        operating_points=points,
        reference=values["reference"],
        card=values["card"],
        files=files,
    )


def _require(holds: object, allowed: str) -> None:
    if not holds:
        raise ArtifactError(f"{MANIFEST} is damaged: {allowed}.")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no number in JSON")


def _plain(value: Any) -> Any:
    """Turn NumPy numbers into Python's, tuples into lists, and numbers that are not finite into null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if not isinstance(value, str | bool | int | float | None) and hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
