"""What a Keras model costs: multiply-adds, memory of activations, time; all computed from the model itself.

The counts come from the TensorFlow graph of one pass, so they hold for any model that can be traced, also for one that
is no chain of Keras layers. Chapter 02 explains and uses them. :class:`Counter` adds up what a whole run has computed.
"""

import functools
import math
import string
import sys
import time
import weakref
from dataclasses import dataclass

import numpy as np

from tlutils.runtime import require_tensorflow

IMAGENET_TOP1 = {
    # The table of https://keras.io/api/applications/
    "vgg16": 0.713,
    "vgg19": 0.713,
    "resnet50": 0.749,
    "resnet101": 0.764,
    "resnet50_v2": 0.760,
    "inception_v3": 0.779,
    "xception": 0.790,
    "mobilenet": 0.704,
    "mobilenet_v2": 0.713,
    "densenet121": 0.750,
    "efficientnet_b0": 0.771,
    "efficientnet_v2_b0": 0.787,
    "convnext_tiny": 0.813,
    # The documentation of the functions MobileNet, MobileNetV2 and MobileNetV3Small/Large of keras.applications
    "mobilenet_0.25": 0.506,
    "mobilenet_v2_0.35": 0.603,
    "mobilenet_v3_small": 0.681,
    "mobilenet_v3_large": 0.756,
}
"""Published share of ImageNet's validation photographs that a network names right at the first guess, with Keras'
weights and its classifier, at the image size it was trained with. By the names of :mod:`tlutils.backbones`."""

T4_FLOPS = 8.1e12
"""Peak of an NVIDIA T4 in float32, in floating-point operations a second (NVIDIA's data sheet of the T4)."""
T4_SHARE = 0.05
"""Share of that peak which :func:`t4_minutes` assumes. It is an assumption, low on purpose: small batches and depthwise
convolutions leave most of a GPU idle, and nothing is added for tensor cores."""

# How many models a Counter keeps before it finds out what they cost, and how many ways of using a model it can count.
_MOST_WAITING = 12
_MOST_PASSES = 4096

# Where one output number is a sum over the filter; its shape is (positions…, channels in a group, filters).
_CONVOLUTIONS = {"Conv", "Conv2D", "Conv3D"}
_TRANSPOSED = {"Conv2DBackpropInput", "Conv3DBackpropInputV2"}
_MATRIX_PRODUCTS = {"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"}
COUNTED = _CONVOLUTIONS | _TRANSPOSED | _MATRIX_PRODUCTS | {"DepthwiseConv2dNative", "Einsum"}
"""TensorFlow's operations that are counted."""

# Operations whose output is their input under another name or shape: no memory of its own.
_ALIASES = {
    *("Identity", "IdentityN", "Reshape", "Squeeze", "ExpandDims", "StopGradient", "PreventGradient"),
    *("Snapshot", "EnsureShape", "CheckNumerics"),
}
# Operations that only ask how large a tensor is.
_SHAPE_ONLY = {"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike", "BroadcastGradientArgs"}
# Operations that let no gradient through.
_STOPS = {"StopGradient", "PreventGradient"}
# Operations that can write their output over an input of the same size.
_IN_PLACE = {
    *("Add", "AddV2", "AddN", "Sub", "Mul", "RealDiv", "Div", "BiasAdd", "Neg", "Square", "Sqrt", "Rsqrt", "Exp"),
    *("Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Sigmoid", "Tanh", "Erf", "Erfc", "Softplus", "Maximum", "Minimum"),
    *("SquaredDifference", "Softmax", "Pow", "Abs", "FusedBatchNormV3", "ClipByValue"),
}


@dataclass(frozen=True)
class Cost:
    """What one image costs, see :func:`measure`.

    Attributes:
        parameters: Number of weights, trainable or not.
        multiply_adds: As :func:`multiply_adds`.
        inference_bytes: As :func:`activation_memory`.
        training_bytes: As :func:`activation_memory` with ``training=True``; ``None`` if it was not asked for.
        seconds: As :func:`latency`; ``None`` if it was not asked for.
    """

    parameters: int
    multiply_adds: int
    inference_bytes: int
    training_bytes: int | None = None
    seconds: float | None = None


def measure(model, input_shape=None, *, training=True, repeats=0):
    """All costs of one image.

    Args:
        model: keras.Model or :class:`~tlutils.backbones.Backbone`.
        input_shape: (height, width, channels); ``None`` takes the model's own.
        training: Whether to find ``training_bytes``, which takes most of the time.
        repeats: How often to time it; 0 leaves the time out.

    Returns:
        Cost

    Raises:
        ValueError: As :func:`multiply_adds`.
    """
    network, shape = _network(model), _shape(model, input_shape)
    graph = _forward(network, shape, 1)
    return Cost(
        network.count_params(),
        _count(graph),
        _peak(graph),
        _kept(network, shape, 1) if training else None,
        latency(network, shape, repeats=repeats) if repeats else None,
    )


def multiply_adds(model, input_shape=None):
    """Multiplications, each with its addition, of one image's way through a model.

    Counted from the graph of one forward pass with ``training=False``: one for each use of a weight in a convolution or
    a matrix product, and one for each product of two activations in attention (``COUNTED`` lists the operations).
    Positions where a filter lies partly on the padding count in full. Biases, BatchNorm, activations, pooling and
    additions are not counted; together they are a few percent.

    Many papers, most of those before 2018 or so, call this number FLOPs. :func:`flops` is twice as large.

    Args:
        model: keras.Model or :class:`~tlutils.backbones.Backbone`.
        input_shape: (height, width, channels); ``None`` takes the model's own.

    Returns:
        int

    Raises:
        ValueError: The input shape is not fixed or has no place in the model, the size of a counted operation is not
            known beforehand, or the graph holds a loop or a branch.
    """
    return _count(_forward(_network(model), _shape(model, input_shape), 1))


def flops(model, input_shape=None):
    """Floating-point operations of one image's way through a model: a multiplication and an addition are two.

    Twice :func:`multiply_adds`, with the same arguments and errors. Be careful with published "FLOPs": 3.8 billion for
    ResNet-50 (He et al., 2016) or 300 million for MobileNetV2 (Sandler et al., 2018) are multiply-adds.
    """
    return 2 * multiply_adds(model, input_shape)


def activation_memory(model, input_shape=None, batch_size=1, training=False):
    """Bytes of the tensors that a model makes of a batch; weights, gradients and optimizer are not part of it.

    Without ``training``: the largest sum of tensors that are alive at the same time, when operations run in the order
    of the graph, a tensor is dropped after its last use, and elementwise operations write over an input that nobody
    else needs. The images themselves are tensors too.

    With ``training``: the tensors of the forward pass that the gradients of the *trainable* weights read, so what has
    to be kept until the backward pass. A frozen model keeps nothing; freezing the first blocks saves their part.

    Both follow from the graph and are the same on every machine. What TensorFlow really takes differs: work space of
    fast convolutions comes on top, and its own optimisations save some.

    Args:
        model: keras.Model or :class:`~tlutils.backbones.Backbone`.
        input_shape: (height, width, channels); ``None`` takes the model's own.
        batch_size: Images in the batch.
        training: Whether the batch is trained on.

    Returns:
        int

    Raises:
        ValueError: The input shape is not fixed, or the size of a tensor is not known beforehand.
    """
    network, shape = _network(model), _shape(model, input_shape)
    if training:
        return _kept(network, shape, batch_size)
    return _peak(_forward(network, shape, batch_size))


def latency(model, input_shape=None, batch_size=1, repeats=20):
    """Median time of a compiled call on this machine, in seconds, after two calls to warm up.

    Args:
        model: keras.Model or :class:`~tlutils.backbones.Backbone`.
        input_shape: (height, width, channels); ``None`` takes the model's own.
        batch_size: Images in the batch; the time is that of the whole batch.
        repeats: Number of timed calls.

    Returns:
        float
    """
    tf = require_tensorflow()
    network, shape = _network(model), _shape(model, input_shape)
    images = tf.constant(np.random.default_rng(0).uniform(0, 255, (batch_size, *shape)).astype("float32"))
    call = tf.function(lambda x: network(x, training=False), autograph=False)
    seconds = []
    for _ in range(2 + repeats):
        started = time.perf_counter()
        outputs = call(images)
        for tensor in tf.nest.flatten(outputs):
            tensor.numpy()  # a GPU computes behind our back; this waits for it
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[2:]))


# --- a whole run ------------------------------------------------------------------------------------------------------


class Counter:
    """Adds up the multiply-adds of what networks compute between ``start()`` and ``stop()``, or in a ``with`` block.

    Counted are the batches that really go through ``fit``, ``evaluate`` and ``predict`` of any keras.Model, and through
    :func:`tlutils.features.extract`; what is read back from a cache costs nothing. A batch that is only looked at
    costs its images' :func:`multiply_adds`. One that is trained on costs the backward pass as well: as much again for
    each weight that learns, and as much again for each input that has to pass gradients on to weights below. So a
    frozen trunk is paid once, and what trains about three times.

    Not counted: models that are called directly, a ``train_step`` of one's own, Keras steps that were traced before
    ``start()``, optimizers, images that are decoded or changed, NumPy and scikit-learn.

    What networks compute stays the same. Each is traced once more to see what it costs, which takes a part of a second:
    when :attr:`multiply_adds` is read, and in a notebook at the end of each cell, so that no cell that takes the time
    takes that time too. Until then the counter keeps the model.
    """

    running = None  # the one that counts at the moment

    def __init__(self):
        tf = require_tensorflow()
        self._known = weakref.WeakKeyDictionary()  # model → how it is called → number of its _Passes
        self._passes = []
        # One variable for all that is to come: a step that is traced a second time may not create another.
        with tf.device("CPU:0"):
            self._images = tf.Variable(tf.zeros(_MOST_PASSES, tf.int64), trainable=False)
        self._uncounted = set()

    @property
    def multiply_adds(self):
        """The number so far."""
        self._settle()
        images = self._images.numpy().tolist()
        return sum(n * passes.each for n, passes in zip(images, self._passes))

    @property
    def uncounted(self):
        """Names of the models whose graph does not say what they cost, see the errors of :func:`multiply_adds`."""
        self._settle()
        return self._uncounted

    def start(self):
        import keras

        self._replaced = {name: getattr(keras.Model, name) for name in ("train_step", "test_step", "predict_step")}
        for name, step in self._replaced.items():
            setattr(keras.Model, name, self._counting(step, training=name == "train_step"))
        if shell := _shell():
            shell.events.register("post_run_cell", self._settle)
        Counter.running = self
        return self

    def stop(self, *_):
        import keras

        for name, step in self._replaced.items():
            setattr(keras.Model, name, step)
        if shell := _shell():
            shell.events.unregister("post_run_cell", self._settle)
        Counter.running = None

    __enter__, __exit__ = start, stop

    def add(self, model, inputs, training=False):
        """Count a batch: a tensor of images, or whatever structure of tensors the model takes, batch first."""
        try:
            self._add(model, inputs, model.trainable_variables if training else [])
        except Exception:  # whatever it is, it must not end a run that would do without the count
            self._uncounted.add(model.name)

    def _add(self, model, inputs, learning):
        tf = require_tensorflow()
        specs = tf.nest.map_structure(lambda x: tf.TensorSpec((1, *x.shape[1:]), x.dtype), inputs)
        key = (*map(id, learning), *tf.nest.flatten(specs))
        known = self._known.setdefault(model, {})
        if key not in known:
            if len(self._passes) == _MOST_PASSES:
                raise ValueError(f"more than {_MOST_PASSES} models, or ways of calling them, cannot be counted")
            if sum(passes.model is not None for passes in self._passes) >= _MOST_WAITING:
                with tf.init_scope():  # we may be inside the graph of a step
                    self._settle()
            known[key] = len(self._passes)
            self._passes.append(_Passes(model, specs, learning))
        images = tf.shape(tf.nest.flatten(inputs)[0], out_type=tf.int64)[0]
        self._images.assign_add(images * tf.one_hot(known[key], _MOST_PASSES, dtype=tf.int64))

    def _counting(self, step, training):
        @functools.wraps(step)
        def counted(model, data):
            import keras

            result = step(model, data)
            self.add(model, keras.utils.unpack_x_y_sample_weight(data)[0], training)
            return result

        return counted

    def _settle(self, *_):
        """Find out what an image costs where that is not known yet."""
        for passes in self._passes:
            if passes.model is not None and not passes.settle():
                self._uncounted.add(passes.model.name)
            passes.model = passes.learning = None


class _Passes:
    """One way in which images go through a model, and what each of them costs."""

    def __init__(self, model, specs, learning):
        self.model, self.specs, self.learning = model, specs, learning
        self.each = 0

    def settle(self):
        """Find out the cost; return whether that was possible."""
        model = self.model
        try:
            self.each = _count(_trace(lambda inputs: model(inputs, training=False), self.specs), self.learning)
        except Exception:  # as in Counter.add
            return False
        return True


def _shell():
    """The notebook's IPython, or ``None`` outside of one."""
    return sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None


def t4_minutes(multiply_adds):
    """Minutes that an NVIDIA T4 takes for so many multiply-adds at ``T4_SHARE`` of its peak: an estimate."""
    return 2 * multiply_adds / (T4_FLOPS * T4_SHARE) / 60


# --- the graph --------------------------------------------------------------------------------------------------------


def _network(model):
    return getattr(model, "model", model)


def _shape(model, input_shape):
    shape = input_shape if input_shape is not None else getattr(_network(model), "input_shape", (None, None))[1:]
    shape = tuple(shape) if np.iterable(shape) else (shape,)
    if not shape or any(not isinstance(side, int | np.integer) or side < 1 for side in shape):
        raise ValueError(
            f"costs depend on the size of the images, and {shape} is not a fixed one: give input_shape=(height, width, "
            "channels)"
        )
    return tuple(int(side) for side in shape)


def _trace(function, specs):
    """The graph of a function of such tensors; functions that it calls are written out in the same graph."""
    tf = require_tensorflow()
    eager = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(
        True
    )  # about the functions inside: the one traced here becomes a graph all the same
    try:
        traced = tf.function(function, autograph=False)
        return traced.get_concrete_function(specs).graph
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        shapes = " and ".join(str(tuple(spec.shape[1:])) for spec in tf.nest.flatten(specs))
        raise ValueError(f"the model cannot be called on images of shape {shapes}: {error}") from error
    finally:
        tf.config.run_functions_eagerly(eager)


def _images(shape, batch_size):
    tf = require_tensorflow()
    return tf.TensorSpec((batch_size, *shape), tf.float32)


def _forward(network, shape, batch_size):
    return _trace(lambda images: network(images, training=False), _images(shape, batch_size))


def _count(graph, learning=()):
    """Multiply-adds of a graph; with ``learning``, Keras variables, those of their gradients too.

    The gradient of a product with respect to one of its two factors takes as many multiply-adds as the product. It is
    needed where the factor is a weight that learns, or is computed with one.
    """
    total = 0
    handles = {id(variable.value.handle) for variable in learning}
    reached = {id(inside) for outside, inside in graph.captures if id(outside) in handles}
    for operation in graph.get_operations():
        needed = 0
        if operation.type not in _SHAPE_ONLY | _STOPS:
            needed = sum(id(tensor) in reached for tensor in operation.inputs)
        if needed:
            reached.update(map(id, operation.outputs))
        if operation.type in COUNTED:
            total += _products(operation) * (1 + needed)
        elif any(attribute.HasField("func") for attribute in operation.node_def.attr.values()):
            raise ValueError(
                f"{operation.name} ({operation.type}) is a loop, a branch or a stored function: how often its "
                "operations run cannot be seen in the graph"
            )
    return total


def _products(operation):
    """Multiply-adds of one operation."""
    inputs = [_size_of(tensor, operation) for tensor in operation.inputs]
    (output,) = [_size_of(tensor, operation) for tensor in operation.outputs]
    kind = operation.type
    if kind in _CONVOLUTIONS:
        return math.prod(output) * math.prod(inputs[1][:-1])
    if kind == "DepthwiseConv2dNative":
        return math.prod(output) * math.prod(inputs[1][:2])
    if kind in _TRANSPOSED:  # the filter is (positions…, output channels, input channels)
        return math.prod(inputs[2]) * math.prod(inputs[1][:-1])
    if kind in _MATRIX_PRODUCTS:
        transposed = operation.get_attr("transpose_a" if kind == "MatMul" else "adj_x")
        return math.prod(output) * inputs[0][-2 if transposed else -1]
    return _einsum_products(operation.get_attr("equation").decode(), inputs)


def _einsum_products(equation, shapes):
    """One product for each combination of all indices of an Einstein sum."""
    sides = {}
    for term, shape in zip(equation.split("->")[0].split(","), shapes):
        before, dots, after = term.strip().partition("...")
        letters = [*before, *string.digits[: len(shape) - len(before) - len(after) if dots else 0], *after]
        for letter, side in zip(letters, shape):
            sides[letter] = max(side, sides.get(letter, 1))  # a side of 1 is repeated
    return math.prod(sides.values())


def _size_of(tensor, operation):
    if tensor.shape.rank is None or None in tensor.shape.as_list():
        raise ValueError(
            f"the size of a tensor of {operation.name} ({operation.type}) is not known beforehand: {tensor.shape}; "
            "give a fixed input_shape=(height, width, channels) and a model without sizes that depend on the images' "
            "content"
        )
    return tuple(tensor.shape.as_list())


# --- memory -----------------------------------------------------------------------------------------------------------


def _buffers(images, operations):
    """Which memory each tensor lies in: tensor id to the tensor that first held it, for all that the images decide."""
    buffer = {id(images): images}
    for operation in operations:
        made_of_images = any(id(tensor) in buffer for tensor in operation.inputs)
        if not made_of_images or operation.type in _SHAPE_ONLY:
            continue
        for i, output in enumerate(operation.outputs):
            source = operation.inputs[min(i, len(operation.inputs) - 1)]
            alias = operation.type in _ALIASES and id(source) in buffer
            buffer[id(output)] = buffer[id(source)] if alias else output
    return buffer


def _bytes(tensor):
    return math.prod(_size_of(tensor, tensor.op)) * tensor.dtype.size


def _peak(graph):
    """The most bytes alive at once, see :func:`activation_memory`."""
    operations = graph.get_operations()
    buffer = _buffers(graph.inputs[0], operations)
    last = {id(buffer[id(t)]): i for i, op in enumerate(operations) for t in op.inputs if id(t) in buffer}
    for tensor in graph.outputs:
        if id(tensor) in buffer:
            last[id(buffer[id(tensor)])] = len(operations)
    alive, peak = {}, 0  # bytes of each buffer in use
    for i, operation in enumerate(operations):
        used = {id(buffer[id(t)]) for t in operation.inputs if id(t) in buffer}
        dying = {key for key in used if last[key] == i}
        new = {id(t): _bytes(t) for t in operation.outputs if buffer.get(id(t)) is t and id(t) in last}
        if operation.type in _IN_PLACE and len(new) == 1:
            (size,) = new.values()
            if over := next((key for key in dying if alive.get(key) == size), None):
                del alive[over]
        alive |= new
        peak = max(peak, sum(alive.values()))
        for key in dying:
            alive.pop(key, None)
    return peak


def _kept(network, shape, batch_size):
    """Bytes of what the backward pass reads of the forward pass, see :func:`activation_memory`."""
    tf = require_tensorflow()
    weights = [variable.value for variable in network.trainable_variables]
    forward = []

    def step(images):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)  # and no frozen ones: what only they need is not computed in the end
            loss = tf.add_n([tf.reduce_sum(output) for output in tf.nest.flatten(network(images, training=True))])
        forward[:] = tf.compat.v1.get_default_graph().get_operations()
        return [gradient for gradient in tape.gradient(loss, weights) if gradient is not None]

    if not weights:
        return 0
    graph = _trace(step, _images(shape, batch_size))
    buffer = _buffers(graph.inputs[0], forward)
    backward = graph.get_operations()[len(forward) :]
    read = [t for operation in backward if operation.type not in _SHAPE_ONLY for t in operation.inputs]
    kept = {id(buffer[id(t)]): buffer[id(t)] for t in read if id(t) in buffer}
    return sum(_bytes(tensor) for tensor in kept.values())
