"""A sharded index beside the same documents in one: searches, many at once, and killed workers."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from threading import Event, Semaphore
from typing import TYPE_CHECKING, Any, get_args

import psutil
from tqdm.auto import tqdm

from s3_retriever import S3Error, S3Index, Span, split_index
from s3_retriever.types import Mode
from s3_retriever_bench.shared.corpus import choose_questions, enough, source_files
from s3_retriever_bench.shared.costs import in_turn, seconds_of
from s3_retriever_bench.shared.processes import run_alone

if TYPE_CHECKING:
    from s3_retriever.cluster import ShardedIndex

# How far scores may be apart.
_EQUAL = 1.5e-9
# Seconds that a search may take; on a busy machine a worker takes some to start again.
_TIMEOUT = 120.0
# Searches that both answer before anything is measured.
_WARM_UP = 10


def run_cluster(
    *,
    index: Path | None,
    tokens: int,
    shards: int,
    clients: int,
    seconds: float,
    kills: int,
    host: str,
    codebook: str | None,
    texts: Sequence[Path],
    ask: Path | None,
    questions: int,
) -> dict[str, Any]:
    """Search an index in this process and the same index on workers of Ray.

    Takes the options of `s3r bench cluster`. Every result is compared: ids, their order and scores
    have to be those of the index in this process.

    Returns:
        JSON values: `memory`, that of this process and of the workers without the index's files,
        once workers have answered every question; `search`, by mode, medians of one search at a
        time, by turns; `load`, searches a second of several clients on either; and `kills`, what
        searches saw while workers were killed.

    Raises:
        S3Error: The index, the host, the codebook or Ray is not usable.
    """
    from s3_retriever.cluster import ShardedIndex

    files = source_files(texts)
    asked = choose_questions(ask, files, questions).measured
    with tempfile.TemporaryDirectory() as folder:
        if index is None:
            index = Path(folder) / "whole.s3r"
            built = run_alone(_build, index, tokens, host, codebook, files)
            if "failed" in built:
                raise S3Error(f"Building failed: {built['failed']}; pass fewer --tokens.")
        places = [Path(folder) / f"{place}.s3r" for place in range(shards)]
        parts = split_index(index, places, progress=False) if shards > 1 else [index]
        with ShardedIndex.open(parts, timeout=_TIMEOUT) as sharded:
            for question in tqdm(asked, desc="Warming up", disable=None):
                sharded.search(question)
            memory = {
                "process_bytes": _own_bytes(os.getpid()),
                "worker_bytes": [_own_bytes(pid) for pid in sharded.pids()],
            }
            whole = S3Index.open(index)
            return {
                "host": whole.stats()["host"],
                "tokens": whole.stats()["tokens"],
                "shards": shards,
                "cores": os.cpu_count(),
                "questions": len(asked),
                "memory": memory,
                "search": {mode: _search(whole, sharded, asked, mode) for mode in get_args(Mode)},
                "load": {
                    "clients": clients,
                    "seconds": seconds,
                    "one_process": _rate(whole, asked, clients, seconds),
                    "sharded": _rate(sharded, asked, clients, seconds),
                },
                "kills": _kills(whole, sharded, asked, clients, kills),
            }


def _build(
    path: Path, tokens: int, host: str, codebook: str | None, files: Sequence[Path]
) -> dict[str, Any]:
    with S3Index.create(path, host, codebook=codebook) as index:
        index.add(enough(files, tokens, index.encoder.host.tokenizer.count))
    return {}


def _search(
    whole: S3Index, sharded: ShardedIndex, asked: Sequence[str], mode: Mode
) -> dict[str, Any]:
    """Milliseconds of a search in either index, by turns, and how many results differ."""
    for question in islice(asked, _WARM_UP):
        whole.search(question, mode=mode)
        sharded.search(question, mode=mode)
    # Never the same question twice: what the host reads may be cached.
    ways: dict[str, Callable[[str], object]] = {
        "one": lambda text: whole.search(f"{text} one", mode=mode),
        "sharded": lambda text: sharded.search(f"{text} sharded", mode=mode),
    }
    if mode != "bm25":
        ways["reading"] = lambda text: whole.encoder.question(f"{text} alone", whole.recipe)
    numbered = [f"{question} {turn}" for turn, question in enumerate(asked)]
    bar = tqdm(numbered, desc=f"Searching, {mode}", disable=None)
    times = in_turn({name: partial(seconds_of, way) for name, way in ways.items()}, bar)
    pairs = zip(times["sharded"], times["one"], strict=True)
    return {
        "one_ms": median(times["one"]) * 1e3,
        "sharded_ms": median(times["sharded"]) * 1e3,
        "overhead_ms": median(a - b for a, b in pairs) * 1e3,
        "reading_ms": median(times.get("reading", [0.0])) * 1e3,
        "different": sum(
            not _same(sharded.search(question, mode=mode), whole.search(question, mode=mode))
            for question in asked
        ),
    }


def _same(found: Sequence[Span], wanted: Sequence[Span]) -> bool:
    return [span.id for span in found] == [span.id for span in wanted] and all(
        abs(a.score - b.score) <= _EQUAL for a, b in zip(found, wanted, strict=True)
    )


def _rate(index: S3Index, asked: Sequence[str], clients: int, seconds: float) -> float:
    """Searches a second of several threads."""
    end = time.monotonic() + seconds

    def client(number: int) -> int:
        done = 0
        while time.monotonic() < end:
            index.search(f"{asked[(number + done) % len(asked)]} {number} {done}")
            done += 1
        return done

    with ThreadPoolExecutor(clients) as pool:
        return sum(pool.map(client, range(clients))) / seconds


def _kills(
    whole: S3Index, sharded: ShardedIndex, asked: Sequence[str], clients: int, kills: int
) -> dict[str, Any]:
    """Kill workers, one after another, while clients search."""
    wanted = {question: whole.search(question) for question in asked}
    stop, ended = Event(), Semaphore(0)

    def client(number: int) -> tuple[list[float], list[str], list[str]]:
        times: list[float] = []
        wrong: list[str] = []
        errors: list[str] = []
        while not stop.is_set():
            question = asked[(number + len(times)) % len(asked)]
            began = time.monotonic()
            try:
                if not _same(sharded.search(question), wanted[question]):
                    wrong.append(question)
            except S3Error as error:
                errors.append(str(error))
            times.append(time.monotonic() - began)
            ended.release()
        return times, wrong, errors

    draw = random.Random(0)  # noqa: S311
    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(client, number) for number in range(clients)]
        try:
            for _ in tqdm(range(kills), desc="Killing workers", disable=None):
                os.kill(draw.choice(sharded.pids()), signal.SIGKILL)
                # Each search that was under way, and one more, ends before the next kill.
                for _ in range(clients + 1):
                    ended.acquire()
        finally:
            stop.set()
        done = [each.result() for each in running]
    times, wrong, errors = (
        [item for each in column for item in each] for column in zip(*done, strict=True)
    )
    return {
        "kills": kills,
        "searches": len(times),
        "wrong": len(wrong),
        "first_wrong": wrong[:3],
        "errors": len(errors),
        "first_errors": errors[:3],
        "slowest_seconds": max(times, default=0.0),
    }


def _own_bytes(pid: int) -> int:
    """Memory of a process without the files that it has mapped (Linux)."""
    memory = psutil.Process(pid).memory_info()
    return int(memory.rss - memory.shared)
