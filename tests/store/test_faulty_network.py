"""A network that fails between a real client and a real server: no fact is lost, and none is there twice.

What a request means and which replies are whose fault is in test_remote.py, with a server that says anything at all.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.servers.proxy import Proxy, proxied
from tests.store.happenings import created, told
from tune_tasks.errors import Unavailable
from tune_tasks.events import Promoted
from tune_tasks.store import Objects, StudyLog, fetch, open_objects, publish
from tune_tasks.store import remote as module

pytestmark = pytest.mark.s3

# One server for each client; what a server does itself differs between all four.
CLIENTS = ["moto_server", "azurite_server", "google_server"]
SERVERS = ["radosgw_server", *CLIENTS]
FOR_EVER = float("inf")
WRITE = "P"
"""Azure and S3 PUT an object, Google POSTs it."""


def fact(text: str) -> Promoted:
    return Promoted(key=text, model={}, time=1.0)


def commit(log: StudyLog, text: str) -> bool:
    return log.commit([fact(text)], role="step", epoch=0)


def facts(objects: Objects) -> list[str]:
    """The facts of a log in order, read and verified segment by segment."""
    return [event.key for segment in StudyLog(objects).segments(2) for event in segment.events]


@pytest.fixture(params=["radosgw_server"])
def network(request: pytest.FixtureRequest) -> Iterator[Proxy]:
    with proxied(request.getfixturevalue(request.param)) as proxy:
        yield proxy


@pytest.fixture
def place(network: Proxy, reach: Callable[[Any], str]) -> str:
    """The URL of a study over this network that has one segment, and a client that has seen the server."""
    url = reach(network.way)
    assert StudyLog(open_objects(url)).create(created())
    network.exchanges.clear()
    return url


def opened(url: str) -> tuple[Any, StudyLog]:
    """A log at its end, over a client that has met the server, so that what is under test is not its start."""
    objects = open_objects(url)
    log = StudyLog(objects)
    log.load()
    return objects, log


@contextmanager
def patience(objects: Any, seconds: float) -> Iterator[None]:
    """Shortens the deadline of a store in use: one that is short from the start would run out while a client loads."""
    before = objects._deadline, objects._inner._patience, objects._inner._read_patience
    objects._deadline, objects._inner._patience, objects._inner._read_patience = seconds, seconds / 3, seconds
    yield
    objects._deadline, objects._inner._patience, objects._inner._read_patience = before


@pytest.mark.parametrize("network", CLIENTS, indirect=True)
@pytest.mark.parametrize("fault", ["503 SlowDown", "409 ConditionalRequestConflict", "reset"])
def test_a_burst_of_faults_before_a_commit_landed_is_waited_out(
    network: Proxy, place: str, fault: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "_QUIET", 10.0)
    objects, log = opened(place)
    network.fail(fault, WRITE, times=2)
    assert commit(log, "a")
    assert facts(objects) == ["a"]
    assert [seen.fault for seen in network.exchanges if seen.method.startswith(WRITE)] == [fault, fault, ""]
    assert "no answer yet" not in caplog.text, "a client waited on its own between tries that nobody sees"


@pytest.mark.parametrize("network", SERVERS, indirect=True)
@pytest.mark.parametrize("fault", ["reset after", "500 InternalError after"])
def test_a_commit_whose_reply_was_lost_is_reported_once_and_is_one_segment(network: Proxy, place: str, fault: str):
    objects, log = opened(place)
    network.fail(fault, WRITE)
    assert commit(log, "a")
    first, second = (seen for seen in network.exchanges if seen.method.startswith(WRITE))
    assert (first.fault, second.fault) == (fault, "")
    assert second.status in {409, 412}, "the server was asked again, and said that the number is taken"
    assert log.head == 2
    assert commit(log, "b")
    assert facts(objects) == ["a", "b"]


@pytest.mark.parametrize("network", CLIENTS, indirect=True)
def test_a_commit_whose_reply_never_comes_is_read_back(network: Proxy, place: str):
    objects, log = opened(place)
    network.fail("hang after", WRITE)
    with patience(objects, 3.0):
        assert commit(log, "a")
    assert facts(objects) == ["a"]


@pytest.mark.parametrize(
    ("network", "fault"),
    [("moto_server", "503 SlowDown"), ("moto_server", "reset"), *((client, "hang") for client in CLIENTS)],
    indirect=["network"],
)
def test_a_store_that_is_away_is_unavailable_and_then_the_study_goes_on(
    network: Proxy, place: str, fault: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "_QUIET", 0.1)
    objects, log = opened(place)
    before = told(log.load())
    network.fail(fault, times=FOR_EVER)
    with patience(objects, 1.0):
        with pytest.raises(Unavailable, match=r"cannot (create|read) log/000000000002.jsonl within 1 s"):
            commit(log, "a")
        assert [record for record in caplog.records if record.name.startswith("tune_tasks")], "it waited in silence"
        with pytest.raises(Unavailable, match=r"within 1 s"):
            log.load()
    assert log.head == 1
    network.heal()
    assert told(log.load()) == before
    assert commit(log, "b")
    assert facts(objects) == ["b"]


@pytest.mark.parametrize("network", CLIENTS, indirect=True)
def test_a_reply_that_broke_off_is_never_taken_for_the_log(network: Proxy, place: str):
    objects, log = opened(place)
    for text in ("a", "b"):
        assert commit(log, text)
    known, listed = told(log.load()), objects.list("")
    network.fail("truncated", "GET", "000000000002.jsonl", times=2)
    network.fail("truncated", "GET", "prefix=", times=2)
    assert told(log.load()) == known
    assert objects.list("") == listed
    network.fail("truncated", "GET", "000000000003.jsonl", times=FOR_EVER)
    with patience(objects, 1.0), pytest.raises(Unavailable, match=r"cannot read log/000000000003.jsonl within 1 s"):
        log.load()
    assert log.head == 3


def test_a_slow_network_is_only_slow(network: Proxy, place: str):
    objects, log = opened(place)
    network.fail("slow", times=FOR_EVER)
    assert commit(log, "a")
    assert facts(objects) == ["a"]


@pytest.mark.parametrize("copied", ["fsspec", "obstore"])
@pytest.mark.parametrize("fault", ["truncated", "reset"])
def test_a_checkpoint_is_whole_or_the_store_is_unavailable(
    network: Proxy, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: str, fault: str
):
    if copied == "fsspec":
        monkeypatch.setattr("tune_tasks.store.fast.find_spec", lambda name: None)
    (tmp_path / "weights.bin").write_bytes(os.urandom(300_000))
    objects, _ = opened(place)
    network.fail(fault, "PUT", times=2)
    reference = publish(objects, tmp_path / "weights.bin", "ckpt/000000/1/1")
    network.fail(fault, "GET", "weights.bin", times=2)
    found = fetch(objects, reference, tmp_path / "fetched") / "weights.bin"
    assert found.read_bytes() == (tmp_path / "weights.bin").read_bytes()
    network.fail(fault, "GET", "weights.bin", times=FOR_EVER)
    with patience(objects, 1.0), pytest.raises(Unavailable):
        fetch(objects, reference, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_two_writers_over_a_network_that_loses_and_breaks_commit_every_fact_once(network: Proxy, place: str):
    """Each fact is tried until it is acknowledged; whatever was acknowledged is in the log, once and in order."""
    random = Random(7)
    faults = ["reset", "reset after", "503 SlowDown", "500 InternalError after", "409 Conflict", "429 Slow", "", ""]
    for _ in range(40):
        network.fail(random.choice(faults), "PUT")
        network.fail(random.choice(["reset", "truncated", "503 SlowDown", "", ""]), "GET")

    def write(me: str) -> list[str]:
        log = StudyLog(open_objects(place))
        state, acknowledged = log.load(), []
        for number in range(15):
            text = f"{me}-{number}"
            while not commit(log, text):
                log.catch_up(state)
            acknowledged.append(text)
        return acknowledged

    with ThreadPoolExecutor(2) as pool:
        acknowledged = list(pool.map(write, ["one", "other"]))
    network.heal()
    found = facts(open_objects(place))
    assert Counter(found) == Counter(text for texts in acknowledged for text in texts)
    for texts in acknowledged:
        assert [text for text in found if text in texts] == texts
    assert sum(seen.fault != "" for seen in network.exchanges) > 30


@pytest.mark.parametrize("network", ["radosgw_server"], indirect=True)
def test_a_gateway_that_is_killed_in_the_middle_of_commits_loses_and_repeats_none(
    network: Proxy, place: str, radosgw_server: Any
):
    objects, log = opened(place)
    wanted = [str(number) for number in range(60)]
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(lambda: [commit(log, text) for text in wanted])
        try:
            for head in (10, 25, 40):
                while log.head < head and not writing.done():
                    time.sleep(0.001)
                radosgw_server.kill()
                before = len(network.exchanges)
                while len(network.exchanges) < before + 2 and not writing.done():  # until commits met the dead gateway
                    time.sleep(0.01)
                radosgw_server.start()
        except BaseException:
            radosgw_server.kill()
            radosgw_server.start()
            raise
        assert all(writing.result())
    assert facts(objects) == wanted
    assert len(objects.list("log/")) == 1 + len(wanted)
