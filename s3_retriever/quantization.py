"""Quantization: mean states of sentences and keys of tokens, four bits per coordinate.

Both are first rotated to random axes, at most 384 whatever the width of the host. Along these, all
coordinates have the same spread, so one step size serves them all; and fewer axes than the host is
wide preserve the cosine of two directions almost as well (Johnson and Lindenstrauss, 1984).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

# Most axes of a vector; two of them share a byte.
_AXES = 384
# Values of a coordinate, evenly spaced; they cut off the outer 0.7 % of a normal distribution.
_VALUES = 16
_WIDEST = 2.7
# The distance of two values, in standard deviations of a coordinate.
STEP = 2 * _WIDEST / _VALUES


def vector_bytes(width: int) -> int:
    """Count the bytes of a quantized vector for states of some width."""
    return (min(width, _AXES) + 1) // 2


@cache
def random_axes(width: int) -> NDArray[np.float32]:
    """Make the orthonormal axes of vectors, which are the same on every machine.

    Args:
        width: Width of the states.

    Returns:
        float32 [width, axes]; an odd number of axes is filled up with an axis of zeros.
    """
    n_axes = min(width, _AXES)
    # An index must be read with the axes it was made with: this stream of numbers is frozen.
    noise = np.random.RandomState(0).standard_normal((width, n_axes))
    rotation, triangle = np.linalg.qr(noise)
    # Which sign a column gets is up to the library.
    rotation *= np.sign(np.diag(triangle))
    axes = np.zeros((width, 2 * vector_bytes(width)), dtype=np.float32)
    axes[:, :n_axes] = rotation
    return axes


def quantize(coordinates: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Quantize directions.

    Args:
        coordinates: Their coordinates along the random axes, float32 [n, axes], of any length.

    Returns:
        uint8 [n, axes / 2]: even coordinates in the lower half of a byte, odd ones in the upper.
    """
    length = np.linalg.norm(coordinates, axis=1, keepdims=True)
    return quantize_standard(coordinates / np.maximum(length, 1e-9) * coordinates.shape[1] ** 0.5)


def quantize_standard(coordinates: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Quantize numbers with a mean of 0 and a standard deviation of 1.

    Args:
        coordinates: float32 [n, axes].

    Returns:
        uint8 [n, axes / 2], as `quantize`.
    """
    steps = np.floor(coordinates / STEP)
    values = np.clip(steps + _VALUES // 2, 0, _VALUES - 1).astype(np.uint8)
    packed: NDArray[np.uint8] = values[:, ::2] | values[:, 1::2] << 4
    return packed


def direction_of(vector: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Restore the direction of a quantized vector [bytes]: float32 [axes], of length 1."""
    values = np.stack([vector & 15, vector >> 4], axis=1).reshape(-1) - np.float32(_VALUES - 1) / 2
    direction: NDArray[np.float32] = values / np.linalg.norm(values)
    return direction


def cosine_weights(direction: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Compute the weights that turn quantized vectors into their cosine with a direction.

    Args:
        direction: Its coordinates along the random axes, float32 [axes], of length 1.

    Returns:
        Factors of the lower and the upper halves of each byte, float32 [2, axes / 2], and the
        offset to add to the weighted sum.
    """
    step = STEP / len(direction) ** 0.5
    halves = np.stack([direction[::2], direction[1::2]]) * np.float32(step)
    return halves, -float(halves.sum()) * (_VALUES - 1) / 2
