"""`s3r bench cache` measures what it says, on a tiny decoder and a few hundred tokens."""

from __future__ import annotations

import json

import pytest
import torch
from helpers.answering import CPU
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import Cache
from typer.testing import CliRunner

from s3_retriever import Host, InputError, KVCodebook
from s3_retriever.cli.app import app
from s3_retriever_bench.cache.layers import RECENT, SINKS, EvictingLayer, RoundedLayer, held_bytes
from s3_retriever_bench.cache.methods import Reader, method_named
from s3_retriever_bench.cache.run import Plan, run_cache

HEADS, SIZE = 2, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_llama):
    """A decoder with 1,024 positions."""
    path = tmp_path_factory.mktemp("decoders") / "llama"
    config = LlamaConfig.from_pretrained(tiny_llama)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": HEADS}
    config.update({**sizes, "head_dim": SIZE, "max_position_embeddings": 1_024})
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(path)
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def reader(folder):
    return Reader(Host.load(str(folder), generates=True, **CPU))


@pytest.fixture(scope="module")
def codebook(reader, sentences):
    sizes = {"features": 64, "key_k": 3, "value_k": 3, "tokens": 1_024, "batch_tokens": 512}
    return KVCodebook.fit(reader.host, sentences, progress=False, **sizes)


@pytest.fixture(scope="module")
def text(tmp_path_factory, sentences):
    path = tmp_path_factory.mktemp("texts") / "text.txt"
    path.write_text(" ".join(sentences))
    return path


@pytest.fixture
def states():
    """Keys or values of 300 tokens."""
    return torch.randn(1, HEADS, 300, SIZE, generator=torch.Generator().manual_seed(0))


def test_the_command_measures_and_a_second_run_goes_on(folder, codebook, text, tmp_path):
    codebook.save(tmp_path / "tiny.kv")
    out = tmp_path / "out"
    methods = ["int4", "streaming", "atoms-2-4"]
    plan = Plan(
        str(folder),
        str(tmp_path / "tiny.kv"),
        texts=[text],
        tokens=[400],
        decode_tokens=[320],
        methods=methods,
        folder=out,
    )
    run_cache(plan)
    kept = {path: path.stat().st_mtime_ns for path in (out / "parts").iterdir()}
    answers = tmp_path / "answers.jsonl"
    row = {"context": "A baker forgets the blue ledger.", "input": "Who forgets it?"}
    answers.write_text(json.dumps({"dataset": "hotpotqa", "answers": ["A baker"], **row}))
    command = ["bench", "cache", "--host", folder, "--codebook", tmp_path / "tiny.kv"]
    command += ["--text", text, "--tokens", 400, "--decode-tokens", 320, "--out", out]
    command += [part for name in [*methods, "int8"] for part in ("--method", name)]
    command += ["--needles", 1, "--answers", answers]
    result = CliRunner().invoke(app, [str(argument) for argument in command])
    assert result.exit_code == 0, result.output
    for title in ("Perplexity at 400 tokens", "decoding at 320 tokens", "Unexplained", "Claims"):
        assert title in result.output
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    figures = json.loads((out / "cache.json").read_text())
    # Two bytes a number; four bits and a scale a vector; two bytes an atom and a scale.
    expected = {"exact": 4 * SIZE, "int4": SIZE + 4, "int8": 2 * SIZE + 4, "atoms-2-4": 16}
    sizes = figures["bytes_per_token"]
    assert {name: sizes[name] for name in expected} == expected
    nll = figures["perplexity"]["400"]["nll"]
    assert {len(windows) for windows in nll.values()} == {2}
    assert nll["int8"] == pytest.approx(nll["exact"], abs=1e-3)
    whole = figures["decoding"]["320"]
    # Two layers.
    assert whole["exact"]["bytes"] == 320 * 2 * HEADS * 4 * SIZE
    assert whole["atoms-2-4"]["bytes"] < whole["int4"]["bytes"] < whole["exact"]["bytes"]
    assert "Needles in haystacks of 400 tokens: 5 questions" in result.output
    for asked, count in ((figures["needles"]["400"], 5), (figures["answers"], 1)):
        assert [len(values["nll"]) for values in asked["values"].values()] == [count] * 5
        exact, close = asked["values"]["exact"], asked["values"]["int8"]
        assert close["nll"] == pytest.approx(exact["nll"], abs=2e-2)
    for name in ("perplexity", "elbow"):
        assert 1_000 < (out / f"{name}.svg").stat().st_size < 150_000
        assert f"({name}.svg)" in (out / "cache.md").read_text()


def test_whole_numbers_come_close_beyond_the_window_and_are_exact_within(states):
    layer = RoundedLayer(4)
    layer.update(states[:, :, :280], states[:, :, :280])
    keys, values = layer.update(states[:, :, 280:], states[:, :, 280:])
    assert torch.equal(keys, values)
    assert torch.equal(keys[:, :, :SINKS], states[:, :, :SINKS])
    assert torch.equal(keys[:, :, 280 - RECENT :], states[:, :, 280 - RECENT :])
    error = (keys - states).abs().amax(-1)
    assert 0 < error.max() <= states.abs().amax(-1).max() / 7 / 2 + 1e-3
    assert layer.get_seq_length() == 300


def test_eviction_keeps_sinks_the_window_and_what_scores_highest(states):
    layer = EvictingLayer(0.25)
    layer.update(states, states)
    scores = torch.zeros(1, 1, 300)
    scores[:, :, 50:92] = 1.0
    layer.evict(scores)
    kept = [*range(SINKS), *range(50, 92), *range(300 - RECENT, 300)]
    assert torch.equal(layer.keys, states[:, :, kept])
    assert (layer.get_seq_length(), layer.surplus) == (300, 0)
    assert layer.get_mask_sizes(5) == (len(kept) + 5, 300 - len(kept))


@pytest.mark.parametrize("name", ["exact", "int8", "atoms-64-64", "streaming"])
def test_a_filled_cache_goes_on_as_the_model_would(reader, codebook, name):
    """With all tokens in the window, in spite of the method."""
    ids = list(range(5, 105))
    method = method_named(name, reader, codebook)
    whole = method_named("exact", reader, None)
    expected = reader.read(ids, whole.make())[:, 90:]
    cache = method.make()
    method.fill(cache, reader.prefix(ids[:90]))
    with method.running():
        assert torch.allclose(reader.read(ids[90:], cache), expected, atol=1e-4)


def test_bytes_of_a_cache_of_transformers(reader):
    exact = method_named("exact", reader, None).make()
    reader.read(range(5, 105), exact)
    assert held_bytes(exact) == 100 * 2 * HEADS * 4 * SIZE


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("int9", "There is no method 'int9'"),
        ("atoms-8", "There is no method"),
        ("atoms-8-16", "--codebook"),
        ("hqq-4", "pip install hqq"),
        ("snapkv", "kvpress"),
    ],
)
def test_methods_that_are_out_of_reach(reader, name, message, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "kvpress", None)
    monkeypatch.setattr("transformers.cache_utils.is_hqq_available", lambda: False)
    with pytest.raises(InputError, match=message):
        method_named(name, reader, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokens", "100"], "little beyond"),
        (["--tokens", "2000"], "1,024 positions"),
        (["--decode-tokens", "1000"], "fewer for decoding"),
    ],
)
def test_lengths_that_cannot_be_measured(folder, arguments, message):
    command = ["bench", "cache", "--host", str(folder), "--method", "int8", *arguments]
    result = CliRunner().invoke(app, command)
    assert result.exit_code
    assert message in " ".join(result.stderr.split())


def test_a_cache_of_nothing_holds_nothing():
    assert held_bytes(Cache(layers=[RoundedLayer(4)])) == 0
