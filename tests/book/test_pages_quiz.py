"""The quiz directive: what it accepts, and what it says about anything else."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]
QUIZ = """# Page

:::{quiz}
Which is $p - y$, *the push* or the pull?

1. The `push`.
2. The pull.
3. Both, by symmetry.

<details><summary>Answers</summary>

1. Right. It is the **gradient**.
2. No. It has the other sign.

   Look again.
3. No.

</details>
:::
"""


def rendered(folder, text):
    """Return (page, what Sphinx said) of a book of one page."""
    (folder / "index.md").write_text(text, encoding="utf-8")
    (folder / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'book' / 'extensions')!r})\n"
        "extensions = ['myst_parser', 'quiz']\nmyst_enable_extensions = ['colon_fence', 'dollarmath', 'html_image']\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "sphinx", "-q", str(folder), str(folder / "out")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return BeautifulSoup((folder / "out" / "index.html").read_text("utf-8"), "html.parser"), run.stderr


def test_a_quiz_is_a_group_of_radio_buttons_with_folded_replies(tmp_path):
    page, said = rendered(tmp_path, QUIZ)
    assert said == ""
    (quiz,) = page.select("fieldset.tl-quiz")
    assert quiz.legend.get_text().startswith("Which is \\(p - y\\), the push")
    labels = quiz.select("label")
    assert [label.get_text().strip() for label in labels] == ["1. The push.", "2. The pull.", "3. Both, by symmetry."]
    inputs = [label.input for label in labels]
    assert {button["type"] for button in inputs} == {"radio"} and len({button["name"] for button in inputs}) == 1
    assert [button["value"] for button in inputs] == ["0", "1", "2"]
    assert [reply["class"] for reply in quiz.select("details > ol > li")] == [["right"], ["wrong"], ["wrong"]]
    assert len(quiz.select("li")[1].find_all("p")) == 2


def test_two_quizzes_do_not_share_their_buttons(tmp_path):
    page, _ = rendered(tmp_path, QUIZ + "\n" + QUIZ.split("\n", 2)[2])
    assert len({button["name"] for button in page.select(".tl-quiz input")}) == 2
    assert len({quiz["id"] for quiz in page.select(".tl-quiz")}) == 2


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("1. Right. It", "1. Yes. It", "0 replies begin"),
        ("3. No.\n", "3. Right.\n", "2 replies begin"),
        ("3. No.\n", "", "3 answers and 2 replies"),
        ("1. The `push`.\n2. The pull.\n3. Both", "- The push.\n- The pull.\n- Both", "found paragraph, bullet list"),
        ("the pull?\n", "the pull?\n\nThink.\n", "found paragraph, paragraph"),
    ],
)
def test_what_is_no_quiz_is_an_error_that_says_why(tmp_path, before, after, message):
    assert before in QUIZ
    page, said = rendered(tmp_path, QUIZ.replace(before, after))
    assert message in said and "index.md:3" in said
    assert not page.select(".tl-quiz")


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_quick_quiz_has_two_or_three_questions_and_stands_before_the_exercises(path):
    text = "\n\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown")
    assert "\n## Quick quiz\n" in text, "this chapter has no quick quiz"
    quiz = text.split("\n## Quick quiz\n")[1].split("\n## ")[0]
    assert text.count(":::{quiz}") == quiz.count(":::{quiz}") in (2, 3)
    assert text.index("\n## Quick quiz\n") < text.index("\n## Exercises\n")
