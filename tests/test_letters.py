import hashlib
import string

import numpy as np
import pytest
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from tlutils import letters

SPLITS = ("train", "validation")

# The classes in which EMNIST-balanced merges both cases (Cohen et al., 2017, section II.B), typed from the paper.
EMNIST_MERGED = {"Cc", "Ii", "Jj", "Kk", "Ll", "Mm", "Oo", "Pp", "Ss", "Uu", "Vv", "Ww", "Xx", "Yy", "Zz"}


@pytest.fixture(scope="module")
def drawn():
    return letters.draw(4000, seed=5)


@pytest.fixture
def pen(monkeypatch):
    """What is drawn with which font file while the glyphs are made: ``[(file, text)]``."""
    strokes = []
    text = ImageDraw.ImageDraw.text

    def spy(self, xy, string, *args, **kwargs):
        strokes.append((kwargs["font"].path, string))
        return text(self, xy, string, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", spy)
    letters._glyphs.cache_clear()
    yield strokes
    letters._glyphs.cache_clear()


# --- classes ----------------------------------------------------------------------------------------------------------


def test_there_are_37_classes_with_the_fifteen_merges_of_emnist_balanced():
    assert len(letters.CLASS_NAMES) == 37
    assert {name for name in letters.CLASS_NAMES if len(name) > 1} == EMNIST_MERGED


def test_every_letter_is_in_one_class_and_nothing_else_is_in_any():
    assert sorted("".join(letters.CLASS_NAMES)) == sorted(string.ascii_letters)


# --- fonts ------------------------------------------------------------------------------------------------------------


def glyph_names(path, text):
    font = FT2Font(str(path))
    return [font.get_glyph_name(font.get_char_index(ord(char))) for char in text]


def test_the_chosen_fonts_are_those_that_hold_the_52_letters_by_the_names_of_their_glyphs():
    # Font makers call the glyph of a letter by that letter; a box is ".notdef", a symbol has a name of its own.
    folder = letters.fonts()[0].parent
    able = {path for path in folder.glob("*.ttf") if glyph_names(path, string.ascii_letters) == [*string.ascii_letters]}
    chosen = [path for split in SPLITS for path in letters.fonts(split)]
    assert set(chosen) == able
    assert len(chosen) == len(able) >= 20


def test_no_font_is_in_both_splits_not_even_under_another_name():
    contents = {
        split: {hashlib.sha256(path.read_bytes()).digest() for path in letters.fonts(split)} for split in SPLITS
    }
    assert not contents["train"] & contents["validation"]
    assert len(contents["train"]) >= 15
    assert len(contents["validation"]) == 5


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_draws_every_letter_of_its_own_fonts_and_nothing_else(pen, split):
    letters.draw(1, seed=0, fonts=split)
    files = {str(path) for path in letters.fonts(split)}
    assert sorted(pen) == sorted((file, char) for file in files for char in string.ascii_letters)


def test_no_digit_is_ever_drawn(pen):
    for split in SPLITS:
        letters.draw(500, seed=0, fonts=split)
    assert len(pen) > 1000
    assert not {char for _, text in pen for char in text} - set(string.ascii_letters)


def test_other_splits_are_refused():
    with pytest.raises(ValueError, match="'train' or 'validation', not 'test'"):
        letters.fonts("test")
    with pytest.raises(ValueError, match="'train' or 'validation', not 'test'"):
        letters.draw(1, seed=0, fonts="test")


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 1024, 1025])
def test_shapes_and_types(n):
    images, labels = letters.draw(n, seed=3)
    assert (images.shape, images.dtype) == ((n, 32, 32, 1), np.uint8)
    assert (labels.shape, labels.dtype) == ((n,), np.int64)


def test_the_same_seed_gives_the_same_letters():
    first, again = letters.draw(1500, seed=9), letters.draw(1500, seed=9)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert letters.fingerprint(*first) == letters.fingerprint(*again)


def test_another_seed_and_another_split_give_other_letters():
    images, labels = letters.draw(200, seed=9)
    for other, other_labels in (letters.draw(200, seed=10), letters.draw(200, seed=9, fonts="validation")):
        assert (images != other).any(axis=(1, 2, 3)).all()
        assert (labels != other_labels).any()


def test_the_fingerprint_changes_with_one_pixel_and_with_one_label():
    images, labels = letters.draw(10, seed=0)
    before = letters.fingerprint(images, labels)
    assert len(before) == 64
    for changed in (images, labels):
        changed[3, ...] ^= 1
        assert letters.fingerprint(images, labels) != before
        changed[3, ...] ^= 1
    assert letters.fingerprint(images, labels) == before


def test_all_classes_occur_about_equally_often(drawn):
    counts = np.bincount(drawn[1], minlength=37)
    assert len(counts) == 37
    expected = len(drawn[1]) / 37
    # Chi-squared with 36 degrees of freedom: above 80 once in 50,000 draws.
    assert ((counts - expected) ** 2 / expected).sum() < 80


def test_letters_are_bright_ink_on_black(drawn):
    images = drawn[0][..., 0]
    corners = images[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert np.percentile(corners, 75) < 20
    assert (np.median(images, axis=(1, 2)) < 128).mean() > 0.9  # most of an image is background
    assert images.max(axis=(1, 2)).min() > 180  # and each holds ink


def printed(path, char, size=64):
    """A letter as Pillow prints it, filling a square: what a label promises, drawn without the module under test."""
    font = ImageFont.truetype(str(path), size)
    left, top, right, bottom = font.getbbox(char)
    image = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(image).text((-left, -top), char, font=font, fill=255)
    return np.asarray(image.resize((28, 28)), float)


def filled(image):
    """The box around the ink of a drawn letter, stretched to the same square."""
    rows, columns = (np.flatnonzero((image > 110).any(axis)) for axis in (1, 0))
    box = Image.fromarray(image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    return np.asarray(box.resize((28, 28)), float)


def test_the_label_is_the_letter_that_is_in_the_image(drawn):
    images, labels = drawn
    scores = np.zeros((37, 37))
    means = [np.mean([filled(image) for image in images[labels == k, ..., 0]], axis=0).ravel() for k in range(37)]
    for k, name in enumerate(letters.CLASS_NAMES):
        prints = np.mean([printed(path, char) for path in letters.fonts() for char in name], axis=0).ravel()
        scores[k] = [np.corrcoef(prints, mean)[0, 1] for mean in means]
    assert (scores.argmax(1) == np.arange(37)).mean() > 0.9


@pytest.fixture
def distorted(monkeypatch):
    """What ``draw`` makes of one and the same glyph, in [0, 1], so that only the distortions differ."""

    def draw(glyph):
        glyphs = np.broadcast_to(glyph.astype(np.float32), (1, 52, 64, 64))
        monkeypatch.setattr(letters, "_glyphs", lambda split: glyphs)
        return letters.draw(1000, seed=2)[0][..., 0] / 255

    return draw


def spread(values):
    """How far the middle 90% reach."""
    low, high = np.percentile(values, [5, 95])
    return high - low


def test_thickness_slant_size_place_resolution_contrast_and_noise_vary(distorted):
    y, x = np.mgrid[:64, :64]
    stem, beam = (np.abs(axis - 31.5) < 6 for axis in (x, y))
    stem &= np.abs(y - 31.5) < 24
    beam &= np.abs(x - 31.5) < 24

    lying = distorted(beam)
    assert spread((lying[:, :, 14:18] > 0.5).sum(1).mean(1)) > 2  # thickness in pixels

    standing = distorted(stem)
    assert spread((standing > 0.5).any(2).sum(1)) > 4  # height in pixels
    y, x = np.mgrid[:32, :32]
    mass = standing.sum((1, 2))
    cy, cx = ((standing * axis).sum((1, 2)) / mass for axis in (y, x))
    assert min(spread(cy), spread(cx)) > 1.5
    dy, dx = y - cy[:, None, None], x - cx[:, None, None]
    slant = (standing * dy * dx).sum((1, 2)) / (standing * dy**2).sum((1, 2))  # pixels to the side per pixel down
    assert spread(slant) > 0.5
    assert abs(np.median(slant)) < 0.05  # to both sides
    assert spread(np.abs(np.diff(standing, axis=2)).max((1, 2))) > 0.4  # the steepest edge: blurred and sharp ones
    assert spread(standing.max((1, 2))) > 0.1  # contrast
    assert spread(standing[:, :4, :4].std((1, 2))) > 0.02  # noise in an empty corner
