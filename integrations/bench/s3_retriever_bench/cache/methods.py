"""The key-value caches that `s3r bench cache` compares, by name.

All of them keep the last 128 tokens and the first four as they are, and compress the others in
blocks of 32, like `AtomCache`; transformers' own quantised caches keep what they keep.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache

from s3_retriever import AtomCache, Host, InputError, KVCodebook
from s3_retriever.host.model import cache_argument
from s3_retriever.kv.atoms import Codes
from s3_retriever.kv.attention import ATOM_ATTENTION
from s3_retriever.kv.layer import AtomLayer
from s3_retriever_bench.cache.layers import (
    BLOCK,
    FLOAT_BYTES,
    RECENT,
    SINKS,
    EvictingLayer,
    RoundedLayer,
)

# Eviction keeps as many tokens as take the bytes of these atoms.
_EQUAL_K = (8, 16)
# Tokens between two times that transformers quantises, which is everything then.
_RESIDUAL = 128
_PRESSES = {
    "knorm": "KnormPress",
    "snapkv": "SnapKVPress",
    "expected-attention": "ExpectedAttentionPress",
}
DEFAULT_METHODS = (
    *("exact", "int8", "int4", "int3", "int2", "streaming"),
    *("atoms-4-8", "atoms-8-16", "atoms-16-32"),
)
METHODS = (
    "exact, int8, int4, int3, int2 (any from 2 to 8 bits), hqq-8 to hqq-1, quanto-4, quanto-2, "
    "streaming, knorm, snapkv, expected-attention, atoms-8-16 (any numbers of atoms of a key and "
    "of a value)"
)
_MISSING = {
    "hqq": "pip install hqq",
    "quanto": "pip install optimum-quanto",
    "kvpress": "pip install --no-deps kvpress cachetools",
}


@dataclass(frozen=True, slots=True)
class Prefix:
    """What the model caches of the beginning of a text, exactly.

    Attributes:
        keys: Of each layer, rotated [1, key heads, tokens, head size].
        values: Of each layer, shaped alike.
        states: What each layer's attention took in [1, tokens, width].
        rotation: Cosines and sines of the positions [1, tokens, head size].
        logits: After the last token [1, 1, vocabulary].
    """

    keys: list[Tensor]
    values: list[Tensor]
    states: list[Tensor]
    rotation: tuple[Tensor, Tensor]
    logits: Tensor

    def __len__(self) -> int:
        """Number of tokens."""
        return self.keys[0].shape[2]


class Reader:
    """A causal host that reads tokens with a given cache.

    Raises:
        HostError: It cannot generate.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.model: Any = host.causal
        self.cache_name = cache_argument(self.model)
        self.layers = len(host.blocks)
        heads = host.family.heads(host.model.config)
        self.heads, self.size = heads.keys, heads.size

    @torch.inference_mode()
    def read(self, ids: Sequence[int], cache: Cache) -> Tensor:
        """Read tokens behind those that the cache holds: logits [1, tokens, vocabulary]."""
        read = torch.tensor([list(ids)], device=self.host.device)
        logits: Tensor = self.model(input_ids=read, **{self.cache_name: cache}).logits
        return logits

    def prefix(self, ids: Sequence[int]) -> Prefix:
        """Read the beginning of a text with exact attention."""
        cache = DynamicCache(config=self.model.config)
        taken: list[tuple[Tensor, tuple[Tensor, Tensor]]] = []

        def take(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
            taken.append((kwargs["hidden_states"], kwargs["position_embeddings"]))

        hooks = [m.register_forward_pre_hook(take, with_kwargs=True) for m in self.attentions]
        try:
            logits = self.read(ids, cache)[:, -1:]
        finally:
            for hook in hooks:
                hook.remove()
        keys, values = ([getattr(layer, n) for layer in cache.layers] for n in ("keys", "values"))
        return Prefix(keys, values, [states for states, _ in taken], taken[0][1], logits)

    @property
    def attentions(self) -> list[Any]:
        """The attention module of every layer.

        Raises:
            InputError: The model has no such modules.
        """
        modules = [getattr(block, "self_attn", None) for block in self.host.blocks]
        if None in modules:
            raise InputError(
                f"Host {self.host.name!r} has no modules named self_attn; choose a model of the "
                "Llama kind."
            )
        return modules


class Method:
    """A way to keep keys and values; this one keeps them exactly.

    Attributes:
        name: Its name.
        block: Tokens after which its costs repeat.
        attention: The attention that the model computes with.
    """

    block = BLOCK
    attention = "sdpa"

    def __init__(self, name: str, reader: Reader) -> None:
        self.name = name
        self._reader = reader

    def make(self) -> Cache:
        """An empty cache."""
        return DynamicCache(config=self._reader.model.config)

    def fill(self, cache: Cache, prefix: Prefix, tokens: int | None = None) -> None:
        """Put a prefix into an empty cache.

        Args:
            cache: What `make` returned.
            prefix: What the model cached.
            tokens: How many tokens to put in, repeating the prefix as needed; None for it alone.
        """
        tokens = len(prefix) if tokens is None else tokens
        for layer, (keys, values) in enumerate(zip(prefix.keys, prefix.values, strict=True)):
            cache.update(_repeated(keys, tokens), _repeated(values, tokens), layer)

    def running(self) -> AbstractContextManager[Any]:
        """What must be in force while the model reads."""
        return nullcontext()


class _Rounded(Method):
    """Whole numbers of a few bits with a scale for each vector."""

    def __init__(self, name: str, reader: Reader, bits: int) -> None:
        super().__init__(name, reader)
        self._bits = bits

    def make(self) -> Cache:
        return Cache(layers=[RoundedLayer(self._bits) for _ in range(self._reader.layers)])


class _Quantized(Method):
    """The quantised cache of transformers, at its defaults for the backend."""

    block = _RESIDUAL

    def __init__(self, name: str, reader: Reader, backend: str, bits: int) -> None:
        super().__init__(name, reader)
        # As the documentation of transformers recommends.
        axis = 1 if backend == "hqq" else 0
        self._settings: dict[str, Any] = {
            "backend": backend,
            "nbits": bits,
            "axis_key": axis,
            "axis_value": axis,
        }
        try:
            self.make()
        except (ImportError, ValueError) as error:
            raise InputError(
                f"Method {name!r} is out of reach ({error}); install its backend with: "
                f"{_MISSING[backend]}"
            ) from error

    def make(self) -> Cache:
        from transformers.cache_utils import QuantizedCache

        return QuantizedCache(
            config=self._reader.model.config, residual_length=_RESIDUAL, **self._settings
        )


class _Evicting(Method):
    """The tokens that score highest, as many as take the bytes of 8 and 16 atoms."""

    def __init__(self, name: str, reader: Reader) -> None:
        super().__init__(name, reader)
        self._share = _code_bytes(*_EQUAL_K) / (2 * FLOAT_BYTES * reader.size)
        self._press = _press(name) if name in _PRESSES else None

    def make(self) -> Cache:
        return Cache(layers=[EvictingLayer(self._share) for _ in range(self._reader.layers)])

    def fill(self, cache: Cache, prefix: Prefix, tokens: int | None = None) -> None:
        tokens = len(prefix) if tokens is None else tokens
        super().fill(cache, prefix, tokens)
        cos, sin = (_repeated(t[:, None], tokens)[:, 0] for t in prefix.rotation)
        for i, module in enumerate(self._reader.attentions):
            layer: Any = cache.layers[i]
            layer.states = _repeated(prefix.states[i][:, None], tokens)[:, 0]
            self._evict(module, layer, (cos, sin))

    @contextmanager
    def running(self) -> Iterator[None]:
        hooks = [
            module.register_forward_hook(self._after, with_kwargs=True)
            for module in self._reader.attentions
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _after(self, module: Any, _args: Any, kwargs: dict[str, Any], _output: Any) -> None:
        cache = kwargs.get("cache", kwargs.get("past_key_values"))
        assert cache is not None
        layer = cache.layers[module.layer_idx]
        if not isinstance(layer, EvictingLayer):
            return
        if self._press is not None:
            layer.states = torch.cat([layer.states, kwargs["hidden_states"]], dim=1)
        self._evict(module, layer, kwargs["position_embeddings"])

    def _evict(self, module: Any, layer: EvictingLayer, rotation: tuple[Tensor, Tensor]) -> None:
        if layer.surplus < BLOCK:
            return
        scores = torch.arange(layer.kept, device=rotation[0].device).float().expand(1, 1, -1)
        if self._press is not None:
            module.rotary_emb = self._reader.host.model.rotary_emb
            options = {"position_embeddings": rotation}
            scores = self._press.score(
                module, layer.states, layer.keys, layer.values, None, options
            )
        layer.evict(scores)


class _Atoms(Method):
    """`AtomCache`."""

    attention = ATOM_ATTENTION

    def __init__(
        self, name: str, reader: Reader, codebook: KVCodebook, key_k: int, value_k: int
    ) -> None:
        super().__init__(name, reader)
        self._codebook, self._key_k, self._value_k = codebook, key_k, value_k
        # Refuses a budget beyond the dictionary at once.
        self.make()

    def make(self) -> Cache:
        return AtomCache(self._codebook, self._key_k, self._value_k, RECENT, SINKS)

    def fill(self, cache: Cache, prefix: Prefix, tokens: int | None = None) -> None:
        """Put a prefix into an empty cache; it is encoded once, and its codes are repeated."""
        tokens = len(prefix) if tokens is None else tokens
        encoded = min(tokens, len(prefix))
        super().fill(cache, prefix, encoded)
        missing = tokens - encoded
        if not missing:
            return
        for layer in cache.layers:
            assert isinstance(layer, AtomLayer)
            state = layer.state()
            for side in ("key", "value"):
                codes = Codes(state[f"{side}_atoms"], state[f"{side}_scales"])
                wanted = len(codes) + missing
                atoms = codes.atoms.repeat(1, 1, -(-wanted // len(codes)), 1)[:, :, :wanted]
                scales = codes.scales.repeat(1, 1, -(-wanted // len(codes)))[:, :, :wanted]
                state |= {f"{side}_atoms": atoms, f"{side}_scales": scales}
            layer.restore(state)


def _repeated(states: Tensor, tokens: int) -> Tensor:
    """The first `tokens` of states [1, heads, tokens, size], over and over."""
    times = -(-tokens // states.shape[2])
    return states.repeat(1, 1, times, 1)[:, :, :tokens]


def _code_bytes(key_k: int, value_k: int) -> int:
    """Bytes a head and token of codes: 2 an atom, and 2 for the scale of each vector."""
    return 2 * (key_k + value_k + 2)


def _press(name: str) -> Any:
    """What scores tokens by NVIDIA's kvpress.

    Its own hooks expect an older transformers, so that only its scores are used.

    Raises:
        InputError: kvpress is not installed.
    """
    try:
        import kvpress
    except ImportError as error:
        raise InputError(
            f"Method {name!r} is out of reach ({error}); install it with: {_MISSING['kvpress']}"
        ) from error
    press = getattr(kvpress, _PRESSES[name])
    return press(window_size=BLOCK) if name == "snapkv" else press()


def method_named(name: str, reader: Reader, codebook: KVCodebook | None) -> Method:
    """A way to keep keys and values, by its name.

    Args:
        name: See `METHODS`.
        reader: The model.
        codebook: The model's dictionaries, for atoms.

    Raises:
        InputError: There is no such method, what it needs is not installed, or atoms are asked for
            without a codebook.
    """
    if name == "exact":
        return Method(name, reader)
    if name == "streaming" or name in _PRESSES:
        return _Evicting(name, reader)
    if match := re.fullmatch(r"int([2-8])", name):
        return _Rounded(name, reader, int(match[1]))
    if match := re.fullmatch(r"(hqq|quanto)-([1-8])", name):
        return _Quantized(name, reader, match[1], int(match[2]))
    if match := re.fullmatch(r"atoms-(\d{1,4})-(\d{1,4})", name):
        if codebook is None:
            raise InputError(
                f"Method {name!r} needs the model's dictionaries; make them with s3r fit HOST "
                "--kv, and give their folder with --codebook."
            )
        return _Atoms(name, reader, codebook, int(match[1]), int(match[2]))
    raise InputError(f"There is no method {name!r}; choose from {METHODS}.")
