"""Loops over codes, compiled by numba."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


# Sums may be taken in any order, which lets the compiler compute several at once.
@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})
def pursue_rows(
    scores: Any, gram: Any, dependent: float, least: Any, weights: Any, indices: Any
) -> None:
    """Orthogonal matching pursuit of n vectors, of which only scalar products are known.

    The chosen atoms of a vector are kept as orthonormal directions times an upper triangle, and the
    scalar products of all atoms with each direction (Rubinstein et al. 2008, "Batch-OMP").

    Args:
        scores: Scalar products of the vectors with all atoms, float32 [n, features]; overwritten.
        gram: Scalar products of the atoms with one another, float32 [features, features].
        dependent: An atom of which less than this is left beside the chosen ones ends the search.
        least: So does an atom with at most this score, float32 [n].
        weights: Takes the weights, float32 [n, k], zeros.
        indices: Takes the atoms, int64 [n, k], zeros.
    """
    n, features = scores.shape
    k = weights.shape[1]
    products = np.empty((k, features), dtype=np.float32)
    triangle = np.empty((k, k), dtype=np.float32)
    for row in range(n):
        score = scores[row]
        chosen = 0
        for i in range(k):
            best = _strongest(score)
            left = gram[best, best]
            for j in range(i):
                triangle[j, i] = products[j, best]
                left -= products[j, best] * products[j, best]
            if left < dependent * dependent or abs(score[best]) <= least[row]:
                break
            length = np.sqrt(left)
            triangle[i, i] = length
            product, atom = products[i], gram[best]
            for f in range(features):
                product[f] = atom[f]
            for j in range(i):
                share, earlier = triangle[j, i], products[j]
                for f in range(features):
                    product[f] -= share * earlier[f]
            along = score[best] / length
            inverse = np.float32(1.0) / length
            for f in range(features):
                product[f] *= inverse
                score[f] -= along * product[f]
            indices[row, i] = best
            weights[row, i] = along
            chosen = i + 1
        _solve(triangle, weights[row, :chosen])


@njit(nogil=True, cache=True)
def _strongest(score: Any) -> int:
    """The atom with the largest score of either sign; the first one if none is a number."""
    best, highest = 0, np.float32(-1.0)
    for f in range(len(score)):
        size = abs(score[f])
        if size > highest:
            best, highest = f, size
    return best


@njit(nogil=True, cache=True)
def _solve(triangle: Any, values: Any) -> None:
    """Replace values by the solution of an upper triangular system."""
    for i in range(len(values) - 1, -1, -1):
        for j in range(i + 1, len(values)):
            values[i] -= triangle[i, j] * values[j]
        values[i] /= triangle[i, i]


@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})
def score_keys(
    queries: Any,
    codes: Any,
    steps: Any,
    index_bits: int,
    atoms: Any,
    centres: Any,
    cosine: Any,
    sine: Any,
    padding: int,
    scores: Any,
) -> None:
    """Scalar products of the queries of each key head with keys that exist as codes only.

    The rotation of a key depends on its position, so a table of `q . atom` would serve one position
    alone. A key is put together in the processor's nearest cache instead, and never stored.

    Args:
        queries: float32 [heads, queries, size].
        codes: int16 [heads, tokens, k]; see `Codes`.
        steps: What a step of each token's weights is worth, float32 [heads, tokens].
        index_bits: Bits of a code that number its atom.
        atoms: float32 [features, size].
        centres: What each head adds to its atoms, float32 [heads, size].
        cosine: Of the angles at each position, float32 [positions, pairs].
        sine: The same for the sine.
        padding: Number of tokens before the first position, which take its angles.
        scores: Takes the products, float32 [heads, queries, tokens].
    """
    size = queries.shape[2]
    indices = (1 << index_bits) - 1
    key, rotated = np.empty(size, dtype=np.float32), np.empty(size, dtype=np.float32)
    for head in range(codes.shape[0]):
        for token in range(codes.shape[1]):
            for i in range(size):
                key[i] = centres[head, i]
            for j in range(codes.shape[2]):
                code = np.int32(codes[head, token, j])
                weight = np.float32(code >> index_bits) * steps[head, token]
                atom = atoms[code & indices]
                for i in range(size):
                    key[i] += weight * atom[i]
            position = max(token - padding, 0)
            _rotate(key, cosine[position], sine[position], rotated)
            for q in range(queries.shape[1]):
                total = np.float32(0.0)
                for i in range(size):
                    total += queries[head, q, i] * rotated[i]
                scores[head, q, token] = total


@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})
def _rotate(key: Any, cosine: Any, sine: Any, rotated: Any) -> None:
    """Put a position on a key; see `Rotary`."""
    pairs = len(cosine)
    for i in range(pairs):
        first, second = key[i], key[pairs + i]
        rotated[i] = first * cosine[i] - second * sine[i]
        rotated[pairs + i] = second * cosine[i] + first * sine[i]
    for i in range(2 * pairs, len(key)):
        rotated[i] = key[i]


@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})
def sum_value_weights(attention: Any, codes: Any, steps: Any, index_bits: int, sums: Any) -> None:
    """Sum the weights of each atom over the tokens, as attention weights them.

    Args:
        attention: Attention of each query to each token, float32 [heads, queries, tokens].
        codes: int16 [heads, tokens, k]; see `Codes`.
        steps: What a step of each token's weights is worth, float32 [heads, tokens].
        index_bits: Bits of a code that number its atom.
        sums: Takes the sums, float32 [heads, queries, features], zeros.
    """
    k = codes.shape[2]
    weights, indices = np.empty(k, dtype=np.float32), np.empty(k, dtype=np.int64)
    for head in range(codes.shape[0]):
        for token in range(codes.shape[1]):
            for j in range(k):
                code = np.int32(codes[head, token, j])
                weights[j] = np.float32(code >> index_bits) * steps[head, token]
                indices[j] = code & ((1 << index_bits) - 1)
            for q in range(attention.shape[1]):
                look, query_sums = attention[head, q, token], sums[head, q]
                for j in range(k):
                    query_sums[indices[j]] += look * weights[j]
