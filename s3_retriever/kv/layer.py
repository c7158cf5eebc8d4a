"""`AtomLayer`: the keys and values of one layer, recent ones exact and older ones in codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from s3_retriever.errors import CodebookError, InputError, S3Error
from s3_retriever.kv.atoms import Atoms, Codes
from s3_retriever.kv.rotary import Rotary

try:
    from transformers.cache_utils import CacheLayerMixin

    # Older layers have other methods.
    _ = CacheLayerMixin.get_max_length
except (ImportError, AttributeError) as error:
    raise S3Error(
        "AtomCache needs transformers 5.14 or later; upgrade it with: "
        "pip install --upgrade transformers"
    ) from error

# Tokens leave the window in blocks: encoding many at once costs less a token.
BLOCK = 32


@dataclass(frozen=True, slots=True)
class LayerAtoms:
    """What encodes one layer: dictionaries of its keys and values, and the keys' rotation."""

    key: Atoms
    value: Atoms
    rotary: Rotary

    def to(self, device: torch.device) -> LayerAtoms:
        """The same on a device."""
        return LayerAtoms(self.key.to(device), self.value.to(device), self.rotary.to(device))


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """How a cache compresses.

    Attributes:
        key_k: Atoms of a key.
        value_k: Atoms of a value.
        recent: How many of the last tokens stay exact, at least; up to 32 more do until a block is
            full.
        sinks: How many of a sequence's first tokens stay exact.
    """

    key_k: int
    value_k: int
    recent: int
    sinks: int


class AtomLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer of an `AtomCache`, as transformers uses it.

    Each token has a slot, counted from 0 with the padding on the left, and a position, that of the
    rotary embedding, which does not count the padding. Slots are codes up to some point and
    exact from there on. Sinks have codes like the others, and lie over them when they are read.

    Attributes:
        atoms: The dictionaries, on the device of the keys.
        keys: The exact keys, rotated [batch, heads, tokens, head size], in the model's dtype.
        values: The exact values, shaped alike.
        key_codes: Codes of all earlier keys, before the rotary embedding.
        value_codes: Codes of all earlier values.
        sink_keys: The first keys of each sequence, exact and rotated [batch, heads, sinks, head
            size]; zeros for those that have not left the window.
        sink_values: The same for values.
        padding: Slots before the first token of each sequence, int64 [batch].
    """

    is_sliding = False
    is_croppable = True

    def __init__(self, atoms: LayerAtoms, settings: CacheSettings, positions: int | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.atoms = atoms
        self._settings = settings
        self._positions = positions
        self.reset()

    def reset(self) -> None:
        """Forget everything, so that the cache can take another prompt."""
        self.is_initialized = False
        self.keys = self.values = None
        self.key_codes = self.value_codes = Codes(torch.empty(0), torch.empty(0))
        self.sink_keys = self.sink_values = self.padding = torch.empty(0)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take batch size, dtype and device from the first keys and values.

        Raises:
            CodebookError: The codebook is of a model with other heads.
        """
        batch, heads, _, size = key_states.shape
        fitted = (self.atoms.key.heads, self.atoms.key.size)
        if fitted != (heads, size) or value_states.shape[-1] != size:
            raise CodebookError(
                f"The codebook was fitted for {fitted[0]} key heads of size {fitted[1]}, but the "
                f"model has {heads} of size {size}; fit one for this model with s3r fit --kv."
            )
        self.atoms = self.atoms.to(key_states.device)
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        sinks = self._settings.sinks
        self.sink_keys = key_states.new_zeros(batch, heads, sinks, size)
        self.sink_values = value_states.new_zeros(batch, heads, sinks, size)
        self.key_codes = self.atoms.key.encode(self.keys, self._settings.key_k)
        self.value_codes = self.atoms.value.encode(self.values, self._settings.value_k)
        self.padding = torch.zeros(batch, dtype=torch.long, device=key_states.device)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Add tokens, and encode those that leave the window.

        Args:
            key_states: Rotated keys [batch, heads, new tokens, head size].
            value_states: Values, shaped alike.
            kwargs: What the model's attention was called with, under `kwargs`; its `position_ids`
                tell where sequences begin behind their padding.

        Returns:
            Keys and values of all tokens, as attention takes them.

        Raises:
            CodebookError: The codebook is of a model with other heads.
            InputError: The batch, dtype or device is not that of the tokens before, or there are
                more tokens than the model has positions.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self._check(key_states)
        past, new = self.get_seq_length(), key_states.shape[2]
        padding = self._padding(past + new, kwargs.get("kwargs")) if not past else self.padding
        self._check_positions(past + new, padding)
        self.padding = padding
        # A single token's attention may work on the codes, which therefore change before and not
        # after it. Many tokens are compressed at once, before the next layer has its own.
        single = key_states.shape[2] == 1
        if single:
            self._compress()
        keys, values = self.exact
        self.keys = torch.cat([keys, key_states], dim=2)
        self.values = torch.cat([values, value_states], dim=2)
        if single and len(self.key_codes) and key_states.device.type == "cpu":
            return CodedStates.pair(self)
        states = self.read()
        self._compress()
        return states

    def read(self) -> tuple[Tensor, Tensor]:
        """Reconstruct the rotated keys and the values of all tokens, in the model's dtype."""
        exact_keys, exact_values = self.exact
        coded = len(self.key_codes)
        if not coded:
            return exact_keys, exact_values
        positions = torch.arange(coded, device=self.padding.device) - self.padding[:, None]
        keys = self.atoms.rotary.rotate(self.atoms.key.decode(self.key_codes), positions)
        keys = keys.to(exact_keys.dtype)
        values = self.atoms.value.decode(self.value_codes).to(exact_values.dtype)
        slots = self.sink_slots()
        rows, sinks = (slots < coded).nonzero(as_tuple=True)
        keys[rows, :, slots[rows, sinks]] = self.sink_keys[rows, :, sinks]
        values[rows, :, slots[rows, sinks]] = self.sink_values[rows, :, sinks]
        return torch.cat([keys, exact_keys], dim=2), torch.cat([values, exact_values], dim=2)

    @property
    def exact(self) -> tuple[Tensor, Tensor]:
        """The keys and values that are not encoded; there are none before the first token."""
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Number of tokens, padding included."""
        return len(self.key_codes) + self.exact[0].shape[2] if self.is_initialized else 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Number of slots that new queries look at, and the first of these slots."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """-1: there is no limit but memory."""
        return -1

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last tokens.

        Args:
            tokens_to_remove: Their number as a negative whole number, as transformers has it.

        Raises:
            InputError: The number is positive, or there are fewer tokens.
        """
        length = self.get_seq_length() + tokens_to_remove
        if tokens_to_remove > 0 or length < 0:
            raise InputError(
                f"A cache of {self.get_seq_length()} tokens cannot be cropped by "
                f"{tokens_to_remove}; pass the number of tokens to remove as a negative number."
            )
        if not self.is_initialized:
            return
        coded = min(len(self.key_codes), length)
        self.keys, self.values = (tensor[:, :, : length - coded] for tensor in self.exact)
        self.key_codes = self.key_codes.map(lambda tensor: tensor[:, :, :coded])
        self.value_codes = self.value_codes.map(lambda tensor: tensor[:, :, :coded])

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Put the sequences of beams, int64 [batch], in the place of those that are there."""
        self._change_batch(lambda tensor: tensor.index_select(0, beam_idx.to(tensor.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each sequence."""
        self._change_batch(lambda tensor: tensor.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some sequences, in their order, int64 [n] or bool [batch]."""
        self._change_batch(lambda tensor: tensor[indices.to(tensor.device)])

    def state(self) -> dict[str, Tensor]:
        """All that the layer holds, as tensors by name; nothing before the first token."""
        if not self.is_initialized:
            return {}
        keys, values = self.exact
        return {
            "keys": keys,
            "values": values,
            "key_atoms": self.key_codes.atoms,
            "key_scales": self.key_codes.scales,
            "value_atoms": self.value_codes.atoms,
            "value_scales": self.value_codes.scales,
            "sink_keys": self.sink_keys,
            "sink_values": self.sink_values,
            "padding": self.padding,
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` returned.

        Raises:
            KeyError: A tensor is missing.
            ValueError: A tensor has another shape or type, or names atoms that there are not.
        """
        self.lazy_initialization(state["keys"], state["values"])
        exact, coded = state["keys"].shape[2], state["key_scales"].shape[2]
        tokens = {"keys": exact, "values": exact, "sink_keys": None, "sink_values": None}
        for name, empty in self.state().items():
            shape = list(empty.shape)
            if len(shape) > 2 and (length := tokens.get(name, coded)) is not None:
                shape[2] = length
            if list(state[name].shape) != shape or state[name].dtype != empty.dtype:
                raise ValueError(f"{name} is {state[name].dtype} {list(state[name].shape)}")
        self._set(state)
        atoms = self.atoms
        if not (atoms.key.covers(self.key_codes) and atoms.value.covers(self.value_codes)):
            raise ValueError("it names atoms beyond the dictionary")

    def _set(self, state: dict[str, Tensor]) -> None:
        self.keys, self.values = state["keys"], state["values"]
        self.key_codes = Codes(state["key_atoms"], state["key_scales"])
        self.value_codes = Codes(state["value_atoms"], state["value_scales"])
        self.sink_keys, self.sink_values = state["sink_keys"], state["sink_values"]
        self.padding = state["padding"]

    def _change_batch(self, change: Callable[[Tensor], Tensor]) -> None:
        if self.is_initialized:
            self._set({name: change(tensor) for name, tensor in self.state().items()})

    def _compress(self) -> None:
        """Encode what has left the window, once it fills a block; sinks are kept as they are."""
        keys, values = self.exact
        surplus = keys.shape[2] - self._settings.recent
        if surplus < BLOCK:
            return
        coded = len(self.key_codes)
        # Copies, as slices would keep all the rest.
        self.keys, self.values = keys[:, :, surplus:].clone(), values[:, :, surplus:].clone()
        keys, values = keys[:, :, :surplus], values[:, :, :surplus]
        slots = self.sink_slots() - coded
        rows, sinks = ((slots >= 0) & (slots < surplus)).nonzero(as_tuple=True)
        # Copies, as tensors made in inference mode cannot be changed outside of it.
        self.sink_keys, self.sink_values = self.sink_keys.clone(), self.sink_values.clone()
        self.sink_keys[rows, :, sinks] = keys[rows, :, slots[rows, sinks]]
        self.sink_values[rows, :, sinks] = values[rows, :, slots[rows, sinks]]
        positions = torch.arange(coded, coded + surplus, device=keys.device)
        positions = positions - self.padding[:, None]
        settings, atoms = self._settings, self.atoms
        plain = atoms.rotary.restore(keys.float(), positions)
        key_codes = atoms.key.encode(plain, settings.key_k)
        value_codes = atoms.value.encode(values, settings.value_k)
        self.key_codes = self.key_codes.followed_by(key_codes)
        self.value_codes = self.value_codes.followed_by(value_codes)

    def sink_slots(self) -> Tensor:
        """The slots of each sequence's first tokens, int64 [batch, sinks]."""
        first = self.padding.clamp_min(0)[:, None]
        return first + torch.arange(self._settings.sinks, device=self.padding.device)

    def _padding(self, length: int, attention: dict[str, Any] | None) -> Tensor:
        """Count the slots before each sequence: the last token's slot less its position.

        Without positions all sequences begin in slot 0. A constant error costs no correctness, as
        keys are turned back as far as they were turned; it only makes codes less exact.
        """
        positions = (attention or {}).get("position_ids")
        if not isinstance(positions, Tensor) or positions.ndim != 2:
            return torch.zeros_like(self.padding)
        padding = length - 1 - positions[:, -1].to(self.padding)
        return padding.expand(len(self.padding)).clone()

    def _check(self, key_states: Tensor) -> None:
        held, given = ((len(t), t.dtype, t.device) for t in (self.exact[0], key_states))
        if held != given:
            raise InputError(
                f"The cache holds {_batch(*held)}, but the model now gives {_batch(*given)}; call "
                "reset() before another batch, and make a new cache for a model whose dtype or "
                "device has changed."
            )

    def _check_positions(self, slots: int, padding: Tensor) -> None:
        if self._positions is None or slots <= self._positions:
            return
        needed = slots - int(padding.min())
        if needed > self._positions:
            raise InputError(
                f"The model has {self._positions} positions, and the cache would hold {needed} "
                "tokens; give a shorter prompt, or generate fewer tokens."
            )


def _batch(size: int, dtype: torch.dtype, device: torch.device) -> str:
    return f"{size} sequences in {str(dtype).removeprefix('torch.')} on {device}"


class CodedStates(Tensor):
    """The keys or the values of an `AtomLayer`, in the place of the tensor that `update` returns.

    Whatever is done with them, other than by the attention `s3_atoms`, is done with the
    reconstructed tensor.

    Attributes:
        layer: The layer, which must not change before they are used.
        side: 0 for keys, 1 for values.
        whole: Reconstructed keys and values, which both sides share; empty until they are needed.
    """

    layer: AtomLayer
    side: int
    whole: list[Tensor]

    @classmethod
    def pair(cls, layer: AtomLayer) -> tuple[CodedStates, CodedStates]:
        """The keys and the values of a layer."""
        whole: list[Tensor] = []
        keys, values = (torch.empty(0).as_subclass(cls) for _ in range(2))
        for side, states in enumerate((keys, values)):
            states.layer, states.side, states.whole = layer, side, whole
        return keys, values

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Reconstruct, then call the function."""
        del types
        with torch._C.DisableTorchFunctionSubclass():
            return func(
                *map(_reconstructed, args),
                **{name: _reconstructed(value) for name, value in (kwargs or {}).items()},
            )


def _reconstructed(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map(_reconstructed, value))
    if not isinstance(value, CodedStates):
        return value
    if not value.whole:
        value.whole.extend(value.layer.read())
    return value.whole[value.side]
