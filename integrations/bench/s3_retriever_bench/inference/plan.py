"""What a run is to measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from s3_retriever.errors import InputError
from s3_retriever_bench.inference.shapes import DEFAULT_SHAPE, shape_named


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to measure.

    Attributes:
        sizes: Tokens of the contexts that both ways answer from; those of the shape where there
            are none.
        scan_sizes: Tokens of the contexts that are only scanned and answered from.
        shape: Name of a shape, which gets random weights; None with a host.
        host: Name of a causal model; None with a shape.
        codebook: The host's codebook, a folder or an id on the Hub; random directions where None.
        tap: Tap of a random codebook, such as `key.15`; the keys of the middle layer where None.
        token_budget: Tokens of evidence.
        new_tokens: Tokens of every answer.
        questions: Questions to a scan: the first one and further ones.
        texts: Files as `corpus.documents` reads them; the source of the standard library where
            there are none.
        ask: A file of questions; they are made from the texts where None.
        folder: Where results are kept as they come; nowhere where None.
        fresh: Whether to measure again what is there.

    Raises:
        InputError: Both a shape and a host are given, there is no such shape, or a codebook is
            given without a host or with a tap.
    """

    sizes: Sequence[int] = ()
    scan_sizes: Sequence[int] = ()
    shape: str | None = None
    host: str | None = None
    codebook: str | None = None
    tap: str | None = None
    token_budget: int = 1024
    new_tokens: int = 16
    questions: int = 4
    texts: Sequence[Path] = ()
    ask: Path | None = None
    folder: Path | None = None
    fresh: bool = False

    def __post_init__(self) -> None:
        """Refuse what does not go together, and fill in what was left out."""
        if self.shape and self.host:
            raise InputError("A run measures a shape or a host; leave out --shape or --host.")
        if self.codebook and (self.tap or not self.host):
            raise InputError(
                "A codebook belongs to a host and has its own taps; give it with --host and "
                "without --tap."
            )
        if not self.host:
            object.__setattr__(self, "shape", self.shape or DEFAULT_SHAPE)
        if not self.sizes:
            lengths = shape_named(self.shape or DEFAULT_SHAPE).lengths
            object.__setattr__(self, "sizes", lengths)
        if self.shape:
            shape_named(self.shape)
