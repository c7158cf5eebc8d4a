"""GoldSpan retrieval under a token budget, for methods side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from s3_retriever import __version__
from s3_retriever.calibration.public_sets import load_set
from s3_retriever.calibration.question_sets import Choice, Task, build_task
from s3_retriever.codebook import Codebook
from s3_retriever.errors import InputError
from s3_retriever.host import Host
from s3_retriever_bench.machine import machine, versions
from s3_retriever_bench.measuring import measure
from s3_retriever_bench.methods import METHODS, Resources, method_names
from s3_retriever_bench.store import Store
from s3_retriever_bench.summary import Summary


@dataclass(frozen=True, slots=True)
class Quality:
    """What a run measured.

    Attributes:
        settings: Whatever changes results, as JSON values.
        tasks: By set.
        summaries: In the order of the sets.
    """

    settings: dict[str, Any]
    tasks: dict[str, Task]
    summaries: list[Summary]

    def figures(self) -> dict[str, Any]:
        """JSON values, with those of each question, so that paired tests can be done again."""
        return {
            "settings": self.settings,
            "machine": machine(),
            "versions": versions(),
            "sets": {
                summary.name: {
                    "contexts": len(self.tasks[summary.name].contexts),
                    "questions": [q.id for q in self.tasks[summary.name].questions()],
                    "groups": list(summary.groups),
                    "values": summary.methods,
                    **summary.figures(),
                }
                for summary in self.summaries
            },
        }


def run_quality(
    sources: Sequence[str],
    *,
    host: str,
    codebook: Codebook,
    budgets: Sequence[int],
    choice: Choice,
    methods: Sequence[str] | None = None,
    folder: Path | None = None,
    fresh: bool = False,
) -> Quality:
    """Measure methods on question sets.

    Args:
        sources: Question sets: files or public names; see `load_set`.
        host: Name of the host.
        codebook: Its codebook.
        budgets: Token budgets.
        choice: Which questions of the sets, and of how much text.
        methods: Names of methods; all where None.
        folder: Where results are kept as they come; a run with the same settings goes on there.
        fresh: Whether to measure again what is there.

    Raises:
        InputError: A set or a method is not usable, or the folder has results of other settings.
    """
    names = method_names(codebook, methods)
    budgets = sorted(set(budgets))
    settings = _settings(host, codebook, budgets, choice)
    tasks = _tasks(sources, choice)
    store = Store(folder, settings, fresh)
    loaded = Host.load(host, layers=codebook.depth)
    summaries = []
    for name, task in tasks.items():
        try:
            results = _measure_all(task, names, Resources(loaded, codebook), budgets, store)
        except KeyboardInterrupt:
            kept = f"What is finished is in {folder}; the same command goes on." if folder else ""
            raise KeyboardInterrupt(kept) from None
        groups = [question.group for question in task.questions()]
        summaries.append(Summary(name, groups, results, budgets, choice.seed))
    return Quality(settings, tasks, summaries)


def _tasks(sources: Sequence[str], choice: Choice) -> dict[str, Task]:
    tasks: dict[str, Task] = {}
    for source in sources:
        task = build_task(load_set(source), choice)
        if task.name in tasks:
            raise InputError(f"Two question sets are named {task.name!r}; rename one of the files.")
        tasks[task.name] = task
    return tasks


def _measure_all(
    task: Task, names: Sequence[str], shared: Resources, budgets: Sequence[int], store: Store
) -> dict[str, Any]:
    digest = task.digest()
    results = {}
    for name in names:
        found = store.get(task.name, name, digest)
        if found is None:
            found = measure(task, METHODS[name], shared, budgets, f"{task.name}: {name}")
            store.put(task.name, name, digest, found)
        results[name] = found
    return results


def _settings(
    host: str, codebook: Codebook, budgets: Sequence[int], choice: Choice
) -> dict[str, Any]:
    return {
        "version": __version__,
        "host": host,
        "codebook": codebook.identity,
        "recipe": codebook.named_recipe("default").model_dump(),
        "budgets": list(budgets),
        **asdict(choice),
    }
