"""How a calibration is shown: all that was tried, and what the choice is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from s3_retriever.cli.console import show_table

if TYPE_CHECKING:
    from s3_retriever.calibration import Calibration, Trial


def show(console: Console, calibration: Calibration) -> None:
    """Print a calibration."""
    show_table(console, _table(calibration.trials))
    deciding, held_out = calibration.questions
    gain = calibration.gain
    budgets = ", ".join(map(str, calibration.budgets))
    console.print()
    console.print(
        f"Recall is the mean of budgets of {budgets} tokens, above of the {deciding} questions "
        f"that decided, below of the {held_out} that were held out.",
        soft_wrap=True,
    )
    console.print(
        f"Before {calibration.before:.3f}, after {calibration.after:.3f}: "
        f"{gain.mean:+.3f}, 95 % interval {gain.low:+.3f} to {gain.high:+.3f}.",
        soft_wrap=True,
    )
    console.print(_verdict(calibration), soft_wrap=True)


def _verdict(calibration: Calibration) -> str:
    if calibration.recipe == calibration.start:
        return "Nothing was better than the recipe that the codebook has; it stays."
    if calibration.gain.low > 0:
        return "The new recipe finds more."
    return (
        "Held-out questions do not confirm that the new recipe finds more; more questions would "
        "tell."
    )


def _table(trials: tuple[Trial, ...]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("setting", "value"):
        table.add_column(name, no_wrap=True)
    for name in ("recall", "gain", "error"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for trial in trials:
        table.add_row(
            trial.setting,
            trial.value,
            f"{trial.recall:.3f}",
            f"{trial.gain.mean:+.3f}",
            f"{trial.gain.error:.3f}",
            "kept" if trial.kept else "",
        )
    return table
