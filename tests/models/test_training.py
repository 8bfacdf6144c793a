"""Training: exact resume after kill -9, clear refusals, and a detector at the end."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pneumolib import runtime
from pneumolib.config import Config
from pneumolib.data.dataset import Dataset
from pneumolib.errors import ArtifactError, ConfigError, DataError, DataNotFoundError
from pneumolib.models.training import Run, default_folder, train

TINY = dict(
    name="tiny", size=32, width=4, epochs=4, batch_size=16, augmentation="strong", dropout=0.3, mix_style=0.5,
    precision="float32",
)  # fmt: skip

PROGRAM = """
import sys
from pneumolib.config import Config
from pneumolib.data.dataset import load_dataset
from pneumolib.models.training import train
train(load_dataset(sys.argv[1]), Config(**eval(sys.argv[3])), out=sys.argv[2], progress=False)
"""


@pytest.fixture(scope="module")
def straight(phantom: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing interrupted."""
    return train(phantom, Config(**TINY), out=tmp_path_factory.mktemp("straight") / "run", progress=False)


def weights(run: Run) -> str:
    return hashlib.sha256((run.folder / "detector" / "weights.safetensors").read_bytes()).hexdigest()


def without_times(run: Run) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in run.history]


def test_a_finished_run_has_history_log_predictions_and_detector(straight: Run, phantom: Dataset) -> None:
    assert straight.finished
    assert straight.phantom
    assert [row["epoch"] for row in straight.history] == [1, 2, 3, 4]
    assert {"loss", "val_loss", "val_auc", "shifted_auc", "learning_rate"} <= set(straight.history[0])
    log = (straight.folder / "log.csv").read_text().splitlines()
    assert len(log) == 5
    predictions = (straight.folder / "predictions.csv").read_text().splitlines()[1:]
    held_out = {line.split(",")[0] for line in predictions}
    assert held_out
    assert held_out <= set(phantom.train.names)
    detector = straight.detector
    assert detector.size == 32
    assert set(detector.operating_points) == {"balanced", "high_sensitivity", "high_specificity"}
    assert detector.card["phantom"]


def test_killed_at_any_moment_it_goes_on_to_the_same_weights(
    straight: Run, phantom_folder: Path, tmp_path: Path
) -> None:
    """Kill -9 twice, at moments that nobody chose, then let it finish: bit for bit the uninterrupted run."""
    out = tmp_path / "run"
    command = [sys.executable, "-c", PROGRAM, str(phantom_folder), str(out), repr(TINY)]
    for epochs in (1, 2):
        process = subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wanted = out / "checkpoints" / f"epoch-{epochs:04d}.json"
        while not wanted.exists():
            assert process.poll() is None, process.stderr.read().decode()  # type: ignore[union-attr]
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not Run.load(out).finished
        with pytest.raises(DataNotFoundError, match="not finished"):
            Run.load(out).detector  # noqa: B018
    subprocess.run(command, check=True, env=os.environ)
    resumed = Run.load(out)
    assert without_times(resumed) == without_times(straight)
    assert weights(resumed) == weights(straight)
    assert (out / "predictions.csv").read_text() == (straight.folder / "predictions.csv").read_text()


class Interrupt(runtime.keras().callbacks.Callback):
    """Stands for a person who presses stop in the middle of an epoch."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self._epoch, self._now = epoch, 0
        self.calls = 0

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self._now = epoch

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.calls += 1
        if self._now == self._epoch and batch == 1:
            raise KeyboardInterrupt


def test_interrupted_by_hand_with_a_frozen_backbone_it_goes_on_too(phantom: Dataset, tmp_path: Path) -> None:
    """Two phases (frozen, then unfrozen backbone), interrupted in the second: same weights as without interruption."""
    keras = runtime.keras()
    source = keras.applications.ResNet50V2(include_top=False, weights=None, input_shape=(32, 32, 3))
    file = tmp_path / "backbone.weights.h5"
    source.save_weights(file)
    config = Config(
        size=32, epochs=3, frozen_epochs=1, batch_size=64, architecture="resnet50v2", weights=str(file),
        precision="float32", augmentation="light",
    )  # fmt: skip
    whole = train(phantom, config, out=tmp_path / "whole", progress=False)
    with pytest.raises(KeyboardInterrupt):
        train(phantom, config, out=tmp_path / "cut", progress=False, callbacks=[Interrupt(1)])
    assert len(Run.load(tmp_path / "cut").history) == 1
    resumed = train(phantom, config, out=tmp_path / "cut", progress=False, callbacks=[Interrupt(99)])
    assert weights(resumed) == weights(whole)


def test_early_stopping_ends_the_run_for_good(phantom: Dataset, tmp_path: Path) -> None:
    stopping = runtime.keras().callbacks.EarlyStopping(monitor="loss", mode="max", patience=0)
    run = train(phantom, Config(**TINY), out=tmp_path / "run", progress=False, callbacks=[stopping])
    assert run.finished
    assert len(run.history) < TINY["epochs"]


def test_a_finished_run_is_returned_at_once_without_training(
    straight: Run, phantom: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pneumolib.models.training._fit", lambda *_: pytest.fail("trained again"))
    assert train(phantom, Config(**TINY), out=straight.folder).history == straight.history


def test_a_folder_of_another_run_is_refused(straight: Run, phantom: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"epochs: 4 there, 5 here"):
        train(phantom, Config(**TINY | {"epochs": 5}), out=straight.folder)
    with pytest.raises(ConfigError, match="pass resume=True"):
        train(phantom, Config(**TINY), out=straight.folder, resume=False)
    (tmp_path / "thesis.docx").write_text("precious")
    with pytest.raises(ConfigError, match="holds other files"):
        train(phantom, Config(**TINY), out=tmp_path)
    assert (tmp_path / "thesis.docx").read_text() == "precious"
    facts = json.loads((straight.folder / "run.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    (other / "run.json").write_text(json.dumps(facts | {"data": "0" * 16}))
    with pytest.raises(ConfigError, match="started on other data"):
        train(phantom, Config(**TINY), out=other)


def test_another_version_returns_a_finished_run_and_does_not_go_on_with_another(
    straight: Run, phantom: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "run.json").write_text((straight.folder / "run.json").read_text())
    monkeypatch.setattr("pneumolib.__version__", "9.9")
    assert train(phantom, Config(**TINY), out=straight.folder).finished
    with pytest.raises(ConfigError, match=r"this version, 9\.9\. Go on with that version"):
        train(phantom, Config(**TINY), out=begun)


def test_batches_larger_than_the_data_are_refused(phantom: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Received: batch_size=5000"):
        train(phantom, Config(**TINY | {"batch_size": 5000}), out=tmp_path / "run", progress=False)


def test_a_damaged_run_is_named(phantom: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match="no run in that folder"):
        Run.load(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ArtifactError, match="damaged"):
        Run.load(tmp_path)
    with pytest.raises(ArtifactError, match="damaged"):
        train(phantom, Config(**TINY), out=tmp_path)


def test_the_default_folder_follows_settings_and_data(phantom: Dataset) -> None:
    from pneumolib.data.splits import split_by_patient

    split = split_by_patient(phantom.train)
    folders = {default_folder(Config(**TINY | {"seed": seed}), split).name for seed in (0, 1)}
    assert len(folders) == 2
    assert all(name.startswith("tiny-") for name in folders)


def test_progress_prints_a_line_an_epoch(phantom: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train(phantom, Config(**TINY | {"epochs": 1}), out=tmp_path / "run", progress=True)
    out, err = capfd.readouterr()
    assert "epoch   1/1" in out
    assert err == ""


def test_averaged_weights_differ_from_the_last_ones_and_predict_like_them(phantom: Dataset, tmp_path: Path) -> None:
    plain = train(phantom, Config(**TINY | {"average_weights": None}), out=tmp_path / "plain", progress=False)
    images = phantom.test.images(32)
    averaged = train(phantom, Config(**TINY | {"average_weights": 0.5}), out=tmp_path / "averaged", progress=False)
    assert weights(plain) != weights(averaged)
    assert np.corrcoef(plain.detector.probability(images), averaged.detector.probability(images))[0, 1] > 0.5
