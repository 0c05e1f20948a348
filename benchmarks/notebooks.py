"""Seconds and peak memory of each notebook in the quick profile, against what a chapter may take.

python benchmarks/notebooks.py [NOTEBOOK ...]
"""

import argparse
import sys
import tempfile

from tlutils import runner

SECONDS, MEGABYTES = 60, 1500  # what a notebook may take on two cores


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", help="numbers, names or paths; all of them by default")
    options = parser.parse_args()
    paths = runner.find(options.notebooks)
    with tempfile.TemporaryDirectory() as folder:
        outcomes = runner.run(paths, folder, report=runner.Display())
    print()
    print(runner.table(outcomes))
    print()
    for outcome in outcomes:
        if outcome.status != "ok":
            print(f"{outcome.notebook}: {outcome.error}")
            continue
        print(
            f"{outcome.notebook}: {outcome.seconds / SECONDS:.0%} of {SECONDS} s, "
            f"{outcome.peak_mb / MEGABYTES:.0%} of {MEGABYTES:,} MB"
        )
    return int(any(outcome.status != "ok" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
