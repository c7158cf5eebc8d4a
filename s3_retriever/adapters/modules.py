"""Which modules of a LoRA adapter a direction of the residual stream can serve, and how.

A direction is one of a module's input space if the module reads the stream, and one of its output
space if the module's output is added to the stream. A module that does neither, such as the
projection between a gate and its product, has no such direction.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from peft import PeftModel, PeftType
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from s3_retriever.errors import InputError
from s3_retriever.host import Host

# Where the directions are: in A, whose rows are in a module's input space, or in B, whose columns
# are in its output space.
Side = Literal["input", "output"]

# The ends of the paths of modules, of all families of the host.
# fmt: off
_READS = frozenset({
    "q_proj", "k_proj", "v_proj", "qkv_proj", "q_lin", "k_lin", "v_lin", "q", "k", "v",
    "query", "key", "value", "query_key_value", "c_attn", "Wqkv",
    "gate_proj", "up_proj", "gate_up_proj", "fc1", "c_fc", "dense_h_to_4h", "Wi", "lin1",
    "intermediate.dense",
})
_WRITES = frozenset({
    "o_proj", "out_proj", "out_lin", "attn.o", "Wo",
    "self_attn.dense", "attention.dense", "self_attention.dense", "output.dense",
    "down_proj", "fc2", "c_proj", "dense_4h_to_h", "lin2",
})
# fmt: on
# Their layers normalise what a module gives out before it is added to the stream.
_NORMED_OUTPUTS = frozenset({"gemma2", "gemma3_text", "olmo2", "olmo3"})


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A LoRA module in which directions of the stream can be written.

    Attributes:
        name: Its path in the PEFT model, as in the files of an adapter.
        module: The module.
        side: Whether the directions go into A or B.
    """

    name: str
    module: LoraLayer
    side: Side


def check_model(model: object, adapter: str | None) -> tuple[PeftModel, str]:
    """Check that a model has a LoRA adapter, and return it with the adapter's name.

    Args:
        model: A PEFT model.
        adapter: Name of the adapter; None for the only active one.

    Raises:
        InputError: It is another kind of model, or has no such adapter.
    """
    if not isinstance(model, PeftModel):
        raise InputError(
            f"sails_init needs a PeftModel, not {type(model).__name__}; make one with "
            "peft.get_peft_model(model, LoraConfig(...))."
        )
    name = model.active_adapters[0] if adapter is None else adapter
    config = model.peft_config.get(name)
    if config is None or config.peft_type is not PeftType.LORA:
        known = ", ".join(model.peft_config)
        raise InputError(
            f"The model has no LoRA adapter {name!r} (its adapters: {known}); SAILS starts LoRA."
        )
    return model, name


def find_places(
    model: PeftModel, adapter: str, host: Host, layer: int, width: int
) -> tuple[list[Place], list[str]]:
    """Find the modules of an adapter that directions of one layer's output can serve.

    These are the modules that read the stream after that layer, and those of any layer that write
    to it.

    Args:
        model: The model.
        adapter: Name of the adapter.
        host: The model's layers.
        layer: The layer after which the directions were found.
        width: Width of the stream.

    Returns:
        The places, and the paths of the adapter's other modules, which keep the start they have.

    Raises:
        InputError: There is none, the adapter was trained, or it is not linear.
    """
    paths = {id(module): name for name, module in model.named_modules()}
    places, others = [], []
    inside = set()
    for number, block in enumerate(host.blocks):
        for name, module in _lora_layers(block, adapter):
            path = paths[id(module)]
            inside.add(path)
            check_start(path, module, adapter)
            side = _side(name, number > layer, host.model.config.model_type)
            size = module.in_features if side == "input" else module.out_features
            if side is None or size != width:
                others.append(path)
            else:
                places.append(Place(path, module, side))
    others += [path for path, _ in _lora_layers(model, adapter) if path not in inside]
    if not places:
        raise InputError(
            f"No module of adapter {adapter!r} reads the residual stream after layer {layer} or "
            "writes to it; let the adapter target modules such as q_proj, up_proj or down_proj of "
            "later layers, or use an SAE of an earlier layer."
        )
    return places, others


def check_start(path: str, module: LoraLayer, adapter: str) -> None:
    """Check that a module can be started: it is linear, and its update is still zero.

    Raises:
        InputError: It is not so.
    """
    factors = _factors(module, adapter)
    if factors is None:
        raise InputError(
            f"Adapter {adapter!r} targets {path}, which is not a linear module; SAILS starts "
            "linear ones only, so leave it out of target_modules."
        )
    if all(bool(factor.any()) for factor in factors):
        raise InputError(
            f"Adapter {adapter!r} is trained already, or starts from another initialisation than "
            f"PEFT's default ({path} has an update that is not zero); make a new one with "
            "init_lora_weights=True."
        )


@torch.no_grad()
def write_start(place: Place, adapter: str, basis: Tensor) -> None:
    """Let a module start in a basis, without changing what it computes.

    If the adapter's rank is lower than the basis', the first directions are taken. If it is
    higher, the rest starts at random as PEFT does, less its part in the basis.

    Args:
        place: The module.
        adapter: Name of the adapter.
        basis: Orthonormal directions [rank, width], the most important first.
    """
    factors = _factors(place.module, adapter)
    assert factors is not None
    down, up = factors
    rank = len(down)
    used = basis[:rank].to(down.device)
    rest = torch.empty(rank - len(used), basis.shape[1], device=down.device)
    # nn.init would warn of a matrix without rows.
    rest.uniform_(-1 / math.sqrt(basis.shape[1]), 1 / math.sqrt(basis.shape[1]))
    start = torch.cat([used, rest - rest @ used.T @ used])
    if place.side == "input":
        down.copy_(start)
        up.zero_()
    else:
        up.copy_(start.T)
        down.zero_()


def _factors(module: LoraLayer, adapter: str) -> tuple[Tensor, Tensor] | None:
    """A [rank, in] and B [out, rank] of a module; None if it is not linear."""
    if adapter not in module.lora_A:
        return None
    parts = module.lora_A[adapter], module.lora_B[adapter]
    down, up = (part.weight if isinstance(part, nn.Linear) else None for part in parts)
    return None if down is None or up is None else (down, up)


def _lora_layers(module: nn.Module, adapter: str) -> Iterator[tuple[str, LoraLayer]]:
    for name, child in module.named_modules():
        if isinstance(child, LoraLayer) and adapter in child.r:
            yield name, child


def _side(name: str, after: bool, family: str) -> Side | None:
    """Where directions go in a module of a layer, by the module's path in the layer."""
    ends = {name.rpartition(".")[2], ".".join(name.split(".")[-2:])}
    if not ends.isdisjoint(_WRITES):
        return None if family in _NORMED_OUTPUTS else "output"
    if after and not ends.isdisjoint(_READS):
        return "input"
    return None
