"""All methods by name, and what they share."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from s3_retriever.codebook import Codebook
from s3_retriever.encoder import Encoder
from s3_retriever.errors import InputError
from s3_retriever.host import Host
from s3_retriever.recipe import Recipe
from s3_retriever.search import Mode
from s3_retriever_bench.methods.base import Method

if TYPE_CHECKING:
    from s3_retriever_bench.methods.embedder import Embedder
    from s3_retriever_bench.methods.indexed import DocumentCache, TokensOnly

_PACKAGES = [
    "faiss",
    "langchain_community",
    "llama_index.core",
    "matplotlib",
    "rank_bm25",
    "scipy",
    "sentence_transformers",
]


class Resources:
    """Host, codebook and what was already computed of texts.

    Args:
        host: The loaded host.
        codebook: Its codebook.
    """

    def __init__(self, host: Host, codebook: Codebook) -> None:
        self.host = host
        self.codebook = codebook
        self._encoder = Encoder(host, codebook)

    @cached_property
    def scans(self) -> DocumentCache:
        """The host's features, remembered."""
        from s3_retriever_bench.methods.indexed import DocumentCache

        return DocumentCache(self._encoder)

    @cached_property
    def tokens(self) -> TokensOnly:
        """The host's tokens without features."""
        from s3_retriever_bench.methods.indexed import TokensOnly

        return TokensOnly(self._encoder)

    @cached_property
    def embedder(self) -> Embedder:
        """The host's embeddings, remembered."""
        from s3_retriever_bench.methods.embedder import Embedder

        return Embedder(self.host)

    def recipe(self, name: str) -> Recipe:
        """A recipe of the codebook."""
        return self.codebook.named_recipe(name)

    def emptied(self) -> Resources:
        """The same host with nothing remembered."""
        return Resources(self.host, self.codebook)


def method_names(codebook: Codebook, chosen: Sequence[str] | None) -> list[str]:
    """The methods to run, in the order of `METHODS`.

    Args:
        codebook: Of the host; the recipe `paper` needs a key tap.
        chosen: Names; all that the codebook can serve where None.

    Raises:
        InputError: A name is unknown or the codebook cannot serve it, or a package is missing.
    """
    missing = [name for name in _PACKAGES if not _is_installed(name)]
    if missing:
        raise InputError(
            f"The benchmark needs {', '.join(missing)}; install what it compares with: "
            "pip install 's3-retriever[bench]'"
        )
    has_keys = any(tap.site == "key" for tap in codebook.saes)
    served = [name for name in METHODS if has_keys or not name.endswith("-paper")]
    for name in chosen or ():
        if name not in served:
            raise InputError(
                f"There is no method {name!r} for this codebook; choose from {', '.join(served)}."
            )
    return [name for name in served if chosen is None or name in chosen]


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def _okapi(shared: Resources) -> Method:
    from s3_retriever_bench.methods.okapi import Okapi

    return Okapi(shared.host.tokenizer)


def _bm25(shared: Resources) -> Method:
    from s3_retriever_bench.methods.indexed import Indexed

    return Indexed(shared.tokens, _words_only(shared), "bm25")


def _words_only(shared: Resources) -> Recipe:
    """The default recipe for an index whose sentences have no codes."""
    return shared.recipe("default").model_copy(update={"sentence": None})


def _dense_sentences(titled: bool) -> Callable[[Resources], Method]:
    def make(shared: Resources) -> Method:
        from s3_retriever_bench.methods.faiss_store import DenseSentences

        return DenseSentences(shared.embedder, shared.host.tokenizer, titled)

    return make


def _dense_chunks(shared: Resources) -> Method:
    from s3_retriever_bench.methods.faiss_store import DenseChunks

    return DenseChunks(shared.embedder, shared.host.tokenizer)


def _llama_index(shared: Resources) -> Method:
    from s3_retriever_bench.methods.llama_index_store import LlamaIndexChunks

    return LlamaIndexChunks(shared.embedder, shared.host.tokenizer)


def _ensemble(fusion: str) -> Callable[[Resources], Method]:
    def make(shared: Resources) -> Method:
        from s3_retriever_bench.methods import ensemble

        fuse = ensemble.reciprocal_ranks if fusion == "rrf" else ensemble.z_scores
        return ensemble.Ensemble(shared.tokens, _words_only(shared), shared.embedder, fuse)

    return make


def _indexed(mode: Mode, recipe: str) -> Callable[[Resources], Method]:
    def make(shared: Resources) -> Method:
        from s3_retriever_bench.methods.indexed import Indexed

        return Indexed(shared.scans, shared.recipe(recipe), mode)

    return make


def _compressor(shared: Resources) -> Method:
    from s3_retriever.engine import Compressor
    from s3_retriever_bench.methods.compressed import Compressed

    return Compressed(Compressor(shared.host, codebook=shared.codebook), shared.embedder)


# Each imports its framework when it is made: the command line must not wait for all of them.
METHODS: Mapping[str, Callable[[Resources], Method]] = {
    "bm25-framework": _okapi,
    "bm25": _bm25,
    "dense-sentence": _dense_sentences(titled=False),
    "dense-titled": _dense_sentences(titled=True),
    "dense-chunk": _dense_chunks,
    "dense-llamaindex": _llama_index,
    "ensemble-rrf": _ensemble("rrf"),
    "ensemble-zscore": _ensemble("zscore"),
    "s3": _indexed("s3", "default"),
    "hybrid": _indexed("hybrid", "default"),
    "s3-paper": _indexed("s3", "paper"),
    "hybrid-paper": _indexed("hybrid", "paper"),
    "compressor": _compressor,
}
