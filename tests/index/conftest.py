"""Fixtures of the index."""

import pytest

from s3_retriever.index import lexical, postings


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(postings, "BLOCK_TOKENS", 64)
    monkeypatch.setattr(lexical, "BLOCK_ENTRIES", 40)
