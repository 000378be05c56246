"""Published lists of long-tailed data sets, known by their names and git blob ids."""

import hashlib
from pathlib import Path

PUBLISHED = {
    "ImageNet_LT_train.txt": "a063f095fcd475db4cf8b0658c4b73955535bbf9",
    "ImageNet_LT_val.txt": "3ed3188b2f44829ce2dec1cc27040d8d40984088",
    "ImageNet_LT_test.txt": "76a2fb9749d6cd29e765cc4f8c270f2504131e2f",
    "Places_LT_train.txt": "6392252f8ae867bc8a5e841cc1b29e5b8ef4b636",
    "Places_LT_val.txt": "b93a2ca58ccb7f3b671c176f395a70bf52c95533",
    "Places_LT_test.txt": "e732e58b8aa718a2c1c11933375f5710652c2b93",
    "iNaturalist18_train.txt": "4accdb7584d2f0a5106c40a33ed6afa392189bcc",
    "iNaturalist18_val.txt": "4c23900857fd0f5adcd4cc0dffef345039eeb05f",
}


def difference(file: Path) -> str | None:
    """What to note of a list that is called like a published one but is another; None if there is nothing."""
    published = PUBLISHED.get(file.name)
    if published is None:
        return None
    content = file.read_bytes().replace(b"\r\n", b"\n")  # what git or an editor on Windows may have changed
    # As git computes it, so that it can be compared with the repository; it protects against nothing.
    found = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    if found == published:
        return None
    return (
        f"{file}: is called like the published list but differs from it (git blob {found[:12]}, published "
        f"{published[:12]}); results are not comparable with published ones"
    )
