"""A small handbook; the shipped host is loaded once per process by the package itself."""

from __future__ import annotations

import os

import pytest
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

from llama_index.retrievers.s3_attention import S3Retriever

# Nothing in the tests may ask the network.
os.environ["HF_HUB_OFFLINE"] = "1"
# On so short texts threads only wait for each other, most of all on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

TEXTS = {
    "leave": "Staff have 28 days of paid leave a year. Ask your manager two weeks ahead.",
    "releases": "Every release is tested for two days. The head of quality signs it off. "
    "Nothing is shipped on a Friday.",
    "laptops": "Laptops are replaced every three years. Report a stolen one to the help desk.",
    "canteen": "The canteen serves lunch from noon to two. On Fridays there is soup only.",
}


@pytest.fixture
def nodes() -> list[TextNode]:
    """Four chunks of two documents, with a number, a text and a list as metadata."""
    return [
        TextNode(
            id_=name,
            text=text,
            metadata={"year": 2021 + place, "topic": name, "tags": ["all", name]},
            excluded_llm_metadata_keys=["tags"],
            excluded_embed_metadata_keys=["year"],
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"book-{place // 2}")},
        )
        for place, (name, text) in enumerate(TEXTS.items())
    ]


@pytest.fixture(scope="session")
def shared() -> S3Retriever:
    """A retriever that tests only read from."""
    return S3Retriever.from_defaults(
        nodes=[
            TextNode(id_=name, text=text, metadata={"topic": name, "year": 2021 + place})
            for place, (name, text) in enumerate(TEXTS.items())
        ]
    )
