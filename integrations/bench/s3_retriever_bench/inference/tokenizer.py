"""A byte-level tokenizer for decoders that have none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s3_retriever_bench.corpus import documents
from s3_retriever_bench.inference.shapes import BOS, EOS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SPECIALS = {"bos_token": "<s>", "eos_token": "</s>"}
# Enough for three to four characters a token, as real tokenizers have them, in seconds.
_VOCABULARY = 8_192
_CHARACTERS = 2_000_000


def make_tokenizer(files: Sequence[Path], vocabulary: int) -> PreTrainedTokenizerBase:
    """Train byte-level pairs on the first two million characters of the texts.

    Args:
        files: Texts, as `corpus.documents` reads them.
        vocabulary: Tokens at most.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=min(vocabulary, _VOCABULARY),
        special_tokens=list(_SPECIALS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_beginning(files), trainer)
    assert [backend.token_to_id(token) for token in _SPECIALS.values()] == [BOS, EOS]
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", BOS)]
    )
    wrapped: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerBase = wrapped(tokenizer_object=backend, **_SPECIALS)
    return made


def _beginning(files: Sequence[Path]) -> Iterator[str]:
    read = 0
    for document in documents(files):
        yield document.text
        read += len(document.text)
        if read >= _CHARACTERS:
            return
