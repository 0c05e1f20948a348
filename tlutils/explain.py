"""What a network looks at, and which images it mixes up: arrays and positions, which :mod:`tlutils.plots` draws.

A heat map says where the evidence lies that this network uses. It does not say that the evidence is a good reason.
"""

import weakref
from dataclasses import dataclass

import numpy as np

from tlutils.inspection import ending
from tlutils.runtime import require_tensorflow
from tlutils.surgery import _listed

_PROBABILITIES = ("softmax", "sigmoid")

# Models with more than one output, by model and layer: a new one costs seconds, and adds nodes to the shared layers.
_tapped = weakref.WeakKeyDictionary()


def grad_cam(model, images, block=None, target=None, *, upsample=True, batch_size=32):
    """Grad-CAM (Selvaraju et al., 2017): where in the image the evidence for a class lies, seen from one block.

    The gradient of the class's logit, averaged over all positions, is the weight of each channel of the block's feature
    map; the map is the weighted sum of the channels, and what speaks against the class (negative values) is cut off. On
    the last block of a network with average pooling and a linear head it is exact: the map, before the cut, adds up to
    the logit without its bias.

    Args:
        model: A classifier or regressor of :mod:`tlutils.models`, or any functional or sequential Keras model, nested
            or not, with channels last. A final softmax or sigmoid is left out.
        images: Raw pixels 0–255, shape (N, height, width, channels), or :class:`~tlutils.data.Examples`.
        block: Name of a block of the backbone, or of any layer that gives a feature map, also inside a nested model; of
            two with the same name the outer one, or the first. ``None`` takes the last.
        target: The class (or output) to explain: a number, or one an image, shape (N,). ``None`` takes the one that
            the model predicts.
        upsample: Whether to enlarge the maps to the size of the images (bilinear).
        batch_size: Images a step.

    Returns:
        ndarray: float32, at least 0, shape (N, height, width) of the images, or of the feature map without
        ``upsample``. In units of the logit: maps of different images can be compared.

    Raises:
        ValueError: The model has no such block (those there are, are listed), its output is no feature map or does not
            reach the model's output, or a target is no output of the model.
    """
    tf = require_tensorflow()
    pixels = _pixels(images)
    name = _last_map(model) if block is None else block
    network, pre_activation = _tap(model, name)
    target = None if target is None else _targets(target, len(pixels), model.output_shape[-1])
    maps = []
    for start in range(0, len(pixels), batch_size):
        batch = tf.constant(pixels[start : start + batch_size], "float32")
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(batch)  # where all layers are frozen, nothing else would be
            features, output = network(batch, training=False)
            scores = tf.cast(pre_activation(output), "float32")
            chosen = tf.argmax(scores, axis=-1) if target is None else target[start : start + batch_size]
            score = tf.reduce_sum(tf.gather(scores, chosen, axis=1, batch_dims=1))
        slope = tape.gradient(score, features)
        if slope is None:
            raise ValueError(f"the output of {name!r} does not reach the output of {model.name!r}")
        weights = tf.reduce_mean(tf.cast(slope, "float32"), axis=(1, 2), keepdims=True)
        cam = tf.nn.relu(tf.reduce_sum(weights * tf.cast(features, "float32"), axis=-1, keepdims=True))
        if upsample:
            cam = tf.image.resize(cam, pixels.shape[1:3])
        maps.append(cam.numpy()[..., 0])
    return np.concatenate(maps)


def occlusion(model, images, target=None, *, patch=8, stride=4, fill=None, score="probability", batch_size=64):
    """Occlusion maps (Zeiler and Fergus, 2014): how far the score of a class falls when a part of the image is covered.

    A square slides over the image; the last square of each row and column ends at the border. Each pixel gets the mean
    fall over all squares that cover it. It needs no gradient and no look inside, but one prediction for each square.

    Args:
        model: Raw pixels to logits or probabilities (N, classes), or to numbers (N, outputs).
        images: Raw pixels 0–255, shape (N, height, width, channels), or :class:`~tlutils.data.Examples`.
        target: The class (or output) to explain: a number, or one an image; ``None`` takes the largest output.
        patch: Side of the square, in pixels.
        stride: Pixels from one square to the next, at most ``patch``, so that every pixel is covered.
        fill: Value of the covered pixels, 0–255, or ``None`` for the mean of each image, channel by channel. Zeiler and
            Fergus take gray, which is much light on a black background.
        score: ``"probability"`` (softmax of the outputs where they are logits) or ``"output"`` (as they are; take it
            for a regression, and for a single logit).
        batch_size: Images a step.

    Returns:
        ndarray: float32, shape (N, height, width): positive where the image is evidence for the class, negative where
        it is evidence against it.

    Raises:
        ValueError: ``patch``, ``stride``, ``score`` or a target is of no use; the message says why.
    """
    require_tensorflow()
    pixels = np.asarray(_pixels(images), "float32")
    count, height, width, _ = pixels.shape
    if not 1 <= patch <= min(height, width):
        raise ValueError(f"patch must be from 1 to {min(height, width)} pixels, the side of the images, not {patch!r}")
    if not 1 <= stride <= patch:
        raise ValueError(f"stride must be from 1 to {patch}, the patch, so that every pixel is covered, not {stride!r}")
    if score not in ("probability", "output"):
        raise ValueError(f"score must be 'probability' or 'output', not {score!r}")

    def scores(batch):
        outputs = np.asarray(model.predict(batch, batch_size=batch_size, verbose=0), float)
        if score == "output" or ending(model) in _PROBABILITIES:
            return outputs
        if outputs.shape[1] == 1:
            raise ValueError("of a single output the softmax is always 1: say score='output'")
        odds = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)

    whole = scores(pixels)
    target = whole.argmax(axis=1) if target is None else _targets(target, count, whole.shape[1])
    rows = np.arange(count)
    value = pixels.mean(axis=(1, 2), keepdims=True) if fill is None else fill
    places = [(y, x) for y in _starts(height, patch, stride) for x in _starts(width, patch, stride)]
    fall, covered = np.zeros((count, height, width)), np.zeros((height, width))
    at_once = max(1, 512 // count)  # squares whose images are predicted together
    for first in range(0, len(places), at_once):
        some = places[first : first + at_once]
        batch = np.repeat(pixels[None], len(some), axis=0)
        for copy, (y, x) in zip(batch, some):
            copy[:, y : y + patch, x : x + patch] = value
        found = scores(batch.reshape(-1, *pixels.shape[1:])).reshape(len(some), count, -1)
        for after, (y, x) in zip(found, some):
            fall[:, y : y + patch, x : x + patch] += (whole[rows, target] - after[rows, target])[:, None, None]
            covered[y : y + patch, x : x + patch] += 1
    return (fall / covered).astype("float32")


def nearest(backbone, queries, known, n=5, *, pooling="avg", cache_dir=None):
    """The images of a set that look most like some others to a backbone, such as the training images behind a mistake.

    Nearest is the smallest Euclidean distance between the features as they are.

    Args:
        backbone: A :class:`~tlutils.backbones.Backbone`, or any keras.Model that takes raw pixels 0–255.
        queries: :class:`~tlutils.data.Examples` to look up.
        known: Examples to look in, such as ``task.train``.
        n: How many for each.
        pooling: As for :func:`tlutils.features.extract`.
        cache_dir: As there.

    Returns:
        ``(positions, distances)``: both of shape (queries, n), the nearest first; positions in ``known``.

    Raises:
        ValueError: ``n`` is not from 1 to the number of known images.
    """
    from sklearn.neighbors import NearestNeighbors

    from tlutils import features

    if isinstance(n, bool) or not isinstance(n, int | np.integer) or not 1 <= n <= len(known):
        raise ValueError(f"n must be a whole number from 1 to {len(known)}, the known images, not {n!r}")
    there, here = (
        features.extract(backbone, examples, cache_dir, pooling=pooling).reshape(len(examples), -1).astype("float64")
        for examples in (known, queries)
    )
    distances, positions = NearestNeighbors(n_neighbors=n, algorithm="brute").fit(there).kneighbors(here)
    return positions, distances


@dataclass(frozen=True)
class Confusion:
    """One kind of mistake.

    Attributes:
        true: Name of the true class.
        predicted: Name of the class that was predicted.
        count: How many images.
        positions: Where some of them are, the surest mistake first.
    """

    true: str
    predicted: str
    count: int
    positions: np.ndarray


def most_confused(report, pairs=4, n=6):
    """The most frequent kinds of mistakes, and where to look for them.

    Args:
        report: A :class:`~tlutils.evaluation.Report` of a classifier.
        pairs: How many kinds.
        n: How many images of each kind at most.

    Returns:
        list of Confusion: the most frequent first.
    """
    found = []
    for true, predicted, count in report.most_confused(pairs):
        i, j = (report.class_names.index(name) for name in (true, predicted))
        positions = np.flatnonzero((report.labels == i) & (report.predictions == j))
        order = np.argsort(-report.probabilities[positions, j], kind="stable")
        found.append(Confusion(true, predicted, count, positions[order][:n]))
    return found


# --- models with the output of a block --------------------------------------------------------------------------------


def _tap(model, name):
    """A model on the same layers that also gives what leaves a block, and the function that completes its scores.

    Returns:
        ``(network, scores)``: pixels to ``[features, x]``, and the function of x that gives the scores.
    """
    import keras

    if not _is_graph(model):
        raise ValueError(f"{model!r} is no functional or sequential Keras model that is built: it has no graph to open")
    known = _tapped.setdefault(model, {})
    if name not in known:
        final = _final(model)
        alone = isinstance(final, keras.layers.Softmax | keras.layers.Activation)
        # Without its last activation: where a softmax is sure of itself, its slope is zero.
        skip = ending(model) in _PROBABILITIES and (alone or isinstance(final, keras.layers.Dense))
        inputs, features, output = _opened(model, name, final if skip else None)
        known[name] = keras.Model(inputs, [features, output]), final if skip and not alone else None
    network, dense = known[name]
    if dense is None:
        return network, lambda x: x

    def scores(x):
        logits = keras.ops.matmul(x, keras.ops.cast(dense.kernel, x.dtype))
        return logits if dense.bias is None else logits + keras.ops.cast(dense.bias, x.dtype)

    return network, scores


def _opened(model, name, final=None):
    """Inputs of a copy of the graph on the same layers, what leaves the layer ``name``, and the output.

    With ``final``, what enters that layer takes the place of the output. Without a name the features are ``None``.
    """
    import keras

    graph = _graph(model)
    if (name is not None and not _holds(graph, name)) or len(graph.outputs) != 1:
        some = _listed(_map_names(graph))
        raise ValueError(f"{model.name!r} has no block or layer {name!r}; those with a feature map are: {some}")
    inside = None if any(layer.name == name for layer in graph.layers) else name
    taken, nested = {}, {}

    def call(layer, *args, **kwargs):
        if layer is final:
            taken["before"] = args[0]
        wanted = inside if inside is not None and _is_graph(layer) and _holds(layer, inside) else None
        if wanted is not None or (_is_graph(layer) and final is not None and _final(layer) is final):
            if id(layer) not in nested:
                inputs, features, output = _opened(layer, wanted, final)
                outputs = output if wanted is None else [features, output]
                nested[id(layer)] = keras.Model(inputs, outputs, name=layer.name)
            output = nested[id(layer)](*args, **kwargs)
            if wanted is not None:
                features, output = output
                taken.setdefault("features", features)
        else:
            output = layer(*args, **kwargs)
        if inside is None and layer.name == name:
            taken.setdefault("features", output)
        return output

    copy = keras.models.clone_model(graph, clone_function=lambda layer: layer, call_function=call)
    output = taken.get("before", copy.outputs[0])
    if name is None:
        return copy.inputs, None, output
    features = taken.get("features", copy.inputs[0])
    if len(getattr(features, "shape", ())) != 4:
        raise ValueError(
            f"what leaves {name!r} is no feature map (N, height, width, channels); those with one are: "
            f"{_listed(_map_names(graph))}"
        )
    return copy.inputs, features, output


def _final(model):
    """The layer that gives a model's output, also inside a nested model."""
    final = model.layers[-1]
    return _final(final) if _is_graph(final) else final


def _graph(model):
    """A functional model, also of a sequential one."""
    import keras

    return keras.Model(model.inputs, model.outputs) if isinstance(model, keras.Sequential) else model


def _is_graph(layer):
    import keras

    return hasattr(layer, "_nodes_by_depth") or (isinstance(layer, keras.Sequential) and layer.built)


def _holds(model, name):
    return any(layer.name == name or (_is_graph(layer) and _holds(layer, name)) for layer in model.layers)


def _map_names(model):
    """Names of the layers that give a feature map, from input to output; a nested model comes after what is in it."""
    names = []
    for layer in model.layers:
        if _is_graph(layer):
            names += _map_names(layer)
        if type(layer).__name__ != "InputLayer" and len(getattr(_output(layer), "shape", ())) == 4:
            names.append(layer.name)
    return list(dict.fromkeys(names))


def _output(layer):
    try:
        return layer.output
    except (AttributeError, ValueError):  # never called in a graph
        return None


def _last_map(model):
    """Name of the last layer that gives a feature map of more than one position, the outermost first."""
    if not _is_graph(model):
        raise ValueError(f"{model!r} is no functional or sequential Keras model that is built: it has no graph to open")
    for layer in reversed(model.layers):
        shape = getattr(_output(layer), "shape", ())
        if type(layer).__name__ != "InputLayer" and len(shape) == 4 and tuple(shape[1:3]) != (1, 1):
            return layer.name
        if _is_graph(layer) and (names := _map_names(layer)):
            return names[-1]
    raise ValueError(f"no layer of {model.name!r} gives a feature map (N, height, width, channels)")


# --- arguments --------------------------------------------------------------------------------------------------------


def _pixels(images):
    pixels = np.asarray(images.images() if hasattr(images, "images") else images)
    if pixels.ndim != 4 or len(pixels) == 0:
        raise ValueError(f"images must have shape (N, height, width, channels) with N at least 1, not {pixels.shape}")
    return pixels


def _targets(target, count, outputs):
    target = np.asarray(target)
    if target.shape not in ((), (count,)) or not np.issubdtype(target.dtype, np.integer):
        raise ValueError(f"target must be a whole number, or one an image, shape ({count},), not {target!r}")
    if target.min() < 0 or target.max() >= outputs:
        wrong = target.min() if target.min() < 0 else target.max()
        raise ValueError(f"the model has outputs 0 to {outputs - 1}, none with number {wrong}")
    return np.broadcast_to(target, count).astype("int64")


def _starts(side, patch, stride):
    """Where the squares begin along one side; the last one ends at the border."""
    return sorted({*range(0, side - patch + 1, stride), side - patch})
