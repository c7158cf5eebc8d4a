"""`SAETrainer`: fits one Top-k SAE to a stream of activations."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from s3_retriever.sae.model import TopKSAE

# Steps between two checks for dead latents, and steps without firing after which a latent counts
# as dead.
_REVIVE_EVERY = 250
_SILENT_STEPS = 250
# What is left after a step of the sums that mean activations are computed from.
_MEMORY = 0.98
# Added to the mean square of the queries in each direction, which has mean 1. With less, what is
# fitted to one text suits the queries of another one less.
_LEAST_SQUARE = 1.0


@dataclass(frozen=True, slots=True)
class SAEReport:
    """How well an SAE fits activations it was not trained on.

    Attributes:
        unexplained_variance: Squared error over the variance of the input, 0 is perfect.
        dead_share: Share of the features that never fired on the sample.
        active: Mean number of features that fire on a token.
        frequency: Share of the tokens on which a feature fires: quantiles 0.5, 0.9, 0.99 and 1.0
            over the features.
        frequent: Number of features that fire on more than half of the tokens.
        tokens: Size of the sample.
    """

    unexplained_variance: float
    dead_share: float
    active: float
    frequency: tuple[float, float, float, float]
    frequent: int
    tokens: int

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


class SAETrainer:
    """Trains one SAE on batches of activations.

    Training happens in units of `centre` and `scale`, which makes one learning rate fit every
    tap. Dead latents are revived as in Bricken et al. (2023): their decoder rows are set to the
    residuals of the worst reconstructed activations. Decoder rows keep unit norm.

    Attributes:
        sae: The SAE in training units; `finished` returns it in the units of the activations.
        centre: Mean of the activations, float32 [width].
        metric: The metric in which errors count; None for all directions alike.
        scale: Root mean square of the centred activations, in that metric.
        step: Optimiser steps done.
    """

    def __init__(
        self,
        sae: TopKSAE,
        sample: Tensor,
        *,
        learning_rate: float,
        total_steps: int,
        bfloat16: bool = False,
        metric: Tensor | None = None,
    ) -> None:
        """Prepare the first step.

        Args:
            sae: An untrained SAE.
            sample: Activations [rows, width] from which centre and scale are computed.
            learning_rate: Peak of Adam's learning rate; it warms up over the first 5 % of the
                steps and decays to zero over the last 30 %.
            total_steps: Length of that schedule in steps.
            bfloat16: Whether to encode in bfloat16, for devices that are faster in it.
            metric: Symmetric matrix [width, width] by which centred activations are multiplied:
                errors count by their length in that metric. None counts all directions alike.
        """
        self.sae = sae
        sample = sample.float()
        self.centre = sample.mean(0)
        self.metric = metric
        self.scale = 1.0
        self.scale = float(self._measured(sample).pow(2).mean().sqrt().clamp_min(1e-6))
        self.total_steps = max(total_steps, 1)
        self.step = 0
        self._learning_rate = learning_rate
        self._bfloat16 = bfloat16
        self._optimiser = torch.optim.Adam(
            sae.parameters(), lr=learning_rate, betas=(0.9, 0.999), fused=_fused(sae)
        )
        self._silent = torch.zeros(sae.features, dtype=torch.long, device=sae.W_enc.device)
        # By feature, the activations of the last steps and on how many tokens it fired.
        self._fired = torch.zeros(2, sae.features, device=sae.W_enc.device)

    def train(self, batch: Tensor) -> float:
        """Do one optimiser step.

        Args:
            batch: Activations [rows, width].

        Returns:
            Unexplained variance of this batch before the step.
        """
        x = self._measured(batch.float())
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self._bfloat16):
            # b_dec learns from the reconstruction alone, which saves a third of the matmuls.
            centred = x - self.sae.b_dec.detach()
            pre = functional.linear(centred, self.sae.W_enc.T, self.sae.b_enc)
        values, indices = pre.float().topk(self.sae.k, dim=1)
        values = values.relu()
        residual = x - self.sae.decode(values, indices)
        loss = residual.pow(2).mean()
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._apply()
        self._note_firing(values, indices)
        if self.step % _REVIVE_EVERY == 0 and self.step < 0.7 * self.total_steps:
            self._revive(residual.detach())
        return float(loss.detach() / x.pow(2).mean())

    def finished(self) -> TopKSAE:
        """Return the SAE in the units of the activations, centre and scale folded in."""
        weights = {name: weight.clone() for name, weight in self.sae.state_dict().items()}
        if self.metric is not None:
            weights["W_enc"] = self.metric @ weights["W_enc"]
            # The metric is symmetric.
            weights["W_dec"] = torch.linalg.solve(self.metric, weights["W_dec"], left=False)
            weights["b_dec"] = torch.linalg.solve(self.metric, weights["b_dec"])
        weights["b_enc"] *= self.scale
        weights["b_dec"] = weights["b_dec"] * self.scale + self.centre
        sae = TopKSAE.of(weights, self.sae.k)
        total, count = self._fired
        means = torch.where(count > 0, total / count, total.sum() / count.sum().clamp_min(1e-12))
        sae.mean_activations = means * self.scale
        return sae

    def _measured(self, x: Tensor) -> Tensor:
        """Activations [rows, width] in training units."""
        centred = (x - self.centre) / self.scale
        return centred if self.metric is None else centred @ self.metric

    def state(self) -> dict[str, Tensor]:
        """Return all that is needed to resume later, as named tensors."""
        tensors = {f"sae.{name}": value for name, value in self.sae.state_dict().items()}
        tensors |= {
            "centre": self.centre,
            "scale": torch.tensor(self.scale, dtype=torch.float64),
            "step": torch.tensor(self.step),
            "silent": self._silent,
            "fired": self._fired,
        }
        if self.metric is not None:
            tensors["metric"] = self.metric
        for name, parameter in self.sae.named_parameters():
            for key, value in self._optimiser.state.get(parameter, {}).items():
                tensors[f"adam.{name}.{key}"] = value
        return {
            name: value.detach().to("cpu", copy=True).contiguous()
            for name, value in tensors.items()
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Resume from what `state` returned."""
        weights = {n.removeprefix("sae."): t for n, t in tensors.items() if n.startswith("sae.")}
        self.sae.load_state_dict(weights)
        self.centre = tensors["centre"].to(self.centre)
        self.scale = float(tensors["scale"])
        self.step = int(tensors["step"])
        self._silent.copy_(tensors["silent"])
        self._fired.copy_(tensors["fired"])
        self.metric = tensors["metric"].to(self.centre) if "metric" in tensors else None
        for name, parameter in self.sae.named_parameters():
            prefix = f"adam.{name}."
            saved = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            if saved:
                self._optimiser.state[parameter] = {
                    key: value.to(parameter.device, copy=True) for key, value in saved.items()
                }

    def _apply(self) -> None:
        done = self.step / self.total_steps
        factor = min(1.0, (done + 1 / self.total_steps) / 0.05, max(1.0 - done, 0.0) / 0.3)
        for group in self._optimiser.param_groups:
            group["lr"] = self._learning_rate * factor
        decoder = self.sae.W_dec
        if decoder.grad is not None:
            # The component of the gradient along a row would only change its norm.
            along = (decoder.grad * decoder.data).sum(1, keepdim=True)
            decoder.grad -= along * decoder.data
        self._optimiser.step()
        self.step += 1
        with torch.no_grad():
            decoder.copy_(functional.normalize(decoder, dim=1))

    def _note_firing(self, values: Tensor, indices: Tensor) -> None:
        fires = values > 0
        self._silent += 1
        self._silent[indices[fires]] = 0
        self._fired *= _MEMORY
        self._fired[0].index_add_(0, indices[fires], values.detach()[fires])
        self._fired[1].index_add_(0, indices[fires], torch.ones_like(values[fires]))

    @torch.no_grad()
    def _revive(self, residual: Tensor) -> None:
        dead = (self._silent >= _SILENT_STEPS).nonzero().flatten()
        if len(dead) == 0:
            return
        worst = residual.pow(2).sum(1).topk(min(len(dead), len(residual))).indices
        dead = dead[: len(worst)]
        directions = functional.normalize(residual[worst], dim=1)
        self.sae.W_dec[dead] = directions
        # A fifth of the usual norm: a revived latent should not push others out at once.
        norm = self.sae.W_enc.norm(dim=0).mean()
        self.sae.W_enc[:, dead] = directions.T * norm * 0.2
        self.sae.b_enc[dead] = 0.0
        for parameter, rows in ((self.sae.W_dec, 0), (self.sae.W_enc, 1), (self.sae.b_enc, 0)):
            moments = self._optimiser.state.get(parameter, {})
            for key in ("exp_avg", "exp_avg_sq"):
                if key in moments:
                    moments[key].index_fill_(rows, dead, 0.0)
        self._silent[dead] = 0


@torch.inference_mode()
def report(sae: TopKSAE, sample: Tensor) -> SAEReport:
    """Measure an SAE on activations [rows, width] that it was not trained on."""
    sample = sample.float()
    values, indices = sae.encode(sample)
    error = (sample - sae.decode(values, indices)).pow(2).sum()
    variance = (sample - sample.mean(0)).pow(2).sum().clamp_min(1e-12)
    counts = torch.bincount(indices[indices >= 0], minlength=sae.features)
    share = counts.float() / max(len(sample), 1)
    quantiles = torch.quantile(share, torch.tensor([0.5, 0.9, 0.99, 1.0]))
    q50, q90, q99, q100 = (float(q) for q in quantiles)
    return SAEReport(
        unexplained_variance=float(error / variance),
        dead_share=float((counts == 0).float().mean()),
        active=float((indices >= 0).sum(1).float().mean()),
        frequency=(q50, q90, q99, q100),
        frequent=int((share > 0.5).sum()),
        tokens=len(sample),
    )


def _fused(sae: TopKSAE) -> bool:
    return sae.W_enc.device.type in ("cpu", "cuda")


def metric_of(moments: Tensor) -> Tensor:
    """The metric in which errors in keys weigh what queries make of them.

    Args:
        moments: Second moments of the queries, float32 [..., size, size], in any unit.

    Returns:
        float32 [..., size, size]: the symmetric root of the sum of the identity and the moments,
        scaled to a mean square of 1. Products with it turn keys into vectors of that metric.
    """
    scales = moments.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(1e-12)
    squares, directions = torch.linalg.eigh(moments / scales[..., None, None])
    lengths = (squares.clamp_min(0) + _LEAST_SQUARE).sqrt()
    metric: Tensor = directions * lengths[..., None, :] @ directions.mT
    return metric
