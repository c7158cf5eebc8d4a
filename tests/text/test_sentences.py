"""Sentences: their ranges in a text, and the tokens that belong to them."""

import random
import time

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


@pytest.mark.parametrize(
    "token",
    [
        "https://portal.example.com/app/Reports/View.Aspx?Id=42!X",
        "https://portal.example.com/#!Inbox/42",
        "Annual.Report.Final.pdf",
        "System.Collections.Generic.List",
        "Ann.Lee@example.com",
        "v2.0.Final",
        "192.168.0.1",
        "approx. 40",
        "3.5 V",
        "Dr. Who",
        "Acme Inc. in Ohio",
        "the U.S. Army",
        "e.g. Apples",
        "Vol. 3",
        "max. 12",
        "est. 1904",
    ],
)
def test_a_sentence_ends_before_white_space_only(token):
    text = f"The form is at {token} until June. Then it moves."
    first, second = (text[start:end] for start, end in check_ranges(text))
    assert token in first and second == "Then it moves."


def parts(text, *args):
    return [text[start:end] for start, end in split_sentences(text, *args)]


def test_scripts_without_spaces_need_no_white_space_between_sentences():
    assert parts("你好。再见\uff01是吗?好的。") == ["你好。", "再见\uff01", "是吗?", "好的。"]
    assert parts("मैं आया।वह गया।") == ["मैं आया।", "वह गया।"]


def test_the_language_decides_what_abbreviates():
    text = "Am 5. Mai kam sie. Dann ging er."
    assert parts(text, "sentence", "de") == ["Am 5. Mai kam sie.", "Dann ging er."]


def test_thai_is_cut_at_spaces():
    text = "ประเทศไทยมีประชากร เจ็ดสิบล้านคน " * 60
    assert all(100 < len(part) <= 256 and part.endswith(("น", "ร")) for part in parts(text)[:-1])
    assert max(map(len, parts(text.replace(" ", "")))) <= 256


def test_rows_of_tables_and_lines_of_code_are_sentences():
    text = "A table. Here:\n\n| a. B | c |\n|---|---|\n```py\nx = a. B\n```\nThe end. Bye."
    assert parts(text)[2:] == [
        "| a. B | c |",
        "|---|---|",
        "```py",
        "x = a. B",
        "```",
        "The end.",
        "Bye.",
    ]


def test_lines_are_neither_cut_nor_joined():
    text = "id, name. Of it\n1, Ann Lee. Yes\n\n  2, Bob \n"
    assert parts(text, "line") == ["id, name. Of it", "1, Ann Lee. Yes", "2, Bob"]
    row = "word " * 500
    starts = [at for at in range(len(row)) if row[at] == "w"]
    assert cut(row, starts, unit="line") == [(0, len(row) - 1, 500)]


@pytest.mark.parametrize(
    "unit", ["。」", "“", "'", "(", ".", " ", "\u0301", "ก", "```\n", "| |\n", "Dr. ", "a.B", "x"]
)
def test_hostile_texts_take_linear_time(unit):
    text = unit * (100_000 // len(unit))
    begun = time.process_time()
    check_ranges(text)
    assert time.process_time() - begun < 2


def cut(text, starts, size=50, unit="sentence"):
    cutter = SentenceCutter(text, unit)
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


def test_a_long_sentence_is_cut_at_a_clause_mark_if_there_is_one():
    text = " ".join(f"w{i}," if i == 100 else f"w{i}" for i in range(200))
    starts = [i for i in range(len(text)) if i == 0 or text[i - 1] == " "]
    (start, end, n), _ = cut(text, starts)
    assert text[start:end].endswith(" w100,") and n == 101


def test_characters_bound_a_sentence_whose_tokens_are_few():
    text = "x" * 5_000
    sentences = cut(text, range(0, 5_000, 40))
    assert "".join(text[a:b] for a, b, _ in sentences) == text
    assert all(b - a <= 10 * MAX_SENTENCE_TOKENS for a, b, _ in sentences)


def test_a_character_and_its_marks_stay_together():
    text = "e\u0301" * 2_000
    sentences = cut(text, range(len(text)))
    assert len(sentences) > 10
    assert not any(text[a] == "\u0301" for a, _, _ in sentences)


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
