"""`TopKEncoder`: the encoding half of a Top-k SAE."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from s3_retriever.host.batches import padded_rows

_BLOCK_ROWS = 1_024
# Rows are padded to multiples of this, fewer of them to powers of two: the matrix library keeps
# what it prepares for every shape, and the number of tokens of a batch is a new one each time.
_ROW_STEP = 128


@dataclass(frozen=True, slots=True)
class TopKEncoder:
    """The strongest features of activations.

    Attributes:
        weights: [width, features].
        bias: [features], in the dtype of the weights; the centring of the input is folded in,
            which saves a pass over it.
        k: Features of a row at most.
    """

    weights: Tensor
    bias: Tensor
    k: int

    def encode(self, x: Tensor, k: int | None = None) -> tuple[Tensor, Tensor]:
        """The strongest features of each row.

        Args:
            x: Activations [rows, width], any floating dtype.
            k: How many features to keep, all of them at most; the encoder's own k where left out.

        Returns:
            Values [rows, k], float32, strongest first, and feature indices [rows, k], int64. A
            feature that does not fire (its value is not above zero) has index -1 and value 0.
        """
        k = self.k if k is None else min(k, self.weights.shape[1])
        values, indices = [], []
        for block in torch.split(x, _BLOCK_ROWS):
            value, index = self._preactivations(block).topk(k, dim=1)
            values.append(value.float().clamp_min(0.0))
            indices.append(torch.where(value > 0, index, -1))
        return torch.cat(values), torch.cat(indices)

    def _preactivations(self, block: Tensor) -> Tensor:
        padded = functional.pad(block, (0, 0, 0, padded_rows(len(block), _ROW_STEP) - len(block)))
        return torch.addmm(self.bias, padded.to(self.weights.dtype), self.weights)[: len(block)]
