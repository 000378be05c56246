"""Wrong paths and numbers are reported before anything heavy is imported."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.config import FinetuneConfig
from finetune.sweep.config import SweepConfig
from finetune.sweep.folder import SweepFolder, head_id
from store.reader import FeatureStore

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "torchvision", "zarr", "h5py", "pandas", "matplotlib", "sklearn", "PIL", "scipy")
CASES = [  # command, and what its error contains
    ("train --root none", "none: no such folder"),
    ("train --root images_without_test", "images_without_test: has no test/ folder"),
    ("train --dataset cifar10", "--dataset cifar10 needs --root"),
    ("train --epochs 0", "--epochs 0: must be 1 or more"),
    ("train --lr nan", "--lr nan: must be 0 or more"),
    ("train --arch resnet21", "--arch resnet21: unknown; expected one of resnet8, "),
    ("train --arch resnet8 --width 0", "--width 0: must be 1 or more"),
    (
        "train --out half",
        "half: already holds an interrupted run (epoch 1 of 2); pass --resume",
    ),
    ("train --out phase1", "phase1: already holds a finished run (epoch 2 of 2); pass --overwrite"),
    ("train --out none --resume", "none/checkpoint.pt: no such checkpoint to resume"),
    ("extract --ckpt none.pt --store new.h5", "none.pt: expected a checkpoint file, found nothing"),
    ("extract --ckpt phase1 --store new.h5", "phase1: expected a checkpoint file, found a folder"),
    ("extract --ckpt phase1/checkpoint.pt --views 0 --store new.h5", "--views 0: must be 1 or more"),
    ("evaluate --ckpt none.pt", "none.pt: expected a checkpoint file"),
    ("evaluate --ckpt phase1/checkpoint.pt --batch-size 0", "--batch-size 0: must be 1 or more"),
    ("evaluate --ckpt phase1/checkpoint.pt --shot-rule 1,2,3", "--shot-rule 1,2,3"),
    ("predict --ckpt phase1/checkpoint.pt none.png", "none.png: no such file or folder"),
    ("predict --ckpt none.pt theirs.h5", "none.pt: expected a checkpoint file"),
    ("predict --ckpt phase1/checkpoint.pt theirs.h5 --top 0", "--top 0: must be 1 or more"),
    ("predict --ckpt phase1/checkpoint.pt theirs.h5 --device gpu", "--device gpu: unknown"),
    ("predict --ckpt phase1/checkpoint.pt theirs.h5 --cam tables", "tables: is not empty; name a new folder"),
    ("predict --ckpt phase1/checkpoint.pt tables --out theirs.h5", "theirs.h5: already exists; pass --overw"),
    ("export --ckpt none.pt --out n.pt", "none.pt: expected a checkpoint file"),
    ("export --ckpt phase1/checkpoint.pt --out theirs.h5", "theirs.h5: already exists; pass --overwrite"),
    ("finetune --store none.zarr", "none.zarr: no such store"),
    ("finetune --store feats.zarr --tau-s 2", "--tau-s 2: must lie between 0 and 1"),
    ("finetune --store feats.zarr --out run_fsa", "run_fsa: already exists; pass --overwrite to replace"),
    ("finetune --store feats.zarr --out begun", "begun.unfinished.pt: an interrupted run; pass --resume"),
    ("sweep --store none.zarr", "none.zarr: no such store"),
    ("sweep --store feats.zarr --iterations 0", "--iterations 0: must be 1 or more"),
    ("train --device gpu", "--device gpu: unknown; expected auto, cpu, cuda or cuda:N"),
    ("train --out half --resume --device cuda:", "--device cuda:: unknown"),
    ("extract --ckpt phase1/checkpoint.pt --device mps --store new.h5", "--device mps: unknown"),
    ("evaluate --ckpt phase1/checkpoint.pt --device tpu", "--device tpu: unknown"),
    ("finetune --store feats.zarr --device gpu", "--device gpu: unknown"),
    ("sweep --store feats.zarr --device gpu", "--device gpu: unknown"),
    ("store plan --device gpu", "--device gpu: unknown"),
    ("demo --device gpu", "--device gpu: unknown"),
    ("extract --ckpt phase1/checkpoint.pt --store x.foo", "x.foo: unknown container '.foo'; expected a path"),
    (
        "extract --ckpt phase1/checkpoint.pt --store s3://b/x.h5",
        "s3://b/x.h5: only zarr stores can be written to a",
    ),
    ("extract --ckpt phase1/checkpoint.pt --store ftp://x.zarr", "ftp://x.zarr: unknown address"),
    ("store convert feats.zarr t", "t: unknown container '(no suffix)'"),
    ("train --out half --resume --overwrite", "half: --resume continues a run and --overwrite replaces"),
    ("train --arch resnet32 --weights DEFAULT", "--weights DEFAULT: resnet32 has no pre-trained weights"),
    ("finetune --store feats.zarr --resume --overwrite", "runs/finetune: --resume continues a run and"),
    ("sweep --store feats.zarr --resume --overwrite", "runs/sweep: --resume continues a sweep and"),
    (
        "sweep --store feats.zarr --out theirs.h5",
        "theirs.h5: already exists and is not a sweep that may be replaced (it is a",
    ),
    (
        "sweep --store feats.zarr --out phase1",
        "phase1: already exists and is not a sweep that may be replaced (it holds",
    ),
    ("sweep --store feats.zarr --out old_sweep", "old_sweep: holds another sweep with 4 heads done"),
    ("sweep --store feats.zarr --grid tau_z=1", "--grid tau_z=1: no option tau_z"),
    ("sweep --store feats.zarr --grid tau_s=2", "--tau-s 2: must lie between 0 and 1"),
    ("sweep --store feats.zarr --seeds 0", "--seeds 0: must be 1 or more"),
    ("analyze none", "none: no such run folder"),
    ("analyze run_fsa --out phase1", "phase1: is the folder of a run; use another --out"),
    ("analyze run_fsa --out tables", "tables/summary.csv: exists and was not written by `analyze`"),
    ("analyze run_fsa --shot-rule 1,2,3", "--shot-rule 1,2,3"),
    ("store info none.zarr", "none.zarr: no such store"),
    ("store verify none.zarr", "none.zarr: no such store"),
    ("store convert none.zarr t.h5", "none.zarr: no such store"),
    ("store verify feats.zarr --device gpu", "--device gpu: unknown"),
    ("store verify feats.zarr --sample 3 --ckpt phase1/checkpoint.pt --device gpu", "--device gpu: unknown"),
    ("store verify feats.zarr --sample 0", "--sample 0: must be 1 or more"),
    ("store verify feats.zarr --sample 3", "--sample needs --ckpt"),
    ("store verify feats.zarr --sample 3 --ckpt none.pt", "none.pt: no such checkpoint; name the one that"),
    ("store plan --seconds 0", "--seconds 0.0: must be 0.01 or more"),
    ("store plan --views 0", "--views 0: must be 1 or more"),
    ("store plan --ckpt phase1/checkpoint.pt --arch resnet32", "--arch: the checkpoint determines network"),
    ("store plan --ckpt none.pt", "none.pt: expected a checkpoint file, found nothing"),
    ("store plan --arch resnet21", "--arch resnet21: unknown"),
    (
        "store plan --arch resnet18 --width 4",
        "--width 4: resnet18 has a fixed width; leave it out, or choose one of resnet8,",
    ),
    ("store plan --root none", "none: no such folder"),
    ("store plan --dataset digits --download", "--download"),
    ("store plan --store x.foo", "x.foo: unknown container '.foo'"),
    ("store plan --store s3://b/x.zarr", "s3://b/x.zarr: a bucket's speed cannot be measured"),
]
OF_STORES = [  # with zarr and h5py, to see what is there
    (
        "extract --ckpt phase1/checkpoint.pt --store feats.zarr",
        "feats.zarr: already exists; pass --overwrite",
    ),
    (
        "extract --ckpt phase1/checkpoint.pt --store theirs.zarr",
        "theirs.zarr: already exists and is not a store",
    ),
    (
        "store convert feats.zarr theirs.h5 --overwrite",
        "theirs.h5: already exists and is not a store that may be replaced",
    ),
    ("store plan --store theirs.zarr", "theirs.zarr: already exists and is not a store"),
    (
        "sweep --store feats.zarr --out begun_sweep --method plain --seeds 2",
        "begun_sweep: holds this sweep, with 1 of its 2 heads done; pass --resume to continue it",
    ),
    (
        "sweep --store other.zarr --out begun_sweep --method plain --seeds 2",
        "begun_sweep: holds another sweep with 1 heads done; use another --out",
    ),
]


def make_folder(folder: Path) -> Path:
    """Fill a folder with what the commands find; returns it."""
    made = ROOT / "tests" / "data" / "program_0_1"
    for name in ("phase1", "feats.zarr", "run_fsa"):
        shutil.copytree(made / name, folder / name)
    shutil.copytree(made / "half_phase1", folder / "half")
    (folder / "begun.unfinished.pt").touch()
    (folder / "theirs.h5").touch()
    (folder / "theirs.zarr" / "thesis").mkdir(parents=True)
    (folder / "images_without_test" / "train").mkdir(parents=True)
    (folder / "tables").mkdir()
    (folder / "tables" / "summary.csv").touch()
    shutil.copytree(made / "sweep", folder / "old_sweep")
    begin_sweep(folder / "feats.zarr", folder / "begun_sweep")
    shutil.copytree(made.parent / "golden_v1.zarr", folder / "other.zarr")
    return folder


def begin_sweep(store: Path, out: Path) -> None:
    """Start a sweep of two heads, one of which is done."""
    config = SweepConfig(FinetuneConfig(str(store), str(out), "plain"), seeds=2)
    configs = [one.resolved(3) for one in config.configurations()]
    folder = SweepFolder(config, configs, FeatureStore(store))
    folder.prepare()
    folder.keep([{"head": head_id(configs[0])}], [None])


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """Each command's message, its exit code, and the heavy modules imported by then."""
    folder = make_folder(tmp_path_factory.mktemp("early"))
    code = f"""
import json, sys
from click.testing import CliRunner
from cli import main
told = {{}}
for command in json.loads(sys.argv[1]):
    result = CliRunner().invoke(main, command.split())
    heavy = [name for name in {HEAVY} if name in sys.modules]
    told[command] = {{"code": result.exit_code, "says": result.stderr, "heavy": heavy}}
print(json.dumps(told))
"""
    commands = json.dumps([command for command, _ in CASES + OF_STORES])
    program = [sys.executable, "-c", code, commands]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("command", "says"), CASES, ids=[command for command, _ in CASES])
def test_a_refusal_comes_before_anything_heavy(told: dict[str, dict], command: str, says: str) -> None:
    assert refused(told[command], says)["heavy"] == []


@pytest.mark.parametrize(("command", "says"), OF_STORES, ids=[command for command, _ in OF_STORES])
def test_a_refusal_of_a_store_comes_before_torch(told: dict[str, dict], command: str, says: str) -> None:
    assert set(refused(told[command], says)["heavy"]) <= {"zarr", "h5py"}


def refused(found: dict, says: str) -> dict:
    """The same, held to one line that says so."""
    assert found["code"] == 2, found
    assert says in found["says"]
    assert len(found["says"].strip().splitlines()) == 1
    return found
