"""What went wrong in one line, where the user can mend it: for the command line and for Python alike."""

from collections.abc import Iterator
from contextlib import contextmanager

from store.errors import UserError

OUT_OF_MEMORY_ADVICE = "ask for less (iterations, batch size, width, image size)"


def failure(error: BaseException) -> str | None:
    """The line that tells of an error; None for one that no user can mend."""
    match error:
        case UserError():
            text = str(error)
        case MemoryError():
            text = f"out of memory: {error}; {OUT_OF_MEMORY_ADVICE}"
        case BrokenPipeError():  # nobody reads what is printed
            return None
        case UnicodeEncodeError():
            text = f"{error.object!r}: a name that is not UTF-8; rename it"
        case OSError():  # a full disk, a folder that may not be written
            text = str(error) if error.filename is None else f"{error.filename}: {error.strerror}"
        case RuntimeError() if _is_out_of_memory(error):
            text = f"out of memory: {OUT_OF_MEMORY_ADVICE}"
        case _:
            return None
    return in_one_line(text)


def in_one_line(text: str) -> str:
    """A text without its line breaks."""
    return " ".join(part.strip() for part in text.splitlines()).strip()


def _is_out_of_memory(error: RuntimeError) -> bool:
    # torch's own class on GPUs, a plain RuntimeError on CPUs
    signs = ("can't allocate memory", "not enough memory", "out of memory")
    return any(sign in str(error) for sign in signs)


@contextmanager
def as_user_errors() -> Iterator[None]:
    """Raise UserError, in the command line's words, for whatever the command line tells in one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        line = failure(error)
        if line is None:
            raise
        raise UserError(line) from error
