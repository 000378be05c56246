"""The command that a sweep prints makes exactly the head of the sweep."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bad_input import succeed

import cli
from finetune.config import FinetuneConfig
from finetune.sweep.config import SweepConfig
from finetune.sweep.folder import head_id
from finetune.sweep.repeat import finetune_command, free_folder
from store.errors import UserError

pytestmark = pytest.mark.usefixtures("in_tmp_path")
SHORT = ["--iterations", 20, "--window", 8, "--device", "cpu"]
GRID = (
    "method=fsa,no-aug,plain,crt,lws,tau-norm,ncm,logit-adjustment,class-balanced,focal,weight-balancing",
    "lr=none,0.001,0.0001234,1e-12",
    "tau=-0.5,1,1.5",
    "loss=none,ce,balanced-softmax,class-balanced,class-balanced-bce",
    "tail_samples=none,4,16",
    "batch_size=none,64,128",
    "augmented_per_sample=3,7",
    "confusing_classes=none,3,5",
    "keep=last,best",
    "eval_every=5,100",
    "max_norm=none,0.3,relative",
    "max_norm_every=none,step,epoch",
    "distance=euclidean,cosine",
    "head_ratio=0.5,0.8",
    "momentum=0,0.9",
    "gamma_max=0.7,1",
)


def options_of(command: str) -> list[str]:
    return [word for word in shlex.split(command) if word.startswith("--")]


def config_of(command: str) -> FinetuneConfig:
    """Options of a printed command, parsed by the command line."""
    program, name, *arguments = shlex.split(command)
    assert (program, name) == ("tailcache", "finetune")
    values = cli.main.commands["finetune"].make_context(name, arguments).params
    return FinetuneConfig(**{key: value for key, value in values.items() if key != "as_json"})


def test_the_winner_repeated_has_the_bytes_of_the_sweeps_head(feature_store):
    """Executed as printed, with a store whose name a shell would split."""
    Path("two words").mkdir()
    Path("two words", "it's $HOME.zarr").symlink_to(feature_store)
    store = "two words/it's $HOME.zarr"
    grid = ["--grid", "method=fsa,crt", "--grid", "lr=0.003,0.02", "--seeds", 2, "--seed", 5]
    command = ["sweep", "--store", store, "--out", "sweep", *SHORT, *grid, "--heads"]
    command += ["--shot-rule", "oltr", "--select-on", "test"]
    printed = succeed(*command).stdout.splitlines()
    line = printed[printed.index("to run the best again:") + 1].strip()
    of_json = json.loads(succeed(*command, "--json", "--resume").stdout)
    assert of_json[0]["command"] == line
    succeed(*shlex.split(line)[1:])
    run = Path(shlex.split(line)[shlex.split(line).index("--out") + 1])
    config = json.loads((run / "config.json").read_text())
    assert (config["seed"], config["shot_rule"]) == (5, "oltr")
    configuration = of_json[0]["configuration"]
    assert configuration.startswith(f"{config['method']}, lr={config['lr']}")
    head = head_id(config_of(line).resolved(10))
    made, swept = (
        torch.load(path, weights_only=True) for path in (run / "head.pt", f"sweep/heads/{head}.pt")
    )
    for name in ("weight", "bias"):
        assert made[name].numpy().tobytes() == swept[name].numpy().tobytes()
    again = succeed(*command, "--resume").stdout.splitlines()[-1]
    assert "--out sweep-best-2" in again  # the printed command works, although sweep-best exists


def test_a_command_names_no_more_than_it_takes():
    base = FinetuneConfig("feats.zarr", seed=3, method="fsa")
    for config, expected in (
        (base, []),
        (replace(base, lr=0.001), []),  # fsa's own
        (replace(base, lr=0.01), ["--lr"]),
        (replace(base, method="crt", tau_s=0.5), []),  # does not use CAMs
        (replace(base, tail_samples=8), ["--tail-samples"]),  # the batch follows
        (replace(base, batch_size=64), ["--tail-samples"]),  # the same
        (replace(base, method="plain", batch_size=64), ["--batch-size"]),
        (replace(base, device="cpu", ckpt="c.pt"), ["--device", "--ckpt"]),
        (replace(base, select_on="test"), []),
        (replace(base, keep="best", select_on="test"), ["--keep", "--select-on"]),
        (replace(base, method="ncm", window=8, head_ratio=0.5, tau_s=0.5), ["--head-ratio"]),
    ):
        command = finetune_command(config.resolved(10), "out", 10)
        seed = [] if config.method == "ncm" else ["--seed"]
        assert set(options_of(command)) == {"--store", "--out", "--method", *seed, *expected}, command


@pytest.mark.parametrize("n_classes", [3, 10])
def test_any_configuration_is_told_whole(n_classes):
    """Random corners of the grid: the command's head has the id of the original head."""
    config = SweepConfig(
        FinetuneConfig("feats.zarr", iterations=20, shot_rule="oltr", method="fsa"), GRID, random=120, seeds=1
    )
    told = 0
    for one in config.configurations():
        try:
            resolved = one.resolved(n_classes)
        except UserError:  # options that cannot be combined
            continue
        told += 1
        command = finetune_command(resolved, "out", n_classes)
        repeated = config_of(command).resolved(n_classes)
        assert head_id(repeated) == head_id(resolved), command
        assert (repeated.seed, repeated.shot_rule, repeated.head_ratio) == (0, "oltr", resolved.head_ratio)
        assert finetune_command(repeated, "out", n_classes) == command
    assert told > 20


def test_a_sweep_whose_heads_all_diverge_has_no_best(feature_store):
    result = succeed(
        "sweep",
        "--store",
        feature_store,
        "--out",
        "sweep",
        *SHORT,
        "--iterations",
        60,
        "--lr",
        4e9,
        "--momentum",
        1e9,
        "--seeds",
        1,
    )
    assert "best again" not in result.stdout


def test_a_name_that_is_free():
    assert free_folder(Path("sweep"), "best") == "sweep-best"
    Path("sweep-best").mkdir()
    Path("sweep-best-2.unfinished.pt").touch()
    assert free_folder(Path("sweep"), "best") == "sweep-best-3"
