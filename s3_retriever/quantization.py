"""Codes: what is kept of the mean state of a sentence, a direction in four bits a coordinate.

A direction is turned to random axes first, 384 at most, whatever the width of the host: along
these, coordinates are spread alike, so that a single step serves all of them, and fewer axes than
the host is wide tell the cosine of two directions about as well (Johnson and Lindenstrauss, 1984).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

# Axes at most; two of them share a byte.
_AXES = 384
# Values of a coordinate, evenly spaced; of a normal distribution the outer 0.7 % are cut off.
_VALUES = 16
_WIDEST = 2.7


def code_bytes(width: int) -> int:
    """Bytes of a code for states of some width."""
    return (min(width, _AXES) + 1) // 2


@cache
def random_axes(width: int) -> NDArray[np.float32]:
    """Orthonormal directions [width, axes], always the same ones; of an odd number the last is 0.

    Args:
        width: Of the states.
    """
    axes = min(width, _AXES)
    # An index must be read with the axes it was made with: this stream of numbers is frozen.
    noise = np.random.RandomState(0).standard_normal((width, axes))
    turned, triangle = np.linalg.qr(noise)
    # Which sign a column gets is up to the library.
    turned *= np.sign(np.diag(triangle))
    found = np.zeros((width, 2 * code_bytes(width)), dtype=np.float32)
    found[:, :axes] = turned
    return found


def encode(turned: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Codes of directions.

    Args:
        turned: Their coordinates along the random axes [n, axes], of any length.

    Returns:
        uint8 [n, axes / 2]: even coordinates in the lower half of a byte, odd ones in the upper.
    """
    length = np.linalg.norm(turned, axis=1, keepdims=True)
    steps = turned / np.maximum(length, 1e-9) / _step(turned.shape[1])
    values = np.clip(np.floor(steps) + _VALUES // 2, 0, _VALUES - 1).astype(np.uint8)
    codes: NDArray[np.uint8] = values[:, ::2] | values[:, 1::2] << 4
    return codes


def weights_of(direction: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """What the halves of each byte weigh, so that codes score their cosine with a direction.

    Args:
        direction: Coordinates of a direction of length 1 along the random axes [axes].

    Returns:
        float32 [2, axes / 2], factors of the lower and the upper halves, and what is added to
        their sum.
    """
    halves = np.stack([direction[::2], direction[1::2]]) * np.float32(_step(len(direction)))
    return halves, -float(halves.sum()) * (_VALUES - 1) / 2


def _step(axes: int) -> float:
    """The distance of two values of a coordinate, whose deviation is `axes ** -0.5`."""
    return float(2 * _WIDEST / _VALUES / np.sqrt(axes))
