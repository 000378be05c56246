"""Options of the store's own commands: the one home of their defaults and meanings.

A field whose type is `Annotated` is an option of the command line, and the annotation its help. Nothing heavy
is imported here, so that `--help` answers at once.
"""

from dataclasses import dataclass
from typing import Annotated, Literal


@dataclass(frozen=True)
class ConvertConfig:
    """Options of `store convert`; `path` and `target` are its arguments.

    None stands for what the store has, or, for chunks and blocks, for what `extract` would choose.
    """

    path: str
    target: str
    dtype: Annotated[
        Literal["float16", "float32", "bfloat16", "int8", "float8_e4m3"] | None,
        "of the feature maps, never a finer one than they have; as they are without it",
    ] = None
    codec: Annotated[
        Literal["none", "zstd", "lz4"] | None, "compression of the feature maps; as they are without it"
    ] = None
    chunk_kib: Annotated[
        int | None, "KiB of a chunk before compression, at most; 128 without it, 16 if compressed"
    ] = None
    block_mib: Annotated[int | None, "MiB of a block, at most; whole batches of about 64 without it"] = None
    resume: Annotated[bool, "go on with a conversion that was interrupted"] = False
    overwrite: Annotated[bool, "replace an existing store"] = False
