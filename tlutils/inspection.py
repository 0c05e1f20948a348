"""What :mod:`tlutils.diagnose` looks at: a model of any make, what it does on a few images, and samples of the data.

Nothing here changes a model. It is called inside a ``keras.StatelessScope``, which catches whatever a call would write
(moving averages, random states), in a traced function of TensorFlow, so that it behaves as in ``fit`` and ``evaluate``.
"""

import contextlib
import functools
import hashlib
import inspect
import os
import re
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tlutils.data import DataError, Examples, ImageTask
from tlutils.folders import layout
from tlutils.images import check_files, decode_all
from tlutils.notes import Log
from tlutils.runtime import require_tensorflow

LOOK = 256  # images of each side that are looked at pixel by pixel, and of a tf.data.Dataset the only ones read
RUN = 64  # images that go through the model
STEP = 32  # images of the training step that is tried out
HASHED = 20_000  # images of an array that are compared as a whole
_ONE_INPUT = "of a model with several inputs or outputs only the model can be looked at, without data"


# ---------------------------------------------------------------------------------------------------------------- data


@dataclass
class Side:
    """A look at one side of the data.

    Attributes:
        name: ``"training data"`` or ``"validation data"``.
        kind: ``"task"``, ``"dataset"``, ``"arrays"`` or ``"folder"``.
        rows: Where in the data the sample lies.
        images: A sample, at most ``LOOK``, as the model would get them.
        sample_labels: The labels of these images, as the loss would get them.
        labels: All labels that are known, the sample's where no others are.
        total: Number of images; ``None`` where it is not known.
        class_names: One name a class, or ``None``.
        digests: Content hashes of the images that were compared.
        again: The same of a second pass over a dataset.
        files: Where the images of ``digests`` come from, or ``None``.
        regression: Whether the labels are known to be amounts rather than classes.
        weighted: Whether weights of the samples came along.
    """

    name: str
    kind: str
    rows: np.ndarray
    images: np.ndarray
    sample_labels: np.ndarray | None
    labels: np.ndarray | None
    total: int | None
    class_names: tuple[str, ...] | None = None
    digests: list[str] = field(default_factory=list)
    again: list[str] | None = None
    files: list[Path] | None = None
    regression: bool = False
    weighted: bool = False

    @property
    def whole(self):
        """Whether ``images`` are all of them."""
        return len(self.images) == self.total

    @property
    def counted(self):
        """Whether ``labels`` are all of them."""
        return self.labels is not None and len(self.labels) == self.total

    def file(self, i):
        return str(self.files[i]) if self.files else f"image {i} of the {self.name}"


def sides(data, validation, image_shape):
    """``(training side, validation side)`` of what the caller gave; either may be ``None``.

    Raises:
        TypeError: Something that is no ImageTask, dataset, pair of arrays or folder.
        DataError: A folder that is not laid out as a data set.
        ValueError: A pair of arrays that do not fit each other.
    """
    train, val = _sides(data, "training data", image_shape)
    if validation is not None:
        first, second = _sides(validation, "validation data", image_shape)
        val = second or first
        if val is not None:
            val.name = "validation data"
    return train, val


def _sides(source, name, image_shape):
    if source is None:
        return None, None
    if isinstance(source, ImageTask):
        second = source.val if source.val is not None else source.test
        return tuple(
            None if part is None else _of_examples(part, side, source)
            for part, side in ((source.train, name), (second, "validation data"))
        )
    if isinstance(source, Examples):
        return _of_examples(source, name), None
    if isinstance(source, str | os.PathLike):
        return _of_folder(Path(source).expanduser(), name, image_shape)
    if isinstance(source, tuple | list) and len(source) in (2, 3):
        return _of_arrays(name, *source), None
    if hasattr(source, "element_spec") and hasattr(source, "cardinality"):
        return _of_dataset(source, name), None
    raise TypeError(
        f"the {name} must be an ImageTask, a tf.data.Dataset, a pair of arrays (x, y) or a folder, not "
        f"{type(source).__name__}; of a generator or a PyDataset give one large batch as arrays"
    )


def _of_examples(examples, name, task=None):
    rows = _spread(len(examples))
    paths = examples.paths
    pixels = examples.images() if paths is None else examples.subset(rows).images()
    kept = pixels[rows] if paths is None else pixels
    digests = [digest(image) for image in pixels[:HASHED]] if paths is None else list(examples.digests)
    return Side(
        name,
        "task",
        rows,
        kept.astype("float32"),
        examples.labels[rows],
        examples.labels,
        len(examples),
        None if task is None else task.class_names,
        digests,
        files=None if paths is None else list(paths),
        regression=examples.labels.dtype.kind == "f",
    )


def _of_arrays(name, x, y, weights=None):
    try:
        x, y = np.asarray(x), None if y is None else np.asarray(y)
    except ValueError:  # a list of arrays of different shapes
        x = np.asarray(None)
    if not x.ndim:
        raise TypeError(f"the {name} must hold one array of images; {_ONE_INPUT}")
    if y is not None and len(x) != len(y):
        raise ValueError(f"the {name} has {len(x)} images but {len(y)} labels")
    if not len(x):
        raise ValueError(f"the {name} is empty")
    rows = _spread(len(x))
    images = x[rows]
    return Side(
        name,
        "arrays",
        rows,
        images.astype("float32") if images.dtype == np.float64 else images,  # as Keras does
        None if y is None else y[rows],
        y,
        len(x),
        digests=[digest(image) for image in x[:HASHED]],
        weighted=weights is not None,
    )


def _of_dataset(dataset, name):
    spec = dataset.element_spec
    if not isinstance(spec, tuple | list) or len(spec) < 2 or not all(hasattr(part, "shape") for part in spec[:2]):
        raise TypeError(f"the {name} must be a dataset of pairs (images, labels), not of {spec!r}; {_ONE_INPUT}")
    batched = _is_batched(spec[0].shape, spec[1].shape)
    images, labels, whole, batch = _read(dataset, batched)
    again = [digest(image) for image in _read(dataset, batched)[0]]
    if not len(images):
        raise ValueError(f"the {name} is empty")
    total, known = (len(images) if whole else None), labels
    names, paths = getattr(dataset, "class_names", None), getattr(dataset, "file_paths", None)
    if names and paths:  # what keras.utils.image_dataset_from_directory tells of itself
        known = np.array([_class_of(path, names) for path in paths])
        total = len(paths)
    elif not whole and (count := int(dataset.cardinality())) > 0:
        total = count * batch
    return Side(
        name,
        "dataset",
        np.arange(len(images)),
        images,
        labels,
        known,
        total,
        None if names is None else tuple(map(str, names)),
        [digest(image) for image in images],
        again,
        weighted=len(spec) > 2,
    )


def _is_batched(images, labels):
    """Whether a dataset gives batches, from the shapes of an element; one image at a time is taken as well."""
    return images.rank != 3 or (labels.rank != 0 and images[-1] not in (1, 3))  # gray batches may lack a channel axis


def _class_of(path, names):
    return next((names.index(part) for part in reversed(Path(path).parts[:-1]) if part in names), -1)


def _read(dataset, batched):
    """The first ``LOOK`` images and labels of a pass, whether that was all of them, and the size of a batch."""
    images, labels, count, whole = [], [], 0, True
    for element in dataset:
        if count >= LOOK:
            whole = False
            break
        x, y = (np.asarray(part) for part in element[:2])
        images.append(x if batched else x[None])
        labels.append(y if batched else y[None])
        count += len(images[-1])
    if not images:
        return np.zeros(0), np.zeros(0), True, 0
    batch = len(images[0])
    images, labels = np.concatenate(images), np.concatenate(labels)
    return images[:LOOK], labels[:LOOK], whole and count <= LOOK, batch


def _of_folder(folder, name, image_shape):
    found = layout(folder, Log())
    parts = []
    for side in ("train", "val" if "val" in found else "test"):
        classes = found.get(side)
        if classes is None:
            parts.append(None)
            continue
        names = tuple(sorted(classes))
        files = [(path, label) for label, each in enumerate(names) for path in classes[each]]
        if not files:
            raise DataError(f"{folder} holds no images: it needs one sub-folder of images a class")
        paths, labels = [path for path, _ in files], np.array([label for _, label in files])
        rows = _spread(len(paths))
        sound = [not check.problem for check in check_files([paths[i] for i in rows])]
        rows = rows[np.array(sound)]
        if not len(rows):
            raise DataError(f"none of the images of {folder} that were looked at can be read")
        height, width, channels = image_shape
        images = decode_all([paths[i] for i in rows], (height, width), channels)
        parts.append(
            Side(
                name if side == "train" else "validation data",
                "folder",
                rows,
                images.astype("float32"),
                labels[rows],
                labels,
                len(paths),
                names,
                files=paths,
            )
        )
    _hash_files([part for part in parts if part is not None])
    return tuple(parts)


def _hash_files(parts):
    """Digests of files; a file whose size no other has cannot be a copy, and is not read."""
    sizes = Counter(path.stat().st_size for part in parts for path in part.files)
    for part in parts:
        part.digests = [
            hashlib.sha256(path.read_bytes()).hexdigest() if sizes[path.stat().st_size] > 1 else str(path)
            for path in part.files
        ]


def _spread(count):
    """At most ``LOOK`` positions, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, LOOK)).astype(int))


def digest(image):
    """A hash of an image's content, the same whatever type its numbers have; ``""`` for an image without content.

    Of a large image every third pixel of every third row will do.
    """
    if np.ndim(image) > 1 and np.size(image) > 64 * 64 * 3:
        image = image[::3, ::3]
    image = np.ascontiguousarray(image, np.float32)
    if image.size and image.min() == image.max():
        return ""
    return hashlib.sha256(np.round(image, 4).tobytes()).hexdigest()


def is_pictures(images):
    return images.ndim == 4 and images.shape[-1] in (1, 3) and images.dtype.kind in "buif"


def thumbnails(images):
    """Small descriptions of images, for near duplicates.

    Returns:
        ``(hashes, patches)``: difference hashes (N, 64), whether brightness rises from one cell of an 8×9 grid to the
        next; and 16×16 gray patches (N, 256) of mean 0 and length 1, zero for an image without content.
    """
    from PIL import Image

    box = Image.Resampling.BOX
    hashes, patches = np.zeros((len(images), 64), bool), np.zeros((len(images), 256), np.float32)
    for i, image in enumerate(images):
        gray = Image.fromarray(np.asarray(image, np.float32).mean(-1))
        cells = np.asarray(gray.resize((9, 8), box))
        hashes[i] = (cells[:, 1:] > cells[:, :-1]).ravel()
        patch = np.asarray(gray.resize((16, 16), box)).ravel()
        patch = patch - patch.mean()
        length = np.linalg.norm(patch)
        patches[i] = patch / length if length > 1e-6 else 0
    return hashes, patches


# ------------------------------------------------------------------------------------------------------------- a model


@dataclass
class Network:
    """A convolutional network inside the model: a backbone, or the model itself.

    Attributes:
        name: Name of the Keras model that holds it.
        family: The family of keras.applications or of the pocket zoo, ``None`` where it is not known.
        mode: What the family wants its pixels to be: ``"caffe"``, ``"tf"``, ``"torch"``, ``"inside"`` or ``"unit"``.
        entry: The layer that pixels meet first.
        leaves: Its layers, without those of a head on top.
        nested: Whether it is a layer of the model.
    """

    name: str
    family: str | None
    mode: str | None
    entry: object
    leaves: list
    nested: bool

    @property
    def kernels(self):
        """The weights that multiply; biases, BatchNorm and what LoRA adds are left out."""
        return [weight for layer in self.leaves for weight in layer.weights if weight.name.endswith("kernel")]

    @functools.cached_property
    def trained_before(self):
        """Whether its weights have left the values that Keras initialises them with."""
        import keras

        norms = [x for x in self.leaves if isinstance(x, keras.layers.BatchNormalization) and x.built]
        if norms:
            return any(np.any(keras.ops.convert_to_numpy(norm.moving_mean)) for norm in norms)
        biases = [x.bias for x in self.leaves if getattr(x, "bias", None) is not None and len(x.weights)]
        return any(np.any(keras.ops.convert_to_numpy(bias)) for bias in biases)


def children(layer):
    """The layers that a layer holds: a model's own list, or whatever stands in a custom layer's attributes."""
    import keras

    if isinstance(layer, keras.Model):
        return list(layer.layers)
    found = {}
    for value in vars(layer).values():
        values = value if isinstance(value, list | tuple) else value.values() if isinstance(value, dict) else [value]
        found |= {id(each): each for each in values if isinstance(each, keras.layers.Layer) and each is not layer}
    return list(found.values())


def leaves(layer):
    """The layers inside a layer that hold no others, in order, each once."""
    found = {}

    def walk(one, above):
        inside = [each for each in children(one) if id(each) not in above]
        if not inside:
            found.setdefault(id(one), one)
        for each in inside:
            walk(each, above | {id(each)})

    walk(layer, {id(layer)})
    return list(found.values())


def is_convolution(layer):
    import keras

    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
    return isinstance(layer, kinds)


def networks(model):
    """The convolutional networks of a model: the models inside it that hold most convolutions, or the model itself."""
    import keras

    def convolutions(layer):
        return sum(map(is_convolution, leaves(layer)))

    nested = [layer for layer in model.layers if isinstance(layer, keras.Model) and convolutions(layer)]
    if sum(map(convolutions, nested)) * 2 < convolutions(model):  # ConvNeXt keeps its stem in a model of its own
        nested = []
    found = []
    for holder in nested or [model]:
        inside = leaves(holder)
        first = next((layer for layer in inside if is_convolution(layer) and layer.weights), None)
        if first is not None:
            family, mode, entry = _family(inside, first)
            body = inside if nested else _without_head(inside, family)
            found.append(Network(holder.name, family, mode, entry, body, bool(nested)))
    return found


def _without_head(layers, family):
    """A flat model's layers up to the last convolution, or BatchNorm, of the network on which a head was put."""
    import keras

    last = [i for i, layer in enumerate(layers) if is_convolution(layer)]
    if family is not None:  # keras.applications gives names, except in InceptionV3; what Keras numbered is of the head
        numbered = re.compile(r"(\w+_)?conv2d(_\d+)?|batch_normalization(_\d+)?")
        last += [i for i, layer in enumerate(layers) if isinstance(layer, keras.layers.BatchNormalization)]
        last = [i for i in last if not numbered.fullmatch(layers[i].name)] or last
    return layers[: max(last) + 1]


_FAMILIES = (  # family, mode, names of layers that tell it; pixels meet the first of them, "" is any convolution
    ("Xception", "tf", "block1_conv1", "block1_conv1_bn"),
    ("VGG", "caffe", "block1_conv1", "block1_conv2"),
    ("DenseNet", "torch", "conv1_conv", "conv2_block1_concat"),
    ("ResNet", "caffe", "conv1_conv", "conv1_bn"),
    ("ResNetV2", "tf", "conv1_conv", "conv2_block1_preact_bn"),
    ("EfficientNet", "inside", "stem_conv", "block1a_project_bn"),
    ("pocket network", "unit", "stem_conv", "block1_(expand|reduce|1x1)_conv"),
    ("MobileNetV2", "tf", "Conv1", "bn_Conv1"),
    ("MobileNet", "tf", "conv1", "conv_dw_1"),
    ("MobileNetV3", "inside", "conv", "expanded_conv_depthwise"),
    ("InceptionV3", "tf", "", "mixed0"),
    ("InceptionResNetV2", "tf", "", "mixed_5b"),
    ("NASNet", "tf", "stem_conv1", "stem_bn1"),
    ("ConvNeXt", "inside", r"convnext\w*_stem_conv"),
)


def _family(layers, first):
    """``(family, mode, entry layer)``, told from the names that keras.applications gives to a network's layers."""
    named = {layer.name: layer for layer in layers}
    for family, mode, *patterns in _FAMILIES:
        met = [next((name for name in named if re.fullmatch(pattern, name)), None) for pattern in patterns if pattern]
        if all(met):
            entry = named[met[0]] if patterns[0] else first
            if family == "VGG":  # the pocket VGG gives the same names
                family, mode = {64: (family, mode), 16: ("pocket VGG", "unit")}.get(entry.filters, (None, None))
            return family, mode, entry
    return None, None, first


def recorded_as_inference(model):
    """Models inside a functional model that were called with ``training=False`` by name, as its graph has it."""
    import keras

    found = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found += recorded_as_inference(layer)
    try:
        layers = model.get_config()["layers"]
    except Exception:  # a subclassed model, or a custom layer that does not say how it is made
        return found
    for entry in layers:
        calls = [call.get("kwargs", {}) for call in entry.get("inbound_nodes", []) if isinstance(call, dict)]
        if any(call.get("training") is False for call in calls):
            layer = model.get_layer(entry["name"])
            if isinstance(layer, keras.Model):  # Dropout and others record their default
                found.append(layer)
    return found


def ending(model):
    """The activation that a model ends in: ``"softmax"``, ``"sigmoid"``, ``"linear"``, another name, or ``None``."""
    import keras

    # operations that are no layers, such as keras.ops.softmax, stand in the second list only
    operations = list(model.layers if isinstance(model, keras.Sequential) else getattr(model, "operations", ()))
    for operation in reversed(operations):
        if isinstance(operation, keras.Model):
            return ending(operation)
        kind = type(operation).__name__.lower()
        if kind in ("softmax", "sigmoid", "logsoftmax"):
            return kind
        if isinstance(operation, keras.layers.Layer) and (activation := getattr(operation, "activation", None)):
            name = getattr(activation, "__name__", type(activation).__name__).lower()
            if name != "linear" or not isinstance(operation, keras.layers.Activation):
                return name
        elif kind not in ("dropout", "identity", "reshape", "flatten"):
            return None
    return None


# ------------------------------------------------------------------------------------------------------------- the loss

_LOSSES = {
    "sparsecategoricalcrossentropy": "sparse",
    "categoricalcrossentropy": "categorical",
    "categoricalfocalcrossentropy": "categorical",
    "binarycrossentropy": "binary",
    "binaryfocalcrossentropy": "binary",
    **dict.fromkeys(("meansquarederror", "mse", "meanabsoluteerror", "mae", "huber", "logcosh"), "regression"),
    **dict.fromkeys(("meanabsolutepercentageerror", "mape", "meansquaredlogarithmicerror", "msle"), "regression"),
}


@dataclass
class Loss:
    """The loss a model was compiled with; ``kind`` is ``"sparse"``, ``"categorical"``, ``"binary"``, ``"regression"``
    or ``None``."""

    name: str
    kind: str | None
    from_logits: bool
    function: object
    ignored: int | None = None  # the label that it passes over

    def mean(self, labels, outputs):
        """The mean loss, as ``fit`` computes it."""
        import keras

        if self.kind != "sparse" and len(labels.shape) == 1 and tuple(outputs.shape[1:]) == (1,):
            labels = labels[:, None]  # what Keras does for a function as well when it is given to compile
        return keras.ops.mean(self.function(labels, outputs))


def loss_of(model):
    """The single loss of a compiled model, or ``None``."""
    import keras

    loss = getattr(model, "loss", None) if getattr(model, "compiled", False) else None
    if isinstance(loss, list | tuple | dict):
        each = list(loss.values() if isinstance(loss, dict) else loss)
        loss = each[0] if len(each) == 1 else None
    if loss is None:
        return None
    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError:  # "crossentropy", which Keras resolves when it sees the labels
            return Loss(loss, None, False, None)
    function, options = (loss.func, loss.keywords) if isinstance(loss, functools.partial) else (loss, {})
    if isinstance(function, keras.losses.Loss):
        with contextlib.suppress(Exception):  # a loss of the reader's own may not tell
            options = function.get_config()
    name = getattr(function, "__name__", type(function).__name__)
    kind = _LOSSES.get(name.replace("_", "").lower())
    return Loss(name, kind, bool(options.get("from_logits", False)), loss, options.get("ignore_class"))


def optimizer_of(model):
    """The optimizer of a compiled model, without the one around it that scales the loss; or ``None``."""
    optimizer = getattr(model, "optimizer", None) if getattr(model, "compiled", False) else None
    return getattr(optimizer, "inner_optimizer", optimizer)


# ------------------------------------------------------------------------------------------------------------- the run


@dataclass
class Run:
    """What a model did on a few images.

    Attributes:
        images: How many.
        outputs: What it gave, called as ``evaluate`` does; ``None`` unless it is one array.
        entry: For each network the smallest and the largest number that reached its first layer, and the widest range
            within one channel; of the middle of the images, because padding adds zeros at their edges; or ``None``.
        random: What drew random numbers although ``training=False``: layers, or names of TensorFlow operations.
        moved: For each BatchNorm layer that a training step moves: the layer, and by how many standard deviations.
        loss: The mean loss for the labels, as ``evaluate`` has it, computed inside the graph.
        loss_of_guess: The same for :func:`guess`, of a loss with ``from_logits=True``.
    """

    images: int
    outputs: np.ndarray | None = None
    entry: list = field(default_factory=list)
    random: list = field(default_factory=list)
    moved: dict = field(default_factory=dict)
    loss: float | None = None
    loss_of_guess: float | None = None


def run(model, found, x, labels, loss):
    """Call the model as ``evaluate`` and as ``fit`` would, and keep everything it would write from being written.

    Args:
        model: A built model with one input.
        found: Its :func:`networks`.
        x: Images as the model gets them.
        labels: Their labels, or ``None``.
        loss: Its :class:`Loss`, or ``None``.

    Returns:
        Run
    """
    tf = require_tensorflow()
    import keras

    takes_training = "training" in inspect.signature(model.call).parameters
    everything = leaves(model)
    owners = {id(weight): layer for layer in everything for weight in layer.variables}
    norms = [x for x in everything if isinstance(x, keras.layers.BatchNormalization) and x.built and x.trainable]
    kernels = [network.entry.weights[0] for network in found]
    random, moving = [], []

    def called(images, training):
        return model(images, training=training) if takes_training else model(images)

    def mean_loss(outputs, y):
        try:
            return loss.mean(y, outputs)
        except Exception:  # labels and outputs do not fit; a detector says so
            return None

    def inference(images, labels):
        tensors = [tf.identity(tf.convert_to_tensor(kernel)) for kernel in kernels]
        with keras.StatelessScope(state_mapping=list(zip(kernels, tensors))) as scope:
            outputs = called(images, False)
        known = {id(kernel) for kernel in kernels}
        written = [
            x for x in model.non_trainable_variables if id(x) not in known and scope.get_current_value(x) is not None
        ]
        random.extend(owners.get(id(weight), weight.path) for weight in written if "seed" in weight.path)
        if not random:
            operations = tf.compat.v1.get_default_graph().get_operations()
            random.extend(dict.fromkeys(each.type for each in operations if "Random" in each.type))
        met = [_met(tensor) for tensor in tensors]
        ranges = [None if each is None else _range(each) for each in met]
        losses = [None, None]
        if loss is not None and loss.kind and hasattr(outputs, "shape"):
            told = None if labels is None else mean_loss(outputs, tf.constant(labels))
            losses = [told, mean_loss(outputs, guess(loss, outputs)) if loss.from_logits else None]
        return outputs, ranges, losses

    def training(images):
        with keras.StatelessScope() as scope:
            called(images, True)
        shifts = []
        for norm in norms:
            new = scope.get_current_value(norm.moving_mean)
            if new is not None:
                old, spread = (tf.convert_to_tensor(each) for each in (norm.moving_mean, norm.moving_variance))
                moving.append(norm)
                shifts.append(tf.reduce_mean(tf.abs(tf.cast(new, old.dtype) - old) / tf.sqrt(spread + norm.epsilon)))
        return shifts

    # What Keras has to say is for the reader's own run. A BatchNorm layer that does not train stands still everywhere.
    with warnings.catch_warnings(action="ignore"):
        try:
            outputs, ranges, losses = _in_a_graph(lambda images: inference(images, labels), x, model)
        except tf.errors.InvalidArgumentError:  # class numbers that the model has no output for
            outputs, ranges, losses = _in_a_graph(lambda images: inference(images, None), x, model)
        shifts = _in_a_graph(training, x[:STEP], model) if norms else []
    return Run(
        len(x),
        np.asarray(outputs, np.float32) if hasattr(outputs, "numpy") else None,
        [None if ends is None else tuple(map(float, ends)) for ends in ranges],
        list(dict.fromkeys(random)),
        {norm.name: (norm, float(shift)) for norm, shift in zip(moving, shifts) if float(shift) > 0},
        *(None if value is None else float(value) for value in losses),
    )


def _in_a_graph(function, images, model):
    """Call a function in a graph, as ``fit`` does, and put back the variables of TensorFlow's own that it writes to."""
    tf = require_tensorflow()
    traced = tf.function(function, autograph=False, jit_compile=False)
    graph = traced.get_concrete_function(tf.TensorSpec(images.shape, images.dtype))
    of_keras = {id(weight.value) for weight in model.variables}
    before = [(each, tf.identity(each)) for each in graph.variables if id(each) not in of_keras]
    try:
        return graph(tf.constant(images))
    finally:
        for variable, value in before:
            variable.assign(value)


def guess(loss, outputs):
    """The labels for which the outputs are most nearly right, in the form that the loss takes."""
    import keras

    if loss.kind == "sparse":
        return keras.ops.argmax(outputs, -1)
    if loss.kind == "categorical":
        return keras.ops.one_hot(keras.ops.argmax(outputs, -1), outputs.shape[-1])
    return keras.ops.cast(outputs > 0.5, "float32")


def _range(tensor):
    tf = require_tensorflow()
    height, width = tensor.shape[1:3]
    middle = tensor[:, height // 4 : height - height // 4, width // 4 : width - width // 4]
    low, high = (reduce(middle, axis=(0, 1, 2)) for reduce in (tf.reduce_min, tf.reduce_max))
    return tf.reduce_min(low), tf.reduce_max(high), tf.reduce_max(high - low)


def _met(kernel):
    """The tensor that a kernel is convolved with, in the graph that is being traced."""
    todo = [kernel]
    while todo:
        tensor = todo.pop()
        for operation in tensor.consumers():
            if "Conv" in operation.type:
                return operation.inputs[0]
            if operation.type in ("Cast", "Identity"):
                todo += operation.outputs
    return None


def noise(shape):
    """Random pixels 0–255 for a model without data, always the same."""
    return np.random.default_rng(0).integers(0, 256, shape).astype("float32")


def by_owner(weights, layers):
    """``{layer name: number of parameters}`` of the weights, in the order of the layers."""
    owners = {id(weight): layer.name for layer in layers for weight in layer.variables}
    sizes = defaultdict(int)
    for weight in weights:
        sizes[owners.get(id(weight), weight.path)] += int(np.prod(weight.shape))
    return dict(sizes)


# ------------------------------------------------------------------------------------------------------------ the case


class Case:
    """A model and its data, as the detectors see them; what costs time is found out once, when it is asked for."""

    def __init__(self, model, data, validation):
        self.model = model
        self.built = bool(model.built and model.weights)
        self.networks = networks(model)
        self.leaves = leaves(model)
        self.train, self.val = sides(data, validation, self._image_shape())
        self.side = self.train or self.val  # whose images go through the model
        self.compiled = bool(getattr(model, "compiled", False))
        self.loss = loss_of(model)
        self.kind = None if self.loss is None else self.loss.kind
        self.optimizer = optimizer_of(model)
        self.run_problem = None

    @functools.cached_property
    def trainable(self):
        """The ids of the weights that train."""
        return {id(weight) for weight in self.model.trainable_variables}

    @functools.cached_property
    def told_inference(self):
        """{layer id: name of the model around it that was called with ``training=False``}"""
        holders = recorded_as_inference(self.model)
        return {id(layer): holder.name for holder in holders for layer in leaves(holder)}

    @functools.cached_property
    def under_frozen(self):
        """{layer id: name of the outermost frozen model or layer around it}"""
        found = {}

        def walk(layer, above):
            above = above or (None if layer.trainable else layer.name)
            for inside in children(layer):
                if above is not None:
                    found.setdefault(id(inside), above)
                walk(inside, above)

        walk(self.model, None)
        return found

    def pretrained(self, network):
        """Whether it is a network of keras.applications that does not start from random weights."""
        return network.family is not None and network.mode != "unit" and network.trained_before

    def scratch(self, network):
        """Whether all of it has been trained here, so that it may have begun with random weights."""
        everything = all(id(kernel) in self.trainable for kernel in network.kernels)
        return everything and self.optimizer is not None and int(self.optimizer.iterations) > 0

    @functools.cached_property
    def input_shape(self):
        """(height, width, channels) as the model states it, or ``None``."""
        try:
            shape = self.model.input_shape
        except AttributeError:  # subclassed, or not built
            return None
        return tuple(shape[1:]) if isinstance(shape, tuple) and len(shape) == 4 else None

    def _image_shape(self):
        height, width, channels = self.input_shape or (224, 224, 3)
        return height or 224, width or 224, channels or 3

    @functools.cached_property
    def fits(self):
        """Whether the images have the shape that the model wants."""
        if self.side is None or self.input_shape is None:
            return True
        shape = self.side.images.shape[1:]
        if len(shape) == 2:  # Keras adds the axis itself
            shape = (*shape, 1)
        return len(shape) == 3 and all(a in (None, b) for a, b in zip(self.input_shape, shape))

    @functools.cached_property
    def run(self):
        """What the model did, or ``None``; ``run_problem`` then says why."""
        if not self.built:
            self.run_problem = "it has no weights yet: call it on a batch first, or give it a keras.Input"
            return None
        if not self.fits:
            return None
        labels = None
        if self.side is not None:
            x = self.side.images[:RUN]
            if self.side.sample_labels is not None and self.side.kind != "folder":
                labels = self.side.sample_labels[:RUN]
        elif self.input_shape is None:
            self.run_problem = "there are no data to call it on, and it does not say what shape it takes"
            return None
        else:
            x = noise((8, *self._image_shape()))
        try:
            return run(self.model, self.networks, x, labels, self.loss)
        except Exception as error:
            self.run_problem = f"calling it failed with {type(error).__name__}: {first_line(error)}"
            return None

    @property
    def outputs(self):
        """What the model gave, or ``None``."""
        return None if self.run is None else self.run.outputs

    @functools.cached_property
    def width(self):
        """The number of outputs, or ``None``."""
        if self.outputs is not None:
            return self.outputs.shape[-1] if self.outputs.ndim == 2 else None
        try:
            shape = self.model.output_shape
        except (AttributeError, ValueError):
            return None
        return shape[-1] if isinstance(shape, tuple) and len(shape) == 2 else None

    @functools.cached_property
    def activation(self):
        """What the model ends in, by what it does where that decides, by its last layer elsewhere."""
        named, outputs = ending(self.model), self.outputs
        if outputs is None or outputs.ndim != 2 or not np.isfinite(outputs).all():
            return named
        if outputs.min() < -1e-6 or outputs.max() > 1 + 1e-6:
            return "linear" if named in (None, "sigmoid", "softmax") else named
        if outputs.shape[1] > 1 and np.allclose(outputs.sum(1), 1, atol=5e-3):
            return "softmax"
        if named is not None:
            return named
        heads = [layer for layer in self.leaves if getattr(layer, "units", None) == outputs.shape[1]]
        names = [getattr(getattr(layer, "activation", None), "__name__", "") for layer in heads]
        if "softmax" in names and outputs.shape[1] == 1:
            return "softmax"
        return "sigmoid" if "sigmoid" in names else None

    @functools.cached_property
    def labels(self):
        """``"sparse"``, ``"onehot"``, ``"multihot"``, ``"numbers"``, or ``None`` where it is not known."""
        if self.side is None or self.side.kind == "folder" or self.side.sample_labels is None:
            return None
        if self.side.regression:
            return "numbers"
        y = self._learnt(self.side.sample_labels)
        if y.dtype.kind not in "buif" or not len(y):
            return None
        positive = bool(np.isfinite(y).all() and (y >= 0).all())
        whole = positive and bool((y == np.round(y)).all())
        if y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1):
            return "sparse" if whole else "numbers"
        if y.ndim == 2 and positive and np.allclose(y.sum(1), 1, atol=1e-3):  # smoothed rows add up to one, too
            return "onehot"
        return "multihot" if y.ndim == 2 and whole and y.max() <= 1 else "numbers"

    def _learnt(self, labels):
        """Labels without those that the loss passes over."""
        labels = np.asarray(labels)
        ignored = None if self.loss is None else self.loss.ignored
        return labels if ignored is None or labels.ndim > 1 else labels[labels != ignored]

    @functools.cached_property
    def known(self):
        """All known labels as class numbers, shape (N,), or ``None``."""
        side = self.side
        if side is None or side.labels is None or self.labels not in ("sparse", "onehot", None):
            return None
        labels = class_numbers(self._learnt(side.labels))
        return None if labels is None or labels.min() < 0 else labels

    @functools.cached_property
    def classes(self):
        """Number of classes of the data, or ``None``."""
        side = self.side
        if side is None or side.regression:
            return None
        if side.class_names is not None:
            return len(side.class_names)
        # whole numbers may be amounts, which only a loss for classes or several outputs exclude
        if self.kind == "regression" or (self.kind is None and (self.width or 1) == 1):
            return None
        if self.labels == "onehot":
            return np.asarray(side.sample_labels).shape[1]
        return None if self.known is None else int(self.known.max()) + 1

    def by_class(self, side):
        """How many images of each class a side has, or ``None`` where that is not known."""
        if side is None or not side.counted or self.classes is None or self.labels not in ("sparse", "onehot", None):
            return None
        numbers = class_numbers(self._learnt(side.labels))
        if numbers is None or (numbers < 0).any():
            return None
        return np.bincount(numbers, minlength=self.classes)[: self.classes]

    @functools.cached_property
    def class_names(self):
        """Of the training data; their numbers where they have no names."""
        return self.train.class_names or tuple(map(str, range(self.classes)))

    def looked_at(self):
        """One sentence on what the findings rest on."""
        parts = ["the model" + (" and how it is compiled" if self.compiled else ", which is not compiled")]
        for side in (self.train, self.val):
            if side is not None:
                total = f" of {side.total:,}" if side.total and side.total > len(side.images) else ""
                parts.append(f"{len(side.images):,}{total} images of the {side.name}")
        text = f"Looked at {'; '.join(parts)}."
        return f"{text} The model could not be run: {self.run_problem}." if self.run_problem else text


def class_numbers(labels):
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] > 1:
        return labels.argmax(1)
    labels = labels.reshape(-1)
    if labels.dtype.kind not in "buif" or not len(labels) or (labels != np.round(labels)).any():
        return None
    return labels.astype(int)


def first_line(error):
    """What an error says, without the colours, the frames and the addresses that Keras and TensorFlow put around it."""
    text = re.sub(r"\x1b\[\d*m|\{\{.*?\}\}|\[Op:\w+\].*", "", str(error))
    around = ("Exception encountered when calling", "Graph execution error", "Detected at node", "File ", "<stack")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith(around)]
    return (lines or ["no message"])[0][:200]
