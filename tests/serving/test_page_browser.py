"""The page in a real browser, before a real server with the detector that ships."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
from PIL import Image
from playwright.sync_api import Browser, Page, Request, Route, expect, sync_playwright

from pneumolib.data.phantom import draw
from pneumolib.models.detector import Detector, load_detector
from pneumolib.serving.page import example
from pneumolib.serving.server import BackgroundServer, serve
from pneumolib.serving.settings import Settings

KEY = "a key of this test's own".replace(" ", "-")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BUSY = {
    "title": "The server is busy",
    "status": 429,
    "code": "queue_full",
    "detail": "64 pictures wait.",
    "request_id": "r",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        found = next(filter(None, map(shutil.which, NAMES)), own if os.path.exists(own) else None)
        if found is None:
            pytest.skip(f"no Chromium: none of {', '.join(NAMES)} is on the path, and Playwright has none of its own")
        expect.set_options(timeout=20_000)  # patience for a machine that is busy with other things
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def detector() -> Detector:
    return load_detector(threads=1)


@pytest.fixture(scope="module")
def server(detector: Detector) -> Iterator[BackgroundServer]:
    with serve(detector, show=False, settings=Settings(port=0, lanes=1)) as server:
        yield server


@pytest.fixture(scope="module")
def locked(detector: Detector) -> Iterator[BackgroundServer]:
    """A server with a key and a small limit."""
    with serve(detector, show=False, settings=Settings(port=0, lanes=1, api_key=KEY, max_bytes=200_000)) as server:
        yield server


class Visit:
    """A page that is open, with all that it asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[Request] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.requests.append(request))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        # What the server refuses is written to the console by the browser itself.
        page.on("console", lambda said: "Failed to load resource" in said.text or self.errors.append(said.text))

    @property
    def predictions(self) -> list[Request]:
        return [request for request in self.requests if "/v1/predict" in request.url]

    def choose(self, *contents: bytes, name: str = "x-ray.png", kind: str = "image/png") -> None:
        files: list[Any] = [{"name": name, "mimeType": kind, "buffer": content} for content in contents]
        self.page.set_input_files("#file", files)

    def expect_decision(self, decision: str) -> None:
        expect(self.page.locator("#decision")).to_have_text(decision)
        expect(self.page.locator("#result")).to_be_visible()


@pytest.fixture
def visits(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Open the page of a server; afterwards it must have failed nowhere, asked no other host and kept nothing."""
    opened = []

    def visit(server: BackgroundServer, **context: Any) -> Visit:
        visit = Visit(browser.new_context(**context).new_page())
        visit.page.goto(server.url)
        opened.append((visit, server.url))
        return visit

    yield visit
    for visit, url in opened:
        assert visit.errors == []
        assert not [r.url for r in visit.requests if not r.url.startswith((url, "blob:", "data:"))]
        assert visit.page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
        visit.page.context.close()


@pytest.fixture
def visit(visits: Callable[..., Visit], server: BackgroundServer) -> Visit:
    visit = visits(server)
    expect(visit.page.locator("#points")).to_be_visible()
    return visit


def x_ray(seed: int = 3, size: tuple[int, int] = (300, 400)) -> bytes:
    file = io.BytesIO()
    Image.fromarray(draw("bacterial", seed, size=size)).save(file, "PNG")
    return file.getvalue()


# === Answers ===


def test_an_example_gets_the_answer_of_the_detector(visit: Visit, detector: Detector) -> None:
    visit.page.get_by_role("button", name="drawn with pneumonia").click()
    visit.expect_decision("Pneumonia")
    said = detector.predict(example("pneumonia").content)
    expect(visit.page.locator("#probability")).to_have_text(f"{100 * said.probability:.1f}\u202f%")
    expect(visit.page.locator("#mark")).to_have_text(f"balanced {100 * said.threshold:.1f}\u202f%")
    needle, scale = (visit.page.locator(s).bounding_box() for s in (".needle", "#scale"))
    assert needle["x"] + needle["width"] / 2 > scale["x"] + said.threshold * scale["width"]
    expect(visit.page.locator("#badge")).to_have_text("PHANTOM")
    expect(visit.page.locator("#result-of")).to_contain_text("PHANTOM")
    expect(visit.page.locator("#announce")).to_contain_text("Pneumonia. Probability of pneumonia")


def test_a_file_is_shown_as_the_server_read_it_and_its_name_stays_here(visit: Visit) -> None:
    visit.choose(x_ray(), name="Doe, Jane.png")
    visit.expect_decision("Pneumonia")
    picture = visit.page.locator("#picture")
    assert picture.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [400, 300]
    box, heat = picture.bounding_box(), visit.page.locator("#heat").bounding_box()
    assert box == heat
    assert box["width"] / box["height"] == pytest.approx(400 / 300, rel=0.01)
    expect(visit.page.locator("#badge")).to_be_hidden()
    (request,) = visit.predictions
    assert request.headers["content-type"] == "image/png"
    assert b"Jane" not in (request.post_data_buffer or b"")
    assert "Jane" not in request.url + json.dumps(request.all_headers())


def test_the_operating_point_decides_anew_about_the_same_file(visit: Visit) -> None:
    visit.page.get_by_role("button", name="drawn with pneumonia").click()
    visit.expect_decision("Pneumonia")
    visit.page.get_by_role("radio", name="high specificity").check()
    visit.expect_decision("Normal")
    expect(visit.page.locator("#mark")).to_contain_text("high specificity")
    first, second = visit.predictions
    assert "operating_point=high_specificity" in second.url
    assert first.post_data_buffer == second.post_data_buffer


def test_a_refusal_shows_the_reason_and_no_decision(visit: Visit, detector: Detector) -> None:
    visit.page.get_by_role("button", name="swapped").click()
    reason = detector.predict(example("inverted").content).input.reason
    assert reason is not None
    expect(visit.page.locator("#reason")).to_have_text(reason[0].upper() + reason[1:] + ".")
    expect(visit.page.locator("#announce")).to_contain_text(reason)
    expect(visit.page.locator("#result")).to_be_hidden()
    expect(visit.page.locator("#picture")).to_be_visible()
    expect(visit.page.locator("#heat")).to_be_hidden()
    expect(visit.page.get_by_role("switch", name="Heat map")).to_be_disabled()


def test_several_files_are_stepped_through(visit: Visit) -> None:
    visit.choose(x_ray(), example("inverted").content)
    visit.expect_decision("Pneumonia")
    expect(visit.page.locator("#place")).to_have_text("1 of 2")
    visit.page.get_by_role("button", name="Next X-ray").click()
    expect(visit.page.locator("#refusal")).to_be_visible()
    expect(visit.page.get_by_role("button", name="Next X-ray")).to_be_disabled()
    visit.page.get_by_role("button", name="Previous X-ray").click()
    visit.expect_decision("Pneumonia")
    assert len(visit.predictions) == 3


DROP = """([kind, target, bytes, name, type]) => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(bytes)], name, { type }));
  const init = { bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data };
  const event = kind === 'paste' ? new ClipboardEvent(kind, init) : new DragEvent(kind, init);
  document.querySelector(target).dispatchEvent(event);
  return event.defaultPrevented;
}"""


@pytest.mark.parametrize(("kind", "target"), [("drop", "#film"), ("drop", ".about"), ("paste", "body")])
def test_a_picture_may_be_dropped_anywhere_or_pasted(visit: Visit, kind: str, target: str) -> None:
    assert visit.page.evaluate(DROP, [kind, target, list(x_ray()), "x-ray.png", "image/png"])
    visit.expect_decision("Pneumonia")


def test_dragging_a_file_over_the_page_marks_the_film(visit: Visit) -> None:
    assert visit.page.evaluate(DROP, ["dragover", ".about", [0], "x", ""])
    expect(visit.page.locator("#main")).to_have_class("dragging")


def test_a_file_of_no_known_type_is_sent_as_what_its_name_ends_in(visit: Visit) -> None:
    for name in ("chest.DCM", "chest"):
        visit.page.evaluate(DROP, ["drop", "#film", [1, 2, 3], name, ""])
        expect(visit.page.locator("#error")).to_be_visible()
        visit.page.get_by_role("button", name="Clear").click()
    kinds = [request.headers["content-type"] for request in visit.predictions]
    assert kinds == ["application/dicom", "application/octet-stream"]


def test_clearing_forgets_the_picture(visit: Visit) -> None:
    visit.choose(x_ray())
    visit.expect_decision("Pneumonia")
    visit.page.get_by_role("button", name="Clear").click()
    expect(visit.page.locator("#empty")).to_be_visible()
    expect(visit.page.locator("#choose")).to_be_focused()
    assert visit.page.locator("#picture").get_attribute("src") is None
    assert visit.page.locator("#heat").get_attribute("src") is None


# === What goes wrong ===


def test_an_error_is_told_in_the_words_of_the_server_with_what_to_do(visit: Visit) -> None:
    visit.choose(b"no picture at all")
    expect(visit.page.locator("#error-detail")).to_contain_text("no image of a format that is read")
    expect(visit.page.locator("#error-advice")).to_contain_text("Save the picture as JPEG")
    expect(visit.page.locator("#announce")).to_contain_text("no image of a format that is read")
    with visit.page.expect_file_chooser() as chooser:
        visit.page.locator("#instead").click()
    chooser.value.set_files({"name": "x.png", "mimeType": "image/png", "buffer": x_ray()})
    visit.expect_decision("Pneumonia")


def test_what_the_server_says_is_never_taken_as_html(visit: Visit) -> None:
    evil = "<img src=x onerror=document.title='taken'>"

    def answer(route: Route) -> None:
        told = {**BUSY, "status": 422, "title": evil, "detail": evil}
        route.fulfill(status=422, json=told)

    visit.page.route("**/v1/predict*", answer)
    visit.choose(x_ray())
    expect(visit.page.locator("#error-title")).to_have_text(evil)
    assert visit.page.locator("#error img").count() == 0


def test_a_busy_server_is_asked_again_when_it_says_so(visit: Visit) -> None:
    visit.page.clock.install()
    sent_away = []

    def answer(route: Route) -> None:
        if sent_away:
            route.continue_()
            return
        sent_away.append(route)
        route.fulfill(status=429, json=BUSY, headers={"Retry-After": "20"})

    visit.page.route("**/v1/predict*", answer)
    visit.choose(x_ray())
    expect(visit.page.locator("#busy-text")).to_contain_text("Trying again in 2")
    visit.page.clock.fast_forward(15_000)
    assert len(visit.predictions) == 1
    for _ in range(12):
        visit.page.clock.fast_forward(1000)
    visit.expect_decision("Pneumonia")
    assert len(visit.predictions) == 2
    expect(visit.page.locator("#busy")).to_be_hidden()


@pytest.mark.parametrize("by", ["button", "Escape"])
def test_waiting_can_be_cancelled(visit: Visit, by: str) -> None:
    visit.page.route("**/v1/predict*", lambda route: None)
    with visit.page.expect_request("**/v1/predict*"):
        visit.choose(x_ray())
    expect(visit.page.locator("#picture")).to_be_visible()  # the browser's own view of it
    with visit.page.expect_event("requestfailed") as failed:
        if by == "button":
            visit.page.get_by_role("button", name="Cancel").click()
        else:
            visit.page.keyboard.press("Escape")
    assert failed.value.failure == "net::ERR_ABORTED"
    expect(visit.page.locator("#empty")).to_be_visible()
    expect(visit.page.locator("#busy")).to_be_hidden()
    assert len(visit.predictions) == 1


def test_cancelling_a_change_of_the_operating_point_keeps_the_answer(visit: Visit) -> None:
    visit.choose(x_ray())
    visit.expect_decision("Pneumonia")
    visit.page.route("**/v1/predict*", lambda route: None)
    visit.page.get_by_role("radio", name="high specificity").check()
    visit.page.keyboard.press("Escape")
    expect(visit.page.get_by_role("radio", name="balanced")).to_be_checked()
    visit.expect_decision("Pneumonia")


def test_the_last_file_chosen_is_the_one_answered(visit: Visit) -> None:
    held: list[Route] = []
    visit.page.route("**/v1/predict*", lambda route: held.append(route) if not held else route.continue_())
    with visit.page.expect_request("**/v1/predict*"):
        visit.choose(x_ray())
    with visit.page.expect_event("requestfailed") as failed:
        visit.choose(example("inverted").content)
    assert failed.value == visit.predictions[0]
    expect(visit.page.locator("#refusal")).to_be_visible()


def test_a_server_that_is_gone_can_be_tried_again(visit: Visit) -> None:
    visit.page.route("**/v1/predict*", lambda route: route.abort())
    visit.choose(x_ray())
    expect(visit.page.locator("#error-title")).to_have_text("The server does not answer")
    visit.page.unroute("**/v1/predict*")
    visit.page.get_by_role("button", name="Try again").click()
    visit.expect_decision("Pneumonia")


def test_the_key_is_asked_for_and_a_large_file_is_not_sent(
    visits: Callable[..., Visit], locked: BackgroundServer
) -> None:
    visit = visits(locked)
    field = visit.page.get_by_label("API key")
    expect(field).to_be_focused()
    visit.page.keyboard.type("a wrong one")
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator("#key-problem")).to_be_visible()
    field.fill(KEY)
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator("#points")).to_be_visible()
    visit.choose(x_ray())
    visit.expect_decision("Pneumonia")
    visit.choose(bytes(200_001))
    expect(visit.page.locator("#error-title")).to_have_text("The file is too large")
    assert len(visit.predictions) == 1
    visit.page.reload()
    expect(field).to_be_visible()


# === Keyboard, sizes, looks ===


def test_everything_can_be_done_by_keyboard(visit: Visit) -> None:
    keyboard, focused = visit.page.keyboard, visit.page.locator(":focus")

    def tab_to(name: str, key: str = "Tab") -> None:
        for _ in range(10):
            keyboard.press(key)
            said = focused.evaluate("e => (e.labels?.[0] ?? e).textContent.trim()")
            if said.startswith(name):
                assert focused.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
                return
        pytest.fail(f"{name} cannot be reached by Tab")

    tab_to("Choose an X-ray")
    tab_to("drawn with pneumonia")
    keyboard.press("Enter")
    visit.expect_decision("Pneumonia")
    expect(visit.page.locator("#another")).to_be_focused()
    tab_to("balanced")
    keyboard.press("ArrowLeft")
    visit.expect_decision("Normal")
    tab_to("Heat map", "Shift+Tab")
    heat = visit.page.locator("#heat")
    expect(heat).to_be_visible()
    keyboard.press("Space")
    expect(heat).to_be_hidden()
    keyboard.press("Space")
    keyboard.press("Tab")
    keyboard.press("Home")
    expect(heat).to_have_css("opacity", "0")
    keyboard.press("ArrowRight")
    expect(heat).to_have_css("opacity", "0.05")


@pytest.mark.parametrize("width", [320, 390, 768, 1920])
def test_it_fits_every_width_and_fingers(visits: Callable[..., Visit], server: BackgroundServer, width: int) -> None:
    visit = visits(server, viewport={"width": width, "height": 800})
    for prepare in (lambda: None, lambda: visit.choose(x_ray(), x_ray(4))):
        prepare()
        expect(visit.page.locator("#points")).to_be_visible()
        expect(visit.page.locator("#reading")).to_be_hidden()
        assert visit.page.evaluate("document.documentElement.scrollWidth") == width
        for button in visit.page.get_by_role("button").all():
            assert button.bounding_box()["height"] >= 40
    visit.expect_decision("Pneumonia")


def test_light_and_dark_and_the_film_is_dark_in_both(visit: Visit) -> None:
    looks = {}
    for scheme in ("light", "dark"):
        visit.page.emulate_media(color_scheme=scheme)
        looks[scheme] = [
            visit.page.locator(s).evaluate("e => getComputedStyle(e).backgroundColor") for s in ("html", "#viewer")
        ]
    brightness = {s: [sum(map(int, c[4:-1].split(","))) / 765 for c in colours] for s, colours in looks.items()}
    assert brightness["light"][0] > 0.9
    assert max(brightness["dark"]) < 0.15
    assert brightness["light"][1] < 0.15


def test_it_works_below_a_prefix_as_behind_a_notebooks_proxy(browser: Browser, server: BackgroundServer) -> None:
    page = browser.new_page()
    prefix = "http://notebook.test/user/proxy/8000/"
    outside = []

    def forward(route: Route) -> None:
        if not route.request.url.startswith(prefix):
            outside.append(route.request.url)
            route.abort()
            return
        route.fulfill(response=route.fetch(url=f"{server.url}/{route.request.url.removeprefix(prefix)}"))

    page.route(re.compile("^http"), forward)
    page.goto(prefix)
    page.get_by_role("button", name="swapped").click()
    expect(page.locator("#refusal")).to_be_visible()
    assert outside == []
    assert page.get_by_role("link", name="API").evaluate("link => link.href") == f"{prefix}docs"
    page.close()
