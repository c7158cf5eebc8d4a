"""LongBench: its tasks, samples of them in JSON Lines files, and the public archive.

Question sets with labelled evidence, as `quality` takes them, are asked in the same form.
Prompts and lengths are those of LongBench (`dataset2prompt.json` and `dataset2maxlen.json` of
https://github.com/THUDM/LongBench), MIT licence.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from huggingface_hub import hf_hub_download

from s3_retriever import Document, InputError
from s3_retriever.calibration.public_sets import PUBLIC, load_set
from s3_retriever.calibration.question_sets import Choice, build_task
from s3_retriever_bench.shared.corpus import parsed, string
from s3_retriever_bench.shared.scoring import MetricName, score
from s3_retriever_bench.shared.storage import text_digest

# What LongBench's loading script downloads, which `datasets` no longer runs: an archive with a
# file `data/NAME.jsonl` for each task.
_REPOSITORY = "THUDM/LongBench"
_ARCHIVE = "data.zip"
# Names of tasks become parts of file names.
_NAME = re.compile(r"[\w.-]+")
_ROW = "a JSON object with dataset, answers, and either context and input, or prompt"


@dataclass(frozen=True, slots=True)
class Task:
    """A task.

    Attributes:
        name: LongBench's name.
        prompt: The prompt, with `{context}` and, if there is a question, `{input}`.
        new_tokens: Maximum tokens of an answer.
        metric: How to score an answer.
        parts: Where to take a prompt apart, in the form of `prompt`; empty for `prompt` itself.
        first_line: Whether only the first line of an answer counts.
    """

    name: str
    prompt: str
    new_tokens: int
    metric: MetricName
    parts: str = ""
    first_line: bool = False

    def score(self, answer: str, golds: Sequence[str]) -> float:
        """The best score, 0 to 1, of an answer against any of the gold answers."""
        if self.first_line:
            answer = answer.lstrip("\n").partition("\n")[0]
        return score(self.metric, answer, golds)

    def take_apart(self, prompt: str) -> tuple[str, str, str, str] | None:
        """The text before the context, the context, the text after it, and the question.

        A task without a question is asked by what the prompt says after the context.

        Returns:
            None if the prompt is not of this task's form.
        """
        before, _, rest = (self.parts or self.prompt).partition("{context}")
        middle, asks, end = rest.partition("{input}")
        # Copies of LongBench differ in white space at the end.
        last = (end if asks else middle).rstrip()
        stop = len(prompt.rstrip()) - len(last)
        body, closing = prompt[len(before) : stop], prompt[stop:]
        if not prompt.startswith(before) or closing.rstrip() != last or stop < len(before):
            return None
        if not asks:
            return before, body, closing, closing.strip().partition("\n")[0]
        context, separator, question = body.rpartition(middle)
        return (before, context, middle + question + closing, question) if separator else None


def _tasks() -> dict[str, Task]:
    """LongBench's tasks, from its `dataset2prompt.json` and `dataset2maxlen.json`.

    In `triviaqa`, its context is the examples and its input is the passage with the question. Here
    the passage belongs to the context, since it is what a reader searches.
    """
    text = files("s3_retriever_bench.longcontext").joinpath("longbench.json").read_text("utf-8")
    return {name: Task(name, **fields) for name, fields in json.loads(text).items()}


TASKS: Mapping[str, Task] = _tasks()


def task_named(name: str) -> Task:
    """A task of LongBench; any other name means short answers to questions."""
    return TASKS.get(name) or replace(TASKS["hotpotqa"], name=name)


def join_documents(documents: Iterable[Document]) -> str:
    """Documents as a prompt has them: behind their titles, with a blank line between."""
    return "\n\n".join(f"{d.title}\n{d.text}" if d.title else d.text for d in documents)


@dataclass(frozen=True)
class Sample:
    """A question about a long context.

    Attributes:
        task: Its task.
        before: The prompt before the context.
        documents: What to compress: the context, or the documents that it is made of.
        after: The prompt after the context, including the question.
        question: The text to retrieve for.
        answers: Gold answers, at least one.
    """

    task: Task
    before: str
    documents: tuple[Document, ...]
    after: str
    question: str
    answers: tuple[str, ...]

    @property
    def context(self) -> str:
        """The whole context."""
        return join_documents(self.documents)

    @property
    def prompt(self) -> str:
        """The whole prompt."""
        return f"{self.before}{self.context}{self.after}"

    @cached_property
    def group(self) -> str:
        """A hash that identifies the context."""
        return text_digest(self.context)

    @cached_property
    def digest(self) -> str:
        """A hash that identifies this sample."""
        return text_digest(repr((self.task, self.prompt, self.question, self.answers)))


def parse_sample(row: Mapping[str, Any]) -> Sample:
    """A row of LongBench, or of a sample of it with whole prompts.

    Args:
        row: `dataset`, `answers`, and either `context` and `input` (or `question`), or `prompt`.
            A prompt that fits no task needs `context` and `question` beside it.

    Raises:
        ValueError: The row is not of that form; the message says why.
    """
    task = task_named(string(row, "dataset"))
    if not _NAME.fullmatch(task.name):
        raise ValueError(f"dataset {task.name!r} may have only letters, digits and '_-.'")
    answers = row.get("answers")
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise ValueError("answers is not a list of strings")
    answers = [answer for answer in answers if answer.strip()]
    if not answers:
        raise ValueError("answers has no answer")
    before, context, after, question = _parts(task, row)
    if not context.strip():
        raise ValueError("the context is empty")
    if not question.strip():
        raise ValueError("the question is empty")
    documents = (Document(context),)
    return Sample(task, before, documents, after, question.strip(), tuple(answers))


def _parts(task: Task, row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    prompt = string(row, "prompt") if "prompt" in row else _written(task, row)
    # Samples of LongBench ask some tasks with the prompt of another.
    for known in (task, *TASKS.values()):
        parts = known.take_apart(prompt)
        if parts is not None:
            return parts
    if "context" not in row or "question" not in row:
        raise ValueError("prompt fits no task of LongBench, and context and question are missing")
    before, context, after = prompt.partition(string(row, "context"))
    if not context:
        raise ValueError("prompt does not contain the context")
    return before, context, after, string(row, "question")


def _written(task: Task, row: Mapping[str, Any]) -> str:
    """The task's prompt around a context and a question, which may contain braces."""
    field = "input" if "input" in row else "question"
    question = string(row, field) if "{input}" in task.prompt else ""
    before, _, rest = task.prompt.partition("{context}")
    return f"{before}{string(row, 'context')}{rest.replace('{input}', question)}"


def read_samples(sources: Sequence[str], names: Sequence[str], choice: Choice) -> list[Sample]:
    """The samples of files and of public tasks; a question in two files counts once.

    Args:
        sources: JSON Lines of the form that `parse_sample` reads, or question sets as `load_set`
            takes them.
        names: Tasks of public LongBench, from the Hub.
        choice: Which questions of a question set, and among how many paragraphs.

    Raises:
        InputError: A file or a row is not usable, there is no such task, or the Hub is out of
            reach.
    """
    for name in names:
        if name not in TASKS:
            raise InputError(f"There is no task {name!r}; choose from {', '.join(TASKS)}.")
    samples = [sample for source in sources for sample in _samples(source, choice)]
    samples += [sample for name in names for sample in _public(name)]
    return list({sample.digest: sample for sample in samples}.values())


def _samples(source: str, choice: Choice) -> Iterable[Sample]:
    if source in PUBLIC or _is_question_set(Path(source)):
        return _question_set(source, choice)
    return _file(Path(source))


def _is_question_set(path: Path) -> bool:
    """Whether the first line labels evidence; a file that cannot be read is none."""
    try:
        with path.open(encoding="utf-8-sig") as lines:
            return "support" in json.loads(next(lines, "{}"))
    except (OSError, ValueError, RecursionError, TypeError):
        return False


def _question_set(source: str, choice: Choice) -> Iterator[Sample]:
    """The questions of a set that have an answer, with the prompt of a task like theirs."""
    questions = load_set(source)
    if questions.form == "corpus":
        raise InputError(
            f"{questions.name} has a corpus for all questions, which no prompt holds; choose a set "
            "whose questions come with their documents."
        )
    like = TASKS["hotpotqa" if questions.form == "paragraphs" else "multifieldqa_en"]
    like = TASKS.get(questions.name, like)
    # LongBench has tasks of the same names.
    task = replace(like, name=f"{questions.name}-set")
    for context in build_task(questions, choice).contexts:
        for asked in context.questions:
            answers = tuple(answer for answer in asked.answers if answer.strip())
            if answers:
                before, _, rest = task.prompt.partition("{context}")
                after = rest.replace("{input}", asked.text)
                yield Sample(task, before, context.documents, after, asked.text, answers)


def choose(samples: Iterable[Sample], questions: int | None, seed: int) -> list[Sample]:
    """Samples task by task, shuffled, at most `questions` of each task; a context's together."""
    by_task: dict[str, list[Sample]] = {}
    for sample in samples:
        by_task.setdefault(sample.task.name, []).append(sample)
    chosen = []
    for group in by_task.values():
        by_context: dict[str, list[Sample]] = {}
        for sample in random.Random(seed).sample(group, len(group))[:questions]:  # noqa: S311
            by_context.setdefault(sample.group, []).append(sample)
        chosen += [sample for same in by_context.values() for sample in same]
    return chosen


def _file(path: Path) -> list[Sample]:
    try:
        with path.open(encoding="utf-8-sig") as lines:
            samples = list(parsed(path, lines, parse_sample, _ROW))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); pass a JSON Lines file in LongBench's form "
            "or a question set to --data."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error.reason}); convert it first.") from error
    if not samples:
        raise InputError(f"{path} has no questions; pass a file with a question per line.")
    return samples


def _public(name: str) -> Iterator[Sample]:
    try:
        path = hf_hub_download(_REPOSITORY, _ARCHIVE, repo_type="dataset")
        with ZipFile(path) as archive:
            lines = archive.read(f"data/{name}.jsonl").decode().split("\n")
    # The Hub's client passes on errors of its HTTP library, which have no common base.
    except Exception as error:
        raise InputError(
            f"Public LongBench ({_REPOSITORY} on the Hub) is out of reach; check the connection, "
            f"or pass files to --data instead ({error})."
        ) from error
    yield from parsed(f"{_REPOSITORY} {name}", lines, parse_sample, _ROW)
