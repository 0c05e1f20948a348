"""The notebooks of a course: all that belongs to an exercise is there, and nothing of a solution is left over."""

import copy
import json
import os
import re
import subprocess
import sys
import time
import venv
from pathlib import Path

import courses
import jupytext
import nbformat
import plain_markdown
import pytest

from tlutils import exercises, runner

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.stem for path in (ROOT / "notebooks" / "text").glob("*.md"))
each_chapter = pytest.mark.parametrize("name", NAMES)

# --- a chapter of a few lines, to break in every way ------------------------------------------------------------------

TEXT = """\
---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# Small numbers

[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/x)

```{{code-cell}} ipython3
:tags: [parameters]

SEED = 0
```

```{{code-cell}} ipython3
:tags: [hide-input]

def double(number):
    return 2 * number


record("two", double(1))
```

Twice one is {{glue:text}}`two:.1f`, as {{cite:t}}`one` says.

## Exercises

For the reader of the book.

```{{exercise}}
:label: ex-three
:nonumber: true

**{kind}.** What is three times two? See {{term}}`words <word>`.
```

```{{code-cell}} ipython3
:tags: [stub]

{stub}
```

```{{solution-start}} ex-three
:class: dropdown
```

```{{code-cell}} ipython3
:tags: [solution]

{solution}
```

It is the sum of {{eq}}`eq-three` and two.

{criteria}

```{{code-cell}} ipython3
:tags: [solution, nbval-ignore-output]

print("six of one")
```

```{{solution-end}}
```

```{{code-cell}} ipython3
:tags: [check]

{check}
```

```{{code-cell}} ipython3
:tags: [wrong]
:says: {says}

{wrong}
```

## Summary

Numbers are small.
"""
SOUND = {
    "kind": "Explain",
    "stub": "six = ...  # a number",
    "solution": "four = double(2)\nsix = four + 2",
    "criteria": "**A full answer says:**\n\n- Three times two is two times two\n  and two.\n- Two is even.",
    "check": "from tlutils import exercises\n\nexercises.numbers(six=six)\n"
    'exercises.expect(six - double(2) == 2, "no")\nexercises.passed("right")',
    "wrong": "# twice is thrice\nsix = double(2)",
    "says": '"no"',
}


def chapter_text(**changes):
    return TEXT.format(**{**SOUND, **changes})


def as_notebook(text):
    notebook = jupytext.reads(text, fmt="md:myst")
    notebook.metadata.pop("jupytext", None)
    return notebook


@pytest.fixture
def clone(tmp_path):
    """A folder like ``notebooks`` with the small chapter, executed."""
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "01_small.md").write_text(chapter_text(), encoding="utf-8")
    notebook = courses.book(as_notebook(chapter_text()))
    kind = "application/papermill.record/text/plain"
    outputs = {
        "record": nbformat.v4.new_output(
            "display_data", data={kind: "2"}, metadata={"scrapbook": {"name": "two", "mime_prefix": kind[:-10]}}
        ),
        "six of one": nbformat.v4.new_output("stream", text="six of one\n"),
        "passed": nbformat.v4.new_output("stream", text="Passed: right\n"),
    }
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, cell in enumerate(cells, 1):
        cell.execution_count = count
        cell.outputs = [output for word, output in outputs.items() if word in cell.source]
    runner.write(runner.tidy(notebook), tmp_path / "01_small.ipynb")
    bib = "@book{one, author = {Doe, Jane and van der Wahl, J{\\'o}n}, title = {A}, year = {1999}}"
    (tmp_path / "references.bib").write_text(bib, encoding="utf-8")
    return tmp_path


def small(clone):
    (chapter,) = courses.load(folder=clone, bibliography=clone / "references.bib")
    return chapter


# --- reading a chapter ------------------------------------------------------------------------------------------------


def test_a_chapter_is_split_into_what_belongs_to_whom():
    pieces = courses.pieces(as_notebook(chapter_text()))
    roles = [(piece.role, piece.label, piece.cell.cell_type) for piece in pieces]
    own = "ex-three"
    assert roles == [
        ("chapter", None, "markdown"),
        ("chapter", None, "code"),
        ("chapter", None, "code"),
        ("chapter", None, "markdown"),
        ("chapter", None, "markdown"),  # the heading of the exercises
        ("intro", None, "markdown"),
        ("exercise", own, "markdown"),
        ("stub", own, "code"),
        ("solution", own, "code"),
        ("solution", own, "markdown"),
        ("solution", own, "code"),
        ("check", own, "code"),
        ("wrong", own, "code"),
        ("chapter", None, "markdown"),
    ]
    (exercise,) = courses.exercises_in(as_notebook(chapter_text()))
    assert (exercise.label, exercise.kind) == (own, "Explain")
    assert exercise.criteria == ["Three times two is two times two and two.", "Two is even."]
    assert exercise.points == (courses.POINTS["Explain"], 2)
    assert exercise.mistakes == [("twice is thrice", "six = double(2)", "no")]


def test_a_sound_chapter_has_no_problem():
    assert courses.problems(as_notebook(chapter_text())) == []
    assert courses.problems(as_notebook(chapter_text(kind="Do", criteria=""))) == []


DEFECTS = [
    (chapter_text(kind="Think"), "begins with none of"),
    (chapter_text(criteria=""), "no list after"),
    (chapter_text(stub="..."), "the stub gives no name"),
    (chapter_text(stub="six = undefined"), "the stub needs undefined"),
    (chapter_text(stub="six, seven = ..., ..."), "the solution does not give seven"),
    (chapter_text(stub="six = ...\nseven = ...", solution="six = seven = 6"), "the check does not look at seven"),
    (chapter_text(check="assert four + 2 == six"), "the check needs four"),
    (chapter_text(solution="six = half(12)"), "the solution needs half"),
    (chapter_text(wrong="# half of it\nsix = half(12)"), "a wrong answer needs half"),
    (chapter_text(wrong="six = 5"), "must begin with a comment"),
    (chapter_text(says='""'), "which words it must get"),
    (
        chapter_text(solution="def double(number):\n    return 6\n\n\nsix = double(1)"),
        "it changes 'double' of the chapter",
    ),
    (chapter_text().replace(":tags: [stub]", ":tags: []"), "0 cells are tagged stub"),
    (chapter_text().replace(":tags: [check]", ":tags: [stub]"), "2 cells are tagged stub"),
    (chapter_text().replace(":tags: [solution]", ":tags: []"), "inside the solution is not tagged"),
    (chapter_text().replace(":tags: [wrong]", ":tags: [solution]"), "outside solution-start and solution-end"),
    (chapter_text().replace(":tags: [wrong]", ":tags: []"), "it has no wrong answer"),
    (chapter_text().replace(":tags: [hide-input]", ":tags: [check]"), "belongs to no exercise"),
    (chapter_text().replace(":label: ex-three", ":label: ex.three"), "its label must consist of"),
]


@pytest.mark.parametrize(("text", "words"), DEFECTS)
def test_each_defect_is_said(text, words):
    assert any(words in problem for problem in courses.problems(as_notebook(text))), courses.problems(as_notebook(text))


def test_a_check_before_the_solution_would_fail_in_the_book():
    start, end = "```{solution-start} ex-three\n:class: dropdown\n```\n\n", "```{solution-end}\n```\n\n"
    text = chapter_text()
    check = re.search(r"```\{code-cell\} ipython3\n:tags: \[check\]\n.*?\n```\n\n", text, re.DOTALL)[0]
    moved = text.replace(check, "").replace(start, check + start)
    assert end in moved
    assert any("not in order" in problem for problem in courses.problems(as_notebook(moved)))


@pytest.mark.parametrize(
    ("code", "bound", "free"),
    [
        ("x = y", {"x"}, {"y"}),
        ("x = x + 1", {"x"}, {"x"}),
        ("x += 1", {"x"}, {"x"}),
        ("x[0] = y", set(), {"x", "y"}),
        ("import a.b as c, d.e", {"c", "d"}, set()),
        ("z = [i * k for i in xs]", {"z"}, {"k", "xs"}),
        ("for i in range(n):\n    s = i", {"i", "s"}, {"n"}),
        ("def f(a, b=1):\n    c = a\n    return c + g(h)\n\n\ndef g(x):\n    return x", {"f", "g"}, {"h"}),
        ("with open(p) as file:\n    t = file.read()", {"file", "t"}, {"p"}),
        ("%pip install x\nq = len(w)", {"q"}, {"w"}),
        ("f = lambda a: a + b", {"f"}, {"b"}),
    ],
)
def test_names_are_those_that_python_binds_and_needs(code, bound, free):
    names = courses._Names(nbformat.v4.new_code_cell(code))
    assert (names.bound, names.free) == (bound, free)


# --- the book ---------------------------------------------------------------------------------------------------------


def test_the_book_has_no_wrong_answers_and_folds_checks_away():
    book = courses.book(as_notebook(chapter_text()))
    tags = [cell.metadata.get("tags", []) for cell in book.cells]
    assert not any("wrong" in own for own in tags)
    assert [own for own in tags if "check" in own] == [["check", "hide-input"]]
    hidden = [
        cell.metadata.get("jupyter") for cell in book.cells if {"check", "solution"} & {*cell.metadata.get("tags", [])}
    ]
    assert hidden == [{"source_hidden": True}] * 3  # two solutions and the check


# --- the student's notebook -------------------------------------------------------------------------------------------


def everything_in(notebook):
    """Every line of a notebook, whichever cell, output or metadata it stands in, without indentation."""
    lines = set()

    def visit(value):
        if isinstance(value, dict):
            for one in value.values():
                visit(one)
        elif isinstance(value, list):
            for one in value:
                visit(one)
        else:
            lines.update(" ".join(line.split()) for line in str(value).splitlines())

    visit(json.loads(nbformat.writes(notebook)))
    lines.discard("")
    return lines


def telling(text):
    """The lines of a text that would tell something: not those of brackets and of one short word."""
    lines = {" ".join(line.split()) for line in text.splitlines()}
    return {line for line in lines if len(re.sub(r"\W", "", line)) >= 4}


def left_over(source, executed, sheet):
    """Lines of solutions and wrong answers, and of what they put out, that a notebook holds and the chapter does not.

    Found without the code under test: by the markers of the text and the tags of the cells.
    """
    private, public, solving = [], [], False
    for cell in source.cells:
        if cell.cell_type == "code":
            secret = {"solution", "wrong"} & {*cell.metadata.get("tags", [])}
            (private if secret else public).append(cell.source)
            if "says" in cell.metadata:
                private.append(f"says {cell.metadata.says}")
            continue
        for line in cell.source.splitlines():
            if re.match(r"`{3,}\{solution-start\}", line):
                solving = True
            elif re.match(r"`{3,}\{solution-end\}", line):
                solving = False
            elif not re.match(r"`{3,}|:\w+:", line):
                (private if solving else public).append(line)
    for cell in executed.cells:
        if "solution" in cell.metadata.get("tags", []):
            for output in cell.outputs:
                said = [output.get("text", ""), *map(str, output.get("data", {}).values())]
                private += [re.sub(r"^✓ ", "", line) for text in said for line in text.splitlines()]
    held, known = everything_in(sheet), telling("\n".join(public))
    secrets = telling("\n".join(private)) - known
    return {
        secret for secret in secrets if secret in held or (len(secret) > 20 and any(secret in line for line in held))
    }


def test_a_students_notebook_asks_and_does_not_tell(clone):
    sheet = courses.student(small(clone))
    text = "\n".join(cell.source for cell in sheet.cells)
    assert left_over(as_notebook(chapter_text()), nbformat.read(clone / "01_small.ipynb", 4), sheet) == set()
    assert "six = ...  # a number" in text and 'exercises.passed("right")' in text
    assert "### Exercise 1: 3 points\n\n**Explain.** What is three times two? See words." in text
    assert "*3 points in all." in text
    assert "Twice one is 2.0, as Doe and van der Wahl (1999) says." in text
    assert "For the reader of the book" not in text and "Open in Colab" not in text
    assert sheet.cells[-2].source == courses._PROMPT  # room for the words
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in sheet.cells)
    nbformat.validate(sheet)


def test_a_left_over_is_found_wherever_it_is(clone):
    chapter = small(clone)
    source, executed = as_notebook(chapter_text()), nbformat.read(clone / "01_small.ipynb", 4)
    for put in (
        lambda sheet: sheet.cells[-3].update(source="six = four + 2"),
        lambda sheet: sheet.cells[-3].metadata.update(answer="four = double(2)"),
        lambda sheet: sheet.metadata.update(note=["- Three times two is two times two"]),
        lambda sheet: sheet.cells[-3].outputs.append(nbformat.v4.new_output("stream", text="six of one\n")),
    ):
        sheet = courses.student(chapter)
        put(sheet)
        assert left_over(source, executed, sheet)


# --- the instructor's notebook ----------------------------------------------------------------------------------------


def release(notebook):
    """What nbgrader hands out: regions of solutions replaced by a stub (here nothing), outputs cleared, no metadata."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if cell.metadata.pop("nbgrader", {}).get("solution"):
            cell.source, count = re.subn(r"(?ms)^[^\n]*BEGIN SOLUTION.*?END SOLUTION[^\n]*", "", cell.source)
            assert count == 1
        cell.source = cell.source.rstrip()
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata.pop("widgets", None)
    return runner.tidy(notebook)


def graded(notebook):
    return [cell.metadata["nbgrader"] for cell in notebook.cells if "nbgrader" in cell.metadata]


def test_an_instructors_notebook_has_it_all(clone):
    chapter = small(clone)
    notebook = courses.instructor(chapter)
    nbformat.validate(notebook)
    answer, check, written = (cell for cell in notebook.cells if "nbgrader" in cell.metadata)
    assert answer.source.startswith("six = ...  # a number\n\n### BEGIN SOLUTION\nfour = double(2)\nsix = four + 2\n")
    assert "twice is thrice: “… no …”" in answer.source and answer.outputs[0].text == "six of one\n"
    assert check.outputs[0].text == "Passed: right\n"
    assert "- Two is even.\n" in written.source and "It is the sum of" in written.source
    flags = {"schema_version": 3, "grade": False, "locked": False, "solution": False, "task": False}
    assert graded(notebook) == [
        {**flags, "grade_id": "ex-three", "solution": True},
        {**flags, "grade_id": "ex-three-check", "grade": True, "locked": True, "points": 1},
        {**flags, "grade_id": "ex-three-written", "grade": True, "solution": True, "points": 2},
    ]
    assert release(notebook) == courses.student(chapter)


def test_pictures_of_a_solution_are_not_kept_where_nbgrader_does_not_clear_them(clone):
    path, view, state = clone / "01_small.ipynb", *("application/vnd.jupyter.widget-view+json", "widget-state+json")
    executed = nbformat.read(path, 4)
    shown = {"a" * 32: "double(1)", "b" * 32: "six of one"}
    for model, word in shown.items():
        cell = next(cell for cell in executed.cells if word in cell.source and cell.cell_type == "code")
        cell.outputs.append(nbformat.v4.new_output("display_data", data={view: {"model_id": model}}))
    models = {model: {"model_name": "M", "state": {"value": f"secret of {model[0]}"}} for model in shown}
    executed.metadata["widgets"] = {f"application/vnd.jupyter.{state}": {"state": models}}
    runner.write(executed, path)
    kept = nbformat.writes(courses.instructor(small(clone)))
    assert "secret of a" in kept and "secret of b" not in kept
    assert "secret of" not in nbformat.writes(courses.student(small(clone)))


def test_the_marking_scheme_has_points_criteria_and_mistakes(clone):
    scheme = courses.marking_scheme([small(clone)])
    assert "| 1 `ex-three` | Explain | 1 | 2 |\n| **3 points** | | 1 | 2 |" in scheme
    assert "- Two is even." in scheme and "six = four + 2" in scheme
    assert "- Twice is thrice. The check says “… no …”.\n\n  ```python\n  six = double(2)\n  ```" in scheme


def test_a_claim_of_a_solution_is_not_told_by_the_box_of_numbers(clone):
    """The box lists claims that did not hold at ImageNet scale; those of solutions would tell what to expect."""
    notebook = as_notebook(chapter_text())
    made, told = (next(cell for cell in notebook.cells if word in cell.source) for word in ("six of", "SEED"))
    made.outputs = [nbformat.v4.new_output("stream", text="✓ six < seven\n")]
    kind = "application/papermill.record/text/html"
    told.outputs = [
        nbformat.v4.new_output(
            "display_data", data={kind: "<ul><li>six &lt; seven</li></ul>"}, metadata={"scrapbook": {"name": "box"}}
        )
    ]
    assert courses._glued(notebook) == {"box": "<ul><li>a claim of a solution</li></ul>"}


# --- errors and the command line --------------------------------------------------------------------------------------


def test_an_older_notebook_is_not_used(clone):
    text = clone / "text" / "01_small.md"
    text.write_text(text.read_text(encoding="utf-8").replace("double(2)", "double(2) + 0"), encoding="utf-8")
    with pytest.raises(courses.CourseError, match=r"01_small\.ipynb is missing or older"):
        small(clone)
    (clone / "01_small.ipynb").unlink()
    with pytest.raises(courses.CourseError, match=r"01_small\.ipynb is missing or older"):
        small(clone)


def test_an_unknown_chapter_and_an_unsound_one_are_named(clone):
    with pytest.raises(courses.CourseError, match="no chapter is called '02'; there are 01_small"):
        courses.load(["02"], clone, clone / "references.bib")
    (clone / "text" / "01_small.md").write_text(chapter_text(kind="Think"), encoding="utf-8")
    with pytest.raises(courses.CourseError, match="01_small: ex-three: the question begins with none of"):
        small(clone)


def test_the_commands_write_what_they_say(tmp_path, capsys):
    for command, files in (
        ("student", {f"{NAMES[0]}.ipynb"}),
        ("instructor", {f"{NAMES[0]}.ipynb", "marking_scheme.md", "nbgrader_config.py"}),
    ):
        out = tmp_path / command
        assert courses.main([command, NAMES[0][:2], "--out", str(out)]) == 0
        assert {path.name for path in out.iterdir()} == files
        assert re.match(r"1 notebooks with \d+ points are in ", capsys.readouterr().out)
    compile((tmp_path / "instructor" / "nbgrader_config.py").read_text(), "nbgrader_config.py", "exec")
    assert courses.main(["student", "99"]) == 1
    assert "no chapter is called '99'" in capsys.readouterr().err
    assert courses.main(["seal", "ex", "ca"]) == 0
    assert capsys.readouterr().out.strip() == exercises.seal("ex", "ac")


# --- plain Markdown ---------------------------------------------------------------------------------------------------


@pytest.fixture
def convert():
    texts = ["```{math}\n:label: eq-a\na\n```", "```{math}\n:label: eq-b\nb\n```"]
    return plain_markdown.Converter(
        texts,
        {"gain": 0.123, "box": "<table></table>"},
        {"05_next": "The next"},
        {"a": ("Doe", "1999"), "b": ("Roe", "2001")},
    )


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("{term}`heads <head>` and {term}`logits`", "heads and logits"),
        ("{term}`paired comparisons <paired\ncomparison>`", "paired comparisons"),
        ("by {glue:text}`gain:+.1%` or {glue:text}`gain`", "by +12.3% or 0.123"),
        ("{doc}`05_next`, {doc}`it <05_next>`", "[The next](05_next.ipynb), [it](05_next.ipynb)"),
        ("{doc}`../book/running` {ref}`here <place>`", "running here"),
        ("{cite:t}`a` and {cite:p}`a,b`", "Doe (1999) and (Doe, 1999; Roe, 2001)"),
        ("see {eq}`eq-b`", "see (2)"),
        ("```{math}\n:label: eq-b\nb = 1\n```", "$$\nb = 1\n\\tag{2}\n$$"),
        ("(place)=\n## Title", "## Title"),
        ("text\n\n(place)=", "text"),
        ("````{admonition} On {term}`x`\n:class: tip\n\n```{glue} box\n```\n````", "> **On x**\n> \n> <table></table>"),
        ("```python\n{term}`x`\n```{exercise}\n```", "```python\n{term}`x`\n```{exercise}\n```"),
        ("```{unknown} a\nb\n```", "```{unknown} a\nb\n```"),
        (":::{quiz}\nWhat?\n\n1. {term}`That`.\n:::", "What?\n\n1. That."),
        ("| `{x}` | {y} |", "| `{x}` | {y} |"),
    ],
)
def test_markdown_becomes_plain(convert, text, plain):
    assert convert(text) == plain


# --- the chapters -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chapters():
    return {chapter.name: chapter for chapter in courses.load(NAMES)}


def text_of(name):
    return courses.read(ROOT / "notebooks" / "text" / f"{name}.md")


@each_chapter
def test_every_exercise_has_a_stub_a_check_a_solution_and_a_wrong_answer(name):
    assert courses.problems(text_of(name)) == []
    kinds = {exercise.kind for exercise in courses.exercises_in(text_of(name))}
    assert kinds == {*courses.POINTS}


@each_chapter
def test_nothing_of_a_solution_is_left_for_students(chapters, name):
    sheet = courses.student(chapters[name])
    assert left_over(text_of(name), nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4), sheet) == set()
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in sheet.cells)
    assert {*sheet.metadata} == {"kernelspec", "language_info"}
    known = {"tags", "jupyter", "cellView"}
    assert all({*cell.metadata} <= known for cell in sheet.cells)


@each_chapter
def test_jupyter_shows_no_role_of_the_book(chapters, name):
    for cell in courses.student(chapters[name]).cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"\{[a-z:-]+\}`|^(`{3,}|:{3,})\{|^\([\w-]+\)=", cell.source, re.MULTILINE), cell.source


@each_chapter
def test_nbgrader_would_make_the_students_notebook(chapters, name):
    assert release(courses.instructor(chapters[name])) == courses.student(chapters[name])


@each_chapter
def test_metadata_are_as_nbgrader_wants_them(chapters, name):
    """The rules of nbgrader's schema 3 (nbgraderformat/v3.json and v3.py of its release 0.9.6)."""
    notebook = courses.instructor(chapters[name])
    kinds = {"schema_version": int, "grade": bool, "locked": bool, "solution": bool, "task": bool, "grade_id": str}
    for cell in notebook.cells:
        if "nbgrader" not in cell.metadata:
            assert "BEGIN SOLUTION" not in cell.source  # nbgrader would stop
            continue
        own = cell.metadata["nbgrader"]
        assert all(type(own[key]) is kind for key, kind in kinds.items()) and {*own} <= {*kinds, "points"}
        assert own["schema_version"] == 3 and re.fullmatch(r"[a-zA-Z0-9_-]+", own["grade_id"])
        assert ("points" in own) == own["grade"] and own.get("points", 1) > 0
        assert own["grade"] or own["solution"]
        assert own["locked"] == (own["grade"] and not own["solution"])
        assert cell.cell_type == "code" or (own["grade"] and own["solution"])
        assert cell.source.count("BEGIN SOLUTION") == cell.source.count("END SOLUTION") == own["solution"]


def test_ids_are_unique_and_points_add_up(chapters):
    ids = [own["grade_id"] for chapter in chapters.values() for own in graded(courses.instructor(chapter))]
    assert len(ids) == len({*ids})
    scheme = courses.marking_scheme(list(chapters.values()))
    for chapter in chapters.values():
        points = sum(own.get("points", 0) for own in graded(courses.instructor(chapter)))
        assert any(f"*{points} points in all." in cell.source for cell in courses.student(chapter).cells)
        assert f"| **{points} points** |" in scheme.split(f"## {chapter.title}\n")[1]
        headed = re.findall(r"^### Exercise \d+: (\d+) point", courses.marking_scheme([chapter]), re.MULTILINE)
        assert sum(map(int, headed)) == points


# --- the checks, in a kernel ------------------------------------------------------------------------------------------


class Kernel:
    """A kernel that runs cells, in the folder of the notebooks and as the chapters are run."""

    def __init__(self):
        from ipykernel.kernelspec import get_kernel_dict
        from jupyter_client.kernelspec import KernelSpec
        from jupyter_client.manager import KernelManager

        class ThisPython(KernelManager):
            kernel_spec = property(lambda self: KernelSpec(**get_kernel_dict()))

        self.manager = ThisPython()
        self.manager.start_kernel(cwd=str(ROOT / "notebooks"))
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=120)
        self.run(f"import sys\nsys.path.insert(0, {str(ROOT)!r})")

    def run(self, code):
        """Run a cell; return what it printed, and the name and the text of its error (or empty strings)."""
        printed = []

        def hook(message):
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])

        reply = self.client.execute_interactive(code, output_hook=hook, timeout=600, allow_stdin=False)["content"]
        return "".join(printed), reply.get("ename", ""), reply.get("evalue", "")

    def end(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel():
    kernel = Kernel()
    yield kernel
    kernel.end()


@pytest.mark.slow
@each_chapter
def test_stubs_and_wrong_answers_get_their_messages_and_solutions_pass(kernel, name):
    """The chapter runs once. Then each exercise: not filled in, filled in wrongly in every way, and solved."""
    notebook = text_of(name)
    for piece in courses.pieces(notebook):
        if piece.role == "chapter" and piece.cell.cell_type == "code":
            _, ename, evalue = kernel.run(piece.cell.source)
            assert not ename, f"{piece.cell.source}\n{ename}: {evalue}"
    problems = []
    for exercise in courses.exercises_in(notebook):
        stub, check = exercise.code("stub"), exercise.code("check")

        def answer(cells, stub=stub, check=check):
            """Run the stub, what fills it in, and the check; return what the check printed, and its error."""
            for code in (stub, *cells):
                _, ename, evalue = kernel.run(code)
                assert not ename, f"{code}\n{ename}: {evalue}"
            return kernel.run(check)

        begin = time.monotonic()
        _, ename, said = answer([])
        if ename != "NotSolvedError" or not said.startswith("not answered yet: "):
            problems.append(f"{exercise.label}, not filled in: {ename}: {said}")
        for cell in exercise.cells("wrong"):
            _, ename, said = answer([cell.source])
            if ename != "NotSolvedError" or cell.metadata.says not in said or said.startswith("not answered"):
                problems.append(f"{exercise.label}, {cell.source.splitlines()[0]}: {ename}: {said}")
        printed, ename, said = answer([cell.source for cell in exercise.cells("solution")])
        if ename or not re.fullmatch(r"Passed: .+\n", printed):
            problems.append(f"{exercise.label}, solved: {printed} {ename}: {said}")
        print(f"{exercise.label}: {time.monotonic() - begin:.1f} s")
    assert problems == []


# --- nbgrader itself --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nbgrader_makes_the_students_notebook_from_the_instructors(chapters, tmp_path):
    """With its own settings nothing of a solution is left either; with ours the notebook is that of `make student`."""
    folder = ROOT / "_build" / "nbgrader"
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    wanted = re.search(r'"(nbgrader[^"]*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))[1]
    ready = folder / ".ready"
    if not ready.is_file() or ready.read_text() != wanted:
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", wanted], check=True)
        ready.write_text(wanted)
    # nbgrader calls alembic by its name
    environment = {**os.environ, "PATH": os.pathsep.join([str(python.parent), os.environ["PATH"]])}
    for settings in ("their own", "ours"):
        course = tmp_path / settings
        source = course / "source" / "book"
        source.mkdir(parents=True)
        for chapter in chapters.values():
            runner.write(courses.instructor(chapter), source / f"{chapter.name}.ipynb")
        if settings == "ours":
            (course / "nbgrader_config.py").write_text(courses.CONFIG)
        command = [python, "-m", "nbgrader", "generate_assignment", "book"]
        run = subprocess.run(command, cwd=course, capture_output=True, text=True, env=environment)
        assert run.returncode == 0, run.stdout + run.stderr
        for name, chapter in chapters.items():
            released = nbformat.read(course / "release" / "book" / f"{name}.ipynb", 4)
            executed = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4)
            assert left_over(text_of(name), executed, released) == set()
            if settings == "ours":
                sources = [cell.source.rstrip() for cell in released.cells]
                assert sources == [cell.source for cell in courses.student(chapter).cells]
