"""Many at once, good and bad: nobody is lost, everybody gets his own answer, and all are counted."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")

from pneumolib.evaluation.overlay import png
from pneumolib.models.detector import Detector

N = 200


def ask(server: Any, content: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request("POST", "/v1/predict", content, headers)
        reply = connection.getresponse()
        return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()


def test_nobody_is_lost_and_everybody_gets_his_own(
    start: Callable[..., Any],
    detector: Detector,
    pixels: np.ndarray,
    background: Callable[..., Future[tuple[int, dict[str, str], bytes]]],
    counted: Callable[..., float],
    is_answer: Callable[..., bool],
) -> None:
    pictures = [png(pixels[n : 400 + n : 2, ::2]) for n in range(20)]
    pictures += [png(np.full((50, 60), gray, np.uint8)) for gray in range(5)]
    bad = {
        b"no picture": ({"Content-Type": "image/png"}, "unsupported_media_type"),
        pictures[0][:900]: ({"Content-Type": "image/png"}, "undecodable_image"),
        b"": ({"Content-Type": "image/png"}, "undecodable_image"),
        b"x" * 70_000: ({"Content-Type": "multipart/form-data; boundary=B"}, "malformed_request"),
        b"y" * 70_000: ({"Content-Type": "text/plain"}, "unsupported_media_type"),
        b"z": ({"Content-Encoding": "gzip"}, "unsupported_encoding"),
    }
    sent = [(pictures[n % len(pictures)], {"X-Request-ID": f"n-{n}"}) for n in range(N // 2)]
    sent += [(list(bad)[n % len(bad)], {"X-Request-ID": f"n-{n}"}) for n in range(N // 2, N)]
    with start(lanes=2, queue=N, deadline_seconds=60) as server:
        order = np.random.default_rng(0).permutation(N)
        futures = {}
        for n in order:
            content, headers = sent[n]
            futures[n] = background(ask, server, content, {**headers, **bad.get(content, ({}, ""))[0]})
        statuses: Counter[int] = Counter()
        for n, future in futures.items():
            (content, _), (status, headers, body) = sent[n], future.result(60)
            statuses[status] += 1
            found = json.loads(body)
            assert headers["x-request-id"] == found["request_id"] == f"n-{n}"
            if content in bad:
                assert found["code"] == bad[content][1]
            else:
                assert is_answer(found, content)
        for status, count in statuses.items():
            assert counted(server, "requests_total", route="/v1/predict", method="POST", code=str(status)) == count
        assert counted(server, "requests_total", route="/v1/predict") == N
        assert counted(server, "request_seconds_count", route="/v1/predict") == N
        assert counted(server, "pictures_total") == counted(server, "inference_seconds_count") == N // 2
        refused = [check.code for each in pictures if not (check := detector.predict(each).input).ok]
        times = N // 2 // len(pictures)
        assert counted(server, "refusals_total") == counted(server, "pictures_total", outcome="refused") > 0
        for code, count in Counter(refused).items():
            assert counted(server, "refusals_total", reason=str(code)) == times * count
        assert counted(server, "problems_total") == N // 2
        assert counted(server, "queue_depth") == counted(server, "buffered_bytes") == 0
        assert counted(server, "decoder_restarts_total") == 0
