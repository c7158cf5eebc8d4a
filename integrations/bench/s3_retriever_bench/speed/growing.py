"""An index that grows from size to size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

from tqdm.auto import tqdm

from s3_retriever.index import Store
from s3_retriever_bench.speed.scanned import Scanned


class Growing:
    """An index that grows by a commit at a time, as a user's does.

    Args:
        path: Folder of an index.
        stream: Documents to add, as many as there may be need of.
        features: Size of the dictionary of every tap.

    Attributes:
        tokens: Tokens that it has.
        repeated: Those of documents whose text it has already.
    """

    def __init__(
        self,
        path: Path,
        stream: Iterator[Scanned],
        features: Mapping[str, int],
        codes: Mapping[str, int],
    ) -> None:
        self._path = path
        self._stream = stream
        self._features = features
        self._codes = codes
        self.tokens = 0
        self.repeated = 0

    def grow(self, tokens: int) -> list[Scanned]:
        """Add documents, in one commit, until there are enough tokens.

        Args:
            tokens: Tokens that the index is to have at least.

        Returns:
            What was added.
        """
        added: list[Scanned] = []
        label = f"{tokens:,} tokens"
        with (
            closing(Store.open(self._path)) as store,
            store.append(self._features, self._codes) as writer,
            tqdm(
                total=tokens,
                initial=self.tokens,
                desc=label,
                unit="token",
                unit_scale=True,
                disable=None,
            ) as bar,
        ):
            while self.tokens < tokens:
                one = next(self._stream)
                writer.add(one.document, [one.chunk()])
                added.append(one)
                size = len(one.starts)
                self.tokens += size
                self.repeated += size * one.repeated
                bar.update(size)
        return added
