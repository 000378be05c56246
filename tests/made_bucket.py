"""Stores in a bucket, smaller than other made stores: fewer requests."""

from functools import partial

import obstore
import pytest
from made_store import WITHOUT_VAL, fill
from made_store import made_plan as made_any_plan
from made_store import made_rows as made_any_rows
from made_store import make_store as make_any_store

from store.storage.s3 import Bucket
from store.writer import StoreWriter

MAPS = "train/feature_map"
made_plan, made_rows, make_store = (  # fewer requests
    partial(made, sizes=WITHOUT_VAL) for made in (made_any_plan, made_any_rows, make_any_store)
)


def objects(bucket: Bucket) -> dict[str, bytes]:
    return bucket.read_all(bucket.sizes())


def count_calls(monkeypatch: pytest.MonkeyPatch, *names: str) -> list[str]:
    """Record the keys that these functions of obstore are called with from now on."""
    keys = []
    for name in names:
        call = getattr(obstore, name)

        def counted(client, key, *args, call=call, **kwargs):
            keys.append(key)
            return call(client, key, *args, **kwargs)

        monkeypatch.setattr(obstore, name, counted)
    return keys


def complete(writer: StoreWriter) -> None:
    fill(writer, made_rows())
    writer.finish()


def damage(bucket: Bucket, name: str, how: str) -> None:
    content = bucket.read(name)
    match how:
        case "missing":
            bucket.delete([name])
        case "cut":
            bucket.write(name, [content[:-7]])
        case "flipped":
            bucket.write(name, [bytes([content[0] ^ 1]) + content[1:]])
