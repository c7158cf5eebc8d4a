"""LangChain's own suite, for an index in memory and one opened from disk."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_tests.integration_tests import RetrieversIntegrationTests

from langchain_s3_retriever import S3Retriever


class _Standard(RetrieversIntegrationTests):
    @property
    def retriever_constructor(self) -> type[S3Retriever]:
        return S3Retriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"index": self.index}

    @property
    def retriever_query_example(self) -> str:
        return "How much holiday do I get?"


class TestInMemory(_Standard):
    @pytest.fixture(autouse=True)
    def _index(self, index):
        self.index = index


class TestReopened(_Standard):
    @pytest.fixture(autouse=True)
    def _index(self, index_path):
        self.index = S3Retriever.load(index_path).index
