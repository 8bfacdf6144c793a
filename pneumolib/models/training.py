"""Training: from a data set and a `Config` to a `Run` with a detector, resumable at any moment."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import pneumolib
from pneumolib import runtime
from pneumolib.config import Config, environment
from pneumolib.data.dataset import Dataset
from pneumolib.data.exports import export_groups
from pneumolib.data.splits import Split, split_by_patient
from pneumolib.errors import ArtifactError, ConfigError, DataNotFoundError
from pneumolib.models.augment import Augmentation
from pneumolib.models.checkpoint import Checkpoint, latest_checkpoint, restore, write_atomically

if TYPE_CHECKING:
    import keras

    from pneumolib.models.detector import Detector
    from pneumolib.models.distribution import Distribution

SECONDS_TO_SEE = 90  # a network file system may show what another host wrote so much later


@dataclass(frozen=True)
class Run:
    """A training run on disk: its settings, its course and, when it is finished, its detector.

    The folder holds ``run.json`` (settings and provenance), ``split.csv``, ``log.csv``, ``checkpoints/``,
    ``predictions.csv`` (of the validation images) and ``detector/``.
    """

    folder: Path
    config: Config
    history: list[dict[str, float]]
    finished: bool
    phantom: bool

    @property
    def detector(self) -> Detector:
        """The detector that the run ended with; raises `DataNotFoundError` while the run is not finished."""
        from pneumolib.models.detector import load_detector

        if not self.finished:
            raise DataNotFoundError(
                f"The run in {self.folder} is not finished: {len(self.history)} of {self.config.epochs} epochs. "
                "Call train again with the same settings; it goes on where it was."
            )
        return load_detector(self.folder / "detector", allow_phantom=self.phantom)

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Return the run in `folder`.

        Raises:
            DataNotFoundError: there is no run in that folder.
            ArtifactError: its ``run.json`` is damaged.
        """
        path = Path(folder) / "run.json"
        if not path.is_file():
            raise DataNotFoundError(f"There is no run in that folder (no run.json). Received: {folder}")
        facts = _read_facts(path)
        config, phantom = Config.from_dict(facts["config"]), bool(facts["phantom"])
        checkpoint = latest_checkpoint(Path(folder) / "checkpoints")
        return cls(
            folder=Path(folder),
            config=config,
            history=checkpoint.history if checkpoint else [],
            finished=_is_finished(Path(folder)),
            phantom=phantom,
        )


def train(
    data: Dataset | Split,
    config: Config | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    tensorboard: bool = False,
) -> Run:
    """Train a detector and return the finished `Run`; an interrupted run goes on after its last whole epoch.

    The training images are divided by patient into train, validation and shifted validation (`split_by_patient`); the
    test images are not touched. After the last epoch the moving average of the weights is taken, batch-normalisation
    statistics are measured again, and temperature and operating points are fitted on the validation images.
    On a CPU, a resumed run ends with the same weights, bit for bit, as one that was not interrupted.

    Args:
        data: a `Dataset`, or a `Split` of one.
        config: the settings; None takes ``Config.preset("auto")``.
        out: the run's folder; None names one below ``artifacts/runs`` (``PNEUMOLIB_HOME``) after settings and data.
        resume: go on with a run that stands in `out`; False refuses to touch it.
        progress: show a progress bar on a terminal, a line for each epoch elsewhere.
        callbacks: Keras callbacks of yours; their plain attributes are saved and restored.
        tensorboard: write TensorBoard logs into the run's folder.

    Raises:
        ConfigError: `out` holds a run with other settings, other data or of another version, or one that must not be
            resumed.
        DataError: the data does not fit: a class without images, fewer images than a batch.
        MissingExtraError: Keras, or TensorBoard if asked for, is not installed.

    Examples:
        >>> import pneumolib as pn                                                # doctest: +SKIP
        >>> run = pn.train(pn.load_dataset(), pn.Config.preset("cpu"))            # doctest: +SKIP
        >>> run.detector.predict("x-ray.jpeg").decision                           # doctest: +SKIP
        'pneumonia'
    """
    config = config or Config.preset("auto")
    split = data if isinstance(data, Split) else split_by_patient(data.train, seed=config.seed)
    facts = {
        "config": config.to_dict(),
        "data": split.fingerprint(),
        "phantom": split.train.phantom,
        "version": pneumolib.__version__,
    }
    folder = Path(out) if out is not None else default_folder(config, split)
    if _is_finished(folder):
        _claim(folder, facts, resume)
        return Run.load(folder)

    from pneumolib.models.distribution import distribute

    distribution = distribute(config)
    with distribution.together():
        if distribution.first:
            _claim(folder, facts, resume)
            split.save(folder / "split.csv")
        distribution.first_is_ready()
        model = _fit(split, config, folder, callbacks, progress, tensorboard, distribution)
        if distribution.first:
            _finish(model, split, config, folder, distribution)
        distribution.first_is_ready()
        return Run.load(folder)


def _is_finished(folder: Path) -> bool:
    return (folder / "detector" / "manifest.json").is_file()


def default_folder(config: Config, split: Split) -> Path:
    """Return the folder that a run of these settings on this data has when none is named."""
    return environment().home / "runs" / f"{config.name}-{config.fingerprint()}-{split.fingerprint()[:8]}"


def _read_facts(path: Path) -> dict[str, Any]:
    """Return what ``run.json`` says; `ArtifactError` where it is damaged."""
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        Config.from_dict(facts["config"])
        if not {"data", "phantom"} <= facts.keys():
            raise KeyError("data")
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is damaged: {error}. Start the run in another folder.") from error
    return facts


def _claim(folder: Path, facts: dict[str, Any], resume: bool) -> None:
    """Make `folder` the run's, or see that it already is."""
    path = folder / "run.json"
    if not path.exists():
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(
                f"The run's folder holds other files and no run. Name a new or empty folder. Received: {folder}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(facts, indent=1).encode())
        return
    if not resume:
        raise ConfigError(
            f"A run stands in {folder} already. To go on with it pass resume=True (--resume); "
            "to start afresh name another folder, or delete that one."
        )
    before = _read_facts(path)
    if before["data"] != facts["data"]:
        raise ConfigError(f"The run in {folder} was started on other data. Name another folder for this data.")
    # A setting that came later had its default then.
    there = Config.from_dict(before["config"]).to_dict()
    differing = [
        f"{name}: {there[name]!r} there, {value!r} here"
        for name, value in facts["config"].items()
        if there[name] != value and name != "name"
    ]
    if differing:
        raise ConfigError(f"The run in {folder} was started with other settings ({'; '.join(differing)}).")
    if before.get("version") != facts["version"] and not _is_finished(folder):
        raise ConfigError(
            f"The run in {folder} was started by pneumolib {before.get('version')}, which may compute other numbers "
            f"than this version, {facts['version']}. Go on with that version, or name another folder."
        )


def _shared_checkpoint(folder: Path, distribution: Distribution) -> Checkpoint | None:
    """Return the checkpoint to go on from, the same one in every process.

    Raises:
        ConfigError: this process does not see in `folder` what process 0 wrote there.
    """
    distribution.first_is_ready()
    checkpoint = latest_checkpoint(folder / "checkpoints")
    if distribution.processes == 1:
        return checkpoint
    wanted = int(distribution.from_first(np.array([checkpoint.epoch if checkpoint else 0], np.float64))[0])
    until = time.monotonic() + SECONDS_TO_SEE
    while not (folder / "run.json").is_file() or (checkpoint.epoch if checkpoint else 0) != wanted:
        if time.monotonic() > until:
            raise ConfigError(
                "Processes that train together need one folder for the run, on storage that all of them see. "
                f"Process {distribution.process} does not find what process 0 wrote. Received: {folder}"
            )
        time.sleep(1)
        checkpoint = latest_checkpoint(folder / "checkpoints")
    return checkpoint


def _finish(model: keras.Model, split: Split, config: Config, folder: Path, distribution: Distribution) -> None:
    from pneumolib.models.finishing import finish
    from pneumolib.models.resnet import build_model

    with distribution.alone():
        finish(distribution.plain(model, lambda: build_model(config, pretrained=False)), split, config, folder)


def _fit(
    split: Split,
    config: Config,
    folder: Path,
    callbacks: Sequence[keras.callbacks.Callback],
    progress: bool,
    tensorboard: bool,
    distribution: Distribution,
) -> keras.Model:
    """Run the epochs that are left and return the model with averaged weights."""
    from pneumolib.models import batches, fitting
    from pneumolib.models.resnet import build_model, freeze_backbone, unfreeze_backbone

    progress = progress and distribution.first
    images = split.train.images(config.size, progress=progress)
    targets = split.train.targets(config.classes)
    weights = batches.class_balance(targets, config.classes)
    if not config.class_weights:
        weights[:] = 1
    weights *= batches.export_balance(targets, export_groups(split.train), config.classes, config.export_weights)
    steps = batches.steps_per_epoch(len(images), config.batch_size, config.min_steps)
    checkpoints = folder / "checkpoints"

    checkpoint = _shared_checkpoint(folder, distribution)
    with runtime.seeded(config.seed), distribution.scope():
        # A run that goes on needs no pre-trained weights: it has its own.
        model = build_model(config, pretrained=checkpoint is None)
    distribution.synchronise(model)

    phases = [(0, config.frozen_epochs), (config.frozen_epochs, config.epochs)] if config.frozen_epochs else [
        (0, config.epochs)
    ]  # fmt: skip
    for start, end in phases:
        checkpoint = _shared_checkpoint(folder, distribution)
        done = checkpoint.epoch if checkpoint else 0
        if done >= end and end != config.epochs:
            continue
        if config.weights is not None:
            if end == config.frozen_epochs:
                freeze_backbone(model)
            else:
                unfreeze_backbone(model)
        fine_tuning = config.weights is not None and end != config.frozen_epochs
        with distribution.scope():
            fitting.compile_model(model, config, steps * (end - start), steps, fine_tuning=fine_tuning)
            if checkpoint is not None:
                restore(checkpoint, model, optimizer=done > start)
        last = done if checkpoint is not None and checkpoint.stopped else end
        dataset = batches.training_batches(
            images,
            batches.one_hot(targets, config.classes),
            weights,
            Augmentation.of(config.augmentation),
            batch_size=config.batch_size,
            seed=config.seed,
            first_epoch=done,
            # One step more than is needed, so that Keras never meets the end of the data.
            epochs=last + 1,
            min_steps=config.min_steps,
            share=distribution.share(config.batch_size),
            mixup=config.mixup,
        )
        history = list(checkpoint.history) if checkpoint else []
        ours: list[Any] = [fitting.Validate(split, config, history, distribution)]
        if tensorboard and distribution.first:
            ours.append(fitting.tensorboard(folder / "tensorboard"))
        ours.append(fitting.Progress(history, config.epochs, steps, progress))
        keeper = fitting.Keep(
            checkpoints, folder / "log.csv", history, list(callbacks), checkpoint, writes=distribution.first
        )
        with distribution.scope():
            model.fit(
                dataset,
                steps_per_epoch=steps,
                shuffle=False,
                initial_epoch=done,
                epochs=last,
                callbacks=[ours[0], *callbacks, *ours[1:], keeper],
                verbose=0,
            )
        if model.stop_training:
            break
    return model
