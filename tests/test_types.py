"""Checks of arguments that every room shares."""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from s3_retriever import InputError
from s3_retriever.types import (
    Mode,
    Order,
    check_choice,
    check_count,
    check_items,
    check_path,
    check_positive,
    check_text,
)


@pytest.mark.parametrize("value", [1, 7, 10**9, np.int64(3), np.uint8(200)])
def test_whole_numbers_from_one_on_count(value):
    count = check_count(value, "k")
    assert count == value
    assert type(count) is int


def test_a_count_is_at_most_what_python_can_count():
    assert check_count(10**30, "k") == sys.maxsize
    assert check_count(0, "overlap", least=0) == 0


@pytest.mark.parametrize("value", [0, -1, 1.0, 2.5, "3", None, True, False, [1], np.True_, 10j])
def test_nothing_else_counts(value):
    with pytest.raises(InputError, match="k must be a whole number of at least 1, not"):
        check_count(value, "k")


@pytest.mark.parametrize("value", ["a", " a ", "你好", "\x00 a"])
def test_text_is_handed_back_as_it_is(value):
    assert check_text(value, "question") == value


@pytest.mark.parametrize("value", ["", " \n\t"])
def test_text_without_content_is_refused(value):
    with pytest.raises(InputError, match="question is empty"):
        check_text(value, "question")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "question must be a string, not NoneType"),
        (7, "question must be a string, not int"),
        (["a"], "question must be a string, not list"),
        (b"bytes", "question is bytes; decode it"),
    ],
)
def test_what_is_not_text_is_refused(value, message):
    with pytest.raises(InputError, match=message):
        check_text(value, "question")


def test_text_that_is_not_unicode_is_refused():
    with pytest.raises(InputError, match=r"question has a lone surrogate.*errors='replace'"):
        check_text("broken \ud800", "question")


def test_names_are_checked_against_their_literal():
    check_choice("bm25", "mode", Mode)
    for value in ("dense", "BM25", "", None, 5, ["s3"], np.array(["s3"])):
        with pytest.raises(InputError, match="mode must be hybrid, s3 or bm25, not"):
            check_choice(value, "mode", Mode)
    with pytest.raises(InputError, match="order must be score or document, not 'random'"):
        check_choice("random", "order", Order)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), True, "1", None, 1j])
def test_numbers_above_zero(value):
    assert check_positive(np.float32(0.5), "reuse") == 0.5
    with pytest.raises(InputError, match="reuse must be a number above zero"):
        check_positive(value, "reuse")


def test_a_single_item_is_a_list_of_one():
    assert check_items("one text", "texts") == ["one text"]
    assert check_items(("a", "b"), "texts") == ("a", "b")
    for value, message in (
        (b"text", "texts are bytes; decode them"),
        ({"a": 1}, "texts must be in a list, not dict"),
        (5, "texts must be in a list, not int"),
    ):
        with pytest.raises(InputError, match=message):
            check_items(value, "texts")


def test_paths():
    assert check_path("a/b") == check_path(PurePosixPath("a/b")) == Path("a/b")
    for value in ("", None, 5, b"a", ["a"], object()):
        with pytest.raises(InputError, match=r"path must be a str or pathlib\.Path, not"):
            check_path(value)
    for value in ("a\0b", "a\ud800", "x" * 300):
        with pytest.raises(InputError, match="cannot be the name of a file"):
            check_path(value)
