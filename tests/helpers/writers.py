"""Documents made up from a name and a version, so that any state of an index can be checked."""

from __future__ import annotations

import random
from functools import cache

import numpy as np

from helpers.segments import chunks, document_tokens
from s3_retriever.document import Document
from s3_retriever.features import EncodedChunk, Layout
from s3_retriever.index import Store

TAPS = {"hidden.5": 100, "key.3": 200}
LAYOUT = Layout(TAPS)
IDS = [f"d{i}" for i in range(40)]


@cache
def made_up(name: str, version: int) -> tuple[Document, EncodedChunk]:
    """A version of a document: from one sentence to some hundred, with features at two taps."""
    rng = random.Random(f"{name}/{version}")
    numbers = np.random.default_rng(rng.getrandbits(32))
    words = [
        f"{rng.choice('abcdefgh')}{rng.randrange(50)}" for _ in range(rng.choice([3, 30, 400]))
    ]
    text = f"{name} version {version}. " + " ".join(
        word + "." * (rng.random() < 0.2) for word in words
    )
    starts = np.flatnonzero([i == 0 or text[i - 1] == " " for i in range(len(text))])
    features = {tap: numbers.integers(-1, n, (len(starts), 4), np.int32) for tap, n in TAPS.items()}
    document = Document(text, id=name, metadata={"version": version})
    (chunk,) = chunks(document, starts.astype(np.uint32), features, size=len(starts))
    return document, chunk


def read_documents(store: Store):
    """Every live document, after a look at all of it."""
    for segment in store.snapshot().segments:
        features = {tap: segment.block_features(tap, 0) for tap in TAPS}
        for ordinal in segment.live_documents().tolist():
            row = segment.document(ordinal)
            document, chunk = made_up(row.id, row.metadata["version"])
            record = segment.documents[ordinal]
            tokens = slice(record["first_token"], record["first_token"] + record["n_tokens"])
            assert segment.document_text(ordinal) == document.text
            assert document_tokens(segment, ordinal).tolist() == chunk.starts.tolist()
            for tap, rows in features.items():
                written = [set(row) - {-1} for row in chunk.features[tap].tolist()]
                assert [set(row) - {-1} for row in rows[tokens].tolist()] == written
            yield row.id, row.metadata["version"]
