"""`sails_init`: a LoRA adapter starts in the directions that tell two behaviours apart."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import transformers
from peft import PeftModel
from torch.nn import functional

from s3_retriever.adapters.basis import make_basis, rank_features
from s3_retriever.adapters.comparison import Comparison, compare, firings
from s3_retriever.adapters.modules import check_model, find_places, write_start
from s3_retriever.adapters.report import Feature, SailsReport
from s3_retriever.adapters.texts import Example, Tokens, read_examples
from s3_retriever.errors import InputError, brief
from s3_retriever.host import Host
from s3_retriever.sae import TopKSAE
from s3_retriever.types import check_choice, check_count, check_share, check_type


def sails_init(
    model: PeftModel,
    sae: TopKSAE,
    wanted: Iterable[Example],
    unwanted: Iterable[Example],
    *,
    tokenizer: transformers.PreTrainedTokenizerBase | None = None,
    layer: int | None = None,
    tokens: Tokens = "last",
    features: int = 32,
    variance: float = 0.8,
    rank: int | None = None,
    adapter: str | None = None,
    chat: bool | None = None,
    batch_tokens: int | None = None,
    progress: bool = True,
) -> SailsReport:
    """Start a LoRA adapter in directions that an SAE's features name (SAILS, arXiv 2512.23260).

    The model reads both sides of examples with its adapters off. The features whose mean
    activations differ most are chosen, and the principal directions of their decoder rows become
    an orthonormal basis. Modules that read the residual stream after the SAE's layer start with
    the basis as rows of A and zeros in B; modules of any layer that write to the stream start with
    it as columns of B and zeros in A. The model's outputs do not change until it is trained. Save
    and load the adapter with PEFT alone.

    If the adapter's rank is below the basis', the first directions are written; if it is above,
    the rest starts at random as PEFT's default does, less its part in the basis.

    Args:
        model: A model of `peft.get_peft_model` with a new LoRA adapter.
        sae: An SAE of the output of one of its layers. It computes on its own device.
        wanted: Examples of the behaviour to train: texts, pairs of a prompt and an answer, or lists
            of messages with role and content.
        unwanted: Examples of the opposite.
        tokenizer: The model's tokenizer; loaded by the model's name if it is left out.
        layer: The SAE's layer, counted from 0; what the SAE's own files say if it is left out.
        tokens: At which tokens features are compared: the `last` of the prompt, the `first_answer`
            token, or `all` of an answer, and of examples without an answer all of the text.
        features: How many features are chosen.
        variance: Share of the variance of their directions that the basis keeps.
        rank: How many directions the basis has, instead of going by `variance`.
        adapter: Name of the adapter; the active one by default.
        chat: Whether examples are read in the tokenizer's chat template; by default, if it has one.
        batch_tokens: Most padded tokens of a batch; the default depends on the device.
        progress: Whether a bar shows rate and time left (only in a terminal).

    Returns:
        What was found and written.

    Raises:
        InputError: The SAE does not fit the model, a side has no examples or does not differ from
            the other, the rank is above what the features span, or the adapter is trained
            already, has no module that such a direction serves, or has one that is not linear.
    """
    began = time.perf_counter()
    check_choice(tokens, "tokens", Tokens)
    model, name = check_model(model, adapter)
    check_type(sae, TopKSAE, "SAE")
    features = check_count(features, "features")
    _check_variance(variance)
    size = None if rank is None else _check_rank(rank, features, model.peft_config[name])
    modes = {module: module.training for module in model.modules()}
    try:
        host = _host(model, tokenizer, batch_tokens)
        number = _check_layer(sae, layer, host)
        places, others = find_places(model, name, host, number, sae.width)
        templated = bool(host.tokenizer.source.chat_template) if chat is None else chat
        sides = {
            side: read_examples(host, examples, side, tokens, templated)
            for side, examples in (("wanted", wanted), ("unwanted", unwanted))
        }
        with model.disable_adapter():
            compared = compare(host, sae, number, sides, progress)
    finally:
        for module, training in modes.items():
            module.training = training
    _check_fit(compared, number)
    chosen = rank_features(compared.means["wanted"], compared.means["unwanted"], features)
    directions = functional.normalize(
        sae.W_dec.detach()[chosen.to(sae.W_dec.device)].float(), dim=1
    ).cpu()
    basis, shares = make_basis(directions, variance, size)
    for place in places:
        write_start(place, name, basis)
    return SailsReport(
        layer=number,
        tokens=tokens,
        examples=(len(sides["wanted"]), len(sides["unwanted"])),
        unexplained=compared.unexplained,
        features=tuple(
            Feature(
                index,
                float(compared.means["wanted"][index]),
                float(compared.means["unwanted"][index]),
                firings(compared, index, host, sides),
            )
            for index in chosen.tolist()
        ),
        variance=float(shares.sum()),
        modules={place.name: place.side for place in places},
        others=tuple(others),
        seconds=time.perf_counter() - began,
        basis=basis,
        directions=directions,
    )


def _check_variance(variance: float) -> None:
    if not check_share(variance, "variance"):
        raise InputError(f"variance must be above 0 and at most 1, not {variance}.")


def _check_rank(rank: int, features: int, config: Any) -> int:
    rank = check_count(rank, "rank")
    if rank > min(features, config.r):
        raise InputError(
            f"rank must be at most {min(features, config.r)} (the adapter has rank {config.r}, and "
            f"{features} features are chosen), not {rank}; lower it, or raise the others."
        )
    return rank


def _host(
    model: PeftModel,
    tokenizer: transformers.PreTrainedTokenizerBase | None,
    batch_tokens: int | None,
) -> Host:
    base: Any = model.get_base_model()
    if tokenizer is None:
        name = base.config.name_or_path
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(name)
        except Exception as error:
            raise InputError(
                f"No tokenizer can be loaded by the model's name {name!r} ({brief(error)}); pass "
                "tokenizer=."
            ) from error
    return Host.of(base, tokenizer, batch_tokens=batch_tokens)


def _check_layer(sae: TopKSAE, layer: int | None, host: Host) -> int:
    if layer is not None and sae.layer is not None and layer != sae.layer:
        raise InputError(
            f"The SAE was trained on the output of layer {sae.layer}, not of layer {layer}; leave "
            "layer out."
        )
    found = sae.layer if layer is None else check_count(layer, "layer", least=0)
    if found is None:
        raise InputError("The SAE does not say which layer it was trained on; pass layer=.")
    if found >= len(host.blocks):
        raise InputError(
            f"The SAE is of layer {found}, and the model has layers 0 to {len(host.blocks) - 1}; "
            "use an SAE of this model."
        )
    width = int(host.model.config.get_text_config().hidden_size)
    if sae.width != width:
        raise InputError(
            f"The SAE encodes states of width {sae.width}, and the model's have {width}; use an "
            "SAE of this model."
        )
    return found


def _check_fit(compared: Comparison, layer: int) -> None:
    if not compared.unexplained < 1:
        raise InputError(
            f"The SAE restores the states of layer {layer} worse than their mean would (squared "
            f"error {compared.unexplained:.2f} of their squared distance from it); it belongs to "
            "another model or layer."
        )
