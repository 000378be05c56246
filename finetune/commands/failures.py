"""Errors that the user can fix, in one line: for the command line and for Python."""

from collections.abc import Iterator
from contextlib import contextmanager

from store.errors import UserError

OUT_OF_MEMORY_ADVICE = "lower what takes memory (iterations, batch size, width, image size)"


def failure(error: BaseException) -> str | None:
    """One line about an error; None for an error that the user cannot fix."""
    match error:
        case UserError():
            text = str(error)
        case MemoryError():
            text = f"out of memory: {error}; {OUT_OF_MEMORY_ADVICE}"
        case BrokenPipeError():  # nobody reads the output
            return None
        case UnicodeEncodeError():
            text = f"{error.object!r}: this name is not UTF-8; rename it"
        case OSError():  # a full disk, a folder without write permission
            text = str(error) if error.filename is None else f"{error.filename}: {error.strerror}"
        case RuntimeError() if _is_out_of_memory(error):
            text = f"out of memory: {OUT_OF_MEMORY_ADVICE}"
        case _:
            return None
    return in_one_line(text)


def in_one_line(text: str) -> str:
    """The text with line breaks replaced by spaces."""
    return " ".join(part.strip() for part in text.splitlines()).strip()


def _is_out_of_memory(error: RuntimeError) -> bool:
    # On GPUs torch has its own class; on CPUs it is a plain RuntimeError.
    signs = ("can't allocate memory", "not enough memory", "out of memory")
    return any(sign in str(error) for sign in signs)


@contextmanager
def as_user_errors() -> Iterator[None]:
    """Raise UserError, with the command line's message, for every error that the command line reports so."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        line = failure(error)
        if line is None:
            raise
        raise UserError(line) from error
