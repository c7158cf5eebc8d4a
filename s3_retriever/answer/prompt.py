"""From evidence and question to the prompt that a host goes on from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from string import Formatter
from typing import Any

from jinja2 import TemplateError

from s3_retriever.document import title_of
from s3_retriever.errors import HostError, InputError
from s3_retriever.host import Host
from s3_retriever.search import Span


def join_evidence(spans: Sequence[Span]) -> str:
    """Spans as one text, in the order they are given.

    Sentences that followed each other do so again, what was left out between others is a line
    break, and a blank line and the next one's title, where it has one, part documents.
    """
    if not spans:
        return ""
    parts = [_title(spans[0]), spans[0].text]
    for before, span in pairwise(spans):
        parts += [_between(before, span), span.text]
    return "".join(parts)


def append_span(spans: list[Span], span: Span) -> None:
    """Add a span to others, as one with the last of them where it begins at that one's end."""
    last = spans[-1] if spans else None
    if last is None or (last.document_id, last.end) != (span.document_id, span.start):
        spans.append(span)
    else:
        text, tokens = last.text + span.text, last.tokens + span.tokens
        spans[-1] = replace(last, text=text, end=span.end, tokens=tokens)


def fit_evidence(
    spans: Sequence[Span], tokens: Callable[[Sequence[Span]], int], budget: int
) -> list[Span]:
    """Leave out the worst spans until the rest fits.

    The spans' own tokens are within the budget already; joining them costs a few more.

    Args:
        spans: In any order, which is kept.
        tokens: Counts the tokens of spans joined.
        budget: Tokens at most.
    """
    kept = list(spans)
    while kept and tokens(kept) > budget:
        # Of equals the later one goes.
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


CHAT_PROMPT = "Answer the question from the context.\n\nContext:\n{context}\n\nQuestion: {question}"
PLAIN_PROMPT = f"{CHAT_PROMPT}\nAnswer:"

# Stands for the user's message while the chat template is rendered.
_MESSAGE = "S3-USER-MESSAGE"


class Prompt:
    """Writes prompts: as a chat's only message where the tokenizer has a chat template.

    Only the chat template brings control tokens in: what looks like one in context, question or
    template is read as plain text.

    Args:
        host: Whose tokenizer it is for.
        template: A text with `{context}` and `{question}`; a plain one where left out.
        chat_options: Passed on to the chat template, such as `{"enable_thinking": False}`.

    Raises:
        InputError: The template lacks a field, has another one, or is no Unicode text.
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
        self._template = template or (CHAT_PROMPT if chat else PLAIN_PROMPT)
        _check_template(self._template)
        self._before, self._after = list(self._tokenizer.prefix), list[int]()
        if chat:
            before, after = _around(host, chat_options or {})
            self._before = self._tokenizer.control_ids(before)
            self._after = self._tokenizer.control_ids(after)

    def ids(self, context: str, question: str) -> list[int]:
        """Token ids of the prompt."""
        text = self._template.format(context=context, question=question)
        return [*self._before, *self._tokenizer.ids(text), *self._after]


def check_text(text: object, what: str) -> str:
    """Refuse what is no text with something in it.

    Raises:
        InputError: It is not.
    """
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"The {what} is empty; write something.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"The {what} has a lone surrogate, which is no Unicode text; decode its source with "
            "errors='replace'."
        ) from None
    return text


def _check_template(template: str) -> None:
    check_text(template, "prompt")
    try:
        fields = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise InputError(
            f"The prompt cannot be filled in ({error}); write single braces as '{{{{' and '}}}}'."
        ) from error
    if fields != {"context", "question"}:
        raise InputError(
            "A prompt has the fields {context} and {question} and no others, not "
            f"{sorted(fields)}; write other braces as '{{{{' and '}}}}'."
        )


def _around(host: Host, options: Mapping[str, Any]) -> tuple[str, str]:
    """What the chat template puts before and after a user's message."""
    chat = [{"role": "user", "content": _MESSAGE}]
    try:
        text = host.tokenizer.source.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=True, **options
        )
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        raise HostError(
            f"The chat template of host {host.name!r} cannot be rendered ({error}); mend it, or "
            "set the tokenizer's chat_template to None for a plain prompt."
        ) from error
    before, message, after = str(text).partition(_MESSAGE)
    if not message:
        raise HostError(
            f"The chat template of host {host.name!r} leaves the user's message out; mend it, or "
            "set the tokenizer's chat_template to None for a plain prompt."
        )
    return before, after


@dataclass(frozen=True)
class Request:
    """A question that a host is to answer from evidence.

    Attributes:
        host: Who answers.
        question: Any text.
        token_budget: Tokens of evidence at most.
        max_new_tokens: Tokens of the answer at most.
        prompt: Writes the prompt.
        options: Passed on to `generate`.

    Raises:
        HostError: The host cannot generate.
        InputError: The question is empty, a number is below 1, or question, evidence and answer
            together are more than the host has positions for.
    """

    host: Host
    question: str
    token_budget: int
    max_new_tokens: int
    prompt: Prompt
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Check what can be checked."""
        _ = self.host.causal
        check_text(self.question, "question")
        check_count(self.token_budget, "token_budget")
        check_count(self.max_new_tokens, "max_new_tokens")
        limit = self.host.positions
        if limit is None:
            return
        room = limit - self.overhead - self.max_new_tokens
        facts = (
            f"host {self.host.name!r} reads {limit} tokens, of which question and template take "
            f"{self.overhead} and the answer up to {self.max_new_tokens}"
        )
        if room < 1:
            raise InputError(f"No evidence has room: {facts}; shorten the question or the answer.")
        if self.token_budget > room:
            raise InputError(
                f"A token_budget of {self.token_budget} is too much: {facts}; {room} are left."
            )

    @cached_property
    def overhead(self) -> int:
        """Tokens of the prompt without evidence."""
        return len(self.prompt.ids("", self.question))

    def ids(self, spans: Sequence[Span]) -> list[int]:
        """Token ids of the prompt with this evidence."""
        return self.prompt.ids(join_evidence(spans), self.question)


def check_count(value: object, name: str) -> None:
    """Refuse what is no number of things.

    Raises:
        InputError: It is not a whole number of at least 1.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} must be a whole number of at least 1, not {value!r}.")
