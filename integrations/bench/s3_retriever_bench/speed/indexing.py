"""Indexing beside the host alone."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tqdm.auto import tqdm

from s3_retriever.codebook import Codebook
from s3_retriever.document import Document
from s3_retriever.engine import S3Index
from s3_retriever.host import Host, Window
from s3_retriever.host.batches import run_batches
from s3_retriever_bench.corpus import endless

# Documents before the first round: first runs compile and allocate.
_WARM_UP = 8


def time_indexing(
    host: Host, codebook: Codebook, files: Sequence[Path], *, tokens: int, rounds: int
) -> dict[str, Any]:
    """Run the host alone and add the same documents to an index on disk, in turn.

    Args:
        host: The loaded host.
        codebook: Its codebook.
        files: Texts, as `corpus.documents` reads them.
        tokens: Tokens to index at least.
        rounds: How often each is done.

    Returns:
        JSON values. `documents`, `windows` and `tokens` of the text, and `added_tokens`, as the
        index counts them. `rounds`: seconds by the clock and of all processors, of either.
        `bare_tokens_per_second` and `add_tokens_per_second`: medians. `ratio`: the rate of
        adding over that of the bare host; `cpu_ratio`: the same by the processors' seconds,
        where other processes count less; medians of the rounds.
    """
    documents = list(_first(endless(files), tokens, host))
    windows = list(host.windows((one.title, one.text) for one in documents))
    kept = sum(len(window.starts) for window in windows)
    _forward(host, windows[:_WARM_UP])
    _add(host, codebook, documents[:_WARM_UP])
    made: list[dict[str, float]] = []
    added = 0
    with tqdm(total=2 * rounds, desc="Indexing", unit="run", disable=None) as bar:
        for _ in range(rounds):
            bare = _timed(lambda: _forward(host, windows))
            bar.update()
            whole, added = _add(host, codebook, documents)
            bar.update()
            made.append(
                {
                    "bare_seconds": round(bare[0], 4),
                    "bare_cpu_seconds": round(bare[1], 4),
                    "add_seconds": round(whole[0], 4),
                    "add_cpu_seconds": round(whole[1], 4),
                }
            )
    return {
        "documents": len(documents),
        "windows": len(windows),
        "tokens": kept,
        "added_tokens": added,
        "rounds": made,
        "bare_tokens_per_second": round(kept / median(one["bare_seconds"] for one in made), 1),
        "add_tokens_per_second": round(added / median(one["add_seconds"] for one in made), 1),
        "ratio": _ratio(made, "bare_seconds", "add_seconds"),
        "cpu_ratio": _ratio(made, "bare_cpu_seconds", "add_cpu_seconds"),
    }


def _ratio(rounds: Sequence[dict[str, float]], bare: str, added: str) -> float:
    return round(median(one[bare] / one[added] for one in rounds), 4)


def _first(documents: Iterator[Document], tokens: int, host: Host) -> Iterator[Document]:
    done = 0
    for document in documents:
        done += host.tokenizer.count(document.text)
        yield document
        if done >= tokens:
            return


def _forward(host: Host, windows: Sequence[Window]) -> None:
    """Run the host over windows in the batches of a scan."""

    def run(batch: Sequence[Window]) -> Sequence[None]:
        host.forward(batch)
        return [None] * len(batch)

    with torch.inference_mode():
        for _ in run_batches(windows, run, host.batch_tokens):
            pass
    if host.device.type == "cuda":
        torch.cuda.synchronize(host.device)  # It runs behind.


def _add(
    host: Host, codebook: Codebook, documents: Sequence[Document]
) -> tuple[tuple[float, float], int]:
    """Seconds of adding documents to an index that is new on disk, and the tokens it then has."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        with S3Index.create(path, host, codebook=codebook) as index:
            seconds = _timed(lambda: index.add(documents, progress=False))
            return seconds, int(index.stats()["tokens"])


def _timed(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of all processors, that something takes."""
    started, busy = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - started, time.process_time() - busy
