"""Costs of whole processes: peak memory of indexing, and a cold start."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tqdm.auto import tqdm

from s3_retriever import S3Error, S3Index
from s3_retriever.types import Mode
from s3_retriever_bench.shared.corpus import documents, enough, source_files
from s3_retriever_bench.shared.costs import peak_bytes
from s3_retriever_bench.shared.processes import run_alone, run_python


def run_memory(
    sizes: Sequence[int], *, host: str, codebook: str | None, texts: Sequence[Path]
) -> dict[str, Any]:
    """Index each number of tokens in its own process and take its peak resident memory.

    Takes the options of `s3r bench memory`: `sizes` are numbers of tokens, `texts` files as
    `corpus.documents` reads them.

    Returns:
        JSON values: for each size the tokens, the peak in bytes, and the seconds.

    Raises:
        S3Error: Indexing ran out of memory, or the host or the codebook is not usable.
    """
    files = source_files(texts)
    rows = [run_alone(_index, tokens, host, codebook, files) for tokens in sizes]
    for tokens, row in zip(sizes, rows, strict=True):
        if "failed" in row:
            reason = row["failed"]
            raise S3Error(f"Indexing {tokens:,} tokens failed: {reason}; pass fewer to --tokens.")
    return {
        "host": host,
        "rows": rows,
        "ratio": rows[-1]["peak_bytes"] / rows[0]["peak_bytes"],
    }


def _index(tokens: int, host: str, codebook: str | None, files: list[Path]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        index = S3Index.create(Path(folder) / "index", host, codebook=codebook)
        started = time.perf_counter()
        index.add(enough(files, tokens, index.encoder.host.tokenizer.count), progress=False)
        seconds = time.perf_counter() - started
        stats = index.stats()
    return {
        "tokens": stats["tokens"],
        "documents": stats["documents"],
        "index_bytes": stats["bytes"],
        "peak_bytes": peak_bytes(torch.device("cpu")),
        "seconds": seconds,
        "tokens_per_second": stats["tokens"] / seconds,
    }


_DOCUMENTS = 5
_QUESTION = "How are files opened and closed?"
_MODES: tuple[Mode, ...] = ("bm25", "hybrid")
# What the modes cannot do without. The class of the host's model takes longer to import than
# transformers itself.
_IMPORTS = {
    "import numpy, numba": "import numpy, numba",
    "import torch, transformers": "import torch, transformers",
    "import BertModel": "import torch\nfrom transformers import BertModel",
}
_RATIOS = (
    ("search --mode bm25", "import numpy, numba"),
    ("search --mode hybrid", "import torch, transformers"),
    ("search --mode hybrid", "import BertModel"),
)


def run_startup(rounds: int) -> dict[str, Any]:
    """Time fresh processes that import libraries, and others that search, in turn.

    The index has the standard library's source and the host `minilm`. Of each process everything
    counts, from its start to its end.

    Args:
        rounds: How often each runs; an uncounted round before them fills the system's cache.

    Returns:
        JSON values. `seconds`: medians by name. `ratios`: rows of a search, an import and the
        median over the rounds of the time of one over that of the other.

    Raises:
        S3Error: A process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "source.s3r"
        with S3Index.create(path) as index:
            index.add(islice(documents(source_files([])), _DOCUMENTS), progress=False)
        commands = {name: ["-c", script] for name, script in _IMPORTS.items()} | {
            f"search --mode {mode}": [
                *("-m", "s3_retriever.cli", "search", _QUESTION),
                *("--in", str(path), "--mode", mode),
            ]
            for mode in _MODES
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        with tqdm(total=(rounds + 1) * len(commands), desc="Starting", disable=None) as bar:
            for _ in range(rounds + 1):
                for name, arguments in commands.items():
                    times[name].append(_seconds(name, arguments))
                    bar.update()
    counted = {name: values[1:] for name, values in times.items()}
    return {
        "rounds": rounds,
        "seconds": {name: round(median(values), 3) for name, values in counted.items()},
        "ratios": [
            [search, other, round(_ratio(counted[search], counted[other]), 2)]
            for search, other in _RATIOS
        ],
    }


def _seconds(name: str, arguments: list[str]) -> float:
    started = time.perf_counter()
    try:
        run_python(*arguments)
    except RuntimeError as error:
        raise S3Error(f"A fresh process failed at `{name}`: {error}") from error
    return time.perf_counter() - started


def _ratio(times: list[float], others: list[float]) -> float:
    return median(one / other for one, other in zip(times, others, strict=True))
