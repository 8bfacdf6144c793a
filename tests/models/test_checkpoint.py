"""Checkpoints: whole or not there, exact, and refused where they do not fit."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from pneumolib import runtime
from pneumolib.errors import ArtifactError
from pneumolib.models.checkpoint import (
    latest_checkpoint,
    restore,
    restore_callbacks,
    save_checkpoint,
    write_atomically,
)

keras = runtime.keras()


def small_model(units: int = 4):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(units), keras.layers.Dropout(0.5, seed=1), keras.layers.Dense(2)]
    )
    model.compile(optimizer=keras.optimizers.AdamW(0.01, use_ema=True), loss="mse")
    return model


X = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(16, 2)).astype(np.float32)


def steps(model, n: int) -> None:
    for _ in range(n):
        model.train_on_batch(X, Y)


def test_going_on_from_a_checkpoint_is_as_if_nothing_happened(tmp_path: Path) -> None:
    straight = small_model()
    steps(straight, 6)

    before = small_model()
    steps(before, 3)
    save_checkpoint(tmp_path, before, epoch=1, history=[{"epoch": 1.0}])
    after = small_model(4)
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    restore(checkpoint, after)
    steps(after, 3)

    for a, b in zip(straight.variables, after.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    for a, b in zip(straight.optimizer.variables, after.optimizer.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_the_last_two_are_kept_and_the_newest_is_found(tmp_path: Path) -> None:
    model = small_model()
    steps(model, 1)
    for epoch in (1, 2, 3):
        save_checkpoint(tmp_path, model, epoch=epoch, history=[{"epoch": float(e)} for e in range(1, epoch + 1)])
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "epoch-0002.json", "epoch-0002.safetensors", "epoch-0003.json", "epoch-0003.safetensors",
    ]  # fmt: skip
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.epoch == 3
    assert len(checkpoint.history) == 3


@pytest.mark.parametrize("damage", ["cut", "flip", "no tensors", "bad json"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, damage: str) -> None:
    model = small_model()
    steps(model, 1)
    save_checkpoint(tmp_path, model, epoch=1, history=[])
    save_checkpoint(tmp_path, model, epoch=2, history=[])
    tensors, meta = tmp_path / "epoch-0002.safetensors", tmp_path / "epoch-0002.json"
    if damage == "cut":
        tensors.write_bytes(tensors.read_bytes()[:-10])
    elif damage == "flip":
        content = bytearray(tensors.read_bytes())
        content[-1] ^= 1
        tensors.write_bytes(bytes(content))
    elif damage == "no tensors":
        tensors.unlink()
    else:
        meta.write_text("{")
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.epoch == 1


def test_an_empty_or_missing_folder_has_none(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "nowhere") is None


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    model = small_model()
    steps(model, 1)
    save_checkpoint(tmp_path, model, epoch=1, history=[])
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    with pytest.raises(ArtifactError, match="belongs to another model"):
        restore(checkpoint, small_model(units=5))


def test_callbacks_get_their_state_back(tmp_path: Path) -> None:
    model = small_model()
    stopping = keras.callbacks.EarlyStopping(monitor="loss", patience=7, restore_best_weights=True)
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[stopping])
    save_checkpoint(tmp_path, model, epoch=2, history=[], callbacks=[stopping])
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None

    fresh = keras.callbacks.EarlyStopping(monitor="loss", patience=7, restore_best_weights=True)
    fresh.on_train_begin()
    restore_callbacks(checkpoint, [fresh])
    assert (fresh.best, fresh.best_epoch, fresh.wait) == (stopping.best, stopping.best_epoch, stopping.wait)
    for a, b in zip(fresh.best_weights, stopping.best_weights, strict=True):
        np.testing.assert_array_equal(a, b)

    with pytest.raises(ArtifactError, match="started with 1 callbacks"):
        restore_callbacks(checkpoint, [])
    with pytest.raises(ArtifactError, match="started with a EarlyStopping"):
        restore_callbacks(checkpoint, [keras.callbacks.TerminateOnNaN()])


def test_infinite_values_survive_json(tmp_path: Path) -> None:
    model = small_model()
    steps(model, 1)
    plateau = keras.callbacks.ReduceLROnPlateau()
    plateau.best = math.inf
    path = save_checkpoint(tmp_path, model, epoch=1, history=[], callbacks=[plateau])
    json.loads(path.read_text(), parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    plateau.best = 0.0
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    restore_callbacks(checkpoint, [plateau])
    assert plateau.best == math.inf


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
