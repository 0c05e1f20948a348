"""What a backbone makes of images, computed once."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
import warnings
import weakref
from pathlib import Path

import numpy as np

from tlutils import cost, engines
from tlutils.runtime import require_tensorflow, shows_progress

POOLINGS = ("avg", "max", None)
PART_SECONDS = 10  # how much work an interruption may cost
PROGRESS_SECONDS = 10  # from one line of progress to the next

# Keras traces a model before it first runs, which takes longer than the pass itself on a small one.
_pooled_models = weakref.WeakKeyDictionary()


def extract(
    backbone,
    examples,
    cache_dir=None,
    *,
    pooling="avg",
    batch_size=64,
    engine="auto",
    augment=None,
    progress=None,
):
    """Run every image through a backbone once.

    Files are decoded by several threads while the network computes. Beside the features, only the next few batches of
    images are in memory, however many images there are.

    Args:
        backbone: A :class:`~tlutils.backbones.Backbone`, or any keras.Model that takes raw pixels 0–255.
        examples: :class:`~tlutils.data.Examples`, at least one.
        cache_dir: Folder in which the result is kept, under a name made of the images' contents, the network's
            architecture and its weights; a second call with all three unchanged reads it back. While it computes, what
            there is so far is stored every few seconds, so that a call that was interrupted, even by a kill, is
            continued by the next one. ``None`` keeps nothing.
        pooling: ``"avg"`` or ``"max"`` over the positions of the feature map; ``None`` keeps the map.
        batch_size: Images a step; it bounds the memory and does not change the result.
        engine: ``"keras"``, ``"onnx"`` or ``"auto"``. ONNX Runtime (``pip install 'tlutils[fast]'``) computes at
            float32 and gives the same features within a thousandth of the largest. It is faster on a CPU, but has to
            convert the network first, and keeps the converted one in ``cache_dir`` too. ``"auto"`` takes it where it is
            installed, there is no GPU, and the images are many enough to make up for the conversion: 3,000 photographs
            of 224×224, or as many pixels. Where it cannot be used, or fails on the way, Keras runs the network.
        augment: Called on each batch of images, see :meth:`~tlutils.data.Examples.batches`; features of images that
            were changed at random are not kept.
        progress: Say every ten seconds how many images are done; ``None`` does so in a terminal or an interactive
            notebook.

    Returns:
        ndarray: float32, shape (N, features), or (N, h, w, features) with ``pooling=None``.

    Raises:
        ValueError: ``pooling`` or ``engine`` is none of the three, or there is no image.

    Warns:
        tlutils.engines.EngineWarning: The network was to run on ONNX Runtime and could not; the message says why.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"pooling must be 'avg', 'max' or None, not {pooling!r}")
    if not len(examples):
        raise ValueError("there is no image to extract features of: examples is empty")
    require_tensorflow()
    model = _pooled(getattr(backbone, "model", backbone), pooling)
    cache_dir = cache_dir if augment is None else None
    chosen, obstacle = engines.choose(engine, model, len(examples) * int(np.prod(examples.image_size)))
    network = _digest(model) if cache_dir or chosen == "onnx" else None

    def run(engine):
        store = _Store(cache_dir, examples, network, engine)
        if (kept := store.whole()) is not None:
            return kept
        if engine == "keras":
            forward = engines.with_keras(model)
        else:
            forward = engines.with_onnx(model, network, _few(examples), cache_dir)
        features, done = store.begun()
        rest = examples if not done else examples.subset(np.arange(done, len(examples)))
        shows, shown = shows_progress(progress), time.monotonic()
        for images, _ in rest.batches(batch_size, augment=augment) if len(rest) else ():
            found = forward(images)
            if cost.Counter.running:
                cost.Counter.running.add(model, images)
            if features is None:
                features = np.empty((len(examples), *found.shape[1:]), "float32")
            features[done : done + len(found)] = found
            done += len(found)
            store.keep(features[:done])
            if shows and time.monotonic() - shown >= PROGRESS_SECONDS:
                print(f"{done:>{len(f'{len(examples):,}')},} of {len(examples):,} images", flush=True)
                shown = time.monotonic()
        store.finish(features)
        return features

    if chosen == "onnx":
        try:
            return run("onnx")
        except engines.EngineError as error:
            obstacle = error
    if obstacle:
        warnings.warn(f"{obstacle}; Keras runs the network instead", engines.EngineWarning, stacklevel=2)
    return run("keras")


def _few(examples):
    return examples.subset(np.arange(min(4, len(examples)))).images().astype("float32")


class _Store:
    """Features on disk: ``<key>.npy`` in the end, and until then their parts in the folder ``<key>.parts``.

    A part is called by the number of its first row, so that parts follow each other whatever their lengths. Each file
    is written under another name first: it is whole or not there.
    """

    def __init__(self, cache_dir, examples, network, engine):
        self.file = None
        self.rows = len(examples)
        self.stored, self.when = 0, time.monotonic()
        if cache_dir is not None:
            key = "".join([examples.fingerprint, network, *([engine] if engine != "keras" else [])])
            self.file = Path(cache_dir) / f"{hashlib.sha256(key.encode()).hexdigest()}.npy"
            self.folder = self.file.with_suffix(".parts")

    def whole(self):
        """All features, or ``None``."""
        return None if self.file is None else _read(self.file)

    def begun(self):
        """``(features, rows)``: an array with so many rows filled, or ``(None, 0)``."""
        features = None
        while self.file is not None and self.stored < self.rows:
            part = _read(self._part())
            if part is None:
                break
            if features is None:
                features = np.empty((self.rows, *part.shape[1:]), "float32")
            features[self.stored : self.stored + len(part)] = part
            self.stored += len(part)
        return features, self.stored

    def keep(self, features):
        """Store the rows so far, from time to time."""
        if self.file is not None and len(features) < self.rows and time.monotonic() - self.when >= PART_SECONDS:
            with contextlib.suppress(FileNotFoundError):  # another process has just finished, and tidied up
                _write(self._part(), features[self.stored :])
                self.stored, self.when = len(features), time.monotonic()

    def finish(self, features):
        if self.file is not None:
            _write(self.file, features)
            shutil.rmtree(self.folder, ignore_errors=True)

    def _part(self):
        return self.folder / f"{self.stored:09d}.npy"


def _read(file):
    """An array, or ``None`` where there is no such file or it was damaged."""
    try:
        with file.open("rb") as opened:
            array = np.lib.format.read_array(opened)
            return array if opened.read() == _checksum(array) else None
    except Exception:  # what damage makes NumPy raise has many kinds
        return None


def _write(file, array):
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}.part")
    with temporary.open("wb") as opened:
        np.save(opened, array)
        opened.write(_checksum(array))  # what reads .npy files stops before it
    os.replace(temporary, file)


def _checksum(array):
    return hashlib.sha256(repr((array.shape, array.dtype.str)).encode() + hashlib.sha256(array).digest()).digest()


def _pooled(model, pooling):
    import keras

    if pooling is None or len(model.output_shape) != 4:
        return model
    known = _pooled_models.setdefault(model, {})
    if pooling not in known:
        pool = keras.layers.GlobalAveragePooling2D if pooling == "avg" else keras.layers.GlobalMaxPooling2D
        known[pooling] = keras.Model(model.input, pool(dtype="float32")(model.output))
    return known[pooling]


def _digest(model):
    """Hex SHA-256 of a network's architecture and weights."""
    digest = hashlib.sha256(_architecture(model).encode())
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight))
    return digest.hexdigest()


def _architecture(model):
    """The model's configuration as text, with layers numbered instead of named, because Keras counts their names up."""
    text = re.sub(r'"trainable": (true|false), ', "", json.dumps(json.loads(model.to_json())["config"]))
    numbers = {name: f"#{i}" for i, name in enumerate(dict.fromkeys(re.findall(r'"name": "([^"]+)"', text)))}
    return re.sub(r'"([^"]+)"', lambda match: numbers.get(match[1], match[1]), text)
