"""FSLwF: episodes, weights that are generated, and learning to generate them, each done in another way."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import refuse, run, succeed
from head_oracles import CPU, options
from torch.nn.functional import cosine_similarity, cross_entropy

from finetune.config import FinetuneConfig
from finetune.heads.few_shot import FewShotHead
from finetune.heads.options import FewShot
from finetune.heads.stacked import padded
from finetune.sampling.episodes import EpisodeShape, episodes
from finetune.sampling.philox import CounterRNG
from finetune.training.inputs import head_options, plan_inputs
from store.reader import FeatureStore
from store.storage.location import locate

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def test_an_episode_follows_from_its_numbers(feature_store):
    """Row by row, from the numbers that docs/run-format.md gives an address."""
    store = FeatureStore(locate(str(feature_store)))
    config = FinetuneConfig("", method="fslwf", batch_size=33, seed=7, head_ratio=0.9).resolved(10)
    inputs = plan_inputs(config, store)
    plan = episodes(inputs, 3, 6)
    label, head = store.read("train").label, inputs.head_tail.head
    n_rare = len(head) // 2
    numbers = CounterRNG(7)
    for t, row in enumerate(plan.row):
        keys = numbers.uniform("order of head classes", 3 + t, 4 + t, len(head))[0]
        order = [head[i] for i in sorted(range(len(head)), key=lambda i: keys[i])]
        rare, common = order[:n_rare], order[n_rare:]
        chosen = numbers.uniform("episode class", 3 + t, 4 + t, 33 - 5 * n_rare)[0]
        classes = [c for c in rare for _ in range(5)]
        half = len(chosen) // 2
        classes += [rare[int(u * len(rare))] for u in chosen[:half]]
        classes += [common[int(u * len(common))] for u in chosen[half:]]
        within = numbers.uniform("episode row", 3 + t, 4 + t, 33)[0]
        expected = [
            np.flatnonzero(label == c)[int(u * (label == c).sum())]
            for c, u in zip(classes, within, strict=True)
        ]
        assert row.tolist() == expected


def made_head(rng: np.random.Generator, **more) -> tuple[FewShotHead, FewShot]:
    """Seven classes, of which 2 and 5 are rare, in episodes of two classes with three rows each."""
    label = np.array([2] * 4 + [5] * 3)
    few = FewShot(np.array([0, 1, 3, 4, 6]), rng.random((7, 6)), label, EpisodeShape(2, 3))
    return FewShotHead(options(rng, 7, 6, few_shot=few, **more), CPU), few


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / x.norm()


def generated_by_hand(part: dict[str, torch.Tensor], rows: torch.Tensor, common: list[int]) -> torch.Tensor:
    """The weight of a class from its rows, with attention to the head classes at some places."""
    mean = sum(unit(x) for x in rows) / len(rows)
    attended = torch.zeros_like(mean)
    for x in rows:
        query = part["query_weight"] @ unit(x) + part["query_bias"]
        likeness = torch.stack([cosine_similarity(query, part["key"][b], dim=0) for b in common])
        share = (part["sharpness"] * likeness).exp()
        share = share / share.sum()
        attended = attended + sum(
            s * unit(part["weight"][b]) for s, b in zip(share, common, strict=True)
        ) / len(rows)
    return part["of_mean"] * mean + part["of_attended"] * attended


def episode(rng: np.random.Generator, head: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    rare, common = np.split(rng.permutation(head), [2])
    others = np.concatenate([rng.choice(rare, 4), rng.choice(common, 5)])
    return torch.from_numpy(rng.random((15, 6))), torch.from_numpy(np.concatenate([rare.repeat(3), others]))


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_generator_equals_autograd_and_torch_sgd_of_its_formula(schedule):
    rng = np.random.default_rng(4)
    head, few = made_head(rng, weight_decay=0.01, schedule=schedule, n_iterations=12)
    part = {name: value.detach().clone().requires_grad_() for name, value in head.trained.items()}
    made = [episode(rng, few.head) for _ in range(12)]
    optimizer = torch.optim.SGD(part.values(), lr=0.1, momentum=0.9, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)
    expected = []
    place = few.head.tolist().index
    for x, label in made:
        rare = [place(label[0]), place(label[3])]
        common = [b for b in range(5) if b not in rare]
        weights = list(part["weight"])
        for i, r in enumerate(rare):
            weights[r] = generated_by_hand(part, x[3 * i : 3 * i + 3], common)
        rows = [torch.stack([cosine_similarity(one, w, dim=0) for w in weights]) for one in x[6:]]
        asked = torch.tensor([place(y) for y in label[6:]])
        loss = cross_entropy(part["logit_scale"] * torch.stack(rows), asked)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if schedule == "cosine":
            scheduler.step()
        expected.append(loss.item())
    x, label = (torch.stack([one[i] for one in made]) for i in (0, 1))
    found = torch.cat(
        [head.train_on(padded(x[:5]), label[:5], 0), head.train_on(padded(x[5:]), label[5:], 5)]
    )
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-6)
    for name, value in head.trained.items():
        torch.testing.assert_close(value.detach(), part[name].detach(), rtol=1e-6, atol=1e-8, msg=name)


def test_the_classifier_has_head_weights_and_generated_ones(monkeypatch):
    """Whatever number of rows is taken at once."""
    rng = np.random.default_rng(5)
    head, few = made_head(rng)
    with torch.no_grad():
        for value in head.trained.values():
            value += torch.from_numpy(rng.normal(size=value.shape)) / 10
    made, whole = head.layers()[0], list(range(5))
    for k in range(7):
        if k in (2, 5):
            own = generated_by_hand(head.trained, torch.from_numpy(few.pooled[few.label == k]), whole)
        else:
            own = head.trained["weight"][few.head.tolist().index(k)]
        torch.testing.assert_close(made.weight[k], unit(own).detach(), rtol=1e-9, atol=1e-12)
    assert torch.equal(made.logit_scale, head.trained["logit_scale"])
    monkeypatch.setattr("finetune.heads.few_shot.ROWS_AT_ONCE", 2)
    torch.testing.assert_close(head.layers()[0].weight, made.weight)


def test_it_begins_with_phase_1s_weights_and_plain_means(feature_store):
    """At first, a rare class's weight is the mean of its rows and what they attend to."""
    store = FeatureStore(locate(str(feature_store)))
    config = FinetuneConfig("", method="fslwf").resolved(10)
    inputs = plan_inputs(config, store)
    made = head_options(config, store, inputs)
    few, label = made.few_shot, store.read("train").label
    assert sorted(few.head) == sorted(inputs.head_tail.head)
    assert np.array_equal(few.label, label[np.isin(label, inputs.head_tail.tail)])
    assert np.array_equal(few.pooled, store.read("train").pooled[np.isin(label, inputs.head_tail.tail)])
    head = FewShotHead(made, CPU)
    weight = torch.from_numpy(store.classifier[0][few.head])
    torch.testing.assert_close(
        head.layers()[0].weight[few.head], weight / weight.norm(dim=1, keepdim=True), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--loss", "focal"], ["--loss focal: --method fslwf learns in episodes", "leave it out"]),
        (
            ["--head-ratio", "0.05"],
            ["--method fslwf: head classes play rare ones", "there is 1", "--head-ratio"],
        ),
        (["--batch-size", "6"], ["--batch-size 6: an episode of --method fslwf has", "raise it to"]),
    ],
)
def test_what_it_cannot_learn_from(feature_store, options, says):
    command = ["finetune", "--store", feature_store, "--out", "r", "--device", "cpu", "--method", "fslwf"]
    refuse(*command, *options, says=says)
    assert not Path("r").exists()


def test_another_sampling_changes_nothing_and_that_is_told(feature_store):
    command = [
        "finetune",
        "--store",
        feature_store,
        "--device",
        "cpu",
        "--method",
        "fslwf",
        "--iterations",
        "5",
    ]
    told = run(*command, "--out", "a", "--sampling", "uniform")
    assert "--sampling changes nothing for fslwf" in told.stderr
    succeed(*command, "--out", "b")
    assert Path("a/head.pt").read_bytes() == Path("b/head.pt").read_bytes()


def test_head_ratio_makes_other_heads_and_donors_do_not(feature_store):
    """Its name and its head depend on which classes are the head."""
    from finetune.methods.options import effective_options

    config = FinetuneConfig("", method="fslwf").resolved(10)
    names = effective_options(replace(config, head_ratio=0.7).__dict__)
    assert names["head_ratio"] == 0.7
    assert "donors" not in names
