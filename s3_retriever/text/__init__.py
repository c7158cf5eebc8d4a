"""Text: pieces, sentences and terms of any script, each cut in one place."""

from importlib.metadata import version

from s3_retriever.text.languages import language_of
from s3_retriever.text.sentences import (
    CHARACTERS_PER_TOKEN,
    SentenceCutter,
    size_in_tokens,
    split_pieces,
    split_sentences,
)
from s3_retriever.text.terms import (
    TERM_RULES,
    analyze,
    analyze_question,
    count_terms,
    term_hash,
)

# What cuts and stems, by version. Texts that were analysed by other versions may have other
# sentences and terms, so every index records these.
TEXT_ANALYSIS: dict[str, str] = {
    "sentencex": version("sentencex"),
    "PyStemmer": version("PyStemmer"),
    "terms": TERM_RULES,
}

__all__ = [
    "CHARACTERS_PER_TOKEN",
    "TEXT_ANALYSIS",
    "SentenceCutter",
    "analyze",
    "analyze_question",
    "count_terms",
    "language_of",
    "size_in_tokens",
    "split_pieces",
    "split_sentences",
    "term_hash",
]
