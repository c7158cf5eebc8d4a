"""LongBench's tasks: how each is asked, how long an answer is, and how it is scored.

Prompts and lengths are those of LongBench (`dataset2prompt.json` and `dataset2maxlen.json` of
https://github.com/THUDM/LongBench), MIT licence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MetricName = Literal["f1", "rouge-l", "retrieval"]

_PASSAGES = (
    "Answer the question based on the given passages. Only give me the answer and do not output "
    "any other words.\n\nThe following are given passages.\n{context}\n\nAnswer the question based "
    "on the given passages. Only give me the answer and do not output any other words.\n\n"
    "Question: {input}\nAnswer:"
)
_STORY = (
    "You are given a story, which can be either a novel or a movie script, and a question. Answer "
    "the question as concisely as you can, using a single phrase if possible. Do not provide any "
    "explanation.\n\nStory: {context}\n\nNow, answer the question based on the story as concisely "
    "as you can, using a single phrase if possible. Do not provide any explanation.\n\n"
    "Question: {input}\n\nAnswer:"
)
_ARTICLE = (
    "You are given a scientific article and a question. Answer the question as concisely as you "
    "can, using a single phrase or sentence if possible. If the question cannot be answered based "
    'on the information in the article, write "unanswerable". If the question is a yes/no '
    'question, answer "yes", "no", or "unanswerable". Do not provide any explanation.\n\n'
    "Article: {context}\n\n Answer the question based on the above article as concisely as you "
    "can, using a single phrase or sentence if possible. If the question cannot be answered based "
    'on the information in the article, write "unanswerable". If the question is a yes/no '
    'question, answer "yes", "no", or "unanswerable". Do not provide any explanation.\n\n'
    "Question: {input}\n\nAnswer:"
)
_TEXT = (
    "Read the following text and answer briefly.\n\n{context}\n\nNow, answer the following "
    "question based on the above text, only give me the answer and do not output any other "
    "words.\n\nQuestion: {input}\nAnswer:"
)
_EXAMPLES = (
    "Answer the question based on the given passage. Only give me the answer and do not output "
    "any other words. The following are some examples.\n\n{context}"
)
_REPORT = (
    "You are given a report by a government agency. Write a one-page summary of the report.\n\n"
    "Report:\n{context}\n\nNow, write a one-page summary of the report.\n\nSummary:"
)
_MEETING = (
    "You are given a meeting transcript and a query containing a question or instruction. Answer "
    "the query in one or more sentences.\n\nTranscript:\n{context}\n\nNow, answer the query based "
    "on the above meeting transcript in one or more sentences.\n\nQuery: {input}\nAnswer:"
)
_ABSTRACT = (
    "Here are 30 paragraphs from Wikipedia, along with an abstract. Please determine which "
    "paragraph the abstract is from.\n\n{context}\n\nThe following is an abstract.\n\n{input}\n\n"
    "Please enter the number of the paragraph that the abstract is from. The answer format must "
    'be like "Paragraph 1", "Paragraph 2", etc.\n\nThe answer is: '
)


@dataclass(frozen=True, slots=True)
class Task:
    """A task.

    Attributes:
        name: LongBench's.
        prompt: The prompt, with `{context}` and, where there is a question, `{input}`.
        new_tokens: Tokens of an answer at most.
        metric: How an answer is scored; see `metrics.score`.
        parts: Where a prompt is taken apart, as `prompt`, where that is not `prompt` itself.
        first_line: Whether only the first line of an answer counts.
    """

    name: str
    prompt: str
    new_tokens: int
    metric: MetricName
    parts: str = ""
    first_line: bool = False

    def take_apart(self, prompt: str) -> tuple[str, str, str, str] | None:
        """What stands before the context, the context, what stands after it, and the question.

        A task without a question is asked by what the prompt says after the context.

        Returns:
            None where the prompt is not of this task's form.
        """
        before, _, rest = (self.parts or self.prompt).partition("{context}")
        middle, asks, end = rest.partition("{input}")
        # Copies of LongBench differ in white space at the end.
        told = (end if asks else middle).rstrip()
        stop = len(prompt.rstrip()) - len(told)
        body, closing = prompt[len(before) : stop], prompt[stop:]
        if not prompt.startswith(before) or closing.rstrip() != told or stop < len(before):
            return None
        if not asks:
            return before, body, closing, closing.strip().partition("\n")[0]
        context, found, question = body.rpartition(middle)
        return (before, context, middle + question + closing, question) if found else None


TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task("narrativeqa", _STORY, 128, "f1"),
        Task("qasper", _ARTICLE, 128, "f1"),
        Task("multifieldqa_en", _TEXT, 64, "f1"),
        Task("hotpotqa", _PASSAGES, 32, "f1"),
        Task("2wikimqa", _PASSAGES, 32, "f1"),
        Task("musique", _PASSAGES, 32, "f1"),
        Task("gov_report", _REPORT, 512, "rouge-l"),
        Task("qmsum", _MEETING, 512, "rouge-l"),
        # LongBench's context are the examples, its input is the passage with the question: the
        # passage is what is to be read, so that it belongs to the context here.
        Task(
            "triviaqa",
            f"{_EXAMPLES}\n\n{{input}}",
            32,
            "f1",
            parts=f"{_EXAMPLES}\nQuestion:\n{{input}}\nAnswer:\n",
            first_line=True,
        ),
        Task("passage_retrieval_en", _ABSTRACT, 32, "retrieval"),
    )
}


def task_named(name: str) -> Task:
    """A task of LongBench, or one of short answers to questions under another name."""
    return TASKS.get(name) or Task(name, _PASSAGES, 32, "f1")
