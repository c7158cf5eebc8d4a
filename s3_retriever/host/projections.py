"""Keys and queries of all heads, out of what an attention module projects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Side = Literal["key", "query"]


@dataclass(frozen=True, slots=True)
class Heads:
    """Numbers of query and key heads, and the size of one head."""

    queries: int
    keys: int
    size: int


Cut = Callable[[Tensor, Heads], dict[Side, Tensor]]


def heads_of(config: PretrainedConfig) -> Heads:
    """The heads of a model, as most configurations say them."""
    queries = config.num_attention_heads
    keys = getattr(config, "num_key_value_heads", None) or queries
    size = getattr(config, "head_dim", None) or config.hidden_size // queries
    return Heads(queries, keys, size)


def falcon_heads(config: PretrainedConfig) -> Heads:
    """Falcon's heads: its first layout has one key head whatever the configuration counts."""
    queries = config.num_attention_heads
    one = config.multi_query and not config.new_decoder_architecture
    return Heads(queries, 1 if one else config.num_kv_heads, config.hidden_size // queries)


def stacked(fused: Tensor, heads: Heads) -> dict[Side, Tensor]:
    """Cut a projection that holds all queries, then all keys, then all values.

    Args:
        fused: [windows, length, (query heads + 2 * key heads) * head size].
        heads: Their numbers and size.

    Returns:
        Keys and queries [windows, length, heads * head size].
    """
    keys_from, values_from = (n * heads.size for n in (heads.queries, heads.queries + heads.keys))
    return {"key": fused[..., keys_from:values_from], "query": fused[..., :keys_from]}


def interleaved(fused: Tensor, heads: Heads) -> dict[Side, Tensor]:
    """Cut a projection that holds, for each key head, its queries, the key and the value.

    Args and return value are those of `stacked`.
    """
    groups = fused.view(*fused.shape[:-1], heads.keys, -1, heads.size)
    return {"key": groups[..., -2, :].flatten(-2), "query": groups[..., :-2, :].flatten(-3)}


def norm_heads(projected: Tensor, norm: nn.Module, size: int) -> Tensor:
    """Apply a norm to every head of [windows, length, heads * head size].

    The heads go in front, as in StableLM each one has weights of its own; to other norms this
    makes no difference.
    """
    heads = projected.view(*projected.shape[:-1], -1, size).transpose(1, 2)
    normed: Tensor = norm(heads)
    return normed.transpose(1, 2).flatten(-2)
