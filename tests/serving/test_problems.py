"""Problem details: codes that stay, and headers that belong to a status."""

from __future__ import annotations

import pytest

from pneumolib.serving.problems import CANCELLED, PROBLEMS, RETRIED, Problem

# What callers write programs by: neither a code nor its status changes without a new version of the API.
CODES = {
    400: {"malformed_request", "invalid_parameter", "one_file_expected"},
    401: {"unauthorized"},
    404: {"not_found"},
    405: {"method_not_allowed"},
    408: {"body_timeout"},
    413: {"body_too_large", "image_too_large", "too_many_files"},
    415: {"unsupported_media_type", "unsupported_encoding"},
    422: {"undecodable_image", "not_a_chest_xray"},
    429: {"queue_full"},
    500: {"internal_error"},
    503: {"not_ready", "draining"},
    504: {"deadline_passed"},
}


def test_codes_and_their_statuses_stay() -> None:
    found: dict[int, set[str]] = {}
    for code, (status, title) in PROBLEMS.items():
        found.setdefault(status, set()).add(code)
        assert title
    assert found == CODES
    assert CANCELLED not in found


@pytest.mark.parametrize("code", PROBLEMS)
def test_it_is_told_with_its_code_and_its_headers(code: str) -> None:
    problem = Problem(code, "What came.", retry_after=1.2)
    assert problem.to_dict("id") == {
        "type": f"urn:pneumolib:problem:{code}",
        "title": PROBLEMS[code][1],
        "status": PROBLEMS[code][0],
        "code": code,
        "detail": "What came.",
        "request_id": "id",
    }
    assert problem.headers.get("Retry-After") == ("2" if problem.status in RETRIED else None)
    assert problem.headers.get("WWW-Authenticate") == ("Bearer" if code == "unauthorized" else None)


def test_nobody_is_told_to_try_again_at_once() -> None:
    assert Problem("queue_full", "", retry_after=0.0).headers == {"Retry-After": "1"}


def test_a_code_that_is_none_is_no_problem() -> None:
    with pytest.raises(KeyError):
        Problem("teapot", "")
