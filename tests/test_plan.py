"""The plan on a made-up store: 4 classes, of which 2 and 3 are tail, with 3×3 maps."""

from dataclasses import replace

import numpy as np
import pytest

from finetune import plan as plan_module
from finetune.masks import generic_positions, specific_positions
from finetune.methods import METHODS
from finetune.plan import Drawing, augmentation_plan, draw_specific_counts
from finetune.split import HeadTail

LABEL = np.repeat([0, 1, 2, 3], [40, 30, 6, 3])
L = 9


@pytest.fixture
def drawing() -> Drawing:
    cam = np.random.default_rng(1).random((len(LABEL), 3, 3))
    cam[LABEL == 3] = 0.5  # nothing specific, nothing generic: both sets fall back
    return Drawing(
        label=LABEL,
        head_tail=HeadTail(np.array([0, 1]), np.array([2, 3])),
        confusing=np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [1, 0, 2]]),
        specific=specific_positions(cam, 0.7),
        generic=generic_positions(cam, 0.2),
        n_iterations=200,
        n_tail=16,
        n_augmented=3,
        tail_draw="samples",
        seed=5,
    )


def test_batch_of_16_tail_48_augmented_64_head(drawing):
    plan = augmentation_plan(drawing)
    tail, head = plan.real_row[:, :16], plan.real_row[:, 16:]
    assert plan.real_row.shape == (200, 80)
    assert plan.augmented_row.shape == plan.donor_row.shape == plan.n_specific.shape == (200, 48)
    assert plan.vectors.shape == (200, 48, L)
    assert set(LABEL[tail].flat) == {2, 3}
    assert set(LABEL[head].flat) == {0, 1}


def test_each_augmented_sample_varies_a_tail_sample_of_its_own_batch(drawing):
    plan = augmentation_plan(drawing)
    expected = np.repeat(plan.real_row[:, :16], 3, axis=1)
    np.testing.assert_array_equal(plan.augmented_row, expected)


def test_donors_come_from_the_confusing_classes_of_the_tail_class(drawing):
    narrow = replace(drawing, confusing=drawing.confusing[:, :2], n_augmented=2)
    plan = augmentation_plan(narrow)
    for tail_class, allowed in ((2, {0, 1}), (3, {0, 1})):
        assert set(LABEL[plan.donor_row[LABEL[plan.augmented_row] == tail_class]]) == allowed
    swapped = replace(narrow, confusing=np.array([[1, 2], [0, 2], [1, 3], [2, 1]]))
    plan = augmentation_plan(swapped)
    for tail_class, allowed in ((2, {1, 3}), (3, {2, 1})):
        assert set(LABEL[plan.donor_row[LABEL[plan.augmented_row] == tail_class]]) == allowed


def test_each_tail_sample_draws_distinct_confusing_classes(drawing):
    donors = LABEL[augmentation_plan(drawing).donor_row].reshape(200, 16, 3)
    assert (np.sort(donors, axis=2)[:, :, 1:] != np.sort(donors, axis=2)[:, :, :-1]).all()
    fewer = LABEL[augmentation_plan(replace(drawing, n_augmented=2)).donor_row].reshape(-1, 2)
    assert (fewer[:, 0] != fewer[:, 1]).all()
    assert len({tuple(pair) for pair in np.sort(fewer, axis=1)}) == 5  # every pair of either tail class


def test_more_augmented_samples_than_confusing_classes_cycle(drawing):
    plan = augmentation_plan(replace(drawing, confusing=drawing.confusing[:, :2], n_augmented=5))
    donors = LABEL[plan.donor_row].reshape(-1, 5)
    np.testing.assert_array_equal(donors[:, 0], donors[:, 2])
    np.testing.assert_array_equal(donors[:, 1], donors[:, 3])
    assert (donors[:, 0] != donors[:, 1]).all()


def test_vectors_are_specific_of_the_tail_row_then_generic_of_the_donor(drawing):
    plan = augmentation_plan(drawing)
    row, position = plan.vectors // L, plan.vectors % L
    allowed = np.zeros((2, len(LABEL), L), bool)
    for kind, sets in enumerate((drawing.specific, drawing.generic)):
        for r in range(len(LABEL)):
            allowed[kind, r, sets.order[r, : sets.count[r]]] = True
    from_tail = np.arange(L) < plan.n_specific[..., None]
    np.testing.assert_array_equal(
        row, np.where(from_tail, plan.augmented_row[..., None], plan.donor_row[..., None])
    )
    assert allowed[(~from_tail).astype(int), row, position].all()


def test_counts_of_specific_and_generic_vectors(drawing):
    counts = draw_specific_counts(drawing, (50_000,), L)
    assert counts.min() == 1
    assert counts.max() == L - 1
    # round(γ · 9): 1 also takes the half interval of 0, 8 that of 9
    share = np.bincount(counts, minlength=L)[1:] / 50_000
    expected = np.array([1.5, 1, 1, 1, 1, 1, 1, 1.5]) / 9
    np.testing.assert_allclose(share, expected, atol=0.01)


def test_two_positions_give_one_of_each(drawing):
    assert (draw_specific_counts(drawing, (100,), 2) == 1).all()


def test_vectors_are_uniform_and_with_replacement(drawing):
    plan = augmentation_plan(replace(drawing, n_iterations=2000))
    of_class_3 = LABEL[plan.augmented_row] == 3  # its specific set is all nine positions
    from_tail = np.arange(L) < plan.n_specific[..., None]
    drawn = (plan.vectors % L)[of_class_3[..., None] & from_tail]
    np.testing.assert_allclose(np.bincount(drawn, minlength=L) / len(drawn), 1 / L, atol=0.004)
    many = plan.vectors[of_class_3 & (plan.n_specific == 8)][:, :8]
    assert any(len(set(sample)) < 8 for sample in many.tolist())


def test_tail_draw_by_samples_or_by_classes(drawing):
    of_samples = LABEL[replace(drawing, n_iterations=2000).tail_rows(16)]
    of_classes = LABEL[replace(drawing, n_iterations=2000, tail_draw="classes").tail_rows(16)]
    assert (of_samples == 3).mean() == pytest.approx(3 / 9, abs=0.02)
    assert (of_classes == 3).mean() == pytest.approx(1 / 2, abs=0.02)


def test_every_row_can_be_drawn(drawing):
    plan = augmentation_plan(replace(drawing, n_iterations=2000))
    assert set(plan.real_row.flat) == set(range(len(LABEL)))
    # class 3 is among the confusing classes of class 2, and classes 0, 1, 2 of class 3
    assert set(plan.donor_row.flat) == set(range(len(LABEL)))


def test_plan_depends_on_the_seed_alone(drawing, monkeypatch):
    plan = augmentation_plan(drawing)
    monkeypatch.setattr(plan_module, "CHUNK", 7)
    again = augmentation_plan(drawing)
    other = augmentation_plan(replace(drawing, seed=6))
    for name in ("real_row", "augmented_row", "donor_row", "n_specific", "vectors"):
        np.testing.assert_array_equal(getattr(plan, name), getattr(again, name))
        assert not np.array_equal(getattr(plan, name), getattr(other, name))


def test_iterations_differ(drawing):
    plan = augmentation_plan(drawing)
    assert len(np.unique(plan.real_row, axis=0)) == 200
    assert len(np.unique(plan.vectors.reshape(200, -1), axis=0)) == 200


def test_no_aug_is_real_tail_and_head_in_equal_parts(drawing):
    plan = METHODS["no-aug"].draw(drawing)
    assert plan.real_row.shape == (200, 128)
    assert plan.augmented_row.size == 0
    assert set(LABEL[plan.real_row[:, :64]].flat) == {2, 3}
    assert set(LABEL[plan.real_row[:, 64:]].flat) == {0, 1}


def test_plain_is_uniform_over_all_samples(drawing):
    plan = METHODS["plain"].draw(replace(drawing, n_iterations=2000))
    assert plan.real_row.shape == (2000, 128)
    share = np.bincount(LABEL[plan.real_row].ravel()) / plan.real_row.size
    np.testing.assert_allclose(share, np.bincount(LABEL) / len(LABEL), atol=0.01)
