"""tlutils.exercises: the message that is meant for a mistake, and for nothing else."""

import itertools

import numpy as np
import pytest

from tlutils import exercises
from tlutils.exercises import NotSolvedError, answered, expect, numbers, seal, statements


@pytest.mark.parametrize("missing", [..., None, "", " ", [], {}, (1, ...), {"a": 1, "b": ...}, [[...]], {1: [None]}])
def test_a_missing_answer_is_named(missing):
    with pytest.raises(NotSolvedError, match=r"^not answered yet: second, third$"):
        answered(first=1, second=missing, third=...)


@pytest.mark.parametrize("answer", [0, 0.0, False, "a", [0], {"a": 0}, np.zeros(3), np.array([]), np.float32(0)])
def test_a_small_answer_is_an_answer(answer):
    answered(answer=answer)


@pytest.mark.parametrize("number", [1, 2.5, np.int64(3), np.float32(0.5), np.array(4.0)])
def test_numbers_of_any_library_are_numbers(number):
    numbers(number=number)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (..., "not answered yet: share"),
        ("0.5", r"share must be one number, not '0.5' \(str\)"),
        (True, r"not True \(bool\)"),
        (np.array([1.0, 2.0]), r"one number, not array\(\[1., 2.\]\) \(ndarray\)"),
        ([0.5], r"one number, not \[0.5\] \(list\)"),
        (float("nan"), "share is not a number"),
    ],
)
def test_what_is_no_number_is_shown(answer, words):
    with pytest.raises(NotSolvedError, match=words):
        numbers(share=answer)


def test_a_right_answer_passes_whatever_else_it_resembles():
    expect(True, "wrong", {"a mistake": True})


def test_the_first_mistake_that_was_made_is_named():
    with pytest.raises(NotSolvedError, match=r"^second$"):
        expect(False, "none of these", {"first": False, "second": True, "third": True})
    with pytest.raises(NotSolvedError, match=r"^none of these$"):
        expect(False, "none of these", {"first": False})
    with pytest.raises(NotSolvedError, match=r"^wrong$"):
        expect(np.bool_(False), "wrong")


def test_every_wrong_choice_gets_the_hint_to_the_first_letter_judged_wrongly():
    """Over all choices of four statements, against a recount."""
    hints = {letter: f"hint {letter}" for letter in "abcd"}
    choices = ["".join(c) for size in range(1, 5) for c in itertools.combinations("abcd", size)]
    for truth in choices:
        sealed = seal("ex", truth)
        for choice in choices:
            wrong = sorted(set(choice) ^ set(truth))
            if not wrong:
                statements("ex", choice, sealed, hints)
                continue
            with pytest.raises(NotSolvedError, match=rf"^look at \({wrong[0]}\) again: hint {wrong[0]}$"):
                statements("ex", choice, sealed, hints)


@pytest.mark.parametrize("choice", ["ca", "A, C", " a c ", ["a", "c"], {"a", "c"}, ("c", "a")])
def test_letters_may_be_written_in_any_way(choice):
    statements("ex", choice, seal("ex", "ac"), dict.fromkeys("abc", "look"))


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (..., "not answered yet"),
        ("", "not answered yet"),
        (3, 'give letters, such as "a", not 3'),
        ([1, 2], "give letters"),
        ("ax", r"there is no statement \(x\): the letters are a, b, c"),
    ],
)
def test_what_is_no_choice_is_said(choice, words):
    with pytest.raises(NotSolvedError, match=words):
        statements("ex", choice, seal("ex", "ac"), dict.fromkeys("abc", "look"))


def test_a_seal_of_another_exercise_is_an_error_of_the_check():
    with pytest.raises(ValueError, match="fits no choice among a, b"):
        statements("ex", "a", seal("other", "a"), {"a": "look", "b": "look"})


def test_a_seal_does_not_show_its_letters_and_knows_no_order():
    assert seal("ex", "ca") == seal("ex", ["a", "c"]) != seal("other", "ac")
    assert len({seal("ex", letters) for letters in ("a", "b", "ab", "abc")}) == 4


def test_a_notebook_shows_the_message_and_no_traceback(capsys):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    shell.run_cell("from tlutils.exercises import expect\nsecret = 41\nexpect(secret == 42, 'look again')")
    said = capsys.readouterr().out
    assert "✗ look again" in said
    assert "secret" not in said and "Traceback" not in said


def test_a_passed_and_a_skipped_check_say_so(capsys):
    exercises.passed("counted")
    exercises.skipped("other data")
    assert capsys.readouterr().out == "Passed: counted\nNot checked: other data\n"
