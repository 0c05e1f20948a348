"""What :mod:`tlutils.diagnose` looks at: a model of any make, what it does on a few images, and samples of the data.

Nothing here changes a model. It is called inside a ``keras.StatelessScope``, which catches whatever a call would write
(moving averages, random states), in a traced function of TensorFlow, so that it behaves as in ``fit`` and ``evaluate``.
"""

import functools
import hashlib
import inspect
import os
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


# ---------------------------------------------------------------------------------------------------------------- data


@dataclass
class Side:
    """A look at one side of the data.

    Attributes:
        name: ``"training data"`` or ``"validation data"``.
        kind: ``"task"``, ``"dataset"``, ``"arrays"`` or ``"folder"``.
        images: A sample, at most ``LOOK``, as the model would get them.
        sample_labels: The labels of these images, as the loss would get them.
        labels: All labels that are known, the sample's where no others are.
        complete: Whether ``labels`` and ``digests`` cover every image.
        total: Number of images; ``None`` where it is not known.
        class_names: One name a class, or ``None``.
        digests: Content hashes of the images that were compared.
        again: The same of a second pass over a dataset.
        files: Where the images of ``digests`` come from, or ``None``.
        regression: Whether the labels are known to be amounts rather than classes.
    """

    name: str
    kind: str
    images: np.ndarray
    sample_labels: np.ndarray | None
    labels: np.ndarray | None
    complete: bool
    total: int | None
    class_names: tuple[str, ...] | None = None
    digests: list[str] = field(default_factory=list)
    again: list[str] | None = None
    files: list[Path] | None = None
    regression: bool = False

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
    if isinstance(source, tuple | list) and len(source) in (2, 3):  # the third are weights
        return _of_arrays(*source[:2], name), None
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
    digests = [digest(image) for image in pixels[:HASHED]] if paths is None else list(examples._digests)
    return Side(
        name,
        "task",
        kept.astype("float32"),
        examples.labels[rows],
        examples.labels,
        len(digests) == len(examples),
        len(examples),
        None if task is None else task.class_names,
        digests,
        files=None if paths is None else list(paths),
        regression=examples.labels.dtype.kind == "f",
    )


def _of_arrays(x, y, name):
    x, y = np.asarray(x), None if y is None else np.asarray(y)
    if y is not None and len(x) != len(y):
        raise ValueError(f"the {name} has {len(x)} images but {len(y)} labels")
    if not len(x):
        raise ValueError(f"the {name} is empty")
    rows = _spread(len(x))
    digests = [digest(image) for image in x[:HASHED]]
    images = x[rows]
    return Side(
        name,
        "arrays",
        images.astype("float32") if images.dtype == np.float64 else images,  # as Keras does
        None if y is None else y[rows],
        y,
        len(digests) == len(x),
        len(x),
        digests=digests,
    )


def _of_dataset(dataset, name):
    spec = dataset.element_spec
    if not isinstance(spec, tuple | list) or len(spec) < 2 or not all(hasattr(part, "shape") for part in spec[:2]):
        raise TypeError(f"the {name} must be a dataset of pairs (images, labels), not of {spec!r}")
    batched = spec[0].shape.rank != 3
    images, labels, complete, batch = _read(dataset, batched)
    again = [digest(image) for image in _read(dataset, batched)[0]]
    if not len(images):
        raise ValueError(f"the {name} is empty")
    total, known = (len(images) if complete else None), labels
    names, paths = getattr(dataset, "class_names", None), getattr(dataset, "file_paths", None)
    if names and paths:  # what keras.utils.image_dataset_from_directory tells of itself
        known = np.array([_class_of(path, names) for path in paths])
        total = len(paths)
    elif not complete and (count := int(dataset.cardinality())) > 0:
        total = count * batch
    return Side(
        name,
        "dataset",
        images,
        labels,
        known,
        complete or known is not labels,
        total,
        None if names is None else tuple(names),
        [digest(image) for image in images],
        again,
    )


def _class_of(path, names):
    return next((names.index(part) for part in reversed(Path(path).parts[:-1]) if part in names), -1)


def _read(dataset, batched):
    """The first ``LOOK`` images and labels of a pass, whether that was all of them, and the size of a batch."""
    images, labels, count, complete = [], [], 0, True
    for element in dataset:
        if count >= LOOK:
            complete = False
            break
        x, y = (np.asarray(part) for part in element[:2])
        images.append(x if batched else x[None])
        labels.append(y if batched else y[None])
        count += len(images[-1])
    if not images:
        return np.zeros(0), np.zeros(0), True, 0
    batch = len(images[0])
    images, labels = np.concatenate(images), np.concatenate(labels)
    return images[:LOOK], labels[:LOOK], complete and count <= LOOK, batch


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
                images.astype("float32"),
                labels[rows],
                labels,
                True,
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
        leaves: Its layers.
        nested: Whether it is a layer of the model.
    """

    name: str
    family: str | None
    mode: str | None
    entry: object
    leaves: list
    nested: bool

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
        first = next(filter(is_convolution, inside), None)
        if first is None:
            continue
        family, mode, entry = _family({layer.name: layer for layer in inside}, first)
        found.append(Network(holder.name, family, mode, entry, inside, bool(nested)))
    return found


def _family(named, first):
    """``(family, mode, entry layer)``, told from the names that keras.applications gives to a network's layers."""

    def has(*names):
        return all(name in named for name in names)

    def filters(name):
        return getattr(named[name], "filters", None)

    if has("block1_conv1", "block1_conv1_bn"):
        return "Xception", "tf", named["block1_conv1"]
    if has("block1_conv1", "block1_conv2") and filters("block1_conv1") == 64:
        return "VGG", "caffe", named["block1_conv1"]
    if has("block1_conv1", "block1_conv2") and filters("block1_conv1") == 16:
        return "pocket VGG", "unit", named["block1_conv1"]
    if has("conv1_conv", "conv2_block1_0_bn") and not named["conv1_conv"].use_bias:
        return "DenseNet", "torch", named["conv1_conv"]
    if has("conv1_conv", "conv1_bn"):
        return "ResNet", "caffe", named["conv1_conv"]
    if has("conv1_conv", "conv2_block1_preact_bn"):
        return "ResNetV2", "tf", named["conv1_conv"]
    if has("stem_conv", "stem_bn", "block1_expand_conv") or has("stem_conv", "stem_bn", "block1_reduce_conv"):
        return "pocket network", "unit", named["stem_conv"]
    if has("stem_conv", "stem_bn", "block1_1x1_conv"):
        return "pocket network", "unit", named["stem_conv"]
    if has("stem_conv", "stem_bn") and any(name.startswith("block1a_") for name in named):
        return "EfficientNet", "inside", named["stem_conv"]
    if has("Conv1", "bn_Conv1"):
        return "MobileNetV2", "tf", named["Conv1"]
    if has("conv1", "conv1_bn", "conv_dw_1"):
        return "MobileNet", "tf", named["conv1"]
    if has("conv", "conv_bn", "expanded_conv_depthwise"):
        return "MobileNetV3", "inside", named["conv"]
    if has("mixed0"):
        return "InceptionV3", "tf", first
    if has("mixed_5b"):
        return "InceptionResNetV2", "tf", first
    if has("stem_conv1", "stem_bn1"):
        return "NASNet", "tf", named["stem_conv1"]
    stems = [name for name in named if name.startswith("convnext") and name.endswith("_stem_conv")]
    if stems:
        return "ConvNeXt", "inside", named[stems[0]]
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
    options = {}
    if isinstance(loss, str):
        name = loss
        try:
            loss = keras.losses.get(loss)
        except ValueError:  # "crossentropy", which Keras resolves when it sees the labels
            return Loss(name, None, False, None)
        if not callable(loss):
            return Loss(name, None, False, None)
    if isinstance(loss, functools.partial):
        options, function = loss.keywords, loss.func
    else:
        function = loss
    if isinstance(function, keras.losses.Loss):
        try:
            options = function.get_config()
        except Exception:  # a loss of the reader's own
            options = {}
        name = type(function).__name__
    else:
        name = getattr(function, "__name__", type(function).__name__)
    kind = _LOSSES.get(name.replace("_", "").lower())
    return Loss(name, kind, bool(options.get("from_logits", False)), loss)


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
        random: What drew random numbers although ``training=False``: names of layers, or of TensorFlow operations.
        moved: For each BatchNorm layer that a training step moves: by how many standard deviations.
        loss: The loss as ``fit`` sees it, inside the graph, and the one from the outputs alone.
    """

    images: int
    outputs: np.ndarray | None = None
    entry: list = field(default_factory=list)
    random: list[str] = field(default_factory=list)
    moved: dict = field(default_factory=dict)
    loss: tuple[float, float] | None = None


def run(model, found, x, labels, loss):
    """Call the model as ``evaluate`` and as ``fit`` would, and keep everything it would write from being written.

    Args:
        model: A built model with one input.
        found: Its :func:`networks`.
        x: Images as the model gets them.
        labels: Their labels, or ``None``, which has the loss computed for made-up ones.
        loss: Its :class:`Loss`, or ``None``.

    Returns:
        Run
    """
    tf = require_tensorflow()
    import keras

    takes_training = "training" in inspect.signature(model.call).parameters
    everything = leaves(model)
    owners = {id(weight): layer.name for layer in everything for weight in layer.variables}
    norms = [x for x in everything if isinstance(x, keras.layers.BatchNormalization) and x.built]
    entries = [network.entry for network in found]
    kernels = [getattr(layer, "depthwise_kernel", None) or layer.kernel for layer in entries]
    random, moving, told = [], [], {}

    def called(images, training):
        return model(images, training=training) if takes_training else model(images)

    def inference(images):
        tensors = [tf.identity(tf.convert_to_tensor(kernel)) for kernel in kernels]
        with keras.StatelessScope(state_mapping=list(zip(kernels, tensors))) as scope:
            outputs = called(images, False)
        known = {id(kernel) for kernel in kernels}
        random.extend(
            owners.get(id(weight), weight.path)
            for weight in model.non_trainable_variables
            if id(weight) not in known and "seed" in weight.path and scope.get_current_value(weight) is not None
        )
        operations = tf.compat.v1.get_default_graph().get_operations()
        if not random:
            random.extend(dict.fromkeys(each.type for each in operations if "Random" in each.type))
        met = [_met(tensor) for tensor in tensors]
        ranges = [None if each is None else _range(each) for each in met]
        value = None
        if loss is not None and loss.kind and hasattr(outputs, "shape"):
            told["labels"] = _made_up(loss, outputs.shape) if labels is None else labels
            try:
                value = loss.mean(tf.constant(told["labels"]), outputs)
            except Exception:  # labels and outputs do not fit; another detector says so
                value = None
        return outputs, ranges, value

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

    def traced(function, images):
        return tf.function(function, autograph=False, jit_compile=False)(tf.constant(images))

    with Quiet():
        outputs, ranges, value = traced(inference, x)
        shifts = traced(training, x[:STEP]) if norms else []
    result = Run(len(x))
    if hasattr(outputs, "numpy"):
        result.outputs = np.asarray(outputs, np.float32)
    result.entry = [None if pair is None else tuple(float(end) for end in pair) for pair in ranges]
    result.random = sorted(set(random))
    result.moved = {norm.name: (norm, float(shift)) for norm, shift in zip(moving, shifts) if float(shift) > 0}
    if value is not None and result.outputs is not None:
        with Quiet():
            alone = loss.mean(told["labels"], result.outputs)
        result.loss = float(value), float(alone)
    return result


def _range(tensor):
    tf = require_tensorflow()
    height, width = tensor.shape[1:3]
    middle = tensor[:, height // 4 : height - height // 4, width // 4 : width - width // 4]
    low, high = (reduce(middle, axis=(0, 1, 2)) for reduce in (tf.reduce_min, tf.reduce_max))
    return tf.reduce_min(low), tf.reduce_max(high), tf.reduce_max(high - low)


def _made_up(loss, shape):
    """Labels that a loss takes: the first class for each image."""
    if loss.kind == "sparse":
        return np.zeros(shape[:1], np.int64)
    labels = np.zeros(shape, np.float32)
    labels[..., 0] = loss.kind == "categorical"
    return labels


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


class Quiet(warnings.catch_warnings):
    """No warnings: what Keras has to say about a model is for the reader's own run."""

    def __enter__(self):
        super().__enter__()
        warnings.simplefilter("ignore")


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
