"""`SegmentWriter`: makes a segment from encoded documents or from those of other segments."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from s3_retriever.document import Document
from s3_retriever.errors import IndexStoreError, InputError
from s3_retriever.features import EncodedChunk, Layout
from s3_retriever.index import postings as postings_writer
from s3_retriever.index import tables
from s3_retriever.index.documents import DocumentsWriter
from s3_retriever.index.lexical import LexicalWriter
from s3_retriever.index.manifest import SegmentEntry
from s3_retriever.index.postings import PostingsWriter
from s3_retriever.index.segment import Segment
from s3_retriever.index.storage import ArrayWriter, FileWriter, Folder
from s3_retriever.progress import Bar


class SegmentWriter:
    """Writes a segment, in memory bounded by one block of postings.

    After an error the segment cannot be finished, only aborted.

    Args:
        folder: The segment's folder, which must not exist yet.
        layout: What the segment keeps of each token and sentence.
        taken: Whether an id is already taken; by default none is.

    Raises:
        IndexStoreError: From every method: a file cannot be written.
    """

    def __init__(
        self,
        folder: Folder,
        layout: Layout,
        taken: Callable[[str], bool] | None = None,
    ) -> None:
        self._folder = folder
        self._layout = layout
        self._taken = taken or (lambda _: False)
        self._ids: dict[str, None] = {}
        self._languages: set[str] = set()
        self._document: _OpenDocument | None = None
        self._failed = self._finished = False
        self._tokens = ArrayWriter(folder, tables.TOKENS_FILE, tables.TOKEN)
        self._sentences = tables.TableWriter(folder, tables.SENTENCES_FILE, tables.SENTENCE)
        self._documents = DocumentsWriter(folder)
        self._lexical = LexicalWriter(folder)
        self._taps = [PostingsWriter(folder, tap, n) for tap, n in layout.features.items()]
        self._keys = {
            head: ArrayWriter(folder, tables.keys_file(head), np.uint8, (size,))
            for head, size in layout.key_bytes.items()
        }
        self._vectors = (
            ArrayWriter(folder, tables.VECTORS_FILE, np.uint8, (layout.vector_bytes,))
            if layout.vector_bytes
            else None
        )
        self._blocks = ArrayWriter(folder, tables.BLOCKS_FILE, tables.BLOCK)
        self._blocks.append(0)
        self._lengths: list[int] = []  # tokens of the sentences of the current block
        self._block_tokens = 0
        self._n_blocked = 0  # sentences in blocks that are written

    @property
    def ids(self) -> list[str]:
        """Ids of the documents that were added, not copied, in order."""
        return list(self._ids)

    @property
    def n_documents(self) -> int:
        """Number of documents so far."""
        return self._documents.count

    def add(self, chunk: EncodedChunk) -> None:
        """Add the next tokens of a document, or the first tokens of another.

        Args:
            chunk: Tokens and sentences; a document ends with the chunk that says `last`.

        Raises:
            InputError: The document's id is taken, or the chunk does not fit the document's text
                or the index.
            IndexStoreError: The document before this one is not complete.
        """
        document = self._document or self._begin(chunk.document)
        if self._failed or document.document != chunk.document:
            raise _interrupted()
        self._document, self._failed = document, True  # until all of the chunk is written
        self._check_tokens(chunk, document)
        self._check_sentences(chunk, document)
        self._append_tokens(chunk.starts, chunk.features, chunk.keys)
        self._languages.add(chunk.language)
        for sentence, terms in zip(chunk.sentences, chunk.terms, strict=True):
            begin = document.text.advance(sentence.start)
            self._lexical.append(self._sentences.count, terms)
            self._sentences.add(
                document.sentence_token,
                begin,
                document.text.advance(sentence.end) - begin,
                sentence.n_tokens,
                self._documents.count,
                sentence.start,
                sentence.end,
                sum(terms.values()),
                document.text.crc32,
            )
            document.sentence_token += sentence.n_tokens
            document.character = sentence.end
            self._put_in_block(sentence.n_tokens)
        if self._vectors is not None and chunk.vectors is not None:
            self._vectors.append(chunk.vectors)
        if len(chunk.starts):
            document.start = int(chunk.starts[-1])
        if chunk.last:
            self._end(document)
        self._failed = False

    def copy_live(
        self,
        segment: Segment,
        bar: Bar | None = None,
        chosen: NDArray[np.bool_] | None = None,
    ) -> None:
        """Copy the live documents of a segment, one block of postings at a time.

        Args:
            segment: A segment of the same layout.
            bar: Moves by the tokens of every block.
            chosen: Which of the segment's documents to copy if they are live, bool
                [n_documents]; all by default.

        Raises:
            IndexStoreError: The segment is damaged.
        """
        self._check_complete()
        self._languages.update(segment.entry.languages)
        ordinals, live = segment.live_documents(), segment.live_sentences
        if chosen is not None:
            ordinals = ordinals[chosen[ordinals]]
            sizes = segment.documents["n_sentences"].astype(np.int64)
            live = live & np.repeat(chosen, sizes)
        first_document, first_sentence = self._documents.count, self._sentences.count
        source = segment.documents_reader
        rows = self._documents.copy(source, ordinals, first_sentence, self._tokens.rows)
        new = np.zeros(segment.n_documents, dtype=np.int64)
        new[ordinals] = first_document + np.arange(len(ordinals))
        shift = np.zeros(segment.n_documents, dtype=np.int64)  # of the bytes of a text
        shift[ordinals] = rows["byte_start"].astype(np.int64) - source.table["byte_start"][
            ordinals
        ].astype(np.int64)
        for block in range(len(segment.blocks) - 1):
            self._copy_block(segment, block, live, new, shift)
            if bar is not None:
                first, end = segment.blocks[block : block + 2].tolist()
                bar.update(int(segment.sentence_tokens[first:end].sum()))
        numbers = np.cumsum(live) - 1 + first_sentence
        for sentences, terms, counts in segment.lexical_blocks():
            kept = live[sentences]
            self._lexical.extend(numbers[sentences[kept]], terms[kept], counts[kept])

    def close(self) -> SegmentEntry:
        """Finish the segment.

        Returns:
            The segment's entry for the manifest.

        Raises:
            IndexStoreError: A document is not complete.
        """
        self._check_complete()
        self._flush()
        for file in self._files():
            file.close()
        entry = SegmentEntry(
            name=self._folder.name,
            documents=self._documents.count,
            sentences=self._sentences.count,
            tokens=self._tokens.rows,
            features=dict(self._layout.features),
            vector_bytes=self._layout.vector_bytes,
            key_bytes=dict(self._layout.key_bytes),
            languages=tuple(sorted(self._languages)),
            files=self._folder.entries(),
        )
        self._finished = True
        return entry

    def abort(self) -> None:
        """Abandon the segment and remove its folder, unless it is finished."""
        if self._finished:
            return
        for file in self._files():
            file.abort()
        self._folder.remove()

    def _files(self) -> list[FileWriter | LexicalWriter | PostingsWriter | DocumentsWriter]:
        return [
            *self._taps,
            *self._keys.values(),
            *([self._vectors] if self._vectors else []),
            self._blocks,
            self._lexical,
            self._documents,
            self._sentences,
            self._tokens,
        ]

    def _check_complete(self) -> None:
        if self._failed or self._document is not None:
            raise _interrupted()

    def _begin(self, document: Document) -> _OpenDocument:
        if document.id in self._ids or self._taken(document.id):
            raise InputError(
                f"Document {document.id!r} was already added; give it another id, or replace it."
            )
        self._ids[document.id] = None
        return _OpenDocument(self._documents, document, self._sentences.count, self._tokens.rows)

    def _end(self, document: _OpenDocument) -> None:
        if document.sentence_token != self._tokens.rows:
            raise InputError(
                f"Document {document.document.id!r} has tokens that belong to no sentence; "
                "sentences must share out all tokens."
            )
        sentences = range(document.first_sentence, self._sentences.count)
        tokens = range(document.first_token, self._tokens.rows)
        self._documents.add(document.document, document.text, sentences, tokens)
        self._document = None

    def _append_tokens(
        self,
        starts: NDArray[np.uint32],
        features: Mapping[str, NDArray[np.int32]],
        keys: Mapping[str, NDArray[np.uint8]],
    ) -> None:
        for tap in self._taps:
            tap.append(features[tap.tap])
        for head, file in self._keys.items():
            file.append(keys[head])
        self._tokens.append(starts)

    def _copy_block(
        self,
        segment: Segment,
        block: int,
        live: NDArray[np.bool_],
        new: NDArray[np.int64],
        shift: NDArray[np.int64],
    ) -> None:
        """Copy the live sentences of a block of postings, with all that belongs to them."""
        first, end = segment.blocks[block : block + 2].tolist()
        kept = live[first:end]
        if not kept.any():
            return
        rows = segment.sentences[first:end]
        lengths = segment.sentence_tokens[first:end]
        kept_tokens = np.repeat(kept, lengths)
        start = int(rows[0]["first_token"])
        starts = segment.tokens(start, start + len(kept_tokens))[kept_tokens]
        token = self._tokens.rows
        features, heads = self._layout.features, self._layout.key_bytes
        self._append_tokens(
            starts,
            {tap: segment.block_features(tap, block)[kept_tokens] for tap in features},
            {h: segment.keys(h, start, start + len(kept_tokens))[kept_tokens] for h in heads},
        )
        if self._vectors is not None:
            self._vectors.append(segment.vectors(first, end)[kept])
        rows, lengths = rows[kept], lengths[kept]
        documents = rows["document"].astype(np.int64)
        rows["byte_start"] = rows["byte_start"].astype(np.int64) + shift[documents]
        rows["document"] = new[documents]
        rows["first_token"] = token + np.cumsum(lengths) - lengths
        self._sentences.extend(rows)
        for n_tokens in lengths.tolist():
            self._put_in_block(n_tokens)

    def _put_in_block(self, n_tokens: int) -> None:
        """Put a sentence into the current block, or into a new one if it does not fit."""
        if self._block_tokens + n_tokens > postings_writer.BLOCK_TOKENS:
            self._flush()
        self._lengths.append(n_tokens)
        self._block_tokens += n_tokens

    def _flush(self) -> None:
        if not self._lengths:
            return
        for tap in self._taps:
            tap.flush(self._lengths)
        self._n_blocked += len(self._lengths)
        self._blocks.append(self._n_blocked)
        self._lengths, self._block_tokens = [], 0

    def _check_tokens(self, chunk: EncodedChunk, document: _OpenDocument) -> None:
        """Refuse tokens that would make the segment unreadable."""
        starts = chunk.starts.astype(np.int64)
        if (np.diff(starts, prepend=document.start) < 0).any() or (
            starts > len(chunk.document.text)
        ).any():
            raise InputError(
                f"Tokens of document {chunk.document.id!r} are out of order or beyond its end; "
                "their starts must be ascending character positions of the text."
            )
        for tap in self._layout.features:
            rows = chunk.features.get(tap)
            if rows is None or rows.ndim != 2 or len(rows) != len(starts):
                raise InputError(
                    f"Tap {tap} has no row of features for each of {len(starts)} tokens of "
                    f"document {chunk.document.id!r}; give features of shape [tokens, k]."
                )
        for head, size in self._layout.key_bytes.items():
            keys = chunk.keys.get(head)
            if keys is None or keys.shape != (len(starts), size) or keys.dtype != np.uint8:
                raise InputError(
                    f"Head {head} has no key of {size} bytes for each of {len(starts)} tokens of "
                    f"document {chunk.document.id!r}; use the recipe and the codebook that the "
                    "index was made with."
                )

    def _check_sentences(self, chunk: EncodedChunk, document: _OpenDocument) -> None:
        character, left = document.character, self._tokens.rows - document.sentence_token
        left += len(chunk.starts)
        for start, end, n_tokens in chunk.sentences:
            left -= n_tokens
            if not character <= start < end <= len(chunk.document.text) or n_tokens < 1 or left < 0:
                raise InputError(
                    f"Sentences of document {chunk.document.id!r} are out of order, empty, or "
                    "have tokens that are not there; they must share out its tokens, in order."
                )
            character = end
        if len(chunk.terms) != len(chunk.sentences):
            raise InputError(
                f"Document {chunk.document.id!r} has {len(chunk.sentences)} sentences and the "
                f"terms of {len(chunk.terms)}; give terms for each sentence."
            )
        self._check_vectors(chunk)

    def _check_vectors(self, chunk: EncodedChunk) -> None:
        shape = None if chunk.vectors is None else chunk.vectors.shape
        dtype = None if chunk.vectors is None else chunk.vectors.dtype
        size = self._layout.vector_bytes
        wanted = (len(chunk.sentences), size) if size else None
        if shape != wanted or dtype not in (None, np.uint8):
            raise InputError(
                f"Sentence vectors of document {chunk.document.id!r} have shape {shape} and type "
                f"{dtype}, but this index takes uint8 of shape {wanted}; use the recipe and the "
                "codebook that it was made with."
            )


class _OpenDocument:
    """A document that is still being written.

    Attributes:
        text: Writes its text.
        first_sentence: Ordinal of its first sentence.
        first_token: Position of its first token.
        sentence_token: Position of the first token of its next sentence.
        character: Where its last sentence so far ends.
        start: Where its last token so far starts.
    """

    def __init__(
        self, documents: DocumentsWriter, document: Document, first_sentence: int, first_token: int
    ) -> None:
        self.document = document
        self.text = documents.text(document)
        self.first_sentence = first_sentence
        self.first_token = self.sentence_token = first_token
        self.character = self.start = 0


def _interrupted() -> IndexStoreError:
    return IndexStoreError("A document was interrupted by an error; add the documents again.")
