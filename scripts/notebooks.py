"""Keep each notebook and its text source in step.

People edit ``notebooks/text/NN_name.md`` (MyST Markdown); ``notebooks/NN_name.ipynb`` is made from it. Wrong answers to
exercises stand in the text only (see ``courses.py``).

    python scripts/notebooks.py sync     # text → ipynb; unchanged cells keep their outputs, edited notebooks stay
    python scripts/notebooks.py check    # list where the two disagree; exit code 1 if they do

    python scripts/notebooks.py reference    # take the recorded numbers of the notebooks as the new references

A reference keeps the tolerance that somebody gave it. A new one gets a default to be looked at: 0.02 for a fraction,
none for a time, which differs on every machine and is not compared.
"""

import argparse
import difflib
import hashlib
import json
import sys
from pathlib import Path

import courses
import nbformat

from tlutils.results import records_in, write_text
from tlutils.runner import tidy, write

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
REFERENCE = NOTEBOOKS.parent / "book" / "results" / "reference.json"
# What papermill and Jupyter add while they run a notebook; the text does not carry it.
_RUNTIME_METADATA = {"papermill", "execution", "collapsed", "scrolled"}


class EditedError(Exception):
    """Cells of a notebook were edited, and nothing was written; the message says how to go on."""


def sync(folder=NOTEBOOKS):
    """Make each notebook of a folder from its text.

    Returns:
        list: Paths of the notebooks that changed.

    Raises:
        EditedError: Somebody edited the cells of a notebook instead of its text.
    """
    made = {folder / f"{text.stem}.ipynb": _read(text) for text in sorted((folder / "text").glob("*.md"))}
    old = {path: nbformat.read(path, 4) for path in made if path.is_file()}
    for path in old:
        if _edited(old[path], made[path]):
            raise EditedError(
                f"the cells of {path.name} were edited, which making it from its text again would undo: put the change "
                f"into text/{path.stem}.md (python scripts/notebooks.py check shows what differs), or, to do without "
                f"it, delete {path.name}"
            )
    for path, notebook in made.items():
        notebook.metadata["tlutils"] = {"cells": _digest(notebook)}
        if path in old:
            _keep_outputs(notebook, old[path])
    return [path for path, notebook in made.items() if write(tidy(notebook, committed=True), path)]


def _edited(notebook, made):
    """Whether cells are neither what sync last made nor what the text says now. No dates: a checkout changes those."""
    last = notebook.metadata.get("tlutils", {}).get("cells")
    return last is not None and _digest(notebook) not in (last, _digest(made))


def _digest(notebook):
    """Stands for the kinds and sources of the cells, whatever they put out."""
    cells = [(cell.cell_type, cell.source) for cell in tidy(notebook, committed=True).cells]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()[:16]


def check(folder=NOTEBOOKS):
    """Return one sentence for each difference between the notebooks of a folder and their texts."""
    texts = {path.stem: path for path in (folder / "text").glob("*.md")}
    notebooks = {path.stem: path for path in folder.glob("*.ipynb")}
    problems = []
    for name in sorted({*texts, *notebooks}):
        if name not in texts:
            problems.append(f"{name}.ipynb has no text: write {name}.md, or delete it")
        elif name not in notebooks:
            problems.append(f"{name}.md has no notebook: run `python scripts/notebooks.py sync`")
        else:
            problems += [f"{name}: {difference}" for difference in compare(texts[name], notebooks[name])]
    return problems


def compare(text, path):
    """Compare a text with its notebook: kinds, sources and metadata of the cells, not their outputs.

    Args:
        text (Path): MyST Markdown.
        path (Path): The notebook.

    Returns:
        list: One sentence a difference.
    """
    ours, theirs = _read(text).cells, nbformat.read(path, 4).cells
    problems = []
    if len(ours) != len(theirs):
        problems.append(f"the text has {len(ours)} cells, the notebook {len(theirs)}")
    for position, (our, their) in enumerate(zip(ours, theirs), 1):
        where = f"cell {position}"
        if our.cell_type != their.cell_type:
            problems.append(f"{where} is {our.cell_type} in the text and {their.cell_type} in the notebook")
            break  # from here on, cells no longer correspond
        if our.source != their.source:
            line = next((a or b for a, b in _lines(our.source, their.source) if a != b), "")
            problems.append(f"{where} differs at {line.strip()!r}")
        if _metadata(our) != _metadata(their):
            problems.append(
                f"{where} has the metadata {_metadata(our)} in the text, {_metadata(their)} in the notebook"
            )
    return problems


def reference(folder=NOTEBOOKS, path=REFERENCE):
    """Write what the notebooks of a folder recorded as the values that later runs are compared with.

    Args:
        folder (Path): Executed notebooks.
        path (Path): The JSON file; its tolerances are kept.
    """
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    new = {
        notebook.stem: {
            name: {
                "value": value,
                "tolerance": old.get(notebook.stem, {}).get(name, {}).get("tolerance", _usual(name, value)),
            }
            for name, value in records_in(notebook).items()
        }
        for notebook in sorted(folder.glob("*.ipynb"))
    }
    write_text(path, json.dumps(new, indent=1, ensure_ascii=False) + "\n")


def _usual(name, value):
    """The tolerance that a new metric starts with; ``None``: not compared."""
    if "seconds" in name or "times_" in name:
        return None
    return 0.02 if isinstance(value, float) else 0


def _read(text):
    return courses.book(courses.read(text))


def _keep_outputs(notebook, old):
    """Give the cells whose source is the same as before the outputs they had; an edited cell has none until it runs."""
    new_cells, old_cells = ([c for c in n.cells if c.cell_type == "code"] for n in (notebook, old))
    sources = ([cell.source for cell in cells] for cells in (old_cells, new_cells))
    for start, new_start, size in difflib.SequenceMatcher(None, *sources, autojunk=False).get_matching_blocks():
        for before, cell in zip(old_cells[start : start + size], new_cells[new_start : new_start + size]):
            cell.outputs, cell.execution_count = before.outputs, before.execution_count
    if "widgets" in old.metadata:
        notebook.metadata["widgets"] = old.metadata["widgets"]


def _lines(one, other):
    one, other = one.splitlines(), other.splitlines()
    size = max(len(one), len(other))
    return zip(one + [""] * (size - len(one)), other + [""] * (size - len(other)))


def _metadata(cell):
    metadata = {name: value for name, value in cell.metadata.items() if name not in _RUNTIME_METADATA}
    metadata["tags"] = sorted(metadata.get("tags", []))
    return metadata


def main(argv=None):
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("sync", "check", "reference"))
    parser.add_argument("--folder", type=Path, default=NOTEBOOKS, help="default: the notebooks of this clone")
    arguments = parser.parse_args(argv)
    if arguments.command == "sync":
        try:
            for path in sync(arguments.folder):
                print(f"wrote {path.name}")
        except EditedError as error:
            print(error, file=sys.stderr)
            return 1
        return 0
    if arguments.command == "reference":
        reference(arguments.folder)
        return 0
    problems = check(arguments.folder)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
