"""What the check of an exercise says: the message that is meant for a mistake, without a traceback.

A check gets the reader's answer and compares it with a truth that it finds in another way: another library, a recount,
a property that every right answer has. So it does not hold the answer, and it can say which mistake was made::

    exercises.numbers(weights=weights)
    exercises.expect(
        weights == layer.count_params() - layer.units,
        "Keras counts another number: each input has a weight for each output",
        {"the biases are among them": weights == layer.count_params()},
    )
    exercises.passed("the weights of the layer are counted")

A choice among statements cannot be computed. Its truth is sealed (:func:`seal`), which keeps it from being read in
passing; a lock it is not.
"""

import hashlib
import itertools
import reprlib
from numbers import Real

import numpy as np

_EMPTY = (None, ...)
_SEVERAL = (str, list, tuple, set, frozenset)


class NotSolvedError(AssertionError):
    """An exercise is not solved; the message says what to look at. A notebook shows the message and no traceback."""

    def _render_traceback_(self):
        # IPython asks for this; the lines of a check would tell a student nothing
        return [f"✗ {self}"]


def answered(**answers):
    """Stop here while an answer is still missing: ``None``, ``...``, nothing in it, or a ``...`` in it.

    Args:
        answers: What the reader was to fill in, by the name that it has in the notebook.

    Raises:
        NotSolvedError: "not answered yet: …", with the names of all that are missing.
    """
    missing = [name for name, answer in answers.items() if _missing(answer)]
    if missing:
        raise NotSolvedError(f"not answered yet: {', '.join(missing)}")


def numbers(**answers):
    """Like :func:`answered`, and every answer is a single number.

    Raises:
        NotSolvedError: One is missing, no number, an array, or NaN.
    """
    answered(**answers)
    for name, answer in answers.items():
        value = answer.numpy() if hasattr(answer, "numpy") else answer  # of TensorFlow
        value = value.item() if getattr(value, "shape", None) == () else value
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
            raise NotSolvedError(f"{name} must be one number, not {reprlib.repr(answer)} ({type(answer).__name__})")
        if value != value:
            raise NotSolvedError(f"{name} is not a number (NaN): somewhere 0 was divided by 0")


def expect(holds, message, mistakes=None):
    """Stop with a message that teaches if the answer is wrong.

    Args:
        holds (bool): Whether the answer is right.
        message (str): What to look at if it is not.
        mistakes (dict): Better messages for mistakes that can be recognised: message to whether it is this mistake.

    Raises:
        NotSolvedError: The answer is wrong; with the first message whose mistake was made, or else with ``message``.
    """
    if not holds:
        raise NotSolvedError(next((text for text, made in (mistakes or {}).items() if made), message))


def statements(label, chosen, sealed, hints):
    """Check which of some statements were said to be true.

    Args:
        label (str): The exercise's label.
        chosen: The letters of the statements that the reader holds true: ``"ac"``, ``"a, c"`` or ``["a", "c"]``.
        sealed (str): :func:`seal` of the label and the letters that are true.
        hints (dict): For the letter of each statement where to look if it was judged wrongly. A hint must fit a false
            statement that was chosen and a true one that was left out; then it gives nothing away.

    Raises:
        NotSolvedError: Nothing was chosen, a letter is none of them, or a statement was judged wrongly.
        ValueError: The seal belongs to no choice among these letters: the check itself is wrong.
    """
    answered(**{"the letters of the true statements": chosen})
    if not isinstance(chosen, _SEVERAL) or not all(isinstance(letter, str) for letter in chosen):
        raise NotSolvedError(f'give letters, such as "{next(iter(hints))}", not {reprlib.repr(chosen)}')
    letters = {letter for letter in "".join(chosen).lower() if letter.isalnum()}
    if strange := sorted(letters - {*hints}):
        raise NotSolvedError(f"there is no statement ({strange[0]}): the letters are {', '.join(hints)}")
    subsets = (subset for size in range(1, len(hints) + 1) for subset in itertools.combinations(hints, size))
    true = next((subset for subset in subsets if seal(label, subset) == sealed), None)
    if true is None:
        raise ValueError(f"the seal {sealed!r} fits no choice among {', '.join(hints)}; make one: seal({label!r}, …)")
    for letter, hint in hints.items():
        expect((letter in letters) == (letter in true), f"look at ({letter}) again: {hint}")


def seal(label, letters):
    """What stands for the letters of the true statements in a check, so that nobody reads them in passing.

    Args:
        label (str): The exercise's label: equal letters have another seal in another exercise.
        letters: The letters, in any order.

    Returns:
        str: Eight hexadecimal digits.
    """
    return hashlib.sha256(f"{label}:{''.join(sorted(letters))}".encode()).hexdigest()[:8]


def passed(sentence):
    """Print that the check has passed; a sentence that does not give the answer away."""
    print(f"Passed: {sentence}")


def skipped(reason):
    """Print why there is nothing to check in this set-up, such as with a reader's own photographs."""
    print(f"Not checked: {reason}")


def _missing(answer):
    if any(answer is nothing for nothing in _EMPTY):
        return True
    if isinstance(answer, str):
        return not answer.strip()
    if isinstance(answer, dict):
        answer = list(answer.values())
    return isinstance(answer, _SEVERAL) and (not answer or any(map(_missing, answer)))
