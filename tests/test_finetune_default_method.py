"""What `finetune --store` does without further options."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from bad_input import refuse, succeed
from made_interrupt import finetune_interrupted

from finetune.config import FinetuneConfig
from finetune.train import finetune

pytestmark = pytest.mark.usefixtures("in_tmp_path")


@pytest.fixture
def config(feature_store) -> FinetuneConfig:
    return FinetuneConfig(str(feature_store), "run", iterations=40, device="cpu")


def test_the_default_is_fsas_samples_in_uniform_batches_with_a_corrected_loss(config, quiet):
    """To the bit what these options make of `fsa`; and the halves of both are Algorithm 1's."""
    assert FinetuneConfig("").method == "fsa+balanced-softmax"
    corrected = {"loss": "balanced-softmax", "tau": 1.25, "weight_decay": 0.01, "mix_share": 0.25}
    for sampling in ("uniform", "halves"):
        first = finetune(replace(config, out=f"a-{sampling}", sampling=sampling), quiet)
        written = {"method": "fsa", "sampling": sampling} | corrected
        second = finetune(replace(config, out=f"b-{sampling}", **written), quiet)
        assert (first.path / "head.pt").read_bytes() == (second.path / "head.pt").read_bytes()


def test_an_option_of_algorithm_1_alone_is_told(feature_store):
    """For the default has other batches."""
    command = ["finetune", "--store", feature_store, "--out", "r", "--iterations", 4, "--device", "cpu"]
    for option in (["--fuse-after", "layer2"], ["--tail-draw", "samples"]):
        told = succeed(*command, *option, "--overwrite").stderr
        assert f"{option[0]} changes nothing for fsa+balanced-softmax" in told


QUICK = ["--iterations", 4, "--device", "cpu", "--seeds", 1]


def test_a_tau_that_is_named_is_another_sweep(feature_store):
    """Where nothing is named, each method has its own."""
    command = ["sweep", "--store", feature_store, "--out", "s", *QUICK]
    command += ["--grid", "method=balanced-softmax,fsa+balanced-softmax"]
    succeed(*command)
    before = Path("s/results.csv").read_bytes()
    refuse(*command, "--tau", 1.25, "--resume", says=["cannot resume: tau was None, this command has 1.25"])
    succeed(*command, "--resume")
    assert Path("s/results.csv").read_bytes() == before


@pytest.mark.parametrize("varied", [["--study", "gamma"], ["--grid", "lr=0.001,0.01"]])
def test_a_sweep_of_the_former_defaults_goes_on(feature_store, varied):
    """With the command that began it, which named neither method nor tau; its heads are not trained again."""
    command = ["sweep", "--store", feature_store, "--out", "s", *QUICK, *varied]
    succeed(*command, *([] if "--study" in varied else ["--method", "fsa"]))
    marker = json.loads(Path("s/sweep.json").read_text())
    marker["options"] |= {"method": "fsa", "tau": 1.0}  # as an older version recorded them
    Path("s/sweep.json").write_text(json.dumps(marker))
    heads = {file.name: file.read_bytes() for file in Path("s/done").iterdir()}
    refuse(*command, says=["s: holds this sweep"])
    succeed(*command, "--resume")
    assert {file.name: file.read_bytes() for file in Path("s/done").iterdir()} == heads
    if "--grid" in varied:
        named = ["--method", "fsa+balanced-softmax", "--resume"]
        refuse(
            *command, *named, says=["cannot resume: method was fsa, this command has fsa+balanced-softmax"]
        )


def test_a_run_of_the_former_default_says_what_to_add(config):
    finetune_interrupted(replace(config, method="fsa", window=8), lambda n_windows, start: start >= 20)
    command = ["finetune", "--store", config.store, "--out", "run", "--iterations", 40, "--device", "cpu"]
    refuse(
        *command, "--resume", says=["cannot resume: method was fsa", "command with --method fsa, or start"]
    )
    succeed(*command, "--method", "fsa", "--resume")
