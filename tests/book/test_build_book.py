"""scripts/build_book.py: its errors, the landing page's figure, and the links that follow _config.yml."""

import base64
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import build_book
import ipywidgets as widgets
import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from tlutils import explore

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "build_book.py"

BUDGETS = (1, 5, 50)
STUDY = {
    "command": "make experiments",
    "date": "2026-01-02",
    "seconds": 600.0,
    "versions": {"python": "3.11.0", "tensorflow": "2.21.0"},
    "machine": {"cpu": "a <small> processor", "cores": 2, "system": "Linux"},
    # a thousand images of which the first so many are right, in both draws
    "rows": [
        {
            "method": method,
            "labels_per_class": k,
            "seed": seed,
            "images": 1000,
            "correct": np.packbits(np.arange(1000) < right).tobytes().hex(),
        }
        for method, counts in {"svm": (412, 600, 900), "probe": (523, 700, 800)}.items()
        for k, right in zip(BUDGETS, counts)
        for seed in range(10)
    ],
}


# --- build ------------------------------------------------------------------------------------------------------------


def test_a_missing_chapter_is_named(tmp_path, capsys):
    assert build_book.main(["--notebooks", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    message = capsys.readouterr().err
    assert "01_first_transfer" in message and "tlutils run --out" in message


def test_a_warning_is_an_error(tmp_path):
    """One reference to nowhere in one chapter, and no book comes out."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns("text"))
    path = tmp_path / "notebooks" / "05_fine_tuning.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells.append(nbformat.v4.new_markdown_cell("See {ref}`a-place-that-does-not-exist`."))
    nbformat.write(notebook, path)
    command = [sys.executable, SCRIPT, "--notebooks", tmp_path / "notebooks", "--out", tmp_path / "out"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1
    assert "a-place-that-does-not-exist" in run.stdout + run.stderr
    assert not (tmp_path / "out" / "html" / "index.html").exists()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('<a href="../notebooks/01.html#x">', '<a href="notebooks/01.html#x">'),
        ('<a href="running.html?q=1">', '<a href="book/running.html?q=1">'),
        ('<html data-content_root="../">', '<html data-content_root="./">'),
        ('<a href="#">', '<a href="#">'),
        ('<a href="https://example.org/a">', '<a href="https://example.org/a">'),
        ('<img src="data:image/png;base64,AA">', '<img src="data:image/png;base64,AA">'),
    ],
)
def test_the_front_page_keeps_its_links(before, after):
    assert build_book.rebase(before, "book") == after


# --- figures that move ------------------------------------------------------------------------------------------------


def png(shade):
    """The bytes of a small picture."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8), shade).save(buffer, "png")
    return buffer.getvalue()


def with_widget(widget):
    """A notebook that shows a widget, with the state that Jupyter stores."""
    view = {build_book._VIEW: {"model_id": widget.model_id}, "text/plain": repr(widget)}
    cell = nbformat.v4.new_code_cell("x", outputs=[nbformat.v4.new_output("display_data", data=view)])
    notebook = nbformat.v4.new_notebook(cells=[cell])
    notebook.metadata["widgets"] = {build_book._STATE: {"state": widgets.Widget.get_manager_state()["state"]}}
    return json.loads(nbformat.writes(notebook))


def test_a_live_figure_becomes_a_range_input():
    pictures = [png(shade) for shade in (0, 90, 250)]
    live = explore.picture_slider(pictures, ["a", "b <c>", "d"], "rate", play=True, value=1, alt="A curve")
    notebook = build_book.with_plain_figures(with_widget(live), "01_a")
    (output,) = notebook["cells"][0]["outputs"]
    figure = BeautifulSoup(output["data"]["text/html"], "html.parser").figure
    shown = figure.find_all("img")
    assert [base64.b64decode(image["src"].split(",")[1]) for image in shown] == pictures
    assert [image["alt"] for image in shown] == ["A curve; rate: a", "A curve; rate: b <c>", "A curve; rate: d"]
    assert [image.has_attr("hidden") for image in shown] == [True, False, True]
    assert (figure.input["value"], figure.input["max"], figure.label["for"]) == ("1", "2", figure.input["id"])
    assert figure.label.get_text() == "rate" and figure.output.get_text() == "b <c>" and figure.button
    assert "widgets" not in notebook["metadata"] and set(output["data"]) == {"text/html"}


def test_a_slider_without_labels_reads_numbers():
    live = explore.picture_slider([png(0), png(9)])
    notebook = build_book.with_plain_figures(with_widget(live), "01_a")
    figure = BeautifulSoup(notebook["cells"][0]["outputs"][0]["data"]["text/html"], "html.parser").figure
    assert [image["data-label"] for image in figure.find_all("img")] == ["0", "1"] and figure.button is None


@pytest.mark.parametrize("widget", [widgets.Button, lambda: widgets.VBox([widgets.Text(), widgets.Text()])])
def test_a_widget_that_needs_a_kernel_is_refused(widget):
    with pytest.raises(build_book.BookError, match="widget 1 of 01_a is no figure"):
        build_book.with_plain_figures(with_widget(widget()), "01_a")


# --- the chapter map --------------------------------------------------------------------------------------------------


def test_a_time_is_that_of_the_words_and_of_the_last_measurement(monkeypatch, tmp_path):
    monkeypatch.setattr(build_book, "ROOT", tmp_path)
    code = "```{code-cell} ipython3\n" + "name = 1\n" * 900 + "```\n"
    formula = "$$\n" + "x + y\n" * 900 + "$$\n"
    text = f"---\njupytext: {{}}\n---\n\n# Title\n\n{'word ' * 1100}\n\n{code}{formula}\n## Exercises\n{'more ' * 900}"
    write(tmp_path, "notebooks/text/01_a.md", text)
    write(tmp_path, "notebooks/text/02_b.md", "# A\n\nFew words.\n")
    write(
        tmp_path, "benchmarks/README.md", "| g | chapter 01_a   |   36.4 s | x |\n| g | chapter 01_a | 1,077 MB | x |\n"
    )
    assert build_book.words("01_a") == 1101
    assert build_book.with_times("{time 01_a}, {time 02_b}") == "10 min · 36 s, 5 min · –"
    with pytest.raises(build_book.BookError, match="03_c"):
        build_book.with_times("{time 03_c}")


def test_the_benchmarks_say_how_long_chapters_run():
    assert build_book.running_seconds()["01_first_transfer"] > 1


# --- the landing page's figure ----------------------------------------------------------------------------------------


@pytest.fixture
def study(monkeypatch):
    """The stored study replaced by a small one."""
    from tlutils import results

    monkeypatch.setattr(results, "load", lambda name: STUDY)


def test_the_figure_says_what_was_measured(study):
    figure = BeautifulSoup(build_book.landing_figure(), "html.parser").figure
    pictures = figure.find_all("img")
    assert [picture["data-label"] for picture in pictures] == ["1", "5", "50"]
    assert len({picture["src"] for picture in pictures}) == 3
    first, last = pictures[0]["alt"], pictures[-1]["alt"]
    assert first.index("52.3%") < first.index("41.2%") and last.index("90.0%") < last.index("80.0%")  # best first
    assert [picture.has_attr("hidden") for picture in pictures] == [True, True, False]  # without scripts: the last one
    caption = figure.figcaption.get_text()
    for part in ("10 seeds", "95%", "a <small> processor", "make experiments", "2026-01-02"):
        assert part in caption
    assert figure.find("input", type="range")["max"] == "2"


def test_a_missing_study_says_how_to_measure_it(monkeypatch):
    from tlutils import results

    def load(name):
        raise ValueError(f"no stored experiment is called {name!r}")

    monkeypatch.setattr(results, "load", load)
    with pytest.raises(build_book.BookError, match="make experiments"):
        build_book.landing_figure()


# --- links ------------------------------------------------------------------------------------------------------------


def write(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def fork(root, url, branch="main"):
    write(root, "_config.yml", f"repository:\n  url: {url}\n  branch: {branch}\n")


@pytest.fixture
def copy(tmp_path):
    """A small copy of the book, whose links stand at the placeholder."""
    fork(tmp_path, "https://github.com/OWNER/REPOSITORY")
    write(
        tmp_path,
        "README.md",
        "git clone https://github.com/OWNER/REPOSITORY.git\n"
        "[Colab](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/notebooks/01_a.ipynb)\n"
        "![badge](https://colab.research.google.com/assets/colab-badge.svg)\n"
        "[data](https://github.com/someone/data-set/tree/main/notebooks)\n",
    )
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [
        nbformat.v4.new_markdown_cell(
            "[Colab](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/notebooks/01_a.ipynb)"
        ),
        nbformat.v4.new_code_cell('%pip install "git+https://github.com/OWNER/REPOSITORY"'),
    ]
    write(tmp_path, "notebooks/01_a.ipynb", nbformat.writes(notebook))
    return tmp_path


def test_links_of_this_repository_follow_its_configuration():
    assert build_book.links() == []


def test_a_fork_changes_one_line(copy):
    assert build_book.links(root=copy) == []
    fork(copy, "https://github.com/teacher/my.course", branch="trunk")
    wrong = build_book.links(root=copy)
    assert len(wrong) == 4
    assert wrong[0].startswith("README.md:1: https://github.com/OWNER/REPOSITORY.git must be")
    assert build_book.links(write=True, root=copy) == wrong
    assert build_book.links(root=copy) == []
    readme = (copy / "README.md").read_text()
    assert "git clone https://github.com/teacher/my.course.git\n" in readme
    assert "https://colab.research.google.com/github/teacher/my.course/blob/trunk/notebooks/01_a.ipynb" in readme
    assert "https://github.com/someone/data-set/tree/main/notebooks" in readme  # somebody else's
    code = nbformat.read(copy / "notebooks" / "01_a.ipynb", 4).cells[1].source
    assert code == '%pip install "git+https://github.com/teacher/my.course"'


def test_a_fork_of_a_fork(copy):
    for url in ("https://github.com/first/book", "https://github.com/second/book/"):
        fork(copy, url)
        assert build_book.links(write=True, root=copy)
    text = (copy / "README.md").read_text()
    assert "second/book" in text and "first/book" not in text and "OWNER" not in text


def test_the_command_reports_by_exit_code(monkeypatch, copy, capsys):
    monkeypatch.setattr(build_book.links, "__defaults__", (False, copy))
    assert build_book.main(["links"]) == 0
    fork(copy, "https://github.com/teacher/course")
    assert build_book.main(["links"]) == 1
    assert "links --write" in capsys.readouterr().err
    assert build_book.main(["links", "--write"]) == 0
    assert build_book.main(["links"]) == 0


@pytest.mark.parametrize("url", ["https://gitlab.com/a/b", "github.com/a/b", "https://github.com/a"])
def test_an_address_that_colab_cannot_open(copy, url):
    fork(copy, url)
    with pytest.raises(build_book.BookError, match="must look like"):
        build_book.links(root=copy)
