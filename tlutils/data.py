"""Labelled images, from a name, a folder or arrays, split so that no copy of an image falls on two sides.

``load`` reads every file of a folder once, to hash its bytes (copies) and to check them (broken files). ``Examples``
decodes files only when their pixels are asked for, always with the same decoder. Files are never changed; whatever was
skipped, converted or dropped stands in ``ImageTask.notes``.
"""

import difflib
import hashlib
import io
import os
import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

__all__ = ["DataError", "DataSource", "DataWarning", "Examples", "ImageTask", "from_arrays", "load", "registry"]

_EXTENSIONS = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2"),
}
# Photographs that Pillow cannot open by itself. Passing over them in silence would lose half of a phone's camera roll.
_UNSUPPORTED = {".heic", ".heif", ".avif", ".svg", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raw"}
# Content decides, not the extension, and among these formats only: PostScript called .jpg must never reach Ghostscript.
_FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000")
_SIDES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_TINY = 16  # an image with a side shorter than this many pixels is reported
_DECODER = "1"  # part of each fingerprint of files: raise it when the decoder changes, so that cached features expire
_THREADS = os.cpu_count() or 1


class DataError(ValueError):
    """The data cannot be used; the message says which path or value is at fault and what to do."""


class DataWarning(UserWarning):
    """The data can be used, but not all of it or not as it was given; ``ImageTask.notes`` has the details."""


# ---------------------------------------------------------------------------------------------------------------------
# Examples and tasks


class Examples:
    """Labelled images of one split, kept as an array or as files that are decoded when they are asked for.

    Attributes:
        labels: One label an image. Classification: int64, shape (N,). Regression: float32, (N,) or (N, outputs).
        image_size: (height, width) in pixels.
        channels: 1 or 3.
        paths: One ``Path`` an image, or ``None`` for arrays.
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
        self._digests = digests

    def __len__(self):
        return len(self.labels)

    def __repr__(self):
        kind = "array" if self.paths is None else "files"
        return f"Examples({len(self)} images, {_shape_text(self.image_size, self.channels)}, {kind})"

    def images(self):
        """All images: uint8, shape (N, height, width, channels). Arrays come as they are, read-only, not copied."""
        if self._pixels is not None:
            return self._pixels
        pixels = np.empty((len(self), *self.image_size, self.channels), np.uint8)

        def fill(index):
            pixels[index] = self._read(index)

        with ThreadPoolExecutor(_THREADS) as pool:
            for _ in pool.map(fill, range(len(self))):
                pass
        return pixels

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
            batched = rows.map(read, num_parallel_calls=_THREADS).batch(batch_size)
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
            digests=None if self._digests is None else [self._digests[i] for i in indices],
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
            digest.update(repr((_DECODER, self.image_size, self.channels)).encode())
            digest.update("".join(self._digests).encode())
        return digest.hexdigest()

    def _read(self, index):
        """uint8 pixels at one position; of an array, also at several."""
        if self._pixels is not None:
            return self._pixels[index]
        return _decode_file(self.paths[index], self.image_size, self.channels)


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
        """One paragraph in words: what there is to learn, from how many images, of which size. Always the same."""
        if self.kind == "regression":
            outputs = 1 if self.train.labels.ndim == 1 else self.train.labels.shape[1]
            what = f"regression with {outputs} output{'s' if outputs > 1 else ''}"
        else:
            what = f"{self.num_classes} classes ({_listed(self.class_names, 12)})"
        text = f"{self.name}: {what}. Images of {_shape_text(self.image_size, self.channels)}: {self._sizes()}."
        if self.kind == "classification":
            counts = np.bincount(self.train.labels, minlength=self.num_classes)
            low, high = counts.min(), counts.max()
            text += f" Each class has {low if low == high else f'{low} to {high}'} training images."
        if self.notes:
            text += " Notes: " + " ".join(note.rstrip(".") + "." for note in self.notes)
        return text

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
        image_size: Side in pixels, or (height, width). Default: 32 for ``digits`` and ``letters``, 224 for photographs.
        channels: 1 (gray) or 3 (RGB). Default: 1 for ``digits`` and ``letters``, 3 for photographs.
        labels_per_class: Number of training images a class, or ``None`` for all.
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
    log = _Log()
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
    log = _Log()
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
            _Row(f"{side}[{i}]", label.tobytes(), digest)
            for i, (label, digest) in enumerate(zip(labels, _digests(images)))
        ]
        for side, (images, labels) in sides.items()
    }
    kept = _drop_copies(rows, log)
    *image_size, channels = shapes["train"]
    image_size = tuple(image_size)
    examples = {}
    for side, (images, labels) in sides.items():
        if len(kept[side]) < len(labels):
            images, labels = images[kept[side]], labels[kept[side]]
        examples[side] = Examples(labels, image_size=image_size, channels=channels, pixels=images)
    if kind == "classification":
        _require_every_class(examples["train"].labels, class_names, "train")
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
    """Where a data set comes from. ``bytes`` and ``sha256`` are those of the file at ``url``, ``None`` if not known."""

    name: str
    description: str
    url: str | None
    bytes: int | None
    sha256: str | None
    licence: str
    citation: str


def registry():
    """The data sets that ``load`` knows by name: a dict from name to ``DataSource``."""
    return {source.name: source for source in _SOURCES}


_SOURCES = (
    DataSource(
        name="digits",
        description="1,797 handwritten digits of 13 writers, 8×8 pixels enlarged to 32×32; comes with scikit-learn. "
        "Test: the last 797 in file order, because writers are contiguous and a random split puts them on both sides.",
        url="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        bytes=None,
        sha256=None,
        licence="CC BY 4.0",
        citation="E. Alpaydin and C. Kaynak (1998). Optical Recognition of Handwritten Digits. UCI Machine Learning "
        "Repository. https://doi.org/10.24432/C50P49",
    ),
    DataSource(
        name="letters",
        description="5,000 printed letters, drawn on the spot with Matplotlib's fonts, 32×32; the source task of the "
        "pocket zoo. Validation: fonts that are not in training.",
        url=None,
        bytes=None,
        sha256=None,
        licence="Apache-2.0, as this package; the fonts come with Matplotlib under free licences of their own",
        citation="tlutils.letters, part of this book",
    ),
    DataSource(
        name="flowers",
        description="3,670 photographs of flowers: daisy, dandelion, roses, sunflowers, tulips. No splits of its own.",
        url="http://download.tensorflow.org/example_images/flower_photos.tgz",
        bytes=228_813_984,
        sha256="4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
        licence="CC BY 2.0; LICENSE.txt in the archive names the author of each photograph",
        citation="The TensorFlow Team (2019). Flowers. http://download.tensorflow.org/example_images/flower_photos.tgz",
    ),
    DataSource(
        name="hymenoptera",
        description="397 photographs of ants and bees, 244 to train and 153 to validate. Both are ImageNet classes, so "
        "a network pretrained there has met them before. One more file, train/ants/imageNotFound.gif, shows no ant but "
        "the words “image not found”; it is left out.",
        url="https://download.pytorch.org/tutorial/hymenoptera_data.zip",
        bytes=None,
        sha256=None,
        licence="not stated",
        citation="S. Chilamkurthy. Transfer Learning for Computer Vision Tutorial. PyTorch. "
        "https://pytorch.org/tutorials/beginner/transfer_learning_tutorial.html",
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
    _refuse_groups("digits", options)
    raw, labels = _raw_digits()
    pixels = _resized(raw, options.image_size or (32, 32))
    digests = _digests(raw[:1000])
    class_names = tuple(str(digit) for digit in range(10))
    kept, held = _hold_out(labels[:1000], digests, None, options.val_fraction, options.seed, class_names)
    parts = {"train": kept, "val": held, "test": np.arange(1000, len(labels))}
    return _array_task("digits", pixels, labels, parts, class_names, options, log)


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


def _array_task(name, pixels, labels, parts, class_names, options, log):
    """Cut gray ``pixels`` (N, height, width) into a task by the positions in ``parts``, few-shot if asked."""
    channels = options.channels or 1
    pixels = np.repeat(pixels[..., None], channels, axis=-1)
    if options.labels_per_class is not None:
        train = parts["train"]
        where = f"the training side of {name}"
        parts["train"] = train[_few(labels[train], _digests(pixels[train]), options, class_names, where)]
        _close_validation(parts, f"the images held out of {name}", log)
    image_size = pixels.shape[1:3]
    return ImageTask(
        name,
        **{
            side: Examples(labels[rows], image_size=image_size, channels=channels, pixels=pixels[rows])
            for side, rows in parts.items()
        },
        class_names=class_names,
        image_size=image_size,
        channels=channels,
        notes=log.notes,
    )


def _load_flowers(options, log):
    source = registry()["flowers"]
    home = _keras_home() / "datasets"
    for folder in (home / "flower_photos_extracted" / "flower_photos", home / "flower_photos"):
        # get_file would unpack its archive again at every call; a folder with every photograph needs no archive
        if sum(1 for _ in folder.glob("*/*.jpg")) == 3670:
            return _load_folder(folder, options, log, name="flowers")
    from tlutils import runtime

    runtime.require_tensorflow()
    import keras

    try:
        unpacked = keras.utils.get_file(
            "flower_photos.tgz",
            source.url,
            file_hash=source.sha256,
            hash_algorithm="sha256",
            extract=True,
            cache_subdir="datasets",
        )
    except Exception as error:  # get_file raises bare Exception when the network fails
        raise DataError(
            f"could not fetch the data set 'flowers' ({source.bytes / 1e6:.0f} MB): {error}. Check the network; or "
            f"download {source.url} elsewhere, save it as {home / 'flower_photos.tgz'}, and load again."
        ) from error
    return _load_folder(Path(unpacked) / "flower_photos", options, log, name="flowers")


def _load_hymenoptera(options, log):
    source = registry()["hymenoptera"]
    home = _keras_home() / "datasets"
    folder = home / "hymenoptera_data"
    if not folder.is_dir():
        raise DataError(
            f"the data set 'hymenoptera' is not at {folder}. Its licence is not stated, so it is not fetched for you: "
            f"download {source.url} and unpack it in {home}, so that {folder / 'train'} exists."
        )
    return _load_folder(folder, options, log, name="hymenoptera", leave_out=("train/ants/imageNotFound.gif",))


_LOADERS = {
    "digits": _load_digits,
    "letters": _load_letters,
    "flowers": _load_flowers,
    "hymenoptera": _load_hymenoptera,
}


def _keras_home():
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()


def _refuse_groups(name, options):
    if options.groups is not None:
        raise DataError(
            f"groups are not accepted for {name!r}: its splits are fixed; give groups with a folder of images"
        )


def _resized(images, image_size):
    """uint8 images (N, height, width), resized bilinearly one by one."""
    if images.shape[1:] == tuple(image_size):
        return images
    height, width = image_size
    resized = [Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR) for image in images]
    return np.stack([np.asarray(image) for image in resized])


# ---------------------------------------------------------------------------------------------------------------------
# Folders


@dataclass
class _Row:
    """One image while its task is put together: how it is called in reports, its label and what it contains."""

    name: str
    label: object
    digest: str
    path: Path | None = None
    group: object = None


class _Log:
    """Collects what a reader must know about the data: notes, and warnings to give once loading has succeeded."""

    def __init__(self):
        self._notes, self._warnings = [], []

    @property
    def notes(self):
        return tuple(self._notes)

    def note(self, text):
        self._notes.append(text)

    def warning(self, text):
        self._warnings.append(text)

    def both(self, text):
        self.note(text)
        self.warning(text)

    def give_warnings(self):
        for text in self._warnings:
            warnings.warn(f"{text} (see the task's notes)", DataWarning, stacklevel=3)


def _load_folder(folder, options, log, name=None, leave_out=()):
    if not folder.exists():
        start = "" if folder.is_absolute() else f", which is looked for in {Path.cwd()}"
        raise DataError(f"there is no folder {folder}: check the path{start}")
    if not folder.is_dir():
        raise DataError(f"{folder} is a file, not a folder: if it is an archive, unpack it and give the folder")
    roots = _roots(folder, log)
    image_size, channels = options.image_size or (224, 224), options.channels or 3

    found = {side: _class_files(root) for side, root in roots.items()}
    class_names = _common_classes(folder, roots, found)
    rows = {}
    for side, classes in found.items():
        rows[side] = _usable(folder, roots[side], classes, class_names, channels, leave_out, log)
    _assign_groups(folder, rows, options.groups)
    kept = _drop_copies(rows, log)
    rows = {side: [rows[side][i] for i in kept[side]] for side in rows}
    for side in rows:
        _require_every_class([row.label for row in rows[side]], class_names, roots[side])
    _refuse_split_groups(rows)

    held_out = f"the images held out of {roots['train'].name}/" if "val" not in rows else f"{roots['val'].name}/"
    if "val" not in rows:
        train = rows["train"]
        sides = _hold_out(
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
        drawn = _few(labels, digests, options, class_names, f"the training side of {folder}")
        rows["train"] = [train[i] for i in drawn]
        _close_validation(rows, held_out, log)

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


def _roots(folder, log):
    """The folder of each split, {"train": path, …}; only "train" where the classes lie directly in ``folder``."""
    children = _sub_folders(folder)
    if not children:
        if any(_is_image_name(entry) for entry in _entries(folder)):
            raise DataError(
                f"{folder} holds images but no sub-folders: put the images of each class in a sub-folder named after it"
            )
        raise DataError(f"{folder} is empty: it needs one sub-folder of images a class, or train/ and val/ with them")
    sides = defaultdict(list)
    for child in children:
        sides[_SIDES.get(child.name.lower())].append(child)
    others = sides.pop(None, [])
    if "train" not in sides:
        if sides:
            names = ", ".join(f"{path.name}/" for paths in sides.values() for path in paths)
            raise DataError(
                f"{folder} holds {names} but no train/: put the folders of the training classes in train/, or rename "
                f"{names} if it is a class"
            )
        return {"train": folder}
    # "train" may also be a class, beside "bus" and "car": a split holds folders, a class holds images
    if not _sub_folders(sides["train"][0]):
        if others:
            return {"train": folder}
        raise DataError(f"{sides['train'][0]} holds no sub-folders: put the images of each class in one of their own")
    for side, paths in sides.items():
        if len(paths) > 1:
            names = " and ".join(f"{path.name}/" for path in paths)
            raise DataError(f"{folder} holds {names}, which both mean the {side} split: keep one of them")
    roots = {side: sides[side][0] for side in ("train", "val", "test") if side in sides}
    for side in ("val", "test"):
        if side in roots and not _sub_folders(roots[side]):
            path = roots.pop(side)
            log.both(f"ignored {path.name}/ of {folder}: it has no sub-folder a class, so its images have no labels")
    if others:
        names = ", ".join(f"{path.name}/" for path in others)
        log.both(f"ignored {names} in {folder}: beside train/, only val/ and test/ are read")
    return roots


def _entries(folder):
    try:
        return sorted((entry for entry in folder.iterdir() if not entry.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise DataError(
            f"cannot read the folder {folder} ({error.strerror or error}): check its permissions"
        ) from error


def _sub_folders(folder):
    return [entry for entry in _entries(folder) if entry.is_dir() and entry.name != "__MACOSX"]


def _is_image_name(path):
    return path.suffix.lower() in _EXTENSIONS | _UNSUPPORTED


def _class_files(root):
    """{class name: its image files, sorted}, for every sub-folder of ``root``; hidden and other files are left out."""
    classes = {}
    for folder in _sub_folders(root):
        name = unicodedata.normalize("NFC", folder.name)  # macOS writes é as two characters, Linux as one
        files = []

        def fail(error):
            raise DataError(f"cannot read the folder {error.filename} ({error.strerror}): check its permissions")

        for parent, folders, names in os.walk(folder, onerror=fail):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            files += [Path(parent, n) for n in sorted(names) if not n.startswith(".") and _is_image_name(Path(n))]
        classes[name] = classes.get(name, []) + files
    return classes


def _common_classes(folder, roots, found):
    class_names = tuple(sorted(found["train"]))
    if len(class_names) < 2:
        inner = _sub_folders(_sub_folders(roots["train"])[0])
        hint = (
            f" Its folder {class_names[0]}/ has sub-folders: did you mean {folder / class_names[0]}?" if inner else ""
        )
        raise DataError(
            f"{roots['train']} has one class only ({class_names[0]}): to learn to tell classes apart, it needs a "
            f"second sub-folder of images.{hint}"
        )
    for side, classes in found.items():
        missing, extra = sorted(set(class_names) - set(classes)), sorted(set(classes) - set(class_names))
        if missing or extra:
            differences = [f"only in train/: {_listed(missing)}"] * bool(missing)
            differences += [f"only in {roots[side].name}/: {_listed(extra)}"] * bool(extra)
            raise DataError(
                f"the classes of {roots['train']} and {roots[side]} differ ({'; '.join(differences)}): "
                "give both the same sub-folders, with the same spelling"
            )
    for side, classes in found.items():
        for class_name in class_names:
            if not classes[class_name]:
                raise DataError(
                    f"the class {class_name!r} has no image in {roots[side] / class_name}: add images "
                    f"({', '.join(sorted(_EXTENSIONS)[:4])} …) or remove the folder"
                )
    return class_names


def _usable(folder, root, classes, class_names, channels, leave_out, log):
    """Rows for the readable images below ``root``; what is skipped or will be converted goes to ``log``."""
    files = [(label, path) for label, name in enumerate(class_names) for path in classes[name]]
    with ThreadPoolExecutor(_THREADS) as pool:
        checks = list(pool.map(_check_file, (path for _, path in files)))
    rows, skipped, traits = [], [], defaultdict(list)
    for (label, path), check in zip(files, checks):
        name = path.relative_to(folder).as_posix()
        if name in leave_out:
            log.note(f"left out {name}: known to show nothing of its class")
        elif check.problem:
            skipped.append(f"{name}: {check.problem}")
            log.note(f"skipped {skipped[-1]}")
        else:
            rows.append(_Row(name, label, check.digest, path))
            for trait in check.traits:
                traits[trait].append(name)
    if skipped:
        log.warning(f"skipped {len(skipped)} of {len(files)} image files in {root}: {_listed(skipped, 5, '; ')}")
    present = {row.label for row in rows}
    for label, class_name in enumerate(class_names):
        if label not in present:
            first = next(check.problem for (of, _), check in zip(files, checks) if of == label and check.problem)
            raise DataError(
                f"no file of the class {class_name!r} can be used; the first, {classes[class_name][0]}: {first}"
            )
    for trait, names in sorted(traits.items()):
        text = _TRAITS[trait].format(n=len(names), images="image" if len(names) == 1 else "images")
        if trait == "gray" and channels == 1:
            continue
        (log.both if trait == "tiny" else log.note)(f"{text}: {_listed(names, 10)}")
    return rows


_TRAITS = {
    "16-bit": "{n} 16-bit {images} scaled to 8 bits",
    "CMYK": "{n} CMYK {images} converted",
    "alpha": "{n} {images} with transparency laid on white",
    "animated": "{n} animated {images}, first frame taken",
    "gray": "{n} gray {images} repeated to three channels",
    "palette": "{n} palette {images} converted",
    "tiny": f"{{n}} {{images}} with a side under {_TINY} pixels, which hold little to learn from",
}


def _assign_groups(folder, rows, groups):
    if groups is None:
        return
    if not callable(groups) and not isinstance(groups, Mapping):
        raise DataError(
            f"groups must be a function or a dict, not {type(groups).__name__}; see load for what they take"
        )
    for part in rows.values():
        for row in part:
            row.group = groups(row.path) if callable(groups) else groups.get(row.name)
            if row.group is None:
                where = "the function gave None" if callable(groups) else f"the dict has no {row.name!r}"
                raise DataError(
                    f"groups gives no group for {row.path}: {where}. Every image needs one; keys of a dict are paths "
                    f"relative to {folder}, with /"
                )


def _refuse_split_groups(rows):
    for one, other in combinations(rows, 2):
        shared = {row.group for row in rows[one]} & {row.group for row in rows[other]} - {None}
        if shared:
            raise DataError(
                f"{len(shared)} of the groups are in {one}/ and in {other}/ ({_listed(sorted(map(str, shared)), 5)}): "
                "move all images of a group to one side, or give one folder a class, without train/ and val/, to split"
            )


# ---------------------------------------------------------------------------------------------------------------------
# Splits


def _drop_copies(rows, log):
    """Positions to keep in each split, so that no content is on two sides: the test side wins, then validation.

    Copies inside one split stay; copies with different labels are reported.
    """
    kept, seen = {}, {}
    for side in ("test", "val", "train"):
        if side not in rows:
            continue
        dropped = [(row.name, seen[row.digest]) for row in rows[side] if row.digest in seen]
        kept[side] = [i for i, row in enumerate(rows[side]) if row.digest not in seen]
        if dropped:
            pairs = _listed([f"{name} = {copy}" for name, copy in dropped], 5)
            log.both(f"dropped {len(dropped)} from {side}: exact copies of images on another side ({pairs})")
        copies = defaultdict(list)
        for i in kept[side]:
            copies[rows[side][i].digest].append(rows[side][i])
        several = [same for same in copies.values() if len(same) > 1]
        for same in several:
            if len({row.label for row in same}) > 1:
                names = _listed([row.name for row in same], 5)
                log.both(f"one image has two labels in {side}: {names}; keep the copy that is right")
        if several:
            names = _listed([" = ".join(row.name for row in same) for same in several], 5)
            log.note(f"{len(several)} images have exact copies inside {side}, which stay on one side: {names}")
        seen |= {digest: same[0].name for digest, same in copies.items()}
    return kept


def _hold_out(labels, digests, groups, fraction, seed, class_names):
    """Split positions into (kept, held out): stratified, copies and groups together, every class on both sides."""
    units = _units(digests, groups)
    # one image may lie in two classes by mistake; it counts for the first
    owners = labels[np.unique(units, return_index=True)[1]]
    for label, name in enumerate(class_names):
        if (np.sum(owners == label) if groups is None else len(set(units[labels == label]))) < 2:
            what = "distinct image" if groups is None else "group"
            raise DataError(
                f"the class {name!r} has one {what} only, which cannot be on both sides of a split: add more, or make "
                "train/ and val/ folders yourself"
            )
    split = _stratified if groups is None else _stratified_groups
    held = np.isin(units, split(labels, units, fraction, seed))
    return np.flatnonzero(~held), np.flatnonzero(held)


def _units(digests, groups):
    """A number for each image, equal for images that must stay together: copies, one group, and chains of these."""
    content = _numbered(digests)
    if groups is None:
        return content
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    group = _numbered(groups)
    content += group.max() + 1
    size = content.max() + 1
    _, component = connected_components(coo_array((np.ones(len(group)), (group, content)), shape=(size, size)))
    return component[group]


def _numbered(values):
    """Numbers from 0 in order of first appearance, equal for equal values."""
    numbers = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values])


def _stratified(labels, units, fraction, seed):
    """Units (distinct images) to hold out: each class in its proportion, but at least one image on either side."""
    from sklearn.model_selection import StratifiedShuffleSplit

    _, first = np.unique(units, return_index=True)
    labels = labels[first]
    classes = len(set(labels))
    size = min(max(round(fraction * len(labels)), classes), len(labels) - classes)
    splitter = StratifiedShuffleSplit(1, test_size=size, random_state=seed)
    kept, held = (list(part) for part in next(splitter.split(labels, labels)))
    for one, other in ((kept, held), (held, kept)):
        for label in set(labels[other]) - set(labels[one]):  # the share of a rare class may round to none
            moved = next(i for i in other if labels[i] == label)
            other.remove(moved)
            one.append(moved)
    return held


def _stratified_groups(labels, units, fraction, seed):
    """Units (groups) to hold out: about the fraction of images, classes balanced as far as whole groups allow."""
    from sklearn.model_selection import StratifiedGroupKFold

    most = max(2, min(10, *(len(set(units[labels == label])) for label in set(labels))))
    share = Fraction(fraction).limit_denominator(most)
    folds = share.denominator if 0 < share < 1 else most
    taken = min(max(round(fraction * folds), 1), folds - 1)
    for attempt in range(20):
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=(seed + 7919 * attempt) % 2**32)
        sides = [np.unique(units[held]) for _, held in splitter.split(labels, labels, units)]
        for start in range(folds):
            held = np.concatenate([sides[(start + i) % folds] for i in range(taken)])
            is_held = np.isin(units, held)
            if set(labels[is_held]) == set(labels[~is_held]):
                return held
    raise DataError(
        "the groups cannot be split so that every class is on both sides: add groups, or make train/ and val/ yourself"
    )


def _few(labels, digests, options, class_names, where):
    """Positions of k distinct images of each class, drawn by seed, class after class."""
    k, drawn = options.labels_per_class, []
    rng = np.random.default_rng(options.seed)
    _, first = np.unique(_numbered(digests), return_index=True)  # a second copy of an image would be no second label
    for label, name in enumerate(class_names):
        candidates = first[labels[first] == label]
        if len(candidates) < k:
            raise DataError(
                f"labels_per_class={k}, but the class {name!r} has only {len(candidates)} different images on {where}: "
                f"ask for at most {len(candidates)}, or add images"
            )
        drawn.append(rng.permutation(candidates)[:k])
    return np.concatenate(drawn)


def _close_validation(parts, what, log):
    """Few-shot: the validation side goes, in place of a missing test side if there is none."""
    held = parts.pop("val", None)
    if held is not None and "test" not in parts:
        parts["test"] = held
        log.note(f"there is no test split: {what} ({len(held)} images) are the test side, never trained or tuned on")
    elif held is not None:
        log.note(f"few-shot: {what} ({len(held)} images) are left unused")


# ---------------------------------------------------------------------------------------------------------------------
# Files: checking and decoding


@dataclass(frozen=True)
class _Check:
    digest: str | None = None
    problem: str | None = None  # why the file cannot be used
    traits: tuple[str, ...] = ()  # what will be converted, keys of _TRAITS


def _check_file(path):
    """Hash a file and find out whether it can be decoded, without decoding it where its format allows that."""
    if path.suffix.lower() in _UNSUPPORTED:
        return _Check(problem=f"{path.suffix} files cannot be read here; save it as JPEG or PNG")
    try:
        data = path.read_bytes()
    except OSError as error:
        return _Check(problem=f"cannot be read ({error.strerror or error}); check its permissions")
    if not data:
        return _Check(problem="the file is empty; fetch it again or remove it")
    try:
        with _open(io.BytesIO(data)) as image:
            traits = tuple(_traits(image))
            if image.format in ("JPEG", "MPO"):
                sound = _has_jpeg_end(data)
            elif image.format == "PNG":
                with _open(io.BytesIO(data)) as again:
                    again.verify()  # checks every checksum; the image cannot be used afterwards
                sound = True
            else:
                sound = False  # nothing cheaper than decoding is conclusive
        if not sound:
            _decode(io.BytesIO(data), (_TINY, _TINY), 3)
    except Image.UnidentifiedImageError:
        return _Check(problem="not an image, whatever its name says; remove it, or save it again as JPEG or PNG")
    except DataError as error:
        return _Check(problem=str(error))
    except Exception as error:  # Pillow's plugins raise many kinds, SyntaxError and struct.error among them
        return _Check(problem=f"cannot be decoded ({error}); fetch it again or remove it")
    return _Check(hashlib.sha256(data).hexdigest(), traits=traits)


def _traits(image):
    mode = image.mode
    if getattr(image, "is_animated", False) and image.format != "MPO":
        yield "animated"
    if image.has_transparency_data:
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


def _decode_file(path, image_size, channels):
    try:
        return _decode(path, image_size, channels)
    except Exception as error:
        raise DataError(f"cannot decode {path} ({error}): repair or remove it, then load the data again") from error


def _decode(file, image_size, channels):
    """uint8 pixels of shape (height, width, channels), from a path or a binary file. See ``load`` for the steps."""
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
        raise DataError(f"class_names holds {_listed(twice)} more than once: give each class a name of its own")
    if len(names) < 2:
        raise DataError("there is one class only: a classification needs at least two")
    return names


def _require_every_class(labels, class_names, where):
    present = set(labels)
    missing = [name for label, name in enumerate(class_names) if label not in present]
    if missing:
        raise DataError(
            f"no image is left in {where} for the class {_listed(missing)}: add images that are on one side only"
        )


# ---------------------------------------------------------------------------------------------------------------------
# Small things


def _listed(names, most=10, separator=", "):
    names = [str(name) for name in names]
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return separator.join(names[:most]) + more


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
