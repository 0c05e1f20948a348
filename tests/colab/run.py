"""Run chapters as a reader on Colab does: in an empty folder, from the first cell on, which installs the package.

    python tests/colab/run.py 01_first_transfer 13_vgg16_on_photos [--package ADDRESS] [--out FOLDER]

It needs nothing but what Colab has, so it runs in Colab's own image as well as in an environment that imitates it (see
environment.py). ``--package`` installs the package from another place than the published repository. A chapter fails if
a cell raises or writes to stderr, if anything that was installed before has changed, or if more was installed than the
package.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
PUBLISHED = re.compile(r"git\+https://github\.com/[\w./-]+")
COLOURS = re.compile(r"\x1b\[[\d;]*m")
SHOWN = ("tensorflow", "keras", "numpy", "scikit-learn", "matplotlib", "ipywidgets", "ipykernel")


class ThisPython(AsyncKernelManager):
    """Starts this very interpreter, whatever kernels the machine knows."""

    kernel_spec = property(
        lambda self: KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            display_name="Python 3",
            language="python",
        )
    )


def installed():
    """Name to version of every installed distribution."""
    return {found.metadata["Name"]: found.version for found in metadata.distributions()}


def run(name, package=None, out=None):
    """Run one chapter.

    Args:
        name: The notebook's name.
        package: Where the first cell shall install the package from; ``None`` leaves the cell as it is.
        out: Folder for the executed notebook, or ``None``.

    Returns:
        tuple: The seconds of the first cell, those of the chapter, and one sentence a problem.
    """
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    if package is not None:
        first.source, places = PUBLISHED.subn(package, first.source)
        if places != 1:
            return 0, 0, [f"the first cell installs {places} packages from the published repository, not 1"]
    subprocess.run(
        [sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes", "tlutils"], check=True, capture_output=True
    )
    before, starts, problems = installed(), [], []
    with tempfile.TemporaryDirectory() as folder:
        startup = Path(folder, "ipython", "profile_default", "startup")
        startup.mkdir(parents=True)
        startup.joinpath("colab.py").write_text("import google.colab\n")  # Colab's own kernel has loaded it
        os.environ["IPYTHONDIR"] = str(startup.parents[1])
        content = Path(folder, "content")
        content.mkdir()
        client = NotebookClient(
            notebook,
            timeout=1200,
            kernel_manager_class=ThisPython,
            resources={"metadata": {"path": str(content)}},
            on_cell_execute=lambda cell, cell_index: starts.append(time.monotonic()),
        )
        try:
            client.execute()
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            problems.append(COLOURS.sub("", f"{type(error).__name__}: {error}"))
    end = time.monotonic()
    after = installed()
    problems += [
        f"{package} was {version} before and is {after.get(package, 'gone')} now"
        for package, version in before.items()
        if after.get(package) != version
    ]
    if (more := set(after) - set(before)) != {"tlutils"}:
        problems.append(f"the first cell installed {', '.join(sorted(more)) or 'nothing'}, not tlutils alone")
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                problems.append(f"a cell wrote to stderr: {output.text.strip()[:400]}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, out / f"{name}.ipynb")
    begin, second = [*starts, end, end][:2]
    return second - begin, end - begin, problems


def main(arguments=None):
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", help="notebooks, such as 01_first_transfer")
    parser.add_argument("--package", help="what pip shall install instead of the published repository")
    parser.add_argument("--out", type=Path, help="folder for the executed notebooks")
    options = parser.parse_args(arguments)
    before = installed()
    versions = ", ".join(f"{name} {before.get(name, 'missing')}" for name in SHOWN)
    print(f"Python {sys.version.split()[0]}, {versions}", flush=True)
    failed = False
    for name in options.names:
        cell, whole, problems = run(name, options.package, options.out)
        verdict = "failed" if problems else "ok"
        print(f"{name}: {verdict}, {cell:.1f} s for the first cell, {whole:.0f} s in all", flush=True)
        for problem in problems:
            print(f"  {problem}", flush=True)
        failed = failed or bool(problems)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
