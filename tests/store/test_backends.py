"""Every backend passes the one suite that defines a store, and a store that ignores the condition does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from tune_tasks.errors import ConfigError
from tune_tasks.store import open_objects, probe
from tune_tasks.store.memory import MemoryObjects
from tune_tasks.store.retry import Retrying
from tune_tasks.testing.stores import StoreContract


class TestLocal(StoreContract):
    @pytest.fixture
    def objects(self, tmp_path: Path):
        return open_objects(str(tmp_path / "studies" / "digits"))


class TestMemory(StoreContract):
    shared = False

    @pytest.fixture
    def objects(self):
        return open_objects(f"memory://{uuid4().hex}")


@pytest.mark.s3
class TestS3(StoreContract):
    @pytest.fixture
    def objects(self, s3: str):
        return open_objects(s3)


class IgnoresTheCondition(MemoryObjects):
    """What several S3 servers do: the condition is accepted, and the object written over."""

    def create(self, key: str, data: bytes) -> bool:
        self.replace(key, data)
        return True


class SaysYes(MemoryObjects):
    """Keeps what is there, but tells the second writer that it has won."""

    def create(self, key: str, data: bytes) -> bool:
        super().create(key, data)
        return True


class LooksFirst(MemoryObjects):
    """What fsspec's own create does on most file systems: between looking and writing another writer fits."""

    def create(self, key: str, data: bytes) -> bool:
        absent = self.read(key) is None
        time.sleep(0.001)
        if absent:
            self.replace(key, data)
        return absent


@pytest.mark.parametrize(
    "check",
    [
        StoreContract.test_a_second_create_is_refused_and_changes_nothing,
        StoreContract.test_of_several_threads_that_create_an_object_one_wins,
        StoreContract.test_the_probe_accepts_it_and_leaves_nothing,
    ],
)
def test_a_store_that_ignores_the_condition_fails_the_suite(check: Callable):
    broken = Retrying(IgnoresTheCondition(uuid4().hex), 60)
    with pytest.raises((AssertionError, ConfigError)):
        check(StoreContract(), broken)


def test_a_store_that_looks_first_loses_the_race_of_the_suite():
    with pytest.raises(AssertionError):
        StoreContract().test_of_several_threads_that_create_an_object_one_wins(Retrying(LooksFirst(uuid4().hex), 60))


@pytest.mark.parametrize("broken", [IgnoresTheCondition, SaysYes])
def test_a_store_that_ignores_the_condition_is_refused_and_left_empty(broken: type[MemoryObjects]):
    objects = Retrying(broken(uuid4().hex), 60)
    with pytest.raises(ConfigError, match=r"^store: memory://.*unsafe_single_writer: true"):
        probe(objects)
    assert objects.list("") == []
