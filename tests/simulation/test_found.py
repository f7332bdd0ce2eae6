"""What the simulation has found, each in one small test, so that it is seen at once if it comes back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import tune_tasks as tt
from tests.simulation import study as whole
from tests.simulation.determined import determined
from tests.store.happenings import told
from tune_tasks.errors import Unavailable
from tune_tasks.events import Launched, Opened
from tune_tasks.store import StudyLog
from tune_tasks.testing.faults import Call, Fault, SharedObjects


@pytest.fixture
def shared() -> Iterator[SharedObjects]:
    made = SharedObjects()
    with determined(0), whole.process(made.process("first"), []):
        yield made


def test_a_batch_that_two_launch_at_once_has_one_outcome(shared: SharedObjects) -> None:
    """The second to take the study over did not look whether the first had ended the step meanwhile."""
    study = tt.open_study(whole.spec())
    batch = tt.sample(study)
    other = StudyLog(shared.process("second"))

    def overtake(call: Call) -> None:
        if call.name == "create" and call.process == "first" and call.key.startswith("log/") and other.head == 0:
            other.load()
            ended = Launched(
                key=f"{batch.id}/launch", batch=batch.id, states={}, best=None, value=None, reason="first", time=1.0
            )
            assert other.commit([Opened(epoch=1, owner="second", time=1.0)], role="driver", epoch=1)
            assert other.commit([ended], role="driver", epoch=1)

    shared.turn = overtake
    assert tt.launch_trials(study, batch).reason == "first"
    events = [event for segment in other.segments() for event in segment.events]
    assert [event.type for event in events] == ["created", "planned", "opened", "launched"]


def test_a_study_whose_store_failed_in_the_middle_of_the_news_reads_all_of_it_again(shared: SharedObjects) -> None:
    """What had been read by then was applied a second time by the next refresh."""
    study = tt.open_study(whole.spec())
    other = StudyLog(shared.process("second"))
    other.load()
    for epoch in (1, 2):
        assert other.commit([Opened(epoch=epoch, owner="second", time=1.0)], role="driver", epoch=epoch)
    reads = iter([None, Fault.FAIL])
    shared.plan = lambda call: next(reads, None) if call.name == "read" else None
    with pytest.raises(Unavailable):
        study.refresh()
    assert told(study.refresh()) == told(other.load())
