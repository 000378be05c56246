"""A contest's folder: what it is of, and every head that is done, with which images it gets right."""

import base64
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from analysis.tables import without_nan
from extract.heads.kinds import Layer
from finetune.contest.choosing import Choosing, images_of, together_in
from finetune.contest.config import ContestConfig
from finetune.contest.layers import KeptLayers
from finetune.contest.taken import DONE, FORMAT, MARKER, check_not_taken, results_of
from finetune.cross_validation.options import CV
from finetune.store_identity import other_part, store_digests
from finetune.training.trainer import LoadedStore
from store.errors import UserError
from store.reader import FeatureStore
from store.storage.atomic import write_json
from store.storage.lock import lock_of

ROW = {"head", "right", "diverged_at", "seconds"}  # every head's file has these
# Options that may be others when a contest is resumed.
NOT_OF_HEADS = {"store", "out", "device", "ckpt", "resume", "overwrite", "seeds", "methods"}


def prepare(config: ContestConfig, stores: list[FeatureStore]) -> None:
    """Start or resume: leave the folder with contest.json and no heads of another contest.

    More methods or seeds may be asked for when resuming; what is done is kept.

    Raises:
        UserError: it holds something else, or a contest of other stores or options.
    """
    path = Path(config.out)
    check_not_taken(config)
    digests = [store_digests(store) for store in stores]
    _check_each_once(stores, digests)
    options = {name: value for name, value in asdict(config).items() if name not in NOT_OF_HEADS}
    content = {"format": FORMAT, "options": options, "stores": digests}
    marker = path / MARKER
    resumed = config.resume and marker.exists()
    if resumed:
        _check_same(marker, content, stores)
    # Before anything new is there, so that tables, heads and the winner's run are always of one contest.
    for entry in (*results_of(path), *([] if resumed else (path / DONE).glob("*")), *path.glob(".*")):
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry != lock_of(path):
            entry.unlink(missing_ok=True)
    if not resumed:
        write_json(marker, content)


def _check_each_once(stores: list[FeatureStore], digests: list[dict[str, str]]) -> None:
    """Raise UserError for a store that is there under two names."""
    for i, store in enumerate(stores):
        if digests[i] in digests[:i]:
            raise UserError(
                f"{store.path}: holds the same features as {stores[digests.index(digests[i])].path}, which "
                "would count twice; name it once"
            )


def _check_same(marker: Path, content: dict[str, Any], stores: list[FeatureStore]) -> None:
    try:
        found = json.loads(marker.read_text())
        options, recorded = found["options"], list(found["stores"])
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{marker}: damaged ({error}); start over with --overwrite") from error
    if len(recorded) != len(stores):
        raise UserError(
            f"{marker.parent}: a contest on {len(recorded)} stores, and {len(stores)} are given; use the "
            "same, or another --out"
        )
    for one, digests, store in zip(recorded, content["stores"], stores, strict=True):
        if (other := other_part(one, store, digests, marker.parent)) is not None:
            raise UserError(
                f"{marker.parent}: a contest on another store than {store.path} ({other} differs); use the "
                "same stores in the same order, or another --out"
            )
    for name, asked in content["options"].items():
        if options.get(name, getattr(ContestConfig, name)) != asked:
            raise UserError(
                f"{marker.parent}: cannot resume: {name} was {options.get(name)}, this command has {asked}; "
                "repeat the interrupted command, or start over with --overwrite"
            )


class KeptHeads:
    """The heads of one store that are done, each in a file of its own.

    Attributes:
        head_ratio: h_r by which head and tail accuracy are reported.
        layers: of the heads that can be averaged.
    """

    def __init__(self, path: Path, number: int, loaded: LoadedStore, choosing: Choosing, head_ratio: float):
        self._path, self._number, self.head_ratio = path / DONE, number, head_ratio
        self.layers = KeptLayers(path / DONE, number)
        self._loaded, self._choosing = loaded, choosing
        self._rows: dict[str, dict[str, Any]] = {}
        self.read()

    def read(self) -> None:
        """Read all heads that are there by now, other processes' too.

        Raises:
            UserError: one is damaged.
        """
        for file in sorted(self._path.glob(f"{self._number}-*.json")):
            try:
                row = json.loads(file.read_text())
                if not row.keys() >= ROW or not isinstance(row["right"], dict):
                    raise ValueError("it lacks a part")
                self._rows[row["head"]] = row
                for split in row["right"]:
                    self.right(row["head"], split)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise UserError(f"{file}: damaged ({error}); remove it and continue with --resume") from error

    def __contains__(self, head: str) -> bool:
        return head in self._rows

    def lacks_layer(self, head: str) -> bool:
        """Whether the layer of a head that is done was never looked at, or is not there any more."""
        return self._rows[head].get("averageable", True) and self.layers.read(head) is None

    def row(self, head: str) -> dict[str, Any]:
        """Accuracies of a head: val_overall or cv_overall, …; without them if it diverged."""
        return self._rows[head]

    def keep(
        self,
        rows: list[dict[str, Any]],
        layers: list[Layer | None],
        held: list[np.ndarray | None],
    ) -> None:
        """Write the heads of a batch, and which images each gets right: of val, test, and held-out folds.

        Their layers are kept where val chooses: what an average of heads scores on folds, only their layers
        on each fold could say.
        """
        for row, layer, of_folds in zip(rows, layers, held, strict=True):
            found, is_kept = {}, False
            if layer is not None and row["diverged_at"] is None:
                found = self._right_of(layer) | ({} if of_folds is None else {CV: of_folds})
                is_kept = self._choosing.split != CV and self.layers.keep(row["head"], layer)
            self._add(row | {"averageable": is_kept}, found)
            write_json(self._path / f"{self._number}-{row['head']}.json", self._rows[row["head"]])

    def add(self, row: dict[str, Any], layer: Layer) -> None:
        """Add a head without a file, one made of others; its row is as in `keep`."""
        self._add(row, self._right_of(layer))

    def _add(self, row: dict[str, Any], found: dict[str, np.ndarray]) -> None:
        right = {name: base64.b64encode(np.packbits(of)).decode() for name, of in found.items()}
        self._rows[row["head"]] = without_nan(row) | {"right": right}

    def _right_of(self, layer: Layer) -> dict[str, np.ndarray]:
        return {
            name: split.predict(layer, self._loaded.threads) == split.label
            for name, split in self._loaded.held_out.items()
        }

    def right(self, head: str, split: str) -> np.ndarray:
        """(N,) bool, which images of a split a head gets right."""
        packed = np.frombuffer(base64.b64decode(self._rows[head]["right"][split]), np.uint8)
        n_images = len(self.label(split))
        if len(packed) != -(-n_images // 8):
            raise ValueError(f"{len(packed)} bytes for {n_images} images")
        return np.unpackbits(packed, count=n_images).astype(bool)

    def label(self, split: str) -> np.ndarray:
        """(N,) classes of a split's images."""
        if split == self._choosing.split:
            return self._choosing.label
        return self._loaded.held_out[split].label

    def together(self, split: str) -> np.ndarray:
        """(N,) int, the same for images of a split that belong together."""
        if split == self._choosing.split:
            return self._choosing.together
        return together_in(self._loaded, split)

    def images(self, split: str) -> bytes:
        """Equal for the same images of a split in two stores, as far as they say."""
        return self._choosing.images if split == self._choosing.split else images_of(self._loaded, split)
