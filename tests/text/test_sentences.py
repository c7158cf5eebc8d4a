"""Sentences: their ranges in a text, and the tokens that belong to them."""

import random

import numpy as np
import pytest

from s3_retriever.text.sentences import MAX_SENTENCE_TOKENS, SentenceCutter, _align, split_sentences

PIECES = [
    *"ab. !?\"'()“”…。\uff01\uff1f \n\t\x00\x85\xa0\u0301\u200f\u2028😀中א",
    "Dr. ",
    "e.g.",
    "\n\n",
    "\r\n",
    "The end. ",
    "👩‍👩‍👧 ",
    "שלום עולם. ",
    "你好。再见\uff01",
]


def check_ranges(text):
    ranges = list(split_sentences(text))
    cursor = 0
    for start, end in ranges:
        assert cursor <= start < end
        assert not text[cursor:start].strip()
        assert text[start:end].strip() == text[start:end]
        cursor = end
    assert not text[cursor:].strip()
    return ranges


def test_plain_sentences():
    text = "  Dr. Smith left. Did he?\n\nA new paragraph. "
    assert [text[a:b] for a, b in check_ranges(text)] == [
        "Dr. Smith left.",
        "Did he?",
        "A new paragraph.",
    ]


@pytest.mark.parametrize("text", ["", " \n\t ", "\x00", "word", "x" * 100_000, "\n" * 70_000])
def test_odd_texts(text):
    assert bool(check_ranges(text)) == bool(text.strip())


def test_random_texts():
    rng = random.Random(0)
    for length in [1, 3, 10, 50, 200] * 20:
        check_ranges("".join(rng.choices(PIECES, k=length)))


def test_long_text_keeps_its_positions():
    # The splitter itself loses paragraph breaks of texts of more than some 10,000 bytes.
    text = "A plain sentence here.\n\n" * 5000
    assert len(check_ranges(text)) == 5000


def test_a_splitter_that_changes_the_text_is_not_trusted():
    text = "One here. Two there.\nThree.\n"
    assert [text[a:b] for a, b in _align(text, ["One here. ", "Too there."])] == [
        "One here.",
        "Two there.",
        "Three.",
    ]
    assert [text[a:b] for a, b in _align(text, ["One here. ", "Three."])] == [
        "One here.",
        "Two there.",
        "Three.",
    ]


def cut(text, starts, size=50):
    cutter = SentenceCutter(text)
    sentences = []
    for first in range(0, max(len(starts), 1), size):
        part = np.array(starts[first : first + size], dtype=np.uint32)
        sentences += cutter.push(part, last=first + size >= len(starts))
    return sentences


def test_tokens_belong_to_the_first_sentence_that_ends_after_them():
    text = " One two. Three! "
    #       tokens: leading space, One, two, ., space, Three, !, trailing space
    assert cut(text, [0, 1, 5, 8, 9, 10, 15, 16], size=3) == [(1, 9, 4), (10, 16, 4)]


def test_a_sentence_without_tokens_is_left_out():
    assert cut("One. Two. Three.", [0, 3, 10, 15]) == [(0, 4, 2), (10, 16, 2)]


def test_no_sentences_without_tokens_or_text():
    assert cut("One. Two.", []) == []
    assert cut("  \n ", [0, 2]) == []


def test_long_sentence_is_cut_between_words():
    text = " ".join(f"w{i}" for i in range(1000))
    starts = [i for i in range(len(text)) if text[i] != " "]  # a token for every letter
    sentences = cut(text, starts)
    assert sum(n for _, _, n in sentences) == len(starts)
    assert all(MAX_SENTENCE_TOKENS // 2 <= n <= MAX_SENTENCE_TOKENS for _, _, n in sentences[:-1])
    assert " ".join(text[a:b] for a, b, _ in sentences) == text


def test_long_sentence_without_spaces_is_cut_between_characters():
    text = "😀" * 300
    starts = [i for i in range(300) for _ in range(4)]  # four bytes a character
    sentences = cut(text, starts)
    assert "".join(text[a:b] for a, b, _ in sentences) == text
    assert all(n == 4 * (b - a) and n <= MAX_SENTENCE_TOKENS for a, b, n in sentences)


def test_white_space_tokens_make_no_sentence_of_their_own():
    text = "a b" + " " * 500 + "c d" + " " * 500
    sentences = cut(text, range(len(text)))
    assert sum(n for _, _, n in sentences) == len(text)
    assert [text[a:b] for a, b, _ in sentences] == ["a b", "c d"]


def test_tokens_at_one_character_stay_together():
    assert [n for _, _, n in cut("xy z" * 50, [0] * 300 + [50])] == [300, 1]


def test_a_blank_text_has_no_sentences():
    assert [SentenceCutter(text).finished for text in ("", " \n\t", "word")] == [True, True, False]


def test_sentences_do_not_depend_on_how_tokens_arrive():
    text = "One here. Two there.\n\nA third one is longer than the others! " * 20
    starts = [i for i in range(len(text)) if i % 2 or text[i] == "."]
    assert cut(text, starts, 1) == cut(text, starts, 7) == cut(text, starts, len(starts))
