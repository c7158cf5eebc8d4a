"""The encoder: text to features, through a host, its taps and the SAEs of its codebook."""

from s3_retriever.encoder.caching import CachingEncoder
from s3_retriever.encoder.encoder import Encoder, TokenFeatures

__all__ = ["CachingEncoder", "Encoder", "TokenFeatures"]
