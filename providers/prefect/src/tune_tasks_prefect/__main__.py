"""`python -m tune_tasks_prefect` sets a Prefect server up for deployments that heal themselves."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tune_tasks.errors import TuneError
from tune_tasks_prefect.form import write


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; gives the exit status, which is that of the command line of tune_tasks for the same error."""
    options = _parser().parse_args(arguments)
    if options.command == "form":
        print(write())  # noqa: T201  # what the command is for
        return 0
    from prefect.client.orchestration import get_client

    from tune_tasks_prefect.fitness import named
    from tune_tasks_prefect.setting_up import check, setup

    try:
        named()
        with get_client(sync_client=True) as client:
            for line in check(client):
                print(line)  # noqa: T201  # what the command is for
            if options.command == "setup":
                lines = setup(client, file=options.file, gpus=options.gpus, pool_type=options.pool_type)
                for done, kind, name in lines:
                    print(f"{done:<8} {kind:<18} {name}", flush=True)  # noqa: T201  # as above
    except TuneError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201  # as above
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tune_tasks_prefect", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("form", help="write the form of the overrides anew, after a change of the spec's schema")
    commands.add_parser("check", help="say whether a server answers, and whether one can be started here")
    made = commands.add_parser(
        "setup", help="make block types, limits, work pools, deployments and automations; again whenever you like"
    )
    made.add_argument("--file", type=Path, help="a prefect.yaml to deploy as `prefect deploy --all` does")
    made.add_argument("--gpus", type=_slots, metavar="N", help="slots of the concurrency limit `gpus`")
    made.add_argument("--pool-type", default="process", help="of a work pool that is made (default: %(default)s)")
    return parser


def _slots(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is not allowed; give 0 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
