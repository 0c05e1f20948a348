"""Every chapter keeps the contract of the book: its text, its parts, its outputs, and the numbers that it recorded."""

import ast
import importlib.util
import json
import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from tlutils import results

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REFERENCE = ROOT / "book" / "results" / "reference.json"
EXECUTED = ROOT / "_build" / "notebooks"
REPOSITORY = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
PARAMETERS = {"PROFILE": "quick", "GPU": "auto", "SEED": 0, "DATASET": None, "BACKBONE": None}
# What measures: a number that comes from one of these is another one on another machine.
LIVE = {
    *("linear_probe", "fine_tune", "train_from_scratch", "solve_classifier", "solve_regressor", "tune"),
    *("evaluate", "predict", "extract", "fit", "repeat", "perf_counter", "time"),
}

_STATE = "application/vnd.jupyter.widget-state+json"
_VIEW = "application/vnd.jupyter.widget-view+json"


# --- the contract, one function a clause; each returns a sentence a problem -------------------------------------------


def tags(cell):
    return cell.metadata.get("tags", [])


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def prose(notebook):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def called(tree):
    """Names of the functions and methods called in a syntax tree."""
    functions = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {getattr(function, "attr", getattr(function, "id", None)) for function in functions}


def parsed(cell):
    """A cell's statements; lines of IPython's own are left out."""
    return ast.parse(re.sub(r"^(\s*)[%!].*", r"\1pass", cell.source, flags=re.MULTILINE))


def opening(notebook, name):
    """The first cell: title, Colab link, what the reader will be able to do, time and memory, what to know first."""
    first = notebook.cells[0]
    if first.cell_type != "markdown":
        return ["the first cell is no text"]
    problems = []
    if not re.match(r"# \S", first.source):
        problems.append("the first cell does not begin with a title")
    link = f"colab.research.google.com/github/{REPOSITORY.split('github.com/')[-1]}/blob/main/notebooks/{name}.ipynb"
    if link not in first.source:
        problems.append(f"the first cell has no link to {link}")
    able = re.search(r"You will be able to\S*\s+((?:[-*] .*(?:\n(?![-*]).+)*\n*)+)", first.source)
    verbs = len(re.findall(r"^[-*] ", able[1], re.MULTILINE)) if able else 0
    if not 3 <= verbs <= 5:
        problems.append(f"“You will be able to” lists {verbs} things, not 3 to 5")
    return problems + [
        f"the opening does not say {part!r}" for part in ("Time and memory", "know first") if part not in first.source
    ]


def parameters(notebook, name):
    """One cell with the five parameters and their defaults; the Colab cell just before it."""
    cells = code(notebook)
    places = [i for i, cell in enumerate(cells) if "parameters" in tags(cell)]
    if len(places) != 1:
        return [f"{len(places)} cells are tagged parameters, not 1"]
    (place,) = places
    found = {
        target.id: ast.literal_eval(statement.value)
        for statement in ast.parse(cells[place].source).body
        for target in statement.targets
    }
    problems = [] if found == PARAMETERS else [f"the parameters are {found}, not {PARAMETERS}"]
    if place != 1 or "google.colab" not in cells[0].source:
        problems.append("the Colab cell does not stand just before the parameters")
    return problems


def ending(notebook, name):
    """Exercises with solutions, Summary and Further reading, in this order; literature is cited."""
    text = prose(notebook)
    places = [text.find(f"\n## {title}\n") for title in ("Exercises", "Summary", "Further reading")]
    problems = (
        []
        if -1 < places[0] < places[1] < places[2]
        else ["Exercises, Summary, Further reading: not all three in order"]
    )
    if places[2] >= 0 and "{cite" not in text[places[2] :]:
        problems.append("Further reading cites nothing")
    exercises = re.findall(r"\{exercise(?:-start)?\}[^\n]*\n(?:[^\n]*\n)*?:label: *(\S+)", text)
    solved = re.findall(r"\{solution(?:-start)?\} *(\S+)", text)
    if len(exercises) < 4:
        problems.append(f"{len(exercises)} exercises, not 4 or more")
    return problems + [f"exercise {label} has no solution" for label in exercises if label not in solved]


def exercises_grade_themselves(notebook, name):
    """Every exercise has a cell to fill in, which says nothing, and a check, which passed; no wrong answer is shown."""
    count = len(re.findall(r"\{exercise(?:-start)?\}", prose(notebook)))
    stubs, checks, wrong = (
        [cell for cell in code(notebook) if tag in tags(cell)] for tag in ("stub", "check", "wrong")
    )
    problems = [
        f"{count} exercises have {len(cells)} cells tagged {tag}"
        for tag, cells in (("stub", stubs), ("check", checks))
        if len(cells) != count
    ]
    problems += [f"a wrong answer is shown: {cell.source}" for cell in wrong]
    problems += [f"a stub puts something out: {cell.source}" for cell in stubs if cell.outputs]
    said = ["".join(output.get("text", output.output_type) for output in cell.outputs) for cell in checks]
    return problems + [f"a check says {text!r}" for text in said if not re.fullmatch(r"Passed: .{1,58}\n", text)]


def at_imagenet_scale(notebook, name):
    """A section of this name before the exercises, with a box of three to six numbers of this very chapter."""
    if not re.match(r"\d\d_", name):
        return []  # a page beside the chapters
    text = prose(notebook)
    section = re.search(r"\n## At ImageNet scale\n(.*?)\n## Exercises\n", text, re.DOTALL)
    if not section:
        return ["no section “At ImageNet scale” stands before the exercises"]
    problems = [] if "{glue} imagenet_scale" in section[1] else ["the section “At ImageNet scale” shows no box"]
    calls = [
        node
        for cell in code(notebook)
        for node in ast.walk(parsed(cell))
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "at_imagenet_scale"
    ]
    if len(calls) != 1:
        return [*problems, f"at_imagenet_scale is called {len(calls)} times, not once"]
    chapter, numbers = map(ast.literal_eval, calls[0].args)
    if chapter != name:
        problems.append(f"the box is that of {chapter}")
    if not 3 <= len(numbers) <= 6:
        problems.append(f"the box has {len(numbers)} numbers, not 3 to 6")
    missing = sorted({*numbers} - {*results.records_in(notebook)})
    return problems + [f"the box has {key!r}, which the chapter does not record" for key in missing]


def claims(notebook, name):
    """At least one claim, and every one held."""
    problems = [] if any("claim" in called(parsed(cell)) for cell in code(notebook)) else ["nothing is claimed"]
    return problems + [line for text in texts(notebook) for line in text.splitlines() if line.startswith("✗")]


def moving_figure(notebook, name):
    """At least one slider, stored with its state, whose pictures are described."""
    state = notebook.metadata.get("widgets", {}).get(_STATE, {}).get("state", {})
    views = [output for cell in code(notebook) for output in cell.outputs if _VIEW in output.get("data", {})]
    problems = [] if views else ["no figure moves"]
    problems += ["a figure has no stored state" for view in views if view.data[_VIEW]["model_id"] not in state]
    pictures = [model["state"] for model in state.values() if model["model_name"] == "ImageModel"]
    if views and len(pictures) < 2:
        problems.append("a slider needs pictures")
    return problems + ["a picture of a slider has no description" for picture in pictures if not picture.get("tooltip")]


def described_pictures(notebook, name):
    """Every picture that a cell shows has a text for those who cannot see it."""
    problems = []
    for position, cell in enumerate(notebook.cells, 1):
        shown = [output.get("data", {}) for output in cell.get("outputs", [])]
        if not any(_VIEW not in bundle and any(kind.startswith("image/") for kind in bundle) for bundle in shown):
            continue
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        if len(alt.split()) < 4:
            problems.append(f"cell {position} shows a picture and describes it as {alt!r}")
    return problems


def executed(notebook, name):
    """Every cell ran, in order, without a word on stderr and without an error but those that are meant."""
    counts = [cell.execution_count for cell in code(notebook)]
    problems = [] if counts == list(range(1, len(counts) + 1)) else ["not every cell was executed, or not in order"]
    for position, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr":
                problems.append(f"cell {position} writes to stderr: {output.text[:80]!r}")
            if output.output_type == "error" and "raises-exception" not in tags(cell):
                problems.append(f"cell {position} fails: {output.ename}")
    return problems


def ignored_numbers(notebook, name):
    """A cell that records what was measured live is tagged nbval-ignore-output; a stored study never changes."""
    live, problems = set(), []
    for position, cell in enumerate(notebook.cells, 1):
        for statement in parsed(cell).body if cell.cell_type == "code" else ():
            measured = called(statement) & LIVE or loaded(statement) & live
            live = live | stored(statement) if measured else live - stored(statement)
            if measured and "record" in called(statement) and "nbval-ignore-output" not in tags(cell):
                problems.append(f"cell {position} records what was measured live and is not tagged nbval-ignore-output")
    return problems


def loaded(statement):
    """Names that a statement takes from outside: neither loop variables nor what belongs to a function inside it."""
    own = set()
    for node in ast.walk(statement):
        if isinstance(node, (ast.For, ast.comprehension)):
            own |= names(node.target)
        elif isinstance(node, ast.FunctionDef):
            own |= {argument.arg for argument in ast.walk(node) if isinstance(argument, ast.arg)} | names(
                node, ast.Store
            )
    return names(statement, ast.Load) - own


def stored(statement):
    """Names that a statement leaves behind or fills in place: ``scores.append(…)``, ``scores[key] = …``."""
    if isinstance(statement, ast.FunctionDef):
        return {statement.name}
    filled = {
        node.value.id
        for node in ast.walk(statement)
        if isinstance(getattr(node, "value", None), ast.Name)
        and (isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store))
        | (isinstance(node, ast.Attribute) and node.attr in ("append", "extend", "update"))
    }
    return names(statement, ast.Store) | filled


def names(tree, context=(ast.Store, ast.Load)):
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, context)}


def texts(notebook):
    """Everything that the outputs say in words."""
    for cell in code(notebook):
        for output in cell.outputs:
            if output.output_type == "stream":
                yield output.text
            elif output.output_type == "error":
                yield "\n".join([output.evalue, *output.traceback])
            else:
                yield from (str(text) for kind, text in output.data.items() if not kind.startswith("image/"))


def no_paths(notebook, name):
    """No output tells where it was made."""
    places = {
        str(ROOT),
        str(Path.home()),
        sys.prefix,
        "/home/",
        "/Users/",
        "/tmp/",
        "/root",
        "C:\\Users",
        "site-packages",
    } - {"/"}
    return [f"an output holds the path {place}" for text in texts(notebook) for place in places if place in text]


CLAUSES = (
    *(opening, parameters, ending, exercises_grade_themselves, at_imagenet_scale, claims, moving_figure),
    *(described_pictures, executed, ignored_numbers, no_paths),
)


# --- the chapters -----------------------------------------------------------------------------------------------------

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def script():
    spec = importlib.util.spec_from_file_location("notebooks_script", ROOT / "scripts" / "notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def reference():
    assert REFERENCE.is_file(), f"{REFERENCE.relative_to(ROOT)} is missing: the recorded numbers have no references"
    return json.loads(REFERENCE.read_text(encoding="utf-8"))


def test_there_are_chapters():
    assert {"01_first_transfer", "04_feature_extraction", "05_fine_tuning"} <= {path.stem for path in NOTEBOOKS}


def test_notebooks_and_their_texts_agree():
    assert script().check() == []


@each_notebook
@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.__name__)
def test_the_contract_is_kept(path, clause):
    assert clause(nbformat.read(path, 4), path.stem) == []


def test_committed_numbers_are_those_of_the_references():
    records = {path.stem: results.records_in(path) for path in NOTEBOOKS}
    assert results.check(records, reference()) == []


def test_every_reference_has_a_tolerance_of_its_own():
    for metrics in reference().values():
        for metric in metrics.values():
            assert set(metric) == {"value", "tolerance"}


def test_every_glued_number_is_recorded():
    """The book would fail on a missing name only when it is built."""
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, 4)
        glued = set(re.findall(r"\{glue(?::\w+)?\}[` ]([\w.-]+)", prose(notebook)))
        shown = {
            output.metadata["scrapbook"]["name"]
            for cell in code(notebook)
            for output in cell.outputs
            if "scrapbook" in output.get("metadata", {})
        }
        assert glued <= shown, f"{path.stem} quotes {sorted(glued - shown)}, which it does not record"


def test_numbers_measured_on_this_machine_are_those_of_the_references():
    report_file = EXECUTED / "report.json"
    if not report_file.is_file():
        pytest.skip("`make book` has not run here")
    if changed := newer(report_file, ROOT / "tlutils"):
        pytest.skip(f"{changed} has been changed since the last run of `make book`")
    report = json.loads(report_file.read_text(encoding="utf-8"))
    if report["profile"] != "quick" or any(
        PARAMETERS[name] != value for name, value in report["parameters"].items() if name != "GPU"
    ):
        pytest.skip("the last run of `make book` was not the reference set-up")
    committed = {path.stem: nbformat.read(path, 4) for path in NOTEBOOKS}
    records = {}
    for run in report["notebooks"]:
        name = run["notebook"]
        ran = EXECUTED / run["output"]
        if run["status"] in ("waiting", "running"):
            continue  # that run was interrupted
        if name not in committed or not ran.is_file() or sources(nbformat.read(ran, 4)) != sources(committed[name]):
            continue  # the chapter has been edited since
        assert run["status"] == "ok", f"{name}: {run['error']}"
        records[name] = run["records"]
    if not records:
        pytest.skip("every chapter has been edited since the last run of `make book`, or that run was interrupted")
    expected = {name: metrics for name, metrics in reference().items() if name in records}
    assert results.check(records, expected) == []


def newer(file, folder):
    """The name of a file of the package that is newer than ``file``, or None."""
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    changed = (path for path in files if path.stat().st_mtime > file.stat().st_mtime)
    return next((path.relative_to(folder.parent).as_posix() for path in changed), None)


def test_a_report_is_older_than_what_was_changed_after_it(tmp_path):
    report, package = tmp_path / "report.json", tmp_path / "tlutils"
    (package / "__pycache__").mkdir(parents=True)
    for path, time in ((report, 100), (package / "a.py", 50), (package / "__pycache__" / "a.pyc", 200)):
        path.touch()
        os.utime(path, (time, time))
    assert newer(report, package) is None
    os.utime(package / "a.py", (150, 150))
    assert newer(report, package) == "tlutils/a.py"


def sources(notebook):
    return [cell.source for cell in code(notebook) if "injected-parameters" not in tags(cell)]


# --- the clauses can fail ---------------------------------------------------------------------------------------------


def recorded(name):
    kind = "application/papermill.record/"
    return nbformat.v4.new_output(
        "display_data",
        data={f"{kind}text/plain": "0.5"},
        metadata={"scrapbook": {"name": name, "mime_prefix": kind}},
    )


def sound():
    """A notebook of a few cells that keeps the contract."""
    v4 = nbformat.v4
    link = (
        f"https://colab.research.google.com/github/{REPOSITORY.split('github.com/')[-1]}/blob/main/notebooks/00_x.ipynb"
    )
    exercises = "".join(
        f"```{{exercise}}\n:label: x-{i}\n\nDo.\n```\n\n```{{solution}} x-{i}\nDone.\n```\n\n" for i in range(4)
    )
    picture = {"model_name": "ImageModel", "state": {"tooltip": "rate: 1"}}
    cells = [
        v4.new_markdown_cell(
            f"# Title\n\n[![Open in Colab](badge.svg)]({link})\n\n"
            "**You will be able to**\n\n- do;\n- see,\n  and hear;\n- say.\n\n"
            "**Time and memory.** Little.\n\n**What to know first.** Nothing."
        ),
        v4.new_code_cell('import sys\n\nif "google.colab" in sys.modules:\n    %pip install x'),
        v4.new_code_cell(
            'PROFILE = "quick"\nGPU = "auto"\nSEED = 0\nDATASET = None\nBACKBONE = None',
            metadata={"tags": ["parameters"]},
        ),
        v4.new_code_cell(
            'score = training.linear_probe(model, task).seconds\nrecord("score", score)',
            metadata={"tags": ["nbval-ignore-output"]},
        ),
        v4.new_code_cell(
            'rows = results.load("study")\nrecord("gain", rows["gain"])',
            outputs=[recorded(name) for name in ("gain", "loss", "time")],
        ),
        v4.new_code_cell(
            "plots.curves(history)",
            metadata={"mystnb": {"image": {"alt": "Two curves that fall with time."}}},
            outputs=[v4.new_output("display_data", data={"image/png": "aGk=", "text/plain": "<Figure>"})],
        ),
        v4.new_code_cell(
            "explore.picture_slider(frames)",
            outputs=[
                v4.new_output("display_data", data={_VIEW: {"model_id": "a"}, "image/png": "aGk=", "text/plain": "x"})
            ],
        ),
        v4.new_code_cell(
            'record("imagenet_scale", at_imagenet_scale("00_x", {"gain": "a", "loss": "b", "time": "c"}))\n'
            'claim("it falls", True)',
            outputs=[v4.new_output("stream", name="stdout", text="✓ it falls\n")],
        ),
        v4.new_markdown_cell(f"## At ImageNet scale\n\n```{{glue}} imagenet_scale\n```\n\n## Exercises\n\n{exercises}"),
        v4.new_markdown_cell("## Summary\n\nMuch.\n\n## Further reading\n\n{cite:t}`one`"),
    ]
    for number in range(4):
        passed = v4.new_output("stream", name="stdout", text="Passed: it is right\n")
        cells.append(v4.new_code_cell(f"answer_{number} = ...", metadata={"tags": ["stub"]}))
        cells.append(v4.new_code_cell('passed("it is right")', metadata={"tags": ["check"]}, outputs=[passed]))
    notebook = v4.new_notebook(cells=cells)
    notebook.metadata["widgets"] = {
        _STATE: {"state": {"a": {"model_name": "StackModel", "state": {}}, "b": picture, "c": picture}}
    }
    for count, cell in enumerate(code(notebook), 1):
        cell.execution_count = count
    return nbformat.from_dict(notebook)


def replaced(cell, old, new):
    def change(notebook):
        assert old in notebook.cells[cell].source
        notebook.cells[cell].source = notebook.cells[cell].source.replace(old, new)

    return change


def output(cell, **fields):
    return lambda notebook: notebook.cells[cell].outputs.append(nbformat.v4.new_output(**fields))


def without_state(notebook):
    notebook.metadata["widgets"][_STATE]["state"].pop("a")


def without_tooltip(notebook):
    notebook.metadata["widgets"][_STATE]["state"]["b"]["state"]["tooltip"] = ""


DEFECTS = [
    (opening, replaced(0, "00_x.ipynb", "99_y.ipynb")),
    (opening, replaced(0, "# Title", "Title")),
    (opening, replaced(0, "- do;\n", "")),
    (opening, replaced(0, "Time and memory", "Time")),
    (parameters, replaced(2, "SEED = 0", "SEED = 1")),
    (parameters, replaced(2, "BACKBONE = None", "EPOCHS = 3")),
    (parameters, replaced(1, "google.colab", "google")),
    (parameters, lambda notebook: notebook.cells[2].metadata.update(tags=[])),
    (parameters, lambda notebook: notebook.cells.insert(2, nbformat.v4.new_code_cell("x = 1"))),
    (ending, replaced(8, "## Exercises", "## Questions")),
    (ending, replaced(9, "## Summary", "## Further reading")),
    (ending, replaced(9, "{cite:t}`one`", "a book")),
    (ending, replaced(8, ":label: x-3", "")),
    (ending, replaced(8, "{solution} x-2", "{solution} x-9")),
    (exercises_grade_themselves, lambda notebook: notebook.cells[10].metadata.clear()),
    (exercises_grade_themselves, lambda notebook: notebook.cells[11].metadata.update(tags=["wrong"])),
    (exercises_grade_themselves, lambda notebook: notebook.cells[11].outputs.clear()),
    (exercises_grade_themselves, output(10, output_type="stream", name="stdout", text="Ellipsis\n")),
    (exercises_grade_themselves, output(11, output_type="stream", name="stdout", text="Passed: twice\n")),
    (at_imagenet_scale, replaced(8, "## At ImageNet scale", "## Larger")),
    (at_imagenet_scale, replaced(8, "{glue} imagenet_scale", "{glue} gain")),
    (at_imagenet_scale, replaced(7, '"00_x"', '"01_y"')),
    (at_imagenet_scale, replaced(7, '"loss": "b", ', "")),
    (at_imagenet_scale, replaced(7, '"loss"', '"lost"')),
    (at_imagenet_scale, replaced(7, "at_imagenet_scale(", "dict(")),
    (claims, replaced(7, "claim", "print")),
    (claims, output(7, output_type="stream", name="stdout", text="✗ did not hold here: it rises\n")),
    (moving_figure, lambda notebook: notebook.cells[6].outputs.clear()),
    (moving_figure, without_state),
    (moving_figure, without_tooltip),
    (described_pictures, lambda notebook: notebook.cells[5].metadata.clear()),
    (described_pictures, lambda notebook: notebook.cells[5].metadata.mystnb.image.update(alt="plot")),
    (executed, lambda notebook: notebook.cells[4].update(execution_count=None)),
    (executed, lambda notebook: notebook.cells[4].update(execution_count=9)),
    (executed, output(4, output_type="stream", name="stderr", text="warning")),
    (executed, output(4, output_type="error", ename="KeyError", evalue="", traceback=[])),
    (ignored_numbers, lambda notebook: notebook.cells[3].metadata.update(tags=[])),
    (ignored_numbers, replaced(4, 'rows["gain"]', "score")),
    (
        ignored_numbers,
        replaced(4, 'record("gain", rows["gain"])', 'rows.append(score)\nfor row in rows:\n    record("gain", row)'),
    ),
    (no_paths, output(4, output_type="stream", name="stdout", text="saved to /home/someone/model.keras")),
    (no_paths, output(4, output_type="stream", name="stdout", text=f"{ROOT}/notebooks")),
]


@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.__name__)
def test_a_sound_notebook_has_no_problem(clause):
    assert clause(sound(), "00_x") == []


@pytest.mark.parametrize(("clause", "defect"), DEFECTS)
def test_each_defect_is_found_by_its_clause_alone(clause, defect):
    notebook = sound()
    defect(notebook)
    assert clause(notebook, "00_x")


def test_an_error_that_is_meant_is_none():
    notebook = sound()
    output(4, output_type="error", ename="KeyError", evalue="", traceback=[])(notebook)
    notebook.cells[4].metadata["tags"] = ["raises-exception"]
    assert executed(notebook, "00_x") == []
