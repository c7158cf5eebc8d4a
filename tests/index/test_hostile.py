"""Indexes from someone who means harm: right checksums, wrong content."""

import os
import random
import shutil

import numpy as np
import pytest
from helpers.forging import SEGMENT, describe, edit, replace_row
from helpers.segments import LAYOUT, Corpus

from s3_retriever.errors import IndexStoreError
from s3_retriever.index import Store


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An index with a deleted document; tests copy it."""
    store = Store.create(tmp_path_factory.mktemp("made") / "x.s3r", {"host": "minilm"})
    with store.append(LAYOUT) as writer:
        Corpus(5).write(writer)
    store.delete(["d2"])
    return store.path


@pytest.fixture
def path(made, tmp_path):
    return shutil.copytree(made, tmp_path / "x.s3r")


def use(path):
    """All that search, explanation and merging read."""
    store = Store.open(path)
    for segment in store.snapshot().segments:
        segment.ids()
        segment.column("n")
        features, terms = np.arange(200), np.load(path / segment.name / "lexical.terms.npy")
        for tap in segment.taps:
            segment.frequencies(tap, features)
            segment.postings(tap, features)
            segment.add_to_sentences(tap, features, np.ones(200), np.zeros(segment.n_sentences))
            segment.add_to_tokens(tap, features, np.ones(200), np.zeros(segment.n_tokens))
            segment.features_in(tap, features, np.arange(segment.n_sentences))
            for sentence in range(0, segment.n_sentences, 7):
                segment.sentence_features(tap, sentence)
        segment.lexical(terms)
        segment.texts(np.arange(segment.n_sentences))
        for sentence in range(segment.n_sentences):
            segment.text(sentence, sentence)
    store.compact()
    store.verify()


ODD = [0, -1, 1, 2**16, 2**31, 2**32, 2**63, 10**18, 10**30, 1e308, True, None, "x", "", [], {}]


def change_manifest(path, rng):
    def change(manifest):
        whole = {"segments": manifest["segments"], "generation": manifest["generation"]}
        at = rng.choice([p for p in paths(whole) if len(p) > 1 and p[-1] != "sha256"])
        *parents, last = at
        part = manifest
        for key in parents:
            part = part[key]
        part[last] = rng.choice(ODD)

    edit(path, change)


def paths(value, start=()):
    yield start
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, item in items:
        yield from paths(item, (*start, key))


def change_array(path, rng):
    file = rng.choice(sorted((path / SEGMENT).glob("*.npy")))
    array = np.load(file)
    if rng.random() < 0.3 or not array.size:
        array = array[: len(array) // 2] if rng.random() < 0.5 else np.concatenate([array, array])
    else:
        column = array[rng.choice(array.dtype.names)] if array.dtype.names else array.reshape(-1)
        at, most = rng.randrange(column.size), np.iinfo(column.dtype).max
        new = [0, 1, int(column[at]) + 1, int(column[at]) - 1, 255, 2**31, 2**32 - 1, 2**63, most]
        column[at] = min(max(rng.choice(new), 0), most)
    np.save(file, array)
    describe(path, file.name)


@pytest.mark.parametrize("seed", range(60))
def test_any_change_is_refused_in_one_sentence_or_does_no_harm(path, seed):
    rng = random.Random(seed)
    rng.choice([change_manifest, change_array, change_array])(path, rng)
    try:
        use(path)
    except IndexStoreError as error:
        message = str(error)
        assert "\n" not in message
        assert len(message) < 600
        assert message.endswith(".")


ROWS = {
    "a list": b"[1]",
    "null": b"null",
    "no fields": b"{}",
    "an id that is a number": b'{"id":5,"metadata":{},"characters":6}',
    "an id that is not Unicode": rb'{"id":"d\ud800","metadata":{},"characters":6}',
    "metadata in a list": b'{"id":"d0","metadata":[["a",1]],"characters":6}',
    "not a number": b'{"id":"d0","metadata":{"n":NaN},"characters":6}',
    "infinitely many characters": b'{"id":"d0","metadata":{},"characters":Infinity}',
    "a number of characters that is infinite": b'{"id":"d0","metadata":{},"characters":1e999}',
    "a number of many digits": b'{"id":"d0","metadata":{},"characters":' + b"9" * 5000 + b"}",
    "nested": b'{"id":"d0","metadata":{"n":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_rows_that_are_no_documents(path, row):
    replace_row(path, row)
    with pytest.raises(IndexStoreError, match=r"documents\.jsonl is damaged"):
        Store.open(path).snapshot().ids()


BOUNDS = {
    "a dictionary that no file is as large as": {"features": {"hidden.5": 1 << 23}},
    "vectors": {"vector_bytes": 1 << 24},
    "no documents": {"documents": 0},
}


@pytest.mark.parametrize("change", BOUNDS.values(), ids=BOUNDS.keys())
def test_sizes_have_bounds(path, change):
    edit(path, lambda m: m["segments"][0].update(change))
    with pytest.raises(IndexStoreError, match=r"manifest\.json is damaged"):
        Store.open(path)


def test_segments_have_the_same_taps(path):
    other = {"name": "segment-000009", "features": {"hidden.5": 10}}
    edit(path, lambda m: m["segments"].append(m["segments"][0] | other))
    with pytest.raises(IndexStoreError, match="segments differ in taps"):
        Store.open(path)


@pytest.mark.parametrize("header", [b"PK\x03\x04", b"{'descr': (), ", b"{'descr': ('<u8',), "])
def test_headers_that_are_none(path, header):
    if header.startswith(b"{"):
        header += b"'fortran_order': False, 'shape': (3,), }\n"
        header = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    (path / SEGMENT / "lexical.terms.npy").write_bytes(header)
    describe(path, "lexical.terms.npy")
    with pytest.raises(IndexStoreError, match=r"lexical\.terms\.npy is damaged"):
        Store.open(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
@pytest.mark.parametrize("name", ["manifest.json", f"{SEGMENT}/tokens.npy", f"{SEGMENT}/text.bin"])
def test_a_pipe_is_not_waited_for(path, name):
    (path / name).unlink()
    os.mkfifo(path / name)
    if name.endswith("text.bin"):
        edit(path, lambda m: m["segments"][0]["files"]["text.bin"].update(bytes=0))
    with pytest.raises(IndexStoreError, match="not a regular file"):
        Store.open(path)


class TestLinks:
    """Links in an index do not lead its writer to other files."""

    @pytest.fixture
    def other(self, tmp_path):
        folder = tmp_path / "home"
        folder.mkdir()
        (folder / "precious").write_text("mine")
        yield folder
        assert [file.name for file in folder.iterdir()] == ["precious"]
        assert (folder / "precious").read_text() == "mine"

    def add(self, path):
        store = Store.open(path)
        with store.append(LAYOUT) as writer:
            Corpus(1, prefix="new").write(writer)
        return store

    def test_the_draft_of_the_manifest(self, path, other):
        (path / "manifest.json.tmp").symlink_to(other / "precious")
        self.add(path)
        assert not (path / "manifest.json").is_symlink()
        assert "new0" in Store.open(path).snapshot()

    def test_the_manifest(self, path, other):
        content = (path / "manifest.json").read_bytes()
        (path / "manifest.json").unlink()
        (path / "copy").write_bytes(content)
        (path / "manifest.json").symlink_to(path / "copy")
        self.add(path)
        assert (path / "copy").read_bytes() == content

    def test_the_lock(self, path, other):
        (path / "write.lock").unlink(missing_ok=True)
        (path / "write.lock").symlink_to(other / "precious")
        with pytest.raises(IndexStoreError, match=r"Writing .* failed"):
            self.add(path)

    def test_the_folder_of_drafts(self, path, other):
        (path / "draft").symlink_to(other)
        self.add(path)

    def test_a_folder_that_no_manifest_names(self, path, other):
        (path / "segment-000003").symlink_to(other)
        self.add(path)

    def test_the_folder_of_a_segment(self, path, tmp_path):
        elsewhere = shutil.move(path / SEGMENT, tmp_path / "elsewhere")
        (path / SEGMENT).symlink_to(elsewhere)
        before = sorted(file.name for file in elsewhere.iterdir())
        store = Store.open(path)  # reading may follow it
        for write in (lambda: store.delete(["d1"]), store.compact, lambda: self.add(path)):
            with pytest.raises(IndexStoreError, match="is a symbolic link, which writing does not"):
                write()
        assert sorted(file.name for file in elsewhere.iterdir()) == before


def test_a_manifest_of_any_size_takes_no_memory(path):
    with (path / "manifest.json").open("r+b") as file:
        file.truncate(1 << 40)  # it takes no space
    with pytest.raises(IndexStoreError, match=r"manifest\.json is damaged \(it has more than"):
        Store.open(path)


def test_errors_do_not_act_on_the_terminal(tmp_path):
    with pytest.raises(IndexStoreError, match="no index at") as error:
        Store.open(tmp_path / "a\x1b]0;OWNED\x07\n\u202e\udcff")
    assert str(error.value).isprintable()
    assert r"a\x1b]0;OWNED\x07\n\u202e\udcff" in str(error.value)
