"""Measuring one size after the other, each grown from the one before."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from s3_retriever.engine.identity import Identity

from s3_retriever.engine import S3Index
from s3_retriever.index import Store
from s3_retriever.recipe import Recipe
from s3_retriever_bench.speed.asking import ask_in_turn, median_ratio
from s3_retriever_bench.speed.growing import Growing
from s3_retriever_bench.speed.modes import modes
from s3_retriever_bench.speed.opening import time_opening
from s3_retriever_bench.speed.peers import Peers
from s3_retriever_bench.speed.questions import Questions
from s3_retriever_bench.speed.scanned import endless_scan
from s3_retriever_bench.speed.timing import TimedEncoder


class Sizes:
    """An index and its peers, of the same documents.

    Args:
        path: Folder of the index, which is made there.
        encoder: Scans and reads questions.
        recipe: How documents are indexed and scored.
        files: Texts, as `corpus.documents` reads them.
        slow_peers: See `Peers`.
    """

    def __init__(
        self,
        path: Path,
        encoder: TimedEncoder,
        recipe: Recipe,
        files: Sequence[Path],
        *,
        slow_peers: bool,
    ) -> None:
        self._path = path
        self._encoder = encoder
        self._recipe = recipe
        identity = Identity.of(encoder, recipe, encoder.codebook).model_dump()
        Store.create(path, identity).close()
        book = encoder.codebook
        taps = book.feature_sizes(recipe), book.code_sizes(recipe)
        self._growing = Growing(path, endless_scan(files, encoder, recipe), *taps)
        self._peers = Peers(encoder.host, slow=slow_peers)

    def grow(self, tokens: int) -> None:
        """Add documents, in a commit, until there are enough tokens."""
        self._peers.grow(self._growing.grow(tokens))

    def measure(self, questions: Questions) -> dict[str, Any]:
        """Open the index, then ask it and its peers all questions.

        Returns:
            JSON values. Of the index: `tokens`, `documents`, `sentences`, `segments`,
            `repeated_share` (of its tokens, in documents whose text is there already), `bytes`,
            `bytes_per_token` and what `time_opening` says. `chunks`: those of the peers.
            `searches`: by name, what `describe` says, or why it was `skipped`.
            `hybrid_over_dense`: whole search over that of FAISS, median over the questions.
        """
        # First, while no other process has it open.
        opening = time_opening(self._path)
        tokens = self._growing.tokens
        with closing(Store.open(self._path)) as store:
            index = S3Index(store, self._encoder, self._recipe)
            stats = index.stats()
            asks, skipped = self._peers.asks(tokens)
            asks = modes(index, self._encoder) | asks
            label = f"Searching {tokens:,}"
            searches = ask_in_turn(asks, questions.measured, questions.warm_up, label)
        return {
            **{name: stats[name] for name in ("tokens", "documents", "sentences", "segments")},
            "repeated_share": round(self._growing.repeated / tokens, 4),
            "bytes": stats["bytes"],
            "bytes_per_token": round(stats["bytes"] / tokens, 2),
            **opening,
            "chunks": len(self._peers),
            "hybrid_over_dense": median_ratio(searches["mode hybrid"], searches["faiss-flat"]),
            "searches": searches | {name: {"skipped": why} for name, why in skipped.items()},
        }
