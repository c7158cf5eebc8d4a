"""`Atoms`: the dictionaries of one layer's keys or values, and vectors as codes in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from s3_retriever.errors import InputError
from s3_retriever.kv.pursuit import pursue
from s3_retriever.sae import TopKSAE

# An atom and its weight share 16 bits. Four of them at least are the weight's.
_CODE_BITS = 16
MAX_ATOMS = 1 << (_CODE_BITS - 4)


@dataclass(frozen=True, slots=True)
class Codes:
    """Vectors of one layer, each as a few atoms with weights.

    Attributes:
        atoms: int16 [batch, heads, tokens, k]. The lower bits are the number of an atom, the upper
            ones its weight in steps of the vector's scale (see `Atoms`).
        scales: The largest weight of each vector, float16 [batch, heads, tokens].
    """

    atoms: Tensor
    scales: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> Codes:
        """Apply the same change to both tensors."""
        return Codes(change(self.atoms), change(self.scales))

    def followed_by(self, later: Codes) -> Codes:
        """These codes with those of later tokens behind them."""
        return Codes(
            torch.cat([self.atoms, later.atoms], dim=2),
            torch.cat([self.scales, later.scales], dim=2),
        )

    def __len__(self) -> int:
        """Number of tokens."""
        return self.scales.shape[2]

    @property
    def nbytes(self) -> int:
        """Size of both tensors in bytes."""
        return self.atoms.nbytes + self.scales.nbytes


@dataclass(frozen=True, slots=True)
class Atoms:
    """What encodes and decodes the keys, or the values, of one layer.

    Each head is centred and scaled, and has a dictionary of its own.

    Attributes:
        dictionaries: The atoms of each head, float32 [heads, features, head size]; times the
            head's metric, rows of unit norm.
        centres: Mean of each head, float32 [heads, head size].
        scales: Root mean square of each head's centred coordinates, float32 [heads].
        metrics: Errors of a head count as long as they are times this matrix, float32 [heads, head
            size, head size]; the identity if all directions count alike.
    """

    dictionaries: Tensor
    centres: Tensor
    scales: Tensor
    metrics: Tensor

    @property
    def features(self) -> int:
        """Number of atoms of a head."""
        return self.dictionaries.shape[1]

    @property
    def heads(self) -> int:
        """Number of key heads."""
        return len(self.centres)

    @property
    def size(self) -> int:
        """Size of a head."""
        return self.centres.shape[1]

    def to(self, device: torch.device) -> Atoms:
        """The same dictionaries on a device."""
        if self.centres.device == device:
            return self
        parts = (self.dictionaries, self.centres, self.scales, self.metrics)
        return Atoms(*(part.to(device) for part in parts))

    def sae(self, head: int, k: int) -> TopKSAE:
        """The dictionary of a head as a Top-k SAE of standardised vectors, with a tied encoder.

        Its `save` writes the SAELens layout. Its encoder chooses all atoms at once, and explains
        less than `encode` does.

        Raises:
            InputError: There is no such head.
        """
        if not 0 <= head < self.heads:
            raise InputError(
                f"There is no key head {head!r}: choose one from 0 to {self.heads - 1}."
            )
        dictionary, metric = self.dictionaries[head], self.metrics[head]
        weights = {
            "W_dec": dictionary,
            "W_enc": (dictionary @ metric @ metric.T).T.contiguous(),
            "b_enc": dictionary.new_zeros(self.features),
            "b_dec": dictionary.new_zeros(self.size),
        }
        return TopKSAE.of(weights, k)

    def standardise(self, vectors: Tensor) -> Tensor:
        """Centre and scale heads: any dtype [batch, heads, tokens, size] to float32."""
        return (vectors.float() - self.centres[:, None]) / self.scales[:, None, None]

    @torch.no_grad()
    def encode(self, vectors: Tensor, k: int) -> Codes:
        """Encode vectors in k atoms each, found by orthogonal matching pursuit.

        Args:
            vectors: [batch, heads, tokens, size], any floating dtype.
            k: Atoms of a vector.
        """
        measured = self.standardise(vectors) @ self.metrics
        found = [
            pursue(
                measured[:, head].flatten(0, 1), (dictionary @ self.metrics[head]).contiguous(), k
            )
            for head, dictionary in enumerate(self.dictionaries)
        ]
        by_row = vectors.shape[0], vectors.shape[2], k
        weights, indices = (
            torch.stack([part.view(by_row) for part in parts], 1)
            for parts in zip(*found, strict=True)
        )
        largest = weights.abs().amax(-1).to(torch.float16)
        steps = self._steps / largest.float().clamp_min(1e-9)
        levels = (weights * steps[..., None]).round().clamp(-self._steps, self._steps).long()
        packed = indices | levels << self.index_bits
        return Codes(packed.to(torch.int16), largest)

    @torch.no_grad()
    def decode(self, codes: Codes) -> Tensor:
        """Reconstruct vectors: float32 [batch, heads, tokens, size]."""
        packed = codes.atoms.int()
        # The shift keeps the sign, which is the weight's.
        weights = (packed >> self.index_bits) * (codes.scales.float() / self._steps)[..., None]
        firsts = torch.arange(self.heads, device=packed.device)[:, None, None] * self.features
        indices = (packed & (1 << self.index_bits) - 1) + firsts
        rows = functional.embedding_bag(
            indices.flatten(0, 2),
            self.dictionaries.flatten(0, 1),
            per_sample_weights=weights.flatten(0, 2),
            mode="sum",
        )
        vectors = rows.view(*codes.scales.shape, self.size)
        return vectors * self.scales[:, None, None] + self.centres[:, None]

    def unexplained(self, vectors: Tensor, k: int) -> float:
        """Share of the variance of vectors [batch, heads, tokens, size] that k atoms leave.

        The squared error of decoded codes over the squares of the centred and scaled vectors, both
        in the heads' metrics.
        """
        given = self.standardise(vectors) @ self.metrics
        restored = self.standardise(self.decode(self.encode(vectors, k))) @ self.metrics
        return float((restored - given).square().sum() / given.square().sum())

    def covers(self, codes: Codes) -> bool:
        """Whether all codes name atoms of these dictionaries."""
        indices = codes.atoms.int() & (1 << self.index_bits) - 1
        return not codes.atoms.numel() or int(indices.max()) < self.features

    def step_sizes(self, codes: Codes) -> Tensor:
        """What a step of each vector's weights is worth, float32 [batch, heads, tokens]."""
        return codes.scales.float() * (self.scales / self._steps)[:, None]

    @property
    def index_bits(self) -> int:
        """Bits of a code that number its atom; the upper ones are its weight."""
        return max((self.features - 1).bit_length(), 1)

    @property
    def _steps(self) -> int:
        """The largest weight in steps; the smallest is its negative."""
        return (1 << (_CODE_BITS - self.index_bits - 1)) - 1
