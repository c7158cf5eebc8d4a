"""What travels between server and clients, as JSON: requests with their limits, and responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from s3_retriever.document import Document, title_of
from s3_retriever.errors import InputError
from s3_retriever.recipe import Recipe
from s3_retriever.search import DocumentResult, Explanation, Firings, Heat, Span
from s3_retriever.search.explanation import AttentionShare, FeatureShare, TermShare, TokenScore
from s3_retriever.search.heat import Firing, HeatFeature
from s3_retriever.types import (
    DEFAULT_CONTEXT,
    ContextForm,
    Contribution,
    GroupBy,
    Mode,
    Order,
    Source,
    Unit,
)

if TYPE_CHECKING:
    from s3_retriever.answer import Citation
    from s3_retriever.engine import S3Index

# Characters of a question; more than any host reads at once.
MAX_QUESTION = 16_384
# Spans of a search; more than a reader of any kind uses.
MAX_SPANS = 10_000
MAX_TOKENS = 1_000_000
# Ids and documents of one request.
MAX_ITEMS = 10_000
MAX_ID = 4_096
# Sentences in which a feature fires.
MAX_FIRINGS = 200
# Sentences that a language model reads again, which takes seconds.
MAX_RERANKED = 128

Question = Annotated[str, Field(min_length=1, max_length=MAX_QUESTION)]
Id = Annotated[str, Field(min_length=1, max_length=MAX_ID)]
# A document's id, and two offsets of a few digits.
SpanId = Annotated[str, Field(min_length=1, max_length=MAX_ID + 40)]
Share = Annotated[float, Field(ge=0, le=1)]
RecipeChoice = Annotated[str, Field(max_length=100)] | Recipe
Filter = dict[str, Any]
Offsets = Annotated[list[int], Field(min_length=2, max_length=2)]
Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
Reranked = Annotated[int, Field(ge=1, le=MAX_RERANKED)]


def check_token(token: str) -> str:
    """Check that a token can be sent in a header.

    Raises:
        InputError: It is empty, or has spaces or characters beyond ASCII.
    """
    if not token or not all("!" <= char <= "~" for char in token):
        raise InputError(
            "A token consists of visible ASCII characters without spaces; make one, for example, "
            "with: openssl rand -hex 32"
        )
    return token


def without_paths(message: str, indexes: Mapping[str, S3Index]) -> str:
    """A message as clients see it: where indexes are on the server is not for them."""
    for name, index in indexes.items():
        for place in (index.url, index.path):
            if place is not None:
                message = message.replace(str(place), name)
    return message


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class SearchRequest(_Request):
    """A search; the fields are the arguments of `S3Index.search`."""

    question: Question
    k: Annotated[int, Field(ge=1, le=MAX_SPANS)] | None = None
    mode: Mode = "hybrid"
    token_budget: Tokens | None = None
    min_relevance: Share | None = None
    where: Filter | None = None
    order: Order = "score"
    unique: bool = True
    recipe: RecipeChoice | None = None
    group_by: GroupBy | None = None
    spans_per_document: Annotated[int, Field(ge=1, le=MAX_SPANS)] | None = None
    context: ContextForm = DEFAULT_CONTEXT
    rerank: Reranked | None = None


class ExplainRequest(_Request):
    """A question and the id of a span that it found."""

    question: Question
    span_id: SpanId
    recipe: RecipeChoice | None = None
    rerank: Reranked | None = None


class HeatRequest(_Request):
    """A question and the document whose tokens are scored."""

    question: Question
    document_id: Id
    recipe: RecipeChoice | None = None


class FiringsRequest(_Request):
    """A feature, and how many of the sentences in which it fires are wanted."""

    tap: Annotated[str, Field(max_length=100)]
    feature: Annotated[int, Field(ge=0, le=2**31)]
    limit: Annotated[int, Field(ge=1, le=MAX_FIRINGS)] = 20


class ReadRequest(_Request):
    """The id of a document to read."""

    document_id: Id


class AnswerRequest(_Request):
    """A question to answer; the fields are the arguments of `ScannedContext.stream`."""

    question: Question
    mode: Mode = "hybrid"
    token_budget: Tokens | None = None
    min_relevance: Share | None = None
    where: Filter | None = None
    max_new_tokens: Annotated[int, Field(ge=1, le=4_096)] = 256
    context: ContextForm | None = None


class NewDocument(_Request):
    """A document to add; without an id it is named by a hash of text and metadata."""

    text: str
    id: Annotated[str, Field(max_length=MAX_ID)] = ""
    metadata: dict[str, Any] = {}
    unit: Unit = "sentence"

    def document(self) -> Document:
        """The document.

        Raises:
            InputError: Its text, id or metadata cannot be used.
        """
        return Document(self.text, self.id, self.metadata, self.unit)


class AddRequest(_Request):
    """Documents to add in one commit."""

    documents: Annotated[list[NewDocument], Field(max_length=MAX_ITEMS)]
    replace: bool = False


class PutRequest(_Request):
    """A document to put in the place of one with the same id, if there is one."""

    text: str
    metadata: dict[str, Any] = {}
    unit: Unit = "sentence"


class DeleteRequest(_Request):
    """Ids of documents to delete in one commit."""

    ids: Annotated[list[Id], Field(max_length=MAX_ITEMS)]
    missing_ok: bool = False


class SpanOut(BaseModel):
    """A span: all fields of `s3_retriever.Span`, its id and its document's title."""

    id: str
    document_id: str
    title: str
    start: int
    end: int
    text: str
    score: float
    relevance: float
    sources: tuple[Source, ...]
    tokens: int
    metadata: Mapping[str, Any]
    contributions: Mapping[Contribution, float] = {}
    bridge: str | None = None

    @classmethod
    def of(cls, span: Span) -> SpanOut:
        """A span as it is sent."""
        fields = {name: getattr(span, name) for name in _SPAN_FIELDS}
        return cls.model_construct(id=span.id, title=title_of(span.metadata), **fields)

    def span(self) -> Span:
        """The span as `S3Index.search` returns it."""
        return Span(**{name: getattr(self, name) for name in _SPAN_FIELDS})


_SPAN_FIELDS = tuple(name for name in SpanOut.model_fields if name not in ("id", "title"))


class DocumentResultOut(BaseModel):
    """All fields of `s3_retriever.DocumentResult`."""

    document_id: str
    title: str
    score: float
    relevance: float
    metadata: Mapping[str, Any]
    spans: list[SpanOut]

    @classmethod
    def of(cls, result: DocumentResult) -> DocumentResultOut:
        """A document as it is sent."""
        fields = {name: getattr(result, name) for name in _RESULT_FIELDS}
        return cls.model_construct(spans=[SpanOut.of(span) for span in result.spans], **fields)

    def result(self) -> DocumentResult:
        """The document as `S3Index.search` returns it."""
        fields = {name: getattr(self, name) for name in _RESULT_FIELDS}
        return DocumentResult(spans=tuple(each.span() for each in self.spans), **fields)


_RESULT_FIELDS = tuple(name for name in DocumentResultOut.model_fields if name != "spans")


class SearchResponse(BaseModel):
    """What a search found: spans, or with `group_by` documents and no other spans than theirs."""

    spans: list[SpanOut]
    took_ms: float
    documents: list[DocumentResultOut] | None = None

    @classmethod
    def of(
        cls, found: Sequence[Span] | Sequence[DocumentResult], grouped: bool, took_ms: float
    ) -> SearchResponse:
        """Results as they are sent.

        Args:
            found: The results.
            grouped: Whether they are documents.
            took_ms: How long the search took.
        """
        spans = [SpanOut.of(each) for each in found if isinstance(each, Span)]
        documents = [DocumentResultOut.of(each) for each in found if not isinstance(each, Span)]
        return cls.model_construct(
            spans=spans, documents=documents if grouped else None, took_ms=took_ms
        )


class ExplanationOut(BaseModel):
    """All fields of `s3_retriever.Explanation`."""

    span: SpanOut
    contributions: Mapping[str, float]
    bridge: SpanOut | None
    features: tuple[FeatureShare, ...]
    terms: tuple[TermShare, ...]
    attention: tuple[AttentionShare, ...]
    tokens: tuple[TokenScore, ...]

    @classmethod
    def of(cls, explanation: Explanation) -> ExplanationOut:
        """An explanation as it is sent."""
        bridge = explanation.bridge
        fields = {name: getattr(explanation, name) for name in _EXPLANATION_FIELDS}
        return cls.model_construct(
            span=SpanOut.of(explanation.span),
            bridge=None if bridge is None else SpanOut.of(bridge),
            **fields,
        )

    def explanation(self) -> Explanation:
        """The explanation as `S3Index.explain` returns it."""
        fields = {name: getattr(self, name) for name in _EXPLANATION_FIELDS}
        bridge = None if self.bridge is None else self.bridge.span()
        return Explanation(span=self.span.span(), bridge=bridge, **fields)


_EXPLANATION_FIELDS = tuple(
    name for name in ExplanationOut.model_fields if name not in ("span", "bridge")
)


class HeatOut(BaseModel):
    """All fields of `s3_retriever.Heat`; scores have four significant digits."""

    tokens: list[Offsets]
    scores: Mapping[str, list[float]]
    features: tuple[HeatFeature, ...]

    @classmethod
    def of(cls, heat: Heat) -> HeatOut:
        """A heat map as it is sent."""
        scores = {
            source: [float(f"{score:.4g}") for score in values.tolist()]
            for source, values in heat.scores.items()
        }
        return cls.model_construct(
            tokens=heat.tokens.tolist(), scores=scores, features=heat.features
        )

    def heat(self) -> Heat:
        """The heat map as `S3Index.heat` returns it."""
        tokens = np.array(self.tokens, np.int64).reshape(-1, 2)
        scores = {source: np.array(values) for source, values in self.scores.items()}
        return Heat(tokens, scores, self.features)


class FiringsOut(BaseModel):
    """All fields of `s3_retriever.Firings`."""

    sentences: tuple[Firing, ...]
    total: int

    @classmethod
    def of(cls, firings: Firings) -> FiringsOut:
        """Where a feature fires, as it is sent."""
        return cls.model_construct(sentences=firings.sentences, total=firings.total)

    def firings(self) -> Firings:
        """Where a feature fires, as `S3Index.firings` returns it."""
        return Firings(self.sentences, self.total)


class CitationOut(BaseModel):
    """A sentence of an answer, by its place in the text, and a span that supports it."""

    start: int
    end: int
    span_id: str
    support: float

    @classmethod
    def of(cls, citation: Citation) -> CitationOut:
        """A citation as it is sent."""
        return cls.model_construct(
            start=citation.start,
            end=citation.end,
            span_id=citation.span.id,
            support=citation.support,
        )


class EvidenceEvent(BaseModel):
    """What an answer is written from."""

    spans: list[SpanOut]


class TokenEvent(BaseModel):
    """The next piece of an answer."""

    text: str


class AnswerEvent(BaseModel):
    """A whole answer; `found` is false if nothing in the index is relevant to the question."""

    text: str
    found: bool
    citations: list[CitationOut]


class ErrorEvent(BaseModel):
    """Why there is no answer."""

    message: str


class DocumentOut(BaseModel):
    """A document as it is in the index."""

    id: str
    text: str
    metadata: Mapping[str, Any]

    @classmethod
    def of(cls, document: Document) -> DocumentOut:
        """A document as it is sent."""
        return cls.model_construct(id=document.id, text=document.text, metadata=document.metadata)

    def document(self) -> Document:
        """The document as `S3Index.get` returns it."""
        return Document(self.text, self.id, self.metadata)


class IdsResponse(BaseModel):
    """Ids of documents, in the order of the request."""

    ids: list[str]


class DocumentsResponse(BaseModel):
    """A page of the ids of an index, in the order they were added, and how many there are.

    If it was asked for, with the documents' metadata.
    """

    ids: list[str]
    total: int
    metadata: list[Mapping[str, Any]] | None = None


class DeleteResponse(BaseModel):
    """How many documents were deleted."""

    deleted: int


class IndexOut(BaseModel):
    """An index and what can be asked of it."""

    name: str
    documents: int
    tokens: int
    host: str
    recipe: str
    recipes: list[str]
    modes: list[Mode]
    answers: bool
    writable: bool


class IndexesResponse(BaseModel):
    """All indexes of a server."""

    indexes: list[IndexOut]


class ErrorOut(BaseModel):
    """What was wrong: the name of the error's class, and one sentence."""

    type: str
    message: str


class ErrorResponse(BaseModel):
    """The body of every response that is an error."""

    error: ErrorOut
