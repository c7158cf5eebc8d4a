"""What a model still answers after its cache of a context was compressed.

The context is read, the cache compressed, and only then the question asked, so that no method can
keep what the question needs.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch

from s3_retriever import Host
from s3_retriever.answer.prompt import Prompt
from s3_retriever_bench.cache.methods import Method, Prefix, Reader
from s3_retriever_bench.longcontext.longbench import TASKS, Sample
from s3_retriever_bench.longcontext.needles import make_haystack

_DEPTHS = (0.1, 0.3, 0.5, 0.7, 0.9)
# Room in a length for the prompt around a haystack, and tokens of a gold answer that count.
_AROUND = 160
_MOST_WANTED = 32


@dataclass(frozen=True, slots=True)
class Quiz:
    """A context and questions about it, in tokens.

    Attributes:
        context: The prompts' common beginning.
        questions: Of each question, the rest of the prompt and the gold answer.
    """

    context: list[int]
    questions: list[tuple[list[int], list[int]]]

    @property
    def longest(self) -> int:
        """Tokens of the context with its longest question and answer."""
        return len(self.context) + max(len(rest) + len(gold) for rest, gold in self.questions)


def needle_quiz(host: Host, text: str, number: int, seed: int) -> Quiz:
    """Ask for made-up facts in a text.

    Args:
        host: The model.
        text: The haystack.
        number: Its number, which decides the facts.
        seed: Seed of the facts.
    """
    before, _, rest = TASKS["multifieldqa_en"].prompt.partition("{context}")
    haystack = make_haystack(text, _DEPTHS, number, seed)
    asked = [
        (rest.replace("{input}", needle.question), needle.value) for needle in haystack.needles
    ]
    return _quiz(host, f"{before}{haystack.text}", asked)


def haystack_tokens(length: int) -> int:
    """Tokens of a haystack whose prompts have about `length`."""
    return length - _AROUND


def sample_quiz(host: Host, sample: Sample) -> Quiz:
    """Ask a question of LongBench's form, whose first answer counts."""
    return _quiz(host, f"{sample.before}{sample.context}", [(sample.after, sample.answers[0])])


def _quiz(host: Host, context: str, asked: Sequence[tuple[str, str]]) -> Quiz:
    # Answers are short, so a model such as Qwen3 must not think first.
    prompt = Prompt(host, "{context}{question}", {"enable_thinking": False})
    whole = [prompt.ids(context, after) for after, _ in asked]
    known = _common([*whole, prompt.ids(context, "")])
    chat = bool(host.tokenizer.source.chat_template)
    questions = []
    for ids, (after, gold) in zip(whole, asked, strict=True):
        gap = "" if chat or after[-1:].isspace() else " "
        questions.append((ids[known:], host.tokenizer.ids(f"{gap}{gold}")[:_MOST_WANTED]))
    return Quiz(whole[0][:known], questions)


def _common(sequences: Sequence[Sequence[int]]) -> int:
    """Length of the common beginning."""
    columns = zip(*sequences, strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


@torch.inference_mode()
def ask(reader: Reader, quiz: Quiz, method: Method, prefix: Prefix) -> dict[str, Any]:
    """Ask all questions about a context.

    Args:
        reader: The model.
        quiz: The context and the questions.
        method: How to keep the context.
        prefix: What the model cached of it.

    Returns:
        JSON values, one for each question: `nll` of the gold answer, nats a token, and `given`,
        whether greedy decoding gives it: 1.0 or 0.0.
    """
    kept = method.make()
    method.fill(kept, prefix)
    reader.model.set_attn_implementation(method.attention)
    scores = [_score(reader, method, copy.deepcopy(kept), *question) for question in quiz.questions]
    return {
        "nll": [round(nll, 5) for nll, _ in scores],
        "given": [float(given) for _, given in scores],
    }


def _score(
    reader: Reader, method: Method, cache: Any, rest: list[int], gold: list[int]
) -> tuple[float, bool]:
    with method.running():
        logits = reader.read([*rest, *gold[:-1]], cache)[0, -len(gold) :].float()
    wanted = torch.tensor(gold, device=logits.device)
    nll = torch.nn.functional.cross_entropy(logits, wanted)
    # Each token is the likeliest behind those before it, just as in greedy decoding.
    return float(nll), bool((logits.argmax(-1) == wanted).all())


def quiz_values(parts: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """The values of several contexts in columns."""
    return {name: [value for part in parts for value in part[name]] for name in ("nll", "given")}
