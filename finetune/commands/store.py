"""The commands `store info`, `store verify`, `store convert`, `store join` and `store plan`."""

from dataclasses import asdict
from typing import Any

import click

from extract.config import SampleConfig
from finetune.commands import early
from finetune.commands.advice import resumable
from finetune.commands.console import print_json, progress_bar, say
from finetune.commands.help import HelpGroup
from finetune.commands.options import PLACE, build, given, json_option, options
from finetune.forecast.config import ForecastConfig
from store.config import ConvertConfig
from store.names import shown, visible
from store.notes import note


@click.group("store", cls=HelpGroup)
def store_group() -> None:
    """Inspect, verify, convert, join or plan a feature store."""


@store_group.command()
@click.argument("path", type=PLACE)
@json_option
def info(path: str, as_json: bool) -> None:
    """Show what a store holds and how it was made."""
    early.check_store_exists(path)
    from store.info import describe
    from store.reader import FeatureStore
    from store.storage.location import locate

    content = describe(FeatureStore(locate(path)))
    if as_json:
        print_json(content)
        return
    for name, array in content["arrays"].items():
        if not name.startswith("checksum/"):
            shape = " × ".join(map(str, array["shape"]))
            say(f"{name:<20} {array['dtype']:<8} {shape:<22} {array['bytes']:>18,} bytes")
    say(f"{content['bytes'] / 2**20:,.1f} MiB in {content['files']:,} files, complete")
    say(f"{len(content['classes'])} classes: " + ", ".join(_counts(content["classes"])))
    if content["views"]["train"] > 1:
        say(f"{content['views']['train']} views of each training image")
    if content["layers"]:
        stored = ", ".join(f"{name} ({dtype})" for name, dtype in content["layers"].items())
        say(f"maps of earlier layers: {stored}")
    try:
        made = content["provenance"]
        ckpt, arch = made["checkpoint"]["path"], made["network"]["arch"]
        ended = f", finished {content['finished']}" if content["finished"] else ""
        say(f"from {ckpt} ({arch}), started {made['begun']}{ended}, on {made['host']}")
        if trained := _trained(made):
            say(f"trained with {trained}")
        version, commit = made["versions"]["tailcache"], made.get("commit")
        of_commit = f", commit {commit['id']}{' with changes' if commit['dirty'] else ''}" if commit else ""
        say(f"by tailcache {version}{of_commit}")
    except (KeyError, TypeError):
        say("its provenance does not record how it was made")


def _trained(made: dict[str, Any]) -> str:
    """Phase I's options in words, without those that are not set; empty for another program's network."""
    options = {name: value for name, value in made.get("training", {}).items() if _is_set(value)}
    if "recipe" not in options:
        return ""
    seed = {"seed": made["checkpoint"]["seed"]}
    words = {True: "yes", False: "no"}
    return ", ".join(
        f"{name.replace('_', '-')} {words[value] if isinstance(value, bool) else value}"
        for name, value in ({"recipe": options["recipe"]} | options | seed).items()
    )


def _is_set(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _counts(classes: list[dict[str, Any]]) -> list[str]:
    listed = classes if len(classes) <= 20 else [*classes[:3], None, *classes[-3:]]
    return [f"{shown(c['class_name'])} {c['train']:,}" if c else "…" for c in listed]


@store_group.command()
@click.argument("path", type=PLACE)
@options(SampleConfig)
@json_option
@click.pass_context
def verify(context: click.Context, path: str, as_json: bool, **values: Any) -> None:
    """Verify a whole store: exit code 0 if sound, 1 if not, 2 if it cannot be checked."""
    early.check_proof(path, SampleConfig(**values))
    from store.reader import FeatureStore
    from store.storage.location import locate
    from store.verify import verify as run

    config, store, sampled = SampleConfig(**values).checked(), FeatureStore(locate(path)), None
    idle = {"seed", "device", "workers"} if config.sample is None else set()
    for name in sorted(idle.intersection(given(context))):
        note(f"--{name} changes nothing without --sample, the number of rows to extract again")
    with progress_bar() as progress:
        if config.sample is not None:
            from extract.proof.sample import compare, draw_sample

            sample = draw_sample(store, config, progress)
        faults = [str(fault) for fault in run(store, progress)]
        if config.sample is not None and not faults:
            differences = list(compare(sample, progress))
            faults = [str(difference) for difference in differences]
            rows = {split: len(of_split) for split, of_split in sample.rows.items()}
            sampled = {"rows": rows, "differ": [asdict(difference) for difference in differences]}
    if as_json:
        print_json({"path": path, "sound": not faults, "faults": faults, "sample": sampled})
    else:
        verdict = f"not sound, {len(faults)} found" if faults else "sound"
        agree = f", {sum(sampled['rows'].values())} rows extracted again agree" if sampled else ""
        say(*faults, f"{path}: {verdict}{'' if faults else agree}")
    context.exit(1 if faults else 0)


@store_group.command()
@click.argument("path", type=PLACE)
@click.argument("target", type=PLACE)
@options(ConvertConfig)
@json_option
@click.pass_context
def convert(context: click.Context, as_json: bool, **values: Any) -> None:
    """Copy a store to TARGET, .zarr or .h5, optionally with other chunks, codec or dtype."""
    early.check_store_exists(values["path"])
    early.check_target(values["target"], values["resume"], values["overwrite"])
    from store.convert import convert as run
    from store.info import describe
    from store.reader import FeatureStore
    from store.storage.location import locate

    target = values["target"]
    with resumable(context), progress_bar() as progress:
        run(ConvertConfig(**values), progress)
    content = describe(FeatureStore(locate(target)))
    if as_json:
        print_json(content)
        return
    form = content["provenance"]["converted"][-1]
    size = f"{content['bytes'] / 2**20:,.1f} MiB in {content['files']:,} files"
    say(f"{target}: feature maps in {form['dtype']}, codec {form['codec']}; {size}")


@store_group.command()
@click.argument("path", type=PLACE)
def join(path: str) -> None:
    """Complete a store whose parts (`extract --part i/n`) are all written."""
    from store.parts.join import join as run
    from store.storage.location import locate

    n_parts = run(locate(path))
    say(f"{path}: complete{f', of {n_parts} parts' if n_parts else ' already'}")


@store_group.command()
@options(ForecastConfig)
@json_option
@click.pass_context
def plan(context: click.Context, as_json: bool, **values: Any) -> None:
    """Estimate the size of a store and the time to make it, from a few images and the disk's speed."""
    early.check_planning(build(ForecastConfig, values), given(context))
    from finetune.forecast.forecast import forecast
    from finetune.forecast.options import check_beside_checkpoint
    from finetune.forecast.text import forecast_json, forecast_lines, warnings

    check_beside_checkpoint(given(context), values["arch"])
    with progress_bar() as progress:
        found = forecast(build(ForecastConfig, values), progress)
    if as_json:
        print_json(forecast_json(found))
    else:
        say(*forecast_lines(found))
    for warning in warnings(found):
        click.echo(f"tailcache: warning: {visible(warning)}", err=True)
