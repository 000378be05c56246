"""Every command that the documents show is one that the command line takes."""

import re
import shlex
from pathlib import Path

import pytest

from cli import main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = [
    (page.name, line.strip())
    for page in PAGES
    for line in re.findall(r"^\s*\$ (?:tailcache|python cli\.py) +(.*)$", page.read_text(), re.MULTILINE)
    if not line.startswith("--")
]
OPTION = re.compile(r"`(train|extract|finetune|sweep|contest|evaluate|analyze|predict|export) (--[^`]*)`")


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=lambda value: str(value)[:60])
def test_commands_parse(page, command):
    name, *arguments = shlex.split(command.split(" #")[0])
    main.commands[name].make_context(name, arguments)


def test_there_are_commands_to_check():
    assert len(COMMANDS) >= 6


def test_options_in_tables_exist():
    found = [match for page in PAGES for match in OPTION.findall(page.read_text())]
    assert found
    for name, options in found:
        known = {flag for parameter in main.commands[name].params for flag in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", options)) <= known


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} → {target}"


SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "store-format.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.split(maxsplit=2)[1])
def test_snippets_read_a_store(snippet, tmp_path, monkeypatch, capsys):
    golden = ROOT / "tests" / "data"
    (tmp_path / "feats.zarr").symlink_to(golden / "golden_v1.zarr")
    (tmp_path / "feats.h5").symlink_to(golden / "golden_v1.h5")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(snippet, names)
    assert capsys.readouterr().out == "ape (2, 3, 4)\n"
    if "file" in names:
        names["file"].close()


def test_there_is_a_snippet_for_each_container():
    assert len(SNIPPETS) >= 2
