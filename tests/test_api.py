"""`import tailcache`: each command as a function, with the command line's results, bytes and messages."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from bad_input import QUICK, refuse, snapshot, succeed
from made_store import SIZES, made_plan, made_rows, make_store, write_made

import tailcache as tc
from store.config import ConvertConfig
from store.convert import convert

ROOT = Path(__file__).parent.parent
FAST = {"iterations": 2, "eval_every": 1, "device": "cpu"}  # QUICK
FRAMES = ("metrics", "per_class", "predictions")


def in_python(code: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run a fresh interpreter in a folder, with the project where installed packages are."""
    start = f"import sys; sys.path.append({str(ROOT)!r})\n"
    return subprocess.run(
        [sys.executable, "-c", start + code], cwd=cwd, capture_output=True, text=True, timeout=60
    )


def test_the_import_is_cheap(tmp_path):
    heavy = "{'torch', 'pandas', 'zarr', 'numpy', 'click', 'rich', 'h5py'}"
    found = in_python(f"import tailcache; print({heavy} & sys.modules.keys(), dir(tailcache))", tmp_path)
    assert found.stdout.startswith("set() "), found.stderr
    for name in tc.__all__:
        assert repr(name) in found.stdout


def test_every_name_leads_somewhere():
    for name in tc.__all__:
        assert getattr(tc, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'fine_tune'"):
        tc.fine_tune  # noqa: B018


@pytest.mark.parametrize("name", ["store", "extract", "finetune", "analysis"])
def test_a_module_of_the_users_in_the_way_is_named_in_one_line(name, tmp_path):
    (tmp_path / f"{name}.py").write_text("raise RuntimeError('run by mistake')")
    found = in_python("import tailcache", tmp_path)
    assert found.returncode == 1
    last = found.stderr.splitlines()[-1]
    assert last.startswith("ImportError: tailcache: ")
    assert str(tmp_path / f"{name}.py") in last
    assert "run by mistake" not in found.stderr


def test_the_command_works_beside_modules_of_the_users_with_the_names_of_ours(tmp_path, small_store):
    work, scripts = tmp_path / "work", tmp_path / "bin"
    for folder in (work, scripts):
        folder.mkdir()
    for name in ("store", "extract", "finetune", "analysis", "cli"):
        (work / f"{name}.py").write_text("raise RuntimeError('run by mistake')")
    script = scripts / "tailcache"  # as pip writes it
    script.write_text("import sys\nfrom cli import main\nsys.exit(main())\n")
    command = [sys.executable, str(script), "store", "info", str(small_store)]
    found = subprocess.run(command, cwd=work, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "float8_e4m3"])
@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_feature_maps_of_any_rows(dtype, suffix, several_blocks, quiet):
    make_store(Path("made.zarr"))
    convert(ConvertConfig("made.zarr", f"feats{suffix}", dtype=dtype), quiet)
    store = tc.open_store(f"feats{suffix}")
    rows = [43, 0, 7, 7, 12, 43]
    maps = store.feature_map(rows)
    assert maps.shape == (6, 3, 3, 6)
    assert np.array_equal(maps, store.read_feature_map()[rows])
    assert store.feature_map([]).shape == (0, 3, 3, 6)
    for bad in ([0, SIZES["train"]["N"]], [-1]):
        with pytest.raises(IndexError):
            store.feature_map(bad)
    for bad in (np.ones(44, bool), [0.5], 3):
        with pytest.raises(TypeError, match="row numbers"):
            store.feature_map(bad)


def test_maps_that_are_no_numbers_are_refused_by_their_row(several_blocks):
    rows = made_rows()
    rows["train/feature_map"][5, 0, 0, 0] = np.nan
    write_made(Path("made.zarr"), made_plan(), rows)
    store = tc.open_store("made.zarr")
    assert np.isfinite(store.feature_map([4, 6])).all()
    with pytest.raises(tc.UserError, match="features in row 5;"):
        store.feature_map([6, 5, 4])


@pytest.mark.parametrize("method", ["fsa", "ncm"])
def test_a_run_without_a_folder_is_the_run_with_one(method, feature_store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    succeed("finetune", "--store", feature_store, "--out", "run", "--method", method, *QUICK)
    before = snapshot(tmp_path) | snapshot(feature_store.parent)
    run = tc.finetune(tc.open_store(feature_store), method=method, **FAST)
    assert snapshot(tmp_path) | snapshot(feature_store.parent) == before
    assert run.path is None
    written = tc.read_run("run")
    head = torch.load("run/head.pt", weights_only=True)
    for one in (run, written):
        assert torch.equal(one.head.weight, head["weight"])
        assert torch.equal(one.head.bias, head["bias"])
    for name in FRAMES:
        pd.testing.assert_frame_equal(getattr(run, name), getattr(written, name))
    assert run.summary == written.summary


def test_a_run_with_a_folder_leaves_the_bytes_of_the_command(feature_store, digits_run, tmp_path):
    run = tc.finetune(str(feature_store), out=tmp_path / "run", method="fsa", **FAST)
    assert (tmp_path / "run/head.pt").read_bytes() == (digits_run / "head.pt").read_bytes()
    assert run.path == tmp_path / "run"
    assert {p.name for p in run.path.iterdir()} == {p.name for p in digits_run.iterdir()}


def test_phase_1s_checkpoint_is_asked_for_by_a_folder_alone(phase1, feature_store, tmp_path):
    lone = Path(tmp_path / "elsewhere" / "feats.zarr")
    lone.parent.mkdir()
    lone.symlink_to(feature_store)
    gone = phase1.rename(phase1.with_name("away.pt"))
    try:
        assert tc.finetune(lone, **FAST).head.weight.shape[0] == 10
        with pytest.raises(tc.UserError, match="Phase I's checkpoint is not there"):
            tc.finetune(lone, out=tmp_path / "run", **FAST)
        assert not (tmp_path / "run").exists()
    finally:
        gone.rename(phase1)


def test_runs_in_memory_and_in_folders_stand_in_one_table(feature_store, digits_run, tmp_path):
    store = tc.open_store(feature_store)
    other = tc.finetune(store, method="no-aug", **FAST)
    seed = tc.finetune(store, method="fsa", seed=1, **FAST)
    table = tc.compare([str(digits_run), seed, other, tc.read_run(digits_run)])
    assert table["configuration"].tolist()[1:] == ["fsa", "no-aug"]
    assert table["n"].tolist()[1:] == [2, 1]
    overall = [tc.read_run(digits_run).summary["overall"], seed.summary["overall"]]
    assert table["overall_mean"][1] == pytest.approx(np.mean(overall))
    of_fsa = ["--method", "fsa", *QUICK]
    succeed("finetune", "--store", feature_store, "--out", tmp_path / "b", "--seed", 1, *of_fsa)
    succeed("analyze", digits_run, tmp_path / "b", "--out", tmp_path / "report")
    pd.testing.assert_frame_equal(
        tc.compare([digits_run, seed]), pd.read_csv(tmp_path / "report/summary.csv")
    )


def test_compare_refuses_what_analyze_refuses(feature_store, digits_run, course_store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    again = tc.finetune(feature_store, method="fsa", **FAST)
    with pytest.raises(tc.UserError, match=rf"^fsa, seed 0: is the same run as {digits_run} "):
        tc.compare([digits_run, again])
    course = tc.finetune(course_store, confusing_classes=2, **FAST)
    with pytest.raises(tc.UserError, match="has other classes"):
        tc.compare([digits_run, course])
    with pytest.raises(tc.UserError, match="no runs"):
        tc.compare([])
    for wrong in ("nowhere", feature_store):
        line = refuse("analyze", wrong, says=[])
        with pytest.raises(tc.UserError) as refused:
            tc.compare([wrong])
        assert line == f"tailcache: {refused.value}"


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({"lr": -1.0}, ["--lr", "-1"]),
        ({"device": "abacus"}, ["--device", "abacus"]),
        ({"method": "fsa", "batch_size": 7}, ["--method", "fsa", "--batch-size", "7"]),
        ({"shot_rule": "many"}, ["--shot-rule", "many"]),
    ],
)
def test_messages_are_the_command_lines(options, flags, feature_store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refuse("finetune", "--store", feature_store, *flags, says=[])
    for out in (None, "run"):
        with pytest.raises(tc.UserError) as refused:
            tc.finetune(feature_store, out=out, **options)
        assert line == f"tailcache: {refused.value}"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"methd": "fsa"}, "finetune: no option methd; did you mean method?"),
        ({"method": "fsaa"}, "--method 'fsaa': expected one of 'fsa', 'fsa+balanced-softmax', 'no-aug', "),
        ({"iterations": 2.5}, "--iterations 2.5: expected a whole number"),
        ({"lr": "0.1"}, "--lr '0.1': expected a number or None"),
        ({"seed": True}, "--seed True: expected a whole number"),
        ({"resume": True}, "finetune: resume needs a folder for the run; give it with out="),
    ],
)
def test_options_that_a_command_line_would_not_let_through(options, says, feature_store):
    with pytest.raises(tc.UserError) as refused:
        tc.finetune(feature_store, **options)
    assert str(refused.value).startswith(says)


def test_numbers_of_numpy_are_numbers(feature_store):
    a = tc.finetune(feature_store, **FAST | {"iterations": np.int64(2)}, lr=np.float32(0.5))
    b = tc.finetune(feature_store, **FAST, lr=0.5)
    assert torch.equal(a.head.weight, b.head.weight)


def test_torchs_settings_are_the_callers_again(feature_store):
    before = (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic)
    threads = torch.get_num_threads()
    torch.backends.cudnn.benchmark = True
    try:
        tc.finetune(feature_store, **FAST)
        assert torch.backends.cudnn.benchmark is True
        assert torch.backends.cudnn.deterministic == before[1]
        assert torch.get_num_threads() == threads
    finally:
        torch.backends.cudnn.benchmark = before[0]


def test_a_network_is_loaded(digits_run, phase1):
    network = tc.load_network(digits_run / "checkpoint.pt")
    assert not network.training
    assert torch.equal(network.classifier.weight, tc.read_run(digits_run).head.weight)
    assert network(torch.zeros(2, 3, 8, 8)).shape == (2, 10)
    with pytest.raises(tc.UserError, match="expected a checkpoint file, found nothing"):
        tc.load_network(phase1.with_name("none.pt"))


def test_every_phase_of_images_on_disk(small_root, small_ckpt, small_store, tmp_path):
    options = {
        "image_size": 16,
        "arch": "resnet8",
        "width": 4,
        "epochs": 1,
        "batch_size": 8,
        "device": "cpu",
    }
    ckpt = tc.train(small_root, out=tmp_path / "phase1", **options)
    ours, theirs = (torch.load(path, weights_only=True)["state"] for path in (ckpt, small_ckpt))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    store = tc.extract(ckpt, tmp_path / "feats.zarr", device="cpu")
    assert np.array_equal(store.read("train").pooled, tc.open_store(small_store).read("train").pooled)
    assert store.feature_map([0]).shape == (1, *store.map_shape[1:])
    with pytest.raises(tc.UserError, match="overwrite"):
        tc.train(small_root, out=tmp_path / "phase1", **options)
    assert tc.train(out=tmp_path / "phase1", resume=True) == ckpt


def test_a_sweep_is_that_of_the_command(feature_store, tmp_path):
    grid = {"tau_s": [0.5, 0.7], "method": "fsa"}
    found = tc.sweep(tc.open_store(feature_store), out=tmp_path / "a", grid=grid, seeds=2, **FAST)
    flags = ["--grid", "tau_s=0.5,0.7", "--grid", "method=fsa", "--seeds", 2, *QUICK]
    succeed("sweep", "--store", feature_store, "--out", tmp_path / "b", *flags)
    ranked = pd.read_csv(tmp_path / "b/ranking.csv")
    pd.testing.assert_frame_equal(found.ranking.drop(columns="seconds"), ranked.drop(columns="seconds"))
    assert (len(found.ranking), len(found.results)) == (2, 4)
    drawn = {"lr": (1e-4, 1e-2, "log")}
    found = tc.sweep(feature_store, out=tmp_path / "c", range=drawn, random=2, seeds=1, **FAST)
    assert found.results["lr"].between(1e-4, 1e-2).all()
    with pytest.raises(tc.UserError, match="a sweep, which keeps no predictions"):
        tc.compare(tmp_path / "a")
    with pytest.raises(tc.UserError, match="no option taus"):
        tc.sweep(feature_store, out=tmp_path / "d", taus=[1])


@pytest.mark.usefixtures("few_entries")
def test_a_contest_is_that_of_the_command(feature_store, tmp_path):
    store, short = tc.open_store(feature_store), {"iterations": 8, "seeds": 2, "device": "cpu"}
    found = tc.contest(store, out=tmp_path / "a", methods=["crt", "logit-adjustment"], **short)
    flags = ["--iterations", 8, "--seeds", 2, "--device", "cpu", "--methods", "crt,logit-adjustment"]
    succeed("contest", "--store", feature_store, "--out", tmp_path / "b", *flags)
    table = pd.read_csv(tmp_path / "b/standings.csv", keep_default_na=False, na_values=["nan"])
    assert found.table["chosen"].tolist() == table["chosen"].tolist()
    score = "val_balanced_accuracy_mean"
    assert found.table[score].tolist() == pytest.approx(table[score].astype(float).tolist())
    assert tc.read_run(found.best[0]).config["method"] == found.table["entry"][0]
    with pytest.raises(tc.UserError, match="no option taus; expected one of store"):
        tc.contest([feature_store], out=tmp_path / "c", taus=[1])
    with pytest.raises(tc.UserError, match="is given twice"):
        tc.contest([feature_store, store], out=tmp_path / "c")
    with pytest.raises(tc.UserError, match="methods is 5; expected names"):
        tc.contest(store, out=tmp_path / "c", methods=5)
    for stores, out in (([], tmp_path / "c"), (feature_store, None)):
        with pytest.raises(tc.UserError, match=r"no store to try|keeps its heads in a folder"):
            tc.contest(stores, out=out)


def test_a_bar_is_shown_where_it_is_asked_for(feature_store, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    tc.finetune(feature_store, **FAST)
    assert capsys.readouterr().err == ""
    tc.finetune(feature_store, progress=True, **FAST)
    assert "fine-tuning (fsa+balanced-softmax)" in capsys.readouterr().err
