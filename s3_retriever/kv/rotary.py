"""The rotary position embedding, put on keys and taken off again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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

    def rotate(self, keys: Tensor, positions: Tensor) -> Tensor:
        """Put positions on keys.

        Args:
            keys: float32 [batch, heads, tokens, head size].
            positions: Of each token, int64 [batch, tokens].

        Returns:
            Rotated keys, shaped as before.
        """
        return self._turn(keys, positions.float(), self.scaling)

    def restore(self, keys: Tensor, positions: Tensor) -> Tensor:
        """Take positions off keys; the arguments and the result are as those of `rotate`."""
        return self._turn(keys, -positions.float(), 1 / self.scaling)

    def to(self, device: torch.device) -> Rotary:
        """The same rotation on a device."""
        return Rotary(self.frequencies.to(device), self.scaling)

    def _turn(self, keys: Tensor, positions: Tensor, scaling: float) -> Tensor:
        pairs = len(self.frequencies)
        if not pairs:
            return keys
        angles = (positions[:, :, None] * self.frequencies)[:, None]
        cosine, sine = angles.cos() * scaling, angles.sin() * scaling
        first, second, rest = keys.split([pairs, pairs, keys.shape[-1] - 2 * pairs], dim=-1)
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine, rest], -1)
