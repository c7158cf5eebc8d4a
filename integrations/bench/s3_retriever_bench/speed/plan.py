"""What a run is to measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to measure.

    Attributes:
        sizes: Tokens of the indexes that are searched.
        host: Name of the host.
        codebook: Its codebook's folder; the one that belongs to the host where None.
        texts: Files as `corpus.documents` reads them; the source of the standard library where
            there are none.
        ask: A file of questions; they are made from the texts where None.
        questions: Questions at most.
        scan_tokens: Tokens that indexing is timed on.
        rounds: How often it is.
        slow_peers: Whether to search also with what takes long to build.
        folder: Where results are kept as they come; nowhere where None.
        fresh: Whether to measure again what is there.
    """

    sizes: Sequence[int]
    host: str = "minilm"
    codebook: str | None = None
    texts: Sequence[Path] = ()
    ask: Path | None = None
    questions: int = 30
    scan_tokens: int = 100_000
    rounds: int = 3
    slow_peers: bool = True
    folder: Path | None = None
    fresh: bool = False
