import hashlib
import io
import os
import struct
import subprocess
import sys
import unicodedata
import warnings
import wave
import zlib
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, noise
from PIL import Image, ImageFile
from sklearn.datasets import load_digits

from tlutils import data, letters
from tlutils.data import DataError, DataWarning, registry
from tlutils.downloads import Contents

HYMENOPTERA = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "datasets" / "hymenoptera_data"
needs_hymenoptera = pytest.mark.skipif(not HYMENOPTERA.is_dir(), reason="no hymenoptera_data in $KERAS_HOME/datasets")
not_as_root = pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read everything")


@pytest.fixture(autouse=True)
def no_unexpected_warning():
    """A clean load says nothing: every DataWarning that a test does not expect fails it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        yield


def contents(examples):
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in examples.paths]


def names(examples, folder):
    return [path.relative_to(folder.path).as_posix() for path in examples.paths]


def one_image(folder, name, content, **options):
    """Pixels of one image, which is the only one of its class beside another."""
    folder.put(f"train/a/{name}", content)
    folder.fill("train/b", 1).fill("val/a", 1).fill("val/b", 1)
    return data.load(folder.path, **options)


# ---------------------------------------------------------------------------------------------------------------------
# Digits and letters


def test_digits_test_side_is_the_last_797_in_file_order():
    raw = load_digits()
    task = data.load("digits", image_size=8)  # their own size: nothing is resized
    assert np.array_equal(task.test.labels, raw.target[-797:])
    assert np.array_equal(task.test.images()[..., 0], np.rint(raw.images[-797:] * 255 / 16))


def test_digits_train_and_val_are_the_first_1000_split_in_proportion():
    raw = load_digits()
    task = data.load("digits", image_size=8)
    assert (len(task.train), len(task.val)) == (800, 200)
    pixels = np.concatenate([task.train.images(), task.val.images()])[..., 0]
    expected = np.rint(raw.images[:1000] * 255 / 16)
    assert Counter(image.astype(np.uint8).tobytes() for image in pixels) == Counter(
        image.astype(np.uint8).tobytes() for image in expected
    )
    share = np.bincount(task.val.labels) / np.bincount(raw.target[:1000])
    assert np.all(np.abs(share - 0.2) < 0.02)


def test_digits_are_enlarged_to_32_without_moving():
    raw = load_digits().images[-797:]
    images = data.load("digits").test.images()
    assert images.shape == (797, 32, 32, 1) and images.dtype == np.uint8
    pooled = images[..., 0].reshape(797, 8, 4, 8, 4).mean(axis=(2, 4))
    for small, large in zip(raw, pooled):
        assert np.corrcoef(small.ravel(), large.ravel())[0, 1] > 0.9


def test_digits_split_depends_on_the_seed_only():
    labels = [data.load("digits", **options).train.labels for options in ({}, {"image_size": 16}, {"channels": 3})]
    assert np.array_equal(labels[0], labels[1]) and np.array_equal(labels[0], labels[2])
    again, other = data.load("digits").train, data.load("digits", seed=1).train
    assert again.fingerprint == data.load("digits").train.fingerprint
    assert again.fingerprint != other.fingerprint
    assert data.load("digits", channels=3).train.images().shape == (800, 32, 32, 3)


@pytest.mark.parametrize("k", [1, 3, 50])
def test_few_shot_digits_hold_k_a_class_of_the_training_side_and_nothing_to_tune_on(k):
    whole, few = data.load("digits", seed=3), data.load("digits", seed=3, labels_per_class=k)
    assert np.array_equal(np.bincount(few.train.labels), [k] * 10)
    assert few.val is None
    assert few.test.fingerprint == whole.test.fingerprint
    assert {i.tobytes() for i in few.train.images()} <= {i.tobytes() for i in whole.train.images()}


def test_few_shot_draws_follow_the_seed_and_grow():
    def drawn(k, seed):
        return {image.tobytes() for image in data.load("digits", labels_per_class=k, seed=seed).train.images()}

    assert drawn(5, 0) == drawn(5, 0)
    assert drawn(5, 0) != drawn(5, 1)
    assert data.load("digits", seed=0, labels_per_class=1).train.labels.tolist() == list(range(10))


def test_a_smaller_draw_is_part_of_a_larger_one(folder):
    folder.fill("a", 20).fill("b", 20)
    drawn = [set(data.load(folder.path, labels_per_class=k).train.paths) for k in (1, 3, 5, 10)]
    assert all(small < large for small, large in pairwise(drawn))


def test_too_many_labels_a_class_names_class_and_count():
    most = np.bincount(data.load("digits").train.labels).min()
    assert len(data.load("digits", labels_per_class=int(most)).train) == 10 * most
    with pytest.raises(DataError, match=rf"labels_per_class={most + 1}, but the class '\d' has only {most} "):
        data.load("digits", labels_per_class=int(most) + 1)


@pytest.mark.parametrize("name", ["digits", "letters"])
def test_groups_are_refused_where_the_splits_are_fixed(name):
    with pytest.raises(DataError, match=f"groups are not accepted for '{name}'"):
        data.load(name, groups={})


def test_letters_validate_on_held_out_fonts(monkeypatch):
    drawn = {}

    def draw(count, seed, fonts):
        drawn[count, seed, fonts] = real(count, seed, fonts=fonts)
        return drawn[count, seed, fonts]

    real = letters.draw
    monkeypatch.setattr(letters, "draw", draw)
    task = data.load("letters", seed=2)
    assert task.class_names == tuple(letters.CLASS_NAMES) and task.test is None
    for examples, request in ((task.train, (4000, 2, "train")), (task.val, (1000, 2, "validation"))):
        images, labels = drawn.pop(request)
        assert np.array_equal(examples.images(), images) and np.array_equal(examples.labels, labels)
    assert not drawn


def test_few_shot_letters_are_tested_on_the_held_out_fonts(monkeypatch):
    def draw(count, seed, fonts):
        images = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 1), dtype=np.uint8)
        return images, np.arange(count) % len(letters.CLASS_NAMES)

    monkeypatch.setattr(letters, "draw", draw)
    task = data.load("letters", labels_per_class=2, image_size=8)
    assert task.val is None and len(task.test) == 1000 and len(task.train) == 2 * task.num_classes
    assert task.train.images().shape[1:] == (8, 8, 1)
    assert any("there is no test split" in note for note in task.notes)


def test_tilted_digits_are_split_as_the_digits_are():
    digits, tilted = data.load("digits", seed=3), data.load("tilted_digits", seed=3)
    assert (tilted.kind, tilted.class_names, tilted.num_classes) == ("regression", None, None)
    assert [len(part) for part in (tilted.train, tilted.val, tilted.test)] == [800, 200, 797]
    for one, other in ((digits.train, tilted.train), (digits.val, tilted.val), (digits.test, tilted.test)):
        for i in (0, 1, -1):  # turned back, it is the digit
            back = Image.fromarray(other.images()[i, ..., 0]).rotate(-float(other.labels[i]), Image.Resampling.BILINEAR)
            back = np.asarray(back.crop((4, 4, 28, 28)).resize((32, 32)), float).ravel()
            assert np.corrcoef(back, one.images()[i].ravel())[0, 1] > 0.85
    assert np.array_equal(tilted.test.labels, data.load("tilted_digits", seed=4).test.labels)


def test_few_tilted_digits_are_drawn_by_digit():
    digits, tilted = (data.load(name, labels_per_class=3, seed=1) for name in ("digits", "tilted_digits"))
    assert len(tilted.train) == len(digits.train) == 30
    assert tilted.val is None and tilted.train.labels.dtype == np.float32
    assert np.abs(tilted.train.labels).max() <= 45


def test_the_test_patches_of_patterns_are_always_the_same():
    one, other = data.load("patterns", seed=0), data.load("patterns", seed=1, labels_per_class=4)
    assert one.num_classes == 10 and len(one.train) + len(one.val) == 1000 and len(one.test) == 800
    assert np.array_equal(one.test.images(), other.test.images())
    assert np.bincount(other.train.labels).tolist() == [4] * 10


# ---------------------------------------------------------------------------------------------------------------------
# The registry


def test_registry_describes_each_source():
    sources = data.registry()
    fetched = ["flowers", "beans", "hymenoptera", "spoken_digits"]
    assert list(sources) == ["digits", "letters", "tilted_digits", "patterns", *fetched]
    for name, source in sources.items():
        assert source.name == name and source.licence and source.citation and source.people
        assert (source.download is not None) == (name in fetched)
    flowers = sources["flowers"]
    assert flowers.url == "http://download.tensorflow.org/example_images/flower_photos.tgz"
    assert flowers.bytes == 228_813_984
    assert flowers.sha256 == "4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c"
    assert "ImageNet" in sources["hymenoptera"].description
    assert sources["hymenoptera"].sha256 is sources["hymenoptera"].bytes is sources["digits"].bytes is None
    assert sources["beans"].bytes == 143_812_152 + 18_504_213 + 17_708_541 and sources["beans"].sha256 is None


@pytest.mark.parametrize(
    "wrong, nearest",
    [("digit", "digits"), ("Letters", "letters"), ("flower", "flowers"), ("himenoptera", "hymenoptera")],
)
def test_unknown_name_suggests_the_nearest(wrong, nearest):
    with pytest.raises(DataError, match=f"Did you mean '{nearest}'"):
        data.load(wrong)


def test_unknown_name_like_no_other_lists_all():
    with pytest.raises(
        DataError,
        match="Known data sets: digits, letters, tilted_digits, patterns, flowers, beans, hymenoptera, spoken_digits",
    ) as error:
        data.load("zzzz")
    assert "Did you mean" not in str(error.value)


def test_source_of_another_type():
    with pytest.raises(DataError, match="not ndarray"):
        data.load(np.zeros((2, 8, 8)))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty folder of data sets, and no network."""
    from tlutils import downloads

    def no_network(self, archive, *arguments):
        raise DataError(f"no route to {archive.url}")

    monkeypatch.setattr(downloads.Download, "_download", no_network)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    folder = tmp_path / "keras" / "datasets"
    folder.mkdir(parents=True)
    return folder


def photographs(folder, count):
    """Different JPEGs in two classes: bytes after the end of a JPEG do not matter, which makes them cheap."""
    photo = encoded(noise(0))
    for i in range(count):
        path = folder / "ab"[i % 2] / f"{folder.name} {i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo + folder.name.encode() + i.to_bytes(2, "big"))


@pytest.mark.parametrize("name", ["flowers", "beans", "spoken_digits"])
def test_a_data_set_that_is_not_here_is_fetched(home, name):
    with pytest.raises(DataError, match="no route to http"):
        data.load(name)
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("place", ["flower_photos", "flower_photos_extracted/flower_photos"])
def test_flowers_that_are_here_need_no_network(home, place):
    photographs(home / place, 3670)
    task = data.load("flowers")
    assert (task.name, len(task.train), len(task.val), task.test) == ("flowers", 2936, 734, None)
    next((home / place).rglob("*.jpg")).unlink()
    with pytest.raises(DataError, match=r"holds 3,669 files|no route to http"):
        data.load("flowers")


def test_beans_have_all_three_sides(home):
    for side, count in (("train", 1034), ("validation", 133), ("test", 128)):
        photographs(home / "beans" / side, count)
    task = data.load("beans")
    assert (task.name, len(task.train), len(task.val), len(task.test)) == ("beans", 1034, 133, 128)


def test_hymenoptera_is_not_fetched_without_being_asked_for(home):
    with pytest.raises(DataError, match=r"https://download\.pytorch\.org/tutorial/hymenoptera_data\.zip") as error:
        data.load("hymenoptera")
    message = str(error.value)
    assert str(home / "hymenoptera_data") in message and "tlutils datasets get hymenoptera" in message
    assert "licence is not stated" in message


@needs_hymenoptera
def test_hymenoptera_leaves_out_the_placeholder():
    task = data.load("hymenoptera")
    assert (len(task.train), len(task.val), task.test) == (244, 153, None)
    assert task.class_names == ("ants", "bees")
    assert not any(path.suffix == ".gif" for path in task.train.paths)
    assert any("train/ants/imageNotFound.gif" in note for note in task.notes)
    assert len(data.load(HYMENOPTERA).train) == 245


@needs_hymenoptera
def test_decoded_photographs_are_close_to_a_full_decode():
    examples = data.load("hymenoptera", image_size=96).val
    for path, pixels in zip(examples.paths[::10], examples.subset(range(0, len(examples), 10)).images()):
        full = Image.open(path).convert("RGB").resize((96, 96), Image.Resampling.BILINEAR)
        assert np.abs(pixels.astype(int) - np.asarray(full)).mean() < 3


# ---------------------------------------------------------------------------------------------------------------------
# Spoken digits

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")


@pytest.fixture
def spoken(home, monkeypatch):
    """Sines in place of the recordings, four of each digit by each speaker: the digit decides how high they are."""
    from tlutils import sounds

    folder = home / "free-spoken-digit-dataset" / "recordings"
    folder.mkdir(parents=True)
    rng, time = np.random.default_rng(0), np.arange(4000) / sounds.RATE
    for digit in range(10):
        for speaker in SPEAKERS:
            for take in range(4):
                samples = 0.4 * np.sin(2 * np.pi * 200 * (digit + 1) * time) + 0.01 * rng.normal(size=4000)
                with wave.open(str(folder / f"{digit}_{speaker}_{take}.wav"), "wb") as file:
                    file.setparams((1, 2, sounds.RATE, 0, "NONE", ""))
                    file.writeframes(np.round(samples * 32767).astype("<i2").tobytes())
    source = data.registry()["spoken_digits"]
    source = replace(source, download=replace(source.download, contents=Contents("*.wav", 240)))
    monkeypatch.setattr(data, "_SOURCES", (source,))
    return folder


def speakers(examples):
    return set(examples.groups)


def test_spoken_digits_are_split_by_speaker(spoken):
    sides = set()
    for seed in range(4):
        task = data.load("spoken_digits", seed=seed)
        assert [len(part) for part in (task.train, task.val, task.test)] == [120, 40, 80]
        assert speakers(task.test) == {"theo", "yweweler"}
        assert speakers(task.train) | speakers(task.val) == set(SPEAKERS[:4]) and len(speakers(task.val)) == 1
        assert not speakers(task.train) & speakers(task.val)
        for part in (task.train, task.val, task.test):
            assert len(set(np.bincount(part.labels, minlength=10))) == 1  # each digit equally often
        assert f"split by speaker: {next(iter(speakers(task.val)))} held out" in task.notes[0]
        sides |= speakers(task.val)
    assert len(sides) > 1  # the seed decides who validates
    assert len(speakers(data.load("spoken_digits", val_fraction=0.5).val)) == 2


def test_spoken_digits_are_pictures_of_their_recordings(spoken):
    from tlutils import sounds

    task = data.load("spoken_digits", image_size=(64, 125))
    assert (task.class_names, task.channels) == (tuple("0123456789"), 1)
    assert (task.test.images().shape, task.test.images().dtype) == ((80, 64, 125, 1), np.uint8)
    brightest = 63 - task.test.images()[:, :, 30, 0].argmax(axis=1)
    wanted = [np.abs(sounds.band_centres() - 200 * (digit + 1)).argmin() for digit in task.test.labels]
    assert np.abs(brightest - wanted).max() <= 1
    first = sounds.spectrogram(sounds.read_wav(spoken / "0_theo_0.wav"))
    assert np.array_equal(task.test.images()[0, ..., 0], first)
    assert np.array_equal(data.load("spoken_digits", image_size=(64, 125)).train.images(), task.train.images())


def test_spoken_digits_come_in_any_size_and_in_colour(spoken):
    assert data.load("spoken_digits").train.images().shape == (120, 32, 32, 1)
    images = data.load("spoken_digits", image_size=96, channels=3).val.images()
    assert images.shape == (40, 96, 96, 3) and np.array_equal(images[..., 0], images[..., 2])


def test_few_spoken_digits_come_from_the_speakers_that_are_left(spoken):
    whole, few, fewer = (data.load("spoken_digits", seed=1, labels_per_class=k) for k in (None, 6, 2))
    assert few.val is None and np.bincount(few.train.labels).tolist() == [6] * 10
    assert speakers(few.train) <= speakers(whole.train)
    assert np.array_equal(few.test.images(), whole.test.images())
    assert {image.tobytes() for image in fewer.train.images()} < {image.tobytes() for image in few.train.images()}
    with pytest.raises(DataError, match="only 12 different images"):
        data.load("spoken_digits", labels_per_class=13)


def test_spoken_digits_have_their_groups_already(spoken):
    with pytest.raises(DataError, match="groups are not accepted for 'spoken_digits'"):
        data.load("spoken_digits", groups=lambda path: path.name)


@pytest.mark.skipif(registry()["spoken_digits"].download.locate() is None, reason="the recordings are not here")
def test_the_real_spoken_digits():
    task = data.load("spoken_digits", image_size=(64, 125))
    assert [len(part) for part in (task.train, task.val, task.test)] == [1500, 500, 1000]
    assert [sorted(speakers(part)) for part in (task.test, task.val)] == [["theo", "yweweler"], [*speakers(task.val)]]
    for part in (task.train, task.val, task.test):
        images = part.images()
        assert (images.reshape(len(images), -1).max(axis=1) == 255).all()
        assert set(np.bincount(part.labels)) == {50 * len(speakers(part))}


# ---------------------------------------------------------------------------------------------------------------------
# Folders and their splits


def test_folder_of_classes_is_split_in_proportion(folder):
    folder.fill("cat", 30).fill("dog", 20)
    task = data.load(folder.path)
    assert (task.name, task.class_names, task.test) == ("photos", ("cat", "dog"), None)
    assert np.bincount(task.train.labels).tolist() == [24, 16]
    assert np.bincount(task.val.labels).tolist() == [6, 4]
    assert not set(task.train.paths) & set(task.val.paths)
    for examples in (task.train, task.val):
        assert [path.parent.name for path in examples.paths] == [task.class_names[i] for i in examples.labels]
    assert task.notes == ()


def test_folder_split_follows_the_seed(folder):
    folder.fill("cat", 30).fill("dog", 20)
    drawn = [data.load(str(folder.path), seed=seed).val.paths for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_val_fraction(folder):
    folder.fill("cat", 30).fill("dog", 20)
    assert len(data.load(folder.path, val_fraction=0.5).val) == 25
    for wrong in (0, 1, -0.1):
        with pytest.raises(DataError, match="val_fraction must be between 0 and 1"):
            data.load(folder.path, val_fraction=wrong)


def test_a_rare_class_is_on_both_sides(folder):
    folder.fill("common", 60).fill("rare", 2)
    for seed in range(5):
        task = data.load(folder.path, seed=seed)
        assert set(task.train.labels) == set(task.val.labels) == {0, 1}


def test_a_class_of_one_image_cannot_be_split(folder):
    folder.fill("cat", 10).fill("dog", 1)
    with pytest.raises(DataError, match="the class 'dog' has one distinct image only"):
        data.load(folder.path)
    folder.put("dog/a cat.png", noise(0))  # also the first image of the other class
    with pytest.raises(DataError, match="the class 'dog' has one distinct image only"):
        data.load(folder.path)


@pytest.mark.parametrize("val", ["val", "validation", "valid", "Validation"])
def test_splits_on_disk_are_kept(folder, val):
    for side, count in (("train", 5), (val, 3), ("test", 2)):
        folder.fill(f"{side}/cat", count).fill(f"{side}/dog", count)
    task = data.load(folder.path)
    assert [len(part) for part in (task.train, task.val, task.test)] == [10, 6, 4]
    assert all(name.startswith(f"{val}/") for name in names(task.val, folder))


def test_val_is_drawn_where_only_train_and_test_are_on_disk(folder):
    folder.fill("train/cat", 10).fill("train/dog", 10).fill("test/cat", 2).fill("test/dog", 2)
    task = data.load(folder.path)
    assert [len(part) for part in (task.train, task.val, task.test)] == [16, 4, 4]
    assert all(name.startswith("train/") for name in names(task.val, folder))


def test_train_may_be_a_class(folder):
    folder.fill("bus", 5).fill("train", 5).fill("car", 5)
    assert data.load(folder.path).class_names == ("bus", "car", "train")


def test_deeper_folders_belong_to_their_class(folder):
    folder.fill("cat/black/young", 3).fill("cat/white", 3).fill("dog", 6)
    task = data.load(folder.path)
    assert task.class_names == ("cat", "dog") and len(task.train) + len(task.val) == 12


def test_hidden_and_other_files_are_ignored_in_silence(folder):
    folder.fill("cat", 5).fill("dog", 5)
    for name in (".DS_Store", "cat/.DS_Store", "cat/._0001.png", "dog/Thumbs.db", "dog/notes.txt", "LICENSE.txt"):
        folder.put(name, b"not an image")
    folder.put(".cache/x.png", b"not an image")
    task = data.load(folder.path)
    assert task.class_names == ("cat", "dog") and len(task.train) + len(task.val) == 10 and task.notes == ()


def test_files_are_never_changed(folder):
    folder.fill("cat", 4).fill("dog", 4, extension="jpg").put("dog/bad.jpg", b"text")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.path.rglob("*") if path.is_file()}
    with pytest.warns(DataWarning):
        data.load(folder.path).train.images()
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.path.rglob("*") if path.is_file()}
    assert before == after


def test_copies_stay_on_one_side(folder):
    for label in "ab":
        for i in range(12):
            for copy in range(1 + i % 3):
                folder.put(f"{label}/{copy}_{i}.png", noise(100 * ord(label) + i))
    for seed in range(10):
        task = data.load(folder.path, seed=seed)
        assert not set(contents(task.train)) & set(contents(task.val))
        assert len(task.train) + len(task.val) == 2 * (4 * 1 + 4 * 2 + 4 * 3)
    assert any("exact copies inside train" in note and "a/0_1.png = a/1_1.png" in note for note in task.notes)


def test_a_copy_across_train_and_val_is_dropped_from_train(folder):
    for side in ("train", "val"):
        folder.fill(f"{side}/cat", 4).fill(f"{side}/dog", 4)
    twin = noise(999)
    folder.put("train/cat/twin.png", twin)
    folder.put("val/cat/other name.png", twin)
    with pytest.warns(DataWarning, match="dropped 1 from train") as caught:
        task = data.load(folder.path)
    assert "train/cat/twin.png = val/cat/other name.png" in str(caught[0].message)
    assert any("train/cat/twin.png = val/cat/other name.png" in note for note in task.notes)
    assert "train/cat/twin.png" not in names(task.train, folder)
    assert "val/cat/other name.png" in names(task.val, folder)
    assert (len(task.train), len(task.val)) == (8, 9)
    assert caught[0].filename == __file__


def test_the_test_side_wins_over_val_and_train(folder):
    for side in ("train", "val", "test"):
        folder.fill(f"{side}/cat", 3).fill(f"{side}/dog", 3).put(f"{side}/dog/twin.png", noise(999))
    with pytest.warns(DataWarning) as caught:
        task = data.load(folder.path)
    assert [len(part) for part in (task.train, task.val, task.test)] == [6, 6, 7]
    assert len(caught) == 2


def test_a_class_whose_training_images_are_all_copies(folder):
    for side in ("train", "val"):
        folder.fill(f"{side}/cat", 3).put(f"{side}/dog/twin.png", noise(999))
    with pytest.raises(DataError, match=r"no image is left in .*train for the class dog"):
        data.load(folder.path)


def test_one_image_in_two_classes_is_reported(folder):
    folder.fill("cat", 5).fill("dog", 5)
    folder.put("cat/twin.png", noise(999))
    folder.put("dog/twin.png", noise(999))
    with pytest.warns(DataWarning, match=r"two labels in train: cat/twin\.png, dog/twin\.png"):
        task = data.load(folder.path)
    assert not set(contents(task.train)) & set(contents(task.val))


def grouped_folder(folder, writers=8, each=4):
    for label in "ab":
        for writer in range(writers):
            for i in range(each):
                folder.put(f"{label}/w{writer}_{i}.png", noise(10_000 * ord(label) + 100 * writer + i))
    return lambda path: path.name.split("_")[0]


@pytest.mark.parametrize("fraction", [0.2, 0.25, 0.4, 0.5, 0.75])
def test_groups_stay_on_one_side(folder, fraction):
    writer = grouped_folder(folder)
    for seed in range(4):
        task = data.load(folder.path, groups=writer, seed=seed, val_fraction=fraction)
        train, val = ({writer(path) for path in part.paths} for part in (task.train, task.val))
        assert not train & val and len(train | val) == 8
        assert set(task.train.labels) == set(task.val.labels) == {0, 1}
        assert abs(len(task.val) / 64 - fraction) <= 1 / 8
        assert task.val.groups.tolist() == [writer(path) for path in task.val.paths]


def test_without_groups_the_writers_would_be_on_both_sides(folder):
    writer = grouped_folder(folder)
    task = data.load(folder.path)
    assert {writer(path) for path in task.train.paths} & {writer(path) for path in task.val.paths}
    assert task.train.groups is None


def test_groups_as_a_dict(folder):
    writer = grouped_folder(folder)
    groups = {path.relative_to(folder.path).as_posix(): writer(path) for path in folder.path.rglob("*.png")}
    task = data.load(folder.path, groups=groups)
    assert task.val.paths == data.load(folder.path, groups=writer).val.paths
    del groups["a/w0_0.png"]
    with pytest.raises(DataError, match=r"no group for .*w0_0\.png: the dict has no 'a/w0_0\.png'"):
        data.load(folder.path, groups=groups)


def test_groups_of_another_kind(folder):
    grouped_folder(folder)
    with pytest.raises(DataError, match="groups must be a function or a dict, not list"):
        data.load(folder.path, groups=["w0"])
    with pytest.raises(DataError, match="the function gave None"):
        data.load(folder.path, groups=lambda path: None)


def test_a_copy_ties_two_groups_together(folder):
    writer = grouped_folder(folder)
    for name in ("a/w0_twin.png", "a/w1_twin.png"):
        folder.put(name, noise(5))
    for seed in range(6):
        task = data.load(folder.path, groups=writer, seed=seed)
        sides = [{writer(path) for path in part.paths} for part in (task.train, task.val)]
        assert {"w0", "w1"} <= sides[0] or {"w0", "w1"} <= sides[1]
        assert not sides[0] & sides[1]


def test_a_class_of_one_group_cannot_be_split(folder):
    grouped_folder(folder)
    for i in range(4):
        folder.put(f"c/w0_{i}.png", noise(50 + i))
    with pytest.raises(DataError, match="the class 'c' has one group only"):
        data.load(folder.path, groups=lambda path: path.name.split("_")[0])


def test_a_group_on_both_sides_of_given_splits(folder):
    for side in ("train", "val"):
        folder.fill(f"{side}/cat", 3).fill(f"{side}/dog", 3)
    with pytest.raises(DataError, match=r"1 of the groups are in train/ and in val/ \(ann\)"):
        data.load(folder.path, groups=lambda path: "ann" if path.parent.name == "cat" else path.name)


def test_few_shot_folder_is_tested_on_what_was_held_out(folder):
    folder.fill("cat", 20).fill("dog", 20)
    whole, few = data.load(folder.path), data.load(folder.path, labels_per_class=3)
    assert np.bincount(few.train.labels).tolist() == [3, 3] and few.val is None
    assert few.test.paths == whole.val.paths
    assert set(few.train.paths) <= set(whole.train.paths)
    assert any("there is no test split" in note and "(8 images)" in note for note in few.notes)


def test_few_shot_uses_the_validation_folder_as_test_only_without_a_test_folder(folder):
    for side in ("train", "val"):
        folder.fill(f"{side}/cat", 5).fill(f"{side}/dog", 5)
    task = data.load(folder.path, labels_per_class=2)
    assert task.val is None and all(name.startswith("val/") for name in names(task.test, folder))
    folder.fill("test/cat", 2).fill("test/dog", 2)
    task = data.load(folder.path, labels_per_class=2)
    assert task.val is None and all(name.startswith("test/") for name in names(task.test, folder))
    assert any("val/ (10 images) are left unused" in note for note in task.notes)


def test_few_shot_draws_from_a_fixed_training_folder_follow_the_seed(folder):
    for side in ("train", "test"):
        folder.fill(f"{side}/cat", 20).fill(f"{side}/dog", 20)
    folder.fill("val/cat", 2).fill("val/dog", 2)
    drawn = [data.load(folder.path, labels_per_class=3, seed=seed).train.paths for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] and set(drawn[0]) != set(drawn[2])


def test_few_shot_counts_a_copy_once(folder):
    for side in ("train", "test"):
        folder.fill(f"{side}/cat", 6).fill(f"{side}/dog", 6)
    for i in range(30):
        folder.put(f"train/cat/copy{i}.png", noise(999))
    task = data.load(folder.path, labels_per_class=4)
    assert len(set(contents(task.train))) == 8


def test_few_shot_folder_with_too_few_images(folder):
    folder.fill("cat", 20).fill("dog", 5)
    with pytest.raises(DataError, match="labels_per_class=10, but the class 'dog' has only 4 different images"):
        data.load(folder.path, labels_per_class=10)


@pytest.mark.parametrize("wrong", [0, -1, 2.5, "3", True])
def test_labels_per_class_must_be_a_positive_integer(wrong):
    with pytest.raises(DataError, match="labels_per_class must be a positive integer"):
        data.load("digits", labels_per_class=wrong)


@pytest.mark.parametrize("wrong", [0, (8, 0), (8, 8, 3), "big"])
def test_image_size_must_make_sense(wrong):
    with pytest.raises(DataError, match="image_size must be"):
        data.load("digits", image_size=wrong)


def test_channels_must_be_one_or_three():
    with pytest.raises(DataError, match="channels must be 1"):
        data.load("digits", channels=4)


# ---------------------------------------------------------------------------------------------------------------------
# Bad input


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match=f"there is no folder {tmp_path / 'nowhere'}: check the path"):
        data.load(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"there is no folder some/where: .* looked for in"):
        data.load("some/where")


def test_a_file_in_place_of_a_folder(folder):
    path = folder.put("photos.zip", b"PK")
    with pytest.raises(DataError, match=r"photos\.zip is a file, not a folder: if it is an archive, unpack it"):
        data.load(path)


def test_empty_folder(folder):
    with pytest.raises(DataError, match=f"{folder.path} is empty: it needs one sub-folder of images a class"):
        data.load(folder.path)


def test_images_without_class_folders(folder):
    folder.fill(".", 3)
    with pytest.raises(
        DataError, match="holds images but no sub-folders: put the images of each class in a sub-folder"
    ):
        data.load(folder.path)


def test_one_class(folder):
    folder.fill("cat", 5)
    with pytest.raises(DataError, match=r"has one class only \(cat\)"):
        data.load(folder.path)


def test_one_level_too_high_suggests_the_folder_below(folder):
    folder.fill("images/cat", 5).fill("images/dog", 5)
    with pytest.raises(DataError, match=f"did you mean {folder.path / 'images'}"):
        data.load(folder.path)


def test_an_empty_class(folder):
    folder.fill("cat", 5).fill("dog", 5).fill("cow", 0)
    with pytest.raises(DataError, match=f"the class 'cow' has no image in {folder.path / 'cow'}: add images"):
        data.load(folder.path)


def test_val_without_train(folder):
    folder.fill("val/cat", 2).fill("val/dog", 2).fill("test/cat", 2).fill("test/dog", 2)
    with pytest.raises(DataError, match="holds test/, val/ but no train/"):
        data.load(folder.path)


def test_test_folder_beside_classes(folder):
    folder.fill("cat", 4).fill("dog", 4).fill("test", 4)
    with pytest.raises(DataError, match="holds test/ but no train/"):
        data.load(folder.path)


def test_two_folders_for_one_split(folder):
    for side in ("train", "val", "valid"):
        folder.fill(f"{side}/cat", 2).fill(f"{side}/dog", 2)
    with pytest.raises(DataError, match="holds val/ and valid/, which both mean the val split"):
        data.load(folder.path)


def test_train_without_class_folders(folder):
    folder.fill("train", 4).fill("val", 4)
    with pytest.raises(DataError, match="train holds no sub-folders"):
        data.load(folder.path)


def test_an_unlabelled_test_folder_is_ignored_aloud(folder):
    folder.fill("train/cat", 5).fill("train/dog", 5).fill("test", 4)
    with pytest.warns(DataWarning, match="ignored test/ .* no labels"):
        assert data.load(folder.path).test is None


def test_folders_beside_the_splits_are_ignored_aloud(folder):
    folder.fill("train/cat", 5).fill("train/dog", 5).fill("extra/cat", 4)
    with pytest.warns(DataWarning, match="ignored extra/"):
        assert len(data.load(folder.path).train) == 8


def test_classes_that_differ_between_train_and_val(folder):
    folder.fill("train/cat", 3).fill("train/dog", 3).fill("val/cat", 3).fill("val/Dog", 3)
    with pytest.raises(DataError, match=r"only in train/: dog; only in val/: Dog"):
        data.load(folder.path)


def test_a_text_file_called_jpg_is_skipped_and_named(folder):
    folder.fill("cat", 5).fill("dog", 5).put("dog/readme.jpg", b"This is not an image.")
    with pytest.warns(DataWarning, match=r"skipped 1 of 11 image files in .*: dog/readme\.jpg: not an image"):
        task = data.load(folder.path)
    assert any(note.startswith("skipped dog/readme.jpg: not an image") for note in task.notes)
    assert len(task.train) + len(task.val) == 10


def test_postscript_called_jpg_is_not_run(folder):
    folder.fill("cat", 5).fill("dog", 5).put("dog/program.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.warns(DataWarning, match=r"program\.jpg: not an image"):
        data.load(folder.path)


def test_a_class_with_nothing_left(folder):
    bad = folder.fill("cat", 5).put("dog/readme.jpg", b"This is not an image.")
    with pytest.raises(DataError, match=f"no file of the class 'dog' can be used; the first, {bad}: not an image"):
        data.load(folder.path)


def test_an_empty_file(folder):
    folder.fill("cat", 5).fill("dog", 5).put("dog/none.jpg", b"")
    with pytest.warns(DataWarning, match=r"dog/none\.jpg: the file is empty"):
        data.load(folder.path)


def test_formats_that_cannot_be_read_are_named(folder):
    folder.fill("cat", 5).fill("dog", 5).put("dog/IMG_1.HEIC", b"\0\0\0\x18ftypheic")
    with pytest.warns(DataWarning, match=r"dog/IMG_1\.HEIC: \.HEIC files cannot be read here; save it as JPEG"):
        data.load(folder.path)


PHOTO = encoded(noise(7, size=(200, 150)))
PROGRESSIVE = encoded(noise(7, size=(200, 150)), progressive=True)
# an EXIF thumbnail is a whole JPEG with an end marker of its own, before the picture itself
WITH_THUMBNAIL = PHOTO[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(encoded(noise(8)))) + encoded(noise(8)) + PHOTO[2:]


@pytest.mark.parametrize("whole", [PHOTO, PROGRESSIVE, WITH_THUMBNAIL], ids=["baseline", "progressive", "thumbnail"])
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.99, -2], ids=["fifth", "half", "almost", "no end marker"])
def test_a_truncated_jpeg_is_skipped_and_named(folder, whole, kept):
    cut = whole[:-2] if kept == -2 else whole[: int(kept * len(whole))]
    with pytest.raises((OSError, SyntaxError)):
        Image.open(io.BytesIO(cut)).load()
    folder.fill("cat", 5).fill("dog", 5).put("dog/cut.jpg", cut)
    with pytest.warns(DataWarning, match=r"dog/cut\.jpg: cannot be decoded \(.*; fetch it again or remove it"):
        task = data.load(folder.path)
    assert len(task.train) + len(task.val) == 10


@pytest.mark.parametrize("whole", [PHOTO, PROGRESSIVE, WITH_THUMBNAIL], ids=["baseline", "progressive", "thumbnail"])
def test_a_whole_jpeg_is_kept_whatever_follows_it(folder, whole):
    folder.fill("cat", 5).fill("dog", 5).put("dog/whole.jpg", whole).with_name("more.jpg").write_bytes(whole + b"xyz")
    assert len(data.load(folder.path).train) == 10


@pytest.mark.parametrize("file_format", ["PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_truncation_is_found_in_other_formats(folder, file_format):
    whole = encoded(noise(7, size=(200, 150)), file_format)
    name = f"dog/cut.{file_format.lower()}"
    folder.fill("cat", 5).fill("dog", 5).put(name, whole[: len(whole) // 2])
    with pytest.warns(DataWarning, match=f"{name}: cannot be decoded|{name}: not an image"):
        data.load(folder.path)


def test_an_unreadable_file_is_skipped_and_named(folder, monkeypatch):
    folder.fill("cat", 5).fill("dog", 5).put("dog/locked.png", noise(99))
    read = Path.read_bytes

    def read_bytes(path):
        if path.name == "locked.png":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with pytest.warns(
        DataWarning, match=r"dog/locked\.png: cannot be read \(Permission denied\); check its permissions"
    ):
        data.load(folder.path)


@not_as_root
def test_files_and_folders_without_permission(folder):
    locked = folder.fill("cat", 5).fill("dog", 5).put("dog/locked.png", noise(99))
    locked.chmod(0)
    with pytest.warns(DataWarning, match=r"dog/locked\.png: cannot be read"):
        data.load(folder.path)
    (folder.path / "dog").chmod(0)
    try:
        with pytest.raises(DataError, match=f"cannot read the folder {folder.path / 'dog'}"):
            data.load(folder.path)
    finally:
        (folder.path / "dog").chmod(0o755)


def test_non_ascii_names(folder):
    folder.fill("été", 4, extension="jpg").fill("图像 🐝", 4).put("été/żółw №1.png", noise(99))
    task = data.load(folder.path)
    assert task.class_names == ("été", "图像 🐝")
    assert task.train.images().shape == (len(task.train), 224, 224, 3)
    assert "图像 🐝" in task.summary()


def test_the_same_name_composed_and_decomposed_is_one_class(folder):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    folder.fill(f"train/{composed}", 3).fill("train/thé", 3).fill(f"val/{decomposed}", 3).fill("val/thé", 3)
    assert data.load(folder.path).class_names == (composed, "thé")


def test_a_tiny_image_is_loaded_and_reported(folder):
    with pytest.warns(DataWarning, match=r"1 image with a side under 16 pixels.*train/a/dot\.png"):
        task = one_image(folder, "dot.png", Image.new("RGB", (1, 1), (10, 20, 30)), image_size=4)
    assert np.all(task.train.images()[0] == [10, 20, 30])


# ---------------------------------------------------------------------------------------------------------------------
# Decoding


def test_an_image_of_the_right_size_is_decoded_exactly(folder):
    task = one_image(folder, "x.png", noise(50), image_size=(20, 24))
    assert np.array_equal(task.train.images()[0], np.asarray(noise(50)))
    assert task.image_size == (20, 24) and task.notes == ()


def test_gray_is_repeated_and_rgb_is_weighted(folder):
    gray = noise(50, channels=1)
    task = one_image(folder, "x.png", gray, image_size=(20, 24))
    assert np.array_equal(task.train.images()[0], np.repeat(np.asarray(gray)[..., None], 3, axis=-1))
    assert any("1 gray image repeated to three channels: train/a/x.png" in note for note in task.notes)
    task = data.load(folder.path, image_size=(20, 24), channels=1)
    images = task.train.images()
    assert np.array_equal(images[0, ..., 0], np.asarray(gray)) and task.notes == ()
    rgb = np.asarray(Image.open(task.train.paths[1])).astype(float)
    assert np.abs(images[1, ..., 0] - rgb @ [0.299, 0.587, 0.114]).max() <= 1


def test_cmyk(folder):
    colours = {"cyan": ((255, 0, 0, 0), (0, 255, 255)), "dark": ((0, 0, 0, 204), (51, 51, 51))}
    cmyk, rgb = colours["cyan"]
    task = one_image(folder, "x.jpg", Image.new("CMYK", (32, 32), cmyk), image_size=16)
    assert np.abs(task.train.images()[0].astype(int) - rgb).max() <= 3
    assert any("1 CMYK image converted: train/a/x.jpg" in note for note in task.notes)
    cmyk, rgb = colours["dark"]
    folder.put("train/a/x.jpg", Image.new("CMYK", (32, 32), cmyk))
    assert np.abs(data.load(folder.path, image_size=16).train.images()[0].astype(int) - rgb).max() <= 3


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_16_bit_gray_is_scaled_not_clipped(folder, file_format):
    ramp = np.linspace(0, 65535, 24 * 20).reshape(20, 24).astype(np.uint16)
    if file_format == "PPM":  # which older releases of Pillow read but do not write
        content = b"P5\n24 20\n65535\n" + ramp.astype(">u2").tobytes()
    else:
        content = encoded(Image.fromarray(ramp), file_format)
    name = f"x.{file_format.lower()}"
    task = one_image(folder, name, content, image_size=(20, 24), channels=1)
    assert np.array_equal(task.train.images()[0, ..., 0], np.rint(ramp / 65535 * 255))
    assert any(f"1 16-bit image scaled to 8 bits: train/a/{name}" in note for note in task.notes)


def test_16_bit_rgb_is_scaled_not_clipped(folder):
    ramp = np.linspace(0, 65535, 24 * 20 * 3).reshape(20, 24, 3).astype(">u2")

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + row.tobytes() for row in ramp)
    header = struct.pack(">IIBBBBB", 24, 20, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    task = one_image(folder, "x.png", png, image_size=(20, 24))
    assert np.abs(task.train.images()[0] - ramp / 65535 * 255).max() <= 1


def test_32_bit_images_are_skipped_and_named(folder):
    folder.fill("cat", 5).fill("dog", 5)
    folder.put("dog/float.tiff", Image.fromarray(np.linspace(0, 1, 480, dtype=np.float32).reshape(20, 24)))
    folder.put("dog/int.tiff", Image.fromarray(np.arange(480, dtype=np.int32).reshape(20, 24)))
    with pytest.warns(DataWarning, match=r"dog/float\.tiff: 32-bit pixels .*; dog/int\.tiff: 32-bit pixels"):
        data.load(folder.path)


def test_palette(folder):
    rgb = np.zeros((20, 24, 3), np.uint8)
    rgb[:10], rgb[10:] = (200, 30, 40), (20, 90, 250)
    task = one_image(folder, "x.png", Image.fromarray(rgb).quantize(4), image_size=(20, 24))
    assert np.array_equal(task.train.images()[0], rgb)
    assert any("1 palette image converted: train/a/x.png" in note for note in task.notes)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "palette"])
def test_alpha_is_laid_on_white(folder, mode):
    if mode == "palette":
        image = Image.new("P", (24, 20), 0)
        image.putpalette([0, 0, 0, 100, 100, 100])
        image.paste(1, (0, 0, 24, 10))
        content, expected = encoded(image, "PNG", transparency=0), (100, 255)
    else:
        pixels = np.zeros((20, 24, len(mode)), np.uint8) + 100
        pixels[:10, :, -1], pixels[10:, :, -1] = 51, 0
        content, expected = encoded(Image.fromarray(pixels), "PNG"), (0.2 * 100 + 0.8 * 255, 255)
    task = one_image(folder, "x.png", content, image_size=(20, 24))
    image = task.train.images()[0]
    assert np.abs(image[:10] - expected[0]).max() <= 1 and np.all(image[10:] == expected[1])
    assert any("1 image with transparency laid on white: train/a/x.png" in note for note in task.notes)


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation_is_taken(folder, file_format):
    frames = [Image.new("RGB", (24, 20), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    content = encoded(frames[0], file_format, save_all=True, append_images=frames[1:])
    task = one_image(folder, f"x.{file_format.lower()}", content, image_size=(20, 24))
    assert np.abs(task.train.images()[0].astype(int) - (250, 0, 0)).max() <= 4
    assert any("1 animated image, first frame taken" in note for note in task.notes)


def test_one_bit_images(folder):
    bits = np.asarray(noise(3, channels=1)) > 127
    task = one_image(folder, "x.png", Image.fromarray(bits), image_size=(20, 24), channels=1)
    assert np.array_equal(task.train.images()[0, ..., 0], 255 * bits)


def test_exif_orientation_is_applied(folder):
    upright = np.zeros((400, 300, 3), np.uint8)
    upright[:200] = 255  # white above, black below
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned by 90°: a viewer turns it back
    stored = Image.fromarray(np.rot90(upright).copy())
    task = one_image(folder, "x.jpg", encoded(stored, exif=exif), image_size=(40, 30))
    image = task.train.images()[0]
    assert image[:18].min() > 240 and image[22:].max() < 15


def test_the_whole_image_is_resized_not_cropped(folder):
    wide = np.zeros((40, 400, 3), np.uint8)
    wide[:, :200], wide[:, 200:] = (255, 0, 0), (0, 0, 255)
    image = one_image(folder, "x.png", Image.fromarray(wide), image_size=(16, 32)).train.images()[0]
    assert image.shape == (16, 32, 3)
    assert np.all(image[:, :15] == (255, 0, 0)) and np.all(image[:, 17:] == (0, 0, 255))


def test_a_large_jpeg_gives_nearly_the_pixels_of_a_full_decode(folder):
    y, x = np.mgrid[0:1200, 0:1600]
    waves = [127 + 120 * np.sin(x / a + y / b) for a, b in ((90, 60), (40, -70), (-55, 120))]
    photo = encoded(Image.fromarray(np.stack(waves, axis=-1).astype(np.uint8)), quality=92)
    full = Image.open(io.BytesIO(photo)).resize((96, 96), Image.Resampling.BILINEAR)
    image = one_image(folder, "x.jpg", photo, image_size=96).train.images()[0]
    assert np.abs(image.astype(int) - np.asarray(full)).max() <= 4


def test_nothing_is_decoded_before_it_is_asked_for(folder, monkeypatch):
    folder.fill("cat", 6, extension="jpg").fill("dog", 6, extension="png")
    decoded = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: decoded.append(image.filename) or load(image))
    task = data.load(folder.path)
    assert decoded == []
    task.val.images()
    assert {Path(name) for name in decoded} == set(task.val.paths)


def test_a_file_that_vanished_is_named(folder):
    folder.fill("cat", 4).fill("dog", 4)
    examples = data.load(folder.path).train
    examples.paths[2].unlink()
    with pytest.raises(DataError, match=f"cannot decode {examples.paths[2]}"):
        examples.images()
    import tensorflow as tf

    with pytest.raises(tf.errors.OpError, match=examples.paths[2].name):
        list(examples.batches(2))


# ---------------------------------------------------------------------------------------------------------------------
# Examples


@pytest.fixture
def files(folder):
    folder.fill("cat", 9, extension="jpg").fill("dog", 8).fill("emu", 9, extension="webp")
    return data.load(folder.path, image_size=(16, 18)).train


@pytest.fixture
def arrays():
    return data.load("digits", labels_per_class=3).train


@pytest.fixture(params=["files", "arrays"])
def examples(request):
    return request.getfixturevalue(request.param)


def collect(dataset):
    images, labels = zip(*((images.numpy(), labels.numpy()) for images, labels in dataset))
    return np.concatenate(images), np.concatenate(labels)


def test_batches_are_the_images_in_order(examples):
    dataset = examples.batches(8)
    images, labels = collect(dataset)
    assert images.dtype == np.float32 and labels.dtype == np.int64
    assert np.array_equal(images, examples.images()) and np.array_equal(labels, examples.labels)
    assert dataset.element_spec[0].shape.as_list() == [None, *examples.image_size, examples.channels]
    assert int(dataset.cardinality()) == -(-len(examples) // 8)


def test_shuffled_batches_hold_the_same_pairs_in_a_new_order_each_epoch(examples):
    dataset = examples.batches(8, shuffle=True, seed=1)
    first, second = collect(dataset), collect(dataset)
    again = collect(examples.batches(8, shuffle=True, seed=1))
    other = collect(examples.batches(8, shuffle=True, seed=2))
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], second[0]) and not np.array_equal(first[0], other[0])

    def pairs(images, labels):
        return Counter((image.astype(np.uint8).tobytes(), int(label)) for image, label in zip(images, labels))

    assert pairs(*first) == pairs(*second) == pairs(examples.images(), examples.labels)


def test_augmentation_sees_whole_batches_and_comes_anew_each_epoch(arrays):
    import keras

    shapes = []

    def negative(images):
        shapes.append(images.shape.as_list())
        return 255 - images

    images, _ = collect(arrays.batches(8, augment=negative))
    assert np.array_equal(images, 255.0 - arrays.images()) and shapes == [[None, 32, 32, 1]]

    # dropout does nothing unless it is called with training=True
    dataset = arrays.batches(8, augment=keras.layers.Dropout(0.5, seed=3))
    (first, _), (second, _) = collect(dataset), collect(dataset)
    lit = arrays.images() > 0
    assert 0.4 < (first[lit] == 0).mean() < 0.6
    assert not np.array_equal(first, second)
    again, _ = collect(arrays.batches(8, augment=keras.layers.Dropout(0.5, seed=3)))
    assert np.array_equal(first, again)


@pytest.mark.parametrize("wrong", [0, -3, 2.5, None])
def test_batch_size_must_be_a_positive_integer(arrays, wrong):
    with pytest.raises(DataError, match="batch_size must be a positive integer"):
        arrays.batches(wrong)


def test_a_subset_keeps_images_and_labels_together(examples):
    part = examples.subset([5, 0, 5, 3])
    assert np.array_equal(part.images(), examples.images()[[5, 0, 5, 3]])
    assert np.array_equal(part.labels, examples.labels[[5, 0, 5, 3]])
    mask = examples.labels == 1
    assert len(examples.subset(mask)) == mask.sum() and set(examples.subset(mask).labels) == {1}
    assert len(examples.subset([])) == 0
    with pytest.raises(IndexError):
        examples.subset([len(examples)])


def test_paths_are_kept_for_files_only(files, arrays):
    assert len(files.paths) == len(files) and all(path.is_file() for path in files.paths)
    assert arrays.paths is None


def test_fingerprint_follows_contents_order_size_and_channels(folder, tmp_path):
    folder.fill("cat", 6).fill("dog", 6)
    examples = data.load(folder.path).train
    renamed = tmp_path / "elsewhere"
    folder.path.rename(renamed)
    for name in ("cat", "dog"):
        (renamed / name).rename(renamed / f"my {name}")
    assert data.load(renamed).train.fingerprint == examples.fingerprint
    others = [
        examples.subset(range(len(examples))[::-1]),
        examples.subset(range(len(examples) - 1)),
        data.load(renamed, image_size=96).train,
        data.load(renamed, channels=1).train,
        data.load(renamed).val,
    ]
    assert len({examples.fingerprint, *(other.fingerprint for other in others)}) == 1 + len(others)


def test_fingerprint_of_arrays_sees_every_pixel():
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), dtype=np.uint8)
    changed, labels = images.copy(), np.array([0, 1, 0, 1, 0, 1])
    changed[3, 4, 5] ^= 1
    prints = [data.from_arrays("x", pair).train.fingerprint for pair in ((images, labels), (images, 1 - labels))]
    assert prints[0] == prints[1] != data.from_arrays("x", (changed, labels)).train.fingerprint
    assert len(prints[0]) == 64


def test_arrays_cannot_be_changed_behind_their_fingerprint(arrays):
    with pytest.raises(ValueError, match="read-only"):
        arrays.images()[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        arrays.labels[0] = 0


# ---------------------------------------------------------------------------------------------------------------------
# Arrays and tasks


def random_pair(n=12, shape=(8, 8, 3), seed=0, classes=3):
    images = np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)
    return images, np.arange(n) % classes


def test_from_arrays_keeps_what_it_is_given():
    train, val, test = (random_pair(seed=seed) for seed in range(3))
    task = data.from_arrays("mine", train, val, test, class_names=["x", "y", "z"])
    assert (task.name, task.class_names, task.num_classes, task.kind) == ("mine", ("x", "y", "z"), 3, "classification")
    assert (task.image_size, task.channels, task.notes) == ((8, 8), 3, ())
    for part, (images, labels) in ((task.train, train), (task.val, val), (task.test, test)):
        assert np.array_equal(part.images(), images) and np.array_equal(part.labels, labels)
        assert part.labels.dtype == np.int64
    assert data.from_arrays("mine", train).class_names == ("0", "1", "2")


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.float64, np.uint16])
def test_from_arrays_takes_raw_pixels_of_any_type(dtype):
    images, labels = random_pair()
    task = data.from_arrays("mine", (images.astype(dtype), labels))
    assert task.train.images().dtype == np.uint8 and np.array_equal(task.train.images(), images)


def test_from_arrays_adds_the_channel_of_gray_images():
    images, labels = random_pair(shape=(8, 9))
    task = data.from_arrays("mine", (images, labels))
    assert task.train.images().shape == (12, 8, 9, 1) and task.image_size == (8, 9)


IMAGES, LABELS = random_pair()


@pytest.mark.parametrize(
    "images, message",
    [
        (IMAGES / 255, r"float64 between 0\.0 and 1\.0: raw pixels 0–255 are wanted"),
        (IMAGES / 127.5 - 1, r"between -1\.0 and 1\.0: raw pixels 0–255 are wanted"),
        (IMAGES - 120.0, "raw pixels 0–255 are wanted"),
        (IMAGES.astype(int) + 1, "lie between 1 and 256: raw pixels 0–255"),
        (np.full(IMAGES.shape, np.nan), "lie between nan and nan"),
        (IMAGES > 9, "bool"),
        (IMAGES.astype(str), "not numbers"),
        (IMAGES[0], "12 labels"),
        (IMAGES[0, 0], r"have shape \(8, 3\), not \(N, height, width\)"),
        (IMAGES.transpose(0, 3, 1, 2), r"move the channels last: images\.transpose\(0, 2, 3, 1\)"),
        (np.concatenate([IMAGES, IMAGES], axis=-1), "so 6 channels"),
    ],
)
def test_from_arrays_refuses_images_that_are_not_raw_pixels(images, message):
    with pytest.raises(DataError, match=message):
        data.from_arrays("mine", (images, LABELS))
    if images.ndim == 4:
        with pytest.raises(DataError, match="the images of val"):
            data.from_arrays("mine", (IMAGES, LABELS), (images, LABELS))


@pytest.mark.parametrize(
    "labels, message",
    [
        (np.eye(3)[LABELS], r"shape \(12, 3\), not \(N,\): for one-hot rows take labels\.argmax"),
        (LABELS.astype(float), "float64, not integers"),
        (np.array(["x", "y", "z"])[LABELS], r"np\.unique\(labels, return_inverse=True\)"),
        (LABELS - 1, "start at -1: number the classes from 0"),
        (LABELS[:-1], "12 images but 11 labels"),
        (LABELS * 2, "no image is left in train for the class 1, 3"),
        (LABELS * 0, "one class only"),
    ],
)
def test_from_arrays_refuses_labels_that_are_no_class_numbers(labels, message):
    with pytest.raises(DataError, match=message):
        data.from_arrays("mine", (IMAGES, labels))


def test_from_arrays_checks_its_other_arguments():
    with pytest.raises(DataError, match="a label is 2, but class_names has 2 names"):
        data.from_arrays("mine", (IMAGES, LABELS), class_names=["x", "y"])
    with pytest.raises(DataError, match="class_names holds x more than once"):
        data.from_arrays("mine", (IMAGES, LABELS), class_names=["x", "x", "y"])
    with pytest.raises(DataError, match="kind must be"):
        data.from_arrays("mine", (IMAGES, LABELS), kind="ranking")
    with pytest.raises(DataError, match="train must be a pair"):
        data.from_arrays("mine", None)
    with pytest.raises(DataError, match="train must be a pair"):
        data.from_arrays("mine", IMAGES)
    with pytest.raises(DataError, match=r"one shape, found train \(8, 8, 3\), val \(4, 8, 3\)"):
        data.from_arrays("mine", (IMAGES, LABELS), (IMAGES[:, :4], LABELS))


def test_from_arrays_drops_copies_from_train():
    other, labels = random_pair(seed=1)
    other = np.concatenate([other, IMAGES[4:6]])
    with pytest.warns(DataWarning, match=r"dropped 2 from train: .*train\[4\] = val\[12\], train\[5\] = val\[13\]"):
        task = data.from_arrays("mine", (IMAGES, LABELS), (other, [*labels, 1, 2]))
    assert np.array_equal(task.train.images(), np.delete(IMAGES, [4, 5], axis=0))
    assert np.array_equal(task.train.labels, np.delete(LABELS, [4, 5])) and len(task.val) == 14


def test_from_arrays_of_zeros_and_ones_is_questioned():
    with pytest.warns(DataWarning, match="all pixels are 0 or 1"):
        data.from_arrays("mine", (IMAGES % 2, LABELS))


@pytest.mark.parametrize("labels", [np.linspace(-1, 1, 12), np.linspace(0, 5, 24).reshape(12, 2), np.arange(12)])
def test_regression(labels):
    task = data.from_arrays("angles", (IMAGES, labels), kind="regression")
    assert task.class_names is None and task.num_classes is None
    assert task.train.labels.dtype == np.float32 and np.allclose(task.train.labels, labels)
    _, batched = collect(task.train.batches(5))
    assert np.array_equal(batched, task.train.labels)
    assert f"regression with {1 if labels.ndim == 1 else 2} output" in task.summary()


def test_regression_refuses_classes_and_what_is_no_number():
    with pytest.raises(DataError, match="a regression has no classes"):
        data.from_arrays("angles", (IMAGES, LABELS), kind="regression", class_names=["x"])
    with pytest.raises(DataError, match="must be finite numbers"):
        data.from_arrays("angles", (IMAGES, np.full(12, np.inf)), kind="regression")
    with pytest.raises(DataError, match="same number of outputs"):
        data.from_arrays("angles", (IMAGES, LABELS), (IMAGES, np.zeros((12, 2))), kind="regression")


def test_a_task_is_frozen_and_describes_itself_the_same_each_time(folder):
    folder.fill("cat", 30).fill("dog", 20)
    task = data.load(folder.path)
    with pytest.raises(AttributeError):
        task.name = "other"
    assert (
        task.summary()
        == data.load(folder.path).summary()
        == (
            "photos: 2 classes (cat, dog).\nImages of 224×224×3: 40 train, 10 val, no test.\n"
            "Each class has 16 to 24 training images."
        )
    )
    assert repr(task) == "ImageTask('photos', 40 train, 10 val, no test, 224×224×3)"
    assert repr(task.val) == "Examples(10 images, 224×224×3, files)"
    assert str(folder.path) not in task.summary()


def test_neither_importing_nor_loading_needs_tensorflow():
    code = (
        "import sys; from tlutils import data; data.registry(); "
        "data.load('digits', labels_per_class=1).train.images(); "
        "print([name for name in ('tensorflow', 'keras') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
