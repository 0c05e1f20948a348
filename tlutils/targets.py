"""Two target tasks beside the digits: how far a digit is turned, and which pattern a patch is printed with.

Both are small enough to be made on the spot. :mod:`tlutils.data` registers them as ``tilted_digits`` and ``patterns``.
"""

from functools import cache

import numpy as np

SIZE = 32
LARGEST_TILT = 45.0
"""Degrees by which a digit is turned at most, in either direction."""

# matplotlib's hatches; the names say what is seen.
PATTERNS = {
    "circles": "oo",
    "large circles": "O",
    "dots": "..",
    "stars": "**",
    "crosses": "xx",
    "grid": "++",
    "rising lines": "//",
    "falling lines": "\\\\",
    "horizontal lines": "--",
    "vertical lines": "||",
}
_INNER = 30  # side of a digit with its margin, before it is turned
_SHEET = 480  # side of a printed sheet in pixels
_PER_CLASS = 180


def tilt(images, angles):
    """Shrink each image a little, so that nothing is cut off, and turn it counter-clockwise; black where it ends.

    Args:
        images: uint8, shape (N, height, width).
        angles: Degrees, shape (N,).

    Returns:
        ndarray: uint8, shape (N, 32, 32).
    """
    from PIL import Image

    tilted = np.empty((len(images), SIZE, SIZE), np.uint8)
    for i, (image, angle) in enumerate(zip(images, angles)):
        # With a black margin, or a stroke that touches the frame would show by a sharp edge how it was turned.
        small = Image.fromarray(np.pad(image, 1)).resize((_INNER, _INNER), Image.Resampling.BILINEAR)
        frame = Image.new("L", (SIZE, SIZE))
        frame.paste(small, ((SIZE - _INNER) // 2,) * 2)
        tilted[i] = np.asarray(frame.rotate(float(angle), Image.Resampling.BILINEAR))
    return tilted


def tilts(n):
    """The angle of each of ``n`` images in degrees, uniform between −45 and 45, always the same; float32, (n,)."""
    return np.random.default_rng(45).uniform(-LARGEST_TILT, LARGEST_TILT, n).astype(np.float32)


@cache
def _sheets():
    """One sheet of each pattern, printed by matplotlib: floats in [0, 1], shape (patterns, side, side)."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    sheets = []
    for hatch in PATTERNS.values():
        with rc_context({"hatch.linewidth": 3.0}):
            figure = Figure(figsize=(_SHEET / 160, _SHEET / 160), dpi=160)
            canvas = FigureCanvasAgg(figure)
            figure.add_artist(
                Rectangle((0, 0), 1, 1, fc="white", ec="black", hatch=hatch, transform=figure.transFigure)
            )
            canvas.draw()
        sheets.append(np.asarray(canvas.buffer_rgba())[..., 0] / np.float32(255))
    return np.stack(sheets)


@cache
def patterns():
    """Patches of printed patterns: cut out anywhere, a little turned, of varying scale, contrast, light and sharpness.

    Returns:
        ``(images, labels)``: uint8, shape (1800, 32, 32), in random order, and int64, shape (1800,), indices into
        ``PATTERNS``; always the same.
    """
    from scipy.ndimage import gaussian_filter, map_coordinates

    rng = np.random.default_rng(10)
    # Averaged beforehand, as the coarse pixels of a small picture would do it.
    steps, sheets = (1.5, 2.0, 2.5, 3.0), _sheets()
    soft = {step: gaussian_filter(sheets, (0, step / 2, step / 2)) for step in steps}
    n = _PER_CLASS * len(sheets)
    labels = rng.permutation(np.repeat(np.arange(len(sheets)), _PER_CLASS))
    centre = np.arange(SIZE) - (SIZE - 1) / 2
    grid = np.stack(np.meshgrid(centre, centre, indexing="ij"))
    images = np.empty((n, SIZE, SIZE), np.uint8)
    for i, label in enumerate(labels):
        angle, step = np.radians(rng.normal(0, 8)), rng.choice(steps)  # pixels of the sheet for a pixel of the patch
        turn = step * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        reach = 0.75 * step * SIZE
        place = rng.uniform(reach, _SHEET - reach, 2)
        points = np.tensordot(turn, grid, 1) + place[:, None, None]
        patch = map_coordinates(soft[step][label], points, order=1, mode="nearest")
        if rng.random() < 0.5:
            patch = 1 - patch
        patch = gaussian_filter(patch, rng.uniform(0, 1.0))
        patch = (patch - patch.mean()) * rng.uniform(0.35, 1)
        light = (grid * rng.normal(0, 0.006, (2, 1, 1))).sum(axis=0)  # brighter on one side
        patch = 0.5 + patch + light + rng.uniform(-0.15, 0.15) + rng.normal(0, rng.uniform(0.02, 0.14), patch.shape)
        images[i] = (patch.clip(0, 1) * 255).round()
    return images, labels.astype(np.int64)
