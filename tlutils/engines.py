"""What runs a frozen network over batches of images: Keras, or ONNX Runtime where it is installed.

Both give the same features within ``TOLERANCE``. ONNX Runtime is faster on a CPU, but a network has to be converted
first, and that takes a while; ``benchmarks/`` measures both. Of the families in :mod:`tlutils.backbones` all can be
converted but ConvNeXt (tf2onnx 1.17), which is left to Keras.
"""

import contextlib
import logging
import os
import tempfile
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tlutils import runtime
from tlutils.images import THREADS

ENGINES = ("auto", "keras", "onnx")
PACKAGES = ("onnxruntime", "onnx", "tf2onnx")
TOLERANCE = 1e-3  # largest difference to Keras, as a share of the largest feature
# From so many pixels on, "auto" converts a network that it can convert: 3,000 photographs of 224×224.
WORTHWHILE = 3_000 * 224 * 224

# Images that one thread runs at a time. Threads that share images, not the work on one of them, never wait for each
# other; and what few images need stays in a core's cache.
SHARE = 4

# Tracing and converting take longer than running a few images, so both are done once for each model.
_traced = weakref.WeakKeyDictionary()
_sessions = weakref.WeakKeyDictionary()


class EngineWarning(UserWarning):
    """Keras runs the network although ONNX Runtime was asked for; the message says why."""


class EngineError(RuntimeError):
    """A network cannot be run by ONNX Runtime; the message says why."""


def choose(engine, model, pixels):
    """What is to run a network.

    The choice depends on the machine and on the arguments alone, so that a run that is repeated takes the same.

    Args:
        engine: ``"onnx"`` takes ONNX Runtime where it is installed and can be used. ``"auto"`` does so too, but only
            where that pays: on a machine without a GPU, from ``WORTHWHILE`` pixels on.
        model: keras.Model.
        pixels: Number of pixels of all images together.

    Returns:
        ``(engine, obstacle)``: ``"keras"`` or ``"onnx"``; and why it is not ``"onnx"`` although that was asked for, as
        the beginning of a sentence, or ``None``.

    Raises:
        ValueError: ``engine`` is none of ``ENGINES``.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be 'auto', 'keras' or 'onnx', not {engine!r}")
    if engine == "keras" or (engine == "auto" and (pixels < WORTHWHILE or _has_gpu())):
        return "keras", None
    obstacle = _obstacle(model)
    return ("keras" if obstacle else "onnx"), (obstacle if engine == "onnx" else None)


def with_keras(model):
    """A function from a batch of images (tf.Tensor, float32, raw pixels 0–255) to the model's output (ndarray)."""
    tf = runtime.require_tensorflow()
    if model not in _traced:
        network = weakref.ref(model)  # what is kept must not keep its own key alive
        signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)]  # one trace, whatever the batch size
        _traced[model] = tf.function(lambda images: network()(images, training=False), input_signature=signature)
    run = _traced[model]
    return lambda images: run(images).numpy()


def with_onnx(model, digest, sample, folder=None):
    """The same function, computed by ONNX Runtime at float32.

    Whether it was converted just now or is read back, it runs a few images with Keras as well, and must give the same.

    Args:
        model: keras.Model.
        digest: Name of its architecture and weights; a network that goes by it is converted once.
        sample: Images to compare on: float32, shape (N, height, width, channels).
        folder: Where to keep the converted network, as ``<digest>.onnx``; ``None`` keeps it in memory only.

    Raises:
        EngineError: It cannot be converted, or what comes out differs from what Keras gives. The function raises it
            too, where ONNX Runtime fails on the images.
    """
    known, session = _sessions.get(model, (None, None))
    if known != digest:
        kept = Path(folder) / f"{digest}.onnx" if folder else None
        try:
            session = _session(model, sample, kept)
        except EngineError as error:
            session = str(error)
        _sessions[model] = digest, session
    if isinstance(session, str):  # nor can it be the next time
        raise EngineError(session)
    name = model.name

    def run(images):
        images = np.asarray(images)
        size = min(SHARE, -(-len(images) // THREADS))
        shares = [images[i : i + size] for i in range(0, len(images), size)]
        try:
            with ThreadPoolExecutor(THREADS) as pool:
                return np.concatenate(list(pool.map(lambda share: _outputs(session, share), shares)))
        except Exception as error:  # ONNX Runtime has a dozen kinds, without a common one
            raise EngineError(f"ONNX Runtime failed on {name!r} ({_first_line(error)})") from error

    return run


def _has_gpu():
    return bool(runtime.require_tensorflow().config.get_visible_devices("GPU"))


def _obstacle(model):
    """Why ONNX Runtime cannot run a network; ``None`` where nothing speaks against it."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        return f"{', '.join(missing)} {verb} not installed here (pip install 'tlutils[fast]')"
    if model.compute_dtype != "float32":
        return (
            f"only networks that compute in float32 are converted to ONNX, and {model.name!r} is {model.compute_dtype}"
        )
    return None


def _session(model, sample, kept):
    """The network in ONNX Runtime: as it was converted before, where that is there and still right, or converted."""
    expected = np.asarray(model(sample, training=False))  # Keras converts no model that has never been called
    if kept and kept.exists():
        with contextlib.suppress(Exception):  # the file is damaged; ONNX Runtime has no common kind of exception
            session = _load(kept)
            if _difference(session, sample, expected) <= TOLERANCE:
                return session
    return _convert(model, sample, expected, kept)


def _convert(model, sample, expected, kept):
    folder = kept.parent if kept else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".onnx-", dir=folder) as temporary:
        path = Path(temporary) / "network.onnx"
        try:
            with runtime.quiet_stderr(), _without_notices(), _constants(model):
                model.export(str(path), format="onnx", verbose=False)
            session = _load(path)
            difference = _difference(session, sample, expected)
        except Exception as error:  # tf2onnx and ONNX Runtime raise what they meet
            reason = _first_line(error).replace(f"{temporary}{os.sep}", "")
            raise EngineError(f"{model.name!r} could not be converted to ONNX ({reason})") from error
        if not difference <= TOLERANCE:
            raise EngineError(
                f"{model.name!r} gives other features when converted to ONNX (up to {difference:.2g} of the largest "
                "feature apart)"
            )
        if kept:
            os.replace(path, kept)
    return session


def _outputs(session, images):
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def _difference(session, images, expected):
    """How far what a session gives is from what is expected, at most, as a share of the largest number expected."""
    return np.abs(_outputs(session, images) - expected).max() / (np.abs(expected).max() or 1)


def _first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _load(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # see SHARE
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@contextlib.contextmanager
def _constants(model):
    """Let the means and variances of Normalization layers be arrays for a while.

    They are tensors, and tf2onnx takes tensors from outside of the graph for further inputs of the network.
    """
    import keras

    layers = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Normalization)]
    kept = [(layer, name, getattr(layer, name)) for layer in layers for name in ("mean", "variance")]
    try:
        for layer, name, value in kept:
            setattr(layer, name, np.asarray(value))
        yield
    finally:
        for layer, name, value in kept:
            setattr(layer, name, value)


@contextlib.contextmanager
def _without_notices():
    """Neither warnings nor what tf2onnx logs about its work."""
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
