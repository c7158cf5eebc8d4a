"""Hosts of every family, and a tiny one that reranks."""

from __future__ import annotations

import pytest
from helpers.families import folder_of, host_of

from s3_retriever import Host

__all__ = ["folder_of", "host_of"]


@pytest.fixture(scope="module")
def reader(tiny_llama) -> Host:
    """A tiny language model that reads 250 tokens at once."""
    return Host.load(str(tiny_llama), device="cpu", dtype="float32", window=250)
