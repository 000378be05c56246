"""Stores extracted with another program's network: what is in them, and what is said on the way."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import run, succeed
from made_foreign import IMAGES, NAMES, STATISTICS, USERS, arrays, trained_users_network, write_digits
from torch import nn

import tailcache as tc
from extract.checkpoints.checkpoint import load_checkpoint
from finetune.compare.configurations import phase1_options
from store.reader import FeatureStore

pytestmark = pytest.mark.usefixtures("in_tmp_path")
HOW = ["--arch", USERS, *IMAGES, *STATISTICS, "--dtype", "float32"]
SORTED = sorted(NAMES)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """Photos of four digits, a network that was trained on them, and a file of the classes in its order."""
    folder = tmp_path_factory.mktemp("foreign")
    network = trained_users_network(write_digits(folder / "photos"))
    torch.save({"state_dict": network.state_dict(), "epoch": 60}, folder / "users.pth")
    (folder / "names.txt").write_text("\n".join(NAMES) + "\n")
    return folder, network


@pytest.fixture
def foreign(made: tuple[Path, nn.Module], in_tmp_path: None) -> nn.Module:
    """The same in the working folder."""
    shutil.copytree(made[0], ".", dirs_exist_ok=True)
    return made[1]


def extracted(
    *options: object, store: str = "feats.zarr", ckpt: str = "users.pth"
) -> tuple[FeatureStore, str]:
    result = succeed("extract", "--ckpt", ckpt, "--root", "photos", "--store", store, *HOW, *options)
    return FeatureStore(Path(store)), result.stderr


def contents(store: FeatureStore) -> dict[str, np.ndarray]:
    arrays = {"classifier/weight": store.classifier[0], "classifier/bias": store.classifier[1]}
    for split in store.splits:
        read = store.read(split)
        arrays |= {f"{split}/{name}": getattr(read, name) for name in ("pooled", "label", "sample_index")}
    return arrays | {"maps": store.feature_map(range(len(store.read("train").label)))}


def test_a_store_holds_what_the_authors_network_gives(foreign):
    store, _ = extracted("--class-names", "names.txt")
    images, label = arrays(Path("photos/test"))
    test = store.read("test")
    assert store.class_names == list(NAMES)
    assert test.label.tolist() == label.tolist()
    with torch.no_grad():
        logits = foreign(images)
    weight, bias = store.classifier
    assert np.allclose(test.pooled @ weight.T + bias, logits, atol=1e-4)
    n_train = {name: len(list(Path("photos/train", name).iterdir())) for name in NAMES}
    checkpoint = load_checkpoint(Path("feats.checkpoint.pt"))
    assert checkpoint.class_counts == list(n_train.values())
    assert (checkpoint.epoch, checkpoint.finetuned, checkpoint.adopted) == (0, False, True)


def test_it_is_the_store_of_the_same_weights_in_a_checkpoint_of_ours(foreign):
    """Array by array, and so in every phase."""
    store, _ = extracted("--class-names", "names.txt")
    named = ["--arch", USERS, "--device", "cpu", "--dtype", "float32"]
    succeed("extract", "--ckpt", "feats.checkpoint.pt", "--store", "again.zarr", *named)
    again = contents(FeatureStore(Path("again.zarr")))
    for name, values in contents(store).items():
        assert np.array_equal(values, again[name]), name
    trained = ["train", "--root", "photos", *HOW[:-2], "--class-names", "names.txt", "--epochs", "1"]
    succeed(*trained, "--lr", "0", "--weights", "users.pth", "--out", "phase1")  # its statistics change
    assert load_checkpoint(Path("phase1/checkpoint.pt")).class_names == list(NAMES)


def test_the_first_accuracy_is_that_of_the_authors_network(foreign):
    images, label = arrays(Path("photos/test"))
    with torch.no_grad():
        n_correct = int((foreign(images).argmax(1) == label).sum())
    _, said = extracted("--class-names", "names.txt")
    share = 100 * n_correct / len(label)
    assert share > 80
    line = f"first accuracy, before anything was fine-tuned: {share:.1f} % of {len(label)} test images"
    assert line in said
    assert "no better" not in said
    assert "seems to be another" not in said
    counted = succeed("evaluate", "--ckpt", "feats.checkpoint.pt", "--arch", USERS, "--device", "cpu").stdout
    assert f"{n_correct} of {len(label)} correct" in counted
    run_of = tc.finetune("feats.zarr", method="plain", iterations=2, device="cpu")
    assert run_of.summary["phase1"]["overall"] == pytest.approx(share)


def test_classes_in_another_order_are_the_same_classes(foreign):
    """The FC layer's rows, the labels and the names move together."""
    store, _ = extracted("--class-names", "names.txt")
    order = [NAMES.index(name) for name in SORTED]
    state = foreign.state_dict()
    moved = state | {name: state[name][order] for name in ("head.weight", "head.bias")}
    torch.save(moved, "sorted.pth")
    other, said = extracted(store="sorted.zarr", ckpt="sorted.pth")
    assert f"outputs of the FC layer are taken to be {', '.join(SORTED)}" in said
    assert other.class_names == SORTED
    for split in store.splits:
        mine, its = store.read(split), other.read(split)
        names = [set(zip(s.label, s.sample_index, strict=True)) for s in (mine, its)]
        assert {(order.index(c), i) for c, i in names[0]} == names[1]
    first = [line for line in said.splitlines() if "first accuracy" in line]
    again, said = extracted("--class-names", "names.txt", "--overwrite")
    assert first[0] in said
    assert again.class_names == list(NAMES)


def test_a_wrong_order_is_noticed_and_told(foreign):
    _, said = extracted()  # the FC layer's outputs are not sorted
    assert "the order of classes seems to be another" in said
    assert "name the right order with --class-names FILE" in said
    assert "is no better than chance" not in said


def test_weights_that_know_nothing_are_at_chance(foreign):
    state = foreign.state_dict()
    torch.save(state | {"head.weight": torch.zeros_like(state["head.weight"])}, "users.pth")
    _, said = extracted("--class-names", "names.txt")
    assert "is no better than chance: check that the weights" in said


LISTS = {
    "classes": list(NAMES),
    "class_names": tuple(NAMES),
    "class_to_idx": {name: k for k, name in enumerate(NAMES)},
    "idx_to_class": {str(k): name for k, name in enumerate(NAMES)},
    "names": dict(reversed(list(enumerate(NAMES)))),
}


@pytest.mark.parametrize("key", LISTS)
@pytest.mark.parametrize("within", [None, "hyper_parameters", "meta"])
def test_a_checkpoints_own_list_orders_the_classes(key, within, foreign):
    kept = {key: LISTS[key]} if within is None else {within: {key: LISTS[key], "lr": 0.1}}
    torch.save({"state_dict": foreign.state_dict()} | kept, "users.pth")
    if (key, within) not in (("classes", None), ("class_to_idx", "meta")):  # the whole way for two
        from extract.adoption.class_lists import class_names_in

        assert class_names_in(torch.load("users.pth", weights_only=True), "users.pth") == list(NAMES)
        return
    store, said = extracted()
    assert store.class_names == list(NAMES)
    assert "zero, one, two, three (the checkpoint's own list; --class-names FILE names another)" in said
    assert "seems to be another" not in said
    Path("sorted.txt").write_text("\n".join(SORTED))
    store, said = extracted("--class-names", "sorted.txt", "--overwrite")
    assert store.class_names == SORTED
    assert "users.pth: lists its classes in another order than --class-names, which is the one taken" in said


@pytest.mark.parametrize("first", [0, 1])
def test_names_that_are_numbers_are_taken_by_what_the_key_says(first):
    from extract.adoption.class_lists import class_names_in, unread_lists

    order = sorted(map(str, range(first, first + 12)))  # "1", "10", "11", "2", …
    by_number = dict(enumerate(order))
    by_name = {name: k for k, name in enumerate(order)}
    for key, value in {"idx_to_class": by_number, "id2label": by_number, "class_to_idx": by_name}.items():
        assert class_names_in({"hparams": {key: value}}, "x.pth") == order
    assert class_names_in({"meta": {"CLASSES": tuple(order)}}, "x.pth") == order
    from_1 = {"class_to_idx": {name: k + 1 for k, name in enumerate(NAMES)}}
    assert class_names_in(from_1, "x.pth") is None
    assert unread_lists({"args": from_1}) == ["args.class_to_idx"]


def test_a_list_that_gives_no_order_is_told(foreign):
    from_1 = {"class_to_idx": {name: k + 1 for k, name in enumerate(NAMES)}}
    torch.save({"state_dict": foreign.state_dict()} | from_1, "users.pth")
    _, said = extracted()
    assert "users.pth: its class_to_idx gives no names for outputs 0, 1, 2, …, so it is not used" in said


def test_a_checkpoints_list_names_the_numbers_of_a_table(foreign):
    rows = [f"{path},{NAMES.index(path.parent.name)}" for path in sorted(Path("photos").rglob("*.png"))]
    for split in ("train", "test"):
        of_split = [row for row in rows if f"/{split}/" in row]
        Path(f"{split}.csv").write_text("\n".join(["path,label", *of_split]) + "\n")
    torch.save({"state_dict": foreign.state_dict(), "classes": list(NAMES)}, "users.pth")
    tables = ["--train", "train.csv", "--test", "test.csv"]
    said = succeed("extract", "--ckpt", "users.pth", *tables, *HOW).stderr
    assert "taken to be zero, one, two, three (the checkpoint's own list" in said
    assert "seems to be another" not in said
    store = FeatureStore(Path("feats.zarr"))
    assert store.class_names == list(NAMES)
    by_folder, _ = extracted(store="folders.zarr")
    assert np.array_equal(store.read("test").label, by_folder.read("test").label)
    told = ["--ckpt", "feats.checkpoint.pt", "--arch", USERS, "--device", "cpu"]
    assert "three" in succeed("evaluate", *told).stdout


def test_fine_tuned_it_goes_back_to_its_authors(foreign):
    """Phase II on the store, the checkpoint beside it found; the FC layer fits where the old one was."""
    extracted("--class-names", "names.txt")
    Path("moved").mkdir()
    for name in ("feats.zarr", "feats.checkpoint.pt"):
        shutil.move(name, "moved")
    short = ["--iterations", 30, "--device", "cpu", "--tail-samples", 4, "--head-ratio", 0.5]
    short += ["--confusing-classes", 2]
    succeed("finetune", "--store", "moved/feats.zarr", "--out", "fsa", *short)
    again = ["--ckpt", "fsa/checkpoint.pt", "--arch", USERS]
    succeed("export", *again, "--format", "state-dict", "--out", "better.pth")
    with torch.random.fork_rng(devices=[]):
        network = type(foreign)(len(NAMES)).eval()
    network.load_state_dict(torch.load("better.pth", weights_only=True))
    assert not torch.equal(network.head.weight, foreign.head.weight)
    assert torch.equal(network.body[0].weight, foreign.body[0].weight)
    images, label = arrays(Path("photos/test"))
    with torch.no_grad():
        n_correct = int((network(images).argmax(1) == label).sum())
        ours = tc.load_network("fsa/checkpoint.pt", arch=USERS)(images)
        assert torch.allclose(ours, network(images), atol=1e-5)
    told = succeed("evaluate", *again, "--device", "cpu").stdout
    assert f"{n_correct} of {len(label)} correct" in told


def test_two_networks_are_never_averaged_as_seeds(foreign):
    state = foreign.state_dict()
    torch.save(state | {"head.bias": state["head.bias"] + 0.1}, "other.pth")
    names = ["--class-names", "names.txt"]
    extracted(*names)
    extracted(*names, store="other.zarr", ckpt="other.pth")
    extracted(*names, "--classifier", "fresh", store="fresh.zarr")
    runs = []
    for name in ("feats", "other", "fresh"):
        runs.append(tc.finetune(f"{name}.zarr", out=name, method="plain", iterations=2, device="cpu"))
    options = [phase1_options(one) for one in runs]
    assert len({repr(sorted(one.items(), key=repr)) for one in options}) == 3
    table = tc.compare(runs)
    assert (table["n"] == 1).all()


def test_a_fresh_classifier_is_drawn_from_the_seed(foreign):
    one, said = extracted("--classifier", "fresh", "--seed", 1)
    assert "class activation maps of an FC layer that was not trained do not show" in said
    assert "first accuracy" not in said
    two, _ = extracted("--classifier", "fresh", "--seed", 2, store="two.zarr")
    again, _ = extracted("--classifier", "fresh", "--seed", 1, store="again.zarr")
    assert np.array_equal(one.classifier[0], again.classifier[0])
    assert not np.array_equal(one.classifier[0], two.classifier[0])
    assert np.array_equal(one.read("test").pooled, two.read("test").pooled)


def test_averaged_weights_are_taken_where_they_are_meant(foreign):
    state = foreign.state_dict()
    torch.save({"model": {n: v + 1 for n, v in state.items()}, "model_ema": state}, "users.pth")
    store, said = extracted("--ema", "--class-names", "names.txt")
    assert "seems to be another" not in said
    assert np.array_equal(store.classifier[0], state["head.weight"].numpy())


def test_from_python(foreign):
    store = tc.extract(
        "users.pth",
        "feats.zarr",
        arch=USERS,
        root=Path("photos"),
        class_names=Path("names.txt"),
        image_size=16,
        mean="0.5,0.5,0.5",
        std="0.5,0.5,0.5",
        no_flip=True,
        dtype="float32",
        device="cpu",
    )
    mine, _ = extracted("--class-names", "names.txt", store="cli.zarr")
    assert all(np.array_equal(values, contents(mine)[name]) for name, values in contents(store).items())
    line = run("extract", "--ckpt", "users.pth", "--arch", USERS).stderr.strip()
    with pytest.raises(tc.UserError) as refused:
        tc.extract("users.pth", "x.zarr", arch=USERS)
    assert line == f"tailcache: {refused.value}"
