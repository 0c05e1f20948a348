"""Pretrained networks without their classifiers, all with one face.

A :class:`Backbone` always takes raw pixels from 0 to 255 and holds its own preprocessing, so that no caller can get it
wrong. Its model is a plain chain of smaller Keras models: ``preprocess``, ``stem``, then one model for each block. Any
block can therefore be frozen, dropped or used as an output, before and after saving.
"""

import difflib
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from tlutils import sources, zoo
from tlutils.runtime import require_tensorflow

# How the classic Keras networks want their pixels (keras.applications.imagenet_utils.preprocess_input).
_CAFFE_MEAN = [103.939, 116.779, 123.68]  # blue, green, red; no scaling
_TORCH_MEAN = [0.485 * 255, 0.456 * 255, 0.406 * 255]
_TORCH_VARIANCE = [(0.229 * 255) ** 2, (0.224 * 255) ** 2, (0.225 * 255) ** 2]

PREPROCESS_LAYER = "preprocess"
STEM_LAYER = "stem"
# Layers of the chain, of a head (models.classifier) and of a split model (models.split): no block may be called so.
_TAKEN = re.compile(rf"pixels|{PREPROCESS_LAYER}|{STEM_LAYER}|boundary|pool|hidden\d+|dropout|output")


@dataclass(frozen=True)
class Backbone:
    """A pretrained network without its classifier.

    Attributes:
        name: As in :func:`available`.
        family: The line of papers it belongs to.
        model: keras.Model; raw pixels 0–255, shape (N, height, width, channels), to a feature map (N, h, w, features).
            Models built from a backbone hold this very model, not a copy of it.
        blocks: Names of the family's repeated units, from input to output. Each is a layer of ``model`` of that name,
            entered and left by a single tensor; the last one includes whatever follows it. What comes before the first
            is the layer ``stem``.
        source_task: What the weights were trained on; ``"not stated"`` for weights from a path.
        licence: Licence and origin of the weights; ``"not stated"`` for weights from a path.
        source_classifier: Function without arguments that gives the classifier of the source task on this backbone: a
            keras.Model that shares ``model``, from raw pixels 0–255 to probabilities (N, source classes). ``None``
            where the classifier is not known or not on this machine.
    """

    name: str
    family: str
    model: object = field(repr=False)
    blocks: tuple[str, ...]
    source_task: str
    licence: str
    source_classifier: Callable[[], object] | None = field(repr=False, default=None)

    @property
    def parameters(self):
        """Number of weights, trainable or not, BatchNorm's moving averages included."""
        return self.model.count_params()

    @property
    def input_shape(self):
        """(height, width, channels) of the raw images; a side is ``None`` where any size will do."""
        return self.model.input_shape[1:]

    def preprocess(self, images):
        """The tensor that enters the network itself, for images (N, height, width, channels) with values 0–255."""
        images = np.asarray(images, "float32")
        names = [layer.name for layer in self.model.layers]
        if PREPROCESS_LAYER not in names:
            return images
        return np.asarray(self.model.get_layer(PREPROCESS_LAYER)(images))


@dataclass(frozen=True)
class _Entry:
    family: str
    parameters: int
    unit: str  # regular expression; its group names the unit that a layer belongs to
    mode: str  # what happens to the pixels before the network: "caffe", "tf", "torch", "unit" or "inside"
    image_size: int
    licence: str
    application: str = ""  # the function of keras.applications; empty for the pocket zoo
    file: str = ""  # where Keras keeps the weights, under $KERAS_HOME/models
    options: dict = field(default_factory=dict)


_IMAGENET = "ImageNet-1k (1.28 million photographs, 1,000 classes)"
_POCKET_LICENCE = "Apache-2.0, trained by this project (make zoo)"
_OXFORD = "CC BY 4.0, Visual Geometry Group, Oxford"
_GOOGLE = "Apache-2.0, Google (TensorFlow models)"
_DIM = "weights_tf_dim_ordering_tf_kernels"


def _pocket(family, parameters):
    return _Entry(family, parameters, r"(block\d+)_", "unit", 32, _POCKET_LICENCE)


_BACKBONES = {
    "pocket_vgg": _pocket("VGG", 210_224),
    "pocket_resnet": _pocket("ResNet", 133_176),
    "pocket_inception": _pocket("Inception", 124_728),
    "pocket_mobilenet": _pocket("MobileNetV2", 101_048),
    "vgg16": _Entry("VGG", 14_714_688, r"(block\d)_", "caffe", 224, _OXFORD, "VGG16", f"vgg16_{_DIM}_notop.h5"),
    "vgg19": _Entry("VGG", 20_024_384, r"(block\d)_", "caffe", 224, _OXFORD, "VGG19", f"vgg19_{_DIM}_notop.h5"),
    "resnet50": _Entry(
        "ResNet",
        23_587_712,
        r"(conv\d_block\d+)_",
        "caffe",
        224,
        "MIT, Kaiming He",
        "ResNet50",
        f"resnet50_{_DIM}_notop.h5",
    ),
    "resnet101": _Entry(
        "ResNet",
        42_658_176,
        r"(conv\d_block\d+)_",
        "caffe",
        224,
        "MIT, Kaiming He",
        "ResNet101",
        f"resnet101_{_DIM}_notop.h5",
    ),
    "resnet50_v2": _Entry(
        "ResNetV2",
        23_564_800,
        r"(conv\d_block\d+)_",
        "tf",
        224,
        "BSD, Facebook",
        "ResNet50V2",
        f"resnet50v2_{_DIM}_notop.h5",
    ),
    "inception_v3": _Entry(
        "Inception",
        21_802_784,
        r"(mixed\d+)$",
        "tf",
        299,
        _GOOGLE,
        "InceptionV3",
        f"inception_v3_{_DIM}_notop.h5",
    ),
    "xception": _Entry(
        "Xception",
        20_861_480,
        r"(block\d+)_",
        "tf",
        299,
        "MIT, François Chollet",
        "Xception",
        f"xception_{_DIM}_notop.h5",
    ),
    "mobilenet": _Entry(
        "MobileNet",
        3_228_864,
        r"conv_(?:pad|dw|pw)_(\d+)",
        "tf",
        224,
        _GOOGLE,
        "MobileNet",
        "mobilenet_1_0_224_tf_no_top.h5",
    ),
    "mobilenet_0.25": _Entry(
        "MobileNet",
        218_544,
        r"conv_(?:pad|dw|pw)_(\d+)",
        "tf",
        224,
        _GOOGLE,
        "MobileNet",
        "mobilenet_2_5_224_tf_no_top.h5",
        {"alpha": 0.25},
    ),
    "mobilenet_v2": _Entry(
        "MobileNetV2",
        2_257_984,
        r"(expanded_conv|block_\d+)_",
        "tf",
        224,
        _GOOGLE,
        "MobileNetV2",
        f"mobilenet_v2_{_DIM}_1.0_224_no_top.h5",
    ),
    "mobilenet_v2_0.35": _Entry(
        "MobileNetV2",
        410_208,
        r"(expanded_conv|block_\d+)_",
        "tf",
        224,
        _GOOGLE,
        "MobileNetV2",
        f"mobilenet_v2_{_DIM}_0.35_224_no_top.h5",
        {"alpha": 0.35},
    ),
    "mobilenet_v3_small": _Entry(
        "MobileNetV3",
        939_120,
        r"(expanded_conv(?:_\d+)?)_",
        "inside",
        224,
        _GOOGLE,
        "MobileNetV3Small",
        "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
    ),
    "mobilenet_v3_large": _Entry(
        "MobileNetV3",
        2_996_352,
        r"(expanded_conv(?:_\d+)?)_",
        "inside",
        224,
        _GOOGLE,
        "MobileNetV3Large",
        "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
    ),
    "densenet121": _Entry(
        "DenseNet",
        7_037_504,
        r"(conv[2-5])_block",
        "torch",
        224,
        "BSD 3-Clause, Gao Huang et al.",
        "DenseNet121",
        f"densenet121_{_DIM}_notop.h5",
    ),
    "efficientnet_b0": _Entry(
        "EfficientNet",
        4_049_571,
        r"(block\d[a-z])_",
        "inside",
        224,
        _GOOGLE,
        "EfficientNetB0",
        "efficientnetb0_notop.h5",
    ),
    "efficientnet_v2_b0": _Entry(
        "EfficientNetV2",
        5_919_312,
        r"(block\d[a-z])_",
        "inside",
        224,
        _GOOGLE,
        "EfficientNetV2B0",
        "efficientnetv2-b0_notop.h5",
    ),
    "convnext_tiny": _Entry(
        "ConvNeXt",
        27_820_128,
        r"(stage_\d_block_\d)_",
        "inside",
        224,
        "MIT, Meta Platforms",
        "ConvNeXtTiny",
        "convnext_tiny_notop.h5",
    ),
}


def available():
    """Names of all backbones, the pocket zoo first."""
    return tuple(_BACKBONES)


def describe():
    """What is known of each backbone without loading it.

    Returns:
        list of dict: ``name``, ``family``, ``parameters``, ``image_size``, ``source_task``, ``licence``, and ``local``:
        whether its pretrained weights are on this machine.
    """
    return [
        {
            "name": name,
            "family": entry.family,
            "parameters": entry.parameters,
            "image_size": entry.image_size,
            "source_task": _source_task(name),
            "licence": entry.licence,
            "local": _weights_file(name).exists(),
        }
        for name, entry in _BACKBONES.items()
    ]


def find(name):
    """The registered name that ``name`` means; case, ``-`` and ``_`` do not matter (``"MobileNetV2"`` is found).

    Raises:
        ValueError: There is no such backbone; the message suggests the nearest name.
    """
    plain = {_plain(known): known for known in _BACKBONES}
    if _plain(name) in plain:
        return plain[_plain(name)]
    near = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0)
    raise ValueError(f"unknown backbone {name!r}; did you mean {plain[near[0]]!r}? There are: {', '.join(_BACKBONES)}")


def load(name, weights="pretrained", input_shape=None):
    """Load a backbone.

    ImageNet networks use one file of weights for every image size, the one trained at 224 (299 for Inception and
    Xception). A gray ``input_shape`` is repeated to RGB inside the model; a coloured one is made gray for the pocket
    zoo.

    Args:
        name: One of :func:`available`.
        weights: ``"pretrained"``, ``None`` for random ones, the path of a weights file, or, for the pocket zoo, the
            name of a source task (:mod:`tlutils.sources`); its ``"pretrained"`` is ``"letters"``.
        input_shape: (height, width, channels) of the raw images, with 1 or 3 channels; ``None`` takes the size the
            network was trained with.

    Returns:
        Backbone

    Raises:
        ValueError: The name is unknown (the nearest one is suggested), or the input shape is of no use.
        FileNotFoundError: The weights are neither here nor to be downloaded; the message says what to do.
    """
    name = find(name)
    entry = _BACKBONES[name]
    size, network_channels = entry.image_size, 3 if entry.application else 1
    shape = (size, size, network_channels) if input_shape is None else input_shape
    shape = tuple(shape) if np.iterable(shape) else ()
    if len(shape) != 3 or shape[2] not in (1, 3):
        raise ValueError(f"input_shape must be (height, width, 1) or (height, width, 3), not {input_shape!r}")
    smallest = {32: 16, 224: 32, 299: 75}[size]
    if any(side is not None and side < smallest for side in shape[:2]):
        raise ValueError(f"{name} needs images of at least {smallest} pixels a side, not {shape[0]}×{shape[1]}")
    if not entry.application and weights == "pretrained":
        weights = "letters"
    named = not entry.application and weights in sources.SOURCES
    if weights not in ("pretrained", None) and not named and not Path(weights).exists():
        tasks = (
            "" if entry.application else f", and no source task of that name; there are {', '.join(sources.SOURCES)}"
        )
        raise FileNotFoundError(f"no weights file at {weights}{tasks}")

    require_tensorflow()
    network = _application(name, entry, weights) if entry.application else _pocket_network(name, weights)
    ends = _unit_ends(network, entry.unit)
    model = _chain(name, network, ends, _preprocessing(entry.mode, shape[2], network_channels), shape)
    source, licence = _source_task(name, weights), entry.licence
    if weights is None:
        source = licence = "none (random weights)"
    elif weights != "pretrained" and not named:
        source = licence = "not stated"
    classify = _source_classifier(name, entry, weights, model)
    return Backbone(name, entry.family, model, tuple(ends), source, licence, classify)


def wrap(
    model,
    preprocess=None,
    blocks=None,
    *,
    name=None,
    source_task="not stated",
    licence="not stated",
    source_classifier=None,
):
    """Make a backbone of any functional or sequential Keras model whose output is a feature map.

    Args:
        model: keras.Model with one input and one output, without a classifier.
        preprocess: What the model wants done to pixels 0–255: a Keras layer, a list of layers, a function made of Keras
            operations, or ``None`` where the model does it inside.
        blocks: Names of the layers that each end a block, from input to output, or a dict of block names to such layer
            names. The last block includes whatever follows. ``None`` makes the model a single block.
        name: Name of the backbone; ``None`` takes the model's.
        source_task: What the weights were trained on.
        licence: Licence and source of the weights.
        source_classifier: keras.Model, the classifier of the source task on the same layers: raw pixels 0–255 of the
            backbone's input shape to probabilities (N, source classes); ``None`` where there is none.

    Returns:
        Backbone

    Raises:
        ValueError: The model is of another kind or has several inputs or outputs, a block has a name that is taken, a
            layer does not exist, or it cannot end a block because more than one tensor leaves the model there; the
            message names the layers that can.
    """
    require_tensorflow()
    import keras

    if isinstance(model, keras.Sequential) and model.built:
        model = keras.Model(model.inputs, model.outputs, name=model.name)
    if not hasattr(model, "_nodes_by_depth"):
        raise ValueError(
            "a backbone is made of a functional Keras model, or of a sequential one with a known input shape, not of "
            f"{model!r}"
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            f"a backbone has one input and one output; {model.name!r} has {len(model.inputs)} and {len(model.outputs)}"
        )
    calls = _calls(model)
    named = dict(blocks) if isinstance(blocks, dict) else {end: end for end in blocks or ["model"]}
    if taken := [block for block in named if _TAKEN.fullmatch(block)]:
        raise ValueError(
            f"no block can be called {taken[0]!r}, which is the name of another part of a model; give it another name: "
            "blocks={name: layer, …}"
        )
    cuts = {calls[position].operation.name: position for position in _cuts(calls) if position > 0}
    ends = {}
    for block, end in named.items():
        if not blocks:
            ends[block] = len(calls) - 1
        elif end in cuts:
            ends[block] = cuts[end]
        else:
            raise ValueError(
                f"no block of {model.name!r} can end at {end!r}: there must be a layer of that name whose output is "
                f"the only tensor that goes on. Such layers are: {', '.join(cuts)}"
            )
    if list(ends.values()) != sorted(set(ends.values())):
        raise ValueError(f"blocks must be different and listed from input to output, not {list(named.values())}")
    layers = preprocess if isinstance(preprocess, list) else [preprocess] if preprocess else []
    name = name or model.name
    chain = _chain(name, model, ends, layers, model.input_shape[1:], stem=False)
    classify = None if source_classifier is None else lambda: source_classifier
    return Backbone(name, name, chain, tuple(ends), source_task, licence, classify)


def _plain(name):
    return re.sub(r"[^a-z0-9.]", "", str(name).lower())


def _source_task(name, weights="letters"):
    if _BACKBONES[name].application:
        return _IMAGENET
    task = sources.SOURCES.get(weights, sources.SOURCES["letters"])
    return f"{task.description} ({len(task.class_names)} classes, drawn by this project)"


def _weights_file(name):
    entry = _BACKBONES[name]
    if not entry.application:
        return zoo.weights_file(name)
    return Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models" / entry.file


def _pocket_network(name, weights):
    if weights is None:
        return zoo.build(name, (None, None, 1))
    # The same layers at any size: the classifier of the source task is left behind.
    network = zoo.build(name, (None, None, 1))
    network.set_weights(_pocket_pretrained(name, weights).get_layer(name).get_weights())
    return network


def _pocket_pretrained(name, weights):
    """The classifier of the source task as the zoo keeps it."""
    return zoo.load(name, source=weights) if weights in sources.SOURCES else zoo.load(name, weights)


def _application(name, entry, weights):
    """The network of keras.applications, for any image size, with the weights of its standard size."""
    import keras

    build = getattr(keras.applications, entry.application)
    source = "imagenet" if weights == "pretrained" else weights
    try:
        with warnings.catch_warnings():
            # MobileNet warns that an open image size takes the weights of 224, which is what is wanted.
            warnings.filterwarnings("ignore", message=".*input_shape.*")
            network = build(include_top=False, weights=source, input_shape=(None, None, 3), **entry.options)
            return network if source == "imagenet" else _as_pretrained(network)
    except Exception as error:
        if weights != "pretrained" or _weights_file(name).exists():
            raise
        raise FileNotFoundError(
            f"the ImageNet weights of {name} are not on this machine and could not be downloaded ({error}). Connect to "
            f"the network once, or put {entry.file} into {_weights_file(name).parent}, or use the pocket zoo, which "
            "ships with the package: pocket_vgg, pocket_resnet, pocket_inception, pocket_mobilenet."
        ) from None


def _source_classifier(name, entry, weights, model):
    """The function that puts the classifier of the source task back on a backbone's model, or ``None``."""
    if not entry.application:
        return None if weights is None else partial(_pocket_classifier, name, weights, model)
    # Keras keeps the whole network in a file of its own.
    file = _weights_file(name).with_name(re.sub(r"_no_?top(_v2)?", "", entry.file))
    return partial(_application_classifier, entry, file, model) if weights == "pretrained" and file.exists() else None


def _pocket_classifier(name, weights, model):
    import keras
    from keras import layers

    kernel, bias = _pocket_pretrained(name, weights).layers[-1].get_weights()
    output = layers.Dense(len(bias), activation="softmax", dtype="float32", name="source")
    probabilities = output(layers.GlobalAveragePooling2D(name="pool")(model.output))
    output.set_weights([kernel, bias])
    return keras.Model(model.input, probabilities, name=f"{model.name}_source")


def _application_classifier(entry, file, model):
    """The layers that the whole network of keras.applications has beyond the one without its top, on the backbone."""
    import keras

    build = getattr(keras.applications, entry.application)
    size = (entry.image_size, entry.image_size, 3)
    bare = build(include_top=False, weights=None, input_shape=size, **entry.options).layers
    whole = build(include_top=True, weights=str(file), input_shape=size, **entry.options).layers
    if type(whole[len(bare) - 1]) is not type(bare[-1]):  # ConvNeXt: the top replaces a layer
        raise ValueError(
            f"the classifier of {model.name} does not stand on the features of its backbone, so it cannot be put back"
        )
    x = model.output
    try:
        for layer in whole[len(bare) :]:
            x = layer(x)
    except ValueError as error:
        raise ValueError(
            f"the classifier of {model.name} needs images of {size[0]}×{size[1]} pixels, and the backbone was loaded "
            f"with input_shape {model.input_shape[1:]}: load it again with input_shape=({size[0]}, {size[1]}, "
            f"{model.input_shape[-1]})"
        ) from error
    return keras.Model(model.input, x, name=f"{model.name}_source")


def _as_pretrained(network):
    """Let weights from a file see the pixels that they were trained on.

    The ImageNet weights of EfficientNet carry standard deviations where Keras' Normalization expects variances. Keras
    makes up for it with one more layer, but only where it loads them itself, not from a file.
    """
    import keras

    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.weights:  # other families have constants there
            mean, variance, count = layer.get_weights()
            if np.allclose(variance, np.sqrt(_TORCH_VARIANCE) / 255):
                layer.set_weights([mean, variance**2, count])
                layer.finalize_state()
    return network


def _preprocessing(mode, channels, network_channels):
    """Layers that turn raw pixels into what a network wants; plain Keras, so that a saved model needs nothing else."""
    import keras
    from keras import layers

    steps: list[Callable] = []
    if channels == 1 and network_channels == 3:
        steps.append(lambda x: layers.Concatenate(name="gray_to_rgb")([x, x, x]))
    if channels == 3 and network_channels == 1:
        luminance = layers.Conv2D(1, 1, use_bias=False, trainable=False, name="rgb_to_gray")
        luminance.build((None, None, None, 3))
        luminance.set_weights([np.float32([0.299, 0.587, 0.114]).reshape(1, 1, 3, 1)])
        steps.append(luminance)
    if mode == "caffe":
        steps.append(lambda x: keras.ops.flip(x, axis=-1))
        steps.append(layers.Normalization(mean=_CAFFE_MEAN, variance=[1.0, 1.0, 1.0], name="subtract_mean"))
    elif mode == "torch":
        steps.append(layers.Normalization(mean=_TORCH_MEAN, variance=_TORCH_VARIANCE, name="normalize"))
    elif mode == "tf":
        steps.append(layers.Rescaling(1 / 127.5, offset=-1, name="rescale"))
    elif mode == "unit":
        steps.append(layers.Rescaling(1 / 255, name="rescale"))
    return steps


def _calls(model):
    """The calls of layers that a functional model consists of, in an order in which they can be computed.

    Not the layers: one layer may be called twice, and a nested model has been called elsewhere before.
    """
    depths = model._nodes_by_depth
    return [call for depth in sorted(depths, reverse=True) for call in depths[depth]]


def _cuts(calls):
    """Where a functional model hangs on a single tensor: positions in ``calls``."""
    position = {id(tensor): i for i, call in enumerate(calls) for tensor in call.outputs}
    reach = list(range(len(calls)))  # the last call that uses what each call gives
    for i, call in enumerate(calls):
        for tensor in call.input_tensors:
            reach[position[id(tensor)]] = i
    farthest, found = 0, []
    for i, call in enumerate(calls):
        if farthest <= i and len(call.outputs) == 1:
            found.append(i)
        farthest = max(farthest, reach[i])
    return found


def _unit_ends(model, pattern):
    """The position where each repeated unit ends, by name; the key ``stem`` comes first where something precedes."""
    calls = _calls(model)
    cuts = _cuts(calls)
    first, last = {}, {}
    for i, call in enumerate(calls):
        if match := re.search(pattern, call.operation.name):
            unit = match[1] if not match[1].isdigit() else f"block_{match[1]}"
            first.setdefault(unit, i)
            last[unit] = i
    ends = {}
    start = max(cut for cut in cuts if cut < next(iter(first.values())))
    if start > 0:
        ends[STEM_LAYER] = start
    for unit, position in last.items():
        ends[unit] = min(cut for cut in cuts if cut >= position)
    return ends


def _chain(name, network, ends, preprocessing, input_shape, stem=True):
    """One model a block, sharing the network's layers, called one after the other on raw pixels."""
    import keras

    calls = _calls(network)
    tensors = [network.input, *(calls[end].outputs[0] for end in list(ends.values())[:-1]), network.output]
    blocks = [keras.Model(a, b, name=block) for block, a, b in zip(ends, tensors, tensors[1:])]
    inputs = keras.Input(input_shape, name="pixels")
    x = inputs
    if preprocessing:
        y = keras.Input(input_shape, name="pixels")
        z = y
        for step in preprocessing:
            z = step(z)
        x = keras.Model(y, z, name=PREPROCESS_LAYER)(x)
    for block in blocks:
        x = block(x)
    if stem:
        ends.pop(STEM_LAYER, None)
    return keras.Model(inputs, x, name=name)
