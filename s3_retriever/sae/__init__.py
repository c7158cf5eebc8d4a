"""Sparse autoencoders: activations to a few features and back."""

from s3_retriever.sae.model import TopKEncoder, TopKSAE
from s3_retriever.sae.published import load_sae
from s3_retriever.sae.training import SAEReport, SAETrainer

__all__ = ["SAEReport", "SAETrainer", "TopKEncoder", "TopKSAE", "load_sae"]
