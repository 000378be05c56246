"""Which store a run or a sweep was begun with: all that it reads of it, split by split, in any container.

The maps themselves are not read for it: the pooled features are their means, taken before any rounding.
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

NETWORK = "network"  # beside the splits: the FC layer and what the maps are


@dataclass(frozen=True)
class StoreIdentity:
    """What tells a store, and the images that it is of, from others.

    Attributes:
        digests: XXH3 of what is read of it: of every split, and of the network that made it.
        images: XXH3 of the images of every split, the same whichever network saw them; empty where the
            store does not say.
    """

    digests: dict[str, str]
    images: dict[str, str]

    def record(self) -> dict[str, Any]:
        """For config.json of a run."""
        return asdict(self)


def identify(store: FeatureStore) -> StoreIdentity:
    """Read all of a store but its maps."""
    made = store.provenance.get("checkpoint")
    sha = made.get("sha256") if isinstance(made, dict) else None
    digests = {NETWORK: _digest(*store.classifier, f"{store.map_dtype} {sha} {store.class_names}".encode())}
    of_images = {}
    for name in store.splits:
        split, images = store.read(name), image_digests(store, name)
        values = [split.label, split.sample_index, split.view, split.pooled]
        digests[name] = _digest(*values, *([] if images is None else [images]))
        if images is not None:
            once = split.view == 0  # views of an image are the same image
            of_images[name] = _digest(split.label[once], split.sample_index[once], images[once])
    return StoreIdentity(digests, of_images)


def store_digests(store: FeatureStore) -> dict[str, str]:
    """XXH3 of what is read of a store: of every split, and of the network that made it."""
    return identify(store).digests


def other_part(begun: Any, store: FeatureStore, digests: dict[str, str], where: Any) -> str | None:
    """What of a store is not what it was when something was begun with it, in words; None where all is.

    Args:
        begun: what was recorded then: digests, or what version 0.1 recorded of the training split.
        store: the store of now.
        digests: of it.
        where: what was begun, for the note that version 0.1 recorded no more.
    """
    if not isinstance(begun, dict):
        if begun != _as_version_0_1(store):
            return "its training split or network"
        note(
            f"{where}: was begun by version 0.1, which recorded the training split alone; whether the "
            "store's other splits are the same is not known"
        )
        return None
    unlike = [name for name in {**begun, **digests} if begun.get(name) != digests.get(name)]
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
