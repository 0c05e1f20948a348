"""What there is to say about data: errors, warnings, and the notes that a task keeps."""

import difflib
import warnings


class DataError(ValueError):
    """The data cannot be used; the message says which path or value is at fault and what to do."""


class DataWarning(UserWarning):
    """The data can be used, but not all of it or not as it was given; ``ImageTask.notes`` has the details."""


class Log:
    """Collects what a reader must know about the data: notes, and warnings to give once loading has succeeded."""

    def __init__(self):
        self._notes, self._warnings = [], []

    @property
    def notes(self):
        return tuple(self._notes)

    def note(self, text):
        self._notes.append(text)

    def warning(self, text):
        self._warnings.append(text)

    def both(self, text):
        self.note(text)
        self.warning(text)

    def give_warnings(self):
        for text in self._warnings:
            warnings.warn(f"{text} (see the task's notes)", DataWarning, stacklevel=3)


def listed(names, most=10, separator=", "):
    """The first names as text, and how many more there are."""
    names = [str(name) for name in names]
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return separator.join(names[:most]) + more


def suggestion(name, known):
    """“did you mean …?” with the nearest known name, or the list of names where none is near."""
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known) or 'none'}"
