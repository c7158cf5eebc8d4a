"""Answers from what the host cached of the evidence when it scanned the context."""

from __future__ import annotations

import pytest
import torch
from helpers.caches import random_codebook
from torch import Tensor
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from s3_retriever import (
    CodebookError,
    Document,
    Host,
    HostError,
    InputError,
    LongContext,
    Span,
)
from s3_retriever.answer.context import pieces
from s3_retriever.answer.evidence_cache import EvidenceCache
from s3_retriever.kv import KVCodebook
from s3_retriever.kv.hosts import read_cache

SIZES = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def make_host(folder, layers=1, model=LlamaForCausalLM, config=LlamaConfig, **options) -> Host:
    """Without a second layer, keys and values of a token do not depend on the others."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    sizes = SIZES | {"vocab_size": len(tokenizer), "num_hidden_layers": layers} | options
    sizes |= {"pad_token_id": tokenizer.pad_token_id}
    return Host.of(model(config(**sizes)), tokenizer, name="tiny", window=48)


def complete_codebook(host: Host) -> KVCodebook:
    """Its codes are exact but for their rounding."""
    book = random_codebook(host.causal, features=16)
    return KVCodebook(host.name, host.fingerprint(len(book.layers)), book.layers, None, {})


@pytest.fixture(scope="module")
def host(tiny_llama) -> Host:
    return make_host(tiny_llama)


@pytest.fixture(scope="module")
def book(host) -> KVCodebook:
    return complete_codebook(host)


@pytest.fixture(scope="module")
def context(sentences) -> list[Document]:
    """Two documents with titles and one without, of several pieces and windows each."""
    texts = [" ".join(sentences[i : i + 60]) for i in (0, 200, 400)]
    metadata = [{"title": "Harbour news"}, {}, {"title": "Bakery"}]
    return [
        Document(text, f"d{i}", data)
        for i, (text, data) in enumerate(zip(texts, metadata, strict=True))
    ]


def close(given: Tensor, expected: Tensor) -> bool:
    return bool((given - expected).square().sum() < 2e-3 * expected.square().sum())


def test_recalled_evidence_is_what_the_host_would_have_cached(host, book, context):
    memory = EvidenceCache(host, book)
    assert list(memory.reading(pieces(context))) == list(pieces(context))
    # One across two pieces, and two of a document with a title.
    spans = [
        Span(context[number].text[start:stop], 0.0, 0.0, f"d{number}", start, stop, (), {}, 0)
        for number, start, stop in ((1, 900, 1_130), (2, 40, 120), (2, 1_500, 1_600))
    ]
    before, after = host.tokenizer.ids("Context:\n"), host.tokenizer.ids("\nQuestion?")
    ids, cache = memory.recall(before, spans, after)
    assert ids[: len(before)] == before
    assert ids[-len(after) :] == after
    text = host.tokenizer.source.decode(ids).translate(str.maketrans("", "", " Ġ"))
    for span in spans:
        assert span.text.replace(" ", "") in text
    assert text.count("Bakery") == 1
    assert "Harbour" not in text
    known = ids[: -len(after)]
    expected = read_cache(host, known)
    assert cache.get_seq_length() == len(known)
    for layer, keys, values in zip(cache.layers, expected.keys, expected.values, strict=True):
        assert close(layer.keys, keys)
        assert close(layer.values, values)
        assert torch.equal(layer.keys[:, :, : len(before)], keys[:, :, : len(before)])


def test_answers_come_from_the_cache(tiny_llama, context):
    host = make_host(tiny_llama, layers=2)
    model = LongContext(
        host, fallback="bm25", evidence="cache", kv_codebook=complete_codebook(host)
    )
    question = "Who mends the blue ledger?"
    with model.scan(context, progress=False) as scanned:
        answer = scanned.answer(question, token_budget=60, max_new_tokens=6, min_new_tokens=6)
        assert answer.new_tokens == 6
        assert answer.evidence
        again = scanned.stream(question, token_budget=60, max_new_tokens=6, min_new_tokens=6)
        assert "".join(again) == answer.text
        refreshed = scanned.answer(question, token_budget=60, max_new_tokens=6, refresh=2)
        assert refreshed.prompt_tokens
        assert scanned.memory.tokens > scanned.tokens
        # Eight and, of sixteen, all atoms.
        assert scanned.memory.nbytes == scanned.memory.tokens * 2 * 2 * (2 * (8 + 16) + 4)
    direct = model.answer(question, context, token_budget=60, max_new_tokens=6, progress=False)
    assert answer.text.startswith(direct.text)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"evidence": "both"}, InputError, "evidence"),
        ({"evidence": "cache"}, CodebookError, "has no dictionaries.*s3r fit tiny --kv"),
        ({"evidence": "cache", "kv_codebook": "smollm2"}, CodebookError, "fitted for host 'smol"),
        ({"evidence": "cache", "kv_codebook": "nowhere"}, CodebookError, "nowhere"),
        ({"kv_codebook": "smollm2"}, InputError, "pass both, or neither"),
    ],
)
def test_what_cannot_be_kept(host, options, error, message):
    with pytest.raises(error, match=message):
        LongContext(host, fallback="bm25", **options)


def test_hosts_with_sliding_windows_are_refused(tiny_llama):
    host = make_host(tiny_llama, model=MistralForCausalLM, config=MistralConfig, sliding_window=16)
    with pytest.raises(HostError, match="sliding_attention"):
        LongContext(host, fallback="bm25", evidence="cache")


def test_folders_keep_no_cache(host, book, tmp_path):
    model = LongContext(host, fallback="bm25", evidence="cache", kv_codebook=book)
    with pytest.raises(InputError, match="in memory only"):
        model.scan("A text.", path=tmp_path / "scan", progress=False)
    with pytest.raises(InputError, match="has no cache"):
        model.open(tmp_path)


def test_a_prompt_that_names_the_context_twice(host, book):
    model = LongContext(host, fallback="bm25", evidence="cache", kv_codebook=book)
    with pytest.raises(InputError, match="once"):
        model.answer(
            "Who sings?", "A baker sings.", prompt="{context} {context} {question}", progress=False
        )


def test_documents_with_the_same_id(host, book):
    memory = EvidenceCache(host, book)
    documents = [Document("A baker sings.", "a"), Document("A nurse sings.", "a")]
    with pytest.raises(InputError, match="Two documents of the context have the id 'a'"):
        list(memory.reading(documents))
