"""Codebooks on disk and on the Hub, and their recipes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.codebooks import random_codebook
from safetensors.torch import save_file

from s3_retriever.codebook import Codebook
from s3_retriever.errors import CodebookError, InputError
from s3_retriever.host import Host
from s3_retriever.recipe import FeatureAttention, Interleave, MaxToken, Recipe, TapRecipe
from s3_retriever.sae import TopKSAE

CPU = {"device": "cpu", "dtype": "float32"}


@pytest.fixture(scope="module")
def bert(tiny_bert) -> Host:
    return Host.load(str(tiny_bert), window=32, **CPU)


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
        with pytest.raises(CodebookError, match="holds something other than a codebook"):
            book.save(tmp_path)
        with pytest.raises(CodebookError, match="holds something other than a codebook"):
            book.save(tmp_path / "notes.txt")
        assert (tmp_path / "notes.txt").read_text() == "mine"
        (tmp_path / "empty").mkdir()
        book.save(tmp_path / "empty")

    def test_a_parent_that_is_a_file(self, book, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(CodebookError, match="cannot be written"):
            book.save(tmp_path / "file" / "book")

    def test_a_newer_schema_asks_for_an_upgrade(self, saved):
        edit(saved, schema_version=4, something_new=True)
        with pytest.raises(CodebookError, match=r"schema 4; this release reads 3: upgrade"):
            Codebook.load(saved)

    @pytest.mark.parametrize("schema", [1, 2])
    def test_an_older_schema_asks_for_another_fit(self, saved, schema):
        edit(saved, schema_version=schema, standalone=[])
        with pytest.raises(CodebookError, match=r"made by an older release, .*: fit it again"):
            Codebook.load(saved)

    def test_other_weights_than_those_saved_are_refused(self, bert, book, saved):
        other = random_codebook(bert, "key.1", seed=1)
        other.sae("key.1").save(saved / "key.1", dtype=torch.float16)
        with pytest.raises(CodebookError, match="weights are not those that were saved"):
            Codebook.load(saved)

    def test_other_types_of_numbers_are_refused(self, book, tmp_path):
        with pytest.raises(InputError, match=r"float16 or float32, not torch\.bfloat16"):
            book.save(tmp_path / "book", dtype=torch.bfloat16)

    def test_the_identity_is_read_without_torch(self, book, saved):
        script = f"""
import sys
from pathlib import Path
from s3_retriever import document, features, progress, quantization, text, types
from s3_retriever.codebook.files import find_folder, read_codebook_file
print(read_codebook_file(find_folder({str(saved)!r})).identity, "torch" in sys.modules)
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.stdout.split() == [book.identity, "False"], done.stderr

    def test_loading_does_not_import_the_compiler_of_torch(self, saved):
        script = f"""
import sys
from s3_retriever.codebook import Codebook
Codebook.load({str(saved)!r})
print("torch" in sys.modules, "torch._dynamo" in sys.modules)
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.stdout.split() == ["True", "False"], done.stderr

    @pytest.mark.parametrize(
        "changes",
        [
            {"taps": ["../x"]},
            {"taps": ["key.1/../../x"]},
            {"taps": []},
            {"sentence_maps": [0]},
            {"sentence_maps": ["../x"]},
            {"identity": "0" * 32},
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
        with pytest.raises(CodebookError, match=r"holds no codebook|does not describe a codebook"):
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
        assert paper.taps == {"key.1": TapRecipe(query_side="decoder")}
        assert paper.fusion == Interleave(edge_tokens=32)
        assert (paper.advanced.weight_power, paper.advanced.idf_power) == (1.0, 1.0)
        assert (paper.advanced.doc_top_k, paper.advanced.query_top_k) == (6, 48)
        literal = book.named_recipe("paper-literal")
        assert literal.taps == {"key.1": TapRecipe(query_side="query")}
        assert literal.advanced.query_top_k == 6
        own = Recipe(taps={"hidden.0": TapRecipe(weight=2)})
        assert book.named_recipe(own) is own

    def test_paper_looks_at_features_if_their_activations_are_known(self, bert, tmp_path):
        book = random_codebook(bert, "key.1")
        assert book.named_recipe("paper").scoring == MaxToken(kernel=8)
        with pytest.raises(CodebookError, match=r"mean activations of the features at key\.1"):
            book.named_recipe(book.named_recipe("paper").changed("scoring", FeatureAttention()))
        book.sae("key.1").mean_activations = torch.linspace(0.5, 2.0, 48)
        book.save(tmp_path / "book")
        loaded = Codebook.load(tmp_path / "book")
        assert loaded.identity == book.identity
        assert loaded.named_recipe("paper").scoring == FeatureAttention()
        assert loaded.named_recipe("paper-literal").scoring == MaxToken(kernel=8)
        known = loaded.sae("key.1").mean_activations
        torch.testing.assert_close(known, book.sae("key.1").mean_activations)
        for wrong in (known[1:], known - 1):
            save_file({"mean": wrong.clone()}, tmp_path / "book/key.1/activations.safetensors")
            with pytest.raises(CodebookError, match="fit the codebook again"):
                Codebook.load(tmp_path / "book")
        (tmp_path / "book/key.1/activations.safetensors").unlink()
        with pytest.raises(CodebookError, match="activations"):
            Codebook.load(tmp_path / "book")
        TopKSAE(32, 48, 6).save(tmp_path / "book/key.1")
        assert TopKSAE.load(tmp_path / "book/key.1").mean_activations is None

    def test_an_unknown_name(self, book):
        with pytest.raises(CodebookError, match="Unknown recipe 'best'; use 'default', 'paper'"):
            book.named_recipe("best")

    def test_paper_needs_a_key_tap(self, bert):
        with pytest.raises(CodebookError, match="no key tap; fit one"):
            random_codebook(bert, "hidden.0").named_recipe("paper")

    def test_a_tap_that_is_not_there(self, book):
        with pytest.raises(CodebookError, match=r"needs the tap hidden\.1, .*it has key\.1"):
            book.named_recipe(Recipe(taps={"hidden.1": TapRecipe()}))

    def test_only_a_key_tap_takes_queries(self, book):
        with pytest.raises(CodebookError, match="only key taps"):
            book.named_recipe(Recipe(taps={"hidden.0": TapRecipe(query_side="query")}))
