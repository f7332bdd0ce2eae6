"""Who is the champion: one ledger, and an alias that follows it whatever is killed between the two."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.registry.conftest import Promotion
from tune_tasks.errors import ConfigError, Unavailable
from tune_tasks.registry import Champions, ModelArtifact, Registry
from tune_tasks.store.ledger import Ledger

PLAIN = {"loader": None, "evaluate": None}


@pytest.fixture
def studies(tmp_path: Path, code: Path) -> Callable[[str, float], Promotion]:
    return lambda name, value: Promotion(tmp_path / "studies" / name, code, value, **PLAIN)


def under_the_alias(uri: str) -> str | None:
    champion = Registry(uri).champion("tiny", "champion")
    return champion.version if champion else None


def told(champions: Champions) -> list[tuple[str, str | None, str]]:
    return [(reign.version, reign.previous, reign.by) for reign in champions.history()]


def test_the_history_tells_each_champion_and_what_it_came_after(studies: Any, registry: Registry) -> None:
    for name, value in (("first", 0.5), ("second", 0.25)):
        study = studies(name, value)
        study.carry_out(registry)
    champions = study.champions(registry)
    assert told(champions) == [("1", None, "promotion"), ("2", "1", "promotion")]
    last = champions.history()[-1]
    assert (last.why, last.champion.value, last.time) == ("decided by a test", 0.25, 2000.0)
    assert last.who.endswith("/studies/second")


@pytest.mark.parametrize("registered", [True, False], ids=["MLflow", "no registry"])
def test_a_rollback_goes_to_the_champion_before_and_further_back_each_time(
    studies: Any, registry: Registry, *, registered: bool
) -> None:
    held = registry if registered else None
    for name, value in (("first", 0.5), ("second", 0.25), ("third", 0.125)):
        last = studies(name, value)
        last.carry_out(held)
    champions = last.champions(held)
    for wanted in ("2", "1"):
        reign = champions.rollback(None, who="Ann", why="it is slow", time=3000.0)
        champion, _ = champions.current(time=3000.0)
        assert champion is not None
        assert (reign.version, champion.version) == (wanted, wanted)
    assert told(champions)[3:] == [("2", "3", "rollback"), ("1", "2", "rollback")]
    champions.rollback("3", who="Ann", why="it was the network", time=3001.0)
    champion, _ = champions.current(time=3001.0)
    assert champion is not None
    assert (champion.version, champion.value) == ("3", 0.125)


def test_a_rollback_to_what_never_was_champion_is_refused(studies: Any, registry: Registry) -> None:
    study = studies("first", 0.5)
    study.carry_out(registry)
    for version in ("7", "1", None):
        with pytest.raises(ConfigError, match="tiny has no such earlier champion"):
            study.champions(registry).rollback(version, who="Ann", why="", time=1.0)


def test_an_alias_that_was_moved_by_hand_is_believed_and_noted(studies: Any, registry: Registry, uri: str) -> None:
    for name, value in (("first", 0.5), ("second", 0.25)):
        study = studies(name, value)
        study.carry_out(registry)
    registry.move_alias("tiny", "champion", "1")
    champion, entries = study.champions(registry).current(time=5.0)
    assert champion is not None
    assert (champion.version, entries) == ("1", 3)
    assert told(study.champions(registry))[2:] == [("1", "2", "hand")]
    third = studies("third", 0.125).carry_out(registry)
    assert (third.promoted, under_the_alias(uri)) == (True, "3")


def test_an_alias_from_before_the_first_promotion_is_believed(studies: Any, registry: Registry, tmp_path: Path) -> None:
    studies("first", 0.5).carry_out(registry)
    for file in (tmp_path / "studies" / "_models").rglob("*.*"):
        file.unlink()
    study = studies("second", 0.25)
    champion, entries = study.champions(registry).current(time=5.0)
    assert champion is not None
    assert (champion.version, entries) == ("1", 1)
    assert study.carry_out(registry).promoted


def test_a_decision_made_before_the_alias_was_moved_by_hand_is_not_carried_out(
    studies: Any, registry: Registry, uri: str
) -> None:
    for name, value in (("first", 0.5), ("second", 0.25)):
        studies(name, value).carry_out(registry)
    third = studies("third", 0.125)
    decision = third.decision(registry)
    registry.move_alias("tiny", "champion", "1")
    model = third.carry_out(registry, decision)
    assert not model.promoted
    assert "version 1 was made the champion by hand, while" in model.reason
    assert under_the_alias(uri) == "1"
    assert third.objects.list("models/") == [] or not list(Path(third.objects.url).rglob("model.json"))


CALLS = [(Ledger, "append"), (Ledger, "mark"), (Registry, "move_alias")]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("owner", "name"), CALLS, ids=[name for _, name in CALLS])
def test_after_a_kill_at_any_call_whoever_comes_next_finds_one_champion(
    studies: Any, registry: Registry, uri: str, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, when: str
) -> None:
    studies("first", 0.5).carry_out(registry)
    second = studies("second", 0.25)
    decision = second.decision(registry)
    real = getattr(owner, name)

    def killed(*args: Any, **options: Any) -> Any:
        if when == "after":
            real(*args, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, killed)
        with pytest.raises(KeyboardInterrupt):
            second.carry_out(registry, decision)
    assert under_the_alias(uri) in {"1", "2"}
    other = studies("third", 0.125)
    champion, _ = other.champions(registry).current(time=9.0)
    assert champion is not None
    crowned = (name, when) != ("append", "before")
    assert champion.version == ("2" if crowned else "1")
    assert under_the_alias(uri) == champion.version
    again = second.carry_out(registry, decision)
    assert (again.promoted, under_the_alias(uri)) == (True, "2")
    assert told(other.champions(registry)) == [("1", None, "promotion"), ("2", "1", "promotion")]


def test_of_two_promotions_that_race_one_wins(studies: Any, uri: str, registry: Registry) -> None:
    studies("first", 0.5).carry_out(registry)
    racers = [studies("second", 0.25), studies("third", 0.125)]
    decisions = [racer.decision(registry) for racer in racers]
    gate, models = threading.Barrier(2), list[ModelArtifact]()

    def race(number: int) -> None:
        gate.wait()
        models.append(racers[number].carry_out(Registry(uri), decisions[number]))

    threads = [threading.Thread(target=race, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    won = [model for model in models if model.promoted]
    assert len(won) == 1
    assert under_the_alias(uri) == won[0].version
    assert len(told(racers[0].champions(registry))) == 2


def test_one_who_moves_the_alias_late_moves_it_on_to_where_the_ledger_is_by_then(
    studies: Any, registry: Registry, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    studies("first", 0.5).carry_out(registry)
    slow, fast = studies("second", 0.25), studies("third", 0.125)
    decision, real = slow.decision(registry), Registry.move_alias

    def late(self: Registry, name: str, alias: str, version: str) -> None:
        if version == "2":
            monkeypatch.undo()
            assert fast.carry_out(registry).promoted
        real(self, name, alias, version)

    monkeypatch.setattr(Registry, "move_alias", late)
    assert slow.carry_out(registry, decision).promoted
    assert under_the_alias(uri) == "3"


def test_a_rollback_that_meets_a_promotion_says_so(
    studies: Any, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("first", 0.5), ("second", 0.25)):
        study = studies(name, value)
        study.carry_out(registry)
    real = Ledger.append

    def late(self: Ledger, entry: dict[str, Any], after: int) -> bool:
        monkeypatch.undo()
        studies("third", 0.125).carry_out(registry)
        return real(self, entry, after)

    monkeypatch.setattr(Ledger, "append", late)
    with pytest.raises(Unavailable, match="version 3 became the champion by promotion"):
        study.champions(registry).rollback(None, who="Ann", why="", time=1.0)


def test_a_model_belongs_to_its_first_owner(studies: Any) -> None:
    champions = studies("first", 0.5).champions(None)
    champions.claim("digits")
    champions.claim("digits")
    with pytest.raises(
        ConfigError, match=r"'tiny' belongs to 'digits', and this study to 'faces'.*promotion\.owner: digits"
    ):
        champions.claim("faces")


def test_names_that_are_no_file_names_have_a_ledger_too(tmp_path: Path, studies: Any) -> None:
    objects = studies("first", 0.5).champions(None)._objects
    for name in ("a/b", "Größe 5"):
        Champions(objects, name, "champion", None).claim(name)
    assert len(list((tmp_path / "studies" / "_models").glob("*/owner.json"))) == 2
