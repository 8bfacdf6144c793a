"""The page's addresses and files, without a browser: what they may load, what they promise, whether it can be read."""

from __future__ import annotations

import asyncio
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the extra 'serve' is not installed")
import httpx
from PIL import Image
from starlette.applications import Starlette

from pneumolib.data.images import decode
from pneumolib.evaluation.overlay import COLOURS
from pneumolib.models.detector import Detector, load_detector
from pneumolib.serving import page, schema
from pneumolib.serving.page import EXAMPLES, FOLDER, page_routes
from pneumolib.serving.problems import PROBLEMS

FILES = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}
SCRIPTS = {name: text for name, text in FILES.items() if name.endswith(".js")}


class Elements(HTMLParser):
    """All elements of the page with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(FILES["index.html"])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def values(self, attribute: str) -> list[str]:
        return [value for _, attrs in self.found if (value := attrs.get(attribute))]


ELEMENTS = Elements()


class Client:
    """Asks the page's routes, without a server."""

    def __init__(self, embedded: bool) -> None:
        self.transport = httpx.ASGITransport(Starlette(routes=page_routes(embedded)))

    def request(self, method: str, address: str, headers: dict[str, str] | None = None) -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=self.transport, base_url="http://page") as client:
                return await client.request(method, address, headers=headers)

        return asyncio.run(ask())

    def get(self, address: str, headers: dict[str, str] | None = None) -> httpx.Response:
        return self.request("GET", address, headers)


@pytest.fixture(scope="module")
def client() -> Client:
    return Client(embedded=False)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return load_detector(threads=1)


# === What the page may do ===


@pytest.mark.parametrize("address", ["/", *(f"/page/{n}" for n in FILES if n != "index.html"), "/examples/healthy.png"])
def test_every_answer_holds_the_page_to_its_own_host(client: Client, address: str) -> None:
    headers = client.get(address).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' blob: data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'self'",
    }
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "camera=()" in headers["permissions-policy"]


def test_only_an_embedded_page_stands_in_frames_of_others() -> None:
    policy = Client(embedded=True).get("/").headers["content-security-policy"]
    assert "frame-ancestors" not in policy
    assert policy.startswith("default-src 'none'")


def test_nothing_is_inline_so_that_the_policy_can_be_strict() -> None:
    for tag, attributes in ELEMENTS.found:
        assert tag != "style"
        assert tag != "script" or "src" in attributes
        assert not [name for name in attributes if name == "style" or name.startswith("on")]


def test_no_file_names_another_host_and_every_address_is_relative() -> None:
    for name, text in FILES.items():
        assert re.findall(r"(?:https?:)?//[\w.]+\.\w+\S*", text.replace("http://www.w3.org/2000/svg", "")) == [], name
    addresses = [*ELEMENTS.values("src"), *ELEMENTS.values("href")]
    assert addresses
    assert not [address for address in addresses if address.startswith("/")]
    assert not re.findall(r"""(?:fetch|ask)\(['"`]/""", "".join(SCRIPTS.values()))


# === What is served ===


@pytest.mark.parametrize("address", sorted({*ELEMENTS.values("src"), *ELEMENTS.values("href")} - {"#about", "docs"}))
def test_everything_that_the_page_refers_to_is_there(client: Client, address: str) -> None:
    kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml", "png": "image/png"}
    answer = client.get(f"/{address}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] == kinds[address.rpartition(".")[2]]


def test_modules_and_elements_that_scripts_name_are_there() -> None:
    text = "".join(SCRIPTS.values())
    assert {name for name in re.findall(r"from '\./([^']+)'", text)} <= set(SCRIPTS)
    named = set(re.findall(r"\$\('([\w-]+)'\)", text))
    assert named
    assert named <= set(ELEMENTS.values("id"))
    assert set(ELEMENTS.values("data-example")) == set(EXAMPLES)


def test_an_unchanged_file_is_not_sent_twice(client: Client) -> None:
    for address in ("/", "/page/page.js", "/examples/healthy.png"):
        first = client.get(address)
        again = client.get(address, headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
        assert client.get(address, headers={"If-None-Match": '"other"'}).content == first.content
        assert first.headers["cache-control"] == "no-cache"


def test_nothing_else_is_served(client: Client) -> None:
    for address in ("/page/", "/page/index.html", "/page/../page.py", "/page/%2e%2e/page.py", "/examples/other.png"):
        assert client.get(address).status_code == 404
    assert client.request("POST", "/").status_code == 405
    assert client.request("HEAD", "/").status_code == 200


# === Examples ===


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_drawn_once_and_says_what_it_is(client: Client, name: str) -> None:
    page.example.cache_clear()
    first = client.get(f"/examples/{name}.png").content
    assert page.example(name).content is page.example(name).content
    with Image.open(io.BytesIO(first)) as image:
        assert "PHANTOM" in image.info["Comment"]
    page.example.cache_clear()
    assert client.get(f"/examples/{name}.png").content == first


def test_the_examples_show_both_decisions_and_a_refusal(detector: Detector) -> None:
    def ask(name: str, point: str = "balanced") -> str | None:
        return detector.predict(page.example(name).content, operating_point=point).decision

    assert ask("healthy") == "normal"
    assert (ask("pneumonia"), ask("pneumonia", "high_specificity")) == ("pneumonia", "normal")
    assert ask("inverted") is None
    assert decode(page.example("inverted").content).shape == (448, 540)


# === What it says ===


def test_the_page_says_what_the_server_says() -> None:
    text = FILES["index.html"]
    assert schema.NOTICE in text
    assert set(schema.MEDIA_TYPES) <= set(next(iter(ELEMENTS.values("accept"))).split(","))
    tables = "".join(re.findall(r"ADVICE = \{(.*?)\};", FILES["show.js"], flags=re.DOTALL))
    advised = set(re.findall(r"^  (\w+):", tables, flags=re.MULTILINE))
    assert advised - set(PROBLEMS) <= {"unreachable", "unreadable"}
    assert len(advised) > 5
    assert re.search(r"to right, ([#\w, ]+)\)", FILES["page.css"]).group(1).split(", ") == list(COLOURS)


def test_numbers_of_the_detector_are_not_typed_by_hand(detector: Detector) -> None:
    written = "".join(FILES[name] for name in ("index.html", *SCRIPTS))
    for point in detector.operating_points.values():
        for number in (point.threshold, point.sensitivity, point.specificity):
            assert f"{number:.3f}" not in written
            assert f"{100 * number:.1f}" not in written


# === Whether it can be read ===


def looks() -> dict[str, dict[str, str]]:
    """The colours of the light and of the dark look, by name."""
    light, dark = re.findall(r":root \{(.*?)\}", FILES["page.css"], flags=re.DOTALL)[:2]
    found = dict(re.findall(r"--([\w-]+): (#\w{6});", light))
    return {"light": found, "dark": {**found, **dict(re.findall(r"--([\w-]+): (#\w{6});", dark))}}


def contrast(a: str, b: str) -> float:
    """WCAG 2's contrast of two colours, 1 to 21."""

    def luminance(colour: str) -> float:
        parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("look", ["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(look: str) -> None:
    colours = looks()[look]
    on_paper = [(name, paper) for name in ("ink", "soft", "accent") for paper in ("paper", "card")]
    pairs = [
        *on_paper, ("ill", "card"), ("well", "card"), ("warn-ink", "warn-paper"), ("on-accent", "accent"),
        ("dark-ink", "dark"), ("dark-soft", "dark"), ("dark-accent", "dark"), ("on-dark-accent", "dark-accent"),
    ]  # fmt: skip
    poor = {pair: round(contrast(colours[pair[0]], colours[pair[1]]), 2) for pair in pairs}
    assert {pair: ratio for pair, ratio in poor.items() if ratio < 4.5} == {}


def test_contrast_is_computed_as_wcag_defines_it() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
