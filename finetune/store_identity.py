"""Which store a run or sweep was started with: digests of what it reads, per split, in any container.

The maps are not read for it; the pooled features are their means, computed before rounding.
"""

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import xxhash

from store.arrays.image_names import image_digests
from store.notes import note
from store.reader import FeatureStore

NETWORK = "network"  # a key beside the splits: FC layer, dtype of the maps, checkpoint, class names


@dataclass(frozen=True)
class StoreIdentity:
    """Digests that identify a store and its images.

    Attributes:
        digests: XXH3 of each split and of the network, over all that a run reads except the maps.
        images: XXH3 of the images of each split, the same for every network; empty if the store does not
            record its images.
    """

    digests: dict[str, str]
    images: dict[str, str]

    def record(self) -> dict[str, Any]:
        """The digests, for config.json."""
        return asdict(self)


def identify(store: FeatureStore) -> StoreIdentity:
    """Compute the identity of a store; reads all of it but the maps."""
    made = store.provenance.get("checkpoint")
    sha = made.get("sha256") if isinstance(made, dict) else None
    digests = {NETWORK: _digest(*store.classifier, f"{store.map_dtype} {sha} {store.class_names}".encode())}
    of_images = {}
    for name in store.splits:
        split, images = store.read(name), image_digests(store, name)
        values = [split.label, split.sample_index, split.view, split.pooled]
        digests[name] = _digest(*values, *([] if images is None else [images]))
        if images is not None:
            once = split.view == 0  # views of an image count once
            of_images[name] = _digest(split.label[once], split.sample_index[once], images[once])
    return StoreIdentity(digests, of_images)


def store_digests(store: FeatureStore) -> dict[str, str]:
    """The `digests` of a store's identity."""
    return identify(store).digests


def other_part(recorded: Any, store: FeatureStore, digests: dict[str, str], where: Any) -> str | None:
    """The part of a store that differs from the one a run or sweep was started with; None if none does.

    Args:
        recorded: what was recorded at the start: digests, or version 0.1's digest of the training split.
        store: the present store.
        digests: its digests.
        where: the run or sweep, for a note about version 0.1.
    """
    if not isinstance(recorded, dict):
        if recorded != _as_version_0_1(store):
            return "its training split or network"
        note(
            f"{where}: was started by version 0.1, which recorded only the training split; whether the "
            "store's other splits are the same is unknown"
        )
        return None
    unlike = [name for name in {**recorded, **digests} if recorded.get(name) != digests.get(name)]
    if not unlike:
        return None
    return "its network" if unlike[0] == NETWORK else f"its {unlike[0]} split"


def _digest(*values: np.ndarray | bytes) -> str:
    digest = xxhash.xxh3_128()
    for value in values:
        digest.update(np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value)
    return digest.hexdigest()


def _as_version_0_1(store: FeatureStore) -> str:
    train = store.read("train")
    digest = sha256(json.dumps(store.provenance.get("checkpoint"), sort_keys=True).encode())
    for values in (train.label, train.sample_index, train.view, train.pooled, *store.classifier):
        digest.update(values.tobytes())
    digest.update(store.map_dtype.encode())
    return digest.hexdigest()
