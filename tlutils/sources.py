"""The source tasks of the pocket zoo: what its networks are pretrained on.

``letters`` (:mod:`tlutils.letters`) are printed; ``strokes`` are invented characters, written with a pen by simulated
writers, and so designed to lie near to handwriting; ``textures`` fill the image with filtered noise, have no shape that
begins and ends, and so are designed to lie far from it. All three have the same image size, about as many classes, and
are told apart from each other by nothing but their pictures: chapter 03 compares what they are worth.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from tlutils import letters

SIZE = letters.SIZE

_CHARACTERS = 37
_WRITERS = {"train": 24, "validation": 5}
_CANVAS = 64  # side of the square on which a character is written before it is distorted

_ANGLES = (0, 30, 60, 90, 120, 150)  # degrees
_GRAINS = {"coarse": 3.0, "middle": 5.0, "fine": 8.0}  # waves across the image
_EDGES = ("soft", "hard")


@dataclass(frozen=True)
class Source:
    """A source task.

    Attributes:
        name: Its name.
        description: What it shows, in a few words.
        class_names: Names of the classes, in the order of the labels.
        held_out: What the validation images have that no training image has.
        draw: Function of ``(n, seed, split)``, with ``split`` ``"train"`` or ``"validation"``, that gives
            ``(images, labels)``: uint8 of shape (n, 32, 32, 1) and int64 of shape (n,). The same arguments give the
            same images.
    """

    name: str
    description: str
    class_names: tuple[str, ...]
    held_out: str
    draw: Callable


def find(name):
    """The source task of this name.

    Raises:
        ValueError: There is none; the message lists the names.
    """
    if name not in SOURCES:
        raise ValueError(f"unknown source task {name!r}; choose from {', '.join(SOURCES)}")
    return SOURCES[name]


def _check(split):
    if split not in _WRITERS:
        raise ValueError(f"split must be 'train' or 'validation', not {split!r}")


# -------------------------------------------------------------------------------------------------------------- strokes


@cache
def _alphabet():
    """Each character's strokes as control points in the unit square: a tuple of arrays (points, 2), (x, y)."""
    rng = np.random.default_rng(20_26)
    characters = []
    while len(characters) < _CHARACTERS:
        strokes = []
        for _ in range(rng.choice([1, 2, 3], p=[0.35, 0.45, 0.2])):
            steps = rng.normal(0, 0.45, (rng.integers(2, 5), 2))
            path = np.cumsum(np.vstack([rng.random(2), steps]), axis=0)
            strokes.append(path)
        points = np.concatenate(strokes)
        low, extent = points.min(axis=0), np.ptp(points, axis=0)
        strokes = tuple(0.08 + 0.84 * (path - low) / extent for path in strokes)
        length = sum(np.hypot(*np.diff(path, axis=0).T).sum() for path in strokes)
        if extent.min() > 0.35 and length > 1.8:  # no character is a mere line
            characters.append(strokes)
    return characters


@cache
def _handwriting(split):
    """How each writer of a split forms each character: its control points, moved once and for all."""
    rng = np.random.default_rng([7, split == "validation"])
    return [
        [tuple(path + rng.normal(0, 0.05, path.shape) for path in strokes) for strokes in _alphabet()]
        for _ in range(_WRITERS[split])
    ]


def _curve(points, samples=8):
    """A smooth line through control points: a Catmull–Rom spline, shape (steps, 2)."""
    padded = np.vstack([2 * points[0] - points[1], points, 2 * points[-1] - points[-2]])
    t = np.linspace(0, 1, samples, endpoint=False)[:, None]
    before, here, there, after = (padded[i : len(padded) - 3 + i, None] for i in range(4))
    line = 0.5 * (
        2 * here
        + (there - before) * t
        + (2 * before - 5 * here + 4 * there - after) * t**2
        + (3 * here - before - 3 * there + after) * t**3
    )
    return np.vstack([line.reshape(-1, 2), points[-1:]])


def _draw_strokes(n, seed, split="train"):
    from PIL import Image, ImageDraw

    _check(split)
    hands = _handwriting(split)
    rng = np.random.default_rng([seed, split == "validation", 1])
    labels = rng.integers(_CHARACTERS, size=n)
    writers = rng.integers(len(hands), size=n)
    images = np.empty((n, SIZE, SIZE, 1), np.uint8)
    for start in range(0, n, 1024):
        part = range(start, min(start + 1024, n))
        ink = np.zeros((len(part), _CANVAS, _CANVAS), np.float32)
        for row, i in enumerate(part):
            canvas = Image.new("L", (_CANVAS, _CANVAS))
            pen = ImageDraw.Draw(canvas)
            width = int(rng.integers(4, 9))
            for path in hands[writers[i]][labels[i]]:
                moved = path + rng.normal(0, 0.025, path.shape)
                line = _curve(_CANVAS * (0.0625 + 0.875 * moved))
                pen.line([tuple(point) for point in line], fill=255, width=width, joint="curve")
            ink[row] = np.asarray(canvas, np.float32) / 255
        images[start : start + len(part), ..., 0] = letters.distort(ink, rng)
    return images, labels


# ------------------------------------------------------------------------------------------------------------- textures

_TEXTURES = tuple(
    f"{angle}° {grain} {edge}" for angle in _ANGLES for grain in _GRAINS for edge in _EDGES
)  # names of the classes


def _draw_textures(n, seed, split="train"):
    _check(split)
    rng = np.random.default_rng([seed, split == "validation", 2])
    labels = rng.integers(len(_TEXTURES), size=n)
    angle = np.array(_ANGLES)[labels // 6]
    grain = np.array(list(_GRAINS.values()))[labels // 2 % 3]
    hard = (labels % 2).astype(bool)
    fy = np.fft.fftfreq(SIZE)[:, None] * SIZE
    fx = np.fft.fftfreq(SIZE)[None, :] * SIZE
    images = np.empty((n, SIZE, SIZE, 1), np.uint8)
    for start in range(0, n, 1024):
        part = slice(start, min(start + 1024, n))
        count = part.stop - part.start
        turn = np.radians(angle[part] + rng.normal(0, 4, count))[:, None, None]
        waves = (grain[part] * np.exp(rng.normal(0, 0.07, count)))[:, None, None]
        # Noise that only holds waves of about this length and direction (and, being real, the opposite direction).
        along, across = fx * np.cos(turn) + fy * np.sin(turn), fy * np.cos(turn) - fx * np.sin(turn)
        spread = rng.uniform(0.6, 1.4, (count, 1, 1))
        band = np.exp(-(((np.abs(along) - waves) / spread) ** 2 + (across / (1.5 * spread)) ** 2) / 2)
        noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=(count, SIZE, SIZE))) * band).real
        noise /= noise.std(axis=(1, 2), keepdims=True)
        image = np.where(hard[part, None, None], np.tanh(6 * noise), noise / 2.5)
        image = 0.5 + 0.5 * image * rng.uniform(0.3, 1, (count, 1, 1)) + rng.uniform(-0.2, 0.2, (count, 1, 1))
        image += rng.normal(size=image.shape) * rng.uniform(0, 0.15, (count, 1, 1))
        images[part, ..., 0] = (image.clip(0, 1) * 255).round()
    return images, labels


SOURCES = {
    "letters": Source("letters", "printed letters", letters.CLASS_NAMES, "fonts", letters.draw),
    "strokes": Source(
        "strokes",
        "invented handwritten characters",
        tuple(f"character {i}" for i in range(1, _CHARACTERS + 1)),
        "writers",
        _draw_strokes,
    ),
    "textures": Source("textures", "noise with a direction and a grain", _TEXTURES, "noise", _draw_textures),
}
