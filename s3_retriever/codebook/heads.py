"""Retrieval heads: the keys of a few attention heads, to be kept in an index.

Some heads of a language model look from a question at what answers it (Wu et al. 2024, "Retrieval
Head Mechanistically Explains Long-Context Factuality"; Zhang et al. 2025, QRHead). Their queries
and keys are compared before the rotary embedding, so that the distance of two tokens plays no part.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from s3_retriever.errors import CodebookError, InputError
from s3_retriever.host import Host
from s3_retriever.host.batches import run_batches
from s3_retriever.host.taps import Head, Tap, read_each
from s3_retriever.progress import progress_bar
from s3_retriever.quantization import STEP, random_axes
from s3_retriever.sae.weights import load_weights, save_weights

_KEYS_FILE = "keys.safetensors"


@dataclass(frozen=True)
class KeyHead:
    """How the keys of one key head become numbers of four bits, and queries meet them.

    Along random axes, a key's coordinates around the centre all have much the same spread.

    Attributes:
        centre: Mean key, float32 [size].
        scale: Standard deviation of a coordinate around the centre, float32 [1].
    """

    centre: Tensor
    scale: Tensor

    @property
    def size(self) -> int:
        """Size of a key."""
        return len(self.centre)

    def coordinates(self, keys: Tensor) -> Tensor:
        """Turn keys [n, size] into coordinates [n, axes] with a standard deviation of 1."""
        centred = keys.float() - self.centre.to(keys.device)
        coordinates: Tensor = centred @ self._axes(keys.device) / self.scale.to(keys.device)
        return coordinates

    def queries(self, queries: Tensor) -> Tensor:
        """Turn queries [n, size] into factors [n, axes] of quantized coordinates.

        The weighted sum of a key's coordinates is the attention logit `q . k / sqrt(size)`, but
        for a constant of the query, which a softmax over keys does not see.
        """
        factor = self.scale.to(queries.device) * (STEP / self.size**0.5)
        factors: Tensor = queries.float() @ self._axes(queries.device) * factor
        return factors

    def _axes(self, device: torch.device) -> Tensor:
        return torch.from_numpy(random_axes(self.size)).to(device)

    def save(self, folder: Path) -> None:
        """Write centre and scale into a folder, which is made if it does not exist."""
        folder.mkdir(parents=True, exist_ok=True)
        save_weights({"centre": self.centre, "scale": self.scale}, folder / _KEYS_FILE)

    @classmethod
    def load(cls, folder: Path) -> KeyHead:
        """Read what `save` wrote.

        Raises:
            CodebookError: The file is missing or damaged.
        """
        path = folder / _KEYS_FILE
        key_head = cls(**load_weights(path, "key head", {"centre": (None,), "scale": (1,)}))
        if key_head.scale <= 0:
            raise CodebookError(
                f"The key head {path} has a scale that is not positive; fetch or fit the codebook "
                "again."
            )
        return key_head


def fit_key_heads(
    host: Host, heads: Sequence[Head], texts: Sequence[str], *, progress: bool = True
) -> dict[Head, KeyHead]:
    """Measure centre and scale of the keys that query heads look at.

    Args:
        host: The model that reads.
        heads: Query heads.
        texts: Plain texts.
        progress: Whether a bar shows rate and time left (only in a terminal).

    Raises:
        InputError: The host has no such head, or the texts have fewer than two tokens.
    """
    check_heads(heads, host)
    shape = host.family.heads(host.model.config)
    names = sorted({head.key_head(shape.queries_per_key) for head in heads})
    taps = {name: Tap("key", name.layer, name.number) for name in names}
    count = 0
    sums = {name: torch.zeros(shape.size, dtype=torch.float64) for name in names}
    squares = {name: torch.zeros(shape.size, dtype=torch.float64) for name in names}
    run = partial(read_each, host, list(taps.values()))
    with progress_bar(
        progress, total=sum(map(len, texts)), unit="char", unit_scale=True, desc="Reading keys"
    ) as bar:
        for window, seen in run_batches(host.windows(texts), run, host.batch_tokens):
            kept = ~torch.stack([part.sinks for part in seen.values()]).any(0)
            count += int(kept.sum())
            for name in names:
                keys = seen[taps[name]].values[kept].double().cpu()
                sums[name] += keys.sum(0)
                squares[name] += keys.square().sum(0)
            bar.update(sum(end - start for start, end, _ in window.sentences))
    if count < 2:
        raise InputError(f"Heads need more text than {count} tokens; give more.")
    fitted = {}
    for name in names:
        centre = sums[name] / count
        variance = (squares[name] / count - centre.square()).mean().clamp_min(1e-12)
        fitted[name] = KeyHead(centre.float(), variance.sqrt().float()[None])
    return fitted


def check_heads(heads: Iterable[Head], host: Host) -> None:
    """Refuse query heads that a host does not have.

    Raises:
        InputError: There is no such head.
    """
    layers, queries = len(host.blocks), host.family.heads(host.model.config).queries
    for head in heads:
        if head.layer >= layers or head.number >= queries:
            raise InputError(
                f"There is no head {head}: host {host.name!r} has layers 0 to {layers - 1} and "
                f"query heads 0 to {queries - 1}."
            )
