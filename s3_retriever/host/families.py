"""Where each model family keeps what a tap reads.

Adding a family is one line in `FAMILIES`; docs/families.md says how.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn

from s3_retriever.errors import HostError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


Side = Literal["key", "query"]


@dataclass(frozen=True, slots=True)
class Heads:
    """Numbers of query and key heads, and the size of one head."""

    queries: int
    keys: int
    size: int

    @property
    def queries_per_key(self) -> int:
        """How many query heads share a key head."""
        return self.queries // self.keys


Cut = Callable[[Tensor, Heads], dict[Side, Tensor]]


def heads_of(config: PretrainedConfig) -> Heads:
    """Read the heads of a model as most configurations give them."""
    queries = config.num_attention_heads
    keys = getattr(config, "num_key_value_heads", None) or queries
    size = getattr(config, "head_dim", None) or config.hidden_size // queries
    return Heads(queries, keys, size)


def falcon_heads(config: PretrainedConfig) -> Heads:
    """Read Falcon's heads: its first layout has one key head, whatever the configuration says."""
    queries = config.num_attention_heads
    single = config.multi_query and not config.new_decoder_architecture
    return Heads(queries, 1 if single else config.num_kv_heads, config.hidden_size // queries)


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

    The heads move to the front because StableLM has weights per head; other norms are indifferent.
    """
    heads = projected.view(*projected.shape[:-1], -1, size).transpose(1, 2)
    normed: Tensor = norm(heads)
    return normed.transpose(1, 2).flatten(-2)


@dataclass(frozen=True, slots=True)
class Family:
    """One layout of transformer.

    Attributes:
        blocks: Path from the base model to its list of layers.
        attention: Path from a layer to the module that owns the projections.
        key: Path from the attention module to the key projection.
        query: The same for queries; the same module if the projections are fused.
        fused: How to cut keys and queries out of a fused projection.
        key_norm: Path from the attention module to the norm of the projected keys before the
            rotary embedding; empty if the family has none.
        query_norm: The same for queries.
        norm_switch: The configuration's switch for these norms; empty if all models have them.
        flat_norm: Whether these norms span all heads at once rather than each head alone.
        heads: Reads numbers and size of the heads from the configuration.
        bidirectional: Whether a token sees the tokens to its right.
        unused_positions: How many of the configuration's positions no token can have.
    """

    blocks: str
    attention: str
    key: str
    query: str
    fused: Cut | None = None
    key_norm: str = ""
    query_norm: str = ""
    norm_switch: str = ""
    flat_norm: bool = False
    heads: Callable[[PretrainedConfig], Heads] = heads_of
    bidirectional: bool = False
    unused_positions: int = 0

    def projection(
        self, side: Side, block: nn.Module, config: PretrainedConfig
    ) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
        """Find where a layer projects its keys or queries.

        Returns:
            The module, and a function that turns its output into the keys or queries of all heads
            [windows, length, heads * head size], after the model's norm of them, if any.

        Raises:
            HostError: The layer has no such module.
        """
        attention = _get(block, self.attention)
        heads = self.heads(config)
        norm = self._norm(side, attention, config)

        def finish(projected: Tensor) -> Tensor:
            if self.fused is not None:
                projected = self.fused(projected, heads)[side]
            if norm is None:
                return projected
            return norm(projected) if self.flat_norm else norm_heads(projected, norm, heads.size)

        return _get(attention, self.key if side == "key" else self.query), finish

    def _norm(self, side: Side, attention: nn.Module, config: PretrainedConfig) -> nn.Module | None:
        path = self.key_norm if side == "key" else self.query_norm
        off = self.norm_switch and not getattr(config, self.norm_switch)
        return _get(attention, path) if path and not off else None


_BERT = Family("encoder.layer", "attention.self", "key", "query", bidirectional=True)
_ROBERTA = replace(_BERT, unused_positions=2)  # positions begin after the padding index
_LLAMA = Family("layers", "self_attn", "k_proj", "q_proj")
_QK_NORM = replace(_LLAMA, key_norm="k_norm", query_norm="q_norm")
_QK_LAYERNORM = replace(
    _LLAMA, key_norm="k_layernorm", query_norm="q_layernorm", norm_switch="qk_layernorm"
)

FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "electra": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "mpnet": replace(_ROBERTA, attention="attention.attn", key="k", query="q"),
    "distilbert": Family("transformer.layer", "attention", "k_lin", "q_lin", bidirectional=True),
    "modernbert": Family("layers", "attn", "Wqkv", "Wqkv", stacked, bidirectional=True),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "mixtral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen2_moe": _LLAMA,
    "qwen3": _QK_NORM,
    "qwen3_moe": _QK_NORM,
    "gemma": _LLAMA,
    "gemma2": _LLAMA,
    "gemma3_text": _QK_NORM,
    "granite": _LLAMA,
    "smollm3": _LLAMA,
    "starcoder2": _LLAMA,
    "olmo2": replace(_QK_NORM, flat_norm=True),
    "olmo3": replace(_QK_NORM, flat_norm=True),
    "phi": _QK_LAYERNORM,
    "phi3": Family("layers", "self_attn", "qkv_proj", "qkv_proj", stacked),
    "stablelm": _QK_LAYERNORM,
    "gpt2": Family("h", "attn", "c_attn", "c_attn", stacked),
    "gpt_neox": Family("layers", "attention", "query_key_value", "query_key_value", interleaved),
    "falcon": Family(
        "h", "self_attention", "query_key_value", "query_key_value", interleaved, heads=falcon_heads
    ),
    "opt": replace(_LLAMA, blocks="decoder.layers"),
}


def family_of(model_type: str) -> Family:
    """Look up the layout of a model family.

    Raises:
        HostError: The family is not in the table.
    """
    try:
        return FAMILIES[model_type]
    except KeyError:
        raise HostError(
            f"Models of type {model_type!r} are not supported yet (supported: "
            f"{', '.join(FAMILIES)}); docs/families.md says how to add one, usually with one line "
            "in s3_retriever/host/families.py."
        ) from None


def _get(module: nn.Module, path: str) -> nn.Module:
    try:
        return module.get_submodule(path)
    except AttributeError:
        raise HostError(
            f"The layer {type(module).__name__} has no module {path!r}; "
            "this model departs from its family's usual layout."
        ) from None
