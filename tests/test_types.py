"""Checks of arguments that every room shares."""

from __future__ import annotations

import pytest

from s3_retriever import InputError
from s3_retriever.types import Mode, Order, check_choice, check_count, check_text


@pytest.mark.parametrize("value", [1, 7, 10**9])
def test_whole_numbers_from_one_on_count(value):
    check_count(value, "k")


@pytest.mark.parametrize("value", [0, -1, 1.0, 2.5, "3", None, True, False])
def test_nothing_else_counts(value):
    with pytest.raises(InputError, match="k must be a whole number of at least 1, not"):
        check_count(value, "k")


@pytest.mark.parametrize("value", ["a", " a ", "你好", "\x00 a"])
def test_text_is_handed_back_as_it_is(value):
    assert check_text(value, "question") == value


@pytest.mark.parametrize("value", ["", " \n\t", None, 7, b"bytes"])
def test_text_without_content_is_refused(value):
    with pytest.raises(InputError, match="question is empty"):
        check_text(value, "question")


def test_text_that_is_not_unicode_is_refused():
    with pytest.raises(InputError, match=r"question has a lone surrogate.*errors='replace'"):
        check_text("broken \ud800", "question")


def test_names_are_checked_against_their_literal():
    check_choice("bm25", "mode", Mode)
    for value in ("dense", "BM25", "", None):
        with pytest.raises(InputError, match="mode must be hybrid, s3 or bm25, not"):
            check_choice(value, "mode", Mode)
    with pytest.raises(InputError, match="order must be score or document, not 'random'"):
        check_choice("random", "order", Order)
