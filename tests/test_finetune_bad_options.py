"""Options of Phase II that are refused in one line with nothing written; unusual ones that are accepted."""

import sys
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from bad_input import FEW_CLASSES, QUICK, refuse, succeed

from finetune.config import FinetuneConfig
from finetune.train import finetune
from finetune.training.head_pool import HeadPool
from finetune.training.resume import RUN_FORMAT, unfinished_path
from store.errors import Interrupted

pytestmark = pytest.mark.usefixtures("in_tmp_path")
HINTS = get_type_hints(FinetuneConfig, include_extras=True)


def named(*kinds: object) -> list[str]:
    """Options of these types, optional ones included, as on the command line."""
    found = []
    for field in fields(FinetuneConfig):
        assert get_origin(HINTS[field.name]) is Annotated
        kind = get_args(HINTS[field.name])[0]
        if kind in kinds or set(get_args(kind)) & set(kinds) or get_origin(kind) in kinds:
            found.append("--" + field.name.replace("_", "-"))
    return found


FLOATS, INTEGERS = named(float), named(int)


def test_every_kind_of_option_is_among_the_refused():
    assert {"--lr", "--memory", "--tau", "--beta", "--gamma-min", "--cache-gib"} <= set(FLOATS)
    assert {"--seed", "--batch-size", "--tail-samples", "--window", "--prefetch"} <= set(INTEGERS)
    others = named(str, bool, Literal) + [
        f"--{name}" for name in ("loss", "schedule", "init", "max-norm-every", "sampling", "mix-classes")
    ]
    assert set(FLOATS + INTEGERS + others) == {"--" + f.replace("_", "-") for f in HINTS}


def of_fsa(options: str) -> list[str]:
    """Options, with Algorithm 1 unless they name a method."""
    given = options.split()
    return given if "--method" in options else ["--method", "fsa", *given]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e300"])
@pytest.mark.parametrize("option", FLOATS)
def test_no_number_option_takes_what_is_no_number(feature_store: Path, option: str, value: str) -> None:
    refuse("finetune", "--store", feature_store, "--out", "fsa", *QUICK, option, value, says=[option, "must"])


@pytest.mark.parametrize("value", ["-1", "4294967296", "99999999999999999999", "1.5", "nan", ""])
@pytest.mark.parametrize("option", INTEGERS)
def test_no_count_option_takes_what_is_no_count(feature_store: Path, option: str, value: str) -> None:
    refuse("finetune", "--store", feature_store, "--out", "fsa", *QUICK, option, value, says=[option])


@pytest.mark.parametrize(
    "option",
    [*named(Literal), "--method", "--loss", "--schedule", "--init", "--max-norm-every", "--sampling"],
)
def test_a_choice_lists_what_can_be_chosen(feature_store: Path, option: str) -> None:
    says = [f"'{option}': 'unknown' is not one of '"]
    refuse("finetune", "--store", feature_store, "--out", "fsa", *QUICK, option, "unknown", says=says)


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
        ("--head-ratio 1", ["--head-ratio 1.0: must lie between 0 and 1"]),
        ("--head-ratio 0", ["--head-ratio 0.0: must lie between 0 and 1"]),
        ("--head-ratio nan", ["--head-ratio nan: must lie between 0 and 1"]),
        ("--head-ratio 0.99", ["--head-ratio 0.99: makes all 10 classes head classes", "lower it"]),
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
        ("--device cuda:99", ["--device cuda:99: this machine has", "use auto or cpu"]),
        ("--lr 1e300", ["--lr 1e+300: must be above 0", "below 2^32"]),
        (
            "--lr 4e9 --momentum 4e9 --iterations 9",
            ["diverged: the loss is NaN or infinite at iteration", "lower --lr"],
        ),
    ],
    ids=lambda value: value.replace(" ", "=") if isinstance(value, str) else "",
)
def test_finetune_option_out_of_bounds_is_refused(feature_store: Path, options: str, says: list[str]) -> None:
    refuse("finetune", "--store", feature_store, "--out", "fsa", *QUICK, *of_fsa(options), says=says)


ABOVE_0, SHARES = "must be above 0, and below 2^32", "must be shares from 0 to 1, the first not larger than"
NO_NUMBERS = "makes weights that are NaN or infinite; use a --tau closer to 0"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--max-norm relatve", ["'--max-norm': 'relatve' is neither a number nor 'relative'"]),
        ("--memory 0", ["--memory 0: ", ABOVE_0]),
        ("--memory -1", ["--memory -1: ", ABOVE_0]),
        ("--max-norm 0", ["--max-norm 0: ", ABOVE_0]),
        ("--cache-gib 0", ["--cache-gib 0: must be above 0"]),
        ("--weight-decay -1e-9", ["--weight-decay -1e-09: must be 0 or more"]),
        ("--focal-gamma -0.5", ["--focal-gamma -0.5: must be 0 or more"]),
        ("--beta 1", ["--beta 1: must be at least 0, and below 1"]),
        ("--beta -0.1", ["--beta -0.1: must be at least 0, and below 1"]),
        ("--gamma-min -0.1", ["--gamma-min -0.1, --gamma-max 1: ", SHARES]),
        ("--gamma-max 1.1", ["--gamma-min 0, --gamma-max 1.1: ", SHARES]),
        ("--gamma-min 0.6 --gamma-max 0.4", ["--gamma-min 0.6, --gamma-max 0.4: ", SHARES]),
        ("--tail-samples 0", ["--tail-samples 0: must be 1 or more"]),
        ("--window 0", ["--window 0: must be 1 or more"]),
        (
            "--tail-samples 16 --batch-size 64",
            ["--batch-size 64: 16 tail samples with 3 augmented ones each make 128; give only one of"],
        ),
        ("--method plain --tail-samples 3 --batch-size 7", ["--batch-size 7: 3 tail samples", "make 24"]),
        ("--method no-aug --batch-size 12", ["--batch-size 12: must be a multiple of", "try 8"]),
        ("--augmented-per-sample 64", ["--augmented-per-sample 64: a batch of 128", "--batch-size to 130"]),
        (
            "--augmented-per-sample 64 --batch-size 128",
            ["--batch-size 128: must be a multiple of", "= 130", "try 130"],
        ),
        ("--augmented-per-sample 4294967295", ["--augmented-per-sample 4294967295: a batch of 128"]),
        (
            "--donors head --head-ratio 0.9 --confusing-classes 8",
            ["--confusing-classes 8: with --donors head there are only 7 donor classes; lower it"],
        ),
        (
            "--donors head --head-ratio 0.05",
            ["--confusing-classes 3: with --donors head there are only 1 donor classes"],
        ),
        (
            "--residency stream --memory 1e-5",
            ["--memory 1e-05: the maps of one iteration take", "raise it, or lower --batch-size"],
        ),
        ("--memory 1e-300", ["the maps of one iteration take"]),
        ("--residency host --memory 1e-5", ["--residency host: ", "(--memory); use --residency stream"]),
        ("--residency device --memory 1e-5", ["--residency device: ", "(--memory); use --residency stream"]),
        (
            "--resume --overwrite",
            ["fsa: --resume continues a run and --overwrite replaces it; pass only one"],
        ),
        ("--cache /dev/null", ["/dev/null: cannot be used as --cache"]),
        ("--method tau-norm --tau 1e9", ["--method tau-norm, --tau 1e+09: ", NO_NUMBERS]),
        ("--method tau-norm --tau -1e9", ["--method tau-norm, --tau -1e+09: ", NO_NUMBERS]),
        ("--method tau-norm --tau 1000", ["--method tau-norm, --tau 1000: ", NO_NUMBERS]),
        ("--method weight-balancing --weight-decay 4e9 --iterations 20", ["diverged", "lower --lr"]),
        ("--method lws --lr 4e9 --momentum 4e9 --iterations 20", ["diverged", "lower --lr"]),
    ],
    ids=lambda value: value.replace(" ", "=") if isinstance(value, str) else "",
)
def test_finetune_option_is_refused(feature_store: Path, options: str, says: list[str]) -> None:
    refuse("finetune", "--store", feature_store, "--out", "fsa", *QUICK, *of_fsa(options), says=says)


@pytest.mark.parametrize(
    "options",
    [
        "--beta 0 --loss class-balanced",
        "--beta 0.9999999999999999 --loss class-balanced",
        "--gamma-min 1 --gamma-max 1",
        "--gamma-max 0",
        "--tau -1 --method logit-adjustment",
        "--tau 4e9 --method logit-adjustment",
        "--tau 4e9 --loss balanced-softmax",
        "--focal-gamma 0 --loss focal",
        "--focal-gamma 4e9 --loss focal",
        "--max-norm 1e-300",
        "--weight-decay 0 --method crt",
        "--batch-size 3 --method plain",
        "--tail-samples 1",
        "--tail-samples 3 --method plain",
        "--tail-samples 16 --batch-size 128",
        "--augmented-per-sample 63",
        "--augmented-per-sample 63 --method plain",
        "--augmented-per-sample 640 --method plain",
        "--donors head --head-ratio 0.9 --confusing-classes 7",
        "--window 4294967295 --prefetch 4294967295",
        "--residency stream --memory 0.01 --window 1 --prefetch 0",
        "--method plain --residency stream --memory 1e-300",
        "--seed 4294967295",
        "--eval-every 4294967295",
    ],
    ids=lambda value: value.replace(" ", "="),
)
def test_odd_options_that_mean_something_are_taken(feature_store: Path, options: str) -> None:
    succeed("finetune", "--store", feature_store, "--out", "fsa", *QUICK, *options.split())


def test_event_files_without_tensorboard(feature_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    command = ["finetune", "--store", feature_store, "--out", "fsa", *QUICK]
    refuse(*command, "--tensorboard", says=["--tensorboard: needs `pip install tensorboard`"])
    succeed(*command)


@pytest.fixture
def interrupted(feature_store: Path, monkeypatch: pytest.MonkeyPatch, quiet) -> list[object]:
    """A command whose run was interrupted and has left its state."""

    def interrupting(self, window):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(HeadPool, "train_on", interrupting)
        with pytest.raises(Interrupted):
            finetune(
                FinetuneConfig(
                    str(feature_store), "fsa", iterations=2, eval_every=1, device="cpu", method="fsa"
                ),
                quiet,
            )
    assert unfinished_path("fsa").exists()
    return ["finetune", "--store", feature_store, "--out", "fsa", *QUICK]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--ckpt nowhere.pt", ["nowhere.pt", "is not there"]),
        (
            "--donors head --head-ratio 0.9 --confusing-classes 8",
            ["with --donors head there are only 7 donor classes"],
        ),
        ("--device tpu", ["--device tpu: unknown"]),
        ("--lr 4e9 --momentum 4e9 --iterations 9", ["diverged"]),
    ],
    ids=str,
)
def test_a_refused_run_spares_the_state_that_it_was_to_replace(
    interrupted: list[object], options: str, says: list[str]
) -> None:
    """`refuse` checks that no file disappears."""
    refuse(*interrupted, "--overwrite", *options.split(), says=says)
    succeed(*interrupted, "--overwrite")
    assert not unfinished_path("fsa").exists()


@pytest.mark.parametrize("method", ["no-aug", "ncm"])
def test_resume_with_another_method(interrupted: list[object], method: str) -> None:
    """Even one that does not train, and so has no use for a state."""
    says = [f"cannot resume: method was fsa, this command has {method}"]
    refuse(*interrupted, "--resume", "--method", method, says=says)
    refuse(*interrupted, "--method", method, says=["an interrupted run; pass --resume to continue it"])


def test_keep_best_without_val_spares_the_state_too(small_store: Path) -> None:
    of_another_day = RUN_FORMAT.marks | {"options": "{}", "store": "", "state": {}}
    torch.save(of_another_day, unfinished_path("fsa"))
    command = ["finetune", "--store", small_store, "--out", "fsa", *QUICK, *FEW_CLASSES]
    refuse(*command, "--overwrite", "--keep", "best", says=["--keep best: the store has no val split"])
    succeed(*command, "--overwrite")
    assert not unfinished_path("fsa").exists()
