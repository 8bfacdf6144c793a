"""Checkpoints from which a run goes on as if nothing had happened.

A checkpoint is one safetensors file with every variable of the model (seeds of dropout included), every variable of the
optimizer (moments, moving average of weights, step, loss scale) and the state of the callbacks, and a JSON file beside
it with the epoch, the history and the SHA-256 of the first. Both are written to a temporary name and renamed, the JSON
last: a process that is killed at any moment leaves either a whole checkpoint or one that is not seen. The last two are
kept, so that a file damaged later (on a network drive, say) costs one epoch.

Shuffling and augmentation need no saved state: they are functions of (seed, epoch, image).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pneumolib.errors import ArtifactError

if TYPE_CHECKING:
    import keras

KEPT = 2
_PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class Checkpoint:
    """What was read back: the number of finished epochs, their history, and where the tensors are."""

    epoch: int
    stopped: bool  # a callback asked for the end of training
    history: list[dict[str, float]]
    tensors: Path
    callbacks: list[dict[str, Any]]


def save_checkpoint(
    folder: Path,
    model: keras.Model,
    *,
    epoch: int,
    history: Sequence[dict[str, float]],
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Path:
    """Write the state after `epoch` finished epochs into `folder`, atomically, and return the path of the JSON file."""
    from safetensors.numpy import save

    folder.mkdir(parents=True, exist_ok=True)
    arrays = {f"model/{i:04d}": np.asarray(v) for i, v in enumerate(model.variables)}
    arrays |= {f"optimizer/{i:04d}": np.asarray(v) for i, v in enumerate(model.optimizer.variables)}
    states = []
    for number, callback in enumerate(callbacks):
        state, held = _callback_state(callback)
        states.append(state)
        arrays |= {f"callback/{number:02d}/{name}": array for name, array in held.items()}
    payload = save({name: np.array(array, order="C") for name, array in arrays.items()})
    tensors = folder / f"epoch-{epoch:04d}.safetensors"
    write_atomically(tensors, payload)
    meta = {
        "format": 1,
        "epoch": epoch,
        "stopped": bool(model.stop_training),
        "history": list(history),
        "callbacks": states,
        "sha256": hashlib.sha256(payload).hexdigest(),
    }
    path = tensors.with_suffix(".json")
    write_atomically(path, json.dumps(meta, indent=1).encode())
    for old in sorted(folder.glob("epoch-*.json"))[:-KEPT]:
        old.unlink()
        old.with_suffix(".safetensors").unlink(missing_ok=True)
    return path


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the newest whole checkpoint in `folder`, or None; one whose bytes do not match its hash is passed over."""
    for path in sorted(folder.glob("epoch-*.json"), reverse=True):
        tensors = path.with_suffix(".safetensors")
        try:
            meta = json.loads(path.read_text(encoding="utf-8"))
            whole = meta["format"] == 1 and hashlib.sha256(tensors.read_bytes()).hexdigest() == meta["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if whole:
            return Checkpoint(meta["epoch"], meta["stopped"], meta["history"], tensors, meta["callbacks"])
    return None


def restore(checkpoint: Checkpoint, model: keras.Model, *, optimizer: bool = True) -> None:
    """Put the checkpoint's state into a compiled `model` of the same architecture, and into its optimizer.

    Args:
        checkpoint: as `latest_checkpoint` gives it.
        model: compiled as the one that was saved.
        optimizer: False leaves the optimizer as it is, for a new phase of training.

    Raises:
        ArtifactError: the checkpoint belongs to another model or optimizer.
    """
    from safetensors.numpy import load_file

    arrays = load_file(checkpoint.tensors)
    _assign(model.variables, arrays, "model", checkpoint.tensors)
    if optimizer:
        model.optimizer.build(model.trainable_variables)
        _assign(model.optimizer.variables, arrays, "optimizer", checkpoint.tensors)


def restore_callbacks(checkpoint: Checkpoint, callbacks: Sequence[keras.callbacks.Callback]) -> None:
    """Put the saved state back into `callbacks`; Keras resets them when training begins, so call this after that.

    Raises:
        ArtifactError: the run was started with other callbacks.
    """
    from safetensors.numpy import load_file

    arrays = load_file(checkpoint.tensors)
    if len(callbacks) != len(checkpoint.callbacks):
        raise ArtifactError(
            f"The run was started with {len(checkpoint.callbacks)} callbacks of yours; pass the same ones to go on. "
            f"Received: {len(callbacks)}"
        )
    for number, (callback, state) in enumerate(zip(callbacks, checkpoint.callbacks, strict=True)):
        prefix = f"callback/{number:02d}/"
        held = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        _restore_callback(callback, state, held)


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` so that `path` holds either what it held before or all of the new bytes, whenever power fails."""
    with _temporary_beside(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


@contextlib.contextmanager
def _temporary_beside(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _assign(variables: Sequence[Any], arrays: dict[str, NDArray[Any]], part: str, path: Path) -> None:
    saved = [arrays[name] for name in sorted(arrays) if name.startswith(f"{part}/")]
    shapes = [tuple(a.shape) for a in saved]
    if shapes != [tuple(v.shape) for v in variables]:
        raise ArtifactError(
            f"{path} belongs to another {part}: it holds {len(saved)} variables, {len(variables)} are needed, "
            "or their shapes differ. Use the configuration that the run was started with, or another folder."
        )
    for variable, array in zip(variables, saved, strict=True):
        variable.assign(array)


def _callback_state(callback: keras.callbacks.Callback) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Take the plain attributes of a callback (Keras's own keep their state there) and its lists of arrays."""
    plain: dict[str, Any] = {}
    held: dict[str, NDArray[Any]] = {}
    for name, value in vars(callback).items():
        if name.startswith("_") or name in ("model", "params"):
            continue
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, float) and not math.isfinite(value):
            plain[name] = {"float": repr(value)}
        elif isinstance(value, _PLAIN):
            plain[name] = value
        elif isinstance(value, list) and value and all(isinstance(v, np.ndarray) for v in value):
            held |= {f"{name}/{i:04d}": v for i, v in enumerate(value)}
    return {"class": type(callback).__name__, "plain": plain}, held


def _restore_callback(callback: keras.callbacks.Callback, state: dict[str, Any], held: dict[str, NDArray[Any]]) -> None:
    if state["class"] != type(callback).__name__:
        raise ArtifactError(
            f"The run was started with a {state['class']} in this place; pass the same callbacks in the same order. "
            f"Received: {type(callback).__name__}"
        )
    for name, value in state["plain"].items():
        setattr(callback, name, float(value["float"]) if isinstance(value, dict) else value)
    for name in {key.rsplit("/", 1)[0] for key in held}:
        setattr(callback, name, [held[key] for key in sorted(held) if key.startswith(f"{name}/")])
