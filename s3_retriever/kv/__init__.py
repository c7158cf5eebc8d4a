"""STA: the key-value cache in semantic atoms, a few features of an autoencoder a vector."""

# Importing it registers the attention, which models are set to by this name.
from s3_retriever.kv.attention import ATOM_ATTENTION
from s3_retriever.kv.cache import AtomCache
from s3_retriever.kv.codebook import KVCodebook
from s3_retriever.kv.layer import LayerAtoms

__all__ = ["ATOM_ATTENTION", "AtomCache", "KVCodebook", "LayerAtoms"]
