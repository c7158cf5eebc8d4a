"""The form of evidence: what a sentence takes along of the text around it."""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet

from s3_retriever.index import Segment, Snapshot
from s3_retriever.types import ContextForm

# How an English sentence begins that speaks of something named before it.
_POINTS_BACK = re.compile(
    r"(?:(?:and|but|so|then|thus|later|also|however|after|when|in|at|for|with)[ ,]+)?"
    r"(?:he|she|it|they|him|her|his|its|their|them|this|that|these|those|such|both|there)\b",
    re.IGNORECASE,
)
# Most tokens of what is added to a sentence or between two: more of them cost other evidence.
_GAP = 24
# Most tokens of a sentence with its neighbours, and of a section: four of these fill the budget of
# a search without limits.
_NEIGHBOURS, _SECTION = 64, 128
_BLANK_LINE = re.compile(r"\n\s*\n")


class Surroundings:
    """Widens sentences to runs of sentences of the same document.

    - `sentence`: nothing.
    - `passage`: the sentence before, if it is short and this one begins with a word that points
      back to it (in English), and the little that lies between it and a chosen sentence.
    - `neighbours`: those before and after, as many as have 64 tokens with it, and again the little
      that lies between it and a chosen one.
    - `section`: the paragraph, or as much of it around the sentence as has 128 tokens, and again
      the little that lies between it and a chosen one. Blank lines separate paragraphs; in a text
      without any, line breaks do.

    Args:
        snapshot: Has the sentences.
        form: One of these.
    """

    def __init__(self, snapshot: Snapshot, form: ContextForm) -> None:
        self.form = form
        self._snapshot = snapshot
        self._tokens = snapshot.column("n_tokens")
        # By the first sentence of a document: to find it takes the whole text.
        self._separators: dict[int, re.Pattern[str]] = {}

    def around(self, number: int, covered: AbstractSet[int]) -> tuple[int, int]:
        """The first and last sentence of the run that a sentence is widened to.

        Args:
            number: A sentence that is not covered.
            covered: Sentences that are part of chosen runs; a run has none of them.
        """
        if self.form == "sentence":
            return number, number
        document = self._snapshot.document_of(number)
        if self.form == "passage":
            first = last = number
            if first > document.start and first - 1 not in covered and self._points_back(number):
                first -= 1
        else:
            first, last = self._grown(number, document, covered)
        return self._joined(first, last, document, covered)

    def _points_back(self, number: int) -> bool:
        """Whether a sentence speaks of something that the short sentence before it names."""
        if self._tokens[number - 1] > _GAP:
            return False
        _, segment, ordinal = self._snapshot.locate(number)
        return _POINTS_BACK.match(segment.text(ordinal, ordinal)) is not None

    def _grown(self, number: int, document: slice, covered: AbstractSet[int]) -> tuple[int, int]:
        """A sentence with its neighbours, in a section those of its paragraph, one by one."""
        _, segment, ordinal = self._snapshot.locate(number)
        shift = number - ordinal
        most, ends = _NEIGHBOURS, None
        if self.form == "section":
            most, ends = _SECTION, self._paragraph_end(segment, document, shift)
        first = last = number
        size = int(self._tokens[number])
        growing = True
        while growing:
            growing = False
            for after in (True, False):
                at = last + 1 if after else first - 1
                inside = document.start <= at < document.stop and at not in covered
                if not inside or size + int(self._tokens[at]) > most:
                    continue
                if ends is not None and _between(segment, min(at, last) - shift, ends):
                    continue
                first, last = min(first, at), max(last, at)
                size += int(self._tokens[at])
                growing = True
        return first, last

    def _paragraph_end(self, segment: Segment, document: slice, shift: int) -> re.Pattern[str]:
        """What separates the paragraphs of a document."""
        if document.start not in self._separators:
            text = segment.text(document.start - shift, document.stop - 1 - shift)
            separator = _BLANK_LINE if _BLANK_LINE.search(text) else re.compile("\n")
            self._separators[document.start] = separator
        return self._separators[document.start]

    def _joined(
        self, first: int, last: int, document: slice, covered: AbstractSet[int]
    ) -> tuple[int, int]:
        """A run, widened to a covered sentence on either side if little lies between."""
        room, at = _GAP, first - 1
        while at >= document.start and at not in covered and self._tokens[at] <= room:
            room -= int(self._tokens[at])
            at -= 1
        if at >= document.start and at in covered:
            first = at + 1
        room, at = _GAP, last + 1
        while at < document.stop and at not in covered and self._tokens[at] <= room:
            room -= int(self._tokens[at])
            at += 1
        if at < document.stop and at in covered:
            last = at - 1
        return first, last


def _between(segment: Segment, ordinal: int, separator: re.Pattern[str]) -> bool:
    """Whether a separator lies between a sentence and the next one."""
    sentences = segment.sentences
    start = int(sentences[ordinal]["start"])
    end, begin = int(sentences[ordinal]["end"]), int(sentences[ordinal + 1]["start"])
    text = segment.text(ordinal, ordinal + 1)
    return separator.search(text, end - start, begin - start) is not None
