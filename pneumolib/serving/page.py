"""The page's addresses: the page itself, its parts under ``page/``, and synthetic X-rays under ``examples/``.

All of it is static and comes from this package. The page loads nothing from another host, and its headers hold it to
that. Addresses within it are relative, so that it also works below a prefix, as behind a notebook's proxy.
"""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from pneumolib.data import radiograph
from pneumolib.data.phantom import COMMENT

FOLDER = Path(__file__).parent / "page"
MEDIA_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)
_DENIED = ("camera", "display-capture", "geolocation", "microphone", "payment", "usb")

# Subtype, seed, and whether black and white are swapped. On the second, the operating points of the detector that ships
# disagree.
EXAMPLES = {
    "healthy": ("normal", 3, False),
    "pneumonia": ("bacterial", 20, False),
    "inverted": ("normal", 1, True),
}
_SIZE = 448, 540  # height and width, in pixels


@dataclass(frozen=True)
class _File:
    content: bytes
    media_type: str
    etag: str

    @classmethod
    def of(cls, content: bytes, media_type: str) -> _File:
        return cls(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def page_routes(embedded: bool) -> list[BaseRoute]:
    """Return the routes of ``/``, of each ``/page/FILE`` and of each ``/examples/NAME.png``.

    Args:
        embedded: may another site show the page in a frame, as a notebook does?

    Examples:
        >>> [route.path for route in page_routes(embedded=False) if route.path.startswith("/examples")]
        ['/examples/healthy.png', '/examples/pneumonia.png', '/examples/inverted.png']
    """
    headers = _headers(embedded)
    routes: list[BaseRoute] = []
    for path in sorted(FOLDER.iterdir()):
        file = _File.of(path.read_bytes(), MEDIA_TYPES[path.suffix])
        address = "/" if path.name == "index.html" else f"/page/{path.name}"
        routes.append(_route(address, functools.partial(_same, file), headers))
    for name in EXAMPLES:
        routes.append(_route(f"/examples/{name}.png", functools.partial(example, name), headers))
    return routes


@functools.cache
def example(name: str) -> _File:
    """Return one of `EXAMPLES` as a PNG; it is drawn when it is first asked for, and kept."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    subtype, seed, inverted = EXAMPLES[name]
    pixels = radiograph.draw(subtype, seed, size=_SIZE)
    told, file = PngInfo(), io.BytesIO()
    told.add_text("Comment", COMMENT.decode("ascii"))
    Image.fromarray(255 - pixels if inverted else pixels).save(file, "PNG", pnginfo=told)
    return _File.of(file.getvalue(), "image/png")


def _same(file: _File) -> _File:
    return file


def _route(address: str, file_of: Callable[[], _File], headers: dict[str, str]) -> Route:
    def respond(request: Request) -> Response:
        file = file_of()
        told = {**headers, "ETag": file.etag}
        known = request.headers.get("if-none-match", "")
        if file.etag in (part.strip().removeprefix("W/") for part in known.split(",")):
            return Response(status_code=304, headers=told)
        return Response(file.content, headers=told, media_type=file.media_type)

    return Route(address, respond, methods=["GET"], include_in_schema=False)


def _headers(embedded: bool) -> dict[str, str]:
    return {
        # The parts name one another without a version, so a browser has to ask whether its copies are still good.
        "Cache-Control": "no-cache",
        "Content-Security-Policy": _POLICY if embedded else f"{_POLICY}; frame-ancestors 'self'",
        "Permissions-Policy": ", ".join(f"{name}=()" for name in _DENIED),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
