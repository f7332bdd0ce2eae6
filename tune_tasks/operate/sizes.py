"""Bytes and ages as a person reads them. Pure."""

from __future__ import annotations

_UNITS = ("kB", "MB", "GB", "TB", "PB")


def in_words(size: int) -> str:
    """Bytes as 12 B, 4.5 kB, 230 MB."""
    if size < 1000:
        return f"{size} B"
    value, unit = size / 1000, 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {_UNITS[unit]}"
