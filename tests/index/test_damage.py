"""Damaged indexes are refused in one sentence, whatever is wrong with them."""

import json
import random

import numpy as np
import pytest
from helpers.forging import SEGMENT, describe, edit
from helpers.segments import LAYOUT, TAPS, Corpus, document_tokens

from s3_retriever.errors import IndexStoreError
from s3_retriever.index import Store


@pytest.fixture
def path(tmp_path):
    store = Store.create(tmp_path / "x.s3r", {"host": "minilm"})
    with store.append(LAYOUT) as writer:
        Corpus(6).write(writer)
    store.delete(["d2"])
    return store.path


def read_everything(store):
    for segment in store.snapshot().segments:
        segment.ids()
        for tap, size in TAPS.items():
            segment.postings(tap, np.arange(size))
            segment.block_features(tap, 0)
        for ordinal in range(segment.n_documents):
            segment.document_text(ordinal)
            document_tokens(segment, ordinal)
        segment.texts(np.arange(segment.n_sentences))
        for sentence in range(segment.n_sentences):
            segment.text(sentence, sentence)
            segment.token_starts(sentence, sentence)
        terms = np.load(store.path / SEGMENT / "lexical.terms.npy")
        segment.lexical(terms)


def test_no_index(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "none", tmp_path, tmp_path / "file"):
        with pytest.raises(IndexStoreError, match=r"no index at .*; check the path"):
            Store.open(path)


def test_newer_schema(path):
    edit(path, lambda m: m.update(schema_version=4, something="new"))
    with pytest.raises(IndexStoreError, match=r"schema 4.*upgrade s3-retriever"):
        Store.open(path)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest))  # nothing is sure of its layout
    with pytest.raises(IndexStoreError, match=r"schema 4.*upgrade s3-retriever"):
        Store.open(path)


def test_older_schema(path):
    edit(path, lambda m: m.update(schema_version=1, codebook=m.pop("origin")))
    with pytest.raises(IndexStoreError, match=r"older release; index the documents again"):
        Store.open(path)


def test_a_manifest_without_its_checksum(path):
    manifest = json.loads((path / "manifest.json").read_text())
    spaced = json.dumps(manifest, indent=1).replace('"sha256"', ' "sha256"', 1)
    for content in (json.dumps(manifest), spaced):
        (path / "manifest.json").write_text(content)
        with pytest.raises(IndexStoreError, match="its checksum is missing"):
            Store.open(path)


def test_any_bit_of_the_manifest_counts(path):
    file = path / "manifest.json"
    content = file.read_bytes()
    for at in range(0, 8 * len(content), 37):
        broken = bytearray(content)
        broken[at // 8] ^= 1 << at % 8
        file.write_bytes(broken)
        with pytest.raises(IndexStoreError, match=r"manifest\.json is damaged"):
            Store.open(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"x"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"schema_version": 3}',
    ],
)
def test_manifest_that_is_none(path, content):
    (path / "manifest.json").write_bytes(content)
    with pytest.raises(IndexStoreError, match="is damaged"):
        Store.open(path)


def segment(change):
    return lambda m: change(m["segments"][0])


CHANGES = {
    "schema_version is not a number": lambda m: m.update(schema_version="2"),
    "uuid": lambda m: m.update(uuid="../.."),
    "negative generation": lambda m: m.update(generation=-1),
    "unknown key": lambda m: m.update(extra=1),
    "no segments": lambda m: m.pop("segments") and m.update(segments=None),
    "segment twice": lambda m: m["segments"].append(m["segments"][0]),
    "segment path": segment(lambda s: s.update(name="../x.s3r/segment-000001")),
    "segment path, absolute": segment(lambda s: s.update(name="/etc")),
    "segment path, up": segment(lambda s: s.update(name="..")),
    "segment path, line break": segment(lambda s: s.update(name="segment-000001\n")),
    "other segment": segment(lambda s: s.update(name="segment-000009")),
    "file path": segment(lambda s: s["files"].update({"../../x": s["files"]["text.bin"]})),
    "tap path": segment(lambda s: s["features"].update({"../key": 5})),
    "tap name": segment(lambda s: s["features"].update({"lexical": 5})),
    "tap missing": segment(lambda s: s["features"].update({"key.9": 5})),
    "dictionary size": segment(lambda s: s["features"].update({"hidden.5": 301})),
    "no dictionary": segment(lambda s: s["features"].update({"hidden.5": 0})),
    "tombstones path": segment(lambda s: s.update(tombstones="../../manifest.json")),
    "tombstones missing": segment(lambda s: s.update(tombstones="tombstones.000009.npy")),
    "tombstones other": segment(lambda s: s.update(tombstones="tokens.npy")),
    "file missing": segment(lambda s: s["files"].update({"more": s["files"]["text.bin"]})),
    "size": segment(lambda s: s["files"]["text.bin"].update(bytes=1)),
    "size is not a number": segment(lambda s: s["files"]["text.bin"].update(bytes=1.5)),
    "checksum": segment(lambda s: s["files"]["text.bin"].update(sha256="")),
    "documents": segment(lambda s: s.update(documents=7)),
    "sentences": segment(lambda s: s.update(sentences=0)),
    "tokens": segment(lambda s: s.update(tokens=s["tokens"] + 1)),
    "documents, many": segment(lambda s: s.update(documents=1 << 40)),
    "sentences, many": segment(lambda s: s.update(sentences=1 << 40)),
    "tokens, many": segment(lambda s: s.update(tokens=10**15)),
    "a dictionary, large": segment(lambda s: s["features"].update({"hidden.5": 1 << 40})),
    "deleted": segment(lambda s: s.update(deleted=2)),
    "none deleted": segment(lambda s: s.update(deleted=0)),
    "all deleted": segment(lambda s: s.update(deleted=6)),
    "vectors": segment(lambda s: s.update(vector_bytes=96)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_manifest_that_is_wrong(path, change):
    edit(path, change)
    with pytest.raises(IndexStoreError, match="is damaged"):
        Store.open(path)


def files(path):
    return sorted((path / SEGMENT).iterdir())


def test_files_missing_or_cut_short(path):
    for file in files(path):
        content = file.read_bytes()
        for broken in (content[:-1], content + b"\0", b"", None):
            file.unlink()
            if broken is not None:
                file.write_bytes(broken)
            with pytest.raises(IndexStoreError, match=f"{file.name} is damaged"):
                Store.open(path)
            file.write_bytes(content)
    read_everything(Store.open(path))


def test_arrays_of_another_type_or_shape(path):
    for file in files(path):
        if file.suffix != ".npy":
            continue
        content = file.read_bytes()
        array = np.load(file)
        for other in (
            array[:-1],
            array.astype(object),
            array.view(np.uint8),
            array[None],
            np.asfortranarray(np.zeros((3, 3), array.dtype)),
        ):
            if (other.dtype, other.shape) == (array.dtype, array.shape):
                continue
            np.save(file, other, allow_pickle=True)
            describe(path, file.name)
            try:
                read_everything(Store.open(path))
            except IndexStoreError:
                pass
            else:  # a tombstone less is an index all the same
                assert file.name.startswith("tombstones") and other.shape == (0,)
        file.write_bytes(content)
        describe(path, file.name)
    read_everything(Store.open(path))


def test_random_damage_is_refused_or_harmless_and_always_found(path):
    """Bytes changed anywhere: an error in plain words, or an answer; never anything else."""
    rng = random.Random(0)
    refused = 0
    for file in files(path):
        content = file.read_bytes()
        for _ in range(12):
            broken = bytearray(content)
            at = rng.randrange(len(broken))
            broken[at : at + 4] = rng.randbytes(len(broken[at : at + 4]))
            file.write_bytes(broken)
            try:
                store = Store.open(path)
                read_everything(store)
            except IndexStoreError:
                refused += 1
            if bytes(broken) != content:
                with pytest.raises(IndexStoreError, match="is damaged"):
                    Store.open(path).verify()
        file.write_bytes(content)
    assert refused > 20
    Store.open(path).verify()


@pytest.mark.parametrize(
    ("file", "field", "problem"),
    [
        ("sentences.npy", "n_bytes", "a range beyond its end"),
        ("sentences.npy", "n_tokens", "not in order"),
        ("sentences.npy", "document", "not in order"),
        ("documents.npy", "row_bytes", "a range beyond its end"),
        ("documents.npy", "n_bytes", "a range beyond its end"),
        ("documents.npy", "n_tokens", "not in order"),
        ("documents.npy", "n_sentences", "not in order"),
    ],
)
@pytest.mark.parametrize("much", [1000, 1 << 31])
def test_ranges_beyond_the_end(path, file, field, problem, much):
    table = np.load(path / SEGMENT / file)
    table[field][-1] += much
    np.save(path / SEGMENT / file, table)
    describe(path, file)
    with pytest.raises(IndexStoreError, match=problem):
        read_everything(Store.open(path))


@pytest.mark.parametrize("dead", [[6], [1 << 31]])
def test_tombstones_of_no_document(path, dead):
    name = "tombstones.000002.npy"
    np.save(path / SEGMENT / name, np.array(dead, dtype=np.uint32))
    describe(path, name)
    with pytest.raises(IndexStoreError, match="not documents of the segment"):
        Store.open(path)


@pytest.mark.parametrize("dead", [[3, 2], [2, 2]])
def test_tombstones_out_of_order(path, dead):
    name = "tombstones.000002.npy"
    np.save(path / SEGMENT / name, np.array(dead, dtype=np.uint32))
    describe(path, name)
    edit(path, segment(lambda s: s.update(deleted=2)))
    with pytest.raises(IndexStoreError, match="not documents of the segment"):
        Store.open(path)


@pytest.mark.parametrize("tap", TAPS)
def test_postings_of_no_sentence_score_nothing(path, tap):
    """Sentence numbers are checked before they index scores."""
    name = f"{tap}.sentences.npy"
    np.save(path / SEGMENT / name, np.load(path / SEGMENT / name) | 0xFF00)
    describe(path, name)
    (opened,) = Store.open(path).snapshot().segments
    features = np.arange(300)
    for scores, score in (
        (np.zeros(opened.n_sentences), opened.add_to_sentences),
        (np.zeros(opened.n_tokens), opened.add_to_tokens),
    ):
        with pytest.raises(IndexStoreError, match="is damaged"):
            score(tap, features, np.ones(300), scores)


def test_damage_does_not_survive_a_compaction_unnoticed(path):
    file = path / SEGMENT / "documents.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"metadata"', b'"metadat_"'))
    store = Store.open(path)
    before = store.manifest
    with pytest.raises(IndexStoreError, match=r"documents.jsonl is damaged"):
        store.compact()
    assert Store.open(path).manifest == before
