"""Fitting a codebook: what it learns, what it refuses, and going on after a kill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import torch

from s3_retriever.codebook import Codebook
from s3_retriever.errors import CodebookError, InputError
from s3_retriever.host import Host
from s3_retriever.host.taps import Tap, read
from s3_retriever.recipe import (
    Advanced,
    DocumentBoost,
    FeatureAttention,
    FeatureCoverage,
    Recipe,
    Redundancy,
    SecondHop,
    SentenceRecipe,
    TapRecipe,
)
from s3_retriever.sae import SAETrainer

# The package has a function of the module's name.
fit_module = import_module("s3_retriever.codebook.fit")
checkpoint_module = import_module("s3_retriever.codebook.fit")
codebook_module = import_module("s3_retriever.codebook.codebook")
fit = Codebook.fit

# A fit of a second: the sentences have about 6,000 tokens.
SMALL = {
    "taps": ["key.1", "hidden.1"],
    "features": 64,
    "k": 8,
    "batch_size": 128,
    "buffer_tokens": 1_024,
    "progress": False,
}


@pytest.fixture(scope="module")
def host(tiny_bert) -> Host:
    return Host.load(str(tiny_bert), device="cpu", dtype="float32", batch_tokens=512)


@pytest.fixture(scope="module")
def tokens(host, sentences) -> int:
    return sum(host.tokenizer.count(text) for text in sentences)


@pytest.fixture(scope="module")
def fitted(host, sentences) -> Codebook:
    return fit(host, sentences, **SMALL)


class Seen:
    """Records the activations that the real trainer and the real report are given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trained: list[torch.Tensor] = []
        self.held_out: list[torch.Tensor] = []
        self.steps: list[tuple[int, int]] = []
        train, report = SAETrainer.train, fit_module.report

        def noting_train(trainer: SAETrainer, batch: torch.Tensor) -> float:
            self.trained.append(batch)
            self.steps.append((trainer.step, trainer.total_steps))
            return train(trainer, batch)

        def noting_report(sae, sample):
            self.held_out.append(sample)
            return report(sae, sample)

        monkeypatch.setattr(SAETrainer, "train", noting_train)
        monkeypatch.setattr(fit_module, "report", noting_report)

    @staticmethod
    def rows(parts: list[torch.Tensor]) -> set[bytes]:
        return {row.numpy().tobytes() for part in parts for row in part}


@pytest.fixture
def seen(monkeypatch) -> Seen:
    return Seen(monkeypatch)


def test_the_report_of_a_fit(fitted, host, tokens):
    assert [str(tap) for tap in fitted.saes] == ["key.1", "hidden.1"]
    assert fitted.fingerprint == host.fingerprint(2)
    assert fitted.recipe == Recipe(
        name="default",
        taps={"hidden.1": TapRecipe()},
        sentence=SentenceRecipe(layer=1),
        scoring=FeatureCoverage(),
        hop=SecondHop(),
        redundancy=Redundancy(),
        advanced=Advanced(
            doc_top_k=8, query_top_k=8, weight_power=1.0, document_boost=DocumentBoost()
        ),
    )
    settings = fitted.report["settings"]
    assert (settings["tokens"], settings["features"], settings["k"]) == (tokens, 64, 8)
    assert set(fitted.report["taps"]) == {"key.1", "hidden.1"}
    for measured in fitted.report["taps"].values():
        assert 0 < measured["unexplained_variance"] < 0.6
        assert 0 <= measured["dead_share"] < 0.9
        assert 0 < measured["active"] <= 8
        assert sorted(measured["frequency"]) == list(measured["frequency"])
        assert tokens // 10 <= measured["tokens"] < tokens // 10 + 128
    for sae in fitted.saes.values():
        assert (sae.width, sae.features, sae.k) == (32, 64, 8)
        assert sae.W_enc.device.type == "cpu"
        assert not sae.W_enc.requires_grad


def test_a_fit_is_saved_and_loaded(fitted, tmp_path):
    fitted.save(tmp_path / "book")
    assert Codebook.load(tmp_path / "book").identity == fitted.identity


def test_further_taps_join_a_codebook(host, sentences, fitted):
    settings = SMALL | {"taps": ["key.0", "key.1.0"], "features": 32, "query_metric": True}
    book = fitted.with_taps(host, sentences, **settings)
    assert [str(tap) for tap in book.saes] == ["key.1", "hidden.1", "key.0", "key.1.0"]
    assert (book.recipe, book.report["settings"]) == (fitted.recipe, fitted.report["settings"])
    assert set(book.report["taps"]) == set(map(str, book.saes))
    assert book.report["added"]["key.0"]["features"] == 32
    assert book.identity != fitted.identity
    assert book.named_recipe("paper").scoring == FeatureAttention()
    with pytest.raises(CodebookError, match=r"has a tap key\.1 already"):
        fitted.with_taps(host, sentences, **SMALL)


def test_errors_in_keys_count_by_what_queries_make_of_them(host, sentences, fitted):
    settings = SMALL | {"taps": ["key.1", "hidden.1"], "query_metric": True}
    book = fit(host, sentences, **settings)
    assert torch.equal(book.sae("hidden.1").W_dec, fitted.sae("hidden.1").W_dec)
    taps = [Tap("key", 1), Tap("query", 1)]
    windows = list(host.windows(sentences))[-8:]
    seen = read(host, taps, windows)
    shape = host.family.heads(host.model.config)
    queries = seen[taps[1]].view(-1, shape.queries, shape.size)
    changed = {}
    for name, known in (("alike", fitted), ("metric", book)):
        error = (seen[taps[0]] - known.sae("key.1")(seen[taps[0]])).detach()
        errors = error.view(-1, shape.keys, shape.size)
        changed[name] = float(torch.einsum("qhs,khs->qkh", queries, errors).square().mean())
    assert changed["metric"] < changed["alike"]


def test_the_same_seed_gives_the_same_codebook(host, sentences, fitted):
    state = torch.random.get_rng_state()
    assert fit(host, sentences, **SMALL).identity == fitted.identity
    assert torch.equal(torch.random.get_rng_state(), state)  # the caller's is left alone
    assert fit(host, sentences, seed=1, **SMALL).identity != fitted.identity


def test_defaults(host, sentences, tiny_llama):
    book = fit(host, sentences, batch_size=512, tokens=2_000, progress=False)
    assert set(book.saes) == {Tap("key", 1), Tap("hidden", 1)}
    assert book.sae("key.1").features == 16 * 32
    decoder = Host.load(str(tiny_llama), device="cpu", dtype="float32")
    assert fit_module.default_taps(decoder) == (Tap("key", 1), Tap("hidden", 1))


@pytest.mark.parametrize("passes", [1, 2])
def test_held_out_tokens_are_never_trained_on(host, sentences, tokens, seen, passes):
    fit(host, sentences, **SMALL | {"taps": ["hidden.1"], "tokens": passes * tokens})
    assert tokens * passes // 10 <= len(seen.held_out[0])
    trained, held_out = seen.rows(seen.trained), seen.rows(seen.held_out)
    assert not trained & held_out
    assert len(trained) > 0.5 * tokens


def test_one_long_text_is_held_out_in_part(host, sentences, tokens, seen):
    fit(host, [" ".join(sentences)], **SMALL | {"taps": ["hidden.1"], "tokens": 2 * tokens})
    assert 2 * tokens // 10 <= len(seen.held_out[0]) < 2 * tokens // 10 + 128
    assert not seen.rows(seen.trained) & seen.rows(seen.held_out)


@pytest.mark.parametrize("reuse", [1.0, 3.0])
def test_the_schedule_ends_with_the_text(host, sentences, seen, reuse):
    fit(host, sentences, **SMALL | {"taps": ["hidden.1"], "reuse": reuse})
    last, total = seen.steps[-1]
    assert last + 1 == pytest.approx(total, abs=4)


def test_the_buffer_is_bounded(host, sentences, tokens, monkeypatch):
    sizes = []
    train = fit_module._Job._train

    def noting(self, bar, keep):
        sizes.append(self.buffered)
        return train(self, bar, keep)

    monkeypatch.setattr(fit_module._Job, "_train", noting)
    fit(host, sentences, **SMALL | {"tokens": 2 * tokens})
    assert len(sizes) > 15
    assert max(sizes) < 1_024 + host.shape.size


def test_text_is_consumed_as_it_is_needed(host):
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "every release and the blue ledger " * 3

    fit(host, endless(), tokens=2_000, **SMALL)
    per_text = host.tokenizer.count("every release and the blue ledger " * 3)
    assert taken < (2_000 + 2 * 1_024) / per_text


class TestRefusals:
    @pytest.mark.parametrize(
        ("recipe", "heads", "message"),
        [
            ({"taps": {"key.0": {}}}, (), "needs the tap key.0, .*it has key.1, hidden.1"),
            ({"taps": {}}, (), "uses none of the codebook's taps"),
            ({"sentence": {"layer": 0}}, (), "needs the tap hidden.0"),
            ({"taps": {"hidden.1": {"query_side": "query"}}}, (), "only key taps support"),
            ({"heads": {"query_heads": ["1.2"]}}, ["1.3"], "needs the query head 1.2, .*has 1.3"),
            ({"fusion": {"kind": "interleave"}}, ["1.3"], "heads needs fusion z_score"),
        ],
    )
    def test_a_recipe_that_does_not_fit_costs_no_work(self, host, recipe, heads, message):
        def unread() -> Iterator[str]:
            pytest.fail("the text was read")
            yield ""

        own = Recipe.model_validate({"taps": {"key.1": {}}, **recipe})
        with pytest.raises((CodebookError, InputError), match=message):
            fit(host, unread(), tokens=2_000, recipe=own, heads=heads, **SMALL)

    def test_more_heads_than_a_recipe_can_have(self, host, monkeypatch):
        monkeypatch.setattr(codebook_module, "check_heads", lambda heads, host: None)
        names = [f"0.{number}" for number in range(65)]
        with pytest.raises(InputError, match=r"cannot score 65 query heads: .*64"):
            fit(host, iter([]), tokens=2_000, heads=names, **SMALL)

    def test_an_iterator_needs_the_number_of_tokens(self, host, sentences):
        with pytest.raises(InputError, match="pass tokens="):
            fit(host, iter(sentences), **SMALL)

    def test_one_string_is_one_text(self, host):
        # Two tokens; taken for a list of characters, it would have twelve.
        with pytest.raises(InputError, match="there are 2;"):
            fit(host, "every release", **SMALL)

    def test_too_little_text(self, host):
        with pytest.raises(InputError, match="at least 256 tokens of text"):
            fit(host, ["every release"], **SMALL)

    @pytest.mark.parametrize("texts", [[], [""], ["every release"]])
    def test_text_that_is_all_held_out_does_not_go_round_for_ever(self, host, texts):
        with pytest.raises(InputError, match="all held out; give more text"):
            fit(host, texts, tokens=1_000_000, **SMALL)
        with pytest.raises(InputError, match="all held out; give more text"):
            fit(host, iter(texts), tokens=1_000_000, **SMALL)

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ({"k": 65}, "k must be between 1 and 64"),
            ({"k": 0}, "k must be a whole number of at least 1, not 0"),
            ({"reuse": 0}, "reuse must be a number above zero"),
            ({"buffer_tokens": 0}, "buffer_tokens must be a whole number of at least 1"),
            ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
            ({"learning_rate": -1.0}, "learning_rate must be a number above zero"),
            ({"taps": ["key.7"]}, r"no tap key\.7"),
            ({"taps": ["value.1"]}, "Unknown tap"),
            ({"taps": ["sentence.1"]}, "Unknown tap"),
        ],
    )
    def test_settings_out_of_range(self, host, sentences, option, message):
        with pytest.raises(InputError, match=message):
            fit(host, sentences, **SMALL | option)


class Killed(BaseException):
    """In place of a kill, where no process of its own is needed."""


@pytest.fixture
def checkpoint(host, sentences, tmp_path, monkeypatch) -> Path:
    """The checkpoint of a fit that ended after its third one."""
    save, saves = checkpoint_module.Checkpoint.save, []

    def third(self, tensors, counters):
        save(self, tensors, counters)
        saves.extend(name for name in tensors if name == "key.1/step")
        if len(saves) == 3:
            raise Killed

    monkeypatch.setattr(checkpoint_module, "_CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(checkpoint_module.Checkpoint, "save", third)
    with pytest.raises(Killed):
        fit(host, sentences, checkpoint=tmp_path / "progress", **SMALL)
    monkeypatch.undo()
    return tmp_path / "progress"


CHILD = """
import json, os, signal, sys
from pathlib import Path
from importlib import import_module
from safetensors import safe_open
from s3_retriever.host import Host

fit_module = import_module("s3_retriever.codebook.fit")
checkpoint_module = import_module("s3_retriever.codebook.fit")
folder, checkpoint, sentences, settings = json.loads(sys.argv[1])
checkpoint_module._CHECKPOINT_SECONDS = 0
replace, seen = Path.replace, []

def second_time_kill(path, target):
    with safe_open(path, framework="pt") as file:
        seen.extend(name for name in file.keys() if name == "key.1/step")
    if len(seen) == 2:  # after the second round of training
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(path, target)

Path.replace = second_time_kill
host = Host.load(folder, device="cpu", dtype="float32", batch_tokens=512)
fit_module.fit(host, sentences, checkpoint=checkpoint, **settings)
"""


class TestResuming:
    def test_after_kill_9(self, host, tiny_bert, sentences, tokens, fitted, tmp_path, seen, caplog):
        arguments = json.dumps([str(tiny_bert), str(tmp_path), sentences, SMALL])
        child = subprocess.run([sys.executable, "-c", CHILD, arguments], capture_output=True)
        assert child.returncode == -signal.SIGKILL, child.stderr
        caplog.set_level("INFO", logger="s3_retriever")
        book = fit(host, sentences, checkpoint=tmp_path, **SMALL)
        assert "Resuming after" in caplog.text
        assert 0 < seen.steps[0][0] < seen.steps[-1][0]  # the optimiser goes on where it was
        assert not seen.rows(seen.trained) & seen.rows(seen.held_out)
        for tap, measured in book.report["taps"].items():
            alone = fitted.report["taps"][tap]["unexplained_variance"]
            assert measured["unexplained_variance"] == pytest.approx(alone, abs=0.1)
            assert measured["tokens"] == fitted.report["taps"][tap]["tokens"]

    def test_what_was_seen_of_the_queries_is_kept(self, host, sentences, tmp_path, monkeypatch):
        settings = SMALL | {"taps": ["key.1"], "query_metric": True, "tokens": 2_000, "reuse": 0.5}
        whole = fit(host, sentences, **settings).sae("key.1")
        save, saves = checkpoint_module.Checkpoint.save, []

        def some(self, tensors, counters):
            save(self, tensors, counters)
            saves.append("key.1/moments" in tensors)
            if len(saves) == 12:
                raise Killed

        monkeypatch.setattr(checkpoint_module, "_CHECKPOINT_SECONDS", 0)
        monkeypatch.setattr(checkpoint_module.Checkpoint, "save", some)
        with pytest.raises(Killed):
            fit(host, sentences, checkpoint=tmp_path / "progress", **settings)
        assert saves[-1]
        monkeypatch.undo()
        resumed = fit(host, sentences, checkpoint=tmp_path / "progress", **settings).sae("key.1")
        torch.testing.assert_close(resumed.W_dec, whole.W_dec, rtol=1e-3, atol=1e-3)

    def test_the_schedule_is_kept(self, host, sentences, checkpoint, seen):
        fit(host, sentences, checkpoint=checkpoint, **SMALL)
        last, total = seen.steps[-1]
        assert last + 1 == pytest.approx(total, abs=4)

    @pytest.mark.parametrize("texts", [1, 750])
    def test_reading_goes_on_where_it_was(self, host, sentences, tmp_path, monkeypatch, texts):
        """The windows of both runs together are those of one run, also within a long text."""
        stream = sentences if texts == 750 else [" ".join(sentences)]
        kept: list[float] = []
        take = fit_module._Job._take

        def noting(self, rows):
            kept.append(float(rows[Tap("key", 1)].values.sum()))
            return take(self, rows)

        save = checkpoint_module.Checkpoint.save

        def once(self, tensors, counters):
            save(self, tensors, counters)
            if "key.1/step" in tensors:
                raise Killed

        monkeypatch.setattr(fit_module._Job, "_take", noting)
        fit(host, stream, **SMALL)
        whole = list(kept)
        kept.clear()
        monkeypatch.setattr(checkpoint_module, "_CHECKPOINT_SECONDS", 0)
        monkeypatch.setattr(checkpoint_module.Checkpoint, "save", once)
        with pytest.raises(Killed):
            fit(host, stream, checkpoint=tmp_path, **SMALL)
        monkeypatch.setattr(checkpoint_module.Checkpoint, "save", save)
        fit(host, stream, checkpoint=tmp_path, **SMALL)
        # What waited in the buffer is lost; as much of the second pass is read instead.
        assert len(kept) > len(whole)
        assert kept[: len(whole)] == pytest.approx(whole, rel=1e-4, abs=1e-3)

    def test_before_the_first_training(self, host, sentences, tmp_path, seen, monkeypatch):
        """What was read is kept, and nothing is read twice."""
        kept: list[float] = []
        take = fit_module._Job._take

        def interrupt(self, rows):
            kept.append(float(rows[Tap("key", 1)].values.sum()))
            read = take(self, rows)
            if len(kept) == 20:
                raise KeyboardInterrupt
            return read

        monkeypatch.setattr(fit_module._Job, "_take", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit(host, sentences, checkpoint=tmp_path, **SMALL)
        assert not seen.steps
        book = fit(host, sentences, checkpoint=tmp_path, **SMALL)
        again = list(kept)
        kept.clear()
        kept.extend([0.0] * 20)  # no interruption
        alone = fit(host, sentences, **SMALL)
        assert again == pytest.approx(kept[20:], rel=1e-4, abs=1e-3)
        for tap, measured in book.report["taps"].items():
            alike = pytest.approx(alone.report["taps"][tap]["unexplained_variance"], abs=1e-3)
            assert measured["unexplained_variance"] == alike

    def test_in_the_middle_of_training(self, host, sentences, tmp_path, seen, monkeypatch):
        train = SAETrainer.train

        def interrupt(self, batch):
            if len(seen.steps) == 5:
                raise KeyboardInterrupt
            return train(self, batch)

        monkeypatch.setattr(SAETrainer, "train", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit(host, sentences, checkpoint=tmp_path, **SMALL)
        monkeypatch.setattr(SAETrainer, "train", train)
        fit(host, sentences, checkpoint=tmp_path, **SMALL)
        assert seen.steps[5][0] > 0

    @pytest.mark.parametrize(
        "option", [{"seed": 1}, {"k": 4}, {"tokens": 5_000}, {"taps": ["key.1"]}]
    )
    def test_other_settings_are_refused(self, host, sentences, checkpoint, option):
        with pytest.raises(CodebookError, match="another host or other settings; delete it"):
            fit(host, sentences, checkpoint=checkpoint, **SMALL | option)

    def test_another_host_is_refused(self, tiny_bert, sentences, checkpoint):
        other = Host.load(str(tiny_bert), device="cpu", dtype="float32")
        with torch.no_grad():
            other.blocks[1].attention.self.key.weight.mul_(-1)
        with pytest.raises(CodebookError, match="another host or other settings; delete it"):
            fit(other, sentences, checkpoint=checkpoint, **SMALL)

    @pytest.mark.parametrize("damage", ["cut", "empty", "header"])
    def test_a_damaged_one_is_refused(self, host, sentences, checkpoint, damage):
        path = checkpoint / "progress.safetensors"
        content = path.read_bytes()
        changed = {
            "cut": content[: len(content) // 2],
            "empty": b"",
            "header": content.replace(b"progress", b"regresso", 1),
        }[damage]
        path.write_bytes(changed)
        with pytest.raises(CodebookError, match=r"is damaged .*; delete it to start afresh"):
            fit(host, sentences, checkpoint=checkpoint, **SMALL)
        assert path.read_bytes() == changed

    def test_a_folder_that_cannot_be_written(self, host, sentences, tmp_path, monkeypatch):
        monkeypatch.setattr(checkpoint_module, "_CHECKPOINT_SECONDS", 0)
        (tmp_path / "file").write_text("")
        with pytest.raises(CodebookError, match="cannot be written"):
            fit(host, sentences, checkpoint=tmp_path / "file", **SMALL)


def test_a_fit_that_diverges_is_refused(tiny_llama, sentences):
    host = Host.load(str(tiny_llama), device="cpu", dtype="float32")
    sizes = {"features": 32, "k": 4, "tokens": 1_000, "batch_size": 128, "progress": False}
    for rate in (1e6, 1e300):
        with pytest.raises(CodebookError, match=r"hidden\.0 diverged.*lower learning rate"):
            Codebook.fit(host, sentences, taps=["hidden.0"], learning_rate=rate, **sizes)
    with pytest.raises(InputError, match="is for key taps"):
        Codebook.fit(host, sentences, taps=["hidden.0"], query_metric=True, **sizes)
