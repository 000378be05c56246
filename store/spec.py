"""A store before its first row: what it will hold, and what decides its rows."""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from store.errors import StoreError
from store.layout import ArrayLayout
from store.schema import CHECKSUM, FORMAT, OF_IMAGES, SCHEMA_VERSION, SPLITS

BEFORE_IT_WAS_SAID = {"number of views": 1}  # in identities that do not say it yet
BEGUN = {"identity": dict, "layouts": dict, "attributes": dict, "replaces": bool, "state": dict}


def parse_begun(content: bytes, where: Any) -> dict[str, Any]:
    """What begun.json says.

    Raises:
        StoreError: it is damaged.
    """
    try:
        begun = json.loads(content)
    except ValueError:
        begun = None
    if not isinstance(begun, dict) or any(type(begun.get(k)) is not kind for k, kind in BEGUN.items()):
        raise StoreError(f"{where}: begun.json is damaged; pass --overwrite to begin anew")
    return begun


def differing(asked: dict[str, Any], made: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """The first entry of a plan's identity that is another in an identity that was written down.

    Returns:
        Its name, what was written down (None for nothing), and what the plan has; None where all agree.
    """
    for name, value in asked.items():
        was = made.get(name, BEFORE_IT_WAS_SAID.get(name))
        if was != value:
            return name, was, value
    return None


@dataclass(frozen=True)
class StoreSpec:
    """A store before its first row.

    Attributes:
        layouts: of every array, by its path.
        map_dtype: of the feature maps, a member of MAP_DTYPES.
        class_names: K names.
        provenance: what makes it, JSON alone.
        identity: the part of provenance that decides what the rows will be. A store begun with another
            identity is not gone on with.
    """

    layouts: dict[str, ArrayLayout]
    map_dtype: str
    class_names: list[str]
    provenance: dict[str, Any]
    identity: dict[str, Any]

    @property
    def attributes(self) -> dict[str, Any]:
        """The root's attributes, but for `complete`."""
        splits = [split for split in SPLITS if f"{split}/pooled" in self.layouts]
        return {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "class_names": self.class_names,
            "map_dtype": self.map_dtype,
            "block_rows": {split: self.layouts[f"{split}/pooled"].block_rows for split in splits},
            "provenance": self.provenance | {"identity": self.identity},
        }

    def as_begun(self, begun: dict[str, Any]) -> "StoreSpec":
        """This spec without the optional arrays that the draft to resume lacks."""
        absent = {
            path
            for path in self.layouts
            if path.rpartition("/")[2] in OF_IMAGES
            and path.removeprefix(f"{CHECKSUM}/") not in begun["layouts"]
        }
        kept = {path: layout for path, layout in self.layouts.items() if path not in absent}
        return replace(self, layouts=kept)

    @property
    def layouts_as_json(self) -> dict[str, Any]:
        """The layouts as JSON gives them back."""
        return {path: asdict(layout) | {"shape": list(layout.shape)} for path, layout in self.layouts.items()}
