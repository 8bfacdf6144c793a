"""Take the README's picture of the server's page: a synthetic X-ray and the answer to it, in a real browser.

    python tools/page_picture.py

It needs Chromium. The script writes docs/page.png.
"""

from __future__ import annotations

import io
import shutil

from PIL import Image
from playwright.sync_api import sync_playwright
from project import ROOT

from pneumolib.serving.server import serve

PICTURE = ROOT / "docs" / "page.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    """Start a server, choose an example on its page, wait for the answer, and keep what is seen."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with serve(show=False) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1120, "height": 800})
        page.goto(server.url)
        page.click("[data-example=pneumonia]")
        page.wait_for_selector("#result:not([hidden])")
        page.wait_for_function("document.getElementById('picture').complete")
        content = page.screenshot()
        browser.close()
    with Image.open(io.BytesIO(content)) as image:
        image.convert("RGB").quantize(256).save(PICTURE, optimize=True)
    print(PICTURE.relative_to(ROOT))


if __name__ == "__main__":
    main()
