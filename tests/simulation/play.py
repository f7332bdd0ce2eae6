"""Plays a world by its seed alone: who moves, what fails, who is killed and who comes next."""

from __future__ import annotations

import hashlib
from random import Random

from tests.simulation.vandal import HARMLESS, spoil
from tests.simulation.world import World, world
from tune_tasks.testing.faults import KILLS, Call, Fault

MOVES = 300
"""After so many turns nothing fails any more."""
PROCESSES = 7
BURSTS = (1, 1, 2, 5, 20)
"""Calls in a row: mostly few, so that processes meet in the middle of what they do."""


def play(world: World) -> None:
    """Plays a world to its end. Raises where a promise was broken."""
    random = Random(f"play {world.seed}")
    rate = random.choice([0.0, 0.01, 0.05, 0.2])
    struck = random.choice([{"create"}, {"read"}, {"create", "read", "replace", "upload", "list", "delete"}])
    kills = random.choice([0.0, 0.002, 0.02])
    faults = random.sample([fault for fault in Fault if fault not in KILLS], random.randint(1, 6))

    def fault(call: Call) -> Fault | None:
        if random.random() < kills:
            return random.choice(sorted(KILLS, key=str))
        return random.choice(faults) if call.name in struck and random.random() < rate else None

    world.fault = fault
    pace: dict[str, float] = {}
    for _ in range(random.randint(1, 3)):
        world.pipeline("main", patient=random.random() < 0.5)
    for move in range(MOVES):
        if move % 10 == 0:
            _enter(world, random)
            pace = {actor.name: random.choice([0.0, 1.0, 1.0, 20.0]) for actor in world.actors}
        if random.random() < 0.05:
            spoil(random.choice(HARMLESS), world.shared, world.checker, random)
        if random.random() < 0.003:
            world.amend()
        if not world.alive:
            break
        weights = [pace.get(actor.name, 1.0) + 0.01 for actor in world.alive]
        world.move(random.choices(world.alive, weights)[0], calls=random.choice(BURSTS))
    world.finish()


def _enter(world: World, random: Random) -> None:
    """Another process comes, where there is room for one."""
    if len(world.alive) < 4 and len(world.actors) < PROCESSES:
        if random.random() < 0.3:
            world.reader()
        else:
            world.pipeline(random.choice(["main", "main", "night"]), patient=random.random() < 0.5)


def fingerprint(seed: int) -> str:
    """Plays a seed and tells what is in the store afterwards, byte for byte."""
    digest = hashlib.sha256()
    with world(seed) as made:
        play(made)
        for key, data in sorted(made.shared.objects.items()):
            digest.update(b"%b\0%d\0%b" % (key.encode(), len(data), data))
    return digest.hexdigest()
