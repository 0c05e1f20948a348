"""The device, the seeds and the budget that a notebook runs with."""

import contextlib
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

COLAB_MENU = "Runtime → Change runtime type → T4 GPU"
# What each profile runs with, where the reader has no data set or backbone of their own; see Profile.
BUDGETS = {
    "quick": {
        "dataset": "digits",
        "backbone": "pocket_resnet",
        "image_size": None,
        "epochs": 60,
        "learning_rate": 3e-3,
        "scratch_epochs": 150,
        "scratch_learning_rate": 1e-2,
        "batch_size": 32,
    },
    "full": {
        "dataset": "flowers",
        "backbone": "mobilenet_v2",
        "image_size": None,
        "epochs": 10,
        "learning_rate": 1e-4,
        "scratch_epochs": 30,
        "scratch_learning_rate": 1e-3,
        "batch_size": 32,
    },
}

_kept = {"folder": None}


class GPURequiredError(RuntimeError):
    """A GPU was required and TensorFlow sees none."""


@dataclass(frozen=True)
class Runtime:
    """What :func:`setup` chose.

    Attributes:
        device: ``"GPU"`` or ``"CPU"``.
        device_name: The GPU's name, or ``"CPU"``.
        seed: The seed that everything random was given.
        mixed_precision: Whether models compute in float16 with float32 weights.
    """

    device: str
    device_name: str
    seed: int
    mixed_precision: bool

    def __str__(self):
        precision = ", mixed precision" if self.mixed_precision else ""
        name = "" if self.device_name == self.device else f" ({self.device_name})"
        return f"Running on the {self.device}{name}{precision}; seed {self.seed}."

    @staticmethod
    def device_name_in(lines):
        """Return the ``device_name`` of a Runtime that was printed among some lines; None where none was."""
        printed = re.compile(r"Running on the (CPU|GPU)(?: \((.*)\))?(?:, mixed precision)?; seed \d+\.")
        found = next(filter(None, map(printed.fullmatch, lines)), None)
        return found and (found[2] or found[1])


@dataclass(frozen=True)
class Profile:
    """The budget and the defaults that a notebook runs with.

    Attributes:
        name: ``"quick"`` (a laptop's CPU, the pocket zoo, digits) or ``"full"`` (a GPU, ImageNet models, photographs).
        dataset: What to hand to :func:`tlutils.data.load`.
        backbone: What to hand to :func:`tlutils.backbones.load`.
        image_size: Side of the images in pixels; ``None`` takes the backbone's own.
        epochs: Epochs of fine-tuning with augmentation.
        learning_rate: Peak rate of fine-tuning.
        scratch_epochs: Epochs of training from scratch with augmentation.
        scratch_learning_rate: Peak rate of training from scratch.
        batch_size: Images a step.
        reference: Whether this is the set-up that the book's committed numbers come from: quick, with the default data
            and backbone.
    """

    name: str
    dataset: str
    backbone: str
    image_size: int | None
    epochs: int
    learning_rate: float
    scratch_epochs: int
    scratch_learning_rate: float
    batch_size: int
    reference: bool


def profile(name="quick", dataset=None, backbone=None, seed=0):
    """The budget and defaults of a profile, with the reader's own data set or backbone in their place.

    It also tells :func:`tlutils.results.claim` whether this is the reference set-up, in which a claim that fails stops
    the notebook.

    Args:
        name: ``"quick"`` or ``"full"``.
        dataset: A registered name or a folder of photographs; ``None`` takes the profile's.
        backbone: A name; ``None`` takes the profile's.
        seed: The notebook's seed; the reference set-up has 0.

    Returns:
        Profile

    Raises:
        ValueError: ``name`` is neither.
    """
    if name not in BUDGETS:
        raise ValueError(f"the profile must be 'quick' or 'full', not {name!r}")
    from tlutils import results

    reference = name == "quick" and dataset is None and backbone is None and seed == 0
    results.set_context(reference=reference)
    chosen = BUDGETS[name] | {k: v for k, v in {"dataset": dataset, "backbone": backbone}.items() if v is not None}
    return Profile(name=name, reference=reference, **chosen)


def keep(folder):
    """Keep what this process finds out in a folder, so that an interrupted notebook can go on when it is run again.

    Numbers that are recorded (:func:`tlutils.results.record`) are then also written to ``results.json`` in it. A
    training that is given no ``backup_dir`` keeps its state in ``backups`` while it runs, and goes on from there.

    Args:
        folder: A path, made where it is missing; ``None`` keeps nothing, as at the start.
    """
    _kept["folder"] = None if folder is None else Path(folder)
    if folder is not None:
        _kept["folder"].mkdir(parents=True, exist_ok=True)


def kept(name):
    """The path of a name in the folder given to :func:`keep`, or ``None`` where nothing is kept."""
    return None if _kept["folder"] is None else _kept["folder"] / name


def require_tensorflow():
    """Load TensorFlow without a word on stderr, and return it.

    The full TensorFlow wheel writes notices about missing CUDA drivers to file descriptor 2 while it loads, whatever
    its log level is, so the descriptor itself points elsewhere for that moment. If loading fails, what was written is
    shown.

    Raises:
        ImportError: TensorFlow or Keras is not installed; the message says how to install them.
    """
    if "tensorflow" in sys.modules:
        return sys.modules["tensorflow"]
    missing = [name for name in ("tensorflow", "keras") if find_spec(name) is None]
    if missing:
        raise ImportError(
            f"tlutils needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed here. "
            "Install one of: pip install 'tlutils[tensorflow]', 'tlutils[cpu]' (smaller, no GPU), "
            "'tlutils[gpu]' (with CUDA)."
        )
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        raise ImportError(
            f"tlutils needs Keras on TensorFlow, but KERAS_BACKEND is {os.environ['KERAS_BACKEND']!r}; unset it."
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_stderr():
        import keras  # noqa: F401
        import tensorflow as tf
    # A notebook builds many small models, and TensorFlow would warn that each of them is traced anew.
    tf.get_logger().setLevel("ERROR")
    return tf


def shows_progress(progress=None):
    """Whether to print what is being done, line by line.

    Args:
        progress: What the caller wishes. ``None`` leaves it to the environment variable ``TLUTILS_PROGRESS``, 0 or 1,
            which the runner of the notebooks sets to 0; where there is none, the answer is yes in a terminal and in an
            interactive notebook, and no where nobody looks.
    """
    if progress is not None:
        return progress
    if "TLUTILS_PROGRESS" in os.environ:
        return os.environ["TLUTILS_PROGRESS"] != "0"
    return sys.stdout.isatty() or "ipykernel" in sys.modules


@contextlib.contextmanager
def quiet_stderr():
    """Divert file descriptor 2; give back what it received only if the block fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept, 2)
            sink.seek(0)
            os.write(2, sink.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def setup(gpu="auto", seed=0):
    """Choose the device, seed everything random and make operations deterministic.

    Call it before anything else of TensorFlow is used: a device can only be hidden before TensorFlow has touched it.

    Args:
        gpu: ``"auto"`` uses a GPU where there is one, ``"require"`` insists on one, ``"off"`` hides it.
        seed: Seed for Python, NumPy and TensorFlow.

    Returns:
        Runtime: prints as one sentence.

    Raises:
        GPURequiredError: ``gpu="require"`` and there is no GPU; the message says how to get one on Colab.
        ImportError: TensorFlow is not installed.
        RuntimeError: ``gpu="off"`` after TensorFlow has already used a GPU in this process.
        ValueError: ``gpu`` is none of the three.
    """
    if gpu not in ("auto", "require", "off"):
        raise ValueError(f"gpu must be 'auto', 'require' or 'off', not {gpu!r}")
    if gpu == "off" and "tensorflow" not in sys.modules:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    tf = require_tensorflow()
    import keras

    with quiet_stderr():
        gpus = tf.config.list_physical_devices("GPU")
    if gpu == "require" and not gpus:
        raise GPURequiredError(
            "This run requires a GPU and TensorFlow sees none. "
            f"On Colab choose {COLAB_MENU}; elsewhere install tlutils[gpu] and check `nvidia-smi`."
        )
    if gpu == "off" and gpus:
        tf.config.set_visible_devices([], "GPU")
        gpus = []
    for device in gpus:
        with contextlib.suppress(RuntimeError):  # already set in a cell that ran before
            tf.config.experimental.set_memory_growth(device, True)

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    details = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
    # Tensor cores, which make float16 faster than float32, came with compute capability 7.0.
    mixed = details.get("compute_capability", (0, 0)) >= (7, 0)
    keras.mixed_precision.set_global_policy("mixed_float16" if mixed else "float32")
    if os.environ.get("TLUTILS_COUNT") == "1":  # set by tlutils run --record
        from tlutils import cost

        if cost.Counter.running is None:
            cost.Counter().start()
    device = "GPU" if gpus else "CPU"
    return Runtime(device, details.get("device_name", device), seed, mixed)
