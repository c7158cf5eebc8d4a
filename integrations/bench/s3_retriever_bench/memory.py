"""Peak memory of indexing, at several sizes of input."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from s3_retriever import S3Error, S3Index
from s3_retriever_bench.corpus import enough, source_files
from s3_retriever_bench.processes import peak_bytes, run_alone


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
        index.add(enough(files, tokens, index.encoder.host.tokenizer), progress=False)
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
