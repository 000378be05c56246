"""Losses that are brought over at looks, as on a GPU, or after each window: the same histories."""

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_interrupt import finetune_interrupted

from finetune.config import FinetuneConfig
from finetune.heads.threads import single_threaded
from finetune.loading.window import Window
from finetune.run_folder import unfinished_path
from finetune.sampling.plan import Plan
from finetune.train import finetune
from finetune.training.history import HeadHistory, state_of
from finetune.training.pending import MOST, PendingLosses, windows_that_wait
from finetune.training.trainer import LoadedStore, Trainer
from store.errors import UserError
from store.reader import FeatureStore
from store.storage.location import locate

CPU = torch.device("cpu")


def as_if_on_a_gpu(monkeypatch: pytest.MonkeyPatch, most: int = MOST) -> None:
    monkeypatch.setattr("finetune.training.trainer.windows_that_wait", lambda device: most)


def test_losses_wait_on_gpus_alone():
    assert windows_that_wait(CPU) == 1
    assert windows_that_wait(torch.device("cuda", 0)) == MOST > 1


@pytest.fixture
def config(feature_store, tmp_path) -> FinetuneConfig:
    out = str(tmp_path / "run")
    return FinetuneConfig(str(feature_store), out, iterations=60, eval_every=20, window=6, device="cpu")


def judged(head: int, iteration: int, layer: tuple[torch.Tensor, torch.Tensor]) -> dict[str, float]:
    return {"val_balanced_accuracy": float(layer[1][0])}


def course(config: FinetuneConfig, wild: int, taken: list[int]) -> tuple[dict[str, Any], list]:
    """State and divergences after training three heads, one of which is wild; steps known at each window."""
    store = FeatureStore(locate(config.store))
    one = config.resolved(len(store.class_names))
    configs = [replace(one, lr=0.001 * 2**i) for i in range(3)]
    configs[wild] = replace(one, lr=3e4, momentum=5e2)  # infinite after a dozen steps
    with single_threaded() as threads:
        loaded = LoadedStore.open(store, one.shot_rule, CPU, threads)
        trainer = Trainer(configs, loaded, judged)
        trainer.evaluate()
        for _ in trainer.run(20):
            taken.append(trainer.histories[0].n_steps)
        found = state_of(trainer.histories)
    for of_head in found["courses"]:
        best = of_head["best"]
        best["layer"] = {name: part.tolist() for name, part in best["layer"].items()}
    return found, [history.diverged for history in trainer.histories]


@pytest.mark.parametrize("wild", [0, 2])
def test_losses_that_wait_make_the_same_histories(config, monkeypatch, wild):
    """Also of a head whose loss becomes infinite between two looks, beside others."""
    prompt, late = [], []
    expected, of_prompt = course(config, wild, prompt)
    as_if_on_a_gpu(monkeypatch)
    found, of_late = course(config, wild, late)
    assert prompt == [6, 12, 18, 0] * 3
    assert late == [0] * 12  # unknown between looks
    np.testing.assert_equal(found, expected)
    assert [diverged is not None for diverged in of_late] == [i == wild for i in range(3)]
    assert 6 < of_late[wild].iteration < 18
    assert of_late[wild].iteration == of_prompt[wild].iteration
    np.testing.assert_array_equal(of_late[wild].rows, of_prompt[wild].rows)


def test_a_long_way_between_looks_does_not_fill_the_memory(config, monkeypatch):
    taken = []
    as_if_on_a_gpu(monkeypatch, most=2)
    found, _ = course(replace(config, window=4), 1, taken)
    assert taken == [0, 8, 8, 16, 0] * 3
    np.testing.assert_equal(found, course(config, 1, [])[0])


def test_nothing_but_rows_and_losses_of_a_window_is_kept():
    """Its features take a hundred times the memory."""
    window = Window(
        8, torch.zeros(2, 3, 16), torch.zeros(2, 3, dtype=torch.int64), Plan(np.arange(6).reshape(2, 3))
    )
    features, pending = weakref.ref(window.pooled), PendingLosses(2)
    losses = torch.tensor([[1.0, 5.0], [torch.inf, 6.0]], dtype=torch.float64)
    pending.add(window, losses)
    gc.disable()
    try:
        del window
        assert features() is None
    finally:
        gc.enable()
    assert not pending.is_full
    histories = [HeadHistory("overall"), HeadHistory("overall")]
    for _ in range(2):  # the second time there is nothing to bring
        pending.bring_to(histories)
    assert [(history.loss_sum, history.n_steps) for history in histories] == [(np.inf, 2), (11.0, 2)]
    assert histories[0].diverged.iteration == 10
    assert histories[0].diverged.rows.tolist() == [3, 4, 5]


def files(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in ("head.pt", "metrics.csv", "predictions.csv")}


@pytest.mark.parametrize("kept_every", [0.0, 1e9])
@pytest.mark.parametrize("method", ["fsa", "lws"])
def test_a_resumed_run_whose_losses_wait_is_the_same_run(
    config, method, kept_every, quiet, monkeypatch, tmp_path
):
    """A state that is taken between looks has all losses so far."""
    config = replace(config, method=method)
    prompt = finetune(replace(config, out=str(tmp_path / "prompt")), quiet)
    as_if_on_a_gpu(monkeypatch)
    late = finetune(replace(config, out=str(tmp_path / "late")), quiet)
    assert files(late.path) == files(prompt.path)
    monkeypatch.setattr("finetune.training.resume.KEEP_EVERY", kept_every)
    finetune_interrupted(config, lambda n_windows, start: start > 46)
    state = torch.load(unfinished_path(config.out), weights_only=True)["state"]
    assert (state["iteration"], state["tally"]["n_steps"]) == ((52, 12) if kept_every == 0 else (0, 0))
    assert files(finetune(replace(config, resume=True, window=5), quiet).path) == files(prompt.path)


@pytest.mark.parametrize("kept_every", [0.0, 1e9])
def test_a_run_whose_losses_wait_tells_where_it_diverged(config, kept_every, quiet, monkeypatch, tmp_path):
    """And no state from after that is saved, from which a resumed run would tell another place."""
    monkeypatch.setattr("finetune.training.resume.KEEP_EVERY", kept_every)
    monkeypatch.setattr("finetune.training.resume.SAVE_EVERY", 0.0)
    wild, told = replace(config, lr=3e4, momentum=5e2), []
    for _ in range(2):
        with pytest.raises(UserError, match=r"infinite at iteration \d+, in a batch of store rows") as raised:
            finetune(replace(wild, overwrite=True), quiet)
        told.append(str(raised.value))
        states = torch.load(unfinished_path(wild.out), weights_only=True)["state"]["heads"]
        assert all(torch.isfinite(values).all() for values in states[0].values())
        as_if_on_a_gpu(monkeypatch)
    assert told[0] == told[1]
