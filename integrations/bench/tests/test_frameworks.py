"""The measurements of the integrations see what is wrong, and run for real on a tiny host."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from s3_retriever import InputError
from s3_retriever.cli.app import app
from s3_retriever_bench.serving.frameworks import (
    FRAMEWORKS,
    Retriever,
    installed,
    measure_responsiveness,
    time_imports,
)

INSTALLED = [name for name, framework in FRAMEWORKS.items() if framework.is_installed()]


async def blocks(question):
    time.sleep(0.2)  # What is to be detected.
    return question


async def leaves_the_loop_free(question):
    await asyncio.to_thread(time.sleep, 0.6)
    return question


def measured(aask, questions=("Who?",), rounds=1):
    return measure_responsiveness(Retriever(lambda question: question, aask), questions, rounds)


def run(*arguments):
    return CliRunner().invoke(app, ["bench", "frameworks", *map(str, arguments)])


def test_a_call_that_holds_the_loop_up_makes_ticks_late():
    result = measured(blocks, rounds=2)
    # The tick under way had waited for up to 5 of the 200 ms.
    assert result["worst_ms"] >= 190
    assert result["p99_ms"] <= result["worst_ms"]
    assert [row["worst_ms"] >= 190 for row in result["rounds"]] == [True, True]
    assert result["seconds"] >= 0.2 and result["equal"] is True


def test_a_call_in_a_thread_does_not():
    result = measured(leaves_the_loop_free)
    assert result["seconds"] >= 0.59
    assert result["worst_ms"] < 300
    assert result["rounds"][0]["ticks"] > 2


def test_calls_at_once_are_compared_with_calls_one_by_one():
    async def confuses(question):
        return question if question == "Who?" else "something else"

    assert measured(confuses)["equal"] is True
    result = measured(confuses, ["Who?", "Where?"], rounds=2)
    assert result["equal"] is False
    assert [row["equal"] for row in result["rounds"]] == [False, False]


def test_a_call_that_fails_fails_the_measurement():
    async def fails(question):
        raise RuntimeError(question)

    with pytest.raises(RuntimeError, match="Who"):
        measured(fails)


def test_imports_are_timed_and_slow_libraries_seen(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("")
    (tmp_path / "slow_module.py").write_text("import time, torch; time.sleep(0.1); print('hello')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    result = time_imports("slow_module", 3)
    assert result["loaded"] == ["torch"]
    assert len(result["seconds"]) == 3
    assert 0.1 <= result["best_seconds"] <= result["median_seconds"] <= max(result["seconds"])


def test_a_module_that_cannot_be_imported_says_why(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("import no_such_framework")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(InputError, match=r"broken_module cannot be imported \(ModuleNotFound.*\);"):
        time_imports("broken_module", 1)


def test_the_command_measures_the_integrations(tmp_path, tiny_bert, tiny_codebook):
    if not INSTALLED:
        pytest.skip("no integration is installed")
    out = tmp_path / "new" / "frameworks.json"
    model = ["--host", tiny_bert, "--codebook", tiny_codebook]
    few = ["--calls", 3, "--rounds", 2, "--imports", 1]
    result = run(*model, *few, "--out", out)
    assert result.exit_code == 0, result.output
    assert "none" in result.output and "yes" in result.output
    written = json.loads(out.read_text())
    assert written["settings"] == {
        "host": str(tiny_bert),
        "codebook": str(tiny_codebook),
        "documents": 200,
        "calls": 3,
        "rounds": 2,
        "imports": 1,
    }
    assert list(written["frameworks"]) == INSTALLED
    for name, measured in written["frameworks"].items():
        assert name in result.output
        loop, imported = measured["responsiveness"], measured["import"]
        assert loop["equal"] is True and len(loop["rounds"]) == 2
        assert 0 <= loop["p99_ms"] <= loop["worst_ms"] == max(r["worst_ms"] for r in loop["rounds"])
        assert imported["module"] == FRAMEWORKS[name].module and imported["loaded"] == []
        assert 0 < imported["best_seconds"] == imported["median_seconds"]
        assert written["versions"][FRAMEWORKS[name].distribution] != "not installed"
    assert written["machine"]["cpus"]
    for framework in FRAMEWORKS.values():
        assert {framework.core, framework.distribution} <= written["versions"].keys()


def test_those_that_are_not_installed_are_left_out(monkeypatch):
    absent = replace(FRAMEWORKS["langchain"], distribution="s3-retriever-absent")
    monkeypatch.setitem(FRAMEWORKS, "absent", absent)
    if INSTALLED:
        assert list(installed()) == INSTALLED
    for name, framework in FRAMEWORKS.items():
        absent = replace(framework, distribution=f"absent-{name}")
        monkeypatch.setitem(FRAMEWORKS, name, absent)
    result = run()
    assert result.exit_code == 1
    said = " ".join(result.stderr.split())
    assert "pip install absent-langchain absent-llama-index" in said
