"""Tables that cannot be used: one line that names file and line, exit code 2, nothing written."""

from pathlib import Path

import pandas as pd
import pytest
from bad_input import TINY, refuse, succeed, write_images

SMALL = [*TINY, "--image-size", 16]
TRAIN = ["train", "--train", "photos/t.csv", *SMALL]
GOOD = "path,label,split\nape/0.png,ape,train\nape/1.png,ape,test\nbee/0.png,bee,train\nbee/1.png,bee,test\n"


@pytest.fixture(autouse=True)
def photos(in_tmp_path: Path) -> None:
    write_images(Path(), {"ape": 3, "bee": 3}, ["photos"])
    Path("photos/t.csv").write_text(GOOD)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (
            "ape/1.png,ape,test",
            "ape/1.png,ape",
            "line 3: has 2 fields, expected 3 as in the header, separated by commas",
        ),
        ("ape/1.png,ape,test", "ape/1.png,ape,test,", "line 3: has 4 fields, expected 3"),
        ("ape/1.png,ape,test", "\n\nape/1.png,ape", "line 5: has 2 fields"),
        ("ape/1.png,ape,test", '"ape/1.png,ape,test', "line 3: cannot be read"),
        (
            "ape/1.png,ape,test",
            "ape/0.png,bee,train",
            "line 3: ape/0.png has two labels, ape (photos/t.csv, line 2) and bee",
        ),
        (
            "ape/1.png,ape,test",
            "ape/./0.png,ape,test",
            "line 3: ape/0.png has two splits, train (photos/t.csv, line 2) and",
        ),
        ("ape/1.png,ape,test", "ape/1.png,cow,test", "line 3: label cow is that of no training image"),
        ("ape/1.png,ape,test", "ape/1.png, ,test", "line 3: the label is empty (column label)"),
        ("ape/1.png,ape,test", ",ape,test", "line 3: the path is empty (column path)"),
        (
            "ape/1.png,ape,test",
            "ape/1.png,ape,tset",
            "line 3: 'tset' names no split (column split); expected one of train",
        ),
        (
            "ape/1.png,ape,test",
            "ape/9.png,ape,test\nape/8.png,ape,test",
            "line 3: photos/ape/9.png is not there; 1 more",
        ),
        ("ape/1.png,ape,test", "ape,ape,test", "line 3: photos/ape is not there"),
        (
            "ape/1.png,ape,test",
            "../photos/ape/1.png,ape,test",
            "line 3: ../photos/ape/1.png does not stay below photos",
        ),
        ("ape/1.png,ape,test", "/etc/hosts,ape,test", "line 3: /etc/hosts is not below photos"),
        ("ape/1.png,ape,test", "ape/out.png,ape,test", "line 3: ape/out.png leads out of photos"),
        ("ape/1.png,ape,test", "far/1.png,ape,test", "line 3: far/1.png leads out of photos"),
        ("ape/1.png,ape,test", "ape/1.png\0,ape,test", "is not a path"),
        (
            GOOD,
            "path,label\nape/0.png,ape\nape/1.png,ape\n",
            "every training image is labelled ape; at least two",
        ),
        (GOOD[17:], "", "photos/t.csv: has a header but no rows"),
        (GOOD, "", "photos/t.csv: is empty"),
        (GOOD, "a table", "its first line is neither a header"),
        (
            "path,",
            "where,",
            "no column is obviously the column of the paths of images; name it with --path-column",
        ),
        ("label", "path", "has two columns called path"),
        ("train", "val", "no row is of a training image"),
    ],
)
def test_a_bad_row_or_header(before, after, says):
    write_images(Path(), {"ape": 2}, ["outside"])
    Path("photos/ape/out.png").symlink_to(Path("outside/ape/0.png").resolve())
    Path("photos/far").symlink_to(Path("outside/ape").resolve())
    Path("photos/t.csv").write_text(GOOD.replace(before, after))
    assert says in refuse(*TRAIN, says=[]).replace(f"{Path().resolve()}/", "")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ["--label-column", "klass"],
            ["photos/t.csv has no such column; its first line has path, label, split"],
        ),
        (["--label-column", "path"], ["paths and labels cannot both come from the column path"]),
        (
            ["--test", "photos/t.csv"],
            ["line 3: belongs to test (column split), but the file is given as --train"],
        ),
        (
            ["--test", "photos/t.csv", "--split-column", "split"],
            ["--split-column split: --val and --test say the splits"],
        ),
        (["--test", "photos/none.csv"], ["--test photos/none.csv: expected a file, found nothing"]),
        (["--class-names", "photos"], ["--class-names photos: expected a file, found a folder"]),
        (["--root", "none"], ["none: no such folder; --root must hold the images"]),
        (
            ["--dataset", "imagefolder", "--root", "photos"],
            ["--train photos/t.csv: is for a table", "imagefolder has none"],
        ),
        (["--test-fraction", 0.2], ["--test-fraction 0.2: ", "photos/t.csv has a test split"]),
        (["--download"], ["--download: there is nothing to download for table"]),
    ],
)
def test_options_that_do_not_fit(options, says):
    refuse(*TRAIN, *options, says=says)


def test_labels_in_two_unicode_forms_are_told_what_to_do_in_a_table():
    rows = GOOD.replace(",ape,", ",b\u00e9,").replace("bee/0.png,bee", "bee/0.png,be\u0301")
    Path("photos/t.csv").write_text(rows.replace("bee/1.png,bee", "bee/1.png,be\u0301"))
    line = refuse(*TRAIN, says=["photos/t.csv: the classes ", "write both labels alike, or rename one"])
    assert "folder" not in line


def test_options_of_tables_need_one():
    refuse("train", "--dataset", "table", *SMALL, says=["--dataset table needs --train"])
    refuse(
        "train",
        "--test",
        "photos/t.csv",
        *SMALL,
        says=["--test photos/t.csv: is for a table of images, which --train"],
    )
    refuse("train", "--root", "photos", "--path-column", "path", says=["--path-column path: is for a table"])
    refuse("store", "plan", "--train", "photos/none.csv", says=["--train photos/none.csv: expected a file"])


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([0.0, 0.0, 1.0, 1.0], "the column label holds numbers with decimals"),
        (["ape", None, "bee", "bee"], "row 2: the label is empty"),
        (["0.5", "1", "1", "0.5"], "row 1: label 0.5 is a number with decimals"),
        (["0", "0", "2", "2"], "row 3: class 2, but no training image is of class 1"),
    ],
)
def test_labels_of_a_parquet_file(labels, says):
    frame = pd.read_csv("photos/t.csv").assign(label=labels)
    frame.to_parquet("photos/t.parquet")
    refuse("train", "--train", "photos/t.parquet", *SMALL, says=["photos/t.parquet", says])


@pytest.mark.parametrize("damage", ["truncated", "text", "no parquet", "bytes"])
def test_a_file_that_is_no_table(damage):
    whole = Path("photos/t.parquet")
    pd.read_csv("photos/t.csv").to_parquet(whole)
    content, name = whole.read_bytes(), "t.parquet"
    if damage == "truncated":
        content, says = content[:-20], "is not a whole Parquet file"
    elif damage == "text":
        content, says = b"path,label\n", "is not a Parquet file (it does not start with PAR1)"
    elif damage == "bytes":
        content, says, name = b"\xff\xd8\xff\xe0" + bytes(99), "is not a table in UTF-8", "t.csv"
    else:
        content, says = b"PAR1" + bytes(50), "is not a whole Parquet file"
    Path("photos", name).write_bytes(content)
    refuse("train", "--train", f"photos/{name}", *SMALL, says=[says])


def test_a_link_below_the_root_and_one_above_it_are_followed():
    Path("photos/ape/1.png").rename("photos/one.png")
    Path("photos/ape/1.png").symlink_to("../one.png")
    Path("link").symlink_to("photos")
    Path("link/t.csv").write_text(GOOD.replace("bee/0.png", f"{Path('link').absolute()}/bee/0.png"))
    succeed("train", "--train", "link/t.csv", *SMALL, "--out", "phase1")
