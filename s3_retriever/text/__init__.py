"""Text: pieces, sentences and terms of any script, each cut in one place."""

from s3_retriever.text.pieces import split_pieces
from s3_retriever.text.sentences import Sentence, SentenceCutter, split_sentences
from s3_retriever.text.terms import analyze, term_hash

__all__ = [
    "Sentence",
    "SentenceCutter",
    "analyze",
    "split_pieces",
    "split_sentences",
    "term_hash",
]
