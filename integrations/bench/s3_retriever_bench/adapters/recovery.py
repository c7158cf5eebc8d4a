"""The theory behind SAILS: a subspace found through an SAE, and one found among neurons.

Features are sparse and more than there are neurons, so every neuron takes part in many of them
(superposition). A behaviour raises a few features. Which subspace do their directions span? An SAE
that has learnt the features says so. The states alone do not: the mean difference is one direction
whatever the number of features, and principal components of the states follow the strongest
features, whether or not the behaviour has to do with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from s3_retriever.adapters.basis import make_basis, rank_features
from s3_retriever.sae import SAETrainer, TopKSAE
from s3_retriever.sae.training import report

_WIDTH, _FEATURES, _ACTIVE = 64, 256, 4
_RAISED = 8
_SAMPLES = 4_000
_BATCH = 512
# Training steps of the SAEs: from hardly trained to as good as they get.
STEPS = (10, 30, 100, 300, 1_000)


@dataclass(frozen=True, slots=True)
class World:
    """Made-up features.

    Attributes:
        directions: Unit directions of the features [features, width].
        strengths: How strong each is when it is active [features].
        raised: The features that a behaviour raises, int64.
    """

    directions: Tensor
    strengths: Tensor
    raised: Tensor

    @classmethod
    def make(cls, seed: int) -> World:
        """Draw a world."""
        generator = torch.Generator().manual_seed(seed)
        directions = torch.randn(_FEATURES, _WIDTH, generator=generator)
        strengths = 0.5 + 2 * torch.rand(_FEATURES, generator=generator)
        raised = torch.randperm(_FEATURES, generator=generator)[:_RAISED]
        return cls(functional.normalize(directions, dim=1), strengths, raised)

    def states(self, count: int, seed: int, *, behaving: bool) -> Tensor:
        """Draw states [count, width]; where the model behaves so, one raised feature is added."""
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.rand(count, _FEATURES, generator=generator).topk(_ACTIVE, dim=1).indices
        sizes = 0.5 + torch.rand(count, _ACTIVE, generator=generator)
        code = torch.zeros(count, _FEATURES).scatter(1, chosen, sizes) * self.strengths
        if behaving:
            which = torch.randint(_RAISED, (count,), generator=generator)
            code[torch.arange(count), self.raised[which]] += 1.0
        return code @ self.directions


def run_recovery(seeds: int = 3) -> dict[str, Any]:
    """Measure the error of each way against the quality of the SAE.

    Returns:
        JSON values: `points`, for each number of training steps the SAE's `unexplained` variance
        and the `error` of the subspace; `direct`, the errors of the ways without an SAE; `chance`,
        that of a random subspace. All are means over the seeds.
    """
    worlds = [World.make(seed) for seed in range(seeds)]
    points = []
    for steps in STEPS:
        found = [_through_sae(world, steps, seed) for seed, world in enumerate(worlds)]
        points.append(
            {
                "steps": steps,
                "unexplained": round(fmean(unexplained for unexplained, _ in found), 4),
                "error": round(fmean(error for _, error in found), 4),
            }
        )
    return {
        "width": _WIDTH,
        "features": _FEATURES,
        "raised": _RAISED,
        "seeds": seeds,
        "points": points,
        "direct": {name: _direct(worlds, find) for name, find in _DIRECT.items()},
        "chance": 1 - _RAISED / _WIDTH,
    }


def recovery_error(basis: Tensor, world: World) -> float:
    """The share of the raised features' directions that lies outside a basis, 0 to 1."""
    inside = world.directions[world.raised] @ basis.T
    return 1 - float(inside.square().sum() / _RAISED)


def _through_sae(world: World, steps: int, seed: int) -> tuple[float, float]:
    """The SAE's unexplained variance, and the error of the subspace of its features."""
    data = torch.cat([_plain(world, seed), _behaving(world, seed)])
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        # Another seed than the world's, or the SAE would start with its directions.
        torch.manual_seed(seed + 1_000)
        sae = TopKSAE(_WIDTH, _FEATURES, _ACTIVE + 1)
    trainer = SAETrainer(sae, data, learning_rate=3e-3, total_steps=steps)
    for _ in range(steps):
        trainer.train(data[torch.randint(len(data), (_BATCH,), generator=generator)])
    trained = trainer.finished()
    fresh = world.states(_SAMPLES, seed + 500, behaving=False)
    wanted, unwanted = (
        trained.activations(part).mean(0).detach()
        for part in (_behaving(world, seed), _plain(world, seed))
    )
    chosen = rank_features(wanted, unwanted, _RAISED)
    basis, _ = make_basis(trained.W_dec.detach()[chosen], 1.0, None)
    return report(trained, fresh).unexplained_variance, recovery_error(basis, world)


def _direct(worlds: Sequence[World], find: Callable[[Tensor, Tensor], Tensor]) -> float:
    errors = [
        recovery_error(find(_behaving(world, seed), _plain(world, seed)), world)
        for seed, world in enumerate(worlds)
    ]
    return round(fmean(errors), 4)


def _behaving(world: World, seed: int) -> Tensor:
    return world.states(_SAMPLES, seed + 100, behaving=True)


def _plain(world: World, seed: int) -> Tensor:
    return world.states(_SAMPLES, seed + 200, behaving=False)


def _mean_difference(wanted: Tensor, unwanted: Tensor) -> Tensor:
    return functional.normalize(wanted.mean(0) - unwanted.mean(0), dim=0)[None]


def _principal(wanted: Tensor, _: Tensor) -> Tensor:
    centred = wanted - wanted.mean(0)
    _, _, principal = torch.linalg.svd(centred, full_matrices=False)
    found: Tensor = principal[:_RAISED]
    return found


def _neurons(wanted: Tensor, unwanted: Tensor) -> Tensor:
    """The neurons whose mean differs most, as directions."""
    chosen = (wanted.mean(0) - unwanted.mean(0)).abs().topk(_RAISED).indices
    return torch.eye(_WIDTH)[chosen]


_DIRECT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "difference of means": _mean_difference,
    "principal components of states": _principal,
    "neurons that differ most": _neurons,
}


def draw_recovery(figures: dict[str, Any], path: Path) -> None:
    """Draw the errors against the SAE's quality, as SVG and PNG."""
    from s3_retriever_bench.shared.drawing import figure, spread

    points = figures["points"]
    explained = [1 - point["unexplained"] for point in points]
    with figure((6.6, 3.2), path) as drawn:
        panel = drawn.subplots()
        panel.plot(explained, [p["error"] for p in points], "-o", color="#D55E00", linewidth=2.0)
        panel.annotate(
            "features of an SAE", (explained[-1], points[-1]["error"]), xytext=(-92, 2),
            textcoords="offset points", color="#D55E00", fontweight="bold",
        )  # fmt: skip
        others = {**figures["direct"], "random subspace": figures["chance"]}
        heights = spread(list(others.values()), 0.06, 0.0, 1.05)
        for (name, error), height in zip(others.items(), heights, strict=True):
            panel.axhline(error, color="#8c8c8c", linestyle="--", linewidth=0.9)
            panel.annotate(
                name, (1.02, height), xycoords=("axes fraction", "data"), va="center",
                color="#6e6e6e",
            )  # fmt: skip
        panel.set_xlabel("variance that the SAE explains")
        panel.set_ylabel("share of the subspace that is missed")
        panel.set_ylim(0, 1.05)
        panel.set_title(
            f"{figures['features']} features on {figures['width']} neurons, "
            f"{figures['raised']} of them raised",
            loc="left", fontsize=8.5,
        )  # fmt: skip
        drawn.tight_layout()
