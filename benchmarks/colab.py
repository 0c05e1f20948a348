"""(j) The first cell of a chapter on Colab, imitated, against what it may take.

The machine has what Colab has (tests/colab/versions.txt), and pip builds the package from this clone's last commit, as
it does from the published repository. What GitHub takes to send a copy of it is not in the numbers. pip fetches what it
builds with from PyPI: this benchmark needs a network.

python benchmarks/colab.py
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import table

ROOT = Path(__file__).parents[1]
SECONDS = 30  # what the first cell may take
RUN = """
import sys
import google.colab
from IPython.terminal.interactiveshell import TerminalInteractiveShell
TerminalInteractiveShell.instance().run_cell(sys.argv[1]).raise_error()
"""


def measure(repetitions=3):
    """Rows of the table."""
    sys.path.insert(0, str(ROOT / "tests" / "colab"))
    import environment

    python, variables = environment.make(), environment.variables()
    notebook = nbformat.read(ROOT / "notebooks" / "01_first_transfer.ipynb", 4)
    cell = next(cell.source for cell in notebook.cells if cell.cell_type == "code")
    cell = re.sub(r"git\+https://\S+", f"git+{ROOT.as_uri()}", cell)
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repetitions):
            subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--yes", "tlutils"], check=True, env=variables)
            command = [python, "-c", RUN, cell]
            options = {"check": True, "cwd": folder, "env": variables, "capture_output": True}
            pairs.append((table.seconds(subprocess.run, command, **options), SECONDS))
    yield table.Row("j", "the first cell on Colab, imitated", "what it may take", pairs, goal=1)


if __name__ == "__main__":
    sys.exit(table.main(measure))
