"""Benchmarks: commands that measure what this package claims."""
