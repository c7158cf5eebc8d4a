"""Sentences of an index in LanceDB, and what it finds ranked exactly at home.

Needs lancedb, which runs in this process. It reads Arrow as it is. LanceDB has no sparse vectors:
candidates come from the dense vectors and from its own full-text search.

    pip install 's3-retriever[minilm,export]' lancedb
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import lancedb
import pyarrow.parquet as pq
from lancedb.index import FTS
from rich.console import Console

from s3_retriever import S3Index, Span, export_index, question_vectors, read_files

CANDIDATES = 257
DOCS = Path(__file__).parents[1]
console = Console(markup=False, highlight=False)
_KEPT = ["id", "document_id", "text", "metadata", "vector"]


def load(folder: Path, file: Path) -> Any:
    """Load exported sentences into a new table."""
    table = lancedb.connect(folder).create_table("sentences", pq.read_table(file, columns=_KEPT))
    table.create_index("text", config=FTS())
    return table


def candidates(table: Any, index: S3Index, question: str, n: int = CANDIDATES) -> list[str]:
    """The documents of the best sentences by mean state and by words."""
    vector = question_vectors(index, question).vector
    assert vector is not None
    near = table.search(vector, vector_column_name="vector").distance_type("dot").limit(n)
    words = table.search(question, query_type="fts").limit(n)
    rows = near.select(["document_id", "_distance"]).to_list()
    rows += words.select(["document_id", "_score"]).to_list()
    return list(dict.fromkeys(row["document_id"] for row in rows))


def search(table: Any, index: S3Index, question: str, k: int) -> list[Span]:
    """Find spans with LanceDB, and rank them as the index does."""
    return index.search(question, k, where={"$ids": candidates(table, index, question)})


def main() -> None:
    """Search the documentation of this project."""
    with S3Index.create(device="cpu") as index, tempfile.TemporaryDirectory() as folder:
        index.add(read_files(sorted(DOCS.glob("*.md")), base=DOCS))
        table = load(Path(folder) / "lance", export_index(index, Path(folder) / "export"))
        for question in ("How does a merge copy rows?", "Which file commits a change?"):
            spans = search(table, index, question, 3)
            exact = index.search(question, 3)
            same = [span.id for span in spans] == [span.id for span in exact]
            console.rule(f"{question} ({'as the index' if same else 'not as the index'})")
            for span in spans:
                console.print(f"{span.score:6.2f}  {span.document_id}: {span.text}")


if __name__ == "__main__":
    main()
