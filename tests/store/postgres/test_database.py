"""Commits survive kills, hangs and lost replies of a real PostgreSQL, or are said not to have been made."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from uuid import uuid4

import pytest

from tests.servers import ACCESS
from tests.servers.postgres import PostgresServer, serve
from tests.store.happenings import STUDY, created
from tune_tasks.errors import Unavailable
from tune_tasks.events import Promoted
from tune_tasks.store import Objects, StudyLog, open_objects
from tune_tasks.store import database as connections
from tune_tasks.store import postgres as module
from tune_tasks.store.postgres import PostgresObjects
from tune_tasks.store.segment import segment_key


def promoted(text: str) -> Promoted:
    return Promoted(key=text, model={}, time=1.0)


def test_a_commit_is_one_statement_and_leaves_nothing_in_the_connection(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
):
    log = StudyLog(objects)
    log.create(created())
    asked: list[str] = []
    ask = connections.Session.ask
    monkeypatch.setattr(
        connections.Session, "ask", lambda session, *given: asked.append(given[0]) or ask(session, *given)
    )
    assert log.commit([promoted("one")], role="step", epoch=0)
    assert len(asked) == 1
    with objects._inner._database.session() as session:
        assert session.ask("SHOW synchronous_commit").rows == [(b"on",)]
        session.ask("SET synchronous_commit = off")
        session.ask(module._SEGMENT.create, "another", "1", b"x")
        assert session.ask("SHOW synchronous_commit").rows == [(b"off",)], "set for more than its own transaction"
        assert session.ask("SELECT count(*)::text FROM pg_prepared_statements").rows == [(b"0",)]
        session.close()


def test_a_commit_survives_a_power_failure_also_where_the_default_says_otherwise():
    with serve("synchronous_commit=off", "wal_writer_delay=10s") as careless:
        url = f"{careless.url}/study"
        StudyLog(open_objects(url)).create(created())
        careless.execute("CREATE TABLE careless (number int)")
        careless.execute("CHECKPOINT")

        for attempt in range(5):  # now and then the last of it fills a page of the server's log, and that is written
            careless.execute("INSERT INTO careless VALUES (%s)", attempt)
            careless.kill()
            careless.start()
            if careless.execute("SELECT number FROM careless WHERE number = %s", attempt) == []:
                break
        else:
            pytest.fail("this server loses nothing, so what follows proves nothing")

        log = StudyLog(open_objects(url))
        log.load()
        assert log.commit([promoted("ours")], role="step", epoch=0)
        careless.kill()
        careless.start()
        assert "ours" in StudyLog(open_objects(url)).load().steps


def test_a_standby_is_not_asked(server: PostgresServer):
    """What it says is old: a study would seem to end too early."""
    with serve() as other:
        objects = open_objects(f"{other.url}/study", deadline=2.0)
        assert objects.create("log/1", b"one")
        other.stop()
        (other.folder / "data" / "standby.signal").touch()
        other.start()
        with pytest.raises(Unavailable, match="standby"):
            objects.read("log/1")


def committing(url: str, start: threading.Event, stop: threading.Event) -> list[str]:
    """Commits until told to stop, and returns what was acknowledged."""
    log, acknowledged = StudyLog(open_objects(url)), []
    log.load()
    while not stop.is_set():
        name = uuid4().hex
        assert log.commit([promoted(name)], role="step", epoch=0)
        acknowledged.append(name)
        start.set()
    return acknowledged


@pytest.mark.slow
def test_a_server_that_is_killed_mid_commit_and_started_again_loses_nothing(server: PostgresServer, url: str):
    """The commit under way waits for the server and finishes; it is in the log once."""
    StudyLog(open_objects(url)).create(created())
    for _ in range(3):
        before = len(StudyLog(open_objects(url)).load().steps)
        begun, stop = threading.Event(), threading.Event()
        with ThreadPoolExecutor(1) as pool:
            working = pool.submit(committing, url, begun, stop)
            assert begun.wait(60)
            server.kill()
            server.start()
            begun.clear()
            assert begun.wait(60), "it goes on"
            stop.set()
            acknowledged = working.result(60)
        log = StudyLog(open_objects(url))
        steps = [event.key for segment in log.segments() for event in segment.events[:1] if event.type == "promoted"]
        assert steps[before:] == acknowledged
        assert log.load().study == STUDY


def test_a_server_that_stays_away_is_unavailable_and_nothing_is_changed(
    server: PostgresServer, url: str, caplog: pytest.LogCaptureFixture
):
    log = StudyLog(open_objects(url, deadline=2.0))
    log.create(created())
    server.kill()
    try:
        with pytest.raises(Unavailable, match=rf"{url}: cannot read {segment_key(2)} within 2 s .* try again later"):
            log.commit([promoted("one")], role="step", epoch=0)
    finally:
        server.start()
    assert [record.getMessage() for record in caplog.records if "waiting up to 2 s" in record.getMessage()]
    assert log.head == 1
    assert log.commit([promoted("one")], role="step", epoch=0)
    assert log.load().steps.keys() == {"one"}


class Proxy:
    """A way to the server on which connections can break at the worst moment: when the reply is on its way."""

    def __init__(self, port: int) -> None:
        self.lose_replies = 0
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server, suppress(OSError):
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(1 << 16)
                    if not data:
                        return
                    if ready is server and self.lose_replies:
                        self.lose_replies -= 1
                        return
                    (client if ready is server else server).sendall(data)


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[Proxy]:
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


@pytest.mark.parametrize("lost", [1, 3])
def test_a_commit_whose_reply_was_lost_is_known_to_have_landed(
    server: PostgresServer, url: str, proxy: Proxy, lost: int
):
    through = url.replace(f":{server.port}/", f":{proxy.port}/")
    log = StudyLog(open_objects(through))
    log.create(created())
    proxy.lose_replies = lost
    assert log.commit([promoted("once")], role="step", epoch=0)
    assert proxy.lose_replies == 0
    assert log.head == 2
    assert open_objects(url).list("log/") == [segment_key(1), segment_key(2)]
    assert [*StudyLog(open_objects(url)).load().steps] == ["once"]


def test_connections_that_an_administrator_ends_are_made_again(server: PostgresServer, objects: Objects):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(objects.read, [f"log/{number}" for number in range(40)]))
    ended = server.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s AND datname = %s",
        ACCESS,
        "studies",
    )
    assert ended
    assert objects.create("log/1", b"one")
    assert objects.read("log/1") == b"one"


@contextmanager
def stopped(server: PostgresServer) -> Iterator[None]:
    """A server that hangs: its sockets are open, and nobody answers."""
    assert server.process is not None
    numbers = [server.process.pid, *server.serving()]
    tell(numbers, signal.SIGSTOP)
    try:
        yield
    finally:
        tell(numbers, signal.SIGCONT)


def tell(numbers: list[int], what: signal.Signals) -> None:
    """Sends a signal to processes, of which one that served an earlier test may be gone by now."""
    for number in numbers:
        with suppress(ProcessLookupError):
            os.kill(number, what)


@pytest.mark.parametrize("call", [lambda it: it.read("log/1"), lambda it: it.create("log/2", b"two")])
def test_a_server_that_hangs_is_given_up(
    server: PostgresServer, url: str, call: Callable, caplog: pytest.LogCaptureFixture
):
    objects = open_objects(url, deadline=1.5)
    objects.create("log/1", b"one")
    with stopped(server), pytest.raises(Unavailable, match=r"cannot (read|create) log/. within 1\.5 s"):
        call(objects)
    assert "no answer within 0.5 s" in caplog.text
    assert objects.read("log/1") == b"one"


def test_a_server_that_does_not_let_anyone_in_is_given_up(server: PostgresServer, url: str):
    with stopped(server), pytest.raises(Unavailable, match="cannot connect: connection timeout expired"):
        open_objects(url, deadline=1.0).read("log/1")


def test_a_server_that_is_full_is_tried_again(server: PostgresServer, url: str):
    server.execute(f'ALTER ROLE "{ACCESS}" CONNECTION LIMIT 0')
    try:
        with pytest.raises(Unavailable, match="too many connections"):
            open_objects(url, deadline=0.5).read("log/1")
    finally:
        server.execute(f'ALTER ROLE "{ACCESS}" CONNECTION LIMIT -1')
    assert open_objects(url).read("log/1") is None


def use(objects: Objects, name: str) -> bool:
    """Uses a store for a while; another's reply would be noticed."""
    keys = [f"{name}/{number}" for number in range(200)]
    return all(objects.create(key, key.encode()) and objects.read(key) == key.encode() for key in keys)


def child(objects: Objects, results) -> None:
    results.put(use(objects, "child"))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_it_works_on_in_a_process_forked_from_one_that_used_it(url: str):
    """Airflow's LocalExecutor forks; two processes on one connection would read each other's replies."""
    objects = PostgresObjects(url, 6.0)
    assert use(objects, "before")
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    process = fork.Process(target=child, args=(objects, results))
    process.start()
    assert use(objects, "parent")
    assert results.get(timeout=60)
    process.join()
    assert use(objects, "after")


def test_connections_that_nobody_needed_for_a_while_are_closed(objects: Objects, monkeypatch: pytest.MonkeyPatch):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(objects.read, [f"log/{number}" for number in range(40)]))
    monkeypatch.setattr(connections, "_IDLE", 0.0)
    objects.read("log/1")
    assert len(objects._inner._database._pool[1]._idle) == 1
