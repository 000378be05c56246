"""The plan on a synthetic store: 4 classes, with 2 and 3 as tail, and 3×3 maps."""

from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.methods.registry import METHODS
from finetune.mixing.fsa import draw_specific_counts
from finetune.mixing.gaussians import ClassMoments, ClassNoise
from finetune.mixing.mixup import share_quantiles
from finetune.sampling.head_tail import HeadTail
from finetune.sampling.masks import generic_positions, specific_positions
from finetune.sampling.philox import KINDS, CounterRNG
from finetune.sampling.plan import Mixing, Plan, PlanInputs

LABEL = np.repeat([0, 1, 2, 3], [40, 30, 6, 3])
L = 9


@pytest.fixture
def inputs() -> PlanInputs:
    cam = np.random.default_rng(1).random((len(LABEL), 3, 3))
    cam[LABEL == 3] = 0.5  # no specific and no generic position: both sets fall back
    return PlanInputs(
        label=LABEL,
        head_tail=HeadTail(np.array([0, 1]), np.array([2, 3])),
        confusing=np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [1, 0, 2]]),
        specific=specific_positions(cam, 0.7),
        generic=generic_positions(cam, 0.2),
        batch_size=128,
        n_tail=16,
        augmented_per_sample=3,
        tail_draw="samples",
        gamma=(0.0, 1.0),
        draws=CounterRNG(5),
        mixing=made_mixing(),
    )


def made_mixing() -> Mixing:
    """What any mix may ask for."""
    moments = ClassMoments(np.random.default_rng(2).random((len(LABEL), 16)), LABEL, 4)
    noise, quantiles = ClassNoise(moments, 5, "full", 0.0), share_quantiles(1.0)
    return Mixing(0.5, "tail", 4, 16, quantiles, neighbours=moments.nearest(2), of_classes=noise)


def plan_of(inputs: PlanInputs, n: int = 200, method: str = "fsa", start: int = 0) -> Plan:
    return METHODS[method].sampling.draw(inputs, start, start + n)


def test_batch_of_16_tail_48_augmented_64_head(inputs):
    plan = plan_of(inputs)
    tail, head = plan.row[:, :16], plan.row[:, 16:80]
    assert plan.row.shape == (200, 128)
    assert plan.mix.row.shape == plan.mix.donor_row.shape == plan.mix.n_specific.shape == (200, 48)
    assert plan.mix.vectors.shape == (200, 48, L)
    assert set(LABEL[tail].flat) == {2, 3}
    assert set(LABEL[head].flat) == {0, 1}


def test_each_augmented_sample_varies_a_tail_sample_of_its_own_batch(inputs):
    plan = plan_of(inputs)
    expected = np.repeat(plan.row[:, :16], 3, axis=1)
    np.testing.assert_array_equal(plan.mix.row, expected)


def test_donors_come_from_the_confusing_classes_of_the_tail_class(inputs):
    narrow = replace(inputs, confusing=inputs.confusing[:, :2], augmented_per_sample=2)
    plan = plan_of(narrow)
    for tail_class, allowed in ((2, {0, 1}), (3, {0, 1})):
        assert set(LABEL[plan.mix.donor_row[LABEL[plan.mix.row] == tail_class]]) == allowed
    swapped = replace(narrow, confusing=np.array([[1, 2], [0, 2], [1, 3], [2, 1]]))
    plan = plan_of(swapped)
    for tail_class, allowed in ((2, {1, 3}), (3, {2, 1})):
        assert set(LABEL[plan.mix.donor_row[LABEL[plan.mix.row] == tail_class]]) == allowed


def test_each_tail_sample_draws_distinct_confusing_classes(inputs):
    donors = LABEL[plan_of(inputs).mix.donor_row].reshape(200, 16, 3)
    assert (np.sort(donors, axis=2)[:, :, 1:] != np.sort(donors, axis=2)[:, :, :-1]).all()
    fewer = LABEL[plan_of(replace(inputs, augmented_per_sample=2)).mix.donor_row].reshape(-1, 2)
    assert (fewer[:, 0] != fewer[:, 1]).all()
    assert len({tuple(pair) for pair in np.sort(fewer, axis=1)}) == 5  # every pair of either tail class


def test_more_augmented_samples_than_confusing_classes_cycle(inputs):
    plan = plan_of(replace(inputs, confusing=inputs.confusing[:, :2], augmented_per_sample=5))
    donors = LABEL[plan.mix.donor_row].reshape(-1, 5)
    np.testing.assert_array_equal(donors[:, 0], donors[:, 2])
    np.testing.assert_array_equal(donors[:, 1], donors[:, 3])
    assert (donors[:, 0] != donors[:, 1]).all()


def test_vectors_are_specific_of_the_tail_row_then_generic_of_the_donor(inputs):
    plan = plan_of(inputs)
    row, position = plan.mix.vectors // L, plan.mix.vectors % L
    allowed = np.zeros((2, len(LABEL), L), bool)
    for kind, sets in enumerate((inputs.specific, inputs.generic)):
        for r in range(len(LABEL)):
            allowed[kind, r, sets.order[r, : sets.count[r]]] = True
    from_tail = np.arange(L) < plan.mix.n_specific[..., None]
    np.testing.assert_array_equal(
        row, np.where(from_tail, plan.mix.row[..., None], plan.mix.donor_row[..., None])
    )
    assert allowed[(~from_tail).astype(int), row, position].all()


def test_counts_of_specific_and_generic_vectors(inputs):
    counts = draw_specific_counts(inputs, 0, 1000, 50).ravel()
    assert counts.min() == 1
    assert counts.max() == L - 1
    # round(γ · 9): 1 also takes the half interval of 0, 8 that of 9
    share = np.bincount(counts, minlength=L)[1:] / 50_000
    expected = np.array([1.5, 1, 1, 1, 1, 1, 1, 1.5]) / 9
    np.testing.assert_allclose(share, expected, atol=0.01)


def test_gamma_between_bounds(inputs):
    counts = draw_specific_counts(replace(inputs, gamma=(0.3, 0.5)), 0, 1000, 50).ravel()
    # from round(2.7) = 3 to round(4.5) = 4 (half to even); 3 takes γ·9 in [2.7, 3.5), 4 the rest
    assert set(counts) == {3, 4}
    assert (counts == 3).mean() == pytest.approx(0.8 / 1.8, abs=0.01)


def test_two_positions_give_one_of_each(inputs):
    two = specific_positions(np.random.default_rng(1).random((len(LABEL), 1, 2)), 0.7)
    assert (draw_specific_counts(replace(inputs, specific=two), 0, 10, 10) == 1).all()


def test_vectors_are_uniform_and_with_replacement(inputs):
    plan = plan_of(inputs, 2000)
    of_class_3 = LABEL[plan.mix.row] == 3  # its specific set is all nine positions
    from_tail = np.arange(L) < plan.mix.n_specific[..., None]
    drawn = (plan.mix.vectors % L)[of_class_3[..., None] & from_tail]
    np.testing.assert_allclose(np.bincount(drawn, minlength=L) / len(drawn), 1 / L, atol=0.004)
    many = plan.mix.vectors[of_class_3 & (plan.mix.n_specific == 8)][:, :8]
    assert any(len(set(sample)) < 8 for sample in many.tolist())


def test_tail_draw_by_samples_or_by_classes(inputs):
    of_samples = LABEL[inputs.tail_rows(0, 2000, 16)]
    of_classes = LABEL[replace(inputs, tail_draw="classes").tail_rows(0, 2000, 16)]
    assert (of_samples == 3).mean() == pytest.approx(3 / 9, abs=0.02)
    assert (of_classes == 3).mean() == pytest.approx(1 / 2, abs=0.02)


def test_every_row_can_be_drawn(inputs):
    plan = plan_of(inputs, 2000)
    assert set(plan.row.flat) == set(range(len(LABEL)))
    # class 3 is among the confusing classes of class 2, and classes 0, 1, 2 of class 3
    assert set(plan.mix.donor_row.flat) == set(range(len(LABEL)))


def drawn(plan: Plan) -> list[np.ndarray]:
    """Every array of a plan that is drawn."""
    mix = {} if plan.mix is None else vars(plan.mix)
    fixed = ("row", "empty", "is_mixed", "of_classes")
    return [plan.row, *(array for name, array in mix.items() if name not in fixed)]


def test_plan_depends_on_the_seed(inputs):
    plan, again = plan_of(inputs), plan_of(inputs)
    other = plan_of(replace(inputs, draws=CounterRNG(6)))
    for one, same, unlike in zip(*map(drawn, (plan, again, other)), strict=True):
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, unlike)


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.sampling])
@given(start=st.integers(0, 190), n=st.integers(1, 10))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_window_is_drawn_without_the_ones_before(inputs, method, start, n):
    whole, window = plan_of(inputs, method=method), plan_of(inputs, n, method, start)
    for of_all, of_window in zip(drawn(whole), drawn(window), strict=True):
        np.testing.assert_array_equal(of_all[start : start + n], of_window)


def test_other_options_leave_other_draws_as_they_were(inputs):
    """Common random numbers: two configurations differ by their options, not by luck."""
    plan, other = plan_of(inputs), plan_of(replace(inputs, gamma=(0.0, 0.5), confusing=LENDERS))
    np.testing.assert_array_equal(plan.row, other.row)
    assert not np.array_equal(plan.mix.donor_row, other.mix.donor_row)


LENDERS = np.array([[3, 2, 1], [3, 2, 0], [3, 1, 0], [2, 1, 0]])


def test_iterations_differ(inputs):
    plan = plan_of(inputs)
    assert len(np.unique(plan.row, axis=0)) == 200
    assert len(np.unique(plan.mix.vectors.reshape(200, -1), axis=0)) == 200


def test_no_aug_is_real_tail_and_head_in_equal_parts(inputs):
    plan = plan_of(inputs, method="no-aug")
    assert plan.row.shape == (200, 128)
    assert plan.mix is None
    assert set(LABEL[plan.row[:, :64]].flat) == {2, 3}
    assert set(LABEL[plan.row[:, 64:]].flat) == {0, 1}


TRAINED = [name for name, method in METHODS.items() if method.sampling]
OF_ONE_LABEL = [
    name for name in TRAINED if name not in ("mixup", "remix")
]  # test_finetune_mixup.py has these


@pytest.mark.parametrize("tail_draw", ["samples", "classes"])
@pytest.mark.parametrize("method", OF_ONE_LABEL)
def test_the_prior_is_the_class_distribution_of_the_batches(inputs, method, tail_draw):
    """A loss with another prior than the sampler's corrects twice, or too little."""
    inputs = replace(inputs, tail_draw=tail_draw)
    drawn = LABEL[plan_of(inputs, 3000, method).row]
    prior = METHODS[method].sampling.prior(inputs)
    assert prior.sum() == pytest.approx(1)
    found = np.bincount(drawn.ravel(), minlength=len(prior)) / drawn.size
    np.testing.assert_allclose(found, prior, atol=0.005)


def philox4x64(counter: int, key: tuple[int, int]) -> list[int]:
    """Four words of Philox4x64-10 (Salmon et al. 2011), written out."""
    words = [counter >> 64 * i & MASK for i in range(4)]
    k0, k1 = key
    for _ in range(10):
        left, right = 0xD2E7470EE14C6C93 * words[0], 0xCA5A826395121157 * words[2]
        words = [right >> 64 ^ words[1] ^ k0, right & MASK, left >> 64 ^ words[3] ^ k1, left & MASK]
        k0, k1 = k0 + 0x9E3779B97F4A7C15 & MASK, k1 + 0xBB67AE8584CAA73B & MASK
    return words


MASK = 2**64 - 1


@given(seed=st.integers(0, MASK), kind=st.sampled_from(sorted(KINDS)), start=st.integers(0, 2**40))
@settings(max_examples=50, deadline=None)
def test_a_number_has_an_address(seed, kind, start):
    """docs/run-format.md, computed by hand: six numbers per iteration take two values of the counter."""
    drawn = CounterRNG(seed).uniform(kind, start, start + 2, 3, 2)
    for i in range(2):
        counter = (start + i) * 2  # numpy counts on before it makes the first words
        words = [w for j in (1, 2) for w in philox4x64(counter + j, (seed, KINDS[kind]))]
        assert drawn[i].ravel().tolist() == [(w >> 11) * 2.0**-53 for w in words[:6]]


def test_kinds_keep_their_numbers():
    """They are part of the run format: another number would give another plan for every seed."""
    assert list(KINDS.values()) == list(range(len(KINDS)))
    assert list(KINDS)[:4] == ["any row", "tail", "row of tail class", "head row"]
    assert list(KINDS)[4:8] == ["order of confusing classes", "donor row", "gamma", "vector"]
    assert list(KINDS)[8:13] == ["class", "row of class", "fresh weight", "configuration", "fold"]
    assert list(KINDS)[13:17] == ["partner row", "order of channels", "partner place", "mixup share"]
    assert list(KINDS)[17:21] == ["noise", "normal", "filled", "order of positions"]
    assert list(KINDS)[21:] == ["order of head classes", "episode class", "episode row"]


def test_the_same_plan_next_year(inputs):
    """If this fails, every seed gives another run than before: do not change the digest."""
    digest = sha256()
    for method in ("fsa", "no-aug", "plain", "crt"):
        for tail_draw in ("samples", "classes"):
            plan = plan_of(replace(inputs, tail_draw=tail_draw), method=method)
            for array in drawn(plan):
                digest.update(array.astype("<i8").tobytes())
    assert digest.hexdigest() == "2af2163a9680c6cc3ffb835dbe2e1edb8c89aa8bc03f0abf8c7c29d6566f86fa"
