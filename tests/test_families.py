"""One matrix over all families: taps read what the model itself computes."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel

from s3_retriever.errors import HostError
from s3_retriever.host import FAMILIES, Family, Host, Window
from s3_retriever.host.families import family_of
from s3_retriever.tap import Tap, group_queries, read

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "families.md"
LAYERS = 4
COMMON = {
    "vocab_size": 500,
    "hidden_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 6,
    "intermediate_size": 40,
    "max_position_embeddings": 128,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
GROUPED = COMMON | {"num_key_value_heads": 2}
# Heads that do not add up to the hidden size.
WIDE = GROUPED | {"head_dim": 10}
SLIDING = {"sliding_window": 5}
ALTERNATING = SLIDING | {"layer_types": ["sliding_attention", "full_attention"] * (LAYERS // 2)}
LATE_SLIDING = SLIDING | {"use_sliding_window": True, "max_window_layers": 2}
PARTIAL = {"partial_rotary_factor": 0.5}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
CASES: dict[str, dict[str, Any]] = {
    "bert": COMMON,
    "electra": COMMON | {"embedding_size": 16},
    "roberta": COMMON,
    "xlm-roberta": COMMON,
    "mpnet": COMMON,
    "distilbert": COMMON | {"hidden_dim": 40},
    "modernbert": COMMON | {"local_attention": 8, "global_attn_every_n_layers": 2},
    "llama": WIDE,
    "mistral": WIDE | SLIDING,
    "mixtral": GROUPED | SLIDING | {"num_local_experts": 4},
    "qwen2": GROUPED | LATE_SLIDING,
    "qwen2_moe": GROUPED | LATE_SLIDING | EXPERTS | {"shared_expert_intermediate_size": 32},
    "qwen3": WIDE,
    "qwen3_moe": WIDE | EXPERTS,
    "gemma": WIDE,
    "gemma2": WIDE | SLIDING,
    "gemma3_text": WIDE | ALTERNATING,
    "granite": GROUPED,
    "smollm3": GROUPED | {"no_rope_layer_interval": 2},
    "starcoder2": GROUPED | SLIDING,
    "olmo2": GROUPED,
    "olmo3": GROUPED | ALTERNATING,
    "phi": GROUPED | PARTIAL,
    "phi, normed": GROUPED | PARTIAL | {"qk_layernorm": True},
    "phi3": GROUPED | PARTIAL | SLIDING,
    "stablelm": GROUPED | PARTIAL,
    "stablelm, normed": GROUPED | PARTIAL | {"qk_layernorm": True},
    "gpt2": COMMON | {"n_inner": 40},
    "gpt_neox": COMMON | {"rotary_pct": 0.5},
    "falcon, all heads": COMMON | {"multi_query": False},
    "falcon, one key head": COMMON | {"multi_query": True},
    "falcon, grouped": COMMON | {"new_decoder_architecture": True, "num_kv_heads": 2},
    "falcon, alibi": COMMON | {"multi_query": False, "alibi": True},
    "opt": COMMON | {"ffn_dim": 40, "word_embed_proj_dim": 48},
}
CLOSE = {"rtol": 1e-4, "atol": 1e-4}

every_family = pytest.mark.parametrize("case", CASES)


def model_type(case: str) -> str:
    return case.partition(",")[0]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory, tiny_bert, tiny_llama) -> Callable[[str], Path]:
    """Makes (once) the folder of a tiny model with random weights."""
    root = tmp_path_factory.mktemp("families")

    def make(case: str) -> Path:
        if model_type(case) not in CONFIG_MAPPING:
            pytest.skip("this transformers is too old for it")
        folder = root / case
        if not folder.exists():
            torch.manual_seed(1)
            model = AutoModel.from_config(AutoConfig.for_model(model_type(case), **CASES[case]))
            scramble(model)
            model.save_pretrained(folder)
            donor = tiny_bert if FAMILIES[model_type(case)].bidirectional else tiny_llama
            for path in donor.glob("tokenizer*"):
                shutil.copy(path, folder)
        return folder

    return make


@torch.no_grad()
def scramble(model: torch.nn.Module) -> None:
    """Make every weight count: fresh norms and biases do nothing, and attention is nearly even."""
    for weight in model.parameters():
        if weight.dim() == 1:
            weight.add_(torch.empty_like(weight).uniform_(-0.5, 0.5))
        else:
            weight.mul_(5)


@pytest.fixture(scope="module")
def host_of(folder_of) -> Callable[[str], Host]:
    hosts: dict[str, Host] = {}

    def load(case: str) -> Host:
        if case not in hosts:
            hosts[case] = Host.load(str(folder_of(case)), device="cpu", dtype="float32")
        return hosts[case]

    return load


def window(length: int, start: int = 0, stop: int | None = None, seed: int = 0) -> Window:
    ids = np.random.default_rng(seed).integers(5, 400, length)
    keep = slice(start, length if stop is None else stop)
    return Window(0, ids, keep, np.arange(keep.stop - keep.start), last=True)


def taps_of(layers: int) -> list[Tap]:
    return [Tap(site, layer) for layer in range(layers) for site in ("key", "query", "hidden")]


@dataclass
class Attention:
    """One layer's attention, as the model computed it.

    Attributes:
        query: [query heads, length, head size] as it goes into the scores; `key` likewise, where
            the key heads may be repeated for the queries that share them.
        rotate: The model's own rotary embedding at this layer, for queries and keys.
    """

    query: Tensor
    key: Tensor
    rotate: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Recorder(TorchFunctionMode):
    """Notes what goes into every attention, and the rotary embedding before it."""

    def __init__(self, host: Host, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.seen: list[Attention] = []
        self._rotate = unrotated
        # Gemma 2, which caps its scores, and MPNet, which adds a bias, multiply by hand.
        self._by_hand = host.model.config._attn_implementation == "eager"
        modelling = sys.modules[type(host.model).__module__]
        if hasattr(modelling, "apply_rotary_pos_emb"):
            patch.setattr(modelling, "apply_rotary_pos_emb", self._noting(modelling))

    def _noting(self, modelling: Any) -> Callable[..., tuple[Tensor, Tensor]]:
        original = modelling.apply_rotary_pos_emb

        def apply(query: Tensor, key: Tensor, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
            size = query.shape[-1]  # StableLM and Phi leave out what is not turned

            def rotate(*both: Tensor) -> tuple[Tensor, Tensor]:
                turned = original(*(states[None, ..., :size] for states in both), *args, **options)
                rest = (states[..., size:] for states in both)
                query, key = (torch.cat([a[0], b], -1) for a, b in zip(turned, rest, strict=True))
                return query, key

            self._rotate = rotate
            return original(query, key, *args, **options)

        return apply

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is scaled_dot_product_attention:
            self._note(args[0], args[1])
        elif func is torch.matmul and self._by_hand and args[0].shape[-1] != args[0].shape[-2]:
            self._note(args[0], args[1].transpose(-1, -2))
        return func(*args, **(kwargs or {}))

    def _note(self, query: Tensor, key: Tensor) -> None:
        self.seen.append(Attention(query[0], key[0], self._rotate))
        self._rotate = unrotated


def unrotated(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    return query, key


@every_family
@torch.inference_mode()
def test_keys_and_queries_are_those_of_the_models_attention(case, host_of, monkeypatch):
    host, one = host_of(case), window(17)
    with Recorder(host, monkeypatch) as recorder:
        host.model(input_ids=torch.from_numpy(one.ids)[None])
    assert len(recorder.seen) == LAYERS
    taps = read(host, taps_of(LAYERS), [one])
    size = host.family.heads(host.model.config).size
    for layer, attention in enumerate(recorder.seen):
        key, query = (
            taps[Tap(site, layer)].view(17, -1, size).transpose(0, 1) for site in ("key", "query")
        )
        if case == "opt":  # newer versions scale its queries before the attention, not in it
            query = query * (attention.query.norm() / query.norm())
        query, key = attention.rotate(query, key)
        torch.testing.assert_close(query, attention.query, **CLOSE)
        shared = len(attention.key) // len(key)
        torch.testing.assert_close(key.repeat_interleave(shared, 0), attention.key, **CLOSE)


@every_family
@torch.inference_mode()
def test_hidden_states_are_the_models_own(case, host_of, folder_of):
    one = window(17, 2, 15)
    states = (
        host_of(case)
        .model(input_ids=torch.from_numpy(one.ids)[None], output_hidden_states=True)
        .hidden_states
    )
    # The last state of the model is normed once more. A host cut off before it has the plain one.
    cut = Host.load(str(folder_of(case)), layers=LAYERS - 1, device="cpu", dtype="float32")
    for host in (host_of(case), cut):
        seen = read(host, taps_of(LAYERS - 1), [one])
        for layer in range(LAYERS - 1):
            expected = states[layer + 1][0, one.keep]
            torch.testing.assert_close(seen[Tap("hidden", layer)], expected, **CLOSE)


@every_family
def test_a_truncated_host_computes_the_same(case, folder_of, host_of):
    full = host_of(case)
    batch = [window(20), window(7, seed=1)]
    for layers in (1, 2):
        cut = Host.load(str(folder_of(case)), layers=layers, device="cpu", dtype="float32")
        assert len(cut.blocks) == layers
        assert cut.fingerprint(layers) == full.fingerprint(layers) != full.fingerprint(3)
        expected = read(full, taps_of(layers), batch)
        for tap, values in read(cut, taps_of(layers), batch).items():
            torch.testing.assert_close(values, expected[tap], rtol=0, atol=0)


@every_family
def test_padding_changes_nothing(case, host_of):
    host = host_of(case)
    batch = [window(5, 1, 4, seed=1), window(43, 3, 40, seed=2), window(11, 0, 11, seed=3)]
    together = read(host, taps_of(LAYERS), batch)
    alone = [read(host, taps_of(LAYERS), [one]) for one in batch]
    for tap, values in together.items():
        expected = torch.cat([seen[tap] for seen in alone])
        torch.testing.assert_close(values, expected, **CLOSE)


@every_family
def test_grouped_queries_are_as_wide_as_keys(case, host_of):
    host = host_of(case)
    taps = read(host, taps_of(1), [window(9)])
    keys, queries = taps[Tap("key", 0)], taps[Tap("query", 0)]
    grouped = group_queries(queries, host)
    assert grouped.shape == keys.shape
    if keys.shape == queries.shape:
        torch.testing.assert_close(grouped, queries)


def test_every_family_of_the_table_is_tested():
    assert {model_type(case) for case in CASES} == set(FAMILIES)


def test_an_unknown_family_is_told_how_to_be_added():
    with pytest.raises(HostError) as caught:
        family_of("rwkv")
    message = str(caught.value)
    assert message.startswith("Models of type 'rwkv' are not known yet (known: bert, ")
    paths = re.findall(r"[\w/]+\.(?:md|py)", message)
    assert paths == ["docs/families.md", "s3_retriever/host/families.py"]
    assert all((ROOT / path).exists() for path in paths)


def row(name: str, family: Family) -> str:
    """What docs/families.md says of a family, but for the examples."""
    kind = "encoder" if family.bidirectional else "decoder"
    if family.fused is None:
        reads = f"`{family.key}`, `{family.query}`"
    else:
        reads = f"`{family.key}`, {family.fused.__name__}"
    norm = ""
    if family.key_norm:
        norm = "all heads at once" if family.flat_norm else "each head"
        norm += f", if `{family.norm_switch}`" if family.norm_switch else ""
    return f"| `{name}` | {kind} | {reads} | {norm} |"


def test_the_page_lists_the_table():
    page = PAGE.read_text(encoding="utf-8")
    listed = re.findall(r"^\| (`.*`) \| .* \|( .* \| .* \| .*\|)$", page, re.MULTILINE)
    expected = [row(name, family) for name, family in FAMILIES.items()]
    assert [f"| {name} |{rest}" for name, rest in listed] == expected
