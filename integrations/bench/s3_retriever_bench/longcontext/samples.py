"""`Sample`: a question about a long context, and the prompt around the two."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from s3_retriever_bench.longcontext.tasks import TASKS, Task, task_named

# It goes into the names of files.
_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class Sample:
    """A question about a long context.

    Attributes:
        task: What it belongs to.
        before: What the prompt says before the context.
        context: What is compressed.
        after: What the prompt says after it, the question in it.
        question: What is retrieved for.
        answers: Gold answers, at least one.
    """

    task: Task
    before: str
    context: str
    after: str
    question: str
    answers: tuple[str, ...]

    @property
    def prompt(self) -> str:
        """The whole prompt."""
        return f"{self.before}{self.context}{self.after}"

    @cached_property
    def digest(self) -> str:
        """Tells this sample from others."""
        told = repr((self.task, self.prompt, self.question, self.answers))
        return hashlib.blake2b(told.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def parse_sample(row: Mapping[str, Any]) -> Sample:
    """A row of LongBench, or of a sample of it with whole prompts.

    Args:
        row: `dataset`, `answers`, and either `context` and `input` (or `question`), or `prompt`.
            A prompt that is of no task's form needs `context` and `question` beside it.

    Raises:
        ValueError: It is not of that form; the message says what is wrong.
    """
    task = task_named(_text(row, "dataset"))
    if not _NAME.fullmatch(task.name):
        raise ValueError(f"dataset {task.name!r} has other characters than letters, digits, '_-.'")
    answers = row.get("answers")
    if not isinstance(answers, list) or not all(isinstance(one, str) for one in answers):
        raise ValueError("answers is no list of strings")
    answers = [answer for answer in answers if answer.strip()]
    if not answers:
        raise ValueError("answers has no answer")
    before, context, after, question = _parts(task, row)
    if not context.strip():
        raise ValueError("the context is empty")
    if not question.strip():
        raise ValueError("the question is empty")
    return Sample(task, before, context, after, question.strip(), tuple(answers))


def _parts(task: Task, row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    prompt = _text(row, "prompt") if "prompt" in row else _written(task, row)
    # Samples of LongBench ask some tasks with the prompt of another.
    for known in (task, *TASKS.values()):
        parts = known.take_apart(prompt)
        if parts is not None:
            return parts
    if "context" not in row or "question" not in row:
        raise ValueError("prompt is of no task of LongBench, and context and question are missing")
    before, found, after = prompt.partition(_text(row, "context"))
    if not found:
        raise ValueError("prompt does not hold the context")
    return before, found, after, _text(row, "question")


def _written(task: Task, row: Mapping[str, Any]) -> str:
    """The task's prompt around a context and a question, which may hold braces."""
    asked = "input" if "input" in row else "question"
    question = _text(row, asked) if "{input}" in task.prompt else ""
    before, _, rest = task.prompt.partition("{context}")
    return f"{before}{_text(row, 'context')}{rest.replace('{input}', question)}"


def _text(row: Mapping[str, Any], field: str) -> str:
    value = row.get(field)
    if not isinstance(value, str):
        raise ValueError(f"{field} is missing or no string")  # noqa: TRY004 - one kind for all
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{field} has a lone surrogate, which is no Unicode text") from None
    return value
