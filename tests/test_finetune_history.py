"""Training history of a head: sums between rows of metrics, the best layer, and the saved state."""

import copy

import numpy as np
import pytest
import torch

from extract.heads.kinds import FullyConnected
from finetune.training.history import HeadHistory, Steps, histories_of, state_of

CPU = torch.device("cpu")
LAYER = FullyConnected(torch.ones(3, 2), torch.zeros(3))


def steps_of(start: int, n_steps: int) -> Steps:
    """Steps of two rows each, of which one is augmented."""
    row = np.arange(2 * start, 2 * (start + n_steps)).reshape(-1, 2)
    return Steps(start, row, n_steps, np.array([n_steps, 0]))


def test_the_mean_loss_of_a_row_depends_on_no_window_length():
    losses = torch.from_numpy(np.random.default_rng(0).uniform(0, 1e3, 96))
    rows = []
    for length in (1, 7, 32, 96):
        history = HeadHistory("balanced")
        for start in range(0, 96, length):
            part = losses[start : start + length]
            history.add_steps(steps_of(start, len(part)), part)
        history.add_row(96, {}, LAYER)
        rows.append(history.metrics)
        assert (history.n_empty.tolist(), history.n_mixed) == ([96, 0], 96)
    assert rows == [rows[0]] * 4  # to the bit
    assert rows[0][0]["loss"] == pytest.approx(float(losses.mean()))


def test_a_row_is_of_the_steps_since_the_one_before():
    history = HeadHistory("balanced")
    history.add_row(0, {}, LAYER)
    for start, loss in ((0, 2.0), (4, 6.0)):
        history.add_steps(steps_of(start, 4), torch.full((4,), loss, dtype=torch.float64))
        history.add_row(start + 4, {}, LAYER)
    assert np.isnan(history.metrics[0]["loss"])
    assert [(row["iteration"], row["loss"]) for row in history.metrics[1:]] == [(4, 2.0), (8, 6.0)]


def test_the_first_loss_that_is_no_number_is_told_and_no_later_layer_is_the_best():
    history = HeadHistory("overall")
    history.add_row(0, {"val_overall": 10.0}, LAYER)
    history.add_steps(steps_of(8, 4), torch.tensor([1.0, 1.0, np.inf, np.nan], dtype=torch.float64))
    history.add_steps(steps_of(12, 1), torch.tensor([np.nan], dtype=torch.float64))
    history.add_row(13, {"val_overall": 99.0}, LAYER)
    assert history.diverged.iteration == 11
    assert history.diverged.rows.tolist() == [20, 21]
    assert (history.best.iteration, history.kept_iteration("best"), history.kept_iteration("last")) == (
        0,
        0,
        13,
    )


def test_the_best_layer_is_the_earliest_of_equals():
    history = HeadHistory("balanced")
    for iteration, score in enumerate((50.0, 60.0, 60.0, 55.0)):
        history.add_row(iteration, {"val_balanced_accuracy": score, "val_overall": -score}, LAYER)
    assert history.best[:2] == (1, 60.0)


def test_a_state_keeps_everything_and_the_keys_that_earlier_programs_read():
    histories = [HeadHistory("overall"), HeadHistory("balanced")]
    for history in histories:
        history.add_row(0, {"val_overall": 1.0}, LAYER)
        history.add_steps(steps_of(0, 3), torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))
    state = state_of(histories)
    assert state.keys() == {"courses", "tally"}
    assert state["tally"] == {"n_steps": 3, "loss": [7.0, 7.0], "n_empty": [0, 0], "n_augmented": 0}
    assert state["courses"][0].keys() == {"metrics", "n_empty", "n_augmented", "best"}
    found = histories_of(copy.deepcopy(state), ["overall", "balanced"], CPU)
    for before, after in zip(histories, found, strict=True):
        assert (after.loss_sum, after.n_steps, after.n_mixed) == (7.0, 3, 3)
        assert after.n_empty.tolist() == [3, 0]
        assert (after.rank_by, after.best.iteration) == (before.rank_by, before.best.iteration)
        np.testing.assert_equal(after.metrics, before.metrics)
    assert torch.equal(found[0].best.layer[0], LAYER[0])
    assert found[1].best.layer is None  # it has no balanced accuracy


def test_what_an_earlier_program_counted_apart_is_added():
    """It counted augmented samples since the last row separately."""
    best = {"iteration": -1, "accuracy": -np.inf, "layer": None}
    course = {"metrics": [{"iteration": 4, "loss": 1.0}], "n_empty": [5, 2], "n_augmented": 40, "best": best}
    tally = {"n_steps": 3, "loss": [6.0], "n_empty": [1, 1], "n_augmented": 30}
    (history,) = histories_of({"courses": [course], "tally": tally}, ["balanced"], CPU)
    assert (history.n_empty.tolist(), history.n_mixed) == ([6, 3], 70)
    history.add_row(7, {}, LAYER)
    assert history.metrics[-1]["loss"] == 2.0
