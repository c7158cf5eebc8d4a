"""Generation: the whole answer at once, or in pieces from a thread."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from s3_retriever.answer.citations import Citation, cite
from s3_retriever.answer.decoding import TokenQueue, text_of
from s3_retriever.answer.prompt import Request
from s3_retriever.answer.writing import Refresh, Writing
from s3_retriever.display import LINE, MOST_ROWS, TEXT_CHARACTERS, escaped, frame, paragraph
from s3_retriever.search import Span
from s3_retriever.search.span import spans_html

# What is said if nothing in the context is relevant to the question.
NOT_FOUND = "The answer is not in the context."
# What the bytes of an incomplete character decode to.
_INCOMPLETE = "\ufffd"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and its evidence.

    Attributes:
        text: The generated text, stripped of white space at both ends. If there was no evidence,
            the host generated nothing, and this is "The answer is not in the context."
        evidence: The spans of the context that the host read, in the context's order. With
            `refresh` these are all that it has read, and documents that only a later search found
            come last.
        citations: Which spans support which sentences of the text.
        prompt_tokens: Tokens of the prompt: evidence, question and template; with `refresh`, of
            the longest.
        new_tokens: Tokens of the answer, including the one that ended it.
        retrieval_seconds: Time to find the evidence in the scanned context.
        generation_seconds: Time to read the prompt and to generate.
    """

    text: str
    evidence: list[Span]
    citations: tuple[Citation, ...]
    prompt_tokens: int
    new_tokens: int
    retrieval_seconds: float
    generation_seconds: float

    @property
    def found(self) -> bool:
        """Whether the context has evidence for the question."""
        return bool(self.evidence)

    def _repr_html_(self) -> str:
        return _html(self)


def generate(
    request: Request,
    evidence: list[Span],
    retrieval_seconds: float,
    refresh: Refresh | None = None,
) -> Answer:
    """Let the host answer a request from evidence.

    Args:
        request: The question.
        evidence: What the host reads of the context; without any it generates nothing.
        retrieval_seconds: How long finding the evidence took, for the answer.
        refresh: Finds other evidence for `request.refresh`.

    Raises:
        InputError: The model's `generate` refuses an option.
        HostError: The device has too little memory for the prompt.
    """
    writing = Writing(request, evidence, retrieval_seconds, refresh)
    if not evidence:
        return _not_found(writing)
    writing.finish()
    return _answer(writing, writing.text.strip(), len(writing.new_ids))


class AnswerStream(Iterator[str]):
    """The pieces of an answer while it is generated; joined, they are its text.

    Generation runs in a thread of its own and stops when the stream is closed or garbage
    collected. Its errors are raised by the iteration.

    Args:
        request: The question.
        evidence: What the host reads of the context; without any it generates nothing.
        retrieval_seconds: How long finding the evidence took, for the answer.
        refresh: Finds other evidence for `request.refresh`.
        on_end: Called when nothing more is searched or generated.

    Attributes:
        evidence: What the host reads of the context; known before the first piece. With `refresh`
            the answer has what later searches found besides.
    """

    def __init__(
        self,
        request: Request,
        evidence: list[Span],
        retrieval_seconds: float,
        refresh: Refresh | None = None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.evidence = evidence
        self._writing = Writing(request, evidence, retrieval_seconds, refresh)
        self._tokens = TokenQueue()
        self._new_ids: list[int] = []
        self._text = ""
        self._answer: Answer | None = None
        self._thread = threading.Thread(
            target=_write_into, args=(self._tokens, self._writing, on_end), daemon=True
        )
        self._stop = weakref.finalize(self, self._tokens.stop.set)
        self._thread.start()

    def __next__(self) -> str:
        """Wait for the next piece.

        Raises:
            S3Error: Those of `LongContext.answer`.
        """
        while self._answer is None:
            token = self._tokens.queue.get()
            if isinstance(token, BaseException):
                self._tokens.queue.put(token)  # for the next call
                raise token
            if token is None:
                return self._finish()
            self._new_ids.append(token)
            if piece := self._advance(whole=False):
                return piece
        raise StopIteration

    def __enter__(self) -> AnswerStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def answer(self) -> Answer:
        """The whole answer; waits until it is complete.

        Raises:
            S3Error: Those of the iteration.
        """
        for _ in self:
            pass
        assert self._answer is not None
        return self._answer

    def close(self) -> None:
        """Stop the generation after the current token."""
        self._stop()
        self._thread.join()

    def _advance(self, *, whole: bool) -> str:
        """The text since the last piece, stripped at both ends of the answer."""
        text = text_of(self._writing.request.host, self._new_ids).lstrip()
        if not whole and text.endswith(_INCOMPLETE):
            return ""
        text = text.rstrip()
        if not text.startswith(self._text):
            return ""  # this token changed how earlier ones decode; a later piece will catch up
        piece = text[len(self._text) :]
        self._text = text
        return piece

    def _finish(self) -> str:
        if not self.evidence:
            self._answer = _not_found(self._writing)
            return self._answer.text
        piece = self._advance(whole=True)
        self._answer = _answer(self._writing, self._text, len(self._new_ids))
        if not piece:
            raise StopIteration
        return piece


def _write_into(tokens: TokenQueue, writing: Writing, on_end: Callable[[], None]) -> None:
    end: BaseException | None = None
    try:
        if writing.evidence:
            writing.finish(tokens)
    except BaseException as error:
        end = error
    on_end()
    tokens.queue.put(end)


def _answer(writing: Writing, text: str, new_tokens: int) -> Answer:
    return Answer(
        text,
        writing.evidence,
        cite(text, writing.evidence),
        writing.prompt_tokens,
        new_tokens,
        writing.retrieval_seconds,
        writing.seconds,
    )


def _not_found(writing: Writing) -> Answer:
    return Answer(NOT_FOUND, [], (), 0, 0, writing.retrieval_seconds, 0.0)


def _html(answer: Answer) -> str:
    """An answer with the numbers of the spans that support its sentences, then these spans."""
    text = _cited(answer.text, answer.citations, answer.evidence)
    html = paragraph(text)
    if answer.evidence:
        style = f"margin-top:.6em;border-top:{LINE}"
        html += f'<div style="{style}">{spans_html(answer.evidence)}</div>'
    return frame(html)


def _cited(text: str, citations: Sequence[Citation], evidence: Sequence[Span]) -> str:
    """A text with the numbers of spans after the sentences that they support."""
    numbers = {span.id: rank for rank, span in enumerate(evidence, 1)}
    marks: dict[int, list[int]] = {}
    for citation in citations:
        if citation.span.id in numbers and citation.end <= TEXT_CHARACTERS:
            marks.setdefault(citation.end, []).append(numbers[citation.span.id])
    parts, done = [], 0
    for end, cited in sorted(marks.items()):
        parts.append(escaped(text[done:end]))
        parts.append(f"<sup>[{', '.join(map(str, cited[:MOST_ROWS]))}]</sup>")
        done = end
    return "".join(parts) + escaped(text[done:], TEXT_CHARACTERS - done)
