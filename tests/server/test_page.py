"""The page, in a real browser."""

from __future__ import annotations

import re
import shutil
from contextlib import contextmanager

import pytest
from helpers.serving import running

from s3_retriever import Codebook, Document, Host, S3Index
from s3_retriever.server.app import create_app

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on the path")

# For busy machines; all of it takes a moment.
SECONDS = 60
expect.set_options(timeout=SECONDS * 1_000)

TOKEN = "token-of-the-page"
HOSTILE = '<img src=x onerror="window.harmed=1"><script>window.harmed=1</script>'
BACKWARDS = "The baker \u202espoke\u2066 backwards."
LONG_LINE = "The captain laughs." + "x" * 1_000_000


def documents(sentences):
    yield Document(f"{HOSTILE} The captain waits.", f"a/../{HOSTILE}?#%", {"title": HOSTILE})
    yield Document(BACKWARDS, "..", {"title": "\u202egpj.exe", "\u202ekind": HOSTILE})
    yield Document("The captain laughs.", ".")
    yield Document("🚢 The captain paints 😀 boats. The baker 🥖 sleeps.", "astral", {"kind": "x"})
    for i in range(3):
        texts = (f"{text[:-1]} {i}." for text in sentences)
        yield Document(" ".join(texts), f"notes/{i}", {"title": f"Notes {i}", "kind": "notes"})


@pytest.fixture(scope="module")
def index(tiny_bert, tiny_codebook, sentences):
    host = Host.load(str(tiny_bert), device="cpu", dtype="float32")
    with S3Index.create(host=host, codebook=Codebook.load(tiny_codebook)) as made:
        made.add(documents(sentences), progress=False)
        yield made


@pytest.fixture(scope="module")
def address(index):
    with running(create_app({"notes": index})) as url:
        yield url


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


def is_wrong(said):
    """Whether the page complains of anything but an answer of the server."""
    return said.type in ("error", "warning") and "status of 4" not in said.text


@contextmanager
def opened(browser, url, **options):
    """The page, watched: it asks no other server, logs no error and runs nothing it is sent."""
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(SECONDS * 1_000)
    wrong = []
    page.on("console", lambda said: wrong.append(said.text) if is_wrong(said) else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on(
        "request",
        lambda asked: None if asked.url.startswith((url, "data:")) else wrong.append(asked.url),
    )
    page.add_init_script(
        "window.violations = [];"
        "addEventListener('securitypolicyviolation', e => violations.push(e.violatedDirective))"
    )
    page.goto(url)
    try:
        yield page
        assert page.evaluate("window.violations") == []
        assert page.evaluate("window.harmed") is None
        assert wrong == []
    finally:
        context.close()


@pytest.fixture
def page(browser, address):
    with opened(browser, address) as page:
        expect(page.locator("#evidence b")).to_be_visible()
        yield page


def ask(page, question, k=20):
    page.fill("#k", str(k))
    page.fill("#question", question)
    page.press("#question", "Enter")
    expect(page.locator(".hit").first).to_be_visible()
    expect(page.locator("body")).not_to_have_class(re.compile("busy"))


def test_a_search_is_explained_in_its_document(page):
    ask(page, "Who paints seven boats before dawn?")
    first = page.locator(".hit").first
    expect(first).to_contain_text("paints seven boats before dawn")
    assert first.locator(".bar rect").count() >= 2
    text = first.locator(".text").inner_text()
    first.locator(".open").click()
    expect(page.locator("mark.current")).to_have_text(text)
    expect(page.locator("mark.current")).to_be_in_viewport()
    expect(page.locator(".why")).to_contain_text("Features it shares with the question")
    page.locator("mark.current .t").first.click()
    expect(page.locator(".inspector .note")).to_contain_text("sentence")
    assert page.locator(".fires b").count() > 0
    page.locator(".fires .open").nth(2).click()
    expect(page.locator("mark.current")).to_be_in_viewport()


def test_two_ways_of_searching_and_a_filter(page):
    ask(page, "captain boats")
    page.click("#compare")
    expect(page.locator(".evidence")).to_have_count(2)
    expect(page.locator(".twin").first).to_have_text(re.compile(r"only in A|B \d+"))
    page.click("#filter-button")
    page.fill("#where", "{kind: 1}")
    expect(page.locator("#where-problem")).to_contain_text("not JSON yet")
    page.fill("#where", '{"kind": {"$is": 1}}')
    expect(page.locator("#where-problem")).to_contain_text("Unknown operator $is")
    page.fill("#where", '{"kind": "x"}')
    page.press("#question", "Enter")
    expect(page.locator(".evidence").first.locator(".title")).to_have_text(["astral"] * 2)
    page.locator("#facets button", has_text="x").click()
    expect(page.locator("#where")).to_have_value("")


def test_what_the_server_refuses_is_said(page):
    page.route(
        "**/search", lambda route: route.fulfill(json={"error": {"message": HOSTILE}}, status=400)
    )
    page.fill("#question", "captain")
    page.press("#question", "Enter")
    expect(page.locator("#problem")).to_have_text(HOSTILE)


def test_documents_cannot_act_on_the_page(page):
    ask(page, "The captain waits.")
    hit = page.locator(".hit", has_text="onerror").first
    hit.locator(".open").click()
    expect(page.locator("#reader-title")).to_have_text(HOSTILE)
    expect(page.locator("#reader .text")).to_contain_text(HOSTILE)
    expect(page.locator("#reader .t").first).to_be_visible()
    assert page.locator("main img, main script").count() == 0


def test_names_cannot_turn_the_text_around_them(page):
    ask(page, "The baker spoke backwards.")
    title = page.locator(".hit .title", has_text="gpj.exe").first
    assert title.inner_text() == "gpj.exe"
    title.click()
    expect(page.locator("#reader .text")).to_contain_text(BACKWARDS)
    assert "\u202e" not in page.locator("#reader header").inner_text()


def test_offsets_hold_beyond_the_basic_plane(page):
    ask(page, "The baker sleeps.")
    page.locator(".hit .open", has_text="The baker 🥖 sleeps.").click()
    expect(page.locator("mark.current")).to_have_text("The baker 🥖 sleeps.")


def test_a_line_of_a_megabyte(page):
    sent = {"id": ".", "text": LONG_LINE, "metadata": {"title": LONG_LINE}}
    page.route("**/read", lambda route: route.fulfill(json=sent))
    ask(page, "The captain laughs.")
    page.locator(".hit .open", has_text="captain laughs").click()
    expect(page.locator("mark.current").first).to_be_visible()
    assert len(page.locator("#reader-title").inner_text()) < 200
    length = page.evaluate("document.querySelector('#reader .text').textContent.length")
    assert length == len(LONG_LINE)


def test_two_thousand_spans(page):
    def wait_for(expression):
        # Playwright's own expectations describe the whole page while they do not hold yet.
        while not page.evaluate(expression):
            page.wait_for_timeout(20)

    page.fill("#k", "2000")
    page.fill("#question", "The captain counts boats and bread.")
    page.press("#question", "Enter")
    wait_for("document.querySelectorAll('.hit').length === 2000")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    wait_for("document.activeElement === [...document.querySelectorAll('.hit .open')].at(-1)")
    page.keyboard.press("Enter")
    wait_for("document.querySelector('mark.current') !== null")
    place = "document.querySelector('mark.current').getBoundingClientRect()"
    wait_for(f"{place}.top >= 0 && {place}.bottom <= innerHeight")


def test_by_keyboard_alone(page):
    page.locator("#k").focus()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("Who paints seven boats?")
    page.keyboard.press("Enter")
    expect(page.locator(".hit").first).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    second = page.locator(".hit .open").nth(1)
    expect(second).to_be_focused()
    assert second.evaluate("element => getComputedStyle(element).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.locator("#reader-title")).to_be_focused()
    token = page.locator("#reader .t[tabindex='0']")
    expect(token).to_have_count(1)
    for _ in range(40):
        page.keyboard.press("Tab")
        if token.evaluate("element => element === document.activeElement"):
            break
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator(".inspector")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".inspector")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page.locator("#reader")).to_be_hidden()
    expect(second).to_be_focused()


def test_nothing_is_wider_than_a_narrow_screen(browser, address):
    options = {"viewport": {"width": 360, "height": 640}, "color_scheme": "dark"}
    with opened(browser, address, **options) as page:
        expect(page.locator("#evidence b")).to_be_visible()
        page.click("#compare")
        ask(page, "The captain waits.")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.locator(".hit .open", has_text="onerror").first.click()
        expect(page.locator("mark.current").first).to_be_in_viewport()
        assert page.evaluate("document.querySelector('.scroll').scrollWidth") <= 360


def test_the_token_is_asked_for_and_kept_in_memory_alone(browser, index):
    with running(create_app({"notes": index}, token=TOKEN)) as url:
        context = browser.new_context()
        page = context.new_page()
        page.goto(url)
        for wrong in ("wrong", "wröng"):
            page.fill("#token", wrong)
            page.press("#token", "Enter")
            expect(page.locator("#token-note")).to_contain_text("did not take")
            expect(page.locator("#token")).to_have_value("")
        page.fill("#token", TOKEN)
        page.press("#token", "Enter")
        expect(page.locator("#facts")).to_contain_text("7 documents")
        stored = "[localStorage.length, sessionStorage.length, document.cookie]"
        assert page.evaluate(stored) == [0, 0, ""]
        context.close()
