"""Bad input, end to end: one line on stderr that says what, where and what to do, exit 2, nothing written.

Every refusal goes through `refuse`, which holds the command to all of that; the tests name what the line
must say. Good input that looks odd (16-bit grey, palettes, WebP) is here too, so that the refusals are seen
to stop short of it.
"""

import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from click.testing import CliRunner, Result
from PIL import Image

from cli import main
from extract.checkpoint import load_checkpoint, save_checkpoint
from extract.images import read_image

TINY = ["--arch", "resnet20", "--width", "4", "--epochs", "1", "--batch-size", "8", "--device", "cpu"]
FOLDER = ["--dataset", "imagefolder", "--image-size", "16"]
QUICK = ["--iterations", "2", "--eval-every", "1", "--device", "cpu"]
FEW_CLASSES = ["--confusing-classes", 2, "--head-ratio", 0.4]  # a tail among the three of PER_CLASS
PER_CLASS = {"ape": 8, "bee": 6, "cat": 4}


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Default output paths are relative: they must land where `refuse` looks."""
    monkeypatch.chdir(tmp_path)


def run(*arguments: object) -> Result:
    """The command line in this process."""
    return CliRunner().invoke(main, [str(a) for a in arguments])


def succeed(*arguments: object) -> Result:
    """Run a command that must work."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def refuse(*arguments: object, says: list[object]) -> str:
    """Run a command that must be refused in one line holding each of `says`, and change no file."""
    before = snapshot(Path())
    result = run(*arguments)
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert (result.exit_code, result.stdout, len(lines)) == (2, "", 1), result.output
    assert "Traceback" not in lines[0]
    for fragment in says:
        assert str(fragment) in lines[0]
    assert snapshot(Path()) == before
    return lines[0]


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every path under a folder, hidden ones too, with its size and time of change."""
    paths = folder.rglob("*")
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in paths if p.is_file()} | {
        f"{p}/": (0, 0) for p in folder.rglob("*") if p.is_dir()
    }


def write_images(root: Path, per_class: dict[str, int] = PER_CLASS, splits=("train", "test")) -> Path:
    """Class folders of 12×12 noise."""
    rng = np.random.default_rng(0)
    for split in splits:
        for name, n in per_class.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(n):
                Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).save(folder / f"{i}.png")
    return root


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A good image folder, to be damaged."""
    return write_images(tmp_path / "images")


@pytest.fixture(scope="module")
def small_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good image folder, not to be touched."""
    return write_images(tmp_path_factory.mktemp("small") / "images")


@pytest.fixture(scope="module")
def small_ckpt(small_root: Path) -> Path:
    """A finished Phase I on `small_root`; no validation split. Not to be touched."""
    out = small_root.parent / "phase1"
    succeed("train", *FOLDER, *TINY, "--root", small_root, "--out", out)
    return out / "checkpoint.pt"


@pytest.fixture(scope="module")
def small_store(small_ckpt: Path) -> Path:
    """The store of `small_ckpt`. Not to be touched."""
    path = small_ckpt.parents[1] / "feats.zarr"
    succeed("extract", "--ckpt", small_ckpt, "--store", path, "--device", "cpu")
    return path


@pytest.fixture(scope="module")
def digits_run(feature_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of Phase II on digits. Not to be touched."""
    out = tmp_path_factory.mktemp("runs") / "fsa"
    succeed("finetune", "--store", feature_store, "--out", out, *QUICK)
    return out


# Image folders


def no_root(root: Path) -> None:
    shutil.rmtree(root)


def root_is_a_file(root: Path) -> None:
    shutil.rmtree(root)
    root.write_text("no folder")


def empty_root(root: Path) -> None:
    shutil.rmtree(root)
    root.mkdir()


def no_train(root: Path) -> None:
    shutil.rmtree(root / "train")


def no_test(root: Path) -> None:
    shutil.rmtree(root / "test")


def empty_train(root: Path) -> None:
    shutil.rmtree(root / "train")
    (root / "train").mkdir()


def empty_test(root: Path) -> None:
    shutil.rmtree(root / "test")
    (root / "test").mkdir()


def one_class(root: Path) -> None:
    for name in ("bee", "cat"):
        shutil.rmtree(root / "train" / name)


def empty_train_class(root: Path) -> None:
    shutil.rmtree(root / "train" / "bee")
    (root / "train" / "bee").mkdir()


def empty_test_class(root: Path) -> None:
    shutil.rmtree(root / "test" / "bee")
    (root / "test" / "bee").mkdir()


def class_of_text_files(root: Path) -> None:
    empty_train_class(root)
    (root / "train" / "bee" / "notes.txt").write_text("no image")


def unknown_test_class(root: Path) -> None:
    write_images(root, {"dog": 1}, ["test"])


def unknown_val_class(root: Path) -> None:
    write_images(root, {"dog": 1}, ["val"])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (no_root, ["{root}: no such folder", "--root must hold"]),
        (root_is_a_file, ["{root}: no such folder", "--root must hold"]),
        (empty_root, ["{root}: has no train/ folder", "found nothing", "expected train/<class>/<image>"]),
        (no_train, ["{root}: has no train/ folder", "found test", "expected train/<class>/<image>"]),
        (no_test, ["{root}: has no test/ folder", "found train", "expected test/<class>/<image>"]),
        (empty_train, ["{root}/train: at least two class folders are needed", "found none"]),
        (one_class, ["{root}/train: at least two class folders are needed", "found ape"]),
        (empty_test, ["{root}/test: holds no class folders", "expected test/<class>/<image>"]),
        (empty_train_class, ["{root}/train/bee: holds no images", ".png", "add some or remove it"]),
        (empty_test_class, ["{root}/test/bee: holds no images", ".png", "add some or remove it"]),
        (class_of_text_files, ["{root}/train/bee: holds no images", ".png", "add some or remove it"]),
        (unknown_test_class, ["{root}/test/dog", "'dog' is not among the 3 classes", "rename or remove"]),
        (unknown_val_class, ["{root}/val/dog", "'dog' is not among the 3 classes", "rename or remove"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_image_folder_is_refused(images: Path, damage: Callable[[Path], None], says: list[str]) -> None:
    damage(images)
    says = [fragment.format(root=images) for fragment in says]
    refuse("train", *FOLDER, *TINY, "--root", images, "--out", "phase1", says=says)


def truncated_jpeg(path: Path) -> Path:
    path = path.with_suffix(".jpg")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:700])
    return path


def truncated_png(path: Path) -> Path:
    path.write_bytes(next(path.parent.glob("*.png")).read_bytes()[:100])
    return path


def text_named_png(path: Path) -> Path:
    path.write_text("This is no image.\n")
    return path


def zero_bytes(path: Path) -> Path:
    path.touch()
    return path


BAD_IMAGES = [truncated_jpeg, truncated_png, text_named_png, zero_bytes]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("make_bad", BAD_IMAGES)
def test_unreadable_image_is_named(images: Path, make_bad: Callable[[Path], Path], split: str) -> None:
    bad = make_bad(images / split / "bee" / "bad.png")
    says = [f"{bad}: not a readable image", "mend or remove it", "--skip-bad-images"]
    refuse("train", *FOLDER, *TINY, "--root", images, "--out", "phase1", says=says)


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_large_image_is_named(images: Path, workers: int) -> None:
    """Images above 64 pixels are decoded while training, by worker processes."""
    bad = text_named_png(images / "train" / "bee" / "bad.png")
    large = ["--dataset", "imagefolder", "--image-size", 72, "--workers", workers]
    result = run("train", *large, *TINY, "--root", images, "--out", "phase1")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert f"{bad}: not a readable image" in result.stderr
    assert not list(Path().rglob("*unfinished*"))
    assert load_checkpoint(Path("phase1/checkpoint.pt")).epoch == 0  # mend the image and resume
    shutil.copy(images / "train" / "bee" / "0.png", bad)
    succeed("train", "--out", "phase1", "--resume")


@pytest.mark.parametrize("image_size", [16, 72])
def test_skip_bad_images_lists_them_and_later_phases_go_on(images: Path, image_size: int) -> None:
    bad = [make_bad(images / "train" / "bee" / f"bad{i}.png") for i, make_bad in enumerate(BAD_IMAGES)]
    bad += [zero_bytes(images / "test" / "cat" / "bad.png")]
    size = ["--dataset", "imagefolder", "--image-size", image_size, "--workers", 0]
    result = succeed("train", *size, *TINY, "--root", images, "--out", "phase1", "--skip-bad-images")
    names = sorted(path.relative_to(images).as_posix() for path in bad)
    assert result.stderr == f"left out, being unreadable: {', '.join(names)}\n"
    checkpoint = load_checkpoint(Path("phase1/checkpoint.pt"))
    assert checkpoint.class_counts == [8, 6, 4]

    later = ["--ckpt", "phase1/checkpoint.pt", "--device", "cpu", "--workers", 0]
    succeed("extract", *later, "--store", "feats.zarr")
    assert zarr.open_group("feats.zarr", mode="r")["train/label"].shape == (18,)
    assert "of 18 correct" in succeed("evaluate", *later).stdout
    succeed("finetune", "--store", "feats.zarr", "--out", "fsa", *QUICK, *FEW_CLASSES)
    succeed("evaluate", "--ckpt", "fsa/checkpoint.pt", "--device", "cpu", "--workers", 0)


@pytest.mark.parametrize(
    ("emptied", "where"), [("train/bee", "train/bee"), ("test/*", "test")], ids=["class", "split"]
)
def test_skip_bad_images_leaves_something(images: Path, emptied: str, where: str) -> None:
    for path in images.glob(f"{emptied}/*.png"):
        path.write_bytes(b"")
    command = ["train", *FOLDER, *TINY, "--root", images, "--out", "phase1", "--skip-bad-images"]
    refuse(*command, says=[images / where, "no readable image is left"])


@pytest.mark.parametrize("command", ["extract", "evaluate"])
def test_images_that_changed_since_training_are_refused(small_ckpt: Path, images: Path, command: str) -> None:
    (images / "train" / "bee" / "5.png").unlink()
    says = [small_ckpt, images, "17 for training, 18 then", "point --root at the data set it was trained on"]
    refuse(command, "--ckpt", small_ckpt, "--root", images, "--device", "cpu", says=says)


def test_images_that_moved_are_found_with_root(small_root: Path, images: Path) -> None:
    succeed("train", *FOLDER, *TINY, "--root", images, "--out", "phase1")
    shutil.rmtree(images)
    later = ["evaluate", "--ckpt", "phase1/checkpoint.pt", "--device", "cpu"]
    refuse(*later, says=[f"{images}: no such folder", "--root"])
    succeed(*later, "--root", small_root)


def grey_16_bit(folder: Path) -> Path:
    ramp = np.linspace(0, 65535, 144, dtype=np.uint16).reshape(12, 12)
    Image.fromarray(ramp).save(folder / "odd.png")
    return folder / "odd.png"


def palette_with_transparency(folder: Path) -> Path:
    image = Image.fromarray(np.arange(144, dtype=np.uint8).reshape(12, 12)).convert("P")
    image.save(folder / "odd.png", transparency=bytes(range(256)))
    return folder / "odd.png"


def rgba(folder: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 4), np.uint8)
    Image.fromarray(pixels).save(folder / "odd.png")
    return folder / "odd.png"


def grey_jpeg(folder: Path) -> Path:
    Image.fromarray(np.arange(144, dtype=np.uint8).reshape(12, 12)).save(folder / "odd.JPEG")
    return folder / "odd.JPEG"


def webp(folder: Path) -> Path:
    Image.new("RGB", (12, 9), (200, 100, 0)).save(folder / "odd.webp", lossless=True)
    return folder / "odd.webp"


def ppm(folder: Path) -> Path:
    Image.new("RGB", (9, 12), (200, 100, 0)).save(folder / "odd.ppm")
    return folder / "odd.ppm"


@pytest.mark.parametrize("make", [grey_16_bit, palette_with_transparency, rgba, grey_jpeg, webp, ppm])
def test_unusual_image_is_read_as_rgb(images: Path, make: Callable[[Path], Path]) -> None:
    path = make(images / "train" / "bee")
    pixels = np.asarray(read_image(path))
    assert pixels.shape in {(12, 12, 3), (9, 12, 3), (12, 9, 3)}
    if make in (webp, ppm):
        assert (pixels == (200, 100, 0)).all()
    else:
        assert len(np.unique(pixels)) > 100  # neither clipped nor blank
    succeed("train", *FOLDER, *TINY, "--root", images, "--out", "phase1")
    assert load_checkpoint(Path("phase1/checkpoint.pt")).class_counts == [8, 7, 4]


# Options of Phase I


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--imbalance-factor 0.5", ["--imbalance-factor 0.5: must be 1"]),
        ("--imbalance-factor -3", ["--imbalance-factor -3: must be 1"]),
        ("--imbalance-factor nan", ["--imbalance-factor nan: must be 1"]),
        ("--imbalance-factor inf", ["--imbalance-factor inf: must be 1"]),
        ("--imbalance-factor 50", ["--imbalance-factor 50: leaves class 1 of 3", "the most is 4"]),
        ("--val-per-class 4", ["--val-per-class 4: class 2 has 4 training images", "one at least"]),
        ("--val-per-class -1", ["--val-per-class -1: must be 0 or more"]),
        ("--arch resnet21", ["--arch resnet21: unknown", "expected one of resnet20, "]),
        ("--arch vgg16", ["--arch vgg16: refused", "3 FC layers", "expected one of resnet20, "]),
        ("--arch vit_b_16", ["--arch vit_b_16: refused", "attention", "expected one of resnet20, "]),
        ("--arch densenet121", ["--arch densenet121: refused", "pooling", "expected one of resnet20, "]),
        ("--arch resnet18 --width 8", ["--width", "resnet18 is of fixed width", "CIFAR-stem"]),
        ("--width 0", ["--width 0: must be 1 or more"]),
        ("--weights DEFAULT", ["--weights DEFAULT: resnet20 has no pre-trained weights"]),
        ("--image-size 7", ["--image-size 7: must be 8 or more"]),
        ("--epochs 0", ["--epochs 0: must be 1 or more"]),
        ("--epochs two", ["--epochs", "'two' is not a valid integer", "--help"]),
        ("--batch-size 0", ["--batch-size 0: must be 1 or more"]),
        ("--lr nan", ["--lr nan: must be 0 or more, and below 2^32"]),
        ("--lr -1", ["--lr -1.0: must be 0 or more"]),
        ("--momentum -1", ["--momentum -1.0: must be 0 or more"]),
        ("--weight-decay inf", ["--weight-decay inf: must be 0 or more, and below 2^32"]),
        ("--workers -1", ["--workers -1: must be 0 or more"]),
        ("--seed -1", ["--seed -1: must be 0 or more"]),
        ("--seed 99999999999999999999", ["--seed 99999999999999999999: must be 0 or more, and below 2^32"]),
        ("--eval-every 0", ["--eval-every 0: must be 1 or more"]),
        ("--recipe long", ["--recipe", "'long' is not one of", "'cifar-lt'", "--help"]),
        ("--device tpu", ["--device tpu: unknown", "expected auto, cpu, cuda or cuda:N"]),
        ("--device mps", ["--device mps: unknown", "expected auto, cpu, cuda or cuda:N"]),
        ("--device cuda:x", ["--device cuda:x: unknown", "expected auto, cpu, cuda or cuda:N"]),
        ("--device cuda:99", ["--device cuda:99: this machine offers", "use auto or cpu"]),
        ("--colour red", ["No such option", "--colour", "--help"]),
    ],
    ids=lambda value: value.replace(" ", "=") if isinstance(value, str) else "",
)
def test_train_option_is_refused(small_root: Path, options: str, says: list[str]) -> None:
    refuse("train", *FOLDER, *TINY, "--root", small_root, "--out", "phase1", *options.split(), says=says)


def test_unknown_weights_are_named(small_root: Path) -> None:
    says = ["--weights best: cannot be had for resnet18", "expected DEFAULT or a name from torchvision"]
    network = ["--arch", "resnet18", "--weights", "best", "--device", "cpu"]
    refuse("train", *FOLDER, *network, "--root", small_root, says=says)


@pytest.mark.parametrize("arch", ["resnet21", "vgg16"])
def test_bad_arch_is_named_before_the_size_it_would_have(arch: str) -> None:
    refuse("train", "--arch", arch, "--device", "cpu", says=[f"--arch {arch}", "expected one of resnet20, "])


def test_large_image_network_is_refused_for_small_images() -> None:
    says = ["--image-size 224: digits images are 32×32", "CIFAR stem (resnet32"]
    refuse("train", "--arch", "resnet18", "--device", "cpu", says=says)


@pytest.mark.parametrize("dataset", ["imagefolder", "cifar10", "cifar100"])
def test_missing_root_option_is_named(dataset: str) -> None:
    says = [f"--dataset {dataset} needs --root", "folder that holds the images"]
    refuse("train", "--dataset", dataset, *TINY, says=says)


def test_cifar_that_is_not_there(tmp_path: Path) -> None:
    says = [f"{tmp_path}: no intact cifar10", "--download", "--root"]
    refuse("train", "--dataset", "cifar10", "--root", tmp_path, *TINY, says=says)


def test_val_folder_and_val_per_class_together(images: Path) -> None:
    write_images(images, splits=["val"])
    command = ["train", *FOLDER, *TINY, "--root", images, "--out", "phase1"]
    refuse(*command, "--val-per-class", 1, says=[images / "val", "--val-per-class must be 0"])
    succeed(*command)


def test_single_image_that_no_batch_norm_can_take(images: Path) -> None:
    """19 images leave a last batch of one, whose 1×1 maps have no variance."""
    shutil.copy(images / "train" / "cat" / "0.png", images / "train" / "cat" / "4.png")
    network = ["--arch", "resnet18-cifar", "--width", 4, "--batch-size", 9, "--epochs", 1, "--device", "cpu"]
    data = ["--dataset", "imagefolder", "--root", images, "--image-size", 8]
    command = ["train", *data, *network, "--out", "phase1"]
    says = ["--batch-size 9: leaves a batch of one of the 19 training images", "choose another --batch-size"]
    refuse(*command, says=says)
    succeed(*command, "--batch-size", 8)


# Where Phase I is written


def test_train_out_that_holds_a_finished_run(small_root: Path, small_ckpt: Path) -> None:
    shutil.copytree(small_ckpt.parent, "phase1")
    command = ["train", *FOLDER, *TINY, "--root", small_root, "--out", "phase1"]
    refuse(*command, says=["phase1: already holds a finished run", "--overwrite", "another --out"])
    refuse(*command, "--overwrite", "--val-per-class", 9, says=["--val-per-class 9"])  # the old run stays
    succeed(*command, "--overwrite", "--seed", 1)
    assert load_checkpoint(Path("phase1/checkpoint.pt")).config["seed"] == 1


def test_train_out_that_holds_a_damaged_checkpoint(small_root: Path) -> None:
    Path("phase1").mkdir()
    Path("phase1/checkpoint.pt").write_text("damaged")
    command = ["train", *FOLDER, *TINY, "--root", small_root, "--out", "phase1"]
    refuse(*command, says=["phase1/checkpoint.pt: not a checkpoint"])
    succeed(*command, "--overwrite")


def test_resume_of_a_finished_run(small_ckpt: Path) -> None:
    says = [small_ckpt.parent, "is finished (epoch 1)", "nothing to resume"]
    refuse("train", "--out", small_ckpt.parent, "--resume", says=says)


def test_resume_of_nothing() -> None:
    says = ["nowhere/checkpoint.pt: expected a checkpoint file, found nothing", "`train` writes one"]
    refuse("train", "--out", "nowhere", "--resume", says=says)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--epochs 3", ["epochs was 1", "asks 3"]),
        ("--batch-size 16", ["batch_size was 8", "asks 16"]),
        ("--lr 0.5", ["lr was 0.1", "asks 0.5"]),
        ("--width 8", ["width was 4", "asks 8"]),
        ("--imbalance-factor 2", ["imbalance_factor was None", "asks 2.0"]),
        ("--seed 1", ["seed was 0", "asks 1"]),
    ],
    ids=lambda value: value.replace(" ", "=") if isinstance(value, str) else "",
)
def test_resume_with_a_changed_option(
    small_root: Path, monkeypatch: pytest.MonkeyPatch, options: str, says: list[str]
) -> None:
    interrupt_training(small_root, monkeypatch)
    says = ["phase1: cannot resume", *says, "leave the option out, or start anew with --overwrite"]
    refuse("train", "--out", "phase1", "--resume", *options.split(), says=says)


def interrupt_training(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a run in phase1 that was interrupted in its first epoch."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("extract.train._epoch", interrupt)
        result = run("train", *FOLDER, *TINY, "--root", root, "--out", "phase1")
    assert result.exit_code == 130
    assert result.stderr == "tailcache: interrupted; go on with: train --out phase1 --resume\n"


def test_train_out_that_holds_an_interrupted_run(small_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_training(small_root, monkeypatch)
    command = ["train", *FOLDER, *TINY, "--root", small_root, "--out", "phase1"]
    refuse(*command, says=["phase1: already holds an unfinished run", "--resume", "--overwrite"])
    succeed("train", "--out", "phase1", "--resume")


def test_resume_after_the_images_changed(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_training(images, monkeypatch)
    (images / "train" / "bee" / "5.png").unlink()
    says = ["phase1: the images or labels changed", "start anew"]
    refuse("train", "--out", "phase1", "--resume", says=says)


@pytest.mark.parametrize("out", ["file", "file/out", "file/deep/out"])
@pytest.mark.parametrize("command", ["train", "extract", "finetune", "analyze"])
def test_output_under_a_file_is_refused(
    command: str, out: str, small_root: Path, small_ckpt: Path, small_store: Path, digits_run: Path
) -> None:
    Path("file").write_text("not a folder")
    commands = {
        "train": [*FOLDER, *TINY, "--root", small_root, "--out", out],
        "extract": ["--ckpt", small_ckpt, "--device", "cpu", "--store", f"{out}/feats.zarr"],
        "finetune": ["--store", small_store, *QUICK, *FEW_CLASSES, "--out", out],
        "analyze": [digits_run, "--out", out],
    }
    refuse(command, *commands[command], says=["file: ", "another"])


# Checkpoints


def random_bytes(path: Path, _: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(1000))


def a_text_file(path: Path, _: Path) -> None:
    path.write_text("epoch,loss\n1,2.3\n")


def an_empty_file(path: Path, _: Path) -> None:
    path.touch()


def a_folder(path: Path, _: Path) -> None:
    path.mkdir()


def a_missing_file(path: Path, _: Path) -> None:
    pass


def a_truncated_checkpoint(path: Path, good: Path) -> None:
    path.write_bytes(good.read_bytes()[:5000])


def a_truncated_pickle(path: Path, _: Path) -> None:
    path.write_bytes(pickle.dumps({"epoch": [1, 2.0, "three"]}, protocol=2)[:-6])


class Code:
    """Unpickling it makes a folder."""

    def __reduce__(self) -> tuple:
        return Path.mkdir, (Path("the-code-ran"),)


def a_pickle_with_code(path: Path, _: Path) -> None:
    path.write_bytes(pickle.dumps(Code(), protocol=2))


def a_torch_file_with_code(path: Path, _: Path) -> None:
    torch.save({"format": "tailcache-checkpoint", "format_version": 1, "state": Code()}, path)


def another_programs_state(path: Path, _: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(3), "fc.bias": torch.zeros(3)}, path)


def a_tensor(path: Path, _: Path) -> None:
    torch.save(torch.zeros(3), path)


def a_newer_version(path: Path, good: Path) -> None:
    torch.save(torch.load(good, weights_only=True) | {"format_version": 99}, path)


def one_without_its_data(path: Path, good: Path) -> None:
    content = torch.load(good, weights_only=True)
    del content["dataset"]
    torch.save(content, path)


def another_networks_weights(path: Path, good: Path) -> None:
    checkpoint = load_checkpoint(good)
    save_checkpoint(replace(checkpoint, network=checkpoint.network | {"arch": "resnet32"}), path)


def another_widths_weights(path: Path, good: Path) -> None:
    checkpoint = load_checkpoint(good)
    save_checkpoint(replace(checkpoint, network=checkpoint.network | {"width": 8}), path)


def nan_weights(path: Path, good: Path) -> None:
    checkpoint = load_checkpoint(good)
    bias = torch.full_like(checkpoint.state["classifier.bias"], torch.nan)
    save_checkpoint(replace(checkpoint, state=checkpoint.state | {"classifier.bias": bias}), path)


UNSAFE = ["not a checkpoint that can be read safely", "expected a checkpoint.pt written by `train`"]
FOREIGN = ["not a checkpoint of this program", "`train` writes one"]
OTHER_WEIGHTS = ["holds weights of another network than", "for 3 classes", "train again"]


@pytest.mark.parametrize("command", ["extract", "evaluate"])
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (random_bytes, UNSAFE),
        (a_text_file, UNSAFE),
        (an_empty_file, UNSAFE),
        (a_truncated_checkpoint, UNSAFE),
        (a_truncated_pickle, UNSAFE),
        (a_pickle_with_code, UNSAFE),
        (a_torch_file_with_code, UNSAFE),
        (a_folder, ["expected a checkpoint file, found a folder", "`train` writes one"]),
        (a_missing_file, ["expected a checkpoint file, found nothing", "`train` writes one"]),
        (another_programs_state, [*FOREIGN, "conv1.weight"]),
        (a_tensor, [*FOREIGN, "Tensor"]),
        (a_newer_version, ["checkpoint version 99, this program reads 1"]),
        (one_without_its_data, ["incomplete checkpoint, it lacks dataset", "train again"]),
        (another_networks_weights, [*OTHER_WEIGHTS, "resnet32"]),
        (another_widths_weights, [*OTHER_WEIGHTS, "resnet20"]),
        (nan_weights, ["classifier.bias holds NaN or infinite weights", "train again"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_checkpoint_is_refused(
    command: str, make: Callable[[Path, Path], None], says: list[str], small_ckpt: Path
) -> None:
    path = Path("given.pt")
    make(path, small_ckpt)
    refuse(command, "--ckpt", path, "--device", "cpu", says=["given.pt: ", *says])
    assert not Path("the-code-ran").exists()


def test_the_code_in_a_pickle_would_run(small_ckpt: Path) -> None:
    """The control for the refusals above."""
    a_pickle_with_code(Path("given.pt"), small_ckpt)
    pickle.loads(Path("given.pt").read_bytes())
    assert Path("the-code-ran").exists()


# Options of extract and evaluate


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--store feats.h5", ["feats.h5: unknown container '.h5'", "ending in .zarr"]),
        ("--store feats", ["feats: unknown container '(no suffix)'", "ending in .zarr"]),
        ("--batch-size 0", ["--batch-size 0: must be 1 or more"]),
        ("--workers -1", ["--workers -1: must be 0 or more"]),
        ("--map-dtype float8", ["--map-dtype", "'float8' is not one of", "'float16'"]),
        ("--device tpu", ["--device tpu: unknown", "expected auto, cpu"]),
        ("--device cuda:99", ["--device cuda:99: this machine offers", "use auto or cpu"]),
    ],
    ids=lambda value: value.replace(" ", "=") if isinstance(value, str) else "",
)
def test_extract_option_is_refused(small_ckpt: Path, options: str, says: list[str]) -> None:
    refuse("extract", "--ckpt", small_ckpt, "--device", "cpu", *options.split(), says=says)


def test_existing_store_is_kept_without_overwrite(small_ckpt: Path, small_store: Path) -> None:
    shutil.copytree(small_store, "feats.zarr")
    command = ["extract", "--ckpt", small_ckpt, "--store", "feats.zarr", "--device", "cpu"]
    refuse(*command, says=["feats.zarr: already exists", "--overwrite", "or name another"])
    an_empty_file(Path("empty.pt"), small_ckpt)
    with_bad_ckpt = ["extract", "--ckpt", "empty.pt", "--store", "feats.zarr", "--overwrite"]
    refuse(*with_bad_ckpt, says=["empty.pt"])  # and the store stays
    succeed(*command, "--overwrite")


def test_extraction_that_fails_half_way_leaves_nothing(
    small_ckpt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device", "feats.zarr/train")

    monkeypatch.setattr("store.writer.StoreWriter.finish", full_disk)
    says = ["feats.zarr/train: No space left on device"]
    refuse("extract", "--ckpt", small_ckpt, "--store", "feats.zarr", "--device", "cpu", says=says)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--split val", ["--split val: this data set has train, test", "train with --val-per-class"]),
        ("--split all", ["--split", "'all' is not one of", "'test'"]),
        ("--shot-rule mine", ["--shot-rule", "'mine' is not one of", "'decoupling'"]),
        ("--batch-size 0", ["--batch-size 0: must be 1 or more"]),
        ("--device tpu", ["--device tpu: unknown", "expected auto, cpu"]),
        ("--device cuda:99", ["--device cuda:99: this machine offers", "use auto or cpu"]),
    ],
    ids=lambda value: value.replace(" ", "=") if isinstance(value, str) else "",
)
def test_evaluate_option_is_refused(small_ckpt: Path, options: str, says: list[str]) -> None:
    refuse("evaluate", "--ckpt", small_ckpt, "--device", "cpu", *options.split(), says=says)


# Stores


def a_missing_store(path: Path) -> None:
    shutil.rmtree(path)


def an_empty_folder(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("no store")


def another_programs_store(path: Path) -> None:
    shutil.rmtree(path)
    zarr.create_group(path)


def a_bare_array(path: Path) -> None:
    shutil.rmtree(path)
    zarr.create_array(path, shape=(3,), dtype="float32")


def damaged_metadata(path: Path) -> None:
    (path / "zarr.json").write_text("{")


def damaged_array_metadata(path: Path) -> None:
    (path / "train" / "cam" / "zarr.json").write_text("{")


def unfinished(path: Path) -> None:
    del zarr.open_group(path, mode="r+").attrs["complete"]


def newer_version(path: Path) -> None:
    zarr.open_group(path, mode="r+").attrs["schema_version"] = 99


def no_cam(path: Path) -> None:
    shutil.rmtree(path / "train" / "cam")


def no_test_split(path: Path) -> None:
    shutil.rmtree(path / "test")


def no_classifier(path: Path) -> None:
    shutil.rmtree(path / "classifier")


def nan_classifier(path: Path) -> None:
    zarr.open_group(path, mode="r+")["classifier/bias"][0] = np.nan


def a_shard_removed(path: Path) -> None:
    shutil.rmtree(path / "train" / "feature_map" / "c")


def a_shard_cut_short(path: Path) -> None:
    shard = next(p for p in (path / "train" / "pooled" / "c").rglob("*") if p.is_file())
    shard.write_bytes(shard.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (a_missing_store, ["no such store", "`extract --store feats.zarr` makes it"]),
        (an_empty_folder, ["not a zarr v3 store", "expected one written by `extract`"]),
        (a_file, ["not a zarr v3 store", "expected one written by `extract`"]),
        (a_bare_array, ["not a zarr v3 store", "expected one written by `extract`"]),
        (damaged_metadata, ["not a zarr v3 store", "expected one written by `extract`"]),
        (damaged_array_metadata, ["metadata of train/cam are damaged", "extract again"]),
        (another_programs_store, ["not a feature store", "`extract` writes one"]),
        (unfinished, ["was never finished", "extract again with --overwrite"]),
        (newer_version, ["schema version 99, this program reads 1", "extract again"]),
        (no_cam, ["lacks train/cam", "extract again"]),
        (no_test_split, ["lacks test/label", "extract again"]),
        (no_classifier, ["lacks classifier/weight", "extract again"]),
        (nan_classifier, ["classifier holds NaN", "extract again"]),
        (a_shard_removed, ["train/feature_map", "extract again"]),
        (a_shard_cut_short, ["train/pooled", "extract again"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_store_is_refused(
    feature_store: Path, phase1: Path, damage: Callable[[Path], None], says: list[str]
) -> None:
    shutil.copytree(feature_store, "feats.zarr")
    damage(Path("feats.zarr"))
    command = ["finetune", "--store", "feats.zarr", "--ckpt", phase1, *QUICK]
    refuse(*command, says=["feats.zarr: ", *says])


@pytest.mark.parametrize("shard", [0, 1, 4])
def test_one_missing_shard_is_noticed(small_ckpt: Path, monkeypatch: pytest.MonkeyPatch, shard: int) -> None:
    """zarr reads an absent one as zeros; 18 rows in shards of 4 leave the last one half full."""
    row_bytes = 4 * 4 * 16 * 2
    monkeypatch.setattr("store.zarr_store.CHUNK_BYTES", row_bytes)
    monkeypatch.setattr("store.zarr_store.SHARD_BYTES", 4 * row_bytes)
    succeed("extract", "--ckpt", small_ckpt, "--store", "feats.zarr", "--device", "cpu")
    command = ["finetune", "--store", "feats.zarr", "--out", "fsa", *QUICK, *FEW_CLASSES]
    succeed(*command)
    shutil.rmtree(f"feats.zarr/train/feature_map/c/{shard}")
    says = ["feats.zarr: train/feature_map is damaged", "1 of its 5 files are missing", "extract again"]
    refuse(*command, "--overwrite", says=says)


def test_store_whose_checkpoint_is_gone(small_root: Path, small_ckpt: Path) -> None:
    shutil.copytree(small_ckpt.parent, "phase1")
    succeed("extract", "--ckpt", "phase1/checkpoint.pt", "--root", small_root, "--device", "cpu")
    shutil.move("phase1/checkpoint.pt", "elsewhere.pt")
    command = ["finetune", *QUICK, *FEW_CLASSES, "--store", "feats.zarr"]
    says = [Path("phase1/checkpoint.pt").resolve(), "is not there", "say where it lies with --ckpt"]
    refuse(*command, says=says)
    refuse(*command, "--ckpt", "nowhere.pt", says=["nowhere.pt", "is not there", "--ckpt"])
    succeed(*command, "--ckpt", "elsewhere.pt")


def test_store_whose_checkpoint_was_altered(small_root: Path, small_ckpt: Path) -> None:
    shutil.copytree(small_ckpt.parent, "phase1")
    path = Path("phase1/checkpoint.pt")
    succeed("extract", "--ckpt", path, "--root", small_root, "--device", "cpu")
    save_checkpoint(replace(load_checkpoint(path), epoch=99), path)
    command = ["finetune", *QUICK, *FEW_CLASSES, "--store", "feats.zarr"]
    says = ["is not the checkpoint that feats.zarr was extracted with", "point --ckpt at that one"]
    refuse(*command, says=[path.resolve(), *says])
    refuse(*command, "--ckpt", path, says=[path, *says])


# Options of Phase II


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--tau-s 0", ["--tau-s 0: must lie between 0 and 1"]),
        ("--tau-s 1", ["--tau-s 1: must lie between 0 and 1"]),
        ("--tau-s nan", ["--tau-s nan: must lie between 0 and 1"]),
        ("--tau-g 0", ["--tau-g 0: must lie between 0 and 1"]),
        ("--tau-g 1.5", ["--tau-g 1.5: must lie between 0 and 1"]),
        ("--batch-size 12", ["--batch-size 12: must be a multiple of", "= 8", "try 8"]),
        ("--batch-size 4", ["--batch-size 4: must be a multiple of", "= 8", "try 8"]),
        ("--batch-size 0", ["--batch-size 0: must be 2 or more"]),
        ("--augmented-per-sample 0", ["--augmented-per-sample 0: must be 1 or more"]),
        ("--head-ratio 1", ["--head-ratio 1: must lie between 0 and 1"]),
        ("--head-ratio 0", ["--head-ratio 0: must lie between 0 and 1"]),
        ("--head-ratio nan", ["--head-ratio nan: must lie between 0 and 1"]),
        ("--head-ratio 0.99", ["--head-ratio 0.99: takes all 10 classes", "lower it"]),
        ("--lr 0", ["--lr 0: must be above 0"]),
        ("--lr nan", ["--lr nan: must be above 0"]),
        ("--lr inf", ["--lr inf: must be above 0, and below 2^32"]),
        ("--momentum -0.1", ["--momentum -0.1: must be 0 or more"]),
        ("--seed -1", ["--seed -1: must be 0 or more"]),
        ("--iterations 0", ["--iterations 0: must be 1 or more"]),
        ("--eval-every 0", ["--eval-every 0: must be 1 or more"]),
        ("--confusing-classes 0", ["--confusing-classes 0: must be 1 or more"]),
        ("--confusing-classes 10", ["--confusing-classes 10: the store has 10 classes", "at most 9"]),
        ("--method best", ["--method", "'best' is not one of", "'fsa'"]),
        ("--device tpu", ["--device tpu: unknown", "expected auto, cpu"]),
        ("--device cuda:99", ["--device cuda:99: this machine offers", "use auto or cpu"]),
        ("--lr 1e300", ["--lr 1e+300: must be above 0", "below 2^32"]),
        ("--lr 4e9 --momentum 4e9 --iterations 9", ["diverged by iteration", "lower --lr"]),
    ],
    ids=lambda value: value.replace(" ", "=") if isinstance(value, str) else "",
)
def test_finetune_option_is_refused(feature_store: Path, options: str, says: list[str]) -> None:
    refuse("finetune", "--store", feature_store, "--out", "fsa", *QUICK, *options.split(), says=says)


def test_finetune_out_that_exists(feature_store: Path, digits_run: Path) -> None:
    shutil.copytree(digits_run, "fsa")
    command = ["finetune", "--store", feature_store, "--out", "fsa", *QUICK]
    refuse(*command, says=["fsa: already exists", "--overwrite", "or name another"])
    succeed(*command, "--overwrite")


@pytest.mark.parametrize("command", ["extract", "finetune"])
def test_overwrite_replaces_nothing_but_its_own_kind(
    command: str, small_ckpt: Path, feature_store: Path
) -> None:
    path = Path("papers.zarr")
    path.mkdir()
    (path / "thesis.txt").write_text("three years of work")
    commands = {
        "extract": ["--ckpt", small_ckpt, "--store", path, "--device", "cpu"],
        "finetune": ["--store", feature_store, "--out", path, *QUICK],
    }
    refuse(
        command,
        *commands[command],
        "--overwrite",
        says=["papers.zarr: already exists and is no", "name another"],
    )


# Runs


def no_run(path: Path) -> None:
    shutil.rmtree(path)


def no_files(path: Path) -> None:
    an_empty_folder(path)


def a_phase1_folder(path: Path) -> None:
    (path / "summary.json").unlink()
    (path / "predictions.csv").unlink()


def damaged_summary(path: Path) -> None:
    (path / "summary.json").write_text((path / "summary.json").read_text()[:40])


def binary_summary(path: Path) -> None:
    (path / "summary.json").write_bytes(b"\xff\xfe\x00binary")


def empty_metrics(path: Path) -> None:
    (path / "metrics.csv").write_text("")


def foreign_config(path: Path) -> None:
    (path / "config.json").write_text('{"learning_rate": 1}')


def foreign_predictions(path: Path) -> None:
    (path / "predictions.csv").write_text("image,guess\na.png,3\n")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (no_run, ["no such run folder", "`finetune --out", "makes one"]),
        (no_files, ["not a finished fine-tuning run", "lacks config.json", "written by `finetune`"]),
        (a_phase1_folder, ["not a finished fine-tuning run", "lacks summary.json", "`finetune`"]),
        (damaged_summary, ["a file of this run is damaged", "run `finetune` again"]),
        (binary_summary, ["a file of this run is damaged", "run `finetune` again"]),
        (empty_metrics, ["a file of this run is damaged", "run `finetune` again"]),
        (foreign_config, ["a file of this run is damaged", "run `finetune` again"]),
        (foreign_predictions, ["a file of this run is damaged", "run `finetune` again"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_run_is_refused(digits_run: Path, damage: Callable[[Path], None], says: list[str]) -> None:
    shutil.copytree(digits_run, "fsa")
    damage(Path("fsa"))
    refuse("analyze", digits_run, "fsa", "--out", "report", says=[Path("fsa").resolve(), *says])


def test_runs_of_different_data_sets(digits_run: Path, small_store: Path) -> None:
    succeed("finetune", "--store", small_store, "--out", "small", *QUICK, *FEW_CLASSES)
    says = [Path("small").resolve(), "other classes or test images", digits_run, "one data set at a time"]
    refuse("analyze", digits_run, "small", "--out", "report", says=says)


def test_class_names_that_look_like_something_else(tmp_path: Path) -> None:
    """A class may be called 007 or None; its runs are still of one data set."""
    root = write_images(tmp_path / "images", {"007": 8, "None": 6, "nan": 4})
    succeed("train", *FOLDER, *TINY, "--root", root, "--out", "phase1")
    succeed("extract", "--ckpt", "phase1/checkpoint.pt", "--store", "feats.zarr", "--device", "cpu")
    for seed in (0, 1):
        succeed(
            "finetune", "--store", "feats.zarr", "--out", f"run{seed}", "--seed", seed, *QUICK, *FEW_CLASSES
        )
    succeed("analyze", "run0", "run1", "--out", "report")
    names = [line.split(",")[1] for line in Path("report/per_class.csv").read_text().splitlines()[1:]]
    assert names == ["007", "None", "nan"]


# The command line itself


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fly"], ["No such command 'fly'", "--help"]),
        (["extract"], ["Missing option '--ckpt'", "extract --help"]),
        (["finetune"], ["Missing option '--store'", "finetune --help"]),
        (["analyze"], ["Missing argument", "analyze --help"]),
        (["train", "--dataset", "mnist"], ["--dataset", "'mnist' is not one of", "'imagefolder'"]),
    ],
    ids=["command", "extract", "finetune", "analyze", "dataset"],
)
def test_usage_error_is_one_line(arguments: list[str], says: list[str]) -> None:
    refuse(*arguments, says=says)
