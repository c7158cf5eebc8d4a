"""Inference: answering from the evidence of a scan beside reading the whole context."""

from s3_retriever_bench.inference.files import write_inference
from s3_retriever_bench.inference.plan import Plan
from s3_retriever_bench.inference.run import run_inference
from s3_retriever_bench.inference.tables import grids, remark

__all__ = ["Plan", "grids", "remark", "run_inference", "write_inference"]
