"""Evidence retrieval under a token budget, methods side by side on labelled questions."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from s3_retriever import Codebook, Document, Host, InputError
from s3_retriever.calibration.evaluation import evidence_recall, overlap
from s3_retriever.calibration.public_sets import load_set
from s3_retriever.calibration.question_sets import (
    Choice,
    Context,
    Piece,
    Question,
    Task,
    build_task,
)
from s3_retriever_bench.retrieval import dialogues
from s3_retriever_bench.retrieval.documents import evaluate
from s3_retriever_bench.retrieval.methods import METHODS, Resources, Searcher, method_names
from s3_retriever_bench.retrieval.report import QualitySummary
from s3_retriever_bench.shared.scoring import BY_CHANCE
from s3_retriever_bench.shared.storage import Store, codebook_settings

# Maximum tokens that preparing is timed on, since it repeats work that was remembered.
_TIMED_TOKENS = 20_000


def run_quality(
    sources: Sequence[str],
    *,
    host: str,
    codebook: Codebook,
    budgets: Sequence[int],
    choice: Choice,
    methods: Sequence[str] | None = None,
    rerank_host: str | None = None,
    folder: Path | None = None,
    fresh: bool = False,
) -> dict[str, Any]:
    """Measure methods on question sets.

    Takes the options of `s3r bench quality`: `sources` are files or public names, as `load_set`
    reads them. With a folder, a run with the same settings resumes there.

    Returns:
        JSON values: `settings`, `machine`, `versions`, and `sets` by name, with the values of
        each question (see `measure`), so that paired tests can be repeated, and their summary.

    Raises:
        InputError: A set or a method is not usable, or the folder has results of other settings.
    """
    names = method_names(codebook, methods)
    settings = {
        "host": host,
        **codebook_settings(codebook),
        "budgets": sorted(set(budgets)),
        **asdict(choice),
    }
    if rerank_host is not None:
        settings["rerank_host"] = rerank_host
    tasks = _tasks(sources, choice)
    store = Store(folder, settings, fresh)
    loaded = Host.load(host, layers=codebook.depth)
    with store.resumable():
        sets = {
            name: _measure_set(
                task, names, Resources(loaded, codebook, rerank_host), settings, store
            )
            for name, task in tasks.items()
        }
    return store.figures(sets=sets)


def _tasks(sources: Sequence[str], choice: Choice) -> dict[str, Task]:
    tasks: dict[str, Task] = {}
    for source in sources:
        made_up = source == dialogues.NAME
        task = build_task(dialogues.dialogues() if made_up else load_set(source), choice)
        if task.name in tasks:
            raise InputError(f"Two question sets are named {task.name!r}; rename one of the files.")
        tasks[task.name] = task
    return tasks


def _measure_set(
    task: Task,
    names: Sequence[str],
    shared: Resources,
    settings: Mapping[str, Any],
    store: Store,
) -> dict[str, Any]:
    digest, budgets = task.digest(), settings["budgets"]
    values = {}
    for name in names:
        run = partial(measure, task, name, shared, budgets)
        values[name] = store.measured(task.name, name, digest, run)
    figures = {
        "contexts": len(task.contexts),
        "questions": [question.id for question in task.questions()],
        "groups": [question.group for question in task.questions()],
        "values": values,
    }
    return figures | QualitySummary(task.name, figures, budgets, settings["seed"]).figures()


def measure(task: Task, method: str, shared: Resources, budgets: Sequence[int]) -> dict[str, Any]:
    """Ask all questions of a task with one method.

    Args:
        task: Contexts and questions.
        method: A name from `METHODS`.
        shared: What methods share; it remembers texts, which recur among contexts.
        budgets: Token budgets, ascending.

    Returns:
        JSON values. A value for each question: `evidence` and `answer` by budget, `ndcg` and
        `mrr` of the ranking under the largest budget, and `search_ms`, the time of its first
        search. For the method: `prepare_seconds_per_1k_tokens`, of the first documents with
        nothing remembered, and `bytes_per_token`, over all contexts.
    """
    values: dict[str, Any] = {
        "evidence": {str(budget): [] for budget in budgets},
        "answer": {str(budget): [] for budget in budgets},
        "ndcg": [],
        "mrr": [],
        "search_ms": [],
    }
    size = tokens = 0
    count = sum(1 for _ in task.questions())
    with tqdm(total=count, desc=f"{task.name}: {method}", unit="question", disable=None) as bar:
        for context in task.contexts:
            tokens += sum(shared.tokenizer.count(d.text) for d in context.documents)
            with closing(METHODS[method](shared, context.documents)) as searcher:
                size += searcher.size()
                for question in context.questions:
                    _ask(question, context, searcher, budgets, values)
                    bar.update()
    values["prepare_seconds_per_1k_tokens"] = _time_preparing(task, method, shared)
    values["bytes_per_token"] = round(size / tokens, 1)
    return values


def _ask(
    question: Question,
    context: Context,
    searcher: Searcher,
    budgets: Sequence[int],
    values: dict[str, Any],
) -> None:
    """Append the values of one question."""
    started = time.perf_counter()
    pieces = searcher.search(question.text, budgets[0])
    values["search_ms"].append(round(1_000 * (time.perf_counter() - started), 2))
    for budget in budgets:
        if budget != budgets[0]:
            pieces = searcher.search(question.text, budget)
        recall = round(evidence_recall(question.evidence, pieces), 4)
        values["evidence"][str(budget)].append(recall)
        values["answer"][str(budget)].append(answer_recall(question, context, pieces))
    for name, value in ranking(question, pieces).items():
        values[name].append(value)


def _time_preparing(task: Task, method: str, shared: Resources) -> float:
    documents, tokens = _first_documents(task, shared)
    emptied = shared.emptied()
    started = time.perf_counter()
    searcher = METHODS[method](emptied, documents)
    seconds = time.perf_counter() - started
    searcher.close()
    return round(1_000 * seconds / tokens, 5)


def _first_documents(task: Task, shared: Resources) -> tuple[Sequence[Document], int]:
    """Documents of the first context, at least one, up to `_TIMED_TOKENS`; and their tokens."""
    documents = task.contexts[0].documents
    totals = list(accumulate(shared.tokenizer.count(document.text) for document in documents))
    chosen = max(1, sum(total <= _TIMED_TOKENS for total in totals))
    return documents[:chosen], totals[chosen - 1]


def answer_recall(question: Question, context: Context, pieces: Sequence[Piece]) -> float | None:
    """1 if an answer's string occurs in a piece, ignoring case, else 0.

    None if there is no string to look for: no answer occurs in the documents, or it is yes or no.
    """
    answers = [answer.casefold() for answer in question.answers]
    answers = [answer for answer in answers if answer.strip() and answer not in BY_CHANCE]
    if not _any_occurs(answers, (document.text for document in context.documents)):
        return None
    return float(_any_occurs(answers, (piece.text for piece in pieces)))


def ranking(question: Question, pieces: Sequence[Piece]) -> dict[str, float]:
    """Values of a ranking by `trec_eval`: `ndcg`, of the first ten pieces, and `mrr`.

    A piece is relevant if it overlaps evidence that no earlier piece does. The ideal ranking begins
    with as many such pieces as there are pieces of evidence.
    """
    missing = set(question.evidence)
    judged: dict[str, int] = {}
    for number, piece in enumerate(pieces):
        touched = {evidence for evidence in missing if overlap(evidence, piece)}
        judged[str(number)] = int(bool(touched))
        missing -= touched
    run = {piece: -float(piece) for piece in judged}
    for number in range(len(question.evidence) - sum(judged.values())):
        judged[f"missing {number}"] = 1
    measures = {"ndcg": "ndcg_cut_10", "mrr": "recip_rank"}
    values = evaluate({"question": judged}, {"question": run}, measures)
    return {name: value for name, (value,) in values.items()}


def _any_occurs(answers: Sequence[str], texts: Iterable[str]) -> bool:
    joined = "\n".join(texts).casefold() if answers else ""
    return any(answer in joined for answer in answers)
