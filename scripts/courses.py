"""Derive the notebooks of a course from the chapters: one for students, one for those who teach.

    python scripts/courses.py student        # _build/student: the exercises with their checks, no solution
    python scripts/courses.py instructor     # _build/instructor: solutions, marking scheme, metadata for nbgrader
    python scripts/courses.py seal LABEL ac  # what a check compares a choice of statements with

The one source is ``notebooks/text``. There, below each exercise, stand a cell to fill in (tagged ``stub``), a solution
(``solution``), a check (``check``) and wrong answers with words of the message that they must get (``wrong``). The book
shows all but the wrong answers. CONTRIBUTING.md says how to write them.
"""

import argparse
import ast
import builtins
import copy
import dataclasses
import html
import re
import shutil
import sys
from pathlib import Path

import jupytext
import nbformat
import plain_markdown

from tlutils import exercises
from tlutils.results import claims_in, records_in, write_text
from tlutils.runner import tidy, write

ROOT = Path(__file__).resolve().parents[1]
TAGS = ("stub", "solution", "check", "wrong")
# What the check of an exercise gives, by kind. Where somebody has to read an answer, each criterion gives one more.
POINTS = {"Recall": 1, "Do": 2, "Explain": 1, "Stretch": 3}
_FOLDED = {"jupyter": {"source_hidden": True}, "cellView": "form"}  # the code of a cell, in Jupyter and in Colab
_FULL_ANSWER = re.compile(r"\*\*A full answer says\b[^*]*\*\*[^\n]*\n+((?:- .*\n?(?:(?!- |\n).+\n?)*)+)")
CONFIG = """# Settings for `nbgrader`, to lie beside the folder `source` of your course.
c = get_config()  # noqa: F821

# a chapter trains networks, which takes longer than the 30 seconds that a cell is given otherwise
c.Execute.timeout = 600

# the cells to fill in say what is missing, and the checks answer "not answered yet": nothing has to be added
c.ClearSolutions.code_stub = {"python": ""}
c.ClearSolutions.text_stub = ""
"""


class CourseError(Exception):
    """The notebooks of a course cannot be made; the message says which chapter is at fault and what to do."""


# --- reading a chapter ------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Piece:
    """A cell, or a part of a cell of text, and what it is for.

    ``role`` is one of :data:`TAGS`, ``"exercise"`` (the question), ``"intro"`` (what the book says before the first
    exercise), ``"stray"`` (a solution in the wrong place) or ``"chapter"`` (everything else). ``label`` is that of the
    exercise, or ``None``.
    """

    role: str
    label: str | None
    cell: nbformat.NotebookNode


@dataclasses.dataclass
class Exercise:
    """An exercise with all that belongs to it, in the order of the text."""

    label: str
    kind: str  # a key of POINTS
    question: str
    pieces: list

    def cells(self, *roles, kind="code"):
        """The cells of some roles; ``kind`` is ``"code"`` or ``"markdown"``."""
        return [piece.cell for piece in self.pieces if piece.role in roles and piece.cell.cell_type == kind]

    def code(self, role):
        """The code of one role as one text."""
        return "\n\n".join(cell.source for cell in self.cells(role))

    @property
    def explanation(self):
        """The text of the solution."""
        return "\n\n".join(cell.source for cell in self.cells("solution", kind="markdown"))

    @property
    def criteria(self):
        """What a written answer must say, one point each: the list after “A full answer says”."""
        found = _FULL_ANSWER.search(self.explanation)
        return [" ".join(item.split()) for item in re.split(r"^- ", found[1], flags=re.MULTILINE)[1:]] if found else []

    @property
    def points(self):
        """Points of the check and of the written answer."""
        return POINTS.get(self.kind, 0), len(self.criteria)

    @property
    def mistakes(self):
        """(what was thought, the code, words of the message) for each wrong answer."""
        found = []
        for cell in self.cells("wrong"):
            thought, _, code = cell.source.partition("\n")
            found.append((thought.removeprefix("# "), code.strip(), cell.metadata.get("says", "")))
        return found


def read(path):
    """Read the text of a chapter as a notebook."""
    notebook = jupytext.read(path, fmt="md:myst")
    notebook.metadata.pop("jupytext", None)  # describes the text file
    return notebook


def book(notebook):
    """Return the notebook of the book: without wrong answers, the code of solutions and checks folded away."""
    made = copy.deepcopy(notebook)
    made.cells = [cell for cell in made.cells if "wrong" not in _tags(cell)]
    for cell in made.cells:
        if {"solution", "check"} & {*_tags(cell)}:
            cell.metadata.update(_FOLDED)
        if "check" in _tags(cell):
            cell.metadata["tags"] = [*_tags(cell), "hide-input"]
            prompts = {"code_prompt_show": "Show the check", "code_prompt_hide": "Hide the check"}
            cell.metadata["mystnb"] = {**cell.metadata.get("mystnb", {}), **prompts}
    return made


def pieces(notebook):
    """Split a chapter into pieces that have one role each."""
    found, label, solving, begun = [], None, False, False

    def add(role, cell, source=None):
        if source is None or source.strip():
            cell = cell if source is None else nbformat.v4.new_markdown_cell(source.strip())
            found.append(Piece(role, None if role in ("chapter", "intro") else label, cell))

    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            tagged = next((tag for tag in TAGS if tag in _tags(cell)), "chapter")
            add("solution" if solving else "stray" if tagged == "solution" else tagged, cell)
            continue
        for directive, options, body in _directives(cell.source):
            if directive == "exercise":
                label = options.get("label", "")
                add("exercise", cell, body)
            elif directive == "solution":
                add("solution", cell, body)
            elif directive in ("solution-start", "solution-end"):
                solving = directive == "solution-start"
            elif solving:
                add("solution", cell, body)
            else:
                for part in re.split(r"^(?=## )", body, flags=re.MULTILINE):
                    if part.startswith("## "):
                        label, begun = None, part.startswith("## Exercises")
                        if begun:
                            heading, _, part = part.partition("\n")
                            add("chapter", cell, heading)
                    add("exercise" if label else "intro" if begun else "chapter", cell, part)
    return found


def _directives(text):
    """Blocks of a text; only those that belong to exercises are taken apart."""
    plain = []
    for name, _, options, body, source in plain_markdown.blocks(text):
        if name in ("exercise", "solution", "solution-start", "solution-end"):
            if plain:
                yield None, {}, "\n".join(plain)
                plain = []
            yield name, options, body
        else:
            plain.append(source)
    if plain:
        yield None, {}, "\n".join(plain)


def exercises_in(notebook):
    """Return the exercises of a chapter, in order."""
    found = {}
    for piece in pieces(notebook):
        if piece.label is not None:
            found.setdefault(piece.label, []).append(piece)
    made = []
    for label, group in found.items():
        question = "\n\n".join(piece.cell.source for piece in group if piece.role == "exercise")
        kind = re.match(r"\*\*(\w+)\.\*\*", question)
        made.append(Exercise(label, kind[1] if kind else "", question, group))
    return made


def _tags(cell):
    return cell.metadata.get("tags", [])


# --- what makes an exercise that can be graded ------------------------------------------------------------------------


def problems(notebook):
    """Return one sentence for each thing that keeps the exercises of a chapter from grading themselves."""
    all_pieces, found = pieces(notebook), exercises_in(notebook)
    said = [
        f"a cell tagged {_tags(piece.cell)} belongs to no exercise: {_first_line(piece.cell)}"
        for piece in all_pieces
        if piece.role in (*TAGS, "stray") and not piece.label
    ]
    chapter = [piece.cell for piece in all_pieces if piece.role == "chapter" and piece.cell.cell_type == "code"]
    known = _Names(*chapter).bound
    for exercise in found:
        said += [f"{exercise.label}: {problem}" for problem in (*_parts(exercise), *_meets(exercise, known))]
    for number, exercise in enumerate(found):
        own = _Names(*exercise.cells(*TAGS)).assigned & known
        for name in sorted(own):
            for other in found[number:]:
                if any(name in _Names(*other.cells(role)).free for role in TAGS):
                    said.append(f"{exercise.label}: it changes {name!r} of the chapter, which {other.label} needs")
    return said


def _parts(exercise):
    """What is missing of an exercise or stands in the wrong place."""
    roles = [piece.role for piece in exercise.pieces if piece.cell.cell_type == "code" or piece.role == "exercise"]
    for role in ("stub", "check"):
        if roles.count(role) != 1:
            yield f"{roles.count(role)} cells are tagged {role}, not 1"
    if not exercise.cells("solution"):
        yield "no cell is tagged solution"
    order = ["exercise", *TAGS, "stray", "chapter"]
    if [*dict.fromkeys(roles)] != sorted({*roles}, key=order.index):
        yield f"its parts are not in order: exercise, {', '.join(TAGS)}"
    if not re.fullmatch(r"[\w-]+", exercise.label, re.ASCII):
        yield "its label must consist of letters, digits and hyphens"
    if exercise.kind not in POINTS:
        yield f"the question begins with none of {', '.join(f'**{kind}.**' for kind in POINTS)}"
    if exercise.kind == "Explain" and not exercise.criteria:
        yield "its solution has no list after “**A full answer says:**”"
    for cell in exercise.cells("solution"):
        if "solution" not in _tags(cell):
            yield f"a cell inside the solution is not tagged solution: {_first_line(cell)}"
    for cell in exercise.cells("stray"):
        yield f"a cell tagged solution stands outside solution-start and solution-end: {_first_line(cell)}"
    if not exercise.cells("wrong"):
        yield "it has no wrong answer"
    for thought, code, says in exercise.mistakes:
        if not says:
            yield f"the wrong answer {thought!r} does not say which words it must get (says:)"
        if not code:
            yield f"the wrong answer {thought!r} must begin with a comment that says what was thought, then the code"


def _meets(exercise, known):
    """Where the parts of an exercise do not fit together, or need what a student does not have."""
    names = {role: _Names(*exercise.cells(role)) for role in TAGS}
    wrong = [_Names(cell) for cell in exercise.cells("wrong")]
    answers = names["stub"].assigned
    if not answers:
        yield "the stub gives no name to an answer"
    for role in ("stub", "solution", "check"):
        if missing := sorted(names[role].free - known - answers):
            yield f"the {role} needs {', '.join(missing)}, which neither the chapter nor the stub has"
    for one in wrong:
        if missing := sorted(one.free - known - answers):
            yield f"a wrong answer needs {', '.join(missing)}, which neither the chapter nor the stub has"
    if left := sorted(answers - names["solution"].assigned):
        yield f"the solution does not give {', '.join(left)}"
    if unseen := sorted(answers - names["check"].free):
        yield f"the check does not look at {', '.join(unseen)}"


class _Names:
    """The names that cells give a value to at their outermost level, and those that they take from outside."""

    def __init__(self, *cells):
        self.assigned, self.imported, self.free = set(), set(), set()
        later = set()  # what functions read when they are called, after everything has been defined
        for statement in (statement for cell in cells for statement in _statements(cell)):
            names = [node for node in ast.walk(statement) if isinstance(node, ast.Name)]
            inside = _inside(statement)
            read = {name.id for name in names if isinstance(name.ctx, ast.Load)} - inside
            given = {name.id for name in names if isinstance(name.ctx, ast.Store)} - inside
            if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
                later |= read
                given = {statement.name}
            elif isinstance(statement, (ast.Import, ast.ImportFrom)):
                self.imported |= {(name.asname or name.name).partition(".")[0] for name in statement.names}
            elif isinstance(statement, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
                self.free |= (read | (given if isinstance(statement, ast.AugAssign) else set())) - self.bound
            else:
                self.free |= read - given - self.bound
            self.assigned |= given
        self.free = (self.free | later - self.bound) - {*dir(builtins)}

    @property
    def bound(self):
        return self.assigned | self.imported


def _statements(cell):
    """The statements of a cell; lines of IPython's own are left out."""
    return ast.parse(re.sub(r"^(\s*)[%!].*", r"\1pass", cell.source, flags=re.MULTILINE)).body


def _inside(statement):
    """Names that belong to a function, a lambda or a comprehension inside a statement."""
    own = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.comprehension):
            own |= {name.id for name in ast.walk(node.target) if isinstance(name, ast.Name)}
        elif isinstance(node, (ast.FunctionDef, ast.Lambda)):
            own |= {argument.arg for argument in ast.walk(node) if isinstance(argument, ast.arg)}
            own |= {
                name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
            }
    return own


def _first_line(cell):
    return cell.source.strip().partition("\n")[0]


# --- the notebooks of a course ----------------------------------------------------------------------------------------

# Tags that mean something while a notebook runs; everything else in the metadata is for the book's pages.
_KEPT = {"parameters", "raises-exception", "stub", "check"}
_VIEW = "application/vnd.jupyter.widget-view+json"
_PROMPT = "*In your own words, below this line (double-click to write):*"
_INTRO = (
    "*{points} in all. Replace each `...` and run the cell, then run the check below it: it says what to look at. Run "
    "it as often as you like.*"
)


@dataclasses.dataclass
class Chapter:
    """A chapter of the book as the source of a course.

    ``notebook`` is its text with the outputs of the executed notebook; ``convert`` makes the book's Markdown plain
    (:class:`plain_markdown.Converter`).
    """

    name: str
    title: str
    notebook: nbformat.NotebookNode
    convert: plain_markdown.Converter

    @property
    def exercises(self):
        return exercises_in(self.notebook)


def load(names=(), folder=ROOT / "notebooks", bibliography=ROOT / "book" / "references.bib"):
    """Read chapters.

    Args:
        names (list): Beginnings of their names, such as ``"04"``; empty: all.
        folder (Path): Executed notebooks, and their texts in ``text``.
        bibliography (Path): What ``{cite}`` refers to.

    Returns:
        list: A :class:`Chapter` each, in reading order.

    Raises:
        CourseError: A name fits nothing, a notebook is missing or older than its text, or exercises cannot be graded.
    """
    texts = {path.stem: read(path) for path in sorted((folder / "text").glob("*.md"))}
    for name in names:
        if not any(stem.startswith(name) for stem in texts):
            raise CourseError(f"no chapter is called {name!r}; there are {', '.join(texts)}")
    chosen = [stem for stem in texts if not names or stem.startswith(tuple(names))]
    said = [f"{stem}: {problem}" for stem in chosen for problem in problems(texts[stem])]
    if said:
        raise CourseError("these exercises cannot be graded:\n" + "\n".join(said))
    titles = {stem: re.search(r"^# (.+)", _prose(text)[0], re.MULTILINE)[1] for stem, text in texts.items()}
    cited = plain_markdown.references(bibliography)
    made = []
    for stem in chosen:
        path = folder / f"{stem}.ipynb"
        executed = nbformat.read(path, 4) if path.is_file() else nbformat.v4.new_notebook()
        notebook = _with_outputs(texts[stem], executed)
        if notebook is None:
            raise CourseError(f"{path.name} is missing or older than its text: run `make notebooks` first")
        convert = plain_markdown.Converter(_prose(notebook), _glued(notebook), titles, cited)
        made.append(Chapter(stem, titles[stem], notebook, convert))
    return made


def student(chapter):
    """Return the notebook for students: questions, cells to fill in, checks; no output, and nothing of a solution."""
    made = nbformat.v4.new_notebook()
    for _, cell in _sheet(chapter):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        made.cells.append(cell)
    return tidy(made)


def instructor(chapter):
    """Return the notebook for those who teach: solutions with their outputs, criteria, and metadata for nbgrader.

    ``nbgrader generate_assignment`` makes the notebook of :func:`student` from it.
    """
    made = nbformat.v4.new_notebook()
    if "widgets" in chapter.notebook.metadata:
        made.metadata["widgets"] = copy.deepcopy(chapter.notebook.metadata["widgets"])
    found = {exercise.label: exercise for exercise in chapter.exercises}
    for piece, cell in _sheet(chapter):
        exercise = found.get(piece.label)
        if piece.role == "stub":
            cell.source += f"\n\n### BEGIN SOLUTION\n{_solution(exercise, chapter.convert)}\n### END SOLUTION"
            outputs = [output for solved in exercise.cells("solution") for output in solved.outputs]
            # nbgrader clears outputs, but not the state of widgets, which holds their pictures
            cell.outputs = [output for output in outputs if _VIEW not in output.get("data", {})]
            cell.metadata["nbgrader"] = _grading(exercise.label, solution=True)
        elif piece.role == "check":
            points, _ = exercise.points
            cell.metadata["nbgrader"] = _grading(f"{exercise.label}-check", grade=True, locked=True, points=points)
        elif piece.role == "written":
            _, points = exercise.points
            cell.source += f"\n\n<!-- BEGIN SOLUTION -->\n{_marking(exercise, chapter.convert)}\n<!-- END SOLUTION -->"
            cell.metadata["nbgrader"] = _grading(f"{exercise.label}-written", grade=True, solution=True, points=points)
        made.cells.append(cell)
    return tidy(made)


def marking_scheme(chapters):
    """Return the marking scheme of chapters as Markdown: points, criteria, solutions, and what goes wrong."""
    lines = ["# Marking scheme", ""]
    for chapter in chapters:
        found = chapter.exercises
        rows = [(number, exercise, *exercise.points) for number, exercise in enumerate(found, 1)]
        lines += [f"## {chapter.title}", "", "| Exercise | Kind | Check | Written |", "|---|---|---:|---:|"]
        lines += [
            f"| {number} `{one.label}` | {one.kind} | {check} | {written} |" for number, one, check, written in rows
        ]
        lines += [f"| **{_total(found)} points** | | {sum(r[2] for r in rows)} | {sum(r[3] for r in rows)} |", ""]
        for number, exercise, check, written in rows:
            lines += [f"### Exercise {number}: {_points(check + written)}", "", chapter.convert(exercise.question), ""]
            lines += ["**Solution**", "", "```python", exercise.code("solution"), "```", ""]
            lines += [_marking(exercise, chapter.convert), "", "**Common mistakes**", ""]
            for thought, code, says in exercise.mistakes:
                lines += [f"- {thought[:1].upper()}{thought[1:]}. The check says “… {says} …”.", ""]
                lines += [*(f"  {line}".rstrip() for line in ("```python", *code.splitlines(), "```")), ""]
    return "\n".join(lines)


def _sheet(chapter):
    """What both notebooks have: (piece, cell) each. Roles are those of :class:`Piece`, and ``"written"``."""
    found = {exercise.label: exercise for exercise in chapter.exercises}
    headed = []
    for piece in pieces(chapter.notebook):
        cell = copy.deepcopy(piece.cell)
        if piece.role in ("solution", "wrong", "intro"):
            continue
        if cell.cell_type == "code":
            cell.metadata = nbformat.NotebookNode(
                {"tags": tags} if (tags := [t for t in _tags(cell) if t in _KEPT]) else {}
            )
            if piece.role == "check":
                cell.metadata.update(_FOLDED)
            yield piece, cell
            if piece.role == "check" and found[piece.label].criteria:
                yield Piece("written", piece.label, None), nbformat.v4.new_markdown_cell(_PROMPT)
            continue
        cell.source = chapter.convert(cell.source)
        if piece.role == "exercise" and piece.label not in headed:
            headed.append(piece.label)
            points = _points(sum(found[piece.label].points))
            cell.source = f"### Exercise {len(headed)}: {points}\n\n{cell.source}"
        elif cell.source.startswith("## Exercises"):
            cell.source += "\n\n" + _INTRO.format(points=_points(_total(found.values())))
        yield piece, cell


def _solution(exercise, convert):
    """The code that fills in a stub, with everything that is not code in comments."""
    parts = []
    for piece in exercise.pieces:
        if piece.role == "solution" and piece.cell.cell_type == "code":
            parts.append(piece.cell.source)
        elif piece.role == "solution" and not exercise.criteria:
            parts.append(_comment(convert(piece.cell.source)))
    mistakes = [f"- {thought}: “… {says} …”" for thought, _, says in exercise.mistakes]
    parts.append(_comment("\n".join(["Common mistakes, and what the check says:", *mistakes])))
    return "\n\n".join(parts)


def _comment(text):
    return "\n".join(f"# {line}".rstrip() for line in text.splitlines())


def _marking(exercise, convert):
    """How a written answer is marked, and the text of the solution."""
    text = convert(_FULL_ANSWER.sub("", exercise.explanation))
    if not exercise.criteria:
        return text
    criteria = "\n".join(f"- {convert(criterion)}" for criterion in exercise.criteria)
    return f"**Marks for the words:** one point for each of these, however it is said.\n\n{criteria}\n\n{text}".strip()


def _grading(grade_id, *, grade=False, locked=False, solution=False, points=None):
    """A cell's metadata for nbgrader, schema version 3."""
    flags = {"grade": grade, "locked": locked, "solution": solution, "task": False}
    return {"schema_version": 3, "grade_id": grade_id, **flags, **({} if points is None else {"points": points})}


def _total(found):
    return sum(sum(exercise.points) for exercise in found)


def _points(number):
    return f"{number} point{'s' if number != 1 else ''}"


def _prose(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def _with_outputs(notebook, executed):
    """The text of a chapter with the outputs of its notebook; ``None`` where the two do not correspond."""
    made = copy.deepcopy(notebook)
    shown = [cell for cell in made.cells if "wrong" not in _tags(cell)]
    if [cell.source for cell in shown] != [cell.source for cell in executed.cells]:
        return None
    for cell, ran in zip(shown, executed.cells):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
    made.metadata.update(executed.metadata)
    return made


def _glued(notebook):
    """What a chapter recorded, by name: numbers, strings, and tables as HTML without the claims that solutions make."""
    glued = records_in(notebook)
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        name = output.get("metadata", {}).get("scrapbook", {}).get("name")
        tables = [text for kind, text in output.get("data", {}).items() if kind.endswith("text/html")]
        if name and tables:
            glued[name] = tables[0]
    solved = [piece.cell for piece in pieces(notebook) if piece.role == "solution" and piece.cell.cell_type == "code"]
    for made in claims_in(nbformat.v4.new_notebook(cells=solved)):
        item = rf"<li>(\([^<]*\) )?{re.escape(html.escape(made['claim']))}</li>"  # in brackets: the one before it
        glued = {
            name: re.sub(item, "<li>a claim of a solution</li>", value) if isinstance(value, str) else value
            for name, value in glued.items()
        }
    return glued


# --- command line -----------------------------------------------------------------------------------------------------


def main(arguments=None):
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("student", "instructor"):
        command = commands.add_parser(name)
        command.add_argument("chapters", nargs="*", help="beginnings of names, such as 04; default: all chapters")
        command.add_argument("--out", type=Path, default=ROOT / "_build" / name, help=f"default: _build/{name}")
    command = commands.add_parser("seal")
    command.add_argument("label", help="of the exercise")
    command.add_argument("letters", help="of the true statements")
    options = parser.parse_args(arguments)
    if options.command == "seal":
        print(exercises.seal(options.label, options.letters))
        return 0
    try:
        chapters = load(options.chapters)
    except CourseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not options.chapters:
        shutil.rmtree(options.out, ignore_errors=True)  # chapters that are no more
    options.out.mkdir(parents=True, exist_ok=True)
    derive = {"student": student, "instructor": instructor}[options.command]
    for chapter in chapters:
        write(derive(chapter), options.out / f"{chapter.name}.ipynb")
    if options.command == "instructor":
        write_text(options.out / "marking_scheme.md", marking_scheme(chapters))
        write_text(options.out / "nbgrader_config.py", CONFIG)
    points = sum(_total(chapter.exercises) for chapter in chapters)
    print(f"{len(chapters)} notebooks with {points} points are in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
