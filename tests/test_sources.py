"""The procedural source and target tasks: drawn from the seed alone, and showing what their names say."""

import numpy as np
import pytest

from tlutils import letters, sources, targets

SPLITS = ("train", "validation")


def spectrum(images):
    """Power of each image (N, 32, 32) by frequency, without the mean."""
    x = images.astype(float) - images.mean(axis=(1, 2), keepdims=True)
    return np.abs(np.fft.fft2(x)) ** 2


def main_wave(images):
    """Waves across the image and direction in degrees (0: the brightness varies from left to right), power-weighted."""
    power = spectrum(images).mean(axis=0)
    f = np.fft.fftfreq(images.shape[1]) * images.shape[1]
    fy, fx = np.meshgrid(f, f, indexing="ij")
    length = (power * np.hypot(fx, fy)).sum() / power.sum()
    doubled = (power * np.exp(2j * np.arctan2(fy, fx))).sum()  # directions that differ by 180 degrees are one
    return length, np.degrees(np.angle(doubled)) / 2 % 180


@pytest.mark.parametrize("name", list(sources.SOURCES))
def test_a_source_draws_the_same_images_from_the_same_seed_only(name):
    task = sources.find(name)
    images, labels = task.draw(50, 3, "train")
    assert images.shape == (50, 32, 32, 1) and images.dtype == np.uint8
    assert labels.shape == (50,) and labels.dtype == np.int64 and set(labels) <= set(range(len(task.class_names)))
    again, same = task.draw(50, 3, "train")
    assert np.array_equal(images, again) and np.array_equal(labels, same)
    assert not np.array_equal(images, task.draw(50, 4, "train")[0])
    assert not np.array_equal(images, task.draw(50, 3, "validation")[0])


@pytest.mark.parametrize("name", list(sources.SOURCES))
def test_every_class_of_a_source_occurs(name):
    task = sources.find(name)
    assert len(set(task.class_names)) == len(task.class_names) in (36, 37)
    assert set(task.draw(1500, 0, "validation")[1]) == set(range(len(task.class_names)))


def test_unknown_source_tasks_and_splits_are_named():
    with pytest.raises(ValueError, match="unknown source task 'cats'; choose from letters, strokes, textures"):
        sources.find("cats")
    for name in ("strokes", "textures"):
        with pytest.raises(ValueError, match="'train' or 'validation', not 'test'"):
            sources.find(name).draw(1, 0, "test")


def test_no_writer_of_the_validation_characters_wrote_training_characters():
    hands = {split: sources._handwriting(split) for split in SPLITS}
    assert (len(hands["train"]), len(hands["validation"])) == (24, 5)
    for one in hands["train"]:
        for other in hands["validation"]:
            assert not any(np.array_equal(a, b) for a, b in zip(one[0], other[0]))


def test_characters_are_pen_strokes_that_differ_from_each_other():
    task = sources.find("strokes")
    images, labels = task.draw(4000, 1, "train")
    corners = images[:, [0, 0, -1, -1], [0, -1, 0, -1], 0]
    assert np.median(corners) < 40  # bright ink on black, like letters and digits
    means = np.stack([images[labels == c].mean(axis=0).ravel() for c in range(37)])
    fresh, truth = task.draw(500, 2, "validation")
    nearest = ((fresh.reshape(500, 1, -1) - means) ** 2).sum(axis=-1).argmin(axis=1)
    assert np.mean(nearest == truth) > 0.3  # eleven times chance, without any learning


@pytest.mark.parametrize(("angle", "grain"), [(0, "coarse"), (60, "middle"), (90, "fine"), (150, "middle")])
def test_a_texture_has_the_direction_and_the_grain_of_its_class(angle, grain):
    task = sources.find("textures")
    images, labels = task.draw(3000, 1, "train")
    label = task.class_names.index(f"{angle}° {grain} soft")
    length, direction = main_wave(images[labels == label, ..., 0])
    assert abs((direction - angle + 90) % 180 - 90) < 8
    others = [
        main_wave(images[labels == task.class_names.index(f"{angle}° {g} soft"), ..., 0])[0] for g in ("coarse", "fine")
    ]
    assert others[0] <= length <= others[1] and others[0] < others[1]


def test_hard_textures_have_more_contrast_at_their_edges_than_soft_ones():
    task = sources.find("textures")
    images, labels = task.draw(3000, 1, "train")
    hard = np.array([name.endswith("hard") for name in task.class_names])[labels]

    def bimodal(x):  # share of the variance that two levels explain
        above = x > x.mean()
        return above.mean() * (1 - above.mean()) * (x[above].mean() - x[~above].mean()) ** 2 / x.var()

    scores = np.array([bimodal(image.astype(float)) for image in images[..., 0]])
    assert np.median(scores[hard]) > np.median(scores[~hard]) + 0.1


def test_a_turned_bar_lies_at_its_angle():
    bar = np.zeros((3, 8, 8), np.uint8)
    bar[:, 3:5, 1:7] = 255
    angles = [0.0, 30.0, -45.0]
    for image, angle in zip(targets.tilt(bar, angles), angles):
        y, x = np.nonzero(image > 100)
        y, x = -(y - y.mean()), x - x.mean()  # upwards, as angles are counted
        axis = np.degrees(0.5 * np.arctan2(2 * (x * y).mean(), (x**2).mean() - (y**2).mean()))
        assert abs(axis - angle) < 3
    assert targets.tilt(bar, angles).shape == (3, 32, 32)


def test_tilts_are_uniform_and_fixed():
    angles = targets.tilts(2000)
    assert np.array_equal(angles, targets.tilts(2000)) and np.array_equal(angles[:500], targets.tilts(500))
    assert -45 <= angles.min() < -43 and 43 < angles.max() <= 45
    assert abs(angles.mean()) < 2 and abs(angles.std() - 90 / np.sqrt(12)) < 1


def test_patterns_show_lines_where_their_names_say():
    images, labels = targets.patterns()
    names = list(targets.PATTERNS)
    assert images.shape == (1800, 32, 32) and np.bincount(labels).tolist() == [180] * 10
    directions = {name: main_wave(images[labels == names.index(name)])[1] for name in names if "lines" in name}
    for name, wanted in {"vertical lines": 0, "falling lines": 135, "horizontal lines": 90, "rising lines": 45}.items():
        assert abs((directions[name] - wanted + 90) % 180 - 90) < 10


def test_strokes_share_the_distortions_of_letters():
    """Both are drawn by one function, so that the sources differ in what they show, not in how sharp it is."""
    glyphs = np.zeros((4, 64, 64), np.float32)
    glyphs[:, 20:44, 28:36] = 1
    images = letters.distort(glyphs, np.random.default_rng(0))
    assert images.shape == (4, 32, 32) and images.dtype == np.uint8
