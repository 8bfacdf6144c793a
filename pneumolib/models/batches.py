"""Batches for Keras, by tf.data: every batch of a run is a function of (seed, epoch, step)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pneumolib import runtime
from pneumolib.errors import DataError
from pneumolib.models.augment import Augmentation, augment, random_state

if TYPE_CHECKING:
    import tensorflow as tf

_ORDER = 2**32 - 1  # the index that no image has: its random numbers decide the order of an epoch
_PARTNERS = 2**30  # more epochs than any run has: the random numbers of an epoch so much later choose the partners


def training_batches(
    images: NDArray[np.uint8],
    targets: NDArray[np.float32],
    weights: NDArray[np.float32],
    augmentation: Augmentation,
    *,
    batch_size: int,
    seed: int,
    first_epoch: int,
    epochs: int,
    min_steps: int = 1,
    share: slice | None = None,
    mixup: float = 0.0,
) -> tf.data.Dataset:
    """Return the batches of the epochs `first_epoch` to `epochs` - 1, one after the other.

    Each epoch visits the images in an order of its own and leaves out the last ``N % batch_size`` of it, so that every
    batch has the same shape. Where that gives fewer than `min_steps` batches, the epoch visits the images several
    times, each time in another order and augmented in another way. A run that starts at a later epoch gets the very
    batches that one from the start gets.

    Args:
        images: uint8 ``[N, S, S]``; a memory map is read batch by batch.
        targets: one-hot, float32 ``[N, C]``.
        weights: of each image in the loss, float32 ``[N]``.
        augmentation: what is done to each image.
        batch_size: at most N.
        seed: of the run.
        first_epoch: from 0.
        epochs: where to stop.
        min_steps: the least number of batches of an epoch.
        share: which places of each batch are wanted, start and stop; None: all. The others are not read.
        mixup: each image, with its target and weight, is mixed with another by a share from Beta(mixup, mixup)
            (Zhang et al., 2018, arXiv:1710.09412); 0 is off.

    Returns:
        Batches of (float32 ``[B, S, S, 1]`` in 0..255, float32 ``[B, C]``, float32 ``[B]``), B that of the share.

    Raises:
        DataError: fewer images than one batch.
    """
    tf = runtime.tensorflow()
    steps = steps_per_epoch(len(images), batch_size, min_steps)
    visits = -(-steps * batch_size // len(images))
    side, classes = images.shape[1], targets.shape[1]
    places = range(batch_size)[share or slice(None)]

    def load(step: np.int64) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
        epoch, position = divmod(int(step), steps)
        batch, wanted, weight = [], [], []
        for place in (position * batch_size + offset for offset in places):
            # Where an epoch visits the images several times, each visit counts as an epoch of its own for chance.
            visit, place = epoch * visits + place // len(images), place % len(images)
            i = int(epoch_order(len(images), seed, visit)[place])
            image = augment(images[i], augmentation, seed=seed, epoch=visit, index=i)
            j, own = _partner(len(images), mixup, seed=seed, epoch=visit, index=i)
            if own < 1:
                other = augment(images[j], augmentation, seed=seed, epoch=visit, index=j)
                image = np.rint(own * image + (1 - own) * other).astype(np.uint8)
            batch.append(image)
            wanted.append(own * targets[i] + (1 - own) * targets[j])
            weight.append(own * weights[i] + (1 - own) * weights[j])
        return np.stack(batch)[..., None], np.stack(wanted), np.stack(weight)

    def shaped(step: Any) -> tuple[Any, Any, Any]:
        x, y, w = tf.numpy_function(load, [step], (tf.uint8, tf.float32, tf.float32))
        x = tf.ensure_shape(x, (len(places), side, side, 1))
        return tf.cast(x, tf.float32), tf.ensure_shape(y, (len(places), classes)), tf.ensure_shape(w, (len(places),))

    numbers = tf.data.Dataset.range(first_epoch * steps, epochs * steps)
    return numbers.map(shaped, num_parallel_calls=min(4, runtime.available_cores()), deterministic=True).prefetch(4)


def steps_per_epoch(n_images: int, batch_size: int, min_steps: int = 1) -> int:
    """Return how many batches an epoch has: all full ones, at least `min_steps`; `DataError` if none can be filled."""
    if n_images < batch_size:
        raise DataError(
            f"There are fewer training images than one batch holds. Allowed: batch_size up to {n_images}. "
            f"Received: batch_size={batch_size}"
        )
    return max(n_images // batch_size, min_steps)


def _partner(n_images: int, mixup: float, *, seed: int, epoch: int, index: int) -> tuple[int, np.float32]:
    """Return another image for that image of that epoch, and the share that the image itself keeps."""
    if not mixup:
        return index, np.float32(1)
    random = random_state(seed, epoch + _PARTNERS, index)
    return int(random.integers(n_images)), np.float32(random.beta(mixup, mixup))


@functools.lru_cache(maxsize=4)
def epoch_order(n_images: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order in which an epoch visits the images: a permutation, int64 ``[N]``."""
    return random_state(seed, epoch, _ORDER).permutation(n_images)


class Joined:
    """Arrays of images one after the other, of which no copy is made but of the part that is asked for.

    Examples:
        >>> joined = Joined(np.zeros((3, 8, 8), np.uint8), np.ones((2, 8, 8), np.uint8))
        >>> len(joined), joined.shape, joined[2:9].mean(axis=(1, 2)).tolist()
        (5, (5, 8, 8), [0.0, 1.0, 1.0])
    """

    def __init__(self, *parts: NDArray[np.uint8]) -> None:
        self._parts = parts
        self.shape = (sum(map(len, parts)), *parts[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places: slice) -> NDArray[np.uint8]:
        start, stop, _ = places.indices(len(self))
        pieces = []
        for part in self._parts:
            pieces.append(part[max(start, 0) : max(stop, 0)])
            start, stop = start - len(part), stop - len(part)
        return np.concatenate(pieces)


def prediction_batches(images: NDArray[np.uint8] | Joined, batch_size: int, *, full: bool = False) -> tf.data.Dataset:
    """Return the images in their order, float32 ``[B, S, S, 1]`` in 0..255, the last batch smaller where it must be.

    With `full` the last batch is filled up with black images, so that it can be divided over devices.
    """
    tf = runtime.tensorflow()

    def load(start: np.int64) -> NDArray[np.float32]:
        batch = np.asarray(images[start : start + batch_size], np.float32)[..., None]
        return np.pad(batch, ((0, batch_size - len(batch)), (0, 0), (0, 0), (0, 0))) if full else batch

    def shaped(start: Any) -> Any:
        return tf.ensure_shape(tf.numpy_function(load, [start], tf.float32), (None, *images.shape[1:], 1))

    return tf.data.Dataset.range(0, len(images), batch_size).map(shaped).prefetch(2)


def one_hot(targets: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """Return the class indices `targets` ``[N]`` as one-hot rows, float32 ``[N, C]``."""
    return np.eye(classes, dtype=np.float32)[targets]


def export_balance(
    targets: NDArray[np.int64], groups: NDArray[np.int64], classes: int, most: float
) -> NDArray[np.float32]:
    """Return a factor for each image, float32 ``[N]``, mean 1 in each class, that makes its groups weigh alike.

    The factor of an image of a rare group is cut at `most`, lest few images be learnt by heart. This is the balancing
    of groups by weights that Idrissi et al., 2022, arXiv:2110.14503, found as good as cleverer remedies.

    Args:
        targets: the class of each image, int ``[N]``.
        groups: its group, as `export_groups` gives it, int ``[N]``.
        classes: the number of classes.
        most: 1 or more; 1 leaves all factors at 1.
    """
    factors = np.ones(len(targets), np.float32)
    for c in range(classes):
        mine = targets == c
        present = np.unique(groups[mine])
        if most <= 1 or len(present) < 2:
            continue
        for group in present:
            chosen = mine & (groups == group)
            factors[chosen] = min(most, mine.sum() / (len(present) * chosen.sum()))
        factors[mine] /= factors[mine].mean()
    return factors


def class_balance(targets: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """Return a weight for each image, float32 ``[N]``, mean 1, such that all classes weigh the same in the loss.

    Raises:
        DataError: a class has no image.
    """
    counts = np.bincount(targets, minlength=classes)
    if (counts == 0).any():
        raise DataError(f"Every class needs at least one training image. Received images per class: {counts.tolist()}")
    return (len(targets) / (classes * counts)).astype(np.float32)[targets]
