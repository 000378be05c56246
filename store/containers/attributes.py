"""What a store's attributes say: whether it is complete, of a known version, and the dtypes of its maps."""

from pathlib import Path
from typing import Any

from store.errors import StoreError
from store.schema import FORMAT, LAYERS, MAP_DTYPES, SCHEMA_VERSION, WITH_LAYERS
from store.storage.location import draft_advice
from store.storage.s3 import Bucket


def check_ours(where: Path | Bucket, attributes: dict[str, Any]) -> None:
    """Raise StoreError if attributes are not those of a complete store of a known version."""
    if attributes.get("format") != FORMAT:
        raise StoreError(
            f"{where}: not a feature store (its format is {attributes.get('format')!r}, "
            f"expected {FORMAT!r}); `extract` writes one"
        )
    version = attributes.get("schema_version")
    if version not in (SCHEMA_VERSION, WITH_LAYERS):
        newer = isinstance(version, int) and version > WITH_LAYERS
        what, advice = (", of a newer tailcache", "update tailcache, or ") if newer else ("", "")
        raise StoreError(
            f"{where}: schema version {version}{what}, this program reads {SCHEMA_VERSION} and "
            f"{WITH_LAYERS}; {advice}extract again"
        )
    if attributes.get("complete") is not True:
        found = draft_advice(where) or "was never finished; extract again with --overwrite"
        raise StoreError(f"{where}: {found}")


def recorded_dtypes(where: Path | Bucket, attributes: dict[str, Any]) -> dict[str | None, str]:
    """Dtypes of all maps: of the last layer's under None, of earlier ones' by the layer's name.

    Raises:
        StoreError: one is unknown, or a store of version 2 names no layer.
    """
    layers = attributes.get(LAYERS) if attributes.get("schema_version") == WITH_LAYERS else {}
    if not isinstance(layers, dict) or (attributes.get("schema_version") == WITH_LAYERS and not layers):
        raise StoreError(f"{where}: {LAYERS} does not name the layers that it holds; extract again")
    dtypes = {None: attributes.get("map_dtype")} | layers
    for dtype in dtypes.values():
        if dtype not in MAP_DTYPES:
            raise StoreError(
                f"{where}: feature maps of dtype {dtype!r}, expected one of {', '.join(MAP_DTYPES)}; "
                "extract again"
            )
    return dtypes
