"""The suite that a store must pass to hold a study: derive a class from `StoreContract` and give it one fixture.

    class TestMyStore(StoreContract):
        @pytest.fixture
        def objects(self):
            return open_objects("mine://place/for/this/test")

A store that `open_objects` does not know names in `opener` the function that opens it. This is the one module of the
package that imports pytest; nothing that runs a study may import it.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from pkgutil import resolve_name
from typing import ClassVar

import pytest

from tune_tasks.errors import ConfigError
from tune_tasks.store import Copied, Objects
from tune_tasks.store.probe import probe
from tune_tasks.store.segment import LIMIT

_RACER = """
import json, pkgutil, sys
objects, me, rounds = pkgutil.resolve_name(sys.argv[1])(sys.argv[2]), sys.argv[3], int(sys.argv[4])
objects.read("race/ready")
print("ready", flush=True)
sys.stdin.readline()
print(json.dumps([number for number in range(rounds) if objects.create(f"race/{number:03d}", me.encode())]))
"""


class StoreContract:
    """What the log and the checkpoints ask of a store. `objects` must be empty and of its own for each test."""

    shared: ClassVar[bool] = True
    """Whether other processes see the same objects when they open the same URL."""

    opener: ClassVar[str] = "tune_tasks.store:open_objects"
    """The function that opens the same store by its URL, here and in other processes, as module:name."""

    racers: ClassVar[int] = 4
    rounds: ClassVar[int] = 300

    @pytest.fixture
    def objects(self) -> Objects:
        """The store under test, as `open_objects` gives it."""
        raise NotImplementedError("a class derived from StoreContract has a fixture `objects`")

    def test_what_was_created_is_read_back(self, objects: Objects) -> None:
        """Bytes are bytes, whatever they are."""
        data = bytes(range(256)) * 40
        assert objects.create("log/000000000001.jsonl", data)
        assert objects.read("log/000000000001.jsonl") == data

    def test_the_largest_segment_is_read_back(self, objects: Objects) -> None:
        """In one piece, whatever a client does with what is large."""
        data = bytes(range(256)) * (LIMIT // 256)
        assert objects.create("log/000000000001.jsonl", data)
        assert not objects.create("log/000000000001.jsonl", data[::-1])
        assert objects.read("log/000000000001.jsonl") == data

    def test_a_reader_sees_all_of_an_object_or_nothing(self, objects: Objects) -> None:
        """Also a reader that asks again and again while it is written."""
        written = {f"log/{number}": bytes([number]) * 100_000 for number in range(20)}
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(lambda: [objects.create(key, data) for key, data in written.items()])
            for key, data in written.items():
                while (found := objects.read(key)) is None:
                    assert not writing.done() or objects.read(key) == data
                assert found == data
        assert all(writing.result())

    def test_a_second_create_is_refused_and_changes_nothing(self, objects: Objects) -> None:
        """The one thing that the log rests on."""
        assert objects.create("log/1", b"first")
        assert not objects.create("log/1", b"second")
        assert not objects.create("log/1", b"first")
        assert objects.read("log/1") == b"first"

    def test_an_object_that_is_absent_reads_as_none(self, objects: Objects) -> None:
        """Also in a store that nothing was written to yet, and beside one that exists."""
        assert objects.read("log/1") is None
        objects.create("log/1", b"one")
        assert objects.read("log/2") is None

    def test_of_several_threads_that_create_an_object_one_wins(self, objects: Objects) -> None:
        """One instance serves several threads."""

        def race(me: int) -> list[int]:
            return [number for number in range(20) if objects.create(f"race/{number}", str(me).encode())]

        with ThreadPoolExecutor(self.racers) as pool:
            won = list(pool.map(race, range(self.racers)))
        assert Counter(number for numbers in won for number in numbers) == Counter(range(20))
        for me, numbers in enumerate(won):
            assert all(objects.read(f"race/{number}") == str(me).encode() for number in numbers)

    def test_of_several_processes_that_create_an_object_one_wins(self, objects: Objects) -> None:
        """Exactly one, and its bytes are the ones that are there."""
        if not self.shared:
            pytest.skip("this store ends with its process")
        won = _race(self.opener, objects.url, self.racers, self.rounds)
        assert Counter(number for numbers in won for number in numbers) == Counter(range(self.rounds))
        for me, numbers in enumerate(won):
            assert all(objects.read(f"race/{number:03d}") == str(me).encode() for number in numbers)

    def test_what_another_instance_writes_is_seen_at_once(self, objects: Objects) -> None:
        """No cache of a listing, of an object or of its absence."""
        other: Objects = resolve_name(self.opener)(objects.url)
        assert objects.list("log/") == []
        assert objects.read("log/1") is None
        assert other.create("log/1", b"one")
        assert objects.list("log/") == ["log/1"]
        assert objects.read("log/1") == b"one"
        other.replace("log/1", b"longer than before")
        assert objects.read("log/1") == b"longer than before"

    def test_replace_writes_over_what_is_there(self, objects: Objects) -> None:
        """And creates what is not."""
        objects.replace("HEAD.json", b"long before")
        objects.replace("HEAD.json", b"after")
        assert objects.read("HEAD.json") == b"after"

    def test_list_gives_the_keys_that_begin_with_a_prefix_sorted(self, objects: Objects) -> None:
        """A prefix may end within a name; a longer name is no folder."""
        keys = ["a/1", "log/000001", "log/000002", "log/000010", "log2/1", "logs/000001-1.txt"]
        for key in reversed(keys):
            objects.create(key, b"x")
        assert objects.list("") == keys
        assert objects.list("log/") == keys[1:4]
        assert objects.list("log/00000") == keys[1:3]
        assert objects.list("logs/000001-") == keys[5:]
        assert objects.list("none/") == []

    def test_entries_tell_how_large_an_object_is_and_when_it_was_written(self, objects: Objects) -> None:
        """In seconds since the epoch, by one clock: what is written later is never earlier."""
        written = ["ckpt/2", "ckpt/1", "log/1"]
        for size, key in enumerate(written):
            objects.create(key, b"x" * size)
        found = {entry.key: entry for entry in objects.entries("")}
        assert list(found) == sorted(written)
        assert [found[key].size for key in written] == [0, 1, 2]
        assert 1e9 < found[written[0]].modified <= found[written[1]].modified <= found[written[2]].modified < 1e10
        assert [entry.key for entry in objects.entries("ckpt/")] == ["ckpt/1", "ckpt/2"]
        objects.replace("ckpt/1", b"longer")
        replaced = objects.entries("ckpt/1")[0]
        assert replaced.size == 6
        assert replaced.modified >= found["log/1"].modified

    def test_delete_removes_one_object_and_an_absent_one_is_fine(self, objects: Objects) -> None:
        """What was deleted can be created again."""
        objects.create("snap/1", b"one")
        objects.create("snap/2", b"two")
        objects.delete("snap/1")
        objects.delete("snap/1")
        assert objects.list("") == ["snap/2"]
        assert objects.create("snap/1", b"again")

    def test_the_probe_accepts_it_and_leaves_nothing(self, objects: Objects) -> None:
        """A study may be created here."""
        probe(objects)
        assert objects.list("") == []

    @pytest.mark.parametrize("size", [0, 1, 100_000])
    def test_a_file_is_the_same_after_upload_and_download(self, objects: Objects, tmp_path: Path, size: int) -> None:
        """And both ways say how many bytes went through, and their digest."""
        data = bytes(index % 251 for index in range(size))
        copied = Copied(size, hashlib.sha256(data).hexdigest())
        (tmp_path / "source").write_bytes(data)
        assert objects.upload(tmp_path / "source", "ckpt/0/1/some file.bin") == copied
        assert objects.download("ckpt/0/1/some file.bin", tmp_path / "target", size) == copied
        assert (tmp_path / "target").read_bytes() == data
        assert [(entry.key, entry.size) for entry in objects.entries("ckpt/")] == [("ckpt/0/1/some file.bin", size)]

    def test_an_upload_replaces_what_an_earlier_try_left(self, objects: Objects, tmp_path: Path) -> None:
        """A retry does not find its own first try in the way."""
        for data in (b"a longer first try", b"second"):
            (tmp_path / "source").write_bytes(data)
            objects.upload(tmp_path / "source", "ckpt/file")
        assert objects.read("ckpt/file") == b"second"

    def test_what_has_returned_left_nothing_unfinished(self, objects: Objects, tmp_path: Path) -> None:
        """So that what is listed as unfinished may be removed once it is old."""
        objects.create("log/1", b"one")
        objects.replace("HEAD.json", b"{}")
        (tmp_path / "source").write_bytes(b"x" * 100_000)
        objects.upload(tmp_path / "source", "ckpt/file")
        assert objects.unfinished(1e10, remove=True) == []
        assert objects.list("") == ["HEAD.json", "ckpt/file", "log/1"]

    def test_a_download_ends_where_the_object_ends(self, objects: Objects, tmp_path: Path) -> None:
        """So that what is too short shows in its size and digest; what is absent is none."""
        objects.create("ckpt/file", b"short")
        copied = objects.download("ckpt/file", tmp_path / "target", 40_000_000)
        assert copied == Copied(5, hashlib.sha256(b"short").hexdigest())
        assert objects.download("ckpt/other", tmp_path / "target", 5) is None

    @pytest.mark.parametrize(
        "key", ["", "/a", "a/../b", "..", "a/./b", "a//b", "a/", "a\0b", "%2E%2e/b", "a\\b", "a\n"]
    )
    def test_a_key_that_could_lead_elsewhere_is_refused(self, objects: Objects, key: str) -> None:
        """Before anything is read or written, on every method."""
        for call in (objects.read, objects.delete, lambda k: objects.create(k, b""), lambda k: objects.replace(k, b"")):
            with pytest.raises(ConfigError, match="key"):
                call(key)
        assert objects.list("") == []

    def test_it_shows_where_it_is(self, objects: Objects) -> None:
        """And nothing else of how it was opened."""
        assert objects.url in repr(objects)
        assert "@" not in objects.url


def _race(opener: str, url: str, racers: int, rounds: int) -> list[list[int]]:
    """Lets processes race once all of them are ready; returns which rounds each of them won."""
    command = [sys.executable, "-c", _RACER, opener, url]
    with ExitStack() as stack:
        started = []
        for me in range(racers):
            arguments = [*command, str(me), str(rounds)]
            racer = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            started.append(stack.enter_context(racer))
            stack.callback(racer.kill)
        for racer in started:
            if racer.stdout is None or racer.stdout.readline() != "ready\n":
                raise RuntimeError(f"a process that should race could not open {url} with {opener}")
        for racer in started:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        return [json.loads(racer.communicate(timeout=120)[0]) for racer in started]
