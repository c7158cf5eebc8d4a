"""Attention on codes: one new token's attention to keys and values that are never put together.

Importing this registers the attention `s3_atoms`; `model.set_attn_implementation("s3_atoms")` makes
a model use it. With any other attention, and wherever it cannot be used, keys and values are
reconstructed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from s3_retriever.kv.atoms import Atoms, Codes
from s3_retriever.kv.layer import AtomLayer, CodedStates

ATOM_ATTENTION = "s3_atoms"


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention as transformers calls it; on codes where `key` is `CodedStates`.

    Returns:
        Output [batch, 1, query heads, head size] (more tokens than one without codes), and None.
    """
    additive = attention_mask is not None and attention_mask.dtype != torch.bool
    if not isinstance(key, CodedStates) or additive or query.requires_grad:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **options
        )
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _attend_to_layer(key.layer, query * scaling, attention_mask).transpose(1, 2), None


def _attend_to_layer(layer: AtomLayer, query: Tensor, mask: Tensor | None) -> Tensor:
    """One new token's attention: softmax over the codes, then the sinks, then the exact tokens.

    Args:
        layer: The layer, which has codes.
        query: Scaled queries [batch, query heads, 1, head size].
        mask: Slots that may be looked at, bool [batch or 1, 1, 1, slots]; None for all.

    Returns:
        [batch, query heads, 1, head size], in the dtype of the queries.
    """
    coded = len(layer.key_codes)
    keys, values = layer.exact
    exact_keys = torch.cat([layer.sink_keys, keys], dim=2).float()
    exact_values = torch.cat([layer.sink_values, values], dim=2).float()
    # The queries that share a key head follow one another.
    grouped = query.float().reshape(*exact_keys.shape[:2], -1, query.shape[-1])
    scores = grouped.new_empty(*grouped.shape[:3], coded + exact_keys.shape[2])
    _score_codes(layer, grouped, scores[..., :coded])
    scores[..., coded:] = grouped @ exact_keys.transpose(2, 3)
    _hide(layer, mask, scores)
    attention = scores.softmax(-1)
    output = attention[..., coded:] @ exact_values
    output += _sum_values(layer.atoms.value, layer.value_codes, attention[..., :coded])
    return output.view(query.shape).to(query.dtype)


def _hide(layer: AtomLayer, mask: Tensor | None, scores: Tensor) -> None:
    """Leave out what is masked, and let each token count once: a sink as itself, not as its code.

    Args:
        layer: The layer.
        mask: As in `_attend_to_layer`.
        scores: [batch, heads, queries, columns], which become minus infinity.
    """
    coded, sinks = len(layer.key_codes), layer.sink_keys.shape[2]
    if mask is not None:
        visible = mask[:, 0, 0].expand(len(scores), -1)
        own = visible.gather(1, layer.sink_slots().clamp_max(coded - 1))
        columns = torch.cat([visible[:, :coded], own, visible[:, coded:]], dim=1)
        scores.masked_fill_(~columns[:, None, None], -torch.inf)
    for row, padding in enumerate(layer.padding.tolist()):
        first = max(padding, 0)
        encoded = min(max(coded - first, 0), sinks)
        scores[row, :, :, first : first + encoded] = -torch.inf
        scores[row, :, :, coded + encoded : coded + sinks] = -torch.inf


def _score_codes(layer: AtomLayer, queries: Tensor, scores: Tensor) -> None:
    """Products of queries [batch, heads, queries, size] with coded keys: [..., queries, tokens]."""
    from s3_retriever.kv.kernels import key_scorer

    atoms, codes, rotary = layer.atoms.key, layer.key_codes, layer.atoms.rotary
    steps = atoms.step_sizes(codes)
    paddings = layer.padding.tolist()
    near, far = rotary.tables(max(len(codes) - min(paddings), max(paddings)))
    score_keys = key_scorer(atoms.size, near.shape[2])

    for row, padding in enumerate(paddings):
        score_keys(
            queries[row].numpy(),
            codes.atoms[row].numpy(),
            steps[row].numpy(),
            atoms.index_bits,
            atoms.dictionaries.numpy(),
            atoms.centres.numpy(),
            near.numpy(),
            far.numpy(),
            padding,
            scores[row].numpy(),
        )


def _sum_values(atoms: Atoms, codes: Codes, attention: Tensor) -> Tensor:
    """Coded values weighted by attention [batch, heads, queries, tokens]: [..., queries, size]."""
    from s3_retriever.kv.kernels import sum_value_weights

    steps = atoms.step_sizes(codes)
    batch, heads, queries, _ = attention.shape
    sums = attention.new_zeros(batch, heads, -(-queries // 4), atoms.features, 4)
    for row in range(batch):
        sum_value_weights(
            attention[row].numpy(),
            codes.atoms[row].numpy(),
            steps[row].numpy(),
            atoms.index_bits,
            sums[row].numpy(),
        )
    # Each four queries side by side, one after another.
    values = (sums.transpose(3, 4) @ atoms.dictionaries[:, None]).flatten(2, 3)[:, :, :queries]
    return values + attention.sum(-1, keepdim=True) * atoms.centres[:, None]


AttentionInterface.register(ATOM_ATTENTION, attend)
AttentionMaskInterface.register(ATOM_ATTENTION, sdpa_mask)
