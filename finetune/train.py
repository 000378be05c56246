"""Phase II: fine-tune the FC layer alone on cached features (paper, secs. 4.2 and 4.3)."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.progress import Progress

from analysis.accuracy import summarise
from extract.device import keep_freed_memory, resolve_device
from finetune.config import FinetuneConfig
from finetune.course import Course
from finetune.features import HeldOut, load_features, load_held_out
from finetune.loop import stops_of, train_heads
from finetune.methods import METHODS
from finetune.plan import Drawing
from finetune.prepare import computed_layer, head_options, prepare_drawing
from finetune.residency import choose_residency, hold_maps
from finetune.resume import UnfinishedRun
from finetune.run import Run, find_phase1, foreign_to_run, write_run
from finetune.selection import Layer, accuracies, require_selection, selection_split
from finetune.stacks import Stacks
from finetune.threads import Threads, single_threaded
from finetune.window import WindowMaker
from store.atomic import refuse_existing
from store.cache import open_cache
from store.errors import Interrupted, UserError
from store.location import locate
from store.provenance import versions
from store.reader import FeatureStore

SAVE_EVERY = 30.0  # seconds between states that a killed run can be gone on with from


def finetune(config: FinetuneConfig, progress: Progress) -> Run:
    """Fine-tune one head from a store and write its run folder.

    Two runs with one seed give the same bytes in head.pt, wherever the maps live and whether or not it was
    interrupted.

    Raises:
        UserError: the store, the options or the folder cannot be used, or the loss is no number any more.
        Interrupted: by the user; the same options and `resume` go on.
    """
    started = time.perf_counter()
    keep_freed_memory()
    store = FeatureStore(locate(config.store), open_cache(config.cache, config.cache_gib))
    config = config.resolved(len(store.class_names))
    _refuse_options(config)
    refuse_existing(Path(config.out), "run", foreign_to_run, config.overwrite)
    unfinished = UnfinishedRun(config, store)
    unfinished.refuse_or_forget(config.resume, config.overwrite)
    device = resolve_device(config.device)
    phase1 = find_phase1(store, config.ckpt)
    held_out = load_held_out(store, config.shot_rule, device)
    if config.keep == "best":
        require_selection(selection_split(held_out, config.select_on), "--keep best")
    with single_threaded() as threads:
        if METHODS[config.method].compute is not None:
            layer, course, facts = _compute(config, store, held_out, threads)
        else:
            layer, course, facts = _train(config, store, held_out, unfinished, threads, progress)
        facts["seconds"] = {"total": time.perf_counter() - started} | facts.pop("seconds", {})
        run = _describe(config, store, held_out, layer, course, facts, threads)
    write_run(run, *layer, phase1, config.tensorboard)
    unfinished.remove()
    return run


def _refuse_options(config: FinetuneConfig) -> None:
    if config.resume and config.overwrite:
        raise UserError(
            f"{config.out}: --resume goes on with a run and --overwrite replaces it; pass one of them"
        )
    if config.tensorboard:
        try:
            import tensorboard  # noqa: F401
        except ImportError as error:
            raise UserError("--tensorboard: needs `pip install tensorboard`; or leave it out") from error


def _train(
    config: FinetuneConfig,
    store: FeatureStore,
    held_out: dict[str, HeldOut],
    unfinished: UnfinishedRun,
    threads: Threads,
    progress: Progress,
) -> tuple[Layer, Course, dict[str, Any]]:
    """Take every step; the head, what was measured on the way, and facts of the run."""
    started = time.perf_counter()
    device = next(iter(held_out.values())).pooled.device
    method, split = METHODS[config.method], selection_split(held_out, config.select_on)
    drawing = prepare_drawing(config, store)
    maps, residency, window = None, None, config.window
    if method.sampling.uses_maps:
        rows = config.n_tail * (1 + config.augmented_per_sample)
        residency = choose_residency(config.residency, config.memory, window, rows, store, device)
        maps, window = hold_maps(store, residency, device), residency.window
    maker = WindowMaker(method.sampling.draw, drawing, load_features(store, device), maps)
    stacks = Stacks([head_options(config, store, drawing)], device, threads)
    loaded = time.perf_counter()

    course, state = _begin(stacks, split, unfinished, threads)
    task = progress.add_task(f"fine-tuning ({config.method})", total=config.iterations, status="")
    saved = time.perf_counter()
    legs = train_heads(
        stacks,
        maker.make,
        course.iteration,
        stops_of(config.iterations, config.eval_every),
        window,
        config.prefetch,
        lambda iteration: progress.update(task, completed=iteration),
    )
    try:
        for leg in legs:
            layer = stacks.layers()[0]
            course.go_on(leg, 0, accuracies(split, layer, threads), layer)
            _refuse_divergence(config, course, store)
            progress.update(task, status=_status(course.metrics[-1]))
            state = {"course": course.state(), "head": stacks.state()[0]}
            if time.perf_counter() - saved > SAVE_EVERY:
                unfinished.save(state)
                saved = time.perf_counter()
    except KeyboardInterrupt as error:
        unfinished.save(state)
        raise Interrupted from error
    progress.remove_task(task)
    layer = course.best.layer if config.keep == "best" else stacks.layers()[0]
    facts = draw_facts(drawing, course)
    facts["residency"] = None if residency is None else asdict(residency)
    facts["seconds"] = {"load": loaded - started, "train": time.perf_counter() - loaded}
    return layer, course, facts


def _begin(
    stacks: Stacks, split: HeldOut | None, unfinished: UnfinishedRun, threads: Threads
) -> tuple[Course, dict[str, Any]]:
    """Where the run is at: at its start, or where it was interrupted; and that as a state."""
    state = unfinished.load() if unfinished.path.exists() else None
    if state is not None:
        stacks.load([state["head"]])
        return Course.from_state(state["course"]), state
    course, layer = Course(), stacks.layers()[0]
    course.begin(accuracies(split, layer, threads), layer)
    return course, {"course": course.state(), "head": stacks.state()[0]}


def _status(row: dict[str, float]) -> str:
    shown = "".join(f"  {k.removesuffix('_overall')} {v:.1f}" for k, v in row.items() if "_overall" in k)
    return f"loss {row['loss']:.3f}{shown}"


def _refuse_divergence(config: FinetuneConfig, course: Course, store: FeatureStore) -> None:
    if course.diverged is None:
        return
    rows = course.diverged.rows
    classes = np.unique(store.read("train").label[rows])
    names = ", ".join(store.class_names[c] for c in classes[:5]) + (", …" if len(classes) > 5 else "")
    raise UserError(
        f"{config.out}: diverged: the loss is no number at iteration {course.diverged.iteration}, in a batch "
        f"of the store's rows {rows.min()} to {rows.max()} ({names}); lower --lr (it is {config.lr:g})"
    )


def _compute(
    config: FinetuneConfig, store: FeatureStore, held_out: dict[str, HeldOut], threads: Threads
) -> tuple[Layer, Course, dict[str, Any]]:
    """The head of a method that trains nothing, as `_train` gives it."""
    split = selection_split(held_out, config.select_on)
    device = held_out["test"].pooled.device
    layer = tuple(torch.from_numpy(part).to(device) for part in computed_layer(config, store))
    course = Course()
    course.begin(accuracies(split, layer, threads), layer)
    return layer, course, draw_facts(prepare_drawing(config, store), course)


def draw_facts(drawing: Drawing, course: Course) -> dict[str, Any]:
    """What a user asks of a run's draws: its classes, and how often an empty set fell back."""
    head_tail = drawing.head_tail
    facts: dict[str, Any] = {"head_classes": head_tail.head.tolist(), "tail_classes": head_tail.tail.tolist()}
    if course.n_augmented:
        confusing = {str(c): drawing.confusing[c].tolist() for c in head_tail.tail.tolist()}
        facts["confusing_classes"] = confusing
        for name, n in zip(("specific", "generic"), course.n_empty.tolist(), strict=True):
            facts[f"empty_{name}_percent"] = 100 * n / course.n_augmented
    return facts


def _describe(
    config: FinetuneConfig,
    store: FeatureStore,
    held_out: dict[str, HeldOut],
    layer: Layer,
    course: Course,
    facts: dict[str, Any],
    threads: Threads,
) -> Run:
    """The run, with test accuracies: the first and only time that the test set is looked at, unless asked."""
    phase1 = tuple(torch.from_numpy(part).to(layer[0].device) for part in store.classifier)
    summary: dict[str, Any] = {}
    predicted = {}
    for name, split in held_out.items():
        before, after = (split.predict(*of, threads) for of in (phase1, layer))
        predicted[name] = (before, after)
        of_split = summarise(split.frame(after), config.shot_rule)
        of_split["phase1"] = summarise(split.frame(before), config.shot_rule)
        summary |= of_split if name == "test" else {name: of_split}
    summary |= {"select_on": config.select_on, "kept_iteration": _kept(config, course)}
    test, (before, after) = held_out["test"], predicted["test"]
    predictions = pd.DataFrame(
        {"sample_index": test.sample_index, "label": test.label, "phase1": before, "prediction": after}
    )
    provenance = {"store": store.provenance, "versions": versions()}
    content = asdict(config) | {"facts": facts, "provenance": provenance}
    return Run(Path(config.out), content, course.frame(), test.frame(after), predictions, summary)


def _kept(config: FinetuneConfig, course: Course) -> int:
    return course.best.iteration if config.keep == "best" else course.iteration
