"""`s3r bench build` and `bench cluster`, on a tiny host and a cluster of this machine."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from s3_retriever.cli.app import app
from s3_retriever_bench.serving import build as building
from s3_retriever_bench.serving import cluster as clusters

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """One Ray for both commands."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def bench(tmp_path, sentences, tiny_bert, tiny_codebook):
    """Runs a command on a text and gives what it wrote."""
    text, out = tmp_path / "text.jsonl", tmp_path / "out.json"
    rows = [{"text": " ".join(sentences[i : i + 10])} for i in range(0, 200, 10)]
    text.write_text("\n".join(map(json.dumps, rows)))
    fixed = ["--host", tiny_bert, "--codebook", tiny_codebook, "--text", text, "--out", out]

    def run(name, *arguments):
        command = ["bench", name, *fixed, *arguments]
        result = CliRunner().invoke(app, [str(argument) for argument in command])
        assert result.exit_code == 0, result.output
        return json.loads(out.read_text())

    return run


def test_builds_are_timed(bench, monkeypatch):
    monkeypatch.setattr(building, "run_alone", lambda work, *arguments: work(*arguments))
    monkeypatch.setattr(ray, "init", lambda **_: None)
    (row,) = bench("build", "--characters", 3_000, "--workers", 1)["rows"]
    assert row["workers"] == 1 and row["tokens"] > 300 and row["documents"] > 3
    assert row["tokens_per_second"] > 0 < row["seconds"]
    assert row["driver_bytes"] > 2**26


def test_a_sharded_index_is_measured_beside_one_index_and_survives_a_kill(bench, monkeypatch):
    monkeypatch.setattr(clusters, "run_alone", lambda work, *arguments: work(*arguments))
    settings = ["--tokens", 1_000, "--shards", 2, "--clients", 2, "--seconds", 1, "--kills", 1]
    figures = bench("cluster", *settings, "--questions", 3)
    for row in figures["search"].values():
        assert row["different"] == 0
        assert row["one_ms"] > 0 and row["sharded_ms"] > 0
    assert figures["search"].keys() == {"hybrid", "s3", "bm25"}
    assert figures["load"]["one_process"] > 0 < figures["load"]["sharded"]
    assert figures["kills"]["searches"] > 0
    assert figures["kills"]["wrong"] == figures["kills"]["errors"] == 0
    assert len(figures["memory"]["worker_bytes"]) == 2
