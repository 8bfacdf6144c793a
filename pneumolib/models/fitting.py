"""What surrounds `model.fit`: the optimizer and its schedule, and the callbacks that watch and save a run."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pneumolib import runtime
from pneumolib.config import Config
from pneumolib.data.dataset import ImageSet
from pneumolib.data.splits import Split, shifted_images
from pneumolib.errors import MissingExtraError
from pneumolib.evaluation.metrics import auc
from pneumolib.models.batches import one_hot, prediction_batches
from pneumolib.models.checkpoint import Checkpoint, restore_callbacks, save_checkpoint, write_atomically
from pneumolib.models.distribution import ONE, Distribution
from pneumolib.models.resnet import build_model

if TYPE_CHECKING:
    import keras
else:
    keras = runtime.keras()


def compile_model(model: keras.Model, config: Config, total_steps: int, steps: int, *, fine_tuning: bool) -> None:
    """Compile `model` as `config` says: AdamW, linear warm-up, cosine decay, label smoothing.

    Args:
        model: with its trainable layers already chosen.
        config: rates, decay, smoothing, averaging, XLA.
        total_steps: steps of this phase of training.
        steps: steps of one epoch.
        fine_tuning: take the rate for an unfrozen, pre-trained backbone.
    """
    peak = config.fine_tune_learning_rate if fine_tuning else config.learning_rate
    warmup = min(int(config.warmup_epochs * steps), total_steps - 1)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else peak,
        decay_steps=total_steps - warmup,
        alpha=config.final_rate,
        warmup_target=peak if warmup else None,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.AdamW(
        schedule,
        weight_decay=config.weight_decay,
        use_ema=config.average_weights is not None,
        ema_momentum=config.average_weights or 0.99,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing),
        metrics=["accuracy"],
        jit_compile="auto" if config.compile_xla is None else config.compile_xla,
    )


class Validate(keras.callbacks.Callback):
    """Adds to each epoch's logs the loss on validation and the AUC on validation and on shifted validation.

    Of several processes the first predicts, on one device, and the others are told.
    """

    def __init__(
        self, split: Split, config: Config, history: list[dict[str, float]], distribution: Distribution = ONE
    ) -> None:
        super().__init__()
        self._parts: dict[str, tuple[ImageSet, NDArray[np.uint8]]] = {}
        if distribution.first:
            self._parts = {
                "val": (split.val, split.val.images(config.size)),
                "shifted": (split.shifted, shifted_images(split.shifted, config.size, seed=split.seed)),
            }
        self._config, self._history, self._distribution, self._began = config, history, distribution, 0.0
        self._alone: keras.Model | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs if logs is not None else {}
        logs["learning_rate"] = float(np.asarray(self.model.optimizer.learning_rate))
        names = ("val_loss", "val_auc", "shifted_loss", "shifted_auc")
        measured = self._measure() if self._distribution.first else np.zeros(len(names))
        logs.update(zip(names, self._distribution.from_first(measured).tolist(), strict=True))
        seconds = time.perf_counter() - self._began
        self._history.append({"epoch": epoch + 1, **{k: float(v) for k, v in logs.items()}, "seconds": seconds})

    def _measure(self) -> NDArray[np.float64]:
        numbers = []
        for part, images in self._parts.values():
            p = self._predict(images)
            wanted = one_hot(part.targets(self._config.classes), self._config.classes)
            numbers.append(float(-np.log(np.clip((p * wanted).sum(1), 1e-7, 1)).mean()))
            numbers.append(auc(part.is_pneumonia, 1 - p[:, 0]))
        return np.array(numbers)

    def _predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        shared = self._distribution.devices > 1
        batches = prediction_batches(images, self._config.batch_size, full=shared)
        if self._distribution.processes == 1:
            return self.model.predict(batches, verbose=0)[: len(images)]
        # A prediction over all processes could be read by none of them: each holds its own part alone.
        with self._distribution.alone():
            if self._alone is None:
                self._alone = build_model(self._config, pretrained=False)
            self._alone.set_weights(self.model.get_weights())
            return self._alone.predict(batches, verbose=0)[: len(images)]


class Keep(keras.callbacks.Callback):
    """Saves a checkpoint and the CSV log after each epoch, and gives the other callbacks their state back."""

    def __init__(
        self,
        folder: Path,
        log: Path,
        history: list[dict[str, float]],
        callbacks: Sequence[keras.callbacks.Callback],
        checkpoint: Checkpoint | None,
        *,
        writes: bool = True,
    ) -> None:
        super().__init__()
        self._folder, self._log, self._history, self._callbacks = folder, log, history, callbacks
        self._checkpoint, self._writes = checkpoint, writes

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self._checkpoint is not None:
            restore_callbacks(self._checkpoint, self._callbacks)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not self._writes:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(self._history[0]), extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._history)
        write_atomically(self._log, text.getvalue().encode())
        save_checkpoint(
            self._folder, self.model, epoch=epoch + 1, history=self._history, callbacks=self._callbacks
        )  # fmt: skip


class Progress(keras.callbacks.Callback):
    """Shows a bar for each epoch on a terminal, and a line for each finished epoch everywhere."""

    def __init__(self, history: list[dict[str, float]], epochs: int, steps: int, shown: bool) -> None:
        super().__init__()
        self._history, self._epochs, self._steps, self._shown = history, epochs, steps, shown
        self._bar: Any = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._shown and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self._steps, desc=f"epoch {epoch + 1}/{self._epochs}", unit="step", leave=False)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._bar is not None:
            self._bar.update()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._shown:
            row = self._history[-1]
            print(
                f"epoch {epoch + 1:>3}/{self._epochs}  loss {row['loss']:.4f}  val_loss {row['val_loss']:.4f}  "
                f"val_auc {row['val_auc']:.4f}  shifted_auc {row['shifted_auc']:.4f}  {row['seconds']:.0f} s",
                flush=True,
            )


def tensorboard(folder: Path) -> keras.callbacks.Callback:
    """Return Keras's TensorBoard callback writing to `folder`; `MissingExtraError` where TensorBoard is missing."""
    import importlib.util

    if importlib.util.find_spec("tensorboard") is None:
        raise MissingExtraError("TensorBoard is not installed. Install it: pip install tensorboard")
    return keras.callbacks.TensorBoard(str(folder))
