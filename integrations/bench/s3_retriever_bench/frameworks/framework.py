"""The frameworks that there is an integration for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from s3_retriever.document import Document
from s3_retriever.errors import InputError


@dataclass(frozen=True)
class Retriever:
    """A framework's retriever, asked in its two ways.

    Attributes:
        ask: Answers a question.
        aask: Answers it beside the event loop.
    """

    ask: Callable[[str], Any]
    aask: Callable[[str], Awaitable[Any]]


@dataclass(frozen=True)
class Framework:
    """A framework and its integration.

    Attributes:
        core: Distribution of the framework.
        distribution: Distribution of the integration.
        module: What the integration is imported as.
        make: Indexes documents with a host and a codebook, the shipped one where None.
    """

    core: str
    distribution: str
    module: str
    make: Callable[[Sequence[Document], str, str | None], Retriever]

    def is_installed(self) -> bool:
        """Whether the integration is."""
        return _version(self.distribution) is not None


def framework_versions() -> dict[str, str]:
    """Versions of all frameworks and their integrations."""
    distributions = [
        name
        for framework in FRAMEWORKS.values()
        for name in (framework.core, framework.distribution)
    ]
    return {name: _version(name) or "not installed" for name in distributions}


# The integrations depend on this package and not it on them: they are imported when they are
# measured, by name.
def _langchain(documents: Sequence[Document], host: str, codebook: str | None) -> Retriever:
    texts, ids = zip(*((document.text, document.id) for document in documents), strict=True)
    made = import_module("langchain_s3_retriever").S3Retriever.from_texts(
        texts, ids=ids, host=host, codebook=codebook, progress=False
    )
    return Retriever(made.invoke, made.ainvoke)


def _llama_index(documents: Sequence[Document], host: str, codebook: str | None) -> Retriever:
    node = import_module("llama_index.core.schema").TextNode
    made = import_module("llama_index.retrievers.s3").S3Retriever.from_defaults(
        nodes=[node(text=document.text, id_=document.id) for document in documents],
        host=host,
        codebook=codebook,
    )
    return Retriever(made.retrieve, made.aretrieve)


FRAMEWORKS = {
    "langchain": Framework(
        "langchain-core", "langchain-s3-retriever", "langchain_s3_retriever", _langchain
    ),
    "llama-index": Framework(
        "llama-index-core", "llama-index-retrievers-s3", "llama_index.retrievers.s3", _llama_index
    ),
}


def chosen(names: Sequence[str] | None) -> dict[str, Framework]:
    """The frameworks to measure, in the order of `FRAMEWORKS`.

    Args:
        names: Names; all whose integration is installed where None or empty.

    Raises:
        InputError: A name is unknown, or an integration is not installed.
    """
    for name in names or ():
        if name not in FRAMEWORKS:
            raise InputError(
                f"There is no framework {name!r}; choose from {', '.join(FRAMEWORKS)}."
            )
        if not FRAMEWORKS[name].is_installed():
            distribution = FRAMEWORKS[name].distribution
            raise InputError(
                f"{distribution} is not installed; install it with: pip install {distribution}"
            )
    found = {
        name: framework
        for name, framework in FRAMEWORKS.items()
        if (name in names if names else framework.is_installed())
    }
    if not found:
        distributions = " ".join(framework.distribution for framework in FRAMEWORKS.values())
        raise InputError(
            f"No integration is installed; install one or more with: pip install {distributions}"
        )
    return found


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
