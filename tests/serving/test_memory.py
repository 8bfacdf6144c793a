"""What callers send is let go when it is of no use any more, not when Python's collector comes round."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator

import pytest

from pneumolib.data.images import Limits
from pneumolib.errors import ImageError
from pneumolib.serving.decoder import Decoder
from pneumolib.serving.guard import problem_response
from pneumolib.serving.metrics import Metrics
from pneumolib.serving.problems import Problem


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def caught(do: Callable[[memoryview], object], body: memoryview) -> Exception:
    try:
        do(body)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_a_problem_that_is_told_holds_no_body() -> None:
    def refuse(body: memoryview) -> None:
        try:
            raise ImageError("as a decoder does")
        except ImageError as error:
            raise Problem("undecodable_image", str(error)) from error

    body = memoryview(b"a file")
    held = weakref.ref(body)
    problem = caught(refuse, body)
    del body
    assert isinstance(problem, Problem)
    assert held() is not None
    problem_response(problem, "1", Metrics(name="", version="", sha256=""))
    assert held() is None


def test_a_file_that_is_refused_goes_with_its_error() -> None:
    decoder = Decoder(32, Limits(), memory=2**30, seconds=30)
    try:
        body = memoryview(b"no picture at all")
        held = weakref.ref(body)
        error = caught(decoder.decode, body)
        assert isinstance(error, ImageError)
        del body, error
        assert held() is None
    finally:
        decoder.stop()
