"""What a user gets wrong about another program's network: one line each, and nothing written."""

import shutil
from pathlib import Path

import pytest
import torch
from bad_input import refuse, run
from made_foreign import IMAGES, NAMES, STATISTICS, USERS, authors_network, write_digits

pytestmark = pytest.mark.usefixtures("in_tmp_path")
STATE = authors_network(USERS, 4).state_dict()
NAMED = ["--arch", USERS, "--root", "photos", *IMAGES, *STATISTICS]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few digits in class folders."""
    return write_digits(tmp_path_factory.mktemp("digits") / "photos", 8, 4)


@pytest.fixture
def photos(digits: Path, in_tmp_path: None) -> None:
    """Photos and a file of weights in the working folder."""
    shutil.copytree(digits, "photos")
    torch.save(STATE, "users.pth")


def refused(*options: object, says: list[object], ckpt: str = "users.pth") -> None:
    refuse("extract", "--ckpt", ckpt, *options, says=says)


OPTIONS = {
    "nothing named": ([], ["not a checkpoint of this program", "name network and images as well (--arch"]),
    "no network": (["--root", "photos"], ["its network must be named with --arch (resnet50, timm:NAME"]),
    "no images": (
        ["--arch", USERS],
        ["so its images must be named: --root FOLDER, --train TABLE or --dataset"],
    ),
    "two files": ([*NAMED, "--weights", "DEFAULT"], ["--weights DEFAULT: --ckpt names the weights already"]),
    "another network": (
        ["--arch", "resnet8", *NAMED[2:]],
        ["users.pth: holds no weights of resnet8 (it has body.0.weight"],
    ),
    "an unknown network": (["--arch", "resnot", *NAMED[2:]], ["--arch resnot: unknown"]),
    "no average": ([*NAMED, "--ema"], ["--ema: users.pth has no averaged weights"]),
    "no such photos": (["--arch", USERS, "--root", "none"], ["none: no such folder"]),
    "a mean of bytes": ([*NAMED, "--mean", "128,128,128"], ["--mean 128,128,128: expected three numbers"]),
    "a crop of small images": ([*NAMED, "--crop", "0.9"], ["--crop: images of 16 pixels are resized as"]),
    "a negative seed": ([*NAMED, "--seed", "-1"], ["--seed -1: must be 0 or more"]),
    "a classifier's name": ([*NAMED, "--classifier", "new"], ["'new' is not one of 'checkpoint', 'fresh'"]),
}


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("what", OPTIONS)
def test_options_that_do_not_make_a_network_and_its_images(what):
    options, says = OPTIONS[what]
    refused(*options, says=says)


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("command", [["evaluate"], ["store", "plan"], ["predict", "photos/test"]])
def test_commands_that_want_a_checkpoint_say_which_makes_one(command):
    says = ["users.pth: not a checkpoint of this program", "`extract` makes one of another program's weights"]
    refuse(*command, "--ckpt", "users.pth", says=says)


def test_no_checkpoint_at_all():
    refuse(
        "extract", says=["--ckpt names no checkpoint", "--ckpt resnet50.pth --arch resnet50 --root photos"]
    )
    refused(*NAMED, ckpt="none.pth", says=["none.pth: expected a checkpoint file, found nothing"])
    Path("folder").mkdir()
    refused(*NAMED, ckpt="folder", says=["folder: expected a checkpoint file, found a folder"])


BESIDE = {
    "--weights": "DEFAULT",
    "--image-size": 32,
    "--mean": "0.5,0.5,0.5",
    "--classifier": "fresh",
    "--seed": 1,
    "--val-per-class": 2,
    "--train": "labels.csv",
    "--class-names": "names.txt",
}


@pytest.mark.parametrize("option", BESIDE)
def test_a_checkpoint_of_ours_determines_network_and_images(option, small_ckpt):
    says = [f"{option}: {small_ckpt} is a checkpoint of this program", f"leave out {option}"]
    refused(option, BESIDE[option], ckpt=small_ckpt, says=says)


def test_a_damaged_checkpoint_of_ours_is_not_taken_for_another_programs(small_ckpt):
    Path("damaged.pt").write_bytes(small_ckpt.read_bytes()[:9000])
    refused(ckpt="damaged.pt", says=["damaged.pt: not a checkpoint that can be read safely (truncated)"])
    refused(*NAMED, ckpt="damaged.pt", says=["--image-size: damaged.pt is a checkpoint of this program"])


class Pickled(torch.nn.Module):
    """A whole network, which only code can open."""


FILES = {
    "a pickled network": (
        Pickled(),
        ["w.pth: holds objects that only code can open", "convert it: python -c"],
    ),
    "variances below 0": (
        STATE | {"body.1.running_var": torch.full((8,), -0.1)},
        ["w.pth: body.1.running_var holds variances below 0; use another file"],
    ),
    "weights that make NaN of any image": (
        STATE | {"body.0.weight": torch.full_like(STATE["body.0.weight"], 1e38)},
        ["w.pth: made_foreign:users_network with its weights gives NaN or infinite logits"],
    ),
    "no tensors": ({"state_dict": {}, "epoch": 3}, ["w.pth: holds no tensors"]),
    "an FC layer for others": (
        STATE | {"head.weight": torch.zeros(9, 12), "head.bias": torch.zeros(9)},
        ["FC layer head.weight is for 9 classes, but the images are of 4", "`--classifier fresh`"],
    ),
    "NaN": (STATE | {"body.0.bias": torch.full((8,), torch.nan)}, ["w.pth: body.0.bias holds NaN"]),
    "other names": (
        {"state_dict": STATE, "classes": ["a", "b", "two", "three"]},
        ["list of classes: names 4 classes where the images are of 4: it lacks one, zero and has a, b, of"],
    ),
    "more names": (
        {"state_dict": STATE, "classes": [*NAMES, "four"]},
        ["names 5 classes where the images are of 4: it has four, of which there are no training images"],
    ),
    "two lists": (
        {"state_dict": STATE, "classes": NAMES, "meta": {"names": NAMES[::-1]}},
        ["has two lists of classes, classes and meta.names, which differ", "--class-names FILE"],
    ),
}


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("what", FILES)
def test_weights_of_other_programs_that_cannot_be_used(what):
    content, says = FILES[what]
    torch.save(content, "w.pth")
    refused(*NAMED, ckpt="w.pth", says=says)


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize(
    ("name", "content"), [("w.pth", b"weights"), ("w.safetensors", b"\0" * 40), ("w.pth", b"")]
)
def test_bytes_that_are_no_weights(name, content):
    Path(name).write_bytes(content)
    refused(*NAMED, ckpt=name, says=[f"{name}: "])


ORDERS = {
    "a name twice": ("zero\none\ntwo\ntwo\n", "names, line 4: two stands in line 3 already"),
    "an empty line": ("zero\n\none\ntwo\nthree\n", "names, line 2: is empty"),
    "one too few": ("zero\none\ntwo\n", "names: names 3 classes where the images are of 4: it lacks three;"),
    "one too many": ("zero\none\ntwo\nthree\nfour\n", "it has four, of which there are no training images"),
    "a typo": (
        "zero\none\ntwo\ntree\n",
        "it lacks three and has tree, of which there are no training images",
    ),
    "nothing": ("", "names, line 1: is empty"),
}


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("command", ["extract", "train"])
@pytest.mark.parametrize("what", ORDERS)
def test_orders_of_classes_that_cannot_be(what, command):
    content, says = ORDERS[what]
    Path("names").write_text(content)
    named = ["--root", "photos", "--class-names", "names", "--device", "cpu"]
    options = [*NAMED, "--ckpt", "users.pth"] if command == "extract" else ["--arch", "resnet8"]
    refuse(command, *named, *options, says=[says])


@pytest.mark.usefixtures("photos")
def test_a_class_without_test_images_may_be_named_and_one_without_training_images_may_not():
    Path("names").write_text("\n".join(NAMES))
    shutil.rmtree("photos/test/three")
    result = run("extract", "--ckpt", "users.pth", *NAMED, "--class-names", "names", "--store", "a.zarr")
    assert result.exit_code == 0
    assert "1 of 4 classes have no test images (three)" in result.stderr
    shutil.rmtree("photos/train/three")
    refused(*NAMED, "--class-names", "names", says=["it has three, of which there are no training images"])
    refused(*NAMED, says=["its FC layer head.weight is for 4 classes, but the images are of 3"])


@pytest.mark.usefixtures("photos")
def test_class_names_are_for_folders_and_tables():
    names = ["--class-names", "names", "--dataset", "digits"]
    says = [
        "--class-names names: orders the classes of folders and tables, but those of digits have an order"
    ]
    refused("--arch", USERS, *names, says=says)
    refused(*NAMED, "--class-names", "none", says=["--class-names none: expected a file, found nothing"])
