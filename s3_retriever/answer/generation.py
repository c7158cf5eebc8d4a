"""Generating: the whole answer at once, or piece by piece from a thread."""

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

from s3_retriever.answer.prompt import Request
from s3_retriever.errors import HostError, InputError
from s3_retriever.host import Host
from s3_retriever.host.device import is_out_of_memory
from s3_retriever.search import Span


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and its evidence.

    Attributes:
        text: What the host generated, without white space at its ends.
        evidence: All that it read of the context, in the context's order.
        prompt_tokens: Length of the prompt, evidence, question and template together.
        new_tokens: Length of the answer, the token that ended it included.
        retrieval_seconds: Time to find the evidence in the scanned context.
        generation_seconds: Time to read the prompt and to generate.
    """

    text: str
    evidence: list[Span]
    prompt_tokens: int
    new_tokens: int
    retrieval_seconds: float
    generation_seconds: float


# An incomplete character is decoded to this one.
_INCOMPLETE = "\ufffd"


def generate(request: Request, evidence: list[Span], retrieval_seconds: float) -> Answer:
    """Let the host answer from its evidence.

    Raises:
        InputError: `generate` of the model refuses an option.
        HostError: The device has no memory for the prompt.
    """
    ids = request.ids(evidence)
    began = time.perf_counter()
    new = _run(request, ids)
    seconds = time.perf_counter() - began
    text = _decode(request.host, new).strip()
    return Answer(text, evidence, len(ids), len(new), retrieval_seconds, seconds)


class AnswerStream(Iterator[str]):
    """The pieces of an answer while it is generated; joined they are its text.

    Generation runs in a thread of its own and ends when the stream is closed or forgotten. An
    error in it is raised by the iteration.

    Args:
        request: What to answer.
        evidence: From what.
        retrieval_seconds: For the answer.

    Attributes:
        evidence: What the answer is made from; known before the first piece.
    """

    def __init__(self, request: Request, evidence: list[Span], retrieval_seconds: float) -> None:
        self.evidence = evidence
        self._host = request.host
        self._ids = request.ids(evidence)
        self._retrieval_seconds = retrieval_seconds
        self._tokens = _Tokens()
        self._seen: list[int] = []
        self._text = ""
        self._answer: Answer | None = None
        self._thread = threading.Thread(
            target=_work, args=(request, self._ids, self._tokens), daemon=True
        )
        self._forget = weakref.finalize(self, self._tokens.stop.set)
        self._began = time.perf_counter()
        self._thread.start()

    def __next__(self) -> str:
        """Wait for the next piece.

        Raises:
            S3Error: As `LongContext.answer` would.
        """
        while self._answer is None:
            token = self._tokens.queue.get()
            if isinstance(token, BaseException):
                self._tokens.queue.put(token)  # for whoever asks again
                raise token
            if token is None:
                return self._finish()
            self._seen.append(token)
            if piece := self._advance(whole=False):
                return piece
        raise StopIteration

    def __enter__(self) -> AnswerStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def answer(self) -> Answer:
        """The whole answer; waits for what is still to come.

        Raises:
            S3Error: As the iteration does.
        """
        for _ in self:
            pass
        assert self._answer is not None
        return self._answer

    def close(self) -> None:
        """End the generation after the token that is being made."""
        self._forget()
        self._thread.join()

    def _advance(self, *, whole: bool) -> str:
        """The text that is new, without white space at the answer's ends."""
        text = _decode(self._host, self._seen).lstrip()
        if not whole and text.endswith(_INCOMPLETE):
            return ""
        text = text.rstrip()
        if not text.startswith(self._text):
            return ""  # the decoder joined it otherwise; the end settles it
        piece = text[len(self._text) :]
        self._text = text
        return piece

    def _finish(self) -> str:
        piece = self._advance(whole=True)
        seconds = time.perf_counter() - self._began
        self._answer = Answer(
            self._text,
            self.evidence,
            len(self._ids),
            len(self._seen),
            self._retrieval_seconds,
            seconds,
        )
        if not piece:
            raise StopIteration
        return piece


class _Tokens(BaseStreamer, StoppingCriteria):
    """Hands tokens from the generating thread to the waiting one, and the wish to stop back.

    Attributes:
        queue: New tokens; at the end None or an error.
        stop: Set once nobody waits any more.
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
        """Nothing: the thread itself says when it is done."""

    def __call__(self, input_ids: Tensor, scores: Any, **options: Any) -> Any:  # noqa: ARG002
        """Whether each sequence is to end [sequences]."""
        stop = self.stop.is_set()
        return torch.full((len(input_ids),), stop, dtype=torch.bool, device=input_ids.device)


def _work(request: Request, ids: list[int], tokens: _Tokens) -> None:
    end: BaseException | None = None
    try:
        _run(request, ids, tokens)
    except BaseException as error:
        end = error
    tokens.queue.put(end)


def _run(request: Request, ids: list[int], tokens: _Tokens | None = None) -> list[int]:
    """The new tokens, the KV cache being that of the prompt and of the answer alone."""
    host, options = request.host, dict(request.options)
    if tokens is not None:
        criteria = [*options.pop("stopping_criteria", ()), tokens]
        options |= {"streamer": tokens, "stopping_criteria": StoppingCriteriaList(criteria)}
    prompt = torch.tensor([ids], device=host.device)
    causal: Any = host.causal
    settings = _settings(host)
    try:
        # `generate` takes settings and other arguments apart, and so it is to be given them.
        others = settings.update(max_new_tokens=request.max_new_tokens, **options)
        settings.return_dict_in_generate = False
        # Not while taps of another thread are on the modules.
        with host.lock, torch.inference_mode():
            found = causal.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                generation_config=settings,
                **others,
            )
    except (ValueError, TypeError) as error:
        raise InputError(f"The host cannot generate with these options: {error}") from error
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise HostError(
            f"The device has no memory to answer a prompt of {len(ids)} tokens; lower token_budget."
        ) from error
    new: list[int] = found[0, len(ids) :].tolist()
    return new


def _settings(host: Host) -> Any:
    """The model's own settings, with greedy decoding (S3-Attention, section 5) as the default."""
    config = copy.deepcopy(host.causal.generation_config)
    assert config is not None
    config.do_sample = False
    # Left as they are, these would only raise warnings about what greedy decoding leaves unused.
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
