"""What all pictures share: size and font, files, and names beside what they name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from s3_retriever_bench.report.style import GRID, INK, look, spread

FONT = 7.5


@contextmanager
def figure(size: tuple[float, float], path: Path) -> Iterator[Any]:
    """A picture to draw in, which is written as SVG and as PNG.

    Args:
        size: Width and height in inches.
        path: The files, without suffix, in an existing folder.
    """
    # Without pyplot, which keeps figures and asks for a display.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings: Any = {
        "font.size": FONT,
        # Few: an SVG names them with every text.
        "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
        "text.color": INK,
        "axes.edgecolor": "#999999",
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
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
        _shrink(path.with_suffix(".png"))


def draw_line(panel: Any, name: str, xs: Sequence[float], ys: Sequence[float]) -> None:
    """Draw the line of something that is measured, in its own look."""
    style = look(name)
    panel.plot(
        xs,
        ys,
        style.dash,
        color=style.colour,
        linewidth=2.0 if style.strong else 1.0,
        marker=style.marker,
        markersize=4.5 if style.strong else 3,
        zorder=3 if style.strong else 2,
    )


def name_points(
    panel: Any,
    points: Mapping[str, tuple[float, float]],
    texts: Mapping[str, str],
    *,
    left: float,
    line: float,
    font: float = FONT,
) -> None:
    """Name points in a column at the right, so that no legend is needed.

    Args:
        panel: Axes of any scale whose limits are final.
        points: By name, where a line ends or a point is.
        texts: By name, what is written.
        left: Where the column begins, as a share of the axes' width.
        line: Height of a line of text, as a share of the axes' height.
        font: Size of the text in points.
    """
    heights = [_height(panel, *point) for point in points.values()]
    places = spread(heights, line, 0.0, 1.0)
    for (name, point), place in zip(points.items(), places, strict=True):
        style = look(name)
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


def _height(panel: Any, x: float, y: float) -> float:
    """How high up a point is, as a share of the axes' height."""
    return float(panel.transAxes.inverted().transform(panel.transData.transform((x, y)))[1])


def _shrink(path: Path) -> None:
    """Reduce a picture to a palette: a third of the size, and no difference to see."""
    from PIL import Image

    with Image.open(path) as picture:
        reduced = picture.convert("RGB").quantize(128)
    reduced.save(path, optimize=True)
