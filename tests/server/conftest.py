"""An index of a few documents, and a server of it that asks for a token."""

from __future__ import annotations

import httpx
import pytest
from helpers.serving import running

from s3_retriever import Document, S3Index
from s3_retriever.server.app import create_app
from s3_retriever.server.guard import Limits

TOKEN = "a-token-of-the-tests"
DOCUMENTS = [
    Document(
        "The captain sails on Friday. The ledger is blue.", "boats/a", {"title": "Boats", "year": 1}
    ),
    Document("Bakers bake bread before dawn. The ovens are old.", "bread/b", {"year": 2}),
]


@pytest.fixture(scope="session")
def minilm_index() -> S3Index:
    """An index in memory, which tests leave as it is."""
    index = S3Index.create(host="minilm", device="cpu", dtype="float32")
    index.add(DOCUMENTS)
    return index


@pytest.fixture(scope="session")
def served(minilm_index):
    """Address of a server with a token, whose index tests leave as it is."""
    limits = Limits(body_bytes=20_000, body_seconds=1)
    with running(create_app({"docs": minilm_index}, token=TOKEN, limits=limits)) as url:
        yield url


@pytest.fixture(scope="session")
def http():
    """A client that waits for a busy machine."""
    with httpx.Client(timeout=60) as client:
        yield client
