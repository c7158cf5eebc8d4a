"""What the methods of `longcontext` keep of a context for a question."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, cast, get_args

from s3_retriever import Document, Host, LongContext, ScannedContext, Span
from s3_retriever.answer.prompt import join_evidence
from s3_retriever.host.source import MINILM
from s3_retriever.types import Mode
from s3_retriever_bench.passages import Passage, chunks, fill_and_cut

if TYPE_CHECKING:
    from s3_retriever_bench.embedder import Embedder
    from s3_retriever_bench.rankers import FaissRanker

METHODS = ("full", "truncation", "bm25", "dense", "s3", "hybrid")


class Tools:
    """What the methods share.

    Args:
        model: Scans contexts.
    """

    def __init__(self, model: LongContext) -> None:
        self.model = model
        self.tokenizer = model.host.tokenizer

    @cached_property
    def embedding_host(self) -> Host:
        """MiniLM with a single layer: its tokenizer cuts the chunks that MiniLM embeds."""
        return Host.load(MINILM, layers=1)

    @cached_property
    def embedder(self) -> Embedder:
        """MiniLM's embeddings, remembered."""
        from s3_retriever_bench.embedder import Embedder

        return Embedder(self.embedding_host)


class ReadContext:
    """A context, scanned and embedded once, each when a method first needs it.

    Args:
        text: The context.
        tools: What reads it.

    Attributes:
        seconds: By `scan` and `dense`, how long that took; absent if it was not done.
    """

    def __init__(self, text: str, tools: Tools) -> None:
        self.text = text
        self.seconds: dict[str, float] = {}
        self._tools = tools

    def __enter__(self) -> ReadContext:
        return self

    def __exit__(self, *exception: object) -> None:
        if "_scanned" in self.__dict__:
            self._scanned.close()

    @cached_property
    def tokens(self) -> int:
        """Length in tokens of the host."""
        return len(self._offsets)

    def count(self, text: str) -> int:
        """Tokens of a text, by the host's tokenizer."""
        return self._tools.tokenizer.count(text)

    def prepare(self, method: str) -> float:
        """Read the context as a method does.

        Returns:
            Seconds that it took, now or before. `bm25`, `s3` and `hybrid` share a scan.
        """
        if method == "dense":
            _ = self._dense
            return self.seconds["dense"]
        if method in get_args(Mode):
            _ = self._scanned
            return self.seconds["scan"]
        return 0.0

    def evidence(self, method: str, question: str, budget: int) -> str:
        """What a method keeps of the context for a question.

        Args:
            method: A name from `METHODS`.
            question: Any text.
            budget: Maximum tokens of the host; `full` ignores it.

        Returns:
            The whole context if it fits; the empty string if nothing was found.
        """
        if method == "full" or self.tokens <= budget:
            return self.text
        if method == "truncation":
            return self._shrunk(self._ends, budget)
        if method == "dense":
            passages, ranker = self._dense
            ranked = [passages[number] for number in ranker.rank(question, len(passages))]
            return self._shrunk(lambda room: self._chunks(ranked, room), budget)
        mode = cast("Mode", method)
        return join_evidence(self._scanned.compress(question, token_budget=budget, mode=mode))

    @cached_property
    def _offsets(self) -> list[tuple[int, int]]:
        return self._tools.tokenizer.split(self.text)

    @cached_property
    def _scanned(self) -> ScannedContext:
        began = time.perf_counter()
        scanned = self._tools.model.scan(self.text, progress=False)
        self.seconds["scan"] = time.perf_counter() - began
        return scanned

    @cached_property
    def _dense(self) -> tuple[list[Passage], FaissRanker]:
        from s3_retriever_bench.rankers import FaissRanker

        tools = self._tools
        embedder = tools.embedder  # Loaded before the clock starts.
        began = time.perf_counter()
        cut = chunks(Document(self.text), tools.embedding_host.tokenizer)
        ranker = FaissRanker([chunk.text for chunk in cut], embedder)
        self.seconds["dense"] = time.perf_counter() - began
        return [replace(chunk, tokens=self.count(chunk.text)) for chunk in cut], ranker

    def _shrunk(self, take: Callable[[int], str], budget: int) -> str:
        """What `take` gives within a budget, even though joining parts may add a few tokens."""
        room = budget
        while room > 0:
            text = take(room)
            surplus = self.count(text) - budget
            if surplus <= 0:
                return text
            room -= surplus
        return ""

    def _ends(self, room: int) -> str:
        """The first and the last half of `room` tokens, as LongBench truncates."""
        last = self._offsets[len(self._offsets) - room // 2 :]
        head = self.text[: self._offsets[(room + 1) // 2 - 1][1]]
        return f"{head}\n{self.text[last[0][0] :]}" if last else head

    def _chunks(self, ranked: list[Passage], room: int) -> str:
        """The best chunks, the last one cut, in the order of the context."""
        taken = fill_and_cut(ranked, room, self._tools.tokenizer)
        return join_evidence([_span(chunk) for chunk in sorted(taken, key=lambda c: c.start)])


def _span(passage: Passage) -> Span:
    place = passage.document_id, passage.start, passage.end
    return Span(passage.text, 0.0, 0.0, *place, (), {}, passage.tokens)
