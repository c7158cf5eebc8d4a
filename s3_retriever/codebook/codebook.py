"""`Codebook`: the SAEs and retrieval heads of one host, on disk and on the Hub."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s3_retriever.codebook.files import (
    SCHEMA,
    CodebookFile,
    find_folder,
    read_codebook_file,
    replace_folder,
)
from s3_retriever.codebook.fit import fit, sites_of
from s3_retriever.codebook.heads import KeyHead, check_heads, fit_key_heads
from s3_retriever.codebook.recipes import (
    check_activations,
    check_default_recipe,
    check_recipe,
    deepest_hidden_layer,
    default_recipe,
    grouped_heads,
    paper_recipe,
    with_query_heads,
)
from s3_retriever.codebook.sentence_map import (
    SentenceMap,
    first_texts,
    fit_sentence_map,
    keep_first,
)
from s3_retriever.codebook.whitening import fit_whitening
from s3_retriever.errors import CodebookError, InputError
from s3_retriever.features import Layout
from s3_retriever.host import Host
from s3_retriever.host.taps import ALL_HEADS, Head, Tap
from s3_retriever.quantization import vector_bytes
from s3_retriever.recipe import Recipe
from s3_retriever.sae import TopKSAE
from s3_retriever.types import check_items, check_path, check_source, check_type, shown

# Text on which centre and scale of keys are measured: some 100,000 tokens.
_HEAD_CHARACTERS = 400_000


class Codebook:
    """The SAEs of all taps of one host, and its retrieval heads.

    Attributes:
        host_name: Name of the host that it was fitted for.
        fingerprint: `Host.fingerprint(depth)` of that host.
        saes: Tap to its SAE.
        recipe: Scoring defaults; they may use a part of the taps.
        report: What fitting measured, by tap name.
        sentence_maps: Layer to its sentence map. Without one, an index keeps mean states as they
            are.
        key_heads: The key heads that retrieval heads look at.
        queries_per_key: How many query heads of the host share a key head.

    Raises:
        CodebookError: A sentence map or the recipe does not fit the SAEs and heads.
    """

    def __init__(
        self,
        host_name: str,
        fingerprint: str,
        saes: Mapping[Tap, TopKSAE],
        recipe: Recipe,
        report: Mapping[str, Any] | None = None,
        sentence_maps: Mapping[int, SentenceMap] | None = None,
        key_heads: Mapping[Head, KeyHead] | None = None,
        queries_per_key: int = 1,
    ) -> None:
        self.host_name = host_name
        self.fingerprint = fingerprint
        self.saes = dict(saes)
        self.recipe = recipe
        self.report = dict(report or {})
        self.sentence_maps = dict(sentence_maps or {})
        self.key_heads = dict(key_heads or {})
        self.queries_per_key = queries_per_key
        check_type(recipe, Recipe, "recipe")
        for layer, sentence_map in self.sentence_maps.items():
            states = self.saes.get(Tap("hidden", layer))
            if states is None or states.width != len(sentence_map.bias):
                raise _mapless(layer)
        check_default_recipe(recipe, self.saes, self.key_heads, self.queries_per_key)
        check_activations(recipe, self.saes)

    @property
    def depth(self) -> int:
        """How many layers of the host its taps and heads need; at least one."""
        return _depth(self.saes, self.key_heads)

    @cached_property
    def identity(self) -> str:
        """Digest of all weights; the same identity means the same features, vectors and keys."""
        digest = hashlib.sha256(self.fingerprint.encode())
        for tap, sae in sorted(self.saes.items()):
            digest.update(f"{tap} {sae.k}".encode())
            # Rounded as in the files: saving and loading keep the identity.
            for weight, dtype in (
                (sae.W_enc, torch.float16),
                (sae.b_enc, torch.float32),
                (sae.b_dec, torch.float32),
            ):
                digest.update(weight.detach().to("cpu", dtype).numpy().tobytes())
            if sae.activation != "topk":
                digest.update(sae.activation.encode())
            if sae.threshold is not None:
                digest.update(sae.threshold.to("cpu").numpy().tobytes())
        for layer, sentence_map in sorted(self.sentence_maps.items()):
            digest.update(f"sentence.{layer}".encode())
            digest.update(sentence_map.weights.half().numpy().tobytes())
            digest.update(sentence_map.bias.numpy().tobytes())
            if sentence_map.token_weights is not None:
                digest.update(sentence_map.token_weights.half().numpy().tobytes())
        for head, key_head in sorted(self.key_heads.items()):
            digest.update(f"head.{head} {self.queries_per_key}".encode())
            digest.update(key_head.centre.numpy().tobytes())
            digest.update(key_head.scale.numpy().tobytes())
        return digest.hexdigest()[:32]

    @property
    def sentence_layer(self) -> int | None:
        """Deepest layer with a hidden tap, whose states sentence vectors average; None without."""
        return deepest_hidden_layer(self.saes)

    def layout(self, recipe: Recipe) -> Layout:
        """Determine what an index keeps of each token and sentence for a recipe."""
        layer = recipe.sentence_layer
        return Layout(
            features={name: self.sae(name).features for name in recipe.taps},
            vector_bytes=0 if layer is None else vector_bytes(len(self.centre(layer))),
            key_bytes={
                str(head): vector_bytes(self.key_heads[head].size)
                for head in self.query_heads(recipe)
            },
        )

    def query_heads(self, recipe: Recipe) -> dict[Head, list[Head]]:
        """Look up the key heads that a recipe needs, each with the recipe's query heads."""
        return grouped_heads(recipe, self.queries_per_key)

    def centre(self, layer: int) -> Tensor:
        """Look up the centre of a layer's hidden states, float32 [width].

        This is the decoder bias of the layer's SAE. Sentence vectors are directions from it.
        """
        return self.saes[Tap("hidden", layer)].b_dec.detach()

    def sae(self, tap: str) -> TopKSAE:
        """Look up the SAE of a tap by the tap's name."""
        return self.saes[Tap.parse(tap)]

    def check(self, recipe: Recipe) -> None:
        """Refuse a recipe that this codebook cannot serve.

        Raises:
            CodebookError: The recipe needs a tap or a head that the codebook does not have, or
                uses a query side at a tap other than a key tap; or its scoring needs mean
                activations that the codebook does not have.
            InputError: The recipe has a tap name that cannot be read.
        """
        check_recipe(recipe, self.saes, self.key_heads, self.queries_per_key)
        check_activations(recipe, self.saes)

    def check_host(self, host: Host) -> None:
        """Refuse a host that this codebook does not belong to.

        Raises:
            CodebookError: The host has other weights, or fewer layers than the taps need.
        """
        check_type(host, Host, "host")
        if len(host.blocks) < self.depth:
            raise CodebookError(
                f"Host {host.name!r} was loaded with {len(host.blocks)} layers and the codebook "
                f"needs {self.depth}; load it with layers={self.depth} or without layers."
            )
        if host.fingerprint(self.depth) != self.fingerprint:
            raise CodebookError(
                f"The codebook was fitted for host {self.host_name!r}, and host {host.name!r} has "
                f"other weights; fit one for it with: s3r fit {host.name}"
            )
        shape = host.family.heads(host.model.config)
        for head, key_head in self.key_heads.items():
            if (
                head.number >= shape.keys
                or key_head.size != shape.size
                or self.queries_per_key != shape.queries_per_key
            ):
                raise CodebookError(
                    f"The codebook's key head {head} does not fit host {host.name!r}, which has "
                    f"{shape.keys} key heads of {shape.size} numbers, each with "
                    f"{shape.queries_per_key} query heads; fetch or fit the codebook again."
                )
        vocabulary = host.tokenizer.backend.get_vocab_size()
        for layer, sentence_map in self.sentence_maps.items():
            counts = sentence_map.token_weights
            if counts is not None and len(counts) != vocabulary:
                raise CodebookError(
                    f"The sentence map of layer {layer} weighs {len(counts)} tokens and the host "
                    f"has {vocabulary}; fetch or fit the codebook again."
                )

    def named_recipe(self, recipe: str | Recipe) -> Recipe:
        """Look up a recipe by name, or check the caller's own.

        Args:
            recipe: `default`, `paper` (S3-Attention), `paper-literal` (as printed), or a recipe.

        Raises:
            CodebookError: No recipe has that name, or the codebook cannot serve it.
        """
        if isinstance(recipe, str) and recipe == "default":
            return self.recipe
        if isinstance(recipe, str) and recipe in ("paper", "paper-literal"):
            return paper_recipe(self.saes, literal=recipe == "paper-literal")
        if not isinstance(recipe, Recipe):
            raise CodebookError(
                f"Unknown recipe {shown(recipe)}; use 'default', 'paper', 'paper-literal' or a "
                "Recipe of your own."
            )
        self.check(recipe)
        return recipe

    @classmethod
    def of_saes(cls, host: Host, saes: Mapping[str, TopKSAE]) -> Codebook:
        """Make a codebook of trained SAEs, such as those of `load_sae`.

        Their recipe is the default one without a sentence map; `with_sentence_map` and
        `with_heads` add to it.

        Args:
            host: The model that they belong to.
            saes: By tap, such as `hidden.12`.

        Raises:
            CodebookError: There is none.
            InputError: A tap is not one of the host, or its SAE has another width.
        """
        check_type(host, Host, "host")
        parsed = {Tap.parse(tap): sae for tap, sae in saes.items()}
        if not parsed:
            raise CodebookError("A codebook needs at least one SAE.")
        heads = host.family.heads(host.model.config)
        for tap, sae in parsed.items():
            check_type(sae, TopKSAE, "SAE")
            width = host.model.config.get_text_config().hidden_size
            if tap.site != "hidden":
                width = heads.size * (heads.keys if tap.head == ALL_HEADS else 1)
            if tap.layer >= len(host.blocks) or sae.width != width:
                raise InputError(
                    f"The SAE of tap {tap} has width {sae.width}, and host {host.name!r} has "
                    f"{len(host.blocks)} layers with {width} numbers there; use its own SAEs."
                )
        recipe = default_recipe(host, parsed).changed("sentence", None)
        return cls(host.name, host.fingerprint(_depth(parsed, ())), parsed, recipe)

    @classmethod
    def fit(
        cls,
        host: Host,
        texts: Iterable[str],
        *,
        heads: Sequence[str] = (),
        recipe: Recipe | None = None,
        **settings: Any,
    ) -> Codebook:
        """Train one SAE per tap from plain text and put them into a codebook.

        If the recipe scores sentences or heads, this also fits a sentence map, and the scale of
        the heads' keys, on the first of the texts.

        Args:
            host: The model to tap.
            texts: Plain texts, read in one streaming pass.
            heads: Query heads that retrieve, such as `17.5`.
            recipe: Scoring defaults of the codebook; defaults to what measured best for its taps.
            settings: Taps, sizes and the rest: see `s3_retriever.codebook.fit.fit`.

        Raises:
            InputError: There is too little text, or a setting is out of range.
            CodebookError: The checkpoint is damaged or of another fit.
        """
        texts = check_items(texts, "texts")
        query_heads = _parsed(heads)
        check_heads(query_heads, host)
        # Before the training, which takes long.
        with_query_heads(recipe or Recipe(taps={}), query_heads)
        if recipe is not None:
            per_key = host.family.heads(host.model.config).queries_per_key
            key_heads = {head.key_head(per_key) for head in query_heads}
            sites = sites_of(host, settings.get("taps"))
            check_default_recipe(recipe, sites, key_heads, per_key)
        start = texts
        if isinstance(texts, Iterator):
            kept: list[str] = []
            start, texts = kept, keep_first(texts, kept)
        saes, report = fit(host, texts, **settings)
        depth = _depth(saes, ())
        recipe = recipe or default_recipe(host, saes)
        recipe, wanted = recipe.changed("heads", None), recipe.heads
        codebook = cls(host.name, host.fingerprint(depth), saes, recipe, report)
        # No more text than the SAEs were trained on; a token has about four characters.
        read = first_texts(start, 4 * report["settings"]["tokens"])
        progress = settings.get("progress", True)
        if recipe.sentence is not None:
            codebook = codebook.with_sentence_map(host, read, progress=progress)
        if query_heads:
            names = list(map(str, query_heads))
            codebook = codebook.with_heads(host, read, names, progress=progress)
        return codebook if wanted is None else codebook.with_recipe(recipe.changed("heads", wanted))

    def with_recipe(self, recipe: Recipe) -> Codebook:
        """Make a codebook of the same SAEs with another default recipe.

        Raises:
            CodebookError: The codebook cannot serve the recipe.
        """
        return self._copy(recipe=recipe)

    def with_taps(self, host: Host, texts: Iterable[str], **settings: Any) -> Codebook:
        """Make a codebook with further taps, newly fitted, and the same recipe.

        Its identity is another one: an index stays with the codebook it was made with.

        Args:
            host: The model that the codebook belongs to, as deep as the taps.
            texts: Plain texts, read in one streaming pass.
            settings: Taps, sizes and the rest: see `s3_retriever.codebook.fit.fit`.

        Raises:
            CodebookError: The codebook belongs to another host, or has such a tap already; or the
                checkpoint is damaged or of another fit.
            InputError: There is too little text, or a setting is out of range.
        """
        self.check_host(host)
        for tap in sites_of(host, settings.get("taps")):
            if tap in self.saes:
                raise CodebookError(
                    f"The codebook has a tap {tap} already; fit others, or a codebook of its own."
                )
        saes, report = fit(host, texts, **settings)
        every = {**self.saes, **saes}
        taps = {**self.report.get("taps", {}), **report["taps"]}
        own = dict.fromkeys(report["taps"], report["settings"])
        added = {**self.report.get("added", {}), **own}
        return self._copy(
            fingerprint=host.fingerprint(_depth(every, self.key_heads)),
            saes=every,
            report={**self.report, "taps": taps, "added": added},
            queries_per_key=host.family.heads(host.model.config).queries_per_key,
        )

    def with_heads(
        self,
        host: Host,
        texts: Iterable[str],
        heads: Sequence[str],
        *,
        progress: bool = True,
    ) -> Codebook:
        """Make a codebook of the same SAEs with other retrieval heads, which its recipe uses.

        Args:
            host: The model that the codebook belongs to, as deep as the heads.
            texts: Plain texts, of which at most the first 400,000 characters are read.
            heads: Query heads, such as `17.5`; none to remove the codebook's heads.
            progress: Whether a bar shows rate and time left (only in a terminal).

        Raises:
            CodebookError: The codebook belongs to another host.
            InputError: The host has no such head, or there is too little text.
        """
        self.check_host(host)
        named = _parsed(heads)
        recipe = with_query_heads(self.recipe, named)
        read = first_texts(check_items(texts, "texts"), _HEAD_CHARACTERS)
        key_heads = fit_key_heads(host, named, read, progress=progress) if named else {}
        return self._copy(
            fingerprint=host.fingerprint(_depth(self.saes, key_heads)),
            recipe=recipe,
            key_heads=key_heads,
            queries_per_key=host.family.heads(host.model.config).queries_per_key,
        )

    def with_sentence_map(
        self, host: Host, texts: Iterable[str], *, progress: bool = True
    ) -> Codebook:
        """Make a codebook of the same SAEs with a newly fitted sentence map.

        The map is for the layer that the recipe scores, else for the deepest layer with a hidden
        tap.

        Args:
            host: The model that the codebook belongs to.
            texts: Plain texts, of which at most the first two million characters are read.
            progress: Whether a bar shows rate and time left (only in a terminal).

        Raises:
            CodebookError: The codebook belongs to another host, or has no hidden tap.
        """
        self.check_host(host)
        layer = self.recipe.sentence_layer
        if layer is None:
            layer = self.sentence_layer
        if layer is None:
            raise CodebookError(
                "The codebook has no hidden tap, which a sentence map needs; fit one with: "
                "s3r fit HOST --taps hidden.LAYER ..."
            )
        read = first_texts(check_items(texts, "texts"))
        if host.family.bidirectional:
            centre = self.centre(layer)
            sentence_map, measured = fit_sentence_map(host, layer, read, centre, progress=progress)
        else:
            sentence_map, measured = fit_whitening(host, layer, read, progress=progress)
        measured_before = self.report.get("sentence_maps", {})
        return self._copy(
            report={**self.report, "sentence_maps": {**measured_before, str(layer): measured}},
            sentence_maps={**self.sentence_maps, layer: sentence_map},
        )

    def _copy(self, **changes: Any) -> Codebook:
        """Make a codebook of the same SAEs, with some attributes changed."""
        own = {
            "host_name": self.host_name,
            "fingerprint": self.fingerprint,
            "saes": self.saes,
            "recipe": self.recipe,
            "report": self.report,
            "sentence_maps": self.sentence_maps,
            "key_heads": self.key_heads,
            "queries_per_key": self.queries_per_key,
        }
        return Codebook(**{**own, **changes})

    def save(self, folder: str | Path, *, dtype: torch.dtype = torch.float16) -> None:
        """Write the codebook to a folder, all or nothing; an existing codebook is replaced.

        Args:
            folder: The codebook's folder.
            dtype: Type of the SAEs' matrices in the files: float16 or float32.

        Raises:
            InputError: `dtype` is neither of these.
            CodebookError: The folder cannot be written, or holds something else.
        """
        if not isinstance(dtype, torch.dtype) or dtype not in (torch.float16, torch.float32):
            raise InputError(f"A codebook is saved in float16 or float32, not {shown(dtype)}.")
        replace_folder(check_path(folder), lambda new: self._write(new, dtype))

    def _write(self, folder: Path, dtype: torch.dtype) -> None:
        for tap, sae in self.saes.items():
            sae.save(folder / str(tap), dtype=dtype, hook_name=str(tap), model_name=self.host_name)
        for layer, sentence_map in self.sentence_maps.items():
            sentence_map.save(_map_folder(folder, layer))
        for head, key_head in self.key_heads.items():
            key_head.save(_head_folder(folder, head))
        CodebookFile(
            schema_version=SCHEMA,
            identity=self.identity,
            host=self.host_name,
            fingerprint=self.fingerprint,
            taps=[str(tap) for tap in self.saes],
            sentence_maps=list(self.sentence_maps),
            key_heads=[str(head) for head in self.key_heads],
            queries_per_key=self.queries_per_key,
            recipe=self.recipe,
            report=self.report,
        ).write(folder)

    @classmethod
    def load(cls, folder: str | Path) -> Codebook:
        """Read a codebook from a folder.

        Raises:
            CodebookError: The folder holds no codebook, or one that is damaged or of another
                schema.
        """
        folder = check_path(folder)
        content = read_codebook_file(folder)
        try:
            # Tap names are parsed before they are used as folder names.
            taps = [Tap.parse(name) for name in content.taps]
            saes = {tap: TopKSAE.load(folder / str(tap)) for tap in taps}
            heads = [Head.parse(name) for name in content.key_heads]
            codebook = cls(
                content.host,
                content.fingerprint,
                saes,
                content.recipe,
                content.report,
                {n: _load_map(folder, n, saes) for n in content.sentence_maps},
                {head: KeyHead.load(_head_folder(folder, head)) for head in heads},
                content.queries_per_key,
            )
        except InputError as error:
            raise CodebookError(f"The codebook {folder} is damaged: {error}") from error
        if codebook.identity != content.identity:
            raise CodebookError(
                f"The codebook {folder} is damaged: its weights are not those that were saved; "
                "fetch or fit it again."
            )
        return codebook

    @classmethod
    def from_pretrained(
        cls, name: str, *, revision: str | None = None, local_files_only: bool = False
    ) -> Codebook:
        """Load the codebook shipped for a host, or one from a folder or the Hugging Face Hub.

        Args:
            name: An embedded host (`minilm`, `smollm2`), a folder, or a Hub id.
            revision: Branch, tag or commit on the Hub.
            local_files_only: Whether to leave the Hub alone and look no further than its cache.

        Raises:
            CodebookError: There is no such codebook, or it is damaged.
        """
        name = check_source(name, "codebook")
        return cls.load(find_folder(name, revision, local_files_only=local_files_only))

    def push_to_hub(self, repo_id: str, *, private: bool = False) -> str:
        """Upload the codebook to the Hugging Face Hub.

        Args:
            repo_id: `owner/name`; made if it does not exist.
            private: Whether a new repository is private.

        Returns:
            The address of the commit.
        """
        from huggingface_hub import HfApi

        api = HfApi()
        api.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            self.save(Path(folder) / "codebook")
            commit = api.upload_folder(repo_id=repo_id, folder_path=f"{folder}/codebook")
        return str(commit.commit_url)


def _parsed(heads: Sequence[str]) -> list[Head]:
    """Heads from their names, each once."""
    return list(dict.fromkeys(Head.parse(name) for name in check_items(heads, "heads")))


def _depth(taps: Iterable[Tap], heads: Iterable[Head]) -> int:
    layers = [*(tap.layer for tap in taps), *(head.layer for head in heads)]
    return max(layers, default=0) + 1


def _load_map(folder: Path, layer: int, saes: Mapping[Tap, TopKSAE]) -> SentenceMap:
    """Load the sentence map of a layer, which is as wide as the layer's states."""
    states = saes.get(Tap("hidden", layer))
    if states is None:
        raise _mapless(layer)
    return SentenceMap.load(_map_folder(folder, layer), states.width)


def _mapless(layer: int) -> CodebookError:
    return CodebookError(
        f"The codebook has a sentence map for layer {layer}, but no tap hidden.{layer} "
        "of that width; remove the map, or fit the codebook again."
    )


def _map_folder(folder: Path, layer: int) -> Path:
    return folder / f"sentence.{layer}"


def _head_folder(folder: Path, head: Head) -> Path:
    return folder / f"head.{head}"
