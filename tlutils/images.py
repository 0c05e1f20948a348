"""Image files: what counts as one, whether it is sound, what is odd about it, and its pixels.

The name of a file decides whether it is looked at, the content what it is. Files are read, never changed.
"""

import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageOps

from tlutils.notes import DataError

EXTENSIONS = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2"),
}
# Photographs that Pillow cannot open by itself. Passing over them in silence would lose half of a phone's camera roll.
_UNSUPPORTED = {".heic", ".heif", ".avif", ".svg", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raw"}
# Content decides, not the extension, and among these formats only: PostScript called .jpg must never reach Ghostscript.
_FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000")
_TINY = 16  # an image with a side shorter than this many pixels is reported
DECODER = "1"  # part of each fingerprint of files: raise it when the decoder changes, so that cached features expire
THREADS = os.cpu_count() or 1  # how many files are read or decoded at a time

# What is said of images that have a trait.
TRAITS = {
    "16-bit": "{n} 16-bit {images} scaled to 8 bits",
    "CMYK": "{n} CMYK {images} converted",
    "alpha": "{n} {images} with transparency laid on white",
    "animated": "{n} animated {images}, first frame taken",
    "gray": "{n} gray {images} repeated to three channels",
    "palette": "{n} palette {images} converted",
    "tiny": f"{{n}} {{images}} with a side under {_TINY} pixels, which hold little to learn from",
}


@dataclass(frozen=True)
class Check:
    """What a look at a file has shown: a digest, or a problem."""

    digest: str | None = None  # SHA-256 (hex) of its bytes
    problem: str | None = None  # why the file cannot be used
    traits: tuple[str, ...] = ()  # what will be converted, keys of TRAITS


def is_image_name(path):
    """Whether a file claims to be an image, readable here or not."""
    return path.suffix.lower() in EXTENSIONS | _UNSUPPORTED


def check_files(paths):
    """A ``Check`` of each file, in order."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(_check, paths))


def decode(path, image_size, channels):
    """uint8 pixels of one file, shape (height, width, channels); an error names the file."""
    try:
        return _pixels(path, image_size, channels)
    except Exception as error:
        raise DataError(f"cannot decode {path} ({error}): repair or remove it, then load the data again") from error


def decode_all(paths, image_size, channels):
    """uint8 pixels of several files, shape (N, height, width, channels)."""
    pixels = np.empty((len(paths), *image_size, channels), np.uint8)

    def fill(index):
        pixels[index] = decode(paths[index], image_size, channels)

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(fill, range(len(paths))):
            pass
    return pixels


def _check(path):
    """Hash a file and find out whether it can be decoded, without decoding it where its format allows that."""
    if path.suffix.lower() in _UNSUPPORTED:
        return Check(problem=f"{path.suffix} files cannot be read here; save it as JPEG or PNG")
    try:
        data = path.read_bytes()
    except OSError as error:
        return Check(problem=f"cannot be read ({error.strerror or error}); check its permissions")
    if not data:
        return Check(problem="the file is empty; fetch it again or remove it")
    try:
        with _open(io.BytesIO(data)) as image:
            traits = tuple(_traits(image))
            if image.format in ("JPEG", "MPO"):
                sound = _has_jpeg_end(data)
            elif image.format == "PNG":
                image.verify()  # checks every checksum; the image cannot be used afterwards
                sound = True
            else:
                sound = False  # nothing cheaper than decoding is conclusive
        if not sound:
            _pixels(io.BytesIO(data), (_TINY, _TINY), 3)
    except Image.UnidentifiedImageError:
        return Check(problem="not an image, whatever its name says; remove it, or save it again as JPEG or PNG")
    except DataError as error:
        return Check(problem=str(error))
    except Exception as error:  # Pillow's plugins raise many kinds, SyntaxError and struct.error among them
        return Check(problem=f"cannot be decoded ({error}); fetch it again or remove it")
    return Check(hashlib.sha256(data).hexdigest(), traits=traits)


def _traits(image):
    mode = image.mode
    if getattr(image, "is_animated", False) and image.format != "MPO":
        yield "animated"
    if image.has_transparency_data and not mode.startswith("I"):
        yield "alpha"
    if mode in ("P", "PA"):
        yield "palette"
    if mode == "CMYK":
        yield "CMYK"
    if mode.startswith("I"):
        yield "16-bit"
    if mode in ("1", "L", "LA") or mode.startswith("I"):
        yield "gray"
    if min(image.size) < _TINY:
        yield "tiny"


def _has_jpeg_end(data):
    """Whether an end marker follows the first scan of a JPEG. Inside a scan, 0xFF never stands before 0xD9.

    Earlier ones do not count: a thumbnail in the EXIF block is a whole JPEG with an end of its own.
    """
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xDA:
            return data.find(b"\xff\xd9", position) >= 0
        if marker == 0xFF:
            position += 1
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False


@cache
def _formats():
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _open(file):
    return Image.open(file, formats=_formats())


def _pixels(file, image_size, channels):
    """uint8 pixels of a path or binary file, shape (height, width, channels). See ``data.load`` for the steps."""
    height, width = image_size
    mode = "L" if channels == 1 else "RGB"
    with _open(file) as image:
        # JPEG only: decode at 1/2, 1/4 or 1/8 where that is still large enough, whichever way the EXIF block turns it
        image.draft(mode, (max(height, width), max(height, width)))
        ImageOps.exif_transpose(image, in_place=True)
        image = _as_mode(image, mode)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(height, width, channels)


def _as_mode(image, mode):
    """An 8-bit image in ``mode`` ("L" or "RGB"), detached from its file."""
    if image.mode.startswith("I") or image.mode == "F":
        if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
            raise DataError("32-bit pixels have no agreed range; save it with 8 or 16 bits")
        image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))  # 65535 / 257 = 255
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image.load()
    return image.convert(mode)
