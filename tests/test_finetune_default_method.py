"""What `finetune --store` does without further options."""

from dataclasses import replace

import pytest
from bad_input import succeed

from finetune.config import FinetuneConfig
from finetune.train import finetune

pytestmark = pytest.mark.usefixtures("in_tmp_path")


@pytest.fixture
def config(feature_store) -> FinetuneConfig:
    return FinetuneConfig(str(feature_store), "run", iterations=40, device="cpu")


def test_the_default_is_fsas_samples_in_uniform_batches_with_a_corrected_loss(config, quiet):
    """To the bit what these options make of `fsa`; and the halves of both are Algorithm 1's."""
    assert FinetuneConfig("").method == "fsa+balanced-softmax"
    corrected = {"loss": "balanced-softmax", "tau": 1.25, "weight_decay": 0.01}
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
