"""Run the notebooks with papermill: parameters, progress, time limits, peak memory, and the same bytes every time.

Each notebook gets a worker process of its own, which drives papermill and the kernel. The parent watches the kernel's
memory and can always end the whole process tree, so that a notebook that hangs costs its time limit and nothing else.
"""

import contextlib
import copy
import dataclasses
import datetime
import hashlib
import json
import multiprocessing
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

import nbformat
import psutil

from tlutils import results, runtime
from tlutils.notes import suggestion

TIMEOUT = {"quick": 300, "full": 1800}  # seconds a cell

_STATE = "application/vnd.jupyter.widget-state+json"
_VIEW = "application/vnd.jupyter.widget-view+json"
_REFERENCE = re.compile(r"IPY_MODEL_([0-9a-f]{32})")
_HEX_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
_LANGUAGE = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}
_POLL = 0.1  # seconds between two looks at the memory: short enough not to miss an array that lives for a cell
# Added to a notebook while its results are recorded; it says what tlutils.cost.Counter has counted.
_COUNT = """
import json as _json

from tlutils.cost import Counter as _Counter

_counter = _Counter.running
print(_json.dumps(_counter and {"multiply_adds": _counter.multiply_adds, "uncounted": sorted(_counter.uncounted)}))
"""
_COUNT_TAG = "multiply-adds"
_GRACE = 60  # seconds beyond the time limit of a cell, after which a silent worker is ended from outside


class UsageError(ValueError):
    """What was asked for does not exist or does not fit together; the message is one sentence for the user."""


@dataclasses.dataclass
class Outcome:
    """How the run of one notebook went."""

    notebook: str
    output: Path
    status: str = "waiting"  # then "running", and finally "ok", "failed" or "timed out"
    cells: int = 0
    cells_done: int = 0
    seconds: float = 0.0
    peak_mb: float = 0.0
    failed_cell: str | None = None
    error: str | None = None
    digest: str | None = None  # of the notebook as it was when it began to run
    records: dict = dataclasses.field(default_factory=dict)
    multiply_adds: int | None = None  # that its networks have computed; counted only while results are recorded
    uncounted: list = dataclasses.field(default_factory=list)  # networks that could not be counted


# --- finding notebooks ------------------------------------------------------------------------------------------------


def notebooks_folder():
    """Return ``notebooks/`` of the current folder, or else of the clone that this package is installed from."""
    here = Path.cwd() / "notebooks"
    return here if here.is_dir() else Path(__file__).parents[1] / "notebooks"


def find(names, folder=None):
    """Turn what the user typed into paths.

    Args:
        names (list): Each a path, a chapter number (``"5"``), or the beginning of a name (``"05_fine"``). Empty: all.
        folder (Path): Where the notebooks are; :func:`notebooks_folder` by default.

    Returns:
        list: Paths in reading order (all of them), or in the order asked for.

    Raises:
        UsageError: Nothing or more than one notebook fits a name; the message suggests the nearest.
    """
    folder = folder or notebooks_folder()
    known = {path.stem: path for path in sorted(folder.glob("*.ipynb"))}
    if not names and not known:
        raise UsageError(
            f"there is no notebook in {folder}; run this in a clone of the book, or give a notebook's path"
        )
    paths = [_find_one(name, known) for name in names] if names else list(known.values())
    stems = [path.stem for path in paths]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice:
        raise UsageError(f"{twice!r} was asked for twice; each notebook runs once")
    return paths


def _find_one(name, known):
    path = Path(name)
    if path.suffix == ".ipynb" and path.is_file():
        return path.resolve()
    prefix = f"{int(name):02d}_" if name.isdecimal() else path.name.removesuffix(".ipynb")
    hits = [stem for stem in known if stem == prefix] or [stem for stem in known if stem.startswith(prefix)]
    if len(hits) == 1:
        return known[hits[0]]
    if hits:
        raise UsageError(f"{name!r} fits more than one notebook: {', '.join(hits)}")
    raise UsageError(f"no notebook is called {name!r}; {suggestion(prefix, known)}")


# --- running ----------------------------------------------------------------------------------------------------------


def run(paths, out, parameters=None, *, jobs=1, timeout=None, report=None, record=False):
    """Execute notebooks and keep the executed copies.

    Args:
        paths (list): Notebooks; they are not changed.
        out (Path): Folder for ``NAME.ipynb`` (executed, also where it failed) and ``report.json``.
        parameters (dict): Values for the notebooks' ``parameters`` cell, such as ``{"PROFILE": "full"}``. What is left
            out keeps the notebook's own default.
        jobs (int): Notebooks to run at the same time. They share the processor's cores between them.
        timeout (int): Seconds a single cell may take; by default :data:`TIMEOUT` of the profile.
        report (callable): Called with the list of outcomes after every change and at least every few seconds.
        record (bool): Store what each notebook recorded and claimed in ``book/results/full``, as soon as it has
            succeeded. :func:`tlutils.results.at_imagenet_scale` shows it.

    Returns:
        list: An :class:`Outcome` a notebook, in the order of ``paths``.

    Raises:
        UsageError: ``out`` is the folder of one of the notebooks, which would be overwritten, or holds one of the same
            name that no earlier run has written. With ``record``: this is not the full profile, the backbone is one of
            the pocket zoo, or the images cannot be loaded.
        FileNotFoundError: With ``record``: this is an installed copy, not a clone of the book.
    """
    parameters = parameters or {}
    out = Path(out).resolve()
    if any(path.resolve().parent == out for path in paths):
        raise UsageError(f"the executed notebooks would overwrite those in {out}; choose another folder")
    foreign = [path.name for path in paths if (out / path.name).exists()]
    if foreign and not (out / "report.json").is_file():
        raise UsageError(f"{out} holds a {foreign[0]} that no earlier run has written; choose another folder")
    origin = _origin(parameters) if record else None
    out.mkdir(parents=True, exist_ok=True)
    profile = parameters.get("PROFILE", "quick")
    timeout = timeout or TIMEOUT[profile]
    report = report or (lambda outcomes: None)
    # A fixed hash seed: the order of a set of words may not decide what a cell prints.
    environment = {"PYTHONHASHSEED": "0", "PYDEVD_DISABLE_FILE_VALIDATION": "1", "TLUTILS_PROGRESS": "0"}
    environment["TLUTILS_COUNT"] = "1" if record else "0"
    if os.environ.get("KERAS_HOME"):
        environment["KERAS_HOME"] = os.path.abspath(os.environ["KERAS_HOME"])  # the kernel runs in another folder
    if jobs > 1:
        threads = str(max(1, results.machine()["cores"] // jobs))
        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            environment[name] = os.environ.get(name, threads)

    outcomes = [Outcome(path.stem, out / path.name) for path in paths]
    # Now already: it marks the folder as one of ours, even if this run does not come to its end.
    _write_report(out / "report.json", outcomes, parameters, profile)
    waiting, running = list(zip(paths, outcomes)), []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                path, outcome = waiting.pop(0)
                running.append(_Worker(path.resolve(), outcome, parameters, timeout, environment))
            changed = [worker.poll() for worker in running]
            for worker in running:
                if record and worker.outcome.status == "ok":
                    _record(worker.outcome, parameters, jobs, origin)
            running = [worker for worker in running if worker.outcome.status == "running"]
            report(outcomes)
            if not any(changed):
                time.sleep(_POLL)
    finally:
        for worker in running:
            worker.end()
    _write_report(out / "report.json", outcomes, parameters, profile)
    return outcomes


def _origin(parameters):
    """What a run at ImageNet scale runs on; a UsageError where it is no such run, or where nothing could be stored."""
    from tlutils import data, diagnose

    if parameters.get("PROFILE") != "full":
        raise UsageError("only results at ImageNet scale are recorded: choose the full profile (--profile full)")
    chosen = runtime.BUDGETS["full"]
    dataset = parameters.get("DATASET") or chosen["dataset"]
    backbone = parameters.get("BACKBONE") or chosen["backbone"]
    if backbone.startswith("pocket_"):
        raise UsageError(f"only results at ImageNet scale are recorded, and {backbone} has no ImageNet weights")
    results.folder()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", data.DataWarning)  # the notebooks give them
            task = data.load(dataset)
    except data.DataError as error:
        raise UsageError(str(error)) from None
    images = sum(len(part) for part in (task.train, task.val, task.test) if part is not None)
    # of a folder only its name: where it lies on the reader's machine is nobody's business
    return {
        "dataset": Path(dataset).name,
        "images": images,
        "classes": task.num_classes,
        "classes_of_imagenet": sum(bool(diagnose.imagenet_classes(name)) for name in task.class_names),
        "backbone": backbone,
    }


def _record(outcome, parameters, jobs, origin):
    """Store what a notebook recorded and claimed at ImageNet scale."""
    notebook = nbformat.read(outcome.output, 4)
    given = {name.lower(): str(value) for name, value in parameters.items()}
    if "dataset" in given:
        given["dataset"] = origin["dataset"]
    given |= {"jobs": str(jobs)} if jobs > 1 else {}  # notebooks that run side by side take longer
    options = [word for name, value in given.items() for word in (f"--{name}", value)]
    results.save(
        f"full/{outcome.notebook}",
        results.claims_in(notebook),
        metrics=outcome.records,
        command=shlex.join(["tlutils", "run", outcome.notebook, *options, "--record"]),
        seconds=outcome.seconds,
        machine=results.machine() | {"device": runtime.Runtime.device_name_in(results.printed_in(notebook))},
        peak_mb=round(outcome.peak_mb),
        multiply_adds=outcome.multiply_adds,
        uncounted=outcome.uncounted,
        **origin,
    )


def update(paths, outcomes):
    """Write the executed notebooks over the committed ones, tidied.

    Those that failed stay as they are, and so do those that somebody edited while they ran (:func:`edited`).

    Returns:
        list: The paths whose bytes changed.
    """
    done = [(path, outcome) for path, outcome in zip(paths, outcomes) if outcome.status == "ok"]
    done = [(path, outcome) for path, outcome in done if not edited(path, outcome)]
    return [path for path, outcome in done if write(tidy(nbformat.read(outcome.output, 4), committed=True), path)]


def edited(path, outcome):
    """Whether a notebook is no longer the one that ran."""
    return not path.is_file() or _digest(path) != outcome.digest


def _digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


class _Worker:
    """A process that runs one notebook, watched from here."""

    def __init__(self, path, outcome, parameters, timeout, environment):
        self.outcome = outcome
        self.timeout = timeout
        self.begin = self.last_word = time.monotonic()
        self.seen = {}  # every process of the tree, also those whose parent has gone since
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe(duplex=False)
        self.process = context.Process(
            target=_execute, args=(theirs, path, outcome.output, parameters, timeout, environment), daemon=True
        )
        outcome.output.unlink(missing_ok=True)  # of an earlier run
        outcome.status, outcome.digest = "running", _digest(path)
        self.process.start()
        theirs.close()

    def poll(self):
        """Take in news, measure memory, end what hangs; return whether there was news."""
        alive = self.process.is_alive()
        self._measure()
        news = self._receive()
        if self.outcome.status == "running":
            if not alive and not news:
                code = self.process.exitcode
                why = "was killed (out of memory?)" if code == -9 else f"ended with exit code {code}"
                self._fail("failed", f"its process {why}")
            elif time.monotonic() - self.last_word > self.timeout + _GRACE:
                self._fail("timed out", f"nothing happened for {self.timeout + _GRACE:g} s")
        if self.outcome.status != "running":
            self.end()
        return news

    def end(self):
        """End the worker, its kernel, and every process that the notebook started."""
        self._measure()
        processes = [*self.seen.values()]
        with contextlib.suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(self.process.pid))
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                process.kill()
        psutil.wait_procs(processes, timeout=5)
        self.process.join(5)
        self.connection.close()

    def _measure(self):
        total = 0
        try:
            tree = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return
        for process in tree:
            self.seen[process.pid] = process
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += process.memory_info().rss
        self.outcome.peak_mb = max(self.outcome.peak_mb, total / 1e6)

    def _receive(self):
        news = False
        with contextlib.suppress(EOFError, OSError):
            while self.connection.poll():
                for name, value in self.connection.recv().items():
                    setattr(self.outcome, name, value)
                self.last_word = time.monotonic()
                news = True
        return news

    def _fail(self, status, error):
        self.outcome.status, self.outcome.error = status, error
        self.outcome.seconds = time.monotonic() - self.begin


def _execute(connection, source, target, parameters, timeout, environment):
    """Body of a worker: run one notebook, send what happened."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C goes to the parent alone, which then ends this tree in order
    os.environ.update(environment)
    log = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the process lives)
    for descriptor in (1, 2):
        os.dup2(log.fileno(), descriptor)
    try:
        connection.send(_run_notebook(connection, source, target, parameters, timeout))
    except Exception as problem:  # the kernel did not start, or the like: the log knows more
        log.seek(0)
        last = log.read().decode(errors="replace").strip().splitlines()[-1:]
        error = _first_line(f"{type(problem).__name__}: {problem}") + "".join(f" ({line})" for line in last)
        connection.send({"status": "failed", "error": error})


def _run_notebook(connection, source, target, parameters, timeout):
    """Execute with papermill, sending the progress; write the tidied notebook; return the fields of the outcome."""
    import papermill
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    class ThisPython(AsyncKernelManager):
        """Starts this very interpreter, whatever a kernel called python3 in the user's home points to."""

        kernel_spec = property(lambda self: KernelSpec(**get_kernel_dict()))

    notebook = nbformat.read(source, 4)
    _drop_cells(notebook, "injected-parameters")
    if os.environ.get("TLUTILS_COUNT") == "1":
        notebook.cells.append(nbformat.v4.new_code_cell(_COUNT.strip(), metadata={"tags": [_COUNT_TAG]}))
    current = {"notebook": notebook, "cell": None}
    done = 0

    def started(notebook):
        current["notebook"] = notebook
        connection.send({"cells": sum(_runs(cell) for cell in notebook.cells)})

    def cell_starts(cell, cell_index):
        current["cell"] = cell

    def cell_ends(cell, cell_index, execute_reply):
        nonlocal done
        done += 1
        connection.send({"cells_done": done})

    status, error = "ok", None
    begin = time.monotonic()
    try:
        papermill.execute_notebook(
            notebook,
            # papermill formats the path, for which braces in a folder's name must be doubled
            str(target).replace("{", "{{").replace("}", "}}"),
            parameters,
            kernel_name="python3",
            language="python",
            progress_bar=False,
            cwd=str(source.parent),
            execution_timeout=timeout,
            kernel_manager_class=ThisPython,
            on_notebook_start=started,
            on_cell_execute=cell_starts,
            on_cell_executed=cell_ends,
        )
    except PapermillExecutionError:
        pass  # what failed stands in the outputs; papermill also raises for cells that are meant to fail
    except CellTimeoutError:
        status, error = "timed out", f"TimeoutError: the cell took longer than {timeout:g} s"
    except DeadKernelError:
        status, error = "failed", "DeadKernelError: the kernel died (out of memory?)"
    seconds = time.monotonic() - begin

    notebook = current["notebook"]
    if error:
        name, _, message = error.partition(": ")
        current["cell"].outputs.append(nbformat.v4.new_output("error", ename=name, evalue=message, traceback=[error]))
    counted = _counted(notebook)
    _drop_cells(notebook, _COUNT_TAG)
    notebook = tidy(notebook)
    failed_cell = None
    if failure := _failure(notebook):
        failed_cell, in_cell = failure
        status, error = ("failed" if status == "ok" else status), error or in_cell
    records = {}
    try:
        records = results.records_in(notebook)
    except ValueError as problem:
        status, error = ("failed" if status == "ok" else status), error or str(problem)
    write(notebook, target)
    outcome = {"status": status, "error": error, "failed_cell": failed_cell, "seconds": seconds, "records": records}
    return outcome | counted


def _counted(notebook):
    """What the cell that was added to count says, as fields of the outcome; nothing where none was, or did not run."""
    cells = [cell for cell in notebook.cells if _COUNT_TAG in cell.metadata.get("tags", [])]
    said = [output.text for cell in cells for output in cell.outputs if output.get("name") == "stdout"]
    return json.loads("".join(said) or "null") or {}


def _runs(cell):
    return cell.cell_type == "code" and bool(cell.source.strip())


def _failure(notebook):
    """Return ("cell 7, In [4]", "ValueError: …") for the first cell that failed without being meant to, or None."""
    for position, cell in enumerate(notebook.cells, 1):
        if "raises-exception" in cell.metadata.get("tags", []):
            continue
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                count = f", In [{cell.execution_count}]" if cell.execution_count else ""
                return f"cell {position}{count}", _first_line(f"{output.ename}: {output.evalue}")
    return None


def _first_line(text):
    return text.strip().splitlines()[0]


def _write_report(path, outcomes, parameters, profile):
    report = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "profile": profile,
        "parameters": parameters,
        "versions": results.versions(),
        "machine": results.machine(),
        "notebooks": [
            {**dataclasses.asdict(outcome), "output": outcome.output.name, "peak_mb": round(outcome.peak_mb, 1)}
            | {"seconds": round(outcome.seconds, 2)}
            for outcome in outcomes
        ],
    }
    results.write_text(path, json.dumps(report, indent=1, ensure_ascii=False) + "\n")


def table(outcomes):
    """Return the outcomes as lines of text: notebook, status, seconds, peak memory of the kernel in MB (10⁶ bytes)."""
    rows = [("notebook", "status", "seconds", "peak MB")]
    rows += [(o.notebook, o.status, f"{o.seconds:.1f}", f"{o.peak_mb:.0f}") for o in outcomes]
    left, middle = (max(len(row[i]) for row in rows) for i in (0, 1))
    return "\n".join(f"{a:<{left}}  {b:<{middle}}  {c:>7}  {d:>7}" for a, b, c, d in rows)


class Display:
    """Progress on the terminal: one live line for what is running, and a line for each notebook that is done.

    Where the output is not a terminal, as in a log, the live line becomes a line every half minute.
    """

    def __init__(self, stream=None):
        self.stream = sys.stdout if stream is None else stream
        self.live = self.stream.isatty()
        self.begin = self.last = time.monotonic()
        self.shown = {}

    def __call__(self, outcomes):
        for outcome in outcomes:
            if outcome.status != self.shown.get(outcome.notebook, "waiting"):
                self.shown[outcome.notebook] = outcome.status
                self._line(_started(outcome) if outcome.status == "running" else _finished(outcome))
        now = time.monotonic()
        running = [outcome for outcome in outcomes if outcome.status == "running"]
        if running and now - self.last > (0.2 if self.live else 30):
            self.last = now
            text = "   ".join(f"{o.notebook} {o.cells_done}/{o.cells} cells" for o in running)
            text = f"{now - self.begin:4.0f} s   {text}   {max(o.peak_mb for o in running):.0f} MB"
            if self.live:
                width = shutil.get_terminal_size().columns - 1
                self.stream.write("\r" + text[:width].ljust(width))
                self.stream.flush()
            else:
                self._line(text)

    def _line(self, text):
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            self.stream.write("\r" + " " * width + "\r")
        self.stream.write(text + "\n")
        self.stream.flush()


def _started(outcome):
    return f"{outcome.notebook}: running"


def _finished(outcome):
    line = f"{outcome.notebook}: {outcome.status}, {outcome.cells_done}/{outcome.cells} cells, {outcome.seconds:.1f} s"
    return f"{line}, {outcome.peak_mb:.0f} MB"


# --- the same bytes every time ----------------------------------------------------------------------------------------


def tidy(notebook, committed=False):
    """Return an executed notebook without anything that differs from one run to the next.

    Times and unused widgets go, widget and cell ids are numbered by position, execution counts start at 1, and
    neighbouring pieces of printed text become one. What a cell computed stays as it is. Tidying twice changes nothing.

    Args:
        notebook (NotebookNode): Executed or not; it is not changed.
        committed (bool): Leave out the cell with this run's parameters, for the notebook under version control.

    Returns:
        NotebookNode: A copy.
    """
    notebook = copy.deepcopy(notebook)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    _drop_cells(notebook, "papermill-error-cell-tag", *(["injected-parameters"] if committed else []))
    notebook.metadata.pop("papermill", None)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = dict(_LANGUAGE)
    count = 0
    for position, cell in enumerate(notebook.cells, 1):
        cell["id"] = f"cell-{position:02d}"
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]  # papermill gives every cell an empty list
        if cell.cell_type != "code":
            continue
        if cell.execution_count is not None:
            count += 1
            cell.execution_count = count
        cell.outputs = _merge_streams(cell.outputs)
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = cell.execution_count
    return _number_widgets(notebook)


def write(notebook, path):
    """Write a notebook in one step, so that a reader never sees half of it; leave an equal file alone.

    Returns:
        bool: Whether the file changed.
    """
    content = (nbformat.writes(notebook).rstrip("\n") + "\n").encode()
    path = Path(path)
    if path.is_file() and path.read_bytes() == content:
        return False
    new = path.with_name(path.name + ".new")
    new.write_bytes(content)
    os.replace(new, path)
    return True


def _drop_cells(notebook, *tags):
    notebook.cells = [cell for cell in notebook.cells if not {*tags} & {*cell.metadata.get("tags", [])}]


def _merge_streams(outputs):
    merged = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last is not None and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def _number_widgets(notebook):
    """Number the widget models in the order in which the outputs show them, and drop those that no output shows."""
    state = notebook.metadata.get("widgets", {}).get(_STATE, {}).get("state", {})
    if not state:
        notebook.metadata.pop("widgets", None)
        return notebook
    number = {}

    def visit(model):
        if model in state and model not in number:
            number[model] = len(number)
            for other in _REFERENCE.findall(json.dumps(state[model]["state"], sort_keys=True)):
                visit(other)

    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if _VIEW in output.get("data", {}):
                visit(output.data[_VIEW]["model_id"])

    # A link is no part of what is shown, but without it the slider moves nothing.
    def ends(model):
        both = (state[model]["state"].get(end) or ("", "") for end in ("source", "target"))
        return [(number.get(widget.removeprefix("IPY_MODEL_"), -1), trait) for widget, trait in both]

    links = [model for model in state if model not in number and "Link" in state[model]["model_name"]]
    links = sorted((model for model in links if min(ends(model))[0] >= 0), key=ends)
    new = {model: f"{position:032x}" for position, model in enumerate([*number, *links])}
    for model in [model for model in state if model not in new]:
        del state[model]
    if not state:
        notebook.metadata.pop("widgets")
    text = _HEX_ID.sub(lambda match: new.get(match[0], match[0]), nbformat.writes(notebook))
    return nbformat.reads(text, 4)
