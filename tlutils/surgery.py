"""Surgery on trained networks: more channels, more layers, another layer, without losing what was learned.

Each function takes a Backbone (or a whole model of :mod:`tlutils.models`) and returns a new one. Weights are copied,
not shared: whatever happens to the result, the original stays as it is. :func:`widen` and :func:`deepen` keep what the
network computes (Net2Net: Chen, Goodfellow and Shlens, 2016), so that training goes on from where it stood.

How it works: a network is a graph of layers, in which :func:`widen` follows the new channels from the layer that makes
them to every layer that takes them in. For each tensor it holds an array of *origins*: new channel i is a copy of old
channel ``origins[i]``. Layers that treat every channel alike hand the origins on, and a convolution or a dense layer
ends the journey, because it sums over its inputs: there each copy counts 1/n of the old channel, n being their number.
"""

import difflib
from dataclasses import replace
from numbers import Integral

import numpy as np

from tlutils.backbones import Backbone, _calls
from tlutils.runtime import require_tensorflow

# Layers that do the same to every channel, whatever the others are.
_CHANNELWISE = (
    *(f"{kind}Pooling{n}D" for kind in ("Max", "Average", "GlobalMax", "GlobalAverage") for n in (1, 2, 3)),
    *(f"{kind}{n}D" for kind in ("ZeroPadding", "UpSampling", "Cropping", "SpatialDropout") for n in (1, 2, 3)),
    *("Dropout", "GaussianDropout", "AlphaDropout", "GaussianNoise", "ActivityRegularization", "Identity"),
    *("ReLU", "LeakyReLU", "ELU"),
)
_MERGING = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")  # channel by channel
# Layers after which a tensor still lies in the interval in which it lay before: it holds 0, and so means and maxima.
_KEEPING = (*(name for name in _CHANNELWISE if "Pool" in name or "Pad" in name), "Dropout", "Flatten")


class _Blocked(Exception):
    """Why new channels cannot be followed any further; it completes "its channels …"."""


def widen(model, layer, width, *, noise=0.0, seed=0):
    """Give a convolution or dense layer more channels; the network computes what it computed before.

    Net2WiderNet: each new channel is a copy of one of the old ones, drawn at random, and in the layers that take them
    in the weights of a channel are divided by the number of its copies. The copies go through BatchNorm, activations,
    pooling, dropout, depthwise convolutions, flattening and concatenation to every such layer.

    Copies with equal weights get equal gradients and stay equal for ever, unless dropout tells them apart. ``noise``
    breaks the tie, and the output is then no longer exactly what it was.

    Args:
        model: A :class:`~tlutils.backbones.Backbone`, or a classifier or regressor of :mod:`tlutils.models`.
        layer: Name of a convolution, separable convolution or dense layer inside it; :func:`widenable` lists them.
        width: Its new number of channels (units).
        noise: Standard deviation of what is added to the weights that make a copy, as a share of the standard deviation
            of the layer's weights. The old channels get none.
        seed: Seed of the draw and of the noise.

    Returns:
        The same kind as ``model``, with weights of its own; compile it before you train it.

    Raises:
        ValueError: There is no such layer (near names are listed), it has no channels of its own, ``width`` is not
            larger, ``noise`` is negative, or the channels meet a shortcut, leave the network as its output, or reach a
            layer that mixes channels; the message says where, why, and which layers can be widened instead.
    """
    network, wrap = _open(model)
    target, _ = _find(network, layer)
    if not _widens(target):
        raise ValueError(
            f"{layer!r} is a {type(target).__name__}, which has no width of its own: widen the layer before it. "
            f"{_choices('widened', widenable(model))}"
        )
    old = _width(target)
    if isinstance(width, bool) or not isinstance(width, Integral) or width <= old:
        raise ValueError(f"{layer!r} has {old} channels; width must be a larger whole number, not {width!r}")
    if not noise >= 0:
        raise ValueError(f"noise must be 0 or a positive number, not {noise!r}")
    draw = np.random.default_rng(seed)
    origins = np.concatenate([np.arange(old), draw.integers(old, size=width - old)])
    try:
        changes = _widening(network, target, origins)
    except _Blocked as reason:
        raise ValueError(
            f"cannot widen {layer!r} of {network.name}: its channels {reason}. {_choices('widened', widenable(model))}"
        ) from None

    def with_noise(weights):
        weights = copied(weights)
        kernel = weights[_kernel(target)]
        kernel[..., old:] += noise * kernel[..., :old].std() * draw.standard_normal(kernel[..., old:].shape)
        return weights

    config, copied = changes[id(target)]
    if noise:
        changes[id(target)] = config, with_noise
    return wrap(_Copy(changes=changes).of(network))


def widenable(model):
    """Names of the layers that :func:`widen` can widen, from input to output."""
    network, _ = _open(model)
    found = []
    for layer in _leaves(network):
        if _widens(layer):
            try:
                _widening(network, layer, np.append(np.arange(_width(layer)), 0))
            except _Blocked:
                continue
            found.append(layer.name)
    return tuple(found)


def deepen(model, after, *, kernel_size=3, batch_norm=None, name=None):
    """Insert a layer that begins as the identity; the network computes what it computed before.

    Net2DeeperNet: after a convolutional layer comes a convolution whose kernel passes every channel on unchanged, after
    a dense one a dense layer with the identity matrix; then BatchNorm where the network has it, and the activation
    once more. That needs an activation φ with φ(φ(x)) = φ(x), such as ReLU.

    BatchNorm begins as the identity in inference: mean 0, variance 1, and a scale that undoes the ε it adds to the
    variance. In training, where it takes the statistics of the batch, it is none; freeze it, as
    :func:`~tlutils.models.unfreeze` does.

    Args:
        model: A :class:`~tlutils.backbones.Backbone`, or a classifier or regressor of :mod:`tlutils.models`.
        after: Name of the layer whose output the new one takes: an activation, a layer with an activation inside, or
            pooling, dropout, padding or concatenation of such; :func:`deepenable` lists them.
        kernel_size: Side of the convolution's kernel; odd, so that it has a centre.
        batch_norm: Whether BatchNorm comes after the new layer; ``None`` does as the block (or the head) around it.
        name: Name of the new layer, ``None`` makes one from ``after``. BatchNorm and activation get ``_bn`` and
            ``_activation`` appended.

    Returns:
        The same kind as ``model``, with weights of its own; compile it before you train it.

    Raises:
        ValueError: There is no such layer (near names are listed), a name is taken, the kernel has no centre, or the
            output of ``after`` is not that of such an activation; the message says which layers will do.
    """
    network, wrap = _open(model)
    target, part = _find(network, after)
    if (
        isinstance(kernel_size, bool)
        or not isinstance(kernel_size, Integral)
        or kernel_size < 1
        or kernel_size % 2 == 0
    ):
        raise ValueError(f"kernel_size must be odd, such as 1, 3 or 5, not {kernel_size!r}")
    activation = _last_activation(part, target)
    if activation is None:
        raise ValueError(
            f"cannot insert a layer after {after!r} of {network.name}: what leaves it is not the output of an "
            "activation φ with φ(φ(x)) = φ(x), such as ReLU, so the new layer's own activation would change it. "
            f"{_choices('deepened after', deepenable(model))}"
        )
    taken = {layer.name for layer in part.layers}
    if name is None:
        name = next(n for n in (f"{after}_deeper{i}" for i in ("", *range(2, 99))) if n not in taken)
    elif clash := {name, f"{name}_bn", f"{name}_activation"} & taken:
        raise ValueError(f"{part.name!r} already has a layer {sorted(clash)[0]!r}; choose another name")
    norms = [layer for layer in part.layers if type(layer).__name__ == "BatchNormalization"]
    with_norm = bool(norms) if batch_norm is None else batch_norm
    return wrap(
        _Copy(after={id(target): lambda x: _identity(x, name, kernel_size, activation, with_norm, norms)}).of(network)
    )


def deepenable(model):
    """Names of the layers after which :func:`deepen` can insert one, from input to output."""
    network, _ = _open(model)
    return tuple(layer.name for part in _networks(network) for layer in part.layers if _last_activation(part, layer))


def replace_layer(model, name, new_layer):
    """Put another layer in the place of one inside a network; all other layers keep their weights.

    Args:
        model: A :class:`~tlutils.backbones.Backbone`, or a classifier or regressor of :mod:`tlutils.models`.
        name: Name of the layer to replace.
        new_layer: A Keras layer, called on the tensors that the old one was called on. It is used itself, not copied,
            with its weights if it has any, and begins with random ones otherwise.

    Returns:
        The same kind as ``model``, with weights of its own; compile it before you train it.

    Raises:
        ValueError: There is no such layer (near names are listed), the new layer's name is taken, it cannot be called
            on those tensors, or its output has another shape than the old one's.
    """
    network, wrap = _open(model)
    target, part = _find(network, name)
    if new_layer.name != name and new_layer.name in {layer.name for layer in part.layers}:
        raise ValueError(f"{part.name!r} already has a layer {new_layer.name!r}; give the new one another name")
    _check_fit(target, part, new_layer)
    return wrap(_Copy(replaced={id(target): new_layer}).of(network))


def _check_fit(target, part, new_layer):
    """Call both layers on tensors like those that the old one takes; where a side is open, on sides of 37."""
    import keras

    call = next(call for call in _calls(part) if call.operation is target)
    x = [
        keras.Input(
            batch_shape=(None, *(37 if side is None else side for side in tensor.shape[1:])), dtype=tensor.dtype
        )
        for tensor in call.input_tensors
    ]
    x = x if len(x) > 1 else x[0]
    wanted = target.compute_output_spec(x).shape
    try:
        found = new_layer(x).shape
    except (ValueError, TypeError) as error:
        raise ValueError(f"{new_layer.name!r} cannot replace {target.name!r}: {error}") from error
    if found != wanted:
        raise ValueError(
            f"{new_layer.name!r} cannot replace {target.name!r}: from {call.input_tensors[0].shape} it makes {found} "
            f"and not {wanted}, for which the layers after it were built (open sides were tried with 37)"
        )


# --- finding layers ---------------------------------------------------------------------------------------------------


def _open(model):
    """``(network, wrap)``: the Keras model inside, and how to make a changed one the same kind as ``model``."""
    require_tensorflow()
    if isinstance(model, Backbone):
        return model.model, lambda network: replace(model, model=network)
    if not _functional(model):
        raise ValueError(f"surgery needs a Backbone or a functional Keras model, not {model!r}")
    return model, lambda network: network


def _functional(layer):
    return hasattr(layer, "_nodes_by_depth")


def _networks(network):
    """The model itself and every functional model inside it."""
    yield network
    for layer in network.layers:
        if _functional(layer):
            yield from _networks(layer)


def _leaves(network):
    """Layers that are no functional models, of the model and of those inside it, in order."""
    for layer in network.layers:
        yield from _leaves(layer) if _functional(layer) else [layer]


def _find(network, name):
    """``(layer, part)``: the layer of this name, and the functional model that calls it."""
    found = [(x, part) for part in _networks(network) for x in part.layers if x.name == name and not _functional(x)]
    found = [(x, part) for x, part in found if type(x).__name__ != "InputLayer"]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{network.name!r} has {len(found)} layers called {name!r}, in different parts")
    names = [x.name for x in _leaves(network) if type(x).__name__ != "InputLayer"]
    near = difflib.get_close_matches(str(name), names, n=5, cutoff=0.4) or names[:5]
    problem = "is unknown in"
    for part in _networks(network):
        if part.name == name:
            problem, near = "is no single layer but a part of", [layer.name for layer in part.layers[1:]]
    raise ValueError(f"{name!r} {problem} {network.name!r}; did you mean one of: {_listed(near)}?")


def _choices(what, names):
    return f"What can be {what} instead: {_listed(names)}" if names else f"Nothing here can be {what}"


def _listed(names, most=30):
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# --- copying a network ------------------------------------------------------------------------------------------------


class _Copy:
    """A copy of a functional model and of those inside it, with changes; layers are told apart by ``id``.

    Attributes:
        changes: Layer → (changes of its configuration, function from its old weights to its new ones).
        replaced: Layer → the layer in its place.
        after: Layer → what is done with its output, a function of a tensor.
    """

    def __init__(self, changes=None, replaced=None, after=None):
        self.changes, self.replaced, self.after = changes or {}, replaced or {}, after or {}
        self.copies = {}  # id of the old layer → (old, new)

    def of(self, network, inputs=None):
        """The copy of ``network``, on new inputs like ``inputs`` (symbolic tensors), or like its own."""
        import keras

        old_of = {}

        def copied(layer):
            new = self._layer(layer)
            old_of[id(new)] = layer
            return new

        def called(layer, *args, **kwargs):
            old = old_of[id(layer)]
            if _functional(old):  # copied only now, because the channels that enter it may be more
                if id(old) not in self.copies:
                    self.copies[id(old)] = old, self.of(old, args[0])
                layer = self.copies[id(old)][1]
            x = layer(*args, **kwargs)
            return self.after[id(old)](x) if id(old) in self.after else x

        tensors = keras.tree.map_structure(
            lambda old, new: keras.Input(batch_shape=(*old.shape[:-1], new.shape[-1]), dtype=old.dtype, name=old.name),
            network.input,
            network.input if inputs is None else inputs,
        )
        new = keras.models.clone_model(network, tensors, clone_function=copied, call_function=called)
        for old in network.layers:
            _, layer = self.copies.get(id(old), (old, old))
            if layer is not old and not _functional(old) and id(old) not in self.replaced:
                _, weights = self.changes.get(id(old), ({}, list))
                layer.set_weights(weights(old.get_weights()))
                if type(layer).__name__ == "Normalization" and layer.weights:
                    layer.finalize_state()  # it computes with what it derives from its weights
        if not network.trainable:
            new.trainable = False
        return new

    def _layer(self, layer):
        if id(layer) in self.replaced:
            return self.replaced[id(layer)]
        if _functional(layer) or not hasattr(layer, "get_weights"):  # the latter: keras.ops, without any state
            return layer
        if id(layer) not in self.copies:
            config, _ = self.changes.get(id(layer), ({}, None))
            self.copies[id(layer)] = layer, type(layer).from_config(layer.get_config() | config)
        return self.copies[id(layer)][1]


# --- widening ---------------------------------------------------------------------------------------------------------


def _is(layer, *names):
    from keras import layers

    return isinstance(layer, tuple(getattr(layers, name) for name in names))


def _widens(layer):
    return _is(layer, "Dense", "Conv1D", "Conv2D", "Conv3D", "SeparableConv1D", "SeparableConv2D")


def _width(layer):
    return layer.units if _is(layer, "Dense") else layer.filters


def _kernel(layer):
    """Index of the weight whose last axis are the layer's own channels."""
    return 1 if _is(layer, "SeparableConv1D", "SeparableConv2D") else 0


def _widening(network, target, origins):
    """The changes, for :class:`_Copy`, that give ``target`` copies of its channels and keep what the network computes.

    Raises:
        _Blocked: That is impossible.
    """
    changes, seen = {}, {}
    leaving = _follow(network, [None] * len(network.inputs), target, origins, changes, seen)
    if any(found is not None for found in leaving):
        raise _Blocked(
            f"are what leaves {network.name}, which would then give more features than before (in a whole model, such "
            "as models.classifier(…), the head takes them in and they can be widened)"
        )
    return changes


def _follow(network, entering, target, origins, changes, seen):
    """Go through a functional model with the origins of its inputs; fills ``changes``, gives those of its outputs."""
    known = {id(tensor): found for tensor, found in zip(network.inputs, entering)}
    for call in _calls(network):
        layer = call.operation
        if not call.input_tensors:
            continue
        arriving = [known.get(id(tensor)) for tensor in call.input_tensors]
        if _functional(layer):
            leaving = _follow(layer, arriving, target, origins, changes, seen)
        else:
            # A layer that is called in several places has one set of weights for all of them.
            state = [None if found is None else found.tolist() for found in arriving]
            if getattr(layer, "weights", None) and seen.setdefault(id(layer), state) != state:
                raise _Blocked(f"reach {layer.name!r}, which is also called on something else")
            leaving = [None] * len(call.outputs)
            if layer is target:
                if any(found is not None for found in arriving):
                    raise _Blocked("come back to the layer itself")
                changes[id(layer)] = _widened(layer, origins)
                leaving = [origins]
            elif any(found is not None for found in arriving):
                config, weights, found = _adapted(layer, arriving, [x.shape for x in call.input_tensors])
                changes[id(layer)] = config, weights
                leaving = [found]
        known |= {id(tensor): found for tensor, found in zip(call.outputs, leaving)}
    return [known.get(id(tensor)) for tensor in network.outputs]


def _widened(layer, origins):
    """The change of the layer that makes the copies."""
    _check_activation(layer)
    if getattr(layer, "groups", 1) != 1:
        raise _Blocked(f"are made in {layer.groups} groups, each from channels of its own")
    kernel = _kernel(layer)

    def copied(weights):
        return weights[:kernel] + [np.take(weight, origins, axis=-1) for weight in weights[kernel:]]

    return {"units" if _is(layer, "Dense") else "filters": len(origins)}, copied


def _adapted(layer, arriving, shapes):
    """``(changes of the configuration, function of the weights, origins that leave)`` of a layer that meets copies."""
    if getattr(layer, "data_format", None) == "channels_first":
        raise _Blocked(f"reach {layer.name!r}, which has its channels first; only channels last can be followed")
    if _is(layer, "Concatenate"):
        return {}, list, _concatenated(layer, arriving, shapes)
    origins, *others = arriving
    if others:
        if _is(layer, *_MERGING) and all(x is not None and np.array_equal(x, arriving[-1]) for x in arriving):
            return {}, list, origins
        raise _Blocked(
            f"meet other channels in {layer.name!r} ({type(layer).__name__}), one by one, as those of a shortcut do: "
            "both sides must have as many, in the same order"
        )
    share = 1 / np.bincount(origins)[origins]  # of each copy in what the old channel gave
    if _is(layer, "Dense", "Conv1D", "Conv2D", "Conv3D"):
        if getattr(layer, "groups", 1) != 1:
            raise _Blocked(f"reach {layer.name!r}, which takes its channels in {layer.groups} groups")
        return {}, lambda w: [np.take(w[0], origins, axis=-2) * share[:, None], *w[1:]], None
    if _is(layer, "DepthwiseConv1D", "DepthwiseConv2D"):
        _check_activation(layer)
        leaving = _spread(origins, layer.depth_multiplier)
        return {}, lambda w: [np.take(w[0], origins, axis=-2), *(bias[leaving] for bias in w[1:])], leaving
    if _is(layer, "SeparableConv1D", "SeparableConv2D"):
        inner = _spread(origins, layer.depth_multiplier)
        shares = np.repeat(share, layer.depth_multiplier)[:, None]
        return (
            {},
            lambda w: [np.take(w[0], origins, axis=-2), np.take(w[1], inner, axis=-2) * shares, *w[2:]],
            None,
        )
    if _is(layer, "Flatten"):
        *positions, channels = shapes[0][1:]
        if None in positions:
            raise _Blocked(f"reach {layer.name!r}, whose number of positions is open")
        return {}, list, (np.arange(int(np.prod(positions)))[:, None] * channels + origins).ravel()
    if _is(layer, "BatchNormalization", "PReLU"):
        axis = getattr(layer, "axis", -1)
        if (axis if isinstance(axis, int) else axis[0]) not in (-1, len(shapes[0]) - 1):
            raise _Blocked(f"reach {layer.name!r}, which works along axis {axis}")
        return {}, lambda w: [np.take(weight, origins, axis=-1) for weight in w], origins
    if _is(layer, "Activation"):
        _check_activation(layer)
        return {}, list, origins
    if _is(layer, *_CHANNELWISE):
        return {}, list, origins
    raise _Blocked(
        f"reach {layer.name!r}, and a {type(layer).__name__} does not treat every channel by itself, as far as is known"
    )


def _spread(origins, multiplier):
    """Origins after a depthwise convolution, which makes ``multiplier`` neighbouring channels of each."""
    return (origins[:, None] * multiplier + np.arange(multiplier)).ravel()


def _concatenated(layer, arriving, shapes):
    if layer.axis not in (-1, len(shapes[0]) - 1):
        raise _Blocked(f"reach {layer.name!r}, which concatenates along axis {layer.axis}")
    starts = np.cumsum([0, *(shape[-1] for shape in shapes)])
    return np.concatenate(
        [
            start + (np.arange(shape[-1]) if origins is None else origins)
            for start, origins, shape in zip(starts, arriving, shapes)
        ]
    )


def _check_activation(layer):
    """An activation that looks at other channels, such as softmax, changes when some of them come twice."""
    from keras import activations, ops

    values = np.random.default_rng(0).normal(size=(3, 6)).astype("float32")
    order = [3, 0, 5, 5]
    activation = activations.get(getattr(layer, "activation", None))
    some, all_ = (ops.convert_to_numpy(activation(ops.convert_to_tensor(x))) for x in (values[:, order], values))
    if all_.shape != values.shape or not np.allclose(some, all_[:, order]):
        raise _Blocked(f"go through the activation of {layer.name!r}, which mixes channels")


# --- deepening --------------------------------------------------------------------------------------------------------


def _last_activation(part, layer):
    """The activation that the output of a layer went through last, if it has no effect a second time; else ``None``.

    Returns a layer (ReLU) or a function of keras.activations.
    """
    calls = [call for call in _calls(part) if call.operation is layer and call.input_tensors]
    if len(calls) != 1 or len(calls[0].outputs) != 1 or _functional(layer):
        return None
    if _is(layer, *_KEEPING, "Concatenate"):
        makers = {id(tensor): call.operation for call in _calls(part) for tensor in call.outputs}
        before = [makers.get(id(tensor)) for tensor in calls[0].input_tensors]
        found = [None if maker is None else _last_activation(part, maker) for maker in before]
        alike = {str(x.get_config() | {"name": ""}) if hasattr(x, "get_config") else x for x in found}
        return found[0] if len(alike) == 1 else None
    activation = layer if _is(layer, "ReLU") else getattr(layer, "activation", None)
    return activation if callable(activation) and _settles(activation) else None


def _settles(activation):
    """Whether an activation does something, and nothing more when it is applied a second time."""
    from keras import ops

    x = np.linspace(-20, 20, 401, dtype="float32").reshape(1, -1)
    once = ops.convert_to_numpy(activation(ops.convert_to_tensor(x)))
    if once.shape != x.shape or np.array_equal(once, x):
        return False
    return np.array_equal(ops.convert_to_numpy(activation(ops.convert_to_tensor(once))), once)


def _identity(x, name, kernel_size, activation, with_norm, norms):
    """Layers that pass a tensor on unchanged: (N, h, w, channels) or (N, units)."""
    from keras import layers

    channels = x.shape[-1]
    if len(x.shape) == 4:
        new = layers.Conv2D(channels, kernel_size, padding="same", use_bias=not with_norm, name=name)
        kernel = np.zeros((kernel_size, kernel_size, channels, channels), "float32")
        kernel[kernel_size // 2, kernel_size // 2] = np.eye(channels)
    elif len(x.shape) == 2:
        new = layers.Dense(channels, use_bias=not with_norm, name=name)
        kernel = np.eye(channels, dtype="float32")
    else:
        raise ValueError(f"a layer can be inserted on maps (N, h, w, channels) or units (N, units), not on {x.shape}")
    x = new(x)
    new.set_weights([kernel] if with_norm else [kernel, np.zeros(channels, "float32")])
    if with_norm:
        like = {key: norms[0].get_config()[key] for key in ("momentum", "epsilon")} if norms else {}
        norm = layers.BatchNormalization(name=f"{name}_bn", **like)
        x = norm(x)
        norm.gamma.assign(np.full(channels, np.sqrt(1 + norm.epsilon), "float32"))
    if _is(activation, "ReLU"):
        return layers.ReLU.from_config(activation.get_config() | {"name": f"{name}_activation"})(x)
    return layers.Activation(activation, name=f"{name}_activation")(x)
