"""A served index under load: many clients that search, a writer that changes it, and the page."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import count
from pathlib import Path
from statistics import fmean, median, quantiles
from typing import TYPE_CHECKING, Any

import psutil
import urllib3

from s3_retriever import Document, RemoteIndex, S3Error, S3Index
from s3_retriever.search import Span
from s3_retriever_bench.shared.corpus import choose_questions, enough, source_files
from s3_retriever_bench.shared.costs import in_turn, seconds_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Documents that the writer replaces together, in one commit each time.
_STATE_DOCUMENTS = 8
_STATE_QUESTION = "What does the lighthouse keeper of Ravenholm write into the harbour log?"
# Seconds of load before anything is measured: caches fill and threads start.
_WARM_UP = 3.0
# Seconds that the writer rests after a commit.
_BETWEEN_COMMITS = 0.05
# Searches over HTTP and in this process that are compared.
_PAIRS = 200


class _Load:
    """Clients that search a server, a writer, and what they saw.

    Attributes:
        latencies: Seconds of each measured search.
        errors: What failed.
        uncommitted: Results that belong to no committed state.
        done: The last version of the state documents that was committed.
    """

    def __init__(self, url: str, asked: Sequence[str], known: Mapping[str, str]) -> None:
        self.latencies: list[float] = []
        self.errors: list[str] = []
        self.uncommitted: list[str] = []
        self.done = 0
        self._begun = 0
        self._url, self._asked, self._known = url, asked, known

    def run(self, clients: int, seconds: float, pid: int) -> list[float]:
        """Search and write; gives the memory of the server's process in bytes over that time."""
        began = time.monotonic() + _WARM_UP
        end = began + seconds
        memory: list[float] = []
        process = psutil.Process(pid)
        with ThreadPoolExecutor(clients + 1) as pool:
            running = [pool.submit(self._client, number, began, end) for number in range(clients)]
            running.append(pool.submit(self._writer, end))
            time.sleep(_WARM_UP)
            while time.monotonic() < end:
                memory.append(process.memory_info().rss)
                time.sleep(min(1.0, seconds / 10))
            for each in running:
                each.result()
        return memory

    def _client(self, number: int, began: float, end: float) -> None:
        with RemoteIndex(self._url) as remote:
            for turn in count(number):
                start, least = time.monotonic(), self.done
                if start >= end:
                    return
                state = turn % 3 == 0
                question = _STATE_QUESTION if state else self._asked[turn % len(self._asked)]
                try:
                    spans = remote.search(question, _STATE_DOCUMENTS)
                except S3Error as error:
                    self.errors.append(str(error))
                    continue
                if start >= began:
                    self.latencies.append(time.monotonic() - start)
                if wrong := self._wrong(spans, least, state):
                    self.uncommitted.append(wrong)

    def _writer(self, end: float) -> None:
        with RemoteIndex(self._url) as remote:
            while time.monotonic() < end:
                self._begun += 1
                try:
                    remote.add(_state(self._begun), replace=True)
                    self.done = self._begun
                except S3Error as error:
                    self.errors.append(str(error))
                time.sleep(_BETWEEN_COMMITS)

    def _wrong(self, spans: Sequence[Span], least: int, state: bool) -> str:
        """What is wrong with a result; empty if it belongs to a state that was committed.

        Args:
            spans: The result.
            least: The version that was committed when the search began.
            state: Whether it asked for the state documents.
        """
        seen = {span.metadata["version"] for span in spans if "version" in span.metadata}
        if len(seen) > 1 or (state and not seen):
            return f"A result has versions {sorted(seen)}."
        if seen and not least <= min(seen) <= self._begun:
            return f"A result has version {seen}; {least} to {self._begun} were committed."
        for span in spans:
            text = self._known.get(span.document_id)
            if text is not None and text[span.start : span.end] != span.text:
                return f"Span {span.id} is not what its document says."
        return ""


def run_serving(
    *,
    clients: int,
    seconds: float,
    tokens: int,
    host: str,
    codebook: str | None,
    texts: Sequence[Path],
    ask: Path | None,
    questions: int,
    page: bool,
) -> dict[str, Any]:
    """Serve an index with `s3r serve` in a process of its own, and search it from many threads.

    Takes the options of `s3r bench serve`. A third of the searches ask for documents that a writer
    replaces, all in one commit: what they find has to be of one version, which was committed when
    the search began or later. Other searches have to find what the documents say at that place.

    Returns:
        JSON values: searches, errors, spans of no committed state, commits, latencies, the
        overhead over the search in this process, the server's memory and, if it was asked for,
        how soon the page shows an answer.

    Raises:
        S3Error: The host or the codebook is not usable, the server does not start, or there is no
            browser.
    """
    files = source_files(texts)
    asked = choose_questions(ask, files, questions).measured
    with tempfile.TemporaryDirectory() as folder, browser() if page else nullcontext() as opened:
        path = Path(folder) / "load.s3r"
        index = S3Index.create(path, host, codebook=codebook)
        index.add(enough(files, tokens, index.encoder.host.tokenizer.count))
        known = {document.id: document.text for document in index}
        index.add(_state(0))
        with _server(path) as (url, pid):
            load = _Load(url, asked, known)
            memory = load.run(clients, seconds, pid)
            overhead = _overhead(url, index, asked)
            shown = measure_page(opened, url, asked) if opened else {}
        figures = {"tokens": index.stats()["tokens"], "documents": len(index)}
    cuts = quantiles(load.latencies, n=20) if len(load.latencies) > 1 else [0.0] * 19
    return figures | {
        "host": host,
        "clients": clients,
        "seconds": seconds,
        "searches": len(load.latencies),
        "searches_per_second": len(load.latencies) / seconds,
        "errors": len(load.errors),
        "first_errors": load.errors[:5],
        "uncommitted": len(load.uncommitted),
        "first_uncommitted": load.uncommitted[:5],
        "commits": load.done,
        "latency_ms": {"median": cuts[9] * 1e3, "p95": cuts[18] * 1e3},
        **overhead,
        **_memory(memory),
        **shown,
    }


def _state(version: int) -> list[Document]:
    text = f"{_STATE_QUESTION} The keeper writes entry"
    return [
        Document(f"{text} {version} of book {i}.", f"state/{i}", {"version": version})
        for i in range(_STATE_DOCUMENTS)
    ]


@contextmanager
def _server(path: Path) -> Iterator[tuple[str, int]]:
    """`s3r serve` in a process of its own: its address and process id."""
    command = [sys.executable, "-m", "s3_retriever.cli", "serve", str(path), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            said = ""
            for line in process.stderr or ():
                if line.startswith("Serving "):
                    yield line.split()[3], process.pid
                    return
                said = line
            raise S3Error(f"The server did not start: {said.strip()}")
        finally:
            process.terminate()


def _overhead(url: str, index: S3Index, asked: Sequence[str]) -> dict[str, Any]:
    """Median times of searches over HTTP and in this process, and of a request without a search.

    One client asks an idle server, by turns: the same question there and here, with the defaults of
    a search, then whether the server is up.
    """
    with RemoteIndex(url) as remote, urllib3.connection_from_url(url) as pool:
        ways = {
            "http": partial(seconds_of, remote.search),
            "in process": partial(seconds_of, index.search),
            "health": partial(seconds_of, lambda _: pool.request("GET", "/health", retries=False)),
        }
        # Never the same question, which may be cached.
        questions = (f"{asked[turn % len(asked)]} {turn}" for turn in range(_PAIRS))
        times = in_turn(ways, questions)
    there, here = times["http"], times["in process"]
    return {
        "http_ms": median(there) * 1e3,
        "in_process_ms": median(here) * 1e3,
        "overhead_ms": median(a - b for a, b in zip(there, here, strict=True)) * 1e3,
        "health_ms": median(times["health"]) * 1e3,
    }


def _memory(samples: Sequence[float]) -> dict[str, float]:
    """Mean memory in the first and the last third of the load, and the last over the first."""
    third = max(len(samples) // 3, 1)
    first, last = fmean(samples[:third]), fmean(samples[-third:])
    return {"first_bytes": first, "last_bytes": last, "memory_ratio": last / first}


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
