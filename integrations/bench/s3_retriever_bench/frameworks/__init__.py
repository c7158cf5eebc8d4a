"""What the integrations with LangChain and LlamaIndex claim: a free event loop, a quick import."""

from s3_retriever_bench.frameworks.framework import FRAMEWORKS, Framework, Retriever, chosen
from s3_retriever_bench.frameworks.imports import time_imports
from s3_retriever_bench.frameworks.measuring import run_frameworks
from s3_retriever_bench.frameworks.responsiveness import measure_responsiveness

__all__ = [
    "FRAMEWORKS",
    "Framework",
    "Retriever",
    "chosen",
    "measure_responsiveness",
    "run_frameworks",
    "time_imports",
]
