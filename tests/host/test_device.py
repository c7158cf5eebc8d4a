"""A scan on a GPU: the features of the CPU's, in memory bounded by a batch of windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from s3_retriever import Codebook, Host
from s3_retriever.encoder import Encoder

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.fixture(scope="module")
def hosts(tiny_bert):
    return {
        device: Host.load(str(tiny_bert), device=device, dtype="float32", batch_tokens=512)
        for device in ("cpu", "cuda")
    }


def scan(host, book, texts):
    return list(Encoder(host, book).documents([("", text) for text in texts], book.recipe))


def test_features_are_those_of_the_cpu(hosts, tiny_codebook, sentences):
    book = Codebook.load(tiny_codebook)
    texts = [" ".join(sentences[i : i + 9]) for i in range(0, 45, 9)]
    here, there = (scan(hosts[device], book, texts) for device in ("cpu", "cuda"))
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one.starts, other.starts)
        for tap, features in one.features.items():
            assert (features == other.features[tap]).mean() > 0.95
        for tap, codes in one.codes.items():
            assert (codes.features == other.codes[tap].features).mean() > 0.9


def test_device_memory_does_not_grow_with_the_text(hosts, tiny_codebook, sentences):
    book, host = Codebook.load(tiny_codebook), hosts["cuda"]
    text = " ".join(sentences[:20])
    scan(host, book, [text] * 8)
    peaks = []
    for count in (40, 400):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        scan(host, book, [text] * count)
        peaks.append(torch.cuda.max_memory_allocated())
        assert torch.cuda.memory_allocated() <= before * 1.01, "a scan leaves nothing behind"
    assert peaks[1] <= peaks[0] * 1.05
