"""Measure Holdfast and its floor in turns on one server, and print the ratios; nothing here passes or fails."""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from temporalio.client import Client

from bench import measure, report
from bench.measure import Growth, Pace
from bench.subjects import BASE, DEFAULT, SUBJECTS, Running, started
from holdfast import wire
from holdfast.worker.server import EmbeddedServer

T = TypeVar("T")


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    alone: tuple[int, int] = (7, 3)
    """Rounds, and runs of 20 steps in each."""
    crowd: tuple[int, int, int] = (5, 50, 50)
    """Rounds, runs of 10 steps in each, and how many at once."""
    wide: tuple[int, int, int] = (5, 3, 8)
    """Rounds, runs of 10 steps in each, and tool calls at once in each step."""
    families: tuple[int, int, int, int] = (5, 3, 4, 5)
    """Rounds, runs in each, subagents at once in each run, and their steps."""
    growth: tuple[int, tuple[int, ...]] = (3, (50, 100, 200, 400))
    """Rounds, and the steps at which a long run is looked at, the last of them its end."""


_AIMS = {"holdfast": 1.1, "holdfast-stream": 1.35}
_SLOWDOWN_AIM = 1.5
_AGAINST = "measure another copy too: a folder that holds the whole package holdfast; may be given again"
QUICK = Sizes(alone=(3, 1), crowd=(1, 20, 10), wide=(1, 2, 8), families=(1, 2, 4, 5), growth=(1, (50, 100)))


async def in_turns(
    title: str, rounds: int, subjects: Sequence[Running], work: Callable[[Running], Awaitable[T]]
) -> list[dict[str, T]]:
    """Measure every subject in every round, each round beginning with another one."""
    found: list[dict[str, T]] = []
    for number in range(rounds):
        turn = number % len(subjects)
        measured = {}
        for subject in [*subjects[turn:], *subjects[:turn]]:
            _progress(f"{title}: round {number + 1} of {rounds}, {subject.label}")
            measured[subject.label] = await work(subject)
        found.append({subject.label: measured[subject.label] for subject in subjects})
    _progress("")
    return found


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:70}\r", end="", file=sys.stderr, flush=True)


async def bench(address: str, sizes: Sizes, subjects: list[Running]) -> dict[str, object]:
    """Measure, print as it goes, and return all that was found."""
    client = await Client.connect(address)
    for subject in subjects:
        await asyncio.gather(*(measure.run(client, subject, 20, measure.RESULT_BYTES) for _ in range(3)))

    rounds, runs = sizes.alone
    alone = await in_turns("alone", rounds, subjects, lambda each: measure.pace(client, each, runs, 20, 1))
    print(report.pace_table(f"One run alone, 20 steps ({rounds} rounds of {runs})", alone, BASE), end="\n\n")

    rounds, runs, at_once = sizes.crowd
    crowd = await in_turns("crowd", rounds, subjects, lambda each: measure.pace(client, each, runs, 10, at_once))
    print(report.pace_table(f"{runs} runs of 10 steps, {at_once} at once ({rounds} rounds)", crowd, BASE), end="\n\n")

    rounds, runs, calls = sizes.wide
    wide = await in_turns("wide", rounds, subjects, lambda each: measure.pace(client, each, runs, 10, 1, calls))
    print(
        report.pace_table(f"{calls} tool calls at once in each of 10 steps ({rounds} rounds)", wide, BASE), end="\n\n"
    )

    rounds, runs, helpers, steps = sizes.families
    families = await in_turns(
        "families", rounds, subjects, lambda each: measure.families(client, each, runs, helpers, steps)
    )
    print(
        report.pace_table(f"{helpers} subagents at once, {steps} steps each ({rounds} rounds)", families, BASE),
        end="\n\n",
    )

    rounds, marks = sizes.growth
    last = marks[-1]
    long = [each for each in subjects if each.subject.model != "stream" and each.label != BASE]
    growth = await in_turns("growth", rounds, long, lambda each: measure.growth(client, each, last, marks))
    print(report.growth_table(f"One run of {last} steps, {measure.LONG_RESULT_BYTES:,} bytes a tool result", growth))
    _verdict(alone, growth, last)
    return {
        "alone": [{label: asdict(each) for label, each in one.items()} for one in alone],
        "crowd": [{label: asdict(each) for label, each in one.items()} for one in crowd],
        "wide": [{label: asdict(each) for label, each in one.items()} for one in wide],
        "families": [{label: asdict(each) for label, each in one.items()} for one in families],
        "growth": [{label: asdict(each) for label, each in one.items()} for one in growth],
    }


def _verdict(alone: list[dict[str, Pace]], growth: list[dict[str, Growth]], last: int) -> None:
    print("\nAims")
    for label in alone[0]:
        name = label.partition("@")[0]
        if name in _AIMS:
            found = report.ratios(alone, label, BASE, "ms_per_step")
            print(report.aim(f"{label}, ms/step at 20 steps to {BASE}", found, _AIMS[name]))
    for label in growth[0]:
        slowdown = report.Spread.of(each[label].slowdown for each in growth)
        if label.startswith("holdfast"):
            print(report.aim(f"{label}, steps {last - 10}–{last} to the first ten", slowdown, _SLOWDOWN_AIM))


def main() -> None:
    """Parse arguments, start everything, measure."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute instead of six: shows that it works, not more")
    parser.add_argument("--rounds", type=int, help="rounds of every measurement")
    parser.add_argument("--subjects", default=",".join(DEFAULT), help=f"of {', '.join(SUBJECTS)}")
    parser.add_argument("--against", type=Path, action="append", default=[], metavar="DIR", help=_AGAINST)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args()
    names = options.subjects.split(",")
    if BASE not in names or not set(names) <= set(SUBJECTS):
        parser.error(f"--subjects must be of {', '.join(SUBJECTS)}, {BASE} among them")
    sizes = QUICK if options.quick else Sizes()
    if options.rounds:
        rounds = options.rounds
        sizes = Sizes(
            alone=(rounds, *sizes.alone[1:]),
            crowd=(rounds, *sizes.crowd[1:]),
            wide=(rounds, *sizes.wide[1:]),
            families=(rounds, *sizes.families[1:]),
            growth=(rounds, *sizes.growth[1:]),
        )
    began = time.monotonic()
    about = report.surroundings()
    print(about, end="\n\n")
    with (
        EmbeddedServer.start(None, port=0, ui_port=None, search_attributes=wire.SEARCH_ATTRIBUTES) as server,
        started(server.address, names, [each.resolve() for each in options.against]) as subjects,
    ):
        print(
            "One embedded Temporal server, in memory, for all. A step: a model call and a tool call (none in the last)."
        )
        for name in names:
            print(f"  {name.ljust(16)} {SUBJECTS[name].says}")
        print(flush=True)
        found = asyncio.run(bench(server.address, sizes, subjects))
    print(flush=True)
    # In a process of its own, since it is the whole process's CPU that is measured.
    subprocess.run([sys.executable, "-m", "bench.calls", *(["--quick"] if options.quick else [])], check=True)
    print(f"\n{time.monotonic() - began:.0f} s; afterwards: {report.surroundings().splitlines()[-1]}")
    if options.json:
        options.json.write_text(json.dumps({"about": about, **found}, indent=2))


if __name__ == "__main__":
    main()
