"""One head, trained or computed; with `--select-on cv` first on each fold, then on all rows."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.progress import Progress

from analysis.accuracy import in_words, is_score
from extract.heads.kinds import Layer, fully_connected
from finetune.config import FinetuneConfig
from finetune.cross_validation.folds import CrossValidation
from finetune.cross_validation.options import CV
from finetune.cross_validation.scores import Scores
from finetune.methods.registry import METHODS
from finetune.sampling.head_tail import split_head_tail
from finetune.training.history import HeadHistory
from finetune.training.inputs import posthoc_layer
from finetune.training.recognised import recognised_facts
from finetune.training.resume import LatestState
from finetune.training.selection import OnSplit, selection_split
from finetune.training.trainer import LoadedStore, Trainer, class_facts
from store.errors import UserError
from store.names import shown


@dataclass(frozen=True)
class MadeHead:
    """A head, and what is known of how it came about.

    Attributes:
        layer: the head itself, on the device.
        history: its metrics, and the head that was best.
        facts: facts for config.json.
        scores: of its configuration on held-out folds; None without cross-validation.
    """

    layer: Layer
    history: HeadHistory
    facts: dict[str, Any]
    scores: Scores | None


def make_head(
    config: FinetuneConfig,
    loaded: LoadedStore,
    folds: CrossValidation | None,
    latest: LatestState,
    progress: Progress,
) -> MadeHead:
    """Compute a head, or train it from its latest state on.

    Args:
        config: resolved options.
        loaded: the store.
        folds: its folds, with `--select-on cv`.
        latest: where the state is kept.
        progress: shows the iterations.

    Raises:
        UserError: the loss or the weights became NaN or infinite.
    """
    scores = None if folds is None else folds.scores(1)
    judge = scores or OnSplit(selection_split(loaded.held_out, config.select_on), loaded.threads)
    if METHODS[config.method].compute is not None:
        layer, history, facts = _compute(config, loaded, folds, judge)
    else:
        layer, history, facts = _Training(config, latest, progress).run(loaded, folds, judge)
    return MadeHead(layer, history, facts, scores)


def posthoc_head(config: FinetuneConfig, loaded: LoadedStore) -> Layer:
    """The head of a method that computes it without training, on the device."""
    return fully_connected(posthoc_layer(config, loaded.store), loaded.device)


def _compute(
    config: FinetuneConfig, loaded: LoadedStore, folds: CrossValidation | None, judge: OnSplit | Scores
) -> tuple[Layer, HeadHistory, dict[str, Any]]:
    if folds is not None:
        for fold in folds:
            judge.of_fold(fold)(0, 0, posthoc_head(config, fold))
    layer, history = posthoc_head(config, loaded), HeadHistory(config.rank_by)
    history.add_row(0, judge(0, 0, layer), layer)
    return layer, history, class_facts(split_head_tail(loaded.common.class_counts, config.head_ratio))


class _Training:
    """The training of a head, stage by stage: every fold, then all rows.

    The state that is kept is the trainer's; with folds it also has, as "cv", the number of the fold and what
    was right so far.
    """

    def __init__(self, config: FinetuneConfig, latest: LatestState, progress: Progress):
        self._config, self._latest, self._progress = config, latest, progress

    def run(
        self, loaded: LoadedStore, folds: CrossValidation | None, judge: OnSplit | Scores
    ) -> tuple[Layer, HeadHistory, dict[str, Any]]:
        """Train from the latest state to the last step on all rows."""
        state, method = self._latest.state, self._config.method
        if folds is None:
            trainer = Trainer([self._config], loaded, judge)
            recognised = recognised_facts(self._config, trainer.inputs, loaded)
            self._train(trainer, loaded, state, f"fine-tuning ({method})", trainer.state)
            return _trained(trainer, recognised)
        stage = 0
        if state is not None:
            stage = state[CV]["stage"]
            judge.load_state(state[CV]["right"])
        for i in range(stage, folds.n_folds + 1):
            on_fold = i < folds.n_folds
            rows = folds.fold(i) if on_fold else loaded
            trainer = Trainer([self._config], rows, judge.of_fold(rows) if on_fold else judge)

            def state_of(trainer: Trainer = trainer, i: int = i) -> dict[str, Any]:
                return trainer.state() | {CV: {"stage": i, "right": judge.state()}}

            what = f"fold {i + 1} of {folds.n_folds} ({method})" if on_fold else f"fine-tuning ({method})"
            recognised = {} if on_fold else recognised_facts(self._config, trainer.inputs, loaded)
            self._train(trainer, rows, state, what, state_of)
            state = None
        return _trained(trainer, recognised)

    def _train(
        self,
        trainer: Trainer,
        loaded: LoadedStore,
        state: dict[str, Any] | None,
        what: str,
        state_of: Callable[[], dict[str, Any]],
    ) -> None:
        """Take a trainer from a state, or from its beginning, to its last step."""
        if state is None:
            trainer.evaluate()
        else:
            trainer.load_state(state)
        self._latest.keep(state_of())
        (history,) = trainer.histories

        def good_state() -> dict[str, Any]:
            state = state_of()  # brings the losses over, if they were still on a GPU
            _check_not_diverged(self._config, history, loaded)
            return state

        task = self._progress.add_task(what, total=self._config.iterations, status="")
        try:
            with closing(trainer.run(self._config.eval_every)) as windows:
                for evaluated in windows:
                    if evaluated:
                        _check_not_diverged(self._config, history, loaded)
                        self._progress.update(task, status=_status(history.metrics[-1]))
                    self._progress.update(task, completed=trainer.iteration)
                    self._latest.keep_when_due(good_state)
        finally:
            self._progress.remove_task(task)
        self._latest.keep(state_of())


def _trained(trainer: Trainer, further: dict[str, Any]) -> tuple[Layer, HeadHistory, dict[str, Any]]:
    """The only head of a trainer, its history, and its facts with further ones."""
    return trainer.layers()[0], trainer.histories[0], trainer.facts(0) | further


def _status(row: dict[str, float]) -> str:
    scores = "".join(f"  {in_words(name)} {value:.1f}" for name, value in row.items() if is_score(name))
    return f"loss {row['loss']:.3f}{scores}"


def _check_not_diverged(config: FinetuneConfig, history: HeadHistory, loaded: LoadedStore) -> None:
    if history.diverged is None:
        return
    iteration, rows = history.diverged
    classes, class_names = np.unique(loaded.common.label[rows]), loaded.store.class_names
    names = ", ".join(shown(class_names[c]) for c in classes[:5]) + (", …" if len(classes) > 5 else "")
    rows = loaded.store_rows(rows)
    raise UserError(
        f"{config.out or config.store}: diverged: the loss is NaN or infinite at iteration "
        f"{iteration}, in a batch of store rows {rows.min()} to {rows.max()} "
        f"({names}); lower --lr (it is {config.lr:g})"
    )
