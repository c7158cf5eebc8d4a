"""The codebook: the SAEs of all taps of one host, and the scoring defaults that go with them."""

from s3_retriever.codebook.caching import CachingEncoder
from s3_retriever.codebook.codebook import Codebook
from s3_retriever.codebook.encoder import Encoder, TokenFeatures

__all__ = ["CachingEncoder", "Codebook", "Encoder", "TokenFeatures"]
