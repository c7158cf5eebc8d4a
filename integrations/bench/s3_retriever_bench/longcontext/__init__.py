"""Long contexts: the same model answers from what several methods leave of them."""

from s3_retriever_bench.longcontext.files import write_longcontext
from s3_retriever_bench.longcontext.plan import Plan
from s3_retriever_bench.longcontext.run import run_longcontext
from s3_retriever_bench.longcontext.tables import grids

__all__ = ["Plan", "grids", "run_longcontext", "write_longcontext"]
