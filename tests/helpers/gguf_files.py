"""A tiny host as a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    """`tiny_llama` as a GGUF file with eight bits a weight."""
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny-llama.Q8_0.gguf", tiny_llama)


def write_gguf(path: Path, folder: Path, *, family: str = "llama", without: str = "") -> Path:
    """Write a Llama as llama.cpp's converter does.

    Args:
        path: The file.
        folder: The model.
        family: Name of the family in the file.
        without: A tensor to leave out.
    """
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text())
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    writer = gguf.GGUFWriter(path, family)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(model["vocab"], key=model["vocab"].get))
    writer.add_token_types([3, 3] + [1] * (len(model["vocab"]) - 2))
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    for name, weights in _tensors(load_file(folder / "model.safetensors"), config):
        if name == without:
            continue
        kind = gguf.GGMLQuantizationType.Q8_0
        if weights.ndim == 2 and weights.shape[1] % 32 == 0:
            writer.add_tensor(name, gguf.quants.quantize(weights, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors(weights: dict[str, NDArray[Any]], config: dict[str, Any]) -> Any:
    yield "token_embd.weight", weights["embed_tokens.weight"]
    yield "output_norm.weight", weights["norm.weight"]
    yield "output.weight", weights["embed_tokens.weight"]
    for layer in range(config["num_hidden_layers"]):
        for name, short in _NAMES.items():
            x = weights[f"layers.{layer}.{name}.weight"].astype(np.float32)
            if short in ("attn_q", "attn_k"):
                side = "num_attention_heads" if short == "attn_q" else "num_key_value_heads"
                # llama.cpp has the two halves of a head interleaved.
                x = x.reshape(config[side], 2, -1, x.shape[1]).swapaxes(1, 2).reshape(x.shape)
            yield f"blk.{layer}.{short}.weight", x
