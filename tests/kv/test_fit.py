"""Fitting a codebook of keys and values, and its folder."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from pathlib import Path

import pytest
import torch
from helpers.caches import random_codebook, tiny_model
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from s3_retriever import AtomCache, CodebookError, Host, HostError, InputError, KVCodebook
from s3_retriever.cli.app import app
from s3_retriever.kv.atoms import Atoms
from s3_retriever.kv.hosts import query_metrics, read_cache, rotations
from s3_retriever.kv.training import AtomTrainer

EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "examples"
CPU = {"device": "cpu", "dtype": "float32"}
SIZES = {"features": 64, "key_k": 3, "value_k": 3, "tokens": 2_048, "batch_tokens": 512}


@pytest.fixture(scope="module")
def host(tiny_llama):
    return Host.load(str(tiny_llama), window=128, **CPU)


@pytest.fixture(scope="module")
def codebook(host, sentences):
    return KVCodebook.fit(host, sentences, progress=False, **SIZES)


@pytest.fixture(scope="module")
def saved(codebook, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kv") / "codebook"
    codebook.save(folder)
    return folder


def damaged(saved, tmp_path):
    folder = tmp_path / "codebook"
    shutil.copytree(saved, folder)
    return folder


def test_atoms_explain_text_that_was_held_out(codebook):
    unexplained = codebook.report["unexplained_variance"]
    assert set(unexplained) == {"key.0", "value.0", "key.1", "value.1"}
    assert max(unexplained.values()) < 0.35
    assert codebook.report["tokens"] == 2_048


def test_positions_are_taken_off_keys_as_the_model_puts_them_on(host):
    """A token's key is the same wherever it stands, in the first layer."""
    keys = read_cache(host, [9] * 40).keys[0].float()
    plain = rotations(host)[0].restore(keys, torch.arange(40)[None])
    assert torch.allclose(plain, plain[:, :, :1], atol=1e-5)
    assert not torch.allclose(keys, keys[:, :, :1], atol=1e-2)


@pytest.mark.parametrize(
    ("model_type", "pairs"), [("llama", [4, 4]), ("qwen3", [4, 4]), ("gpt2", [0, 0])]
)
def test_rotations_and_queries_of_families(model_type, pairs, host):
    tiny = Host.of(tiny_model(model_type), host.tokenizer.source, name="tiny")
    rotaries = rotations(tiny)
    assert [len(rotary.frequencies) for rotary in rotaries] == pairs
    for metrics in query_metrics(tiny, list(range(40)), rotaries):
        # As much from the queries, in the mean, as for all directions alike.
        mean_squares = (metrics @ metrics.mT).diagonal(dim1=1, dim2=2).mean(1)
        assert torch.allclose(mean_squares, torch.full_like(mean_squares, 2))


def test_a_codebook_is_the_same_from_its_folder(codebook, saved, host):
    loaded = KVCodebook.load(saved)
    assert loaded.identity == codebook.identity
    assert loaded.report == json.loads(json.dumps(codebook.report))
    assert loaded.positions == codebook.positions == 256
    loaded.check_host(host)
    assert sum(file.stat().st_size for file in saved.iterdir()) < (64 + 8) * 8 * 2 * 8 + 8_000


def test_a_fit_goes_on_from_its_checkpoint(host, sentences, codebook, tmp_path, monkeypatch):
    monkeypatch.setattr("s3_retriever.codebook.fit._CHECKPOINT_SECONDS", 0.0)

    def interrupted():
        yield from sentences[:90]
        raise KeyboardInterrupt

    settings = SIZES | {"checkpoint": tmp_path / "progress", "progress": False}
    with pytest.raises(KeyboardInterrupt):
        KVCodebook.fit(host, interrupted(), **settings)
    resumed = KVCodebook.fit(host, sentences, **settings)
    assert resumed.identity == codebook.identity
    with pytest.raises(CodebookError, match="other settings"):
        KVCodebook.fit(host, sentences, **settings | {"seed": 1})


def test_the_command_fits_a_codebook(tiny_llama, sentences, tmp_path):
    text, out = tmp_path / "text.txt", tmp_path / "tiny.kv"
    text.write_text("\n\n".join(sentences))
    arguments = ["fit", tiny_llama, "--kv", "--text", text, "--out", out, "--device", "cpu"]
    arguments += ["--features", 64, "--tokens", 1_024]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert "values unexplained" in result.output
    assert KVCodebook.load(out).features == 64
    refused = CliRunner().invoke(app, [str(argument) for argument in [*arguments, "--k", 3]])
    assert "--kv fits all layers" in refused.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": 5_000}, "at most 4096"),
        ({"features": 64, "key_k": 65}, "key_k must be at most 64"),
        ({"features": 1_024}, "batches of at least"),
        ({"features": 1}, "at least 2"),
        ({"tokens": 100_000, "batch_tokens": 100_000}, "text ended"),
    ],
)
def test_settings_that_cannot_be_fitted(host, sentences, settings, message):
    with pytest.raises(InputError, match=message):
        KVCodebook.fit(host, sentences, progress=False, **SIZES | settings)


def test_hosts_whose_cache_cannot_be_encoded(host, tiny_bert, sentences):
    tokenizer = host.tokenizer.source
    with pytest.raises(HostError, match="is an encoder"):
        KVCodebook.fit(Host.load(str(tiny_bert), **CPU), sentences)
    sliding = tiny_model("qwen3", layer_types=["sliding_attention", "full_attention"])
    with pytest.raises(HostError, match="sliding_attention"):
        KVCodebook.fit(Host.of(sliding, tokenizer, name="tiny"), sentences)
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    changing = tiny_model("llama", rope_parameters=dynamic)
    with pytest.raises(HostError, match="change with the length"):
        KVCodebook.fit(Host.of(changing, tokenizer, name="tiny"), sentences)
    repeating = tiny_model("falcon", new_decoder_architecture=True, num_kv_heads=2)
    with pytest.raises(HostError, match="caches are not the ones it projects"):
        KVCodebook.fit(Host.of(repeating, tokenizer, name="tiny"), sentences)


def test_a_codebook_of_another_host(codebook, host):
    other = Host.of(tiny_model("llama"), host.tokenizer.source, name="other")
    with pytest.raises(CodebookError, match="fit one for it with: s3r fit other --kv"):
        codebook.check_host(other)


@pytest.mark.parametrize("missing", ["atoms.safetensors", "codebook.json"])
def test_a_folder_with_something_missing(saved, tmp_path, missing):
    folder = damaged(saved, tmp_path)
    (folder / missing).unlink()
    with pytest.raises(CodebookError):
        KVCodebook.load(folder)


def test_a_folder_with_the_files_of_two_codebooks(saved, tmp_path, host):
    folder = damaged(saved, tmp_path)
    atoms = load_file(folder / "atoms.safetensors")
    atoms["value.0.dictionaries"] = atoms["value.1.dictionaries"].clone()
    save_file(atoms, folder / "atoms.safetensors")
    with pytest.raises(CodebookError, match="do not belong together"):
        KVCodebook.load(folder)


@pytest.mark.parametrize("damage", [{"layers": 0}, {"layers": 3}, {"more": 1}, {"host": 7}])
def test_a_description_that_says_something_else(saved, tmp_path, damage):
    folder = damaged(saved, tmp_path)
    path = folder / "codebook.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    with pytest.raises(CodebookError):
        KVCodebook.load(folder)


def test_a_codebook_for_searching(tiny_codebook):
    with pytest.raises(CodebookError, match="not of keys and values"):
        KVCodebook.load(tiny_codebook)
    with pytest.raises(InputError, match="must be a KVCodebook"):
        AtomCache(tiny_codebook)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"key_k": 65}, "key_k must be at most 64"),
        ({"value_k": 0}, "value_k must be"),
        ({"recent": -1}, "recent must be"),
        ({"sinks": 1.5}, "sinks must be"),
    ],
)
def test_caches_that_cannot_be_made(settings, message):
    with pytest.raises(InputError, match=message):
        AtomCache(random_codebook(tiny_model("llama")), **settings)


def test_the_shipped_codebook_fits_its_host():
    codebook, host = KVCodebook.load("smollm2"), Host.load("smollm2", device="cpu")
    codebook.check_host(host)
    unexplained = codebook.report["unexplained_variance"]
    assert max(share for name, share in unexplained.items() if name.startswith("key")) < 0.15
    assert max(share for name, share in unexplained.items() if name.startswith("value")) < 0.06
    assert AtomCache(codebook).codebook.features == 1_024


def test_the_example_generates_with_a_cache_in_atoms(host, capsys, monkeypatch):
    vocabulary = host.model.config.vocab_size
    causal = tiny_model("llama", vocab_size=vocabulary, max_position_embeddings=2_048)
    tiny = Host.of(causal, host.tokenizer.source, name="tiny")
    monkeypatch.setattr(Host, "load", lambda *_args, **_options: tiny)
    monkeypatch.setattr(KVCodebook, "load", lambda _name: random_codebook(causal))
    monkeypatch.setattr(KVCodebook, "check_host", lambda *_: None)
    runpy.run_path(str(EXAMPLES / "kv_cache.py"))["main"](new_tokens=4)
    last = capsys.readouterr().out.splitlines()[-1]
    tokens, held, exact = (
        int(number.replace(",", "")) for number in re.findall(r"([\d,]+) (?:tokens|bytes)", last)
    )
    assert tokens > 132 + 32
    assert 0 < held < exact


def test_a_head_whose_values_are_all_the_same():
    trainer = AtomTrainer(16, 3, torch.Generator(), torch.eye(8).repeat(2, 1, 1))
    vectors = torch.randn(2, 60, 8, generator=torch.Generator().manual_seed(0))
    vectors[1] = 0.5
    for _ in range(2):
        trainer.train(vectors)
    atoms = trainer.finished()
    restored = atoms.decode(atoms.encode(vectors[None], 8))[0]
    assert torch.allclose(restored[1], vectors[1])
    assert (restored[0] - vectors[0]).square().mean() < 0.1
    with pytest.raises(InputError, match="no key head 2"):
        atoms.sae(2, 3)


def test_errors_are_smaller_where_they_count():
    """The same atoms, once with all coordinates alike and once with the first one foremost."""
    torch.manual_seed(0)
    vectors, plain = torch.randn(1, 1, 200, 8), torch.randn(1, 64, 8)
    errors = []
    for weight in (1.0, 9.0):
        metric = torch.ones(8)
        metric[0] = weight
        dictionaries = plain / (plain * metric).norm(dim=2, keepdim=True)
        atoms = Atoms(dictionaries, torch.zeros(1, 8), torch.ones(1), metric.diag()[None])
        errors.append((atoms.decode(atoms.encode(vectors, 3)) - vectors).square().mean((0, 1, 2)))
    alike, foremost = errors
    assert foremost[0] < 0.5 * alike[0]
    assert foremost[1:].mean() > alike[1:].mean()


def test_more_atoms_explain_more_up_to_as_many_as_dimensions():
    """Weights that cancel each other would be noise once they are rounded to a few bits."""
    value = KVCodebook.load("smollm2").layers[1].value
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(1_024, (300, 24), generator=generator)
    weights = torch.randn(300, 24, 1, generator=generator)
    plain = torch.stack([(weights * atoms[chosen]).sum(1) for atoms in value.dictionaries])[None]
    vectors = plain * value.scales[:, None, None] + value.centres[:, None]
    unexplained = [value.unexplained(vectors, k) for k in (8, 16, 32, 64)]
    assert unexplained == sorted(unexplained, reverse=True)
    assert unexplained[3] < 0.002
