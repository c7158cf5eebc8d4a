"""How fast `cluster.build` is, and how much memory its driver and its workers take."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from s3_retriever import Document, Recipe, S3Error
from s3_retriever_bench.shared.corpus import enough, source_files
from s3_retriever_bench.shared.costs import peak_bytes, peak_resident
from s3_retriever_bench.shared.processes import run_alone

_SAMPLE_SECONDS = 0.2
# The least number of blocks that a text is cut into.
_BLOCKS = 16


def run_building(
    sizes: Sequence[int],
    workers: Sequence[int],
    *,
    host: str,
    codebook: str | None,
    recipe: str | Recipe,
    texts: Sequence[Path],
) -> dict[str, Any]:
    """Build an index of each number of characters with each number of workers of one thread.

    Each build has a process and a cluster of its own. The seconds are those from the first
    document, when the first worker has its host, to the finished index.

    Takes the options of `s3r bench build`.

    Returns:
        JSON values, a row for each build.

    Raises:
        S3Error: A build failed.
    """
    files = source_files(texts)
    rows = []
    for characters in sizes:
        for number in workers:
            row = run_alone(_build, characters, number, host, codebook, recipe, files)
            if "failed" in row:
                raise S3Error(f"A build with {number} workers failed: {row['failed']}.")
            rows.append(row)
    return {"host": host, "rows": rows}


def _build(
    characters: int,
    workers: int,
    host: str,
    codebook: str | None,
    recipe: str | Recipe,
    files: list[Path],
) -> dict[str, Any]:
    import ray

    from s3_retriever.cluster import build
    from s3_retriever.cluster.building import BLOCK_CHARACTERS

    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    started: list[float] = []
    stop, peaks = threading.Event(), dict[int, int]()
    watch = threading.Thread(target=_watch, args=(stop, peaks))
    watch.start()
    with tempfile.TemporaryDirectory() as folder:
        index = build(
            _numbered(enough(files, characters, len), started),
            Path(folder) / "index.s3r",
            host,
            codebook=codebook,
            recipe=recipe,
            workers=workers,
            # Small texts too are shared out among all workers.
            block_characters=min(BLOCK_CHARACTERS, characters // _BLOCKS + 1),
            progress=False,
            device="cpu",
            dtype="float32",
        )
        seconds = time.perf_counter() - started[0]
        stats = index.stats()
    stop.set()
    watch.join()
    return {
        "workers": workers,
        "tokens": stats["tokens"],
        "documents": stats["documents"],
        "seconds": seconds,
        "tokens_per_second": stats["tokens"] / seconds,
        "driver_bytes": peak_bytes(torch.device("cpu")),
        "worker_bytes": max(peaks.values(), default=None),
    }


def _numbered(documents: Iterable[Document], started: list[float]) -> Iterator[Document]:
    """Documents with ids of their own, and when the first was asked for."""
    started.append(time.perf_counter())
    for number, document in enumerate(documents):
        yield Document(document.text, str(number), document.metadata)


def _watch(stop: threading.Event, peaks: dict[int, int]) -> None:
    """Keep the peak resident memory of every worker, by process (Linux)."""
    while not stop.wait(_SAMPLE_SECONDS):
        for process in psutil.Process().children(recursive=True):
            if _is_worker(process) and (peak := peak_resident(process.pid)):
                peaks[process.pid] = peak


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "Scanner" in " ".join(process.cmdline())
    except psutil.Error:
        return False
