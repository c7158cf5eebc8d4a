"""Let a model generate with its key-value cache in atoms, and compare the size of the cache.

    python docs/examples/kv_cache.py

SmolLM2 and its codebook come with the package, so this runs offline. For another model, fit a
codebook first: `s3r fit MODEL --kv --text TEXT --out FOLDER`.
"""

from __future__ import annotations

from rich.console import Console

from s3_retriever import AtomCache, Host, KVCodebook

TEXT = (
    "The lighthouse at Skerry Point was lit every evening by Ada Brandt, who had learnt the work "
    "from her father. She climbed its two hundred steps with a can of oil in each hand, trimmed "
    "the wicks, wound the clockwork that turned the lens, and wrote the hour and the weather in "
    "the log. In winter the spray froze on the windows, and she scraped it off with a spoon. "
)


def main(model: str = "smollm2", codebook: str = "smollm2", new_tokens: int = 40) -> None:
    """Generate from a text of several hundred tokens."""
    host = Host.load(model, generates=True)
    atoms = KVCodebook.load(codebook)
    atoms.check_host(host)

    cache = AtomCache(atoms, key_k=8, value_k=16, recent=128, sinks=4)
    host.causal.set_attn_implementation("s3_atoms")
    inputs = host.tokenizer.source(5 * TEXT, return_tensors="pt").to(host.device)
    # Releases of transformers that do not know `cache` call it `past_key_values`.
    generated = host.causal.generate(
        **inputs, cache=cache, max_new_tokens=new_tokens, do_sample=False
    )

    console, prompt = Console(soft_wrap=True, markup=False), inputs["input_ids"].shape[1]
    console.print(host.tokenizer.source.decode(generated[0, prompt:]))
    heads = host.family.heads(host.model.config)
    numbers = 2 * len(host.blocks) * heads.keys * heads.size * cache.get_seq_length()
    exact = numbers * host.model.dtype.itemsize
    tokens = cache.get_seq_length()
    console.print(f"{tokens} tokens: {cache.nbytes:,} bytes; exact: {exact:,} bytes")


if __name__ == "__main__":
    main()
