"""Taps read exactly what the model computes, for every family in the table."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel

from s3_retriever.errors import HostError, InputError
from s3_retriever.host import FAMILIES, Host, Window
from s3_retriever.tap import Tap, group_queries, read

LAYERS = 4
_COMMON = {
    "vocab_size": 500,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
_GROUPED = _COMMON | {"num_key_value_heads": 2}
# Heads that do not add up to the hidden size.
_WIDE = _GROUPED | {"head_dim": 16}
_ALTERNATING = ["sliding_attention", "full_attention"] * (LAYERS // 2)
CONFIGS = {
    "bert": _COMMON,
    "roberta": _COMMON,
    "xlm-roberta": _COMMON,
    "electra": _COMMON | {"embedding_size": 16},
    "llama": _GROUPED,
    "mistral": _GROUPED | {"sliding_window": 8},
    "qwen2": _GROUPED | {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
    "gemma": _WIDE,
    "gemma2": _WIDE | {"sliding_window": 8},
    "granite": _GROUPED,
    "qwen3": _WIDE,
    "gemma3_text": _WIDE | {"sliding_window": 8, "layer_types": _ALTERNATING},
    "olmo2": _GROUPED,
}
ENCODERS = ("bert", "roberta", "xlm-roberta", "electra")
FLAT_NORM = ("olmo2",)
HEAD_NORM = ("qwen3", "gemma3_text")


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory, tiny_bert, tiny_llama):
    """Makes (once) the folder of a model of some family with random weights."""
    root = tmp_path_factory.mktemp("families")

    def make(family: str) -> Path:
        folder = root / family
        if not folder.exists():
            torch.manual_seed(1)
            model = AutoModel.from_config(AutoConfig.for_model(family, **CONFIGS[family]))
            for name, weight in model.named_parameters():
                if "norm" in name.lower():  # fresh norms do nothing, which would hide errors
                    torch.nn.init.uniform_(weight, 0.5, 1.5)
            model.save_pretrained(folder)
            donor = tiny_bert if family in ENCODERS else tiny_llama
            for path in donor.glob("tokenizer*"):
                shutil.copy(path, folder)
        return folder

    return make


@pytest.fixture(scope="module")
def host_of(folder_of):
    hosts: dict[str, Host] = {}

    def load(family: str) -> Host:
        if family not in hosts:
            hosts[family] = Host.load(str(folder_of(family)), device="cpu", dtype="float32")
        return hosts[family]

    return load


def window(length: int, start: int = 0, stop: int | None = None, seed: int = 0) -> Window:
    ids = np.random.default_rng(seed).integers(5, 400, length)
    keep = slice(start, length if stop is None else stop)
    return Window(0, ids, keep, np.arange(keep.stop - keep.start), last=True)


def taps_of(layer: int) -> list[Tap]:
    return [Tap("key", layer), Tap("query", layer), Tap("hidden", layer)]


def projected(model, family: str, site: str, layer: int, states: torch.Tensor) -> torch.Tensor:
    """Keys or queries by hand, from the input of a layer."""
    if family in ENCODERS:
        attention = model.encoder.layer[layer].attention.self
        return (attention.key if site == "key" else attention.query)(states)
    block = model.layers[layer]
    if family not in FLAT_NORM:  # OLMo 2 norms the outputs of its sublayers, not their inputs
        states = block.input_layernorm(states)
    attention = block.self_attn
    flat = (attention.k_proj if site == "key" else attention.q_proj)(states)
    if family in HEAD_NORM + FLAT_NORM:
        norm = attention.k_norm if site == "key" else attention.q_norm
        heads = flat.view(*flat.shape[:2], -1, attention.head_dim) if family in HEAD_NORM else flat
        flat = norm(heads).view(flat.shape)
    return flat


def test_every_family_of_the_table_is_tested():
    assert set(CONFIGS) == set(FAMILIES)


@pytest.mark.parametrize("family", CONFIGS)
@torch.inference_mode()
def test_taps_equal_a_computation_by_hand(family, host_of):
    host, one = host_of(family), window(17, 2, 15)
    model = host.model
    ids = torch.from_numpy(one.ids)[None]
    output = model(input_ids=ids, output_hidden_states=True)
    states = output.hidden_states
    for layer in range(LAYERS):
        seen = read(host, taps_of(layer), [one])
        for site in ("key", "query"):
            expected = projected(model, family, site, layer, states[layer])[0, one.keep]
            got = seen[Tap(site, layer)]
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
            assert got.shape[1] == Tap(site, layer).width(host)
        hidden = seen[Tap("hidden", layer)]
        assert hidden.shape == (13, Tap("hidden", layer).width(host))
        if layer < LAYERS - 1:
            expected = states[layer + 1][0, one.keep]
        else:  # the model applies its final norm, the tap does not
            expected = output.last_hidden_state[0, one.keep]
            if family not in ENCODERS:
                assert not torch.allclose(hidden, expected, atol=1e-2)
                hidden = model.norm(hidden)
        torch.testing.assert_close(hidden, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", [name for name in CONFIGS if name not in ENCODERS])
@torch.inference_mode()
def test_keys_are_those_that_the_model_caches(family, host_of):
    """The rotary embedding leaves position 0 as it is, so there the KV cache holds our keys."""
    host, one = host_of(family), window(6)  # shorter than the sliding window, which cuts the cache
    cache = host.model(input_ids=torch.from_numpy(one.ids)[None], use_cache=True).past_key_values
    for layer in range(LAYERS):
        keys = read(host, [Tap("key", layer)], [one])[Tap("key", layer)]
        torch.testing.assert_close(
            keys[0], cache.layers[layer].keys[0, :, 0].flatten(), rtol=1e-4, atol=1e-5
        )
        turned = cache.layers[layer].keys[0, :, -1].flatten()
        assert not torch.allclose(keys[-1], turned, atol=1e-3)


@pytest.mark.parametrize("family", CONFIGS)
def test_padding_changes_nothing(family, host_of):
    host = host_of(family)
    batch = [window(5, 1, 4, seed=1), window(23, 3, 20, seed=2), window(11, 0, 11, seed=3)]
    for layer in range(LAYERS):
        together = read(host, taps_of(layer), batch)
        alone = [read(host, taps_of(layer), [one]) for one in batch]
        for tap, values in together.items():
            expected = torch.cat([seen[tap] for seen in alone])
            torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", CONFIGS)
def test_a_truncated_host_computes_the_same(family, folder_of, host_of):
    full = host_of(family)
    cut = Host.load(str(folder_of(family)), layers=2, device="cpu", dtype="float32")
    assert len(cut.blocks) == 2
    assert len(full.blocks) == LAYERS
    assert cut.fingerprint(2) == full.fingerprint(2) != full.fingerprint(3)
    batch = [window(20), window(7, seed=1)]
    taps = taps_of(0) + taps_of(1)
    expected = read(full, taps, batch)
    for tap, values in read(cut, taps, batch).items():
        torch.testing.assert_close(values, expected[tap], rtol=0, atol=0)


def test_layers_below_the_last_tap_are_not_run(host_of):
    host = host_of("llama")
    calls: list[int] = []
    handles = [
        block.register_forward_hook(lambda *_, layer=layer: calls.append(layer))
        for layer, block in enumerate(host.blocks)
    ]
    try:
        # The key of layer 2 ends the pass before that layer is through.
        read(host, [Tap("key", 2), Tap("hidden", 0)], [window(6)])
        assert calls == [0, 1]
        calls.clear()
        read(host, [Tap("hidden", 0), Tap("hidden", 0)], [window(6)])
        assert calls == [0]
    finally:
        for handle in handles:
            handle.remove()


def hooks_left(host: Host) -> int:
    return sum(len(module._forward_hooks) for module in host.model.modules())


def test_hooks_are_removed_and_the_host_stays_usable(host_of):
    host = host_of("qwen3")
    before = hooks_left(host)  # transformers has some of its own
    expected = read(host, taps_of(3), [window(6)])
    assert hooks_left(host) == before

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    handle = host.blocks[1].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        read(host, taps_of(3), [window(6)])
    handle.remove()
    assert hooks_left(host) == before

    with pytest.raises(InputError, match=r"no tap hidden\.4.*layers 0 to 3"):
        read(host, [Tap("key", 0), Tap("hidden", 4)], [window(6)])
    assert hooks_left(host) == before
    again = read(host, taps_of(3), [window(6)])
    assert all(torch.equal(again[tap], expected[tap]) for tap in expected)


def test_threads_do_not_see_each_other(host_of):
    host = host_of("bert")
    windows = [window(6 + i, seed=i) for i in range(12)]
    tap = Tap("hidden", 3)
    expected = [read(host, [tap], [one])[tap] for one in windows]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda one: read(host, [tap], [one])[tap], windows))
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_a_model_that_departs_from_its_family_is_refused(host_of, folder_of):
    host = Host.load(str(folder_of("llama")), layers=1, device="cpu", dtype="float32")
    host.blocks[0].self_attn.kv = host.blocks[0].self_attn.k_proj
    del host.blocks[0].self_attn.k_proj
    with pytest.raises(HostError, match="k_proj"):
        read(host, [Tap("key", 0)], [window(6)])


def test_group_queries_averages_the_heads_of_one_key(host_of):
    host = host_of("qwen3")  # four query heads on two key heads of 16
    queries = torch.randn(5, 64)
    grouped = group_queries(queries, host)
    assert grouped.shape == (5, Tap("key", 0).width(host))
    heads = queries.view(5, 4, 16)
    torch.testing.assert_close(grouped[:, :16], (heads[:, 0] + heads[:, 1]) / 2)
    torch.testing.assert_close(grouped[:, 16:], (heads[:, 2] + heads[:, 3]) / 2)
    # Without grouping every query head has its own key head.
    plain = torch.randn(5, 32)
    torch.testing.assert_close(group_queries(plain, host_of("bert")), plain)


@pytest.mark.parametrize("text", ["key.0", "query.17", "hidden.5"])
def test_tap_names_round_trip(text):
    assert str(Tap.parse(text)) == text


@pytest.mark.parametrize("text", ["", "key", "key.", "value.1", "key.-1", "key.1 ", "../key.1"])
def test_other_names_are_no_taps(text):
    with pytest.raises(InputError, match="is no tap"):
        Tap.parse(text)
