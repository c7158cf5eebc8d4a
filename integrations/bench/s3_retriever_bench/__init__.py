"""Benchmarks of s3-retriever: `s3 bench quality`, `longcontext`, `speed` and others."""
