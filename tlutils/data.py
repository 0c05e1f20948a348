"""Labelled images, from a name, a folder or arrays, split so that no copy of an image falls on two sides.

``load`` reads every file of a folder once, to hash its bytes (copies) and to check them (broken files). ``Examples``
decodes files only when their pixels are asked for, always with the same decoder. Files are never changed; whatever was
skipped, converted or dropped stands in ``ImageTask.notes``.
"""

import difflib
import hashlib
import os
import unicodedata
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from tlutils.downloads import Archive, Contents, Download
from tlutils.folders import read_folder
from tlutils.images import DECODER, THREADS, decode, decode_all
from tlutils.notes import DataError, DataWarning, Log, listed
from tlutils.splits import (
    Row,
    close_validation,
    draw_few,
    drop_copies,
    hold_out,
    refuse_split_groups,
    require_every_class,
)

__all__ = ["DataError", "DataSource", "DataWarning", "Examples", "ImageTask", "from_arrays", "load", "registry"]

# ---------------------------------------------------------------------------------------------------------------------
# Examples and tasks


class Examples:
    """Labelled images of one split, kept as an array or as files that are decoded when they are asked for.

    Attributes:
        labels: One label an image. Classification: int64, shape (N,). Regression: float32, (N,) or (N, outputs).
        image_size: (height, width) in pixels.
        channels: 1 or 3.
        paths: One ``Path`` an image, or ``None`` for arrays.
        digests: The SHA-256 (hex) of each file, or ``None`` for arrays.
        groups: One group id an image (writer, patient, speaker …), or ``None``.
        split: The side of the task they are: ``"train"``, ``"val"``, ``"test"``; ``None`` outside a task.
    """

    split = None

    def __init__(self, labels, *, image_size, channels, pixels=None, paths=None, digests=None, groups=None):
        self.labels = _read_only(labels)
        self.image_size = image_size
        self.channels = channels
        self.paths = None if paths is None else tuple(paths)
        self.groups = groups
        self._pixels = None if pixels is None else _read_only(pixels)
        self.digests = digests

    def __len__(self):
        return len(self.labels)

    def __repr__(self):
        kind = "array" if self.paths is None else "files"
        return f"Examples({len(self)} images, {_shape_text(self.image_size, self.channels)}, {kind})"

    def images(self):
        """All images: uint8, shape (N, height, width, channels). Arrays come as they are, read-only, not copied."""
        if self._pixels is not None:
            return self._pixels
        return decode_all(self.paths, self.image_size, self.channels)

    def batches(self, batch_size, augment=None, shuffle=False, seed=0):
        """A ``tf.data.Dataset`` of (images, labels): images float32, 0–255, shape (batch, height, width, channels).

        The last batch may be smaller. Only the files of the next few batches are in memory.

        Args:
            batch_size: Images in a batch.
            augment: Called on each batch of images in every epoch, and never cached. A Keras layer or model is called
                with ``training=True``.
            shuffle: Whether each epoch goes through the images in another order; otherwise the order of ``labels``.
            seed: Decides those orders, together with TensorFlow's global seed where one is set.

        Raises:
            DataError: ``batch_size`` is not a positive integer.
        """
        if not isinstance(batch_size, int | np.integer) or batch_size < 1:
            raise DataError(f"batch_size must be a positive integer, not {batch_size!r}")
        from tlutils import runtime

        tf = runtime.require_tensorflow()
        batch_size, shape = int(batch_size), (*self.image_size, self.channels)

        def read(index, label):
            # runs in parallel even when operations are deterministic, which a stateful function or py_function does not
            image = tf.numpy_function(self._read, [index], tf.uint8, stateful=False)
            return tf.ensure_shape(image, (*index.shape, *shape)), label

        rows = tf.data.Dataset.from_tensor_slices((np.arange(len(self)), self.labels))
        if shuffle:
            rows = rows.shuffle(len(self), seed=seed, reshuffle_each_iteration=True)
        if self.paths is None:
            batched = rows.batch(batch_size).map(read)
        else:
            batched = rows.map(read, num_parallel_calls=THREADS).batch(batch_size)
        batched = batched.map(lambda images, labels: (tf.cast(images, tf.float32), labels))
        if augment is not None:
            import keras

            arguments = {"training": True} if isinstance(augment, keras.layers.Layer) else {}
            # One batch after the other: random layers draw from one state, whose order decides what each batch gets.
            batched = batched.map(lambda images, labels: (augment(images, **arguments), labels))
        return batched.prefetch(tf.data.AUTOTUNE)

    def subset(self, indices):
        """The examples at these positions (integers, or a boolean mask), in that order, as a new ``Examples``."""
        indices = np.atleast_1d(indices)
        indices = np.arange(len(self))[indices if indices.size else indices.astype(int)]
        part = Examples(
            self.labels[indices],
            image_size=self.image_size,
            channels=self.channels,
            pixels=None if self._pixels is None else self._pixels[indices],
            paths=None if self.paths is None else [self.paths[i] for i in indices],
            digests=None if self.digests is None else [self.digests[i] for i in indices],
            groups=None if self.groups is None else self.groups[indices],
        )
        part.split = self.split
        return part

    @cached_property
    def fingerprint(self):
        """SHA-256 (hex) of what ``images()`` gives: pixels of arrays; file contents, order, size and channels of files.

        Labels are not part of it: features extracted from the same images are the same whatever they are called.
        """
        digest = hashlib.sha256()
        if self._pixels is not None:
            digest.update(repr(self._pixels.shape).encode())
            digest.update(np.ascontiguousarray(self._pixels))
        else:
            digest.update(repr((DECODER, self.image_size, self.channels)).encode())
            digest.update("".join(self.digests).encode())
        return digest.hexdigest()

    def _read(self, index):
        """uint8 pixels at one position; of an array, also at several."""
        if self._pixels is not None:
            return self._pixels[index]
        return decode(self.paths[index], self.image_size, self.channels)


@dataclass(frozen=True, eq=False)
class ImageTask:
    """What is to be learnt: images with labels, split into training, validation and test.

    Attributes:
        name: Name of the data set, or of its folder.
        train: Examples to learn from.
        val: Examples to choose by, or ``None``.
        test: Examples to report on, opened once, or ``None`` where the data have no test split.
        class_names: One name a class, in the order of the labels; ``None`` for regression.
        kind: ``"classification"`` or ``"regression"``.
        image_size: (height, width) in pixels.
        channels: 1 or 3.
        notes: What was skipped, converted or dropped on loading, with paths, and how the splits were made.
    """

    name: str
    train: Examples
    val: Examples | None = None
    test: Examples | None = None
    class_names: tuple[str, ...] | None = None
    kind: str = "classification"
    image_size: tuple[int, int] = (32, 32)
    channels: int = 1
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        for split in ("train", "val", "test"):
            if (part := getattr(self, split)) is not None:
                part.split = split

    @property
    def num_classes(self):
        """Number of classes; ``None`` for regression."""
        return None if self.class_names is None else len(self.class_names)

    def __repr__(self):
        return f"ImageTask({self.name!r}, {self._sizes()}, {_shape_text(self.image_size, self.channels)})"

    def summary(self):
        """A few lines in words: what there is to learn, from how many images, of which size. Always the same."""
        if self.kind == "regression":
            outputs = 1 if self.train.labels.ndim == 1 else self.train.labels.shape[1]
            what = f"regression with {outputs} output{'s' if outputs > 1 else ''}"
        else:
            what = f"{self.num_classes} classes ({listed(self.class_names, 12)})"
        lines = [f"{self.name}: {what}.", f"Images of {_shape_text(self.image_size, self.channels)}: {self._sizes()}."]
        if self.kind == "classification":
            counts = np.bincount(self.train.labels, minlength=self.num_classes)
            low, high = counts.min(), counts.max()
            lines.append(f"Each class has {low if low == high else f'{low} to {high}'} training images.")
        return "\n".join([*lines, *(f"Note: {note.rstrip('.')}." for note in self.notes)])

    def _sizes(self):
        sides = (("train", self.train), ("val", self.val), ("test", self.test))
        return ", ".join(f"no {side}" if part is None else f"{len(part):,} {side}" for side, part in sides)


def load(
    source,
    *,
    image_size=None,
    channels=None,
    labels_per_class=None,
    groups=None,
    seed=0,
    val_fraction=0.2,
):
    """Load a registered data set, or any folder of images, as a task.

    A folder holds either one sub-folder a class, or ``train/``, ``val/`` (or ``validation/``, ``valid/``) and ``test/``
    with one sub-folder a class in each. Images of a class may lie in deeper folders. Splits that are not on disk are
    drawn: stratified by class, by ``seed``, with all copies of an image and all images of a group on one side. A folder
    without ``test/`` has ``test is None``.

    Each image is decoded to 8 bits (first frame only, EXIF orientation applied, 16 bits scaled to 8, alpha laid on
    white) and resized bilinearly to ``image_size`` as a whole: it is not cropped, so its proportions may change. A
    large JPEG is decoded at a reduced scale that is not smaller than ``image_size``, which is several times faster and
    gives slightly different pixels than decoding it in full.

    Every file is read once, to compare contents and to find broken files: a JPEG must have its end marker, the
    checksums of a PNG must hold, rarer formats are decoded. Damage in the middle of a JPEG that is otherwise complete
    is not looked for, because that would mean to decode every photograph before the first is used.

    Few-shot means few-shot: with ``labels_per_class=k``, ``train`` holds k images a class, distinct in content and
    drawn by ``seed`` (the draw for a smaller k is part of the draw for a larger one), and ``val is None``. They come
    from what would be the training side without it. The images held out for validation are then neither trained nor
    tuned on: where the data have no test split they become ``test`` (``notes`` says so), else they are left unused.

    Args:
        source: A name of ``registry()``, or the path of a folder. A ``Path`` is always a folder.
        image_size: Side in pixels, or (height, width). Default: 224 for photographs, 32 for everything else.
        channels: 1 (gray) or 3 (RGB). Default: 3 for photographs, 1 for everything else.
        labels_per_class: Number of training images a class, or ``None`` for all; of ``tilted_digits``, a digit.
        groups: Who or what an image comes from (writer, patient, video): a function from a file's ``Path`` to an id, or
            a dict from its path relative to the folder, with ``/``, to an id. Only for folders.
        seed: Decides the splits and draws.
        val_fraction: Share of the training images held out for validation where the data have no validation split.

    Returns:
        ImageTask

    Raises:
        DataError: An unknown name, a missing or empty folder, fewer than two classes, a class without a usable image,
            too few images of a class, classes that differ between splits, a group on two sides, or a bad argument.

    Warns:
        DataWarning: Files were skipped, copies were dropped, one image has two labels, or images are tiny.
    """
    sources = registry()
    options = _Options(
        image_size=_checked_size(image_size),
        channels=_checked_channels(channels),
        labels_per_class=_checked_count(labels_per_class),
        groups=groups,
        seed=seed,
        val_fraction=_checked_fraction(val_fraction),
    )
    log = Log()
    if isinstance(source, str) and source in sources:
        task = _LOADERS[source](options, log)
    elif isinstance(source, str | os.PathLike):
        folder = Path(source).expanduser()
        if isinstance(source, str) and not folder.exists() and Path(source).name == source:
            nearest = difflib.get_close_matches(source.lower(), sources, n=1, cutoff=0.5)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
            raise DataError(
                f"{source!r} is neither a known data set nor a folder here.{hint} "
                f"Known data sets: {', '.join(sources)}. For your own images give the path of their folder."
            )
        task = _load_folder(folder, options, log)
    else:
        raise DataError(
            f"source must be the name of a data set or a path, not {type(source).__name__}; arrays: from_arrays"
        )
    log.give_warnings()
    return task


def from_arrays(name, train, val=None, test=None, *, class_names=None, kind="classification"):
    """Make a task of arrays. Splits are taken as given, but an image that is on two sides is dropped from the first.

    Args:
        name: Name of the task.
        train: A pair (images, labels). Images: raw pixels 0–255 of any real type, shape (N, height, width) or
            (N, height, width, channels) with 1 or 3 channels. Labels of a classification: integers from 0, shape (N,);
            of a regression: numbers, shape (N,) or (N, outputs).
        val: Such a pair, or ``None``.
        test: Such a pair, or ``None``.
        class_names: One name a class in the order of the labels. Default: the labels themselves.
        kind: ``"classification"`` or ``"regression"``.

    Returns:
        ImageTask

    Raises:
        DataError: Images that are not raw pixels 0–255 (such as images scaled to [0, 1]), shapes that do not fit,
            labels that are no class numbers, fewer than two classes, or a class without a training image.

    Warns:
        DataWarning: Copies were dropped, one image has two labels, or all pixels are 0 or 1.
    """
    if kind not in ("classification", "regression"):
        raise DataError(f"kind must be 'classification' or 'regression', not {kind!r}")
    if kind == "regression" and class_names is not None:
        raise DataError("a regression has no classes: leave class_names out")
    pairs = {"train": train, "val": val, "test": test}
    log = Log()
    sides = {side: _checked_pair(pair, side, kind) for side, pair in pairs.items() if pair is not None}
    if "train" not in sides:
        raise DataError("train must be a pair (images, labels), not None")
    shapes = {side: images.shape[1:] for side, (images, _) in sides.items()}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{side} {shape}" for side, shape in shapes.items())
        raise DataError(f"the images of all splits must have one shape, found {found}: resize them alike")
    if kind == "classification":
        class_names = _checked_classes(sides, class_names)
    elif len({labels.shape[1:] for _, labels in sides.values()}) > 1:
        raise DataError("the labels of all splits must have the same number of outputs")

    if all(images.max() <= 1 for images, _ in sides.values()):
        log.both("all pixels are 0 or 1 on a scale of 0–255: were they scaled to [0, 1] before they were rounded?")
    rows = {
        side: [
            Row(f"{side}[{i}]", label.tobytes(), digest)
            for i, (label, digest) in enumerate(zip(labels, _digests(images)))
        ]
        for side, (images, labels) in sides.items()
    }
    kept = drop_copies(rows, log)
    *image_size, channels = shapes["train"]
    image_size = tuple(image_size)
    examples = {}
    for side, (images, labels) in sides.items():
        if len(kept[side]) < len(labels):
            images, labels = images[kept[side]], labels[kept[side]]
        examples[side] = Examples(labels, image_size=image_size, channels=channels, pixels=images)
    if kind == "classification":
        require_every_class(examples["train"].labels, class_names, "train")
    elif not len(examples["train"]):
        raise DataError("every image of train is also in val or test: nothing is left to learn from")
    log.give_warnings()
    return ImageTask(
        str(name),
        **{side: examples.get(side) for side in pairs},
        class_names=class_names,
        kind=kind,
        image_size=image_size,
        channels=channels,
        notes=log.notes,
    )


# ---------------------------------------------------------------------------------------------------------------------
# The registry and its loaders


@dataclass(frozen=True)
class DataSource:
    """Where a data set comes from, what it may be used for, and who is in it.

    Attributes:
        name: What ``load`` calls it.
        description: What it holds and how it is split.
        url: The archive, or the page about it; ``None`` if it is made on the spot.
        licence: Its licence, or ``"not stated"``.
        citation: Whom to cite.
        people: What is known about people in the pictures or recordings.
        download: What is fetched and how it is checked; ``None`` if it needs no network.
    """

    name: str
    description: str
    url: str | None
    licence: str
    citation: str
    people: str
    download: Download | None = None

    @property
    def bytes(self):
        """The size of all that is fetched, or ``None`` if that is not known or nothing is."""
        return None if self.download is None else self.download.bytes

    @property
    def sha256(self):
        """The hash (hex) of the archive, or ``None`` where there is not exactly one with a lasting hash."""
        archives = () if self.download is None else self.download.archives
        return archives[0].sha256 if len(archives) == 1 else None


def registry():
    """The data sets that ``load`` knows by name: a dict from name to ``DataSource``."""
    return {source.name: source for source in _SOURCES}


_SPOKEN_DIGITS_COMMIT = "26eb9aaf76e81b692f806f9140c2d2777410d7a1"

_DIGITS = DataSource(
    name="digits",
    description="1,797 handwritten digits of 13 writers, 8×8 pixels enlarged to 32×32; comes with scikit-learn. "
    "Test: the last 797 in file order, because writers are contiguous and a random split puts them on both sides.",
    url="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
    licence="CC BY 4.0",
    citation="E. Alpaydin and C. Kaynak (1998). Optical Recognition of Handwritten Digits. UCI Machine Learning "
    "Repository. https://doi.org/10.24432/C50P49",
    people="the handwriting of 13 people; who wrote which digit is not stated",
)

_SOURCES = (
    _DIGITS,
    DataSource(
        name="letters",
        description="5,000 printed letters, drawn on the spot with Matplotlib's fonts, 32×32; the source task of the "
        "pocket zoo. Validation: fonts that are not in training.",
        url=None,
        licence="Apache-2.0, as this package; the fonts come with Matplotlib under free licences of their own",
        citation="tlutils.letters, part of this book",
        people="none",
    ),
    replace(
        _DIGITS,
        name="tilted_digits",
        description="The images of digits, each turned by an angle between −45 and 45 degrees, 32×32. A regression: "
        "the label is the angle, counter-clockwise. Splits as for digits.",
    ),
    DataSource(
        name="patterns",
        description="1,800 patches of ten printed patterns, drawn on the spot with Matplotlib's hatches, 32×32. Test: "
        "800 of them, always the same.",
        url=None,
        licence="Apache-2.0, as this package",
        citation="tlutils.targets, part of this book",
        people="none",
    ),
    DataSource(
        name="flowers",
        description="3,670 photographs of flowers: daisy, dandelion, roses, sunflowers, tulips. No splits of its own.",
        url="http://download.tensorflow.org/example_images/flower_photos.tgz",
        licence="CC BY 2.0; LICENSE.txt in the archive names the author of each photograph",
        citation="The TensorFlow Team (2019). Flowers. http://download.tensorflow.org/example_images/flower_photos.tgz",
        people="LICENSE.txt names the photographers; whether people are in the pictures is not stated",
        download=Download(
            name="flowers",
            folder="flower_photos",
            archives=(
                Archive(
                    url="http://download.tensorflow.org/example_images/flower_photos.tgz",
                    folder="flower_photos",
                    saved_as="flower_photos.tgz",
                    bytes=228_813_984,
                    sha256="4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
                ),
            ),
            contents=Contents(pattern="*/*.jpg", files=3670),
            # where keras.utils.get_file unpacks it, depending on how it is called
            elsewhere=(
                "flower_photos_extracted/flower_photos",
                "flower_photos/flower_photos",
                "flower_photos.tgz/flower_photos",
            ),
        ),
    ),
    DataSource(
        name="beans",
        description="1,295 photographs of bean leaves, healthy or with one of two diseases (angular leaf spot, bean "
        "rust): 1,034 to train, 133 to validate, 128 to test. Taken in fields in Uganda with smartphones and labelled "
        "there by experts. Whether photographs of one plant are on two sides is not stated.",
        url="https://github.com/AI-Lab-Makerere/ibean",
        licence="MIT",
        citation="Makerere AI Lab (2020). Bean disease dataset. https://github.com/AI-Lab-Makerere/ibean",
        people="leaves in the field; whether people are in the pictures, such as the hand that holds a leaf, is not "
        "stated",
        download=Download(
            name="beans",
            folder="beans",
            archives=tuple(
                Archive(
                    url=f"https://storage.googleapis.com/ibeans/{side}.zip",
                    folder=side,
                    becomes=side,
                    saved_as=f"beans_{side}.zip",
                    bytes=size,
                    sha256=sha256,
                )
                for side, size, sha256 in (
                    ("train", 143_812_152, "284fe8456ce20687f4367ae7ad94a64577e7f9fde2c2c6b1c74340ab5dc82715"),
                    ("validation", 18_504_213, "90b7aa1c26d91d9afff07a30bbc67a5ea34f1f1397f068d8675be09d7d0c602d"),
                    ("test", 17_708_541, "ca67b15d960d1e2fd9d23fd8498ce86818ead90755c630a43baf19ec4af09312"),
                )
            ),
            contents=Contents(pattern="*/*/*.jpg", files=1295),
        ),
    ),
    DataSource(
        name="hymenoptera",
        description="397 photographs of ants and bees, 244 to train and 153 to validate. Both are ImageNet classes, so "
        "a network pretrained there has met them before. One more file, train/ants/imageNotFound.gif, shows no ant but "
        "the words “image not found”; it is left out.",
        url="https://download.pytorch.org/tutorial/hymenoptera_data.zip",
        licence="not stated",
        citation="S. Chilamkurthy. Transfer Learning for Computer Vision Tutorial. PyTorch. "
        "https://pytorch.org/tutorials/beginner/transfer_learning_tutorial.html",
        people="looked through for this book: insects in close-up, here and there the hand or the foot of somebody, no "
        "face; some pictures bear the name of the photographer",
        download=Download(
            name="hymenoptera",
            folder="hymenoptera_data",
            archives=(
                Archive(
                    url="https://download.pytorch.org/tutorial/hymenoptera_data.zip",
                    folder="hymenoptera_data",
                    saved_as="hymenoptera_data.zip",
                ),
            ),
            contents=Contents(
                pattern="**/*",
                files=398,
                bytes=47_385_924,
                sha256="b0e3506710bc375be5996e1c9b29818c80cdfc19bcc324e560091da6690149ec",
                listing="hymenoptera_files.txt",
            ),
            elsewhere=("hymenoptera_data_extracted/hymenoptera_data",),
        ),
    ),
    DataSource(
        name="spoken_digits",
        description="3,000 recordings of the English digits 0 to 9, 50 of each by six speakers, as spectrograms: 64 "
        "mel bands from 50 to 4,000 Hz upwards, the first second to the right in frames of 32 ms every 8 ms, 60 dB "
        "from white to black (tlutils.sounds). Test: the speakers theo and yweweler. Validation: whole speakers drawn "
        "from the four others, one of them by default.",
        url="https://github.com/Jakobovski/free-spoken-digit-dataset",
        licence="CC BY-SA 4.0",
        citation="Z. Jackson, C. Souza, J. Flaks, Y. Pan, H. Nicolas and A. Thite (2018). Free Spoken Digit Dataset. "
        f"https://doi.org/10.5281/zenodo.1342401; here as of commit {_SPOKEN_DIGITS_COMMIT}",
        people="the voices of six people, who can be recognised by them; they are named by a first name or a nickname, "
        "and the data set's metadata.py states for each a gender, all male, and an accent",
        download=Download(
            name="spoken_digits",
            folder="free-spoken-digit-dataset/recordings",
            archives=(
                Archive(
                    url=f"https://github.com/Jakobovski/free-spoken-digit-dataset/archive/{_SPOKEN_DIGITS_COMMIT}.zip",
                    folder=f"free-spoken-digit-dataset-{_SPOKEN_DIGITS_COMMIT}/recordings",
                    saved_as=f"free-spoken-digit-dataset-{_SPOKEN_DIGITS_COMMIT}.zip",
                ),
            ),
            # GitHub packs its archives anew now and then, so the recordings are pinned and not the archive
            contents=Contents(
                pattern="*.wav",
                files=3000,
                bytes=21_128_848,
                sha256="1801eae019c063377d98f831d3f93574f259475df7332bb0e3d1b080fb5e6959",
            ),
        ),
    ),
)


@dataclass(frozen=True)
class _Options:
    image_size: tuple[int, int] | None
    channels: int | None
    labels_per_class: int | None
    groups: object
    seed: int
    val_fraction: float


@cache
def _raw_digits():
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.rint(digits.images * (255 / 16)).astype(np.uint8), digits.target.astype(np.int64)


def _load_digits(options, log):
    return _fixed_test_task("digits", *_raw_digits(), tuple(str(digit) for digit in range(10)), options, log)


def _load_tilted_digits(options, log):
    from tlutils import targets

    raw, labels = _raw_digits()
    class_names = tuple(str(digit) for digit in range(10))
    angles = targets.tilts(len(raw))
    return _fixed_test_task("tilted_digits", _tilted_digits(), labels, class_names, options, log, angles)


@cache
def _tilted_digits():
    from tlutils import targets

    raw, _ = _raw_digits()
    return targets.tilt(raw, targets.tilts(len(raw)))


def _load_patterns(options, log):
    from tlutils import targets

    return _fixed_test_task("patterns", *targets.patterns(), tuple(targets.PATTERNS), options, log)


def _fixed_test_task(name, raw, labels, class_names, options, log, targets=None):
    """A task whose first 1,000 images are to learn from, and whose others are always the test."""
    _refuse_groups(name, options)
    pixels = _resized(raw, options.image_size or (32, 32))
    kept, held = hold_out(labels[:1000], _digests(raw[:1000]), None, options.val_fraction, options.seed, class_names)
    parts = {"train": kept, "val": held, "test": np.arange(1000, len(labels))}
    return _array_task(name, pixels, labels, parts, class_names, options, log, targets)


def _load_letters(options, log):
    _refuse_groups("letters", options)
    from tlutils import letters

    held_out = round(5000 * options.val_fraction)
    drawn = [
        letters.draw(5000 - held_out, options.seed, fonts="train"),
        letters.draw(held_out, options.seed, fonts="validation"),
    ]
    pixels = np.concatenate([images for images, _ in drawn])[..., 0]
    pixels = _resized(pixels, options.image_size or (32, 32))
    labels = np.concatenate([labels for _, labels in drawn]).astype(np.int64)
    parts = {"train": np.arange(5000 - held_out), "val": np.arange(5000 - held_out, 5000)}
    return _array_task("letters", pixels, labels, parts, tuple(letters.CLASS_NAMES), options, log)


def _array_task(name, pixels, labels, parts, class_names, options, log, targets=None, groups=None):
    """Cut gray ``pixels`` (N, height, width) into a task by the positions in ``parts``, few-shot if asked.

    With ``targets``, one number an image, the task is a regression; ``labels`` then only decides what is drawn.
    ``groups`` says whom each image comes from.
    """
    channels = options.channels or 1
    pixels = np.repeat(pixels[..., None], channels, axis=-1)
    if options.labels_per_class is not None:
        train, k = parts["train"], options.labels_per_class
        where = f"the training side of {name}"
        parts["train"] = train[draw_few(labels[train], _digests(pixels[train]), k, options.seed, class_names, where)]
        close_validation(parts, f"the images held out of {name}", log)
    image_size = pixels.shape[1:3]
    wanted = labels if targets is None else targets
    return ImageTask(
        name,
        **{
            side: Examples(
                wanted[rows],
                image_size=image_size,
                channels=channels,
                pixels=pixels[rows],
                groups=None if groups is None else groups[rows],
            )
            for side, rows in parts.items()
        },
        class_names=class_names if targets is None else None,
        kind="classification" if targets is None else "regression",
        image_size=image_size,
        channels=channels,
        notes=log.notes,
    )


def _load_flowers(options, log):
    return _load_folder(_fetched("flowers"), options, log, name="flowers")


def _load_beans(options, log):
    return _load_folder(_fetched("beans"), options, log, name="beans")


def _load_hymenoptera(options, log):
    download = registry()["hymenoptera"].download
    folder = download.locate()
    if folder is None:
        raise DataError(
            f"the data set 'hymenoptera' is not at {download.path}. Its licence is not stated, so it is not fetched "
            f"without asking you: look at {download.archives[0].url}, then run: tlutils datasets get hymenoptera"
        )
    return _load_folder(folder, options, log, name="hymenoptera", leave_out=("train/ants/imageNotFound.gif",))


def _fetched(name):
    """The folder of a data set, from the network if need be."""
    download = registry()[name].download
    return download.locate() or download.fetch()


def _load_spoken_digits(options, log):
    _refuse_groups("spoken_digits", options)
    pixels, labels, speakers = _spoken_digits(_fetched("spoken_digits"), registry()["spoken_digits"].download)
    class_names = tuple(str(digit) for digit in range(10))
    pixels = _resized(pixels, options.image_size or (32, 32))
    is_test = np.isin(speakers, _TEST_SPEAKERS)
    others = np.flatnonzero(~is_test)
    kept, held = hold_out(
        labels[others], _digests(pixels[others]), speakers[others], options.val_fraction, options.seed, class_names
    )
    parts = {"train": others[kept], "val": others[held], "test": np.flatnonzero(is_test)}
    names = {side: " and ".join(sorted(set(speakers[rows]))) for side, rows in parts.items()}
    log.note(f"split by speaker: {names['val']} held out of training, {names['test']} always the test side")
    return _array_task("spoken_digits", pixels, labels, parts, class_names, options, log, groups=speakers)


_TEST_SPEAKERS = ("theo", "yweweler")  # the last two of six by the alphabet


@cache
def _spoken_digits(folder, download):
    """Spectrograms (uint8, 3,000×64×125), digits and speakers of all recordings, in the order of their file names."""
    from tlutils import sounds

    download.fetch()  # compares all contents; they are read here anyway, once
    paths = sorted(folder.glob(download.contents.pattern))
    names = [path.stem.split("_") for path in paths]  # digit, speaker, number
    pixels = np.stack([sounds.spectrogram(sounds.read_wav(path)) for path in paths])
    return pixels, np.array([int(name[0]) for name in names]), np.array([name[1] for name in names])


_LOADERS = {
    "digits": _load_digits,
    "letters": _load_letters,
    "tilted_digits": _load_tilted_digits,
    "patterns": _load_patterns,
    "flowers": _load_flowers,
    "beans": _load_beans,
    "hymenoptera": _load_hymenoptera,
    "spoken_digits": _load_spoken_digits,
}


def _refuse_groups(name, options):
    if options.groups is not None:
        raise DataError(
            f"groups are not accepted for {name!r}: its splits are fixed; give groups with a folder of images"
        )


def _resized(images, image_size):
    """uint8 images (N, height, width), resized bilinearly one by one."""
    if images.shape[1:] == image_size:
        return images
    height, width = image_size
    resized = [Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR) for image in images]
    return np.stack([np.asarray(image) for image in resized])


def _load_folder(folder, options, log, name=None, leave_out=()):
    image_size, channels = options.image_size or (224, 224), options.channels or 3
    class_names, roots, rows = read_folder(folder, channels, options.groups, leave_out, log)
    kept = drop_copies(rows, log)
    rows = {side: [rows[side][i] for i in kept[side]] for side in rows}
    for side in rows:
        require_every_class([row.label for row in rows[side]], class_names, roots[side])
    refuse_split_groups(rows)

    if "val" in rows:
        held_out = f"{roots['val'].name}/"
    else:
        held_out = f"the images held out of {roots['train'].name}/"
        train = rows["train"]
        sides = hold_out(
            np.array([row.label for row in train]),
            [row.digest for row in train],
            None if options.groups is None else [row.group for row in train],
            options.val_fraction,
            options.seed,
            class_names,
        )
        rows["train"], rows["val"] = ([train[i] for i in side] for side in sides)
    if options.labels_per_class is not None:
        train = rows["train"]
        labels, digests = np.array([row.label for row in train]), [row.digest for row in train]
        k, where = options.labels_per_class, f"the training side of {folder}"
        drawn = draw_few(labels, digests, k, options.seed, class_names, where)
        rows["train"] = [train[i] for i in drawn]
        close_validation(rows, held_out, log)

    def examples(part):
        return Examples(
            np.array([row.label for row in part], np.int64),
            image_size=image_size,
            channels=channels,
            paths=[row.path for row in part],
            digests=[row.digest for row in part],
            groups=None if options.groups is None else _object_array([row.group for row in part]),
        )

    return ImageTask(
        name or unicodedata.normalize("NFC", folder.resolve().name),
        **{side: examples(part) for side, part in rows.items()},
        class_names=class_names,
        image_size=image_size,
        channels=channels,
        notes=log.notes,
    )


# ---------------------------------------------------------------------------------------------------------------------
# Arguments


def _checked_size(image_size):
    if image_size is None:
        return None
    sides = (image_size, image_size) if isinstance(image_size, int | np.integer) else image_size
    try:
        height, width = (int(side) for side in sides)
    except (TypeError, ValueError):
        raise DataError(f"image_size must be a number of pixels or (height, width), not {image_size!r}") from None
    if min(height, width) < 1:
        raise DataError(f"image_size must be at least 1 pixel, not {image_size!r}")
    return height, width


def _checked_channels(channels):
    if channels not in (None, 1, 3):
        raise DataError(f"channels must be 1 (gray) or 3 (RGB), not {channels!r}")
    return channels


def _checked_count(labels_per_class):
    if labels_per_class is None:
        return None
    if not isinstance(labels_per_class, int | np.integer) or isinstance(labels_per_class, bool) or labels_per_class < 1:
        raise DataError(f"labels_per_class must be a positive integer or None, not {labels_per_class!r}")
    return int(labels_per_class)


def _checked_fraction(val_fraction):
    if not 0 < val_fraction < 1:
        raise DataError(f"val_fraction must be between 0 and 1, not {val_fraction!r}")
    return float(val_fraction)


def _checked_pair(pair, side, kind):
    try:
        images, labels = pair
    except (TypeError, ValueError):
        raise DataError(f"{side} must be a pair (images, labels)") from None
    images, labels = _checked_pixels(np.asarray(images), side), np.asarray(labels)
    if len(images) != len(labels):
        raise DataError(f"{side} has {len(images)} images but {len(labels)} labels: one label an image is needed")
    if kind == "regression":
        if labels.dtype.kind not in "buif" or labels.ndim not in (1, 2) or not np.isfinite(labels).all():
            raise DataError(f"the labels of {side} must be finite numbers of shape (N,) or (N, outputs)")
        return images, labels.astype(np.float32)
    if labels.ndim != 1:
        raise DataError(
            f"the labels of {side} have shape {labels.shape}, not (N,): for one-hot rows take labels.argmax(axis=1)"
        )
    if labels.dtype.kind not in "bui":
        raise DataError(
            f"the labels of {side} are {labels.dtype}, not integers from 0: "
            "class_names, labels = np.unique(labels, return_inverse=True) makes them so"
        )
    if labels.min() < 0:
        raise DataError(f"the labels of {side} start at {labels.min()}: number the classes from 0")
    return images, labels.astype(np.int64)


def _checked_pixels(images, side):
    """uint8 images of shape (N, height, width, channels), from any array that holds raw pixels 0–255."""
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape:
        raise DataError(
            f"the images of {side} have shape {images.shape}, not (N, height, width) or (N, height, width, channels)"
        )
    if images.shape[-1] not in (1, 3):
        first = images.shape[1] in (1, 3)
        hint = "move the channels last: images.transpose(0, 2, 3, 1)" if first else "give gray (1) or RGB (3)"
        raise DataError(f"the images of {side} have shape {images.shape}, so {images.shape[-1]} channels: {hint}")
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind not in "buif":
        raise DataError(f"the images of {side} are {images.dtype}, not numbers: raw pixels 0–255 are wanted")
    low, high = images.min(), images.max()
    if images.dtype.kind in "bf" and high <= 1:
        raise DataError(
            f"the images of {side} are {images.dtype} between {low} and {high}: raw pixels 0–255 are wanted, because "
            "each backbone does its own preprocessing. Give the pixels as they were before scaling: [0, 1] times 255"
        )
    if not (low >= 0 and high <= 255):
        raise DataError(f"the images of {side} lie between {low} and {high}: raw pixels 0–255 are wanted")
    return np.rint(images).astype(np.uint8)


def _checked_classes(sides, class_names):
    highest = max(int(labels.max()) for _, labels in sides.values())
    names = tuple(map(str, range(highest + 1) if class_names is None else class_names))
    if highest >= len(names):
        raise DataError(
            f"a label is {highest}, but class_names has {len(names)} names, for labels 0 to {len(names) - 1}"
        )
    if len(set(names)) < len(names):
        twice = [name for name, count in Counter(names).items() if count > 1]
        raise DataError(f"class_names holds {listed(twice)} more than once: give each class a name of its own")
    if len(names) < 2:
        raise DataError("there is one class only: a classification needs at least two")
    return names


# ---------------------------------------------------------------------------------------------------------------------
# Small things


def _shape_text(image_size, channels):
    return f"{image_size[0]}×{image_size[1]}×{channels}"


def _object_array(values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _digests(images):
    return [hashlib.sha256(np.ascontiguousarray(image)).hexdigest() for image in images]


def _read_only(array):
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view
