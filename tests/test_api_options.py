"""Numbers, truth values and strings of any type as options: accepted, or refused in one line."""

import enum
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from bad_input import refuse

import tailcache as tc
from extract.config import ExtractConfig, TrainConfig
from extract.deploy.config import ExportConfig, PredictConfig
from finetune.commands.options import option_fields
from finetune.config import FinetuneConfig
from finetune.keywords import checked_options
from finetune.sweep.config import SweepConfig
from store.options import flag

CONFIGS = {"train": TrainConfig, "extract": ExtractConfig, "finetune": FinetuneConfig, "sweep": SweepConfig}
CONFIGS |= {"predict": PredictConfig, "export": ExportConfig}
HUGE = 10**400  # not a float
pytestmark = pytest.mark.usefixtures("in_tmp_path")


class Method(str, enum.Enum):  # noqa: UP042, for it is printed otherwise than a StrEnum
    """A choice as an enum."""

    CRT = "crt"


def numeric(config_class: type, kind: type) -> list[str]:
    """Options that are integers, or any numbers."""
    found = option_fields(config_class)
    return [field.name for field, hint, _ in found if kind in getattr(hint, "__args__", (hint,))]


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), HUGE, -HUGE], ids=lambda v: f"{v}"[:5]
)
@pytest.mark.parametrize("name", numeric(FinetuneConfig, float))
def test_numbers_that_cannot_be_are_refused_in_the_command_lines_words(feature_store, name, value):
    line = refuse("finetune", "--store", feature_store, f"{flag(name)}={value}", says=[flag(name)])
    with pytest.raises(tc.UserError) as refused:
        tc.finetune(feature_store, **{name: value})
    assert line == f"tailcache: {refused.value}"


@pytest.mark.parametrize("value", [-1, 2**32, HUGE, -HUGE], ids=lambda v: f"{v}"[:5])
@pytest.mark.parametrize("name", numeric(FinetuneConfig, int))
def test_whole_numbers_that_cannot_be(feature_store, name, value):
    line = refuse("finetune", "--store", feature_store, f"{flag(name)}={value}", says=[flag(name)])
    with pytest.raises(tc.UserError) as refused:
        tc.finetune(feature_store, **{name: value})
    assert line == f"tailcache: {refused.value}"


@pytest.mark.parametrize("function", CONFIGS)
def test_any_value_is_one_of_pythons_own_or_refused_in_one_line(function):
    """Accepted values go into config.json and checkpoints, which hold no other types."""
    config_class = CONFIGS[function]
    odd = [True, np.True_, np.int8(3), np.float16(0.5), np.float64("nan"), np.longdouble("1e4000"), -0.0]
    odd += [HUGE, 10**5000, -(10**5000), Fraction(1, 3), Fraction(10**5000), Decimal("0.1"), 1j, "0.1", b"1"]
    odd += [
        np.str_("crt"),
        Method.CRT,
        np.zeros((9, 9)),
        np.float32([0.1]),
        torch.tensor(0.1),
        [0.1],
        {},
        None,
    ]
    own, refusals = {bool, int, float, str, tuple, type(None)}, []
    for field, _, _ in option_fields(config_class):
        for value in odd:
            try:
                (taken,) = checked_options(config_class, function, {field.name: value}).values()
            except tc.UserError as error:
                refusals.append((flag(field.name), str(error)))
            else:
                assert type(taken) in own, (field.name, value)
                assert type(taken) is not bool or isinstance(value, bool | np.bool_)
    assert len(refusals) > len(odd)
    for option, line in refusals:
        assert line.startswith(option)
        assert "\n" not in line
        assert len(line) < 400


def test_numpys_truth_values_and_texts_are_pythons():
    given = {"tensorboard": np.False_, "method": np.str_("crt"), "loss": Method.CRT, "out": np.str_("r")}
    with pytest.raises(tc.UserError, match=r"--loss <Method\.CRT: 'crt'>: expected one of 'ce', "):
        checked_options(FinetuneConfig, "finetune", given)
    given["loss"] = None
    taken = checked_options(FinetuneConfig, "finetune", given | {"device": Method.CRT})
    assert taken == {"tensorboard": False, "method": "crt", "loss": None, "out": "r", "device": "crt"}
    assert {type(value) for value in taken.values()} == {bool, str, type(None)}


@pytest.mark.parametrize(
    ("grid", "says"),
    [
        ({"lr": 10**5000}, "--lr: must be below 2^32, found a whole number of 16,610 bits"),
        ({"lr": [0.1, HUGE]}, "--lr inf: must be above 0, and below 2^32"),
        ({"lr": object}, "lr=<class 'object'>: expected a number"),
        (np.zeros((9, 9)), "sweep: array([[0., 0., 0., "),
        (None, "sweep: None: expected values by option"),
    ],
)
def test_values_that_no_option_of_a_sweep_can_have(feature_store, grid, says):
    with pytest.raises(tc.UserError) as refused:
        tc.sweep(feature_store, out="s", grid=grid)
    assert str(refused.value).startswith(says)
