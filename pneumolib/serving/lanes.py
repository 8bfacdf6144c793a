"""The way of a picture through the server: a bounded queue, and lanes that decode, ask the detector, and answer.

A lane is a thread with a decoding process of its own; the network runs in the thread, outside Python's lock. The queue
is bounded and first come, first served. What has waited past its deadline, or whose caller has gone, is not looked at.
Batches of several pictures through the network would buy nothing on a CPU and cost the first of them time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pneumolib import errors
from pneumolib.evaluation.overlay import layer, overlay, png
from pneumolib.models.detector import Detector
from pneumolib.models.explain import heat_maps
from pneumolib.models.prediction import Prediction
from pneumolib.serving.decoder import Decoder, DecoderLost
from pneumolib.serving.metrics import Metrics
from pneumolib.serving.problems import Problem
from pneumolib.serving.schema import HeatmapKind
from pneumolib.serving.settings import Settings

SELF_CHECK = 1e-4  # a probability may differ from the recorded one by so much; another machine moves it by some 1e-6

_log = logging.getLogger("pneumolib.serving")


@dataclass(frozen=True)
class Options:
    """What is wanted of a picture."""

    operating_point: str = "balanced"
    heatmap: HeatmapKind = "none"
    picture: bool = False


@dataclass(frozen=True)
class Image:
    """A PNG."""

    data: bytes
    width: int
    height: int


@dataclass(frozen=True)
class Result:
    """What a lane found."""

    prediction: Prediction
    heatmap: Image | None
    picture: Image | None
    queue_seconds: float
    decode_seconds: float
    inference_seconds: float
    heatmap_seconds: float


@dataclass(eq=False)
class Job:
    """A picture that waits; `future` gets a `Result` or a `Problem`."""

    content: bytes | None
    options: Options
    future: asyncio.Future[Result]
    deadline: float  # of time.monotonic()
    arrived: float = field(default_factory=time.monotonic)


class Lanes:
    """The lanes and the queue before them. Made and spoken to from the event loop's thread.

    Args:
        detector: answers from any number of threads at once.
        settings: how many lanes, how long the queue, how much a file may take.
        metrics: what is counted.
    """

    def __init__(self, detector: Detector, settings: Settings, metrics: Metrics) -> None:
        self._detector, self._settings, self._metrics = detector, settings, metrics
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._seconds = 0.05  # a picture's, a moving mean
        self._started = 0
        self._threads = [
            threading.Thread(target=self._work, name=f"lane-{number}", daemon=True)
            for number in range(settings.n_lanes)
        ]
        self.draining = False  # is the server about to stop?
        self.failure: str | None = None  # why it will never be ready
        self.self_check: float | None = None

    def start(self) -> None:
        """Start the lanes; each warms up and checks itself before it takes a picture."""
        for thread in self._threads:
            thread.start()

    @property
    def ready(self) -> bool:
        """Whether every lane has warmed up and given the answer that was recorded with the detector."""
        return self._started == len(self._threads) and self.failure is None and not (self.draining or self._stopped)

    @property
    def reason(self) -> str | None:
        """Why the lanes are not ready."""
        if self.ready:
            return None
        return self.failure or ("it is shutting down" if self.draining or self._stopped else "it is warming up")

    def submit(self, contents: list[bytes], options: Options) -> list[Job]:
        """Queue pictures, all or none, and return their jobs.

        Raises:
            Problem: ``queue_full``.
        """
        loop = asyncio.get_running_loop()
        patience = self._settings.deadline_seconds
        jobs = [Job(content, options, loop.create_future(), time.monotonic() + patience) for content in contents]
        with self._changed:
            if self._stopped:
                raise Problem("draining", "The server is shutting down; it takes no more pictures.", retry_after=5)
            if len(self._waiting) + len(jobs) > self._settings.queue:
                raise Problem(
                    "queue_full",
                    f"{len(self._waiting)} pictures wait. Allowed: {self._settings.queue}. Received: {len(jobs)} more. "
                    "Try again later.",
                    retry_after=(len(self._waiting) + 1) * self._seconds / len(self._threads),
                )
            self._waiting.extend(jobs)
            self._metrics.queue_depth.set(len(self._waiting))
            self._changed.notify(len(jobs))
        for job in jobs:
            timer = loop.call_later(patience, self._expire, job)
            job.future.add_done_callback(partial(_cancel, timer))
        return jobs

    def drop(self, job: Job) -> None:
        """Forget a job that nobody waits for; a lane that has it already finishes it for nothing."""
        self._take_out(job)
        job.future.cancel()

    def _expire(self, job: Job) -> None:
        if self._take_out(job) and not job.future.done():
            job.future.set_exception(_too_late())

    def _take_out(self, job: Job) -> bool:
        with self._changed:
            try:
                self._waiting.remove(job)
            except ValueError:
                return False
            self._metrics.queue_depth.set(len(self._waiting))
            return True

    def stop(self) -> None:
        """Finish what the lanes have in hand, and end them; what still waits is answered with ``draining``."""
        with self._changed:
            self._stopped = True
            left, self._waiting = list(self._waiting), deque()
            self._changed.notify_all()
        for job in left:
            self._give(job, Problem("draining", "The server is shutting down before the picture's turn came."))
        for thread in self._threads:
            if thread.is_alive():
                thread.join(self._settings.decode_seconds + 5)

    def _work(self) -> None:
        decoder = self._new_decoder()
        try:
            self._warm_up(decoder)
            while (job := self._next()) is not None:
                began = time.monotonic()
                try:
                    outcome: Result | Problem = self._look(job, decoder)
                except Problem as problem:
                    outcome = problem
                except Exception:
                    _log.exception("a lane failed over a picture")
                    outcome = Problem("internal_error", "The server failed over the picture; its log says how.")
                job.content = None
                self._seconds = 0.9 * self._seconds + 0.1 * (time.monotonic() - began)
                self._give(job, outcome)
        except Exception as error:
            _log.exception("a lane did not start")
            self.failure = f"a lane failed: {error}"
        finally:
            decoder.stop()

    def _new_decoder(self) -> Decoder:
        s = self._settings
        return Decoder(self._detector.size, s.limits, memory=s.decode_bytes, seconds=s.decode_seconds)

    def _warm_up(self, decoder: Decoder) -> None:
        """Walk the whole way with a picture whose answer is known."""
        image = self._detector.self_check_image()
        seen = decoder.decode(png(image)).square
        if not np.array_equal(seen, image):
            raise errors.ArtifactError("the decoding process does not give the pixels of a file made for this")
        heat_maps(self._detector, seen[None])
        self.self_check = self._detector.self_check()
        if self.self_check is not None and self.self_check > SELF_CHECK:
            raise errors.ArtifactError(
                f"the detector's answer to a picture made for this differs by {self.self_check:.2g} from the one "
                f"recorded when it was saved; {SELF_CHECK:g} is allowed"
            )
        with self._changed:
            self._started += 1
        self._metrics.ready.set(self.ready)

    def _next(self) -> Job | None:
        """Wait for a picture; None when the lanes are to end."""
        with self._changed:
            while not self._waiting:
                if self._stopped:
                    return None
                self._changed.wait()
            job = self._waiting.popleft()
            self._metrics.queue_depth.set(len(self._waiting))
            return job

    def _look(self, job: Job, decoder: Decoder) -> Result:
        began = time.monotonic()
        if began > job.deadline:
            raise _too_late()
        assert job.content is not None
        drawn = job.options.heatmap == "overlay"
        try:
            decoded = decoder.decode(job.content, picture=job.options.picture or drawn)
        except DecoderLost as error:
            self._metrics.decoder_restarts.inc()
            raise Problem("undecodable_image", f"image: decoding it {error}.") from error
        except errors.ImageTooLargeError as error:
            raise Problem("image_too_large", str(error)) from error
        except (errors.UnsupportedImageError, errors.MissingExtraError) as error:
            raise Problem("unsupported_media_type", str(error)) from error
        except errors.ImageError as error:
            raise Problem("undecodable_image", str(error)) from error
        after_decode = time.monotonic()
        prediction = self._detector.predict(decoded.square, operating_point=job.options.operating_point)
        after_inference = time.monotonic()
        heatmap = None
        if job.options.heatmap != "none" and prediction.input.ok:
            heat = heat_maps(self._detector, decoded.square[None])[0]
            picture = decoded.picture if drawn else decoded.square
            assert picture is not None
            heatmap = _image(overlay(picture, heat) if drawn else layer(heat))
        shown = _image(decoded.picture) if job.options.picture and decoded.picture is not None else None
        after_heatmap = time.monotonic()
        result = Result(
            prediction=prediction,
            heatmap=heatmap,
            picture=shown,
            queue_seconds=began - job.arrived,
            decode_seconds=after_decode - began,
            inference_seconds=after_inference - after_decode,
            heatmap_seconds=after_heatmap - after_inference,
        )
        self._count(result)
        return result

    def _count(self, result: Result) -> None:
        m = self._metrics
        m.queue_seconds.observe(result.queue_seconds)
        m.decode_seconds.observe(result.decode_seconds)
        m.inference_seconds.observe(result.inference_seconds)
        if result.heatmap is not None:
            m.heatmap_seconds.observe(result.heatmap_seconds)
        check = result.prediction.input
        if not check.ok:
            m.refusals.labels(check.code or "other").inc()
        m.pictures.labels(result.prediction.decision or "refused").inc()

    def _give(self, job: Job, outcome: Result | Problem) -> None:
        def settle() -> None:
            if job.future.done():
                return
            if isinstance(outcome, Problem):
                job.future.set_exception(outcome)
            else:
                job.future.set_result(outcome)

        # A loop that is closed has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            job.future.get_loop().call_soon_threadsafe(settle)


def _cancel(timer: asyncio.TimerHandle, future: asyncio.Future[Result]) -> None:
    timer.cancel()


def _too_late() -> Problem:
    return Problem("deadline_passed", "The picture waited longer than its deadline; it was not looked at.")


def _image(pixels: NDArray[np.uint8]) -> Image:
    return Image(png(pixels), width=pixels.shape[1], height=pixels.shape[0])
