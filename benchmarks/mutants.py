"""Wrong implementations of the method, each of which the test suite must notice.

Every mutant is one replacement in a copy of the project, among them the mistakes of the only public
implementation of the paper. The named tests must pass on the copy as it is, and fail on the mutant.

Usage: python benchmarks/mutants.py   (make mutants: a few minutes on two cores)
"""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
COPIED = ("cli.py", "console.py", "extract", "store", "finetune", "analysis", "tests", "pyproject.toml")


@dataclass(frozen=True)
class Mutant:
    """What is wrong, where, and which tests should see it."""

    wrong: str
    path: str
    right_code: str
    wrong_code: str
    tests: str


MUTANTS = [
    Mutant("CAM of another class than the true one", "extract/cam.py", "[label]", "[0 * label]", "test_cam"),
    Mutant(
        "ReLU before normalising",
        "extract/cam.py",
        'bc->bhw", feature_map, weight)',
        'bc->bhw", feature_map, weight).relu()',
        "test_cam",
    ),
    Mutant(
        "constant CAM divides 0 by 0",
        "extract/cam.py",
        "torch.where(is_constant, 0, (cam - lowest) / torch.where(is_constant, 1, span))",
        "(cam - lowest) / span",
        "test_cam",
    ),
    Mutant(
        "rounding stretched to a map",
        "extract/cam.py",
        "span <= ROUNDING * longest",
        "span <= 0 * longest",
        "test_cam",
    ),
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
        "sets = np.where(from_tail, row, n_rows + row)",
        "sets = np.where(from_tail, row, n_rows + row[::-1])",
        "test_plan",
    ),
    Mutant(
        "specific vectors from generic positions", "finetune/plan.py", "n_rows + row)", "row)", "test_plan"
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
        "donors of the transposed score matrix",
        "finetune/confusion.py",
        "others = scores.copy()",
        "others = scores.T.copy()",
        "test_confusion",
    ),
    Mutant("a class confused with itself", "finetune/confusion.py", "-np.inf", "np.inf", "test_confusion"),
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
        "half as many head samples",
        "finetune/plan.py",
        "drawing.n_tail * (1 + drawing.n_augmented))\n    augmented_row",
        "drawing.n_tail * 2)\n    augmented_row",
        "test_plan",
    ),
    Mutant(
        "head samples from all classes",
        "finetune/plan.py",
        "self._rows_of(self.head_tail.head)",
        "np.arange(len(self.label))",
        "test_plan",
    ),
    Mutant(
        "fused by sum, not mean", "finetune/fusion.py", " / (n_vectors * scale)", " / scale", "test_fusion"
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
        "finetune/train.py",
        "features.label[real_row]",
        "features.label[real_row[:, :1]].expand(-1, real_row.shape[1])",
        "test_finetune",
    ),
    Mutant(
        "augmented rows labelled as their donors",
        "finetune/train.py",
        "plan.augmented_row[window]",
        "plan.donor_row[window]",
        "test_finetune",
    ),
    Mutant(
        "1×1 maps let through",
        "finetune/train.py",
        "if height * width == 1",
        "if height * width == 0",
        "test_finetune",
    ),
    Mutant(
        "momentum forgotten",
        "finetune/head.py",
        ".mul_(self._momentum).addmm_",
        ".zero_().addmm_",
        "test_head",
    ),
    Mutant("bias not trained", "finetune/head.py", "self.bias.sub_", "self.bias.clone().sub_", "test_head"),
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
    Mutant(
        "counts rounded, not truncated",
        "extract/longtail.py",
        "int(n_max * ratio",
        "round(n_max * ratio",
        "test_longtail",
    ),
    Mutant("subset not shuffled", "extract/longtail.py", "        rng.shuffle(index)\n", "", "test_longtail"),
    Mutant(
        "pooled in half precision",
        "extract/networks.py",
        "feature_map.float().mean(dim=(2, 3))",
        "feature_map.half().mean(dim=(2, 3)).float()",
        "test_store",
    ),
    Mutant(
        "rows in the source's order",
        "extract/inference.py",
        "np.lexsort((split.sample_index, split.label))",
        "np.arange(len(split))",
        "test_store",
    ),
    Mutant(
        "views drawn by place, not by image",
        "extract/views.py",
        "images.sample_index[:, None]",
        "np.arange(len(images))[:, None]",
        "test_views",
    ),
    Mutant("view 0 augmented too", "extract/views.py", "    seeds[:, 0] = EVALUATION\n", "", "test_views"),
    Mutant(
        "blocks that cut an image's views apart",
        "store/layout.py",
        "batch_size * n_views if",
        "batch_size if",
        "test_views",
    ),
    Mutant(
        "sampled rows compared in view 0",
        "extract/sample.py",
        "rows % images.n_views][:, None]",
        "0 * rows][:, None]",
        "test_sample",
    ),
    Mutant(
        "empty group counted as 0",
        "analysis/accuracy.py",
        "of_group.get(group, np.nan)",
        "of_group.get(group, 0.0)",
        "test_analysis",
    ),
    Mutant(
        "group mean over images",
        "analysis/accuracy.py",
        'frame.groupby("shot_group")["accuracy"].mean()',
        '(lambda g: 100 * g["n_correct"].sum() / g["n_test"].sum())(frame.groupby("shot_group"))',
        "test_analysis",
    ),
    Mutant(
        "rows of a chunk off by one",
        "store/packed.py",
        "- n * self.chunk_rows]",
        "- n * self.chunk_rows - 1]",
        "test_codecs",
    ),
    Mutant(
        "a long read taken for whole",
        "store/files.py",
        "rest = rest[n_read:]",
        "rest = rest[len(rest) :]",
        "test_gather",
    ),
    Mutant(
        "threads left behind by Ctrl-C",
        "store/gather.py",
        "        _wait(others)\n",
        "        pass\n",
        "test_gather",
    ),
    Mutant(
        "records taken at their word",
        "store/writer.py",
        " if self._holds(commit)]",
        "]",
        "test_store_writer",
    ),
    Mutant(
        "complete before it is synced",
        "store/zarr_store.py",
        "        self.place.sync()\n",
        "",
        "test_store_writer",
    ),
    Mutant(
        "what came to lie there is replaced",
        "store/local_draft.py",
        'refuse_existing(self._asked, "store", foreign_to_store, replaces)',
        'refuse_existing(self._asked, "store", lambda path: None, True)',
        "test_store_writer",
    ),
]


def tests_pass(folder: Path, tests: str) -> bool:
    """Run one test file in a copy of the project."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"tests/{tests}.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        sys.exit(f"pytest could not run {tests}:\n{done.stdout}{done.stderr}")
    return done.returncode == 0


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, folder / name)
        for tests in sorted({mutant.tests for mutant in MUTANTS}):
            if not tests_pass(folder, tests):
                sys.exit(f"{tests} fails on the project as it is")
        survivors = 0
        for mutant in MUTANTS:
            path = folder / mutant.path
            right = path.read_text()
            if right.count(mutant.right_code) != 1:
                sys.exit(f"{mutant.path}: found {right.count(mutant.right_code)} times: {mutant.right_code}")
            path.write_text(right.replace(mutant.right_code, mutant.wrong_code))
            survived = tests_pass(folder, mutant.tests)
            path.write_text(right)
            survivors += survived
            print(f"{'SURVIVED' if survived else 'noticed'}  {mutant.tests:<15} {mutant.wrong}", flush=True)
    print(f"{len(MUTANTS) - survivors} of {len(MUTANTS)} wrong implementations noticed")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
