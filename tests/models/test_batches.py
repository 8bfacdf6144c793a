"""Batches: functions of (seed, epoch, step), whole epochs, fixed shapes."""

import numpy as np
import pytest

from pneumolib.errors import DataError
from pneumolib.models import batches
from pneumolib.models.augment import Augmentation

N = 10
IMAGES = np.arange(N, dtype=np.uint8)[:, None, None] * np.ones((1, 16, 16), np.uint8)
TARGETS = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 2])


def read(first_epoch: int, epochs: int, augmentation: Augmentation | None = None, seed: int = 0) -> list[tuple]:
    return list(
        batches.training_batches(
            IMAGES,
            batches.one_hot(TARGETS, 3),
            batches.class_balance(TARGETS, 3),
            augmentation or Augmentation(),
            batch_size=4,
            seed=seed,
            first_epoch=first_epoch,
            epochs=epochs,
        ).as_numpy_iterator()
    )


def test_form_of_a_batch() -> None:
    rows = read(0, 2)
    assert len(rows) == 4
    x, y, w = rows[0]
    assert (x.dtype, x.shape) == (np.float32, (4, 16, 16, 1))
    assert (y.dtype, y.shape) == (np.float32, (4, 3))
    assert (w.dtype, w.shape) == (np.float32, (4,))


def test_images_keep_their_targets_and_weights() -> None:
    balance = batches.class_balance(TARGETS, 3)
    for x, y, w in read(0, 3):
        numbers = x[:, 0, 0, 0].astype(int)
        np.testing.assert_array_equal(y.argmax(1), TARGETS[numbers])
        np.testing.assert_array_equal(w, balance[numbers])


def test_an_epoch_has_no_image_twice_and_epochs_differ_in_order() -> None:
    epochs = [
        np.concatenate([x[:, 0, 0, 0] for x, _, _ in pair]) for pair in (read(0, 3)[i : i + 2] for i in (0, 2, 4))
    ]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert (epochs[0] != epochs[1]).any()


def test_a_later_start_gives_the_very_same_batches() -> None:
    settings = Augmentation.preset("strong")
    whole, rest = read(0, 4, settings), read(2, 4, settings)
    for (x, y, w), (x2, y2, w2) in zip(whole[4:], rest, strict=True):
        np.testing.assert_array_equal(x, x2)
        np.testing.assert_array_equal(y, y2)
        np.testing.assert_array_equal(w, w2)


def test_a_small_set_is_visited_several_times_in_an_epoch_each_time_in_another_way() -> None:
    def epochs(first: int, last: int) -> list[tuple]:
        return list(
            batches.training_batches(
                IMAGES, batches.one_hot(TARGETS, 3), batches.class_balance(TARGETS, 3), Augmentation(brightness=0.5),
                batch_size=4, seed=0, first_epoch=first, epochs=last, min_steps=5,
            ).as_numpy_iterator()
        )  # fmt: skip

    whole = epochs(0, 2)
    assert len(whole) == 10
    assert batches.steps_per_epoch(N, 4, 5) == 5
    seen = np.concatenate([y for _, y, _ in whole[:5]]).sum(0)
    np.testing.assert_array_equal(seen, 2 * np.bincount(TARGETS))
    shades = np.concatenate([x[:, 0, 0, 0] for x, _, _ in whole])
    assert len(np.unique(shades)) > N
    for (x, _, _), (x2, _, _) in zip(whole[5:], epochs(1, 2), strict=True):
        np.testing.assert_array_equal(x, x2)


def test_mixed_images_have_mixed_targets_and_weights() -> None:
    def mixed(first_epoch: int, epochs: int) -> list[tuple]:
        # A class for each image: its row of targets tells which two were mixed, and by what shares.
        return list(
            batches.training_batches(
                IMAGES, np.eye(N, dtype=np.float32), np.arange(N, dtype=np.float32) / 3, Augmentation(),
                batch_size=4, seed=0, first_epoch=first_epoch, epochs=epochs, mixup=0.5,
            ).as_numpy_iterator()
        )  # fmt: skip

    rows = mixed(0, 8)
    targets = np.concatenate([y for _, y, _ in rows])
    assert set((targets > 0).sum(1)) == {1, 2}
    assert ((targets > 0).sum(1) == 2).sum() > len(targets) / 2
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)
    for x, y, w in rows:
        np.testing.assert_array_equal(x, np.rint(y @ IMAGES.reshape(N, -1)).reshape(x.shape))
        np.testing.assert_allclose(w, y @ np.arange(N) / 3, rtol=1e-5)
    for (x, y, w), (x2, y2, w2) in zip(rows[4:], mixed(2, 8), strict=True):
        np.testing.assert_array_equal(x, x2)
        np.testing.assert_array_equal(y, y2)
        np.testing.assert_array_equal(w, w2)


def test_the_seed_changes_the_order() -> None:
    assert (read(0, 1)[0][0] != read(0, 1, seed=1)[0][0]).any()


def test_class_balance_weighs_classes_alike_with_mean_one() -> None:
    weights = batches.class_balance(TARGETS, 3)
    sums = [weights[c == TARGETS].sum() for c in range(3)]
    np.testing.assert_allclose(sums, N / 3, rtol=1e-6)
    assert weights.mean() == pytest.approx(1)


def test_groups_of_a_class_weigh_alike_up_to_the_cap() -> None:
    targets = np.repeat([0, 1, 2], 12)
    groups = np.array([1] * 2 + [0] * 10 + [1] * 6 + [0] * 6 + [0] * 12)
    free = batches.export_balance(targets, groups, 3, most=100)
    for c in range(3):
        mine = targets == c
        assert free[mine].mean() == pytest.approx(1)
        sums = [free[mine & (groups == g)].sum() for g in np.unique(groups[mine])]
        np.testing.assert_allclose(sums, sums[0], rtol=1e-5)
    capped = batches.export_balance(targets, groups, 3, most=2)
    rare, common = capped[0], capped[2]
    assert rare / common == pytest.approx(2 / 0.6)
    assert capped[:12].mean() == pytest.approx(1)
    np.testing.assert_array_equal(batches.export_balance(targets, groups, 3, most=1), 1)


def test_prediction_batches_keep_order_and_last_part() -> None:
    got = [x for x in batches.prediction_batches(IMAGES, 4).as_numpy_iterator()]
    assert [len(x) for x in got] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(got)[..., 0], IMAGES)


def test_refusals() -> None:
    with pytest.raises(DataError, match=r"batch_size up to 3\. Received: batch_size=4"):
        batches.steps_per_epoch(3, 4)
    with pytest.raises(DataError, match=r"Every class needs.*\[10, 0\]"):
        batches.class_balance(np.zeros(10, int), 2)
