"""mteb runs S3 on a retrieval task, where it is installed."""

from __future__ import annotations

import pytest

pytest.importorskip("mteb")

import mteb
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import SearchProtocol

from s3_retriever_bench.mteb_model import S3Search

# Its own, and those of what it imports.
pytestmark = pytest.mark.filterwarnings("ignore")


class Tiny(AbsTaskRetrieval):
    metadata = TaskMetadata(
        name="S3Tiny",
        description="Three documents and two queries.",
        dataset={"path": "local", "revision": "1"},
        type="Retrieval",
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
    )

    def load_data(self, **kwargs):
        corpus = [
            {"id": "tea", "title": "Tea", "text": "Green tea is steamed. It is not rolled."},
            {"id": "salt", "title": "", "text": "Road salt melts ice. It rusts cars."},
            {"id": "owl", "title": "Owls", "text": "An owl hears a mouse below the snow."},
        ]
        queries = [
            {"id": "q1", "text": "Why do cars rust in winter?"},
            {"id": "q2", "text": "How is tea made?"},
        ]
        split = {
            "corpus": Dataset.from_list(corpus),
            "queries": Dataset.from_list(queries),
            "relevant_docs": {"q1": {"salt": 1}, "q2": {"tea": 1}},
            "top_ranked": None,
        }
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


def test_a_task_is_indexed_and_searched():
    model = S3Search("minilm")
    assert isinstance(model, SearchProtocol)
    (result,) = mteb.evaluate(model, Tiny(), cache=None).task_results
    assert result.scores["test"][0]["ndcg_at_10"] == 1.0
    ranked = model.search(
        [{"id": "q1", "text": "Why do cars rust?"}], top_k=3, top_ranked={"q1": ["owl", "tea"]}
    )
    assert set(ranked["q1"]) <= {"owl", "tea"}
