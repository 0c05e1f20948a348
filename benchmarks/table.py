"""What every benchmark gives: rows of one table, each the ratio of two things measured side by side."""

import argparse
import contextlib
import importlib.metadata
import inspect
import os
import platform
import sys
import time
from dataclasses import dataclass

import numpy as np

from tlutils import results


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        part: Letter of the benchmark.
        what: What is measured.
        against: What it is measured against.
        pairs: Array-like of (measured, against), one pair a repetition. Both were measured in that repetition, one
            after the other, so that a busy moment hits both.
        unit: ``"s"`` or ``"MB"``.
        goal: The largest middle ratio that is good enough; ``None`` where there is no goal.
    """

    part: str
    what: str
    against: str
    pairs: object
    unit: str = "s"
    goal: float | None = None

    def cells(self):
        measured, against = np.median(self.pairs, axis=0)
        ratios = [a / b for a, b in self.pairs]
        low, middle, high = min(ratios), np.median(ratios), max(ratios)
        goal = "" if self.goal is None else f"≤ {self.goal:g}: {'yes' if middle <= self.goal else 'no'}"
        return (
            *(self.part, self.what, _number(measured, self.unit), self.against, _number(against, self.unit)),
            *(f"{low:.2f}", f"{middle:.2f}", f"{high:.2f}", str(len(self.pairs)), goal),
        )


HEAD = ("", "measured", "", "against", "", "ratio: min", "median", "max", "runs", "goal")


def markdown(rows):
    """The table, in columns that are straight in a terminal too."""
    lines = [HEAD, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    right = {2, 4, 5, 6, 7, 8}

    def line(cells):
        padded = (c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(cells, widths)))
        return f"| {' | '.join(padded)} |"

    rule = (f"{'-' * (w - 1)}{':' if i in right else '-'}" for i, w in enumerate(widths))
    return "\n".join([line(HEAD), f"| {' | '.join(rule)} |", *map(line, lines[1:])])


def machine():
    """What the numbers were measured on, in one paragraph."""
    here, parts = results.machine(), []
    if hasattr(os, "sysconf"):
        parts.append(f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB")
    parts += [here["system"], f"Python {platform.python_version()}"]
    for package in ("tensorflow", "tensorflow-cpu", "keras", "numpy", "scikit-learn", "pillow", "onnxruntime"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            parts.append(f"{package} {importlib.metadata.version(package)}")
    return f"{here['cpu']}, {here['cores']} cores, {', '.join(parts)}"


def seconds(function, *arguments, **options):
    """Wall time of a call."""
    started = time.perf_counter()
    function(*arguments, **options)
    return time.perf_counter() - started


def in_turn(sides, repetitions):
    """Seconds of each function, one round a repetition: shape (repetitions, sides). Each runs once before."""
    for function in sides:
        function()
    return np.array([[seconds(function) for function in sides] for _ in range(repetitions)])


def main(measure):
    """What each script does when it is run by itself."""
    parser = argparse.ArgumentParser(
        description=sys.modules["__main__"].__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = inspect.signature(measure).parameters["repetitions"].default
    parser.add_argument("--repetitions", type=int, default=default, help="default: %(default)s")
    options = parser.parse_args()
    print(markdown(list(measure(options.repetitions))))


def _number(value, unit):
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}"
