"""The metric of queries: how much errors in keys change attention."""

from __future__ import annotations

import torch
from torch import Tensor

# Added to the mean square of the queries in each direction, which has mean 1. With less, what is
# fitted to one text suits the queries of another one less.
_LEAST_SQUARE = 1.0


def metric_of(moments: Tensor) -> Tensor:
    """The metric in which errors in keys weigh what queries make of them.

    Args:
        moments: Second moments of the queries, float32 [..., size, size], in any unit.

    Returns:
        float32 [..., size, size]: the symmetric root of the sum of the identity and the moments,
        scaled to a mean square of 1. Products with it turn keys into vectors of that metric.
    """
    scales = moments.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(1e-12)
    squares, directions = torch.linalg.eigh(moments / scales[..., None, None])
    lengths = (squares.clamp_min(0) + _LEAST_SQUARE).sqrt()
    metric: Tensor = directions * lengths[..., None, :] @ directions.mT
    return metric
