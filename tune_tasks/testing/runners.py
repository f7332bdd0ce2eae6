"""What every runner must do: an abstract test class. A runner's tests derive from it and say how one is made.

    class TestMyRunner(RunnerContract):
        def make(self, objective, url, **changes):
            return MyRunner(...)

Nothing in it asserts how long anything takes; a deadline only turns a hang into a failure.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tune_tasks.errors import ConfigError
from tune_tasks.events import CheckpointRef
from tune_tasks.execution import Began, Message, Over, Returned, Row, Runner, Saved, TrialTask
from tune_tasks.store import open_objects
from tune_tasks.testing import objectives
from tune_tasks.testing.driving import Story, outcomes, read_checkpoint, read_log, task


class RunnerContract:
    """Every runner passes these."""

    def make(self, objective: Any, url: str, **changes: Any) -> Runner:
        """Builds the runner under test; `changes` are parts of the spec, and `folder`, where the objective is."""
        raise NotImplementedError

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        """Where the study lives."""
        return str(tmp_path / "study")

    @pytest.fixture
    def start(self, url: str) -> Iterator[Callable[..., Story]]:
        """Builds and opens runners, and closes them at the end."""
        runners: list[Runner] = []

        def start(
            objective: Any, on_message: Callable[[Message, Runner], None] = lambda *_: None, **changes: Any
        ) -> Story:
            runner = self.make(objective, changes.pop("url", url), **changes)
            runners.append(runner)
            return Story(runner, lambda message: on_message(message, runner))

        yield start
        for runner in runners:
            runner.close()
            runner.close()

    def test_an_attempt_tells_its_story_in_order(self, start: Callable[..., Story]) -> None:
        story = start(objectives.count)
        messages = story.run(task(3, 2, reports=3))
        assert [type(message) for message in messages] == [Began, Row, Row, Row, Over]
        assert all((message.trial, message.attempt) == (3, 2) for message in messages)
        assert story.steps(3, 2) == [1, 2, 3]
        assert [row.metrics for row in story.of(Row, 3, 2)] == [{"loss": 1.0}, {"loss": 0.5}, {"loss": 1 / 3}]
        times = [message.time for message in messages if not isinstance(message, Returned)]
        assert times == sorted(times)
        assert story.over(3, 2)[2:5] == ("returned", None, None)

    def test_an_attempt_ends_where_its_budget_is_used_up(self, start: Callable[..., Story]) -> None:
        story = start(objectives.count)
        story.run(TrialTask(0, 1, {"reports": 10}, 4, None))
        assert story.steps() == [1, 2, 3, 4]
        assert story.over().outcome == "reached"

    def test_many_short_trials_all_end_once(self, start: Callable[..., Story]) -> None:
        story = start(objectives.count)
        story.run(*(task(number) for number in range(200)))
        assert sorted(m.trial for m in story.messages if isinstance(m, Over)) == list(range(200))
        assert all(story.steps(number) == [1, 2, 3] for number in range(200))

    def test_a_returned_mapping_is_one_more_report(self, start: Callable[..., Story]) -> None:
        story = start(objectives.give_back)
        story.run(task(reports=2, returned={"loss": 5}))
        assert story.of(Row)[-1][2::2] == (3, {"loss": 5.0})
        assert story.over().outcome == "returned"

    def test_a_returned_mapping_may_use_up_the_budget(self, start: Callable[..., Story]) -> None:
        story = start(objectives.give_back)
        story.run(TrialTask(0, 1, {"returned": {"loss": 5}}, 1, None))
        assert story.steps() == [1]
        assert story.over().outcome == "reached"

    @pytest.mark.parametrize("returned", [None, 0.5, "done", [1, 2]])
    def test_an_objective_that_reports_nothing_fails(self, start: Callable[..., Story], returned: Any) -> None:
        story = start(objectives.give_back)
        story.run(task(returned=returned))
        assert story.over()[2::2][:2] == ("failed", "MetricError")
        assert f"the objective returned {returned!r} and reported nothing" in str(story.over().error)
        assert "tune_tasks.report({'loss': ...})" in str(story.over().error)

    def test_whatever_is_returned_after_reports_is_no_report(self, start: Callable[..., Story]) -> None:
        story = start(objectives.give_back)
        story.run(task(reports=1, returned=0.5))
        assert story.steps() == [1]
        assert story.over().outcome == "returned"

    @pytest.mark.parametrize(
        ("metrics", "kind", "text"),
        [
            ({"loss": float("nan")}, "MetricError", "report 1: metric 'loss' is nan, must be a finite number"),
            ({"loss": float("-inf")}, "MetricError", "report 1: metric 'loss' is -inf, must be a finite number"),
            ({"loss": 1, "note": "x"}, "MetricError", "report 1: metric 'note' is 'x', must be a finite number"),
            ({"los": 1, "acc": 2}, "MissingMetric", "it has 'acc', 'los'. Did you mean 'los'?"),
        ],
    )
    def test_a_bad_report_fails_the_trial_though_the_objective_ignores_it(
        self, start: Callable[..., Story], metrics: Any, kind: str, text: str
    ) -> None:
        story = start(objectives.swallow)
        story.run(task(metrics=metrics))
        assert story.steps() == []
        assert (story.over().outcome, story.over().kind) == ("failed", kind)
        assert text in str(story.over().error)
        assert "objectives.py" in str(story.over().error), "the text says where the report was made"

    @pytest.mark.parametrize(
        ("how", "kind", "text"),
        [
            ("error", "ArithmeticError", "the sky fell"),
            ("chain", "ArithmeticError", "KeyError: 'first'"),
            ("huge", "ArithmeticError", "ArithmeticError: begin"),
            ("unpicklable", "Unpicklable", "error number 7"),
            ("unprintable", "Unprintable", "Unprintable"),
            ("exit", "SystemExit", "SystemExit: 3"),
            ("deep", "RecursionError", "recursion"),
        ],
    )
    def test_an_error_fails_the_trial_and_not_the_worker(
        self, start: Callable[..., Story], how: str, kind: str, text: str
    ) -> None:
        story = start(objectives.fail)
        story.run(task(0, how=how))
        story.run(task(1, how="error"))
        assert (story.over().outcome, story.over().kind) == ("failed", kind)
        error = str(story.over().error)
        assert text in error
        assert "objectives.py" in error
        assert "attempt.py" not in error, "the frames begin with the objective's"
        assert len(error) < 17_000
        assert story.over(1).kind == "ArithmeticError"

    def test_a_stop_reaches_a_trial_that_runs(self, start: Callable[..., Story], tmp_path: Path) -> None:
        def stop_at_2(message: Message, runner: Runner) -> None:
            if isinstance(message, Row) and message.step == 2:
                runner.stop(message.trial, pause=False)

        story = start(objectives.go_on, stop_at_2)
        story.run(task(mark=str(tmp_path / "mark")))
        assert story.over()[2:5] == ("stopped", None, None)

    def test_a_pause_waits_for_a_checkpoint(self, start: Callable[..., Story], tmp_path: Path) -> None:
        def pause_at_1(message: Message, runner: Runner) -> None:
            if isinstance(message, Row) and message.step == 1:
                runner.stop(message.trial, pause=True)

        story = start(objectives.go_on, pause_at_1)
        story.run(task(mark=str(tmp_path / "mark"), every=5))
        assert story.over().outcome == "carried"
        assert story.steps()[-1] % 5 == 0
        assert story.of(Saved)[-1].step == story.steps()[-1]

    def test_a_stop_for_an_unknown_trial_is_ignored(self, start: Callable[..., Story]) -> None:
        story = start(objectives.count, lambda message, runner: runner.stop(99, pause=message.trial == 0))
        story.run(task(0), task(1))
        assert [story.over(number).outcome for number in (0, 1)] == ["returned", "returned"]

    def test_what_a_stopped_objective_raises_changes_nothing(self, start: Callable[..., Story]) -> None:
        story = start(objectives.stop_uncleanly)
        story.run(TrialTask(0, 1, {"reports": 5}, 2, None))
        assert story.over()[2:5] == ("reached", None, None)

    def test_a_checkpoint_is_saved_as_it_was_when_it_was_reported(
        self, start: Callable[..., Story], url: str, tmp_path: Path
    ) -> None:
        story = start(objectives.count_on)
        messages = story.run(task(reports=4))
        assert [saved.step for saved in story.of(Saved)] == [1, 2, 3, 4]
        assert isinstance(messages[-1], Over), "an attempt is over when its checkpoints lie in the store"
        for saved in story.of(Saved):
            assert read_checkpoint(url, saved.checkpoint, tmp_path / str(saved.step)) == str(saved.step)

    def test_a_trial_that_fails_keeps_its_checkpoints(self, start: Callable[..., Story]) -> None:
        story = start(objectives.save_and_fail)
        messages = story.run(task(reports=3))
        assert [saved.step for saved in story.of(Saved)] == [1, 2, 3]
        assert isinstance(messages[-1], Over)
        assert story.over().kind == "ArithmeticError"

    def test_another_attempt_goes_on_from_a_checkpoint(self, start: Callable[..., Story]) -> None:
        first = start(objectives.count_on)
        first.run(TrialTask(0, 1, {"reports": 5}, 3, None))
        saved = first.of(Saved)[-1]
        second = start(objectives.count_on)
        second.run(TrialTask(0, 2, {"reports": 5}, None, (saved.step, saved.checkpoint)))
        assert second.of(Began, 0, 2)[0].step == 3
        assert second.steps(0, 2) == [4, 5]
        assert second.over(0, 2).outcome == "returned"

    def test_an_attempt_that_was_killed_after_its_last_report_runs_no_further_step(
        self, start: Callable[..., Story]
    ) -> None:
        story = start(objectives.count_on)
        story.run(TrialTask(0, 1, {"reports": 5}, 3, None))
        saved = story.of(Saved)[-1]
        story.run(TrialTask(0, 2, {"reports": 5}, 3, (saved.step, saved.checkpoint)))
        assert story.steps(0, 2) == []
        assert story.over(0, 2)[2:4] == ("reached", None)

    def test_an_objective_that_was_killed_when_it_had_nothing_left_to_do_has_not_failed(
        self, start: Callable[..., Story]
    ) -> None:
        story = start(objectives.count_on)
        story.run(TrialTask(0, 1, {"reports": 3}, 9, None))
        saved = story.of(Saved)[-1]
        story.run(TrialTask(0, 2, {"reports": 3}, 9, (saved.step, saved.checkpoint)))
        assert story.steps(0, 2) == []
        assert story.over(0, 2)[2:4] == ("returned", None)

    def test_an_objective_that_ignores_its_checkpoint_starts_from_step_1(self, start: Callable[..., Story]) -> None:
        first = start(objectives.count_on)
        first.run(task(reports=2))
        saved = first.of(Saved)[-1]
        second = start(objectives.start_over)
        second.run(TrialTask(0, 2, {"reports": 2}, None, (saved.step, saved.checkpoint)))
        assert second.steps(0, 2) == [1, 2]

    def test_a_checkpoint_that_cannot_be_read_back_fails_the_trial(self, start: Callable[..., Story]) -> None:
        story = start(objectives.count_on)
        missing = CheckpointRef(key="ckpt/000000/1/1-00000000", digest="0" * 64, size=1)
        story.run(TrialTask(0, 2, {}, None, (1, missing)))
        assert (story.over(0, 2).outcome, story.over(0, 2).kind) == ("failed", "CheckpointError")

    def test_a_checkpoint_that_cannot_be_published_fails_the_trial(self, start: Callable[..., Story], url: str) -> None:
        Path(url).mkdir(parents=True)
        (Path(url) / "ckpt").touch()  # a file where the checkpoints' folder must be
        story = start(objectives.count_on)
        story.run(task(reports=1))
        assert story.of(Saved) == []
        assert (story.over().outcome, story.over().kind) == ("failed", "CheckpointError")
        assert "step 1" in str(story.over().error)

    @pytest.mark.parametrize(("path", "text"), [("/does/not/exist", "does not exist"), (5, "must be the path")])
    def test_a_checkpoint_that_is_none_fails_the_trial(self, start: Callable[..., Story], path: Any, text: str) -> None:
        story = start(objectives.save_nothing)
        story.run(task(path=path))
        assert (story.over().outcome, story.over().kind) == ("failed", "CheckpointError")
        assert text in str(story.over().error)

    def test_a_class_is_constructed_once_for_each_worker(self, start: Callable[..., Story]) -> None:
        story = start(objectives.Costly)
        story.run(*(task(number) for number in range(20)))
        rows = [m.metrics for m in story.messages if isinstance(m, Row)]
        assert len({row["loss"] for row in rows}) == len({row["pid"] for row in rows}) <= 2

    @pytest.mark.parametrize(
        ("objective", "kind", "text"),
        [(objectives.Broken, "ArithmeticError", "no data today"), (objectives.NotCallable, "ConfigError", "__call__")],
    )
    def test_a_class_that_cannot_be_constructed_fails_each_trial(
        self, start: Callable[..., Story], objective: Any, kind: str, text: str
    ) -> None:
        story = start(objective)
        story.run(task(0), task(1))
        assert [story.over(number).kind for number in (0, 1)] == [kind, kind]
        assert text in str(story.over(1).error)

    @pytest.mark.parametrize("objective", [objectives.scale, objectives.Scaled])
    def test_an_input_is_loaded_once_for_all_trials(self, start: Callable[..., Story], objective: Any) -> None:
        story = start(objective, inputs={"factor": "tune_tasks.testing.objectives:load_factor"})
        story.run(*(task(number) for number in range(10)))
        assert len({message.metrics["loss"] for message in story.messages if isinstance(message, Row)}) == 1
        assert outcomes(story.messages) == ["returned"] * 10

    def test_an_input_that_cannot_be_loaded_is_named_before_any_trial_begins(self, url: str) -> None:
        runner = self.make(objectives.scale, url, inputs={"factor": "tune_tasks.testing.objectives:Broken"})
        try:
            with pytest.raises(ConfigError, match=r"inputs\.factor: .*Broken' failed: ArithmeticError: no data today"):
                runner.open(lambda _: None)
        finally:
            runner.close()

    def test_it_goes_on_where_it_shall_avoid_a_node_that_it_does_not_have(self, start: Callable[..., Story]) -> None:
        story = start(objectives.count, lambda _, runner: runner.avoid(["no such node"]))
        story.run(task(0))
        story.run(task(1))
        assert outcomes(story.messages) == ["returned", "returned"]

    def test_an_import_string_is_found_in_its_folder(self, start: Callable[..., Story], tmp_path: Path) -> None:
        (tmp_path / "contract_good.py").write_text("def train(config):\n    return {'loss': 1.0}\n")
        story = start("contract_good:train", folder=str(tmp_path))
        story.run(task())
        assert story.over().outcome == "returned"

    def test_an_import_that_fails_fails_the_trial_with_its_traceback(
        self, start: Callable[..., Story], tmp_path: Path
    ) -> None:
        (tmp_path / "contract_bad.py").write_text("import a_module_that_is_not_there\n")
        story = start("contract_bad:train", folder=str(tmp_path))
        story.run(task(0), task(1))
        assert "a_module_that_is_not_there" in str(story.over(1).error)
        assert "contract_bad.py" in str(story.over(1).error)

    def test_a_helper_thread_may_report(self, start: Callable[..., Story]) -> None:
        heard: set[int] = set()
        story = start(objectives.report_from_thread, lambda *_: heard.add(threading.get_ident()))
        story.run(task(reports=3))
        assert story.steps() == [1, 2, 3]
        assert story.over().outcome == "returned"
        assert heard == {threading.get_ident()}, "messages are delivered on the thread that waits"

    def test_the_context_tells_about_the_attempt(self, start: Callable[..., Story], tmp_path: Path) -> None:
        story = start(objectives.tell_context)
        story.run(task(4, 2, where=str(tmp_path / "where")))
        assert story.of(Row, 4, 2)[0].metrics == {"loss": 9.0}, story.over(4, 2)
        study, trial, attempt, worker, folder = (tmp_path / "where").read_text().split("\n")
        assert (study, trial, attempt, worker) == ("contract", "4", "2", story.of(Began, 4, 2)[0].worker)
        assert not Path(folder).parent.exists(), "its folder goes with the attempt"

    def test_a_study_without_a_largest_budget_says_so(self, start: Callable[..., Story], tmp_path: Path) -> None:
        story = start(objectives.tell_context, scheduler="none")
        story.run(task(where=str(tmp_path / "where")))
        assert story.over().kind == "ConfigError"
        assert "give the scheduler a max_budget" in str(story.over().error)

    def test_output_goes_to_a_file_for_each_attempt(self, start: Callable[..., Story], url: str) -> None:
        story = start(objectives.loud)
        story.run(*(task(number, mark=f"of {number}", how=["python"] * (number % 2)) for number in range(4)))
        assert [story.over(number).outcome for number in range(4)] == ["returned"] * 4
        assert open_objects(url).list("logs/") == ["logs/000001-1.txt", "logs/000003-1.txt"]
        assert read_log(url, 3) == "from python of 3\nto stderr of 3\n"

    def test_a_generator_by_mistake_is_named(self, start: Callable[..., Story]) -> None:
        story = start(objectives.stepwise)
        story.run(task())
        assert "returned <generator object" in str(story.over().error)

    def test_it_opens_again_for_another_driver(self, url: str) -> None:
        runner = self.make(objectives.count, url)
        try:
            for attempt in (1, 2):
                story = Story(runner)
                story.run(task(0, attempt))
                assert story.over(0, attempt).outcome == "returned"
        finally:
            runner.close()

    def test_it_closes_though_it_was_never_opened(self, url: str) -> None:
        self.make(objectives.count, url).close()
