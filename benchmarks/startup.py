"""(f) What it takes to import the package, and to get an answer from the command line.

python benchmarks/startup.py
"""

import subprocess
import sys

import table

NOTHING = ("-c", "pass")
CASES = {
    "import tlutils": ("-c", "import tlutils"),
    "tlutils --help": ("-m", "tlutils.cli", "--help"),
    "tlutils datasets": ("-m", "tlutils.cli", "datasets"),
    "import tensorflow": ("-c", "import tensorflow"),
}


def measure(repetitions=9):
    """Rows of the table."""

    def start(arguments):
        return lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

    times = table.in_turn([start(NOTHING), *map(start, CASES.values())], repetitions)
    for column, what in enumerate(CASES, start=1):
        yield table.Row("f", what, "Python that does nothing", times[:, [column, 0]])


if __name__ == "__main__":
    sys.exit(table.main(measure))
