"""Each error can be caught as pneumolib's own and as the built-in that it is a case of."""

from __future__ import annotations

import pytest

from pneumolib import errors

BUILT_IN = {
    "ConfigError": ValueError,
    "DataError": ValueError,
    "DataNotFoundError": FileNotFoundError,
    "DownloadError": OSError,
    "ImageError": ValueError,
    "ImageTooLargeError": ValueError,
    "UnsupportedImageError": ValueError,
    "ArtifactError": ValueError,
    "MissingExtraError": ImportError,
    "ServerError": OSError,
    "DistributionError": RuntimeError,
}


def test_the_list_is_whole() -> None:
    leaves = {name for name, value in vars(errors).items() if isinstance(value, type)} - {"PneumolibError"}
    assert leaves == set(BUILT_IN)


@pytest.mark.parametrize(("name", "built_in"), BUILT_IN.items())
def test_error_is_pneumolibs_and_built_in(name: str, built_in: type[Exception]) -> None:
    error = getattr(errors, name)("a size of 3 is too small")
    assert isinstance(error, errors.PneumolibError)
    assert isinstance(error, built_in)
    assert str(error) == "a size of 3 is too small"
