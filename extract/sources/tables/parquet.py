"""Parquet files: tables of paths, and Hugging Face's data sets of images with their names of classes."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from extract.images.embedded import ImageColumn
from extract.sources.tables.annotations import check_no_two
from extract.sources.tables.table import Table
from store.errors import UserError
from store.names import shown


def read_parquet(file: Path) -> Table:
    """Read a table; images themselves stay in the file.

    Raises:
        UserError: it is damaged, has no columns, or holds images in some of its rows only.
    """
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            images = _image_columns(file, parquet)
            columns = [field.name for field in parquet.schema_arrow if _is_usable(field, images)]
            wanted = [f"{name}.path" if name in images else name for name in columns]
            read = parquet.read([name for name in wanted if _is_there(parquet, name)])
            n_rows, names = parquet.metadata.num_rows, _class_names(parquet.schema_arrow.metadata)
    except UserError:
        raise
    except Exception as error:  # damaged files can fail anywhere in pyarrow
        raise UserError(f"{file}: is not a whole Parquet file ({_short(error)})") from error
    if not columns:
        raise UserError(f"{file}: has no columns; expected one of paths and one of labels")
    values, decimals = _as_texts(read, images, n_rows)
    for name in names:
        check_no_two(file, names[name])
    kept = {name: column for name, column in images.items() if column is not None}
    return Table(file, columns, values, decimals=decimals, names=names, images=kept)


def _as_texts(read: Any, images: dict[str, ImageColumn | None], n_rows: int) -> tuple[dict, frozenset[str]]:
    """The values of every column as text, and the columns of numbers with decimals."""
    import pandas as pd

    values, decimals = {}, set()
    for name in read.column_names:
        column = read.column(name)
        if name in images:
            values[name] = [(row or {}).get("path") for row in column.to_pylist()]
            continue
        series = column.to_pandas()
        nulls = series.isna()
        values[name] = [None if null else _as_text(value) for value, null in zip(series, nulls, strict=True)]
        if pd.api.types.is_float_dtype(series.dtype):
            decimals.add(name)
    return dict.fromkeys(images, [None] * n_rows) | values, frozenset(decimals)


def _image_columns(file: Path, parquet: Any) -> dict[str, ImageColumn | None]:
    """Columns of images, as bytes or as structs with `bytes`; None for structs that hold paths alone."""
    import pyarrow as pa

    found: dict[str, ImageColumn | None] = {}
    for field in parquet.schema_arrow:
        if _is_bytes(field.type) and not _is_text(parquet, field.name):
            found[field.name] = _image_column(file, parquet.metadata, field.name, None)
        if not pa.types.is_struct(field.type):
            continue
        kinds = {field.type.field(i).name: field.type.field(i).type for i in range(field.type.num_fields)}
        if "bytes" in kinds and _is_bytes(kinds["bytes"]):
            found[field.name] = _image_column(file, parquet.metadata, field.name, "bytes")
    return found


def _is_bytes(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_text(parquet: Any, name: str) -> bool:
    """Whether the first bytes of a column are text, perhaps a path, and no image."""
    for batch in parquet.iter_batches(1, columns=[name]):
        value = batch.column(0)[0].as_py()
        if value is not None:
            return b"\0" not in value and value.decode("utf-8", "ignore").encode() == value
    return True


def _is_usable(field: Any, images: dict[str, ImageColumn | None]) -> bool:
    """Whether a column can hold images, paths, labels, splits or groups: lists and structs cannot."""
    import pyarrow as pa

    return field.name in images or not pa.types.is_nested(field.type)


def _image_column(file: Path, metadata: Any, name: str, field: str | None) -> ImageColumn | None:
    sizes, n_bytes, n_nulls = [0], 0, 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        sizes.append(group.num_rows)
        for i in range(group.num_columns):
            part = group.column(i)
            if part.path_in_schema == (name if field is None else f"{name}.{field}"):
                n_bytes += part.total_uncompressed_size
                known = part.is_stats_set and part.statistics.has_null_count
                n_nulls += part.statistics.null_count if known else 0
    if n_nulls and n_nulls == metadata.num_rows:
        return None
    if n_nulls:
        raise UserError(
            f"{file}: {n_nulls:,} of {metadata.num_rows:,} rows hold no image (column {shown(name)}); remove "
            "them"
        )
    return ImageColumn(file, name, field, np.cumsum(sizes), n_bytes)


def _is_there(parquet: Any, name: str) -> bool:
    """Whether a column, or a field of one as `image.path`, is in the file."""
    import pyarrow as pa

    if name in parquet.schema_arrow.names:
        return True
    column, _, field = name.rpartition(".")
    kind = parquet.schema_arrow.field(column).type
    return pa.types.is_struct(kind) and kind.get_field_index(field) >= 0


def _class_names(metadata: dict[bytes, bytes] | None) -> dict[str, dict[str, str]]:
    """Names of classes by number as text, for each column that Hugging Face's features describe as one."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {
            column: {str(number): name for number, name in enumerate(feature["names"])}
            for column, feature in features.items()
            if _is_label(feature)
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _is_label(feature: Any) -> bool:
    """Whether a feature describes a column of classes, with a name for each."""
    if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
        return False
    names = feature.get("names")
    return isinstance(names, list) and bool(names) and all(isinstance(name, str) and name for name in names)


def _as_text(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _short(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:100]
