from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest

from pneumolib.errors import DataError
from pneumolib.evaluation.galleries import plot_images


@pytest.fixture(autouse=True)
def no_figure_stays() -> Iterator[None]:
    yield
    plt.close("all")


class TestSizeOfImages:
    IMAGES = np.zeros((6, 8, 8), np.uint8)

    def test_grid_grows_with_the_width_of_its_images(self) -> None:
        widths = [plot_images(self.IMAGES, ncols=3, inches=inches).get_size_inches()[0] for inches in (1.0, 2.0)]
        assert widths == pytest.approx([3.0, 6.0])

    def test_invisible_images_are_refused(self) -> None:
        with pytest.raises(DataError, match=r"0\.5 inches"):
            plot_images(self.IMAGES, inches=0.1)
