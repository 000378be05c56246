"""Options of Phase I that are refused, and folders that it must not write to."""

import shlex
import shutil
from pathlib import Path

import pytest
from bad_input import FEW_CLASSES, FOLDER, QUICK, TINY, refuse, run, snapshot, succeed, write_images

from extract.checkpoints.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("in_tmp_path")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--imbalance-factor 0.5", ["--imbalance-factor 0.5: must be 1"]),
        ("--imbalance-factor -3", ["--imbalance-factor -3: must be 1"]),
        ("--imbalance-factor nan", ["--imbalance-factor nan: must be 1"]),
        ("--imbalance-factor inf", ["--imbalance-factor inf: must be 1"]),
        ("--imbalance-factor 50", ["--imbalance-factor 50: leaves class 1 of 3", "must be below 4"]),
        ("--val-per-class 4", ["--val-per-class 4: class 2 has 4 training images", "at least one"]),
        ("--val-per-class -1", ["--val-per-class -1: must be 0 or more"]),
        ("--arch resnet21", ["--arch resnet21: unknown", "expected one of resnet8, "]),
        ("--arch vgg16", ["--arch vgg16: refused", "more than one FC layer", "expected one of resnet8, "]),
        ("--arch vit_b_16", ["--arch vit_b_16: refused", "sees one token", "expected one of resnet8, "]),
        (
            "--arch convnext_tiny",
            ["--arch convnext_tiny: refused", "layer_norm stands", "expected one of resnet8, "],
        ),
        ("--arch resnet18 --width 8", ["--width 8: resnet18 has a fixed width", "choose one of resnet8, "]),
        ("--width 0", ["--width 0: must be 1 or more"]),
        ("--width 99999999999999999999", ["--width 99999999999999999999: must be 1 or more, and below 2^32"]),
        ("--weights DEFAULT", ["--weights DEFAULT: resnet8 has no pre-trained weights"]),
        ("--image-size 7", ["--image-size 7: must be 8 or more"]),
        ("--epochs 0", ["--epochs 0: must be 1 or more"]),
        ("--epochs two", ["--epochs", "'two' is not a valid integer", "--help"]),
        ("--batch-size 0", ["--batch-size 0: must be 1 or more"]),
        ("--lr nan", ["--lr nan: must be 0 or more, and below 2^32"]),
        ("--lr -1", ["--lr -1.0: must be 0 or more"]),
        ("--momentum -1", ["--momentum -1.0: must be 0 or more"]),
        ("--momentum 1.5", ["--momentum 1.5: must be 0 or more, and below 1"]),
        ("--weight-decay inf", ["--weight-decay inf: must be 0 or more, and below 2^32"]),
        ("--workers -1", ["--workers -1: must be 0 or more"]),
        ("--seed -1", ["--seed -1: must be 0 or more"]),
        ("--seed 99999999999999999999", ["--seed 99999999999999999999: must be 0 or more, and below 2^32"]),
        ("--eval-every 0", ["--eval-every 0: must be 1 or more"]),
        ("--recipe long", ["--recipe", "'long' is not one of", "'cifar-lt'", "--help"]),
        ("--device tpu", ["--device tpu: unknown", "expected auto, cpu, cuda or cuda:N"]),
        ("--device mps", ["--device mps: unknown", "expected auto, cpu, cuda or cuda:N"]),
        ("--device cuda:x", ["--device cuda:x: unknown", "expected auto, cpu, cuda or cuda:N"]),
        ("--device cuda:99", ["--device cuda:99: this machine has", "use auto or cpu"]),
        ("--colour red", ["No such option", "--colour", "--help"]),
    ],
    ids=lambda value: value.replace(" ", "=") if isinstance(value, str) else "",
)
def test_train_option_is_refused(small_root: Path, options: str, says: list[str]) -> None:
    refuse("train", *FOLDER, *TINY, "--root", small_root, "--out", "phase1", *options.split(), says=says)


def test_unknown_weights_are_named(small_root: Path) -> None:
    says = ["--weights best: cannot be loaded for resnet18", "expected DEFAULT or a name from torchvision"]
    network = ["--arch", "resnet18", "--weights", "best", "--device", "cpu"]
    refuse("train", *FOLDER, *network, "--root", small_root, says=says)


@pytest.mark.parametrize("arch", ["resnet21", "vgg16"])
def test_bad_arch_is_named_before_the_size_it_would_have(arch: str) -> None:
    refuse("train", "--arch", arch, "--device", "cpu", says=[f"--arch {arch}", "expected one of resnet8, "])


def test_large_image_network_is_refused_for_small_images() -> None:
    says = ["--image-size 224: digits images are 32×32", "small images (resnet32, "]
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
    says = [
        "--batch-size 9: leaves one of 19 training images alone in a batch",
        "choose another --batch-size",
    ]
    refuse(*command, says=says)
    succeed(*command, "--batch-size", 8)


def test_train_out_that_holds_a_finished_run(small_root: Path, small_ckpt: Path) -> None:
    shutil.copytree(small_ckpt.parent, "phase1")
    command = ["train", *FOLDER, *TINY, "--root", small_root, "--out", "phase1"]
    refuse(*command, says=["phase1: already holds a finished run", "--overwrite", "another --out"])
    refuse(*command, "--overwrite", "--val-per-class", 9, says=["--val-per-class 9"])  # the old run stays
    succeed(*command, "--overwrite", "--seed", 1)
    assert load_checkpoint(Path("phase1/checkpoint.pt")).config["seed"] == 1


def test_train_out_that_holds_a_damaged_checkpoint(small_root: Path, small_ckpt: Path) -> None:
    shutil.copytree(small_ckpt.parent, "phase1")
    Path("phase1/checkpoint.pt").write_text("damaged")
    command = ["train", *FOLDER, *TINY, "--root", small_root, "--out", "phase1"]
    refuse(*command, says=["phase1/checkpoint.pt: not a checkpoint"])
    succeed(*command, "--overwrite")


def test_resume_of_a_finished_run(small_ckpt: Path) -> None:
    """As after Ctrl-C once the last epoch was written: nothing is left to do, and nothing changes."""
    before = snapshot(small_ckpt.parent)
    result = succeed("train", "--out", small_ckpt.parent, "--resume")
    assert f"note: {small_ckpt.parent}: was already finished (epoch 1)" in result.stderr
    assert "1 epoch, accuracy in %" in result.stdout
    assert snapshot(small_ckpt.parent) == before
    says = ["epochs was 1", "now it is 3"]
    refuse("train", "--out", small_ckpt.parent, "--resume", "--epochs", 3, says=says)


def test_resume_of_nothing() -> None:
    says = ["nowhere/checkpoint.pt: no such checkpoint to resume", "leave --resume out", "another --out"]
    refuse("train", "--out", "nowhere", "--resume", says=says)


def test_resume_and_overwrite_together(small_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_training(small_root, monkeypatch)
    refuse(
        "train",
        "--out",
        "phase1",
        "--resume",
        "--overwrite",
        says=["phase1: --resume", "pass only one of them"],
    )


@pytest.mark.parametrize("name", ["checkpoint.pt", "config.json", "metrics.csv", "thesis.txt"])
@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_train_out_that_holds_files_of_others(small_root: Path, name: str, overwrite: list[str]) -> None:
    Path("phase1").mkdir()
    Path("phase1", name).write_text("three years of work")
    command = ["train", *FOLDER, *TINY, "--root", small_root, "--out", "phase1", *overwrite]
    refuse(
        *command,
        says=[
            "phase1: already exists and is not a training run that may be replaced",
            f"holds {name}",
            "name another",
        ],
    )


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_train_out_that_holds_a_run_of_phase_2(
    small_root: Path, digits_run: Path, overwrite: list[str]
) -> None:
    shutil.copytree(digits_run, "fsa")
    command = ["train", *FOLDER, *TINY, "--root", small_root, "--out", "fsa", *overwrite]
    refuse(*command, says=["fsa: holds a run of `finetune`", "name another --out"])


def test_interrupted_before_the_first_checkpoint(small_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to resume, so the message says how to start again."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    command = ["train", *FOLDER, *TINY, "--root", small_root, "--out", "phase1"]
    with monkeypatch.context() as patch:
        patch.setattr("extract.train.start_training", interrupt)
        result = run(*command)
    assert result.exit_code == 130
    said, _, advised = result.stderr.partition(": main train ")
    assert said == "tailcache: interrupted before anything new was saved; start again with"
    options = sorted(zip(*[iter(shlex.split(advised))] * 2, strict=True))
    assert options == sorted(zip(*[iter(map(str, command[1:]))] * 2, strict=True))
    succeed(*command)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--epochs 3", ["epochs was 1", "now it is 3"]),
        ("--batch-size 16", ["batch_size was 8", "now it is 16"]),
        ("--lr 0.5", ["lr was 0.1", "now it is 0.5"]),
        ("--width 8", ["width was 4", "now it is 8"]),
        ("--imbalance-factor 2", ["imbalance_factor was None", "now it is 2.0"]),
        ("--seed 1", ["seed was 0", "now it is 1"]),
    ],
    ids=lambda value: value.replace(" ", "=") if isinstance(value, str) else "",
)
def test_resume_with_a_changed_option(
    small_root: Path, monkeypatch: pytest.MonkeyPatch, options: str, says: list[str]
) -> None:
    interrupt_training(small_root, monkeypatch)
    says = ["phase1: cannot resume", *says, "leave the option out, or start over with --overwrite"]
    refuse("train", "--out", "phase1", "--resume", *options.split(), says=says)


def interrupt_training(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a run in phase1 that was interrupted in its first epoch."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("extract.train.take_step", interrupt)
        result = run("train", *FOLDER, *TINY, "--root", root, "--out", "phase1")
    assert result.exit_code == 130
    assert result.stderr.endswith("tailcache: interrupted; continue with: main train --out phase1 --resume\n")


def test_train_out_that_holds_an_interrupted_run(small_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_training(small_root, monkeypatch)
    command = ["train", *FOLDER, *TINY, "--root", small_root, "--out", "phase1"]
    refuse(*command, says=["phase1: already holds an interrupted run", "--resume", "--overwrite"])
    succeed("train", "--out", "phase1", "--resume")


def test_resume_after_the_images_changed(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_training(images, monkeypatch)
    (images / "train" / "bee" / "5.png").unlink()
    says = ["phase1: was trained on other images", "1 missing (the first is train/bee/5.png)", "train again"]
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
