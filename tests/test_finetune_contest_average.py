"""The average of the best few heads: which are taken, on one scale, of one seed; and its run folder."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from bad_input import succeed
from made_average import COMPLEMENTARY, MadeHeads, entered
from made_contest import of_methods, other_row
from made_together import in_processes
from rich.progress import Progress, Task

from extract.heads.kinds import Cosine, FullyConnected
from finetune.contest import entries
from finetune.contest import field as running
from finetune.contest.average import greedy_average
from finetune.contest.contest import contest
from finetune.contest.entries import Entry
from finetune.contest.layers import KeptLayers, averageable
from finetune.run import read_run
from store.reader import FeatureStore

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def averaged(finalists, *stores, rank_by="balanced"):
    return greedy_average(finalists, list(stores), list(stores), rank_by)


def test_only_finite_layers_of_one_fc_layer_are_averaged():
    layer, broken = FullyConnected(torch.ones(3, 4), torch.ones(3)), torch.ones(3, 4)
    assert averageable(layer)
    broken[1, 2] = torch.inf
    of_other_kinds = [Cosine(layer.weight, torch.ones(1)), Cosine(torch.ones(1, 4), torch.ones(1))]
    for other in (None, *of_other_kinds, FullyConnected(broken, layer.bias)):
        assert not averageable(other)
    assert not averageable(FullyConnected(layer.weight, broken[1, :3]))
    layers = KeptLayers(Path(), 0)
    assert not layers.keep("odd", of_other_kinds[0])
    assert not Path("0-odd.pt").exists()
    assert layers.keep("one", layer)
    assert all(map(torch.equal, layers.read("one"), layer))
    Path("0-one.pt").write_bytes(b"damaged")
    assert layers.read("one") is None


def noisy(number, by):
    return lambda store: store.noisy(number, by)


OPPOSITE = {"a": [noisy(0, 3)], "b": [noisy(0, -3)]}  # whose average is the right head


def test_heads_are_taken_while_they_do_not_lower_val():
    """The first is no FC layer; two have opposite noise; the others' noise only does harm."""
    store = MadeHeads()
    finalists = entered(store, best=[lambda _: None], **OPPOSITE, other=[noisy(1, 3)], last=[noisy(2, 3)])
    found = averaged(finalists, store)
    assert [one.entry for one in found.ingredients] == ["a", "b"]
    assert found.finalist.entry == "average of 2"
    assert found.finalist.chosen == "a, b"
    row, layer = store.added["average-0"]
    alone = max(store.accuracy(store.read(head), "test") for head in ("a0", "b0", "other0", "last0"))
    for split in ("val", "test"):
        assert row[f"{split}_balanced_accuracy"] == pytest.approx(store.accuracy(layer, split))
        assert row[f"{split}_balanced_accuracy"] == pytest.approx(store.accuracy(store.right, split), abs=4)
    assert row["test_balanced_accuracy"] > alone + 5
    assert row["seconds"] == 2
    assert averaged(finalists[:2], store) is None  # of one head it would be that head
    assert (
        averaged([finalists[1], *entered(store, wrong=[lambda of: (-of.right[0], -of.right[1])])], store)
        is None
    )


def test_no_head_decides_by_its_scale_or_by_what_all_classes_share():
    """A layer a thousand times as large, with the same added to every class, predicts and averages alike."""
    store, scaled = MadeHeads(), MadeHeads()
    shared = torch.linspace(-300, 300, 32)

    def large(of):
        weight, bias = of.noisy(0, -3)
        return FullyConnected(1000 * (weight + shared), 1000 * (bias + 7))

    found = averaged(entered(store, **OPPOSITE), store)
    same = averaged(entered(scaled, **OPPOSITE | {"b": [large]}), scaled)
    torch.testing.assert_close(same.layers[0], found.layers[0], rtol=1e-3, atol=1e-3)
    first = averaged(entered(scaled, b=[large], a=OPPOSITE["a"]), scaled)
    assert scaled.accuracy(first.layers[0]) == pytest.approx(store.accuracy(found.layers[0]), abs=1)
    ratio = first.layers[0][0] / found.layers[0][0]  # each on the scale of its first head
    assert 500 < ratio.median() < 2000


def test_each_seed_has_its_own_average_and_a_method_without_seeds_is_in_all():
    store = MadeHeads()
    seeds = [noisy(0, -3), noisy(0, -2.5), noisy(0, -2)]
    finalists = entered(store, computed=OPPOSITE["a"], trained=seeds)
    found = averaged(finalists, store)
    assert found.finalist.heads == [["average-0", "average-1", "average-2"]]
    for seed in range(3):
        alone = MadeHeads()
        of_seed = averaged(entered(alone, computed=OPPOSITE["a"], trained=[seeds[seed]]), alone)
        assert all(map(torch.equal, store.added[f"average-{seed}"][1], of_seed.layers[0]))
    assert all(map(torch.equal, found.layers[0], store.added["average-0"][1]))
    assert not torch.equal(found.layers[0][0], store.added["average-2"][1][0])
    assert averaged(entered(store, **OPPOSITE), store).finalist.heads == [["average-0"]]


def test_stores_share_what_is_averaged():
    """What helps one store by less than it harms the other is not taken."""
    stores = MadeHeads(0), MadeHeads(1)
    finalists = entered(*stores, **OPPOSITE)
    found = averaged(finalists, *stores)
    assert found.finalist.heads == [["average-0"]] * 2
    for store, layer in zip(stores, found.layers, strict=True):
        assert all(map(torch.equal, store.added["average-0"][1], layer))
        assert store.accuracy(layer) > store.accuracy(store.read("a0")) + 5
    stores[1].put("b0", (-5 * stores[1].right[0], -5 * stores[1].right[1]))
    assert averaged(finalists, *stores) is None
    assert averaged([replace(one, heads=one.heads[:1]) for one in finalists], stores[0]) is not None


def by_hand(table, store):
    """The average from the files of a contest with one seed, in numpy."""
    splits = {name: FeatureStore(Path(store)).read(name) for name in ("val", "test")}

    def accuracies(logits):
        return {
            name: 100 * np.mean([(logits[name][of.label == c].argmax(1) == c).mean() for c in set(of.label)])
            for name, of in splits.items()
        }

    taken, total, best = [], dict.fromkeys(splits, 0.0), -1.0
    for row in table.to_dict("records"):
        file = next(
            path
            for path in Path("c/done").glob("*.json")
            if json.loads(path.read_text())["seconds"] == row["seconds"] and path.with_suffix(".pt").exists()
        )
        layer = torch.load(file.with_suffix(".pt"), weights_only=True)
        weight, bias = (layer[name].numpy().astype(np.float64) for name in ("weight", "bias"))
        logits = {name: of.pooled @ weight.T + bias for name, of in splits.items()}
        logits = {name: of - of.mean(axis=1, keepdims=True) for name, of in logits.items()}
        spread = logits["val"].std()
        tried = {name: total[name] + of / spread for name, of in logits.items()}
        if (score := accuracies(tried)["val"]) >= best - 1e-9:
            taken, total, best = [*taken, row["entry"]], tried, score
    return taken, accuracies(total)


def test_the_average_of_a_contest_repeated_by_hand(contest_config, quiet, monkeypatch):
    rates = {"lr": (0.3, 3.0)}
    some = {"crt": Entry("crt", rates), "mixup": Entry("mixup", rates), "plain": Entry("plain", rates)}
    some |= {f"lda{s}": Entry("lda", {"shrinkage": (s,)}) for s in (0.01, 0.3, 0.8)}
    monkeypatch.setattr(entries, "ENTRIES", some)
    found = contest(replace(contest_config, seeds=1), quiet)
    methods = of_methods(found.table)
    taken, expected = by_hand(methods, contest_config.store[0])
    (row,) = found.table.drop(index=methods.index).to_dict("records")
    assert row["entry"] == f"average of {len(taken)}"
    assert row["chosen"] == ", ".join(taken)
    assert row["val_balanced_accuracy_mean"] == pytest.approx(expected["val"])
    assert row["test_balanced_accuracy_mean"] == pytest.approx(expected["test"])
    assert row["val_behind"] == pytest.approx(
        found.table["val_balanced_accuracy_mean"].max() - row["val_balanced_accuracy_mean"], abs=1e-9
    )


@pytest.mark.usefixtures("complementary")
def test_an_average_that_helps_is_a_run_beside_the_winners(feature_store):
    said = succeed("contest", "--store", feature_store, "--out", "c", "--device", "cpu").stdout
    table = pd.read_csv("c/standings.csv")
    first, winner = table.iloc[0], table.iloc[1]
    assert first["entry"] == "average of 2"
    assert set(first["chosen"].split(", ")) == COMPLEMENTARY.keys()
    assert first["val_balanced_accuracy_mean"] > winner["val_balanced_accuracy_mean"]
    assert f"average of 2: {first['chosen']}" in said
    assert "chosen on these images method by method, so its place on val flatters it" in said
    assert said.rstrip().endswith("c/average")
    run, best = read_run(Path("c/average")), read_run(Path("c/best"))
    assert run.summary["val"]["balanced_accuracy"] == pytest.approx(first["val_balanced_accuracy_mean"])
    assert run.summary["balanced_accuracy"] == pytest.approx(first["test_balanced_accuracy_mean"])
    assert best.config["distance"] == winner["chosen"].removeprefix("distance=")
    assert best.summary["balanced_accuracy"] == pytest.approx(winner["test_balanced_accuracy_mean"])
    made_of = run.config["average"]
    assert [one["entry"] for one in made_of] == first["chosen"].split(", ")
    assert [one["options"]["distance"] for one in made_of] != [best.config["distance"]] * 2
    assert [one["seed"] for one in made_of] == [None, None]
    evaluated = succeed("evaluate", "--ckpt", "c/average/checkpoint.pt", "--device", "cpu").stdout
    assert f"{run.summary['balanced_accuracy']:.2f}" in evaluated
    compared = succeed("analyze", "c/best", "c/average", "--out", "report").stdout
    assert f"average of 2: {first['chosen']}" in compared


def test_an_average_that_is_no_better_has_a_row_and_no_folder(contest_config, quiet, monkeypatch):
    """Of two heads that are the same."""
    monkeypatch.setattr(entries, "ENTRIES", dict.fromkeys(("one", "same"), COMPLEMENTARY["one"]))
    found = contest(contest_config, quiet)
    assert found.table["entry"].tolist() == ["one", "same", "average of 2"]
    assert found.table["val_behind"].tolist() == pytest.approx([0, 0, 0])
    assert found.average == []
    assert not Path("c/average").exists()
    assert Path("c/best/head.pt").exists()


@pytest.mark.usefixtures("complementary")
def test_an_average_of_several_stores_has_a_run_for_each(contest_config, quiet, feature_store):
    shutil.copytree(feature_store, "other.zarr")
    with other_row("other.zarr"):
        found = contest(replace(contest_config, store=(str(feature_store), "other.zarr")), quiet)
    assert [path.name for path in found.average] == ["average-1", "average-2"]
    made = [json.loads((path / "config.json").read_text())["store"] for path in found.average]
    assert made == [str(feature_store), "other.zarr"]


@pytest.mark.usefixtures("few_entries")
def test_layers_are_kept_of_what_may_still_be_chosen(contest_config, quiet):
    found = contest(contest_config, quiet)
    assert len(list(Path("c/done").glob("*.pt"))) == of_methods(found.table)["n"].sum() == 7


@pytest.mark.usefixtures("complementary")
def test_layers_that_are_gone_are_made_again(contest_config, quiet, monkeypatch):
    """And nothing else, with a bar that goes to its end; the average is the same to the bit."""
    contest(contest_config, quiet)
    before = {name: Path(f"c/{name}").read_bytes() for name in ("average/head.pt", "best/head.pt")}
    table = pd.read_csv("c/standings.csv").drop(columns="seconds")
    files = sorted(Path("c/done").glob("*.pt"))
    for file in files[:2]:
        file.unlink()
    trained, train = [], running.train_batch
    monkeypatch.setattr(
        running, "train_batch", lambda batch, *rest: trained.extend(batch) or train(batch, *rest)
    )
    bars: list[Task] = []
    shown = Progress(disable=True)
    remove = shown.remove_task
    monkeypatch.setattr(shown, "remove_task", lambda task: bars.append(shown._tasks[task]) or remove(task))
    contest(replace(contest_config, resume=True), shown)
    assert len(trained) == 2
    assert [(bar.completed, bar.total) for bar in bars if bar.description == "made again"] == [(2, 2)]
    assert sorted(Path("c/done").glob("*.pt")) == files
    assert {name: Path(f"c/{name}").read_bytes() for name in before} == before
    pd.testing.assert_frame_equal(pd.read_csv("c/standings.csv").drop(columns="seconds"), table)


@pytest.mark.usefixtures("complementary")
def test_processes_that_share_a_contest_average_the_same(contest_config, quiet):
    """One head in each, averaged by the first."""
    contest(replace(contest_config, out="alone"), quiet)
    options = ["--store", *contest_config.store, "--iterations", 30, "--device", "cpu", "--out", "c"]
    assert in_processes(2, lambda rank: succeed("contest", *options)) == [0, 0]
    assert Path("c/average/head.pt").read_bytes() == Path("alone/average/head.pt").read_bytes()


def test_folds_choose_no_average(pairs_store):
    given = ["--store", pairs_store, "--device", "cpu", "--select-on", "cv", "--folds", 3, "--out", "c"]
    said = succeed("contest", *given, "--methods", "ncm,lda,tau-norm").stdout
    assert "average of" not in said
    assert not list(Path("c/done").glob("*.pt"))
