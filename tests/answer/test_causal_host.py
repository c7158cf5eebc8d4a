"""The whole flow with a real causal model and real stories; runs where they are named.

    S3_CAUSAL_HOST=FOLDER S3_STORIES=QUESTIONS.jsonl pytest tests/answer/test_causal_host.py

The file has rows of `question`, `doc_ids` (one story) and `support` (pairs of 0 and a section); a
file of the same name with `.docs.jsonl` has the stories as `title` and `sents`, the sections.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from s3_retriever import Advanced, Codebook, Document, Host, MaxToken, Recipe, S3Index, TapRecipe

HOST, STORIES = os.environ.get("S3_CAUSAL_HOST"), os.environ.get("S3_STORIES")
pytestmark = pytest.mark.skipif(
    not (HOST and STORIES), reason="set S3_CAUSAL_HOST and S3_STORIES to run"
)
SIZE = 4  # stories of one index


def rows(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def test_a_real_causal_model_finds_the_sections_that_answer(tmp_path):
    stories = rows(STORIES.replace(".jsonl", ".docs.jsonl"))
    questions = rows(STORIES)
    texts = ["\n\n".join(story["sents"]) for story in stories]
    host = Host.load(HOST)
    taps = ["key.1", "key.2", "key.3"]
    recipe = Recipe(
        name="default",
        taps={tap: TapRecipe() for tap in taps},
        scoring=MaxToken(kernel=32),
        advanced=Advanced(doc_top_k=8, query_top_k=8, idf_power=2.0),
    )
    book = Codebook.fit(
        host, texts, taps=taps, features=1024, k=8, tokens=400_000, batch_size=1024, recipe=recipe
    )
    assert all(tap["unexplained_variance"] < 0.5 for tap in book.report["taps"].values())
    book.save(tmp_path / "codebook")

    hits = {"s3": 0, "paper": 0, "bm25": 0}
    asked = sections = groups = 0
    for first in range(0, len(stories) - SIZE + 1, SIZE):
        chosen = {story["title"]: story["sents"] for story in stories[first : first + SIZE]}
        path = tmp_path / f"index{first}"
        documents = [
            Document(text, f"{title}/{place}")
            for title, sections_of in chosen.items()
            for place, text in enumerate(sections_of)
        ]
        made = S3Index.create(path, HOST, codebook=tmp_path / "codebook")
        made.add(documents)
        made.close()
        sections += len(documents)
        groups += 1
        paper = book.named_recipe("paper")
        with S3Index.open(path) as index:
            for row in questions:
                story = row["doc_ids"][0]
                if story not in chosen:
                    continue
                gold = {f"{story}/{place}" for _, place in row["support"]}
                results = {
                    "s3": index.search(row["question"], k=3, mode="s3"),
                    "paper": index.search(row["question"], k=3, mode="s3", recipe=paper),
                    "bm25": index.search(row["question"], k=3, mode="bm25"),
                }
                asked += 1
                for name, spans in results.items():
                    hits[name] += bool(gold & {span.document_id for span in spans})
    chance = 3 * groups / sections
    rates = {name: count / asked for name, count in hits.items()}
    measured = f"{asked} questions, chance {chance:.3f}, hit@3: {rates}"
    assert rates["s3"] > 4 * chance, measured
    assert rates["s3"] > 2 * rates["paper"], measured
    logging.getLogger(__name__).info(measured)
