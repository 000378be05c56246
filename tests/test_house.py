"""The house: which way imports go, how large a room may be, and what is said of public names and tests."""

import ast
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "store": set(),
    "analysis": {"store"},
    "extract": {"store", "analysis"},
    "finetune": {"extract", "store", "analysis"},
    "cli": {"finetune", "extract", "store", "analysis"},
    "tailcache": {"finetune", "extract", "store", "analysis"},
}
PACKAGES = [room for room in MAY_IMPORT if (ROOT / room).is_dir()]
MODULES = [ROOT / "cli.py", ROOT / "tailcache.py"]
SOURCES = [*MODULES, *(path for room in PACKAGES for path in sorted((ROOT / room).rglob("*.py")))]
TREES = {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in SOURCES}
TESTS = {path.name: ast.parse(path.read_text()) for path in sorted((ROOT / "tests").glob("*.py"))}
OF_THE_WHOLE = ("api", "docs", "golden", "gpu_script", "house", "mutants", "versions", "wheel", "whole_way")
MODULES_A_FOLDER, LINES_A_FILE, LINES_A_FUNCTION, LINES_WITH_A_LOOP, ARGUMENTS = 15, 300, 40, 60, 8


def imported(tree: ast.Module) -> set[str]:
    """Modules of ours that a file imports anywhere in it, inside functions too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] in MAY_IMPORT}


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    """Every function of a file."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def public(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Functions and classes that others may use, and the methods of those classes."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_"]
    for node in [*tree.body, *(member for of in classes for member in of.body)]:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node


def test_the_rooms_that_are_installed_are_those_that_are_held_to_the_house():
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["options"]["py_modules"].split(", ") == ["cli", "tailcache"]
    assert sorted(setup["options.packages.find"]["include"].split()) == sorted(f"{p}*" for p in PACKAGES)
    assert sorted(ROOT.glob("*.py")) == MODULES


def test_imports_go_one_way():
    for name, tree in TREES.items():
        room = Path(name).with_suffix("").parts[0]
        assert {of.split(".")[0] for of in imported(tree)} <= MAY_IMPORT[room] | {room}, name


def test_no_imports_run_in_a_circle():
    modules = {name.removesuffix(".py").replace("/", "."): tree for name, tree in TREES.items()}
    needs = {name: (imported(tree) & modules.keys()) - {name} for name, tree in modules.items()}
    while free := [name for name, of in needs.items() if not of & needs.keys()]:
        for name in free:
            del needs[name]
    assert not needs  # else each of these imports another of them


def test_no_file_is_too_large():
    for path in [*SOURCES, *(ROOT / "tests" / name for name in TESTS)]:
        assert path.read_text().count("\n") <= LINES_A_FILE, path


def test_no_function_is_too_long():
    for name, tree in TREES.items():
        for function in functions(tree):
            loops = any(isinstance(node, ast.For | ast.While) for node in ast.walk(function))
            told = (ast.get_docstring(function, clean=False) or "").count("\n") + 1
            n_lines = function.end_lineno - function.lineno + 1 - told
            assert n_lines <= (LINES_WITH_A_LOOP if loops else LINES_A_FUNCTION), (name, function.name)
            assert len(function.args.args + function.args.kwonlyargs) <= ARGUMENTS, (name, function.name)


def test_a_folder_is_seen_at_a_glance():
    for folder in {path.parent for path in SOURCES} - {ROOT}:
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= MODULES_A_FOLDER, folder
        assert (folder / "__init__.py").exists(), folder


def test_whatever_is_public_says_what_it_is():
    for name, tree in TREES.items():
        assert ast.get_docstring(tree), name
        for node in public(tree):
            assert ast.get_docstring(node), (name, node.name)


def test_nothing_is_unpickled():
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert any(k.arg == "weights_only" and k.value.value is True for k in node.keywords), name


def test_a_test_file_is_named_after_what_it_is_about():
    """The package, or what holds of the whole program; tests/README.md says where a test goes."""
    kinds = "|".join([*MAY_IMPORT, *OF_THE_WHOLE])
    names = [name for name in TESTS if name.startswith("test_")]
    assert [name for name in names if not re.fullmatch(rf"test_({kinds})(_\w+)?\.py", name)] == []


def test_no_two_tests_have_one_name():
    functions_of = Counter(function.name for tree in TESTS.values() for function in functions(tree))
    assert [name for name, n in functions_of.items() if name.startswith("test_") and n > 1] == []


def test_modules_that_tests_share_are_told_of():
    """So that nobody writes one again."""
    told = (ROOT / "tests" / "README.md").read_text()
    assert [name for name in TESTS if not name.startswith("test_") and f"`{name[:-3]}`" not in told] == [
        "conftest.py"
    ]


def test_git_passes_over_what_commands_make_and_over_no_room(tmp_path):
    made = ["runs/demo/x", "report/summary.csv", "data/x.bin", "feats.zarr/zarr.json", "a/b.h5", "build/x"]
    rooms = [
        "analysis/report/tables.py",
        "analysis/runs/x.py",
        "extract/data/x.py",
        "tests/data/s.zarr/zarr.json",
    ]
    for command in (["init", "-q", str(tmp_path)], ["-C", str(tmp_path), "config", "core.excludesFile", ""]):
        subprocess.run(["git", *command], check=True)
    (tmp_path / ".gitignore").write_text((ROOT / ".gitignore").read_text())
    asked = subprocess.run(
        ["git", "check-ignore", "--no-index", *made, *rooms], cwd=tmp_path, capture_output=True, text=True
    )
    assert asked.stdout.split() == made
