"""From a shell: results on stdout, the error's class as exit code, no traceback, no secret; and `head` may hang up."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.servers import SECRET
from tests.studies import COMMAND, SPEC, write_study
from tune_tasks.cli import main
from tune_tasks.events import Judged
from tune_tasks.operate import check_study, read_events
from tune_tasks.store import open_objects
from tune_tasks.store.segment import segment_key

COMMANDS = {"fsck": [], "log": [], "export": ["--to", "memory://tables"], "copy": ["memory://elsewhere"], "gc": []}


def tune_tasks(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([*map(str, arguments)]) == 0
    return capsys.readouterr().out


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    return json.loads(told(capsys, *arguments, "--json"))


def test_fsck_says_that_a_study_is_sound(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "fsck", study)
    assert text.splitlines()[-1] == "sound: nothing recorded is lost"
    assert "6 trials, done" in text
    result = answer(capsys, "fsck", study)
    assert (result["sound"], result["findings"], result["study"]) == (True, [], check_study(study).study)


def test_fsck_says_what_is_broken_and_what_to_do(study: Path) -> None:
    (study / segment_key(4)).write_bytes(b"x")
    (study / "notes.txt").write_text("mine")
    done = tune_tasks("fsck", study)
    assert done.returncode == 5
    assert "Traceback" not in done.stderr
    assert "error    log/000000000004.jsonl does not begin with the header" in done.stdout
    assert "→ bring the object back" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("broken: see above (1 error, 1 note)")
    result = json.loads(tune_tasks("fsck", study, "--json").stdout)
    assert [finding["key"] for finding in result["findings"]] == [segment_key(4), "notes.txt"]


def test_fsck_counts_many_notes_of_one_kind(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(30):
        (study / f"note-{number:02d}.txt").write_text("mine")
    text = told(capsys, "fsck", study, "--no-data")
    assert "and 25 more like these" in text
    assert "not read through" in text
    assert len(answer(capsys, "fsck", study)["findings"]) == 30


def test_the_log_has_a_line_for_each_event(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(capsys, "log", study).splitlines()
    records = list(read_events(study))
    assert len(lines) == len(records)
    assert re.fullmatch(r" +1  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d  step       created       study small: .*", lines[0])
    assert any("driver 1" in line and " started " in line for line in lines)


def test_the_log_is_filtered(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = told(capsys, "log", study, "--type", "judged", "--type", "opened", "--from", 3, "--last", 2).splitlines()
    assert len(chosen) == 2
    wanted = [*read_events(study, types=["judged", "opened"], start=3)][-2:]
    assert [int(line.split()[0]) for line in chosen] == [record.segment for record in wanted]
    assert told(capsys, "log", study, "--trial", 2).count("trial 2") > 3


def test_the_log_as_json_is_one_object_a_line(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(capsys, "log", study, "--json").splitlines()
    for line, record in zip(lines, read_events(study), strict=True):
        about = json.loads(line)
        assert about == json.loads(json.dumps(record.to_dict()))
        assert {"segment", "writer", "epoch", "time", "type", "event"} <= {*about}


def test_a_filter_that_matches_nothing_says_so_on_stderr(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", str(study), "--trial", "99"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, "No event" in captured.err) == ("", True)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_whoever_reads_the_log_may_hang_up(made: Path, options: list[str]) -> None:
    reader = subprocess.Popen(
        [*COMMAND, "log", str(made), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert reader.stdout
    assert reader.stdout.readline()
    reader.stdout.close()
    assert reader.stderr
    assert reader.stderr.read() == ""
    assert reader.wait(timeout=60) == 0


def test_following_shows_what_is_committed_and_ends_with_ctrl_c(study: Path) -> None:
    done = next(r.segment for r in read_events(study, types=["judged"]) if isinstance(r.event, Judged) and r.event.done)
    late = study / segment_key(done - 1)
    body = late.read_bytes()
    for path in [*(study / "snap").iterdir(), study / "HEAD.json", *sorted((study / "log").iterdir())[done - 2 :]]:
        path.unlink()
    follower = subprocess.Popen(
        [*COMMAND, "log", str(study), "--follow", "--from", str(done - 2)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what it runs in the background deaf to Ctrl-C, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # there is one thread here
    )
    assert follower.stdout
    line = follower.stdout.readline()
    assert int(line.split()[0]) == done - 2
    assert open_objects(str(study)).create(segment_key(done - 1), body)
    while int(line.split()[0]) < done - 1:
        line = follower.stdout.readline()
    follower.send_signal(signal.SIGINT)
    _, errors = follower.communicate(timeout=60)
    assert (follower.returncode, "Traceback" in errors) == (130, False)


def test_export_says_where_the_tables_are(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "export", study, "--to", tmp_path / "tables", "--format", "csv")
    assert f"wrote    {tmp_path / 'tables' / 'trials.csv'}: 6 rows" in text
    files = answer(capsys, "export", study, "--to", tmp_path / "tables")["files"]
    assert [Path(file["url"]).suffix for file in files] == [".parquet"] * 3


def test_copy_says_what_was_sent_and_what_must_not_be_done(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = told(capsys, "copy", study, tmp_path / "elsewhere")
    assert "never drive both under one registry" in text
    assert "nothing: the copy was complete" in told(capsys, "copy", study, tmp_path / "elsewhere")
    assert answer(capsys, "copy", study, tmp_path / "elsewhere")["sent"] == 0
    with pytest.raises(SystemExit):
        main(["copy", "--help"])
    assert "never drive both under one" in " ".join(capsys.readouterr().out.split())


def test_gc_says_what_it_removed_and_what_it_left(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects = open_objects(str(study))
    probe = f"probe/{uuid4().hex}"
    for key in (probe, "notes.txt"):
        objects.create(key, b"12345")
    text = told(capsys, "gc", study)
    assert "removed      nothing" in text
    assert "1 that nothing names, not older than 24h00m" in text
    assert "notes.txt: nothing that tune_tasks writes" in text
    assert "would remove 1 probe, 5 B" in told(capsys, "gc", study, "--grace", "0", "--dry-run")
    result = answer(capsys, "gc", study, "--grace", "0s")
    assert [removal["key"] for removal in result["removals"]] == [probe]
    assert (result["size"], result["unknown"]) == (5, ["notes.txt"])


@pytest.mark.parametrize("grace", ["1 day", "-5h", "soon", "nan"])
def test_a_grace_period_that_is_no_duration_is_refused(study: Path, grace: str, capsys: Any) -> None:
    assert main(["gc", str(study), f"--grace={grace}"]) == 2
    assert "--grace" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_a_study_that_is_not_there_is_exit_code_3_and_nothing_is_made(tmp_path: Path, command: str) -> None:
    done = tune_tasks(command, tmp_path / "nothing", *COMMANDS[command], cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert "there is no study here" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["log", "export", "copy", "gc"])
def test_a_newer_format_is_exit_code_5_and_says_what_can_read_it(study: Path, tmp_path: Path, command: str) -> None:
    for path in [*(study / "snap").iterdir(), study / "HEAD.json"]:
        path.unlink()
    first = study / segment_key(1)
    first.write_bytes(first.read_bytes().replace(b'"format":1', b'"format":7', 1))
    done = tune_tasks(command, study, *COMMANDS[command], cwd=tmp_path)
    assert done.returncode == 5
    assert "has format 7" in done.stderr
    assert "a newer one" in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_url_that_cannot_be_a_studys_is_exit_code_2_and_its_secret_is_not_shown(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in (f"s3://user:{SECRET}@bucket/..", f"s4://user:{SECRET}@bucket/small"):
        assert main([command, place, *COMMANDS[command]]) == 2
        captured = capsys.readouterr()
        assert SECRET not in captured.out + captured.err
        assert "bucket" in captured.err


@pytest.mark.s3
def test_a_password_in_a_url_is_used_and_never_shown(
    s3: str, study: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    place = f"s3://{os.environ['AWS_ACCESS_KEY_ID']}:{secret}@{s3.removeprefix('s3://')}"
    objects = open_objects(s3)
    assert objects.list("") == []  # it is open, before its key and its secret are gone from the environment
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "")
    tables = str(tmp_path / "tables")
    for arguments in (
        ["copy", str(study), place],
        ["fsck", place],
        ["fsck", place, "--json"],
        ["log", place],
        ["gc", place, "--json"],
        ["export", str(study), "--to", f"{place}-tables"],
        ["export", place, "--to", tables, "--format", "csv"],
    ):
        assert main(["-v", *arguments]) == 0
    objects.replace(segment_key(4), b"x")
    for key in [*objects.list("snap/"), "HEAD.json"]:
        objects.delete(key)
    for command, options in COMMANDS.items():
        assert main(["-v", command, place, *options]) == 5
    captured = capfd.readouterr()
    assert s3 in captured.out
    assert secret not in captured.out + captured.err
    for path in Path(tables).iterdir():
        assert secret not in path.read_text(encoding="utf-8")
    assert all(secret.encode() not in (objects.read(key) or b"") for key in objects.list(""))


def test_a_spec_file_names_its_study_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write_study(tmp_path, **{**SPEC, "budget": {"trials": 1}, "store": str(tmp_path / "studies")})
    assert main(["sample", str(spec)]) == 0
    capsys.readouterr()
    assert str(tmp_path / "studies" / "small") in told(capsys, "fsck", spec)


def test_on_a_terminal_colours_and_elsewhere_none(study: Path) -> None:
    leader, follower = pty.openpty()
    with subprocess.Popen([*COMMAND, "log", str(study), "--last", "1"], stdout=follower, stderr=follower) as process:
        process.wait(timeout=60)
    os.close(follower)
    shown = os.read(leader, 4096)
    os.close(leader)
    assert b"\x1b[" in shown
    assert (
        b"\x1b["
        not in subprocess.run([*COMMAND, "log", str(study), "--last", "1"], capture_output=True, check=True).stdout
    )
