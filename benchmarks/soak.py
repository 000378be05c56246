"""The fault campaign of the tests, for longer: writers killed at random moments, bits flipped.

Run with `make soak`. Every case is drawn from --seed, the kind of store and the case's number, and is printed
if it fails: `--seed S --only KIND --kill N` (or `--flip N`) repeats it alone. Exit code 1 if
anything was violated.
"""

import itertools
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import made_store  # noqa: E402 on the path from here on
from bit_flips import FlipCampaign  # noqa: E402
from faults import CODEC_OF, KillCampaign  # noqa: E402

import store.layout  # noqa: E402

BLOCK_BYTES = 2048  # so that the synthetic stores have several blocks
SLICE = 10  # kills, and fifty times as many flips, of one kind of store before it is the next kind's turn


@dataclass
class Counts:
    """What was done to one kind of store, and the outcome."""

    kills: int = 0
    flips: int = 0
    found: int = 0
    harmless: int = 0
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.kills:,} kills, each resumed; {self.flips:,} flips, {self.found:,} found and "
            f"{self.harmless:,} harmless; {len(self.violations)} violations"
        )


class Soak:
    """Fault campaigns against one kind of store, each in its own folder."""

    def __init__(self, kind: str, folder: Path, seed: int):
        self.kind, self.seed, self.counts = kind, seed, Counts()
        self._numbers = {"kill": itertools.count(), "flip": itertools.count()}
        made_store.CODEC = CODEC_OF[kind]
        for what in ("killed", "flipped"):
            (folder / what / kind).mkdir(parents=True)
        self._killed = KillCampaign(folder / "killed" / kind / kind)
        made_store.make_store(folder / "flipped" / kind / kind)
        self._flipped = FlipCampaign(folder / "flipped" / kind / kind)

    def kill(self, number: int | None = None) -> None:
        """Kill a writer, unless it ends before, and resume."""
        before = self._killed.n_kills
        self._do("kill", number, self._killed.one)
        self.counts.kills += self._killed.n_kills - before

    def flip(self, number: int | None = None) -> None:
        """Flip one bit."""
        found = self._do("flip", number, self._flipped.one)
        self.counts.flips += 1
        self.counts.found += found is True
        self.counts.harmless += found is False

    def _do(self, what: str, number: int | None, action: Callable[[np.random.Generator], object]) -> object:
        made_store.CODEC = CODEC_OF[self.kind]
        number = next(self._numbers[what]) if number is None else number
        key = [self.seed, list(CODEC_OF).index(self.kind), what == "flip", number]
        try:
            return action(np.random.default_rng(key))
        except Exception as error:  # any error is a finding
            again = f"--seed {self.seed} --only {self.kind} --{what} {number}"
            self.counts.violations.append(f"{again}: {error!r}")
            click.echo(f"VIOLATION: {again}\n{traceback.format_exc()}", err=True)
            self._killed.clear()
            return None


def turns(soaks: list[Soak], kills: int, flips: int, ends: float) -> Iterator[Soak]:
    """Take turns between the kinds of store until all is done or time is up."""
    while time.monotonic() < ends and any(s.counts.kills < kills or s.counts.flips < flips for s in soaks):
        for soak in soaks:
            for _ in range(SLICE):
                if soak.counts.kills < kills and time.monotonic() < ends:
                    soak.kill()
            for _ in range(50 * SLICE):
                if soak.counts.flips < flips and time.monotonic() < ends:
                    soak.flip()
            yield soak


def total(soaks: list[Soak]) -> Counts:
    """The sum over all kinds of store."""
    counts = [soak.counts for soak in soaks]
    sums = (sum(getattr(c, name) for c in counts) for name in ("kills", "flips", "found", "harmless"))
    return Counts(*sums, [violation for c in counts for violation in c.violations])


@click.command()
@click.option("--kills", default=500, show_default=True, help="of each kind of store, at most")
@click.option("--flips", default=20_000, show_default=True, help="of each kind of store, at most")
@click.option("--minutes", default=10.0, show_default=True, help="at most")
@click.option("--seed", default=0, show_default=True)
@click.option("--only", type=click.Choice(list(CODEC_OF)), help="one kind of store")
@click.option("--kill", type=int, help="do only this kill, as printed with a violation")
@click.option("--flip", type=int, help="do only this flip, as printed with a violation")
def main(
    kills: int, flips: int, minutes: float, seed: int, only: str | None, kill: int | None, flip: int | None
) -> None:
    """Damage stores, and print what was done."""
    store.layout.BLOCK_BYTES = BLOCK_BYTES
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        soaks = [Soak(kind, Path(name), seed) for kind in CODEC_OF if only in (None, kind)]
        if kill is not None or flip is not None:
            for soak in soaks:
                soak.kill(kill) if kill is not None else soak.flip(flip)
        else:
            for soak in turns(soaks, kills, flips, started + 60 * minutes):
                click.echo(f"{time.monotonic() - started:6.0f} s  {soak.kind}: {soak.counts}")
    for soak in soaks:
        click.echo(f"{soak.kind:<12} {soak.counts}")
    counts = total(soaks)
    click.echo(f"seed {seed}, {(time.monotonic() - started) / 60:.1f} minutes: {counts}")
    for violation in counts.violations:
        click.echo(f"  {violation}")
    sys.exit(bool(counts.violations))


if __name__ == "__main__":
    main()
