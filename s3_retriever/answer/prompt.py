"""Prompts: evidence as text, the template around it, and the question as a checked request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from string import Formatter
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from s3_retriever.answer.budget import default_token_budget
from s3_retriever.document import title_of
from s3_retriever.errors import HostError, InputError
from s3_retriever.host import Host
from s3_retriever.search import Span
from s3_retriever.types import (
    DEFAULT_CONTEXT,
    ContextForm,
    Mode,
    Refresh,
    Where,
    check_choice,
    check_count,
    check_refresh,
    check_share,
    check_text,
)

if TYPE_CHECKING:
    from transformers.cache_utils import Cache

    from s3_retriever.answer.evidence_cache import EvidenceCache

CHAT_PROMPT = "Answer the question from the context.\n\nContext:\n{context}\n\nQuestion: {question}"
PLAIN_PROMPT = f"{CHAT_PROMPT}\nAnswer:"

# Placeholder for the user's message while the chat template is rendered.
_MESSAGE = "S3-USER-MESSAGE"


def join_evidence(spans: Sequence[Span]) -> str:
    """Join spans into one text, in the given order.

    Adjacent sentences stay adjacent; a line break marks what lies between others. A blank line
    separates documents, and a document with a title starts with it.
    """
    if not spans:
        return ""
    parts = [_title(spans[0]), spans[0].text]
    for before, span in pairwise(spans):
        parts += [_between(before, span), span.text]
    return "".join(parts)


def fit_evidence(
    spans: Sequence[Span], count: Callable[[Sequence[Span]], int], token_budget: int
) -> list[Span]:
    """Drop the worst spans until the rest fits into the budget once joined.

    The spans' own tokens fit already; joining them adds a few.

    Args:
        spans: In any order, which is kept.
        count: Counts the tokens of spans joined.
        token_budget: Most tokens.
    """
    kept = list(spans)
    while kept and count(kept) > token_budget:
        # Among equals the last one goes.
        worst = min(range(len(kept)), key=lambda i: (kept[i].score, -i))
        del kept[worst]
    return kept


def _between(before: Span, span: Span) -> str:
    if before.document_id != span.document_id:
        return f"\n\n{_title(span)}"
    gap = span.start - before.end
    return " " * gap if gap in (0, 1) else "\n"


def _title(span: Span) -> str:
    title = title_of(span.metadata)
    return f"{title}\n" if title else ""


class Prompt:
    """Writes prompts: the only message of a chat if the tokenizer has a chat template.

    Control tokens come from the chat template alone; in context, question and template they are
    read as plain text.

    Args:
        host: The host, whose tokenizer is used.
        template: A text with `{context}` and `{question}`; defaults to `CHAT_PROMPT` or
            `PLAIN_PROMPT`.
        chat_options: Passed on to the chat template, such as `{"enable_thinking": False}`.

    Raises:
        InputError: The template lacks a field, has an unknown one, or is not valid Unicode.
        HostError: The chat template cannot be rendered.
    """

    def __init__(
        self,
        host: Host,
        template: str | None = None,
        chat_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._tokenizer = host.tokenizer
        chat = bool(self._tokenizer.source.chat_template)
        self._template = (CHAT_PROMPT if chat else PLAIN_PROMPT) if template is None else template
        _check_template(self._template)
        self._before, self._after = list(self._tokenizer.prefix), list[int]()
        if chat:
            before, after = _around_message(host, chat_options or {})
            self._before = self._tokenizer.control_ids(before)
            self._after = self._tokenizer.control_ids(after)

    def around(self, question: str) -> tuple[list[int], list[int]]:
        """Token ids of what stands before the context, and of what stands behind it.

        Raises:
            InputError: The template names the context more than once.
        """
        sides = [""]
        for text, name, _, _ in Formatter().parse(self._template):
            sides[-1] += text
            if name == "question":
                sides[-1] += question
            elif name == "context":
                sides.append("")
        if len(sides) != 2:
            raise InputError(
                'With evidence="cache" a prompt names {context} only once; leave the rest out, or '
                'use evidence="text".'
            )
        ids = self._tokenizer.ids
        return [*self._before, *ids(sides[0])], [*ids(sides[1]), *self._after]

    def ids(self, context: str, question: str) -> list[int]:
        """Token ids of the prompt."""
        text = self._template.format(context=context, question=question)
        return [*self._before, *self._tokenizer.ids(text), *self._after]


def _check_template(template: str) -> None:
    check_text(template, "prompt")
    try:
        fields = {
            f"{name}!{conversion}" if conversion else f"{name}:{spec}" if spec else name
            for _, name, spec, conversion in Formatter().parse(template)
            if name is not None
        }
    except ValueError as error:
        raise InputError(
            f"The prompt cannot be filled in ({error}); write single braces as '{{{{' and '}}}}'."
        ) from error
    if fields != {"context", "question"}:
        raise InputError(
            "A prompt has the fields {context} and {question} and no others, not "
            f"{sorted(fields)}; write other braces as '{{{{' and '}}}}'."
        )


def _around_message(host: Host, options: Mapping[str, Any]) -> tuple[str, str]:
    """What the chat template puts before and after a user's message."""
    chat = [{"role": "user", "content": _MESSAGE}]
    try:
        text = host.tokenizer.source.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=True, **options
        )
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        raise _unusable_template(host, f"cannot be rendered ({error})") from error
    before, message, after = str(text).partition(_MESSAGE)
    if not message:
        raise _unusable_template(host, "leaves the user's message out")
    return before, after


def _unusable_template(host: Host, problem: str) -> HostError:
    return HostError(
        f"The chat template of host {host.name!r} {problem}; correct it, or set the tokenizer's "
        "chat_template to None for a plain prompt."
    )


@dataclass(frozen=True)
class Request:
    """A question for a host to answer from evidence, checked before any work.

    Attributes:
        host: The host.
        question: Any text.
        token_budget: Most tokens of evidence; None for the host's default, or what question and
            answer leave of it.
        max_new_tokens: Most tokens of the answer.
        prompt: Writes the prompt.
        options: Passed on to the model's `generate`.
        refresh: New tokens after which the evidence is searched for again, or `uncertain`; None
            for never.
        min_relevance: As in `ScannedContext.compress`.
        mode: As in `S3Index.search`.
        where: As in `S3Index.search`.
        memory: What the host cached of the context; None to read the evidence.
        context: What the spans of the evidence take along of the text around them.

    Raises:
        HostError: The host cannot generate.
        InputError: The question is empty, a number is out of range, the mode is unknown, or
            question, evidence and answer together need more positions than the host has.
    """

    host: Host
    question: str
    token_budget: int | None
    max_new_tokens: int
    prompt: Prompt
    options: Mapping[str, Any]
    refresh: Refresh | None = None
    min_relevance: float | None = None
    mode: Mode = "hybrid"
    where: Where | None = None
    context: ContextForm = DEFAULT_CONTEXT
    memory: EvidenceCache | None = None

    def __post_init__(self) -> None:
        """Check everything that does not need the evidence."""
        _ = self.host.causal
        check_text(self.question, "question")
        if self.token_budget is not None:
            check_count(self.token_budget, "token_budget")
        check_count(self.max_new_tokens, "max_new_tokens")
        check_refresh(self.refresh)
        check_share(self.min_relevance, "min_relevance")
        check_choice(self.mode, "mode", Mode)
        check_choice(self.context, "context", ContextForm)
        if self._room is None:
            return
        facts = (
            f"host {self.host.name!r} reads {self.host.positions} tokens, of which question and "
            f"template take {self.overhead} and the answer up to {self.max_new_tokens}"
        )
        if self._room < 1:
            raise InputError(
                f"There is no room for evidence: {facts}; shorten the question or the answer."
            )
        if self.token_budget is not None and self.token_budget > self._room:
            raise InputError(
                f"A token_budget of {self.token_budget} is too large: {facts}; {self._room} are "
                "left."
            )

    @cached_property
    def overhead(self) -> int:
        """Tokens of the prompt without evidence."""
        return len(self.prompt.ids("", self.question))

    @cached_property
    def evidence_tokens(self) -> int:
        """Most tokens of evidence: the budget given, or the host's default."""
        if self.token_budget is not None:
            return self.token_budget
        default = default_token_budget(self.host)
        return default if self._room is None else min(default, self._room)

    @cached_property
    def _room(self) -> int | None:
        """Positions that question and answer leave; None without a limit."""
        limit = self.host.positions
        return None if limit is None else limit - self.overhead - self.max_new_tokens

    def ids(self, spans: Sequence[Span]) -> list[int]:
        """Token ids of the prompt with this evidence."""
        return self.prompt.ids(join_evidence(spans), self.question)

    def recall(self, spans: Sequence[Span]) -> tuple[list[int], Cache | None]:
        """The prompt that the host goes on from, and what it needs not read of it.

        Raises:
            InputError: The prompt cannot be put together from memory.
        """
        if self.memory is None:
            return self.ids(spans), None
        before, after = self.prompt.around(self.question)
        return self.memory.recall(before, spans, after)


@dataclass(frozen=True)
class Requests:
    """Makes the requests to a host.

    Attributes:
        host: The host.
        chat_options: Passed on to its chat template.
        refresh: The `refresh` of requests that have none of their own.
        context: The `context` of requests that have none of their own.
    """

    host: Host
    chat_options: Mapping[str, Any]
    refresh: Refresh | None
    context: ContextForm = DEFAULT_CONTEXT

    def make(
        self,
        question: str,
        token_budget: int | None,
        max_new_tokens: int,
        min_relevance: float | None,
        refresh: Refresh | None,
        prompt: str | None,
        options: Mapping[str, Any],
        mode: Mode = "hybrid",
        where: Where | None = None,
        context: ContextForm | None = None,
    ) -> Request:
        """Make a request; the prompt is a template, all else as in `Request`.

        Raises:
            S3Error: Those of `Prompt` and `Request`.
        """
        return Request(
            self.host,
            question,
            token_budget,
            max_new_tokens,
            Prompt(self.host, prompt, self.chat_options),
            options,
            self.refresh if refresh is None else refresh,
            min_relevance,
            mode,
            where,
            self.context if context is None else context,
        )
