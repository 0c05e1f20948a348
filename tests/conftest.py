"""Fixtures that several test files share."""

import pytest
from pictures import Folder


@pytest.fixture
def folder(tmp_path):
    """An empty ``Folder`` called ``photos``."""
    path = tmp_path / "photos"
    path.mkdir()
    return Folder(path)


@pytest.fixture(scope="session")
def tensorflow():
    """TensorFlow as a chapter loads it: seeded and deterministic."""
    from tlutils import runtime

    runtime.setup()
    return runtime.require_tensorflow()
