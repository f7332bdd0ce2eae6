"""Keeps a log short while others append to it: its first and its last MiB stay, and a line between says what went.

A file, not a pipe: what a trial prints costs nothing until it is far too much. This module must not rename or replace
the file, since subprocesses hold it open.
"""

from __future__ import annotations

import os

HEAD = TAIL = 8 << 20
"""Bytes that stay of the beginning and of the end."""
SLACK = 8 << 20
"""Bytes that a log may be longer while it grows, so that the end is not moved for each line."""
_LEAST = 128
"""Bytes that are not worth a cut: about as many as the line takes that tells of it."""
_PIECE = 1 << 20


class Shortener:
    """Cuts one file, and knows what it cut so far."""

    def __init__(self) -> None:
        self.left_out = 0
        self._line = b""

    def cut(self, file: int, slack: int = _LEAST) -> None:
        """Takes out the middle where the file is longer than both ends, the line between them and `slack` bytes.

        What others append meanwhile is moved along, but for a few kB in the instant of the cut, which go uncounted.
        """
        size = os.fstat(file).st_size
        if size <= HEAD + len(self._line) + TAIL + max(slack, _LEAST):
            return
        self.left_out += size - HEAD - len(self._line) - TAIL
        self._line = f"\n... {self.left_out:,} bytes are left out here ...\n".encode()
        copy = os.open(f"/proc/self/fd/{file}", os.O_RDWR)  # the one at hand can only append
        try:
            end = os.pwrite(copy, self._line + os.pread(copy, TAIL, size - TAIL), HEAD) + HEAD
            self._follow(copy, size, end)
        finally:
            os.close(copy)

    def _follow(self, copy: int, read: int, end: int) -> None:
        """Moves what was appended during the cut, unless it is as much again, and ends the file there."""
        limit = read + TAIL
        while read < limit and (data := os.pread(copy, _PIECE, read)):
            read += len(data)
            end += os.pwrite(copy, data, end)
        self.left_out += os.fstat(copy).st_size - read
        os.ftruncate(copy, end)
