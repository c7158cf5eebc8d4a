"""Random documents with random features, and what a segment should say of them.

Chunks are cut here as the encoder cuts them, without a host.
"""

from __future__ import annotations

import random
import re
from collections import Counter

import numpy as np

from s3_retriever.document import Document
from s3_retriever.features import EncodedChunk, Layout
from s3_retriever.index import Segment, SegmentWriter
from s3_retriever.index.lock import LOCK_NAMES
from s3_retriever.index.storage import DiskFolder
from s3_retriever.text import SentenceCutter, analyze, term_hash

TAPS = {"hidden.5": 300, "key.3": 70_000}
LAYOUT = Layout(TAPS)
PIECES = [
    *"ab. !?\"'()…。 \n\t\x00\u0301\u200f😀中א",
    "The release was signed. ",
    "Managers release it? ",
    "\n\n",
    "👩‍👩‍👧 family. ",
    "שלום עולם. ",
    "你好。再见\uff01",
    "é" * 5,
]


def random_text(rng, length):
    return "".join(rng.choices(PIECES, k=length))


def token_starts(text):
    """Words and marks are tokens; what is not ASCII takes two at the same character."""
    starts = []
    for match in re.finditer(r"\w+|[^\w\s]|\n", text):
        starts += [match.start()] * (1 if match[0].isascii() else 2)
    return np.array(starts, dtype=np.uint32)


def random_features(rng, n, taps=TAPS):
    width = 6
    features = {
        tap: rng.integers(0, size, (n, width), dtype=np.int32) for tap, size in taps.items()
    }
    for rows in features.values():
        rows[rng.random(rows.shape) < 0.2] = -1
    return features


def chunks(document, starts, features, size=50, vectors=None):
    """A document as the encoder hands it on, `size` tokens at a time.

    `vectors`, uint8 [sentences, bytes], are handed out to the sentences as they are complete.
    """
    if not document.text.strip():
        starts, features = starts[:0], {tap: rows[:0] for tap, rows in features.items()}
    cutter = SentenceCutter(document.text)
    title = Counter(map(term_hash, analyze(document.title)))
    done = 0
    for first in range(0, len(starts) or 1, size):
        part = slice(first, first + size)
        last = first + size >= len(starts)
        ready = cutter.push(starts[part], last=last)
        yield EncodedChunk(
            document=document,
            starts=starts[part],
            sentences=ready,
            terms=tuple(
                title + Counter(map(term_hash, analyze(document.text[start:end])))
                for start, end, _ in ready
            ),
            features={tap: rows[part] for tap, rows in features.items()},
            vectors=None if vectors is None else vectors[done : done + len(ready)],
            last=last,
        )
        done += len(ready)


def add(writer, document, starts, features, **options):
    for chunk in chunks(document, starts, features, **options):
        writer.add(chunk)


def bare(document, taps=TAPS):
    """A document without tokens."""
    features = {tap: np.zeros((0, 1), dtype=np.int32) for tap in taps}
    (chunk,) = chunks(document, np.zeros(0, dtype=np.uint32), features)
    return chunk


class Corpus:
    """Random documents with random features, and what an index should say of them."""

    def __init__(self, n_documents, seed=0, prefix="d"):
        rng, numbers = random.Random(seed), np.random.default_rng(seed)
        self.items = []
        for i in range(n_documents):
            text = random_text(rng, rng.choice([1, 5, 20, 200]))
            metadata = {"title": "Release notes", "n": i} if i % 3 == 0 else {"n": i}
            starts = token_starts(text)
            document = Document(text, id=f"{prefix}{i}", metadata=metadata)
            self.items.append((document, starts, random_features(numbers, len(starts))))

    def write(self, writer, ids=None):
        for document, starts, features in self.items:
            if ids is None or document.id in ids:
                add(writer, document, starts, features)


def postings_by_brute_force(items, tap):
    """Feature -> token positions of documents that follow each other in one segment."""
    table, position = {}, 0
    for document, starts, features in items:
        if not document.text.strip():
            continue
        for row in features[tap]:
            for feature in set(row.tolist()) - {-1}:
                table.setdefault(feature, []).append(position)
            position += 1
        assert len(features[tap]) == len(starts)
    return table


def check_postings(segment, items):
    for tap, size in TAPS.items():
        table = postings_by_brute_force(items, tap)
        asked = np.arange(size) if size < 1000 else np.array(sorted({*table, 0, size - 1}))
        positions, which = segment.postings(tap, asked)
        found = {}
        for position, index in zip(positions.tolist(), which.tolist(), strict=True):
            found.setdefault(int(asked[index]), []).append(position)
        assert found == {feature: table[feature] for feature in found}
        assert found.keys() == table.keys()


def document_tokens(segment, ordinal):
    """Character starts of all tokens of a document."""
    record = segment.documents[ordinal]
    first, n = int(record["first_token"]), int(record["n_tokens"])
    return segment.tokens(first, first + n)


def check_texts(segment, items):
    """Spans, sentences and tokens fit the documents' texts."""
    assert segment.n_documents == len(items)
    token = 0
    for ordinal, (document, starts, _) in enumerate(items):
        row = segment.document(ordinal)
        assert (row.id, row.metadata) == (document.id, dict(document.metadata))
        assert row.characters == len(document.text)
        assert segment.document_text(ordinal) == document.text
        record = segment.documents[ordinal]
        first, n = int(record["first_sentence"]), int(record["n_sentences"])
        assert bool(n) == bool(document.text.strip() and len(starts))
        assert document_tokens(segment, ordinal).tolist() == (starts.tolist() if n else [])
        for sentence in range(first, first + n):
            s = segment.sentences[sentence]
            text = document.text[s["start"] : s["end"]]
            assert text.strip() == text != ""
            assert segment.text(sentence, sentence) == text
            assert s["document"] == ordinal
            assert (s["first_token"], s["n_tokens"] > 0) == (token, True)
            token += int(s["n_tokens"])
            assert segment.token_starts(sentence, sentence).tolist() == (
                starts[s["first_token"] - record["first_token"] :][: s["n_tokens"]].tolist()
            )
        if n:
            span = document.text[
                segment.sentences[first]["start"] : segment.sentences[first + n - 1]["end"]
            ]
            assert segment.text(first, first + n - 1) == span
    assert token == segment.n_tokens


def check_lexical(segment, items):
    table = {}
    for ordinal, (document, _, _) in enumerate(items):
        record = segment.documents[ordinal]
        first = int(record["first_sentence"])
        for sentence in range(first, first + int(record["n_sentences"])):
            terms = analyze(document.title) + analyze(segment.text(sentence, sentence))
            assert segment.sentences[sentence]["n_terms"] == len(terms)
            for term, count in Counter(terms).items():
                table.setdefault(term, []).append((sentence, count))
    asked = ["absent", *table]
    sentences, which, counts = segment.lexical(
        np.array([term_hash(term) for term in asked], dtype=np.uint64)
    )
    found = {}
    for sentence, index, count in zip(sentences, which, counts, strict=True):
        found.setdefault(asked[index], []).append((sentence, count))
    assert found == table


def writer_at(path, features=TAPS, vector_bytes=0):
    return SegmentWriter(DiskFolder(path), Layout(features, vector_bytes))


def opened(path, entry):
    return Segment(DiskFolder(path), entry)


def build(path, corpus):
    writer = writer_at(path)
    corpus.write(writer)
    return writer.close()


ORIGIN = {"host": "minilm", "taps": ["hidden.5"], "revision": None}


def tree(path):
    """Every file but the locks, with its content."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and file.name not in LOCK_NAMES
    }


def size(path):
    return sum(len(content) for content in tree(path).values())
