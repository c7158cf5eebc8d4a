"""One matrix over all families: taps read what the model itself computes."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.families import (
    CASES,
    CLOSE,
    LAYERS,
    folder_of,
    host_of,
    model_type,
    taps_of,
    window,
)
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from s3_retriever.errors import HostError
from s3_retriever.host import FAMILIES, Family, Host
from s3_retriever.host.families import family_of
from s3_retriever.host.taps import Tap, group_queries, read

__all__ = ["folder_of", "host_of"]  # fixtures

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "families.md"

every_family = pytest.mark.parametrize("case", CASES)


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
    assert message.startswith("Models of type 'rwkv' are not supported yet (supported: bert, ")
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
