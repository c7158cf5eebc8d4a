"""What agents do with indexes: search them, read around a place, list documents.

The models of arguments and results are what an agent is shown as JSON schemas; `as_text`
of a result is how a model reads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from s3_retriever.document import Document, title_of
from s3_retriever.errors import InputError
from s3_retriever.files import offset, place, split_place
from s3_retriever.printable import one_line, printable
from s3_retriever.types import shown

if TYPE_CHECKING:
    from s3_retriever.engine import S3Index
    from s3_retriever.index import Snapshot
    from s3_retriever.search import Span

# Lengths in characters: of names as texts show them, and of what metadata a result carries.
_NAME = 200
_METADATA = 2_000
# How far the ends of a passage move back to a line break or a blank.
_SLACK = 200
# Digits of the offsets in the id of a span.
_DIGITS = 12

_Index = Field(
    default=None, max_length=1_000, description="Name of an index; by default all of them."
)


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SearchArguments(_Arguments):
    """Arguments of `search`."""

    question: str = Field(
        min_length=1,
        max_length=4_000,
        description="What you want to know, as a full question in natural language.",
    )
    token_budget: int = Field(
        default=512,
        ge=1,
        le=8_192,
        description="Most tokens of all evidence together. Raise it for questions whose answer is "
        "spread over several documents.",
    )
    where: dict[str, Any] | None = Field(
        default=None,
        description='Metadata that documents must have, such as {"year": 2024} or '
        '{"path": {"$contains": "api/"}}. Operators: $eq $ne $gt $gte $lt $lte $in $nin $contains '
        "$icontains $not_contains $exists $and $or $not; $ids lists ids of documents.",
    )
    index: str | None = _Index


class ReadArguments(_Arguments):
    """Arguments of `read`."""

    place: str = Field(
        min_length=1,
        max_length=5_000,
        description="A citation such as handbook.md:12, the id of a span, or the id of a document.",
    )
    characters: int = Field(default=4_000, ge=1, le=20_000, description="Most characters to read.")
    start: int | None = Field(
        default=None,
        ge=0,
        description="Read from this character of the document on, to go on where an earlier "
        "result ended. By default the passage has the place in its middle.",
    )
    index: str | None = _Index


class ListArguments(_Arguments):
    """Arguments of `list`."""

    prefix: str = Field(
        default="",
        max_length=5_000,
        description="Only ids that begin with this, such as docs/api/.",
    )
    offset: int = Field(default=0, ge=0, description="How many documents to skip.")
    limit: int = Field(default=100, ge=1, le=500, description="Most documents to list.")
    index: str | None = _Index


class EvidenceSpan(BaseModel):
    """A span of a document, word for word."""

    citation: str = Field(description="Where it is; cite it as [citation], and read takes it.")
    id: str = Field(description="The span's id: the document's id, its start and its end.")
    index: str
    document_id: str
    title: str
    start: int = Field(description="Offset of its first character in the document.")
    end: int
    relevance: float = Field(description="How sure it is to be more than chance, 0 to 1.")
    tokens: int
    text: str


class Evidence(BaseModel):
    """The result of `search`: spans, best first."""

    spans: list[EvidenceSpan]

    def as_text(self, *, several: bool) -> str:
        """Citations, each with its span indented below it.

        Args:
            several: Whether there are several indexes, which the citations then name.
        """
        if not self.spans:
            return "Nothing found. Ask in other words, or use list to see what there is."
        return "\n".join(
            f"{_cited(span.citation, span.index if several else '')}\n{_indented(span.text)}"
            for span in self.spans
        )


class Passage(BaseModel):
    """The result of `read`: a part of a document."""

    citation: str = Field(description="Where the passage begins; cite it as [citation].")
    index: str
    document_id: str
    title: str
    start: int = Field(description="Offset of the passage's first character in the document.")
    end: int
    length: int = Field(description="Characters of the whole document.")
    next_start: int | None = Field(description="Pass it as start to read on; null at the end.")
    metadata: dict[str, Any] = Field(description="The document's metadata, unless it is long.")
    text: str

    def as_text(self, *, several: bool) -> str:
        """The passage, indented, below where it is from and how to read on."""
        where = f"characters {self.start:,} to {self.end:,} of {self.length:,}"
        more = "" if self.next_start is None else f"; read on with start={self.next_start}"
        cited = _cited(self.citation, self.index if several else "")
        return f"{cited} {where}{more}\n{_indented(self.text)}"


class ListedDocument(BaseModel):
    """A document in a list."""

    id: str
    index: str
    title: str
    characters: int


class Listing(BaseModel):
    """The result of `list`: documents in the order they were added."""

    documents: list[ListedDocument]
    total: int = Field(description="How many documents match in all.")
    next_offset: int | None = Field(description="Pass it as offset for more; null at the end.")

    def as_text(self, *, several: bool) -> str:
        """Ids, one in a line."""
        lines = [
            _name(document.id) + (f" ({document.index})" if several else "")
            for document in self.documents
        ]
        more = "" if self.next_offset is None else f"; more with offset={self.next_offset}"
        return "\n".join([f"{self.total} documents{more}", *lines])


class Tools:
    """The tools over one or several indexes, which other processes may change meanwhile.

    Args:
        indexes: The indexes by name.

    Attributes:
        indexes: The indexes by name.
    """

    def __init__(self, indexes: Mapping[str, S3Index]) -> None:
        self.indexes = dict(indexes)

    def search(self, arguments: SearchArguments) -> Evidence:
        """Find evidence in all indexes or the one that is named.

        Spans of several indexes are ordered by relevance.

        Raises:
            S3Error: The arguments cannot be used, or an index or its host cannot be read.
        """
        budget = arguments.token_budget
        found = [
            span for name in self._names(arguments.index) for span in self._search(name, arguments)
        ]
        if len(self.indexes) > 1:
            found.sort(key=lambda span: -span.relevance)
        kept = []
        for span in found:
            if span.tokens <= budget:
                budget -= span.tokens
                kept.append(span)
        return Evidence(spans=kept)

    def _search(self, name: str, arguments: SearchArguments) -> Iterator[EvidenceSpan]:
        index = self.indexes[name]
        spans = index.search(
            arguments.question, token_budget=arguments.token_budget, where=arguments.where
        )
        snapshot = index._store.snapshot()
        for span in spans:
            yield EvidenceSpan(
                citation=_citation(span, snapshot),
                id=span.id,
                index=name,
                document_id=span.document_id,
                title=title_of(span.metadata),
                start=span.start,
                end=span.end,
                relevance=span.relevance,
                tokens=span.tokens,
                text=span.text,
            )

    def read(self, arguments: ReadArguments) -> Passage:
        """Read a document around a place.

        Raises:
            S3Error: There is no such place, or it is in several indexes.
        """
        name, document, (start, end) = self._find(arguments.place, arguments.index)
        text, limit = document.text, arguments.characters
        slack = min(_SLACK, limit // 4)
        if arguments.start is not None:
            begin = min(arguments.start, len(text))
        else:
            begin = _boundary(text, max(0, start - max(0, limit - (end - start)) // 2), slack)
        stop = begin + limit
        stop = _boundary(text, stop, slack) if stop < len(text) else len(text)
        metadata = dict(document.metadata)
        if len(json.dumps(metadata)) > _METADATA:
            metadata = {}
        return Passage(
            citation=place(document.metadata, text, begin) or document.id,
            index=name,
            document_id=document.id,
            title=document.title,
            start=begin,
            end=stop,
            length=len(text),
            next_start=stop if stop < len(text) else None,
            metadata=metadata,
            text=text[begin:stop],
        )

    def list_documents(self, arguments: ListArguments) -> Listing:
        """List documents, of all indexes one after another.

        Raises:
            S3Error: An index is unknown or cannot be read.
        """
        first, last = arguments.offset, arguments.offset + arguments.limit
        total, listed = 0, []
        for name in self._names(arguments.index):
            snapshot = self.indexes[name]._store.snapshot()
            ids = [key for key in snapshot.ids() if key.startswith(arguments.prefix)]
            for key in ids[max(first - total, 0) : max(last - total, 0)]:
                entry = snapshot.find(key)
                assert entry is not None
                row = entry[0].document(entry[1])
                listed.append(
                    ListedDocument(
                        id=key,
                        index=name,
                        title=title_of(row.metadata),
                        characters=row.characters,
                    )
                )
            total += len(ids)
        return Listing(documents=listed, total=total, next_offset=last if last < total else None)

    def document(self, name: str, document_id: str) -> Document:
        """A document by its exact id.

        Raises:
            S3Error: The index or the document is unknown.
        """
        [known] = self._names(name)
        return self.indexes[known].get(document_id)

    def _names(self, name: str | None) -> list[str]:
        """The indexes that an argument means."""
        if name is None:
            return list(self.indexes)
        if name not in self.indexes:
            known = ", ".join(self.indexes)
            raise InputError(f"There is no index {shown(name)}; name one of: {known}.")
        return [name]

    def _find(self, where: str, index: str | None) -> tuple[str, Document, tuple[int, int]]:
        """The index and document of a place, and the characters that it means."""
        found: list[tuple[str, Document]] = []
        # A model may copy a citation with its brackets, and an id may have brackets of its own.
        for written in dict.fromkeys([where, where.removeprefix("[").removesuffix("]")]):
            for name in self._names(index):
                document_id = _document_at(self.indexes[name], written)
                if document_id is not None:
                    found.append((name, self.indexes[name].get(document_id)))
            if found:
                break
        else:
            raise InputError(
                f"There is no document {shown(where)}; take a citation or an id that search or "
                "list returned."
            )
        if len(found) > 1:
            names = ", ".join(name for name, _ in found)
            raise InputError(f"{shown(where)} is in several indexes; set index to one of: {names}.")
        [(name, document)] = found
        return name, document, _range(document, written)


def _document_at(index: S3Index, where: str) -> str | None:
    """The id of the document that an id, a span's id or a citation names."""
    snapshot = index._store.snapshot()
    path, number = split_place(where)
    for name in (where, path, f"{path}#{number}"):
        document_id = snapshot.named(name)
        if document_id is not None:
            return document_id
    # Records may have ids of their own, which their citations do not name.
    for segment in snapshot.segments:
        for ordinal in segment.live_documents().tolist():
            metadata = segment.metadata(ordinal)
            if metadata.get("path") == path and metadata.get("line") == number:
                known: str = segment.ids()[ordinal]
                return known
    return None


def _range(document: Document, where: str) -> tuple[int, int]:
    """The characters of a document that a place means: a span's, else where it begins."""
    if where == document.id:
        return 0, 0
    start, dash, end = where.removeprefix(f"{document.id}:").partition("-")
    if dash and all(part.isdecimal() and len(part) <= _DIGITS for part in (start, end)):
        begin = min(int(start), len(document.text))
        return begin, min(max(int(end), begin), len(document.text))
    _, number = split_place(where)
    begin = 0 if number is None else offset(document.metadata, document.text, number)
    return begin, begin


def _boundary(text: str, at: int, slack: int) -> int:
    """The nearest start of a line, else of a word, at most `slack` characters before `at`."""
    for separator in ("\n", " "):
        found = text.rfind(separator, at - min(slack, at), at)
        if found >= 0:
            return found + 1
    return at


def _citation(span: Span, snapshot: Snapshot) -> str:
    """Where a span is: file and line, page or cell; for documents from elsewhere, its id."""
    entry = snapshot.find(span.document_id)
    text = entry[0].document_text(entry[1]) if entry else ""
    return place(span.metadata, text, span.start) or span.id


def _cited(citation: str, index: str) -> str:
    return f"[{_name(citation)}]" + (f" ({index})" if index else "")


def _name(name: str) -> str:
    """A name on one line and in bounded length."""
    line = one_line(printable(name))
    return line if len(line) <= _NAME else f"{line[:_NAME]}..."


def _indented(text: str) -> str:
    """A document's text, which cannot be taken for what is around it."""
    lines = printable(text.replace("\r\n", "\n")).split("\n")
    return "\n".join(f"  {line}" for line in lines)
