"""Files that an interrupted run goes on from: what comes back is what was saved, or nothing."""

import warnings
import zipfile

import numpy as np
import pytest

from tlutils import checkpoints

WORDS = {"epoch": 3, "history": {"loss": [0.5, float("inf")]}, "name": "größer"}
ARRAYS = [np.arange(6, dtype="float32").reshape(2, 3), np.ones(4, "float16"), np.array(7, "int64"), np.zeros((0, 2))]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "new" / "state.npz"
    checkpoints.save(path, WORDS, ARRAYS)
    return path


def is_what_was_saved(found):
    words, arrays = found
    pairs = zip(arrays, ARRAYS, strict=True)
    return words == WORDS and all(a.dtype == b.dtype and a.shape == b.shape and (a == b).all() for a, b in pairs)


def loaded(path):
    """What is loaded, and the texts of the warnings."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        found = checkpoints.load(path)
    assert all(warning.category is checkpoints.CheckpointWarning for warning in warned)
    return found, [str(warning.message) for warning in warned]


def test_what_was_saved_comes_back_without_a_word(file):
    found, said = loaded(file)
    assert is_what_was_saved(found) and said == []
    assert [path.name for path in file.parent.iterdir()] == ["state.npz"]


def test_where_there_is_nothing_nothing_comes_back_without_a_word(tmp_path):
    assert loaded(tmp_path / "state.npz") == (None, [])


def test_a_file_that_was_cut_off_anywhere_is_not_used(file):
    whole = file.read_bytes()
    for length in range(0, len(whole), 7):
        file.write_bytes(whole[:length])
        found, said = loaded(file)
        assert found is None and len(said) == 1
    assert said[0].startswith(f"{file} is damaged (") and said[0].endswith("what it held is computed again")


def test_no_changed_bit_makes_a_difference_unseen(file):
    whole, refused = file.read_bytes(), 0
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        file.write_bytes(changed)
        found, said = loaded(file)
        assert (found is None) == (len(said) == 1)
        assert found is None or is_what_was_saved(found)  # a date, or such: zip files hold much besides
        refused += found is None
    assert refused > len(whole) / 2


def test_another_zip_file_is_not_used(file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("notes.txt", "milk")
    found, said = loaded(file)
    assert found is None and len(said) == 1


def test_an_interrupted_save_leaves_what_was_there(file, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(file, {}, [])
    assert is_what_was_saved(checkpoints.load(file))
