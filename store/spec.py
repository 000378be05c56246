"""What a store will hold, and what decides its rows, before the first row is written."""

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from store.errors import StoreError
from store.layout import ArrayLayout
from store.schema import CHECKSUM, FORMAT, LAYERS, OF_IMAGES, SCHEMA_VERSION, SPLITS, WITH_LAYERS, maps_name

OLD_DEFAULTS = {"number of views": 1}  # of entries that older identities lack
MAY_LACK = ("list of layers",)  # entries that are recorded only where they say something
BEGUN = {"identity": dict, "layouts": dict, "attributes": dict, "replaces": bool, "state": dict}


def parse_begun(content: bytes, where: Any) -> dict[str, Any]:
    """Parse a draft's begun.json.

    Raises:
        StoreError: it is damaged.
    """
    try:
        begun = json.loads(content)
    except ValueError:
        begun = None
    if not isinstance(begun, dict) or any(type(begun.get(k)) is not kind for k, kind in BEGUN.items()):
        raise StoreError(f"{where}: begun.json is damaged; pass --overwrite to start over")
    return begun


def differing(asked: dict[str, Any], made: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """The first entry of the identity `asked` that differs in the recorded identity `made`.

    Returns:
        Its name, the recorded value (None if absent) and the asked one; None if all agree.
    """
    for name, value in (asked | {name: asked.get(name) for name in MAY_LACK}).items():
        was = made.get(name, OLD_DEFAULTS.get(name))
        if was != value:
            return name, was, value
    return None


@dataclass(frozen=True)
class StoreSpec:
    """A store before its first row.

    Attributes:
        layouts: of every array, by path.
        map_dtype: of the feature maps, a member of MAP_DTYPES.
        class_names: K names.
        provenance: what makes the store, as JSON values.
        identity: the part of provenance that decides the rows. A draft with another identity is not resumed.
        layer_dtypes: of the maps of earlier layers, by the layer's name; members of MAP_DTYPES.
    """

    layouts: dict[str, ArrayLayout]
    map_dtype: str
    class_names: list[str]
    provenance: dict[str, Any]
    identity: dict[str, Any]
    layer_dtypes: dict[str, str] = field(default_factory=dict)

    @property
    def map_dtypes(self) -> dict[str, str]:
        """Dtypes of all maps, by path."""
        layers = {f"train/{maps_name(layer)}": dtype for layer, dtype in self.layer_dtypes.items()}
        return {f"train/{maps_name(None)}": self.map_dtype} | layers

    @property
    def attributes(self) -> dict[str, Any]:
        """The root's attributes, except `complete`."""
        splits = [split for split in SPLITS if f"{split}/pooled" in self.layouts]
        return {
            "format": FORMAT,
            "schema_version": WITH_LAYERS if self.layer_dtypes else SCHEMA_VERSION,
            "class_names": self.class_names,
            "map_dtype": self.map_dtype,
            "block_rows": {split: self.layouts[f"{split}/pooled"].block_rows for split in splits},
            "provenance": self.provenance | {"identity": self.identity},
        } | ({LAYERS: self.layer_dtypes} if self.layer_dtypes else {})

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
        """The layouts as they come back from JSON."""
        return {path: asdict(layout) | {"shape": list(layout.shape)} for path, layout in self.layouts.items()}
