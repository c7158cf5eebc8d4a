"""Where each model family keeps what a tap reads.

Adding a family is one line in `FAMILIES`: its `model_type` (from `config.json`) and its layout.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from s3_retriever.errors import HostError


@dataclass(frozen=True, slots=True)
class Family:
    """Module paths of one layout of transformer.

    Attributes:
        blocks: From the base model to its list of layers.
        attention: From a layer to the module that owns the projections.
        key: From the attention module to the key projection; `query` likewise.
        key_norm: From the attention module to a norm applied to the projected keys before the
            rotary embedding, where the family has one; `query_norm` likewise.
        bidirectional: Whether a token sees the tokens to its right.
    """

    blocks: str
    attention: str
    key: str
    query: str
    key_norm: str = ""
    query_norm: str = ""
    bidirectional: bool = False

    def key_modules(self, block: nn.Module) -> tuple[nn.Module, nn.Module | None]:
        """A layer's key projection, and the norm of its keys where the family has one."""
        return self._modules(block, self.key, self.key_norm)

    def query_modules(self, block: nn.Module) -> tuple[nn.Module, nn.Module | None]:
        """A layer's query projection, and the norm of its queries where the family has one."""
        return self._modules(block, self.query, self.query_norm)

    def _modules(
        self, block: nn.Module, projection: str, norm: str
    ) -> tuple[nn.Module, nn.Module | None]:
        attention = _get(block, self.attention)
        return _get(attention, projection), _get(attention, norm) if norm else None


_BERT = Family("encoder.layer", "attention.self", "key", "query", bidirectional=True)
_LLAMA = Family("layers", "self_attn", "k_proj", "q_proj")
_LLAMA_QK_NORM = Family("layers", "self_attn", "k_proj", "q_proj", "k_norm", "q_norm")

FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "electra": _BERT,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _LLAMA,
    "granite": _LLAMA,
    "qwen3": _LLAMA_QK_NORM,
    "gemma3_text": _LLAMA_QK_NORM,
    "olmo2": _LLAMA_QK_NORM,
}


def family_of(model_type: str) -> Family:
    """The layout of a model family.

    Raises:
        HostError: The family is not in the table.
    """
    try:
        return FAMILIES[model_type]
    except KeyError:
        raise HostError(
            f"Models of type {model_type!r} are not known yet (known: {', '.join(FAMILIES)}); "
            "adding one is a line in s3_retriever/host/families.py."
        ) from None


def _get(module: nn.Module, path: str) -> nn.Module:
    try:
        return module.get_submodule(path)
    except AttributeError:
        raise HostError(
            f"The layer {type(module).__name__} has no module {path!r}; "
            "this model departs from its family's usual layout."
        ) from None
