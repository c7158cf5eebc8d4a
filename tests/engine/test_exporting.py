"""Export: what another engine gets, and what its products are worth."""

from __future__ import annotations

import json
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from s3_retriever import (
    Document,
    IndexStoreError,
    InputError,
    S3Error,
    S3Index,
    export_index,
    question_vectors,
)
from s3_retriever.cli.app import app
from s3_retriever.search import rank

QUESTION = "Who mends warm bread and 7 boats before dawn? Une boulangerie"


@pytest.fixture(scope="module")
def index():
    """Of the embedded host: small blocks, two languages, deletions, documents without text."""
    blocks = pytest.MonkeyPatch()
    blocks.setattr("s3_retriever.index.postings.BLOCK_TOKENS", 30)
    blocks.setattr("s3_retriever.index.lexical.BLOCK_ENTRIES", 7)
    with S3Index.create(device="cpu", dtype="float32") as index:
        index.add(
            [
                Document("A baker mends warm bread. He carries 7 boats!", "a:1-2", {"title": "X"}),
                Document("", "empty"),
                Document("The nurse paints. " * 30, "long", {"tags": ["ü", None]}),
            ]
        )
        index.add([Document("Nobody mends this before dawn.", "gone"), Document("Boats.", "b")])
        index.add([Document("La boulangerie est ouverte. Le pain est chaud.", "fr")])
        index.add([Document("Only this and gone.", "only")])
        index.delete(["gone", "only"])
        blocks.undo()
        yield index


@pytest.fixture(scope="module")
def table(index, tmp_path_factory):
    file = export_index(index, tmp_path_factory.mktemp("export") / "e")
    return pq.read_table(file)


def test_every_live_sentence_is_there(index, table):
    rows = table.to_pylist()
    documents = {document.id: document for document in index}
    assert {row["document_id"] for row in rows} == {"a:1-2", "long", "b", "fr"}
    assert len(rows) == index.stats()["sentences"]
    assert sum(row["tokens"] for row in rows) == index.stats()["tokens"]
    for row in rows:
        document = documents[row["document_id"]]
        assert document.text[row["start"] : row["end"]] == row["text"]
        assert row["id"] == f"{document.id}:{row['start']}-{row['end']}"
        assert json.loads(row["metadata"]) == document.metadata
        assert row["features.indices"] == sorted(set(row["features.indices"]))
        assert row["terms.indices"] == sorted(set(row["terms.indices"]))
    about = json.loads(table.schema.metadata[b"s3_retriever"])
    assert (about["sentences"], about["features"]) == (len(rows), {"hidden.5": 0})


def products(rows, name, question):
    weights = dict(zip(question.indices.tolist(), question.values.tolist(), strict=True))
    return [
        sum(
            weights.get(index, 0.0) * value
            for index, value in zip(row[f"{name}.indices"], row[f"{name}.values"], strict=True)
        )
        for row in rows
    ]


def test_products_are_the_raw_scores(index, table):
    rows, question = table.to_pylist(), question_vectors(index, QUESTION)
    snapshot = index.snapshot()
    ranking = rank(snapshot, QUESTION, index.recipe, index.encoder, "hybrid", snapshot.live)
    raw = {source: scores[snapshot.live] for source, scores in ranking.raw_scores.items()}
    assert max(raw["s3"]) > 0 < max(raw["bm25"])
    assert products(rows, "features", question.features) == pytest.approx(raw["s3"], rel=1e-5)
    assert products(rows, "terms", question.terms) == pytest.approx(raw["bm25"], rel=1e-5)
    vectors = np.array(table["vector"].to_pylist())
    assert vectors @ question.vector == pytest.approx(raw["sentence"], abs=1e-5)


def test_candidates_are_ranked_at_home(index):
    spans = index.search(QUESTION, 5, where={"$ids": ["b", "fr", "gone", "nowhere", "b"]})
    assert {span.document_id for span in spans} == {"b", "fr"}
    assert index.search(QUESTION, where={"$ids": []}) == []
    found = index.search(QUESTION, where={"$not": {"$ids": ["fr"]}, "title": {"$exists": False}})
    assert {span.document_id for span in found} <= {"b", "long"}
    everything = {"$ids": index.ids()}
    assert index.search(QUESTION, 9, where=everything) == index.search(QUESTION, 9)
    for ids in ("fr", ["fr", 1], None, {"$in": ["fr"]}):
        with pytest.raises(InputError, match=r"where\['\$ids'\] must be a list of ids"):
            index.search(QUESTION, where={"$ids": ids})


def test_recipes_with_fewer_signals(tmp_path, tiny_bert, tiny_codebook):
    model = {"codebook": tiny_codebook, "device": "cpu", "dtype": "float32"}
    with S3Index.create(None, str(tiny_bert), recipe="paper-literal", **model) as index:
        index.add("A baker mends warm bread.")
        table = pq.read_table(export_index(index, tmp_path / "e"))
        assert "vector" not in table.schema.names
        assert question_vectors(index, QUESTION).vector is None
        assert sum(products(table.to_pylist(), "terms", question_vectors(index, "bread").terms)) > 0


def test_attention_is_no_product_of_vectors(tmp_path, tiny_bert, tiny_codebook):
    model = {"codebook": tiny_codebook, "device": "cpu", "dtype": "float32"}
    with S3Index.create(None, str(tiny_bert), recipe="paper", **model) as index:
        index.add("A baker mends warm bread.")
        with pytest.raises(InputError, match="no product of vectors computes"):
            export_index(index, tmp_path / "e")
        with pytest.raises(InputError, match="no product of vectors computes"):
            question_vectors(index, QUESTION)
    assert not (tmp_path / "e").exists()


def test_an_index_without_sentences(tmp_path):
    with S3Index.create(device="cpu", dtype="float32") as index:
        assert pq.read_table(export_index(index, tmp_path / "a")).num_rows == 0
        index.add(Document("", "empty"))
        assert pq.read_table(export_index(index, tmp_path / "b")).num_rows == 0
        assert len(question_vectors(index, "bread").terms.indices) == 1


def test_bad_input(index, tmp_path, monkeypatch):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(IndexStoreError, match="in use"):
        export_index(index, tmp_path)
    with pytest.raises(IndexStoreError, match="in use"):
        export_index(index, tmp_path / "note.txt")
    with pytest.raises(IndexStoreError, match=r"Writing .* failed"):
        export_index(index, tmp_path / "note.txt" / "e")
    for question in ("", "  ", None):
        with pytest.raises(InputError):
            question_vectors(index, question)
    with pytest.raises(InputError, match="index"):
        export_index("handbook.s3r", tmp_path / "e")
    closed = S3Index.create(tmp_path / "closed.s3r", device="cpu", dtype="float32")
    closed.close()
    with pytest.raises(IndexStoreError, match="is closed"):
        export_index(closed, tmp_path / "e")
    assert not (tmp_path / "e").exists()
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(S3Error, match=r"pip install 's3-retriever\[export\]'"):
        export_index(index, tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_the_command(index, tmp_path, monkeypatch):
    index.save(tmp_path / "i.s3r")
    done = CliRunner().invoke(app, ["export", str(tmp_path / "i.s3r"), str(tmp_path / "e")])
    assert done.exit_code == 0, done.stderr
    assert "35 sentences" in done.stdout
    monkeypatch.chdir(tmp_path)
    assert export_index(index, "a:b").is_file()
    again = CliRunner().invoke(app, ["export", str(tmp_path / "i.s3r"), str(tmp_path / "e")])
    assert again.exit_code == 1
    assert "in use" in again.stderr
