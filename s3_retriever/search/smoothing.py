"""One-dimensional box smoothing that stays within documents."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def smooth(
    scores: NDArray[np.float64], first_tokens: NDArray[np.int64], kernel: int
) -> NDArray[np.float64]:
    """Sum the scores of the `kernel` tokens around each token of its own document.

    S3-Attention convolves token scores before it looks for peaks; the shape of its kernel is not
    stated, a box is taken.

    Args:
        scores: Token scores [n].
        first_tokens: Position of each document's first token, ascending, the first of them 0.
        kernel: Width in tokens; 1 leaves the scores as they are.

    Returns:
        Smoothed scores [n].
    """
    if kernel == 1 or len(scores) == 0:
        return scores
    left, right = box(kernel)
    positions = np.arange(len(scores))
    low, high = positions - left, positions + right + 1
    starts = np.unique(first_tokens)
    ends = np.append(starts[1:], len(scores))
    # Only the tokens next to a document's border need their window cut.
    for offset in range(left):
        near = starts + offset
        inside = near < ends
        low[near[inside]] = starts[inside]
    for offset in range(right):
        near = ends - 1 - offset
        inside = near >= starts
        high[near[inside]] = ends[inside]
    total = np.concatenate([[0.0], np.cumsum(scores)])
    return np.asarray(total[high] - total[low])


def box(kernel: int) -> tuple[int, int]:
    """How many tokens a kernel takes to the left and to the right of its centre."""
    return kernel // 2, (kernel - 1) // 2
