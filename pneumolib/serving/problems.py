"""What goes wrong between a caller and the server, as problem details (RFC 9457) with a code that stays.

Texts may be rewritten; codes, and the status that belongs to each, change with the version of the API only.
"""

from __future__ import annotations

import math
from typing import Any

CONTENT_TYPE = "application/problem+json"

# code: status, title
PROBLEMS: dict[str, tuple[int, str]] = {
    "malformed_request": (400, "The request is not well-formed"),
    "invalid_parameter": (400, "A parameter is not allowed"),
    "one_file_expected": (400, "The request does not hold one file"),
    "unauthorized": (401, "The API key is missing or wrong"),
    "not_found": (404, "There is nothing at this address"),
    "method_not_allowed": (405, "The address does not take this method"),
    "body_timeout": (408, "The body did not arrive in time"),
    "body_too_large": (413, "The body is too large"),
    "image_too_large": (413, "The picture is too large"),
    "too_many_files": (413, "The batch holds too many files"),
    "unsupported_media_type": (415, "The body is of a type that is not read"),
    "unsupported_encoding": (415, "The body is compressed"),
    "undecodable_image": (422, "The file cannot be decoded"),
    "not_a_chest_xray": (422, "The picture does not look like a chest X-ray"),
    "queue_full": (429, "The server is busy"),
    "internal_error": (500, "The server failed"),
    "not_ready": (503, "The server is not ready"),
    "draining": (503, "The server is shutting down"),
    "deadline_passed": (504, "The picture waited too long"),
}
RETRIED = (429, 503)  # statuses that always come with the header Retry-After
CANCELLED = 499  # counted, never sent: the caller has gone


class Problem(Exception):
    """A request that is answered by problem details.

    Args:
        code: one of `PROBLEMS`.
        detail: what is wrong this time, what is allowed, what came.
        retry_after: seconds after which trying again makes sense, for the statuses in `RETRIED`.
    """

    def __init__(self, code: str, detail: str, *, retry_after: float = 1.0) -> None:
        super().__init__(detail)
        self.code, self.detail, self.retry_after = code, detail, retry_after
        self.status, self.title = PROBLEMS[code]

    def to_dict(self, request_id: str) -> dict[str, Any]:
        """Return the members of the problem details."""
        return {
            "type": f"urn:pneumolib:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "request_id": request_id,
        }

    @property
    def headers(self) -> dict[str, str]:
        """The headers that belong to the status."""
        headers = {}
        if self.status in RETRIED:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after)))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers
