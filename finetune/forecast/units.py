"""Sizes and times in words."""


def size(n_bytes: int) -> str:
    """Bytes in a suitable unit."""
    if n_bytes < 1000:
        return f"{n_bytes} bytes"
    power = next((p for p in (1, 2, 3) if n_bytes < 1000 * 1024**p), 4)
    return f"{n_bytes / 1024**power:,.1f} {'KMGT'[power - 1]}iB"


def duration(seconds: float | None) -> str:
    """Seconds in a suitable unit; a dash for None."""
    if seconds is None:
        return "–"
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5970 else f"{seconds / 3600:,.1f} h"
