"""Between an address and the lanes: reads a request's files, queues them, and waits while the caller does."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.requests import ClientDisconnect, Request

from pneumolib.models.detector import Detector
from pneumolib.serving import answers, schema
from pneumolib.serving.bodies import read_files
from pneumolib.serving.lanes import Job, Lanes
from pneumolib.serving.metrics import Metrics
from pneumolib.serving.problems import Problem
from pneumolib.serving.settings import Settings
from pneumolib.serving.work import Options, Result


class Desk:
    """What the addresses share."""

    def __init__(self, detector: Detector, settings: Settings, metrics: Metrics, lanes: Lanes) -> None:
        self.detector, self.settings, self.metrics, self.lanes = detector, settings, metrics, lanes
        self.model = answers.model_name(detector)

    async def look(self, request: Request, options: Options, max_files: int | None = None) -> list[Result | Problem]:
        """Return what became of each file of `request`, in order.

        Args:
            request: whose body is bounded.
            options: what is wanted of each.
            max_files: how many a form may hold; None where one file is expected.
        """
        points = self.detector.operating_points
        if options.operating_point not in points:
            raise Problem(
                "invalid_parameter",
                f"operating_point: the detector has no such one. Allowed: {', '.join(points)}. "
                f"Received: {options.operating_point!r}",
            )
        self.lanes.require_ready()  # whoever sends a body to a server that is not ready sends it in vain
        files = await read_files(request, max_files)
        request.state.received = time.monotonic()
        jobs = self.lanes.submit(files, options)
        files.clear()
        return await self._outcomes(request, jobs)

    async def _outcomes(self, request: Request, jobs: list[Job]) -> list[Result | Problem]:
        """Wait for `jobs`, but not for a caller who has gone."""
        every = asyncio.gather(*(job.future for job in jobs), return_exceptions=True)
        gone = asyncio.ensure_future(_until_gone(request))
        try:
            both: set[asyncio.Future[Any]] = {every, gone}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not every.done():
                raise ClientDisconnect
        finally:
            gone.cancel()
            if not every.done():
                for job in jobs:
                    self.lanes.drop(job)
        return [_expected(outcome) for outcome in every.result()]

    def answer(self, outcome: Result | Problem, options: Options, request: Request) -> schema.Answer:
        """Return the answer that `outcome` is, or raise the `Problem` that it is."""
        if isinstance(outcome, Problem):
            raise outcome
        return answers.answer(
            outcome,
            options,
            model=self.model,
            request_id=request.state.request_id,
            total_seconds=time.monotonic() - request.state.received,
        )


def _expected(outcome: Result | BaseException) -> Result | Problem:
    if isinstance(outcome, Result | Problem):
        return outcome
    raise outcome


async def _until_gone(request: Request) -> None:
    """Return when the caller has closed the connection; what it still sends is thrown away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
