"""Speed: indexing beside the bare host, searching beside other indexes, in one run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, get_args

import faiss
import numpy as np
import torch
from tqdm.auto import tqdm

from s3_retriever import Codebook, Document, Host, IndexStoreError, Recipe, S3Index
from s3_retriever.encoder import CachingEncoder
from s3_retriever.engine import find_codebook
from s3_retriever.features import EncodedQuestion
from s3_retriever.host import Window
from s3_retriever.host.batches import run_batches
from s3_retriever.index import Store as IndexStore
from s3_retriever.types import Mode
from s3_retriever_bench.shared.corpus import (
    Questions,
    choose_questions,
    endless,
    enough,
    source_files,
    source_name,
)
from s3_retriever_bench.shared.costs import in_turn
from s3_retriever_bench.shared.processes import run_script
from s3_retriever_bench.shared.report import check
from s3_retriever_bench.shared.storage import (
    Store,
    codebook_settings,
    files_digest,
    host_settings,
    versions,
)
from s3_retriever_bench.speed.peers import RESULTS, Ask, Peers, Timing, chunks_of, now
from s3_retriever_bench.speed.report import speed_claims

# Documents before the first round, because first runs compile and allocate.
_WARM_UP = 8
# Tokens whose features are remembered: text that repeats is scanned once.
_CACHE_TOKENS = 100_000_000
_OPENINGS = 3
_OPEN = """\
import json, sys, time
from pathlib import Path
import psutil
from s3_retriever.index import Store
process = psutil.Process()
before = process.memory_full_info().uss
started = time.perf_counter()
store = Store.open(Path(sys.argv[1]))
snapshot = store.snapshot()
seconds = time.perf_counter() - started
private = process.memory_full_info().uss - before
print(json.dumps({"seconds": seconds, "private": private}))
"""


def run_speed(
    sizes: Sequence[int],
    *,
    host: str = "minilm",
    codebook: str | None = None,
    texts: Sequence[Path] = (),
    ask: Path | None = None,
    questions: int = 30,
    scan_tokens: int = 100_000,
    rounds: int = 3,
    slow_peers: bool = True,
    folder: Path | None = None,
    fresh: bool = False,
) -> dict[str, Any]:
    """Measure indexing, then searching at each size.

    Takes the options of `s3r bench speed`: `sizes` are tokens of the indexes to search; `texts` and
    `ask` are files as `corpus.documents` and `corpus.choose_questions` read them. With a folder,
    a run with the same settings resumes there.

    Returns:
        JSON values: `settings`, `machine`, `versions`, `indexing` (see `time_indexing`), `sizes`
        (by the tokens asked for, see `Growing.measure`) and `claims`.

    Raises:
        InputError: Texts or questions are not usable, or the folder has results of other settings.
        S3Error: The host or the codebook is not usable.
    """
    files = source_files(texts)
    chosen = choose_questions(ask, files, questions)
    book = find_codebook(host, codebook)
    loaded = Host.load(host, layers=book.depth)
    settings = {
        "host": host,
        **host_settings(loaded),
        **codebook_settings(book),
        "texts": source_name(texts),
        "ask": None if ask is None else ask.name,
        "questions": len(chosen.measured),
        "scan_tokens": scan_tokens,
        "rounds": rounds,
        "slow_peers": slow_peers,
    }
    store = Store(folder, settings, fresh)
    digest = files_digest(files, chosen)

    def grow(path: Path) -> Growing:
        return Growing(path, TimedEncoder(loaded, book), files, slow_peers=slow_peers)

    with store.resumable():
        indexing = store.measured(
            "indexing",
            "add",
            digest,
            lambda: time_indexing(loaded, book, files, tokens=scan_tokens, rounds=rounds),
        )
        rows = _measure_sizes(sorted(set(sizes)), grow, chosen, store, digest)
    figures = store.figures(indexing=indexing, sizes=rows)
    figures["machine"]["faiss_threads"] = faiss.omp_get_max_threads()
    figures["versions"] |= versions("bm25s", "numba")
    return figures | {"claims": check(speed_claims(figures))}


def _measure_sizes(
    sizes: Sequence[int],
    grow: Callable[[Path], Growing],
    questions: Questions,
    store: Store,
    digest: str,
) -> dict[str, dict[str, Any]]:
    """Grow one index through all sizes, and measure those not measured before."""
    rows = {size: store.get("search", str(size), digest) for size in sizes}
    missing = [size for size, row in rows.items() if row is None]
    if missing:
        with tempfile.TemporaryDirectory() as folder:
            growing = grow(Path(folder) / "index")
            for size in sizes[: sizes.index(missing[-1]) + 1]:
                growing.grow(size)
                if size in missing:
                    rows[size] = row = growing.measure(questions)
                    store.put("search", str(size), digest, row)
    return {str(size): row for size, row in rows.items() if row is not None}


def time_indexing(
    host: Host, codebook: Codebook, files: Sequence[Path], *, tokens: int, rounds: int
) -> dict[str, Any]:
    """Run the host alone and add the same documents to a new index on disk, in turn.

    Args:
        host: The loaded host.
        codebook: Its codebook.
        files: Texts, as `corpus.documents` reads them.
        tokens: Minimum tokens to index.
        rounds: How often to do each.

    Returns:
        JSON values. `documents`, `windows` and `tokens` of the text, and `added_tokens`, as the
        index counts them. `rounds`: seconds by the clock and of all processors, of both.
        `bare_tokens_per_second` and `add_tokens_per_second`: medians. `ratio`: the rate of adding
        over that of the bare host; `cpu_ratio`: the same in processor seconds, which depend less
        on other processes; medians of the rounds.
    """
    documents = list(enough(files, tokens, host.tokenizer.count))
    windows = list(host.windows(documents))
    kept = sum(len(window.starts) for window in windows)
    _forward(host, windows[:_WARM_UP])
    _add(host, codebook, documents[:_WARM_UP])
    times: list[dict[str, float]] = []
    added = 0
    with tqdm(total=2 * rounds, desc="Indexing", unit="run", disable=None) as bar:
        for _ in range(rounds):
            bare = _timed("bare", lambda: _forward(host, windows))
            bar.update()
            whole, added = _add(host, codebook, documents)
            bar.update()
            times.append(bare | whole)

    def ratio(kind: str) -> float:
        return round(median(row[f"bare_{kind}"] / row[f"add_{kind}"] for row in times), 4)

    return {
        "documents": len(documents),
        "windows": len(windows),
        "tokens": kept,
        "added_tokens": added,
        "rounds": times,
        "bare_tokens_per_second": round(kept / median(row["bare_seconds"] for row in times), 1),
        "add_tokens_per_second": round(added / median(row["add_seconds"] for row in times), 1),
        "ratio": ratio("seconds"),
        "cpu_ratio": ratio("cpu_seconds"),
    }


def _forward(host: Host, windows: Sequence[Window]) -> None:
    """Run the host over windows in the batches of a scan."""

    def run(batch: Sequence[Window]) -> Sequence[None]:
        host.forward(batch)
        return [None] * len(batch)

    with torch.inference_mode():
        for _ in run_batches(windows, run, host.batch_tokens):
            pass
    if host.device.type == "cuda":
        torch.cuda.synchronize(host.device)  # It runs asynchronously.


def _add(
    host: Host, codebook: Codebook, documents: Sequence[Document]
) -> tuple[dict[str, float], int]:
    """Seconds of adding documents to a new index on disk, and the tokens it then has."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        with S3Index.create(path, host, codebook=codebook) as index:
            seconds = _timed("add", lambda: index.add(documents, progress=False))
            return seconds, int(index.stats()["tokens"])


def _timed(name: str, run: Callable[[], object]) -> dict[str, float]:
    """Seconds by the clock, and of all processors."""
    started, busy = time.perf_counter(), time.process_time()
    run()
    seconds, cpu = time.perf_counter() - started, time.process_time() - busy
    return {f"{name}_seconds": round(seconds, 4), f"{name}_cpu_seconds": round(cpu, 4)}


class TimedEncoder(CachingEncoder):
    """An encoder that scans each text once and counts the time in which it reads questions.

    Attributes:
        milliseconds: Time of all questions so far.
    """

    def __init__(self, host: Host, codebook: Codebook) -> None:
        super().__init__(host, codebook, _CACHE_TOKENS, cache_questions=0)
        self.milliseconds = 0.0

    def question(self, text: str, recipe: Recipe) -> EncodedQuestion:
        """As `Encoder.question`; questions are not remembered."""
        started = now()
        question = super().question(text, recipe)
        self.milliseconds += now() - started
        return question


class Growing:
    """An index and its peers, of the same documents, that grow by a commit at a time.

    Args:
        path: Folder of the index, which is created there.
        encoder: Scans documents and reads questions.
        files: Texts, as `corpus.documents` reads them, repeated with new ids as needed.
        slow_peers: See `Peers`.

    Attributes:
        tokens: Tokens of the index.
        repeated: Those in documents whose text it had already.
    """

    def __init__(
        self, path: Path, encoder: TimedEncoder, files: Sequence[Path], *, slow_peers: bool
    ) -> None:
        self._path = path
        self._encoder = encoder
        self._stream = endless(files)
        self._peers = Peers(encoder.host, encoder.codebook, slow=slow_peers)
        self._chunks: dict[str, tuple[int, list[str]]] = {}
        self.tokens = 0
        self.repeated = 0
        S3Index.create(path, encoder.host, codebook=encoder.codebook).close()

    def open(self) -> S3Index:
        """Open the index; the caller closes it."""
        recipe = self._encoder.codebook.named_recipe("default")
        return S3Index(IndexStore.open(self._path), self._encoder, recipe)

    def grow(self, tokens: int) -> list[Document]:
        """Add documents in one commit until there are at least `tokens` tokens, and return them."""
        added: list[Document] = []
        while self.tokens < tokens:
            document = next(self._stream)
            known = document.text in self._chunks
            if not known:
                chunks = chunks_of(document.text, self._encoder.host.tokenizer)
                self._chunks[document.text] = chunks
            size, _ = self._chunks[document.text]
            self.tokens += size
            self.repeated += size * known
            added.append(document)
        with self.open() as index:
            index.add(added)
        self._peers.grow([chunk for doc in added for chunk in self._chunks[doc.text][1]])
        return added

    def measure(self, questions: Questions) -> dict[str, Any]:
        """Open the index, then ask it and its peers all questions.

        Returns:
            JSON values. Of the index: `tokens`, `documents`, `sentences`, `segments`,
            `repeated_share` (of its tokens, in documents whose text it had already), `bytes`,
            `bytes_per_token` and the values of `time_opening`. `chunks`: number of chunks of the
            peers. `searches`: by name the values of `describe`, or why it was `skipped`.
            `hybrid_over_dense`: whole search over that of FAISS, median over the questions.
        """
        # First, while no other process has it open.
        opening = time_opening(self._path)
        with self.open() as index:
            stats = index.stats()
            asks, skipped = self._peers.asks(self.tokens)
            searches = ask_in_turn(
                {**modes(index, self._encoder), **asks}, questions, f"Searching {self.tokens:,}"
            )
        return {
            **{name: stats[name] for name in ("tokens", "documents", "sentences", "segments")},
            "repeated_share": round(self.repeated / self.tokens, 4),
            "bytes": stats["bytes"],
            "bytes_per_token": round(stats["bytes"] / self.tokens, 2),
            **opening,
            "chunks": len(self._peers),
            "hybrid_over_dense": median_ratio(searches["mode hybrid"], searches["faiss-flat"]),
            "searches": searches | {name: {"skipped": why} for name, why in skipped.items()},
        }


def time_opening(path: Path) -> dict[str, Any]:
    """Open an index in fresh processes that load no model.

    No other process may have it open: a page mapped by two is private to neither.

    Args:
        path: Folder of the index.

    Returns:
        JSON values, medians of three: `open_seconds`, and `open_private_bytes`, the private
        memory that opening took.

    Raises:
        IndexStoreError: It cannot be opened.
    """
    try:
        openings = [run_script(_OPEN, str(path)) for _ in range(_OPENINGS)]
    except RuntimeError as error:
        raise IndexStoreError(
            f"A fresh process could not open the index at {path} ({error}); check that the "
            "package is installed for this Python."
        ) from error
    return {
        "open_seconds": round(median(opening["seconds"] for opening in openings), 4),
        "open_private_bytes": int(median(opening["private"] for opening in openings)),
    }


def modes(index: S3Index, encoder: TimedEncoder) -> dict[str, Ask]:
    """The package's own searches: one for each mode."""

    def ask(mode: Mode, question: str) -> Timing:
        before, started = encoder.milliseconds, now()
        index.search(question, RESULTS, mode=mode)
        return Timing(now() - started, encoder.milliseconds - before)

    return {f"mode {mode}": partial(ask, mode) for mode in get_args(Mode)}


def ask_in_turn(
    asks: Mapping[str, Ask], questions: Questions, label: str
) -> dict[str, dict[str, Any]]:
    """Ask each question of all searches, in turn.

    Args:
        asks: Searches by name.
        questions: The questions; those that warm up are not counted.
        label: Label of the progress bar.

    Returns:
        By name, the values of `describe`.
    """
    in_turn(asks, questions.warm_up)
    measured = tqdm(questions.measured, desc=label, unit="question", disable=None)
    return {name: describe(searches) for name, searches in in_turn(asks, measured).items()}


def describe(timings: Sequence[Timing]) -> dict[str, Any]:
    """Medians, 95th percentiles and all values in milliseconds, as JSON values.

    `whole_ms` is a whole search, `host_ms` the model's part and `rest_ms` the rest.
    """
    columns = {
        "whole_ms": [timing.whole for timing in timings],
        "host_ms": [timing.host for timing in timings],
        "rest_ms": [timing.whole - timing.host for timing in timings],
    }
    return {
        name: {
            "median": round(float(np.median(values)), 3),
            "p95": round(float(np.percentile(values, 95)), 3),
            "values": [round(value, 3) for value in values],
        }
        for name, values in columns.items()
    }


def median_ratio(search: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Median over the questions of the whole time of a search over that of another."""
    ratios = np.array(search["whole_ms"]["values"]) / np.array(other["whole_ms"]["values"])
    return round(float(np.median(ratios)), 3)
