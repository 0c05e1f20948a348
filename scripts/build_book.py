"""Render the book, and keep its links to one address.

    python scripts/build_book.py                                   render the committed notebooks into _build/html
    python scripts/build_book.py --notebooks _build/notebooks      render notebooks that `tlutils run` has just executed
    python scripts/build_book.py links [--write]                   check (or rewrite) every Colab and GitHub link

The sources are copied to ``_build/source`` and rendered there, so no tracked file changes. Any warning is an error.
"""

import argparse
import base64
import html
import json
import math
import os
import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the package beside this script, installed or not
LANDING = "book/intro"
STUDY = "first_transfer"

# Colab's own badge is on another server; the rendered book shows a copy drawn for it.
REMOTE_BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
LOCAL_BADGE = "../book/assets/colab-badge.svg"


class BookError(Exception):
    """The book cannot be built; the message says why and what to do."""


# --- render -----------------------------------------------------------------------------------------------------------


def build(notebooks, out):
    """Render the book into ``out/html``.

    Args:
        notebooks (Path): Folder with the executed chapters.
        out (Path): Build folder; ``source`` and ``html`` below it are replaced.

    Returns:
        Path: The landing page, ``out/html/index.html``.

    Raises:
        BookError: A chapter or the landing page's study is missing, or Sphinx reported a warning.
    """
    source, target = out / "source", out / "html"
    for folder in (source, target):
        shutil.rmtree(folder, ignore_errors=True)
    stage(notebooks, source)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(source)]
    run = subprocess.run([*command, "-q", "-W", "--keep-going", "-n"], env={**os.environ, "PYTHONPATH": path})
    rendered = source / "_build" / "html"
    if run.returncode or not (rendered / f"{LANDING}.html").is_file():
        raise BookError("the book has warnings (above), and a warning is an error here")
    shutil.move(rendered, target)
    for name in pages():  # a list of references is a list; docutils' role for its items has been withdrawn
        file = target / f"{name}.html"
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace('role="doc-biblioentry"', 'role="listitem"'), encoding="utf-8")
    page = (target / f"{LANDING}.html").read_text(encoding="utf-8")
    (target / "index.html").write_text(rebase(page, posixpath.dirname(LANDING)), encoding="utf-8")
    for name in chapters():  # what "download" on a page gives: the notebook as it was run
        shutil.copyfile(executed(notebooks, name), target / "_sources" / f"{name}.ipynb")
    return target / "index.html"


def stage(notebooks, source):
    """Copy what the book is made of to ``source``; the moving figures and the chapter map are made there."""
    missing = [name for name in chapters() if not executed(notebooks, name).is_file()]
    if missing:
        raise BookError(
            f"{notebooks} lacks {', '.join(posixpath.basename(name) for name in missing)} (.ipynb); "
            f"run the notebooks first: tlutils run --out {notebooks}"
        )
    (source / "notebooks").mkdir(parents=True)
    for name in chapters():
        text = executed(notebooks, name).read_text(encoding="utf-8")
        notebook = with_plain_figures(json.loads(text.replace(REMOTE_BADGE, LOCAL_BADGE)), name)
        (source / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    shutil.copytree(ROOT / "book", source / "book", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("_config.yml", "_toc.yml"):
        shutil.copyfile(ROOT / name, source / name)
    (source / "book" / "landing_figure.html").write_text(landing_figure(), encoding="utf-8")
    landing = source / f"{LANDING}.md"
    landing.write_text(with_times(landing.read_text(encoding="utf-8")), encoding="utf-8")


def pages():
    """Return the names of all pages of the book, in reading order, as ``_toc.yml`` lists them."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


def chapters():
    """Return the names of the pages that are notebooks."""
    return [name for name in pages() if name.startswith("notebooks/")]


def executed(notebooks, name):
    """Return the path of a chapter in a folder of executed notebooks."""
    return notebooks / f"{posixpath.basename(name)}.ipynb"


def rebase(page, folder):
    """Return a page's HTML with its relative links changed as if the page had moved from ``folder`` to the root.

    A redirecting ``index.html`` would do in a browser, but flashes, and shows nothing to a crawler or a preview.
    """

    def moved(match):
        attribute, url = match["attribute"], match["url"]
        if not url or url.startswith(("#", "/")) or re.match(r"[a-zA-Z][\w+.-]*:", url):
            return match[0]
        path, mark, rest = re.match(r"([^?#]*)([?#]?)(.*)", url, re.S).groups()
        new = posixpath.normpath(posixpath.join(folder, path)) + ("/" if path.endswith("/") else "")
        return f'{attribute}="{new}{mark}{rest}"'

    return re.sub(r'(?P<attribute>\b(?:href|src|action|data-content_root))="(?P<url>[^"]*)"', moved, page)


# --- figures that move ------------------------------------------------------------------------------------------------

_STATE = "application/vnd.jupyter.widget-state+json"
_VIEW = "application/vnd.jupyter.widget-view+json"


def with_plain_figures(notebook, name):
    """Return a notebook whose live figures are plain HTML with a native range input.

    In Jupyter and Colab a live figure is a tree of widgets. A page needs four megabytes of scripts to show such a tree,
    and shows nothing without them. A range input needs none, prints, and works with a keyboard as it is.

    Args:
        notebook (dict): The chapter, as JSON; changed in place.
        name (str): The chapter's name, for errors.

    Raises:
        BookError: A widget is something else than a figure of ``tlutils.explore``.
    """
    state = notebook["metadata"].pop("widgets", {}).get(_STATE, {}).get("state", {})
    number = 0
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            view = output.get("data", {}).get(_VIEW)
            if view is None:
                continue
            number += 1
            try:
                figure = plain_figure(state, view["model_id"], f"tl-{number}")
            except (KeyError, IndexError, ValueError, TypeError) as error:
                raise BookError(
                    f"widget {number} of {name} is no figure of tlutils.explore ({error!r}); "
                    "a page has no kernel behind it, so it can show no other widget"
                ) from error
            output["data"] = {"text/html": figure}
    return notebook


def plain_figure(state, model, label):
    """Return one live figure as HTML, from the widgets' state that is stored in the notebook."""

    def children(model):
        return [child.removeprefix("IPY_MODEL_") for child in state[model]["state"]["children"]]

    row, stack = children(model)
    controls = [state[child] for child in children(row)]
    (slider,) = (control["state"] for control in controls if control["model_name"].endswith("SliderModel"))
    pictures = [state[child] for child in children(stack)]
    return figure_html(
        [(p["state"]["format"], p["buffers"][0]["data"], p["state"]["tooltip"]) for p in pictures],
        slider.get("_options_labels") or [str(number) for number in range(len(pictures))],
        slider["description"],
        start=state[stack]["state"]["selected_index"],
        play=any(control["model_name"] == "PlayModel" for control in controls),
        label=label,
    )


def figure_html(pictures, positions, description, *, label, start=0, still=None, play=False, caption=""):
    """Return a figure that moves, as HTML; ``live.js`` starts it.

    Args:
        pictures (list): Format, base64 and alternative text of each picture.
        positions (list): What the slider reads at each.
        description (str): What the slider changes.
        label (str): The input's id on its page.
        start (int): The position shown first.
        still (int): The one shown without JavaScript, ``start`` by default.
        play (bool): Whether there is a button that runs through the pictures.
        caption (str): HTML below the picture.
    """
    still = start if still is None else still
    images = "\n".join(
        f'<img src="data:image/{kind};base64,{data}" alt="{html.escape(alt)}"'
        f' data-label="{html.escape(position)}"{"" if number == still else " hidden"}>'
        for number, ((kind, data, alt), position) in enumerate(zip(pictures, positions, strict=True))
    )
    button = '<button type="button">Play</button>\n' if play else ""
    return f"""<figure class="tl-live">
<div class="tl-control" hidden>
{button}<label for="{label}">{html.escape(description)}</label>
<input id="{label}" type="range" min="0" max="{len(pictures) - 1}" step="1" value="{start}" autocomplete="off">
<output for="{label}" style="min-width: {max(map(len, positions))}ch">{html.escape(positions[start])}</output>
</div>
{images}
{f"<figcaption>{caption}</figcaption>" if caption else ""}
</figure>
"""


# --- the landing page -------------------------------------------------------------------------------------------------

# Plain words for somebody who has read nothing yet; colours and markers are those of the chapters (plots.METHODS).
METHODS = {
    "fine_tune": "pretrained, then fine-tuned",
    "probe": "pretrained, frozen",
    "svm": "SVM on the pixels",
    "scratch": "network from scratch",
}


def landing_figure():
    """Return the landing page's moving figure as HTML: every number in it comes from the stored study.

    Raises:
        BookError: The study is not stored.
    """
    from tlutils import explore, results

    try:
        study = results.load(STUDY)
    except ValueError as error:
        raise BookError(f"book/results/{STUDY}.json is missing: `make experiments` measures it ({error})") from error
    rows = summary(study)
    budgets = sorted({row["labels_per_class"] for row in rows})
    live = explore.picture_slider(
        (draw(rows, budgets, budget) for budget in budgets),
        labels=budgets,
        description="labels per class",
        alt=[describe(rows, budget) for budget in budgets],
    )
    return figure_html(
        [(p.format, base64.b64encode(data).decode(), p.tooltip) for p, data in zip(live.stack.children, live.frames)],
        live.slider.options,
        live.slider.description,
        label="tl-landing",
        still=len(budgets) - 1,
        caption=caption(study),
    )


def summary(study):
    """Return the study's mean accuracy and 95% interval, one dict a method and label budget."""
    from tlutils import evaluation

    return evaluation.summarise(study["rows"], by=("method", "labels_per_class"))


def at(rows, budget):
    """Return the rows of one budget, best first."""
    return sorted((row for row in rows if row["labels_per_class"] == budget), key=lambda row: -row["mean"])


def draw(rows, budgets, budget):
    """Draw test accuracy against labels per class, measured up to ``budget``; what comes later is faint."""
    from tlutils import plots

    figure, axes = plots.figure(size=(4.9, 3.6))  # small, so that its words can be read on a phone
    for method in (row["method"] for row in at(rows, budget)):
        _, colour, marker = plots.METHODS[method]
        line = sorted((row for row in rows if row["method"] == method), key=lambda row: row["labels_per_class"])
        axes.plot([row["labels_per_class"] for row in line], [row["mean"] for row in line], color=colour, alpha=0.2)
        line = [row for row in line if row["labels_per_class"] <= budget]
        axes.errorbar(
            [row["labels_per_class"] for row in line],
            [row["mean"] for row in line],
            yerr=[[row["mean"] - row["low"] for row in line], [row["high"] - row["mean"] for row in line]],
            label=f"{METHODS[method]}  {line[-1]['mean']:.0%}",
            color=colour,
            marker=marker,
            elinewidth=1.2,
            capsize=2.5,
        )
    axes.axvline(budget, color=plots.COLOURS["gray"], linewidth=0.8, linestyle=":", zorder=0)
    axes.set_xscale("log")
    axes.set_xticks(budgets, [str(number) for number in budgets])
    axes.minorticks_off()
    axes.set_xlim(budgets[0] * 0.85, budgets[-1] * 1.18)
    axes.set_ylim(min(row["low"] for row in rows) - 0.03, 1.005)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("labelled examples per class")
    axes.set_ylabel("correct on unseen digits")
    axes.grid(axis="x", visible=False)
    axes.legend(
        title=labels(budget),
        title_fontproperties={"weight": "bold", "size": 9.5},
        alignment="left",
        fontsize=9,
        loc="lower right",
        frameon=True,
        framealpha=0.94,
        edgecolor="#d8d8d8",
    )
    return figure


def labels(budget):
    """Return a label budget in words."""
    return f"with {budget} label{'s' if budget > 1 else ''} per class"


def describe(rows, budget):
    """Say in words what the picture at this budget shows."""
    found = ", ".join(f"{METHODS[row['method']]} {row['mean']:.1%}" for row in at(rows, budget))
    return f"Correct on unseen digits {labels(budget)}: {found}."


def caption(study):
    """Return what was measured and where, from the study itself."""
    from tlutils import results

    seeds = {row["seeds"] for row in summary(study)}
    runs = f"{min(seeds)} seeds" if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)} seeds"
    line = html.escape(results.provenance_line(study))
    line = re.sub(r"`([^`]+)`", r"<code>\1</code>", line)
    return f"Mean of {runs}; bars are 95% intervals over seeds and test images. {line}"


# --- the chapter map --------------------------------------------------------------------------------------------------

WORDS_A_MINUTE = 200  # prose; code and formulas are read more slowly, and are not counted
TIME = re.compile(r"\{time (?P<name>\w+)\}")


def with_times(text):
    """Return a page with ``{time NN_name}`` replaced by how long that chapter takes to read and to run.

    Raises:
        BookError: There is no such chapter.
    """
    seconds = running_seconds()

    def said(match):
        name = match["name"]
        minutes = 5 * math.ceil(words(name) / WORDS_A_MINUTE / 5)
        return f"{minutes} min · {seconds[name]:.0f} s" if name in seconds else f"{minutes} min · –"

    return TIME.sub(said, text)


def words(name):
    """Count the words of a chapter's prose: no code, no formulas, no exercises."""
    path = ROOT / "notebooks" / "text" / f"{name}.md"
    if not path.is_file():
        raise BookError(f"the chapter map of {LANDING}.md asks for the time of {name}, and there is no {path}")
    text = path.read_text(encoding="utf-8")
    text = text.split("\n---\n", 1)[-1].split("\n## Exercises\n")[0]
    text = re.sub(r"^(`{3,})\{(code-cell|math)\}.*?^\1$|\$\$.*?\$\$|\$[^$\n]+\$", " ", text, flags=re.M | re.S)
    return len(re.findall(r"[^\W\d_][\w’'-]*", re.sub(r"\]\([^)]*\)|<[^>]*>", " ", text)))


def running_seconds():
    """Return the seconds of each chapter in the quick profile, as the benchmark (g) measured them last."""
    table = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    return {
        name: float(seconds) for name, seconds in re.findall(r"^\| g \| chapter (\w+) +\| +([\d.]+) s ", table, re.M)
    }


# --- links ------------------------------------------------------------------------------------------------------------

PLACEHOLDER = "OWNER/REPOSITORY"
LINKED_FILES = (
    "*.md",
    "CITATION.cff",
    "pyproject.toml",
    "book/*.md",
    "notebooks/*.ipynb",
    "notebooks/text/*.md",
    "tlutils/*.py",
)
LINK = re.compile(
    r"(?P<head>(?:https://colab\.research\.google\.com/github|https://github\.com|https://raw\.githubusercontent\.com)/)"
    r"(?P<slug>[\w-]+/[\w.-]*?[\w-])(?=(?:\.git)?(?:[^\w.-]|\.(?!\w)|$))(?P<git>\.git)?"
    r"(?:(?P<verb>/blob/|/tree/|/raw/|/edit/)(?P<branch>[\w.-]+)(?=/))?"
    r"(?P<path>(?:/[\w./%-]*)?)"
)


def address(root=ROOT):
    """Return (owner/repository, branch) as ``_config.yml`` says.

    Raises:
        BookError: The address is not one of a repository on GitHub, which is where Colab opens notebooks.
    """
    repository = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["repository"]
    match = re.fullmatch(r"https://github\.com/([\w-]+/[\w.-]*[\w-]?)", repository["url"].removesuffix("/"))
    if not match:
        raise BookError(
            f"repository.url in {root / '_config.yml'} is {repository['url']!r}; "
            f"it must look like https://github.com/{PLACEHOLDER}, because Colab opens notebooks from GitHub"
        )
    return match[1].removesuffix(".git"), repository["branch"]


def linked_files(root=ROOT):
    """Return the files whose links must follow ``_config.yml``."""
    return sorted({file for pattern in LINKED_FILES for file in root.glob(pattern) if file.is_file()})


def links(write=False, root=ROOT):
    """Find the links to this repository that differ from ``_config.yml``; rewrite them where asked.

    Links to other people's repositories stay as they are. Ours are known by the placeholder, by the address in
    ``_config.yml``, and by Colab links to a notebook in ``notebooks/``, which every copy of the book has.

    Returns:
        list: One line a wrong link: file, line number, what it says and what it must say.
    """
    slug, branch = address(root)
    texts = {file: file.read_text(encoding="utf-8") for file in linked_files(root)}
    ours = {slug, PLACEHOLDER}
    for text in texts.values():
        ours |= {
            link["slug"]
            for link in LINK.finditer(text)
            if "colab" in link["head"] and link["path"].startswith("/notebooks/")
        }

    def right(link):
        if link["slug"] not in ours:
            return link[0]
        verb = f"{link['verb']}{branch}" if link["verb"] else ""
        return f"{link['head']}{slug}{link['git'] or ''}{verb}{link['path']}"

    wrong = []
    for file, text in texts.items():
        for link in LINK.finditer(text):
            if right(link) != link[0]:
                line = text.count("\n", 0, link.start()) + 1
                wrong.append(f"{file.relative_to(root).as_posix()}:{line}: {link[0]} must be {right(link)}")
        if write and LINK.sub(right, text) != text:
            file.write_text(LINK.sub(right, text), encoding="utf-8", newline="\n")
    return wrong


# --- command line -----------------------------------------------------------------------------------------------------


def main(arguments=None):
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description="Render the book, or check its links.")
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks", help="folder of executed notebooks")
    parser.add_argument("--out", type=Path, default=ROOT / "_build", help="build folder; the book goes to OUT/html")
    commands = parser.add_subparsers(dest="command")
    check = commands.add_parser("links", help="check that every link to the repository is the one in _config.yml")
    check.add_argument("--write", action="store_true", help="rewrite the links instead")
    options = parser.parse_args(arguments)
    try:
        if options.command == "links":
            wrong = links(options.write)
            print("\n".join(wrong) or "every link to the repository is the one in _config.yml")
            if options.write or not wrong:
                return 0
            print("rewrite them: python scripts/build_book.py links --write", file=sys.stderr)
            return 1
        print(f"the book is at {build(options.notebooks.resolve(), options.out.resolve())}")
        return 0
    except BookError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
