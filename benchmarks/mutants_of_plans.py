"""Wrong implementations of what a batch of Phase II is made of; see mutants.py."""

from mutant import Mutant

PLANS = [
    Mutant(
        "threshold not strict", "finetune/masks.py", "_flat(cam) > tau_s", "_flat(cam) >= tau_s", "test_masks"
    ),
    Mutant(
        "specific and generic swapped",
        "finetune/masks.py",
        "_flat(cam) < tau_g",
        "_flat(cam) > tau_g",
        "test_masks",
    ),
    Mutant(
        "empty set left empty",
        "finetune/masks.py",
        "np.where(count == 0, mask.shape[1], count)",
        "count",
        "test_masks",
    ),
    Mutant(
        "positions of another map",
        "finetune/plan.py",
        "place = row * n_positions",
        "place = row[::-1] * n_positions",
        "test_plan",
    ),
    Mutant(
        "specific vectors from generic positions",
        "finetune/plan.py",
        "drawing.specific.order.take",
        "drawing.generic.order.take",
        "test_plan",
    ),
    Mutant(
        "gamma may leave no vector of one kind",
        "finetune/plan.py",
        "1, n_positions - 1",
        "0, n_positions",
        "test_plan",
    ),
    Mutant("gamma floored instead of rounded", "finetune/plan.py", "np.rint", "np.floor", "test_plan"),
    Mutant(
        "bounds of gamma forgotten",
        "finetune/plan.py",
        "low + (high - low) * drawing",
        "drawing",
        "test_plan",
    ),
    Mutant(
        "donors of the transposed score matrix",
        "finetune/confusion.py",
        "of_part = scores.mean(classes[part])",
        "of_part = scores.mean(np.arange(len(scores.n_rows))).T[classes[part]].copy()",
        "test_confusion",
    ),
    Mutant(
        "scores of a class that is cut in two, of its second part alone",
        "finetune/confusion.py",
        "sums.index_add_(0, place",
        "sums.zero_().index_add_(0, place",
        "test_confusion",
    ),
    Mutant("a class confused with itself", "finetune/confusion.py", "-np.inf", "np.inf", "test_confusion"),
    Mutant(
        "donors from tail classes, head ones asked for",
        "finetune/prepare.py",
        'if config.donors == "any":',
        "if True:",
        "test_algorithm_1",
    ),
    Mutant(
        "donors of the first tail sample's classes",
        "finetune/plan.py",
        "drawing.label[tail_row]]",
        "drawing.label[tail_row[:, :1]].repeat(tail_row.shape[1], 1)]",
        "test_plan",
    ),
    Mutant(
        "one donor class for all augmented samples",
        "finetune/plan.py",
        "np.arange(drawing.n_augmented) % confusing.shape[-1]",
        "0 * np.arange(drawing.n_augmented)",
        "test_plan",
    ),
    Mutant(
        "donors in the order of confusion, not drawn",
        "finetune/plan.py",
        'np.argsort(keys, axis=-1, kind="stable")',
        'np.argsort(0 * keys, axis=-1, kind="stable")',
        "test_plan",
    ),
    Mutant(
        "half as many head samples",
        "finetune/plan.py",
        "drawing.n_tail * (1 + drawing.n_augmented))\n    augmented_row",
        "drawing.n_tail * 2)\n    augmented_row",
        "test_plan",
    ),
    Mutant(
        "head samples from all classes",
        "finetune/plan.py",
        "np.isin(self.label, self.head_tail.head)",
        "self.label >= 0",
        "test_plan",
    ),
    Mutant(
        "a plan that begins anew in every window",
        "finetune/draws.py",
        "counter=start * blocks",
        "counter=0",
        "test_plan",
    ),
    Mutant(
        "fused by sum, not mean",
        "finetune/fusion.py",
        "n_vectors * scale, dtype",
        "scale, dtype",
        "test_fusion",
    ),
    Mutant(
        "a float16 sum that overflows",
        "finetune/fusion.py",
        "2.0 ** -math.ceil(math.log2(n_vectors))",
        "1.0",
        "test_fusion",
    ),
    Mutant(
        "every row labelled as the first",
        "finetune/window.py",
        "features.label[row]",
        "features.label[row[:, :1]].expand(-1, row.shape[1])",
        "test_finetune",
    ),
    Mutant(
        "augmented rows labelled as their donors",
        "finetune/plan.py",
        "head_row, augmented_row], axis=1",
        "head_row, donor_row], axis=1",
        "test_algorithm_1",
    ),
    Mutant(
        "augmented samples in the places of head samples",
        "finetune/window.py",
        "pooled[:, -plan.n_augmented :,",
        "pooled[:, : plan.n_augmented,",
        "test_algorithm_1",
    ),
    Mutant(
        "empty sets counted of the other map",
        "finetune/window.py",
        "specific[plan.augmented_row].sum()",
        "specific[plan.donor_row].sum()",
        "test_algorithm_1",
    ),
    Mutant(
        "1×1 maps let through",
        "finetune/prepare.py",
        "if height * width == 1",
        "if height * width == 0",
        "test_finetune",
    ),
    Mutant(
        "streamed rows in another order",
        "finetune/residency.py",
        "self._place[missing] = missing, places",
        "self._place[missing] = missing, places[::-1]",
        "test_residency",
    ),
    Mutant(
        "windows made ahead without end", "finetune/prefetch.py", "Queue(depth)", "Queue()", "test_prefetch"
    ),
    Mutant(
        "an error of the maker swallowed", "finetune/prefetch.py", "raise error", "return", "test_prefetch"
    ),
    Mutant(
        "head ratio overshot by a class", "finetune/split.py", "needed)) + 1", "needed)) + 2", "test_split"
    ),
    Mutant(
        "smallest classes as head",
        "finetune/split.py",
        "np.argsort(-class_counts",
        "np.argsort(class_counts",
        "test_split",
    ),
]
