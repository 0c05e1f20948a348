"""What an interrupted run goes on from: arrays and a few words in one file, which is whole or not there."""

import json
import os
import warnings
import zipfile

import numpy as np


class CheckpointWarning(UserWarning):
    """A file that a run was to go on from is damaged; the message says which, and what happens instead."""


def save(file, words, arrays):
    """Write a file in one step.

    Args:
        file: ``Path`` that ends in ``.npz``; its folder is made.
        words: Anything that JSON can hold.
        arrays: List of arrays.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".part.npz")
    np.savez(temporary, *arrays, words=json.dumps([len(arrays), words]))
    os.replace(temporary, file)


def load(file):
    """``(words, arrays)`` as they were saved, or ``None`` where there is no such file, or a damaged one.

    Warns:
        CheckpointWarning: The file is there and is damaged.
    """
    if not file.exists():
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            if damaged := archive.testzip():  # every byte, against the checksums; NumPy compares some of them only
                raise ValueError(f"the checksum of {damaged} is wrong")
        with np.load(file) as stored:
            number, words = json.loads(str(stored["words"]))
            return words, [stored[f"arr_{i}"] for i in range(number)]
    except Exception as error:  # zipfile, zlib, NumPy and JSON raise what they meet
        reason = str(error) or type(error).__name__
        text = f"{file} is damaged ({reason}): it is not used, and what it held is computed again"
        warnings.warn(text, CheckpointWarning, stacklevel=3)
        return None
