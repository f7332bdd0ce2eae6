"""Every backend passes the one suite that defines a store. PostgreSQL's class is in test_postgres.py.

Four processes race for each number; how many numbers is what the slowest server of its kind does in a few seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
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
class TestMoto(StoreContract):
    rounds = 100

    @pytest.fixture
    def objects(self, moto_server: Any, reach: Callable):
        return open_objects(reach(moto_server))


@pytest.mark.s3
class TestCeph(StoreContract):
    @pytest.fixture
    def objects(self, radosgw_server: Any, reach: Callable):
        return open_objects(reach(radosgw_server))


class TestAzure(StoreContract):
    rounds = 200

    @pytest.fixture
    def objects(self, azurite_server: Any, reach: Callable):
        return open_objects(reach(azurite_server))


class TestGoogle(StoreContract):
    rounds = 100

    @pytest.fixture
    def objects(self, google_server: Any, reach: Callable):
        return open_objects(reach(google_server))


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


@pytest.mark.parametrize("broken", [IgnoresTheCondition, SaysYes])
def test_a_store_that_ignores_the_condition_is_refused_and_left_empty(broken: type[MemoryObjects]):
    objects = Retrying(broken(uuid4().hex), 60)
    with pytest.raises(ConfigError, match=r"^store: memory://.*unsafe_single_writer: true"):
        probe(objects)
    assert objects.list("") == []
