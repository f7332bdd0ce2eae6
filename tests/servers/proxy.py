"""A network that fails as a test says: a proxy between a store's client and a real server.

Each request is read whole, then it meets the first rule that fits it, or goes through. The server never sees half a
request; what the client sees of the reply is up to the rule. Every request is noted with what was done to it.
"""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

HOP_BY_HOP = {"connection", "content-length", "expect", "transfer-encoding"}


@dataclass
class Rule:
    """What happens to the next `times` requests of a method whose path has `part` in it.

    `reset` and `hang`: the server gets nothing. `reset after` and `hang after`: it has done what was asked, and the
    reply does not come. `truncated`: half of the reply's body, then the end. `slow`: the body in ten pieces over a
    second. `503 SlowDown` and the like: that status and code, and the server is not asked; `500 InternalError after`:
    that instead of its reply.
    """

    fault: str
    method: str = ""
    part: str = ""
    times: float = 1

    def fits(self, method: str, path: str) -> bool:
        return self.times > 0 and method.startswith(self.method) and self.part in path


@dataclass(frozen=True)
class Exchange:
    """A request, the bytes of its body, what was done to it, and the status and bytes that went back; 0 where none."""

    method: str
    path: str
    size: int
    fault: str
    status: int
    sent: int


class Proxy(ThreadingHTTPServer):
    """Answers at `url` for a server of this package; `rules` and `exchanges` may be read and set at any time."""

    daemon_threads = True

    def __init__(self, server: Any) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = server
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.rules: list[Rule] = []
        self.exchanges: list[Exchange] = []
        self.ended = threading.Event()
        self._lock = threading.Lock()

    @property
    def way(self) -> Any:
        """The server as a client knows it that goes through here."""
        return replace(self.behind, url=self.url)

    def fail(self, fault: str, method: str = "", part: str = "", times: float = 1) -> None:
        """Adds a rule behind those that there are."""
        self.rules.append(Rule(fault, method, part, times))

    def heal(self) -> None:
        """Lets everything through again; what hangs goes on hanging."""
        self.rules = []

    def met(self, method: str, part: str = "") -> list[Exchange]:
        """The requests of a method whose path has a part in it, in order."""
        return [seen for seen in self.exchanges if seen.method == method and part in seen.path]

    def fault_of(self, method: str, path: str) -> str:
        """What is to happen to a request; "" for nothing."""
        with self._lock:
            for rule in self.rules:
                if rule.fits(method, path):
                    rule.times -= 1
                    return rule.fault
        return ""


@contextmanager
def proxied(server: Any) -> Iterator[Proxy]:
    """Runs a proxy in threads of this process for as long as the block lasts."""
    proxy = Proxy(server)
    thread = threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.ended.set()
        proxy.shutdown()
        proxy.server_close()


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    length: int


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    def do_HEAD(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def _handle(self) -> None:
        body = self._body()
        fault = self.server.fault_of(self.command, self.path)
        try:
            answer = self._answer(body, fault)
        except OSError:  # nobody is there: for the client that is a reset
            fault = fault or "reset"
            answer = None
        status, sent = (answer.status, len(answer.body)) if answer else (0, 0)
        self.server.exchanges.append(Exchange(self.command, self.path, len(body), fault, status, sent))
        if answer:
            with suppress(OSError):  # the client went away
                self._reply(answer, fault)
        elif fault.startswith("hang"):
            self._hang()
        else:
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _answer(self, body: bytes, fault: str) -> _Answer | None:
        """What goes back to the client, after the server was asked where the fault lets it be."""
        match fault.split():
            case ["reset" | "hang"]:
                return None
            case ["reset" | "hang", "after"]:
                self._ask(body)
                return None
            case [status, code, *after] if status.isdigit():
                if after:
                    self._ask(body)
                error = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
                return _Answer(int(status), [("Content-Type", "application/xml")], error, len(error))
            case _:
                return self._ask(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _ask(self, body: bytes) -> _Answer:
        """Sends the request on as it is, signature and all."""
        connection = http.client.HTTPConnection(urlsplit(self.server.behind.url).netloc, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in HOP_BY_HOP:
                    connection.putheader(name, value)
            if body or self.command in {"PUT", "POST"}:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            reply = connection.getresponse()
            data, told = reply.read(), reply.getheader("Content-Length")
            length = int(told) if self.command == "HEAD" and told else len(data)
            return _Answer(reply.status, reply.getheaders(), data, length)
        finally:
            connection.close()

    def _reply(self, answer: _Answer, fault: str) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(answer.length))
        self.end_headers()
        body = answer.body
        if fault == "truncated":
            body = body[: len(body) // 2]
            self.close_connection = True
        pieces = 10 if fault == "slow" else 1
        step = max(1, -(-len(body) // pieces))
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            time.sleep(1 / pieces if pieces > 1 else 0)

    def _hang(self) -> None:
        """Says nothing for as long as the proxy runs, or until the client has had enough of it."""
        self.close_connection = True
        self.connection.settimeout(0.1)
        while not self.server.ended.is_set():
            try:
                if not self.connection.recv(1):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
