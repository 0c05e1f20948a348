"""What a notebook needs on Google Colab: the right runtime, and a place that outlives it.

Colab lends a machine and deletes it when the reader is away for a while. Google Drive stays, so that is where results
and the state of a training go if the reader says so. Only the first cell of a chapter calls this module, and only on
Colab.
"""

import subprocess
from importlib.util import find_spec
from pathlib import Path

from tlutils import runtime

MOUNT = Path("/content/drive")
"""Where Drive appears in the machine's file system; Colab's own notebooks use the same place."""

FOLDER = "transfer-learning"
"""The folder on the reader's Drive; each chapter has one of its own in it."""


def setup(chapter, drive=False):
    """Say which runtime the chapter runs on and which one to choose; keep what it finds out on Drive, if asked to.

    Args:
        chapter: The notebook's name, such as ``"05_fine_tuning"``.
        drive: Connect Google Drive, for which Colab asks the reader's permission. Recorded numbers then go to
            ``MyDrive/transfer-learning/CHAPTER``, and so does the state of each training: when Colab has disconnected
            and the notebook is run again, the training goes on after its last complete epoch.

    Returns:
        Path: The chapter's folder on Drive; ``None`` without ``drive``.

    Raises:
        RuntimeError: The runtime has no TensorFlow, or Drive was not connected; the message says what to do.
    """
    if find_spec("tensorflow") is None:
        raise RuntimeError(
            "this runtime has no TensorFlow, as Colab's TPU runtimes do not: choose "
            f"{runtime.COLAB_MENU} (or CPU), then Runtime → Run all"
        )
    gpu = _gpu()
    if gpu:
        print(f'GPU: {gpu}. Set PROFILE = "full" below to put it to use.')
    else:
        print('No GPU here. PROFILE = "quick" needs none. For "full" choose')
        print(f"{runtime.COLAB_MENU}, then Runtime → Run all.")
    if not drive:
        print("Colab forgets results when it disconnects; drive=True keeps them.")
        return None
    folder = _drive() / FOLDER / chapter
    runtime.keep(folder)
    print(f"Kept on Drive: {folder.relative_to(MOUNT).as_posix()}")
    return folder


def _gpu():
    """The name of the GPU, or None. TensorFlow knows it too, but takes seconds to load."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    names = answer.stdout.split("\n")
    return names[0].strip() or None if answer.returncode == 0 else None


def _drive():
    """Connect Drive and return the reader's own part of it."""
    from google.colab import drive

    try:
        drive.mount(str(MOUNT))
    except Exception as error:  # Colab raises its own kinds, among them one for a reader who does not allow it
        raise RuntimeError(
            f"Google Drive was not connected ({error}): run this cell again and allow the access, or set drive=False"
        ) from error
    return MOUNT / "MyDrive"
