"""`store verify --sample` finds rows of other images, which nothing else can, and none in a good store."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bad_input import refuse, run, succeed
from made_store import write_made
from rich.progress import Progress

from extract.config import SampleConfig
from extract.proof.sample import draw_sample
from store.layout import store_layout
from store.reader import FeatureStore
from store.spec import StoreSpec

pytestmark = pytest.mark.usefixtures("in_tmp_path")
ALL = 99  # rows a split: more than there are
Rows = dict[str, np.ndarray]


def verify(store: Path, ckpt: Path, *options: object) -> list:
    return ["store", "verify", store, "--sample", ALL, "--ckpt", ckpt, "--device", "cpu", *options]


def rewrite(
    source: Path, target: Path, change: Callable[[Rows], None], images: bool = False, **options: object
) -> None:
    """Rewrite a store with other rows under right checksums; `options` replace those in its provenance.

    An option that is None is removed, and so are names and digests without `images`.
    """
    store = FeatureStore(source)
    made = dict(store.provenance)
    made["config"] = {k: v for k, v in (made["config"] | options).items() if v is not None}
    rows = {n: a.read() for n, a in store.arrays.items() if n.startswith(("classifier/", *store.splits))}
    rows["train/feature_map"] = store.read_feature_map()
    rows.pop("train/feature_map_scale", None)
    change(rows)
    _, *axes = store.map_shape
    sizes = {s: {"N": len(rows[f"{s}/label"]), **dict(zip("HWC", axes, strict=True))} for s in store.splits}
    for split, axes in sizes.items() if images else ():
        axes |= {
            axis: rows[f"{split}/image_{name}"].shape[1] for axis, name in (("D", "digest"), ("T", "name"))
        }
    layouts = store_layout(sizes, len(store.class_names), store.map_dtype, made["config"]["batch_size"])
    identity = made.pop("identity")
    write_made(target, StoreSpec(layouts, store.map_dtype, store.class_names, made, identity), rows)


def swap(rows: Rows, split: str, names: tuple[str, ...], a: int, b: int) -> None:
    assert rows[f"{split}/label"][a] == rows[f"{split}/label"][b]
    for name in names:
        rows[f"{split}/{name}"][[a, b]] = rows[f"{split}/{name}"][[b, a]]


def swapped(rows: Rows) -> None:
    """Swap the complete rows of two images of a class, the third and sixth of ape."""
    swap(rows, "train", ("feature_map", "cam", "pooled"), 2, 5)


@pytest.fixture(scope="session", params=["fp32", "bf16", "int8"])
def extracted(request: pytest.FixtureRequest, small_ckpt: Path, tmp_path_factory) -> Path:
    """A store for each precision, and one of lossy maps."""
    kind = request.param
    path = tmp_path_factory.mktemp("extracted") / "feats.h5"
    options = ["--dtype", "int8"] if kind == "int8" else ["--precision", kind]
    succeed("extract", "--ckpt", small_ckpt, "--store", path, "--device", "cpu", *options)
    return path


def test_an_intact_store_passes(extracted, small_ckpt):
    text = succeed(*verify(extracted, small_ckpt)).stdout
    assert text == f"{extracted}: sound, 36 rows extracted again agree\n"


@pytest.mark.parametrize("seed", [0, 1])
def test_an_intact_store_of_digits_passes(feature_store, phase1, seed):
    command = ["store", "verify", feature_store, "--sample", 7, "--ckpt", phase1, "--device", "cpu"]
    result = succeed(*command, "--seed", seed, "--json")
    assert json.loads(result.stdout) == {
        "path": str(feature_store),
        "sound": True,
        "faults": [],
        "sample": {"rows": {"train": 7, "val": 7, "test": 7}, "differ": []},
    }


def test_rows_swapped_within_a_class_are_found_and_named(extracted, small_ckpt):
    path = Path("feats.zarr")
    rewrite(extracted, path, swapped)
    assert succeed("store", "verify", path).stdout == "feats.zarr: sound\n"  # nothing else sees it
    result = run(*verify(path, small_ckpt, "--json"))
    assert result.exit_code == 1
    content = json.loads(result.stdout)
    found = [(d["split"], d["row"], d["image"]) for d in content["sample"]["differ"]]
    assert found == [("train", 2, "train/ape/2.png"), ("train", 5, "train/ape/5.png")]
    assert content["faults"][0].startswith("train: row 2, train/ape/2.png: pooled, feature_map")
    result = run(*verify(path, small_ckpt))
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (1, "feats.zarr: not sound, 2 found")


def held_out_swapped(rows: Rows) -> None:
    swap(rows, "test", ("pooled",), 0, 7)


def scaled(rows: Rows) -> None:
    """As from a network with other weights; the CAMs do not show it."""
    for name in ("train/feature_map", "train/pooled"):
        rows[name] *= rows[name].dtype.type(1.25)


def nearly_the_same(rows: Rows) -> None:
    for name in ("train/feature_map", "train/pooled"):
        rows[name][4] *= rows[name].dtype.type(1.01)


def another_image(rows: Rows) -> None:
    rows["test/sample_index"][-1] += 5


def one_row_less(rows: Rows) -> None:
    for name in [name for name in rows if name.startswith("test/")]:
        rows[name] = np.delete(rows[name], 3, axis=0)


def one_row_more(rows: Rows) -> None:
    for name in [name for name in rows if name.startswith("test/")]:
        rows[name] = np.concatenate([rows[name], rows[name][-1:]])
    rows["test/sample_index"][-1] += 1


@pytest.mark.parametrize(
    ("change", "n_found", "says"),
    [
        (
            held_out_swapped,
            2,
            "test: row 0, test/ape/0.png: pooled: not what this image gives (pooled is off",
        ),
        (scaled, 18, "train: row 0, train/ape/0.png: pooled, feature_map: not what this image gives"),
        (nearly_the_same, 1, "train: row 4, train/ape/4.png: pooled, feature_map: not what this image gives"),
        (another_image, 1, "test: row 17, image 22 of class 2: expected image 17 of class 2"),
        (one_row_less, 1, "test: row 3, image 4 of class 0: expected image 3 of class 0"),
        (one_row_more, 1, "test: row 18, image 18 of class 2: one row too many"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_plain_verify_cannot_see(small_store, small_ckpt, change, n_found, says):
    rewrite(small_store, Path("feats.h5"), change)
    succeed("store", "verify", "feats.h5")
    result = run(*verify(Path("feats.h5"), small_ckpt))
    first, *_, last = result.stdout.splitlines()
    assert (result.exit_code, last) == (1, f"feats.h5: not sound, {n_found} found")
    assert first.startswith(says), first


@pytest.mark.parametrize("name", ["image_digest", "image_name"])
def test_rows_whose_image_is_said_to_be_another(small_store, small_ckpt, name):
    rewrite(small_store, Path("feats.h5"), lambda rows: swap(rows, "test", (name,), 3, 5), images=True)
    succeed("store", "verify", "feats.h5")
    result = run(*verify(Path("feats.h5"), small_ckpt))
    says = f"test: row 3, test/ape/3.png: another {name} in the store"
    assert (result.exit_code, result.stdout.splitlines()) == (1, [says, "feats.h5: not sound, 1 found"])


@pytest.fixture(scope="session")
def views_store(small_ckpt: Path, tmp_path_factory) -> Path:
    """Three views of each training image."""
    path = tmp_path_factory.mktemp("views") / "feats.zarr"
    succeed("extract", "--ckpt", small_ckpt, "--store", path, "--device", "cpu", "--views", 3)
    return path


@pytest.mark.parametrize("options", [[], ["--precision", "bf16"], ["--dtype", "int8"]])
def test_views_are_extracted_anew_from_the_same_draws(small_ckpt, options):
    command = ["extract", "--ckpt", small_ckpt, "--store", "s.h5", "--device", "cpu", "--views", 3]
    succeed(*command, *options)
    text = succeed(*verify(Path("s.h5"), small_ckpt)).stdout
    assert text == "s.h5: sound, 72 rows extracted again agree\n"


def views_swapped(rows: Rows) -> None:
    """The augmented views of the third image."""
    swap(rows, "train", ("feature_map", "cam", "pooled"), 7, 8)


def view_0_again(rows: Rows) -> None:
    for name in ("feature_map", "cam", "pooled"):
        rows[f"train/{name}"][4] = rows[f"train/{name}"][3]


@pytest.mark.parametrize(
    ("change", "found"),
    [(views_swapped, [(7, "ape/2", 1), (8, "ape/2", 2)]), (view_0_again, [(4, "ape/1", 1)])],
)
def test_a_row_that_is_not_its_view_is_found_and_named(views_store, small_ckpt, change, found):
    rewrite(views_store, Path("feats.h5"), change)
    assert succeed("store", "verify", "feats.h5").stdout == "feats.h5: sound\n"
    result = run(*verify(Path("feats.h5"), small_ckpt, "--json"))
    content = json.loads(result.stdout)
    differ = [(d["row"], d["image"], d["view"]) for d in content["sample"]["differ"]]
    assert (result.exit_code, differ) == (1, [(row, f"train/{name}.png", view) for row, name, view in found])
    row, name, view = found[0]
    says = f"train: row {row}, train/{name}.png, view {view}: pooled, feature_map"
    assert content["faults"][0].startswith(says)


@pytest.mark.parametrize(
    ("n_views", "says"),
    [
        (None, "train: row 1, image 0 of class 0, view 1: expected image 1 of class 0"),
        (2, "train: row 2, image 0 of class 0, view 2: expected image 1 of class 0"),
        (4, "train: row 3, image 1 of class 0: expected image 0 of class 0, view 3"),
    ],
)
def test_rows_of_other_views_than_the_store_says(views_store, small_ckpt, n_views, says):
    rewrite(views_store, Path("feats.h5"), lambda rows: None, views=n_views)
    result = run(*verify(Path("feats.h5"), small_ckpt))
    assert (result.exit_code, result.stdout.splitlines()) == (1, [says, "feats.h5: not sound, 1 found"])


def test_stores_from_before_there_were_views(small_store, small_ckpt):
    rewrite(small_store, Path("feats.zarr"), lambda rows: None, views=None)
    assert "views" not in FeatureStore(Path("feats.zarr")).provenance["config"]
    assert "36 rows extracted again agree" in succeed(*verify(Path("feats.zarr"), small_ckpt)).stdout


@pytest.mark.parametrize("n_views", [0, "three", [3]])
def test_stores_that_do_not_say_how_many_views(small_store, small_ckpt, n_views):
    rewrite(small_store, Path("feats.zarr"), lambda rows: None, views=n_views)
    says = ["feats.zarr: provenance does not say precision, batch size and views"]
    refuse(*verify(Path("feats.zarr"), small_ckpt), says=says)


def test_rows_are_drawn_by_seed_and_split(feature_store, phase1):
    store, quiet = FeatureStore(feature_store), Progress(disable=True)

    def drawn(seed: int) -> Rows:
        config = SampleConfig(sample=20, ckpt=str(phase1), seed=seed, device="cpu")
        return draw_sample(store, config, quiet).rows

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert draw_sample(store, SampleConfig(1, str(phase1), device="cpu"), quiet).arithmetic == 2**-13
    store.provenance.pop("device")  # so it may have been a GPU
    assert draw_sample(store, SampleConfig(1, str(phase1), device="cpu"), quiet).arithmetic == 2**-6
    assert list(first) == ["train", "val", "test"]
    for split, rows in first.items():
        assert len(set(rows.tolist())) == 20
        np.testing.assert_array_equal(rows, again[split])
        assert (rows != other[split]).any()


def test_another_checkpoint_cannot_tell(small_store, phase1):
    says = ["is not the checkpoint that", "point --ckpt at that one"]
    refuse(*verify(small_store, phase1), says=[phase1, *says])
    refuse(*verify(small_store, Path("none.pt")), says=["none.pt: no such checkpoint"])


def test_images_that_are_gone_cannot_tell(small_store, small_ckpt):
    refuse(*verify(small_store, small_ckpt, "--root", "elsewhere"), says=["elsewhere", "--root"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--sample 3", "--sample needs --ckpt"),
        ("--sample 0 --ckpt c.pt", "--sample 0: must be 1 or more"),
        ("--sample 3 --ckpt c.pt --seed -1", "--seed -1: must be 0 or more"),
        ("--ckpt c.pt", "--ckpt and --root need --sample"),
    ],
)
def test_options_that_do_not_go_together(small_store, options, says):
    refuse("store", "verify", small_store, *options.split(), says=[says])
