"""Collections with relevance judgments in BEIR's form, and runs in TREC's."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s3_retriever import Document, InputError
from s3_retriever.calibration.question_sets import split_of
from s3_retriever.types import Split
from s3_retriever_bench.corpus import parsed_file, string
from s3_retriever_bench.storage import files_digest

# Scores of documents by the id of the query and the document.
Run = dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class Collection:
    """Documents, queries, and which documents are relevant to each query.

    Attributes:
        name: Name of its folder.
        documents: All documents.
        queries: Texts of the judged queries by id.
        judgments: Grades of documents, 0 for not relevant, by the ids of query and document.
        digest: A hash of the files and of the choice of queries.
    """

    name: str
    documents: tuple[Document, ...]
    queries: Mapping[str, str]
    judgments: Mapping[str, Mapping[str, int]]
    digest: str


def read_collection(
    folder: Path, judgments: str = "test", split: Split = "all", queries: int | None = None
) -> Collection:
    """Read a collection in BEIR's form.

    Args:
        folder: Has `corpus.jsonl` (`_id`, `text` and optionally `title` in each line),
            `queries.jsonl` (`_id` and `text`) and `qrels/NAME.tsv` (query, document and grade).
        judgments: The name of the file of judgments.
        split: Which of its queries: `all`, or the share that the project tunes on (`dev`) or
            reports (`test`), by a hash of their ids.
        queries: Most queries, the first ones; None for all.

    Raises:
        InputError: A file is missing or has another form, or no query is left.
    """
    corpus, asked = folder / "corpus.jsonl", folder / "queries.jsonl"
    grades = folder / "qrels" / f"{judgments}.tsv"
    try:
        judged = _judged(grades, split)
        texts = dict(parsed_file(asked, _query, "a JSON object with _id and text"))
        documents = tuple(parsed_file(corpus, _document, "a JSON object with _id and text"))
    except OSError as error:
        raise InputError(
            f"{error.filename} cannot be read: {error.strerror}; a collection in BEIR's form has "
            "corpus.jsonl, queries.jsonl and qrels/NAME.tsv."
        ) from error
    names = [query for query in judged if query in texts][:queries]
    if not names:
        raise InputError(f"{folder} has no judged query of split {split!r}; choose another.")
    return Collection(
        folder.resolve().name,
        documents,
        {query: texts[query] for query in names},
        {query: judged[query] for query in names},
        files_digest([corpus, asked, grades], (split, queries)),
    )


def _document(row: Mapping[str, Any]) -> Document:
    title = row.get("title") or ""
    return Document(string(row, "text"), str(row["_id"]), {"title": title} if title else {})


def _query(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row["_id"]), string(row, "text")


def _judged(path: Path, split: Split) -> dict[str, dict[str, int]]:
    """Grades by query and document; a query without a relevant one is left out, as in trec_eval."""
    judged: dict[str, dict[str, int]] = {}
    with path.open(encoding="utf-8", newline="") as lines:
        for number, row in enumerate(csv.reader(lines, delimiter="\t"), 1):
            if not row or (number == 1 and row[0].startswith("query")):
                continue
            try:
                query, document, grade = row[0], row[1], int(row[2])
            except (ValueError, IndexError) as error:
                raise InputError(
                    f"{path}, line {number}, is not a query, a document and a grade: {error}"
                ) from error
            if split in ("all", split_of(query)):
                judged.setdefault(query, {})[document] = grade
    return {query: its for query, its in judged.items() if any(g > 0 for g in its.values())}


def write_run(path: Path, run: Run, tag: str) -> None:
    """Write a run as TREC does: query, Q0, document, rank, score and tag in each line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        for query, scores in run.items():
            ranked = sorted(scores.items(), key=lambda item: -item[1])
            for rank, (document, score) in enumerate(ranked, 1):
                file.write(f"{query} Q0 {document} {rank} {score:.9g} {tag}\n")
    partial.replace(path)


def read_run(path: Path) -> Run:
    """Read a run that `write_run` wrote.

    Raises:
        InputError: The file is not a run.
    """
    run: Run = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            query, _, document, _, score, _ = line.split(" ")
            run.setdefault(query, {})[document] = float(score)
    except ValueError as error:
        raise InputError(f"{path} is not a run: {error}; remove it to rank again.") from error
    return run


def evaluate(
    judgments: Mapping[str, Mapping[str, int]], run: Run, measures: Mapping[str, str]
) -> dict[str, list[float]]:
    """Values of each query, in the order of the judgments, as `trec_eval` computes them.

    Args:
        judgments: As in `Collection`.
        run: The run; a query without documents has 0.
        measures: Names of `trec_eval`, such as `ndcg_cut_10`, by the names of the values.
    """
    import pytrec_eval

    known = {query: dict(its) for query, its in judgments.items()}
    results: dict[str, Any] = pytrec_eval.RelevanceEvaluator(
        known, set(measures.values())
    ).evaluate({query: run.get(query, {}) for query in known})
    return {
        name: [round(float(results.get(query, {}).get(its, 0.0)), 4) for query in known]
        for name, its in measures.items()
    }
