"""What a command shows: tables in the terminal, figures as JSON, a Markdown page, and claims."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rich.console import Console
from rich.table import Table

from s3_retriever_bench.shared.statistics import Estimate, Figures


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of text."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def rich(self) -> Table:
        """For the terminal."""
        title = self.title or None
        table = Table(*self.header, title=title, title_justify="left", box=None, pad_edge=False)
        for column in table.columns:
            column.no_wrap = True
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """As a Markdown section; cells are not padded, so a new value changes a single line."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"### {self.title}\n\n{body}\n"


def digits(value: float | None) -> str:
    """Three digits, or all before the point; a dash for None."""
    if value is None:
        return "-"
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def share(value: float) -> str:
    """A share as `.123`."""
    return f"{value:.3f}".removeprefix("0")


def signed(value: Estimate | None) -> str:
    """A difference with its interval, and a star if the interval excludes 0."""
    if value is None:
        return "-"
    shown = (f"{number:+.3f}" for number in (value.mean, value.low, value.high))
    mean, low, high = (re.sub(r"^([+-])0\.", r"\1.", number) for number in shown)
    return f"{mean} ({low}…{high}){'*' if value.decided() else ''}"


def by_budget(
    title: str,
    budgets: Sequence[int],
    names: Iterable[str],
    cell: Callable[[str, int], str],
    head: str = "@{:,}",
) -> Grid:
    """A row for each method, a column for each budget."""
    rows = [[name, *(cell(name, budget) for budget in budgets)] for name in names]
    return Grid(title, ["method", *map(head.format, budgets)], rows)


def megabytes(size: int | None) -> str:
    """Bytes in megabytes; a dash for None."""
    return "-" if size is None else f"{size / 1e6:,.0f}"


class Claim(NamedTuple):
    """A bound on a figure.

    Attributes:
        claim: What is claimed.
        relation: On which side of the bound the figure should be.
        bound: The bound.
        measured: The figure; None if the run did not measure it.
        unit: Unit of both; empty for a ratio.
    """

    claim: str
    relation: Literal["at least", "at most", "below"]
    bound: float
    measured: float | None
    unit: str = ""

    def holds(self) -> bool | None:
        """Whether the figure keeps the bound; None if it was not measured."""
        if self.measured is None:
            return None
        holds = {"at least": operator.ge, "at most": operator.le, "below": operator.lt}
        return bool(holds[self.relation](self.measured, self.bound))


def check(claims: Iterator[Claim]) -> list[dict[str, Any]]:
    """JSON values of claims: the attributes of each, and `holds`."""
    return [claim._asdict() | {"holds": claim.holds()} for claim in claims]


def rounded(value: float | None) -> float | None:
    """Four digits behind the point, if there is a value."""
    return None if value is None else round(value, 4)


def claims_table(claims: Sequence[Figures]) -> Grid:
    """Every claim with its bound, what was measured, and whether it holds."""
    rows = [
        [
            claim["claim"],
            f"{claim['relation']} {claim['bound']:g} {claim['unit']}".strip(),
            "not measured" if claim["measured"] is None else f"{claim['measured']:.3g}",
            {True: "yes", False: "NO", None: "-"}[claim["holds"]],
        ]
        for claim in claims
    ]
    return Grid("Claims", ["claim", "bound", "measured", "holds"], rows)


STAR = "A star marks a difference whose interval leaves 0 out.\n"


def show_run(
    figures: Figures,
    page: Iterable[Grid | str],
    folder: Path | None,
    name: str,
    title: str,
    remark: str = "",
) -> None:
    """Print the tables of a run; with a folder, write `NAME.json` and `NAME.md`.

    Args:
        figures: JSON values with `settings`, `machine` and `versions`.
        page: Tables, and Markdown that only the file has.
        folder: Where to write; None prints only.
        name: Name of the files.
        title: Heading of the page.
        remark: What has to be known to read the figures.
    """
    parts = list(page)
    show_tables((part for part in parts if isinstance(part, Grid)), remark)
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(compact(dict(figures)) + "\n", encoding="utf-8")
    lines = [f"# {title}\n", *([f"{remark}\n"] if remark else ()), *_provenance(figures)]
    lines += [part.markdown() if isinstance(part, Grid) else part for part in parts]
    (folder / f"{name}.md").write_text("\n".join(lines), encoding="utf-8")


def show_figures(
    figures: Figures, grids: Iterable[Grid], path: Path | None, remark: str = ""
) -> None:
    """Print tables; with a path, write the figures there as JSON."""
    show_tables(grids, remark)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=2) + "\n")


def show_tables(grids: Iterable[Grid], remark: str = "") -> None:
    """Print tables, then a remark if there is one."""
    for grid in grids:
        Console().print(grid.rich(), "")
    if remark:
        Console().print(remark)


def compact(value: Any, depth: int = 0) -> str:
    """Readable JSON that stays short: one line for each member of an object, one for a list."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False)
    indent = "  " * (depth + 1)
    members = [f"{indent}{json.dumps(key)}: {compact(v, depth + 1)}" for key, v in value.items()]
    return "{\n" + ",\n".join(members) + "\n" + "  " * depth + "}"


def _provenance(figures: Figures) -> Iterator[str]:
    """Settings (a recipe by its name), machine and versions, one paragraph each."""
    settings = dict(figures["settings"])
    if settings.get("recipe"):
        settings["recipe"] = settings["recipe"]["name"]
    yield sentence("Settings", settings)
    yield sentence("Machine", figures["machine"])
    yield sentence("Versions", figures["versions"])


def sentence(label: str, values: Figures) -> str:
    """A paragraph that lists values by name, without those that are None."""
    listed = ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)
    return f"{label}: {listed}.\n"
