"""Where a store lies, as a user names it: a path, or an address in a bucket."""

import re
from pathlib import Path

from store.bucket import Bucket
from store.errors import StoreError

SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


def locate(text: str) -> Path | Bucket:
    """The place that a text names.

    Raises:
        StoreError: an address of another kind than s3://bucket/name.
    """
    scheme = SCHEME.match(text)
    if scheme is None:
        return Path(text)
    bucket, _, name = text[scheme.end() :].strip("/").partition("/")
    if scheme[1].lower() != "s3" or not bucket or not name:
        raise StoreError(f"{text}: unknown address; expected a path, or s3://bucket/name.zarr")
    return Bucket(f"s3://{bucket}/{name}")
