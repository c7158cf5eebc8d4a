"""`AtomCache`: a key-value cache that `generate` uses in the place of transformers' own."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers.cache_utils import Cache

from s3_retriever.errors import CodebookError, InputError, brief
from s3_retriever.host.device import find_device
from s3_retriever.kv.codebook import KVCodebook
from s3_retriever.kv.layer import AtomLayer, CacheSettings
from s3_retriever.paths import regular_size
from s3_retriever.sae.weights import save_weights
from s3_retriever.types import check_count, check_path


class AtomCache(Cache):
    """The key-value cache in semantic atoms (STA-Attention, arXiv 2512.10547).

    The last tokens and the first ones stay exact. Each other key and value is kept as a few atoms
    of its layer's dictionary with their weights: at the defaults 52 bytes a head and token, where
    bfloat16 takes 256 with heads of 64. Keys are encoded before the rotary embedding.

        cache = AtomCache(KVCodebook.load("smollm2"))
        model.generate(**inputs, cache=cache)

    Args:
        codebook: The dictionaries, fitted for this model with `s3r fit HOST --kv`; SmolLM2's are
            shipped.
        key_k: Atoms of a key.
        value_k: Atoms of a value.
        recent: How many of the last tokens stay exact, at least.
        sinks: How many of the first tokens of each sequence stay exact.

    Raises:
        InputError: The codebook is not a `KVCodebook`, or a number is out of range.
    """

    def __init__(
        self,
        codebook: KVCodebook,
        key_k: int = 8,
        value_k: int = 16,
        recent: int = 128,
        sinks: int = 4,
    ) -> None:
        self.codebook = _check_codebook(codebook)
        self.settings = CacheSettings(
            key_k=_check_k(key_k, "key_k", codebook.features),
            value_k=_check_k(value_k, "value_k", codebook.features),
            recent=check_count(recent, "recent", least=0),
            sinks=check_count(sinks, "sinks", least=0),
        )
        self._atom_layers = [
            AtomLayer(atoms, self.settings, codebook.positions) for atoms in codebook.layers
        ]
        super().__init__(layers=[*self._atom_layers])

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Add the keys and values of new tokens at one layer; see `AtomLayer.update`.

        Raises:
            CodebookError: The codebook is of a model with another number of layers or other heads.
            InputError: As `AtomLayer.update`.
        """
        depth = len(self._atom_layers)
        # Of a shallower model, the last layers are still empty when the second step begins.
        shallower = layer_idx == 0 and len(self._lengths()) > 1
        if layer_idx >= depth or shallower:
            raise CodebookError(
                f"The codebook was fitted for a model with {depth} layers, and this model has "
                f"{'fewer' if shallower else 'more'}; fit one for this model with s3r fit --kv."
            )
        keys, values = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        return keys, values

    @property
    def nbytes(self) -> int:
        """Bytes of all that it holds: codes, exact tokens and sinks; the codebook's not counted."""
        return sum(tensor.nbytes for tensor in self._tensors().values())

    def save(self, path: str | Path) -> None:
        """Write the cache to a safetensors file, all or nothing.

        Args:
            path: The file; replaced if it exists.

        Raises:
            InputError: The file cannot be written.
        """
        path = check_path(path)
        draft = path.with_name(f".{path.name}.tmp")
        about = json.dumps({"codebook": self.codebook.identity, "settings": asdict(self.settings)})
        tensors = {name: tensor.contiguous() for name, tensor in self._tensors().items()}
        try:
            save_weights(tensors, draft, {"cache": about})
            draft.replace(path)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                draft.unlink()
            raise InputError(
                f"The cache cannot be written to {path} ({brief(error)}); check free space and "
                "permissions."
            ) from error

    @classmethod
    def load(cls, path: str | Path, codebook: KVCodebook, device: str = "cpu") -> AtomCache:
        """Read a cache that `save` wrote.

        Args:
            path: The file.
            codebook: The codebook that it was made with.
            device: The model's device.

        Raises:
            InputError: The file cannot be read or is damaged, or there is no such device.
            CodebookError: The cache was made with another codebook.
        """
        path, codebook = check_path(path), _check_codebook(codebook)
        place = find_device(device)
        try:
            regular_size(path)
            with safe_open(path, framework="pt", device=str(place)) as file:
                about = json.loads(file.metadata()["cache"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            identity, settings = about["codebook"], about["settings"]
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise _unreadable(path, error) from error
        if identity != codebook.identity:
            raise CodebookError(
                f"The cache {path} was made with another codebook than {codebook.host_name}'s "
                f"{codebook.identity}; load that one."
            )
        try:
            cache = cls(codebook, **settings)
            cache._restore(tensors)
        except (InputError, CodebookError, ValueError, KeyError, TypeError, IndexError,
                RuntimeError) as error:  # fmt: skip
            raise _unreadable(path, error) from error
        return cache

    def _lengths(self) -> set[int]:
        return {layer.get_seq_length() for layer in self._atom_layers}

    def _tensors(self) -> dict[str, Tensor]:
        return {
            f"{i}.{name}": tensor
            for i, layer in enumerate(self._atom_layers)
            for name, tensor in layer.state().items()
        }

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        """Fill all layers; a cache that was saved before its first token has no tensors."""
        for i, layer in enumerate(self._atom_layers if tensors else ()):
            prefix = f"{i}."
            layer.restore(
                {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            )
        if len(self._lengths()) > 1:
            raise ValueError("its layers hold different numbers of tokens")


def _check_codebook(codebook: KVCodebook) -> KVCodebook:
    if not isinstance(codebook, KVCodebook):
        raise InputError(
            f"The codebook must be a KVCodebook, not {type(codebook).__name__}; fit one with "
            "s3r fit HOST --kv and read it with KVCodebook.load."
        )
    return codebook


def _check_k(k: int, name: str, features: int) -> int:
    k = check_count(k, name)
    if k > features:
        raise InputError(f"{name} must be at most {features}, the codebook's features, not {k}.")
    return k


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"The cache {path} cannot be read ({brief(error)}); save it again.")
