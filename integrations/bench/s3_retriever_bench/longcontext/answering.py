"""A host that answers a question of `longcontext`, and how likely it finds the gold answer."""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache

from s3_retriever import Host, HostError, Span
from s3_retriever.answer.evidence_cache import EvidenceCache
from s3_retriever.answer.generation import generate
from s3_retriever.answer.prompt import Prompt, Request
from s3_retriever.host.device import is_out_of_memory
from s3_retriever.host.model import cache_argument
from s3_retriever_bench.longcontext.evidence import CACHED, ReadContext
from s3_retriever_bench.longcontext.longbench import Sample
from s3_retriever_bench.shared.costs import Cost, TokenClock, highest, metered
from s3_retriever_bench.shared.processes import OUT_OF_MEMORY
from s3_retriever_bench.shared.scoring import holds_answer

# Answers are a few tokens long, so a model such as Qwen3 must not think first.
_CHAT = {"enable_thinking": False}


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


@dataclass(frozen=True, slots=True)
class Reply:
    """A host's answer to a prompt.

    Attributes:
        text: The answer, empty if there is none.
        first_token_seconds: From the prompt as text to the first new token.
        cost: Of reading the prompt and generating.
        belief: What the host expected, if a gold answer was given.
        failed: Why there is no answer; None if there is one.
    """

    text: str = ""
    first_token_seconds: float = 0.0
    cost: Cost = field(default_factory=Cost)
    belief: Belief | None = None
    failed: str | None = None


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
        self._parameters = inspect.signature(type(self._causal).forward).parameters
        self._cache_name = cache_argument(self._causal)
        self._prompt = Prompt(host, "{context}{question}", _CHAT)

    def length(self, context: str, after: str) -> int:
        """Tokens of a prompt."""
        return len(self._prompt.ids(context, after))

    def obstacle(self, context: str, after: str, new_tokens: int) -> str | None:
        """Why a prompt and its answer are too long for the host; None if they are not."""
        limit = self._host.positions
        if limit is None or self.length(context, after) + new_tokens < limit:
            return None
        return f"beyond the model's {limit:,} positions"

    def answer(self, context: str, after: str, new_tokens: int, gold: str | None = None) -> Reply:
        """What the host generates greedily, at most `new_tokens` tokens.

        Args:
            context: The prompt up to the end of the context.
            after: The rest of the prompt.
            new_tokens: Maximum tokens of the answer.
            gold: A gold answer, of which the first `new_tokens` tokens count.
        """
        obstacle = self.obstacle(context, after, new_tokens)
        if obstacle:
            return Reply(failed=obstacle)
        clock, cache = TokenClock(), DynamicCache(config=self._causal.config)
        options = {"streamer": clock, self._cache_name: cache}
        request = Request(self._host, after, 1, new_tokens, self._prompt, options)
        whole = Span(context, 0.0, 0.0, "context", 0, len(context), (), {}, 0)
        try:
            began = time.perf_counter()
            with metered(self._host.device) as cost:
                text = generate(request, [whole], 0.0).text
            belief = None
            if gold is not None:
                belief = self._believe(request, request.ids([whole]), cache, gold)
        except HostError:
            return Reply(failed=OUT_OF_MEMORY)
        return Reply(text, clock.ticks[0] - began, cost, belief)

    def recall(
        self,
        memory: EvidenceCache,
        parts: tuple[str, Sequence[Span], str],
        new_tokens: int,
        gold: str | None = None,
    ) -> Reply:
        """What the host generates from evidence that it has cached before.

        Args:
            memory: The cache.
            parts: The prompt up to the context, the evidence, and the rest of the prompt.
            new_tokens: As in `answer`.
            gold: As in `answer`.
        """
        before, spans, after = parts
        if not spans:
            return self.answer(before, after, new_tokens, gold)
        template = before.replace("{", "{{").replace("}", "}}") + "{context}{question}"
        prompt = Prompt(self._host, template, _CHAT)
        clock = TokenClock()
        options = {"streamer": clock}
        request = Request(self._host, after, 1, new_tokens, prompt, options, memory=memory)
        began = time.perf_counter()
        with metered(self._host.device) as cost:
            text = generate(request, list(spans), 0.0).text
        belief = None
        if gold is not None:
            ids, cache = request.recall(spans)
            assert cache is not None
            belief = self._believe(request, ids, cache, gold)
        return Reply(text, clock.ticks[0] - began, cost, belief)

    @torch.inference_mode()
    def _believe(self, request: Request, ids: list[int], cache: Cache, gold: str) -> Belief:
        """What the host expects after a prompt that it has answered.

        Args:
            request: Its end, and the number of tokens of the gold answer that count.
            ids: The prompt.
            cache: Keys and values of its tokens, or of the first of them, and of the answer.
            gold: The gold answer.

        Raises:
            HostError: The device has too little memory.
        """
        tokenizer = self._host.tokenizer
        gap = "" if request.question[-1:].isspace() or tokenizer.source.chat_template else " "
        wanted = tokenizer.ids(f"{gap}{gold}")[: request.max_new_tokens]
        options: dict[str, Any]
        known, options = min(len(ids) - 1, cache.get_seq_length()), {self._cache_name: cache}
        if any(cache.is_sliding):
            # The window has moved on, so that the prompt's keys are not all there.
            known, options = 0, {"use_cache": False}
        else:
            cache.crop(known - cache.get_seq_length())
        if "logits_to_keep" in self._parameters:
            options["logits_to_keep"] = len(wanted) + 1
        read = torch.tensor([[*ids[known:], *wanted]], device=self._host.device)
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


class Asked:
    """A question about a context, asked with several methods.

    Args:
        sample: The question.
        context: Its context.
        answerer: Answers; None if the host cannot generate.
        kl: Whether the host reads the whole context, too, to compare with what it expects after it.
    """

    def __init__(
        self,
        sample: Sample,
        context: ReadContext,
        answerer: Answerer | None,
        *,
        kl: bool = True,
    ) -> None:
        self._sample = sample
        self._context = context
        self._answerer = answerer
        self._kl = kl
        self._replies: dict[str, Reply] = {}

    def measure(self, method: str, budgets: Sequence[int]) -> dict[str, Any]:
        """Ask with a method.

        Args:
            method: A name from `evidence.METHODS` or `evidence.FORMS`.
            budgets: Tokens of evidence.

        Returns:
            JSON values. `context_tokens`, `prepare_seconds`, and under `budgets` for each budget
            (for `full` the only one, `full`): `tokens` of the evidence, `seconds` of finding it,
            `recall` (1 if it contains a gold answer's words, else 0; None if the context does
            not) and, if the host answers, `answer`, `score`, `contained` (1 if the answer
            contains a gold answer's words, else 0; None if that is a yes or a no), `nll`, `kl`
            (None if the whole context is too long or not read), `first_token_seconds` from the
            evidence to the first new token and `peak_bytes` of everything; or `failed`, why it was
            not asked.
        """
        prepared = self._context.prepare(method)
        named = {"full": 0} if method == "full" else {str(budget): budget for budget in budgets}
        return {
            "context_tokens": self._context.tokens,
            "prepare_seconds": _rounded(prepared.seconds),
            "budgets": {
                name: self._ask(method, budget, prepared) for name, budget in named.items()
            },
        }

    def _ask(self, method: str, budget: int, prepared: Cost) -> dict[str, Any]:
        sample = self._sample
        with metered(self._context.device) as found:
            evidence = self._context.evidence(method, sample.question, budget)
        held = holds_answer(evidence, sample.answers) if self._answerable else None
        values = {
            "tokens": self._context.count(evidence),
            "seconds": _rounded(found.seconds),
            "recall": None if held is None else float(held),
        }
        if self._answerer is None:
            return values
        if method == CACHED:
            spans = self._context.spans(method, sample.question, budget)
            parts = sample.before, spans, sample.after
            assert self._answerer is not None
            reply = self._answerer.recall(
                self._context.memory, parts, sample.task.new_tokens, sample.answers[0]
            )
        else:
            reply = self._reply(f"{sample.before}{evidence}")
        if reply.failed:
            return values | {"failed": reply.failed}
        peak = highest(prepared, found, reply.cost)
        return values | self._judged(reply) | {"peak_bytes": peak}

    def _judged(self, reply: Reply) -> dict[str, Any]:
        sample, belief, whole = self._sample, reply.belief, self._whole
        assert belief is not None
        held = holds_answer(reply.text, sample.answers)
        return {
            "answer": reply.text,
            "score": _rounded(sample.task.score(reply.text, sample.answers)),
            "contained": None if held is None else float(held),
            "nll": _rounded(belief.nll),
            "kl": None if whole is None else _rounded(whole.divergence(belief)),
            "first_token_seconds": _rounded(reply.first_token_seconds),
        }

    def _reply(self, context: str) -> Reply:
        """The answer to a prompt; methods that keep the same part of a context share it."""
        assert self._answerer is not None
        sample = self._sample
        if context not in self._replies:
            self._replies[context] = self._answerer.answer(
                context, sample.after, sample.task.new_tokens, sample.answers[0]
            )
        return self._replies[context]

    @cached_property
    def _answerable(self) -> bool:
        return bool(holds_answer(self._context.text, self._sample.answers))

    @cached_property
    def _whole(self) -> Belief | None:
        """What the host expects after the whole context; None if that is too long or not read."""
        if not self._kl:
            return None
        return self._reply(f"{self._sample.before}{self._sample.context}").belief


def _rounded(value: float) -> float:
    return round(value, 5)
