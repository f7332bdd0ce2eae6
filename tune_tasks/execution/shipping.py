"""A working directory as the package that Ray's nodes unpack: one zip, named by what it holds.

What `.gitignore` and `.rayignore` name, in the folder or below it, stays at home, as with Ray's own client. This module
must not talk to a cluster.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tune_tasks.errors import ConfigError

_MOST = 500 * 2**20
"""Bytes that Ray's head takes of one package."""
_IGNORING = (".gitignore", ".rayignore")


def pack(folder: Path, excludes: Sequence[str]) -> tuple[str, bytes]:
    """The name and the bytes of a folder's package, the same for the same files whenever they were written.

    `excludes` are patterns as in a `.gitignore`. Raises `ConfigError` where Ray would not take so much.
    """
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(_files(folder, excludes)):
            path = folder / name
            info = zipfile.ZipInfo(name)  # of 1980, as a time of its own would give it another name
            info.external_attr = (path.stat().st_mode & 0o777) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, path.read_bytes())
            if target.tell() > _MOST:
                raise ConfigError(
                    f"environment.working_dir: {folder} is larger than {_MOST >> 20} MiB, which is the most that Ray "
                    "takes; name in a .rayignore there what the trials do not need"
                )
    data = target.getvalue()
    return f"_ray_pkg_{hashlib.sha256(data).hexdigest()[:32]}.zip", data


def _files(folder: Path, excludes: Sequence[str]) -> Iterator[str]:
    """The files to send, by their path in the folder."""
    from pathspec import GitIgnoreSpec

    rules = {Path(): [GitIgnoreSpec.from_lines(excludes)]}
    for here, folders, files in os.walk(folder, followlinks=True):
        place = Path(here).relative_to(folder)
        mine = [Path(here, name) for name in _IGNORING if name in files]
        rules.setdefault(place, []).extend(GitIgnoreSpec.from_lines(file.read_text().splitlines()) for file in mine)

        def kept(path: Path, slash: str = "", rules: dict[Path, list[GitIgnoreSpec]] = rules) -> bool:
            above = [parent for parent in path.parents if parent in rules]
            return not any(
                rule.match_file(f"{path.relative_to(parent).as_posix()}{slash}")
                for parent in above
                for rule in rules[parent]
            )

        folders[:] = [name for name in folders if kept(place / name, "/")]
        here_too = (place / name for name in files if kept(place / name))
        yield from (path.as_posix() for path in here_too if (folder / path).is_file())  # no broken link, no socket
