"""The contract of stores catches what it is for: every check has a broken twin that must make it fail."""

from __future__ import annotations

import inspect
import time
from pathlib import Path
from uuid import uuid4

import pytest

from tune_tasks.errors import ConfigError
from tune_tasks.store import Objects
from tune_tasks.store.local import LocalObjects
from tune_tasks.store.memory import MemoryObjects
from tune_tasks.store.names import TEMPORARY, Entry
from tune_tasks.store.retry import Retrying
from tune_tasks.testing.stores import StoreContract


class IgnoresTheCondition(MemoryObjects):
    """What several S3 servers do: the condition is accepted, and the object written over."""

    def create(self, key, data):
        self.replace(key, data)
        return True


class LooksFirst(LocalObjects):
    """What fsspec's own create does on most file systems: between looking and writing another writer fits."""

    def create(self, key, data):
        absent = self.read(key) is None
        time.sleep(0.002)
        if absent:
            self.replace(key, data)
        return absent


class Caches(MemoryObjects):
    """Remembers its listings, as fsspec does unless it is told not to."""

    def list(self, prefix):
        self.__dict__.setdefault(prefix, super().list(prefix))
        return self.__dict__[prefix]


class CachesAbsence(MemoryObjects):
    def read(self, key):
        self.__dict__.setdefault(key, super().read(key))
        return self.__dict__[key]


class Truncates(MemoryObjects):
    """Keeps what fits into one buffer."""

    def create(self, key, data):
        return super().create(key, data[:4096])

    def replace(self, key, data):
        super().replace(key, data[:4096])


class TruncatesLarge(MemoryObjects):
    def create(self, key, data):
        return super().create(key, data[: 5 << 20])


class Tears(MemoryObjects):
    """Shows an object while it is being written."""

    def create(self, key, data):
        created = super().create(key, data[:1000])
        time.sleep(0.002)
        if created:
            self.replace(key, data)
        return created


class EmptyForAbsent(MemoryObjects):
    def read(self, key):
        return super().read(key) or b""


class WritesOver(MemoryObjects):
    """Opens the old file and writes from its beginning, without shortening it."""

    def replace(self, key, data):
        super().replace(key, data + (self.read(key) or b"")[len(data) :])


class ListsByFolder(MemoryObjects):
    """Takes a prefix for a folder, or for the beginning of one."""

    def list(self, prefix):
        return super().list(prefix.rstrip("/"))


class Unsorted(MemoryObjects):
    def list(self, prefix):
        return super().list(prefix)[::-1]


class Milliseconds(MemoryObjects):
    def entries(self, prefix):
        return [Entry(key, size, 1000 * modified) for key, size, modified in super().entries(prefix)]


class Backwards(MemoryObjects):
    """Several machines, each with a clock of its own."""

    def entries(self, prefix):
        return [Entry(key, size, 4e9 - modified) for key, size, modified in super().entries(prefix)]


class NoSizes(MemoryObjects):
    def entries(self, prefix):
        return [Entry(key, 0, modified) for key, _, modified in super().entries(prefix)]


class DeletesOften(MemoryObjects):
    """Takes a key for a prefix, as a recursive delete does."""

    def delete(self, key):
        for found in self.list(key[:-1]):
            super().delete(found)


class RefusesAbsent(MemoryObjects):
    def delete(self, key):
        if self.read(key) is None:
            raise FileNotFoundError(key)
        super().delete(key)


class KeepsFirst(MemoryObjects):
    """Uploads only where there is nothing."""

    def upload(self, source, key):
        data = source.read_bytes()
        copied = super().upload(source, key) if self.read(key) is None else None
        return copied or super().upload(source, f"{key}-{len(data)}")


class Pads(MemoryObjects):
    """Fetches as much as was asked for."""

    def download(self, key, target, size):
        copied = super().download(key, target, size)
        return copied._replace(size=size) if copied else copied


class LeavesParts(LocalObjects):
    def upload(self, source, key):
        super().upload(source, f"{TEMPORARY}{uuid4().hex}")
        return super().upload(source, key)


class ShowsTheSecret(MemoryObjects):
    def __init__(self, place):
        super().__init__(place)
        self.url = f"memory://user:secret@{place}"


def open_looks_first(url: str) -> Objects:
    return Retrying(LooksFirst(Path(url)), 60)


def open_caches(url: str) -> Objects:
    return Retrying(Caches(url.removeprefix("memory://")), 60)


def open_caches_absence(url: str) -> Objects:
    return Retrying(CachesAbsence(url.removeprefix("memory://")), 60)


BROKEN = [
    (Truncates, "test_what_was_created_is_read_back", {}),
    (TruncatesLarge, "test_the_largest_segment_is_read_back", {}),
    (Tears, "test_a_reader_sees_all_of_an_object_or_nothing", {}),
    (IgnoresTheCondition, "test_a_second_create_is_refused_and_changes_nothing", {}),
    (EmptyForAbsent, "test_an_object_that_is_absent_reads_as_none", {}),
    (IgnoresTheCondition, "test_of_several_threads_that_create_an_object_one_wins", {}),
    (LooksFirst, "test_of_several_threads_that_create_an_object_one_wins", {}),
    (LooksFirst, "test_of_several_processes_that_create_an_object_one_wins", {}),
    (Caches, "test_what_another_instance_writes_is_seen_at_once", {}),
    (CachesAbsence, "test_what_another_instance_writes_is_seen_at_once", {}),
    (WritesOver, "test_replace_writes_over_what_is_there", {}),
    (ListsByFolder, "test_list_gives_the_keys_that_begin_with_a_prefix_sorted", {}),
    (Unsorted, "test_list_gives_the_keys_that_begin_with_a_prefix_sorted", {}),
    (Milliseconds, "test_entries_tell_how_large_an_object_is_and_when_it_was_written", {}),
    (Backwards, "test_entries_tell_how_large_an_object_is_and_when_it_was_written", {}),
    (NoSizes, "test_entries_tell_how_large_an_object_is_and_when_it_was_written", {}),
    (DeletesOften, "test_delete_removes_one_object_and_an_absent_one_is_fine", {}),
    (RefusesAbsent, "test_delete_removes_one_object_and_an_absent_one_is_fine", {}),
    (IgnoresTheCondition, "test_the_probe_accepts_it_and_leaves_nothing", {}),
    (Truncates, "test_a_file_is_the_same_after_upload_and_download", {"size": 100_000}),
    (NoSizes, "test_a_file_is_the_same_after_upload_and_download", {"size": 1}),
    (KeepsFirst, "test_an_upload_replaces_what_an_earlier_try_left", {}),
    (LeavesParts, "test_what_has_returned_left_nothing_unfinished", {}),
    (Pads, "test_a_download_ends_where_the_object_ends", {}),
    (None, "test_a_key_that_could_lead_elsewhere_is_refused", {"key": "a/../b"}),
    (ShowsTheSecret, "test_it_shows_where_it_is", {}),
]


def check(name: str, objects: Objects, tmp_path: Path, arguments: dict, contract: type[StoreContract] = StoreContract):
    wanted = inspect.signature(getattr(contract, name)).parameters
    fixtures = {"tmp_path": tmp_path} if "tmp_path" in wanted else {}
    getattr(contract(), name)(objects=objects, **fixtures, **arguments)


def opened(kind: type[MemoryObjects | LocalObjects] | None, tmp_path: Path) -> Objects:
    """A twin as a backend is used, in its wrapper; None: a good backend without the wrapper, that checks the keys."""
    if kind is None:
        return MemoryObjects(uuid4().hex)
    inner = kind(tmp_path / "store") if issubclass(kind, LocalObjects) else kind(uuid4().hex)
    return Retrying(inner, 60)


@pytest.mark.parametrize(("broken", "name", "arguments"), BROKEN)
def test_a_broken_twin_fails_the_check_that_is_for_it(broken, name, arguments, tmp_path):
    openers = {LooksFirst: open_looks_first, Caches: open_caches, CachesAbsence: open_caches_absence}

    class Contract(StoreContract):
        opener = f"{__name__}:{openers[broken].__name__}" if broken in openers else StoreContract.opener

    with pytest.raises((AssertionError, ConfigError, FileNotFoundError, pytest.fail.Exception)):
        check(name, opened(broken, tmp_path), tmp_path, arguments, Contract)


def test_every_check_of_the_contract_has_a_twin():
    checks = {name for name in vars(StoreContract) if name.startswith("test_")}
    assert checks == {name for _, name, _ in BROKEN}


@pytest.mark.parametrize(("_broken", "name", "arguments"), BROKEN)
def test_a_good_store_passes_the_same_check(_broken, name, arguments, tmp_path):
    check(name, opened(LocalObjects, tmp_path), tmp_path, arguments)


def test_a_suite_without_a_store_says_what_to_give():
    with pytest.raises(NotImplementedError, match="has a fixture `objects`"):
        StoreContract.objects.__wrapped__(StoreContract())
