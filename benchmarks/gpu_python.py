"""A Python with all requirements, on a machine that has its own torch and perhaps no network.

Run, it prints those requirements in pip's syntax, without torch's, which are the machine's own.
"""

import re
import site
import subprocess
import sys
import sysconfig
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOR_TESTS = "pytest>"
OF_THE_MACHINE = ("torch", "torchvision")
SECONDS = 100  # limit of an installation
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,]+\])?(?:>=([\d.]+))?")


def requirements() -> dict[str, str]:
    """Requirements of setup.cfg and of the tests marked cuda: least versions by name."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].split()
    lines += [line for line in config["options.extras_require"]["test"].split() if line.startswith(FOR_TESTS)]
    return {name: version or "0" for name, version in (REQUIREMENT.match(line).groups() for line in lines)}


def missing() -> list[str]:
    """Requirements that this Python does not meet, in pip's syntax."""
    found = []
    for name, least in requirements().items():
        try:
            there = metadata.version(name)
        except metadata.PackageNotFoundError:
            there = ""
        if not there or numbers(there) < numbers(least):
            found.append(f"{name}>={least}")
    return found


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: (2, 14, 1) of 2.14.1+cu130."""
    return tuple(int(part) for part in re.match(r"\d+(?:\.\d+)*", version)[0].split("."))


def complete_python(wheels: str | None, venv: Path) -> tuple[str, str | None]:
    """A Python with all requirements, and one line on what is still missing.

    Missing packages are installed into `venv`, which sees all packages of this Python; from a folder of
    wheels, or else from the network. torch is never installed: the machine's own is used.
    """
    lacking = missing()
    if not lacking:
        return sys.executable, None
    wanted = [requirement for requirement in lacking if not requirement.startswith("torch>=")]
    failed = None if len(wanted) == len(lacking) else "torch must be the machine's own"
    if wanted:
        failed = _install(wanted, wheels, venv) or failed
    python = venv / "bin" / "python"
    if failed:
        tag = f"cp{sys.version_info.major}{sys.version_info.minor}, {sysconfig.get_platform()}"
        advice = f"pass WHEELS=folder with wheels of them for {tag}" if not wheels else f"for {tag}"
        failed = f"missing: {' '.join(lacking)}; {advice} ({failed})"
    return str(python) if python.exists() else sys.executable, failed


def _install(wanted: list[str], wheels: str | None, venv: Path) -> str | None:
    """Install into a virtual environment; returns an error in one line, if any."""
    source = ["--no-index", "--find-links", wheels] if wheels else ["--retries", "0", "--timeout", "10"]
    python = str(venv / "bin" / "python")
    try:
        _run([sys.executable, "-m", "venv", "--system-site-packages", str(venv)])
        # If this Python belongs to a virtual environment itself, its packages are not the system's.
        folders = {*site.getsitepackages(), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        (own,) = venv.glob("lib/python*/site-packages")
        (own / "machine.pth").write_text("\n".join(sorted(folders)) + "\n")
        _run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *source, *wanted])
    except subprocess.CalledProcessError as error:
        lines = [line for line in (error.stderr + error.stdout).splitlines() if line.strip()]
        return lines[-1] if lines else f"exit code {error.returncode}"
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS)


def to_carry() -> list[str]:
    """The requirements that a machine with its own torch may lack, in pip's syntax."""
    return [f"{name}>={least}" for name, least in requirements().items() if name not in OF_THE_MACHINE]


if __name__ == "__main__":
    print(" ".join(to_carry()))
