"""Grids of images: what is in them, in which order, under which title."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt

from pneumolib.errors import DataError
from pneumolib.evaluation.galleries import plot_errors, plot_images

IMAGES = np.arange(6 * 16, dtype=np.uint8).reshape(6, 4, 4)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def test_every_image_stands_under_its_title_on_one_gray_scale() -> None:
    figure = plot_images(list(IMAGES[:5]), list("abcde"), ncols=3)
    assert len(figure.axes) == 6
    shown = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title() for ax in shown] == list("abcde")
    for ax, image in zip(shown, IMAGES, strict=False):
        assert (ax.images[0].get_array() == image).all()
        assert ax.images[0].get_clim() == (0, 255)
    assert figure.get_suptitle() == ""


def test_images_may_differ_in_size_and_few_make_a_narrow_grid() -> None:
    figure = plot_images([np.zeros((4, 9), np.uint8), np.zeros((7, 2), np.uint8)], ncols=5)
    assert len(figure.axes) == 2


def test_phantom_stands_above_the_grid() -> None:
    assert plot_images(IMAGES, phantom=True).get_suptitle().startswith("PHANTOM")
    assert plot_images(IMAGES, phantom=True, heading="lungs").get_suptitle() == "PHANTOM: lungs"


def test_wrong_grids_are_refused() -> None:
    with pytest.raises(DataError, match="needs images and columns"):
        plot_images([])
    with pytest.raises(DataError, match="needs images and columns"):
        plot_images(IMAGES, ncols=0)
    with pytest.raises(DataError, match="one title"):
        plot_images(IMAGES, ["a"])
    with pytest.raises(DataError, match="must be gray"):
        plot_images([np.zeros((4, 4, 3))])


def test_errors_come_worst_first_with_name_truth_and_probability() -> None:
    y, p = [0, 0, 1, 1, 0, 1], [0.6, 0.99, 0.4, 0.9, 0.1, 0.001]
    names = [f"test/x/{c * 40 if c == 'f' else c}.jpeg" for c in "abcdef"]
    figure = plot_errors(IMAGES, y, p, names, 0.5, limit=3, phantom=True)
    shown = [ax for ax in figure.axes if ax.images]
    # The two near the threshold are as wrong as each other, and the first of them stays first.
    assert [int(ax.images[0].get_array()[0, 0]) // 16 for ax in shown] == [5, 1, 0]
    assert shown[1].get_title() == "b\nis normal\nP(pneumonia) 0.990"
    assert shown[0].get_title() == f"{'f' * 14}...{'f' * 13}\nis pneumonia\nP(pneumonia) 0.001"
    assert figure.get_suptitle() == "PHANTOM: 3 of 4 errors among 6 images, threshold 0.500"


def test_without_errors_there_is_nothing_to_show() -> None:
    with pytest.raises(DataError, match="no error to show"):
        plot_errors(IMAGES[:2], [0, 1], [0.1, 0.9], ["a", "b"], 0.5)
    with pytest.raises(DataError, match="needs an image and a name"):
        plot_errors(IMAGES, [0, 1], [0.1, 0.9], ["a", "b"], 0.5)
