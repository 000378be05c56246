"""Wrong implementations of the method, each of which the test suite must detect.

Every mutant is one replacement in a copy of the project; some are the mistakes of the only public
implementation of the paper. The named tests must pass on the unchanged copy and fail on the mutant.

Usage: python benchmarks/mutants.py   (make mutants: half an hour on two cores)
       python benchmarks/mutants.py finetune store/arrays/gather.py   (only those in these places)
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mutant import Mutant
from mutants_of_contest import CONTEST
from mutants_of_further_heads import FURTHER_HEADS
from mutants_of_heads import HEADS
from mutants_of_plans import PLANS

ROOT = Path(__file__).parent.parent
COPIED = ("cli.py", "tailcache.py", "extract", "store", "finetune", "analysis", "tests", "pyproject.toml")

MUTANTS = [
    *PLANS,
    *HEADS,
    *FURTHER_HEADS,
    *CONTEST,
    Mutant(
        "CAM of another class than the true one",
        "extract/cam.py",
        "[label]",
        "[0 * label]",
        "test_extract_cam",
    ),
    Mutant(
        "ReLU before normalising",
        "extract/cam.py",
        'bc->bhw", feature_map, weight)',
        'bc->bhw", feature_map, weight).relu()',
        "test_extract_cam",
    ),
    Mutant(
        "constant CAM divides 0 by 0",
        "extract/cam.py",
        "torch.where(is_constant, 0, (cam - lowest) / torch.where(is_constant, 1, span))",
        "(cam - lowest) / span",
        "test_extract_cam",
    ),
    Mutant(
        "rounding stretched to a map",
        "extract/cam.py",
        "span <= ROUNDING * longest",
        "span <= 0 * longest",
        "test_extract_cam",
    ),
    Mutant(
        "counts rounded, not truncated",
        "extract/sources/longtail.py",
        "int(n_max * ratio",
        "round(n_max * ratio",
        "test_extract_longtail",
    ),
    Mutant(
        "subset not shuffled",
        "extract/sources/longtail.py",
        "        rng.shuffle(index)\n",
        "",
        "test_extract_longtail",
    ),
    Mutant(
        "pooled in half precision",
        "extract/networks/parts.py",
        "feature_map.float().mean(dim=(2, 3))",
        "feature_map.half().mean(dim=(2, 3)).float()",
        "test_store_extracted",
    ),
    Mutant(
        "rows in the source's order",
        "extract/inference/passes.py",
        "np.lexsort((split.sample_index, split.label))",
        "np.arange(len(split))",
        "test_store_extracted",
    ),
    Mutant(
        "views drawn by place, not by image",
        "extract/images/views.py",
        "images.sample_index[:, None]",
        "np.arange(len(images))[:, None]",
        "test_extract_views",
    ),
    Mutant(
        "view 0 augmented too",
        "extract/images/views.py",
        "    seeds[:, 0] = EVALUATION\n",
        "",
        "test_extract_views",
    ),
    Mutant(
        "blocks that cut an image's views apart",
        "store/layout.py",
        "batch_size * n_views if",
        "batch_size if",
        "test_extract_views_in_stores",
    ),
    Mutant(
        "sampled rows compared in view 0",
        "extract/proof/sample.py",
        "rows % images.n_views][:, None]",
        "0 * rows][:, None]",
        "test_extract_sample",
    ),
    Mutant(
        "empty group counted as 0",
        "analysis/accuracy.py",
        "of_group.get(group, np.nan)",
        "of_group.get(group, 0.0)",
        "test_analysis_tables",
    ),
    Mutant(
        "group mean over images",
        "analysis/accuracy.py",
        'accuracy.groupby(frame["shot_group"]).mean()',
        '(lambda g: 100 * g["n_correct"].sum() / g["n_test"].sum())(frame.groupby("shot_group"))',
        "test_analysis_tables",
    ),
    Mutant(
        "balanced accuracy over images",
        "analysis/accuracy.py",
        "float(accuracy.mean())",
        'float(100 * frame["n_correct"].sum() / frame["n_test"].sum())',
        "test_analysis_accuracy",
    ),
    Mutant(
        "classes without test images count as wrong",
        "analysis/accuracy.py",
        "float(accuracy.mean())",
        "float(accuracy.fillna(0).mean())",
        "test_analysis_accuracy",
    ),
    Mutant(
        "the best head is best by the other accuracy",
        "finetune/training/history.py",
        "is_score(name, [self.rank_by])",
        'is_score(name, ["overall"])',
        "test_finetune_selection",
    ),
    Mutant(
        "rows of a chunk off by one",
        "store/arrays/compressed.py",
        "- n * self.chunk_rows]",
        "- n * self.chunk_rows - 1]",
        "test_store_codecs",
    ),
    Mutant(
        "a long read taken for whole",
        "store/storage/mmap_files.py",
        "rest = rest[n_read:]",
        "rest = rest[len(rest) :]",
        "test_store_gather",
    ),
    Mutant(
        "threads left behind by Ctrl-C",
        "store/arrays/gather.py",
        "        _wait(others)\n",
        "        pass\n",
        "test_store_gather",
    ),
    Mutant(
        "records taken at their word",
        "store/writer.py",
        " if self._holds(commit)]",
        "]",
        "test_store_writer_killed",
    ),
    Mutant(
        "complete before it is synced",
        "store/containers/zarr_v3.py",
        "        self.place.sync()\n",
        "",
        "test_store_writer",
    ),
    Mutant(
        "what came to lie there is replaced",
        "store/drafts/local.py",
        'check_replaceable(self._asked, "store", foreign_to_store, replaces)',
        'check_replaceable(self._asked, "store", lambda path: None, True)',
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


def main(places: tuple[str, ...]) -> None:
    """Apply every mutant, or those in the given places, to a copy."""
    chosen = [mutant for mutant in MUTANTS if not places or mutant.path.startswith(places)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, folder / name)
        for tests in sorted({mutant.tests for mutant in chosen}):
            if not tests_pass(folder, tests):
                sys.exit(f"{tests} fails on the project as it is")
        survivors = 0
        for mutant in chosen:
            path = folder / mutant.path
            right = path.read_text()
            path.write_text(mutant.applied_to(right))
            survived = tests_pass(folder, mutant.tests)
            path.write_text(right)
            survivors += survived
            print(f"{'SURVIVED' if survived else 'noticed'}  {mutant.tests:<32} {mutant.wrong}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} wrong implementations noticed")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main(tuple(sys.argv[1:]))
