"""Answers as server-sent events, while they are written."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from functools import partial

from anyio import CancelScope, Semaphore, to_thread
from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Send

from s3_retriever.answer import AnswerStream, ScannedContext
from s3_retriever.errors import S3Error
from s3_retriever.server import wire

logger = logging.getLogger(__name__)


class EventStream(StreamingResponse):
    """A stream of events, which ends at once if the client goes."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes]) -> None:
        # Proxies would wait for the end of the answer.
        super().__init__(events, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._events = events

    async def stream_response(self, send: Send) -> None:
        """Send the events."""
        async with aclosing(self._events):  # type: ignore[type-var]
            await super().stream_response(send)


async def answer_events(
    answers: ScannedContext,
    wanted: wire.AnswerRequest,
    free: Semaphore,
    shown: Callable[[str], str],
) -> AsyncIterator[bytes]:
    """The events of an answer: its evidence, its pieces, the whole; or an error.

    Args:
        answers: Answers the question.
        wanted: The question.
        free: Is waited for, so that few answers are written at once.
        shown: The message of an error as clients see it.
    """
    async with free:
        stream: AnswerStream | None = None
        try:
            stream = await to_thread.run_sync(partial(answers.stream, **dict(wanted)))
            spans = [wire.SpanOut.of(span) for span in stream.evidence]
            yield _event("evidence", wire.EvidenceEvent(spans=spans))
            while (piece := await to_thread.run_sync(next, stream, None)) is not None:
                yield _event("token", wire.TokenEvent(text=piece))
            yield _event("answer", _whole(stream))
        except S3Error as error:
            yield _event("error", wire.ErrorEvent(message=shown(str(error))))
        except Exception as error:
            logger.error("An answer failed.", exc_info=error)
            yield _event("error", wire.ErrorEvent(message="The server failed; its log says why."))
        finally:
            if stream is not None:
                with CancelScope(shield=True):
                    await to_thread.run_sync(stream.close)


def _whole(stream: AnswerStream) -> wire.AnswerEvent:
    answer = stream.answer
    citations = [wire.CitationOut.of(citation) for citation in answer.citations]
    return wire.AnswerEvent(text=answer.text, found=answer.found, citations=citations)


def _event(name: str, data: BaseModel) -> bytes:
    # JSON has no line breaks, which would end the data.
    return f"event: {name}\ndata: {data.model_dump_json()}\n\n".encode()
