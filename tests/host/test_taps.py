"""Taps: hooks come and go, threads stay apart, names are read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from s3_retriever.document import Document
from s3_retriever.errors import HostError, InputError
from s3_retriever.host import Host, Window
from s3_retriever.host.taps import Tap, group_queries, read

CPU = {"device": "cpu", "dtype": "float32"}


@pytest.fixture(scope="module")
def bert(tiny_bert) -> Host:
    return Host.load(str(tiny_bert), **CPU)


@pytest.fixture(scope="module")
def llama(tiny_llama) -> Host:
    return Host.load(str(tiny_llama), **CPU)


def window(length: int, start: int = 0, stop: int | None = None, seed: int = 0) -> Window:
    ids = np.random.default_rng(seed).integers(5, 100, length)
    keep = slice(start, length if stop is None else stop)
    starts = np.arange(keep.stop - keep.start, dtype=np.uint32)
    return Window(Document(""), ids, keep, starts, (), last=True)


def test_layers_below_the_last_tap_are_not_run(llama):
    calls: list[int] = []
    handles = [
        block.register_forward_hook(lambda *_, layer=layer: calls.append(layer))
        for layer, block in enumerate(llama.blocks)
    ]
    try:
        # The key of layer 1 ends the pass before that layer is through.
        read(llama, [Tap("key", 1), Tap("hidden", 0)], [window(6)])
        assert calls == [0]
        calls.clear()
        read(llama, [Tap("hidden", 0), Tap("hidden", 0)], [window(6)])
        assert calls == [0]
    finally:
        for handle in handles:
            handle.remove()


def hooks_left(host: Host) -> int:
    return sum(len(module._forward_hooks) for module in host.model.modules())


def test_hooks_are_removed_and_the_host_stays_usable(llama):
    before = hooks_left(llama)  # transformers has some of its own
    taps = [Tap("key", 1), Tap("query", 1), Tap("hidden", 1)]
    expected = read(llama, taps, [window(6)])
    assert hooks_left(llama) == before

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    handle = llama.blocks[1].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        read(llama, taps, [window(6)])
    handle.remove()
    assert hooks_left(llama) == before

    with pytest.raises(InputError, match=r"no tap hidden\.2.*layers 0 to 1"):
        read(llama, [Tap("key", 0), Tap("hidden", 2)], [window(6)])
    assert hooks_left(llama) == before
    again = read(llama, taps, [window(6)])
    assert all(torch.equal(again[tap], expected[tap]) for tap in expected)


def test_threads_do_not_see_each_other(bert):
    windows = [window(6 + i, seed=i) for i in range(12)]
    tap = Tap("hidden", 1)
    expected = [read(bert, [tap], [one])[tap] for one in windows]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda one: read(bert, [tap], [one])[tap], windows))
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_a_model_that_departs_from_its_family_is_refused(tiny_llama):
    host = Host.load(str(tiny_llama), layers=1, **CPU)
    host.blocks[0].self_attn.kv = host.blocks[0].self_attn.k_proj
    del host.blocks[0].self_attn.k_proj
    with pytest.raises(HostError, match="k_proj"):
        read(host, [Tap("key", 0)], [window(6)])


def test_group_queries_averages_the_heads_of_one_key(llama, bert):
    queries = torch.randn(5, 32)  # four query heads of 8 on two key heads
    grouped = group_queries(queries, llama)
    assert grouped.shape == (5, 16)
    heads = queries.view(5, 4, 8)
    torch.testing.assert_close(grouped[:, :8], (heads[:, 0] + heads[:, 1]) / 2)
    torch.testing.assert_close(grouped[:, 8:], (heads[:, 2] + heads[:, 3]) / 2)
    # Without grouping every query head has its own key head.
    torch.testing.assert_close(group_queries(queries, bert), queries)
    assert group_queries(queries[:0], llama).shape == (0, 16)


@pytest.mark.parametrize("text", ["key.0", "query.17", "hidden.5"])
def test_tap_names_round_trip(text):
    assert str(Tap.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "key", "key.", "value.1", "sentence.1", "key.-1", "key.1 ", "../key.1"]
)
def test_other_names_are_refused(text):
    with pytest.raises(InputError, match=r"Unknown tap .* write a site \(key, query, hidden\)"):
        Tap.parse(text)


def test_a_tap_may_be_a_single_key_head(llama):
    windows = [window(20)]
    taps = [Tap.parse(name) for name in ("key.1", "query.1", "key.1.1", "query.1.1")]
    assert [str(tap) for tap in taps] == ["key.1", "query.1", "key.1.1", "query.1.1"]
    keys, queries, key, query = read(llama, taps, windows).values()
    torch.testing.assert_close(key, keys[:, 8:])
    torch.testing.assert_close(query, queries[:, 16:])
    torch.testing.assert_close(group_queries(query, llama), group_queries(queries, llama)[:, 8:])
    with pytest.raises(InputError, match=r"no tap key\.1\.2.*key heads 0 to 1"):
        read(llama, [Tap("key", 1, 2)], windows)
    with pytest.raises(InputError, match="Unknown tap"):
        Tap.parse("hidden.1.0")
