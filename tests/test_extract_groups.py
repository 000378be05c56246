"""Groups of images (tracks, patients, bursts) stay in one split; names that say tracks are noticed."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bad_input import TINY, refuse, run, succeed
from PIL import Image

from extract.checkpoints.checkpoint import load_checkpoint
from extract.config import DatasetConfig
from extract.dataset import Dataset, list_dataset
from extract.sources.groups.drawing import Groups, with_groups_held_out
from extract.sources.groups.tracks import PATTERN, find_track
from extract.sources.listing import Listing, listed_images
from store.errors import UserError

pytestmark = pytest.mark.usefixtures("in_tmp_path")
SMALL = [*TINY, "--image-size", 16]
TRACKS = {"stop": 8, "yield": 5, "rare": 1}
N_FRAMES = 4
REGEX = "(.*)_"


@pytest.fixture
def signs(in_tmp_path: Path) -> Path:
    """Class folders as GTSRB's, in which tracks are numbered from 0 in every class."""
    rng = np.random.default_rng(0)
    for name, n_tracks in TRACKS.items():
        folder = Path("signs", name)
        folder.mkdir(parents=True)
        for track in range(n_tracks):
            for frame in range(N_FRAMES):
                pixels = rng.integers(0, 256, (12, 12, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{track:05d}_{frame:05d}.ppm")
    return Path("signs")


def listed(quiet, **options: object) -> Dataset:
    return list_dataset(DatasetConfig(**options), quiet)


def groups_in(dataset: Dataset) -> dict[str, set[str]]:
    return {
        split: {name.decode().rpartition("_")[0] for name in images.name}
        for split, images in dataset.splits.items()
    }


def counts(dataset: Dataset) -> dict[str, list[int]]:
    """Images of each class (rare, stop, yield), by split."""
    return {split: np.bincount(of.label, minlength=3).tolist() for split, of in dataset.splits.items()}


def check_whole(dataset: Dataset) -> None:
    """No group is in two splits, and every image is in one."""
    groups = groups_in(dataset)
    assert sum(map(len, groups.values())) == len(set.union(*groups.values())) == sum(TRACKS.values())
    assert np.sum([*counts(dataset).values()], axis=0).tolist() == [4, 32, 20]


def test_without_groups_frames_of_a_track_are_torn_apart(signs, quiet):
    groups = groups_in(listed(quiet, root="signs", test_fraction=0.3))
    assert groups["train"] & groups["test"]  # else the tests below show nothing


@pytest.mark.parametrize(
    "options",
    [
        {"test_fraction": 0.3},
        {"test_fraction": 0.2, "val_fraction": 0.2},
        {"test_fraction": 0.001},
        {"test_fraction": 0.9, "val_fraction": 0.09},
    ],
)
def test_fractions_hold_out_whole_groups(options, signs, quiet):
    dataset = listed(quiet, root="signs", group_regex=REGEX, **options)
    check_whole(dataset)
    found = counts(dataset)
    assert found["train"][0] == 4  # a class with one group is trained on
    for split in found:  # the others have enough for each split
        assert min(found[split][1:]) >= N_FRAMES, split
        images = dataset.splits[split]
        assert images.group.tolist() == [name.rpartition(b"_")[0] for name in images.name.tolist()]
    again = listed(quiet, root=str(signs.resolve()), group_regex=REGEX, **options)
    assert again.fingerprint == dataset.fingerprint


def test_a_number_for_each_class_holds_out_whole_groups(signs, quiet):
    for path in (signs / "rare").iterdir():
        path.rename(path.with_name(path.name.replace("00000_", f"0000{path.stem[-1]}_")))  # four groups
    options = {"test_fraction": 0.05, "val_per_class": 2}
    dataset = listed(quiet, root="signs", group_regex=REGEX, **options)
    groups = groups_in(dataset)
    assert not (groups["train"] | groups["test"]) & groups["val"]
    assert counts(dataset)["val"] == [2, N_FRAMES, N_FRAMES]
    with pytest.raises(UserError, match=r"--val-per-class 4 .*class rare has \d images in \d groups for tr"):
        listed(quiet, root="signs", group_regex=REGEX, **options | {"val_per_class": 4})


def test_the_long_tail_is_taken_from_what_groups_leave(signs, quiet):
    options = {"root": "signs", "group_regex": REGEX, "test_fraction": 0.3}
    whole, tail = listed(quiet, **options), listed(quiet, **options, imbalance_factor=2)
    assert groups_in(tail)["test"] == groups_in(whole)["test"]
    assert counts(tail)["train"] == [2, 4, 2]  # from the smallest class's four images, in order of size
    assert not groups_in(tail)["train"] & groups_in(tail)["test"]


def test_groups_of_several_classes_stay_whole_too():
    rng = np.random.default_rng(1)
    for _ in range(50):
        n, n_classes, n_groups = rng.integers(20, 200), rng.integers(2, 8), rng.integers(12, 40)
        label = np.r_[np.arange(n_classes), rng.integers(0, n_classes, n - n_classes)]
        group = np.array([f"patient {g}" for g in rng.integers(0, n_groups, n)]).astype(bytes)
        images = listed_images([Path(str(i)) for i in range(n)], label)
        train = images.take(np.arange(n))
        object.__setattr__(train, "group", group)
        listing = Listing([str(k) for k in range(n_classes)], {"train": train})
        config = DatasetConfig(root="x", group_column="patient", test_fraction=0.3, val_fraction=0.2)
        splits = with_groups_held_out(listing, config).splits
        assert sorted(np.concatenate([split.sample_index for split in splits.values()])) == [*range(n)]
        of_split = [set(split.group.tolist()) for split in splits.values()]
        assert sum(map(len, of_split)) == len(set.union(*of_split))
        assert set(splits["train"].label.tolist()) == set(range(n_classes))


def test_about_the_fraction_is_held_out():
    group = np.array([f"{g}" for g in range(4000)]).astype(bytes)
    groups = Groups(group, np.zeros(4000, int), 1, 2)
    assert abs((groups.places < 0.2).mean() - 0.2) < 0.02


def test_a_column_of_a_table_names_groups_and_no_class_needs_its_own(signs, quiet):
    rows = [
        (path.relative_to(signs), path.parent.name, path.name[4]) for path in sorted(signs.rglob("*.ppm"))
    ]
    frame = pd.DataFrame(rows, columns=["path", "label", "patient"])  # patient 0 has all three signs
    frame.astype(str).to_csv("signs/t.csv", index=False)
    options = ["--train", "signs/t.csv", "--group-column", "patient", "--test-fraction", 0.3, *SMALL]
    trained = succeed("train", *options, "--out", "phase1")
    assert "the names of groups, which stay whole, decide" in trained.stderr
    checkpoint = load_checkpoint(Path("phase1/checkpoint.pt"))
    assert checkpoint.dataset["group_column"] == "patient"
    dataset = listed(quiet, train="signs/t.csv", group_column="patient", test_fraction=0.3)
    patients = [{name.split(b"/")[1][4:5] for name in split.name} for split in dataset.splits.values()]
    assert not patients[0] & patients[1]
    assert dataset.fingerprint == checkpoint.fingerprint
    succeed("extract", "--ckpt", "phase1/checkpoint.pt", "--device", "cpu")
    assert run("train", "--resume", "--out", "phase1").exit_code == 0
    refuse(
        *["train", "--resume", "--out", "phase1", "--group-column", "path"], says=["group_column was patient"]
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--group-column", "nurse"], ["--group-column nurse: ", "has no such column"]),
        (["--group-regex", "("], ["--group-regex (: is not a regular expression"]),
        (["--group-regex", "x", "--group-column", "patient"], ["both name groups"]),
        (["--group-regex", "stop/(.*)_"], ["does not match rare/00000_00000.ppm, nor 23 more"]),
        (["--group-regex", "rare/(0)|."], ["finds no group in stop/00000_00000.ppm, nor 51 more"]),
        (["--group-regex", "^."], ["the test split would be empty", "56 images are in 3 groups"]),
        (["--group-column", "empty"], ["t.csv, line 3: the group is empty (column empty); fill it in"]),
    ],
)
def test_groups_that_cannot_be_used(options, says, signs):
    rows = [(path.relative_to(signs), path.parent.name, "p") for path in sorted(signs.rglob("*.ppm"))]
    frame = pd.DataFrame(rows, columns=["path", "label", "patient"]).assign(empty="e")
    frame.loc[1, "empty"] = " "
    frame.to_csv("signs/t.csv", index=False)
    refuse("train", "--train", "signs/t.csv", "--test-fraction", 0.2, *options, *SMALL, says=says)


def test_a_group_in_two_given_splits_is_named(signs, quiet):
    rows = []
    for path in sorted(signs.rglob("*.ppm")):
        split = "test" if path.name in ("00002_00001.ppm", "00003_00002.ppm") else "train"
        rows.append((path.relative_to(signs), path.parent.name, f"{path.parent.name} {path.name[:5]}", split))
    frame = pd.DataFrame(rows, columns=["path", "label", "track", "split"])
    frame.to_csv("signs/t.csv", index=False)
    train = ["train", "--train", "signs/t.csv", *SMALL]
    says = [
        "--group-column track: group stop 00002 is in train (stop/00002_00000.ppm) and in test "
        "(stop/00002_00001.ppm); 4 groups are in both"
    ]
    refuse(*train, "--group-column", "track", says=says)
    refuse(*train, "--group-regex", REGEX, says=["group stop/00002 is in train"])
    frame["split"] = np.where(frame["track"].str.endswith("2"), "test", "train")
    frame.to_csv("signs/t.csv", index=False)
    assert len(listed(quiet, train="signs/t.csv", group_column="track").test) == 2 * N_FRAMES


def test_a_pattern_that_cannot_find_a_group_in_two_splits_is_told_of(signs, caplog, quiet):
    for split in ("train", "test"):
        shutil.copytree(signs, Path("both", split))
    listed(quiet, root="both", group_regex="(.*)_")  # train/stop/00000, test/stop/00000
    assert "such as train/ and test/, so none can be in two splits; leave this folder out" in caplog.text
    with pytest.raises(UserError, match=r"group rare/00000 is in train .*; 14 groups are in both"):
        listed(quiet, root="both", group_regex="([^/]*/[^/]*)_[^/]*$")
    for path in Path("both/test").glob("*/*"):
        path.rename(path.with_name(f"9{path.name}"))
    caplog.clear()
    listed(quiet, root="both", group_regex="([^/]*/[^/]*)_[^/]*$")
    assert not caplog.records


def test_options_of_groups_are_for_files():
    refuse("train", "--group-regex", "x", says=["--group-regex x: is for paths of image files, but digits"])
    refuse("train", "--root", ".", "--group-column", "x", says=["--group-column x: is for a table"])


# Names that say tracks


def named(*of_class: list[str]) -> tuple[list[bytes], np.ndarray]:
    names = [name.encode() for names in of_class for name in names]
    return names, np.repeat(np.arange(len(of_class)), list(map(len, of_class)))


GTSRB = [
    [f"{k:05d}/{t:05d}_{f:05d}.ppm" for t in range(n) for f in range(30)]
    for k, n in ((0, 7), (1, 40), (2, 5))
]
COME_IN_TRACKS = {
    "GTSRB": GTSRB,
    "every third frame, some missing": [
        [f"{k}/car{t}-{f}.jpg" for t in range(9) for f in (0, 3, 6, 12)] for k in "ab"
    ],
    "folders of tracks": [[f"{k}/seq{t}/{f:04d}.png" for t in range(6) for f in range(20)] for k in "ab"],
    "bursts of a camera": [[f"{k}/20240{t}01_{f}.jpg" for t in range(5) for f in range(1, 5)] for k in "ab"],
}
rng = np.random.default_rng(0)
HEX = [[f"{k}/{rng.bytes(8).hex()}.jpg" for _ in range(300)] for k in "ab"]
DO_NOT = {
    "plain numbering": [[f"{k}/img_{i:04d}.jpg" for i in range(200)] for k in "abc"],
    "ImageNet": [
        [f"{k}/{k}_{i}.JPEG" for i in rng.choice(20000, 300, False)] for k in ("n01440764", "n01443537")
    ],
    "numbers alone": [[f"{k}/{i:08d}.jpg" for i in range(300)] for k in "abc"],
    "hashes": HEX,
    "CUB": [[f"{k}/Laysan_Albatross_{i:04d}_{rng.integers(1000)}.jpg" for i in range(60)] for k in "ab"],
    "places that images were found at": [
        [f"{k}/{place}_{i:04d}.jpg" for place in ("bing", "flickr", "google") for i in range(50)]
        for k in "abcd"
    ],
    "scans with dates and times": [
        [f"{k}/IMG_20240101_{i}.jpg" for i in rng.choice(240000, 80)] for k in "ab"
    ],
    "no numbers": [[f"{k}/{a}{b}.jpg" for a in "abcdef" for b in "xyz"] for k in "ab"],
    "pairs": [[f"{k}/eye{p}_{side}.jpg" for p in range(50) for side in (1, 2)] for k in "ab"],
}


@pytest.mark.parametrize("kind", COME_IN_TRACKS)
def test_tracks_are_noticed_by_names(kind):
    first, last = find_track(*named(*COME_IN_TRACKS[kind]))
    assert first.rpartition(b"/")[0] == last.rpartition(b"/")[0]
    assert first != last


@pytest.mark.parametrize("kind", DO_NOT)
def test_plain_numbering_is_no_track(kind):
    assert find_track(*named(*DO_NOT[kind])) is None


def test_the_note_gives_a_pattern_that_does(signs, quiet):
    said = {}
    for options in ([], ["--group-regex", PATTERN]):
        result = succeed(
            "train",
            "--root",
            "signs",
            "--test-fraction",
            0.3,
            *options,
            *SMALL,
            "--out",
            f"run{len(options)}",
        )
        said[bool(options)] = [line for line in result.stderr.splitlines() if "come in tracks" in line]
    (line,) = said[False]
    assert "such as rare/00000_00000.ppm to rare/00000_00003.ppm" in line
    assert line.endswith(f"--group-regex '{PATTERN}'")
    assert not said[True]
    check_whole(listed(quiet, root="signs", test_fraction=0.3, group_regex=PATTERN))
    assert "tracks" not in succeed("extract", "--ckpt", "run0/checkpoint.pt", "--device", "cpu").stderr
