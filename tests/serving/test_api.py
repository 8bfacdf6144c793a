"""Every address over real HTTP, and every way in which it says no."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")

from pneumolib.data.images import decode
from pneumolib.evaluation.overlay import layer, overlay
from pneumolib.models.detector import Detector
from pneumolib.models.explain import heat_maps
from pneumolib.serving.problems import CONTENT_TYPE, PROBLEMS
from pneumolib.serving.schema import MEDIA_TYPES

KEY = "a key of some length".replace(" ", "-")
JPEG = {"Content-Type": "image/jpeg"}
# The first bytes of a PNG of 12,000 x 12,000 pixels, whose rest nobody gets to.
HEADER = b"IHDR" + struct.pack(">IIBBBBB", 12_000, 12_000, 8, 0, 0, 0, 0)
BOMB = b"\x89PNG\r\n\x1a\n\0\0\0\r" + HEADER + struct.pack(">I", zlib.crc32(HEADER)) + b"\0\0\0\x40IDAT" + bytes(64)


def pixels_of(picture: dict[str, Any]) -> np.ndarray:
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture["data"]))))
    assert shown.shape[:2] == (picture["height"], picture["width"])
    assert picture["media_type"] == "image/png"
    return shown


def files(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (f"{number}.png", content)) for number, content in enumerate(contents)]


# === Answers ===


@pytest.mark.parametrize("kind", [*MEDIA_TYPES, "application/octet-stream", None])
def test_a_file_is_answered_whatever_it_calls_itself(
    client: httpx.Client,
    x_ray: bytes,
    kind: str | None,
    is_answer: Callable[..., bool],
) -> None:
    reply = client.post("/v1/predict", content=x_ray, headers={"Content-Type": kind} if kind else {})
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json()["request_id"] == reply.headers["x-request-id"]
    assert is_answer(reply.json(), x_ray)
    assert reply.json()["heatmap"] is reply.json()["picture"] is None


def test_a_form_is_answered_too(client: httpx.Client, x_ray: bytes, is_answer: Callable[..., bool]) -> None:
    reply = client.post("/v1/predict", files={"file": ("Doe, Jane.jpeg", x_ray)})
    assert is_answer(reply.json(), x_ray)
    assert "Doe" not in reply.text


@pytest.mark.parametrize("point", ["balanced", "high_sensitivity", "high_specificity"])
def test_the_operating_point_is_the_callers_choice(
    client: httpx.Client,
    x_ray: bytes,
    point: str,
    is_answer: Callable[..., bool],
) -> None:
    reply = client.post("/v1/predict", params={"operating_point": point}, content=x_ray, headers=JPEG)
    assert is_answer(reply.json(), x_ray, point)


def test_what_is_no_chest_x_ray_gets_no_decision(
    client: httpx.Client,
    negative: bytes,
    is_answer: Callable[..., bool],
) -> None:
    reply = client.post("/v1/predict?heatmap=overlay&picture=true", content=negative, headers=JPEG)
    assert reply.status_code == 200
    assert is_answer(reply.json(), negative)
    assert reply.json()["input"]["ok"] is False
    assert reply.json()["decision"] is reply.json()["heatmap"] is None
    assert reply.json()["picture"] is not None


def test_heat_map_and_picture_come_when_they_are_asked_for(
    client: httpx.Client,
    detector: Detector,
    x_ray: bytes,
) -> None:
    picture = decode(x_ray)
    (heat,) = heat_maps(detector, detector.prepare(x_ray)[None])
    found = client.post("/v1/predict?heatmap=layer&picture=true", content=x_ray, headers=JPEG).json()
    np.testing.assert_array_equal(pixels_of(found["picture"]), picture)
    np.testing.assert_array_equal(pixels_of(found["heatmap"]), layer(heat))
    found = client.post("/v1/predict?heatmap=overlay", content=x_ray, headers=JPEG).json()
    np.testing.assert_array_equal(pixels_of(found["heatmap"]), overlay(picture, heat))
    assert found["picture"] is None
    reply = client.post("/v1/heatmap", content=x_ray, headers=JPEG)
    assert reply.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(reply.content))), overlay(picture, heat))


def test_a_batch_is_answered_in_its_order(
    client: httpx.Client,
    x_ray: bytes,
    negative: bytes,
    is_answer: Callable[..., bool],
) -> None:
    contents = [x_ray, b"no picture", negative, BOMB, x_ray, b""]
    reply = client.post("/v1/predict:batch?operating_point=high_sensitivity", files=files(*contents))
    found = reply.json()
    assert (reply.status_code, found["schema"]) == (200, "pneumolib.batch/1")
    assert [item["index"] for item in found["results"]] == list(range(len(contents)))
    for item, content in zip(found["results"], contents, strict=True):
        assert (item["answer"] is None) != (item["problem"] is None)
        if item["answer"]:
            assert is_answer(item["answer"], content, "high_sensitivity")
    codes = [item["problem"] and item["problem"]["code"] for item in found["results"]]
    assert codes == [None, "unsupported_media_type", None, "image_too_large", None, "undecodable_image"]


def test_the_detector_tells_of_itself(client: httpx.Client, detector: Detector) -> None:
    found = client.get("/v1/model").json()
    assert found["schema"] == "pneumolib.model/1"
    assert found["model"]["name"] == detector.name
    assert found["self_check"] == {"recorded": True, "difference": pytest.approx(0, abs=1e-5)}
    assert {point["name"]: point["threshold"] for point in found["operating_points"]} == {
        name: point.threshold for name, point in detector.operating_points.items()
    }


# === The rest ===


def test_health_is_told(client: httpx.Client) -> None:
    for name in ("live", "ready"):
        assert client.get(f"/v2/health/{name}").json() == {"live": True, "ready": True, "reason": None}


def test_page_and_documentation_come_from_here_alone(client: httpx.Client) -> None:
    assert client.get("/").headers["content-type"].startswith("text/html")
    docs = client.get("/docs")
    assert "connect-src 'self'" in docs.headers["content-security-policy"]
    found = re.findall(r"""(?:src|href)=["']([^"']+)|url: ["']([^"']+)""", docs.text)
    addresses = [link or url for link, url in found]
    assert {"openapi.json", "docs-assets/swagger-ui-bundle.js", "docs-assets/swagger-ui.css"} <= set(addresses)
    for address in addresses:
        assert ":" not in address
        assert client.get(f"/{address}").status_code == 200
    assert "//" not in re.sub(r"//.*", "", docs.text)


def test_no_other_site_may_read_an_answer(client: httpx.Client, x_ray: bytes) -> None:
    told = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    for reply in (
        client.options("/v1/predict", headers=told),
        client.post("/v1/predict", content=x_ray, headers={**told, **JPEG}),
        client.get("/", headers=told),
    ):
        assert not [name for name in reply.headers if name.startswith("access-control")]


def test_methods_that_are_not_taken_are_told_which_are(client: httpx.Client) -> None:
    assert client.head("/").status_code == 200
    for method, address, allowed in (
        ("OPTIONS", "/v1/predict", "POST"),
        ("GET", "/v1/predict", "POST"),
        ("HEAD", "/v1/model", "GET"),
        ("POST", "/v2/health/live", "GET"),
        ("DELETE", "/metrics", "GET"),
    ):
        reply = client.request(method, address)
        assert (reply.status_code, reply.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    "address",
    [
        *("/v1/predict/", "//v1/model", "/v1/../v1/model", "/V1/model", "/%00", "/page/", "/examples/x.png"),
        *("/docs-assets/", "/docs-assets/%00", "/docs-assets/..%2f..%2fapp.py", "/docs-assets/" + "a" * 5000),
    ],
    ids=lambda address: address[:30],
)
def test_addresses_are_what_they_are(server: Any, wire: Callable[..., Any], address: str) -> None:
    opened = wire(server)
    opened.send(f"GET {address} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    reply = opened.reply()
    assert (reply.status, reply.headers["content-type"]) == (404, CONTENT_TYPE)
    assert "location" not in reply.headers


# === Every code ===


@pytest.fixture(scope="module")
def strict(start: Callable[..., Any]) -> Iterator[Any]:
    """A server that asks for a key and gives a body little time."""
    with start(api_key=KEY, body_seconds=1.0) as server:
        yield server


def ways(x_ray: bytes, negative: bytes) -> dict[str, Callable[[httpx.Client], httpx.Response]]:
    """A way to each code that a server gives to one request by itself."""
    image, text = {"Content-Type": "image/png"}, {"Content-Type": "text/plain"}
    form = {"Content-Type": "multipart/form-data"}
    return {
        "malformed_request": lambda c: c.post("/v1/predict", content=b"--", headers=form),
        "invalid_parameter": lambda c: c.post("/v1/predict?heatmap=red", content=x_ray, headers=image),
        "one_file_expected": lambda c: c.post("/v1/predict", files=files(x_ray, x_ray)),
        "not_found": lambda c: c.get("/v1/nothing"),
        "method_not_allowed": lambda c: c.get("/v1/predict"),
        "body_too_large": lambda c: c.post("/v1/predict", content=bytes(65 * 2**20), headers=image),
        "image_too_large": lambda c: c.post("/v1/predict", content=BOMB, headers=image),
        "too_many_files": lambda c: c.post("/v1/predict:batch", files=files(*[b"x"] * 33)),
        "unsupported_media_type": lambda c: c.post("/v1/predict", content=b"hello", headers=text),
        "unsupported_encoding": lambda c: c.post("/v1/predict", content=x_ray, headers={"Content-Encoding": "gzip"}),
        "undecodable_image": lambda c: c.post("/v1/predict", content=x_ray[:1000], headers=image),
        "not_a_chest_xray": lambda c: c.post("/v1/heatmap", content=negative, headers=image),
    }


ELSEWHERE = {
    "unauthorized": "test_the_key_is_asked_for",
    "body_timeout": "test_a_body_that_does_not_come_is_not_waited_for",
    "internal_error": "test_a_fault_is_told_and_logged_without_the_picture",
    "not_ready": "test_a_server_that_warms_up_says_so",
    "queue_full": "test_who_comes_to_a_full_queue_is_told_when_to_come_again",
    "deadline_passed": "test_what_waited_too_long_is_told_and_not_computed",
    "draining": "test_a_server_that_ends_tells_who_still_waits",
}
HERE = sorted(ways(b"", b""))


def test_no_code_is_left_out() -> None:
    assert {*HERE, *ELSEWHERE} == set(PROBLEMS)
    written = "".join((Path(__file__).parent / name).read_text() for name in ("test_api.py", "test_waiting.py"))
    for code, name in ELSEWHERE.items():
        body = written.partition(f"def {name}(")[2].partition("\ndef ")[0]
        assert f'"{code}"' in body


@pytest.mark.parametrize("code", HERE)
def test_each_no_has_its_code(
    server: Any,
    client: httpx.Client,
    counted: Callable[..., float],
    x_ray: bytes,
    negative: bytes,
    code: str,
    is_problem: Callable[..., bool],
) -> None:
    before = counted(server, "problems_total", code=code)
    assert is_problem(ways(x_ray, negative)[code](client), code)
    assert counted(server, "problems_total", code=code) == before + 1
    assert client.post("/v1/predict", content=x_ray, headers=JPEG).status_code == 200


def test_wishes_that_are_none_are_refused_by_name(
    client: httpx.Client,
    x_ray: bytes,
    is_problem: Callable[..., bool],
) -> None:
    points = ("operating-point=balanced", "operating_point=best", f"operating_point={'a' * 99}")
    for wish in (*points, "picture=perhaps", "heatmap=", "heatmap=red"):
        for address in ("predict", "predict:batch"):
            reply = client.post(f"/v1/{address}?{wish}", files=files(x_ray))
            assert is_problem(reply, "invalid_parameter")
            assert reply.json()["detail"].startswith(f"{wish.partition('=')[0]}: ")
            assert "Received: " in reply.json()["detail"]
    assert is_problem(client.post("/v1/heatmap?heatmap=layer", content=x_ray, headers=JPEG), "invalid_parameter")


def test_the_key_is_asked_for(strict: Any, x_ray: bytes, is_problem: Callable[..., bool]) -> None:
    with httpx.Client(base_url=strict.url, timeout=60) as client:
        for given in ({}, {"Authorization": "Bearer wrong"}):
            for reply in (
                client.get("/v1/model", headers=given),
                client.get("/metrics", headers=given),
                client.post("/v1/predict", content=x_ray, headers={**given, **JPEG}),
            ):
                assert is_problem(reply, "unauthorized")
                assert reply.headers["www-authenticate"] == "Bearer"
        for address in ("/", "/docs", "/openapi.json", "/docs-assets/swagger-ui.css", "/v2/health/ready"):
            assert client.get(address).status_code == 200
        right = {"Authorization": f"Bearer {KEY}"}
        assert client.get("/v1/model", headers=right).status_code == 200
        assert client.post("/v1/predict", content=x_ray, headers={**right, **JPEG}).status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for(strict: Any, wire: Callable[..., Any]) -> None:
    opened = wire(strict)
    key = f"Authorization: Bearer {KEY}\r\n".encode()
    opened.send(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\n" + key + b"Content-Length: 10\r\n\r\n12345")
    reply = opened.reply()
    assert (reply.status, json.loads(reply.body)["code"]) == (408, "body_timeout")
    assert json.loads(reply.body)["detail"].endswith("Received: 5 bytes.")


class Broken:
    """The detector, but with a fault once it has warmed up."""

    def __init__(self, detector: Detector) -> None:
        self._detector, self.broken = detector, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._detector, name)

    def predict_with_features(self, *arguments: Any, **options: Any) -> Any:
        if self.broken:
            raise RuntimeError("a fault of the detector")
        return self._detector.predict_with_features(*arguments, **options)


def test_a_fault_is_told_and_logged_without_the_picture(
    start: Callable[..., Any],
    detector: Detector,
    x_ray: bytes,
    caplog: pytest.LogCaptureFixture,
    is_problem: Callable[..., bool],
) -> None:
    broken = Broken(detector)
    with start(broken) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        broken.broken = True
        reply = client.post("/v1/predict", files={"file": ("Doe, Jane.jpeg", x_ray)})
        assert is_problem(reply, "internal_error")
        assert "a fault of the detector" not in reply.text
        broken.broken = False
        assert client.post("/v1/predict", content=x_ray, headers=JPEG).status_code == 200
    (record,) = caplog.records
    assert record.message == "a lane failed over a picture"
    assert "a fault of the detector" in caplog.text
    assert "Doe" not in caplog.text
    assert "127.0.0.1" not in caplog.text
