"""Writing: an answer in the making, whose evidence may follow what is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from s3_retriever.answer.decoding import TokenQueue, decode, text_of
from s3_retriever.answer.prompt import Request
from s3_retriever.search import Span

# From what is written so far to its evidence, and the seconds that finding it took.
Refresh = Callable[[str], tuple[list[Span], float]]


class Writing:
    """An answer while the host writes it.

    With `request.refresh`, the host pauses after that many tokens each time, or before a token of
    which it is not sure. The question and the text so far are then the query of another search, its
    evidence takes the place of the old in the prompt, and the host goes on after the text so far.

    Args:
        request: The question.
        evidence: What the host reads of the context at first.
        retrieval_seconds: How long finding that took.
        refresh: Finds other evidence; not needed without `request.refresh`.

    Attributes:
        evidence: All that the host has read of the context, documents in the order in which it
            read them first.
        prompt_tokens: Tokens of the longest prompt so far.
        new_ids: What it has written.
        retrieval_seconds: Time spent on searches.
    """

    def __init__(
        self,
        request: Request,
        evidence: list[Span],
        retrieval_seconds: float,
        refresh: Refresh | None = None,
    ) -> None:
        self.request = request
        self.evidence = evidence
        self.prompt_tokens = 0
        self.new_ids: list[int] = []
        self.retrieval_seconds = retrieval_seconds
        self.seconds = 0.0
        self._read = evidence
        self._refresh = refresh

    @property
    def text(self) -> str:
        """What is written, with white space at both ends."""
        return text_of(self.request.host, self.new_ids)

    def finish(self, tokens: TokenQueue | None = None) -> None:
        """Write to the end.

        Args:
            tokens: Takes the tokens as they come.

        Raises:
            InputError: The model's `generate` refuses an option.
            HostError: The device has too little memory for the prompt.
        """
        began = time.perf_counter()
        searched = self.retrieval_seconds
        complete = False
        while not complete:
            if self.new_ids:
                self._exchange_evidence()
            prompt, cache = self.request.recall(self._read)
            self.prompt_tokens = max(self.prompt_tokens, len(prompt))
            ids = [*prompt, *self.new_ids]
            decoded = decode(
                self.request, ids, written=len(self.new_ids), tokens=tokens, cache=cache
            )
            self.new_ids += decoded.ids
            complete = decoded.complete
        searching = self.retrieval_seconds - searched
        self.seconds = time.perf_counter() - began - searching

    def _exchange_evidence(self) -> None:
        assert self._refresh is not None
        found, seconds = self._refresh(self.text)
        self.retrieval_seconds += seconds
        if found:
            self._read = found
            self.evidence = _merged(self.evidence, found)


def _merged(evidence: Sequence[Span], more: Sequence[Span]) -> list[Span]:
    """Two lists of spans as one, grouped by document and in order within it."""
    spans = {span.id: span for span in (*more, *evidence)}
    documents = dict.fromkeys(span.document_id for span in (*evidence, *more))
    places = {name: place for place, name in enumerate(documents)}
    return sorted(spans.values(), key=lambda span: (places[span.document_id], span.start))
