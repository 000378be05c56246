"""Options of `store plan` that cannot be: told before anything heavy is imported."""

from collections.abc import Iterable
from dataclasses import fields

from extract.config import DatasetConfig, NetworkConfig
from store.errors import UserError
from store.storage.location import locate
from store.storage.s3 import Bucket


def check_local(store: str) -> None:
    """Raise UserError for an address in a bucket."""
    where = locate(store)
    if isinstance(where, Bucket):
        raise UserError(f"{where}: what a bucket takes is not measured; name a path on a local disk")


def check_beside_checkpoint(given: Iterable[str]) -> None:
    """Raise UserError if the user named both a checkpoint and what a checkpoint says; a moved root may be.

    Args:
        given: names of the options that the user named.
    """
    given = set(given)
    said = {f.name for kind in (NetworkConfig, DatasetConfig) for f in fields(kind)} | {"image_size"}
    both = sorted((said - {"root"}) & given)
    if "ckpt" in given and both:
        option = f"--{both[0].replace('_', '-')}"
        raise UserError(
            f"{option}: the checkpoint says what network and images are; leave out {option} or --ckpt"
        )
