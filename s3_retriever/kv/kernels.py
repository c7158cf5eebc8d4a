"""Loops over codes, compiled by numba."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import njit

# Sums may be taken in any order, which lets the compiler compute several at once.
_ANY_ORDER = {"reassoc", "nsz", "contract"}


@njit(nogil=True, cache=True, fastmath=_ANY_ORDER)
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
    """The atom with the largest score of either sign, the first one among equals."""
    # Without their sign bit, floats are in the order of these whole numbers, whose maximum, unlike
    # that of floats, the compiler computes for several at once.
    bits = score.view(np.int32)
    highest = np.int32(-1)
    for f in range(len(bits)):
        highest = max(highest, bits[f] & np.int32(0x7FFFFFFF))
    best = 0
    while bits[best] & np.int32(0x7FFFFFFF) != highest:
        best += 1
    return best


@njit(nogil=True, cache=True)
def _solve(triangle: Any, values: Any) -> None:
    """Replace values by the solution of an upper triangular system."""
    for i in range(len(values) - 1, -1, -1):
        for j in range(i + 1, len(values)):
            values[i] -= triangle[i, j] * values[j]
        values[i] /= triangle[i, i]


@cache
def key_scorer(size: int, pairs: int) -> Any:  # noqa: C901
    """The loop that scores coded keys, compiled for heads of one size.

    A compiler that does not know the sizes makes it two to three times as slow.

    Args:
        size: Coordinates of a head.
        pairs: Pairs of them that are rotated.

    Returns:
        A function with the arguments of `score_keys` below.
    """

    @njit(nogil=True, cache=True, fastmath=_ANY_ORDER)
    def score_keys(  # noqa: C901
        queries: Any,
        codes: Any,
        steps: Any,
        index_bits: int,
        dictionaries: Any,
        centres: Any,
        near: Any,
        far: Any,
        padding: int,
        scores: Any,
    ) -> None:
        """Scalar products of the queries of each key head with keys that exist as codes only.

        The rotation of a key depends on its position, so a table of `q . atom` would serve one
        position alone. A key is put together in the processor's nearest cache instead, and never
        stored. Positions are rotated in two steps: the queries back by whole blocks of positions,
        and the key by the rest, whose few angles stay in the nearest cache as well.

        Args:
            queries: float32 [heads, queries, size].
            codes: int16 [heads, tokens, k]; see `Codes`.
            steps: What a step of each token's weights is worth, float32 [heads, tokens].
            index_bits: Bits of a code that number its atom.
            dictionaries: Atoms of each head, float32 [heads, features, size].
            centres: What each head adds to its atoms, float32 [heads, size].
            near: Cosines and sines at the positions of a block, float32 [2, block, pairs].
            far: Those at the first position of each block, float32 [2, blocks, pairs]. Blocks
                before position 0 take the opposite angles.
            padding: Number of tokens before position 0.
            scores: Takes the products, float32 [heads, queries, tokens].
        """
        heads, tokens, k = codes.shape
        count, length = queries.shape[1], near.shape[1]
        # All is written out, as helpers cost time. The first eight atoms are added at once, and
        # queries are multiplied four at once; those that are missing have a weight of zero.
        weights = np.zeros(max(k, 8), dtype=np.float32)
        indices = np.zeros(len(weights), dtype=np.uint64)
        turned = np.zeros((-(-count // 4) * 4, size), dtype=np.float32)
        key = np.empty(size, dtype=np.float32)
        for head in range(heads):
            atoms, centre = dictionaries[head], centres[head]
            for block in range(-padding // length, (tokens - padding - 1) // length + 1):
                first = block * length + padding
                sign = np.float32(1 if block >= 0 else -1)
                _turn_back(queries[head], far[:, abs(block)], sign, pairs, turned)
                for token in range(max(first, 0), min(first + length, tokens)):
                    step = steps[head, token]
                    for j in range(k):
                        code = np.int32(codes[head, token, j])
                        weights[j] = np.float32(code >> np.int32(index_bits)) * step
                        indices[j] = np.uint64(code & ((1 << index_bits) - 1))
                    w0, w1, w2, w3 = weights[0], weights[1], weights[2], weights[3]
                    a0, a1, a2, a3 = (
                        atoms[indices[0]],
                        atoms[indices[1]],
                        atoms[indices[2]],
                        atoms[indices[3]],
                    )
                    w4, w5, w6, w7 = weights[4], weights[5], weights[6], weights[7]
                    a4, a5, a6, a7 = (
                        atoms[indices[4]],
                        atoms[indices[5]],
                        atoms[indices[6]],
                        atoms[indices[7]],
                    )
                    for i in range(size):
                        front = w0 * a0[i] + w1 * a1[i] + w2 * a2[i] + w3 * a3[i]
                        back = w4 * a4[i] + w5 * a5[i] + w6 * a6[i] + w7 * a7[i]
                        key[i] = centre[i] + front + back
                    for j in range(8, k):
                        _add(weights[j], atoms[indices[j]], key)
                    cosine, sine = near[0, token - first], near[1, token - first]
                    for q in range(0, count, 4):
                        t0 = t1 = t2 = t3 = np.float32(0)
                        for i in range(pairs):
                            one = key[i] * cosine[i] - key[pairs + i] * sine[i]
                            other = key[pairs + i] * cosine[i] + key[i] * sine[i]
                            t0 += turned[q, i] * one + turned[q, pairs + i] * other
                            t1 += turned[q + 1, i] * one + turned[q + 1, pairs + i] * other
                            t2 += turned[q + 2, i] * one + turned[q + 2, pairs + i] * other
                            t3 += turned[q + 3, i] * one + turned[q + 3, pairs + i] * other
                        for i in range(2 * pairs, size):
                            t0 += turned[q, i] * key[i]
                            t1 += turned[q + 1, i] * key[i]
                            t2 += turned[q + 2, i] * key[i]
                            t3 += turned[q + 3, i] * key[i]
                        scores[head, q, token] = t0
                        if q + 1 < count:
                            scores[head, q + 1, token] = t1
                        if q + 2 < count:
                            scores[head, q + 2, token] = t2
                        if q + 3 < count:
                            scores[head, q + 3, token] = t3

    return score_keys


@njit(nogil=True, cache=True)
def _turn_back(queries: Any, angles: Any, sign: Any, pairs: int, turned: Any) -> None:
    """Take a position off queries; `sign` is that of the position."""
    for q in range(len(queries)):
        for i in range(pairs):
            cosine, sine = angles[0, i], angles[1, i] * sign
            one, other = queries[q, i], queries[q, pairs + i]
            turned[q, i] = one * cosine + other * sine
            turned[q, pairs + i] = other * cosine - one * sine
        for i in range(2 * pairs, queries.shape[1]):
            turned[q, i] = queries[q, i]


@njit(nogil=True, cache=True, fastmath=_ANY_ORDER)
def _add(weight: Any, atom: Any, key: Any) -> None:
    for i in range(len(key)):
        key[i] += weight * atom[i]


@njit(nogil=True, cache=True, fastmath=_ANY_ORDER)
def sum_value_weights(attention: Any, codes: Any, steps: Any, index_bits: int, sums: Any) -> None:
    """Sum the weights of each atom over the tokens, as attention weights them.

    Args:
        attention: Attention of each query to each token, float32 [heads, queries, tokens].
        codes: int16 [heads, tokens, k]; see `Codes`.
        steps: What a step of each token's weights is worth, float32 [heads, tokens].
        index_bits: Bits of a code that number its atom.
        sums: Takes the sums of four queries each, float32 [heads, queries / 4, features, 4], zeros.
    """
    heads, tokens, k = codes.shape
    last = attention.shape[1] - 1
    for head in range(heads):
        for four in range(sums.shape[1]):
            # Where fewer than four are left, the last one is summed again.
            q = 4 * four
            q1, q2, q3 = min(q + 1, last), min(q + 2, last), min(q + 3, last)
            four_sums = sums[head, four]
            for token in range(tokens):
                step = steps[head, token]
                look0, look1 = attention[head, q, token] * step, attention[head, q1, token] * step
                look2, look3 = attention[head, q2, token] * step, attention[head, q3, token] * step
                for j in range(k):
                    code = np.int32(codes[head, token, j])
                    weight = np.float32(code >> np.int32(index_bits))
                    atom_sums = four_sums[np.uint64(code & ((1 << index_bits) - 1))]
                    atom_sums[0] += look0 * weight
                    atom_sums[1] += look1 * weight
                    atom_sums[2] += look2 * weight
                    atom_sums[3] += look3 * weight
