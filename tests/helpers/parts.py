"""Random collections without a host, whole and in parts."""

from __future__ import annotations

import random
import zlib
from collections import Counter

import numpy as np

from s3_retriever.document import Document
from s3_retriever.features import (
    EncodedChunk,
    EncodedQuestion,
    HeadQueries,
    Layout,
    TapFeatures,
)
from s3_retriever.index import Store
from s3_retriever.recipe import (
    Advanced,
    DocumentBoost,
    FeatureAttention,
    FeatureCoverage,
    HeadsRecipe,
    Interleave,
    MaxToken,
    Recipe,
    Redundancy,
    RelevanceRecipe,
    SecondHop,
    SentenceRecipe,
    TapRecipe,
    ZScore,
)
from s3_retriever.search.gathering import search_parts
from s3_retriever.search.part import PartSearch, Request
from s3_retriever.search.pipeline import Query
from s3_retriever.text import SentenceCutter, analyze, term_hash

TAPS = {"hidden.0": 40, "hidden.1": 25}
HEADS = {"0.0": 4, "0.1": 4}
AXES = 8
LAYOUT = Layout(TAPS, AXES // 2, HEADS)
WORDS = [
    *(
        "ship",
        "sea",
        "wind",
        "kite",
        "crew",
        "sail",
        "tea",
        "leaf",
        "year",
        "glue",
        "violin",
        "comet",
    ),
    *("house", "judge", "harbour"),
]
GERMAN = ["das", "Schiff", "und", "die", "See", "sind", "nicht", "der", "Wind"]


def random_document(rng: random.Random, numbers: np.random.Generator, name: str):
    """A document with the chunks that an encoder would make of it; some have no tokens."""
    sentences = []
    for _ in range(rng.choice([0, 1, 1, 2, 3, 6])):
        bag = GERMAN if rng.random() < 0.1 else WORDS
        chosen = [rng.choice(bag) for _ in range(rng.randint(1, 9))]
        start = rng.choice(["", "", "he ", "this "])
        sentences.append((start + " ".join(chosen)).capitalize() + ".")
    text = "".join(each + rng.choice([" ", " ", "\n\n"]) for each in sentences)
    metadata = {"n": rng.randint(0, 5), "kind": rng.choice("ab")}
    if rng.random() < 0.3:
        metadata["title"] = rng.choice(WORDS)
    document = Document(text, id=name, metadata=metadata)
    starts = []
    at = 0
    for word in text.split():
        at = text.index(word, at)
        starts.append(at)
        at += len(word)
    cutter = SentenceCutter(text)
    ready = cutter.push(np.array(starts, dtype=np.uint32), last=True)
    if not text.strip():
        starts, ready = [], ()
    title = Counter(map(term_hash, analyze(document.title)))
    features = {}
    for tap, size in TAPS.items():
        rows = numbers.integers(-1, size, (len(starts), 3)).astype(np.int32)
        # Some features fire nearly everywhere, some hardly ever.
        features[tap] = np.where(rows > size // 2, rows // 2, rows)
    keys = {
        head: numbers.integers(0, 256, (len(starts), size)).astype(np.uint8)
        for head, size in HEADS.items()
    }
    for rows in keys.values():
        rows[numbers.random(len(rows)) < 0.05] = 0
    return EncodedChunk(
        document=document,
        starts=np.array(starts, dtype=np.uint32),
        sentences=tuple(ready),
        terms=tuple(
            title + Counter(map(term_hash, analyze(text[start:end]))) for start, end, _ in ready
        ),
        features=features,
        vectors=numbers.integers(0, 256, (len(ready), AXES // 2)).astype(np.uint8),
        last=True,
        keys=keys,
        language=rng.choice(["en", "en", "de"]),
    )


class Collection:
    """Random documents, in one store and in several, some of them deleted in both."""

    def __init__(self, seed: int, n_documents: int, n_parts: int) -> None:
        rng, numbers = random.Random(seed), np.random.default_rng(seed)
        chunks = [random_document(rng, numbers, f"d{i}") for i in range(n_documents)]
        # Copies are ties.
        for i in range(n_documents):
            if rng.random() < 0.15:
                copied = rng.choice(chunks)
                document = Document(copied.document.text, f"d{i}", copied.document.metadata)
                fields = {name: getattr(copied, name) for name in copied.__dataclass_fields__}
                chunks[i] = EncodedChunk(**{**fields, "document": document})
        cuts = sorted(rng.choices(range(n_documents + 1), k=n_parts - 1))
        bounds = [0, *cuts, n_documents]
        self.whole = Store.create(None, {})
        self.parts = [Store.create(None, {}) for _ in range(n_parts)]
        write(self.whole, chunks, rng.randint(1, n_documents + 1))
        for store, first, end in zip(self.parts, bounds, bounds[1:], strict=False):
            write(store, chunks[first:end], rng.randint(1, n_documents + 1))
        dead = [each.document.id for each in chunks if rng.random() < rng.choice([0, 0.2])]
        self.whole.delete(dead)
        for store in self.parts:
            store.delete(dead, missing_ok=True)


def write(store: Store, chunks, at_once: int) -> None:
    for first in range(0, len(chunks), at_once):
        with store.append(LAYOUT) as writer:
            for chunk in chunks[first : first + at_once]:
                writer.add(chunk)


class Asked:
    """Encodes every question as the one that it was made with."""

    def __init__(self, encoded: EncodedQuestion) -> None:
        self.encoded = encoded

    def question(self, text, recipe):
        return self.encoded


def random_question(seed: int):
    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    n = rng.randint(1, 5)
    features = {}
    for tap, size in TAPS.items():
        indices = numbers.integers(-1, size, (n, 4))
        features[tap] = TapFeatures(
            indices, np.where(indices >= 0, numbers.random((n, 4)), 0).astype(np.float32)
        )
    direction = numbers.normal(size=AXES).astype(np.float32)
    queries = {
        head: HeadQueries((numbers.normal(size=(n, 2 * size)) / 8).astype(np.float32), np.arange(n))
        for head, size in HEADS.items()
    }
    words = [rng.choice([*WORDS, "Wind", "absent", "Schiff"]) for _ in range(rng.randint(1, 6))]
    tap_queries = {
        tap: HeadQueries(numbers.normal(size=(n, size)).astype(np.float32), np.arange(n))
        for tap, size in TAPS.items()
    }
    direction /= np.linalg.norm(direction)
    encoded = EncodedQuestion(features, direction, queries, tap_queries)
    return " ".join(words) + "?", encoded


def random_recipe(seed: int) -> Recipe:
    """Recipes of every kind; every third is close to the default, a third are the paper's."""
    rng = random.Random(seed)
    taps = {"hidden.0": TapRecipe(weight=1.5), "hidden.1": TapRecipe()}
    if seed % 6 == 1:
        return Recipe(
            taps=taps,
            scoring=MaxToken(kernel=rng.choice([1, 4, 8])),
            fusion=Interleave(edge_tokens=rng.choice([0, 12])),
            advanced=Advanced(weight_power=1.0, idf_power=1.0, radius=rng.choice([0, 6, 64])),
        )
    if seed % 6 == 4:
        summed = rng.random() < 0.5
        return Recipe(
            taps={tap: part.changed("query_side", "decoder") for tap, part in taps.items()},
            heads=HeadsRecipe(query_heads=("0.0", "0.1"), candidates=60) if summed else None,
            scoring=FeatureAttention(),
            fusion=ZScore() if summed else Interleave(edge_tokens=12),
            advanced=Advanced(radius=rng.choice([0, 6, 64])),
        )
    covers = rng.random() < 0.8
    relevance = RelevanceRecipe(similarity=8.0, words=6.0, bias=-2.0)
    return Recipe(
        taps=taps,
        sentence=SentenceRecipe(layer=0, relevance=rng.choice([None, relevance]))
        if rng.random() < 0.8
        else None,
        heads=HeadsRecipe(query_heads=("0.0", "0.1"), candidates=rng.choice([20, 60, 1 << 16]))
        if seed % 3 == 2
        else None,
        scoring=FeatureCoverage() if covers else MaxToken(),
        fusion=ZScore(candidates=rng.choice([3, 10, 256])),
        hop=SecondHop(
            bridges=rng.choice([1, 3]),
            neighbours=rng.choice([1, 3, 10]),
            similarity_weight=rng.choice([0.0, 1.0]),
        )
        if rng.random() < 0.8
        else None,
        redundancy=Redundancy() if covers and rng.random() < 0.7 else None,
        advanced=Advanced(
            radius=rng.choice([0, 0, 5]),
            document_boost=DocumentBoost(best=rng.choice([1, 2])) if rng.random() < 0.8 else None,
        ),
    )


class LocalParts:
    """Searches on parts of this process."""

    def __init__(self, snapshots, request: Request) -> None:
        self.searches = [PartSearch(snapshot, request) for snapshot in snapshots]
        self.calls = 0

    def call(self, method, arguments):
        self.calls += 1
        return {
            place: getattr(self.searches[place], method)(*each) for place, each in arguments.items()
        }


class Liking:
    """Reads passages, and likes some of them better for no reason; equal ones equally."""

    def __init__(self) -> None:
        self.read = []

    def scores(self, question, passages):
        self.read.append(list(passages))
        digests = [zlib.crc32(f"{question}{each.text}".encode()) for each in passages]
        return np.array(digests) / 2**32


def search_in_parts(stores, question, encoded, recipe, limits, mode, where, group_by, look=None):
    snapshots = [store.snapshot() for store in stores]
    languages = frozenset().union(*(snapshot.languages for snapshot in snapshots))
    query = Query(question, None if mode == "bm25" else encoded, recipe, mode, languages)
    request = Request(query, limits, where, group_by, look and look.candidates)
    return search_parts(LocalParts(snapshots, request), len(stores), request, look)
