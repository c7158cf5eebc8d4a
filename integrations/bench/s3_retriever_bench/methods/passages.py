"""Passages: what the baselines rank, cut as the package cuts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from s3_retriever.document import Document
from s3_retriever.host.windows import OffsetTokenizer
from s3_retriever.text.sentences import SentenceCutter

# With the two special tokens of BERT this is the longest text that all-MiniLM-L6-v2 reads.
CHUNK_TOKENS = 254


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document, with the document's title."""

    document_id: str
    start: int
    end: int
    tokens: int
    text: str
    title: str

    def titled(self) -> str:
        """Title and text."""
        return f"{self.title}. {self.text}" if self.title else self.text


Cut = Callable[[Document, OffsetTokenizer], list[Passage]]


def sentences(document: Document, tokenizer: OffsetTokenizer) -> list[Passage]:
    """The sentences of a document, the very ones that the package indexes."""
    cutter = SentenceCutter(document.text)
    starts = np.array([start for start, _ in tokenizer.split(document.text)], dtype=np.uint32)
    cuts = [*cutter.push(starts), *cutter.finish()] if len(starts) else []
    return [_passage(document, cut.start, cut.end, cut.n_tokens) for cut in cuts]


def chunks(document: Document, tokenizer: OffsetTokenizer) -> list[Passage]:
    """Runs of whole sentences of up to 254 tokens, without overlap."""
    runs: list[Passage] = []
    for sentence in sentences(document, tokenizer):
        if runs and runs[-1].tokens + sentence.tokens <= CHUNK_TOKENS:
            last = runs.pop()
            total = last.tokens + sentence.tokens
            runs.append(_passage(document, last.start, sentence.end, total))
        else:
            runs.append(sentence)
    return runs


def cut_all(documents: Iterable[Document], cut: Cut, tokenizer: OffsetTokenizer) -> list[Passage]:
    """The passages of all documents, in order."""
    return [passage for document in documents for passage in cut(document, tokenizer)]


def text_bytes(passages: Sequence[Passage]) -> int:
    """Bytes of the passages' text in UTF-8."""
    return sum(len(passage.text.encode()) for passage in passages)


def shorten(passage: Passage, tokens: int, tokenizer: OffsetTokenizer) -> Passage:
    """The first tokens of a passage."""
    end = tokenizer.split(passage.text)[tokens - 1][1]
    return replace(passage, end=passage.start + end, tokens=tokens, text=passage.text[:end])


def _passage(document: Document, start: int, end: int, tokens: int) -> Passage:
    text = document.text[start:end]
    return Passage(document.id, start, end, tokens, text, document.title)
