"""Names of images that a table holds itself: its file, the row, and the image's own path if it has one."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from extract.images.embedded import EmbeddedImage, ImageColumn
from extract.sources.tables.table import Table
from store.errors import UserError


@dataclass(frozen=True)
class Embedded:
    """The images of a table's column.

    Attributes:
        column: where they are.
        below: the table's path below the root.
        root: the root.
    """

    column: ImageColumn
    below: str
    root: Path

    @classmethod
    def of(cls, table: Table, column: str, root: Path) -> "Embedded | None":
        """Those of a column; None if it holds paths.

        Raises:
            UserError: the table is not below the root.
        """
        if column not in table.images:
            return None
        there = table.file.parent.resolve() / table.file.name  # the file itself may be a link
        if not there.is_relative_to(root):
            raise UserError(
                f"{table.file}: is not below {root}, and its images are named by its place there; name a "
                "folder that holds it with --root"
            )
        return cls(table.images[column], there.relative_to(root).as_posix(), root)

    def name(self, row: int, path: str | None) -> str:
        """The name of a row's image, unlike that of any other; in order of rows."""
        own = PurePosixPath((path or "").replace("\0", "")).parts
        parts = [part for part in own if part not in ("/", "..", ".")]
        return "/".join([self.below, f"{row:0{len(str(self.column.starts[-1]))}d}", *parts])

    def image(self, row: int, name: str) -> EmbeddedImage:
        """A row's image."""
        return EmbeddedImage(self.column, row, str(self.root / name))
