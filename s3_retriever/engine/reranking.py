"""Which model takes the second look of a search, and at how much."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from s3_retriever.codebook.files import local_folder, read_codebook_file
from s3_retriever.engine.hosting import codebook_name, host_name, whole_host
from s3_retriever.errors import CodebookError, HostError, InputError
from s3_retriever.search.reranking import SecondLook
from s3_retriever.types import check_count, shown

if TYPE_CHECKING:
    from s3_retriever.encoder import Encoder
    from s3_retriever.host import Host
    from s3_retriever.rerank import Reranker

# A language model takes seconds to read a few dozen sentences.
MOST_RERANKED = 1_000


def second_look(
    rerank: int | None, rerank_host: str | Host | None, own: Callable[[], Encoder]
) -> SecondLook | None:
    """The second look that a search asks for; the host is loaded now.

    Args:
        rerank: How many of the best sentences to read again; None for none.
        rerank_host: What reads them; None for the index's own host.
        own: Loads the index's own host and codebook.

    Raises:
        InputError: The number is out of range, or there is a host to read nothing.
        HostError: The host cannot be loaded, or is an encoder.
    """
    candidates = checked_rerank(rerank, rerank_host)
    if candidates is None:
        return None
    return SecondLook(candidates, _reranker(rerank_host, own))


def checked_rerank(rerank: Any, rerank_host: Any) -> int | None:
    """The number of sentences to read again, checked.

    Raises:
        InputError: It is out of range, or there is a host to read nothing.
    """
    if rerank is None:
        if rerank_host is not None:
            raise InputError(
                "rerank_host reads the best sentences again; say how many with rerank, 32 for "
                "instance."
            )
        return None
    if check_count(rerank, "rerank") > MOST_RERANKED:
        raise InputError(
            f"rerank must be at most {MOST_RERANKED:,} sentences, not {shown(rerank)}."
        )
    return int(rerank)


def _reranker(host: str | Host | None, own: Callable[[], Encoder]) -> Reranker:
    """What reads with a host: by the retrieval heads of its codebook, else by all of its heads."""
    try:
        from s3_retriever.rerank import Reranker
    except ImportError as error:  # pragma: no cover
        raise HostError(
            "Reranking needs a newer transformers; upgrade it with: pip install -U transformers"
        ) from error

    options: dict[str, Any] = {}
    if host is None:
        encoder = own()
        heads, host = encoder.codebook.recipe.heads, encoder.host
        if heads is not None:
            return Reranker(host, heads.query_heads)
        if host.source is not None and not host.family.bidirectional:
            # The index needs fewer of its layers.
            host, options = host.source
            options = {k: v for k, v in options.items() if k not in ("layers", "generates")}
    named = host_name(host)
    known = _retrieval_heads(named)
    if known is not None and isinstance(named, str):
        options = {"layers": _deepest(known) + 1, **options}
    loaded = whole_host(named, options)
    try:
        return Reranker(loaded, known)
    except InputError:  # it has fewer layers, or is another model by that name
        return Reranker(loaded)


def _retrieval_heads(host: str | Host) -> tuple[str, ...] | None:
    """The retrieval heads that a host's own codebook names; None if there are none."""
    try:
        folder = local_folder(codebook_name(host, None))
        heads = None if folder is None else read_codebook_file(folder).recipe.heads
    except CodebookError:
        return None
    return None if heads is None else tuple(heads.query_heads)


def _deepest(heads: tuple[str, ...]) -> int:
    return max(int(head.partition(".")[0]) for head in heads)
