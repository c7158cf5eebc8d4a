"""Codebooks that are made without fitting."""

from __future__ import annotations

import torch

from s3_retriever.codebook import Codebook
from s3_retriever.document import Document
from s3_retriever.host import Host
from s3_retriever.host.taps import Tap, read
from s3_retriever.recipe import Recipe, TapRecipe
from s3_retriever.sae import TopKSAE


def random_codebook(host: Host, *names: str, seed: int = 0) -> Codebook:
    """SAEs with random weights: encoding does not ask for more."""
    torch.manual_seed(seed)
    taps = [Tap.parse(name) for name in names]
    seen = read(host, taps, list(host.windows([Document("A few words.")])))
    saes = {tap: TopKSAE(values.shape[1], 48, 6) for tap, values in seen.items()}
    for sae in saes.values():
        with torch.no_grad():
            sae.b_enc.normal_(std=0.1)
            sae.b_dec.normal_(std=0.1)
    depth = max(tap.layer for tap in taps) + 1
    recipe = Recipe(taps={name: TapRecipe() for name in names})
    return Codebook(host.name, host.fingerprint(depth), saes, recipe, {"note": [1, 2]})
