"""Decoding: the tokens that the host adds to a prompt."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.cache_utils import Cache
from transformers.generation.streamers import BaseStreamer

from s3_retriever.answer.prompt import Request
from s3_retriever.errors import HostError, InputError, brief
from s3_retriever.host import Host
from s3_retriever.host.device import is_out_of_memory
from s3_retriever.host.model import cache_argument


@dataclass(frozen=True, slots=True)
class Decoded:
    """New tokens.

    Attributes:
        ids: The tokens, including the one that ended the answer.
        complete: Whether the answer ends with them.
    """

    ids: list[int]
    complete: bool


class TokenQueue(BaseStreamer, StoppingCriteria):
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
        """Get ready for the next prompt; who started the thread puts the end into the queue."""
        self._prompt_passed = False

    def __call__(self, input_ids: Tensor, scores: Any, **options: Any) -> Any:  # noqa: ARG002
        """Whether to stop each sequence, bool [sequences]."""
        return _verdict(input_ids, stop=self.stop.is_set())


class _Pause(StoppingCriteria):
    """Stops where a sequence has a length."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __call__(self, input_ids: Tensor, scores: Any, **options: Any) -> Any:  # noqa: ARG002
        """Whether to stop each sequence, bool [sequences]."""
        return _verdict(input_ids, stop=input_ids.shape[1] >= self._length)


# The host is not sure of a token whose probability is lower than this.
_SURE = 0.4
# Tokens that it writes in any case before it searches again.
_LEAST_WRITTEN = 4


class _Doubt(Exception):  # noqa: N818 - not an error: it ends generation before a token
    """Raised in the place of a token of which the host is not sure."""

    def __init__(self, ids: list[int]) -> None:
        super().__init__()
        self.ids = ids


class _Doubter(LogitsProcessor):
    """Stops before a token of which the host is not sure, so that nothing has to be taken back.

    Args:
        length: Tokens of the prompt.
    """

    def __init__(self, length: int) -> None:
        self._length = length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Pass the scores of the next token on, or raise `_Doubt`."""
        written = input_ids.shape[1] - self._length
        if written >= _LEAST_WRITTEN and scores[0].float().softmax(-1).max() < _SURE:
            raise _Doubt(input_ids[0, self._length :].tolist())
        return scores


def decode(
    request: Request,
    ids: Sequence[int],
    *,
    written: int,
    tokens: TokenQueue | None,
    cache: Cache | None = None,
) -> Decoded:
    """Let the host go on from a prompt, to the end of its answer or to the next refresh.

    The KV cache holds the prompt and the answer only.

    Args:
        request: The question and its options.
        ids: The prompt, and what the host has written so far.
        written: How many of the ids the host has written.
        tokens: Takes the tokens as they come.
        cache: Keys and values of the first of the ids, which are not read again.

    Raises:
        InputError: The model's `generate` refuses an option.
        HostError: The device has too little memory for the prompt.
    """
    host, refresh = request.host, request.refresh
    left = request.max_new_tokens - written
    pause = left if refresh is None or refresh == "uncertain" else min(refresh, left)
    own: list[StoppingCriteria] = [_Pause(len(ids) + pause)]
    if tokens is not None:
        own.append(tokens)
    prompt = torch.tensor([ids], device=host.device)
    causal: Any = host.causal
    settings = _settings(host)
    try:
        arguments = _arguments(request, settings, len(ids), written, cache)
        if tokens is not None:
            arguments["streamer"] = tokens
        criteria = StoppingCriteriaList([*(arguments.pop("stopping_criteria", None) or ()), *own])
        # The lock keeps the taps of other threads off the modules.
        with host.lock, torch.inference_mode():
            host.check_process()
            sequences = causal.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                generation_config=settings,
                stopping_criteria=criteria,
                **arguments,
            )
    except _Doubt as doubt:
        if tokens is not None:
            tokens.end()
        return Decoded(doubt.ids, tokens is not None and tokens.stop.is_set())
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"The host cannot generate with these options: {brief(error)}") from error
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise HostError(
            f"The device has too little memory to answer a prompt of {len(ids)} tokens; lower "
            "token_budget."
        ) from error
    new_ids: list[int] = sequences[0, len(ids) :].tolist()
    stopped = tokens is not None and tokens.stop.is_set()
    ended = len(new_ids) < pause or new_ids[-1] in _end_ids(settings)
    return Decoded(new_ids, stopped or ended or len(new_ids) >= left)


def _arguments(
    request: Request, settings: Any, length: int, written: int, cache: Cache | None
) -> dict[str, Any]:
    """Arguments of `generate` besides its settings, which take the rest of a request's options.

    Args:
        request: The question and its options.
        settings: The model's own settings; changed.
        length: Tokens of the prompt and of what the host has written.
        written: How many of these it has written.
        cache: Keys and values of the first of them.

    Raises:
        ValueError: The options ask for more than a single text.
    """
    options = dict(request.options)
    if written and options.get("min_new_tokens"):
        options["min_new_tokens"] = max(options["min_new_tokens"] - written, 0)
    # Settings go into the configuration; `update` returns the other arguments of `generate`.
    arguments: dict[str, Any] = settings.update(
        max_new_tokens=request.max_new_tokens - written, **options
    )
    settings.return_dict_in_generate = False
    beams = settings.num_beams or 1
    if (settings.num_return_sequences or 1) != 1:
        raise ValueError("an answer is a single text, so num_return_sequences must be 1")
    if request.refresh == "uncertain":
        if beams > 1:
            raise ValueError("with refresh='uncertain', num_beams must be 1")
        processors = [*(arguments.pop("logits_processor", None) or ()), _Doubter(length)]
        arguments["logits_processor"] = LogitsProcessorList(processors)
    if cache is not None:
        if beams > 1:
            cache.batch_repeat_interleave(beams)
        arguments[cache_argument(request.host.causal)] = cache
    return arguments


def text_of(host: Host, ids: Sequence[int]) -> str:
    """The text of an answer's tokens."""
    text = host.tokenizer.source.decode(
        list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return str(text)


def _verdict(input_ids: Tensor, *, stop: bool) -> Tensor:
    return torch.full((len(input_ids),), stop, dtype=torch.bool, device=input_ids.device)


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


def _end_ids(settings: Any) -> set[int]:
    ends = settings.eos_token_id
    return set() if ends is None else {ends} if isinstance(ends, int) else set(ends)
