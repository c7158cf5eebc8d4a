"""Benchmarks of s3-retriever: `s3r bench quality`, `longcontext`, `speed` and others."""
