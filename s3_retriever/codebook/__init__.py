"""The codebook: the SAEs of all taps of one host, and the scoring defaults that go with them."""

from s3_retriever.codebook.codebook import Codebook

__all__ = ["Codebook"]
