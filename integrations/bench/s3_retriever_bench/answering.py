"""A host that answers a question of `longcontext`, and how likely it finds the gold answer."""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from s3_retriever import Host, HostError, Span
from s3_retriever.answer.generation import generate
from s3_retriever.answer.prompt import Prompt, Request
from s3_retriever.host.device import is_out_of_memory
from s3_retriever_bench.evidence import ReadContext
from s3_retriever_bench.longbench import Sample
from s3_retriever_bench.metrics import holds_answer
from s3_retriever_bench.processes import OUT_OF_MEMORY


@dataclass(frozen=True, slots=True)
class Belief:
    """What a host expects after a prompt.

    Attributes:
        next: Log-probabilities of the next token [vocabulary], float32.
        nll: Negative log-likelihood of an answer, nats per token.
    """

    next: Tensor
    nll: float

    def divergence(self, other: Belief) -> float:
        """Kullback-Leibler divergence, in nats, of the other's next token from this one's."""
        return float((self.next.exp() * (self.next - other.next)).sum())


class Answerer:
    """Asks a host with complete prompts, within its chat template if it has one.

    A prompt has two parts: `context`, up to the end of the context, and `after`.

    Args:
        host: A causal host.

    Raises:
        HostError: It cannot generate.
    """

    def __init__(self, host: Host) -> None:
        self._causal: Any = host.causal
        self._host = host
        # Answers are a few tokens long, so a model such as Qwen3 must not think first.
        self._prompt = Prompt(host, "{context}{question}", {"enable_thinking": False})

    def length(self, context: str, after: str) -> int:
        """Tokens of a prompt."""
        return len(self._prompt.ids(context, after))

    def obstacle(self, context: str, after: str, new_tokens: int) -> str | None:
        """Why a prompt and its answer are too long for the host; None if they are not."""
        limit = self._host.positions
        if limit is None or self.length(context, after) + new_tokens < limit:
            return None
        return f"beyond the model's {limit:,} positions"

    def answer(self, context: str, after: str, new_tokens: int) -> str:
        """The text that the host generates greedily, at most `new_tokens` tokens.

        Raises:
            HostError: The device has too little memory.
        """
        request = Request(self._host, after, 1, new_tokens, self._prompt, {})
        whole = Span(context, 0.0, 0.0, "context", 0, len(context), (), {}, 0)
        return generate(request, [whole], 0.0).text

    @torch.inference_mode()
    def believe(self, context: str, after: str, gold: str, new_tokens: int) -> Belief:
        """What the host expects after a prompt, and how far the gold answer is from that.

        Only the first `new_tokens` tokens of the gold answer count.

        Raises:
            HostError: The device has too little memory.
        """
        ids = self._prompt.ids(context, after)
        gap = "" if after[-1:].isspace() or self._host.tokenizer.source.chat_template else " "
        wanted = self._host.tokenizer.ids(f"{gap}{gold}")[:new_tokens]
        read = torch.tensor([[*ids, *wanted]], device=self._host.device)
        options: dict[str, Any] = {"use_cache": False}
        if "logits_to_keep" in inspect.signature(self._causal.forward).parameters:
            options["logits_to_keep"] = len(wanted) + 1
        try:
            with self._host.lock:
                logits = self._causal(input_ids=read, **options).logits
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise HostError(f"The device has no memory to read {read.numel()} tokens.") from error
        logs = logits[0, -len(wanted) - 1 :].float().log_softmax(-1).cpu()
        gold_logs = logs[:-1].gather(1, torch.tensor(wanted)[:, None])
        return Belief(logs[0].clone(), -float(gold_logs.mean()))


def answer_or_failure(
    answerer: Answerer | None, context: str, after: str, new_tokens: int
) -> tuple[str | None, str | None]:
    """The answer, and why there is none; both None without an answerer."""
    if answerer is None:
        return None, None
    obstacle = answerer.obstacle(context, after, new_tokens)
    if obstacle:
        return None, obstacle
    try:
        return answerer.answer(context, after, new_tokens), None
    except HostError:
        return None, OUT_OF_MEMORY


class Asked:
    """A question about a context, asked with several methods.

    Args:
        sample: The question.
        context: Its context.
        answerer: Answers; None if the host cannot generate.
    """

    def __init__(self, sample: Sample, context: ReadContext, answerer: Answerer | None) -> None:
        self._sample = sample
        self._context = context
        self._answerer = answerer
        self._beliefs: dict[str, Belief] = {}

    def measure(self, method: str, budgets: Sequence[int]) -> dict[str, Any]:
        """Ask with a method.

        Args:
            method: A name from `evidence.METHODS`.
            budgets: Tokens of evidence.

        Returns:
            JSON values. `context_tokens`, `prepare_seconds`, and under `budgets` for each budget
            (for `full` the only one, `full`): `tokens` of the evidence, `seconds` of finding it,
            `recall` (1 if it contains a gold answer's words, else 0; None if the context does
            not) and, if the host answers, `answer`, `score`, `nll`, `kl` (None if the whole
            context is too long), or `failed`, why it was not asked.
        """
        prepared = self._context.prepare(method)
        named = {"full": 0} if method == "full" else {str(budget): budget for budget in budgets}
        return {
            "context_tokens": self._context.tokens,
            "prepare_seconds": _rounded(prepared),
            "budgets": {name: self._ask(method, budget) for name, budget in named.items()},
        }

    def _ask(self, method: str, budget: int) -> dict[str, Any]:
        sample = self._sample
        began = time.perf_counter()
        evidence = self._context.evidence(method, sample.question, budget)
        seconds = time.perf_counter() - began
        held = holds_answer(evidence, sample.answers) if self._answerable else None
        values = {
            "tokens": self._context.count(evidence),
            "seconds": _rounded(seconds),
            "recall": None if held is None else float(held),
        }
        return values | self._answer(f"{sample.before}{evidence}")

    def _answer(self, context: str) -> dict[str, Any]:
        if self._answerer is None:
            return {}
        sample, task = self._sample, self._sample.task
        answer, failed = answer_or_failure(self._answerer, context, sample.after, task.new_tokens)
        belief = None if answer is None else self._believe(context)
        if answer is None or belief is None:
            return {"failed": failed or OUT_OF_MEMORY}
        kl = None if self._whole is None else self._whole.divergence(belief)
        return {
            "answer": answer,
            "score": _rounded(task.score(answer, sample.answers)),
            "nll": _rounded(belief.nll),
            "kl": None if kl is None else _rounded(kl),
        }

    def _believe(self, context: str) -> Belief | None:
        """What the host expects after a prompt; None if the device has too little memory."""
        assert self._answerer is not None
        sample = self._sample
        # Methods that keep the same part of a context share a reading.
        if context not in self._beliefs:
            try:
                self._beliefs[context] = self._answerer.believe(
                    context, sample.after, sample.answers[0], sample.task.new_tokens
                )
            except HostError:
                return None
        return self._beliefs[context]

    @cached_property
    def _answerable(self) -> bool:
        return bool(holds_answer(self._context.text, self._sample.answers))

    @cached_property
    def _whole(self) -> Belief | None:
        """What the host expects after the whole context; None if that is too long."""
        assert self._answerer is not None
        sample = self._sample
        context = f"{sample.before}{sample.context}"
        if self._answerer.obstacle(context, sample.after, sample.task.new_tokens):
            return None
        return self._believe(context)


def _rounded(value: float) -> float:
    return round(value, 5)
