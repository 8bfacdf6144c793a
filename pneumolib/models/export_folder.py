"""The folder of an export: what ``detector.json`` says, and what it may take the place of."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pneumolib
from pneumolib.errors import ArtifactError
from pneumolib.models.detector import Detector
from pneumolib.models.export_graphs import OUTPUT
from pneumolib.models.onnx_graph import INPUT

FACTS, KIND, VERSION = "detector.json", "pneumolib-export", 1
NOTICE = "Research and teaching software: no medical device, not for diagnosis."


def write_facts(
    folder: Path, detector: Detector, *, format: str, precision: str, check: dict[str, Any]
) -> dict[str, int]:
    """Write ``detector.json`` beside the network in `folder`, and return the size of each file there, in bytes.

    Args:
        folder: of the export, with all else in it.
        detector: that was exported.
        format: as `pneumolib.models.export.export` takes it.
        precision: likewise.
        check: how the comparison with Keras came out.
    """
    side, phantom = detector.size, bool(detector.card.get("phantom"))
    contents = {name: (folder / name).read_bytes() for name in _files(folder)}
    facts = {
        "format": KIND,
        "version": VERSION,
        "notice": ("PHANTOM: trained on synthetic X-rays only. " if phantom else "") + NOTICE,
        "phantom": phantom,
        "detector": {"name": detector.name, "version": detector.version, "sha256": detector.sha256},
        "export": {"format": format, "precision": precision, "pneumolib": pneumolib.__version__},
        "size": side,
        "classes": list(detector.class_names),
        "operating_points": {name: dataclasses.asdict(point) for name, point in detector.operating_points.items()},
        "input": {
            "name": INPUT,
            "dtype": "float32",
            "shape": [None, side, side, 1],
            "range": [0, 255],
            "pixels": "gray values of the picture without black bars, stretched to the square as "
            "pneumolib.load_square does; rescaling is in the graph",
        },
        "output": {
            "name": OUTPUT,
            "dtype": "float32",
            "shape": [None, len(detector.class_names)],
            "meaning": "calibrated probability of each class; that of pneumonia is 1 minus the first",
            "temperature_in_graph": detector.temperature,
        },
        "input_check": {
            "in_graph": False,
            "note": "The graph answers to any picture, chest X-ray or not, and to any range of values. pneumolib "
            "refuses what is unlike the X-rays that the detector has learnt from: "
            "load_detector(...).predict(...).input tells.",
        },
        "compared_with_keras": check,
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in contents.items()
        },
    }
    (folder / FACTS).write_text(json.dumps(facts, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return {name: (folder / name).stat().st_size for name in _files(folder)}


def require_replaceable(folder: Path) -> None:
    """Raise `ArtifactError` where `folder` holds something that is no export."""
    try:
        kind = json.loads((folder / FACTS).read_bytes())["format"]
    except (OSError, ValueError, KeyError, TypeError):
        kind = None
    if kind != KIND and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtifactError(f"An export is written into a new folder, or over an export; this is neither: {folder}")


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
