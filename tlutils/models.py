"""Classifiers and regressors on a backbone: heads, freezing, truncating, and surgery (:mod:`tlutils.surgery`).

A model is a chain: raw pixels → backbone → pooling → hidden layers → dropout → output. Freezing and unfreezing work
block by block, also on a model that was saved and loaded again.
"""

import math
from dataclasses import dataclass, replace
from numbers import Integral

from tlutils.backbones import PREPROCESS_LAYER, STEM_LAYER
from tlutils.runtime import require_tensorflow
from tlutils.surgery import deepen, deepenable, replace_layer, widen, widenable  # noqa: F401 (for the reader)

OUTPUT_LAYER = "output"


@dataclass(frozen=True)
class Head:
    """What stands on the backbone.

    Attributes:
        hidden: Widths of the hidden layers (ReLU), from the backbone to the output.
        pooling: ``"avg"`` or ``"max"`` over all positions of the feature map, or ``"flatten"``, which keeps each
            position apart and so needs a fixed image size.
    """

    hidden: tuple[int, ...] = ()
    pooling: str = "avg"


HEADS = {
    "linear": Head(),
    "mlp": Head(hidden=(256,)),
    "flatten": Head(hidden=(1024, 512), pooling="flatten"),  # the head of most VGG16 tutorials
}


@dataclass(frozen=True)
class TrainableReport:
    """What trains after :func:`freeze` or :func:`unfreeze`.

    Attributes:
        rows: ``(part, trainable, frozen)`` from input to output: the parts of the backbone by name, then ``head``;
            both are numbers of parameters.
        trainable: Sum of the trainable parameters.
        frozen: Sum of the others, BatchNorm's moving averages included.
    """

    rows: tuple[tuple[str, int, int], ...]

    @property
    def trainable(self):
        return sum(row[1] for row in self.rows)

    @property
    def frozen(self):
        return sum(row[2] for row in self.rows)

    def __str__(self):
        width = max(len(row[0]) for row in (*self.rows, ("total",)))
        lines = [f"{'part':<{width}}  {'trainable':>12}  {'frozen':>12}"]
        lines += [f"{part:<{width}}  {a:>12,}  {b:>12,}" for part, a, b in self.rows]
        lines.append(f"{'total':<{width}}  {self.trainable:>12,}  {self.frozen:>12,}")
        return "\n".join(lines)


def classifier(backbone, num_classes, head="linear", dropout=0.2):
    """A classifier on a backbone.

    The backbone's own model becomes part of it, not a copy: what trains in the classifier changes in the backbone, and
    in every other model made from it.

    Args:
        backbone: A :class:`~tlutils.backbones.Backbone`.
        num_classes: Number of classes, at least 2.
        head: ``"linear"`` (average pooling, one layer), ``"mlp"`` (one hidden layer of 256), ``"flatten"`` (the
            Flatten–1024–512 head of most tutorials), or a :class:`Head`.
        dropout: Share of features dropped before the output, during training only.

    Returns:
        keras.Model: raw pixels 0–255, shape (N, height, width, channels), to logits (N, num_classes).

    Raises:
        ValueError: Fewer than two classes, an unknown head, or a flattening head without a fixed image size.
    """
    if num_classes < 2:
        raise ValueError(f"a classifier needs at least 2 classes, not {num_classes}")
    return _model(backbone, num_classes, head, dropout)


def regressor(backbone, num_outputs=1, head="linear", dropout=0.0):
    """A regressor on a backbone: like :func:`classifier`, but its outputs are numbers, shape (N, num_outputs)."""
    if num_outputs < 1:
        raise ValueError(f"a regressor needs at least 1 output, not {num_outputs}")
    return _model(backbone, num_outputs, head, dropout)


def _model(backbone, outputs, head, dropout):
    require_tensorflow()
    import keras
    from keras import layers

    if not isinstance(head, Head):
        if head not in HEADS:
            raise ValueError(f"unknown head {head!r}; choose from {', '.join(HEADS)} or give a Head(...)")
        head = HEADS[head]
    poolings = {"avg": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D, "flatten": layers.Flatten}
    if head.pooling not in poolings:
        raise ValueError(f"unknown pooling {head.pooling!r}; choose from {', '.join(poolings)}")
    if head.pooling == "flatten" and None in backbone.model.output_shape[1:]:
        raise ValueError(
            f"a flattening head needs a fixed image size, and {backbone.name} was loaded with input_shape "
            f"{backbone.input_shape}"
        )
    inputs = keras.Input(backbone.input_shape, name="pixels")
    x = poolings[head.pooling](name="pool")(backbone.model(inputs))
    for i, width in enumerate(head.hidden, start=1):
        x = layers.Dense(width, activation="relu", kernel_initializer="he_normal", name=f"hidden{i}")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    # float32 even where the rest computes in float16: a softmax over float16 logits loses small probabilities.
    x = layers.Dense(outputs, dtype="float32", name=OUTPUT_LAYER)(x)
    return keras.Model(inputs, x, name=f"{backbone.model.name}_model")


def backbone_layer(model):
    """The layer of a model from this module that is its backbone.

    Raises:
        ValueError: The model has none.
    """
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.Model):
            return layer
    raise ValueError(f"{model.name!r} holds no backbone; build it with models.classifier or models.regressor")


def all_layers(model):
    """Every layer of a model that holds no further layers, those inside nested models included, in order."""
    for layer in getattr(model, "layers", ()):
        if getattr(layer, "layers", None):
            yield from all_layers(layer)
        else:
            yield layer


def block_names(model):
    """Names of the backbone's blocks in a model from this module, from input to output."""
    return tuple(part.name for part in _parts(model) if part.name not in (PREPROCESS_LAYER, STEM_LAYER))


def freeze(model):
    """Let only the head train. Compile the model again afterwards, or nothing changes.

    Returns:
        TrainableReport
    """
    return unfreeze(model, 0)


def unfreeze(model, blocks):
    """Let the last blocks of the backbone train, and the head; BatchNorm layers stay frozen.

    Setting ``layer.trainable = False`` on each BatchNorm layer is the only way that holds in every Keras 3 release:
    ``backbone(x, training=False)`` is ignored by ``fit`` in functional models of Keras 3.3–3.15 (see the chapter
    on fine-tuning). The model must be compiled again afterwards.

    Args:
        model: A classifier or regressor from this module.
        blocks: Number of blocks to train counted from the output (``0`` none, ``-1`` all and the stem too), or the
            name of the first block to train.

    Returns:
        TrainableReport: trainable and frozen parameters, block by block.

    Raises:
        ValueError: ``blocks`` is out of range or names no block of this backbone; the message lists the names.
    """
    first = _first_trained(model, blocks)
    backbone = backbone_layer(model)
    backbone.trainable = True  # a frozen parent hides whatever trains inside it
    for i, part in enumerate(_parts(model)):
        _set_trainable(part, i >= first)
    for layer in _head_layers(model):
        layer.trainable = True
    return trainable_report(model)


def _set_trainable(part, trainable):
    """Set the flag on a part of the backbone and on each layer inside it, BatchNorm excepted."""
    import keras

    layers = inner_layers(part)
    for layer in layers:  # one by one, or a layer that was frozen by hand might stay frozen
        layer.trainable = trainable
    for layer in layers:  # at last, because a layer hands its own flag on to those that it holds
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def inner_layers(layer):
    """A layer or model and every layer inside it, also those that another one holds as attributes."""
    # Keras' public ``layers`` belongs to models alone; a TimeDistributed or a layer of one's own has no such list.
    return layer._flatten_layers()


def trainable_report(model):
    """How many parameters train now, part by part.

    Returns:
        TrainableReport
    """

    def row(name, layers):
        trainable = sum(_size(layer.trainable_weights) for layer in layers)
        return name, trainable, sum(_size(layer.weights) for layer in layers) - trainable

    parts = [row(part.name, [part]) for part in _parts(model)]
    return TrainableReport((*parts, row("head", _head_layers(model))))


def _size(weights):
    return sum(math.prod(weight.shape) for weight in weights)


def truncate(backbone, block):
    """Cut a backbone off after one of its blocks.

    Args:
        backbone: A Backbone.
        block: Name of the last block to keep, or how many blocks to keep, counted from the input.

    Returns:
        Backbone: shares the kept layers with the original.

    Raises:
        ValueError: There is no such block; the message lists the names.
    """
    import keras

    kept = backbone.blocks.index(block) + 1 if block in backbone.blocks else block
    if isinstance(kept, bool) or not isinstance(kept, Integral) or not 1 <= kept <= len(backbone.blocks):
        raise ValueError(
            f"cannot cut {backbone.name} after block {block!r}; its {len(backbone.blocks)} blocks are "
            f"{', '.join(backbone.blocks)}"
        )
    blocks = backbone.blocks[:kept]
    inputs = keras.Input(backbone.input_shape, name="pixels")
    x = inputs
    for layer in backbone.model.layers[1:]:
        x = layer(x)
        if layer.name == blocks[-1]:
            break
    model = keras.Model(inputs, x, name=backbone.model.name)
    return replace(backbone, model=model, blocks=blocks, source_classifier=None)


def split(model, blocks):
    """Split a model at the frozen boundary, into two models that share its layers.

    Args:
        model: A classifier or regressor from this module.
        blocks: As for :func:`unfreeze`: what comes after the boundary.

    Returns:
        ``(frozen, tail)``: raw pixels to the tensor that enters the first trained part, and that tensor to the model's
        output. ``frozen`` is ``None`` where nothing but preprocessing would be in it and ``tail`` is then the whole
        model.
    """
    import keras

    parts = _parts(model)
    first = _first_trained(model, blocks)
    if all(part.name == PREPROCESS_LAYER for part in parts[:first]):
        return None, model
    inputs = keras.Input(model.input_shape[1:], name="pixels")
    x = inputs
    for part in parts[:first]:
        x = part(x)
    frozen = keras.Model(inputs, x, name="frozen")
    boundary = keras.Input(frozen.output_shape[1:], dtype=x.dtype, name="boundary")
    x = boundary
    for layer in (*parts[first:], *_head_layers(model)):
        x = layer(x)
    return frozen, keras.Model(boundary, x, name="tail")


def _parts(model):
    """The chain inside the backbone: preprocess, stem, blocks."""
    return backbone_layer(model).layers[1:]


def _head_layers(model):
    return model.layers[model.layers.index(backbone_layer(model)) + 1 :]


def _first_trained(model, blocks):
    """Index into ``_parts`` of the first part that trains."""
    names = [part.name for part in _parts(model)]
    units = block_names(model)
    listed = f"its {len(units)} blocks are, from input to output: {', '.join(units)}"
    if isinstance(blocks, str):
        if blocks not in units:
            raise ValueError(f"{model.name!r} has no block {blocks!r}; {listed}")
        return names.index(blocks)
    if isinstance(blocks, bool) or not isinstance(blocks, Integral) or not -1 <= blocks <= len(units):
        raise ValueError(
            f"blocks must be a block's name or a number from -1 (all) to {len(units)}, not {blocks!r}; {listed}"
        )
    if blocks == -1:
        return 1 if names[0] == PREPROCESS_LAYER else 0
    return len(names) - blocks
