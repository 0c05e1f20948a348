"""(g) Seconds and peak memory of each chapter in the quick profile, against what a chapter may take.

python benchmarks/notebooks.py
"""

import sys
import tempfile

import table

from tlutils import runner

SECONDS, MEGABYTES = 60, 1500  # what a chapter may take on two cores


def measure(repetitions=1):
    """Rows of the table."""
    paths, runs, failed = runner.find([]), {}, []
    for _ in range(repetitions):
        with tempfile.TemporaryDirectory() as folder:
            for outcome in runner.run(paths, folder):
                if outcome.status == "ok":
                    runs.setdefault(outcome.notebook, []).append((outcome.seconds, outcome.peak_mb))
                else:
                    failed.append(f"{outcome.notebook} {outcome.status}: {outcome.error}")
    for name, outcomes in runs.items():
        for unit, limit, column in (("s", SECONDS, 0), ("MB", MEGABYTES, 1)):
            pairs = [(outcome[column], limit) for outcome in outcomes]
            yield table.Row("g", f"chapter {name}", "what it may take", pairs, unit, goal=1)
    if failed:
        raise RuntimeError("; ".join(failed))


if __name__ == "__main__":
    sys.exit(table.main(measure))
