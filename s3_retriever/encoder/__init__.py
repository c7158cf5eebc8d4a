"""The encoder: text to features, through a host, its taps and the SAEs of its codebook."""

from s3_retriever.encoder.caching import CachingEncoder, OnceEncoder
from s3_retriever.encoder.encoder import Encoder
from s3_retriever.encoder.words import WordsEncoder

__all__ = ["CachingEncoder", "Encoder", "OnceEncoder", "WordsEncoder"]
