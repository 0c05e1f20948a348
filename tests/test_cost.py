"""Costs against counts by hand, TensorFlow's own profiler, a recount over Keras' layers, and published figures."""

import math

import numpy as np
import pytest

from tlutils import backbones, cost, models

POCKET = ("pocket_vgg", "pocket_resnet", "pocket_inception", "pocket_mobilenet")


@pytest.fixture(scope="module")
def keras(tensorflow):
    import keras

    return keras


@pytest.fixture(scope="module")
def pocket(keras):
    return {name: backbones.load(name) for name in POCKET}


def chain(keras, shape, *layers):
    return keras.Sequential([keras.Input(shape), *layers])


# --- multiply-adds by hand --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "by_hand"),
    [
        # positions × positions × filter × filter × channels in a group × filters
        ({"padding": "same"}, 12 * 10 * 3 * 3 * 6 * 8),
        ({"padding": "valid"}, 10 * 8 * 3 * 3 * 6 * 8),
        ({"padding": "same", "strides": 2}, 6 * 5 * 3 * 3 * 6 * 8),
        ({"padding": "valid", "strides": 2}, 5 * 4 * 3 * 3 * 6 * 8),
        ({"padding": "same", "groups": 2}, 12 * 10 * 3 * 3 * 3 * 8),
        ({"padding": "valid", "dilation_rate": 2}, 8 * 6 * 3 * 3 * 6 * 8),
        ({"padding": "same", "activation": "relu", "use_bias": True}, 12 * 10 * 3 * 3 * 6 * 8),
    ],
)
def test_one_convolution(keras, options, by_hand):
    model = chain(keras, (12, 10, 6), keras.layers.Conv2D(8, 3, **options))
    assert cost.multiply_adds(model) == by_hand
    assert cost.flops(model) == 2 * by_hand


@pytest.mark.parametrize(
    ("layer", "by_hand"),
    [
        (lambda layers: layers.DepthwiseConv2D(3, padding="same"), 12 * 10 * 6 * 3 * 3),
        (lambda layers: layers.DepthwiseConv2D(5, strides=2, padding="same", depth_multiplier=2), 6 * 5 * 12 * 5 * 5),
        (lambda layers: layers.SeparableConv2D(8, 3, padding="same"), 12 * 10 * (6 * 3 * 3 + 6 * 8)),
        (lambda layers: layers.Conv2DTranspose(8, 3, strides=2), 12 * 10 * 6 * 3 * 3 * 8),
        (lambda layers: layers.Dense(7), 12 * 10 * 6 * 7),
        (lambda layers: layers.MaxPooling2D(), 0),
        (lambda layers: layers.BatchNormalization(), 0),
    ],
)
def test_other_layers(keras, layer, by_hand):
    assert cost.multiply_adds(chain(keras, (12, 10, 6), layer(keras.layers))) == by_hand


def test_one_dense_layer(keras):
    assert cost.multiply_adds(chain(keras, (11,), keras.layers.Dense(7))) == 11 * 7


def test_attention(keras):
    tokens = keras.Input((9, 5))
    model = keras.Model(tokens, keras.layers.MultiHeadAttention(num_heads=2, key_dim=4)(tokens, tokens))
    projections = 9 * 5 * (2 * 4) * 4  # query, key, value and output
    assert cost.multiply_adds(model) == projections + 2 * (2 * 9 * 9 * 4)  # weights of the pairs, then their sums


@pytest.mark.parametrize(
    ("equation", "shapes", "by_hand"),
    [
        ("ij,jk->ik", [(3, 4), (4, 5)], 3 * 4 * 5),
        ("...ij,jk->...ik", [(2, 6, 3, 4), (4, 5)], 2 * 6 * 3 * 4 * 5),
        ("bi,bj->", [(2, 3), (2, 4)], 2 * 3 * 4),
    ],
)
def test_einstein_sums(equation, shapes, by_hand):
    assert cost._einsum_products(equation, shapes) == by_hand


def test_a_layer_that_is_used_twice_is_paid_twice(keras):
    shared = keras.layers.Dense(6)
    inputs = keras.Input((6,))
    assert cost.multiply_adds(keras.Model(inputs, shared(shared(inputs)))) == 2 * 36


def test_a_pass_with_four_times_the_pixels_costs_four_times_as_much(keras):
    backbone = backbones.load("pocket_vgg", input_shape=(None, None, 1))
    assert cost.multiply_adds(backbone, (64, 64, 1)) == 4 * cost.multiply_adds(backbone, (32, 32, 1))


# --- multiply-adds of whole networks ----------------------------------------------------------------------------------


def recount(keras, model):
    """Filter size × output positions, over the layers of a model for images of a known size."""
    counted = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
    layers = [layer for layer in models.all_layers(model) if isinstance(layer, counted)]
    return sum(math.prod(layer.output.shape[1:-1]) * math.prod(layer.kernel.shape) for layer in layers)


@pytest.mark.parametrize("name", POCKET)
def test_pocket_networks_cost_what_their_layers_say(keras, pocket, name):
    from tlutils import zoo

    by_layers = recount(keras, zoo.build(name))
    assert by_layers > 1_000_000
    assert cost.multiply_adds(pocket[name]) == by_layers


@pytest.mark.parametrize("name", POCKET)
def test_tensorflows_profiler_agrees(tensorflow, pocket, name):
    tf = tensorflow
    profiler = getattr(tf.compat.v1, "profiler", None)
    if profiler is None:
        pytest.skip("this TensorFlow has no profiler of the old kind")
    model = pocket[name].model
    function = tf.function(lambda images: model(images, training=False), autograph=False)
    graph = function.get_concrete_function(tf.TensorSpec((1, *model.input_shape[1:]), tf.float32)).graph
    options = profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation())
    options = options.with_empty_output().build()
    found = profiler.profile(graph, cmd="op", options=options)
    by_kind = {}
    while found.children:  # a chain: each row holds the rows that follow it
        (found,) = found.children
        by_kind[found.name] = found.float_ops
    assert by_kind["Conv2D"] > 0
    assert cost.flops(model) == by_kind["Conv2D"] + by_kind.get("DepthwiseConv2dNative", 0)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("MobileNetV2", 300e6),  # Sandler et al. (2018), table 4: "MAdds"
        ("ResNet50", 3.8e9),  # He et al. (2016), table 1, called FLOPs: multiply-adds
        ("VGG16", 15.5e9),  # the usual figure for configuration D of Simonyan and Zisserman (2015), multiply-adds
    ],
)
def test_published_figures(keras, name, published):
    model = getattr(keras.applications, name)(weights=None)
    assert cost.multiply_adds(model) == pytest.approx(published, rel=0.05)


def test_published_accuracies_belong_to_backbones():
    assert set(cost.IMAGENET_TOP1) == {name for name in backbones.available() if not name.startswith("pocket_")}
    assert all(0.5 < accuracy < 0.9 for accuracy in cost.IMAGENET_TOP1.values())


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(keras):
    """Two convolutions and a head; no BatchNorm, whose parts differ between releases of Keras."""
    layers = keras.layers
    return chain(
        keras,
        (8, 8, 3),
        layers.Conv2D(4, 3, padding="same", activation="relu"),
        layers.Conv2D(10, 3, padding="same", activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(2),
    )


FIRST, SECOND = 8 * 8 * 4, 8 * 8 * 10


@pytest.mark.parametrize("batch_size", [1, 3])
def test_training_keeps_what_gradients_read(small, batch_size):
    # the images, for the first filter; both activations, for the ReLUs and what follows; the averages, for the head
    by_hand = 8 * 8 * 3 + FIRST + SECOND + 10
    assert cost.activation_memory(small, batch_size=batch_size, training=True) == 4 * batch_size * by_hand


def test_frozen_layers_keep_nothing(small):
    for layer in small.layers[:2]:
        layer.trainable = False
    assert cost.activation_memory(small, training=True) == 4 * 10
    small.trainable = False
    assert cost.activation_memory(small, training=True) == 0


@pytest.mark.parametrize("batch_size", [1, 3])
def test_inference_holds_two_activations_at_most(small, batch_size):
    by_hand = FIRST + SECOND  # bias and ReLU are written in place, the images are gone by then
    assert cost.activation_memory(small, batch_size=batch_size) == 4 * batch_size * by_hand


def test_a_shortcut_keeps_its_tensor_alive(keras):
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(5, 1)(inputs)
    y = layers.Conv2D(20, 1)(x)
    y = layers.Conv2D(5, 1)(y)
    with_shortcut = keras.Model(inputs, layers.Add()([x, y]))
    assert cost.activation_memory(keras.Model(inputs, y)) == 4 * 8 * 8 * (20 + 5)
    assert cost.activation_memory(with_shortcut) == 4 * 8 * 8 * (5 + 20 + 5)


def test_reshaping_takes_no_memory(keras):
    model = chain(keras, (8, 8, 3), keras.layers.Reshape((64, 3)), keras.layers.Flatten())
    assert cost.activation_memory(model) == 4 * 8 * 8 * 3


# --- all together -----------------------------------------------------------------------------------------------------


def test_measure_gives_each_cost(pocket):
    backbone = pocket["pocket_resnet"]
    found = cost.measure(backbone, repeats=1)
    assert found.parameters == backbone.parameters
    assert found.multiply_adds == cost.multiply_adds(backbone.model)
    assert found.inference_bytes == cost.activation_memory(backbone)
    assert found.training_bytes == cost.activation_memory(backbone, training=True) > found.inference_bytes
    assert found.seconds > 0
    without = cost.measure(backbone, training=False)
    assert (without.multiply_adds, without.training_bytes, without.seconds) == (found.multiply_adds, None, None)


def test_counting_changes_neither_weights_nor_settings(tensorflow, pocket):
    backbone = pocket["pocket_resnet"]
    before = [np.array(weight) for weight in backbone.model.get_weights()]
    cost.measure(backbone)
    assert all(np.array_equal(a, b) for a, b in zip(before, backbone.model.get_weights()))
    assert not tensorflow.config.functions_run_eagerly()


# --- what cannot be counted -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [cost.multiply_adds, cost.activation_memory, cost.latency, cost.measure])
def test_an_open_image_size_asks_for_one(pocket, function):
    backbone = backbones.load("pocket_vgg", input_shape=(None, None, 1))
    with pytest.raises(ValueError, match=r"\(None, None, 1\) is not a fixed one: give input_shape="):
        function(backbone)


def test_a_size_that_the_model_cannot_take(pocket):
    with pytest.raises(ValueError, match=r"cannot be called on images of shape \(32, 32, 5\)"):
        cost.multiply_adds(pocket["pocket_vgg"], (32, 32, 5))


def test_a_size_that_depends_on_the_pixels(keras, tensorflow):
    class Bright(keras.layers.Layer):
        def call(self, pixels):
            return tensorflow.boolean_mask(pixels, pixels[..., 0] > 0)

        def compute_output_shape(self, shape):
            return (None, shape[-1])

    model = chain(keras, (4, 4, 3), Bright(), keras.layers.Dense(2))
    for function in (cost.multiply_adds, cost.activation_memory):
        with pytest.raises(ValueError, match=r"is not known beforehand.*give a fixed input_shape="):
            function(model)


def test_a_loop_is_refused(keras, tensorflow):
    class Repeat(keras.layers.Layer):
        def call(self, x):
            return tensorflow.while_loop(
                lambda x: tensorflow.reduce_sum(x) < 100.0, lambda x: (x @ tensorflow.eye(3),), (x,)
            )[0]

        def compute_output_shape(self, shape):
            return shape

    with pytest.raises(ValueError, match="a loop, a branch or a stored function"):
        cost.multiply_adds(chain(keras, (3,), Repeat()))
