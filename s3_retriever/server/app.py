"""The HTTP interface: one route for each thing that can be asked of an index."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

from anyio import CapacityLimiter, Semaphore, to_thread
from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, PlainTextResponse, Response
from pydantic import BaseModel
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from s3_retriever.answer import ScannedContext
from s3_retriever.document import Document
from s3_retriever.engine import S3Index
from s3_retriever.errors import (
    CodebookError,
    HostError,
    IndexStoreError,
    InputError,
    S3Error,
    ServerError,
    brief,
)
from s3_retriever.host import Host
from s3_retriever.search import Span
from s3_retriever.server import wire
from s3_retriever.server.guard import LOOPBACK, Guard, Limits, error_response
from s3_retriever.server.metrics import Metrics
from s3_retriever.server.streaming import EventStream, answer_events
from s3_retriever.types import check_count

logger = logging.getLogger(__name__)

_PAGE = Path(__file__).parent / "page"
_KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
# The page's files by path: these and no others are read from the disk.
_PAGE_FILES = {
    "/" if path.name == "index.html" else f"/{path.name}": path
    for path in sorted(_PAGE.iterdir())
    if path.suffix in _KINDS
}
# What the page may load and do: its own files and this server's answers, nothing else.
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Paths that need no token: they show nothing of an index.
PUBLIC = frozenset({*_PAGE_FILES, "/health"})

# Answers that are written at once; others wait.
_ANSWERS = 4

_STATUS: dict[type[S3Error], int] = {
    InputError: 400,
    CodebookError: 400,
    IndexStoreError: 503,
    HostError: 503,
    ServerError: 503,
}

T = TypeVar("T")


@dataclass
class ServedIndex:
    """An index, and the threads that may work on it at once.

    Attributes:
        name: Its name in paths.
        index: The index.
        writable: Whether documents may be added and deleted.
        readers: Threads that search, shared by all indexes of a server.
        answers: Answers questions from the index; None if the server has no host that answers.
        answering: That host, which also takes a second look; None for the index's own.
        writer: The one thread that changes this index; further changes wait their turn.
    """

    name: str
    index: S3Index
    writable: bool
    readers: CapacityLimiter
    answers: ScannedContext | None = None
    answering: Host | None = None
    writer: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))

    async def read(self, work: Callable[[], BaseModel]) -> Response:
        """Run something that reads the index, as soon as a thread is free.

        The thread writes the result as JSON too: other requests do not wait for a large one.
        """
        content = await to_thread.run_sync(lambda: work().model_dump_json(), limiter=self.readers)
        return Response(content, media_type="application/json")

    async def write(self, work: Callable[[], T]) -> T:
        """Run something that changes the index, after the changes before it."""
        if not self.writable:
            raise HTTPException(403, f"The index {self.name!r} is served read-only.")
        return await to_thread.run_sync(work, limiter=self.writer)

    def reader(self, rerank: int | None) -> dict[str, Any]:
        """Arguments of a search that say which host takes the second look."""
        return {} if rerank is None else {"rerank_host": self.answering}

    @cached_property
    def recipes(self) -> list[str]:
        """The recipes that searches may name; none if the host cannot be loaded."""
        try:
            return self.index.recipe_names()
        except S3Error as error:
            logger.warning("Index %r can only be searched in mode bm25: %s", self.name, error)
            return []

    def listed(self) -> wire.IndexOut | S3Error:
        """What the list of indexes says of it, or why it cannot be read."""
        try:
            stats = self.index.stats()
        except S3Error as error:
            logger.warning("Index %r cannot be read: %s", self.name, error)
            return error
        return wire.IndexOut(
            name=self.name,
            documents=stats["documents"],
            tokens=stats["tokens"],
            host=Path(str(stats["host"])).name,
            recipe=self.index.recipe.name,
            recipes=self.recipes,
            modes=["hybrid", "s3", "bm25"] if self.recipes else ["bm25"],
            answers=self.answers is not None,
            writable=self.writable,
        )


async def _served(request: Request, index: str) -> ServedIndex:
    served: Mapping[str, ServedIndex] = request.app.state.indexes
    if index not in served:
        raise HTTPException(404, f"There is no index {brief(index)!r} here.")
    return served[index]


class _IdConvertor(PathConvertor):
    """The rest of a path: ids may have slashes and, other than paths of files, line breaks."""

    regex = r"[\s\S]*"


register_url_convertor("id", _IdConvertor())
Served = Annotated[ServedIndex, Depends(_served)]
router = APIRouter(prefix="/v1/indexes", responses={"4XX": {"model": wire.ErrorResponse}})


@router.get("")
async def list_indexes(request: Request) -> wire.IndexesResponse:
    """List the indexes of this server, without those that cannot be read any more."""
    served: Mapping[str, ServedIndex] = request.app.state.indexes
    found = [
        await to_thread.run_sync(each.listed, limiter=each.readers) for each in served.values()
    ]
    listed = [each for each in found if isinstance(each, wire.IndexOut)]
    problems = [each for each in found if isinstance(each, S3Error)]
    if problems and not listed:
        raise problems[0]
    return wire.IndexesResponse(indexes=listed)


@router.post("/{index}/search", response_model=wire.SearchResponse)
async def search(served: Served, body: wire.SearchRequest) -> Response:
    """Find the spans that answer a question, or the documents that have them."""
    wanted = dict(body) | served.reader(body.rerank)

    def work() -> wire.SearchResponse:
        began = time.perf_counter()
        found = served.index.search(**wanted)
        took = time.perf_counter() - began
        return wire.SearchResponse.of(found, body.group_by is not None, took * 1_000)

    return await served.read(work)


@router.post("/{index}/explain", response_model=wire.ExplanationOut)
async def explain(served: Served, body: wire.ExplainRequest) -> Response:
    """Say which signals, features and terms put a span where it is."""

    def work() -> wire.ExplanationOut:
        span = _span_of(served.index, body.span_id)
        look = served.reader(body.rerank)
        explanation = served.index.explain(
            body.question, span, recipe=body.recipe, rerank=body.rerank, **look
        )
        return wire.ExplanationOut.of(explanation)

    return await served.read(work)


@router.post("/{index}/heat", response_model=wire.HeatOut)
async def heat(served: Served, body: wire.HeatRequest) -> Response:
    """Score every token of a document: where the question's features fire."""
    return await served.read(lambda: wire.HeatOut.of(served.index.heat(**dict(body))))


@router.post("/{index}/firings", response_model=wire.FiringsOut)
async def firings(served: Served, body: wire.FiringsRequest) -> Response:
    """Find the sentences in which a feature fires, whatever the question."""
    return await served.read(lambda: wire.FiringsOut.of(served.index.firings(**dict(body))))


def _span_of(index: S3Index, span_id: str) -> Span:
    """The span with an id, without the score that a search gave it.

    Raises:
        InputError: There is none.
    """
    document_id, _, place = span_id.rpartition(":")
    start, _, end = place.partition("-")
    if not (start.isdecimal() and end.isdecimal() and document_id in index):
        raise InputError(
            f"The span {brief(span_id)} is not in this index; search again and explain a span of "
            "that search."
        )
    document = index.get(document_id)
    first, last = int(start[:12]), int(end[:12])
    text = document.text[first:last]
    return Span(text, 0.0, 0.0, document_id, first, last, (), document.metadata, 0)


@router.post("/{index}/answer", response_class=EventStream, status_code=200)
async def answer(request: Request, served: Served, body: wire.AnswerRequest) -> EventStream:
    """Answer a question from the index, as server-sent events.

    Events: `evidence` (`spans`), `token` (`text`, the next piece), `answer` (`text`, `found`,
    `citations`), or `error` (`message`).
    """
    if served.answers is None:
        raise HTTPException(404, "This server does not answer; it finds evidence. See --answers.")
    free: Semaphore = request.app.state.answering
    return EventStream(answer_events(served.answers, body, free, request.app.state.shown))


@router.get("/{index}/documents", response_model=wire.DocumentsResponse)
async def list_documents(
    served: Served,
    offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
    limit: Annotated[int, Query(ge=1, le=wire.MAX_ITEMS)] = 100,
    prefix: Annotated[str, Query(max_length=wire.MAX_ID)] = "",
    metadata: bool = False,
) -> Response:
    """List ids of documents, in the order they were added, and with `metadata` theirs."""

    def work() -> wire.DocumentsResponse:
        snapshot = served.index._store.snapshot()
        ids = snapshot.ids()
        if prefix:
            ids = [name for name in ids if name.startswith(prefix)]
        page = ids[offset : offset + limit]
        values = [snapshot.metadata(name) for name in page] if metadata else None
        return wire.DocumentsResponse(ids=page, total=len(ids), metadata=values)

    return await served.read(work)


@router.post("/{index}/documents")
async def add(served: Served, body: wire.AddRequest) -> wire.IdsResponse:
    """Add documents in one commit: all of them or, after an error, none."""

    def work() -> list[str]:
        documents = [each.document() for each in body.documents]
        return served.index.add(documents, replace=body.replace, progress=False)

    return wire.IdsResponse(ids=await served.write(work))


@router.get("/{index}/documents/{document_id:id}", response_model=wire.DocumentOut)
async def get(served: Served, document_id: str) -> Response:
    """Read a document."""

    def work() -> wire.DocumentOut:
        _check_known(served, document_id)
        return wire.DocumentOut.of(served.index.get(document_id))

    return await served.read(work)


@router.post("/{index}/read", response_model=wire.DocumentOut)
async def read(served: Served, body: wire.ReadRequest) -> Response:
    """Read a document whose id a browser cannot put into a path, as it cannot `.` and `..`."""
    return await get(served, body.document_id)


@router.put("/{index}/documents/{document_id:id}")
async def put(served: Served, document_id: str, body: wire.PutRequest) -> wire.IdsResponse:
    """Add a document, or replace the one with its id."""
    if not document_id:
        raise InputError("The document has no id; write it at the end of the path.")
    document = Document(body.text, document_id, body.metadata, body.unit)
    ids = await served.write(lambda: served.index.add(document, replace=True, progress=False))
    return wire.IdsResponse(ids=ids)


@router.delete("/{index}/documents/{document_id:id}")
async def delete(served: Served, document_id: str) -> wire.DeleteResponse:
    """Delete a document."""

    def work() -> int:
        _check_known(served, document_id)
        return served.index.delete(document_id, missing_ok=True)

    return wire.DeleteResponse(deleted=await served.write(work))


def _check_known(served: ServedIndex, document_id: str) -> None:
    if document_id not in served.index:
        raise HTTPException(404, f"There is no document {brief(document_id)!r} in this index.")


@router.post("/{index}/delete")
async def delete_many(served: Served, body: wire.DeleteRequest) -> wire.DeleteResponse:
    """Delete documents in one commit: all of them or, after an error, none."""
    deleted = await served.write(lambda: served.index.delete(body.ids, missing_ok=body.missing_ok))
    return wire.DeleteResponse(deleted=deleted)


async def _on_s3_error(request: Request, error: Exception) -> Response:
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
    message = request.app.state.shown(str(error))
    retry = {"Retry-After": "1"} if status == 503 else None
    return error_response(status, type(error).__name__, message, retry)


async def _on_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = "InputError" if error.status_code < 500 else "ServerError"
    return error_response(error.status_code, kind, error.detail, error.headers)


async def _on_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    problem = str(first["msg"]).removeprefix("Value error, ")
    return error_response(422, "InputError", brief(f"{where}: {problem}" if where else problem))


async def _on_failure(_: Request, error: Exception) -> Response:
    logger.error("A request failed.", exc_info=error)
    return error_response(500, "ServerError", "The server failed; its log says why.")


async def health() -> dict[str, str]:
    """Say that the server is up."""
    return {"status": "ok"}


async def show_metrics(request: Request) -> Response:
    """Count requests and sizes, for Prometheus."""
    text = await to_thread.run_sync(request.app.state.metrics.text)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _page_file(path: Path) -> Callable[[], Awaitable[Response]]:
    headers = {
        "Content-Security-Policy": _PAGE_POLICY,
        "Cache-Control": "no-cache",
        "Referrer-Policy": "no-referrer",
    }

    async def send() -> Response:
        return FileResponse(path, media_type=_KINDS[path.suffix], headers=headers)

    return send


def create_app(
    indexes: Mapping[str, S3Index],
    *,
    token: str | None = None,
    hosts: Collection[str] | None = LOOPBACK,
    origins: Collection[str] = (),
    answers: Host | None = None,
    read_only: bool = False,
    threads: int = 2,
    limits: Limits | None = None,
) -> FastAPI:
    """Make the application that serves indexes.

    Args:
        indexes: The indexes by the names that they have in paths.
        token: What clients have to send as a bearer token; None for no check.
        hosts: Names of this server that the header `Host` may have, without ports; None for any.
        origins: Origins such as `https://example.org` whose pages may send requests, besides the
            server's own; `*` for all.
        answers: The host that answers questions, loaded with `generates=True`.
        read_only: Whether documents can be neither added nor deleted.
        threads: Searches that run at once.
        limits: What clients may use; None for the defaults.

    Raises:
        HostError: The answering host cannot generate.
        InputError: The token cannot be sent in a header, or an index has a name that cannot be
            part of a path.
    """
    for name in indexes:
        check_name(name)
    app = FastAPI(title="s3-retriever", docs_url=None, redoc_url=None, redirect_slashes=False)
    readers = CapacityLimiter(check_count(threads, "threads"))
    app.state.indexes = {
        name: ServedIndex(
            name,
            index,
            not read_only and index.url is None,
            readers,
            None if answers is None else ScannedContext.of_index(index, answers),
            answers,
        )
        for name, index in indexes.items()
    }
    app.state.shown = partial(wire.without_paths, indexes=indexes)
    app.state.answering = Semaphore(_ANSWERS)
    metrics = app.state.metrics = Metrics(indexes)
    app.include_router(router)
    app.get("/health")(health)
    app.get("/metrics", response_class=PlainTextResponse)(show_metrics)
    for path, file in _PAGE_FILES.items():
        app.get(path, include_in_schema=False)(_page_file(file))
    app.add_exception_handler(S3Error, _on_s3_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(Exception, _on_failure)
    app.add_middleware(
        Guard,
        token=None if token is None else wire.check_token(token),
        hosts=hosts,
        origins=origins,
        limits=limits or Limits(),
        public=PUBLIC,
        observe=metrics.observe,
    )
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
        )
    return app


def check_name(name: str) -> str:
    """Check the name of an index: letters, digits and `.`, `_`, `-`, at most 100 of them.

    Raises:
        InputError: It has others.
    """
    if not re.fullmatch(r"[\w][\w.-]{0,99}", name, re.ASCII):
        raise InputError(
            f"An index cannot be called {brief(name)!r}: use letters, digits, '.', '_' and '-', as "
            "in NAME=INDEX."
        )
    return name
