"""`CachingEncoder`: an encoder that reads a text or a question it has seen lately only once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import replace

from s3_retriever.codebook.codebook import Codebook
from s3_retriever.encoder.encoder import Encoder, TokenFeatures
from s3_retriever.features import EncodedQuestion
from s3_retriever.host import Host
from s3_retriever.recipe import Recipe

_Key = tuple[str, str, str]

# Questions whose features are kept.
_QUESTIONS = 256


class CachingEncoder(Encoder):
    """Remembers the features of the texts it scanned last and of the last questions.

    Args:
        host: The host.
        codebook: Its codebook.
        cache_tokens: Tokens whose features are kept at most, about 70 bytes each and tap.
    """

    def __init__(self, host: Host, codebook: Codebook, cache_tokens: int = 1_000_000) -> None:
        super().__init__(host, codebook)
        self._limit = cache_tokens
        self._cached: OrderedDict[_Key, list[TokenFeatures]] = OrderedDict()
        self._questions: OrderedDict[tuple[str, str], EncodedQuestion] = OrderedDict()
        self._tokens = 0
        self._cache_lock = threading.Lock()

    def documents(
        self, texts: Iterable[tuple[str, str]], recipe: Recipe
    ) -> Iterator[TokenFeatures]:
        """As `Encoder.documents`; holds all texts of the call in memory."""
        scan = f"{recipe.advanced.doc_top_k} {sorted(recipe.taps)} {recipe.sentence and recipe.sentence.layer}"
        wanted: list[_Key] = [(title, text, scan) for title, text in texts]
        known = self._recall(wanted)
        fresh = [key for key in dict.fromkeys(wanted) if key not in known]
        for found in super().documents([(title, text) for title, text, _ in fresh], recipe):
            known.setdefault(fresh[found.document], []).append(found)
        self._remember({key: known[key] for key in fresh})
        for number, key in enumerate(wanted):
            for found in known[key]:
                yield replace(found, document=number)

    def question(self, text: str, recipe: Recipe) -> EncodedQuestion:
        """As `Encoder.question`; the last ones are remembered."""
        sides = sorted((name, part.query_side) for name, part in recipe.taps.items())
        key = (
            text,
            f"{recipe.advanced.query_top_k} {sides} {recipe.sentence and recipe.sentence.layer}",
        )
        with self._cache_lock:
            found = self._questions.get(key)
        if found is None:
            found = super().question(text, recipe)
        with self._cache_lock:
            self._questions[key] = found
            if len(self._questions) > _QUESTIONS:
                self._questions.popitem(last=False)
        return found

    def _recall(self, keys: Iterable[_Key]) -> dict[_Key, list[TokenFeatures]]:
        with self._cache_lock:
            found = {key: self._cached[key] for key in keys if key in self._cached}
            for key in found:
                self._cached.move_to_end(key)
        return found

    def _remember(self, fresh: dict[_Key, list[TokenFeatures]]) -> None:
        with self._cache_lock:
            for key, found in fresh.items():
                if key not in self._cached:
                    self._cached[key] = found
                    self._tokens += _size(found)
            while self._tokens > self._limit:
                _, dropped = self._cached.popitem(last=False)
                self._tokens -= _size(dropped)


def _size(found: list[TokenFeatures]) -> int:
    # A text without tokens takes room too.
    return 1 + sum(len(part.starts) for part in found)
