"""People are told what came of a study: by real e-mails of a DAG run, and by whatever notifier there is."""

from __future__ import annotations

import asyncio
import email
import json
import socketserver
import threading
from collections.abc import Iterator
from email.message import Message as Mail
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.bases.notifier import BaseNotifier

import tune_tasks as tt
from tests.airflow_home import run
from tests.studies import write_study
from tune_tasks.views.summary import summary, title
from tune_tasks_airflow.notifications import StudyNotifier


class Smtp(socketserver.StreamRequestHandler):
    """The little of SMTP that a client needs to hand a mail over."""

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline():
            if line.upper().startswith(b"DATA"):
                self.wfile.write(b"354 go on\r\n")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.mails.append(email.message_from_bytes(b"".join(lines)))  # type: ignore[attr-defined]
            self.wfile.write(b"250 fine\r\n")


@pytest.fixture
def mails(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Mail]]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Smtp) as server:
        server.mails = []  # type: ignore[attr-defined]
        extra = {"disable_tls": True, "disable_ssl": True}
        place = {"conn_type": "smtp", "host": "127.0.0.1", "port": server.server_address[1], "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(place))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.mails  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


def body(mail: Mail) -> str:
    (part,) = [part for part in mail.walk() if part.get_content_type() == "text/html"]
    return part.get_payload(decode=True).decode()  # type: ignore[union-attr]


def subject(mail: Mail) -> str:
    return str(email.header.make_header(email.header.decode_header(mail["Subject"])))


def test_a_promotion_is_told_by_mail_with_the_best_trial_the_reason_and_the_page(tmp_path, mails):
    done = run("tests", "notified", {"spec": str(write_study(tmp_path))})
    assert set(done.states.values()) == {"success"}
    (mail,) = mails
    study = tt.open_study(tmp_path / "studies" / "small")
    assert subject(mail) == f"[notified] {title(study.state)}"
    text = body(mail)
    assert text.startswith("<pre>best: trial ")
    assert f"x={study.best.params['x']:.4g}" in text
    assert "is the champion: loss " in text
    assert f"study: {study.url}\npage: http://localhost:8080/tune/dags/notified/study?run_id=" in text


def test_a_failure_before_there_is_a_study_is_told_once_with_its_error_and_escaped(tmp_path, mails):
    done = run("tests", "notified", {"spec": str(write_study(tmp_path, sampler="<b>tpp"))})
    assert done.states["search"] == "failed"
    (mail,) = mails
    assert subject(mail) == "[notified] notified.search failed"
    assert "error: ConfigError: sampler.name: &#x27;&lt;b&gt;tpp&#x27; is not allowed" in body(mail)


class Kept(BaseNotifier):
    """A notifier as those of Slack or Apprise are, that keeps what it would send."""

    template_fields = ("text",)

    def __init__(self, text: str = "{{ message.text }}", *, to: list[str], error: Exception | None = None) -> None:
        super().__init__()
        self.text, self.to, self.error = text, to, error

    def notify(self, context: Any) -> None:
        if self.error is not None:
            raise self.error
        self.to.append(self.text)


class KeptAsync(Kept):
    async def async_notify(self, context: Any) -> None:
        self.notify(context)
        self.to.append(threading.current_thread().name)


@pytest.fixture
def study(tmp_path: Path) -> tt.Study:
    return tt.tune(write_study(tmp_path))


def test_several_notifiers_are_told_also_where_one_fails_and_its_error_is_raised(study):
    told: list[str] = []
    send = StudyNotifier([Kept(to=[], error=OSError("no network")), Kept(to=told)], study=study.url)
    with pytest.raises(OSError, match="no network"):
        send({})
    assert told == [f"{summary(study.state)}\nstudy: {study.url}"]


def test_one_notifier_tells_of_two_studies_what_each_is(study, tmp_path):
    told: list[str] = []
    other = tt.open_study(write_study(tmp_path / "other", name="other"))
    kept = Kept("{{ message.title }}", to=told)
    for url in (study.url, other.url):
        StudyNotifier(kept, study=url)({})
    assert told == [title(study.state), title(other.state)]


def test_a_function_is_called_with_the_message_in_its_context(study):
    told: list[Any] = []
    StudyNotifier(lambda context: told.append(context["message"]), study="{{ where }}")({"where": study.url})
    assert (told[0].study, told[0].title) == (study.url, title(study.state))


def test_in_the_triggerer_a_notifier_is_awaited_and_one_that_cannot_be_has_a_thread(study):
    told: list[str] = []

    async def notify() -> None:
        await StudyNotifier([KeptAsync(to=told), Kept(to=told)], study=study.url, context={})

    asyncio.run(notify())
    text = f"{summary(study.state)}\nstudy: {study.url}"
    assert sorted(told) == sorted([text, "MainThread", text])


def test_a_study_that_cannot_be_read_does_not_keep_the_message_from_being_sent(tmp_path):
    told: list[str] = []
    gone = str(tmp_path / "gone")
    instance = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1, log_url="http://airflow/log")
    StudyNotifier(Kept(to=told), study=gone)({"exception": ValueError("broken"), "ti": instance})
    first, second, *_, log = told[0].splitlines()
    assert first == "error: broken"
    assert second == f"{gone}: StudyNotFound"
    assert log == "log: http://airflow/log"


def test_a_task_without_a_study_says_so():
    told: list[str] = []
    StudyNotifier(Kept("{{ message.title }}|{{ message.text }}", to=told))({})
    assert told == ["a task has no study|"]
