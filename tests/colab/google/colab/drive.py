"""Drive as the first cell meets it: a folder that is there again when the next machine mounts it.

What is on Drive lies in $FAKE_DRIVE. Without the variable the reader has not allowed the access.
"""

import os
from pathlib import Path


def mount(mountpoint, force_remount=False, timeout_ms=120000, readonly=False):
    place = Path(mountpoint)
    if " " in mountpoint:
        raise ValueError("Mountpoint must not contain a space.")
    if (place / "MyDrive").is_dir() and not force_remount:
        print(f'Drive already mounted at {place}; call drive.mount("{place}", force_remount=True) to remount.')
        return
    if "FAKE_DRIVE" not in os.environ:
        raise ValueError("mount failed")
    if place.is_dir() and any(place.iterdir()):
        raise ValueError("Mountpoint must not already contain files")
    place.mkdir(exist_ok=True)
    (place / "MyDrive").symlink_to(os.environ["FAKE_DRIVE"], target_is_directory=True)
    print(f"Mounted at {place}")
