"""Checks of the options of `store plan` that need no heavy imports."""

from collections.abc import Iterable
from dataclasses import fields

from extract.config import DatasetConfig, NetworkConfig
from extract.networks.factory import is_factory
from store.errors import UserError
from store.storage.location import locate
from store.storage.s3 import Bucket


def check_local(store: str) -> None:
    """Raise UserError for a store in a bucket."""
    where = locate(store)
    if isinstance(where, Bucket):
        raise UserError(f"{where}: a bucket's speed cannot be measured; give a path on a local disk")


def check_beside_checkpoint(given: Iterable[str], arch: str) -> None:
    """Raise UserError for options that the checkpoint determines, given along with one.

    --root may be given, and a network's function, which is called only if the user names it.

    Args:
        given: names of the options that the user gave.
        arch: the value of --arch.
    """
    given = set(given)
    fixed = {f.name for kind in (NetworkConfig, DatasetConfig) for f in fields(kind)} | {"image_size"}
    fixed -= {"root", "arch"} if is_factory(arch) else {"root"}
    both = sorted(fixed & given)
    if "ckpt" in given and both:
        option = f"--{both[0].replace('_', '-')}"
        raise UserError(
            f"{option}: the checkpoint determines network and images; leave out {option} or --ckpt"
        )
