"""Learning the dictionaries of keys or values from a stream of vectors."""

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
    """Learns the dictionaries of a layer's heads by pursuit and least squares in turn.

    The weights of a batch are found by orthogonal matching pursuit, and then the atoms that fit
    these weights best (Engan et al. 1999), from sums over the stream that forget slowly (Mairal et
    al. 2010). Trained by gradients, a Top-k SAE of the same size leaves three times as much
    unexplained: its encoder chooses all atoms at once.

    Args:
        features: Atoms of each dictionary.
        k: Atoms of a vector.
        generator: Chooses the first atoms.
        metrics: See `Atoms`, float32 [heads, head size, head size].
    """

    def __init__(self, features: int, k: int, generator: torch.Generator, metrics: Tensor) -> None:
        self._features = features
        self._k = k
        self._generator = generator
        self._metrics = metrics
        self._centres = self._scales = self._atoms = torch.empty(0)
        self._squares = self._products = torch.empty(0)

    def train(self, vectors: Tensor) -> float:
        """Learn from the next vectors.

        Args:
            vectors: [heads, n, head size], any floating dtype; the first time, n must be at least
                the number of atoms.

        Returns:
            Share of their variance that the atoms left unexplained before they learned from them.
        """
        vectors = vectors.float()
        rounds = 1
        if not len(self._atoms):
            rounds = _FIRST_ROUNDS
            self._start(vectors)
        heads = self._measured(vectors)
        for _ in range(rounds):
            error = sum(self._round(head, rows) for head, rows in enumerate(heads))
        return float(error / heads.square().sum())

    def finished(self) -> Atoms:
        """The dictionaries so far."""
        dictionaries = torch.linalg.solve(self._metrics, self._atoms, left=False)
        atoms = Atoms(dictionaries.contiguous(), self._centres, self._scales, self._metrics)
        return atoms.to(torch.device("cpu"))

    def state(self) -> dict[str, Tensor]:
        """All that is needed to go on later, as tensors by name."""
        return {
            "centres": self._centres.cpu(),
            "scales": self._scales.cpu(),
            "metrics": self._metrics.cpu(),
            "atoms": self._atoms.cpu().contiguous(),
            "squares": self._squares.cpu(),
            "products": self._products.cpu(),
        }

    def restore(self, state: dict[str, Tensor], device: torch.device) -> None:
        """Go on from what `state` returned.

        Raises:
            KeyError: A tensor is missing.
        """
        names = ("centres", "scales", "metrics", "atoms", "squares", "products")
        self._centres, self._scales, self._metrics, self._atoms, self._squares, self._products = (
            state[name].to(device) for name in names
        )

    def _start(self, vectors: Tensor) -> None:
        self._centres = vectors.mean(1)
        centred = vectors - self._centres[:, None]
        self._scales = centred.square().mean((1, 2)).sqrt().clamp_min(1e-6)
        heads = self._measured(vectors)
        chosen = [
            torch.randperm(len(rows), generator=self._generator)[: self._features] for rows in heads
        ]
        first = torch.stack(
            [rows[i.to(rows.device)] for rows, i in zip(heads, chosen, strict=True)]
        )
        self._atoms = functional.normalize(first, dim=2)
        self._squares = first.new_zeros(len(first), self._features, self._features)
        self._products = torch.zeros_like(first)

    def _measured(self, vectors: Tensor) -> Tensor:
        """Centre and scale vectors [heads, n, head size], and put them in their metric."""
        return (vectors - self._centres[:, None]) / self._scales[:, None, None] @ self._metrics

    def _round(self, head: int, rows: Tensor) -> Tensor:
        """Learn from vectors of a head [n, head size]; returns the sum of the squared errors."""
        weights, indices = pursue(rows, self._atoms[head], self._k)
        codes = rows.new_zeros(len(rows), self._features).scatter_add_(1, indices, weights)
        errors = (rows - codes @ self._atoms[head]).square().sum(1)
        squares, products = self._squares[head], self._products[head]
        # Sums over pairs of chosen atoms: a product of the sparse codes takes ten times as long.
        pairs = (indices[:, :, None] * self._features + indices[:, None]).flatten()
        both = (weights[:, :, None] * weights[:, None]).flatten()
        squares.mul_(_MEMORY).view(-1).scatter_add_(0, pairs, both)
        products.mul_(_MEMORY).add_(codes.T @ rows)
        usage = squares.diagonal()
        # A head whose vectors are all the same has no weights at all.
        ridge = (_RIDGE * usage.mean()).clamp_min(torch.finfo(torch.float32).tiny)
        atoms = torch.linalg.solve(
            squares + ridge * torch.eye(self._features, device=rows.device), products
        )
        unused = (usage < _UNUSED * usage.mean()).nonzero().flatten()[: len(rows)]
        # What the dictionary explains worst becomes an atom.
        atoms[unused] = rows[errors.topk(len(unused)).indices]
        self._atoms[head] = functional.normalize(atoms, dim=1)
        return errors.sum()
