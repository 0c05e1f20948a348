"""All benchmarks in one run, as one table.

    python benchmarks/run.py [--only b,c] [--repetitions N] [--write]

`--write` puts the table into benchmarks/README.md, with the machine and the date. What a benchmark needs and this
machine lacks (photographs, weights, a package) is named, and its rows are left out.
"""

import argparse
import datetime
import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

import table

PARTS = {
    "a": "recipes",
    "b": "probe_cost",
    "c": "fine_tune_cost",
    "d": "engines",
    "e": "memory",
    "f": "startup",
    "g": "notebooks",
    "h": "diagnose",
    "j": "colab",
    "k": "pages",
}
README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- results: written by run.py -->\n", "<!-- end of results -->\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PARTS), help="letters, such as b,c")
    parser.add_argument("--repetitions", type=int, help="of each benchmark (default: its own)")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    options = parser.parse_args()
    if unknown := set(options.only) - set(PARTS):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    repetitions = [] if options.repetitions is None else [options.repetitions]
    load = f" The load average was {os.getloadavg()[0]:.1f} when it began." if hasattr(os, "getloadavg") else ""
    heading = f"Measured on {datetime.date.today()}: {table.machine()}.{load}"
    print(f"{heading}\n", flush=True)
    rows, notes = [], []
    for letter in options.only:
        started = time.perf_counter()
        try:
            for row in importlib.import_module(PARTS[letter]).measure(*repetitions):
                rows.append(row)
        except (OSError, ImportError, ValueError, RuntimeError, UserWarning, subprocess.SubprocessError) as error:
            notes.append(f"({letter}) left out: {error}")
        print(f"({letter}) {PARTS[letter]}: {time.perf_counter() - started:.0f} s", flush=True)
    text = "\n\n".join([heading, table.markdown(rows), *notes])
    print(f"\n{text}")
    if options.write:
        before, rest = README.read_text(encoding="utf-8").split(BEGIN)
        after = rest.split(END)[1]
        README.write_text(f"{before}{BEGIN}\n{text}\n\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
