"""Key heads of every layout of transformer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.codebooks import random_codebook
from helpers.families import folder_of, host_of  # noqa: F401

from s3_retriever import Document
from s3_retriever.encoder import Encoder
from s3_retriever.host.taps import ALL_HEADS, Head, Tap, read
from s3_retriever.recipe import FeatureAttention

# One head for each query, shared, a single one; fused, normed; rotary, absolute, ALiBi; windows.
CASES = ["bert", "modernbert", "gpt2", "gpt_neox", "falcon, one key head", "falcon, alibi", "phi3"]
CASES += ["gemma3_text", "smollm3", "stablelm, normed"]


@pytest.mark.parametrize("case", CASES)
def test_what_is_kept_of_keys_gives_the_logits_of_a_question(case, host_of, sentences):  # noqa: F811
    host = host_of(case)
    shape = host.family.heads(host.model.config)
    head = Head(1, shape.queries - 1)
    book = random_codebook(host, "hidden.1")
    book = book.with_heads(host, sentences[:60], [str(head)], progress=False)
    encoder, text, question = Encoder(host, book), " ".join(sentences[:4]), sentences[2]
    (chunk,) = encoder.documents([Document(text)], book.recipe)
    (asked,) = encoder.question(question, book.recipe).queries.values()
    (keys,) = chunk.keys.values()
    found = np.stack([keys & 15, keys >> 4], 2).reshape(len(keys), -1) @ asked.factors.T

    taps = [Tap("key", 1), Tap("query", 1)]
    key = read(host, taps, list(host.windows([Document(text)])))[taps[0]]
    query = read(host, taps, list(host.windows([Document(question)])))[taps[1]]
    exact = head.key_head(shape.queries_per_key).of(key, shape.size).detach().numpy()
    queries = head.of(query, shape.size).detach().numpy()[asked.tokens]
    exact = exact @ queries.T / shape.size**0.5
    kept = keys.any(axis=1)
    assert kept.sum() > len(keys) / 2
    found, exact = (part[kept] - part[kept].mean(0) for part in (found, exact))
    assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > 0.97
    assert np.std(found) == pytest.approx(np.std(exact), rel=0.15)


@pytest.mark.parametrize("tap", ["key.1", "key.1.0"])
@pytest.mark.parametrize("case", ["bert", "falcon, one key head", "gemma3_text", "smollm3"])
def test_a_question_looks_at_features_through_heads(case, tap, host_of, sentences):  # noqa: F811
    host = host_of(case)
    shape, site = host.family.heads(host.model.config), Tap.parse(tap)
    book = random_codebook(host, tap)
    sae = book.sae(tap)
    sae.mean_activations = torch.linspace(0.5, 2.0, sae.features)
    recipe = book.named_recipe("paper")
    assert recipe.scoring == FeatureAttention()
    asked = Encoder(host, book).question(sentences[2], recipe).tap_queries[tap]

    nothing = Encoder(host, book).question(" ", recipe).tap_queries[tap]
    assert nothing.factors.shape == (0, sae.features)

    side = Tap("query", 1, site.head)
    queries = read(host, [side], list(host.windows([Document(sentences[2])])))[side]
    heads = queries.shape[1] // shape.size
    assert asked.factors.shape == (len(set(asked.tokens)) * heads, sae.features)
    for row in range(0, len(asked.factors), 3):
        head = row % heads
        # Query heads that share a key head look at the same part of a feature's direction.
        part = head // shape.queries_per_key if site.head == ALL_HEADS else 0
        own = Head(1, part).of(sae.W_dec.detach(), shape.size) * sae.mean_activations[:, None]
        query = Head(1, head).of(queries, shape.size)[asked.tokens[row]]
        expected = (own @ query.float() / shape.size**0.5).numpy()
        np.testing.assert_allclose(asked.factors[row], expected, rtol=1e-3, atol=1e-4)
