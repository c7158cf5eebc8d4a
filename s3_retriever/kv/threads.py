"""Threads that share the loops over codes; they run without Python's lock."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

from s3_retriever.kv.atoms import Codes

# Handing work to another thread takes as long as this many vectors.
_FEW = 1_024


def share(work: Callable[[int, slice], None], codes: Codes) -> None:
    """Do work for all sequences and heads of a layer, in as many threads as torch uses.

    Args:
        work: Takes a sequence and some heads.
        codes: What is worked on; little of it stays in the calling thread.
    """
    batch, heads, tokens = codes.scales.shape
    threads = torch.get_num_threads()
    if threads == 1 or batch * heads == 1 or batch * heads * tokens < _FEW:
        for row in range(batch):
            work(row, slice(None))
        return
    # The calling thread waits. A child process after a fork has none of its parent's threads.
    pool = _pool(threads, os.getpid())
    parts = [pool.submit(work, row, slice(h, h + 1)) for row in range(batch) for h in range(heads)]
    for part in parts:
        part.result()


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, f"s3-atoms-{process}")
