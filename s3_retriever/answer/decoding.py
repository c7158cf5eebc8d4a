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
from transformers import StoppingCriteria, StoppingCriteriaList
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
    host, options = request.host, dict(request.options)
    left = request.max_new_tokens - written
    pause = left if request.refresh is None else min(request.refresh, left)
    own: list[StoppingCriteria] = [_Pause(len(ids) + pause)]
    if tokens is not None:
        own.append(tokens)
        options["streamer"] = tokens
    if written and options.get("min_new_tokens"):
        options["min_new_tokens"] = max(options["min_new_tokens"] - written, 0)
    prompt = torch.tensor([ids], device=host.device)
    causal: Any = host.causal
    if cache is not None:
        options[cache_argument(causal)] = cache
    settings = _settings(host)
    try:
        # Settings go into the configuration; `update` returns the other arguments of `generate`.
        arguments = settings.update(max_new_tokens=left, **options)
        settings.return_dict_in_generate = False
        if (settings.num_return_sequences or 1) != 1:
            raise ValueError("an answer is a single text, so num_return_sequences must be 1")
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
