"""The queue and the lanes: first come, first served, bounded, and nothing done for nobody."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("prometheus_client", reason="the extra 'serve' is not installed")

from pneumolib.models.detector import Detector
from pneumolib.serving import lanes as module
from pneumolib.serving.decoder import Decoder, DecoderMissing
from pneumolib.serving.lanes import Lanes
from pneumolib.serving.metrics import Metrics
from pneumolib.serving.problems import Problem
from pneumolib.serving.settings import Settings
from pneumolib.serving.work import Options, Result

Test = Callable[[Lanes], Awaitable[None]]


def in_lanes(detector: Any, test: Test, **settings: Any) -> Metrics:
    """Run `test` beside lanes, one unless told otherwise, that have warmed up or failed to."""
    metrics = Metrics(name="", version="", sha256="")

    async def run() -> None:
        lanes = Lanes(detector, Settings(**{"lanes": 1, **settings}), metrics)
        assert not lanes.ready
        assert lanes.reason == "it is warming up"
        with pytest.raises(Problem) as problem:
            lanes.require_ready()
        assert problem.value.code == "not_ready"
        lanes.start()
        try:
            while not (lanes.ready or lanes.failure):
                await asyncio.sleep(0.005)
            if hasattr(detector, "shut"):
                detector.shut()
            await asyncio.wait_for(test(lanes), 60)
        finally:
            if hasattr(detector, "shut"):
                detector.open.set()
            await asyncio.to_thread(lanes.stop)

    asyncio.run(run())
    return metrics


def value(metrics: Metrics, name: str) -> float:
    found = metrics._registry.get_sample_value(f"pneumolib_{name}")
    assert found is not None
    return found


async def passed(gate: Any) -> None:
    await asyncio.to_thread(gate.wait_for_one)


def test_answers_come_to_those_who_asked(detector: Detector, x_ray: bytes, negative: bytes) -> None:
    async def test(lanes: Lanes) -> None:
        lanes.require_ready()
        assert lanes.reason is None
        assert lanes.self_check == 0
        jobs = lanes.submit([x_ray, negative, b"no picture"], Options())
        found = await asyncio.gather(*(job.future for job in jobs), return_exceptions=True)
        expected = [detector.predict(content) for content in (x_ray, negative)]
        assert [each.prediction for each in found[:2] if isinstance(each, Result)] == expected
        assert isinstance(found[2], Problem)
        assert all(job.content is None for job in jobs)

    metrics = in_lanes(detector, test, lanes=2)
    assert value(metrics, "queue_depth") == value(metrics, "decoder_restarts_total") == 0
    assert value(metrics, "inference_seconds_count") == 2
    assert value(metrics, "ready") == 0


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux only")
def test_lanes_let_the_event_loop_go_first(detector: Detector) -> None:
    async def test(lanes: Lanes) -> None:
        (lane,) = lanes._threads
        mine, lanes_own = (os.getpriority(os.PRIO_PROCESS, number) for number in (0, lane.native_id or 0))
        assert lanes_own == min(mine + module.LANE_NICENESS, 19)

    in_lanes(detector, test)


def test_first_come_first_served_and_no_more_than_may_wait(gate: Any, x_ray: bytes) -> None:
    async def test(lanes: Lanes) -> None:
        (first,) = lanes.submit([x_ray], Options())
        await passed(gate)
        second, third = lanes.submit([x_ray, x_ray], Options())
        for contents in ([x_ray], [x_ray, x_ray]):
            with pytest.raises(Problem) as problem:
                lanes.submit(contents, Options())
            assert problem.value.code == "queue_full"
            assert int(problem.value.headers["Retry-After"]) >= 1
        gate.open.set()
        order: list[int] = []
        for number, job in enumerate((first, second, third)):
            job.future.add_done_callback(lambda _, number=number: order.append(number))
        await asyncio.gather(first.future, second.future, third.future)
        assert order == [0, 1, 2]

    metrics = in_lanes(gate, test, queue=2)
    assert gate.seen == 3
    assert value(metrics, "queue_depth") == 0


def test_a_batch_is_taken_whole_or_not_at_all(gate: Any, x_ray: bytes) -> None:
    async def test(lanes: Lanes) -> None:
        lanes.submit([x_ray], Options())
        await passed(gate)
        lanes.submit([x_ray], Options())
        with pytest.raises(Problem):
            lanes.submit([x_ray, x_ray], Options())
        lanes.submit([x_ray], Options())

    in_lanes(gate, test, queue=2)


def test_what_has_waited_too_long_is_not_looked_at(gate: Any, x_ray: bytes) -> None:
    async def test(lanes: Lanes) -> None:
        (first,) = lanes.submit([x_ray], Options())
        await passed(gate)
        (late,) = lanes.submit([x_ray], Options())
        with pytest.raises(Problem) as problem:
            await late.future
        assert problem.value.code == "deadline_passed"
        gate.open.set()
        assert isinstance(await first.future, Result)

    metrics = in_lanes(gate, test, deadline_seconds=0.5)
    assert gate.seen == 1
    assert value(metrics, "queue_depth") == 0


def test_a_lane_does_not_begin_with_what_is_late_already(gate: Any, x_ray: bytes) -> None:
    """The lane may come to a picture before the timer does."""

    async def test(lanes: Lanes) -> None:
        lanes.submit([x_ray], Options())
        await passed(gate)
        (late,) = lanes.submit([x_ray], Options())
        late.deadline = 0.0
        gate.open.set()
        with pytest.raises(Problem) as problem:
            await late.future
        assert problem.value.code == "deadline_passed"

    in_lanes(gate, test)
    assert gate.seen == 1


def test_what_nobody_waits_for_is_not_looked_at(gate: Any, x_ray: bytes) -> None:
    async def test(lanes: Lanes) -> None:
        first, dropped, last = lanes.submit([x_ray] * 3, Options())
        await passed(gate)
        lanes.drop(dropped)
        lanes.drop(first)  # in hand already: finished, for nothing
        lanes.drop(dropped)
        gate.open.set()
        assert isinstance(await last.future, Result)
        assert first.future.cancelled()
        assert dropped.future.cancelled()

    in_lanes(gate, test)
    assert gate.seen == 2


def test_what_still_waits_at_the_end_is_told_so(gate: Any, x_ray: bytes) -> None:
    async def test(lanes: Lanes) -> None:
        (first,) = lanes.submit([x_ray], Options())
        await passed(gate)
        (waiting,) = lanes.submit([x_ray], Options())
        stopping = asyncio.create_task(asyncio.to_thread(lanes.stop))
        with pytest.raises(Problem) as problem:
            await waiting.future
        assert problem.value.code == "draining"
        for call in (lanes.require_ready, lambda: lanes.submit([x_ray], Options())):
            with pytest.raises(Problem) as problem:
                call()
            assert problem.value.code == "draining"
        assert lanes.reason == "it is shutting down"
        gate.open.set()
        await stopping
        assert isinstance(await first.future, Result)

    in_lanes(gate, test)


def test_a_lane_that_is_stuck_is_not_waited_for_without_end(
    gate: Any, x_ray: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP_SECONDS", 0.01)

    async def test(lanes: Lanes) -> None:
        lanes.submit([x_ray], Options())
        await passed(gate)
        await asyncio.to_thread(lanes.stop)

    in_lanes(gate, test)


# === What goes wrong ===


class Broken:
    """The detector, but with a fault of its own."""

    def __init__(self, detector: Detector, **faults: Exception) -> None:
        self._detector, self._faults = detector, faults

    def __getattr__(self, name: str) -> Any:
        if name in self._faults:
            raise self._faults[name]
        return getattr(self._detector, name)


def test_a_fault_over_one_picture_ends_no_lane(
    detector: Detector, x_ray: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Broken(detector)

    async def test(lanes: Lanes) -> None:
        broken._faults["predict_with_features"] = ZeroDivisionError("a fault")
        for _ in range(2):
            (job,) = lanes.submit([x_ray], Options())
            with pytest.raises(Problem) as problem:
                await job.future
            assert problem.value.code == "internal_error"
            assert "a fault" not in problem.value.detail
        assert lanes.ready
        broken._faults.clear()
        (job,) = lanes.submit([x_ray], Options())
        assert isinstance(await job.future, Result)

    in_lanes(broken, test)
    assert [record.message for record in caplog.records] == ["a lane failed over a picture"] * 2


def test_a_fault_while_it_warms_up_is_why_it_never_is_ready(
    detector: Detector, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(lanes: Lanes) -> None:
        assert lanes.failure == lanes.reason == "a lane did not start (ZeroDivisionError)"
        with pytest.raises(Problem) as problem:
            lanes.require_ready()
        assert problem.value.code == "not_ready"

    in_lanes(Broken(detector, self_check=ZeroDivisionError("a fault")), test)
    assert "a fault" in caplog.text


def test_another_answer_than_the_recorded_one_is_why_it_never_is_ready(detector: Detector) -> None:
    class Off(Broken):
        def self_check(self) -> float:
            return 0.5

    async def test(lanes: Lanes) -> None:
        assert lanes.failure is not None
        assert "differs by 0.5 from the one recorded" in lanes.failure

    in_lanes(Off(detector), test, lanes=2)


def test_that_nothing_decodes_is_why_it_never_is_ready(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: Decoder) -> None:
        raise DecoderMissing("no decoding process can be started")

    monkeypatch.setattr(Decoder, "start", start)

    async def test(lanes: Lanes) -> None:
        assert lanes.failure == "no decoding process can be started"

    in_lanes(detector, test)


def test_a_process_lost_over_a_picture_is_counted_and_replaced(
    detector: Detector, x_ray: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Decoder] = []
    original = Decoder.__init__

    def init(self: Decoder, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        made.append(self)

    monkeypatch.setattr(Decoder, "__init__", init)

    async def test(lanes: Lanes) -> None:
        before = made[0].pid
        assert before is not None
        os.kill(before, signal.SIGSTOP)
        (job,) = lanes.submit([x_ray], Options())
        with pytest.raises(Problem) as problem:
            await job.future
        assert problem.value.code == "undecodable_image"
        assert "took too long" in problem.value.detail
        made[0]._seconds = 60.0
        (job,) = lanes.submit([x_ray], Options())
        assert isinstance(await job.future, Result)
        assert made[0].pid != before

    metrics = in_lanes(detector, test, decode_seconds=1.0)
    assert value(metrics, "decoder_restarts_total") == 1
    assert made[0].pid is None


def test_refusals_are_counted_by_reason(detector: Detector, negative: bytes) -> None:
    async def test(lanes: Lanes) -> None:
        (job,) = lanes.submit([negative], Options())
        assert (await job.future).prediction.input.code is not None

    metrics = in_lanes(detector, test)
    code = detector.predict(negative).input.code
    sample = metrics._registry.get_sample_value
    assert sample("pneumolib_refusals_total", {"reason": str(code)}) == 1
    assert sample("pneumolib_pictures_total", {"outcome": "refused"}) == 1
    assert np.isfinite(value(metrics, "queue_wait_seconds_sum"))
