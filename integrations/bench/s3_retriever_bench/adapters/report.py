"""The tables of `adapt` and `recovery`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev

from s3_retriever_bench.shared.report import Grid, digits, share, show_run
from s3_retriever_bench.shared.statistics import Figures

_KINDS = ("harmful", "unsafe", "safe")


def adapt_tables(figures: Figures) -> Iterator[Grid]:
    """What was refused by start, and what it cost; the losses of training, step by step."""
    runs = {start: list(seeds.values()) for start, seeds in figures["runs"].items()}
    header = ["start", *_KINDS, "perplexity", "likelihood"]
    rows = [[start, *(cell(parts) for cell in _MEASURES)] for start, parts in runs.items()]
    seeds = max(map(len, runs.values()))
    yield Grid(
        f"Share refused after training, seeds: {seeds}; mean (standard deviation)", header, rows
    )
    trained = {start: parts for start, parts in runs.items() if parts[0]["losses"]}
    header = ["start", "trained parameters", "seconds to start", "seconds to train"]
    rows = [
        [
            start,
            f"{parts[0]['parameters']:,}",
            digits(_mean(parts, lambda part: part["start_seconds"])),
            digits(_mean(parts, lambda part: part["train_seconds"])),
        ]
        for start, parts in trained.items()
    ]
    yield Grid("Cost", header, rows)
    steps = _steps(len(next(iter(trained.values()))[0]["losses"]))
    rows = [
        [start, *(f"{_mean(parts, _loss_up_to(step)):.3f}" for step in steps)]
        for start, parts in trained.items()
    ]
    yield Grid(
        "Training loss, mean over the steps since the column before",
        ["start", *(f"to step {last}" for _, last in steps)],
        rows,
    )
    started = [p["basis"] for parts in runs.values() for p in parts if p["basis"]]
    if started:
        yield _features(started)


def starting_table(figures: Figures) -> Grid:
    """How long each start takes."""
    rows = [[start, digits(seconds)] for start, seconds in figures["seconds"].items()]
    return Grid("Starts", ["start", "seconds to start"], rows)


def recovery_tables(figures: Figures) -> Iterator[Grid]:
    """What of the true subspace is missed."""
    rows = [
        [f"SAE of {p['steps']:,} steps", share(1 - p["unexplained"]), share(p["error"])]
        for p in figures["points"]
    ]
    others = {**figures["direct"], "random subspace": figures["chance"]}
    rows += [[name, "-", share(error)] for name, error in others.items()]
    title = (
        f"{figures['features']} features on {figures['width']} neurons, {figures['raised']} raised"
    )
    yield Grid(title, ["found by", "variance explained", "share missed"], rows)


def _features(started: Sequence[Figures]) -> Grid:
    rows = [
        [str(index), f"{difference:+.2f}", " ".join(token.replace("|", "/") for token in tokens)]
        for index, difference, tokens in started[0]["features"]
    ]
    kept = fmean(basis["update_share"] for basis in started)
    title = (
        f"SAILS: the first features of a basis of rank {started[0]['rank']}, in which "
        f"{kept:.0%} of the trained update lies"
    )
    return Grid(title, ["feature", "wanted - unwanted", "fires on"], rows)


def _rate(kind: str) -> Callable[[Sequence[Figures]], str]:
    return lambda parts: _spread([fmean(part["refused"][kind]) for part in parts], share)


def _spread(values: Sequence[float], show: Callable[[float], str]) -> str:
    if len(values) < 2:
        return show(values[0])
    return f"{show(fmean(values))} ({show(stdev(values))})"


def _value(name: str, show: Callable[[float], str]) -> Callable[[Sequence[Figures]], str]:
    return lambda parts: _spread([part[name] for part in parts], show)


_MEASURES = [
    *(_rate(kind) for kind in _KINDS),
    _value("perplexity", "{:.2f}".format),
    _value("likelihood", "{:.3f}".format),
]


def _mean(parts: Sequence[Figures], value: Callable[[Figures], float]) -> float:
    return fmean(value(part) for part in parts)


def _steps(count: int) -> list[tuple[int, int]]:
    """Up to four stretches of the steps, as where each begins and ends."""
    ends = sorted({round(count * quarter / 4) for quarter in range(1, 5)} - {0})
    return list(zip([0, *ends], ends, strict=False))


def _loss_up_to(steps: tuple[int, int]) -> Callable[[Figures], float]:
    return lambda part: fmean(part["losses"][slice(*steps)])


def show_adapt(figures: Figures, folder: Path | None) -> None:
    """Print the tables of `adapt`, and write them without the answers, which the parts keep."""
    runs = {
        start: {
            seed: {k: v for k, v in part.items() if k != "answers"} for seed, part in seeds.items()
        }
        for start, seeds in figures["runs"].items()
    }
    title = "Adapters that learn to refuse"
    show_run({**figures, "runs": runs}, adapt_tables(figures), folder, "adapt", title)
