"""`SailsReport`: what an adapter's start means, and how much of its training stays there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from s3_retriever.display import (
    DIM,
    HEAT,
    LIST_CHARACTERS,
    bar,
    escaped,
    facts,
    frame,
    label,
    paragraph,
    section,
    table,
)
from s3_retriever.errors import CodebookError, InputError, brief
from s3_retriever.paths import begin_draft, read_json, regular_size
from s3_retriever.sae.weights import load_weights, save_weights
from s3_retriever.types import check_path

REPORT_FILE = "sails.json"
DIRECTIONS_FILE = "sails.safetensors"
# The file of PEFT beside which a report is kept.
ADAPTER_FILE = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class Firing:
    """A token on which a feature fires.

    Attributes:
        side: The side that its example belongs to, `wanted` or `unwanted`.
        before: The text before it.
        token: The token.
        after: The text after it.
        value: The activation.
    """

    side: str
    before: str
    token: str
    after: str
    value: float


@dataclass(frozen=True, slots=True)
class Feature:
    """A chosen feature.

    Attributes:
        index: Its number in the SAE.
        wanted: Mean activation on the wanted examples.
        unwanted: Mean activation on the unwanted examples.
        firings: Where it fires most, strongest first, each in another example.
    """

    index: int
    wanted: float
    unwanted: float
    firings: tuple[Firing, ...]

    @property
    def difference(self) -> float:
        """How much stronger it is on the wanted examples."""
        return self.wanted - self.unwanted

    @property
    def tokens(self) -> list[str]:
        """The distinct tokens on which it fires most."""
        return list(
            dict.fromkeys(firing.token.strip() or repr(firing.token) for firing in self.firings)
        )


@dataclass(frozen=True, slots=True)
class ModuleUpdate:
    """How much of a module's trained update lies in the basis.

    Attributes:
        name: Path of the module.
        side: `input` if the update reads the directions, `output` if it writes them.
        size: Frobenius norm of the update.
        share: Share of its squared norm that lies in the basis, 0 to 1.
        chance: The share of a random update: the basis' rank over the width.
        features: The share along each chosen feature's direction, in the report's order. They may
            overlap.
    """

    name: str
    side: str
    size: float
    share: float
    chance: float
    features: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class SailsReport:
    """What `sails_init` found and wrote.

    Attributes:
        layer: The layer whose output the SAE encodes.
        tokens: At which tokens features were compared.
        examples: Numbers of wanted and of unwanted examples.
        unexplained: Squared error of the SAE over the squared distance from its centre, on the
            examples; about 1 means that the SAE explains nothing.
        features: The chosen features, the largest difference first.
        variance: Share of the variance of their directions that the basis has.
        modules: For each module that starts in the basis, `input` or `output`.
        others: Modules of the adapter that keep PEFT's start.
        seconds: How long it took.
        basis: Orthonormal directions, float32 [rank, width].
        directions: Unit decoder directions of the features, float32 [features, width].
    """

    layer: int
    tokens: str
    examples: tuple[int, int]
    unexplained: float
    features: tuple[Feature, ...]
    variance: float
    modules: Mapping[str, str]
    others: tuple[str, ...]
    seconds: float
    basis: Tensor
    directions: Tensor

    @property
    def rank(self) -> int:
        """Number of directions of the basis."""
        return len(self.basis)

    def updates(self, adapter: str | Path | Mapping[str, Tensor]) -> list[ModuleUpdate]:
        """Measure how much of a trained adapter's update lies in the basis.

        Args:
            adapter: The folder that PEFT saved it in, or what
                `peft.get_peft_model_state_dict(model)` returns.

        Returns:
            The modules that started in the basis, in order. Those whose update is zero, as at the
            start, are left out.

        Raises:
            InputError: The adapter is another one, cannot be read, or has values that are not
                finite numbers.
        """
        weights = adapter if isinstance(adapter, Mapping) else _adapter_weights(adapter)
        return [
            update
            for name, side in self.modules.items()
            if (update := self._update(name, side, weights)) is not None
        ]

    def _update(self, name: str, side: str, weights: Mapping[str, Tensor]) -> ModuleUpdate | None:
        try:
            down, up = (weights[f"{name}.lora_{part}.weight"].float().cpu() for part in "AB")
            # The side that is in the stream's space, and the other one.
            inner, outer = (down, up) if side == "input" else (up.T, down.T)
            along = inner @ torch.cat([self.basis, self.directions]).T
            total = _squared(outer, inner @ inner.T)
        except (KeyError, AttributeError, RuntimeError) as error:
            raise InputError(
                f"The report is not that of this adapter: it has no module {name} of width "
                f"{self.basis.shape[1]}; give the adapter that sails_init started."
            ) from error
        if not math.isfinite(total):
            raise InputError(
                f"The update of {name} is not a finite number; train the adapter again, at a "
                "lower learning rate."
            )
        if total <= 0:
            return None
        written, single = along[:, : self.rank], along[:, self.rank :]
        return ModuleUpdate(
            name=name,
            side=side,
            size=total**0.5,
            share=_squared(outer, written @ written.T) / total,
            chance=self.rank / self.basis.shape[1],
            features=tuple(
                ((outer @ single).square().sum(0) / total).tolist(),
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values, without basis and directions."""
        return {
            "layer": self.layer,
            "tokens": self.tokens,
            "examples": list(self.examples),
            "unexplained": self.unexplained,
            "rank": self.rank,
            "variance": self.variance,
            "features": [
                {
                    **asdict(feature),
                    "difference": feature.difference,
                    "firings": [asdict(firing) for firing in feature.firings],
                }
                for feature in self.features
            ],
            "modules": dict(self.modules),
            "others": list(self.others),
            "seconds": self.seconds,
        }

    def html(self, updates: list[ModuleUpdate] | None = None) -> str:
        """The report as HTML that needs nothing else, escaped.

        Args:
            updates: What `updates` returned, to show with it.
        """
        return _html(self, updates or [])

    def _repr_html_(self) -> str:
        return self.html()

    def save(self, folder: str | Path) -> None:
        """Write `sails.json` and `sails.safetensors`, for example beside the adapter's own files.

        `s3r adapt inspect` reads them there. PEFT needs neither.

        Raises:
            InputError: They cannot be written.
        """
        folder = check_path(folder, "folder")
        directions = {"basis": self.basis, "directions": self.directions}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with begin_draft(folder / REPORT_FILE) as file:
                file.write(f"{json.dumps(self.to_dict(), indent=2)}\n".encode())
            save_weights(
                {name: part.cpu().clone() for name, part in directions.items()},
                folder / DIRECTIONS_FILE,
            )
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"The report cannot be written to {folder} ({brief(error)}); check free space and "
                "permissions."
            ) from error

    @classmethod
    def load(cls, folder: str | Path) -> SailsReport:
        """Read a report that `save` wrote.

        Raises:
            InputError: The folder has none, or one that is damaged.
        """
        folder = check_path(folder, "folder")
        path = folder / REPORT_FILE
        if not path.exists():
            raise InputError(
                f"{folder} has no {REPORT_FILE}; save the report of sails_init there with "
                "report.save(folder)."
            )
        try:
            return cls._read(read_json(path), folder / DIRECTIONS_FILE)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError,
                CodebookError) as error:  # fmt: skip
            raise InputError(
                f"The report {path} is damaged ({brief(error)}); start the adapter again."
            ) from error

    @classmethod
    def _read(cls, values: Mapping[str, Any], directions: Path) -> SailsReport:
        features = tuple(
            Feature(
                int(each["index"]),
                float(each["wanted"]),
                float(each["unwanted"]),
                tuple(_firing(firing) for firing in each["firings"]),
            )
            for each in values["features"]
        )
        modules = {str(name): str(side) for name, side in values["modules"].items()}
        if not features or not set(modules.values()) <= {"input", "output"}:
            raise ValueError("it has no features, or a module of an unknown side")
        rank = int(values["rank"])
        shapes = {"basis": (rank, None), "directions": (len(features), None)}
        weights = load_weights(directions, "directions", shapes)
        if weights["basis"].shape[1] != weights["directions"].shape[1]:
            raise ValueError("basis and directions have different widths")
        wanted, unwanted = values["examples"]
        return cls(
            layer=int(values["layer"]),
            tokens=str(values["tokens"]),
            examples=(int(wanted), int(unwanted)),
            unexplained=float(values["unexplained"]),
            features=features,
            variance=float(values["variance"]),
            modules=modules,
            others=tuple(map(str, values["others"])),
            seconds=float(values["seconds"]),
            basis=weights["basis"],
            directions=weights["directions"],
        )


def _firing(values: Mapping[str, Any]) -> Firing:
    side, before, token, after = (
        str(values[name]) for name in ("side", "before", "token", "after")
    )
    return Firing(side, before, token, after, float(values["value"]))


def _squared(outer: Tensor, gram: Tensor) -> float:
    """Squared norm of `outer @ inner`, by `inner @ inner.T`."""
    return float((outer.T @ outer * gram).sum())


def _adapter_weights(folder: str | Path) -> dict[str, Tensor]:
    path = check_path(folder, "adapter") / ADAPTER_FILE
    try:
        regular_size(path)
        weights: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError, MemoryError, RuntimeError) as error:
        raise InputError(
            f"The adapter {path} cannot be read ({brief(error)}); save it with "
            "model.save_pretrained(folder)."
        ) from error
    return weights


def _html(report: SailsReport, updates: Sequence[ModuleUpdate]) -> str:
    """An adapter's start: its features, where they fire, and what training made of it."""
    wanted, unwanted = report.examples
    rows = [
        ("layer", str(report.layer)),
        ("examples", f"{wanted:,} wanted, {unwanted:,} unwanted, tokens: {report.tokens}"),
        ("basis", f"{report.rank} directions, {report.variance:.0%} of the features' variance"),
        ("SAE", f"{report.unexplained:.0%} unexplained"),
        ("modules", f"{len(report.modules)} start in the basis, {len(report.others)} do not"),
    ]
    features = "".join(_feature(feature) for feature in report.features)
    names = ("share", "of chance", "size", "side", "module")
    cells = (
        (f"{u.share:.1%}", f"{u.share / u.chance:.1f}x", f"{u.size:.3g}", u.side, u.name)
        for u in updates
    )
    trained = table("The update's share in the basis", names, cells)
    return frame(f"<b>SAILS</b>{facts(rows)}{trained}{section('Features', features)}")


def _feature(feature: Feature) -> str:
    token = f"background:{HEAT.format(0.5)}"
    heading = f"<b>{feature.index}</b> {bar(feature.difference)} {feature.difference:+.3g}"
    means = f"{feature.wanted:.3g} wanted, {feature.unwanted:.3g} unwanted"
    lines = "".join(
        paragraph(
            f'<span style="{DIM}">{label(each.side)} {each.value:.3g}</span> '
            f"{escaped(each.before, LIST_CHARACTERS)}"
            f'<span style="{token}">{escaped(each.token)}</span>'
            f"{escaped(each.after, LIST_CHARACTERS)}"
        )
        for each in feature.firings
    )
    values = f'<span style="{DIM}">{means}</span>'
    return f'<div style="margin:.6em 0">{heading} {values}{lines}</div>'
