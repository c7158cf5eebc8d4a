"""`Prompt`: evidence and question as the tokens that a host goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Any

from jinja2 import TemplateError

from s3_retriever.errors import HostError, InputError
from s3_retriever.host import Host

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
