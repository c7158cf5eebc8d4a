"""Indexes whose manifest is at odds with its host and codebook, or names what is not here."""

from __future__ import annotations

import json

import huggingface_hub
import numpy as np
import pytest
from helpers.forging import SEGMENT, describe, edit

from s3_retriever import Codebook, CodebookError, HostError, IndexStoreError, S3Error, S3Index
from s3_retriever.host import source

TEXTS = ["The release manager signs every release on Friday. A baker mends warm bread."]


@pytest.fixture
def path(tmp_path, tiny_bert, tiny_codebook):
    index = S3Index.create(tmp_path / "x.s3r", str(tiny_bert), codebook=tiny_codebook, **OPTIONS)
    index.add(TEXTS)
    return index.path


OPTIONS = {"device": "cpu", "dtype": "float32"}


def change_vectors(path, n_bytes):
    edit(path, lambda m: m["segments"][0].update(vector_bytes=n_bytes))
    n = len(np.load(path / SEGMENT / "sentences.npy"))
    np.save(path / SEGMENT / "vectors.npy", np.zeros((n, n_bytes), dtype=np.uint8))
    describe(path, "vectors.npy")


@pytest.mark.parametrize("n_bytes", [1, 4_000])
def test_vectors_of_another_size_are_refused(path, n_bytes):
    change_vectors(path, n_bytes)
    index = S3Index.open(path, **OPTIONS)
    assert index.search("warm bread", mode="bm25")
    for use in (lambda: index.search("warm bread"), lambda: index.add("More.")):
        with pytest.raises(
            IndexStoreError, match="use the codebook and the recipe that it was made with"
        ):
            use()


def test_other_taps_are_refused(path):
    edit(path, lambda m: m["segments"][0]["features"].clear())
    with pytest.raises(
        IndexStoreError, match="use the codebook and the recipe that it was made with"
    ):
        S3Index.open(path, **OPTIONS).search("warm bread")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("host", ""),
        ("host", "a\0b"),
        ("host", "x" * 5_000),
        ("window", 10**9),
        ("overlap", -1),
        ("recipe", {"taps": {"hidden.99": {}}}),
        ("recipe", {"taps": {"../x": {}}}),
        ("recipe", {"taps": {"hidden." + "9" * 5_000: {}}}),
        ("recipe", {"taps": {"hidden.1": {"weight": float("inf")}}}),
        ("recipe", {"taps": {"hidden.1": {}}, "hop": {"bridges": 10**9}}),
        ("recipe", {"taps": {"hidden.1": {}}, "advanced": {"idf_power": 1e308}}),
    ],
)
def test_an_origin_that_cannot_be_is_refused(path, part, value):
    edit(path, lambda m: m["origin"].update({part: value}))
    with pytest.raises(S3Error):
        S3Index.open(path, **OPTIONS).search("warm bread")


@pytest.mark.parametrize(
    "recipe",
    [
        {"scoring": {"kind": "max_token", "kernel": 1 << 31}, "redundancy": None},
        {"advanced": {"radius": 1 << 31}},
        {"fusion": {"kind": "z_score", "candidates": 1 << 31}},
        {"hop": {"bridges": 64, "neighbours": 1 << 31}},
    ],
)
def test_numbers_of_a_recipe_are_bounded_by_the_index(path, recipe):
    edit(path, lambda m: m["origin"]["recipe"].update(recipe))
    assert S3Index.open(path, **OPTIONS).search("warm bread", k=10**18)[0].text


class TestHub:
    """What an index names is looked for on this machine alone."""

    @pytest.fixture
    def asked(self, monkeypatch):
        """Whether each look-up may go to the Hub."""
        asked = []

        def look_up(*_, local_files_only=False, **__):
            asked.append(not local_files_only)
            raise FileNotFoundError("not in the cache")

        for function in ("hf_hub_download", "snapshot_download"):
            monkeypatch.setattr(huggingface_hub, function, look_up)
        return asked

    def test_a_host_is_not_downloaded_unless_it_is_passed(self, path, tiny_codebook, asked):
        edit(path, lambda m: m["origin"].update(host="someone/model"))
        with pytest.raises(HostError, match=r"not on this machine; pass host="):
            S3Index.open(path, codebook=tiny_codebook, **OPTIONS).search("warm bread")
        assert asked == [False]
        with pytest.raises(HostError, match=r"There is no host"):
            S3Index.open(path, "someone/model", codebook=tiny_codebook, **OPTIONS).search("bread")
        assert asked == [False, True]

    def test_nor_is_a_gguf_file(self, path, tiny_codebook, asked):
        edit(path, lambda m: m["origin"].update(host="someone/model"))
        options = {"codebook": tiny_codebook, "gguf_file": "model.gguf", **OPTIONS}
        with pytest.raises(HostError, match=r"not on this machine; pass host="):
            S3Index.open(path, **options).search("warm bread")
        assert asked == [False]
        with pytest.raises(HostError, match=r"nor its local cache has model\.gguf"):
            S3Index.open(path, "someone/model", **options).search("warm bread")
        assert asked == [False, True]

    @pytest.mark.parametrize("host", ["minilm", "smollm2"])
    def test_nor_is_an_embedded_host(self, path, tiny_codebook, asked, monkeypatch, host):
        monkeypatch.setenv("XDG_CACHE_HOME", str(path.parent / "cache"))
        monkeypatch.setattr(source, f"_{host.upper()}_PACKAGE", "not-installed")
        edit(path, lambda m: m["origin"].update(host=host))
        for named in ([], [host]):
            with pytest.raises(HostError, match=r"not installed .*; install it with: pip install"):
                S3Index.open(path, *named, codebook=tiny_codebook, **OPTIONS).search("warm bread")
        assert asked == [False, True]

    def test_nor_is_a_codebook(self, path, asked):
        edit(path, lambda m: m["origin"].update(codebook_source="someone/codebook"))
        with pytest.raises(CodebookError, match=r"not on this machine; pass codebook="):
            S3Index.open(path, **OPTIONS).search("warm bread")
        assert asked == [False]
        with pytest.raises(CodebookError, match=r"There is no codebook"):
            S3Index.open(path, codebook="someone/codebook", **OPTIONS).search("warm bread")
        assert asked == [False, True]

    def test_a_host_that_is_loaded_serves_an_index_that_is_opened(self, path, tiny_bert):
        named = S3Index.open(path, str(tiny_bert), **OPTIONS)
        assert S3Index.open(path, **OPTIONS).encoder.host is named.encoder.host


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("codebook.json", b"[" * 100_000),
        ("codebook.json", b"\xff\xfe"),
        ("codebook.json", b"[]"),
        ("hidden.1/cfg.json", b"[" * 100_000),
        ("hidden.1/cfg.json", b"[]"),
        ("hidden.1/cfg.json", b"\xff"),
        ("hidden.1/sae_weights.safetensors", b"\xff" * 100),
        ("hidden.1/sae_weights.safetensors", b"\x02" + b"\0" * 7 + b"{}"),
    ],
)
def test_a_codebook_that_is_damaged_is_refused_in_one_sentence(
    tiny_codebook, tmp_path, file, content
):
    folder = tmp_path / "book"
    Codebook.load(tiny_codebook).save(folder)
    (folder / file).write_bytes(content)
    with pytest.raises(CodebookError) as error:
        Codebook.load(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("taps", ["hidden." + "9" * 5_000]),
        ("taps", ["../x"]),
        ("sentence_maps", [-1]),
        ("sentence_maps", [10**30]),
        ("schema_version", "\x1b[2J" * 1_000),
        ("recipe", {"taps": {"hidden.1": {"weight": 1e999}}}),
    ],
)
def test_a_description_that_cannot_be_is_refused(tiny_codebook, tmp_path, field, value):
    folder = tmp_path / "book"
    Codebook.load(tiny_codebook).save(folder)
    path = folder / "codebook.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(CodebookError):
        Codebook.load(folder)
