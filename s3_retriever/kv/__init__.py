"""STA: the key-value cache in semantic atoms, a few features of an autoencoder a vector."""

from s3_retriever.kv.cache import AtomCache
from s3_retriever.kv.codebook import KVCodebook
from s3_retriever.kv.layer import LayerAtoms

__all__ = ["AtomCache", "KVCodebook", "LayerAtoms"]
