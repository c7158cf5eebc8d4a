"""`S3Index`: the object that users hold."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, TypedDict, overload

from typing_extensions import Self, Unpack

from s3_retriever.codebook.files import local_folder, read_codebook_file
from s3_retriever.display import error_html, index_html
from s3_retriever.document import Document
from s3_retriever.engine.hosting import (
    codebook_name,
    find_codebook,
    host_name,
    shared_host,
    words_host,
)
from s3_retriever.engine.origin import Origin
from s3_retriever.engine.reranking import second_look
from s3_retriever.errors import CodebookError, IndexStoreError
from s3_retriever.index import Snapshot, Store, Verification, unknown_ids
from s3_retriever.paths import lasting
from s3_retriever.processes import renew_after_fork
from s3_retriever.progress import Bar, progress_bar
from s3_retriever.recipe import Recipe
from s3_retriever.remote import local_path
from s3_retriever.search import (
    DocumentResult,
    Explanation,
    Firings,
    Heat,
    Limits,
    Span,
    explain,
    firings,
    heat,
    knows_relevance,
    rank,
    search,
)
from s3_retriever.text import TEXT_ANALYSIS
from s3_retriever.types import (
    DEFAULT_CONTEXT,
    ContextForm,
    GroupBy,
    Mode,
    Order,
    Where,
    check_choice,
    check_count,
    check_flag,
    check_items,
    check_share,
    check_source,
    check_string,
    check_text,
    check_type,
    refuse_arguments,
)

if TYPE_CHECKING:
    from s3_retriever.codebook import Codebook
    from s3_retriever.encoder import Encoder
    from s3_retriever.features import EncodedChunk
    from s3_retriever.host import Host
    from s3_retriever.search.ranking import Ranking
    from s3_retriever.search.reranking import SecondLook

# Tokens of a search that sets no limit, about what four chunks of other retrievers hold.
DEFAULT_TOKEN_BUDGET = 512
# Spans of each document in a search for documents.
SPANS_PER_DOCUMENT = 3
# The recipes that come with a codebook.
RECIPE_NAMES = ("default", "paper", "paper-literal")
# A search without `k` leaves out spans of a lower relevance.
MIN_RELEVANCE = 0.05


# What names a document of an index.
Found = str | Span | DocumentResult


class SearchOptions(TypedDict, total=False):
    """The options of `S3Index.search` that do not change what it returns."""

    mode: Mode
    token_budget: int | None
    min_relevance: float | None
    where: Where | None
    order: Order
    unique: bool
    recipe: str | Recipe | None
    spans_per_document: int | None
    context: ContextForm
    rerank: int | None
    rerank_host: str | Host | None


class S3Index:
    """An index of documents that its host model retrieves from.

    Make one with `S3Index.create`, open one with `S3Index.open`; it can be used as a context
    manager. Searches may run in several threads at once, also while documents are added; the
    host itself runs one batch at a time.

    Attributes:
        recipe: How documents are indexed and, unless a search says otherwise, scored.
    """

    def __init__(
        self,
        store: Store,
        encoder: Encoder | Callable[[], Encoder],
        recipe: Recipe,
        opening: Opening | None = None,
    ) -> None:
        """Prefer `create` and `open`.

        Args:
            store: Documents and postings.
            encoder: The host and its codebook, or a function that loads them when first needed.
            recipe: How documents are indexed.
            opening: What opens the index again in another process; defaults to the encoder's host
                and codebook.
        """
        self._store = store
        self._encoder = encoder
        self._opening = opening
        self.recipe = recipe
        self._renew()
        renew_after_fork(self._renew)

    @classmethod
    def create(
        cls,
        path: str | Path | None = None,
        host: str | Host = "minilm",
        *,
        codebook: str | Path | Codebook | None = None,
        recipe: str | Recipe = "default",
        **host_options: Any,
    ) -> S3Index:
        """Make an empty index.

        Args:
            path: Folder of the index, empty or new. Without a path the index lives in memory.
            host: `minilm`, `smollm2`, a local folder or GGUF file, a model id on the Hub, or a
                loaded host.
            codebook: The host's codebook, or its name; defaults to the one shipped for the host
                or the one in the folder `s3-codebook` beside the model's files.
            recipe: `default` (the one that measured best), `paper`, or your own.
            host_options: For `Host.load`, such as `device="cuda"`.

        Raises:
            HostError: The host cannot be loaded.
            CodebookError: There is no codebook for the host, or it does not fit host or recipe.
            IndexStoreError: `path` is in use, or it cannot be written.
        """
        from s3_retriever.encoder import Encoder

        folder = None if path is None else local_path(path)
        host = host_name(host)
        book = find_codebook(host, codebook)
        chosen = book.named_recipe(recipe)
        encoder = Encoder(shared_host(host, book, host_options), book)
        # The codebook and the host may be loaded again, from another working directory.
        if isinstance(host, str):
            host = lasting(host)
        if isinstance(codebook, (str, Path)):
            codebook = lasting(str(codebook))
        store = new_store(folder, encoder, chosen, codebook)
        return cls(store, encoder, chosen, Opening(host, codebook, host_options))

    @classmethod
    def open(
        cls,
        path: str | Path,
        host: str | Host | None = None,
        *,
        codebook: str | Path | Codebook | None = None,
        **host_options: Any,
    ) -> S3Index:
        """Open an index; a read-only folder is enough for searching.

        The host is loaded when it is first needed: by an addition or by a search in mode `s3` or
        `hybrid`. Mode `bm25` never needs it. A host or codebook that only the index names is never
        downloaded: it is a folder, in the cache of the Hugging Face Hub, or has to be passed.

        Args:
            path: Folder of the index; or its URL in object storage, such as `s3://bucket/folder`
                (extra `remote`). From there the index is copied to the user's cache, as it is now,
                and can only be read.
            host: The host, if it is elsewhere than when the index was made.
            codebook: The codebook, if it is elsewhere than when the index was made.
            host_options: For `Host.load`.

        Raises:
            IndexStoreError: There is no index at `path`, it is damaged, of another schema, or
                made with another codebook.
            CodebookError: The codebook cannot be read.
        """
        store = Store.open(path)
        return cls(store, *opened(store, host, codebook, host_options))

    @property
    def encoder(self) -> Encoder:
        """The host and its codebook; loaded now if they are not yet.

        Raises:
            HostError: The host cannot be loaded.
            CodebookError: There is no such codebook, or it belongs to another host.
            IndexStoreError: The index was made with another codebook.
        """
        with self._loading:
            if callable(self._encoder):
                self._encoder = self._encoder()
            return self._encoder

    def __copy__(self) -> S3Index:
        """Another object for the same index, whose host it shares.

        With a path, either can be closed without the other.
        """
        return type(self)(self._store.shared(), self._encoder, self.recipe, self._opening)

    def __deepcopy__(self, memo: dict[int, Any]) -> S3Index:
        """As `__copy__`."""
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle where the index is and how to open it.

        Raises:
            IndexStoreError: It is in memory.
            HostError: Its host cannot be loaded by name.
        """
        if self.path is None:
            raise IndexStoreError(
                "An index in memory cannot be pickled; write it to disk with save(path) and use "
                "S3Index.open(path), or create it with a path."
            )
        opening = self._opening or Opening(self.encoder.host, self.encoder.codebook, {})
        return _open_again, (self._store.url or str(self.path), *opening.named())

    def _renew(self) -> None:
        self._loading = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Number of documents."""
        return self._store.snapshot().n_documents

    @property
    def path(self) -> Path | None:
        """Folder of the index, or of its local copy; None if it lives in memory."""
        return self._store.path

    @property
    def url(self) -> str | None:
        """Where the index is in object storage, from where it is only read; None if it is not."""
        return self._store.url

    def close(self) -> None:
        """Let go of the files, or of an index in memory with all its copies; may be repeated."""
        self._store.close()

    def ids(self) -> list[str]:
        """Ids of all documents, in the order they were added."""
        return self._store.snapshot().ids()

    def __contains__(self, document_id: object) -> bool:
        """Whether there is a document with this id."""
        return isinstance(document_id, str) and document_id in self._store.snapshot()

    def __iter__(self) -> Iterator[Document]:
        """Read all documents, one at a time, in the order they were added.

        What is added or deleted in the meantime makes no difference.
        """
        return self._store.snapshot().documents()

    @overload
    def get(self, ids: Found) -> Document: ...  # type: ignore[overload-overlap]

    @overload
    def get(self, ids: Iterable[Found]) -> list[Document]: ...

    def get(self, ids: Found | Iterable[Found]) -> Document | list[Document]:
        """Read documents: text, id and metadata.

        Args:
            ids: An id, a span or its id, a document that a search found, or a list of these.

        Returns:
            The document; for a list, the documents in its order.

        Raises:
            InputError: An id is unknown.
        """
        snapshot, names = self._store.snapshot(), document_ids(ids)
        unknown = [name for name in names if snapshot.named(name) is None]
        if unknown:
            raise unknown_ids(unknown)
        documents = [snapshot.document(name) for name in names]
        return documents[0] if isinstance(ids, (str, Span, DocumentResult)) else documents

    def add(
        self,
        documents: Iterable[Document | str] | Document | str,
        *,
        replace: bool = False,
        progress: bool = True,
    ) -> list[str]:
        """Scan documents once and add them, all of them or, after an error, none.

        Args:
            documents: Documents or plain texts, any number, also from an iterator: they are read
                one at a time.
            replace: Whether a document replaces the one with its id; otherwise a known id is an
                error.
            progress: Whether a terminal shows a bar with rate and time left.

        Returns:
            The documents' ids.

        Raises:
            InputError: A document cannot be used or its id is taken.
            IndexStoreError: Another process is writing, or the disk refuses.
        """
        replace = check_flag(replace, "replace")
        encoder = self.encoder
        with (
            self._store.append(
                encoder.layout(self.recipe),
                replace=replace,
                text_analysis=TEXT_ANALYSIS,
                progress=progress,
            ) as writer,
            _scanning_bar(documents, progress) as bar,
        ):
            done = 0
            for chunk in encoder.documents(documents, self.recipe):
                writer.add(chunk)
                reached = _reached(chunk, done)
                bar.update(reached - done)
                done = 0 if chunk.last else reached
            return list(writer.ids)

    def delete(
        self,
        ids: str | Span | Document | Iterable[str | Span | Document],
        *,
        missing_ok: bool = False,
    ) -> int:
        """Delete documents; they are not found from then on.

        Args:
            ids: An id, a document, a span of it or the span's id, or a list of these.
            missing_ok: Whether unknown ids are ignored; otherwise they are an error.

        Returns:
            How many documents were deleted.

        Raises:
            InputError: An id is unknown; then nothing is deleted.
            IndexStoreError: Another process is writing, or the disk refuses.
        """
        missing_ok = check_flag(missing_ok, "missing_ok")
        return self._store.delete(document_ids(ids), missing_ok=missing_ok)

    def compact(self, *, progress: bool = True) -> None:
        """Merge all segments into one and free the space of deleted documents.

        Adding and deleting already merge as much as searches need.

        Args:
            progress: Whether bars show how far it is (only in a terminal).

        Raises:
            IndexStoreError: Another process is writing, the disk refuses, or a file is damaged.
        """
        self._store.compact(progress=progress)

    def save(self, path: str | Path) -> None:
        """Write a copy of the index to disk, as it is now and without deleted documents.

        An index in memory is kept this way. `S3Index.open` opens the copy.

        Args:
            path: Folder of the copy, empty or new.

        Raises:
            IndexStoreError: `path` is in use or cannot be written, or the index is damaged.
        """
        self._store.save(local_path(path))

    def verify(self, *, progress: bool = True) -> Verification:
        """Read every file and compare it with its checksum.

        Args:
            progress: Whether a bar shows how far it is (only in a terminal).

        Returns:
            How much was read, and which files do not belong to the index.

        Raises:
            IndexStoreError: Files are missing or damaged; it names all of them.
        """
        return self._store.verify(progress=progress)

    @overload
    def search(
        self,
        question: str,
        k: int | None = None,
        *,
        group_by: None = None,
        **options: Unpack[SearchOptions],
    ) -> list[Span]: ...

    @overload
    def search(
        self,
        question: str,
        k: int | None = None,
        *,
        group_by: Literal["document"],
        **options: Unpack[SearchOptions],
    ) -> list[DocumentResult]: ...

    def search(
        self,
        question: str,
        k: int | None = None,
        *,
        mode: Mode = "hybrid",
        token_budget: int | None = None,
        min_relevance: float | None = None,
        where: Where | None = None,
        order: Order = "score",
        unique: bool = True,
        recipe: str | Recipe | None = None,
        group_by: GroupBy | None = None,
        spans_per_document: int | None = None,
        context: ContextForm = DEFAULT_CONTEXT,
        rerank: int | None = None,
        rerank_host: str | Host | None = None,
        **_unknown: NoReturn,
    ) -> list[Span] | list[DocumentResult]:
        """Find the spans that answer a question, or the documents that have them.

        Args:
            question: Any text.
            k: Most spans, or documents; None for no limit.
            mode: `s3` (co-activation of features), `bm25`, or `hybrid`, which fuses both.
            token_budget: Most tokens of all spans together, as the host counts them; 512 if
                neither `k` nor `token_budget` is given.
            min_relevance: Spans of a lower `relevance`, 0 to 1, are left out. By default 0.05
                without `k` in mode `bm25`, and in mode `hybrid` if the relevance of the recipe's
                host is known; else 0, which leaves nothing out.
            where: Metadata that documents must have, such as `{"year": 2024}` or
                `{"year": {"$gte": 2020}}`, or a function of a document's metadata. Operators:
                `$eq`, `$ne`, `$gt`, `$gte`, `$lt`, `$lte`, `$in`, `$nin`, `$contains`,
                `$icontains`, `$not_contains`, `$exists`, `$and`, `$or` and `$not`;
                `{"$ids": [...]}` searches these documents. Applied before ranking.
            order: `score`, best first, or `document`, as in the documents.
            unique: Whether a sentence that occurs in several places, such as overlapping chunks or
                copies of a document, is returned once. White space is ignored.
            recipe: Score with another recipe than the index's own; its taps must be indexed.
            group_by: `document` returns documents, ranked by all of their evidence, each with its
                best spans.
            spans_per_document: Most spans of a document; by default 3 with `group_by`, else no
                limit.
            context: What a span takes along of the text around it, if the budget has room for it.
                `sentence`: nothing. `passage`: the sentence before, if this one begins with a word
                such as "he" or "this" (in English), and the little that lies between two spans.
                `neighbours`: sentences on both sides, up to 64 tokens. `section`: its paragraph, or
                128 tokens of it. Spans that touch become one.
            rerank: How many of the best sentences a language model reads again, together with the
                question, and ranks by what its retrieval heads look at; None for none, at most
                1,000. Takes as long as it takes the model to read them.
            rerank_host: The language model that does, as `host` of `S3Index.create`; by default
                the index's own host.

        Returns:
            Spans that do not overlap, or documents with such spans; fewer than asked for if there
            are no more.

        Raises:
            InputError: The question is empty, a number is below 1, a name is unknown, or `where`
                cannot be used.
            CodebookError: The recipe needs taps that the index does not have.
            HostError: A host cannot be loaded, or the one that reranks is an encoder.
        """
        refuse_arguments("search", _unknown)
        check_text(question, "question")
        check_choice(mode, "mode", Mode)
        check_choice(order, "order", Order)
        check_choice(context, "context", ContextForm)
        unique = check_flag(unique, "unique")
        k = None if k is None else check_count(k, "k")
        if token_budget is not None:
            token_budget = check_count(token_budget, "token_budget")
        if group_by is not None:
            check_choice(group_by, "group_by", GroupBy)
        if spans_per_document is not None:
            spans_per_document = check_count(spans_per_document, "spans_per_document")
        elif group_by is not None:
            spans_per_document = SPANS_PER_DOCUMENT
        min_relevance = check_share(min_relevance, "min_relevance")
        chosen = self._chosen(recipe, mode)
        if min_relevance is None:
            floor = k is None and knows_relevance(chosen, mode)
            min_relevance = MIN_RELEVANCE if floor else 0.0
        if k is None and token_budget is None:
            token_budget = DEFAULT_TOKEN_BUDGET
        limits = Limits(k, token_budget, min_relevance, order, unique, spans_per_document, context)
        look = second_look(rerank, rerank_host, lambda: self.encoder)
        return self._found(question, chosen, limits, mode, where, group_by, look)

    def _found(
        self,
        question: str,
        recipe: Recipe,
        limits: Limits,
        mode: Mode,
        where: Where | None,
        group_by: GroupBy | None,
        look: SecondLook | None,
    ) -> list[Span] | list[DocumentResult]:
        """What a search finds whose arguments were checked."""
        return search(
            self._snapshot(mode),
            question,
            recipe,
            None if mode == "bm25" else self.encoder,
            limits,
            mode=mode,
            where=where,
            group_by=group_by,
            look=look,
        )

    def explain(
        self,
        question: str,
        span: Span,
        *,
        recipe: str | Recipe | None = None,
        rerank: int | None = None,
        rerank_host: str | Host | None = None,
    ) -> Explanation:
        """Say which signals, features and terms put a span where it is in mode `hybrid`.

        Args:
            question: The question that found it.
            span: A span of this index.
            recipe: The recipe that found it, if not the index's own.
            rerank: As in the search that found it; what the second look adds is then among the
                contributions.
            rerank_host: As in that search.

        Raises:
            InputError: The question is empty, or the span is not in the index any more.
            CodebookError: The recipe needs taps that the index does not have.
            HostError: As `search`.
        """
        check_type(span, Span, "span")
        check_text(question, "question")
        look = second_look(rerank, rerank_host, lambda: self.encoder)
        ranking, chosen = self._ranking(question, recipe, look)
        ranges = self.encoder.host.tokenizer.split(question)
        return explain(ranking, [question[start:end] for start, end in ranges], span, chosen)

    def heat(self, question: str, document_id: str, recipe: str | Recipe | None = None) -> Heat:
        """Score every token of a document: where the question's features fire, tap by tap.

        Args:
            question: Any text.
            document_id: Id of the document.
            recipe: Score with another recipe than the index's own; its taps must be indexed.

        Raises:
            InputError: The question is empty, or there is no such document.
            CodebookError: The recipe needs taps that the index does not have.
        """
        check_string(document_id, "document_id")
        return heat(self._ranking(question, recipe)[0], document_id)

    def firings(self, tap: str, feature: int, limit: int = 20) -> Firings:
        """Find the sentences in which a feature fires, whatever the question.

        Args:
            tap: Name of the feature's tap, such as `hidden.5`.
            feature: Its index in that tap's dictionary.
            limit: Most sentences to return.

        Raises:
            InputError: There is no such tap or feature, or `limit` is below 1.
        """
        check_string(tap, "tap")
        feature = check_count(feature, "feature", least=0)
        return firings(self._store.snapshot(), tap, feature, check_count(limit, "limit"))

    def snapshot(self) -> Snapshot:
        """The index as it is now; what is added or deleted later makes no difference to it."""
        return self._store.snapshot()

    def stats(self) -> dict[str, Any]:
        """Sizes and settings, as JSON values."""
        return self._store.stats()

    def recipe_names(self) -> list[str]:
        """The names of the recipes that a search of this index may use; loads the host.

        Raises:
            HostError: The host cannot be loaded.
            CodebookError: There is no codebook for it.
        """
        _ = self.encoder
        names = []
        for name in RECIPE_NAMES:
            with suppress(CodebookError):
                self._chosen(name, "hybrid")
                names.append(name)
        return names

    def _ranking(
        self, question: str, recipe: str | Recipe | None, look: SecondLook | None = None
    ) -> tuple[Ranking, Recipe]:
        """All sentences ranked in mode `hybrid`, and by which recipe."""
        check_text(question, "question")
        chosen, snapshot = self._chosen(recipe, "hybrid"), self._snapshot("hybrid")
        live = snapshot.live
        return rank(snapshot, question, chosen, self.encoder, "hybrid", live, look), chosen

    def _repr_html_(self) -> str:
        try:
            return index_html(self.stats())
        except IndexStoreError as error:  # it is closed, say
            return error_html(error)

    def _snapshot(self, mode: Mode) -> Snapshot:
        """The index as it is now, with the taps that its host and codebook compute.

        Raises:
            IndexStoreError: It has other taps.
        """
        snapshot = self._store.snapshot()
        if mode != "bm25":
            snapshot.check_layout(self.encoder.layout(self.recipe))
        return snapshot

    def _chosen(self, recipe: str | Recipe | None, mode: Mode) -> Recipe:
        """The recipe of a search, checked against what is indexed."""
        if recipe is None:
            return self.recipe
        if isinstance(recipe, Recipe) and mode == "bm25":
            return recipe
        chosen = self.encoder.named_recipe(recipe)
        missing = [tap for tap in chosen.taps if tap not in self.recipe.taps]
        own, wanted = self.recipe.sentence, chosen.sentence
        if wanted is not None and (own is None or own.layer != wanted.layer):
            missing.append(f"sentence layer {wanted.layer}")
        indexed = self.encoder.layout(self.recipe).key_bytes
        heads = self.encoder.layout(chosen).key_bytes
        missing += [f"key head {head}" for head in heads if head not in indexed]
        if missing:
            raise CodebookError(
                f"Recipe {chosen.name!r} needs {missing[0]}, which is not indexed here (indexed: "
                f"{', '.join(self.recipe.taps) or 'no taps'}); create the index with that recipe."
            )
        return chosen


def document_ids(items: Any) -> list[str]:
    """The ids of documents that are given as ids, spans, results or documents.

    Raises:
        InputError: `items` or an item is of another type.
    """
    ids = []
    for item in check_items(items, "ids", (str, Span, DocumentResult, Document)):
        if isinstance(item, (Span, DocumentResult)):
            ids.append(item.document_id)
        else:
            ids.append(item.id if isinstance(item, Document) else check_string(item, "id"))
    return ids


class Opening(NamedTuple):
    """How an index was opened.

    Attributes:
        host: The host or its name; None for the one that the index names.
        codebook: The codebook or its name; None for the host's own.
        options: For `Host.load`.
    """

    host: str | Host | None
    codebook: str | Path | Codebook | None
    options: dict[str, Any]

    def named(self) -> Opening:
        """The same, valid in any process and working directory.

        Raises:
            HostError: The host cannot be loaded by name.
        """
        host, codebook, options = self
        if host is not None and not isinstance(host, str):
            host, loaded = host.named()
            # How much of it is loaded is for the codebook to say.
            options = {k: v for k, v in loaded.items() if k not in ("layers", "generates")}
        if isinstance(codebook, (str, Path)):
            codebook = lasting(str(codebook))
        return Opening(host and lasting(host), codebook, options)


def opened(
    store: Store,
    host: str | Host | None,
    codebook: str | Path | Codebook | None,
    host_options: dict[str, Any],
) -> tuple[Callable[[], Encoder], Recipe, Opening]:
    """What an index needs besides its store, from the manifest and as `S3Index.open` is asked.

    Returns:
        What loads the encoder, the recipe, and what opens the index again.

    Raises:
        S3Error: As `S3Index.open`.
    """
    origin = Origin.read(store)
    named, own_codebook = host is not None, codebook is not None
    host = origin.host if host is None else host_name(host)
    # The host and the codebook may be loaded later, from another working directory.
    if isinstance(host, str):
        host = lasting(host)
    if isinstance(codebook, (str, os.PathLike)):
        codebook = lasting(check_source(codebook, "codebook"))
    elif codebook is not None:
        from s3_retriever.codebook import Codebook

        check_type(codebook, Codebook, "codebook")
    # Such an index may be made with `LongContext(..., fallback="bm25")`, without a codebook.
    words_only = not origin.recipe.taps and origin.recipe.sentence is None
    if codebook is None and not words_only:
        # Where there is none any more, BM25 works; whatever needs the host raises this again.
        with suppress(CodebookError):
            codebook = codebook_name(host, origin.codebook_source)
    if codebook is not None:
        _check_codebook(store, origin, codebook)

    def load() -> Encoder:
        from s3_retriever.encoder import Encoder
        from s3_retriever.encoder.words import WordsEncoder

        options = host_options
        if isinstance(host, str):
            # The Hub is asked for what the user names, never for what the index names.
            shape = {"window": origin.window, "overlap": origin.overlap}
            options = shape | {"local_files_only": not named} | host_options
        if words_only:
            words = WordsEncoder(words_host(host, options))
            if words.identity == origin.codebook:
                return words
        book = find_codebook(
            host, codebook or origin.codebook_source, local_files_only=not own_codebook
        )
        book.check(origin.recipe)
        encoder = Encoder(shared_host(host, book, options), book)
        origin.check_codebook(store.path, encoder.identity)
        return encoder

    return load, origin.recipe, Opening(host, codebook, host_options)


def _open_again(path: str, host: str, codebook: Any, options: dict[str, Any]) -> S3Index:
    return S3Index.open(path, host, codebook=codebook, **options)


def new_store(
    path: Path | None,
    encoder: Encoder,
    recipe: Recipe,
    codebook: str | Path | Codebook | None,
) -> Store:
    """Make an empty store whose manifest says how it was made.

    Raises:
        IndexStoreError: `path` is in use, or it cannot be written.
    """
    origin = Origin.of(encoder, recipe, codebook)
    return Store.create(path, origin.model_dump(), TEXT_ANALYSIS)


def _check_codebook(store: Store, origin: Origin, codebook: str | Path | Codebook) -> None:
    """Check that a local codebook is the one that the index was made with; load no weights.

    Raises:
        IndexStoreError: It is another codebook.
        CodebookError: It cannot be read.
    """
    if not isinstance(codebook, (str, Path)):
        origin.check_codebook(store.path, codebook.identity)
    elif folder := local_folder(str(codebook)):
        origin.check_codebook(store.path, read_codebook_file(folder).identity)


def _reached(chunk: EncodedChunk, before: int) -> int:
    """The character of its document that a chunk reaches, after one that reached `before`."""
    if chunk.last:
        return len(chunk.document.text)
    return int(chunk.starts[-1]) if len(chunk.starts) else before


def _scanning_bar(
    documents: Iterable[Document | str] | Document | str, shown: bool
) -> AbstractContextManager[Bar]:
    """A bar of characters, with the time left unless the documents come from an iterator."""
    total = None
    if isinstance(documents, (str, Document)):
        documents = [documents]
    if isinstance(documents, (list, tuple)):
        total = sum(
            len(item.text if isinstance(item, Document) else item)
            for item in documents
            if isinstance(item, (Document, str))
        )
    return progress_bar(shown, total=total, unit="char", unit_scale=True, desc="Scanning")
