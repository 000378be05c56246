"""Which part of an extraction this process has, and options that do not go with parts."""

from extract.adoption.options import is_adoption
from extract.config import ExtractConfig
from extract.torchrun.environment import n_processes, rank
from store.errors import UserError
from store.parts.part import MOST, Part, parse_part


def is_rank() -> bool:
    """Whether this is one of several processes that torchrun started."""
    return n_processes() > 1


def part_of(config: ExtractConfig) -> Part | None:
    """The part that this process writes; None for the whole store.

    Raises:
        UserError: there is no such part, or other options do not go with parts.
    """
    if config.part is not None and is_rank():
        raise UserError(
            "--part: torchrun gives each of its processes a part already; leave out one of the two"
        )
    if config.part is None and not is_rank():
        return None
    part = _of_rank() if config.part is None else parse_part(config.part)
    _check_container(config)
    if is_adoption(config):
        raise UserError(
            "another program's network cannot be extracted in parts, since its checkpoint is made with the "
            "store; extract in one process"
        )
    if config.part is not None and config.overwrite:
        raise UserError(
            f"--part {config.part}: does not go with --overwrite, as each part would discard the others; "
            f"delete {config.store} and {config.store}.unfinished first"
        )
    if config.resume and config.overwrite:
        raise UserError("--resume and --overwrite do not go together with several processes; use one of them")
    return part


def _check_container(config: ExtractConfig) -> None:
    if config.store.rstrip("/").endswith(".h5"):
        raise UserError(
            f"{config.store}: an HDF5 file has one writer, and several processes write zarr; name a store "
            "that ends in .zarr, then make HDF5 of it with `store convert`"
        )


def _of_rank() -> Part:
    if (world := n_processes()) > MOST:
        raise UserError(f"extract: WORLD_SIZE is {world}, and a store has at most {MOST:,} parts")
    return Part(rank() + 1, world)
