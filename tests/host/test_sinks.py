"""Attention sinks are found by their norm, in every family and at every tap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.families import LAYERS, taps_of, window

from s3_retriever.document import Document
from s3_retriever.host import Host
from s3_retriever.host.sinks import find_sinks
from s3_retriever.host.taps import Tap, read_each, read_marked

LOUD = 7  # a token id
# Of every way to call a layer one. Post-norm models give every token the same norm.
PRE_NORM = ["llama", "gemma3_text", "olmo2", "phi3", "gpt2", "gpt_neox", "falcon, alibi", "opt"]


def states(n: int = 12, width: int = 64) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(0))


def marked(x: torch.Tensor, length: int | None = None) -> list[int]:
    found = find_sinks(x[None], torch.tensor([len(x) if length is None else length]))[0]
    return found.nonzero().flatten().tolist()


@pytest.mark.parametrize("place", [0, 5, 11])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_huge_norm_marks_a_token_wherever_it_stands(place, dtype):
    x = states()
    x[place] *= 15
    assert marked(x.to(dtype)) == [place]


def test_a_large_norm_marks_it_if_one_coordinate_holds_it():
    x = states()
    x[2, 9] += 40
    x[4] *= 5
    assert marked(x) == [2]


def test_several_sinks_of_a_window_are_all_marked():
    x = states()
    x[[0, 3, 8]] *= 100
    assert marked(x) == [0, 3, 8]


@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_in_a_short_window_the_lesser_norm_counts(length):
    x = states()
    x[0] *= 100
    assert [i for i in marked(x, length) if i < length] == ([0] if length > 1 else [])


def test_padding_does_not_count():
    x = states()
    x[3:] = 0
    x[1] *= 100
    assert marked(x, length=3) == [1]
    x[3:] = 1e6
    assert [i for i in marked(x, length=3) if i < 3] == [1]


def test_windows_of_a_batch_have_their_own_medians():
    x = torch.stack([states(), 1_000 * states()])
    assert not find_sinks(x, torch.tensor([12, 12])).any()


@pytest.mark.parametrize("case", PRE_NORM)
def test_every_tap_of_every_decoder_marks_it(folder_of, case):
    host = Host.load(str(folder_of(case)), device="cpu", dtype="float32")
    with torch.no_grad():
        host.model.get_input_embeddings().weight[LOUD, 3] = 1e5
    one = window(9, start=1)
    one.ids[4] = LOUD
    batch = [one, replace(window(5, seed=1), document=Document("b"))]
    # Attention spreads a sink's value to the tokens after it, but not enough to mark them.
    for tap, (values, sinks) in read_marked(host, taps_of(LAYERS), batch).items():
        assert sinks.nonzero().flatten().tolist() == [3], tap
        assert len(values) == len(sinks) == 8 + 5
    first, second = read_each(host, [Tap("key", 1)], batch)
    assert first[Tap("key", 1)].sinks.sum() == 1
    assert not second[Tap("key", 1)].sinks.any()


def test_what_a_tap_marks_does_not_depend_on_the_others(host_of):
    host = host_of("llama")
    together = read_marked(host, taps_of(LAYERS), [window(6)])
    for tap in (Tap("key", 2), Tap("hidden", 1), Tap("query", 0)):
        alone = read_marked(host, [tap], [window(6)])[tap]
        torch.testing.assert_close(alone.values, together[tap].values)
        assert torch.equal(alone.sinks, together[tap].sinks)


def test_minilm_has_none():
    host = Host.load("minilm", device="cpu", dtype="float32")
    text = "Joel Stacey didn't get it. The lonely idol's love, light, and theft: 24 in 1984! " * 8
    windows = list(host.windows([Document(text), Document("Why?"), Document("a")]))
    for sinks in (seen.sinks for seen in read_marked(host, taps_of(6), windows).values()):
        assert not sinks.any()
        assert len(sinks) > 150


def test_numbers_that_are_not_finite_mark_nothing():
    x = states()
    x[1] = np.nan
    assert 1 not in marked(x)
