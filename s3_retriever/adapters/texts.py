"""Examples of a behaviour as token windows, with the tokens at which features are compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jinja2 import TemplateError
from numpy.typing import NDArray

from s3_retriever.document import Document
from s3_retriever.errors import InputError
from s3_retriever.host import Host, Window
from s3_retriever.types import check_items, check_text, shown

# A prompt or any text; a prompt and its answer; or the messages of a chat.
Example = str | tuple[str, str] | Sequence[Mapping[str, str]]
# Which tokens of an example matter.
Tokens = Literal["last", "first_answer", "all"]

Message = tuple[str, str]  # role and content
# Stands for the content of a message while the chat template is rendered.
_CONTENT = "S3-MESSAGE-{}-CONTENT"


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """An example as the model reads it.

    Attributes:
        window: All of its tokens.
        content: Which of them are its own text and not the chat template's, bool [tokens].
        compared: At which of them features are compared, bool [tokens].
    """

    window: Window
    content: NDArray[np.bool_]
    compared: NDArray[np.bool_]


def read_examples(
    host: Host, examples: Iterable[Example], side: str, tokens: Tokens, chat: bool
) -> list[Reading]:
    """Tokenise the examples of one side.

    Args:
        host: The model that will read them. Of longer examples than its window the beginning is
            left out.
        examples: Texts, pairs of a prompt and an answer, or chats.
        side: What messages call them: `wanted` or `unwanted`.
        tokens: Which tokens are compared.
        chat: Whether the tokenizer's chat template is put around them.

    Raises:
        InputError: There is none, or an example is of another kind or has no such tokens.
    """
    readings = [
        _reading(host, _messages(example, f"{side} example {number}"), tokens, chat, side)
        for number, example in enumerate(check_items(examples, f"{side} examples"))
    ]
    if not readings:
        raise InputError(
            f"There are no {side} examples; features are compared between two sides, so give both."
        )
    return readings


def _messages(example: Example, name: str) -> list[Message]:
    if isinstance(example, str):
        return [("user", check_text(example, name))]
    if isinstance(example, tuple) and len(example) == 2:
        prompt, answer = example
        return [("user", check_text(prompt, name)), ("assistant", check_text(answer, name))]
    try:
        messages = [(str(m["role"]), check_text(m["content"], name)) for m in example]
    except (TypeError, KeyError):
        messages = []
    if not messages:
        raise InputError(
            f"The {name} must be a text, a pair of prompt and answer, or a list of messages with "
            f"role and content, not {shown(example)}."
        )
    return messages


def _reading(
    host: Host, messages: Sequence[Message], tokens: Tokens, chat: bool, side: str
) -> Reading:
    parts = _chat_parts(host, messages) if chat else _plain_parts(host, messages)
    ids = np.array([token for part, _ in parts for token in part], dtype=np.int64)
    # The number of the message that a token belongs to; -1 for the template's own.
    owner = np.repeat([number for _, number in parts], [len(part) for part, _ in parts])
    compared = _compared(owner, messages, tokens)
    cut = slice(max(len(ids) - host.shape.size, 0), None)
    ids, owner, compared = ids[cut], owner[cut], compared[cut]
    if not compared.any():
        raise InputError(
            f"One of the {side} examples has no token to compare features at: {shown(messages)}; "
            + ("give pairs of prompt and answer." if tokens == "first_answer" else "leave it out.")
        )
    window = Window(
        document=Document("\n".join(content for _, content in messages)),
        ids=ids,
        keep=slice(0, len(ids)),
        starts=np.zeros(len(ids), dtype=np.uint32),
        sentences=(),
        last=True,
    )
    return Reading(window, owner >= 0, compared)


def _compared(
    owner: NDArray[np.int64], messages: Sequence[Message], tokens: Tokens
) -> NDArray[np.bool_]:
    last = len(messages) - 1
    answered = messages[last][0] == "assistant"
    chosen = np.zeros(len(owner), dtype=np.bool_)
    answer = np.flatnonzero(owner == last) if answered else np.empty(0, dtype=np.int64)
    if tokens == "all":
        chosen[answer if answered else np.flatnonzero(owner >= 0)] = True
    elif tokens == "first_answer":
        chosen[answer[:1]] = True
    else:
        end = answer[0] if len(answer) else len(owner)
        chosen[max(end - 1, 0) : end] = True
    return chosen


def _plain_parts(host: Host, messages: Sequence[Message]) -> list[tuple[list[int], int]]:
    parts = [(list(host.tokenizer.prefix), -1)]
    for number, (_, content) in enumerate(messages):
        if number:
            parts.append((host.tokenizer.ids("\n"), -1))
        parts.append((host.tokenizer.ids(content), number))
    return parts


def _chat_parts(host: Host, messages: Sequence[Message]) -> list[tuple[list[int], int]]:
    """Render the chat with placeholders, so that no content is read as control tokens."""
    names = [_CONTENT.format(number) for number in range(len(messages))]
    chat = [
        {"role": role, "content": name} for (role, _), name in zip(messages, names, strict=True)
    ]
    options: dict[str, Any] = {"add_generation_prompt": messages[-1][0] != "assistant"}
    try:
        rendered = host.tokenizer.source.apply_chat_template(chat, tokenize=False, **options)
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        raise InputError(
            f"The chat template of the tokenizer cannot be rendered ({error}); pass chat=False to "
            "read examples as plain texts."
        ) from error
    rest, parts = str(rendered), list[tuple[list[int], int]]()
    for number, name in enumerate(names):
        before, found, rest = rest.partition(name)
        if not found:
            raise InputError(
                "The chat template of the tokenizer leaves a message out; pass chat=False to read "
                "examples as plain texts."
            )
        parts.append((host.tokenizer.control_ids(before), -1))
        parts.append((host.tokenizer.ids(messages[number][1]), number))
    return [*parts, (host.tokenizer.control_ids(rest), -1)]
