"""A tiny encoder with a map of sentences, and what its sentence vectors should be."""

from __future__ import annotations

import pytest
import torch

from s3_retriever.codebook import Codebook
from s3_retriever.document import Document
from s3_retriever.encoder import Encoder
from s3_retriever.host import Host
from s3_retriever.host.taps import Tap, read


@pytest.fixture(scope="module")
def host(tiny_bert):
    return Host.load(str(tiny_bert), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def book(host, sentences):
    return Codebook.fit(
        host,
        [" ".join(sentences)] * 4,
        taps=["hidden.1"],
        features=96,
        k=12,
        tokens=4_000,
        batch_size=256,
        progress=False,
    )


@pytest.fixture(scope="module")
def encoder(host, book):
    return Encoder(host, book)


def long_text(sentences, count=40):
    return " ".join(sentences[i % len(sentences)] for i in range(count))


def titled(text):
    return Document(text, metadata={"title": "A title"})


def exact_means(host, text):
    """Mean states of the sentences, from all tokens at once."""
    windows = list(host.windows([titled(text)]))
    tap = Tap("hidden", 1)
    states = torch.cat([read(host, [tap], [window])[tap] for window in windows])
    sizes = [sentence.n_tokens for window in windows for sentence in window.sentences]
    return torch.stack([part.mean(0) for part in torch.split(states, sizes)])


def mapped(book, means):
    """What the sentences with these mean states would be alone, as the codebook maps them."""
    (sentence_map,) = book.sentence_maps.values()
    return means @ sentence_map.weights + sentence_map.bias
