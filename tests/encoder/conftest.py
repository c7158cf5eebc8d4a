"""Fixtures of the tests of sentence vectors."""

from helpers.sentence_vectors import book, encoder, host  # noqa: F401
