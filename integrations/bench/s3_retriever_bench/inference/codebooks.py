"""A codebook of random directions, which costs what a fitted one does."""

from __future__ import annotations

import torch
from torch import nn

from s3_retriever.codebook import Codebook
from s3_retriever.codebook.recipes import default_recipe
from s3_retriever.host import Host
from s3_retriever.host.taps import Tap, read
from s3_retriever.sae import TopKSAE

# As `fit` takes them where nothing else is said.
_FEATURES_PER_WIDTH = 16
_K = 32


def random_codebook(host: Host, tap: str | None, sample: str) -> Codebook:
    """A codebook of one tap, of the size and with the recipe that a fit gives.

    Args:
        host: Whose it is.
        tap: Such as `key.15`; the keys of the middle layer where None.
        sample: A text whose mean activation is the SAE's centre. Without it all tokens would have
            the same features, whose postings would be longer than those of a fitted codebook.

    Raises:
        InputError: The host has no such tap.
    """
    config = host.model.config
    site = Tap("key", config.num_hidden_layers // 2) if tap is None else Tap.parse(tap)
    centre = _mean(host, site, sample)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sae = TopKSAE(len(centre), _FEATURES_PER_WIDTH * config.hidden_size, _K)
    sae.b_dec = nn.Parameter(centre)
    sae.requires_grad_(requires_grad=False)
    saes = {site: sae}
    return Codebook(host.name, host.fingerprint(site.layer + 1), saes, default_recipe(host, saes))


def _mean(host: Host, tap: Tap, text: str) -> torch.Tensor:
    windows = list(host.windows([("", text)]))
    return read(host, [tap], windows[:1])[tap].float().mean(0).cpu().clone()
