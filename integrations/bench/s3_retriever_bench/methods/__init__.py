"""The methods that are compared: baselines as pipelines use them, and the package's own."""

from s3_retriever_bench.methods.base import Method, Searcher
from s3_retriever_bench.methods.registry import METHODS, Resources, method_names

__all__ = ["METHODS", "Method", "Resources", "Searcher", "method_names"]
