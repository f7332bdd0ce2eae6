"""Commands as objectives: real scripts in real processes, on the inline runner, and on a real local Ray."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tune_tasks.command import Command
from tune_tasks.errors import ConfigError
from tune_tasks.execution import Message, Row, Saved, TrialTask, command, process
from tune_tasks.execution.inline import InlineRunner
from tune_tasks.execution.ray import RayRunner
from tune_tasks.session import Context
from tune_tasks.spec import StudySpec, load_spec
from tune_tasks.testing.driving import DEADLINE, Story, read_log, spec_for, task

PRINT = "printf '{\"loss\": %s}\\n' "


def python(*words: str) -> list[str]:
    return [sys.executable, *words]


def spec(written: Any, **changes: Any) -> StudySpec:
    return spec_for(None, command=written, **changes)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "study")


@pytest.fixture
def start(url: str, tmp_path: Path) -> Callable[..., Story]:
    """Makes a runner for a command in the folder of the test; a text is a shell script there."""

    def start(written: Any, on_message: Callable[[Message], None] = lambda _: None, **changes: Any) -> Story:
        if isinstance(written, str):
            script(tmp_path / "run.sh", written)
            written = "./run.sh"
        return Story(InlineRunner(url, spec(written, **changes), None, str(tmp_path)), on_message)

    return start


def script(path: Path, text: str, interpreter: str = "/bin/sh") -> None:
    path.write_text(f"#!{interpreter}\n{textwrap.dedent(text)}")
    path.chmod(0o755)


def losses(story: Story, attempt: int = 1) -> list[float]:
    return [row.metrics["loss"] for row in story.of(Row, 0, attempt)]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_for(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_python_script_that_knows_nothing_of_us_is_tuned(start: Any, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        textwrap.dedent("""
        import argparse, json
        parser = argparse.ArgumentParser()
        parser.add_argument("--lr", type=float)
        parser.add_argument("--name")
        given = parser.parse_args()
        print("training", given.name)
        for epoch in range(3):
            print(json.dumps({"loss": given.lr * epoch, "epoch": epoch, "note": "text is left out", "more": None}))
        print({"loss": 1}, '{"other": 1}', "{broken")
        """)
    )
    story = start(
        {"run": f"{sys.executable} train.py --lr {{x}} --name '{{group.name}}, {{{{ and }}}}'"},
        space={"x": {"type": "float", "low": 0, "high": 1}, "group": {"name": "a constant"}},
    )
    story.run(task(x=0.1 + 0.2, group={"name": "two words"}))
    assert story.over()[2:5] == ("returned", None, None)
    assert [row.metrics for row in story.of(Row)] == [
        {"loss": (0.1 + 0.2) * epoch, "epoch": epoch} for epoch in (0, 1, 2)
    ]
    assert "training two words, { and }\n" in read_log(str(tmp_path / "study"), 0)


@pytest.mark.parametrize("value", [1e-5, 0.1 + 0.2, 1e300, 5e-324, 3, True, None, "a b", "", "{x}", "-", [1, "a"]])
def test_a_value_reaches_the_command_as_it_is(start: Any, tmp_path: Path, value: Any) -> None:
    (tmp_path / "show.py").write_text("import json, sys\nopen('given', 'w').write(json.dumps(sys.argv[1:]))")
    start([*python("show.py"), "{x}", "<{x}>"]).run(task(x=value))
    plain, inside = json.loads((tmp_path / "given").read_text())
    assert inside == f"<{plain}>"
    assert plain == value if isinstance(value, str) else json.loads(plain) == value


def test_a_parameter_that_does_not_exist_here_is_an_empty_text(start: Any, tmp_path: Path) -> None:
    space = {
        "kind": {"type": "categorical", "choices": ["a", "b"]},
        "depth": {"type": "int", "low": 1, "high": 3, "when": {"kind": "b"}},
    }
    (tmp_path / "show.sh").write_text('printf "%s," "$#" "$@" > given')
    start(["sh", "show.sh", "{kind}", "--depth={depth}"], space=space).run(task(kind="a"))
    assert (tmp_path / "given").read_text() == "2,a,--depth=,"


def test_the_command_is_told_about_its_attempt(start: Any, tmp_path: Path) -> None:
    story = start('env > told; pwd > here; ls -A "$TUNE_TASKS_FOLDER" > empty; ' + PRINT + "1")
    story.run(TrialTask(4, 2, {"x": 0.5, "net": {"layers": 2}}, 3, None))
    assert story.over(4, 2).outcome == "returned"
    told = dict(line.split("=", 1) for line in (tmp_path / "told").read_text().splitlines() if line[:5] == "TUNE_")
    folder = told.pop("TUNE_TASKS_FOLDER")
    assert json.loads(told.pop("TUNE_TASKS_CONFIG")) == {"x": 0.5, "net": {"layers": 2}}
    assert told == {
        "TUNE_TASKS_STUDY": "contract",
        "TUNE_TASKS_TRIAL": "4",
        "TUNE_TASKS_ATTEMPT": "2",
        "TUNE_TASKS_BUDGET": "3",
        "TUNE_TASKS_MAX_BUDGET": "9",
    }
    assert (tmp_path / "here").read_text() == f"{tmp_path}\n"
    assert (tmp_path / "empty").read_text() == ""
    assert not Path(folder).exists(), "its folder goes with the attempt"


def test_what_has_no_value_is_not_told(start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_TASKS_CHECKPOINT", "of someone else")
    start("env > told; " + PRINT + "1", scheduler="none").run(task())
    told = (tmp_path / "told").read_text()
    assert not any(f"TUNE_TASKS_{name}=" in told for name in ("BUDGET", "MAX_BUDGET", "CHECKPOINT", "METRICS"))


def test_variables_are_placeholders_too(start: Any, tmp_path: Path) -> None:
    (tmp_path / "show.sh").write_text('echo "$1 $TUNE_TASKS_FOLDER/out" > given')
    start(["sh", "show.sh", "{TUNE_TASKS_FOLDER}/out"]).run(task())
    one, other = (tmp_path / "given").read_text().split()
    assert one == other


def test_reports_are_found_by_a_pattern(start: Any, tmp_path: Path) -> None:
    script(tmp_path / "own.sh", r'printf "loss=0.5 acc=0.1\r50%%\rloss=2e-3\n"; echo "no loss"; printf "loss=7 acc=1"')
    story = start({"run": ["./own.sh"], "pattern": r"loss=(?P<loss>\S+)(?: acc=(?P<acc>\S+))?"})
    story.run(task())
    rows = [row.metrics for row in story.of(Row)]
    assert rows == [{"loss": 0.5, "acc": 0.1}, {"loss": 0.002}, {"loss": 7.0, "acc": 1.0}]


def test_what_a_pattern_finds_must_be_a_number(start: Any, tmp_path: Path) -> None:
    script(tmp_path / "own.sh", "echo loss=low; sleep 60")
    story = start({"run": ["./own.sh"], "pattern": r"loss=(?P<loss>\S+)"})
    story.run(task())
    assert (story.over().outcome, story.over().kind) == ("failed", "MetricError")
    assert story.over().error == "report 1: metric 'loss' is 'low', must be a finite number"


def test_reports_are_found_in_a_file(start: Any, tmp_path: Path) -> None:
    script(
        tmp_path / "own.sh",
        """
        echo '{"loss": 9}'
        cd "$TUNE_TASKS_FOLDER"
        printf '{"loss": 1}\\n\\n{"lo' >> metrics.jsonl
        sleep 0.3
        printf 'ss": 2}\\n{"loss": 3}' >> "$TUNE_TASKS_METRICS"
        """,
    )
    story = start({"run": ["./own.sh"], "metrics": "metrics.jsonl"})
    story.run(task())
    assert losses(story) == [1, 2, 3]


def test_a_report_is_made_while_the_command_runs(start: Any, tmp_path: Path) -> None:
    """In a file too: the command goes on only when its report was heard."""
    for how in ("", '>> "$TUNE_TASKS_METRICS"'):
        (tmp_path / "heard").unlink(missing_ok=True)
        script(tmp_path / "own.sh", f"{PRINT} 1 {how}\nwhile ! [ -e heard ]; do sleep 0.01; done\n{PRINT} 2 {how}")
        written = {"run": ["./own.sh"], **({"metrics": "m"} if how else {})}
        story = start(written, lambda message: isinstance(message, Row) and (tmp_path / "heard").touch())
        story.run(task())
        assert losses(story) == [1, 2]


def test_a_line_of_a_file_that_is_no_report_fails_the_trial(start: Any, tmp_path: Path) -> None:
    script(tmp_path / "own.sh", 'printf \'{"loss": 1}\\nloss: 2\\n\' > "$TUNE_TASKS_METRICS"; sleep 60')
    story = start({"run": ["./own.sh"], "metrics": "m.jsonl"})
    story.run(task())
    assert losses(story) == [1]
    assert story.over().error == "m.jsonl, line 2: 'loss: 2' is not a JSON object"


def test_a_checkpoint_is_reported_and_gone_on_from(start: Any, tmp_path: Path) -> None:
    text = """
    step=0
    [ -n "$TUNE_TASKS_CHECKPOINT" ] && step=$(cat "$TUNE_TASKS_CHECKPOINT/step")
    cd "$TUNE_TASKS_FOLDER"
    while [ $step -lt 5 ]; do
        step=$((step + 1))
        mkdir $step; echo $step > $step/step
        echo "{\\"loss\\": $step, \\"checkpoint\\": \\"$step\\"}"
    done
    """
    story = start(text)
    story.run(TrialTask(0, 1, {}, 3, None))
    assert story.over().outcome == "reached"
    saved = story.of(Saved)[-1]
    assert saved.step == 3
    story.run(TrialTask(0, 2, {}, None, (3, saved.checkpoint)))
    assert losses(story, 2) == [4, 5]
    assert story.steps(0, 2) == [4, 5]
    last = story.of(Saved, 0, 2)[-1]
    story.run(TrialTask(0, 3, {}, 9, (5, last.checkpoint)))
    assert story.over(0, 3)[2:4] == ("returned", None), "it had nothing left to do"


@pytest.mark.parametrize("deaf", [False, True])
def test_a_stop_ends_the_command_and_its_children(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaf: bool
) -> None:
    monkeypatch.setattr(process, "GRACE", 0.5)
    story = start(
        f"""
        {"trap '' TERM" if deaf else "trap 'echo ended > how; exit' TERM"}
        (echo $$ > one; exec sleep 600) &
        (sleep 600; echo) | (sleep 600; echo) &
        ps -o pid= -g $$ > pids || pgrep -g $$ > pids
        {PRINT} 1; {PRINT} 2
        yes to a full pipe >&2 &
        while true; do sleep 0.05; done
        """,
    )
    story.run(TrialTask(0, 1, {}, 2, None))
    assert story.over()[2:4] == ("reached", None)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) >= 4
    wait_for(lambda: all(gone(pid) for pid in pids))
    assert (tmp_path / "how").exists() is not deaf, "it may clean up, unless it does not listen"


def test_what_a_command_leaves_behind_ends_with_it(start: Any, tmp_path: Path) -> None:
    story = start("sleep 600 & echo $! > pid; " + PRINT + "1")
    story.run(task())
    assert story.over().outcome == "returned"
    wait_for(lambda: gone(int((tmp_path / "pid").read_text())))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises, also where whoever started the tests has it ignored, as a shell does for its background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_exception_in_the_runners_thread_ends_the_command(start: Any, tmp_path: Path, interruptible: None) -> None:
    story = start('echo $$ > pid; sleep 0.5; kill -INT "$PPID"; sleep 600')
    with pytest.raises(KeyboardInterrupt):
        story.run(task())
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_command_does_not_outlive_a_worker_that_is_killed(tmp_path: Path) -> None:
    program = """
    import sys
    from pathlib import Path
    from tune_tasks.execution.process import Running
    with Running(["sh", "-c", "sleep 600 & echo $! > pid; wait"], Path(sys.argv[1]), {}) as running:
        while True:
            list(running.read(1))
    """
    worker = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program), str(tmp_path)])
    pid = tmp_path / "pid"
    wait_for(lambda: pid.exists() and pid.read_text().endswith("\n"))
    worker.kill()
    worker.wait()
    wait_for(lambda: gone(int(pid.read_text())))


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        ("echo the sky fell >&2; exit 3", "the command exited with code 3; the end of its stderr:\nthe sky fell"),
        ("kill -SEGV $$", "the command was ended by SIGSEGV; its stderr is empty"),
        ("seq 100000 >&2; exit 1", "the command exited with code 1; the end of its stderr:\n99981\n"),
    ],
)
def test_an_exit_code_fails_the_trial_with_the_last_of_its_stderr(start: Any, ending: str, told: str) -> None:
    story = start(PRINT + "1; " + ending)
    story.run(task())
    assert losses(story) == [1]
    assert (story.over().outcome, story.over().kind) == ("failed", "CommandError")
    assert str(story.over().error).startswith(told)
    assert len(str(story.over().error).splitlines()) <= 21


def test_a_command_that_reports_nothing_fails(start: Any) -> None:
    story = start("echo done")
    story.run(task())
    assert (story.over().outcome, story.over().kind) == ("failed", "MetricError")
    assert 'print lines such as {"loss": 0.5} to stdout' in str(story.over().error)


def test_reports_that_only_lack_the_metric_are_named(start: Any) -> None:
    story = start('echo \'{"los": 1, "acc": 2}\'')
    story.run(task())
    told = "report 1 has no 'loss', the study's metric; it has 'acc', 'los'. Did you mean 'los'?"
    assert story.over().error == told


def test_a_command_that_is_not_there_is_said_plainly(start: Any, tmp_path: Path) -> None:
    story = start(["trian", "{x}"])
    story.run(task(x=1))
    assert str(story.over().error).startswith("command: 'trian' cannot be found; it is neither a program on the PATH")
    (tmp_path / "text").write_text("echo")
    story = start(["./text"])
    story.run(task(0, 2))
    assert story.over(0, 2).error == f"command: './text' in {tmp_path} cannot be run: Permission denied"


def test_huge_and_binary_output_goes_to_the_log_without_a_deadlock(start: Any, url: str) -> None:
    story = start(
        f"""
        head -c 3000000 /dev/zero
        head -c 3000000 /dev/urandom >&2
        yes "a long line" | head -c 3000000 >&2
        yes | tr -d '\\n' | head -c 3000000
        echo; {PRINT} 1
        """
    )
    story.run(task())
    assert losses(story) == [1]
    assert len(read_log(url, 0)) > 9_000_000


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_lines_are_found_however_the_output_is_cut(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(command, "_LONGEST_LINE", 10)
    text = b"one\ntwo\r\n10%\r20%\rthree\n" + b"x" * 50 + b"\nfour\n\nfi"
    lines = command._Lines()
    found = [line for start in range(0, len(text), size) for line in lines.feed(text[start : start + size])]
    short = [line for line in found if line and len(line) <= 10]
    assert short == [b"one", b"two", b"10%", b"20%", b"three", b"four"]
    assert len(lines._rest) == 2
    assert size == 1000 or found == [line for line in found if len(line) <= 10], "a long one is not kept until it ends"


@pytest.mark.parametrize("asks", [True, False])
def test_the_command_hears_that_its_node_goes_away_only_if_it_asks(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asks: bool
) -> None:
    monkeypatch.setattr(Context, "preempted", property(lambda _: (tmp_path / "leaving").exists()), raising=False)
    script(
        tmp_path / "own.sh",
        f"""
        last=2
        trap 'last=7; echo told >> told' USR1
        {PRINT} 1
        for i in $(seq 10); do sleep 0.1; done
        {PRINT} $last
        """,
    )
    story = start(
        {"run": ["./own.sh"], "notify": "SIGUSR1" if asks else None},
        lambda message: isinstance(message, Row) and (tmp_path / "leaving").touch(),
    )
    story.run(task())
    assert losses(story) == [1, 7 if asks else 2]
    assert (tmp_path / "told").exists() is asks
    assert not asks or (tmp_path / "told").read_text() == "told\n", "once"


REFUSED: dict[str, tuple[Any, str]] = {
    "an unknown name": ("train --lr {lr}", "command.run: 'lr' is not allowed; no parameter has this name; there are x"),
    "a name that is nearly right": ("train {ne.layers}", "Did you mean 'net.layers'?"),
    "a group": ("train {net}", "'net' is not allowed; no parameter has this name"),
    "no name": ("train {}", "'' is not allowed; no parameter has this name"),
    "a format": (
        "train {x:.3f}",
        "command.run: '{x:.3f}' is not allowed; write {name} alone, and {{ and }} for braces",
    ),
    "a conversion": ("train {x!r}", "write {name} alone"),
    "half a brace": ("train {x", "command.run: '{x' is not allowed"),
    "a quote that does not end": ("train 'a", 'command.run: "train \'a" cannot be split into words'),
    "no word": ("", "command.run"),
    "a number": (5, "command: 5 is not allowed"),
    "an unknown key": ({"run": "train", "patern": "x"}, "command.patern: 'patern' is not allowed; unknown key"),
    "a broken pattern": ({"run": "train", "pattern": "("}, "command.pattern: '(' is not a regular expression"),
    "a pattern without the metric": ({"run": "train", "pattern": "(?P<los>x)"}, "named group, (?P<loss>...)"),
    "a file elsewhere": ({"run": "train", "metrics": "../m"}, "command.metrics: '../m' is not below the run's own"),
    "two sources": ({"run": "t", "metrics": "m", "pattern": "(?P<loss>x)"}, "pattern and metrics are both given"),
    "another signal": ({"run": "t", "notify": "SIGKILL"}, "command.notify: 'SIGKILL' is not allowed"),
}


@pytest.mark.parametrize(("written", "told"), REFUSED.values(), ids=REFUSED)
def test_a_mistake_in_the_command_is_told_when_the_spec_is_read(written: Any, told: str) -> None:
    space = {"x": {"type": "float", "low": 0, "high": 1}, "net": {"layers": 3}}
    with pytest.raises(ConfigError) as error:
        spec(written, space=space)
    assert told in str(error.value)


def test_a_spec_has_an_objective_or_a_command() -> None:
    both = {**spec("train").record(), "objective": "module:name"}
    with pytest.raises(ConfigError, match="command: 'train' is not allowed; an objective is given too; give one of"):
        load_spec(both)
    with pytest.raises(ConfigError, match="objective: missing; it must be given, or a command in its place"):
        load_spec({name: value for name, value in both.items() if name not in ("objective", "command")})
    with pytest.raises(ConfigError, match="objective: missing; it must be given, or a command in its place"):
        load_spec({**both, "objective": None, "command": None})


def test_a_recorded_command_is_the_one_that_was_written() -> None:
    written = spec("python 'my train.py' --lr {x}")
    again = load_spec(json.loads(json.dumps(written.record())))
    assert again.record() == written.record()
    assert again.command == written.command
    assert again.command is not None
    assert again.command.run == ("python", "my train.py", "--lr", "{x}")


def test_a_part_of_a_command_that_is_a_plain_text_can_be_replaced() -> None:
    written = {**spec("train {x}").record(), "command": "train {x}"}
    changed = load_spec(written, {"command.notify": "SIGUSR1"})
    assert changed.command == Command(run=("train", "{x}"), notify="SIGUSR1")


@pytest.mark.ray
def test_commands_run_on_ray(local_ray: None, url: str, tmp_path: Path) -> None:
    script(tmp_path / "own.sh", "echo $$ > pid.$1; echo shown; " + PRINT + "1; [ $1 -lt 1 ] || sleep 600")
    given = spec(["./own.sh", "{x}"])
    runner = RayRunner(url, given, None, str(tmp_path))
    try:
        story = Story(runner)
        story.run(task(0, x=0), TrialTask(1, 1, {"x": 1}, 1, None))
        assert [story.over(number).outcome for number in (0, 1)] == ["returned", "reached"]
        assert read_log(url, 0) == 'shown\n{"loss": 1}\n'
        assert gone(int((tmp_path / "pid.1").read_text()))
    finally:
        runner.close()
