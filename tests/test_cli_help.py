"""`--help`: every option under a heading, texts that stand alone, examples that work."""

import os
import re
import shlex
import subprocess
import sys
from unittest.mock import patch

import click
import pytest

import cli
from extract.config import DatasetConfig, NetworkConfig, TrainConfig
from extract.deploy.config import ExportConfig, PredictConfig
from extract.images.augmentation.config import AugmentConfig
from extract.training.losses.config import LossConfig
from extract.training.optimisation.config import OptimConfig
from finetune.commands.examples import EXAMPLES
from finetune.commands.help import GroupedOption
from finetune.config import FinetuneConfig
from finetune.sweep.config import SweepConfig
from store.config import ConvertConfig
from store.errors import UserError
from store.options import GROUPS, check_bounds, flag, own_options

STORE = cli.main.commands["store"]
COMMANDS = {
    **{(name,): command for name, command in cli.main.commands.items() if name != "store"},
    **{("store", name): command for name, command in STORE.commands.items()},
}
GROUPED = [
    (path, p) for path, command in COMMANDS.items() for p in command.params if p.param_type_name == "option"
]


def shown(*path: str, columns: str = "80") -> str:
    """Output of `--help` on a screen of that width."""
    context = click.Context(cli.main, info_name="tailcache", **cli.SETTINGS)
    for name in path:
        context = click.Context(context.command.commands[name], parent=context, info_name=name)
    with patch.dict(os.environ, COLUMNS=columns):
        return context.get_help() + "\n"


def headings(text: str) -> list[str]:
    return re.findall(r"^(\w+):$", text, re.MULTILINE)


def under(text: str, heading: str) -> list[str]:
    part = text.partition(f"\n{heading}:\n")[2].partition("\n\n")[0]
    return re.findall(r"^  (?:-h, )?(--[a-z-]+)", part, re.MULTILINE)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_stands_once_under_the_heading_of_its_group(path):
    text = shown(*path)
    found = headings(text)
    titles = [group.capitalize() for group in GROUPS]
    assert [title for title in titles if title in found] == [h for h in found if not h.startswith("Example")]
    for option in (p for p in COMMANDS[path].params if isinstance(p, click.Option)):
        assert isinstance(option, GroupedOption), option.name
        places = [heading for heading in found if option.opts[0] in under(text, heading)]
        assert places == [option.group.capitalize()], option.name


def test_options_stand_where_one_looks_for_them():
    text = shown("finetune")
    assert headings(text)[0] == "Files"
    assert under(text, "Files")[0] == "--store"
    assert {"--iterations", "--lr", "--momentum", "--seed"} <= set(under(text, "Schedule"))
    assert {"--tau-s", "--donors", "--tail-samples"} <= set(under(text, "Augmentation"))
    assert under(text, "Choosing") == [
        "--keep",
        "--select-on",
        "--rank-by",
        "--eval-every",
        "--folds",
        "--fold-seed",
    ]
    assert {"--device", "--residency", "--memory"} <= set(under(text, "Machine"))
    assert "--grid" in under(shown("sweep"), "Sweep")
    assert {"--dataset", "--root"} <= set(under(shown("train"), "Data"))
    assert {"--arch", "--width", "--weights", "--arch-option", "--ema"} == set(
        under(shown("train"), "Network")
    )


@pytest.mark.parametrize(
    ("path", "option"), GROUPED, ids=lambda v: " ".join(v) if isinstance(v, tuple) else v.name
)
def test_a_help_text_is_understood_by_itself(path, option):
    """Without its neighbours."""
    assert len(option.help) >= 8
    assert not re.match(r"(of|that|it|its|the same|for|where it)\b", option.help), option.help
    assert not option.help.endswith(".")


def test_a_default_that_is_none_is_told_in_words():
    """A default of None still means something: the recipe's, the method's, all images."""
    silent = {"root", "ckpt", "arch"}  # needed only if something has moved
    phases = (TrainConfig, DatasetConfig, NetworkConfig, FinetuneConfig, SweepConfig)
    for config in (*phases, ConvertConfig, PredictConfig, ExportConfig):
        for name, (_, option) in own_options(config).items():
            if getattr(config, name, 0) is None and name not in silent:
                assert option.default, name


def test_the_texts_say_default_and_choices():
    text = " ".join(shown("train", columns="200").split())
    assert "--epochs N passes over the training images [default: the recipe's]" in text
    assert "--momentum X SGD momentum [default: 0.9]" in text
    assert "one of step, cosine, one-cycle [default: the recipe's]" in text
    assert "--nesterov / --no-nesterov Nesterov momentum [default: the recipe's, else no]" in text
    names = "short, cosine, cifar-lt, imagenet-lt, places-lt, inaturalist, strong, strong-200"
    assert f"one of {names} [default: short]" in text
    assert "places-lt: 30 epochs, lr 0.001 divided by 10 after 10, 20, batch 128, decay 0.0005" in text
    assert "[required]" in shown("evaluate")


@pytest.mark.parametrize("columns", ["60", "80", "100", "200"])
@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_width_is_used_and_kept(path, columns):
    """Texts are in one column under all headings; nothing is wider than the screen, or than 100."""
    body = re.split(r"\nExamples?:\n", shown(*path, columns=columns))[0]
    lines = body.splitlines()
    assert max(map(len, lines)) <= min(int(columns), 100)
    starts = {re.match(r"  (-h, )?--\S+( \S+)?  +(?=\S)", line) for line in lines if line.startswith("  -")}
    assert len({found.end() for found in starts if found}) == 1
    assert "\xa0" not in body


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_commands_that_the_program_takes(name):
    for line in EXAMPLES[name]:
        program, *words = shlex.split(line)
        assert program == "tailcache"
        path = tuple(words[: 2 if words[0] == "store" else 1])
        context = COMMANDS[path].make_context(path[-1], words[len(path) :])
        values = {key: value for key, value in context.params.items() if key != "as_json"}
        assert name in ("main", "store", path[-1]), line
        if path == ("sweep",):
            base = FinetuneConfig(
                **{key: value for key, value in values.items() if key not in own_options(SweepConfig)}
            )
            sweep = SweepConfig(base, **{key: values[key] for key in own_options(SweepConfig)})
            assert len(sweep.configurations()) > 1
            assert all(one.resolved(10) for one in sweep.configurations())
        elif path == ("finetune",):
            FinetuneConfig(**values).resolved(10)


def test_every_help_ends_with_its_examples():
    for path, command in {(): cli.main, ("store",): STORE, **COMMANDS}.items():
        lines = shown(*path, columns="80").rstrip().splitlines()
        examples = EXAMPLES[command.name]
        assert [line.strip() for line in lines[-len(examples) :]] == list(examples)
        assert all(len(line) <= 90 for line in lines)


def test_commands_are_told_in_the_order_of_their_use_and_in_full():
    text = shown(columns="60")
    names = re.findall(r"^  (\w+)  ", text.partition("\nCommands:\n")[2], re.MULTILINE)
    in_use = ["train", "extract", "finetune", "sweep", "contest", "evaluate", "analyze", "predict", "export"]
    assert names == [*in_use, "demo", "store"]
    assert "..." not in text.partition("\nCommands:\n")[2]
    for command in cli.main.commands.values():
        assert " ".join(command.help.split("\n\n")[0].split()).removesuffix(".") in " ".join(text.split())


def test_no_help_imports_anything_heavy():
    """Names of methods come from their registry, which imports nothing heavier than numpy."""
    heavy = ("torch", "torchvision", "zarr", "h5py", "pandas", "matplotlib", "sklearn", "scipy")
    code = f"""
import sys, cli
for path in {list(COMMANDS)}:
    try: cli.main([*path, "--help"])
    except SystemExit: pass
print([name for name in {heavy} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_bounds_stand_beside_their_fields():
    """A field with a bound is refused below it, and above its upper bound, 2^32 if none is said."""
    nested = (NetworkConfig(), LossConfig(), AugmentConfig(), OptimConfig())
    for config in (TrainConfig(), *nested, FinetuneConfig("s"), SweepConfig(FinetuneConfig("s"))):
        for name, (_, option) in own_options(type(config)).items():
            bound = option.least if option.least is not None else option.above
            if bound is None:
                continue
            highest = option.below if option.most is None else option.most + 1e-6
            wrong = [bound - 1, float("nan"), highest, *([bound] if option.above is not None else [])]
            says = " .* below (1|2\\^32)$" if option.most is None else f" from 0 to {option.most}$"
            says = (
                f" above 0, and {option.most} at most$" if None not in (option.above, option.most) else says
            )
            for value in wrong:
                changed = type(config)(**vars(config) | {name: value})
                with pytest.raises(UserError, match=f"^{flag(name)} .*must be{says}"):
                    check_bounds(changed)
            right = bound + 1 if option.below > 1 else bound
            check_bounds(type(config)(**vars(config) | {name: right}))
