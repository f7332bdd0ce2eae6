"""Champions for the tests of deployments: tiny studies whose models do what a test wants, and who asks an endpoint."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tune_tasks as tt

OBJECTIVE = '''
import json, os
from pathlib import Path

import tune_tasks as tt

HERE = Path(__file__).parent


def train(config):
    folder = tt.get_context().folder
    (folder / "model.json").write_text(json.dumps(config))
    tt.report({"loss": config["loss"]}, checkpoint=folder)


class Model:
    def __init__(self, config):
        self.weight, self.fault = config["weight"], config["fault"]

    def predict(self, rows):
        if self.fault == "raises" and rows != [0]:
            raise RuntimeError("no such pixel")
        if self.fault == "dies" and rows != [0]:
            os._exit(1)
        return [self.weight * row for row in rows]


def load(folder):
    config = json.loads((Path(folder) / "model.json").read_text())
    if config["fault"] == "does not load":
        raise ValueError("another format")
    return Model(config)


def example():
    return [0]


def check(predict):
    """Passes a few times, then says no to a model of the weight that the test names."""
    refused = json.loads((HERE / "refused.json").read_text())
    count = (HERE / "count").stat().st_size if (HERE / "count").exists() else 0
    with (HERE / "count").open("a") as file:
        file.write("x")
    if predict([1]) == [refused["weight"]] and count >= refused["after"]:
        raise AssertionError(f"its answer is {refused['weight']}, which is wrong")
'''


def champion(
    root: Path, name: str, loss: float, weight: float, *, fault: str = "", store: str | None = None, **spec: Any
) -> tt.Study:
    """A study that has promoted its model: it multiplies by `weight`, and beats those of a greater `loss`."""
    code = root / "code"
    code.mkdir(parents=True, exist_ok=True)
    (code / "serving.py").write_text(OBJECTIVE)
    promotion = {
        "registry": "none",
        "model": "tiny",
        "owner": "tests",
        "loader": "serving:load",
        "example": "serving:example",
        **spec.pop("promotion", {}),
    }
    constants = {"loss": loss, "weight": weight, "fault": fault}
    given = {
        "name": name,
        "store": store or str(root / "studies"),
        "objective": "serving:train",
        "metric": "loss",
        "mode": "min",
        "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}}
        | {key: {"type": "constant", "value": value} for key, value in constants.items()},
        "sampler": "random",
        "scheduler": "none",
        "budget": {"trials": 1},
        "execution": {"runner": "inline"},
        "promotion": promotion,
        **spec,
    }
    path = code / f"{name}.json"
    path.write_text(json.dumps(given))
    study = tt.tune(path)
    assert tt.promote_best(study).promoted
    return study


def refuse(root: Path, weight: float, after: int) -> None:
    """From now on the check refuses a model of this weight, after it has passed so many times."""
    (root / "code" / "refused.json").write_text(json.dumps({"weight": weight, "after": after}))
    (root / "code" / "count").unlink(missing_ok=True)


def ask(url: str, rows: Any) -> tuple[Any, str]:
    """What an endpoint predicts, and the version that did."""
    request = urllib.request.Request(url, data=json.dumps(rows).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.loads(reply.read()), reply.headers["x-model-version"]


LOAD = """
import http.client, json, sys, threading
host, port, path, weights = sys.argv[1], int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
stop, told = threading.Event(), {"sent": 0, "lost": [], "by": {}, "last": None}
lock = threading.Lock()

def work(number):
    while not stop.is_set():
        row = number + 1
        try:
            connection = http.client.HTTPConnection(host, port, timeout=60)
            connection.request("POST", path, json.dumps([row]))
            reply = connection.getresponse()
            body, version = reply.read().decode(), reply.headers["x-model-version"]
            connection.close()
            right = reply.status == 200 and json.loads(body) == [weights[version] * row]
            wrong = None if right else f"{reply.status} {version} {body}"
        except Exception as error:
            version, wrong = None, repr(error)
        with lock:
            told["sent"] += 1
            told["last"] = version
            told["by"][version] = told["by"].get(version, 0) + 1
            if wrong:
                told["lost"].append(wrong)

threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
for thread in threads:
    thread.start()
print("ready", flush=True)
sys.stdin.read()
stop.set()
for thread in threads:
    thread.join()
print(json.dumps(told))
"""


class Load:
    """A second process that asks an endpoint without a pause, three at once, and counts what it gets."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.sent = 0
        self.lost: list[str] = []
        self.by: dict[str, int] = {}
        self.last = ""

    def stop(self) -> None:
        """Ends it, when each request has its answer, and reads the counts."""
        out, _ = self._process.communicate(timeout=90)
        told = json.loads(out.splitlines()[-1])
        self.sent, self.lost, self.by, self.last = told["sent"], told["lost"], told["by"], told["last"]


@contextmanager
def load(url: str, weights: dict[str, float]) -> Iterator[Load]:
    """Runs the load; `weights` of each version say what is a right answer. The counts are there afterwards."""
    place, _, path = url.removeprefix("http://").partition("/")
    host, _, port = place.partition(":")
    command = [sys.executable, "-c", LOAD, host, port, f"/{path}", json.dumps(weights)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        running = Load(process)
        yield running
        time.sleep(0.5)  # some more, of what was decided last
        running.stop()
    finally:
        process.kill()
        process.wait()
