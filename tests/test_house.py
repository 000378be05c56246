"""The house: which way imports go, and how large a room may be."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "store": set(),
    "analysis": {"store"},
    "extract": {"store", "analysis"},
    "finetune": {"extract", "store", "analysis"},
    "console": {"store", "analysis"},
    "advice": {"console", "store"},
    "early": {"finetune", "extract", "store"},
    "store_commands": {"advice", "early", "console", "finetune", "extract", "store", "analysis"},
    "cli": {"advice", "early", "console", "store_commands", "finetune", "extract", "store", "analysis"},
}
SOURCES = [
    ROOT / "cli.py",
    ROOT / "advice.py",
    ROOT / "console.py",
    ROOT / "early.py",
    ROOT / "store_commands.py",
    *(p for room in MAY_IMPORT for p in sorted((ROOT / room).glob("*.py"))),
]


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            rooms.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            rooms |= {alias.name.split(".")[0] for alias in node.names}
    return rooms & MAY_IMPORT.keys()


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    room = path.stem if path.parent == ROOT else path.parent.name
    assert imported_rooms(path) <= MAY_IMPORT[room] | {room}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_room_is_too_large(path):
    text = path.read_text()
    assert text.count("\n") <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name
            assert len(node.args.args) + len(node.args.kwonlyargs) <= 8, node.name


def test_nothing_is_unpickled():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert any(k.arg == "weights_only" and k.value.value is True for k in node.keywords), path
