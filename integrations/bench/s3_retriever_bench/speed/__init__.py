"""Speed: indexing beside the bare host, searching beside other indexes, in one run."""

from s3_retriever_bench.speed.files import write_speed
from s3_retriever_bench.speed.plan import Plan
from s3_retriever_bench.speed.run import run_speed
from s3_retriever_bench.speed.tables import grids

__all__ = ["Plan", "grids", "run_speed", "write_speed"]
