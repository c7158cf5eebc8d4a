"""Contexts of given lengths."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from s3_retriever.host.windows import OffsetTokenizer
from s3_retriever_bench.corpus import endless


def write_context(
    files: Sequence[Path], tokenizer: OffsetTokenizer, tokens: int, path: Path
) -> None:
    """Write the beginning of the texts, repeated where they run out, to a file.

    Args:
        files: Texts, as `corpus.documents` reads them.
        tokenizer: Counts.
        tokens: How many it is to have; the last one may come out as two.
        path: Of the file.
    """
    parts: list[str] = []
    counted = 0
    for document in endless(files):
        parts.append(f"{document.text}\n")
        counted += tokenizer.count(parts[-1])
        if counted >= tokens:
            break
    # Tokens of the parts joined may be fewer than those of the parts.
    text = "".join(parts)
    ends = (int(end) for _, offsets in tokenizer.stream(text) for _, end in offsets)
    last = next(islice(ends, tokens - 1, None), len(text))
    path.write_text(text[:last], encoding="utf-8", newline="")
