"""Orthogonal matching pursuit: the few atoms of a dictionary that explain a vector best."""

from __future__ import annotations

import torch
from torch import Tensor

# Vectors that are pursued at once: their scores against a thousand atoms stay in the cache.
_BLOCK_ROWS = 512
# An atom of which less than this is left beside those already chosen, and one with less than this
# share of the first one's score, adds nothing but rounding: the first takes huge weights, and the
# second one's weight is less than a code can hold.
_DEPENDENT = 0.05
_NEGLIGIBLE = 0.01


@torch.no_grad()
def pursue(vectors: Tensor, atoms: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Choose k atoms for each vector, one after another, and weight them by least squares.

    The next atom is the one with the largest scalar product, of either sign, with what the chosen
    ones leave unexplained (Pati et al. 1993).

    Args:
        vectors: float32 [n, width].
        atoms: The dictionary, rows of unit norm, float32 [features, width].
        k: How many atoms to choose, at most as many as there are features.

    Returns:
        Weights float32 [n, k], of either sign, and indices of the atoms int64 [n, k], in the order
        in which they were chosen. Where fewer atoms explain a vector, the others have weight 0.
    """
    weights = vectors.new_zeros(len(vectors), k)
    indices = torch.zeros(len(vectors), k, dtype=torch.long, device=vectors.device)
    compiled = vectors.device.type == "cpu"
    gram = atoms @ atoms.T if compiled and len(vectors) else atoms
    for start in range(0, len(vectors), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        if compiled:
            _pursue_compiled(vectors[rows] @ atoms.T, gram, weights[rows], indices[rows])
        else:
            _pursue_batched(vectors[rows], atoms, weights[rows], indices[rows])
    return weights, indices


def _pursue_compiled(scores: Tensor, gram: Tensor, weights: Tensor, indices: Tensor) -> None:
    from s3_retriever.kv.kernels import pursue_rows

    least = _NEGLIGIBLE * scores.abs().amax(1)
    pursue_rows(
        scores.numpy(), gram.numpy(), _DEPENDENT, least.numpy(), weights.numpy(), indices.numpy()
    )


def _pursue_batched(residual: Tensor, atoms: Tensor, weights: Tensor, indices: Tensor) -> None:
    """Keep the chosen atoms as an orthonormal basis times an upper triangle (Gram-Schmidt)."""
    n, k = weights.shape
    basis = residual.new_zeros(n, k, residual.shape[1])
    triangle = torch.eye(k, device=residual.device).repeat(n, 1, 1)
    along = residual.new_zeros(n, k, 1)
    least = residual.new_zeros(n, 1)
    for i in range(k):
        highest, indices[:, i] = (residual @ atoms.T).abs_().max(1)
        if not i:
            least = _NEGLIGIBLE * highest[:, None]
        atom = atoms[indices[:, i]]
        shared = basis[:, :i] @ atom[:, :, None]
        direction = atom - (shared * basis[:, :i]).sum(1)
        length = torch.linalg.vector_norm(direction, dim=1, keepdim=True)
        independent = (length > _DEPENDENT) & (highest[:, None] > least)
        direction = torch.where(independent, direction / length, 0.0)
        triangle[:, :i, i] = shared[:, :, 0]
        triangle[:, i, i] = torch.where(independent, length, 1.0)[:, 0]
        along[:, i] = (direction * residual).sum(1, keepdim=True)
        residual = residual - along[:, i] * direction
        basis[:, i] = direction
    weights.copy_(torch.linalg.solve_triangular(triangle, along, upper=True)[:, :, 0])
