"""The documentation of Python's standard library, rendered from the interpreter's docstrings."""

from __future__ import annotations

import importlib
import inspect
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType

from s3_retriever import Document

# These have side effects on import (a browser, a poem, a screen) or are not library modules.
_SKIPPED = {"antigravity", "this", "idlelib", "turtledemo", "tkinter", "turtle", "lib2to3", "test"}


def stdlib_documents() -> list[Document]:
    """One document for each public function and class of every standard library module.

    A class comes with its methods. The id is the qualified name, such as `collections.deque`;
    the title and the module are metadata.
    """
    documents: dict[str, Document] = {}
    for module in _modules():
        for name, text in _entries(module):
            metadata = {"title": name, "module": module.__name__}
            documents.setdefault(name, Document(text, name, metadata))
    return list(documents.values())


def _modules() -> Iterator[ModuleType]:
    for name in sorted(sys.stdlib_module_names):
        if name.startswith("_") or name in _SKIPPED:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield importlib.import_module(name)
        except ImportError:
            continue  # not built on this platform


def _entries(module: ModuleType) -> Iterator[tuple[str, str]]:
    name = module.__name__
    if text := _doc(module):
        yield name, text
    for key in getattr(module, "__all__", dir(module)):
        item = getattr(module, key, None)
        if key.startswith("_") or not _is_from(item, name):
            continue
        if inspect.isclass(item):
            yield f"{name}.{key}", _class_text(item)
        elif callable(item) and (text := _doc(item)):
            yield f"{name}.{key}", text


def _is_from(item: object, module: str) -> bool:
    """Whether an object was defined in a module or in its C half."""
    home = getattr(item, "__module__", None) or ""
    return home.lstrip("_").split(".")[0] == module


def _class_text(cls: type) -> str:
    parts = [_doc(cls)]
    for key, member in vars(cls).items():
        public = not key.startswith("_")
        if public and not inspect.isclass(member) and (text := _doc(member)):
            parts.append(f"{key}: {text}")
    return "\n\n".join(part for part in parts if part)


def _doc(item: object) -> str:
    doc = getattr(item, "__doc__", None)
    return inspect.cleandoc(doc) if isinstance(doc, str) else ""


def language_reference() -> list[Document]:
    """The topics of Python's language reference that come with the interpreter for `help()`.

    The id is the topic's name, such as `exceptions`; the title is its heading.
    """
    from pydoc_data.topics import topics

    documents = []
    for name, text in topics.items():
        heading, _, body = text.strip().partition("\n")
        title = heading.strip('" ')
        documents.append(Document(body.lstrip("*=-\n"), name, {"title": title}))
    return documents
