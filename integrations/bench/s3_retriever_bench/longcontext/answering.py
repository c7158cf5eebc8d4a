"""A host that answers: what it generates after a prompt, and what it thinks of the gold answer."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from s3_retriever.answer.generation import generate
from s3_retriever.answer.prompt import Prompt, Request
from s3_retriever.errors import HostError
from s3_retriever.host import Host
from s3_retriever.host.device import is_out_of_memory
from s3_retriever.search import Span


@dataclass(frozen=True, slots=True)
class Belief:
    """What a host makes of a prompt.

    Attributes:
        next: Log-probabilities of the token after the prompt [vocabulary].
        nll: Negative log-likelihood of an answer, nats per token.
    """

    next: Tensor
    nll: float

    def divergence(self, other: Belief) -> float:
        """Kullback-Leibler divergence, in nats, of the other's next token from this one's."""
        return float((self.next.exp() * (self.next - other.next)).sum())


class Answerer:
    """Asks a host with prompts that stand ready, within its chat template where it has one.

    Args:
        host: A causal host.

    Raises:
        HostError: It cannot generate.
    """

    def __init__(self, host: Host) -> None:
        self._causal: Any = host.causal
        self._host = host
        # An answer has a few tokens: a model that would think first, such as Qwen3, is not to.
        self._prompt = Prompt(host, "{context}{question}", {"enable_thinking": False})

    def length(self, context: str, after: str) -> int:
        """Tokens of a prompt."""
        return len(self._prompt.ids(context, after))

    def too_long(self, tokens: int, new_tokens: int) -> str | None:
        """Why a prompt and its answer cannot be read; None where they can."""
        limit = self._host.positions
        if limit is None or tokens + new_tokens < limit:
            return None
        return f"beyond the model's {limit:,} positions"

    def answer(self, context: str, after: str, new_tokens: int) -> str:
        """The text that the host generates after a prompt, greedily.

        Args:
            context: What the prompt says up to the end of the context.
            after: The rest of it.
            new_tokens: Tokens at most.

        Raises:
            HostError: The device has no memory for them.
        """
        request = Request(self._host, after, 1, new_tokens, self._prompt, {})
        whole = Span(context, 0.0, "context", 0, len(context), (), {}, 0)
        return generate(request, [whole], 0.0).text

    @torch.inference_mode()
    def believe(self, context: str, after: str, gold: str, new_tokens: int) -> Belief:
        """What the host expects after a prompt, and how far the gold answer is from that.

        Args:
            context: What the prompt says up to the end of the context.
            after: The rest of it.
            gold: The answer.
            new_tokens: So many tokens of it count at most.

        Raises:
            HostError: The device has no memory for them.
        """
        ids = self._prompt.ids(context, after)
        gap = "" if after[-1:].isspace() or self._host.tokenizer.source.chat_template else " "
        wanted = self._host.tokenizer.ids(f"{gap}{gold}")[:new_tokens]
        read = torch.tensor([[*ids, *wanted]], device=self._host.device)
        options = {"use_cache": False, **self._kept(len(wanted))}
        try:
            with self._host.lock:
                logits = self._causal(input_ids=read, **options).logits
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise HostError(f"The device has no memory to read {read.numel()} tokens.") from error
        seen = logits[0, -len(wanted) - 1 :].float().log_softmax(-1).cpu()
        said = seen[:-1].gather(1, torch.tensor(wanted)[:, None])
        return Belief(seen[0].clone(), -float(said.mean()))

    def _kept(self, answer: int) -> dict[str, Any]:
        """The option by which no more logits are made than are looked at, where there is one."""
        names = inspect.signature(self._causal.forward).parameters
        return {"logits_to_keep": answer + 1} if "logits_to_keep" in names else {}
