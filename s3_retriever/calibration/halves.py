"""Two halves of the questions: one decides, the other says what the decision is worth."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from s3_retriever.calibration.exam import Asked
from s3_retriever.calibration.sample import Sample


def halves(samples: Sequence[Sample], seed: int) -> tuple[list[Asked], list[Asked]]:
    """Split all questions, each taken once, by a hash, so that their order does not matter."""
    asked = {
        Asked(n, question) for n, sample in enumerate(samples) for question in sample.questions
    }

    def digest(one: Asked) -> bytes:
        return hashlib.sha256(f"{seed} {one}".encode()).digest()

    mixed = sorted(asked, key=digest)
    middle = len(mixed) // 2
    return mixed[:middle], mixed[middle:]
