"""The way of a picture through the server: a bounded queue, and lanes that take from it.

A lane is a thread with a decoding process of its own; the network runs in the thread, outside Python's lock. The queue
is bounded and first come, first served. What has waited past its deadline, or whose caller has gone, is not looked at.
Batches of several pictures through the network would buy nothing on a CPU and cost the first of them time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from pneumolib.errors import PneumolibError
from pneumolib.models.detector import Detector
from pneumolib.serving.decoder import Decoder, DecoderLost, DecoderMissing, new_decoders
from pneumolib.serving.metrics import Metrics
from pneumolib.serving.problems import Problem
from pneumolib.serving.settings import Settings
from pneumolib.serving.work import Options, Result, look, warm_up

LANE_NICENESS = 5
STOP_SECONDS = 5.0  # a lane that is still at work is not waited for any longer; nobody waits for its answer

_log = logging.getLogger("pneumolib.serving")


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
        decoders: one for each lane, as `new_decoders` gives them, started or not; None makes them.
    """

    def __init__(
        self, detector: Detector, settings: Settings, metrics: Metrics, decoders: Sequence[Decoder] | None = None
    ) -> None:
        self._detector, self._settings, self._metrics = detector, settings, metrics
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._seconds = 0.05  # a picture's, a moving mean
        self._started = 0
        self._threads = [
            threading.Thread(target=self._work, args=(decoder,), name=f"lane-{number}", daemon=True)
            for number, decoder in enumerate(decoders or new_decoders(detector.size, settings))
        ]
        self.draining = False  # is the server about to stop?
        self.failure: str | None = None  # why it will never be ready
        self.self_check: float | None = None
        metrics.ready.set_function(lambda: self.ready)

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

    def require_ready(self) -> None:
        """Return if pictures are taken.

        Raises:
            Problem: ``not_ready`` or ``draining``.
        """
        if not self.ready:
            code = "draining" if self.failure is None and (self.draining or self._stopped) else "not_ready"
            raise Problem(code, f"The server takes no pictures: {self.reason}.")

    def submit(self, contents: list[bytes], options: Options) -> list[Job]:
        """Queue pictures, all or none, and return their jobs.

        Raises:
            Problem: ``queue_full`` or ``draining``.
        """
        loop = asyncio.get_running_loop()
        patience = self._settings.deadline_seconds
        with self._changed:
            if self._stopped:
                raise _draining()
            if len(self._waiting) + len(contents) > self._settings.queue:
                raise Problem(
                    "queue_full",
                    f"{len(self._waiting)} pictures wait. Allowed: {self._settings.queue}. "
                    f"Received: {len(contents)} more. Try again later.",
                    retry_after=(len(self._waiting) + 1) * self._seconds / len(self._threads),
                )
            deadline = time.monotonic() + patience
            jobs = [Job(content, options, loop.create_future(), deadline) for content in contents]
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

    def stop(self) -> None:
        """Finish what the lanes have in hand, and end them; what still waits is answered with ``draining``."""
        with self._changed:
            self._stopped = True
            left, self._waiting = list(self._waiting), deque()
            self._metrics.queue_depth.set(0)
            self._changed.notify_all()
        for job in left:
            self._give(job, _draining())
        until = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))

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

    def _work(self, decoder: Decoder) -> None:
        """What a lane does; once it has warmed up, no picture ends it."""
        _give_way()
        try:
            try:
                self.self_check = warm_up(self._detector, decoder)
            except (PneumolibError, DecoderLost, DecoderMissing) as error:
                self.failure = str(error)
                return
            except Exception as error:
                _log.exception("a lane did not start")
                self.failure = f"a lane did not start ({type(error).__name__})"
                return
            with self._changed:
                self._started += 1
            while (job := self._next()) is not None:
                began = time.monotonic()
                self._give(job, self._outcome(job, decoder))
                self._seconds = 0.9 * self._seconds + 0.1 * (time.monotonic() - began)
                self._renew(decoder)
        finally:
            decoder.stop()

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

    def _outcome(self, job: Job, decoder: Decoder) -> Result | Problem:
        began = time.monotonic()
        if began > job.deadline:
            return _too_late()
        content, job.content = job.content, None
        assert content is not None
        try:
            result = replace(look(self._detector, decoder, content, job.options), queue_seconds=began - job.arrived)
            self._count(result)
            return result
        except Problem as problem:
            return problem
        except Exception:
            _log.exception("a lane failed over a picture")
            return Problem("internal_error", "The server failed over the picture; its log says how.")

    def _renew(self, decoder: Decoder) -> None:
        """Have a process for the next picture, where the last one cost it."""
        if decoder.pid is None:
            self._metrics.decoder_restarts.inc()
            # One that cannot be started now is tried again with the next picture.
            with contextlib.suppress(DecoderMissing):
                decoder.start()

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


def _give_way() -> None:
    """Let the event loop's thread go before this one where they share a core: what it has to do is short."""
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own that can be set so
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + LANE_NICENESS)


def _cancel(timer: asyncio.TimerHandle, future: asyncio.Future[Result]) -> None:
    timer.cancel()


def _too_late() -> Problem:
    return Problem("deadline_passed", "The picture waited longer than its deadline; it was not looked at.")


def _draining() -> Problem:
    return Problem("draining", "The server is shutting down before the picture's turn came.", retry_after=5)
