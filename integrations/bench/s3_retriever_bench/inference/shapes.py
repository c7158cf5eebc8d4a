"""Shapes of decoders whose weights are random, as speed and memory do not depend on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from s3_retriever.errors import InputError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Only a limit: the positions are rotary and take no memory.
_POSITIONS = 1 << 18
BOS, EOS = 0, 1


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a decoder.

    Attributes:
        family: Model type of transformers.
        layers: How many.
        width: Of the hidden states.
        query_heads: Heads of the queries.
        key_heads: Heads of keys and values.
        head_size: Width of a head.
        intermediate: Width inside the feed-forward networks.
        vocabulary: Rows of the embeddings, which are also those of the LM head.
        lengths: Tokens of the contexts to measure where nothing else is said.
    """

    family: str
    layers: int
    width: int
    query_heads: int
    key_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    lengths: tuple[int, ...]

    def config(self) -> PretrainedConfig:
        """The configuration of a model of this shape."""
        from transformers import AutoConfig

        return AutoConfig.for_model(
            self.family,
            num_hidden_layers=self.layers,
            hidden_size=self.width,
            num_attention_heads=self.query_heads,
            num_key_value_heads=self.key_heads,
            head_dim=self.head_size,
            intermediate_size=self.intermediate,
            vocab_size=self.vocabulary,
            max_position_embeddings=_POSITIONS,
            tie_word_embeddings=True,
            bos_token_id=BOS,
            eos_token_id=EOS,
        )


DEFAULT_SHAPE = "135m"
SHAPES = {
    DEFAULT_SHAPE: Shape("llama", 30, 576, 9, 3, 64, 1536, 49_152, (4096, 8192, 16_384, 32_768)),
    "0.6b": Shape("qwen3", 28, 1024, 16, 8, 128, 3072, 151_936, (4096, 8192)),
}


def shape_named(name: str) -> Shape:
    """A shape by its name.

    Raises:
        InputError: There is none of that name.
    """
    if name not in SHAPES:
        raise InputError(f"There is no shape {name!r}; choose one of {', '.join(SHAPES)}.")
    return SHAPES[name]
