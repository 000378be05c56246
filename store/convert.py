"""Copying a finished store to another container, chunking, codec or dtype, block by block.

Every row is read once, checked, rounded if the dtype changes, and handed to the writer that extractions use.
Memory holds one block of the source, three of the target, and buffers for rounding.
"""

import os
import platform
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np
from rich.progress import Progress

from store.arrays.compressed import PackedArray
from store.arrays.dtypes import MAY_BECOME, largest
from store.arrays.maps import StoredMaps
from store.checked import CheckedReader
from store.config import ConvertConfig
from store.drafts.lifecycle import check_writable, draft_of, is_finished
from store.errors import StoreError
from store.layout import Chunking, LayerMaps, store_layout
from store.options import check_bounds
from store.provenance import versions
from store.reader import FeatureStore
from store.schema import (
    CLASSIFIER,
    EVERY_SPLIT,
    LAYERS,
    OF_IMAGES,
    STREAMED,
    in_blocks,
    maps_name,
    scale_name,
)
from store.spec import StoreSpec
from store.storage.location import locate
from store.storage.s3 import Bucket
from store.writer import StoreWriter, write_store


def convert(config: ConvertConfig, progress: Progress) -> None:
    """Copy a store.

    The target appears when it is complete. With `resume`, only what an interrupted conversion did not write
    is copied; the result has the same bytes.

    Raises:
        UserError: a path, dtype or chunking that cannot be used, or rows of the source that do not match
            their checksums or exceed the range of the target's dtype.
        Interrupted: Ctrl-C, once there is something to resume.
    """
    path, target = locate(config.path), locate(config.target)
    check_bounds(config)
    _check_apart(path, target)
    check_writable(target, config.resume, config.overwrite)
    source = CheckedReader(_open(path))
    spec = _spec(config, source)
    if config.resume and is_finished(target, spec, config.overwrite):
        return
    with write_store(target, spec, config.resume, config.overwrite) as writer:
        writer.write_known({name: source.whole(name) for name in _known(source.store)})
        for split in source.store.splits:
            _copy(writer, source, split, progress)
        writer.finish()


def _check_apart(path: Path | Bucket, target: Path | Bucket) -> None:
    source, real = _real(path), _real(target)
    if source == real:
        raise StoreError(f"{target}: is the store to convert itself; name another target")
    if real.is_relative_to(source):
        raise StoreError(f"{target}: is inside the store to convert, {path}; name a target outside of it")
    if source.is_relative_to(real) or source.is_relative_to(f"{real}.unfinished"):
        raise StoreError(f"{path}: is where {target} will be written, and would be lost; name another target")


def _real(where: Path | Bucket) -> PurePath:
    if isinstance(where, Bucket):
        return PurePosixPath(where.url)
    return Path(os.path.realpath(where))  # unlike Path.resolve, no error where links run in circles


def _open(where: Path | Bucket) -> FeatureStore:
    draft = draft_of(where)
    if draft.remains() and not draft.is_published():
        raise StoreError(
            f"{where}: is not finished (its draft is {draft}); finish it first, with its command and --resume"
        )
    return FeatureStore(where)


def _spec(config: ConvertConfig, source: CheckedReader) -> StoreSpec:
    store = source.store
    was = {layer: _stored_form(store.maps(layer)) for layer in (None, *store.layers)}
    now = {
        layer: {"dtype": config.dtype or of["dtype"], "codec": config.codec or of["codec"]}
        for layer, of in was.items()
    }
    for layer, form in now.items():
        _check_not_finer(store, layer, form["dtype"])
    chunking = _chunking(config, store)
    n_classes, batch_size, n_views = (
        len(store.class_names),
        _extraction_option(store, "batch_size"),
        _extraction_option(store, "views"),
    )
    of_last, of_layers = now[None], {layer: form for layer, form in now.items() if layer is not None}
    layers = {layer: LayerMaps(store.maps(layer).shape[1:], **form) for layer, form in of_layers.items()}
    layouts = store_layout(
        _sizes(store), n_classes, of_last["dtype"], batch_size, of_last["codec"], chunking, n_views, layers
    )
    streamed = {
        name: layout for name, layout in layouts.items() if name.split("/")[-1] in STREAMED or in_blocks(name)
    }
    identity = _with_layers(now) | {
        "source": source.digest,
        "block rows": {name: layout.block_rows for name, layout in streamed.items()},
        "chunk rows": {name: layout.chunk_rows for name, layout in streamed.items()},
    }
    provenance = _provenance(store, locate(config.target), _with_layers(was), _with_layers(now))
    dtypes = {layer: form["dtype"] for layer, form in of_layers.items()}
    return StoreSpec(layouts, of_last["dtype"], store.class_names, provenance, identity, dtypes)


def _stored_form(maps: StoredMaps) -> dict[str, str]:
    """Dtype and codec of the maps of a layer."""
    array = maps.array
    return {"dtype": maps.dtype, "codec": array.codec if isinstance(array, PackedArray) else "none"}


def _with_layers(forms: dict[str | None, dict[str, str]]) -> dict[str, Any]:
    """Dtype and codec of the feature maps, and of earlier layers if there are any."""
    layers = {layer: form for layer, form in forms.items() if layer is not None}
    return forms[None] | ({LAYERS: layers} if layers else {})


def _check_not_finer(store: FeatureStore, layer: str | None, dtype: str) -> None:
    maps = store.maps(layer)
    allowed = MAY_BECOME[maps.dtype]
    if dtype not in allowed:
        whose = "its feature maps" if layer is None else f"its maps of {layer}"
        raise StoreError(
            f"{store.path}: {whose} are {maps.dtype}, which can become {', '.join(allowed)} "
            f"and not {dtype}, since rounding cannot be undone; extract again with --dtype {dtype}"
        )


def _chunking(config: ConvertConfig, store: FeatureStore) -> Chunking:
    """The chunking asked for; lossy maps keep their blocks, each of which has its own scales."""
    lossy = [maps.dtype for maps in _all_maps(store) if maps.is_lossy]
    if lossy and config.block_mib is not None:
        raise StoreError(
            f"{store.path}: its {lossy[0]} maps have scales for each block, so their blocks cannot "
            "change; leave out --block-mib"
        )
    chunk_bytes = config.chunk_kib and config.chunk_kib * 1024
    block_bytes = config.block_mib and config.block_mib * 1024**2
    return Chunking(chunk_bytes, block_bytes, store.block_rows("train/feature_map") if lossy else None)


def _all_maps(store: FeatureStore) -> list[StoredMaps]:
    return [store.maps(layer) for layer in (None, *store.layers)]


def _sizes(store: FeatureStore) -> dict[str, dict[str, int]]:
    """Lengths of the axes of each split: N, H, W, C; D, T, G if it has digests, names, groups of images."""
    _, height, width, channels = store.map_shape
    sizes = {}
    for split in store.splits:
        n_rows = store.arrays[f"{split}/label"].shape[0]
        sizes[split] = {"N": n_rows, "H": height, "W": width, "C": channels}
        for name, spec in OF_IMAGES.items():
            if f"{split}/{name}" in store.arrays:
                sizes[split][spec.axes[1]] = store.arrays[f"{split}/{name}"].shape[1]
    return sizes


def _extraction_option(store: FeatureStore, option: str) -> int:
    """A number among the options of the extraction, on which blocks depend; 1 if it is not recorded."""
    config = store.provenance.get("config")
    number = config.get(option) if isinstance(config, dict) else None
    return number if isinstance(number, int) and number > 0 else 1


def _provenance(
    store: FeatureStore, target: Path | Bucket, was: dict[str, Any], now: dict[str, Any]
) -> dict[str, Any]:
    """The source's provenance, with this conversion added."""
    step = {
        "from": {"path": str(store.path if isinstance(store.path, Bucket) else _real(store.path))} | was
    } | now
    step |= {
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "versions": versions(),
    }
    made = store.provenance | {"converted": [*store.provenance.get("converted", []), step]}
    checkpoint = made.get("checkpoint")
    if isinstance(checkpoint, dict) and isinstance(checkpoint.get("relative_path"), str):
        made["checkpoint"] = checkpoint | {"relative_path": _moved(checkpoint, store.path, target)}
    return made


def _moved(checkpoint: dict[str, Any], path: Path | Bucket, target: Path | Bucket) -> str:
    """The checkpoint's path relative to the target; for a target in a bucket, its original path."""
    if isinstance(target, Bucket):
        return checkpoint["path"]
    beside = Path() if isinstance(path, Bucket) else _real(path).parent
    return os.path.relpath(beside / checkpoint["relative_path"], _real(target).parent)


def _known(store: FeatureStore) -> list[str]:
    """Arrays that are a single block."""
    names = [name for name in (*EVERY_SPLIT, *OF_IMAGES) if name not in STREAMED]
    of_splits = [f"{split}/{name}" for split in store.splits for name in names]
    of_splits = [name for name in of_splits if name in store.arrays]
    return [*(f"classifier/{name}" for name in CLASSIFIER), *of_splits]


def _copy(writer: StoreWriter, source: CheckedReader, split: str, progress: Progress) -> None:
    """Write the rows of a split that are not written yet."""
    missing = writer.missing(split)
    n_rows = source.store.arrays[f"{split}/pooled"].shape[0]
    n_missing = sum(stop - start for start, stop in missing)
    task = progress.add_task(f"converting {split}", total=n_rows, completed=n_rows - n_missing, status="")
    for block in source.blocks(f"{split}/pooled"):
        parts = list(_parts(missing, *block))
        if not parts:
            continue
        rows = _rows(source, split, block, writer)
        for start, stop in parts:
            of_part = slice(start - block[0], stop - block[0])
            writer.write(split, start, {name: value[of_part] for name, value in rows.items()})
            progress.advance(task, stop - start)


def _parts(missing: list[tuple[int, int]], start: int, stop: int) -> Iterator[tuple[int, int]]:
    """The part of each missing block that is within rows `start` to `stop`."""
    for i in range(bisect_right(missing, start, key=lambda block: block[1]), len(missing)):
        if missing[i][0] >= stop:
            return
        yield max(missing[i][0], start), min(missing[i][1], stop)


def _rows(
    source: CheckedReader, split: str, block: tuple[int, int], writer: StoreWriter
) -> dict[str, np.ndarray]:
    """One block of the arrays that the network filled, by name; lossy codes are copied with their scales."""
    store = source.store
    names = [name for name in STREAMED if f"{split}/{name}" in store.arrays]
    rows = {name: source.block(f"{split}/{name}", *block) for name in names}
    if split != "train":
        return rows
    for layer, dtype in {None: writer.map_dtype, **writer.layer_dtypes}.items():
        maps, name = store.maps(layer), maps_name(layer)
        codes = rows[name] if layer is None else source.block(maps.path, *block)
        if maps.is_lossy:
            index = block[0] // maps.block_rows
            scale = source.block(maps.scale_path, index, index + 1)
            rows |= {name: codes, scale_name(name): scale}
            continue
        rows[name] = maps.decoded(codes, block[0])
        if dtype != maps.dtype:
            _check_range(rows[name], dtype, f"{store.path}: {maps.path}", block[0])
    return rows


def _check_range(maps: np.ndarray, map_dtype: str, where: str, start: int) -> None:
    limit = largest(map_dtype)
    if float(maps.max()) <= limit and float(maps.min()) >= -limit:  # False for NaN
        return
    magnitude = np.abs(maps.astype(np.float32)).max((1, 2, 3))
    row = int(np.argmax(~(magnitude <= limit)))
    raise StoreError(
        f"{where}: row {start + row} has a feature of magnitude {magnitude[row]:.6g}, but "
        f"{map_dtype} ends at {limit:.6g}; keep the dtype, or choose another --dtype"
    )
