"""Options of the `store` commands: the only place for their defaults and help.

A field whose type is `Annotated` is an option of the command line, which the annotation describes. Nothing
heavy is imported here, so that `--help` answers at once.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from store.options import Option


@dataclass(frozen=True)
class ConvertConfig:
    """Options of `store convert`; `path` and `target` are its arguments.

    None means what the source store has or, for chunks and blocks, what `extract` would choose.
    """

    path: str
    target: str
    dtype: Annotated[
        Literal["float16", "float32", "bfloat16", "int8", "float8_e4m3"] | None,
        Option("number format of the copied feature maps, no finer than theirs", "storage", "the store's"),
    ] = None
    codec: Annotated[
        Literal["none", "zstd", "lz4"] | None,
        Option("compression of the copied feature maps", "storage", "the store's"),
    ] = None
    chunk_kib: Annotated[
        int | None,
        Option("largest chunk before compression, in KiB", "storage", "128, or 16 if compressed", least=1),
    ] = None
    block_mib: Annotated[
        int | None,
        Option("largest block, in MiB", "storage", "whole batches of about 64", least=1),
    ] = None
    resume: Annotated[bool, Option("resume an interrupted conversion", "files")] = False
    overwrite: Annotated[bool, Option("replace an existing store", "files")] = False
