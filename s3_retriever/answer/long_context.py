"""`LongContext`: one model that scans contexts of any length and answers from the evidence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal

from s3_retriever.answer.context import Context, is_last, pieces
from s3_retriever.answer.generation import Answer, AnswerStream
from s3_retriever.answer.prompt import Requests
from s3_retriever.answer.scanned import MAX_NEW_TOKENS, ScannedContext
from s3_retriever.codebook import Codebook
from s3_retriever.document import Document
from s3_retriever.encoder import Encoder
from s3_retriever.encoder.words import WordsEncoder
from s3_retriever.engine import S3Index, find_codebook
from s3_retriever.engine.hosting import answering_host, shared_host, words_host
from s3_retriever.engine.origin import Origin
from s3_retriever.engine.s3index import new_store
from s3_retriever.errors import CodebookError, IndexStoreError, InputError
from s3_retriever.host import Host
from s3_retriever.index import Store
from s3_retriever.index.manifest import MANIFEST_NAME
from s3_retriever.recipe import Recipe
from s3_retriever.search import Span
from s3_retriever.types import (
    DEFAULT_CONTEXT,
    ContextForm,
    Refresh,
    check_choice,
    check_count,
    check_path,
    check_refresh,
    check_share,
    check_text,
)

if TYPE_CHECKING:
    from s3_retriever.answer.evidence_cache import EvidenceCache
    from s3_retriever.kv.codebook import KVCodebook

EvidenceForm = Literal["text", "cache"]

# Pieces per commit, about half a million characters: an interruption loses no more.
_COMMITTED_PIECES = 512


class LongContext:
    """Answers questions about contexts longer than the model could read at once.

    The model is loaded once. It scans a context window by window, up to the deepest tap and
    without a KV cache; the features go into an index on the CPU. Asked a question, it reads only
    the evidence, and the KV cache is that of a short prompt (S3-Attention, section 4).

    Args:
        host: A local folder, a model id on the Hugging Face Hub, or a host that was loaded with
            `generates=True`. An encoder such as `minilm` can `scan` and `compress`, not answer.
        retriever: Another host that finds the evidence, such as `minilm`: a name, or a loaded
            host. By default the host finds its own.
        codebook: The retriever's codebook, or its name; found as in `S3Index.create`.
        recipe: `default`, `paper`, or your own.
        fallback: `bm25`: if the retriever has no codebook, retrieve by BM25 and the edges of the
            context; nothing then runs before the answer. By default that is an error.
        refresh: After that many new tokens of an answer each time, search again with the question
            and what is written so far, and go on with that evidence; `uncertain`: before each token
            of which the host is not sure. By default an answer has the evidence for its question
            alone.
        context: What the spans of the evidence take along of the text around them: `sentence`,
            `passage`, `neighbours` or `section`, as in `S3Index.search`.
        evidence: `text`: the host reads the evidence for each answer. `cache`: it reads the whole
            context once more while it is scanned, keeps its keys and values in memory as codes, and
            goes on from those of the evidence, which is faster and less exact; see
            `docs/kv-cache.md`.
        kv_codebook: For `cache`, the dictionaries of the host's keys and values, or their folder;
            by default those shipped for it.
        chat_options: Passed on to the tokenizer's chat template, such as
            `{"enable_thinking": False}`.
        host_options: For `Host.load` of the host, such as `device="cuda"`.

    Attributes:
        host: The model that generates and, without a retriever, scans.

    Raises:
        HostError: A host cannot be loaded, or its cache cannot be encoded.
        CodebookError: There is no codebook for the host, or it does not fit host or recipe.
        InputError: The fallback or `evidence` is unknown, `refresh` is below 1, or an option does
            not fit the host.
    """

    def __init__(
        self,
        host: str | Host,
        *,
        retriever: str | Host | None = None,
        codebook: str | Path | Codebook | None = None,
        recipe: str | Recipe = "default",
        fallback: Literal["bm25"] | None = None,
        refresh: Refresh | None = None,
        context: ContextForm = DEFAULT_CONTEXT,
        evidence: EvidenceForm = "text",
        kv_codebook: str | Path | KVCodebook | None = None,
        chat_options: Mapping[str, Any] | None = None,
        **host_options: Any,
    ) -> None:
        if fallback is not None and fallback != "bm25":
            raise InputError(f"fallback must be 'bm25' or None, not {fallback!r}.")
        refresh = check_refresh(refresh)
        check_choice(context, "context", ContextForm)
        check_choice(evidence, "evidence", EvidenceForm)
        if kv_codebook is not None and evidence != "cache":
            raise InputError('kv_codebook is used with evidence="cache"; pass both, or neither.')
        if not isinstance(chat_options, (Mapping, NoneType)):
            raise InputError(f"chat_options must be a mapping, not {type(chat_options).__name__}.")
        book = _codebook(host if retriever is None else retriever, codebook, fallback)
        if book is not None:
            recipe = book.named_recipe(recipe)  # fails before the host is loaded, which takes long
        self.host = answering_host(host, host_options)
        reader = self.host if retriever is None else _reader(retriever, book)
        self._encoder = WordsEncoder(reader) if book is None else Encoder(reader, book)
        self._recipe = self._encoder.named_recipe(recipe)
        self._codebook = codebook
        self._memory = _memory(self.host, kv_codebook) if evidence == "cache" else None
        self._requests = Requests(self.host, dict(chat_options or {}), refresh, context)

    def scan(
        self, context: Context, *, path: str | Path | None = None, progress: bool = True
    ) -> ScannedContext:
        """Scan a context once, for any number of questions.

        Args:
            context: A text (str), a file of UTF-8 text (pathlib.Path), which is read in blocks, a
                `Document`, or any number of these, also from an iterator, each a document of its
                own.
            path: A folder that keeps the scan. A scan is committed about every half a million
                characters; after an interruption the same call continues from there, and a
                context that is scanned already is not scanned again. Without a path the scan
                lives in memory.
            progress: Whether a terminal shows a progress bar.

        Raises:
            InputError: The context is empty or cannot be read.
            IndexStoreError: `path` holds something else, the scan of another context, or one with
                another host, codebook or recipe; or it cannot be written.
            HostError: The device has too little memory for a single window.
        """
        if self._memory is not None and path is not None:
            raise InputError(
                'The cache of evidence="cache" is kept in memory only; scan without a path, or use '
                'evidence="text".'
            )
        stream = pieces(context)
        first = next(stream, None)
        if first is None:
            raise InputError("The context is empty; give a text to answer from.")
        stream = chain([first], stream)
        memory = None if self._memory is None else self._memory.fresh()
        if memory is not None:
            stream = memory.reading(stream)
        folder = None if path is None else check_path(path)
        if folder is not None and (folder / MANIFEST_NAME).exists():
            store = self._open_store(folder)
            _skip_scanned(stream, store)
        else:
            store = new_store(folder, self._encoder, self._recipe, self._codebook)
        index = S3Index(store, self._encoder, self._recipe)
        commits: Iterable[Iterable[Document]] = [stream]
        if folder is not None:
            commits = iter(lambda: list(islice(stream, _COMMITTED_PIECES)), [])
        for documents in commits:
            index.add(documents, progress=progress)
        return self._scanned(store, memory)

    def open(self, path: str | Path) -> ScannedContext:
        """Open a kept scan; the context itself is not needed.

        Raises:
            IndexStoreError: There is no scan, it was interrupted, or it was made with another
                host, codebook or recipe.
            InputError: The evidence is to come from a cache, which no folder keeps.
        """
        if self._memory is not None:
            raise InputError(
                'A kept scan has no cache for evidence="cache"; scan the context without a path, '
                'or use evidence="text".'
            )
        store = self._open_store(check_path(path))
        segments = store.snapshot().segments
        last = segments[-1].document(segments[-1].n_documents - 1) if segments else None
        if last is None or not is_last(last.metadata):
            raise IndexStoreError(
                f"The scan at {path} is incomplete, or this is another kind of index; scan the "
                "context with that path again, which continues an interrupted scan."
            )
        return self._scanned(store)

    def compress(
        self,
        question: str,
        context: Context,
        *,
        path: str | Path | None = None,
        token_budget: int | None = None,
        min_relevance: float | None = None,
        progress: bool = True,
    ) -> list[Span]:
        """Scan a context and find the evidence for a question.

        Args, result and errors are those of `scan` and of `ScannedContext.compress`.
        """
        check_text(question, "question")
        if token_budget is not None:
            check_count(token_budget, "token_budget")
        check_share(min_relevance, "min_relevance")
        with self.scan(context, path=path, progress=progress) as scanned:
            return scanned.compress(
                question, token_budget=token_budget, min_relevance=min_relevance
            )

    def answer(
        self,
        question: str,
        context: Context,
        *,
        path: str | Path | None = None,
        token_budget: int | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        min_relevance: float | None = None,
        refresh: Refresh | None = None,
        prompt: str | None = None,
        progress: bool = True,
        **generation: Any,
    ) -> Answer:
        """Scan a context and answer a question from the evidence for it.

        The question is checked before the scan begins. Args and errors are those of `scan` and of
        `ScannedContext.answer`.
        """
        request = self._requests.make(
            question, token_budget, max_new_tokens, min_relevance, refresh, prompt, generation
        )
        with self.scan(context, path=path, progress=progress) as scanned:
            return scanned.answer_to(request)

    def stream(
        self,
        question: str,
        context: Context,
        *,
        path: str | Path | None = None,
        token_budget: int | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        min_relevance: float | None = None,
        refresh: Refresh | None = None,
        prompt: str | None = None,
        progress: bool = True,
        **generation: Any,
    ) -> AnswerStream:
        """Like `answer`, but yields the text while it is generated, and has the answer at the end.

        Args and errors are those of `answer`.
        """
        request = self._requests.make(
            question, token_budget, max_new_tokens, min_relevance, refresh, prompt, generation
        )
        scanned = self.scan(context, path=path, progress=progress)
        try:
            return scanned.stream_to(request, on_end=scanned.close)
        except BaseException:
            scanned.close()
            raise

    def _scanned(self, store: Store, memory: EvidenceCache | None = None) -> ScannedContext:
        index = S3Index(store, self._encoder, self._recipe)
        return ScannedContext(index, self._requests, memory)

    def _open_store(self, path: Path) -> Store:
        """Open a kept scan, complete or not, if it was made with this host, codebook and recipe."""
        store = Store.open(path)
        origin = Origin.read(store)
        own = Origin.of(self._encoder, self._recipe, self._codebook)
        for field in ("fingerprint", "codebook", "window", "overlap", "recipe"):
            if getattr(origin, field) != getattr(own, field):
                what = "host" if field == "fingerprint" else field
                raise IndexStoreError(
                    f"The scan at {path} was made with another {what}; use that one, or scan to "
                    "another path."
                )
        return store


def _codebook(
    host: str | Host, codebook: str | Path | Codebook | None, fallback: str | None
) -> Codebook | None:
    """A host's codebook; None if it has none and the fallback is allowed."""
    try:
        return find_codebook(host, codebook)
    except CodebookError as error:
        if codebook is not None:
            raise
        if fallback:
            return None
        raise CodebookError(
            f"{error}; or pass fallback='bm25' to retrieve by words alone."
        ) from error


def _memory(host: Host, codebook: str | Path | KVCodebook | None) -> EvidenceCache:
    # What it imports needs a recent transformers.
    from s3_retriever.answer.evidence_cache import EvidenceCache

    _ = host.causal
    return EvidenceCache(host, codebook)


def _reader(retriever: str | Host, book: Codebook | None) -> Host:
    return words_host(retriever, {}) if book is None else shared_host(retriever, book, {})


def _skip_scanned(stream: Iterator[Document], store: Store) -> None:
    """Take the pieces off a stream that are already in a store."""
    for known in store.snapshot().ids():
        piece = next(stream, None)
        if piece is None or piece.id != known:
            raise IndexStoreError(
                f"The scan at {store.path} is of another context; give the context that it began "
                "with, or another path."
            )
