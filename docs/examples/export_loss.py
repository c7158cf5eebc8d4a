"""What a search by another engine loses, with and without ranking at home.

    python docs/examples/export_loss.py QUESTIONS.jsonl [--questions N]

The question set has rows with `question`, `docs` (title and sentences) and `support`, as
`s3r bench quality` takes them. All paragraphs go into one index.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from export_lancedb import load as load_lancedb
from export_lancedb import search as search_lancedb
from export_qdrant import fused, search
from export_qdrant import load as load_qdrant
from qdrant_client import QdrantClient
from rich.console import Console

from s3_retriever import Document, S3Index, export_index, question_vectors

K = 10
console = Console(markup=False, highlight=False)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--questions", type=int, default=50)
    arguments = parser.parse_args()
    with arguments.file.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    client = QdrantClient(":memory:")
    with S3Index.create(device="cpu", dtype="float32") as index, _folder() as folder:
        documents = {d.id: d for row in rows for d in map(_document, row["docs"])}
        index.add(documents.values())
        file = export_index(index, Path(folder) / "export")
        load_qdrant(client, file)
        table = load_lancedb(Path(folder) / "lance", file)
        ways = {
            "the index": lambda q: _ids(index.search(q, K)),
            "Qdrant, ranked at home": lambda q: _ids(search(client, index, q, K)),
            "LanceDB, ranked at home": lambda q: _ids(search_lancedb(table, index, q, K)),
            "Qdrant alone (RRF)": lambda q: fused(client, question_vectors(index, q), K),
        }
        console.print(f"{len(documents):,} paragraphs, {index.stats()['sentences']:,} sentences")
        asked = rows[: arguments.questions]
        answers = {way: [find(row["question"]) for row in asked] for way, find in ways.items()}
    console.print(
        f"| {len(asked)} questions | gold sentences in the top {K} | of the index's top {K} |"
    )
    console.print("|---|---|---|")
    for way, found in answers.items():
        gold = [_share(_gold(row), ids) for row, ids in zip(asked, found, strict=True)]
        same = [
            len({*ids} & {*exact}) / max(len(exact), 1)
            for ids, exact in zip(found, answers["the index"], strict=True)
        ]
        console.print(f"| {way} | {sum(gold) / len(gold):.1%} | {sum(same) / len(same):.1%} |")


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


def _document(paragraph: dict[str, Any]) -> Document:
    title, text = paragraph["title"], "".join(paragraph["sents"])
    return Document(text, metadata={"title": title})


def _ids(spans: list[Any]) -> list[str]:
    return [span.id for span in spans]


def _gold(row: dict[str, Any]) -> list[tuple[str, int, int]]:
    """Documents and characters of the sentences that support the answer."""
    gold = []
    for place, sentence in row["support"]:
        sentences = row["docs"][place]["sents"]
        start = sum(map(len, sentences[:sentence])) if sentence >= 0 else 0
        end = start + len(sentences[sentence] if sentence >= 0 else "".join(sentences))
        gold.append((_document(row["docs"][place]).id, start, end))
    return gold


def _share(gold: list[tuple[str, int, int]], ids: list[str]) -> float:
    """The share of gold sentences that a span has at least half of."""
    spans = []
    for name in ids:
        document, _, characters = name.rpartition(":")
        start, _, end = characters.partition("-")
        spans.append((document, int(start), int(end)))
    found = sum(
        any(
            name == document and min(end, last) - max(start, first) > (end - start) / 2
            for document, first, last in spans
        )
        for name, start, end in gold
    )
    return found / max(len(gold), 1)


if __name__ == "__main__":
    main()
