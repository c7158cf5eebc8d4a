"""`s3r bench retrieval` ranks the documents of collections in BEIR's form."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from s3_retriever import InputError
from s3_retriever.cli.app import app
from s3_retriever_bench.retrieval.documents import evaluate, read_collection, read_run, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory, sentences):
    """Twelve documents of three sentences; four queries in the words of one of them."""
    folder = tmp_path_factory.mktemp("beir") / "twelve"
    (folder / "qrels").mkdir(parents=True)
    documents = [" ".join(sentences[i * 40 : i * 40 + 3]) for i in range(12)]
    rows = [{"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate(documents)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    asked = [{"_id": f"q{i}", "text": sentences[i * 40 + 1]} for i in range(4)]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, asked)))
    lines = ["query-id\tcorpus-id\tscore", *(f"q{i}\td{i}\t1" for i in range(4)), "q1\td9\t0"]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines))
    return folder


def bench(folder, *arguments):
    given = ["bench", "retrieval", "--data", folder, *arguments]
    return CliRunner().invoke(app, [str(each) for each in given])


def test_every_method_ranks_documents_and_a_second_run_resumes(
    folder, tiny_bert, tiny_codebook, tmp_path
):
    options = ["--host", tiny_bert, "--codebook", tiny_codebook, "--out", tmp_path / "out"]
    first = bench(folder, *options)
    assert first.exit_code == 0, first.output
    figures = json.loads((tmp_path / "out" / "retrieval.json").read_text())
    its = figures["sets"]["twelve"]
    assert its["queries"] == ["q0", "q1", "q2", "q3"]
    assert list(its["values"]) == [
        "bm25",
        "dense",
        "ensemble-rrf",
        "ensemble-zscore",
        "s3",
        "hybrid",
    ]
    for method in ("bm25", "ensemble-zscore", "hybrid"):
        assert its["means"][method]["ndcg@10"]["mean"] == 1.0
    assert its["gains"]["hybrid"]["baseline"] == "bm25"
    run = read_run(tmp_path / "out" / "runs" / "twelve--hybrid.trec")
    assert max(run["q2"], key=run["q2"].get) == "d2"
    (tmp_path / "out" / "runs" / "twelve--hybrid.trec").unlink()
    assert bench(folder, *options).stdout == first.stdout
    assert not (tmp_path / "out" / "runs" / "twelve--hybrid.trec").exists()


def test_collections_of_another_form_are_refused_in_a_sentence(folder, tmp_path):
    with pytest.raises(InputError, match=r"qrels/NAME\.tsv"):
        read_collection(folder, "dev")
    with pytest.raises(InputError, match="no judged query of split"):
        read_collection(folder, split="dev", queries=0)
    broken = tmp_path / "broken"
    (broken / "qrels").mkdir(parents=True)
    for line in (b"q0\td0\tmuch", b"q0 d0 1", b"\xff\td0\t\xfe", b"q0\td0\t1\t2", b"a" * 200_000):
        (broken / "qrels" / "test.tsv").write_bytes(b"q0\td0\t1\n" + line)
        with pytest.raises(InputError, match=r"test\.tsv, line 2, is not a query"):
            read_collection(broken)


def test_runs_are_written_as_trec_does_and_measured_as_trec_eval_does(tmp_path):
    run = {"q0": {"a": 0.5, "b": 2.0, "c": 1.0}, "q1": {"a": 1.0}}
    write_run(tmp_path / "run.trec", run, "hybrid")
    assert (tmp_path / "run.trec").read_text().splitlines()[:2] == [
        "q0 Q0 b 1 2 hybrid",
        "q0 Q0 c 2 1 hybrid",
    ]
    assert read_run(tmp_path / "run.trec") == run
    judged = {"q0": {"c": 1, "b": 0}, "q1": {"z": 1}, "q2": {"a": 1}}
    values = evaluate(judged, run, {"mrr": "recip_rank", "ndcg@10": "ndcg_cut_10"})
    assert values == {"mrr": [0.5, 0.0, 0.0], "ndcg@10": [0.6309, 0.0, 0.0]}
