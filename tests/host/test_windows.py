"""Pieces, tokens, windows and batches: every token once, in order, in bounded memory."""

from __future__ import annotations

import random
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from s3_retriever.document import Document
from s3_retriever.host import Host, Window, windows
from s3_retriever.host.batches import padded_rows, run_batches
from s3_retriever.host.taps import Tap, read
from s3_retriever.host.windows import (
    LONGEST_TOKEN,
    TITLE_TOKENS,
    OffsetTokenizer,
    WindowShape,
)
from s3_retriever.text import SentenceCutter, split_pieces

TOKENIZERS = ("bert", "llama")
AWKWARD = [
    "",
    " \n\t ",
    "a",
    "x" * 300,
    "👩\u200d👩\u200d👧 naïve 🤖" * 9,
    "漢字かな混じり文。" * 9,
    "שלום עולם مرحبا",
    "e\u0301\u0302" * 20,
    "a\0b\0",
    "[CLS] one [SEP] two <s> </s> [PAD] [MASK]",
    "\r\n\x85\u2028 \ufeff \ufffd",
]


@pytest.fixture(scope="session")
def tokenizers(tiny_bert, tiny_llama) -> dict[str, OffsetTokenizer]:
    folders = {"bert": tiny_bert, "llama": tiny_llama}
    return {
        name: OffsetTokenizer(AutoTokenizer.from_pretrained(folder))
        for name, folder in folders.items()
    }


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request, tokenizers) -> OffsetTokenizer:
    return tokenizers[request.param]


def document(text: str, title: str = "") -> Document:
    return Document(text, metadata={"title": title})


def whole(tokenizer: OffsetTokenizer, text: str) -> tuple[list[int], list[int]]:
    """Ids and character starts of a text that is tokenised at once, very long tokens repeated."""
    encoding = tokenizer.backend.encode(text, add_special_tokens=False)
    ids, starts = [], []
    bounds = [*(start for start, _ in encoding.offsets), len(text)]
    for token, (start, following) in zip(encoding.ids, pairwise(bounds), strict=True):
        extra = range(start + 10, following, 10) if following - start > LONGEST_TOKEN else ()
        places = [start, *(place for place in extra if not text[place].isspace())]
        ids += [token] * len(places)
        starts += places
    return ids, starts


def check_windows(tokenizer: OffsetTokenizer, shape: WindowShape, title: str, text: str) -> None:
    # The white space of a blank document belongs to no sentence.
    ids, starts = whole(tokenizer, text) if text.strip() else ([], [])
    found = list(windows([document(text, title)], tokenizer, shape))
    assert [one.last for one in found] == [False] * (len(found) - 1) + [True]
    assert np.concatenate([one.ids[one.keep] for one in found]).tolist() == ids
    assert np.concatenate([one.starts for one in found]).tolist() == starts
    assert all(one.starts.dtype == np.uint32 for one in found)
    cutter = SentenceCutter(text)
    whole_cut = cutter.push(np.array(starts, dtype=np.uint32), last=True)
    assert tuple(part for one in found for part in one.sentences) == whole_cut
    assert sum(part.n_tokens for part in whole_cut) == len(ids)
    prefix, suffix = tokenizer.prefix, tokenizer.suffix
    room = shape.size - len(prefix) - len(suffix)
    head = prefix + tokenizer.ids(title)[: min(TITLE_TOKENS, room // 2)]
    overlap = min(shape.overlap, (shape.size - len(head) - len(suffix)) // 2)
    right = overlap // 2 if shape.bidirectional else 0
    position = 0
    for number, one in enumerate(found):
        assert len(one.ids) <= shape.size
        stop = len(one.ids) - len(suffix)
        assert one.ids[: len(head)].tolist() == head
        assert one.ids[stop:].tolist() == suffix
        left = one.keep.start - len(head)
        assert left == (0 if number == 0 else overlap - right)
        assert stop - one.keep.stop == (0 if one.last else right)
        # Everything between head and suffix is one stretch of the text around the kept tokens.
        body = one.ids[len(head) : stop].tolist()
        assert body == ids[position - left : position - left + len(body)]
        position += len(one.starts)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60, deadline=None)
@given(
    text=st.text(max_size=120) | st.lists(st.sampled_from(AWKWARD), max_size=3).map(" ".join),
    title=st.text(max_size=10) | st.just("a title that is long and goes on and on " * 4),
    size=st.integers(8, 40),
    share=st.floats(0, 0.5),
    bidirectional=st.booleans(),
)
@example("x " * 200, "a title of some words", 8, 0.5, True)
def test_every_token_is_kept_once(tokenizers, name, text, title, size, share, bidirectional):
    shape = WindowShape(size, int(size * share), bidirectional)
    check_windows(tokenizers[name], shape, title, text)


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_texts(tokenizer, text):
    check_windows(tokenizer, WindowShape(32, 8, True), "", text)


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_around_the_size_of_a_window(tokenizer, extra):
    capacity = 32 - len(tokenizer.prefix) - len(tokenizer.suffix)
    text = "." * (capacity + extra)
    assert tokenizer.count(text) == len(whole(tokenizer, text)[0])
    shape = WindowShape(tokenizer.count("." * capacity) + 32 - capacity, 8, False)
    found = list(windows([document(text)], tokenizer, shape))
    assert len(found) == 1 + (tokenizer.count(text) > tokenizer.count("." * capacity))


def test_text_cannot_put_control_tokens_into_the_host(tokenizer):
    specials = set(tokenizer.prefix + tokenizer.suffix)
    text = "[CLS] one [SEP] two <s> three </s> [PAD]"
    (one,) = windows([document(text, "[SEP] <s>")], tokenizer, WindowShape(128, 8, True))
    assert specials
    assert specials.isdisjoint(one.ids[one.keep].tolist())
    assert [i for i in one.ids.tolist() if i in specials] == tokenizer.prefix + tokenizer.suffix


def test_a_long_text_has_the_tokens_it_has_in_one_piece(tokenizers):
    tokenizer = tokenizers["bert"]
    words = random.Random(0).choices(
        ["captain", "ledger,", "warm\n", "Friday.\n\n", "🤖"], k=12_000
    )
    text = " ".join(words)
    assert len(text) > 2 * 32_768
    ids, starts = whole(tokenizer, text)
    pieces = list(tokenizer.stream(text))
    assert len(pieces) > 2
    assert np.concatenate([ids for ids, _ in pieces]).tolist() == ids
    assert np.concatenate([offsets[:, 0] for _, offsets in pieces]).tolist() == starts
    assert tokenizer.split(text)[-1][1] == len(text.rstrip())


def test_windows_carry_their_documents_and_an_empty_one_has_a_window(tokenizer):
    shape = WindowShape(16, 4, True)
    texts = ["", "word " * 40, " ", "end"]
    documents = [document(text) for text in texts]
    found = list(windows(documents, tokenizer, shape))
    assert [one.document for one in found if one.last] == documents
    places = [documents.index(one.document) for one in found]
    assert places == sorted(places)
    assert len(found[0].starts) == 0
    assert [len(one.starts) for one in found if one.document.text == " "] == [0]


def test_a_host_without_special_tokens_reads_empty_texts(tiny_llama):
    host = Host.load(str(tiny_llama), device="cpu", dtype="float32")
    host.tokenizer.prefix = []  # as with Qwen, which has no token to begin with
    found = list(host.windows(document(text) for text in ["", "every release", ""]))
    tap = Tap("hidden", 1)
    seen = read(host, [tap], found)[tap]
    assert len(seen) == len(found[1].starts)
    assert seen.isfinite().all()
    assert len(read(host, [tap], found[:1])[tap]) == 0


def test_documents_are_consumed_one_at_a_time(tokenizer):
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield document("word " * 30, str(taken))

    stream = windows(endless(), tokenizer, WindowShape(16, 4, True))
    while next(stream).document.title != "6":
        pass
    assert taken == 6


@pytest.mark.parametrize("text", ["every release, warm bread " * 20_000, "x" * 5_000_000])
def test_memory_does_not_grow_with_the_text(tokenizers, text):
    tokenizer = tokenizers["bert"]
    shape = WindowShape(256, 32, True)
    kept, long = 0, document(text)
    tracemalloc.start()
    for one in windows([long], tokenizer, shape):
        kept += len(one.starts)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept > 300
    assert peak < 4_000_000


def fake_window(length: int) -> Window:
    ids, starts = np.zeros(length, dtype=np.int64), np.arange(length, dtype=np.uint32)
    return Window(Document(""), ids, slice(0, length), starts, (), last=True)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=120), st.integers(1, 100), st.integers(1, 5))
def test_results_come_in_order_from_bounded_batches(lengths, batch_tokens, lookahead):
    def run(batch):
        padded = max(len(one.ids) for one in batch) * padded_rows(len(batch))
        assert padded <= batch_tokens or len(batch) == 1
        shapes.add(padded_rows(len(batch)))
        return [id(one) for one in batch]

    shapes: set[int] = set()
    stream = [fake_window(length) for length in lengths]
    found = list(run_batches(iter(stream), run, batch_tokens, lookahead))
    assert all(rows in (1, 2, 4) or rows % 8 == 0 for rows in shapes)
    assert [id(one) for one, _ in found] == [id(one) for one in stream]
    assert all(id(one) == result for one, result in found)


@pytest.mark.parametrize("length", [0, 1, 50])
def test_batches_look_ahead_only_so_far(length):
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield fake_window(length)

    next(run_batches(endless(), lambda batch: [None] * len(batch), 100, 4))
    assert taken == 400 // max(length, 1)


def test_results_are_handed_on_before_the_last_batch():
    """A progress bar behind them can move: windows of one length run in order."""
    ran = 0

    def run(batch):
        nonlocal ran
        ran += 1
        return [None] * len(batch)

    stream = [fake_window(100) for _ in range(16)]
    for place, _ in enumerate(run_batches(stream, run, 128)):
        assert ran <= place + 2


def test_batches_hold_windows_of_like_length():
    """Little padding: 64 short and 64 long windows, mixed, do not share a batch."""
    sizes: list[set[int]] = []

    def run(batch):
        sizes.append({len(one.ids) for one in batch})
        return [None] * len(batch)

    stream = [fake_window(10 if i % 2 else 50) for i in range(128)]
    list(run_batches(stream, run, 400))
    assert sum(len(size) > 1 for size in sizes) <= 1


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab \n", max_size=80) | st.text(max_size=80), st.integers(1, 20))
def test_pieces_joined_are_the_text(text, limit):
    pieces = list(split_pieces(text, limit))
    assert "".join(piece for _, piece in pieces) == text
    assert all(0 < len(piece) <= limit for _, piece in pieces)
    assert [offset for offset, _ in pieces] == [
        sum(len(piece) for _, piece in pieces[:i]) for i in range(len(pieces))
    ]
    assert all(len(a[1]) > limit // 2 for a, b in pairwise(pieces))


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("aaaaaaaa\n\nb c\nd e fff", "aaaaaaaa\n\n"),  # a paragraph break beats later ones
        ("aaaaaaaa c\nd e ffffff", "aaaaaaaa c\n"),  # a line break beats later spaces
        ("aaaaaaaa c d e ffffff", "aaaaaaaa c d e "),  # the last space
        ("aaa bbbbbbbbbbbbbbbbbbbbbb", "aaa bbbbbbbbbbbb"),  # none in the second half: the limit
        ("aaaaaaaaa\n \nbbbbbbb\n\nccc", "aaaaaaaaa\n \n"),  # blanks on the empty line
    ],
)
def test_pieces_are_cut_at_the_best_place(text, first):
    assert next(split_pieces(text, 16)) == (0, first)
