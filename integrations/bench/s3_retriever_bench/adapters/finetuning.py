"""Training a causal model on pairs of prompt and answer, and measuring what it then says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

# Tokens of a prompt and of an answer that are trained on and measured.
_PROMPT_TOKENS = 48
_ANSWER_TOKENS = 32
_GENERATE_BATCH = 16
_TEXT_WINDOW = 256
_IGNORED = -100


class Batch(NamedTuple):
    """Prompts and answers, padded on the left so that all end at the same place.

    Attributes:
        ids: Token ids [pairs, length].
        mask: 1 for tokens, 0 for padding.
        labels: The answers' ids, elsewhere -100 [pairs, kept].
    """

    ids: Tensor
    mask: Tensor
    labels: Tensor


class Chat:
    """A tokenizer's chat template around prompts.

    Args:
        tokenizer: A tokenizer with a chat template.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.pad = 0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
        self.end = int(tokenizer.eos_token_id)

    def prompt(self, text: str) -> list[int]:
        """A prompt, ready for the answer."""
        ids = self._ids(text)[:_PROMPT_TOKENS]
        # Some templates add a system message of their own, half of the tokens of a short prompt.
        chat = [
            {"role": "system", "content": ""},
            {"role": "user", "content": self._tokenizer.decode(ids)},
        ]
        rendered = self._tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=True
        )
        return self._ids(rendered)

    def answer(self, text: str) -> list[int]:
        """The beginning of an answer; a whole one with its end."""
        ids = self._ids(text)
        return [*ids, self.end] if len(ids) < _ANSWER_TOKENS else ids[:_ANSWER_TOKENS]

    def text(self, ids: Sequence[int]) -> str:
        """Token ids as text."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def windows(self, text: str, tokens: int) -> Tensor:
        """The first tokens of a text in windows [n, 256]."""
        count = max(tokens // _TEXT_WINDOW, 1) * _TEXT_WINDOW
        ids = self._ids(text)[:count]
        return torch.tensor(ids[: len(ids) // _TEXT_WINDOW * _TEXT_WINDOW]).view(-1, _TEXT_WINDOW)

    def batch(self, pairs: Sequence[tuple[str, str]]) -> Batch:
        """Pairs of prompt and answer."""
        prompts = [self.prompt(prompt) for prompt, _ in pairs]
        answers = [self.answer(answer) for _, answer in pairs]
        whole = [[*p, *a] for p, a in zip(prompts, answers, strict=True)]
        ids, mask = self.padded(whole)
        kept = max(map(len, answers))
        labels = torch.full((len(pairs), kept), _IGNORED)
        for row, answer in enumerate(answers):
            labels[row, kept - len(answer) :] = torch.tensor(answer)
        return Batch(ids, mask, labels)

    def padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Rows of token ids padded on the left, and their mask."""
        length = max(map(len, rows))
        ids = torch.full((len(rows), length), self.pad)
        mask = torch.zeros((len(rows), length), dtype=torch.long)
        for number, row in enumerate(rows):
            ids[number, length - len(row) :] = torch.tensor(row)
            mask[number, length - len(row) :] = 1
        return ids, mask

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def answer_losses(model: Any, batch: Batch) -> Tensor:
    """The negative log likelihood of every token of the answers, flat."""
    kept = batch.labels.shape[1]
    positions = (batch.mask.cumsum(1) - 1).clamp_min(0)
    # The head is a fifth of a small model's work, and only answers need it.
    logits = model(
        input_ids=batch.ids,
        attention_mask=batch.mask,
        position_ids=positions,
        logits_to_keep=kept + 1,
    ).logits[:, :-1]
    losses = functional.cross_entropy(
        logits.flatten(0, 1).float(), batch.labels.flatten(), reduction="none"
    )
    return losses[batch.labels.flatten() != _IGNORED]


def train(
    model: Any, chat: Chat, pairs: Sequence[tuple[str, str]], batch_size: int, rate: float
) -> list[float]:
    """Train what requires gradients, one pass over the pairs.

    Adam; the rate warms up over the first tenth of the steps and falls linearly to zero.

    Returns:
        The mean loss of each step.
    """
    parameters = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    batches = [pairs[i : i + batch_size] for i in range(0, len(pairs), batch_size)]
    losses = []
    model.train()
    for step, part in enumerate(batches):
        done = step / len(batches)
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (done + 1 / len(batches)) / 0.1) * (1.0 - done)
        loss = answer_losses(model, chat.batch(part)).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        losses.append(round(float(loss.detach()), 4))
    model.train(mode=False)
    return losses


@torch.inference_mode()
def answers(model: Any, chat: Chat, prompts: Sequence[str], tokens: int) -> list[str]:
    """The beginnings of a model's greedy answers, in order."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    found: dict[int, str] = {}
    for begin in range(0, len(order), _GENERATE_BATCH):
        part = order[begin : begin + _GENERATE_BATCH]
        ids, mask = chat.padded([chat.prompt(prompts[i]) for i in part])
        written = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=tokens,
            do_sample=False,
            pad_token_id=chat.pad,
        )
        for row, i in enumerate(part):
            found[i] = chat.text(written[row, ids.shape[1] :].tolist())
    return [found[i] for i in range(len(prompts))]


@torch.inference_mode()
def answer_likelihood(model: Any, chat: Chat, pairs: Sequence[tuple[str, str]]) -> float:
    """Mean log likelihood of a token of the answers."""
    parts = [list(pairs[i : i + 8]) for i in range(0, len(pairs), 8)]
    losses = torch.cat([answer_losses(model, chat.batch(part)) for part in parts])
    return -float(losses.mean())


@torch.inference_mode()
def perplexity(model: Any, windows: Tensor) -> float:
    """Perplexity of windows of token ids [n, length], the first token of each left out."""
    total = 0.0
    for window in windows:
        logits = model(input_ids=window[None]).logits[0, :-1]
        total += float(functional.cross_entropy(logits.float(), window[1:]))
    return math.exp(total / len(windows))
