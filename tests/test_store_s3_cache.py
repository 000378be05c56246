"""The cache of a bucket's objects: bounded, never stale, and it removes nothing foreign."""

import numpy as np
import pytest
from bad_input import QUICK, refuse
from made_bucket import MAPS, count_calls, damage, made_plan, made_rows, make_store
from made_store import fill

from store.arrays.gather import gather
from store.errors import StoreError
from store.reader import FeatureStore
from store.storage.cache import Cache, CacheError, open_cache
from store.writer import write_store


def test_the_cache_answers_the_second_time(bucket, tmp_path, monkeypatch):
    make_store(bucket)
    first = FeatureStore(bucket, open_cache(str(tmp_path), 1))
    gather(first.arrays[MAPS], np.arange(44))
    assert (tmp_path / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")
    again = FeatureStore(bucket, Cache(tmp_path, 2**30))
    keys = count_calls(monkeypatch, "get", "get_range", "get_ranges")
    np.testing.assert_array_equal(gather(again.arrays[MAPS], np.arange(44)), made_rows()[MAPS])
    assert keys == []


def test_the_cache_is_bounded_and_drops_what_was_used_longest_ago(bucket, tmp_path, monkeypatch):
    make_store(bucket)
    (tmp_path / "thesis.txt").write_text("three years of work")
    shards = [size for name, size in bucket.sizes().items() if name.startswith(f"{MAPS}/c/")]
    bound = 2 * max(shards)
    cache = Cache(tmp_path, bound)
    array = FeatureStore(bucket, cache).arrays[MAPS]
    monkeypatch.setattr("store.storage.mmap_files.MAPPED_FILES", 0)  # every use opens the copy
    keys = count_calls(monkeypatch, "get")
    for row in (0, 16, 0, 32, 0, 16):  # the third shard drives out the second, not the first
        gather(array, np.array([row]))
        assert sum(path.stat().st_size for path in tmp_path.glob("*/*")) <= bound
    blocks = [key.rsplit("/c/")[1][0] for key in keys]
    assert blocks == ["0", "1", "2", "1"]
    assert (tmp_path / "thesis.txt").exists()


def test_a_cache_removes_nothing_of_others(bucket, small_store, tmp_path, in_tmp_path):
    photos = tmp_path / "mine" / "photos"
    photos.mkdir(parents=True)
    (photos / "thesis.jpg").write_text("three years of work")
    make_store(bucket)
    command = ["finetune", "--store", small_store, *QUICK, "--cache"]
    refuse(*command, "mine", says=["mine: is no tailcache cache (it holds photos); name another"])
    refuse(*command, "", says=["--cache '': is empty", "name a folder"])
    refuse(*command, "mine/photos/thesis.jpg", says=["thesis.jpg: cannot be used as --cache", "name another"])
    cache = Cache(tmp_path / "mine", max(bucket.sizes().values()))  # even so
    gather(FeatureStore(bucket, cache).arrays[MAPS], np.arange(44))
    assert (photos / "thesis.jpg").exists()


def test_a_copy_that_was_cut_is_fetched_again(bucket, tmp_path):
    make_store(bucket)
    cache = open_cache(str(tmp_path), 1)
    gather(FeatureStore(bucket, cache).arrays[MAPS], np.arange(44))
    for copy in tmp_path.glob("*/*feature_map*"):
        copy.write_bytes(copy.read_bytes()[:-9])
    again = FeatureStore(bucket, open_cache(str(tmp_path), 1)).arrays[MAPS]
    np.testing.assert_array_equal(gather(again, np.arange(44)), made_rows()[MAPS])
    damage(bucket, f"{MAPS}/c/1/0/0/0", "cut")  # damage of the store itself is not fetched again and again
    with pytest.raises(StoreError, match=r"feature_map/c/1/0/0/0: has"):
        gather(FeatureStore(bucket, open_cache(str(tmp_path / "other"), 1)).arrays[MAPS], np.arange(44))


def test_the_cache_never_answers_for_an_older_store(bucket, tmp_path):
    make_store(bucket)
    gather(FeatureStore(bucket, Cache(tmp_path, 2**30)).arrays[MAPS], np.arange(44))
    rows = made_rows()
    rows[MAPS] = rows[MAPS][::-1]
    with write_store(bucket, made_plan(note="other"), resume=False, overwrite=True) as writer:
        fill(writer, rows)
        writer.finish()
    read = gather(FeatureStore(bucket, Cache(tmp_path, 2**30)).arrays[MAPS], np.arange(44))
    np.testing.assert_array_equal(read, rows[MAPS])


def test_a_cache_that_is_too_small(bucket, small_store, tmp_path, in_tmp_path):
    make_store(bucket)
    array = FeatureStore(bucket, Cache(tmp_path / "cache", 100)).arrays[MAPS]
    with pytest.raises(CacheError, match=r"cannot hold .* bytes; raise --cache-gib"):
        gather(array, np.array([0]))
    command = ["finetune", "--store", small_store, *QUICK, "--cache", "c", "--cache-gib"]
    for gib in ("0", "nan"):
        refuse(*command, gib, says=[f"--cache-gib {gib}: must be above 0"])


def test_many_threads_share_one_cache(bucket, tmp_path, monkeypatch):
    make_store(bucket)
    monkeypatch.setattr("store.storage.mmap_files.MAPPED_FILES", 1)
    size = max(bucket.sizes().values())
    array = FeatureStore(bucket, Cache(tmp_path, size)).arrays[MAPS]
    expected, generator = made_rows()[MAPS], np.random.default_rng(0)
    for _ in range(5):
        rows = generator.integers(0, 44, 60)
        np.testing.assert_array_equal(gather(array, rows, n_threads=4), expected[rows])
