"""The cache layers that `s3r bench cache` sets beside atoms: whole numbers, and eviction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from s3_retriever.kv.layer import AtomLayer

# What every method keeps exact, and how many tokens it compresses at once.
RECENT, SINKS, BLOCK = 128, 4, 32
# Bytes of a floating-point number in a cache, as in bfloat16.
FLOAT_BYTES = 2


class RoundedLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values in whole numbers of a few bits, with a scale for each vector.

    The numbers are kept in a byte each, and counted as packed: reading them takes less time than it
    would with packing.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sides = [_RoundedStates(bits) for _ in range(2)]
        self._length = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: Any, **_options: Any
    ) -> tuple[Tensor, Tensor]:
        """Add tokens, and round those that leave the window; see `DynamicLayer.update`."""
        self._length += key_states.shape[2]
        keys, values = self._sides
        return keys.extended(key_states), values.extended(value_states)

    def get_seq_length(self) -> int:
        """Number of tokens."""
        return self._length

    @property
    def nbytes(self) -> float:
        """Bytes of both sides."""
        return sum(side.nbytes for side in self._sides)


class _RoundedStates:
    """The keys, or the values, of a layer."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._highest = 2 ** (bits - 1) - 1
        # The sinks, then the window.
        self._exact = self._levels = self._steps = torch.empty(0)

    def extended(self, states: Tensor) -> Tensor:
        """Add tokens [batch, heads, tokens, size], and return those of all tokens."""
        if not self._exact.numel():
            self._exact = states[:, :, :0]
            self._levels = states[:, :, :0].to(torch.int8)
            self._steps = states[:, :, :0, :1].half()
        self._exact = torch.cat([self._exact, states], dim=2)
        sinks, window = self._exact[:, :, :SINKS], self._exact[:, :, SINKS:]
        rounded = (self._levels * self._steps.to(states.dtype)).to(states.dtype)
        whole = torch.cat([sinks, rounded, window], dim=2)
        surplus = window.shape[2] - RECENT
        if surplus >= BLOCK:
            leaving = window[:, :, :surplus]
            steps = (leaving.abs().amax(-1, keepdim=True) / self._highest).half()
            levels = leaving / steps.to(states.dtype).clamp_min(1e-7)
            levels = levels.round().clamp(-self._highest, self._highest).to(torch.int8)
            self._levels = torch.cat([self._levels, levels], dim=2)
            self._steps = torch.cat([self._steps, steps], dim=2)
            self._exact = torch.cat([sinks, window[:, :, surplus:]], dim=2)
        return whole

    @property
    def nbytes(self) -> float:
        """Bytes, levels packed."""
        exact = FLOAT_BYTES * self._exact.numel()
        return exact + self._levels.numel() * self._bits / 8 + self._steps.nbytes


class EvictingLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A share of the tokens, with the keys and values and at the positions that they had.

    Attributes:
        states: What the layer's attention took in since the first token [batch, tokens, width],
            where scores need it; it does not count as part of the cache.
    """

    def __init__(self, share: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._share = share
        self._seen = 0
        self.states = torch.empty(0)

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: Any, **_options: Any
    ) -> tuple[Tensor, Tensor]:
        """Add tokens; see `DynamicLayer.update`."""
        self._seen += key_states.shape[2]
        keys, values = super().update(key_states, value_states)
        return keys, values

    def get_seq_length(self) -> int:
        """Number of tokens so far, the evicted ones among them."""
        return self._seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Number of slots that new queries look at, and the first of these slots."""
        return self.kept + query_length, self._seen - self.kept

    @property
    def kept(self) -> int:
        """Number of tokens that it holds."""
        return int(self.keys.shape[2]) if self.is_initialized and self.keys is not None else 0

    @property
    def surplus(self) -> int:
        """How many tokens it holds beyond those that it may keep."""
        old = max(self._seen - RECENT - SINKS, 0)
        return self.kept - min(self._seen, RECENT + SINKS) - int(self._share * old)

    def evict(self, scores: Tensor) -> None:
        """Remove the surplus: what scores lowest, but neither sinks nor the window.

        Args:
            scores: float [batch or 1, heads or 1, tokens].
        """
        assert self.keys is not None
        assert self.values is not None
        kept, size = self.kept - self.surplus, self.keys.shape[3]
        scores = scores.expand(*self.keys.shape[:3]).clone()
        scores[:, :, :SINKS] = scores[:, :, -RECENT:] = torch.inf
        best = scores.topk(kept, dim=2).indices.sort(dim=2).values[..., None]
        self.keys, self.values = (
            states.gather(2, best.expand(-1, -1, -1, size)) for states in (self.keys, self.values)
        )


def held_bytes(cache: Cache) -> float:
    """Bytes of all that a cache holds; a floating-point number counts as in bfloat16."""
    return sum(map(_layer_bytes, cache.layers))


def _layer_bytes(layer: Any) -> float:
    if isinstance(layer, RoundedLayer):
        return layer.nbytes
    held: dict[str, Any]
    if isinstance(layer, AtomLayer):
        held = layer.state()
    elif isinstance(layer, EvictingLayer):
        held = {"keys": layer.keys, "values": layer.values}
    else:
        held = vars(layer)
    return sum(
        tensor.numel() * (FLOAT_BYTES if tensor.is_floating_point() else tensor.itemsize)
        for tensor in _tensors(held)
    )


def _tensors(value: Any) -> Iterator[Tensor]:
    """The plain tensors inside of dictionaries, sequences and tensors that wrap others."""
    if isinstance(value, Tensor):
        inner = getattr(value, "__tensor_flatten__", None)
        if inner is None or type(value) is Tensor:
            yield value
        else:
            yield from (t for name in inner()[0] for t in _tensors(getattr(value, name)))
    elif isinstance(value, dict):
        yield from (tensor for part in value.values() for tensor in _tensors(part))
    elif isinstance(value, (list, tuple)):
        yield from (tensor for part in value for tensor in _tensors(part))
