"""The shipped host, offline, loaded once."""

from __future__ import annotations

import os

import pytest
from langchain_core.documents import Document

# Nothing in the tests may ask the network or send traces.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["LANGSMITH_TRACING"] = "false"
# On such a small model threads only wait for each other, most of all on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

TEXTS = {
    "leave": "Staff have 28 days of paid leave a year. Ask your manager two weeks ahead.",
    "releases": "Every release is tested for two days. The head of quality signs it off.",
    "laptops": "Laptops are replaced every three years. Report a stolen one at once.",
    "canteen": "Lunch is served from noon to two. On Fridays there is soup only.",
}


def make_handbook() -> list[Document]:
    return [
        Document(text, id=name, metadata={"page": page, "tags": ["staff"]})
        for page, (name, text) in enumerate(TEXTS.items(), 1)
    ]


@pytest.fixture
def handbook() -> list[Document]:
    return make_handbook()


@pytest.fixture(scope="session")
def index():
    """Of the handbook, in memory; no test changes it."""
    from langchain_s3_retriever import S3Retriever

    return S3Retriever.from_documents(make_handbook(), progress=False).index


@pytest.fixture
def retriever(index):
    from langchain_s3_retriever import S3Retriever

    return S3Retriever.from_index(index)


@pytest.fixture(scope="session")
def index_path(tmp_path_factory):
    """Folder of an index of the handbook."""
    from langchain_s3_retriever import S3Retriever

    path = tmp_path_factory.mktemp("langchain") / "handbook.s3r"
    S3Retriever.from_documents(make_handbook(), path=path, progress=False).index.close()
    return path
