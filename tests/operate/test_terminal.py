"""What takes long is shown on a terminal and nowhere else."""

from __future__ import annotations

import io

from tune_tasks.operate.sizes import in_words
from tune_tasks.operate.terminal import Working


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_it_says_what_is_being_done_at_most_ten_times_a_second() -> None:
    stream, now = Terminal(), [0.0]
    with Working(stream, clock=lambda: now[0]) as working:
        working("segments", 3, 9)
        now[0] = 0.2
        working("checkpoints", 5, 0)
        working("checkpoints", 6, 0)
    assert "checkpoints  5" in stream.getvalue()
    assert "checkpoints  6" not in stream.getvalue()


def test_elsewhere_it_says_nothing() -> None:
    stream = io.StringIO()
    with Working(stream) as working:
        working("segments", 3, 9)
    assert stream.getvalue() == ""


def test_bytes_are_short() -> None:
    sizes = (0, 999, 1000, 1234, 999_499, 999_500, 15_016_706, 2 * 10**12, 10**20)
    assert [in_words(size) for size in sizes] == [
        "0 B",
        "999 B",
        "1 kB",
        "1.23 kB",
        "999 kB",
        "1 MB",
        "15 MB",
        "2 TB",
        "1e+05 PB",
    ]
