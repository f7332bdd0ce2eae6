"""How fast a checkpoint goes to S3 and comes back: 256 MiB in one file, and 64 files of 4 MiB.

    python benchmarks/checkpoints.py            # some minutes
    python benchmarks/checkpoints.py --quick    # 64 MiB and 16 files, two rounds, under a minute

Ours hashes every byte both ways, writes a manifest, and checks it; with the extra `fast` (obstore) and without
(s3fs alone). Beside it what people use bare, with its own defaults, and eight files at once where it leaves that to
the caller: s3fs, pyarrow (which Ray copies with), boto3, obstore. The server is radosgw on this machine, which shares
its cores with the clients; each client is a process of its own that is warm. In each round all of them take their turn
in another order; the figures are medians. CPU is that of the client, in seconds. Every file that comes back is
compared with what was sent, outside of the time.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Self

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the servers of the tests

from tests.servers import BUCKET, Missing

MIB = 1 << 20
AT_ONCE = 8
OURS = ("tune-tasks, fast", "tune-tasks, s3fs")
TO_BEAT = ("s3fs", "pyarrow", "boto3")
COLUMNS = [(shape, way) for shape in ("one", "many") for way in ("up", "down")]


class Client(NamedTuple):
    """`up` copies a folder to a place in the bucket, `down` copies it back to a folder that is not there yet."""

    up: Callable[[Path, str], Any]
    down: Callable[[str, Path], Any]


def ours(*, fast: bool) -> Client:
    """Our checkpoints, verified."""
    if not fast:
        sys.modules["obstore"] = None  # type: ignore[assignment]
    from tune_tasks.store import fetch, open_objects, publish

    objects, references = open_objects(f"s3://{BUCKET}"), {}

    def up(source: Path, place: str) -> None:
        references[place] = publish(objects, source, place)

    return Client(up, lambda place, target: fetch(objects, references.pop(place), target))


def s3fs() -> Client:
    """The file system that most of Python copies with."""
    from s3fs import S3FileSystem

    files = S3FileSystem(use_listings_cache=False)
    return Client(
        lambda source, place: files.put(f"{source}/", f"{BUCKET}/{place}/", recursive=True),
        lambda place, target: files.get(f"{BUCKET}/{place}/", f"{target}/", recursive=True),
    )


def pyarrow() -> Client:
    """As Ray Train copies a checkpoint."""
    from pyarrow import fs

    scheme, _, host = os.environ["AWS_ENDPOINT_URL"].partition("://")
    there, here = fs.S3FileSystem(endpoint_override=host, scheme=scheme), fs.LocalFileSystem()

    def down(place: str, target: Path) -> None:
        target.mkdir()
        fs.copy_files(f"{BUCKET}/{place}", str(target), source_filesystem=there, destination_filesystem=here)

    return Client(
        lambda source, place: fs.copy_files(
            str(source), f"{BUCKET}/{place}", source_filesystem=here, destination_filesystem=there
        ),
        down,
    )


def boto3() -> Client:
    """The transfer manager of Amazon's own client."""
    import boto3 as library

    client = library.client("s3")
    return each(
        lambda path, key: client.upload_file(str(path), BUCKET, key),
        lambda key, path: client.download_file(BUCKET, key, str(path)),
    )


def obstore() -> Client:
    """What `fast` uses, without hashing and without a limit of its memory."""
    import obstore as library
    from obstore.store import S3Store

    store = S3Store(BUCKET, client_options={"allow_http": True})

    def down(key: str, path: Path) -> None:
        with path.open("wb") as file:
            for piece in library.get(store, key).stream():
                file.write(piece)

    return each(lambda path, key: library.put(store, key, path), down)


def each(up: Callable[[Path, str], Any], down: Callable[[str, Path], Any]) -> Client:
    """A client of single files, several of them at once."""
    pool, known = ThreadPoolExecutor(AT_ONCE), dict[str, list[str]]()

    def all_up(source: Path, place: str) -> None:
        known[place] = [path.name for path in source.iterdir()]
        list(pool.map(lambda name: up(source / name, f"{place}/{name}"), known[place]))

    def all_down(place: str, target: Path) -> None:
        target.mkdir()
        list(pool.map(lambda name: down(f"{place}/{name}", target / name), known[place]))

    return Client(all_up, all_down)


CLIENTS: dict[str, Callable[[], Client]] = {
    OURS[0]: lambda: ours(fast=True),
    OURS[1]: lambda: ours(fast=False),
    "s3fs": s3fs,
    "pyarrow": pyarrow,
    "boto3": boto3,
    "obstore": obstore,
}


def serve(name: str) -> None:
    """Copies what the lines of the standard input say; answers each with seconds and seconds of CPU."""
    client = CLIENTS[name]()
    for line in sys.stdin:
        way, source, place, target = json.loads(line)
        arguments = (Path(source), place) if way == "up" else (place, Path(target))
        cpu, begun = time.process_time(), time.perf_counter()
        getattr(client, way)(*arguments)
        print(json.dumps([time.perf_counter() - begun, time.process_time() - cpu]), flush=True)


class Contender:
    """A client in a process of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.place, self._folder, self._name = name.replace(", ", "-"), folder, name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def there_and_back(self, source: Path) -> dict[str, list[float]]:
        """Seconds and CPU seconds of both ways."""
        target = self._folder / "target"
        try:
            took = {way: self._ask(way, source, f"{self.place}/{source.name}", target) for way in ("up", "down")}
            names = [path.name for path in source.iterdir()]
            same, *_ = filecmp.cmpfiles(source, target, names, shallow=False)
            assert sorted(same) == sorted(names), f"{self._name} brought something else back"
        finally:
            shutil.rmtree(target, ignore_errors=True)
        return took

    def _ask(self, *words: object) -> list[float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(word) for word in words]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._name} ended; what it said is above")
        return json.loads(line)  # type: ignore[no-any-return]


def written(folder: Path, files: int, size: int) -> Path:
    """Random files; they are in the memory of the system afterwards."""
    folder.mkdir()
    for number in range(files):
        with (folder / f"{number:03d}.bin").open("wb") as file:
            for _ in range(size // MIB):
                file.write(os.urandom(MIB))
    return folder


def cleared(client: Any) -> None:
    """Deletes everything: what is in the bucket is in this machine's memory."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for found in page.get("Contents", ()):
            client.delete_object(Bucket=BUCKET, Key=found["Key"])


def measure(folder: Path, total: int, files: int, rounds: int) -> dict[str, dict[str, list[list[float]]]]:
    """All rounds: by client and column, seconds and CPU seconds."""
    import boto3 as library

    shapes = {"one": written(folder / "one", 1, total), "many": written(folder / "many", files, 4 * MIB)}
    admin, draw = library.client("s3"), random.Random(0)
    found: dict[str, dict[str, list[list[float]]]] = {name: {} for name in CLIENTS}
    with ExitStack() as stack:
        contenders = {name: stack.enter_context(Contender(name, folder)) for name in CLIENTS}
        warm = written(folder / "warm", 2, MIB)
        for contender in contenders.values():
            contender.there_and_back(warm)
        for number in range(rounds):
            for shape, source in shapes.items():
                order = list(contenders)
                draw.shuffle(order)
                for name in order:
                    for way, took in contenders[name].there_and_back(source).items():
                        found[name].setdefault(f"{shape} {way}", []).append(took)
                    cleared(admin)
            print(f"round {number + 1} of {rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    return found


def show(found: dict[str, dict[str, list[list[float]]]], sizes: dict[str, int]) -> None:
    """Prints the table; in brackets how it compares with the best of s3fs, pyarrow and boto3."""
    rates = {
        name: {
            (shape, way): sizes[shape] / MIB / statistics.median(seconds for seconds, _ in columns[f"{shape} {way}"])
            for shape, way in COLUMNS
        }
        for name, columns in found.items()
    }
    best = {column: max(rates[name][column] for name in TO_BEAT) for column in COLUMNS}
    heads = [f"{'one file' if shape == 'one' else 'many files'} {way}" for shape, way in COLUMNS]
    print(f"\n{'MiB/s (to the best bare), CPU s':34}" + "".join(f"{head:>24}" for head in heads))
    for name, columns in found.items():
        cells = []
        for shape, way in COLUMNS:
            rate = rates[name][shape, way]
            cpu = statistics.median(cpu for _, cpu in columns[f"{shape} {way}"])
            cells.append(f"{rate:.0f} ({rate / best[shape, way]:.2f}) {cpu:5.2f} s")
        print(f"{name:34}" + "".join(f"{cell:>24}" for cell in cells))


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="64 MiB and 16 files, two rounds")
    parser.add_argument("--rounds", type=int, help="how many times each of them copies (7)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    # pyarrow's checksums are of a form that radosgw 16 refuses; those of boto3 and s3fs are left as they come.
    if options.serve == "pyarrow":
        os.environ["AWS_REQUEST_CHECKSUM_CALCULATION"] = "when_required"
    if options.serve:
        with suppress(KeyboardInterrupt):
            serve(options.serve)
        return
    total, files, rounds = (64 * MIB, 16, 2) if options.quick else (256 * MIB, 64, 7)
    run(total, files, options.rounds or rounds, options.json)


def run(total: int, files: int, rounds: int, kept: Path | None) -> None:
    """Starts the server, measures and prints."""
    from tests.servers.ceph import radosgw

    packages = " ".join(f"{name} {version(name)}" for name in ("tune-tasks", "obstore", "s3fs", "pyarrow", "boto3"))
    print(f"Python {platform.python_version()}, {packages}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="bench-checkpoints-") as name:
        folder = Path(name)
        (folder / "ceph").mkdir()
        try:
            with radosgw(folder / "ceph") as gateway:
                os.environ.update(gateway.environment)
                found = measure(folder, total, files, rounds)
        except Missing as missing:
            raise SystemExit(str(missing)) from None
    print(f"one file of {total // MIB} MiB, {files} files of 4 MiB, medians of {rounds} rounds")
    show(found, {"one": total, "many": files * 4 * MIB})
    print(f"load {os.getloadavg()[0]:.1f} at the end")
    if kept:
        kept.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
