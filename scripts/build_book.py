"""Render the book, and keep its links to one address.

    python scripts/build_book.py                                   render the committed notebooks into _build/html
    python scripts/build_book.py --notebooks _build/notebooks      render notebooks that `tlutils run` has just executed
    python scripts/build_book.py links [--write]                   check (or rewrite) every Colab and GitHub link

The sources are copied to ``_build/source`` and rendered there, so no tracked file changes. Any warning is an error.
"""

import argparse
import html
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
    page = (target / f"{LANDING}.html").read_text(encoding="utf-8")
    (target / "index.html").write_text(rebase(page, posixpath.dirname(LANDING)), encoding="utf-8")
    return target / "index.html"


def stage(notebooks, source):
    """Copy what the book is made of to ``source`` and draw the landing page's figure there."""
    chapters = [name for name in pages() if name.startswith("notebooks/")]
    missing = [name for name in chapters if not (notebooks / f"{posixpath.basename(name)}.ipynb").is_file()]
    if missing:
        raise BookError(
            f"{notebooks} lacks {', '.join(posixpath.basename(name) for name in missing)} (.ipynb); "
            f"run the notebooks first: tlutils run --out {notebooks}"
        )
    (source / "notebooks").mkdir(parents=True)
    for name in chapters:
        text = (notebooks / f"{posixpath.basename(name)}.ipynb").read_text(encoding="utf-8")
        (source / f"{name}.ipynb").write_text(text.replace(REMOTE_BADGE, LOCAL_BADGE), encoding="utf-8")
    shutil.copytree(ROOT / "book", source / "book")
    for name in ("_config.yml", "_toc.yml"):
        shutil.copyfile(ROOT / name, source / name)
    (source / "book" / "landing_figure.html").write_text(landing_figure(), encoding="utf-8")


def pages():
    """Return the names of all pages of the book, in reading order, as ``_toc.yml`` lists them."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


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


# --- the landing page's figure ----------------------------------------------------------------------------------------

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
    return figure_html(live, caption(study))


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


def figure_html(live, text):
    """Return a LiveFigure as plain HTML with a native range input; without JavaScript it shows the last picture."""
    import base64

    positions, last = live.slider.options, len(live.frames) - 1
    pictures = "\n".join(
        f'<img src="data:image/{image.format};base64,{base64.b64encode(data).decode()}"'
        f' alt="{html.escape(image.tooltip)}" data-label="{html.escape(label)}"{"" if number == last else " hidden"}>'
        for number, (image, data, label) in enumerate(zip(live.stack.children, live.frames, positions))
    )
    return f"""<figure class="tl-live tl-figure">
<div class="tl-control" hidden>
<label for="tl-landing">{html.escape(live.slider.description)}</label>
<input id="tl-landing" type="range" min="0" max="{last}" step="1" value="0" autocomplete="off">
<output for="tl-landing">{html.escape(positions[0])}</output>
</div>
<div class="tl-frames">
{pictures}
</div>
<figcaption>{text}</figcaption>
</figure>
"""


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
