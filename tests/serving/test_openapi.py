"""The description of the API: it changes with the version only, says all that can come, and what comes is like it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")

import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi import checks

from pneumolib.models.detector import Detector, load_detector
from pneumolib.serving.app import API_VERSION, create_app
from pneumolib.serving.problems import CONTENT_TYPE, PROBLEMS, RETRIED

SNAPSHOT = Path(__file__).parent / f"openapi-{API_VERSION}.json"
POSTS = ("/v1/predict", "/v1/heatmap", "/v1/predict:batch")
GETS = ("/v1/model", "/v2/health/live", "/v2/health/ready", "/metrics")


def described(detector: Detector) -> dict[str, Any]:
    return create_app(detector).openapi()


@pytest.fixture(scope="module")
def description(detector: Detector) -> dict[str, Any]:
    return described(detector)


def test_it_changes_with_the_version_only(description: dict[str, Any]) -> None:
    stored = json.loads(SNAPSHOT.read_text()) if SNAPSHOT.exists() else {}
    assert description == stored, (
        f"The API is not described as in {SNAPSHOT.name}. If callers can tell the difference, raise API_VERSION in "
        f"pneumolib/serving/app.py first. Then write the description anew: python {Path(__file__).name}, in its folder."
    )


def test_its_addresses_are_those_that_are_tested(description: dict[str, Any]) -> None:
    assert {path: list(operations) for path, operations in description["paths"].items()} == {
        **{path: ["post"] for path in POSTS},
        **{path: ["get"] for path in GETS},
    }


def test_every_code_that_an_address_gives_is_said_there(description: dict[str, Any]) -> None:
    said: set[str] = set()
    for operations in description["paths"].values():
        for operation in operations.values():
            for status, reply in operation["responses"].items():
                codes = re.findall(r"`(\w+)`", reply["description"])
                if status == "200":
                    continue
                assert codes
                assert {str(PROBLEMS[code][0]) for code in codes} == {status}
                assert list(reply["content"]) == [CONTENT_TYPE]
                assert ("Retry-After" in reply.get("headers", {})) is (int(status) in RETRIED)
                said.update(codes)
    # Which addresses and methods there are is what the rest of the description says.
    assert set(PROBLEMS) - said == {"not_found", "method_not_allowed"}
    assert description["components"]["schemas"]["ProblemDetails"]["properties"]["code"]["enum"] == list(PROBLEMS)


def test_shapes_say_the_whole_of_what_they_hold(description: dict[str, Any]) -> None:
    for name, shape in description["components"]["schemas"].items():
        assert shape["additionalProperties"] is False, name
        assert set(shape["required"]) == set(shape["properties"]), name
        assert shape["description"], name


def test_the_key_is_said_where_it_is_asked_for(description: dict[str, Any]) -> None:
    for path, operations in description["paths"].items():
        for operation in operations.values():
            kept = path.startswith("/v1/") or path == "/metrics"
            assert operation.get("security", []) == ([{}, {"key": []}] if kept else [])
            assert ("401" in operation["responses"]) is kept


# === What comes is as it says ===


CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


def fuzz(server: Any, path: str, method: str, mode: Any, examples: int) -> None:
    operation = schemathesis.openapi.from_url(f"{server.url}/openapi.json")[path][method]

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def test(case: Any) -> None:
        reply = case.call(timeout=60)
        assert reply.status_code < 500 or reply.status_code in (503, 504)
        case.validate_response(reply, checks=CHECKS)

    test()


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("mode", schemathesis.GenerationMode)
def test_whatever_is_sent_is_answered_as_described(server: Any, path: str, mode: Any) -> None:
    fuzz(server, path, "POST", mode, examples=15)


@pytest.mark.parametrize("path", GETS)
def test_whatever_is_asked_is_answered_as_described(server: Any, path: str) -> None:
    fuzz(server, path, "GET", schemathesis.GenerationMode.POSITIVE, examples=1)


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(described(load_detector(threads=1)), indent=1) + "\n", encoding="utf-8")
    print(f"written: {SNAPSHOT.name}")
