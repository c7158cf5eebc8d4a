"""What a continuation looks at is what the whole attention matrices say."""

from __future__ import annotations

import pytest
import torch
from helpers.families import LAYERS

from s3_retriever import HostError
from s3_retriever.rerank.attention import Reading

TEXT = torch.randint(5, 400, (40,), generator=torch.Generator().manual_seed(0)).tolist()
QUESTION, OTHER = [17, 250, 31, 90, 77, 12, 300], [8, 9]
# Grouped heads of any width, sliding windows in all layers and in some, capped logits, fused
# projections, no rotary embedding.
CASES = [
    "llama",
    "mistral",
    "gemma2",
    "gemma3_text",
    "phi3",
    "gpt2",
]


def looked(reading, ids):
    seen = {}
    reading.look(ids, seen.__setitem__)
    return seen


@pytest.mark.parametrize("case", CASES)
def test_rows_are_those_of_the_whole_matrices(host_of, case):
    host = host_of(case)
    usual = host.model.config._attn_implementation
    host.model.set_attn_implementation("eager")
    try:
        ids = torch.tensor([TEXT + QUESTION])
        with torch.inference_mode():
            whole = host.model(input_ids=ids, output_attentions=True).attentions
        reading = Reading(host, TEXT, LAYERS)
        # Neither what looked before nor what looks later makes a difference.
        looked(reading, OTHER)
        seen = looked(reading, QUESTION)
        assert host.model.config._attn_implementation == "eager"
    finally:
        host.model.set_attn_implementation(usual)
    assert sorted(seen) == list(range(LAYERS))
    for layer, weights in seen.items():
        expected = whole[layer][0, :, len(TEXT) :]
        unseen = expected.shape[-1] - weights.shape[-1]
        assert not expected[..., :unseen].any()
        torch.testing.assert_close(weights, expected[..., unseen:], rtol=1e-3, atol=1e-5)


def test_a_host_reads_no_deeper_than_it_is_watched(host_of):
    host, ran = host_of("llama"), []
    hooks = [
        block.register_forward_hook(lambda *_, n=n: ran.append(n))
        for n, block in enumerate(host.blocks)
    ]
    try:
        assert sorted(looked(Reading(host, TEXT, 2), QUESTION)) == [0, 1]
    finally:
        for hook in hooks:
            hook.remove()
    assert set(ran) == {0, 1}
    assert not host.hooks
    assert not host.lock.locked()


def test_a_model_that_does_not_say_what_it_looks_at_is_refused(host_of):
    reading = Reading(host_of("falcon, alibi"), TEXT, LAYERS)
    with pytest.raises(HostError, match=r"falcon.*cannot rerank"):
        looked(reading, QUESTION)


def test_an_error_leaves_the_host_as_it_was(host_of):
    host = host_of("llama")
    reading = Reading(host, TEXT, LAYERS)

    def fail(layer, weights):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        reading.look(QUESTION, fail)
    assert host.model.config._attn_implementation != "s3_watched"
    assert not host.hooks
    assert not host.lock.locked()
    assert sorted(looked(reading, QUESTION)) == list(range(LAYERS))
