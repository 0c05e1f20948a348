"""The pocket zoo's source task: printed letters, drawn from matplotlib's own fonts.

No digit is ever drawn, so that handwritten digits stay an honest target. Whole fonts are held out for validation: a
network that only memorised the shapes of its training fonts fails there. Thickness, slant, size, shape, resolution and
noise vary from image to image, because the target is low-resolution handwriting (see chapter 01).
"""

import hashlib
import string
from functools import cache
from pathlib import Path

import numpy as np

SIZE = 32

# Upper and lower case that differ only in size cannot be told apart once an image is scaled to its frame; they share
# one class, as in the balanced split of EMNIST (Cohen et al., 2017).
MERGED = "CIJKLMOPSUVWXYZ"
CLASS_NAMES = tuple(
    [c + c.lower() if c in MERGED else c for c in string.ascii_uppercase]
    + [c for c in string.ascii_lowercase if c.upper() not in MERGED]
)

_CLASS_OF = {char: i for i, name in enumerate(CLASS_NAMES) for char in name}

# These claim to hold the alphabet but draw boxes or mathematical symbols instead.
_NO_LETTERS = {"LastResortHE-Regular", "cmex10", "cmsy10"}
_HELD_OUT = {"DejaVuSansMono-Bold", "DejaVuSerif-Italic", "STIXGeneral", "cmss10", "cmtt10"}
_CANVAS = 64  # side of the square on which a glyph is kept before it is distorted


@cache
def fonts(split="train"):
    """The font files of one split.

    Args:
        split: ``"train"`` or ``"validation"``; no font is in both.

    Returns:
        tuple of Path, sorted by name.

    Raises:
        ValueError: ``split`` is neither.
    """
    if split not in ("train", "validation"):
        raise ValueError(f"fonts must be 'train' or 'validation', not {split!r}")
    import matplotlib
    from matplotlib.ft2font import FT2Font

    chosen = []
    for path in sorted((Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("*.ttf")):
        if path.stem in _NO_LETTERS or (path.stem in _HELD_OUT) != (split == "validation"):
            continue
        characters = FT2Font(str(path)).get_charmap()
        if all(ord(c) in characters for c in string.ascii_letters):
            chosen.append(path)
    return tuple(chosen)


@cache
def _glyphs(split):
    """Every letter of every font as ink in [0, 1], centred, its longer side filling 7/8 of the canvas."""
    from PIL import Image, ImageDraw, ImageFont

    glyphs = np.zeros((len(fonts(split)), len(string.ascii_letters), _CANVAS, _CANVAS), np.float32)
    longest = _CANVAS * 7 // 8
    for f, path in enumerate(fonts(split)):
        font = ImageFont.truetype(str(path), 2 * _CANVAS)
        for c, char in enumerate(string.ascii_letters):
            left, top, right, bottom = font.getbbox(char)
            ink = Image.new("L", (right - left, bottom - top))
            ImageDraw.Draw(ink).text((-left, -top), char, font=font, fill=255)
            scale = longest / max(ink.size)
            ink = ink.resize([max(1, round(side * scale)) for side in ink.size], Image.Resampling.LANCZOS)
            y, x = (_CANVAS - ink.height) // 2, (_CANVAS - ink.width) // 2
            glyphs[f, c, y : y + ink.height, x : x + ink.width] = np.asarray(ink, np.float32) / 255
    return glyphs


def draw(n, seed, fonts="train"):
    """Draw printed letters, bright ink on black, distorted towards low-resolution handwriting.

    Args:
        n: Number of images.
        seed: Seed of everything random; the same seed gives the same images.
        fonts: ``"train"`` or ``"validation"``: which fonts to draw from.

    Returns:
        ``(images, labels)``: uint8 of shape (n, 32, 32, 1) and int64 of shape (n,), indices into ``CLASS_NAMES``.
    """
    glyphs = _glyphs(fonts)
    rng = np.random.default_rng([seed, fonts == "validation"])
    labels = rng.integers(len(CLASS_NAMES), size=n)
    case = rng.integers(2, size=n)
    chars = [CLASS_NAMES[label][k % len(CLASS_NAMES[label])] for label, k in zip(labels, case)]
    columns = np.array([string.ascii_letters.index(char) for char in chars])
    rows = rng.integers(len(glyphs), size=n)
    images = np.empty((n, SIZE, SIZE, 1), np.uint8)
    for start in range(0, n, 1024):
        part = slice(start, start + 1024)
        images[part, ..., 0] = distort(glyphs[rows[part], columns[part]], rng)
    return images, labels


def fingerprint(images, labels):
    """Hex SHA-256 of drawn letters; stored beside the weights that were trained on them."""
    return hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest()


def distort(glyphs, rng):
    """Glyphs (n, 64, 64) in [0, 1] to uint8 (n, 32, 32): thickness, shape, resolution, contrast and noise."""
    from scipy.ndimage import gaussian_filter

    n = len(glyphs)
    # Thickness: blur the ink, then cut it again at a level above (thinner) or below (thicker) one half.
    soft = gaussian_filter(glyphs, (0, 2.0, 2.0))
    level = rng.uniform(0.12, 0.42, (n, 1, 1)).astype(np.float32)
    ink = np.clip((soft - level) / 0.15 + 0.5, 0, 1)
    ink = gaussian_filter(ink, (0, 0.8, 0.8))

    image = _sample(ink, _coordinates(n, rng))

    # Resolution: average down to m×m cells and interpolate back, as a small scan enlarged to this size would look.
    cells = np.where(rng.random(n) < 0.5, 8, rng.integers(9, SIZE + 1, n))
    for m in np.unique(cells):
        chosen = cells == m
        low = _interpolation(m) @ _averaging(m)
        image[chosen] = low @ image[chosen] @ low.T

    peak = image.max(axis=(1, 2), keepdims=True).clip(1e-3)
    image = image / peak * rng.uniform(0.75, 1.15, (n, 1, 1))
    image += rng.normal(size=image.shape) * rng.uniform(0, 0.06, (n, 1, 1))
    return (image.clip(0, 1) * 255).round().astype(np.uint8)


def _coordinates(n, rng):
    """Where on the canvas each output pixel looks: a random affine map and a smooth random displacement."""
    angle = np.radians(rng.normal(0, 7, n))
    slant = rng.normal(0, 0.2, n)
    # The target's digits fill their frame from top to bottom and are narrower than high.
    high, wide = rng.uniform(0.85, 1.12, n), rng.uniform(0.5, 1.05, n)
    turn = np.stack([np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)], 1).reshape(n, 2, 2)
    shear = np.stack([np.ones(n), np.zeros(n), slant, np.ones(n)], 1).reshape(n, 2, 2)
    scale = np.stack([1 / high, np.zeros(n), np.zeros(n), 1 / wide], 1).reshape(n, 2, 2)
    matrix = scale @ shear @ turn

    centre = (np.arange(SIZE) - (SIZE - 1) / 2) * (_CANVAS * 7 / 8 / SIZE)
    grid = np.stack(np.meshgrid(centre, centre, indexing="ij")).reshape(2, -1)
    points = (matrix @ grid).reshape(n, 2, SIZE, SIZE)
    smooth = _interpolation(5)
    bend = rng.normal(0, 1, (n, 2, 5, 5)) * rng.uniform(0, 3.2, (n, 1, 1, 1))
    shift = rng.normal(0, 1.5, (n, 2, 1, 1))
    return points + smooth @ bend @ smooth.T + shift + (_CANVAS - 1) / 2


def _sample(images, points):
    """Bilinear values of images (n, h, w) at points (n, 2, SIZE, SIZE); zero outside."""
    n, side = len(images), images.shape[1]
    padded = np.pad(images, ((0, 0), (1, 2), (1, 2)))
    points = (points + 1).clip(0, side + 1)
    corner = points.astype(int)
    fy, fx = (points - corner).transpose(1, 0, 2, 3)
    y, x = corner.transpose(1, 0, 2, 3)
    i = np.arange(n)[:, None, None]
    top = padded[i, y, x] * (1 - fx) + padded[i, y, x + 1] * fx
    bottom = padded[i, y + 1, x] * (1 - fx) + padded[i, y + 1, x + 1] * fx
    return top * (1 - fy) + bottom * fy


@cache
def _averaging(m):
    """Matrix (m, SIZE) that averages SIZE pixels into m equal cells."""
    edges = np.linspace(0, SIZE, m + 1)
    pixel = np.arange(SIZE)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return overlap.clip(0) * m / SIZE


@cache
def _interpolation(m):
    """Matrix (SIZE, m) of linear interpolation from m cell centres to SIZE pixel centres, constant at the edges."""
    position = ((np.arange(SIZE) + 0.5) * m / SIZE - 0.5).clip(0, m - 1)
    return (1 - np.abs(position[:, None] - np.arange(m))).clip(0)
