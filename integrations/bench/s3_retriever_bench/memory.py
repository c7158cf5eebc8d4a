"""Peak memory of indexing, at several sizes of input."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from s3_retriever.document import Document
from s3_retriever_bench.corpus import endless, source_files
from s3_retriever_bench.peak import peak_bytes


def run_memory(
    sizes: Sequence[int], *, host: str, codebook: str | None, texts: Sequence[Path]
) -> dict[str, Any]:
    """Index each number of tokens in a process of its own and take its peak resident memory.

    Args:
        sizes: Numbers of tokens.
        host: Name of the host.
        codebook: Its codebook's folder; the shipped one where None.
        texts: Files as `corpus.documents` reads them, repeated with fresh ids where they run
            out; the source of the standard library where there are none.

    Returns:
        JSON values: for each size the tokens, the peak in bytes, and the seconds.
    """
    files = source_files(texts)
    context = multiprocessing.get_context("spawn")
    rows = []
    for tokens in sizes:
        # A fresh process for each: the peak of a process never falls.
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            rows.append(pool.submit(_index, tokens, host, codebook, files).result())
    return {
        "host": host,
        "rows": rows,
        "ratio": rows[-1]["peak_bytes"] / rows[0]["peak_bytes"],
    }


def _index(tokens: int, host: str, codebook: str | None, files: list[Path]) -> dict[str, Any]:
    from s3_retriever.engine import S3Index

    with tempfile.TemporaryDirectory() as folder:
        index = S3Index.create(Path(folder) / "index", host, codebook=codebook)
        tokenizer = index.encoder.host.tokenizer
        started = time.perf_counter()
        index.add(_documents(files, tokens, tokenizer.count), progress=False)
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


def _documents(files: list[Path], tokens: int, size_of: Any) -> Iterator[Document]:
    """Documents of the files, over and over, until there are enough tokens."""
    done = 0
    for document in endless(files):
        done += size_of(document.text)
        yield document
        if done >= tokens:
            return
