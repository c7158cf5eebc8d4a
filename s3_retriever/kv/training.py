"""Learning a dictionary of keys or values from a stream of vectors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from s3_retriever.kv.atoms import Atoms
from s3_retriever.kv.pursuit import pursue

# Weight of what earlier batches said when the next one comes: the first atoms are bad, and so are
# the codes made with them.
_MEMORY = 0.7
# Rounds over the first batch, whose vectors are the first atoms.
_FIRST_ROUNDS = 3
# Share of the mean square weight that is added to each, so that rare atoms have a solution.
_RIDGE = 1e-3
# An atom with less than this share of the mean square weight is replaced.
_UNUSED = 1e-4


class AtomTrainer:
    """Learns one dictionary by pursuit and least squares in turn.

    The weights of a batch are found by orthogonal matching pursuit, and then the atoms that fit
    these weights best (Engan et al. 1999), from sums over the stream that forget slowly (Mairal et
    al. 2010). Trained by gradients, a Top-k SAE of the same size leaves three times as much
    unexplained: its encoder chooses all atoms at once.

    Args:
        features: Atoms of the dictionary.
        k: Atoms of a vector.
        generator: Chooses the first atoms.
    """

    def __init__(self, features: int, k: int, generator: torch.Generator) -> None:
        self._features = features
        self._k = k
        self._generator = generator
        self._centres = self._scales = self._atoms = torch.empty(0)
        self._squares = torch.zeros(features, features)
        self._products = torch.empty(0)

    def train(self, vectors: Tensor) -> float:
        """Learn from the next vectors.

        Args:
            vectors: [heads, n, head size], any floating dtype; the first ones must be at least as
                many as there are atoms, over all heads.

        Returns:
            Share of their variance that the atoms left unexplained before they learned from them.
        """
        vectors = vectors.float()
        rounds = 1
        if not len(self._atoms):
            rounds = _FIRST_ROUNDS
            self._start(vectors)
        rows = ((vectors - self._centres[:, None]) / self._scales[:, None, None]).flatten(0, 1)
        unexplained = [self._round(rows) for _ in range(rounds)]
        return unexplained[-1]

    def finished(self) -> Atoms:
        """The dictionary so far."""
        return Atoms(self._atoms.contiguous(), self._centres, self._scales).to(torch.device("cpu"))

    def state(self) -> dict[str, Tensor]:
        """All that is needed to go on later, as tensors by name."""
        return {
            "centres": self._centres.cpu(),
            "scales": self._scales.cpu(),
            "atoms": self._atoms.cpu().contiguous(),
            "squares": self._squares.cpu(),
            "products": self._products.cpu(),
        }

    def restore(self, state: dict[str, Tensor], device: torch.device) -> None:
        """Go on from what `state` returned.

        Raises:
            KeyError: A tensor is missing.
        """
        self._centres, self._scales, self._atoms, self._squares, self._products = (
            state[name].to(device) for name in ("centres", "scales", "atoms", "squares", "products")
        )

    def _start(self, vectors: Tensor) -> None:
        self._centres = vectors.mean(1)
        centred = vectors - self._centres[:, None]
        self._scales = centred.square().mean((1, 2)).sqrt().clamp_min(1e-6)
        rows = (centred / self._scales[:, None, None]).flatten(0, 1)
        first = torch.randperm(len(rows), generator=self._generator)[: self._features]
        self._atoms = functional.normalize(rows[first.to(rows.device)], dim=1)
        self._squares = self._squares.to(rows.device)
        self._products = torch.zeros_like(self._atoms)

    def _round(self, rows: Tensor) -> float:
        weights, indices = pursue(rows, self._atoms, self._k)
        codes = rows.new_zeros(len(rows), self._features).scatter_add_(1, indices, weights)
        errors = (rows - codes @ self._atoms).square().sum(1)
        self._squares = _MEMORY * self._squares + codes.T @ codes
        self._products = _MEMORY * self._products + codes.T @ rows
        usage = self._squares.diagonal()
        ridge = _RIDGE * usage.mean()
        atoms = torch.linalg.solve(
            self._squares + ridge * torch.eye(self._features, device=rows.device), self._products
        )
        unused = (usage < _UNUSED * usage.mean()).nonzero().flatten()[: len(rows)]
        # What the dictionary explains worst becomes an atom.
        atoms[unused] = rows[errors.topk(len(unused)).indices]
        self._atoms = functional.normalize(atoms, dim=1)
        return float(errors.sum() / rows.square().sum())
