"""Options of networks as Python writes them: the same run as their texts on the command line."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bad_input import write_images

import tailcache as tc
from extract.config import ExtractConfig, TrainConfig
from extract.networks.arguments import arguments
from finetune.keywords import checked_options

pytestmark = pytest.mark.usefixtures("in_tmp_path")
FACTORY = """
from torch import nn

def net(width=6, name="", act=None):
    assert (name, act) == ("None", "relu")
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 9)]
    return nn.Sequential(nn.Conv2d(3, width, 4, 4), nn.ReLU(), *head)
"""
ARGUMENTS = {"width": 4, "name": "None", "act": "relu"}
TEXTS = ("width=4", "name='None'", "act=relu")


def content(path: Path) -> tuple[str, list[bytes]]:
    """All that a checkpoint holds, as text and bytes; but for the seconds that an epoch took."""
    held = torch.load(path, weights_only=True)
    for row in held["history"]:
        for name in [name for name in row if name.startswith("seconds")]:
            del row[name]
    plain = {name: value for name, value in held.items() if name not in ("state", "images")}
    return repr(plain), [tensor.numpy().tobytes() for tensor in held["state"].values()]


def test_python_s_own_forms_are_the_same_run():
    Path("option_nets.py").write_text(FACTORY)
    root = write_images(Path("photos"))
    shared = {"arch": "option_nets:net", "image_size": 16, "epochs": 1, "batch_size": 8, "device": "cpu"}
    forms = [
        {"mean": "0.5,0.25,0", "std": "0.5,1,0.125", "arch_option": list(TEXTS)},
        {"mean": (0.5, 0.25, 0), "std": [0.5, 1, 0.125], "arch_option": ARGUMENTS},
    ]
    made = [content(tc.train(root, out="p", overwrite=True, **shared, **form)) for form in forms]
    assert made[0] == made[1]
    assert "(0.5, 0.25, 0.0)" in made[0][0]
    again = tc.train(out="p", resume=True, arch="option_nets:net", mean=(0.5, 0.25, 0))
    assert content(again) == made[0]
    with pytest.raises(tc.UserError, match="mean"):
        tc.train(out="p", resume=True, arch="option_nets:net", mean=(0.5, 0.5, 0.5))


@pytest.mark.parametrize("config_class", [TrainConfig, ExtractConfig])
def test_arrays_and_other_numbers_are_three_numbers(config_class):
    for value in (np.array([0.5, 0.25, 1.0]), (np.float64(0.5), 0.25, np.int64(1)), [0.5, 0.25, 1]):
        text = checked_options(config_class, "f", {"mean": value})["mean"]
        assert text in ("0.5,0.25,1.0", "0.5,0.25,1")
        assert type(text) is str
    assert checked_options(config_class, "f", {"std": None}) == {"std": None}
    odd = [(0.5, 0.5), (0.5,) * 4, 0.5, ("0.5",) * 3, (True,) * 3, {}, np.zeros((3, 3)), (0.5, None, 1j)]
    for value in odd:
        with pytest.raises(tc.UserError, match=r"--mean .*: expected three numbers, as in \(0.5, 0.5, 0.5\)"):
            checked_options(config_class, "f", {"mean": value})
    with pytest.raises(tc.UserError, match=r"--mean 0.5,0.5,7.0: expected three numbers from 0 to 1"):
        tc.train(write_images(Path("photos" + config_class.__name__)), out="p", mean=(0.5, 0.5, 7.0))


KEPT = [
    0.1,
    -3,
    "relu",
    "None",
    "3",
    "it's",
    "'",
    "",
    " x",
    "a\nb",
    None,
    True,
    (1, 2),
    [1, "a"],
    {"a": (1,)},
]


@pytest.mark.parametrize("value", KEPT, ids=repr)
def test_arguments_reach_the_function_as_they_were_given(value):
    texts = checked_options(TrainConfig, "train", {"arch_option": {"x": value}})["arch_option"]
    found = arguments(SimpleNamespace(arch_option=texts))["x"]
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    "value", [object(), np.zeros(3), torch.zeros(2), int, float("nan"), 10**5000, [np.zeros(2)]], ids=type
)
def test_arguments_that_no_checkpoint_can_hold_are_refused(value):
    with pytest.raises(tc.UserError, match=r"--arch-option x: .* cannot be kept in a checkpoint") as raised:
        checked_options(TrainConfig, "train", {"arch_option": {"x": value}})
    assert "\n" not in str(raised.value)
