"""`S3Index`: the object that users hold."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import groupby
from pathlib import Path
from typing import Any, get_args

import numpy as np

from s3_retriever.codebook import Codebook
from s3_retriever.document import Document
from s3_retriever.encoder import Encoder, TokenFeatures
from s3_retriever.engine.hosting import find_codebook, shared_host
from s3_retriever.engine.identity import Identity
from s3_retriever.errors import CodebookError, IndexStoreError, InputError
from s3_retriever.host import Host
from s3_retriever.index import Store, TokenChunk, Verification
from s3_retriever.index.snapshot import Sentences
from s3_retriever.progress import Bar, progress_bar
from s3_retriever.recipe import Recipe
from s3_retriever.search import Explanation, Mode, Span, Where
from s3_retriever.search.explanation import explain
from s3_retriever.search.filtering import candidates
from s3_retriever.search.pipeline import rank_question
from s3_retriever.search.selection import Order, select


class Source:
    """Hands texts to the scan and keeps their documents until they have been scanned."""

    def __init__(self, documents: Iterable[Document | str]) -> None:
        self._documents = documents
        self._waiting: deque[Document] = deque()

    def texts(self) -> Iterator[tuple[str, str]]:
        """Titles and texts, as the scan asks for them.

        Raises:
            InputError: Something is neither a document nor a text.
        """
        for item in self._documents:
            document = Document(item) if isinstance(item, str) else item
            if not isinstance(document, Document):
                raise InputError(
                    f"A document is a Document or a string, not {type(item).__name__}."
                )
            self._waiting.append(document)
            yield document.title, document.text

    def take(self) -> Document:
        """The first document that was not taken yet."""
        return self._waiting.popleft()


def token_chunks(
    features: Iterable[TokenFeatures], document: Document, bar: Bar
) -> Iterator[TokenChunk]:
    """The tokens of one document; moves the progress bar by the characters they cover."""
    done = 0
    for found in features:
        reached = len(document.text) if found.last or not len(found.starts) else found.starts[-1]
        bar.update(int(reached) - done)
        done = int(reached)
        yield TokenChunk(found.starts.astype(np.uint32), found.features, found.codes)


def scanning_bar(documents: Iterable[Document | str], shown: bool) -> AbstractContextManager[Bar]:
    """A bar of characters; with the time left where all documents are at hand."""
    total = None
    if isinstance(documents, (list, tuple)):
        total = sum(
            len(item.text if isinstance(item, Document) else item)
            for item in documents
            if isinstance(item, (Document, str))
        )
    return progress_bar(shown, total=total, unit="char", unit_scale=True, desc="Scanning")


class S3Index:
    """An index of documents that its host model retrieves from.

    Make one with `S3Index.create`, open one with `S3Index.open`. It may be used as a context
    manager. Searches may run in several threads at once, also while documents are added; the
    host itself runs one batch at a time.

    Attributes:
        encoder: The host and its codebook.
        recipe: How documents are indexed and, where a search does not say otherwise, scored.
    """

    def __init__(self, store: Store, encoder: Encoder, recipe: Recipe) -> None:
        self._store = store
        self.encoder = encoder
        self.recipe = recipe

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
            path: Folder of the index, empty or not there yet. Left out, the index lives in a
                private temporary folder and vanishes with the object.
            host: `minilm`, a local folder, a model id on the Hugging Face Hub, or a loaded host.
            codebook: The host's codebook, or where it is; left out, the one shipped for the host
                or the one in the folder `s3-codebook` beside the model's files.
            recipe: `default` (what the codebook measures best), `paper`, or your own.
            host_options: For `Host.load`, such as `device="cuda"`.

        Raises:
            HostError: The host cannot be loaded.
            CodebookError: There is no codebook for the host, or it does not fit host or recipe.
            IndexStoreError: There is something at `path` already, or it cannot be written.
        """
        book = find_codebook(host, codebook)
        chosen = book.named_recipe(recipe)
        encoder = Encoder(shared_host(host, book, host_options), book)
        identity = Identity.of(encoder, chosen, codebook).model_dump()
        store = Store.create(None if path is None else Path(path), identity)
        return cls(store, encoder, chosen)

    @classmethod
    def open(
        cls,
        path: str | Path,
        host: str | Host | None = None,
        *,
        codebook: str | Path | Codebook | None = None,
        **host_options: Any,
    ) -> S3Index:
        """Open an index; a read-only folder will do for searching.

        Args:
            path: Folder of the index.
            host: The host, where it is to be found elsewhere than when the index was made.
            codebook: The codebook, likewise.
            host_options: For `Host.load`.

        Raises:
            IndexStoreError: There is no index at `path`, it is damaged, of a newer schema, or it
                was made with another host or codebook.
            HostError: The host cannot be loaded.
            CodebookError: There is no codebook for the host.
        """
        store = Store.open(Path(path))
        made_with = Identity.read(store)
        recipe = made_with.recipe
        host = host or made_with.host
        book = find_codebook(host, codebook or made_with.codebook_source)
        if (book.fingerprint, book.identity) != (made_with.fingerprint, made_with.codebook):
            raise IndexStoreError(
                f"The index at {path} was made with another codebook for host "
                f"{made_with.host!r}; open it with that one (codebook=...), or index the "
                "documents again."
            )
        if isinstance(host, str):
            host_options = {
                "window": made_with.window,
                "overlap": made_with.overlap,
            } | host_options
        return cls(store, Encoder(shared_host(host, book, host_options), book), recipe)

    def __enter__(self) -> S3Index:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Number of documents."""
        return self._store.snapshot().n_documents

    @property
    def path(self) -> Path:
        """Folder of the index."""
        return self._store.path

    def close(self) -> None:
        """Let go of the files. A temporary index is removed."""
        self._store.close()

    def ids(self) -> list[str]:
        """Ids of all documents, in the order they were added."""
        return self._store.snapshot().ids()

    def add(
        self,
        documents: Iterable[Document | str] | Document | str,
        *,
        replace: bool = False,
        progress: bool = True,
    ) -> list[str]:
        """Scan documents once and add them, all of them or, with an error, none.

        Args:
            documents: Documents or plain texts, any number, also from an iterator: they are read
                one at a time.
            replace: Whether a document takes the place of the one with its id; else a known id
                is an error.
            progress: Whether a bar shows rate and time left (only in a terminal).

        Returns:
            The documents' ids.

        Raises:
            InputError: A document is not usable or its id is taken.
            IndexStoreError: Another process is writing, or the disk refuses.
        """
        if isinstance(documents, (str, Document)):
            documents = [documents]
        if not isinstance(documents, Iterable):
            raise InputError(
                f"Documents are an iterable of Document or str, not {type(documents).__name__}."
            )
        book = self.encoder.codebook
        features, codes = book.feature_sizes(self.recipe), book.code_sizes(self.recipe)
        with (
            self._store.append(features, codes, replace=replace) as writer,
            scanning_bar(documents, progress) as bar,
        ):
            source = Source(documents)
            stream = self.encoder.documents(source.texts(), self.recipe)
            for _, chunks in groupby(stream, key=lambda found: found.document):
                document = source.take()
                writer.add(document, token_chunks(chunks, document, bar))
            return list(writer.ids)

    def delete(self, ids: str | Iterable[str], *, missing_ok: bool = False) -> int:
        """Delete documents; they are not found from then on.

        Args:
            ids: Ids of documents, or one.
            missing_ok: Whether ids that no document has are passed over; else they are an error.

        Returns:
            How many documents were deleted.

        Raises:
            InputError: There is no document of some id; then none is deleted.
            IndexStoreError: Another process is writing, or the disk refuses.
        """
        return self._store.delete([ids] if isinstance(ids, str) else ids, missing_ok=missing_ok)

    def compact(self) -> None:
        """Merge all segments into one and give the room of deleted documents back.

        Adding and deleting do as much as searches need on their own.

        Raises:
            IndexStoreError: Another process is writing, the disk refuses, or a file is damaged.
        """
        self._store.compact()

    def verify(self, *, progress: bool = True) -> Verification:
        """Read every file and compare it with its checksum.

        Args:
            progress: Whether a bar shows how far it is (only in a terminal).

        Returns:
            How much was read, and what lies about that is not part of the index.

        Raises:
            IndexStoreError: Files are missing or damaged; it names all of them.
        """
        return self._store.verify(progress=progress)

    def search(
        self,
        question: str,
        k: int | None = None,
        *,
        mode: Mode = "hybrid",
        token_budget: int | None = None,
        where: Where | None = None,
        order: Order = "score",
        unique: bool = True,
        recipe: str | Recipe | None = None,
    ) -> list[Span]:
        """Find the spans that answer a question.

        Args:
            question: Any text.
            k: Spans at most; 5 where neither `k` nor `token_budget` is given.
            mode: `s3` (co-activation of features), `bm25`, or `hybrid`, both fused.
            token_budget: Tokens of the host at most, all spans together.
            where: Metadata that documents must have, such as `{"year": 2024}`, or a function of
                a document's metadata. Applied before ranking.
            order: `score`, best first, or `document`, as in the documents.
            unique: Whether a sentence that is in the result already is passed over where it
                stands again, white space aside: in an overlapping chunk, say, or a copy of the
                document. Else every place counts.
            recipe: Score with another recipe than the index's own; its taps must be indexed.

        Returns:
            Spans that do not overlap; fewer than asked for where there are no more.

        Raises:
            InputError: The question is empty, a number is below 1, or a name is unknown.
            CodebookError: The recipe needs taps that the index does not have.
        """
        _check_search(question, k, token_budget, mode, order)
        if k is None and token_budget is None:
            k = 5
        chosen = self._recipe(recipe)
        snapshot = self._store.snapshot()
        allowed = candidates(Sentences.of(snapshot), where)
        if not allowed.any():
            return []
        ranking = rank_question(self.encoder, snapshot, question, chosen, mode, allowed).ranking
        return select(ranking, chosen, k=k, token_budget=token_budget, order=order, unique=unique)

    def explain(
        self, question: str, span: Span, *, recipe: str | Recipe | None = None
    ) -> Explanation:
        """Say which signals, features and terms put a span where it is in mode `hybrid`.

        Args:
            question: The question it was found for.
            span: A span of this index.
            recipe: The recipe it was found with, where it was not the index's own.

        Raises:
            InputError: The question is empty, or the span is not of this index as it is now.
        """
        _check_search(question, 1, None, "hybrid", "score")
        chosen = self._recipe(recipe)
        snapshot = self._store.snapshot()
        allowed = candidates(Sentences.of(snapshot), None)
        ranking, hop, features = rank_question(
            self.encoder, snapshot, question, chosen, "hybrid", allowed
        )
        ranges = self.encoder.host.tokenizer.split(question)
        tokens = [question[start:end] for start, end in ranges]
        return explain(snapshot, tokens, features, ranking, hop, span, chosen)

    def stats(self) -> dict[str, Any]:
        """Sizes and settings, as JSON values."""
        manifest, snapshot = self._store.manifest, self._store.snapshot()
        return {
            "path": str(self.path),
            "host": manifest.codebook["host"],
            "codebook": manifest.codebook["codebook"],
            "recipe": self.recipe.model_dump(),
            "schema": manifest.schema_version,
            "generation": manifest.generation,
            "documents": snapshot.n_documents,
            "sentences": snapshot.n_sentences,
            "tokens": snapshot.n_tokens,
            "segments": len(manifest.segments),
            "bytes": sum(
                file.bytes for segment in manifest.segments for file in segment.files.values()
            ),
        }

    def _recipe(self, recipe: str | Recipe | None) -> Recipe:
        if recipe is None:
            return self.recipe
        chosen = self.encoder.codebook.named_recipe(recipe)
        indexed = self.recipe.tap_names
        missing = [tap for tap in chosen.tap_names if tap not in indexed]
        if missing:
            raise CodebookError(
                f"Recipe {chosen.name!r} needs the tap {missing[0]}, which is not indexed here "
                f"(indexed: {', '.join(indexed)}); create the index with that recipe."
            )
        return chosen


def _check_search(
    question: str, k: int | None, token_budget: int | None, mode: str, order: str
) -> None:
    if not isinstance(question, str) or not question.strip():
        raise InputError("The question is empty; ask something.")
    if not question.isprintable() and any("\ud800" <= c <= "\udfff" for c in question):
        raise InputError(
            "The question has a lone surrogate, which is no Unicode text; decode its source "
            "with errors='replace'."
        )
    for name, value in (("k", k), ("token_budget", token_budget)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise InputError(f"{name} must be a whole number of at least 1, not {value!r}.")
    for name, choice, choices in (("mode", mode, Mode), ("order", order, Order)):
        if choice not in get_args(choices):
            raise InputError(f"{name} is one of {', '.join(get_args(choices))}, not {choice!r}.")
