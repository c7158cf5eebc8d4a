"""Passages: what the baselines rank, cut as the package cuts, and how they fill a token budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from s3_retriever import Document
from s3_retriever.host.windows import OffsetTokenizer
from s3_retriever.text import SentenceCutter, language_of

# With BERT's two special tokens, the longest text that all-MiniLM-L6-v2 reads.
CHUNK_TOKENS = 254
# The budget counts as spent after this many passages in a row that do not fit, as in `S3Index`.
_MISSES = 64


@dataclass(frozen=True, slots=True)
class Passage:
    """Part of a document, with the document's title; offsets count characters."""

    document_id: str
    start: int
    end: int
    tokens: int
    text: str
    title: str

    def titled(self) -> str:
        """Title and text."""
        return f"{self.title}. {self.text}" if self.title else self.text


# Chunks of twice that size, of which all-MiniLM-L6-v2 reads the beginning.
LARGE_CHUNK_TOKENS = 510
Cut = Callable[[Document, OffsetTokenizer], list[Passage]]


def sentences(document: Document, tokenizer: OffsetTokenizer) -> list[Passage]:
    """The sentences of a document, cut exactly as the package indexes them."""
    language = language_of(document.text, document.metadata)
    cutter = SentenceCutter(document.text, document.unit, language)
    starts = np.array([start for start, _ in tokenizer.split(document.text)], dtype=np.uint32)
    cuts = cutter.push(starts, last=True)
    return [_passage(document, cut.start, cut.end, cut.n_tokens) for cut in cuts]


def chunks(
    document: Document, tokenizer: OffsetTokenizer, most: int = CHUNK_TOKENS
) -> list[Passage]:
    """Runs of whole sentences of up to 254 tokens, or another size, without overlap."""
    runs: list[Passage] = []
    for sentence in sentences(document, tokenizer):
        if runs and runs[-1].tokens + sentence.tokens <= most:
            last = runs.pop()
            tokens = last.tokens + sentence.tokens
            runs.append(_passage(document, last.start, sentence.end, tokens))
        else:
            runs.append(sentence)
    return runs


def large_chunks(document: Document, tokenizer: OffsetTokenizer) -> list[Passage]:
    """Runs of whole sentences of up to 510 tokens, without overlap."""
    return chunks(document, tokenizer, LARGE_CHUNK_TOKENS)


def cut_all(documents: Iterable[Document], cut: Cut, tokenizer: OffsetTokenizer) -> list[Passage]:
    """The passages of all documents, in order."""
    return [passage for document in documents for passage in cut(document, tokenizer)]


def text_bytes(passages: Sequence[Passage]) -> int:
    """Bytes of the passages' text in UTF-8."""
    return sum(len(passage.text.encode()) for passage in passages)


def fill(ranked: Iterable[Passage], budget: int) -> list[Passage]:
    """Take passages, best first, skipping those that do not fit into the rest of the budget.

    The rule by which `S3Index.search` spends a token budget.
    """
    taken: list[Passage] = []
    misses = 0
    for passage in ranked:
        if passage.tokens <= budget:
            taken.append(passage)
            budget -= passage.tokens
            misses = 0
        else:
            misses += 1
        if budget == 0 or misses == _MISSES:
            break
    return taken


def fill_and_cut(
    ranked: Iterable[Passage], budget: int, tokenizer: OffsetTokenizer
) -> list[Passage]:
    """Take passages, best first; cut the first that does not fit where the budget ends.

    For chunks, which are so long that skipping them would leave much of a small budget unused.
    """
    taken: list[Passage] = []
    for passage in ranked:
        if passage.tokens >= budget:
            end = tokenizer.split(passage.text)[budget - 1][1]
            cut = replace(passage, end=passage.start + end, tokens=budget, text=passage.text[:end])
            return [*taken, cut]
        taken.append(passage)
        budget -= passage.tokens
    return taken


def _passage(document: Document, start: int, end: int, tokens: int) -> Passage:
    text = document.text[start:end]
    return Passage(document.id, start, end, tokens, text, document.title)
