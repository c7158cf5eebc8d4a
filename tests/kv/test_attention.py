"""Attention on codes gives what attention to the reconstructed keys and values gives."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.caches import MODELS, PROMPT, generate, logits, padded, random_codebook, tiny_model
from transformers import AttentionInterface

from s3_retriever.kv import AtomCache, threads
from s3_retriever.kv.layer import AtomLayer

SETTINGS = {"key_k": 3, "value_k": 5, "recent": 20, "sinks": 4}


def on_codes(model_type, **options):
    model = tiny_model(model_type, **options)
    model.set_attn_implementation("s3_atoms")
    return model


def steps(model, codebook, lengths, count=40):
    """Logits of single tokens after a prompt, long enough for some to leave the window."""
    cache = AtomCache(codebook, **SETTINGS)
    ids, mask = padded(*lengths)
    logits(model, ids, cache, mask)
    found = []
    for step in range(count):
        mask = torch.cat([mask, torch.ones(len(mask), 1, dtype=torch.long)], dim=1)
        found.append(logits(model, ids[:, step : step + 1], cache, mask))
    return torch.cat(found, dim=1)


@pytest.mark.parametrize("lengths", [(90,), (90, 40, 12)], ids=str)
@pytest.mark.parametrize("model_type", MODELS)
def test_the_numbers_are_those_of_reconstructing(model_type, lengths, monkeypatch):
    model = tiny_model(model_type)
    codebook = random_codebook(model)
    expected = steps(model, codebook, lengths)
    coded = on_codes(model_type)
    whole = AtomLayer.read

    def read(layer):
        assert layer.get_seq_length() <= 90, "only the prompt may be reconstructed"
        return whole(layer)

    monkeypatch.setattr(AtomLayer, "read", read)
    torch.testing.assert_close(steps(coded, codebook, lengths), expected, atol=1e-5, rtol=1e-5)


def test_partial_rotation_and_many_features():
    """Six of eight coordinates are rotated; 600 features need ten of a code's bits."""
    options = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    model = tiny_model("phi", **options | {"partial_rotary_factor": 0.75})
    codebook = random_codebook(model, features=600)
    expected = steps(model, codebook, (90, 50))
    model.set_attn_implementation("s3_atoms")
    torch.testing.assert_close(steps(model, codebook, (90, 50)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("first", [70, -70])
def test_positions_that_begin_elsewhere(first):
    model, found = tiny_model("llama"), []
    codebook = random_codebook(model)
    for attention in ("sdpa", "s3_atoms"):
        model.set_attn_implementation(attention)
        cache = AtomCache(codebook, **SETTINGS)
        with torch.no_grad():
            for start, stop in ((0, 90), (90, 91)):
                ids = torch.arange(start, stop)[None] % 97
                positions = torch.arange(start + first, stop + first)[None]
                output = model(ids, position_ids=positions, cache=cache)
        found.append(output.logits[:, -1])
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


def test_threads_change_nothing(monkeypatch):
    model = on_codes("llama")
    codebook = random_codebook(model)
    expected = steps(model, codebook, (90, 40))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(threads, "_FEW", 0)
    assert torch.equal(steps(model, codebook, (90, 40)), expected)


def test_a_wrapped_attention_hands_arguments_on_by_place():
    """As other packages that replace transformers' attention functions call it."""
    model = on_codes("llama")
    cache, ids = AtomCache(random_codebook(model), **SETTINGS), PROMPT
    attend = AttentionInterface._global_mapping["s3_atoms"]
    AttentionInterface.register("wrapped", lambda *a, dropout, **o: attend(*a, dropout, **o))
    logits(model, ids, cache)
    other = copy.deepcopy(cache)
    expected = logits(model, ids[:, :1], cache)
    model.set_attn_implementation("wrapped")
    assert torch.equal(logits(model, ids[:, :1], other), expected)


def test_bfloat16():
    model = tiny_model("llama").bfloat16()
    codebook = random_codebook(model)
    expected = steps(model, codebook, (90,))
    model.set_attn_implementation("s3_atoms")
    given = steps(model, codebook, (90,))
    assert given.dtype == torch.bfloat16
    torch.testing.assert_close(given, expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}])
def test_generation_on_codes(options):
    codebook = random_codebook(tiny_model("llama"))
    expected, given = (
        generate(model, PROMPT, AtomCache(codebook, **SETTINGS), max_new_tokens=40, **options)
        for model in (tiny_model("llama"), on_codes("llama"))
    )
    assert torch.equal(given, expected)


def test_caches_of_transformers_work_with_this_attention():
    assert torch.equal(generate(on_codes("llama"), PROMPT), generate(tiny_model("llama"), PROMPT))


def test_gradients_flow_through_reconstructed_keys():
    """Where attention needs gradients, the compiled loops cannot be used."""
    model = on_codes("llama")
    cache = AtomCache(random_codebook(model), **SETTINGS)
    with torch.no_grad():
        model(PROMPT, cache=cache)
    model(PROMPT[:, :1], cache=cache).logits.sum().backward()
    assert model.get_input_embeddings().weight.grad.abs().sum() > 0
