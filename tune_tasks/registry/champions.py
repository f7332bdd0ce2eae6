"""Who is, and who was, the champion of a model: one ledger for all studies of a store, and the alias that follows it.

The registry cannot move an alias only if it still is where one saw it. So the next champion is first an entry of the
ledger, which only one process can add, and the alias moves after that; whoever comes next finishes a move that was cut
off. This module must not compare models.
"""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import quote

import orjson

from tune_tasks.errors import ConfigError, Unavailable, invalid
from tune_tasks.events import Value
from tune_tasks.registry.artifact import Champion, ModelArtifact
from tune_tasks.registry.versions import Registry
from tune_tasks.store import Objects
from tune_tasks.store.ledger import Ledger

FOLDER = "_models"
"""Where the ledgers lie, beside the studies of a store."""


class Reign(Value):
    """An entry of the ledger: a version became the champion."""

    version: str
    previous: str | None
    by: Literal["promotion", "rollback", "hand"]
    who: str = ""
    why: str
    key: str = ""
    time: float
    champion: Champion
    digest: str | None = None


class Champions:
    """The champions of one model under one alias. `objects` are those at `FOLDER` of the store.

    Without a registry the ledger alone says who the champion is.
    """

    def __init__(self, objects: Objects, model: str, alias: str, registry: Registry | None) -> None:
        self.model, self.alias, self.registry = model, alias, registry
        self._objects, self._folder = objects, quote(model, safe="")
        self._ledger = Ledger(objects, f"{self._folder}/{quote(alias, safe='')}")

    def claim(self, owner: str) -> None:
        """Makes `owner` the one whose studies promote to this model, if nobody is yet.

        Raises `ConfigError` where another one is: two schedules must not take turns under one name.
        """
        key = f"{self._folder}/owner.json"
        if self._objects.create(key, orjson.dumps({"owner": owner})):
            return
        held = orjson.loads(self._objects.read(key) or b"{}").get("owner")
        if held != owner:
            raise ConfigError(
                f"promotion.model: {self.model!r} belongs to {held!r}, and this study to {owner!r}; give the model "
                f"another name, or write promotion.owner: {held}"
            )

    def history(self) -> list[Reign]:
        """Every reign, the oldest first."""
        return [Reign(**entry) for entry in self._ledger.entries()]

    def current(self, *, time: float) -> tuple[Champion | None, int]:
        """The champion, and how many entries the ledger has by now. Finishes a move of the alias that was cut off.

        An alias that someone moved by hand is believed, and noted as a reign.
        """
        while True:
            reigns = self.history()
            last = reigns[-1] if reigns else None
            if self.registry is None:
                return (last.champion if last else None), len(reigns)
            held = self.registry.champion(self.model, self.alias)
            if last is None and held is None:
                return None, 0
            if last is not None and not self._ledger.marked(len(reigns)):
                self._follow(len(reigns), last, held)
                continue
            if last is None or held is None or held.version != last.version:
                if held is None:
                    return None, len(reigns)
                self._ledger.append(_by_hand(held, last, time).model_dump(mode="json"), after=len(reigns))
                self._ledger.mark(len(reigns) + 1)
                continue
            return held, len(reigns)

    def objection(self, model: ModelArtifact, *, after: int) -> str | None:
        """Says who became the champion `after` the decision to promote this model; None where nobody else did."""
        reigns = self.history()
        if len(reigns) > after:
            return None if reigns[after].key == _key(model) else self._told(reigns[after])
        before = model.champion["version"] if model.champion else None
        held = self.registry.champion(self.model, self.alias) if self.registry else None
        if held is not None and held.version not in {before, model.version}:
            return f"version {held.version} was made the {self.alias} by hand"
        return None

    def crown(self, model: ModelArtifact, *, after: int) -> str | None:
        """Makes the model the champion, if nobody else became it `after` the decision; else says who did.

        Called again it does the same again, also where it was cut off between the ledger and the alias.
        """
        objection = self.objection(model, after=after)
        if objection is not None:
            return objection
        before = model.champion["version"] if model.champion else None
        reign = Reign(
            version=str(model.version or after + 1),
            previous=before,
            by="promotion",
            who=model.study,
            why=model.reason,
            key=_key(model),
            time=model.created,
            champion=_champion(model, str(model.version or after + 1)),
            digest=model.digest,
        )
        return self._add(reign, after)

    def rollback(self, version: str | None, *, who: str, why: str, time: float) -> Reign:
        """Makes an earlier champion the champion again: `version`, by default the one that the present one replaced.

        Raises `ConfigError` where there is no such champion, and `Unavailable` where someone else was faster.
        """
        present, after = self.current(time=time)
        reigns = self.history()
        earlier = {reign.version: reign for reign in reigns}
        now = present.version if present else None
        if version is None:
            before = [reign.previous for reign in reigns if reign.version == now and reign.by != "rollback"]
            version = before[-1] if before else None
        if version is None or version not in earlier or version == now:
            known = [known for known in earlier if known != now]
            raise invalid(
                "version", version, f"{self.model} has no such earlier champion; there are {', '.join(known)}", known
            )
        reign = earlier[version].model_copy(
            update={"previous": now, "by": "rollback", "who": who, "why": why, "time": time, "key": ""}
        )
        moved = self._add(reign, after)
        if moved is not None:
            raise Unavailable(f"{self._ledger.url}: {moved}; look at the history, then try again")
        return reign

    def _add(self, reign: Reign, after: int) -> str | None:
        if not self._ledger.append(reign.model_dump(mode="json"), after=after):
            return self._told(self.history()[after])
        self._settle(after + 1, reign)
        return None

    def _told(self, other: Reign) -> str:
        return f"version {other.version} became the {self.alias} by {other.by} ({other.why})"

    def _settle(self, number: int, reign: Reign) -> None:
        """Moves the alias to where the ledger says, and on where the ledger says more by then."""
        if self.registry is None:
            self._ledger.mark(number)
            return
        if not self._ledger.marked(number):
            self._follow(number, reign, self.registry.champion(self.model, self.alias))
        newer = self.history()[number:]
        if newer:
            # Whoever added these may have moved the alias before we did: a process can be slow between two calls.
            self.registry.move_alias(self.model, self.alias, newer[-1].version)

    def _follow(self, number: int, reign: Reign, held: Champion | None) -> None:
        """Finishes the move of entry `number`: only from where the alias was when that was decided."""
        if self.registry is not None and (held.version if held else None) == reign.previous:
            self.registry.move_alias(self.model, self.alias, reign.version)
        self._ledger.mark(number)


def _key(model: ModelArtifact) -> str:
    return f"{model.study_id}/{model.key}"


def _champion(model: ModelArtifact, version: str) -> Champion:
    return Champion(
        version=version,
        uri=model.uri or "",
        value=model.value,
        metric=model.metric,
        mode=model.mode,
        trial=model.trial,
        study=model.study,
        path=model.path,
        digest=model.digest,
    )


def _by_hand(held: Champion, last: Reign | None, time: float) -> Reign:
    why = "the alias named it before the first promotion" if last is None else "the alias was moved by hand"
    told: dict[str, Any] = {"previous": last.version if last else None, "time": time, "champion": held}
    return Reign(version=held.version, by="hand", why=why, **told)
