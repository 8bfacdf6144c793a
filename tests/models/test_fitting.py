"""What surrounds `fit`: the schedule, what weight decay spares, and the numbers that are logged."""

import csv

import numpy as np
import pytest

from pneumolib import runtime
from pneumolib.config import Config
from pneumolib.data.dataset import Dataset
from pneumolib.data.splits import shifted_images, split_by_patient
from pneumolib.errors import MissingExtraError
from pneumolib.models import fitting
from pneumolib.models.resnet import build_model

keras = runtime.keras()
CONFIG = Config(
    name="tiny", size=32, width=4, epochs=4, batch_size=16, precision="float32", weight_decay=0.5, warmup_epochs=0.5
)


@pytest.fixture
def model():
    with runtime.seeded(0):
        return build_model(CONFIG)


def rate(model, step: int) -> float:
    return float(np.asarray(model.optimizer._learning_rate(step)))


def test_the_rate_warms_up_in_a_line_and_ends_at_zero(model) -> None:
    fitting.compile_model(model, CONFIG, total_steps=40, steps=10, fine_tuning=False)
    assert rate(model, 0) == 0
    assert rate(model, 2) == pytest.approx(CONFIG.learning_rate * 2 / 5)
    assert rate(model, 5) == pytest.approx(CONFIG.learning_rate)
    halfway = 5 + (40 - 5) / 2
    assert rate(model, halfway) == pytest.approx(CONFIG.learning_rate / 2, rel=1e-3)
    assert rate(model, 40) == pytest.approx(0, abs=1e-9)


def test_a_share_of_the_rate_may_be_left_at_the_end(model) -> None:
    fitting.compile_model(model, CONFIG.replace(final_rate=0.25), total_steps=40, steps=10, fine_tuning=False)
    assert rate(model, 5) == pytest.approx(CONFIG.learning_rate)
    assert rate(model, 40) == pytest.approx(CONFIG.learning_rate / 4)


def test_fine_tuning_has_its_own_peak_and_no_warm_up_starts_there(model) -> None:
    fitting.compile_model(model, CONFIG.replace(warmup_epochs=0), total_steps=40, steps=10, fine_tuning=True)
    assert rate(model, 0) == pytest.approx(CONFIG.fine_tune_learning_rate)


def test_decay_pulls_kernels_and_spares_norms_and_biases(model) -> None:
    fitting.compile_model(model, CONFIG.replace(warmup_epochs=0), total_steps=40, steps=10, fine_tuning=False)
    before = {v.path: v.numpy() for v in model.trainable_variables}
    model.optimizer.apply([np.zeros(v.shape, np.float32) for v in model.trainable_variables], model.trainable_variables)
    for variable in model.trainable_variables:
        shrunk = np.abs(variable.numpy()).sum() < np.abs(before[variable.path]).sum()
        assert shrunk == variable.path.endswith("kernel"), variable.path


def test_labels_are_smoothed_in_the_loss(model) -> None:
    fitting.compile_model(model, CONFIG, total_steps=40, steps=10, fine_tuning=False)
    wanted = CONFIG.label_smoothing
    p = np.array([[0.7, 0.2, 0.1]], np.float32)
    smooth = np.array([1 - wanted + wanted / 3, wanted / 3, wanted / 3])
    assert float(model.loss(np.eye(3, dtype=np.float32)[:1], p)) == pytest.approx(
        -(smooth * np.log(p[0])).sum(), rel=1e-5
    )


def test_both_validation_parts_are_measured_after_each_epoch(model, phantom: Dataset) -> None:
    from sklearn.metrics import roc_auc_score

    split = split_by_patient(phantom.train)
    fitting.compile_model(model, CONFIG, total_steps=4, steps=1, fine_tuning=False)
    history: list[dict[str, float]] = []
    watch = fitting.Validate(split, CONFIG, history)
    watch.set_model(model)
    watch.on_epoch_begin(0)
    watch.on_epoch_end(0, {"loss": 1.25})
    (row,) = history
    assert row["epoch"] == 1
    assert row["loss"] == 1.25
    for name, part, images in (
        ("val", split.val, split.val.images(32)),
        ("shifted", split.shifted, shifted_images(split.shifted, 32, seed=CONFIG.seed)),
    ):
        p = model.predict(np.asarray(images, np.float32)[..., None], verbose=0)
        assert row[f"{name}_auc"] == pytest.approx(roc_auc_score(part.is_pneumonia, 1 - p[:, 0]))
        right = p[np.arange(len(part)), part.targets(3)]
        assert row[f"{name}_loss"] == pytest.approx(-np.log(right).mean(), rel=1e-4)


def test_the_log_is_a_table_with_a_row_for_each_epoch(model, tmp_path) -> None:
    fitting.compile_model(model, CONFIG, total_steps=4, steps=1, fine_tuning=False)
    history = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}]
    keeper = fitting.Keep(tmp_path / "checkpoints", tmp_path / "log.csv", history, [], None)
    keeper.set_model(model)
    keeper.on_epoch_end(1)
    with (tmp_path / "log.csv").open() as file:
        assert list(csv.DictReader(file)) == [{"epoch": "1", "loss": "0.5"}, {"epoch": "2", "loss": "0.25"}]


def test_a_missing_tensorboard_is_named(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="pip install tensorboard"):
        fitting.tensorboard(tmp_path)
