"""Images and folders of images for tests."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def noise(seed, size=(24, 20), channels=3):
    """An image that no other seed gives: random pixels, ``size`` is (width, height)."""
    shape = (size[1], size[0], channels) if channels > 1 else (size[1], size[0])
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def encoded(image, file_format="JPEG", **options):
    """The bytes of the file in which Pillow stores an image."""
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


class Folder:
    """A folder of images in the making: ``put`` writes one file, ``fill`` a class of different noise images."""

    def __init__(self, path):
        self.path, self._next = path, 0

    def put(self, name, content):
        """Write bytes, or an image in the format of its extension; ``name`` is relative, with ``/``."""
        path = Path(self.path, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content.save(path)
        return path

    def fill(self, folder, count, extension="png", **options):
        """Write ``count`` noise images, each different from all others of this folder."""
        self.path.joinpath(folder).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            self.put(f"{folder}/{self._next:04d}.{extension}", noise(self._next, **options))
            self._next += 1
        return self
