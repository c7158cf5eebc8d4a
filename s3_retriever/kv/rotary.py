"""The rotary position embedding, put on keys and taken off again."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

# Positions of a block in the tables of angles.
_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Rotary:
    """Rotates pairs of coordinates by angles that grow with the position (Su et al. 2021).

    Coordinate i of the first half of the rotated ones pairs with coordinate i of the second half,
    as in every family of the table of hosts; coordinates after these stay as they are.

    Attributes:
        frequencies: Angle a position of each pair, float32 [pairs]; empty for a layer that does
            not rotate its keys.
        scaling: Factor that some extensions of the context put on the rotated coordinates.
    """

    frequencies: Tensor
    scaling: float = 1.0
    _tables: list[tuple[Tensor, Tensor]] = field(default_factory=list, compare=False, repr=False)

    def rotate(self, keys: Tensor, positions: Tensor) -> Tensor:
        """Put positions on keys.

        Args:
            keys: float32 [batch, heads, tokens, head size].
            positions: Of each token, int64 [batch, tokens].

        Returns:
            Rotated keys, shaped as before.
        """
        return self._turn(keys, positions, self.scaling)

    def restore(self, keys: Tensor, positions: Tensor) -> Tensor:
        """Take positions off keys; the arguments and the result are as those of `rotate`."""
        return self._turn(keys, -positions, 1 / self.scaling)

    def equals(self, other: Rotary) -> bool:
        """Whether another rotation is the same."""
        same = torch.equal(self.frequencies, other.frequencies)
        return same and self.scaling == other.scaling

    def tables(self, length: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of positions in two parts, whole blocks and what is beyond them.

        Args:
            length: Positions, on either side of 0.

        Returns:
            At the positions within a block, scaled, float32 [2, 64, pairs]; and at the first
            position of each block, float32 [2, blocks, pairs].
        """
        blocks = length // _BLOCK + 2
        if not self._tables or self._tables[0][1].shape[1] < blocks:
            # More than asked for: with each new token, one more position is needed.
            near = self._angles(torch.arange(_BLOCK)) * self.scaling
            far = self._angles(torch.arange(2 * blocks) * _BLOCK)
            self._tables[:] = [(near.float(), far.float())]
        return self._tables[0]

    def to(self, device: torch.device) -> Rotary:
        """The same rotation on a device."""
        if self.frequencies.device == device:
            return self
        return Rotary(self.frequencies.to(device), self.scaling)

    def _turn(self, keys: Tensor, positions: Tensor, scaling: float) -> Tensor:
        pairs = len(self.frequencies)
        if not pairs:
            return keys
        cosine, sine = (self._angles(positions)[:, :, None] * scaling).float()
        first, second, rest = (
            keys[..., :pairs],
            keys[..., pairs : 2 * pairs],
            keys[..., 2 * pairs :],
        )
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine, rest], -1)

    def _angles(self, positions: Tensor) -> Tensor:
        """Cosines and sines at positions of any shape, float64 [2, ..., pairs].

        In float32, far positions would come out differently as a sum of two.
        """
        frequencies = self.frequencies.double()
        angles = positions.to(frequencies)[..., None] * frequencies
        return torch.stack([angles.cos(), angles.sin()])
