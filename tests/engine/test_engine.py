"""`S3Index` as users hold it, on a tiny real host."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from tqdm.auto import tqdm

from s3_retriever import (
    Codebook,
    CodebookError,
    Document,
    Host,
    HostError,
    IndexStoreError,
    InputError,
    Recipe,
    S3Index,
    TapRecipe,
)

HANDBOOK = Document(
    "The release manager signs every release on Friday. A baker mends warm bread before dawn. "
    "The old captain paints seven boats in the harbour.",
    "handbook",
    {"title": "Handbook", "year": 2024},
)
DIARY = Document(
    "My neighbour forgets a broken clock. The night nurse counts the blue ledger.",
    "diary",
    {"year": 2023},
)


@pytest.fixture(scope="session")
def host(tiny_bert):
    return Host.load(str(tiny_bert), device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def codebook(tiny_codebook):
    return Codebook.load(tiny_codebook)


@pytest.fixture
def index(host, codebook):
    with S3Index.create(host=host, codebook=codebook) as made:
        made.add([HANDBOOK, DIARY])
        yield made


def open_again(path, tiny_bert, tiny_codebook):
    return S3Index.open(path, str(tiny_bert), codebook=tiny_codebook, dtype="float32", device="cpu")


# The main job


@pytest.mark.parametrize("mode", ["hybrid", "s3", "bm25"])
def test_a_question_in_a_sentences_own_words_finds_it_first(index, mode):
    spans = index.search("the old captain paints seven boats", k=1, mode=mode)
    assert [span.text for span in spans] == ["The old captain paints seven boats in the harbour."]
    span = spans[0]
    assert HANDBOOK.text[span.start : span.end] == span.text
    assert (span.document_id, span.metadata) == ("handbook", {"title": "Handbook", "year": 2024})
    assert set(span.sources) <= {"s3", "sentence", "bm25"}
    assert span.id == f"handbook:{span.start}-{span.end}"


def test_results_come_best_first_and_k_beyond_the_end_gives_all(index):
    spans = index.search("captain boats", k=50, mode="s3")
    assert len(spans) == 5
    assert [s.score for s in spans] == sorted((s.score for s in spans), reverse=True)


def test_strings_are_documents_and_ids_are_stable(host, codebook):
    with (
        S3Index.create(host=host, codebook=codebook) as first,
        S3Index.create(host=host, codebook=codebook) as second,
    ):
        assert first.add("A plain text.") == second.add(["A plain text."])
        assert first.search("plain", k=1)[0].id == second.search("plain", k=1)[0].id


def test_documents_come_from_an_iterator_that_is_read_as_it_is_scanned(host, codebook):
    with S3Index.create(host=host, codebook=codebook) as index:
        ids = index.add(Document(f"Boat number {i} is blue.", f"b{i}") for i in range(300))
        assert len(index) == len(ids) == 300
        assert index.ids() == ids


def test_a_title_is_context_but_never_part_of_a_span(host, codebook):
    with S3Index.create(host=host, codebook=codebook) as index:
        index.add([Document("It sinks.", "a", {"title": "Captain"}), Document("It floats.", "b")])
        spans = index.search("captain", k=5, mode="bm25")
        assert [(span.document_id, span.text) for span in spans] == [("a", "It sinks.")]


def test_reopened_index_gives_the_same_spans(tmp_path, tiny_bert, tiny_codebook):
    path = tmp_path / "index"
    made = S3Index.create(
        path, str(tiny_bert), codebook=tiny_codebook, dtype="float32", device="cpu"
    )
    made.add([HANDBOOK, DIARY])
    question = "who signs the release"
    before = made.search(question, k=5)
    made.close()
    with S3Index.open(path, dtype="float32", device="cpu") as again:
        assert again.search(question, k=5) == before
        assert again.recipe == made.recipe


def test_filters_apply_before_ranking(index):
    assert {s.document_id for s in index.search("captain", k=9, where={"year": 2023})} == {"diary"}
    newer = index.search("captain", k=9, where=lambda metadata: metadata["year"] > 2023)
    assert {s.document_id for s in newer} == {"handbook"}
    assert index.search("captain", where={"year": 1999}) == []
    assert index.search("captain", where={"author": None}) == []
    with pytest.raises(InputError, match="where must be a mapping"):
        index.search("captain", where=["year"])


def test_budget_and_order(index):
    spans = index.search("captain ledger bread", token_budget=25, order="document")
    assert 0 < sum(span.tokens for span in spans) <= 25
    places = [(index.ids().index(span.document_id), span.start) for span in spans]
    assert places == sorted(places)
    tokens = index.encoder.host.tokenizer
    assert [span.tokens for span in spans] == [tokens.count(span.text) for span in spans]


def test_a_sentence_comes_once_unless_every_place_is_asked_for(index):
    index.add(Document(DIARY.text.replace(" ", "  "), "copy", {"year": 2025}))
    question = "My neighbour forgets a broken clock."

    def places(**options):
        return [span.document_id for span in index.search(question, 9, mode="bm25", **options)]

    assert places() == ["diary"]
    assert places(unique=False) == ["diary", "copy"]
    assert places(where={"year": 2025}) == ["copy"]


def test_delete_hides_a_document_at_once_and_frees_its_id(index):
    index.delete("diary")
    assert len(index) == 1
    assert all(s.document_id != "diary" for s in index.search("broken clock ledger", k=9))
    index.add(DIARY)
    assert index.search("broken clock", k=1, mode="bm25")[0].document_id == "diary"
    with pytest.raises(InputError, match="nosuch"):
        index.delete(["handbook", "nosuch"])
    assert "handbook" in index.ids()
    assert index.delete("nosuch", missing_ok=True) == 0
    assert index.delete(iter(["handbook", "nosuch"]), missing_ok=True) == 1
    assert index.ids() == ["diary"]


def test_replace_and_compact_keep_results(index):
    index.add(Document("The old captain sells seven boats.", "handbook"), replace=True)
    before = index.search("captain boats", k=5)
    index.compact()
    after = index.search("captain boats", k=5)
    assert [(span.id, span.text) for span in after] == [(span.id, span.text) for span in before]
    assert [s.score for s in after] == pytest.approx([s.score for s in before])
    assert index.stats()["segments"] == 1
    assert any("sells" in span.text for span in before)
    assert not any("paints" in span.text for span in before)


# Explanations


def test_an_explanation_adds_up_and_points_at_real_tokens(index):
    question = "the old captain paints"
    span = index.search(question, k=1, mode="bm25")[0]
    explained = index.explain(question, span)
    assert sum(f.share for f in explained.features) == pytest.approx(1.0)
    assert sum(t.share for t in explained.terms) == pytest.approx(1.0)
    assert [t.term for t in explained.terms][:1] and "captain" in {t.term for t in explained.terms}
    assert explained.features[0].share == max(f.share for f in explained.features)
    texts = [t.text for t in explained.tokens]
    assert "".join(texts) == span.text.replace(" ", "")
    assert all(f.question_tokens for f in explained.features)
    asked = {question[a:b] for a, b in index.encoder.host.tokenizer.split(question)}
    assert {token for f in explained.features for token in f.question_tokens} <= asked


def test_a_span_that_is_gone_cannot_be_explained(index):
    span = index.search("captain", k=1)[0]
    index.delete(span.document_id)
    with pytest.raises(InputError, match="not in this index"):
        index.explain("captain", span)


# Recipes


def test_the_paper_recipe_is_one_flag(host, codebook):
    with S3Index.create(host=host, codebook=codebook, recipe="paper") as index:
        index.add([HANDBOOK, DIARY])
        assert list(index.recipe.taps) == ["key.1"]
        spans = index.search("captain boats", k=9)
        assert {source for span in spans for source in span.sources} >= {"bm25", "edge"}


def test_a_recipe_needs_its_taps_indexed(index, codebook):
    with pytest.raises(CodebookError, match="not indexed here"):
        index.search("captain", recipe="paper")
    sharper = index.recipe.changed("advanced.idf_power", 3.0).changed("name", "sharper")
    assert index.search("captain boats", recipe=sharper)
    with pytest.raises(CodebookError, match="does not"):
        S3Index.create(codebook=codebook, recipe=Recipe(taps={"hidden.0": TapRecipe()}))
    with pytest.raises(CodebookError, match="Unknown recipe"):
        index.search("captain", recipe="best")


# Bad input


@pytest.mark.parametrize("question", ["", "   ", "\n\t", None])
def test_an_empty_question_is_refused(index, question):
    with pytest.raises(InputError, match=r"question is empty|must be a string, not NoneType"):
        index.search(question)


@pytest.mark.parametrize(
    "options",
    [
        *({"k": 0}, {"k": -1}, {"k": True}, {"token_budget": 0}, {"token_budget": True}),
        *({"mode": "dense"}, {"order": "random"}),
        *({"unique": "false"}, {"unique": 1}, {"unique": None}),
    ],
)
def test_numbers_below_one_and_unknown_names_are_refused(index, options):
    with pytest.raises(InputError):
        index.search("captain", **options)


def test_flags_are_true_or_false(index):
    with pytest.raises(InputError, match="replace must be True or False, not 'no'"):
        index.add("Another text.", replace="no")
    with pytest.raises(InputError, match="missing_ok must be True or False, not 1"):
        index.delete([], missing_ok=1)
    assert index.search("captain", 1, unique=np.bool_(False))


def test_searching_an_empty_index_finds_nothing(host, codebook):
    with S3Index.create(host=host, codebook=codebook) as index:
        assert index.search("anything") == []
        index.add(["", "   \n "])
        assert len(index) == 2
        assert index.search("anything") == []


def test_duplicate_ids_are_refused_and_nothing_is_added(index):
    with pytest.raises(InputError, match="was already added"):
        index.add([Document("New text.", "new"), Document("Other text.", "diary")])
    with pytest.raises(InputError, match="was already added"):
        index.add([Document("Twice.", "twin"), Document("Twice more.", "twin")])
    assert index.ids() == ["handbook", "diary"]


@pytest.mark.parametrize("item", [7, None, b"bytes", {"text": "a"}])
def test_anything_but_a_document_or_a_text_is_refused(index, item):
    with pytest.raises(InputError, match="is a Document or a string"):
        index.add([item])
    assert len(index) == 2


STRANGE = [
    "😀 emoji 👩‍👩‍👧 family. Next 🚀!",
    "中文句子没有空格。第二句话在这里。第三句。",
    "مرحبا بالعالم. كيف حالك؟",
    "e\u0301 combining a\u030a marks. Za\u0335lgo\u0337.",
    "NUL \x00 inside. After \x00\x00.",
    "[SEP] and [CLS] are text here. <|endoftext|>",
    "\ufeffByte order mark. \u2028Separators\u2029 too.",
    "no punctuation " * 400,
    "x" * 5000,
]


@pytest.mark.parametrize("text", STRANGE)
def test_offsets_hold_for_any_text(host, codebook, text):
    with S3Index.create(host=host, codebook=codebook) as index:
        index.add([Document(text, "strange"), HANDBOOK])
        for span in index.search(text[:200] or "x", k=50, where=None):
            whole = text if span.document_id == "strange" else HANDBOOK.text
            assert whole[span.start : span.end] == span.text
            assert span.text == span.text.strip()


def test_a_line_of_megabytes_is_indexed(host, codebook):
    word = "x" * 199 + " "
    text = word * 8_000 + "The old captain paints seven boats. " + word * 8_500
    with S3Index.create(host=host, codebook=codebook) as index:
        index.add([Document(text, "line"), DIARY])
        span = index.search("the old captain paints seven boats", k=1, mode="bm25")[0]
        assert len(text) > 3 * 2**20
        assert "captain" in span.text and text[span.start : span.end] == span.text


def test_errors_about_hosts_and_codebooks_say_what_to_do(tmp_path, tiny_llama, codebook):
    with pytest.raises(CodebookError, match="s3r fit"):
        S3Index.create(host=str(tiny_llama))
    with pytest.raises((HostError, CodebookError), match="There is no codebook"):
        S3Index.create(host="nobody/no-such-model")
    with pytest.raises(CodebookError, match="other weights"):
        S3Index.create(host=str(tiny_llama), codebook=codebook, dtype="float32")


def test_errors_about_paths_say_what_to_do(tmp_path, host, codebook):
    with pytest.raises(IndexStoreError):
        S3Index.open(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(IndexStoreError):
        S3Index.open(tmp_path)
    with pytest.raises(IndexStoreError, match="other files"):
        S3Index.create(tmp_path, host, codebook=codebook)
    S3Index.create(tmp_path / "index", host, codebook=codebook)
    with pytest.raises(IndexStoreError, match="open"):
        S3Index.create(tmp_path / "index", host, codebook=codebook)


def test_an_index_of_another_codebook_or_schema_is_refused(
    tmp_path, host, codebook, tiny_bert, sentences
):
    path = tmp_path / "index"
    S3Index.create(path, host, codebook=codebook).add(HANDBOOK)
    other = Codebook.fit(
        host, sentences, features=64, k=4, tokens=2000, batch_size=256, seed=3, progress=False
    )
    with pytest.raises(IndexStoreError, match="another codebook"):
        S3Index.open(path, host, codebook=other)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["schema_version"] += 1
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(IndexStoreError, match=r"upgrade|newer"):
        S3Index.open(path, host, codebook=codebook)


@pytest.fixture
def moving_host(tmp_path, tiny_bert, tiny_codebook):
    """The folder of a host with its codebook beside it, which a test may move."""
    folder = tmp_path / "host"
    shutil.copytree(tiny_bert, folder)
    shutil.copytree(tiny_codebook, folder / "s3-codebook")
    return folder


def test_an_index_whose_host_is_gone_is_searched_by_words_and_kept_up(tmp_path, moving_host):
    path = tmp_path / "index"
    S3Index.create(path, str(moving_host), dtype="float32", device="cpu").add([HANDBOOK, DIARY])
    moved = moving_host.rename(tmp_path / "moved")
    index = S3Index.open(path)
    assert index.search("broken clock", k=1, mode="bm25")[0].document_id == "diary"
    index.delete("handbook")
    index.compact()
    assert index.ids() == ["diary"]
    for needs_the_host in (lambda: index.search("clock"), lambda: index.add("A new text.")):
        with pytest.raises(CodebookError, match="no codebook for host"):
            needs_the_host()
    again = S3Index.open(path, str(moved), dtype="float32", device="cpu")
    assert again.search("broken clock", k=1)[0].document_id == "diary"


def test_a_host_that_is_loaded_later_is_found_from_another_folder(
    tmp_path, moving_host, monkeypatch
):
    options = {"dtype": "float32", "device": "cpu"}
    S3Index.create(tmp_path / "index", str(moving_host), **options).add(DIARY)
    moved = moving_host.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    index = S3Index.open(tmp_path / "index", "moved", codebook="moved/s3-codebook", **options)
    monkeypatch.chdir(moved)
    assert index.search("broken clock", k=1)[0].document_id == "diary"


def test_an_index_without_taps_but_with_a_codebook_is_opened_again(
    tmp_path, tiny_bert, tiny_codebook
):
    path = tmp_path / "index"
    host = Host.load(str(tiny_bert), device="cpu", dtype="float32")
    recipe = Recipe(taps={})
    with S3Index.create(path, host, codebook=tiny_codebook, recipe=recipe) as index:
        index.add(DIARY)
    with S3Index.open(path, dtype="float32", device="cpu") as index:
        index.add(HANDBOOK)
        assert index.search("broken clock", k=1)[0].document_id == "diary"
        with pytest.raises(CodebookError, match="indexed: no taps"):
            index.search("broken clock", recipe="default")


def test_an_error_in_the_documents_leaves_the_index_as_it_was(index):
    def documents():
        yield Document("First new one.", "n1")
        raise OSError("the source broke")

    with pytest.raises(OSError, match="the source broke"):
        index.add(documents())
    assert index.ids() == ["handbook", "diary"]
    index.add(Document("First new one.", "n1"))


CHILD = """
import sys
from s3_retriever import Document, S3Index
index = S3Index.open(sys.argv[1], device="cpu", dtype="float32")
def documents():
    for i in range(10**6):
        if i == 3000:
            print("scanning", flush=True)
        yield Document(f"A baker counts boat number {i}.", f"doc{i}")
index.add(documents(), progress=False)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_add_leaves_the_index_as_it_was(tmp_path, tiny_bert, tiny_codebook, sent):
    path = tmp_path / "index"
    with S3Index.create(
        path, str(tiny_bert), codebook=tiny_codebook, device="cpu", dtype="float32"
    ) as index:
        index.add([HANDBOOK])
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert child.stdout.readline() == b"scanning\n"
    child.send_signal(sent)
    child.wait(30)
    child.stdout.close()
    with S3Index.open(path, device="cpu", dtype="float32") as index:
        assert index.ids() == ["handbook"]
        index.add(DIARY)  # the dead writer's lock is gone
        assert index.ids() == ["handbook", "diary"]
        assert sorted(p.name for p in path.iterdir() if p.is_dir()) == [
            entry.name for entry in index._store.manifest.segments
        ]


# Threads


def test_threads_search_while_documents_are_added(index):
    question = "the old captain paints seven boats in the harbour"
    expected = index.search(question, k=1)[0].text
    failures = []

    def look():
        for _ in range(20):
            try:
                if index.search(question, k=1)[0].text != expected:
                    failures.append("another result")
            except Exception as error:
                failures.append(repr(error))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for i in range(5):
        index.add(Document(f"Dull text {i} about nothing.", f"t{i}"))
    for thread in threads:
        thread.join()
    assert failures == []


# A causal host


def test_the_whole_flow_with_a_causal_host(tmp_path, tiny_llama, sentences):
    folder = shutil.copytree(tiny_llama, tmp_path / "llama")
    host = Host.load(str(folder), device="cpu", dtype="float32")
    fitted = Codebook.fit(host, sentences, features=256, k=8, batch_size=256, progress=False)
    assert {str(tap) for tap in fitted.saes} == {"key.1", "hidden.1"}
    fitted.save(folder / "s3-codebook")
    index = S3Index.create(tmp_path / "index", str(folder), device="cpu", dtype="float32")
    index.add([HANDBOOK, DIARY])
    spans = index.search("the old captain paints seven boats", k=1, mode="s3")
    assert spans[0].text == "The old captain paints seven boats in the harbour."
    with S3Index.open(tmp_path / "index", device="cpu", dtype="float32") as again:
        assert again.search("the old captain paints seven boats", k=1, mode="s3") == spans


@pytest.mark.parametrize("progress", [False, True])
def test_without_a_visible_bar_writers_never_wait_for_another_process(
    tiny_bert, tiny_codebook, progress
):
    # Bars share a lock with forked processes, which keep it for good when they are killed.
    index = S3Index.create(None, str(tiny_bert), codebook=tiny_codebook)

    def work():
        for number in range(9):  # so many that segments are merged
            index.add([f"The night nurse counts to {number}."], progress=progress)
        index.verify(progress=progress)

    worker = threading.Thread(target=work, daemon=True)
    with tqdm.get_lock():
        worker.start()
        worker.join(timeout=60)
        assert not worker.is_alive()
    assert index.stats()["documents"] == 9


def test_documents_are_read_back(index):
    """By id, by a span that a search found, by a span's id, and one after another."""
    (span,) = index.search("broken clock", k=1, mode="bm25")
    for name in ("diary", span, span.id):
        assert index.get(name) == DIARY
    assert index.get(["diary", "handbook", "diary"]) == [DIARY, HANDBOOK, DIARY]
    assert index.get([]) == []
    with pytest.raises(InputError, match="no document 'nosuch'; check the ids"):
        index.get(["diary", "nosuch"])
    assert "diary" in index
    assert "nosuch" not in index
    assert 5 not in index
    documents = iter(index)
    index.delete("handbook")
    assert list(documents) == [HANDBOOK, DIARY]
    assert list(index) == [DIARY]


@pytest.mark.parametrize("what", [lambda s: s, lambda s: [s], lambda s: s.id, lambda _: DIARY])
def test_documents_are_deleted_by_what_a_search_finds(index, what):
    (span,) = index.search("broken clock", k=1, mode="bm25")
    assert index.delete(what(span)) == 1
    assert index.ids() == ["handbook"]


def test_an_id_that_reads_like_a_span_is_an_id(index):
    index.add(Document("It is late.", "diary:0-3"))
    assert index.delete("diary:0-3") == 1
    assert index.ids() == ["handbook", "diary"]


@pytest.mark.parametrize("ids", [None, 5, b"diary", {"diary": 1}, [None], [["diary"]]])
@pytest.mark.parametrize("call", ["delete", "get"])
def test_what_names_no_document_is_refused(index, call, ids):
    with pytest.raises(InputError):
        getattr(index, call)(ids)
    assert len(index) == 2


def test_a_filter_by_another_name_says_where(index):
    with pytest.raises(InputError, match="search has no argument 'filter'; use where="):
        index.search("captain", filter={"year": 2023})
    with pytest.raises(TypeError, match="unexpected keyword argument 'top_k'"):
        index.search("captain", top_k=3)


def test_numbers_of_numpy_count_and_large_ones_are_no_limit(index):
    spans = index.search("captain", k=np.int64(1))
    assert len(spans) == 1
    assert index.search("captain", k=10**30, token_budget=10**30)
    assert index.search("captain", k=1, where={"year": {"$gte": np.int64(2024)}}) != spans


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": 5}, "host must be a name, a folder or a loaded Host, not int"),
        ({"codebook": 5}, "codebook must be a str or pathlib"),
        ({"path": b"x"}, "path must be a str or pathlib"),
        ({"recipe": {}}, "Unknown recipe {}"),
        ({"filter": 1}, "An option does not suit host .*'filter'.*Host.load takes layers"),
        ({"window": "a"}, "window must be a whole number"),
        ({"batch_tokens": 0}, "batch_tokens must be a whole number of at least 1"),
    ],
    ids=str,
)
def test_what_an_index_cannot_be_made_of(tiny_bert, tiny_codebook, options, message):
    with pytest.raises((InputError, CodebookError), match=message):
        S3Index.create(**{"host": str(tiny_bert), "codebook": tiny_codebook} | options)
