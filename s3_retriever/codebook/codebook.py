"""`Codebook`: the SAEs of one host, on disk and on the Hub."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError

from s3_retriever.codebook.fit import fit
from s3_retriever.codebook.recipes import default_recipe, last_sentence_tap, paper_recipe
from s3_retriever.codes import code_bytes
from s3_retriever.errors import CodebookError, InputError
from s3_retriever.host.source import MINILM
from s3_retriever.recipe import Recipe
from s3_retriever.sae import TopKSAE
from s3_retriever.tap import Tap

if TYPE_CHECKING:
    from s3_retriever.host import Host

CODEBOOK_FILE = "codebook.json"
SCHEMA = 1
_SHIPPED = Path(__file__).parent / "shipped"


class _CodebookFile(BaseModel):
    """What `codebook.json` holds."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int
    host: str
    fingerprint: str
    taps: list[str]
    recipe: Recipe
    report: dict[str, Any]


class Codebook:
    """The SAEs of all taps of one host.

    Attributes:
        host_name: Name of the host it was fitted for.
        fingerprint: `Host.fingerprint(depth)` of that host.
        saes: Tap to its SAE.
        recipe: Scoring defaults; may use a part of the taps.
        report: What fitting measured, by tap name.
    """

    def __init__(
        self,
        host_name: str,
        fingerprint: str,
        saes: Mapping[Tap, TopKSAE],
        recipe: Recipe,
        report: Mapping[str, Any] | None = None,
    ) -> None:
        self.host_name = host_name
        self.fingerprint = fingerprint
        self.saes = dict(saes)
        self.recipe = recipe
        self.report = dict(report or {})
        for tap in self.saes:
            if tap.site == "sentence":
                raise CodebookError(
                    f"The codebook lists an SAE of {tap}, but sentences have none; leave it out, "
                    "or fit the codebook again."
                )
        self.check(recipe)

    @property
    def depth(self) -> int:
        """How many layers of the host its taps need."""
        return max(tap.layer for tap in self.saes) + 1

    @cached_property
    def identity(self) -> str:
        """Digest of the SAEs: two codebooks with the same identity give the same features."""
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
        return digest.hexdigest()[:32]

    @property
    def sentence_tap(self) -> Tap | None:
        """The mean states of the deepest layer whose states it has; None where it has none."""
        return last_sentence_tap(self.saes)

    def feature_sizes(self, recipe: Recipe) -> dict[str, int]:
        """Sizes of the dictionaries of a recipe's taps, as an index takes them."""
        return {name: self.sae(name).features for name in recipe.taps}

    def code_sizes(self, recipe: Recipe) -> dict[str, int]:
        """Bytes of a sentence's code at a recipe's tap of sentences, as an index takes them."""
        if recipe.sentence is None:
            return {}
        tap = recipe.sentence.tap
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
        for name in recipe.tap_names:
            tap = Tap.parse(name).tokens
            if tap not in self.saes:
                raise CodebookError(
                    f"Recipe {recipe.name!r} needs the tap {tap}, which this codebook does not "
                    f"have (it has {', '.join(str(tap) for tap in self.saes)}); fit a codebook "
                    "with that tap."
                )
        misplaced = [name for name in recipe.taps if Tap.parse(name).site == "sentence"]
        if recipe.sentence and Tap.parse(recipe.sentence.tap).site != "sentence":
            misplaced.append(recipe.sentence.tap)
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
        saes, report = fit(host, texts, **settings)
        depth = max(tap.layer for tap in saes) + 1
        recipe = recipe or default_recipe(host, saes)
        return cls(host.name, host.fingerprint(depth), saes, recipe, report)

    def with_recipe(self, recipe: Recipe) -> Codebook:
        """The same SAEs with another default recipe.

        Raises:
            CodebookError: The codebook cannot serve the recipe.
        """
        return Codebook(self.host_name, self.fingerprint, self.saes, recipe, self.report)

    def save(self, folder: str | Path, *, dtype: torch.dtype = torch.float16) -> None:
        """Write the codebook to a folder, all or nothing; one that is there is replaced.

        Args:
            folder: Where to.
            dtype: Of the weights in the files.

        Raises:
            CodebookError: The folder cannot be written, or holds something else.
        """
        target = Path(folder)
        if _is_foreign(target):
            raise CodebookError(f"{target} holds something that is no codebook; choose another.")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            room = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
            try:
                self._write(room / "new", dtype)
                _swap(room / "new", target, room / "old")
            finally:
                shutil.rmtree(room, ignore_errors=True)
        except (OSError, SafetensorError) as error:
            raise CodebookError(f"The codebook cannot be written to {target}: {error}") from error

    def _write(self, folder: Path, dtype: torch.dtype) -> None:
        for tap, sae in self.saes.items():
            sae.save(folder / str(tap), dtype=dtype, hook_name=str(tap), model_name=self.host_name)
        content = _CodebookFile(
            schema_version=SCHEMA,
            host=self.host_name,
            fingerprint=self.fingerprint,
            taps=[str(tap) for tap in self.saes],
            recipe=self.recipe,
            report=self.report,
        )
        text = json.dumps(content.model_dump(), indent=2)
        (folder / CODEBOOK_FILE).write_text(text + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> Codebook:
        """Read a codebook from a folder.

        Raises:
            CodebookError: The folder holds no codebook, or one that is damaged or newer.
        """
        path = Path(folder) / CODEBOOK_FILE
        content = _read(path)
        try:
            # Tap names are parsed before they are used as folder names.
            taps = [Tap.parse(name) for name in content.taps]
            saes = {tap: TopKSAE.load(Path(folder) / str(tap)) for tap in taps}
            return cls(content.host, content.fingerprint, saes, content.recipe, content.report)
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

        patterns = [CODEBOOK_FILE, "*/cfg.json", "*/sae_weights.safetensors"]
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


def _is_foreign(target: Path) -> bool:
    """Whether something else than a codebook or an empty folder is there."""
    if not target.is_dir():
        return target.exists()
    return not (target / CODEBOOK_FILE).is_file() and any(target.iterdir())


def _swap(new: Path, target: Path, old: Path) -> None:
    """Put a folder in the place of another, or leave that one where it is."""
    if not target.exists():
        new.rename(target)
        return
    target.rename(old)
    try:
        new.rename(target)
    except OSError:
        old.rename(target)
        raise


def _read(path: Path) -> _CodebookFile:
    try:
        fields = json.loads(path.read_bytes())
        schema = fields["schema_version"]
    except OSError as error:
        raise CodebookError(f"{path.parent} holds no codebook: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CodebookError(f"{path} is no codebook: {error!r}") from error
    # A newer schema may have other fields, so its number is looked at first.
    if schema != SCHEMA:
        raise CodebookError(
            f"{path} has schema {schema}, this release reads {SCHEMA}; upgrade s3-retriever or "
            "fit the codebook again."
        )
    try:
        return _CodebookFile.model_validate(fields)
    except ValidationError as error:
        problem = error.errors()[0]
        raise CodebookError(
            f"{path} is no codebook of schema {SCHEMA}: {problem['msg']} at {problem['loc']}."
        ) from error
