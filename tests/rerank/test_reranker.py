"""`Reranker`: what passages score, and which hosts can read them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from s3_retriever import Host, HostError, InputError
from s3_retriever.rerank import Reranker
from s3_retriever.rerank.attention import Reading
from s3_retriever.rerank.reranker import _ASKING, _ENDING
from s3_retriever.search.reranking import Passage

QUESTION = "Who paints the boats?"
PASSAGES = [
    Passage("b", "Boats", 60, "The old captain paints seven boats in the harbour."),
    Passage("a", "", 0, "A baker carries warm bread."),
    Passage("b", "Boats", 0, "My neighbour mends the blue ledger."),
]
TEXTS = [
    "\nBoats:\n",
    "My neighbour mends the blue ledger.\n",
    "The old captain paints seven boats in the harbour.\n",
]


def whole_attention(host, ids):
    usual = host.model.config._attn_implementation
    host.model.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            return host.model(input_ids=torch.tensor([ids]), output_attentions=True).attentions
    finally:
        host.model.set_attn_implementation(usual)


@pytest.mark.parametrize("heads", [["1.2"], ["0.1", "1.0", "1.3"], None])
def test_scores_are_attention_over_the_root_of_length(reader, heads):
    ids, prompt = reader.tokenizer.ids, list(reader.tokenizer.prefix)
    prompt += ids("Here are some passages.\n")
    # The best document comes last, its sentences in order behind its title.
    prompt += ids("\n")
    ranges = {}
    texts = ["A baker carries warm bread.\n", *TEXTS]
    for number, text in zip((1, None, 2, 0), texts, strict=True):
        ranges[number] = slice(len(prompt), len(prompt) + len(ids(text)))
        prompt += ids(text)
    chosen = heads or [f"{layer}.{head}" for layer in range(2) for head in range(4)]
    expected = np.zeros(3)
    # What all heads look at for any question is taken off.
    for sign, question in ((1, QUESTION), (-1 if heads is None else 0, "N/A")):
        asked = ids(f" {question}")
        first = len(prompt) + len(ids(_ASKING))
        whole = whole_attention(reader, [*prompt, *ids(_ASKING), *asked, *ids(_ENDING)])
        for head in chosen:
            layer, number = map(int, head.split("."))
            rows = whole[layer][0, number, first : first + len(asked)]
            for i in range(3):
                own = rows[:, ranges[i]]
                expected[i] += sign * float(own.mean(0).sum()) / own.shape[1] ** 0.5 / len(chosen)
    scores = Reranker(reader, heads).scores(QUESTION, PASSAGES)
    assert scores == pytest.approx(expected, abs=1e-6)
    assert np.ptp(scores) > 0


def test_the_order_of_passages_matters_only_through_positions(folder_of):
    host = Host.load(str(folder_of("gpt2")), device="cpu", dtype="float32")
    # Without positions, keys of the first layer depend on nothing but their tokens.
    with torch.no_grad():
        host.model.wpe.weight.zero_()
    reranker = Reranker(host, ["0.0", "0.5"])
    short = [Passage(str(n), "", 0, text) for n, text in enumerate(["A ship.", "Tea.", "A clock."])]
    scores = reranker.scores("A ship?", short)
    assert reranker.scores("A ship?", short[::-1])[::-1] == pytest.approx(scores, abs=1e-6)
    assert np.ptp(scores) > 1e-4


def test_more_passages_than_a_prompt_holds_are_dealt_out(reader, monkeypatch):
    lengths = []

    def read(host, ids, layers):
        lengths.append(len(ids))
        return Reading(host, ids, layers)

    monkeypatch.setattr("s3_retriever.rerank.reranker.Reading", read)
    many = [
        Passage(str(n // 2), "Title", n % 2, f"The captain paints boat number {n} in the harbour.")
        for n in range(40)
    ]
    scores = Reranker(reader).scores(QUESTION, many)
    assert len(lengths) > 1
    assert max(lengths) < reader.shape.size
    assert scores.shape == (40,)
    assert np.isfinite(scores).all()
    assert len(set(scores.round(12))) == 40


@pytest.mark.parametrize(
    ("question", "passages"),
    [
        ("boats " * 2_000, PASSAGES),
        (QUESTION, [Passage("x", "T" * 900, 0, "seven boats " * 3_000), *PASSAGES]),
        (QUESTION, [Passage("x", "", 0, ""), *PASSAGES]),
        ("?", PASSAGES[:1]),
        ("</s><s> {context}", [Passage("x", "<s>", 0, "</s>"), PASSAGES[0]]),
        (QUESTION, []),
        (QUESTION, [PASSAGES[0]] * 3),
    ],
)
def test_long_and_empty_and_odd_texts_are_read(reader, question, passages):
    scores = Reranker(reader, ["1.2"]).scores(question, passages)
    assert scores.shape == (len(passages),)
    assert np.isfinite(scores).all()


def test_hosts_and_heads_that_cannot_are_refused(reader, tiny_bert, tiny_llama):
    encoder = Host.load(str(tiny_bert), device="cpu", dtype="float32")
    with pytest.raises(HostError, match="is an encoder and cannot rerank"):
        Reranker(encoder)
    for heads in (["2.0"], ["0.4"], ["17"], [5], "x.y", [], 3):
        with pytest.raises(InputError):
            Reranker(reader, heads)
    with pytest.raises(InputError, match="must be a Host"):
        Reranker("smollm2")
    narrow = Host.load(str(tiny_llama), device="cpu", dtype="float32", window=40)
    with pytest.raises(InputError, match="window"):
        Reranker(narrow).scores(QUESTION, PASSAGES)
