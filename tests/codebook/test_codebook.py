"""Codebooks on disk and on the Hub, recipes, and encoding."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from s3_retriever.codebook import Codebook
from s3_retriever.encoder import Encoder
from s3_retriever.errors import CodebookError
from s3_retriever.host import Host
from s3_retriever.host.taps import Tap, group_queries, read
from s3_retriever.recipe import Recipe, TapRecipe
from s3_retriever.sae import TopKSAE

CPU = {"device": "cpu", "dtype": "float32"}
QUESTION = "Who signs every release before dawn?"


@pytest.fixture(scope="module")
def bert(tiny_bert) -> Host:
    return Host.load(str(tiny_bert), window=32, **CPU)


@pytest.fixture(scope="module")
def llama(tiny_llama) -> Host:
    return Host.load(str(tiny_llama), window=32, **CPU)


def random_codebook(host: Host, *names: str, seed: int = 0) -> Codebook:
    """SAEs with random weights: encoding does not ask for more."""
    torch.manual_seed(seed)
    taps = [Tap.parse(name) for name in names]
    seen = read(host, taps, list(host.windows([("", "A few words.")])))
    saes = {tap: TopKSAE(values.shape[1], 48, 6) for tap, values in seen.items()}
    for sae in saes.values():
        with torch.no_grad():
            sae.b_enc.normal_(std=0.1)
            sae.b_dec.normal_(std=0.1)
    depth = max(tap.layer for tap in taps) + 1
    recipe = Recipe(taps={name: TapRecipe() for name in names})
    return Codebook(host.name, host.fingerprint(depth), saes, recipe, {"note": [1, 2]})


@pytest.fixture
def book(bert) -> Codebook:
    return random_codebook(bert, "key.1", "hidden.0")


@pytest.fixture
def saved(book, tmp_path) -> Path:
    book.save(tmp_path / "book")
    return tmp_path / "book"


def edit(folder: Path, **changes: object) -> None:
    path = folder / "codebook.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


class TestFolder:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
    def test_round_trip(self, book, tmp_path, dtype):
        book.save(tmp_path / "new" / "book", dtype=dtype)
        loaded = Codebook.load(tmp_path / "new" / "book")
        assert loaded.identity == book.identity
        assert (loaded.host_name, loaded.fingerprint) == (book.host_name, book.fingerprint)
        assert loaded.recipe == book.recipe
        assert loaded.report == book.report
        assert loaded.depth == 2
        assert list(loaded.saes) == list(book.saes)
        assert loaded.identity == Codebook.from_pretrained(str(tmp_path / "new" / "book")).identity
        assert torch.equal(
            loaded.sae("key.1").W_enc, book.sae("key.1").W_enc.to(dtype).float().detach()
        )
        assert sorted(path.name for path in (tmp_path / "new" / "book").iterdir()) == [
            "codebook.json",
            "hidden.0",
            "key.1",
        ]
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["book"]

    def test_identity_tells_features_apart(self, bert, book):
        assert random_codebook(bert, "key.1", "hidden.0").identity == book.identity
        changed = random_codebook(bert, "key.1", "hidden.0")
        with torch.no_grad():
            changed.sae("key.1").b_enc[3] += 0.5
        assert random_codebook(bert, "key.1", "hidden.0", seed=1).identity != book.identity
        narrower = random_codebook(bert, "key.1", "hidden.0")
        narrower.sae("key.1").k = 5
        assert len({book.identity, changed.identity, narrower.identity}) == 3

    def test_saving_replaces_a_codebook(self, bert, saved):
        other = random_codebook(bert, "query.0")
        other.save(saved)
        assert Codebook.load(saved).identity == other.identity
        assert not (saved / "key.1").exists()
        assert [path.name for path in saved.parent.iterdir()] == ["book"]

    @pytest.mark.parametrize("failing", ["write", "swap"])
    def test_a_failure_leaves_the_old_one(self, book, bert, saved, monkeypatch, failing):
        other = random_codebook(bert, "query.0")
        if failing == "write":

            def fail(*_: object, **__: object) -> None:
                raise OSError("no space left on device")

            monkeypatch.setattr(TopKSAE, "save", fail)
        else:
            rename = Path.rename

            def refuse_new(path: Path, target: Path) -> Path:
                if path.name == "new":
                    raise OSError("device busy")
                return rename(path, target)

            monkeypatch.setattr(Path, "rename", refuse_new)
        with pytest.raises(CodebookError, match="cannot be written"):
            other.save(saved)
        monkeypatch.undo()
        assert Codebook.load(saved).identity == book.identity
        assert [path.name for path in saved.parent.iterdir()] == ["book"]

    def test_foreign_content_is_left_alone(self, book, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(CodebookError, match="holds something that is no codebook"):
            book.save(tmp_path)
        with pytest.raises(CodebookError, match="holds something that is no codebook"):
            book.save(tmp_path / "notes.txt")
        assert (tmp_path / "notes.txt").read_text() == "mine"
        (tmp_path / "empty").mkdir()
        book.save(tmp_path / "empty")

    def test_a_parent_that_is_a_file(self, book, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(CodebookError, match="cannot be written"):
            book.save(tmp_path / "file" / "book")

    def test_a_newer_schema_asks_for_an_upgrade(self, saved):
        edit(saved, schema_version=3, something_new=True)
        with pytest.raises(CodebookError, match=r"schema 3, this release reads up to 2; upgrade"):
            Codebook.load(saved)

    @pytest.mark.parametrize(
        "changes",
        [
            {"taps": ["../x"]},
            {"taps": ["key.1/../../x"]},
            {"taps": []},
            {"taps": "key.1"},
            {"recipe": {"taps": {"../x": {}}}},
            {"recipe": {"taps": {"key.0": {}}}},
            {"recipe": {"taps": {}}},
            {"fingerprint": None},
            {"extra": 1},
        ],
    )
    def test_tampered_files_are_refused(self, saved, changes):
        edit(saved, **changes)
        # A codebook that a bad name could lead to.
        shutil.copytree(saved / "key.1", saved.parent / "x")
        with pytest.raises(CodebookError):
            Codebook.load(saved)

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", None])
    def test_damaged_files_are_refused(self, saved, content):
        (saved / "codebook.json").unlink()
        if content is not None:
            (saved / "codebook.json").write_bytes(content)
        with pytest.raises(CodebookError, match="no codebook"):
            Codebook.load(saved)

    def test_a_missing_sae_is_named(self, saved):
        shutil.rmtree(saved / "hidden.0")
        with pytest.raises(CodebookError, match=r"hidden\.0"):
            Codebook.load(saved)


class TestHub:
    @pytest.mark.parametrize("name", ["nobody/no-codebook", "a b", "/nowhere/at/all"])
    def test_an_unknown_name_gives_one_sentence(self, name):
        with pytest.raises(CodebookError, match="There is no codebook") as caught:
            Codebook.from_pretrained(name)
        assert "\n" not in str(caught.value)

    def test_push_uploads_a_whole_codebook(self, book, monkeypatch):
        """A stub in place of HfApi: nothing in the tests may ask the network."""
        calls = []

        class Stub:
            def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
                calls.append(("create", repo_id, private, exist_ok))

            def upload_folder(self, *, repo_id: str, folder_path: str):
                calls.append(("upload", repo_id, Codebook.load(folder_path).identity))

                class Commit:
                    commit_url = "https://hub/commit/1"

                return Commit

        monkeypatch.setattr("huggingface_hub.HfApi", Stub)
        assert book.push_to_hub("me/book", private=True) == "https://hub/commit/1"
        assert calls == [("create", "me/book", True, True), ("upload", "me/book", book.identity)]

    def test_the_real_api_takes_those_arguments(self):
        from inspect import signature

        from huggingface_hub import HfApi

        signature(HfApi.create_repo).bind(None, "me/book", private=True, exist_ok=True)
        signature(HfApi.upload_folder).bind(None, repo_id="me/book", folder_path="x")


class TestRecipes:
    def test_named(self, book):
        assert book.named_recipe("default") == book.recipe
        paper = book.named_recipe("paper")
        assert paper.taps == {"key.1": TapRecipe(query_side="query")}
        assert (paper.weight_power, paper.idf_power, paper.fusion) == (1.0, 1.0, "union")
        assert (paper.document_k, paper.query_k) == (6, 6)
        own = Recipe(taps={"hidden.0": TapRecipe(weight=2)})
        assert book.named_recipe(own) is own

    def test_an_unknown_name(self, book):
        with pytest.raises(CodebookError, match="no recipe 'best'; use 'default', 'paper'"):
            book.named_recipe("best")

    def test_paper_needs_a_key_tap(self, bert):
        with pytest.raises(CodebookError, match="no key tap; fit one"):
            random_codebook(bert, "hidden.0").named_recipe("paper")

    def test_a_tap_that_is_not_there(self, book):
        with pytest.raises(CodebookError, match=r"needs the tap hidden\.1, .*it has key\.1"):
            book.named_recipe(Recipe(taps={"hidden.1": TapRecipe()}))

    def test_only_a_key_tap_takes_queries(self, book):
        with pytest.raises(CodebookError, match="only a key tap"):
            book.named_recipe(Recipe(taps={"hidden.0": TapRecipe(query_side="query")}))


class TestEncoder:
    def test_another_host_is_refused(self, llama, book, bert, tiny_bert):
        with pytest.raises(CodebookError, match="has other weights"):
            Encoder(llama, book)
        with torch.no_grad():
            other = Host.load(str(tiny_bert), **CPU)
            other.blocks[0].attention.self.key.weight.mul_(1.1)
        with pytest.raises(CodebookError, match="has other weights"):
            Encoder(other, book)
        Encoder(Host.load(str(tiny_bert), layers=2, **CPU), book)

    @pytest.mark.parametrize("family", ["bert", "llama"])
    def test_documents_equal_encoding_one_text_at_a_time(self, family, request, sentences):
        host = request.getfixturevalue(family)
        book = random_codebook(host, "key.1", "hidden.0")
        recipe = Recipe(taps={"key.1": TapRecipe(), "hidden.0": TapRecipe()}, document_k=4)
        texts = [("", " ".join(sentences[i : i + n])) for i, n in enumerate([1, 9, 0, 2, 30, 1])]
        texts[1] = ("A title", texts[1][1])
        found = list(Encoder(host, book).documents(texts, recipe))
        assert [one.document for one in found if one.last] == list(range(len(texts)))
        for number, text in enumerate(texts):
            mine = [one for one in found if one.document == number]
            starts = np.concatenate([one.starts for one in mine])
            assert starts.tolist() == [start for start, _ in host.tokenizer.split(text[1])]
            for name in recipe.taps:
                got = np.concatenate([one.features[name] for one in mine])
                assert (got.dtype, got.shape) == (np.int32, (len(starts), 4))
                expected = []
                for window in host.windows([text]):
                    x = read(host, [Tap.parse(name)], [window])[Tap.parse(name)]
                    expected.append(book.sae(name).encode(x, 4)[1].numpy())
                # Rounding in batches may swap features of nearly the same strength.
                same = np.sort(got) == np.sort(np.concatenate(expected))
                assert same.mean() > 0.99 if same.size else text[1] == ""

    def test_documents_keep_no_more_features_than_the_sae_was_trained_for(self, bert, book):
        recipe = Recipe(taps={"key.1": TapRecipe()}, document_k=40)
        (found,) = Encoder(bert, book).documents([("", "every release")], recipe)
        assert found.features["key.1"].shape[1] == 6

    def test_documents_are_read_one_at_a_time(self, bert, book):
        taken = 0

        def endless():
            nonlocal taken
            while True:
                taken += 1
                yield "", "every release " * 50

        next(Encoder(bert, book).documents(endless(), book.recipe))
        assert taken <= 16 * bert.batch_tokens / 100

    def test_question_side_same(self, bert, book):
        found = Encoder(bert, book).question(QUESTION, book.recipe)
        (window,) = bert.windows([("", QUESTION)])
        for name, features in found.items():
            tap = Tap.parse(name)
            x = read(bert, [tap], [window])[tap]
            values, indices = book.sae(name).encode(x, book.recipe.query_k)
            np.testing.assert_allclose(features.values, values.detach(), rtol=1e-3, atol=1e-4)
            assert (features.indices == indices.numpy()).mean() > 0.95
            assert features.values.shape == (len(bert.tokenizer.split(QUESTION)), 32)

    @pytest.mark.parametrize("family", ["bert", "llama"])
    def test_question_side_query_goes_through_the_key_sae(self, family, request):
        host = request.getfixturevalue(family)
        book = random_codebook(host, "key.1")
        recipe = Recipe(taps={"key.1": TapRecipe(query_side="query")}, query_k=100)
        found = Encoder(host, book).question(QUESTION, recipe)["key.1"]
        (window,) = host.windows([("", QUESTION)])
        x = group_queries(read(host, [Tap("query", 1)], [window])[Tap("query", 1)], host)
        values, _ = book.sae("key.1").encode(x, 100)
        assert found.values.shape[1] == 48  # all the features there are
        np.testing.assert_allclose(found.values, values.detach(), rtol=1e-3, atol=1e-4)

    def test_a_long_question_is_read_in_windows(self, bert, book):
        question = QUESTION * 30
        found = Encoder(bert, book).question(question, book.recipe)
        assert len(found["key.1"].values) == len(bert.tokenizer.split(question)) > 100

    def test_bfloat16_finds_mostly_the_same_features(self, tiny_bert, tiny_codebook, sentences):
        book = Codebook.load(tiny_codebook)
        narrow = Host.load(str(tiny_bert), device="cpu", dtype="bfloat16")
        wide = Host.load(str(tiny_bert), **CPU)
        text = [("", " ".join(sentences[:8]))]
        (a,) = Encoder(wide, book).documents(text, book.recipe)
        (b,) = Encoder(narrow, book).documents(text, book.recipe)
        for name in book.recipe.taps:
            shared = [
                len(set(x) & set(y)) / len(x)
                for x, y in zip(a.features[name], b.features[name], strict=True)
            ]
            assert np.mean(shared) > 0.85
