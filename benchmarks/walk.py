"""How far an FSA run jumps through the code: modules entered, and returns to modules it had left.

Usage: python benchmarks/walk.py [CHECKOUT]

Trains on digits for an epoch, extracts, and follows `finetune` in one thread. Only the first call of a
function counts, as for somebody who reads along; consecutive calls within one module are one stay. A return
is a stay in a module that was left before. CHECKOUT is a worktree of another commit. Takes half a minute.
"""

import os
import subprocess
import sys
import tempfile
from itertools import groupby
from pathlib import Path
from types import CodeType, FrameType

OURS = ("cli.py", "tailcache.py", "extract", "store", "finetune", "analysis")
QUICK = ("--arch", "resnet20", "--width", "4", "--epochs", "1", "--val-per-class", "10", "--device", "cpu")


def walked(root: Path, arguments: list[str]) -> list[str]:
    """Modules of all functions that a command calls, in the order of their first calls."""
    sys.path.insert(0, str(root))
    from cli import main

    modules: dict[CodeType, str | None] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code not in modules:
            file = Path(code.co_filename)
            ours = file.is_relative_to(root) and file.relative_to(root).parts[0] in OURS
            modules[code] = str(file.relative_to(root)) if ours else None

    def run() -> None:
        try:
            main(arguments)
        except SystemExit as end:  # the program always ends this way
            if end.code:
                raise

    run()  # so that everything is imported
    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return [module for module in modules.values() if module is not None]


def main() -> None:
    """Print every module with its number of stays, and the sums, also for `finetune/` alone."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        program = [sys.executable, root / "cli.py"]
        subprocess.run([*program, "train", "--imbalance-factor", "20", *QUICK, "--out", "phase1"], check=True)
        extract = ["extract", "--ckpt", "phase1/checkpoint.pt", "--store", "feats.zarr", "--device", "cpu"]
        subprocess.run([*program, *extract], check=True)
        command = [
            "finetune",
            "--store",
            "feats.zarr",
            "--method",
            "fsa",
            "--out",
            "run",
            "--iterations",
            "20",
            "--device",
            "cpu",
        ]
        functions = walked(root, [*command, "--prefetch", "0", "--overwrite"])
    stays = [module for module, _ in groupby(functions)]
    for module in dict.fromkeys(stays):
        print(f"{stays.count(module):4}  {module}")
    for name, some in (
        ("all", functions),
        ("finetune/", [f for f in functions if f.startswith("finetune/")]),
    ):
        stays = [module for module, _ in groupby(some)]
        n_modules, n_returns = len(set(stays)), len(stays) - len(set(stays))
        print(f"{name}: {n_modules} modules, {len(some)} functions, {n_returns} returns")


if __name__ == "__main__":
    main()
