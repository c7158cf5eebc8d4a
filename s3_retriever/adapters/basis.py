"""From the features that tell two behaviours apart to an orthonormal basis."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from s3_retriever.errors import InputError

# Differences and singular values below this share of the largest are rounding.
_NOTHING = 1e-5


def rank_features(wanted: Tensor, unwanted: Tensor, count: int) -> Tensor:
    """Find the features whose mean activations differ most.

    Args:
        wanted: Mean activations on one side [features].
        unwanted: The same on the other side.
        count: Most features.

    Returns:
        Their indices, the largest difference of either sign first, int64. Features that do not
        differ are left out.

    Raises:
        InputError: No feature differs.
    """
    differences = (wanted - unwanted).abs()
    found = differences.topk(min(count, len(differences)))
    floor = _NOTHING * float(torch.maximum(wanted, unwanted).max())
    chosen = found.indices[found.values > floor]
    if not len(chosen):
        raise InputError(
            "No feature differs between the wanted and the unwanted examples; give examples that "
            "differ in the behaviour, or compare them at other tokens."
        )
    return chosen


def make_basis(directions: Tensor, variance: float, rank: int | None) -> tuple[Tensor, Tensor]:
    """Find the principal directions of a few decoder directions.

    The directions are not centred: what they have in common is part of the behaviour. Principal
    directions are orthonormal as they are, so the QR step of SAILS would change nothing.

    Args:
        directions: Decoder rows of the chosen features [n, width].
        variance: Share of their variance to keep, above 0 and at most 1.
        rank: How many principal directions to keep instead; None to go by `variance`.

    Returns:
        The basis, float32 [rank, width], and the share of the variance that each direction has
        [rank].

    Raises:
        InputError: The directions have a lower rank than asked for.
    """
    unit = functional.normalize(directions.float(), dim=1)
    _, sizes, principal = torch.linalg.svd(unit, full_matrices=False)
    shares = sizes.square() / sizes.square().sum()
    available = int((sizes > _NOTHING * sizes[0]).sum())
    if rank is None:
        kept = int((shares.cumsum(0) < variance - _NOTHING).sum()) + 1
        rank = min(kept, available)
    if rank > available:
        raise InputError(
            f"rank must be at most {available}, as many directions as the {len(directions)} chosen "
            f"features span, not {rank}; lower it, or raise features."
        )
    return principal[:rank].contiguous(), shares[:rank]
