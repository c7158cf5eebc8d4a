"""The page of a server in a browser: how soon it shows what was found."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING, Any

from s3_retriever import S3Error

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_SPANS = 1_000
_QUESTIONS = 10
_MISSING = (
    "The page is measured with Playwright and Chromium; install them with: pip install playwright "
    "&& playwright install chromium"
)
# The page measures from an answer's last byte to the frame that shows the first rows.
_MEASURE = "performance.getEntriesByName('s3r:render').map(({ duration }) => duration)"


@contextmanager
def browser() -> Iterator[Browser]:
    """Chromium: that of the system, or Playwright's own.

    Raises:
        S3Error: Either is not installed.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise S3Error(_MISSING) from error
    known = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        try:
            made = playwright.chromium.launch(executable_path=known, args=["--no-sandbox"])
        except Error as error:
            raise S3Error(_MISSING) from error
        with made:
            yield made


def measure_page(opened: Browser, url: str, asked: Sequence[str]) -> dict[str, Any]:
    """Ask questions in the page, and measure how soon it shows the first rows of the answer.

    Args:
        opened: The browser.
        url: The server's address.
        asked: Questions; the first ten are asked.

    Returns:
        `page_spans`, the median number of spans in an answer; `page_ms` and `page_worst_ms`,
        median and maximum of the milliseconds from the server's answer to the frame with its first
        rows.
    """
    page = opened.new_page()
    page.goto(url)
    page.wait_for_selector("#evidence b")
    page.fill("#k", str(_SPANS))
    spans: list[int] = []
    times: list[float] = []
    for turn, question in enumerate(asked[:_QUESTIONS], 1):
        page.fill("#question", question)
        with page.expect_response("**/search") as reply:
            page.press("#question", "Enter")
        spans.append(len(reply.value.json()["spans"]))
        while len(times := page.evaluate(_MEASURE)) < turn:
            page.wait_for_timeout(50)
    page.close()
    return {"page_spans": median(spans), "page_ms": median(times), "page_worst_ms": max(times)}
