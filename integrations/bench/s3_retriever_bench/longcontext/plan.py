"""What a run is to measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from s3_retriever.errors import InputError
from s3_retriever_bench.longcontext.reading import METHODS

_BUDGETS = (512, 1024, 2048)
_LENGTHS = (4_096, 8_192, 16_384, 32_768, 65_536)
_DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to measure.

    Attributes:
        host: Name of the host.
        codebook: Its codebook, a folder or an id on the Hub; the one that belongs to it where
            None.
        data: Files of questions.
        tasks: Tasks of public LongBench.
        methods: Those of `reading.METHODS` to measure; all where there are none.
        budgets: Tokens of evidence; 512, 1,024 and 2,048 where there are none.
        questions: Questions of a task at most.
        max_context_tokens: Questions about longer contexts are left out; none where None.
        needle: Whether needles are looked for.
        lengths: Tokens of the haystacks; 4,096 to 65,536 where there are none.
        depths: Where the needles are, 0 (beginning) to 1 (end); every quarter where there are
            none.
        needles: Needles at each length and depth.
        haystack: Files of the haystack, as `corpus.documents` reads them; the source of the
            standard library where there are none.
        folder: Where results are kept as they come; nowhere where None.
        fresh: Whether to measure again what is there.
        seed: Of the choice of questions, the needles, and resampling.

    Raises:
        InputError: A method is unknown, a depth is none, or there is nothing to measure.
    """

    host: str = "minilm"
    codebook: str | None = None
    data: Sequence[Path] = ()
    tasks: Sequence[str] = ()
    methods: Sequence[str] = ()
    budgets: Sequence[int] = ()
    questions: int | None = None
    max_context_tokens: int | None = None
    needle: bool = True
    lengths: Sequence[int] = ()
    depths: Sequence[float] = ()
    needles: int = 4
    haystack: Sequence[Path] = ()
    folder: Path | None = None
    fresh: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be measured, and fill in and sort what was left out."""
        for name in self.methods:
            if name not in METHODS:
                raise InputError(f"There is no method {name!r}; choose from {', '.join(METHODS)}.")
        if not all(0 <= depth <= 1 for depth in self.depths):
            raise InputError("A needle's depth is a number from 0 (beginning) to 1 (end).")
        if not (self.data or self.tasks or self.needle):
            raise InputError(
                "There is nothing to measure; give questions with --data or --task, or leave out "
                "--no-needle."
            )
        chosen = [name for name in METHODS if not self.methods or name in self.methods]
        object.__setattr__(self, "methods", tuple(chosen))
        object.__setattr__(self, "budgets", tuple(sorted(set(self.budgets or _BUDGETS))))
        object.__setattr__(self, "lengths", tuple(sorted(set(self.lengths or _LENGTHS))))
        object.__setattr__(self, "depths", tuple(sorted(set(self.depths or _DEPTHS))))

    @property
    def needle_budget(self) -> int:
        """The budget under which needles are looked for: the one in the middle."""
        return self.budgets[len(self.budgets) // 2]
