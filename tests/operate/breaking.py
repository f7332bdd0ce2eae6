"""Ways to break a study behind everybody's back, and what is then found."""

from __future__ import annotations

from collections.abc import Callable

from tune_tasks.operate import Checked
from tune_tasks.store import Objects
from tune_tasks.store import segment as codec
from tune_tasks.store.segment import segment_key


def problems(checked: Checked, severity: str = "error") -> list[tuple[str, str]]:
    return [(f.key, f.problem) for f in checked.findings if f.severity == severity]


def problems_of_the_log(checked: Checked) -> list[tuple[str, str]]:
    """Without checkpoints and measurements, which a log of random events names and does not have."""
    return [(key, problem) for key, problem in problems(checked) if not key.startswith(("ckpt/", "evaluations/"))]


def change(objects: Objects, key: str, edit: Callable[[bytes], bytes]) -> bytes:
    """Changes an object behind everybody's back; returns what it was."""
    before = objects.read(key)
    assert before is not None
    objects.replace(key, edit(before))
    return before


def flip(data: bytes) -> bytes:
    """One bit of the last byte but one."""
    return data[:-2] + bytes([data[-2] ^ 1]) + data[-1:]


def sealed(objects: Objects, number: int, **changes: object) -> bytes:
    """A segment that is whole in itself, changed."""
    segment = codec.decode(objects.read(segment_key(number)) or b"", number)
    return codec.encode(codec.Segment(**{**{n: getattr(segment, n) for n in segment.__slots__}, **changes}))
