"""The examples of docs/data.md are run on small files of each kind, in order."""

import json
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
from bad_input import TINY, run, write_images

PAGE = (Path(__file__).parent.parent / "docs" / "data.md").read_text()
COMMANDS = re.findall(r"^\$ tailcache (?!.*--download)(.*)$", PAGE, re.MULTILINE)
SPLITS = ("train", "val", "test")


def write_everything() -> None:
    """Every data set that the examples name."""
    photos = write_images(Path("photos"), {"ape": 4, "bee": 4}, SPLITS)
    write_images(Path(), {"iris": 8, "rose": 8}, ["flowers"])
    rows = [(path.relative_to(photos), *path.parts[-2:-4:-1]) for path in sorted(photos.rglob("*.png"))]
    lines = [f"{path},{label},{split}\n" for path, label, split in rows]
    (photos / "labels.csv").write_text("path,label,split\n" + "".join(lines))
    write_images(Path(), {"stop/0_": 8, "yield/1_": 8}, ["signs"])
    for folder in list(Path("signs").glob("*/*")):
        for i, path in enumerate(sorted(folder.iterdir())):
            path.rename(folder.parent / f"{i // 2:05d}_{i % 2:05d}.png")
        folder.rmdir()
    scans = write_images(Path(), {"cyst": 12, "none": 12}, ["scans"]) / "scans"
    rows = [(path.relative_to(scans), path.parent.name, int(path.stem) // 2) for path in scans.rglob("*.png")]
    (scans / "labels.csv").write_text("path,label,patient\n" + "".join(f"{p},{k},{n}\n" for p, k, n in rows))
    names = ["train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"]
    files = [path.read_bytes() for path in scans.rglob("*.png")]
    Path("hf").mkdir()
    for i, name in enumerate(names):
        rows = [{"image": {"bytes": one, "path": None}, "label": k % 2} for k, one in enumerate(files[i::3])]
        pd.DataFrame(rows).to_parquet(f"hf/{name}.parquet")
    inat = write_images(Path("inat"), {"Aves": 3, "Bufo": 3}, ["train", "val"])
    categories = [{"id": k, "name": name} for k, name in enumerate(("Turdus", "Bufo"))]
    (inat / "categories.json").write_text(json.dumps(categories))
    for split in ("train", "val"):
        found = [*enumerate(sorted(inat.glob(f"{split}/*/*.png")))]
        listed = {
            "images": [{"id": i, "file_name": str(path.relative_to(inat))} for i, path in found],
            "annotations": [{"image_id": i, "category_id": int("Bufo" in path.parts)} for i, path in found],
        }
        (inat / f"{split}2018.json").write_text(json.dumps(listed))
        (inat / f"{split}2017.json").write_text(json.dumps(listed | {"categories": categories}))
    images = write_images(Path("images"), {"n1": 4, "n2": 4}, SPLITS)
    for split in SPLITS:
        of_split = [line for line in lines if line.endswith(f"{split}\n")]
        Path(f"{split}.csv").write_text("path,label,split\n" + "".join(of_split))
        listed = [
            f"{path.relative_to(images)} {path.parent.name[1] == '2':d}\n" for path in images.rglob("*.png")
        ]
        of_split = [line for line in listed if line.startswith(split)]
        Path(f"ImageNet_LT_{split}.txt").write_text("".join(of_split))


@pytest.mark.parametrize("command", COMMANDS)
def test_an_example_of_the_page_works(command, in_tmp_path):
    write_everything()
    small = [] if "--check-data" in command else [*TINY, "--out", "phase1"]
    if small:
        small += ["--batch-size", 256] if "digits" in command else ["--image-size", 16]
    result = run(*shlex.split(command), *small)
    assert result.exit_code == 0, result.output
