import dataclasses
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import cli
from extract.config import EvaluateConfig, ExtractConfig, TrainConfig
from extract.deploy.config import ExportConfig, PredictConfig
from finetune.commands import console
from finetune.commands.options import build, option_fields
from finetune.compare.config import AnalyzeConfig
from finetune.config import FinetuneConfig
from finetune.demo import plan_demo
from store.notes import note

CONFIGS = {
    "train": TrainConfig,
    "extract": ExtractConfig,
    "finetune": FinetuneConfig,
    "evaluate": EvaluateConfig,
    "analyze": AnalyzeConfig,
    "predict": PredictConfig,
    "export": ExportConfig,
}
REQUIRED = {"ckpt": "c.pt", "store": "s.zarr", "out": "n.pt", "runs": ("r",), "images": ("i.png",)}
ARGUMENTS = {"runs", "images"}


@pytest.mark.parametrize("command", CONFIGS)
def test_options_and_config_fields_are_the_same(command):
    options = {p.name: p for p in cli.main.commands[command].params} | {}
    options.pop("as_json", None)
    options.pop("check_data", None)  # with it, `train` is another command, which takes the same config
    fields = {field.name for field, *_ in option_fields(CONFIGS[command])}
    assert options.keys() - ARGUMENTS == fields
    assert all(option.help for name, option in options.items() if name not in ARGUMENTS)


@pytest.mark.parametrize("command", CONFIGS)
def test_defaults_on_the_command_line_are_the_configs(command):
    config_class = CONFIGS[command]
    required = {
        f.name: REQUIRED[f.name]
        for f in dataclasses.fields(config_class)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    arguments = [f"--{name}={value}" for name, value in required.items() if name not in ARGUMENTS]
    arguments += [value for name in ARGUMENTS & required.keys() for value in required[name]]
    context = cli.main.commands[command].make_context(command, arguments)
    values = {name: value for name, value in context.params.items() if name != "as_json"}
    assert build(config_class, values) == config_class(**required)


def test_help_imports_nothing_heavy():
    heavy = ("torch", "torchvision", "zarr", "pandas", "matplotlib", "sklearn", "numpy")
    code = (
        "import sys, cli\n"
        "try: cli.main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_finetune_needs_no_torchvision():
    code = "import sys, finetune.train; print('torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_usage_errors_are_one_line():
    for arguments in (["finetune"], ["train", "--recipe", "none"], ["train", "--epochs", "many"], ["cook"]):
        result = CliRunner().invoke(cli.main, arguments)
        assert result.exit_code == 2
        assert len(result.stderr.strip().splitlines()) == 1


def test_without_a_command_it_shows_help():
    result = CliRunner().invoke(cli.main, [])
    assert result.exit_code == 0
    assert "finetune" in result.stdout


def test_every_command_has_help():
    for name in cli.main.commands:
        result = CliRunner().invoke(cli.main, [name, "--help"])
        assert result.exit_code == 0, result.output
        assert "Usage" in result.stdout


def test_demo_uses_three_seeds_and_separate_folders():
    plans = [plan_demo("runs/demo", seed, "cpu") for seed in (0, 1, 2)]
    assert len({plan.train.out for plan in plans}) == 3
    assert all(run.store == plan.extract.store for plan in plans for run in plan.finetune)
    assert {run.method for run in plans[0].finetune} == {"fsa", "no-aug"}
    assert [plan.train.seed for plan in plans] == [0, 1, 2]


def test_cli_file_runs_as_a_script():
    script = Path(cli.__file__)
    done = subprocess.run([sys.executable, script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("tailcache")


def test_notes_are_printed_once_and_only_while_a_command_runs():
    """Every package may give notes; the command line prints each line once."""

    @click.command(cls=console.Program, invoke_without_command=True)
    def noting():
        for _ in range(3):
            note("two lines\n of text")
        note("another")

    result = CliRunner().invoke(noting)
    assert result.stderr.splitlines() == ["tailcache: note: two lines of text", "tailcache: note: another"]
    assert result.stdout == ""
