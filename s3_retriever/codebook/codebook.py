"""`Codebook`: the SAEs of one host, on disk and on the Hub."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from s3_retriever.codebook.files import (
    CODEBOOK_FILE,
    SCHEMA,
    CodebookFile,
    read_codebook_file,
    replace_folder,
)
from s3_retriever.codebook.fit import fit
from s3_retriever.codebook.recipes import default_recipe, paper_recipe, sentence_layer
from s3_retriever.codebook.sentence_map import (
    STANDALONE_FILE,
    Remembered,
    StandaloneMap,
    first_texts,
    fit_standalone,
)
from s3_retriever.errors import CodebookError, InputError
from s3_retriever.host.source import MINILM
from s3_retriever.host.taps import Tap
from s3_retriever.quantization import code_bytes
from s3_retriever.recipe import Recipe
from s3_retriever.sae import TopKSAE
from s3_retriever.sae.model import CONFIG_FILE, WEIGHTS_FILE

if TYPE_CHECKING:
    from s3_retriever.host import Host

# Files of a tap.
_TAP_FILES = (CONFIG_FILE, WEIGHTS_FILE, STANDALONE_FILE)
_SHIPPED = Path(__file__).parent / "shipped"


class Codebook:
    """The SAEs of all taps of one host.

    Attributes:
        host_name: Name of the host it was fitted for.
        fingerprint: `Host.fingerprint(depth)` of that host.
        saes: Tap to its SAE.
        recipe: Scoring defaults; may use a part of the taps.
        report: What fitting measured, by tap name.
        standalone: Tap of sentences to the map of its mean states; where there is none, they are
            taken as they are.
    """

    def __init__(
        self,
        host_name: str,
        fingerprint: str,
        saes: Mapping[Tap, TopKSAE],
        recipe: Recipe,
        report: Mapping[str, Any] | None = None,
        standalone: Mapping[Tap, StandaloneMap] | None = None,
    ) -> None:
        self.host_name = host_name
        self.fingerprint = fingerprint
        self.saes = dict(saes)
        self.recipe = recipe
        self.report = dict(report or {})
        self.standalone = dict(standalone or {})
        for tap in self.saes:
            if tap.site == "sentence":
                raise CodebookError(
                    f"The codebook lists an SAE of {tap}, but sentences have none; leave it out, "
                    "or fit the codebook again."
                )
        for tap, found in self.standalone.items():
            states = self.saes.get(tap.tokens)
            if tap.site != "sentence" or states is None or states.width != len(found.bias):
                raise CodebookError(
                    f"The codebook lists a map of {tap}, which is no tap of sentences with states "
                    "of that width; leave it out, or fit the codebook again."
                )
        self.check(recipe)

    @property
    def depth(self) -> int:
        """How many layers of the host its taps need."""
        return max(tap.layer for tap in self.saes) + 1

    @cached_property
    def identity(self) -> str:
        """Digest of SAEs and maps: codebooks of the same identity give the same features."""
        digest = hashlib.sha256(self.fingerprint.encode())
        for tap, sae in sorted(self.saes.items()):
            digest.update(f"{tap} {sae.k}".encode())
            # As `save` keeps them, so that a codebook on disk has the identity it had before.
            for weight, dtype in (
                (sae.W_enc, torch.float16),
                (sae.b_enc, torch.float32),
                (sae.b_dec, torch.float32),
            ):
                digest.update(weight.detach().to("cpu", dtype).numpy().tobytes())
        for tap, found in sorted(self.standalone.items()):
            digest.update(f"{tap}".encode())
            digest.update(found.weights.half().numpy().tobytes() + found.bias.numpy().tobytes())
        return digest.hexdigest()[:32]

    @property
    def sentence_layer(self) -> int | None:
        """The deepest layer whose hidden states it has; None if it has none."""
        return sentence_layer(self.saes)

    def feature_sizes(self, recipe: Recipe) -> dict[str, int]:
        """Sizes of the dictionaries of a recipe's taps, as an index takes them."""
        return {name: self.sae(name).features for name in recipe.taps}

    def code_sizes(self, recipe: Recipe) -> dict[str, int]:
        """Bytes of a sentence's code at a recipe's tap of sentences, as an index takes them."""
        if recipe.sentence is None:
            return {}
        tap = f"sentence.{recipe.sentence.layer}"
        return {tap: code_bytes(self.states_of(tap).width)}

    def states_of(self, tap: str) -> TopKSAE:
        """The SAE of the token states that a tap of sentences averages, by that tap's name."""
        return self.saes[Tap.parse(tap).tokens]

    def sae(self, tap: str) -> TopKSAE:
        """The SAE of a tap, by the tap's name."""
        return self.saes[Tap.parse(tap)]

    def check(self, recipe: Recipe) -> None:
        """Refuse a recipe that this codebook cannot serve.

        Raises:
            CodebookError: The recipe names a tap that the codebook does not have, or asks for
                the query projection of a tap that is no key tap.
        """
        taps = [Tap.parse(name) for name in recipe.taps]
        if recipe.sentence is not None:
            taps.append(Tap("hidden", recipe.sentence.layer))
        for tap in taps:
            if tap not in self.saes:
                raise CodebookError(
                    f"Recipe {recipe.name!r} needs the tap {tap}, which this codebook does not "
                    f"have (it has {', '.join(str(tap) for tap in self.saes)}); fit a codebook "
                    "with that tap."
                )
        misplaced = [name for name in recipe.taps if Tap.parse(name).site == "sentence"]
        if misplaced:
            raise CodebookError(
                f"Recipe {recipe.name!r} uses the tap {misplaced[0]} in the wrong place; taps of "
                "sentences belong in `sentence`, all others in `taps`."
            )
        for name, part in recipe.taps.items():
            tap = Tap.parse(name)
            if part.query_side == "query" and tap.site != "key":
                raise CodebookError(
                    f"Recipe {recipe.name!r} encodes queries with the SAE of {name}, but only a "
                    "key tap can do that."
                )

    def check_host(self, host: Host) -> None:
        """Refuse a host that this codebook does not belong to.

        Raises:
            CodebookError: The host has other weights, or fewer layers than the taps need.
        """
        if len(host.blocks) < self.depth:
            raise CodebookError(
                f"Host {host.name!r} was loaded with {len(host.blocks)} layers and the codebook "
                f"needs {self.depth}; load it with layers={self.depth} or without layers."
            )
        if host.fingerprint(self.depth) != self.fingerprint:
            raise CodebookError(
                f"The codebook was fitted for host {self.host_name!r}, and host {host.name!r} has "
                f"other weights; fit one for it with: s3 fit {host.name}"
            )

    def paper_recipe(self) -> Recipe:
        """S3-Attention as printed: eq. 7 on all key taps, queries through the key SAE.

        Raises:
            CodebookError: The codebook has no key tap.
        """
        return paper_recipe(self.saes)

    def named_recipe(self, recipe: str | Recipe) -> Recipe:
        """`default`, `paper`, or a recipe of the caller's own, checked against the taps.

        Raises:
            CodebookError: No recipe has that name, or the codebook cannot serve it.
        """
        if recipe == "default":
            return self.recipe
        if recipe == "paper":
            return self.paper_recipe()
        if isinstance(recipe, str):
            raise CodebookError(
                f"There is no recipe {recipe!r}; use 'default', 'paper' or a Recipe of your own."
            )
        self.check(recipe)
        return recipe

    @classmethod
    def fit(
        cls, host: Host, texts: Iterable[str], *, recipe: Recipe | None = None, **settings: Any
    ) -> Codebook:
        """Train one SAE per tap from plain text and put them into a codebook.

        Where the recipe scores sentences, the map of their mean states is fitted as well, on the
        first of the texts.

        Args:
            host: The model to tap.
            texts: Plain texts, read in one streaming pass.
            recipe: Scoring defaults of the codebook; a plain sum over hidden taps (over the others
                where there are none) where left out.
            settings: Taps, sizes and the rest: see `s3_retriever.codebook.fit.fit`.

        Raises:
            InputError: There is too little text, or a setting is out of range.
            CodebookError: The checkpoint is of other settings or damaged.
        """
        first = texts
        if isinstance(texts, Iterator):
            texts = remembered = Remembered(texts)
            first = remembered.first
        saes, report = fit(host, texts, **settings)
        depth = max(tap.layer for tap in saes) + 1
        recipe = recipe or default_recipe(host, saes)
        found = cls(host.name, host.fingerprint(depth), saes, recipe, report)
        if recipe.sentence is None:
            return found
        # No more text than the SAEs were trained on; a token has about four characters.
        read = first_texts(first, 4 * report["settings"]["tokens"])
        return found.with_standalone(host, read, progress=settings.get("progress", True))

    def with_recipe(self, recipe: Recipe) -> Codebook:
        """The same SAEs with another default recipe.

        Raises:
            CodebookError: The codebook cannot serve the recipe.
        """
        return Codebook(
            self.host_name, self.fingerprint, self.saes, recipe, self.report, self.standalone
        )

    def with_standalone(
        self, host: Host, texts: Iterable[str], *, progress: bool = True
    ) -> Codebook:
        """The same SAEs with a map of the mean states of sentences fitted anew.

        Args:
            host: The model that the codebook belongs to.
            texts: Plain texts; of many, the first two million characters are read.
            progress: Whether a bar shows rate and time left (only in a terminal).

        Raises:
            CodebookError: The codebook belongs to another host, or has no hidden states, of which
                sentences have means.
        """
        self.check_host(host)
        layer = self.recipe.sentence.layer if self.recipe.sentence else self.sentence_layer
        if layer is not None:
            tap = Tap("sentence", layer)
        if layer is None:
            raise CodebookError(
                "The codebook has no tap of hidden states, so that sentences have no mean "
                "states; fit one with: s3 fit HOST --taps hidden.LAYER ..."
            )
        centre = self.states_of(str(tap)).b_dec
        found, worth = fit_standalone(host, tap, first_texts(texts), centre, progress=progress)
        standalone = {**self.standalone, tap: found}
        report = {
            **self.report,
            "standalone": {**self.report.get("standalone", {}), str(tap): worth},
        }
        return Codebook(
            self.host_name, self.fingerprint, self.saes, self.recipe, report, standalone
        )

    def save(self, folder: str | Path, *, dtype: torch.dtype = torch.float16) -> None:
        """Write the codebook to a folder, all or nothing; one that is there is replaced.

        Args:
            folder: Where to.
            dtype: Of the weights in the files.

        Raises:
            CodebookError: The folder cannot be written, or holds something else.
        """
        replace_folder(Path(folder), lambda new: self._write(new, dtype))

    def _write(self, folder: Path, dtype: torch.dtype) -> None:
        for tap, sae in self.saes.items():
            sae.save(folder / str(tap), dtype=dtype, hook_name=str(tap), model_name=self.host_name)
        for tap, found in self.standalone.items():
            found.save(folder / str(tap))
        CodebookFile(
            schema_version=SCHEMA,
            host=self.host_name,
            fingerprint=self.fingerprint,
            taps=[str(tap) for tap in self.saes],
            standalone=[str(tap) for tap in self.standalone],
            recipe=self.recipe,
            report=self.report,
        ).write(folder)

    @classmethod
    def load(cls, folder: str | Path) -> Codebook:
        """Read a codebook from a folder.

        Raises:
            CodebookError: The folder holds no codebook, or one that is damaged or newer.
        """
        path = Path(folder) / CODEBOOK_FILE
        content = read_codebook_file(path)
        try:
            # Tap names are parsed before they are used as folder names.
            taps = [Tap.parse(name) for name in content.taps]
            saes = {tap: TopKSAE.load(Path(folder) / str(tap)) for tap in taps}
            standalone = {
                tap: StandaloneMap.load(Path(folder) / str(tap))
                for tap in map(Tap.parse, content.standalone)
            }
            return cls(
                content.host, content.fingerprint, saes, content.recipe, content.report, standalone
            )
        except InputError as error:
            raise CodebookError(f"{path} is damaged: {error}") from error

    @classmethod
    def from_pretrained(cls, name: str, *, revision: str | None = None) -> Codebook:
        """The codebook shipped for a host, or one from a folder or the Hugging Face Hub.

        Args:
            name: A host with a shipped codebook (`minilm`), a folder, or a Hub id.
            revision: Branch, tag or commit on the Hub.

        Raises:
            CodebookError: There is no such codebook.
        """
        if name == MINILM:
            return cls.load(_SHIPPED / MINILM)
        if Path(name).is_dir():
            return cls.load(name)
        from huggingface_hub import snapshot_download

        patterns = [CODEBOOK_FILE, *(f"*/{name}" for name in _TAP_FILES)]
        try:
            folder = snapshot_download(name, revision=revision, allow_patterns=patterns)
        except (OSError, ValueError) as error:
            raise CodebookError(
                f"There is no codebook {name!r}: it is no folder, and the Hugging Face Hub does "
                "not have it or is out of reach."
            ) from error
        return cls.load(folder)

    def push_to_hub(self, repo_id: str, *, private: bool = False) -> str:
        """Upload the codebook to the Hugging Face Hub; returns the commit's address.

        Args:
            repo_id: `owner/name`; made where it is missing.
            private: Whether a new repository is private.
        """
        from huggingface_hub import HfApi

        api = HfApi()
        api.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            self.save(Path(folder) / "codebook")
            commit = api.upload_folder(repo_id=repo_id, folder_path=f"{folder}/codebook")
        return str(commit.commit_url)
