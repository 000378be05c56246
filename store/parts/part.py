"""Which part of a store a process writes: one of `--part`, of a Slurm job array, or of torchrun's ranks."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from store.errors import UserError

SLURM = "slurm"
TASK = "SLURM_ARRAY_TASK_"
MOST = 100_000  # parts; more are a typing error


@dataclass(frozen=True)
class Part:
    """One part of a store.

    Attributes:
        number: from 1 to `count`.
        count: number of parts.
    """

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def name(self) -> str:
        """As in the names of files."""
        return f"{self.number}-of-{self.count}"


def parse_part(text: str, environment: Mapping[str, str] = os.environ) -> Part:
    """The part that `--part` names: `2/3`, or `slurm` for the task of a job array.

    Raises:
        UserError: it is neither, there is no such part, or this is no task of a job array.
    """
    if text == SLURM:
        return _of_slurm(environment)
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if found is None:
        raise UserError(f"--part {text}: expected i/n, such as 1/3 for the first of three parts, or {SLURM}")
    part = Part(int(found[1]), int(found[2]))
    if not 1 <= part.number <= part.count <= MOST:
        raise UserError(
            f"--part {text}: there is no such part; expected i/n with i from 1 to n, and n at most {MOST:,}"
        )
    return part


def _of_slurm(environment: Mapping[str, str]) -> Part:
    """The part of a Slurm array's task: its place among the array's tasks, which may start at any number."""
    task, first = (_number(environment, name) for name in ("ID", "MIN"))
    step = _number(environment, "STEP", 1)
    count = _number(environment, "COUNT", 0)
    last = _number(environment, "MAX", first + (count - 1) * step if count else None)
    in_row = (last - first) // max(1, step) + 1
    if not step or count not in (0, in_row) or not first <= task <= last or (task - first) % step:
        raise UserError(
            f"--part {SLURM}: task {task} of an array of {count or in_row} from {first} to {last} gives no "
            "part, since tasks are left out; submit --array=1-n, or name the part: --part 2/3"
        )
    return Part((task - first) // step + 1, in_row)


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(TASK + name)
    if text is None and default is not None:
        return default
    if text is None or not re.fullmatch("[0-9]{1,9}", text):
        found = "not set" if text is None else f"{text!r}"
        raise UserError(
            f"--part {SLURM}: {TASK}{name} is {found}, expected a number; submit a job array (sbatch "
            "--array=1-3), or name the part: --part 1/3"
        )
    return int(text)
