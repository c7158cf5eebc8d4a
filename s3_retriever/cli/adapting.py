"""`s3r adapt`: what LoRA adapters that SAILS started mean."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from s3_retriever.cli import options
from s3_retriever.cli.console import results, show_table, write_json
from s3_retriever.paths import begin_draft

if TYPE_CHECKING:
    from s3_retriever.adapters import ModuleUpdate, SailsReport

adapt = typer.Typer(help="LoRA adapters that start in directions of an SAE.", no_args_is_help=True)

# Characters around the token on which a feature fires.
_AROUND = 40
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Adapter</title>
<meta name="viewport" content="width=device-width">
<style>:root{{color-scheme:light dark}}body{{font:16px/1.5 system-ui,sans-serif;margin:2em}}</style>
</head><body>{}</body></html>
"""


@adapt.command()
def inspect(
    adapter: Annotated[
        Path,
        typer.Argument(
            metavar="ADAPTER", help="Folder of a saved adapter, with the report of sails_init."
        ),
    ],
    features: Annotated[
        int, typer.Option("--features", metavar="N", min=1, help="Maximum features to show.")
    ] = 10,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", show_default="not written", help="Write a page, too."
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Show the features that an adapter started from, and how much of its training stays there.

    For every module: which share of its update lies in the basis, how many times that of a random
    update, and the feature along which it has most. Training needs nothing from this package: save
    the adapter with PEFT, and the report beside it with report.save(folder).
    """
    from s3_retriever.adapters import SailsReport

    report = SailsReport.load(adapter)
    updates = report.updates(adapter)
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        with begin_draft(html) as file:
            file.write(_PAGE.format(report.html(updates)).encode())
    if as_json:
        write_json({**report.to_dict(), "updates": [asdict(update) for update in updates]})
        return
    console = results()
    console.print(_summary(report), soft_wrap=True)
    console.print()
    show_table(console, _features(report, features))
    console.print()
    if updates:
        show_table(console, _updates(report, updates))
    else:
        console.print("The adapter is not trained yet: its updates are zero.")


def _summary(report: SailsReport) -> str:
    wanted, unwanted = report.examples
    return (
        f"Layer {report.layer}, {wanted:,} wanted and {unwanted:,} unwanted examples "
        f"({report.tokens}): {len(report.features)} features, {report.rank} directions with "
        f"{report.variance:.0%} of their variance, in {len(report.modules)} modules."
    )


def _features(report: SailsReport, count: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("feature", "difference", "wanted", "unwanted"):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    table.add_column("fires on", no_wrap=True, overflow="ellipsis")
    for feature in report.features[:count]:
        texts = [
            f"{firing.before[-_AROUND:]}[{firing.token}]{firing.after[:_AROUND]}"
            for firing in feature.firings[:1]
        ]
        table.add_row(
            str(feature.index),
            f"{feature.difference:+.3f}",
            f"{feature.wanted:.3f}",
            f"{feature.unwanted:.3f}",
            " ".join(f"{' '.join(feature.tokens)}: {' '.join(texts)}".split()),
        )
    return table


def _updates(report: SailsReport, updates: list[ModuleUpdate]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("module", no_wrap=True)
    table.add_column("directions", no_wrap=True)
    for name in ("update", "in the basis", "of chance", "most along"):
        table.add_column(name, justify="right", no_wrap=True)
    for update in updates:
        most = max(range(len(update.features)), key=update.features.__getitem__)
        table.add_row(
            update.name.removeprefix("base_model.model."),
            update.side,
            f"{update.size:.3g}",
            f"{update.share:.1%}",
            f"{update.share / update.chance:.1f}x",
            f"{report.features[most].index} ({update.features[most]:.1%})",
        )
    return table
