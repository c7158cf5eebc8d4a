"""Tools for pictures: size and font, the look of each method, and names beside what they name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from s3_retriever_bench.shared.statistics import Estimate

INK = "#333333"
_GRID = "#e6e6e6"
_FONT = 7.5


class Look(NamedTuple):
    """Line and marker of a method; `strong` makes it stand out."""

    colour: str
    dash: str
    marker: str
    strong: bool


# The package's own methods in colours that colour-blind readers can distinguish (Okabe and Ito),
# the others in grey.
_LOOKS = {
    "hybrid-paper": Look("#E69F00", "--", "D", strong=False),
    "s3-paper": Look("#56B4E9", "--", "D", strong=False),
    "hybrid": Look("#D55E00", "-", "o", strong=True),
    "s3": Look("#0072B2", "-", "o", strong=True),
    "compressor": Look("#009E73", "-", "o", strong=True),
    "ensemble": Look("#4d4d4d", "-", "s", strong=False),
    "dense": Look("#8c8c8c", "--", "^", strong=False),
    "mode hybrid": Look("#D55E00", "-", "o", strong=True),
    "mode s3": Look("#0072B2", "-", "o", strong=True),
    "mode bm25": Look("#009E73", "-", "o", strong=True),
    "faiss-flat": Look("#6e6e6e", "--", "^", strong=False),
    "faiss-hnsw": Look("#8c8c8c", "-.", "s", strong=False),
    "rank-bm25": Look("#8c8c8c", ":", "v", strong=False),
    "bm25": Look("#8c8c8c", ":", "v", strong=False),
}


def look(method: str) -> Look:
    """The look of a method, by the beginning of its name."""
    return next(style for start, style in _LOOKS.items() if method.startswith(start))


@contextmanager
def figure(size: tuple[float, float], path: Path) -> Iterator[Any]:
    """A picture to draw in, written as SVG and as PNG.

    Args:
        size: Width and height in inches.
        path: The files without suffix, in an existing folder.
    """
    # Without pyplot, which keeps figures and needs a display.
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from PIL import Image

    settings: Any = {
        "font.size": _FONT,
        # Few: an SVG lists them with every text.
        "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
        "text.color": INK,
        "axes.edgecolor": "#999999",
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": _GRID,
        "grid.linewidth": 0.6,
        "xtick.color": INK,
        "ytick.color": INK,
        "svg.fonttype": "none",
        "svg.hashsalt": "s3",
    }
    with mpl.rc_context(settings):
        drawn = Figure(figsize=size, dpi=110)
        yield drawn
        drawn.savefig(path.with_suffix(".svg"), metadata={"Date": None})
        drawn.savefig(path.with_suffix(".png"))
    # A palette makes the file a third as large, with no visible difference.
    with Image.open(path.with_suffix(".png")) as picture:
        reduced = picture.convert("RGB").quantize(128)
    reduced.save(path.with_suffix(".png"), optimize=True)


def draw_line(
    panel: Any, name: str, xs: Sequence[float], ys: Sequence[float], *, plain: bool = False
) -> None:
    """Draw a line in the look of a method; `plain` thins weak lines and omits their markers."""
    style = look(name)
    weak = 0.9 if plain else 1.0
    panel.plot(
        xs,
        ys,
        style.dash,
        color=style.colour,
        linewidth=2.0 if style.strong else weak,
        marker=style.marker if style.strong or not plain else None,
        markersize=(3.5 if plain else 4.5) if style.strong else 3,
        zorder=3 if style.strong else 2,
    )


def draw_means(
    panel: Any, name: str, means: Mapping[int, Estimate], *, plain: bool = False
) -> tuple[float, float]:
    """Draw means by budget, with the band of their intervals if the method is strong.

    Returns:
        The end of the line.
    """
    style = look(name)
    budgets, values = list(means), list(means.values())
    draw_line(panel, name, budgets, [value.mean for value in values], plain=plain)
    if style.strong:
        low, high = [value.low for value in values], [value.high for value in values]
        panel.fill_between(budgets, low, high, color=style.colour, alpha=0.12, linewidth=0)
    return budgets[-1], values[-1].mean


def budget_axis(panel: Any, budgets: Sequence[int]) -> None:
    """Ticks at the budgets, on a log scale."""
    panel.set_xscale("log", base=2)
    panel.set_xticks(budgets, [f"{budget:,}" for budget in budgets])
    panel.minorticks_off()


def name_points(
    panel: Any,
    points: Mapping[str, tuple[float, float]],
    texts: Mapping[str, str],
    *,
    left: float,
    line: float,
    font: float = _FONT,
    styled: Callable[[str], str] = str,
) -> None:
    """Name points in a column at the right, which replaces a legend.

    Args:
        panel: Axes of any scale; their limits stay as they are now.
        points: By name, where a line ends or a point is.
        texts: By name, the text to write.
        left: Where the column begins, as a share of the axes' width.
        line: Height of a line of text, as a share of the axes' height.
        font: Size of the text in points.
        styled: The name under which `look` knows a point.
    """
    panel.set_xlim(panel.get_xlim())
    panel.set_ylim(panel.get_ylim())
    within = panel.transData + panel.transAxes.inverted()
    heights = [float(within.transform(point)[1]) for point in points.values()]
    places = spread(heights, line, 0.0, 1.0)
    for (name, point), place in zip(points.items(), places, strict=True):
        style = look(styled(name))
        panel.annotate(
            texts[name],
            xy=point,
            xytext=(left, place),
            textcoords="axes fraction",
            va="center",
            fontsize=font,
            fontweight="bold" if style.strong else "normal",
            color=style.colour,
            arrowprops={
                "arrowstyle": "-",
                "color": style.colour,
                "linewidth": 0.5,
                "alpha": 0.6,
                "shrinkA": 0,
                "shrinkB": 3,
                "relpos": (0, 0.5),
            },
            annotation_clip=False,
        )


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions of labels that keep a distance and stay close to where they belong.

    Args:
        wanted: Where they belong.
        gap: Distance between neighbours.
        low: The lowest position.
        high: The highest position; too many labels go beyond it.
    """
    from scipy.optimize import isotonic_regression

    order = np.argsort(wanted, kind="stable")
    steps = gap * np.arange(len(wanted))
    # Minus the steps, positions that keep their distance are positions in ascending order.
    ascending = isotonic_regression(np.take(wanted, order) - steps).x
    places = np.empty(len(wanted))
    places[order] = np.clip(ascending, low, max(low, high - gap * (len(wanted) - 1))) + steps
    return [float(place) for place in places]


WHOLE = (0, 0, 1, 0.99)


def panels(drawn: Any, rows: int, columns: int) -> Any:
    """Panels of a picture, row by row."""
    return drawn.subplots(rows, columns, squeeze=False).flat


def remove_rest(drawn: Any, used: int) -> None:
    """Remove the panels after those that are used."""
    for panel in list(drawn.axes)[used:]:
        panel.remove()


def end_texts(
    ends: Mapping[str, tuple[float, float]],
    show: Callable[[float], str],
    short: Callable[[float], str],
    names: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Names and last values of lines, with the place of those that end before the others."""
    last = max((x for x, _ in ends.values()), default=0)
    return {
        name: f"{names[name] if names else name}  {show(y)}" + f" ({short(x)})" * (x < last)
        for name, (x, y) in ends.items()
    }


def binary(tokens: float) -> str:
    """A number of tokens as `32k`, which is 32,768."""
    kilo = tokens / 1024
    return f"{kilo:g}k" if kilo.is_integer() else f"{tokens:,.0f}"
