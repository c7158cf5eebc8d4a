"""`RemoteIndex`: an index on a server, with the methods of `S3Index`."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload
from urllib.parse import quote

from pydantic import BaseModel, ValidationError
from typing_extensions import Unpack

from s3_retriever import errors
from s3_retriever.document import Document, as_documents
from s3_retriever.engine.s3index import Found, SearchOptions, document_ids
from s3_retriever.errors import InputError, S3Error, ServerError, brief
from s3_retriever.metadata import json_value
from s3_retriever.recipe import Recipe
from s3_retriever.search import DocumentResult, Explanation, Firings, Heat, Span
from s3_retriever.server import wire
from s3_retriever.types import (
    GroupBy,
    check_count,
    check_string,
    check_text,
    check_type,
    refuse_arguments,
)

if TYPE_CHECKING:
    from s3_retriever.host import Host

try:
    import urllib3
except ImportError as error:  # pragma: no cover
    raise ServerError(
        "A server is asked with urllib3, which is not installed; install it with: "
        "pip install 's3-retriever[server]'"
    ) from error

# Ids of a request for a list of documents.
_PAGE = 1_000
# Characters of the documents of one request; the server bounds its bytes.
_BATCH_CHARACTERS = 1_000_000
# Connections that are kept for the next request; more threads than that make new ones.
_CONNECTIONS = 64
_JSON = {"Content-Type": "application/json"}

Response = TypeVar("Response", bound=BaseModel)


class RemoteIndex:
    """An index that `s3r serve` serves; its methods are those of `S3Index`.

    Can be used as a context manager, and from several threads at once.

    Args:
        url: Address of the server, such as `http://127.0.0.1:8000`.
        index: The index's name on the server; not needed if the server has only one.
        token: The server's token.
        timeout: Most seconds to wait for a response. Additions wait as long as they take.

    Attributes:
        name: The index's name on the server.

    Raises:
        InputError: The server has no such index, or several and none was named; or it needs
            another token.
        ServerError: The server cannot be reached.
    """

    def __init__(
        self,
        url: str,
        index: str | None = None,
        *,
        token: str | None = None,
        timeout: float = 60.0,
    ) -> None:
        self._url = check_text(url, "url")
        self._token = {}
        if token is not None:
            self._token = {"Authorization": f"Bearer {wire.check_token(token)}"}
        self._timeout = timeout
        self._pool, self._root = _connections(self._url)
        weakref.finalize(self, self._pool.close)
        self.name = self._named(index)

    def __enter__(self) -> RemoteIndex:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Number of documents."""
        return self._page(0, 1).total

    def __contains__(self, document_id: object) -> bool:
        """Whether there is a document with this id."""
        if not isinstance(document_id, str) or not document_id:
            return False
        try:
            self._get(document_id)
        except InputError:
            return False
        return True

    def __iter__(self) -> Iterator[Document]:
        """Read all documents, one at a time, in the order they were added."""
        return (self._get(name) for name in self.ids())

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def ids(self) -> list[str]:
        """Ids of all documents, in the order they were added."""
        return [name for page in self._pages() for name in page.ids]

    def rows(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Ids and metadata of all documents, in the order they were added."""
        for page in self._pages("&metadata=true"):
            yield from zip(page.ids, page.metadata or (), strict=True)

    def stats(self) -> dict[str, Any]:
        """What the server says of the index: sizes, host, recipes, and what can be asked."""
        return self._listed()[self.name].model_dump()

    @overload
    def get(self, ids: Found) -> Document: ...  # type: ignore[overload-overlap]

    @overload
    def get(self, ids: Iterable[Found]) -> list[Document]: ...

    def get(self, ids: Found | Iterable[Found]) -> Document | list[Document]:
        """Read documents, as `S3Index.get`, one request each."""
        documents = [self._get(name) for name in document_ids(ids)]
        return documents[0] if isinstance(ids, (str, Span, DocumentResult)) else documents

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
        group_by: GroupBy | None = None,
        **options: Any,
    ) -> list[Span] | list[DocumentResult]:
        """Find the spans that answer a question, or documents, as `S3Index.search`.

        Args:
            question: Any text.
            k: Most spans, or documents.
            group_by: `document` returns documents.
            options: As in `S3Index.search`, but `where` is a mapping: a function cannot be sent.
                There is no `rerank_host`: the host that answers on the server reads again, or the
                index's own.

        Raises:
            S3Error: As `S3Index.search`.
            ServerError: The server cannot be reached, or is busy.
        """
        refuse_arguments("search", options.keys() - SearchOptions.__annotations__.keys())
        _refuse_host(options.pop("rerank_host", None))
        if callable(options.get("where")):
            raise InputError("A function cannot be sent to a server; write where as a mapping.")
        wanted = {"k": k, "group_by": group_by, **options}
        given = {name: value for name, value in wanted.items() if value is not None}
        body = {"question": check_text(question, "question"), **_plain(given)}
        found = self._send(wire.SearchResponse, "POST", "/search", body)
        if group_by is None:
            return [each.span() for each in found.spans]
        return [each.result() for each in found.documents or ()]

    def explain(
        self,
        question: str,
        span: Span,
        *,
        recipe: str | Recipe | None = None,
        rerank: int | None = None,
        rerank_host: str | Host | None = None,
    ) -> Explanation:
        """Say why a span was found, as `S3Index.explain`."""
        check_type(span, Span, "span")
        _refuse_host(rerank_host)
        body = {"question": check_text(question, "question"), "span_id": span.id}
        wanted = {"recipe": recipe, "rerank": rerank}
        body |= _plain({name: value for name, value in wanted.items() if value is not None})
        explanation = self._send(wire.ExplanationOut, "POST", "/explain", body).explanation()
        return replace(explanation, span=span)

    def heat(self, question: str, document_id: str, recipe: str | Recipe | None = None) -> Heat:
        """Score every token of a document, as `S3Index.heat`, to four significant digits."""
        body = {
            "question": check_text(question, "question"),
            "document_id": check_string(document_id, "document_id"),
        }
        if recipe is not None:
            body |= _plain({"recipe": recipe})
        return self._send(wire.HeatOut, "POST", "/heat", body).heat()

    def firings(self, tap: str, feature: int, limit: int = 20) -> Firings:
        """Find the sentences in which a feature fires, as `S3Index.firings`; at most 200."""
        body = {
            "tap": check_string(tap, "tap"),
            "feature": check_count(feature, "feature", least=0),
            "limit": check_count(limit, "limit"),
        }
        return self._send(wire.FiringsOut, "POST", "/firings", body).firings()

    def add(
        self,
        documents: Iterable[Document | str] | Document | str,
        *,
        replace: bool = False,
        progress: bool = False,  # noqa: ARG002
    ) -> list[str]:
        """Add documents, as `S3Index.add`, but about a million characters in a commit.

        After an error, the documents before it may have been added.

        Args:
            documents: Documents or plain texts, any number, also from an iterator.
            replace: Whether a document replaces the one with its id.
            progress: Ignored; it is there because `S3Index.add` has it.

        Returns:
            The documents' ids.
        """
        ids: list[str] = []
        for batch in _batches(as_documents(documents)):
            listed = [
                {"id": each.id, "text": each.text, "metadata": each.metadata, "unit": each.unit}
                for each in batch
            ]
            body = {"documents": listed, "replace": replace}
            ids += self._send(wire.IdsResponse, "POST", "/documents", body, patient=True).ids
        return ids

    def delete(
        self,
        ids: str | Span | Document | Iterable[str | Span | Document],
        *,
        missing_ok: bool = False,
    ) -> int:
        """Delete documents, as `S3Index.delete`."""
        body = {"ids": document_ids(ids), "missing_ok": missing_ok}
        return self._send(wire.DeleteResponse, "POST", "/delete", body, patient=True).deleted

    def _get(self, name: str) -> Document:
        return self._send(wire.DocumentOut, "GET", f"/documents/{_escaped(name)}").document()

    def _page(self, offset: int, limit: int, more: str = "") -> wire.DocumentsResponse:
        return self._send(
            wire.DocumentsResponse, "GET", f"/documents?offset={offset}&limit={limit}{more}"
        )

    def _pages(self, more: str = "") -> Iterator[wire.DocumentsResponse]:
        offset = 0
        while (page := self._page(offset, _PAGE, more)).ids:
            yield page
            offset += len(page.ids)

    def _named(self, index: str | None) -> str:
        """The name of the index, or of the only one.

        Raises:
            InputError: There is no such index, or several and none was named.
        """
        names = list(self._listed())
        if index is None and len(names) == 1:
            return names[0]
        if index not in names:
            wanted = "Name one of its indexes" if index is None else f"It has no index {index!r}"
            raise InputError(f"{wanted}; the server has: {brief(', '.join(names))}")
        return index

    def _listed(self) -> dict[str, wire.IndexOut]:
        listed = self._request(wire.IndexesResponse, "GET", "/v1/indexes")
        return {each.name: each for each in listed.indexes}

    def _send(
        self,
        response: type[Response],
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        patient: bool = False,
    ) -> Response:
        path = f"/v1/indexes/{self.name}{path}"
        return self._request(response, method, path, body, patient=patient)

    def _request(
        self,
        response: type[Response],
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        patient: bool = False,
    ) -> Response:
        content = None if body is None else json.dumps(body, allow_nan=False).encode()
        headers = self._token if content is None else self._token | _JSON
        try:
            reply = self._pool.request(
                method,
                f"{self._root}{path}",
                body=content,
                headers=headers,
                timeout=None if patient else self._timeout,
                retries=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise ServerError(
                f"The server at {self._url} does not answer ({brief(error)}); check the address, "
                "and that s3r serve runs there."
            ) from error
        if reply.status >= 400:
            raise _error(self._url, reply)
        try:
            return response.model_validate_json(reply.data)
        except ValidationError as error:
            raise ServerError(
                f"What answers at {self._url} is not a server of this version of s3-retriever; "
                "check the address."
            ) from error


def _connections(url: str) -> tuple[urllib3.HTTPConnectionPool, str]:
    """Connections to a server, and the path that its own paths begin with.

    They heed no proxy that the environment names: it would get the token.

    Raises:
        InputError: The URL is not that of a server.
    """
    try:
        scheme, user, host, port, path, query, fragment = urllib3.util.parse_url(url)
    except urllib3.exceptions.LocationParseError:
        host = None
    if not host or scheme not in ("http", "https") or user or query or fragment:
        raise InputError(
            f"The server's address {brief(url)!r} cannot be used; write it like "
            "http://127.0.0.1:8000"
        )
    kind = urllib3.HTTPSConnectionPool if scheme == "https" else urllib3.HTTPConnectionPool
    return kind(host, port, maxsize=_CONNECTIONS), (path or "").rstrip("/")


def _error(url: str, reply: urllib3.BaseHTTPResponse) -> S3Error:
    """The error that a server reports, of the class that it had there."""
    try:
        said = wire.ErrorResponse.model_validate_json(reply.data).error
    except ValidationError:
        return ServerError(f"The server at {url} answers with status {reply.status}.")
    kind = getattr(errors, said.type, ServerError)
    known = isinstance(kind, type) and issubclass(kind, S3Error)
    return (kind if known else ServerError)(said.message)


def _refuse_host(rerank_host: object) -> None:
    if rerank_host is not None:
        raise InputError(
            "A server reranks with the host that it was started with (s3r serve --answers), or "
            "with the index's own; leave rerank_host out."
        )


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as JSON values; a recipe of one's own as its fields."""
    return {
        name: value.model_dump(mode="json")
        if isinstance(value, Recipe)
        else json_value(value, name)
        for name, value in values.items()
    }


def _escaped(document_id: str) -> str:
    """An id as a part of a path; dots alone would lead elsewhere."""
    escaped = quote(check_string(document_id, "id"), safe="")
    return escaped.replace(".", "%2E") if not escaped.strip(".") else escaped


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        if batch and (characters + len(document.text) > _BATCH_CHARACTERS or len(batch) == _PAGE):
            yield batch
            batch, characters = [], 0
        batch.append(document)
        characters += len(document.text)
    if batch:
        yield batch
