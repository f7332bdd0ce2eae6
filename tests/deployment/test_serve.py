"""An endpoint on a real Ray Serve: it answers over HTTP, and whatever a new version does, no request is lost."""

from __future__ import annotations

import json
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

import tune_tasks as tt
from tests.deployment.champions import Load, ask, champion, load, refuse
from tests.deployment.killing import dying
from tests.studies import events
from tune_tasks.cli import main
from tune_tasks.events import Deployed, Deploying
from tune_tasks.store.log import StudyLog

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),  # of Serve's own fields
]


class Served:
    """An endpoint, and the studies whose champions come to it one after another; each is better than all before."""

    def __init__(self, root: Path, port: int) -> None:
        self.root, self.port = root, port
        self.target: dict[str, Any] = {"name": "serve", "port": port, "cpu": 1}
        self.url = f"http://127.0.0.1:{port}/tiny"
        self.weights: dict[str, float] = {}

    def champion(self, weight: float, *, fault: str = "", **deploy: Any) -> tuple[tt.Study, str]:
        """A study whose model is the champion, and its version."""
        loss, section = 1.0 / (1 + len(self.weights)), {"target": self.target, **deploy}
        study = champion(self.root, f"study-{len(self.weights)}", loss, weight, fault=fault, deploy=section)
        version = tt.history(study)[-1].version
        self.weights[version] = weight
        return study, version

    def stable(self) -> str:
        """The version that gets the requests; one is deployed where there is none."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=30) as reply:
                return str(json.loads(reply.read())["stable"])
        except urllib.error.URLError:
            study, version = self.champion(2.0)
            assert tt.deploy(study).deployed
            return version

    def load(self) -> AbstractContextManager[Load]:
        return load(self.url, self.weights)

    def versions(self) -> set[str]:
        """The versions that have an application."""
        from ray import serve

        found = serve.status().applications
        return {name.partition("@")[2].rpartition("-")[0] for name in found if name.startswith("tiny@")}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A Ray of this process, with room for two versions; Serve is started by the first deployment."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        namespace="tests",
    )
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = int(listening.getsockname()[1])
    yield Served(tmp_path_factory.mktemp("served"), port)
    ray.shutdown()


def test_a_port_that_is_taken_is_refused_and_the_next_try_serves(served: Served) -> None:
    from ray import serve

    if serve.status().proxies:
        serve.shutdown()
    study, version = served.champion(2.0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", served.port))
        taken.listen()
        with pytest.raises(tt.ConfigError, match=rf"target\.port: 127\.0\.0\.1:{served.port} cannot be used"):
            tt.deploy(study)
        assert not serve.status().proxies  # it would take the port as soon as that is free
    deployment = tt.deploy(study)
    assert (deployment.deployed, deployment.version) == (True, version)
    assert ask(deployment.url, [1, 2.5]) == ([2.0, 5.0], version)
    told = [event for event in events(study.url) if isinstance(event, Deploying | Deployed)]
    assert [(event.type, event.key) for event in told] == [
        ("deploying", "main/deploy/0"),
        ("deployed", "main/deploy/0"),
    ]


def test_another_port_than_that_of_the_serve_that_runs_is_refused_and_the_version_before_serves(served: Served) -> None:
    stable = served.stable()
    study, _ = served.champion(3.0, target={**served.target, "port": served.port + 1})
    with pytest.raises(tt.ConfigError, match=f"Serve runs at 127.0.0.1:{served.port} already"):
        tt.deploy(study)
    assert ask(served.url, [1])[1] == stable


def test_an_endpoint_answers_says_how_it_is_and_goes(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    served.stable()
    study, version = served.champion(2.0)
    assert main(["deploy", study.url]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["study"], told["deployed"], told["changed"], told["url"]) == (study.url, True, True, served.url)
    with urllib.request.urlopen(f"{served.url}/health") as reply:
        assert json.loads(reply.read()) == {"name": "tiny", "stable": version, "canary": None, "share": 0.0}
    for body, status in ((b"{", 400), (b"3", 500)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(served.url, data=body, method="POST"))
        assert refused.value.code == status
    study.refresh()
    position = study.log.head
    again = tt.deploy(study)
    assert (again.deployed, again.changed, again.reason) == (True, False, f"version {version} is there already")
    assert study.log.head == position
    gone = tt.undeploy(study)
    assert (gone.deployed, gone.changed, gone.version, gone.previous) == (False, True, None, version)
    with pytest.raises(urllib.error.HTTPError):
        ask(served.url, [1])
    assert not tt.undeploy(study).changed
    assert tt.deploy(study).changed  # what was taken away is brought again
    assert ask(served.url, [1]) == ([2.0], version)


def test_a_canary_that_fails_its_check_goes_while_requests_run_and_none_is_lost(served: Served) -> None:
    before = served.stable()
    section = {"share": 0.25, "time": 30, "check": "serving:check"}
    study, version = served.champion(5.0, canary=section)
    refuse(served.root, weight=5.0, after=3)
    with served.load() as running:
        deployment = tt.deploy(study)
    assert running.lost == []
    assert running.by[before] > running.by[version] > 0  # it had its share, and its answers were right
    assert running.last == before
    assert (deployment.deployed, deployment.version, deployment.previous) == (False, before, before)
    assert f"version {version} failed its check: deploy.canary.check raised AssertionError: its answer is 5.0" in (
        deployment.reason
    )
    assert deployment.reason.endswith(f"the champion is version {before} again")
    last = tt.history(study)[-1]
    assert (last.version, last.by, last.who) == (before, "rollback", "deploy")
    assert served.versions() == {before}
    assert tt.deploy(study).reason == f"version {before} is there already"


@pytest.mark.parametrize("fault", ["raises", "dies"])
def test_a_request_that_a_canary_fails_is_answered_by_the_version_before(served: Served, fault: str) -> None:
    before = served.stable()
    study, version = served.champion(5.0, fault=fault, canary={"share": 0.25, "time": 30})
    with served.load() as running:
        deployment = tt.deploy(study)
    assert running.lost == []
    assert version not in running.by
    assert (deployment.deployed, deployment.version) == (False, before)
    assert "requests failed" in deployment.reason
    assert 0 < deployment.errors <= deployment.requests
    assert tt.history(study)[-1].version == before
    assert served.versions() == {before}


def test_a_version_that_does_not_load_gets_no_request_and_without_rollback_the_alias_stays(served: Served) -> None:
    before = served.stable()
    study, version = served.champion(5.0, fault="does not load", rollback=False)
    deployment = tt.deploy(study)
    assert not deployment.deployed
    assert "another format" in deployment.reason
    assert ask(served.url, [1])[1] == before
    assert tt.history(study)[-1].version == version
    assert served.versions() == {before}


def test_a_canary_that_passes_takes_over_while_requests_run_and_none_is_lost(served: Served) -> None:
    before = served.stable()
    study, version = served.champion(5.0, canary={"share": 0.25, "time": 2})
    with served.load() as running:
        deployment = tt.deploy(study)
    assert running.lost == []
    assert running.last == version
    assert (deployment.deployed, deployment.version, deployment.previous) == (True, version, before)
    assert 0 < deployment.requests < running.by[before]
    assert f"0 of its {deployment.requests} requests failed" in deployment.reason
    assert served.versions() == {version}


def test_a_deployment_that_is_killed_at_each_write_is_gone_on_with_and_no_request_is_lost(served: Served) -> None:
    from ray import serve

    served.stable()
    study, version = served.champion(7.0, canary={"share": 0.25, "time": 0.3})
    writes: list[tuple[Any, str]] = [(serve, "run_many"), (serve, "delete"), (StudyLog, "commit")]
    # It dies before its intent, the new version, its share, the switch (twice), the old one's end, and the result.
    with served.load() as running:
        for allowed in (0, 1, 1, 2, 2, 3, 2):
            with dying(writes, allowed) as process:
                tt.deploy(tt.open_study(study.url))
            assert process.dead
        deployment = tt.deploy(tt.open_study(study.url))
    assert running.lost == []
    assert (deployment.deployed, deployment.version) == (True, version)
    assert ask(served.url, [1]) == ([7.0], version)
    assert served.versions() == {version}
    told = [event.type for event in events(study.url) if isinstance(event, Deploying | Deployed)]
    assert told == ["deploying", "deployed"]
