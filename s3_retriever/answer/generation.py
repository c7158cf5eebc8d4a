"""Generation: the whole answer at once, or in pieces from a thread."""

from __future__ import annotations

import copy
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from s3_retriever.answer.citations import Citation, cite
from s3_retriever.answer.prompt import Request
from s3_retriever.errors import HostError, InputError
from s3_retriever.host import Host
from s3_retriever.host.device import is_out_of_memory
from s3_retriever.search import Span


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and its evidence.

    Attributes:
        text: The generated text, stripped of white space at both ends.
        evidence: The spans of the context that the host read, in the context's order.
        citations: Which spans support which sentences of the text.
        prompt_tokens: Tokens of the prompt: evidence, question and template.
        new_tokens: Tokens of the answer, including the one that ended it.
        retrieval_seconds: Time to find the evidence in the scanned context.
        generation_seconds: Time to read the prompt and to generate.
    """

    text: str
    evidence: list[Span]
    citations: tuple[Citation, ...]
    prompt_tokens: int
    new_tokens: int
    retrieval_seconds: float
    generation_seconds: float


# What the bytes of an incomplete character decode to.
_INCOMPLETE = "\ufffd"


def generate(request: Request, evidence: list[Span], retrieval_seconds: float) -> Answer:
    """Let the host answer a request from evidence.

    Args:
        request: The question.
        evidence: What the host reads of the context.
        retrieval_seconds: How long finding the evidence took, for the answer.

    Raises:
        InputError: The model's `generate` refuses an option.
        HostError: The device has too little memory for the prompt.
    """
    ids = request.ids(evidence)
    began = time.perf_counter()
    new_ids = _generate(request, ids)
    seconds = time.perf_counter() - began
    text = _decode(request.host, new_ids).strip()
    cited = cite(text, evidence)
    return Answer(text, evidence, cited, len(ids), len(new_ids), retrieval_seconds, seconds)


class AnswerStream(Iterator[str]):
    """The pieces of an answer while it is generated; joined, they are its text.

    Generation runs in a thread of its own and stops when the stream is closed or garbage
    collected. Its errors are raised by the iteration.

    Args:
        request: The question.
        evidence: What the host reads of the context.
        retrieval_seconds: How long finding the evidence took, for the answer.

    Attributes:
        evidence: What the host reads of the context; known before the first piece.
    """

    def __init__(self, request: Request, evidence: list[Span], retrieval_seconds: float) -> None:
        self.evidence = evidence
        self._host = request.host
        self._ids = request.ids(evidence)
        self._retrieval_seconds = retrieval_seconds
        self._tokens = _Tokens()
        self._new_ids: list[int] = []
        self._text = ""
        self._answer: Answer | None = None
        self._thread = threading.Thread(
            target=_generate_into, args=(self._tokens, request, self._ids), daemon=True
        )
        self._stop = weakref.finalize(self, self._tokens.stop.set)
        self._began = time.perf_counter()
        self._thread.start()

    def __next__(self) -> str:
        """Wait for the next piece.

        Raises:
            S3Error: Those of `LongContext.answer`.
        """
        while self._answer is None:
            token = self._tokens.queue.get()
            if isinstance(token, BaseException):
                self._tokens.queue.put(token)  # for the next call
                raise token
            if token is None:
                return self._finish()
            self._new_ids.append(token)
            if piece := self._advance(whole=False):
                return piece
        raise StopIteration

    def __enter__(self) -> AnswerStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def answer(self) -> Answer:
        """The whole answer; waits until it is complete.

        Raises:
            S3Error: Those of the iteration.
        """
        for _ in self:
            pass
        assert self._answer is not None
        return self._answer

    def close(self) -> None:
        """Stop the generation after the current token."""
        self._stop()
        self._thread.join()

    def _advance(self, *, whole: bool) -> str:
        """The text since the last piece, stripped at both ends of the answer."""
        text = _decode(self._host, self._new_ids).lstrip()
        if not whole and text.endswith(_INCOMPLETE):
            return ""
        text = text.rstrip()
        if not text.startswith(self._text):
            return ""  # this token changed how earlier ones decode; a later piece will catch up
        piece = text[len(self._text) :]
        self._text = text
        return piece

    def _finish(self) -> str:
        piece = self._advance(whole=True)
        seconds = time.perf_counter() - self._began
        self._answer = Answer(
            self._text,
            self.evidence,
            cite(self._text, self.evidence),
            len(self._ids),
            len(self._new_ids),
            self._retrieval_seconds,
            seconds,
        )
        if not piece:
            raise StopIteration
        return piece


class _Tokens(BaseStreamer, StoppingCriteria):
    """Hands tokens from the generating thread to the waiting one, and a request to stop back.

    Attributes:
        queue: New tokens, then None or an error.
        stop: Set when nobody is waiting any more.
    """

    def __init__(self) -> None:
        self.queue: SimpleQueue[int | BaseException | None] = SimpleQueue()
        self.stop = threading.Event()
        self._prompt_passed = False

    def put(self, value: Tensor) -> None:
        """Take the prompt, then every new token."""
        if self._prompt_passed:
            for token in value.flatten().tolist():
                self.queue.put(token)
        self._prompt_passed = True

    def end(self) -> None:
        """Do nothing: `_generate_into` puts the end into the queue."""

    def __call__(self, input_ids: Tensor, scores: Any, **options: Any) -> Any:  # noqa: ARG002
        """Whether to stop each sequence, bool [sequences]."""
        stop = self.stop.is_set()
        return torch.full((len(input_ids),), stop, dtype=torch.bool, device=input_ids.device)


def _generate_into(tokens: _Tokens, request: Request, ids: list[int]) -> None:
    end: BaseException | None = None
    try:
        _generate(request, ids, tokens)
    except BaseException as error:
        end = error
    tokens.queue.put(end)


def _generate(request: Request, ids: list[int], tokens: _Tokens | None = None) -> list[int]:
    """The new tokens after a prompt; the KV cache holds prompt and answer only."""
    host, options = request.host, dict(request.options)
    if tokens is not None:
        criteria = [*options.pop("stopping_criteria", ()), tokens]
        options |= {"streamer": tokens, "stopping_criteria": StoppingCriteriaList(criteria)}
    prompt = torch.tensor([ids], device=host.device)
    causal: Any = host.causal
    settings = _settings(host)
    try:
        # Settings go into the configuration; `update` returns the other arguments of `generate`.
        arguments = settings.update(max_new_tokens=request.max_new_tokens, **options)
        settings.return_dict_in_generate = False
        # The lock keeps the taps of other threads off the modules.
        with host.lock, torch.inference_mode():
            host.check_process()
            sequences = causal.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                generation_config=settings,
                **arguments,
            )
    except (ValueError, TypeError) as error:
        raise InputError(f"The host cannot generate with these options: {error}") from error
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise HostError(
            f"The device has too little memory to answer a prompt of {len(ids)} tokens; lower "
            "token_budget."
        ) from error
    new_ids: list[int] = sequences[0, len(ids) :].tolist()
    return new_ids


def _settings(host: Host) -> Any:
    """The model's own settings, but greedy by default (S3-Attention, section 5)."""
    config = copy.deepcopy(host.causal.generation_config)
    assert config is not None
    config.do_sample = False
    # Greedy decoding ignores these, and warns about other values.
    for name, neutral in (("temperature", 1.0), ("top_p", 1.0), ("top_k", 50), ("min_p", None)):
        if hasattr(config, name):
            setattr(config, name, neutral)
    config.max_length = None
    if config.pad_token_id is None:
        config.pad_token_id = host.tokenizer.pad_id
    return config


def _decode(host: Host, ids: list[int]) -> str:
    text = host.tokenizer.source.decode(
        ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return str(text)
