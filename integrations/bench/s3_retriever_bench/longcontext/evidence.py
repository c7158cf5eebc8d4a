"""What the methods of `longcontext` keep of a context for a question."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, get_args

from s3_retriever import Codebook, Document, Host, KVCodebook, LongContext, ScannedContext, Span
from s3_retriever.answer.evidence_cache import EvidenceCache
from s3_retriever.answer.prompt import join_evidence
from s3_retriever.encoder.words import WordsEncoder
from s3_retriever.host.source import MINILM
from s3_retriever.types import ContextForm, Mode
from s3_retriever_bench.longcontext.longbench import join_documents
from s3_retriever_bench.retrieval.passages import Passage, chunks, cut_all, fill_and_cut
from s3_retriever_bench.shared.costs import Cost, metered

if TYPE_CHECKING:
    from s3_retriever_bench.retrieval.rankers import Embedder, FaissRanker

# The methods that scan: what reads the context for them, and the mode of their searches.
_SCANS: Mapping[str, tuple[str, Mode]] = {
    "bm25": ("words", "bm25"),
    "s3": ("host", "s3"),
    "hybrid": ("host", "hybrid"),
    "hybrid-minilm": (MINILM, "hybrid"),
    "hybrid-cache": ("cache", "hybrid"),
}
# As `hybrid`, but the host reads the context once more, and then not the evidence.
CACHED = "hybrid-cache"
METHODS = ("full", "truncation", "bm25", "dense", "s3", "hybrid", "hybrid-minilm")
# The same evidence in a form other than the default: the method and the form.
FORMS: Mapping[str, tuple[str, ContextForm]] = {
    f"{method}-{form}": (method, form)
    for method in ("hybrid", "hybrid-minilm")
    for form in get_args(ContextForm)
}


class Tools:
    """What the methods share.

    Args:
        model: Scans contexts with the host itself.
        codebook: The host's codebook; None if it has none.
        kv_codebook: Dictionaries of its keys and values, or their folder; None for those shipped.
    """

    def __init__(
        self,
        model: LongContext,
        codebook: Codebook | None,
        kv_codebook: str | KVCodebook | None = None,
    ) -> None:
        self.host = model.host
        self.tokenizer = model.host.tokenizer
        self._readers = {"host": model}
        self._codebook = codebook
        self._kv_codebook = kv_codebook

    def reader(self, name: str) -> LongContext:
        """What scans contexts: `host`, `cache`, `words` without running any model, or `minilm`."""
        if name not in self._readers:
            self._readers[name] = self._made(name)
        return self._readers[name]

    def _made(self, name: str) -> LongContext:
        book = self._codebook
        if name == MINILM:
            return LongContext(self.host, retriever=MINILM)
        if name == "cache":
            return LongContext(
                self.host,
                codebook=book,
                fallback=None if book else "bm25",
                evidence="cache",
                kv_codebook=self._kv_codebook,
            )
        if book is None:
            return self._readers["host"]
        recipe = WordsEncoder(self.host).named_recipe(book.named_recipe("default"))
        return LongContext(self.host, codebook=book, recipe=recipe)

    @cached_property
    def embedding_host(self) -> Host:
        """MiniLM with a single layer: its tokenizer cuts the chunks that MiniLM embeds."""
        return Host.load(MINILM, layers=1)

    @cached_property
    def embedder(self) -> Embedder:
        """MiniLM's embeddings, remembered."""
        from s3_retriever_bench.retrieval.rankers import Embedder

        return Embedder(self.embedding_host)


class ReadContext:
    """A context, scanned and embedded once, each when a method first needs it.

    Args:
        documents: The documents of the context.
        tools: What reads it.
    """

    def __init__(self, documents: Sequence[Document], tools: Tools) -> None:
        self.text = join_documents(documents)
        self.device = tools.host.device
        self._documents = documents
        self._tools = tools
        self._scans: dict[str, ScannedContext] = {}
        self._costs: dict[str, Cost] = {}

    def __enter__(self) -> ReadContext:
        return self

    def __exit__(self, *exception: object) -> None:
        for scanned in self._scans.values():
            scanned.close()

    @cached_property
    def tokens(self) -> int:
        """Length in tokens of the host."""
        return len(self._offsets)

    def count(self, text: str) -> int:
        """Tokens of a text, by the host's tokenizer."""
        return self._tools.tokenizer.count(text)

    def prepare(self, method: str) -> Cost:
        """Read the context as a method does.

        Returns:
            What that took, now or before: `s3` and `hybrid` share a scan.
        """
        if method == "dense":
            _ = self._dense
            return self._costs["dense"]
        method, _ = FORMS.get(method, (method, None))
        if method in _SCANS:
            reader, _ = _SCANS[method]
            self._scanned(reader)
            return self._costs[reader]
        return Cost(peak_bytes=0)

    def evidence(self, method: str, question: str, budget: int) -> str:
        """What a method keeps of the context for a question.

        Args:
            method: A name from `METHODS` or `FORMS`.
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
            numbers = ranker.rank(question, len(passages))
            return self._shrunk(lambda room: self._chunks(numbers, room), budget)
        return join_evidence(self.spans(method, question, budget))

    def spans(self, method: str, question: str, budget: int) -> list[Span]:
        """The evidence of a method that scans."""
        method, form = FORMS.get(method, (method, None))
        reader, mode = _SCANS[method]
        return self._scanned(reader).compress(
            question, token_budget=budget, mode=mode, context=form
        )

    @property
    def memory(self) -> EvidenceCache:
        """What the host cached of the context."""
        memory = self._scanned("cache").memory
        assert memory is not None
        return memory

    @cached_property
    def _offsets(self) -> list[tuple[int, int]]:
        return self._tools.tokenizer.split(self.text)

    def _scanned(self, name: str) -> ScannedContext:
        if name not in self._scans:
            reader = self._tools.reader(name)  # Loaded before the clock starts.
            with metered(self.device) as self._costs[name]:
                self._scans[name] = reader.scan(self._documents, progress=False)
        return self._scans[name]

    @cached_property
    def _dense(self) -> tuple[list[Passage], FaissRanker]:
        from s3_retriever_bench.retrieval.rankers import FaissRanker

        tools = self._tools
        embedder = tools.embedder  # Loaded before the clock starts.
        with metered(self.device) as self._costs["dense"]:
            cut = cut_all(self._documents, chunks, tools.embedding_host.tokenizer)
            ranker = FaissRanker([chunk.titled() for chunk in cut], embedder)
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

    def _chunks(self, numbers: Sequence[int], room: int) -> str:
        """The best chunks, the last one cut, in the order of the context."""
        passages, _ = self._dense
        taken = fill_and_cut((passages[number] for number in numbers), room, self._tools.tokenizer)
        # The last chunk may be cut, but begins where it did.
        places = {(p.document_id, p.start): place for place, p in enumerate(passages)}
        taken.sort(key=lambda chunk: places[chunk.document_id, chunk.start])
        return join_evidence([_span(chunk) for chunk in taken])


def _span(passage: Passage) -> Span:
    place = passage.document_id, passage.start, passage.end
    return Span(passage.text, 0.0, 0.0, *place, (), {"title": passage.title}, passage.tokens)
