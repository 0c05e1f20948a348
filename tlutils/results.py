"""Numbers that cannot drift: what a notebook measures, what it claims, and what long experiments have stored.

A notebook calls :func:`record` for each number that the prose quotes and :func:`claim` for each statement that must
hold. The book glues the recorded numbers, and the checks compare them with committed references (:func:`check`).
Studies that take longer than a chapter are stored with their origin by :func:`save` and read back by :func:`load`. So
is what a chapter measured with ImageNet networks, which it shows by :func:`at_imagenet_scale`.
"""

import ast
import datetime
import difflib
import json
import os
import platform
import re
import sys
from html import escape
from importlib import metadata
from pathlib import Path

from tlutils import runtime, tables

# How myst_nb's glue marks a value that is stored but not shown. Importing myst_nb for this one string would pull Sphinx
# into every notebook.
_GLUE_PREFIX = "application/papermill.record/"
_PACKAGES = ("tensorflow", "keras", "numpy", "scikit-learn")
_DISTRIBUTIONS = {"tensorflow": ("tensorflow", "tensorflow-cpu")}
_TITLES = {"tensorflow": "TensorFlow", "keras": "Keras", "numpy": "NumPy"}
_HELD, _NOT_HELD = "✓ ", "✗ did not hold here: "  # how a printed claim begins

_context = {"reference": True}


class ClaimError(AssertionError):
    """A claim of a chapter did not hold in the set-up for which the chapter states it."""


def set_context(reference):
    """Say whether this run is the set-up that the chapters describe.

    Args:
        reference (bool): True for the quick profile with the default data, backbone and seed. A claim that fails then
            stops the run; in any other set-up it is reported and the run goes on.
    """
    _context["reference"] = bool(reference)


def claim(statement, holds):
    """Check a statement of the chapter and print it.

    Args:
        statement (str): The statement in words, without measured numbers, so that the printed line is always the same.
        holds (bool): Whether it is true in this run.

    Raises:
        ClaimError: The statement is false in the reference set-up (see :func:`set_context`).
    """
    if holds:
        print(f"{_HELD}{statement}")
    elif _context["reference"]:
        raise ClaimError(f"this claim did not hold: {statement}")
    else:
        print(f"{_NOT_HELD}{statement}")


def record(name, value):
    """Store a measured value in the notebook, so that the text can quote it with ``{glue:text}`name:.2f```.

    Nothing is shown. Outside a notebook the value is only checked. Numbers and strings also go to ``results.json`` in
    the folder given to :func:`tlutils.runtime.keep`, if there is one.

    Args:
        name (str): Letters, digits, ``_``, ``-`` and ``.``; unique in its notebook.
        value: A number, a string, or an object with ``_repr_html_`` (a table, for ``{glue}`name```). NumPy and
            TensorFlow scalars become plain Python numbers.

    Raises:
        ValueError: The name holds another character (a colon separates name and format in the text).
        TypeError: The value is none of these.
    """
    if not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"cannot record under the name {name!r}: use letters, digits, '_', '-' and '.' only")
    value = _plain(value)
    if isinstance(value, (bool, int, float, str)):
        bundle = {"text/plain": repr(value)}
    elif hasattr(value, "_repr_html_"):
        bundle = {"text/plain": repr(value), "text/html": value._repr_html_()}
    else:
        raise TypeError(
            f"cannot record {name!r}: its value is a {type(value).__name__}; "
            "give a number, a string or an object with _repr_html_"
        )
    if _in_notebook():
        from IPython.display import display

        display(
            {_GLUE_PREFIX + kind: content for kind, content in bundle.items()},
            raw=True,
            metadata={"scrapbook": {"name": name, "mime_prefix": _GLUE_PREFIX}},
        )
    path = runtime.kept("results.json")
    if path is not None and len(bundle) == 1:
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        write_text(path, json.dumps(known | {name: value}, indent=1, ensure_ascii=False) + "\n")


def records_in(notebook):
    """Read back the numbers and strings that an executed notebook recorded; tables are left out.

    Args:
        notebook: A path, or a notebook read by nbformat.

    Returns:
        dict: name to value.

    Raises:
        ValueError: Two outputs carry the same name, so that the book would not know which one to quote.
    """
    records = {}
    for output in _outputs(notebook):
        name = output.get("metadata", {}).get("scrapbook", {}).get("name")
        if name is None:
            continue
        if name in records:
            raise ValueError(f"{name!r} is recorded twice; give each recorded value a name of its own")
        if set(output.data) == {f"{_GLUE_PREFIX}text/plain"}:
            records[name] = _parse(output.data[f"{_GLUE_PREFIX}text/plain"])
    return records


def printed_in(notebook):
    """Read back what an executed notebook, a path or one read by nbformat, printed: a list of lines."""
    streams = (output.text for output in _outputs(notebook) if output.get("name") == "stdout")
    return [line for text in streams for line in text.splitlines()]


def claims_in(notebook):
    """Read back what an executed notebook claimed (:func:`claim`).

    Args:
        notebook: A path, or a notebook read by nbformat.

    Returns:
        list: ``{"claim": statement, "held": bool}``, in the order in which they were made.
    """
    return [
        {"claim": line.removeprefix(start), "held": start == _HELD}
        for line in printed_in(notebook)
        for start in (_HELD, _NOT_HELD)
        if line.startswith(start)
    ]


def _outputs(notebook):
    if isinstance(notebook, (str, os.PathLike)):
        import nbformat

        notebook = nbformat.read(notebook, 4)
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def check(records, reference):
    """Compare recorded values with their committed references.

    Args:
        records (dict): notebook name to (metric name to value), see :func:`records_in`.
        reference (dict): notebook name to (metric name to ``{"value": v, "tolerance": t}``), as in
            ``book/results/reference.json``. A number may differ by ``t`` at most and anything else must be equal; with
            ``null`` for ``t`` (seconds, for one) nothing is compared.

    Returns:
        list: One sentence a problem: a value out of tolerance, a metric that was not recorded, one without a reference.
    """
    problems = []
    for notebook in sorted({*records, *reference}):
        found, expected = records.get(notebook, {}), reference.get(notebook, {})
        for name in sorted({*found, *expected}):
            where = f"{notebook}: {name!r}"
            if name not in found:
                problems.append(f"{where} has a reference but was not recorded")
            elif name not in expected:
                problems.append(f"{where} was recorded as {found[name]!r} but has no reference")
            else:
                value, target, tolerance = found[name], expected[name]["value"], expected[name].get("tolerance", 0)
                if tolerance is None:
                    continue
                if _is_number(value) and _is_number(target):
                    # written so that NaN is a problem
                    if not abs(value - target) <= tolerance:
                        problems.append(
                            f"{where} is {value:.6g}, not within {tolerance:g} of its reference {target:.6g}"
                        )
                elif value != target:
                    problems.append(f"{where} is {value!r}, its reference is {target!r}")
    return problems


def save(name, rows=None, *, metrics=None, command, seconds=None, **origin):
    """Store an experiment in ``book/results/NAME.json`` together with where it comes from.

    Args:
        name (str): File name without ``.json``; it may begin with a folder, as in ``"full/01_first_transfer"``.
        rows (list): One dict a measurement, such as ``{"method": "probe", "labels_per_class": 5, "seed": 0, …}``.
        metrics (dict): Single values, by name.
        command (str): What a reader types to measure it again, such as ``"make experiments"``.
        seconds (float): How long it took.
        origin: Whatever else there is to say about where it comes from, such as ``backbone="mobilenet_v2"``.

    Returns:
        Path: The file.

    Raises:
        FileNotFoundError: This is an installed copy without the book's ``book/results`` folder.
        TypeError: A value is no number, string, list or dict (NumPy's are converted).
    """
    path = folder() / f"{name}.json"
    head = {
        "name": name,
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": None if seconds is None else round(seconds, 1),
        "versions": versions(),
        "machine": machine(),
        **origin,
        "metrics": metrics or {},
    }
    text = json.dumps(head, indent=1, ensure_ascii=False, default=_storable)
    # one row a line, so that a diff shows which measurements changed
    lines = ",\n".join("  " + json.dumps(row, ensure_ascii=False, default=_storable) for row in rows or [])
    text = text.removesuffix("\n}") + ',\n "rows": [' + (f"\n{lines}\n " if lines else "") + "]\n}\n"
    path.parent.mkdir(exist_ok=True)
    write_text(path, text)
    return path


def folder():
    """Return the clone's folder of stored experiments, ``book/results``; FileNotFoundError in an installed copy."""
    own = _stored_folders()[0]
    if not own.is_dir():
        raise FileNotFoundError(
            f"{own} does not exist: experiments are stored in a clone of the book, not in a package"
        )
    return own


def write_text(path, text):
    """Write a text file in one step, so that nobody ever finds half of it; the same bytes on every system."""
    new = path.with_name(path.name + ".new")
    new.write_text(text, encoding="utf-8", newline="\n")
    os.replace(new, path)


def load(name):
    """Read a stored experiment.

    Returns:
        dict: ``rows`` and ``metrics``, and their origin: ``command``, ``date``, ``seconds``, ``versions``, ``machine``.

    Raises:
        ValueError: No experiment has this name; the message suggests the nearest one.
    """
    files = _stored_files()
    if name not in files:
        near = difflib.get_close_matches(name, files, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(files)) or 'none'}"
        raise ValueError(f"no stored experiment is called {name!r}; {hint}")
    return json.loads(files[name].read_text(encoding="utf-8"))


def provenance_line(result):
    """Say in one sentence on what, with what, how and when a stored experiment (see :func:`load`) was measured."""
    versions, machine = result["versions"], result["machine"]
    software = ", ".join(f"{_TITLES.get(name, name)} {versions[name]}" for name in _PACKAGES if versions.get(name))
    seconds = result.get("seconds")
    duration = "" if seconds is None else f", {seconds:.0f} s" if seconds < 120 else f", {seconds / 60:.0f} minutes"
    cores = f"{machine['cores']} core{'s' if machine['cores'] != 1 else ''}"
    device = machine.get("device")  # only runs that may use a GPU say what they used
    gpu = "" if device is None else ", without a GPU," if device == "CPU" else f" and {device}"
    return (
        f"Measured on {machine['cpu']} ({cores}, {machine['system']}){gpu} with Python {versions['python']}"
        f"{', ' + software if software else ''}: `{result['command']}`, {result['date']}{duration}."
    )


def at_imagenet_scale(chapter, numbers):
    """Show what a chapter measured with an ImageNet network, as ``tlutils run NN --profile full --record`` stored it.

    It shows the stored run and never the one it is called in, so that a chapter's box says the same in every profile.

    Args:
        chapter (str): The notebook's name, such as ``"01_first_transfer"``.
        numbers (dict): Name of a recorded number to what it is, in words.

    Returns:
        Something to :func:`record`: a table of the numbers, the claims of the chapter that did not hold there, and the
        origin; without a stored run the sentence "Not run yet." and how to run it, and no number.
    """
    name = f"full/{chapter}"
    if name not in _stored_files():
        return _Box((), (), (), f"Not run yet. To run it: `tlutils run {chapter} --profile full --record`.")
    stored = load(name)
    metrics, claims = stored["metrics"], {row["claim"] for row in stored["rows"]}
    failed = {row["claim"]: _in_context(stored["rows"], i) for i, row in enumerate(stored["rows"]) if not row["held"]}
    rows = [(words, _shown(metrics[key]) if key in metrics else "not recorded") for key, words in numbers.items()]
    if failed:
        verdict = f"{len(failed)} of {len(claims)} claims of the chapter did not hold in that run:"
    else:
        verdict = f"All {len(claims)} claims of the chapter held in that run."
    setup = (
        f"{stored['backbone']} on {stored['dataset']}: {stored['images']:,} images, {stored['classes']} classes; "
        f"at most {stored['peak_mb'] / 1000:.1f} GB of memory.{_known_line(stored)} {verdict}"
    )
    return _Box(
        ("number", "at ImageNet scale"), rows, failed.values(), setup, provenance_line(stored), _t4_line(stored)
    )


def _known_line(stored):
    """What accuracies are worth where ImageNet has classes of the photographs among its own (trap 9)."""
    known, classes = stored.get("classes_of_imagenet", 0), stored["classes"]
    if not known:
        return ""
    some = "both" if known == classes == 2 else "all" if known == classes else f"{known}"
    return f" ImageNet has {some} of these classes, so an accuracy here says little about classes that are new to it."


def _in_context(rows, i):
    """A claim, with the one before it in brackets where it only goes on: "(it learns by heart) and is of no use"."""
    text = rows[i]["claim"]
    goes_on = i > 0 and text.startswith(("and ", "but ", "it ", "they "))
    return f"({_in_context(rows, i - 1)}) {text}" if goes_on else text


def t4_minutes(stored):
    """Minutes that an NVIDIA T4 would take for what the networks of a stored run (see :func:`load`) have computed.

    An estimate from the multiply-adds that were counted, see :func:`tlutils.cost.t4_minutes`.

    Returns:
        ``(minutes, minutes)``: for the images that the run had, and for those of the full profile's own data set, if
        the work grows with the number of images.
    """
    from tlutils import cost

    minutes = cost.t4_minutes(stored["multiply_adds"])
    return minutes, minutes * _own_images()[1] / stored["images"]


def _own_images():
    """Name and number of images of the full profile's own data set."""
    from tlutils import data

    name = runtime.BUDGETS["full"]["dataset"]
    return name, data.registry()[name].download.contents.files


def _t4_line(stored):
    from tlutils import cost

    if stored.get("multiply_adds") is None:
        return "What its networks computed was not counted."
    (name, images), missing = _own_images(), len(stored["uncounted"])
    here, own = map(_minutes, t4_minutes(stored))
    without = f" (without {missing} network{'s' if missing > 1 else ''} that cannot be counted)" if missing else ""
    larger = "" if stored["dataset"] == name else f", and {own} with the {images:,} images of {name}"
    return (
        f"Counted: {_shown(stored['multiply_adds'] / 1e12)} trillion multiply-adds of networks{without}. A T4 at "
        f"{cost.T4_SHARE:.0%} of its float32 peak ({cost.T4_FLOPS / 1e12:.1f} TFLOPS, NVIDIA's data sheet) takes "
        f"{here} for them{larger}: an estimate, not a measurement."
    )


def _minutes(value):
    return "less than a minute" if value < 1 else f"about {value:.0f} minute{'s' if round(value) > 1 else ''}"


class _Box:
    """A table, a list and sentences around it, for a terminal and for a page; `code` stands between backticks."""

    def __init__(self, heading, rows, items, before, *after):
        self.heading, self.rows, self.items, self.before, self.after = heading, rows, items, before, after

    def __repr__(self):
        table = [tables.as_text(self.heading, self.rows, "")] if self.rows else []
        return "\n".join([*table, self.before, *(f"- {item}" for item in self.items), *self.after])

    def _repr_html_(self):
        table = tables.as_html(self.heading, self.rows, "") if self.rows else ""
        items = f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in self.items)}</ul>" if self.items else ""
        before, *after = (
            re.sub("`(.*?)`", r"<code>\1</code>", f"<p>{escape(text)}</p>") for text in (self.before, *self.after)
        )
        return "".join([table, before, items, *after])


def versions():
    """Return the installed versions of Python and the packages that results depend on; None for one that is missing."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        found[package] = None
        for distribution in _DISTRIBUTIONS.get(package, (package,)):
            try:
                found[package] = metadata.version(distribution)
                break
            except metadata.PackageNotFoundError:
                continue
    return found


def machine():
    """Return the processor's model, the number of cores this process may use, and the operating system."""
    cpu = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    except OSError:
        pass  # not Linux
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": cpu, "cores": cores, "system": platform.system()}


def _stored_folders():
    """Folders that may hold stored experiments; the first one, the clone's own, wins."""
    package = Path(__file__).parent
    return package.parent / "book" / "results", package / "stored"


def _stored_files():
    """Name to path of every stored experiment: ``"first_transfer"``, ``"full/01_first_transfer"``."""
    return {
        path.relative_to(stored).with_suffix("").as_posix(): path
        for stored in reversed(_stored_folders())
        for path in sorted(stored.rglob("*.json"))
    }


def _shown(value):
    """A recorded value for a reader: whole numbers in full, others with about three digits."""
    if not _is_number(value):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value)
    if 0 < size < 5e-4:
        return f"{value:.0e}"
    return f"{value:,.{3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0}f}"


def _plain(value):
    """Turn a NumPy or TensorFlow scalar into a Python number, an array into a list; leave the rest as it is."""
    if hasattr(value, "numpy"):
        value = value.numpy()
    if type(value).__module__ == "numpy":
        return value.tolist()
    return value


def _storable(value):
    plain = _plain(value)
    if plain is value:
        raise TypeError(
            f"cannot store a {type(value).__name__}: rows and metrics hold numbers, strings, lists and dicts"
        )
    return plain


def _parse(text):
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return float(text) if text in ("nan", "inf", "-inf") else text


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _in_notebook():
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return hasattr(shell, "kernel")
