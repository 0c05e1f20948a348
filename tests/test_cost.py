"""Costs against counts by hand, TensorFlow's own profiler, a recount over Keras' layers, and published figures."""

import math

import numpy as np
import pytest

from tlutils import backbones, cost, data, features, models, training

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


# --- a whole run ------------------------------------------------------------------------------------------------------

CONV, HIDDEN, OUT = 6 * 6 * 3 * 3 * 2 * 4, 4 * 5, 5 * 3  # of one image, see ``photos``


@pytest.fixture
def photos(keras):
    """A convolution, a hidden layer and an output; 10 images in batches of 4, so that the last one has 2."""
    layers = keras.layers
    conv = layers.Conv2D(4, 3, padding="same", activation="relu")
    model = chain(keras, (6, 6, 2), conv, layers.GlobalAveragePooling2D(), layers.Dense(5), layers.Dense(3))

    def compiled(frozen=0):
        for layer in model.layers[:frozen]:
            layer.trainable = False
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
        return model

    rng = np.random.default_rng(0)
    return compiled, rng.normal(size=(10, 6, 6, 2)).astype("float32"), rng.integers(3, size=10)


def test_prediction_and_evaluation_pay_one_forward_pass_an_image(tensorflow, photos):
    compiled, x, y = photos
    model = compiled()
    with cost.Counter() as counter:
        model.predict(x, batch_size=4, verbose=0)
        assert counter.multiply_adds == 10 * (CONV + HIDDEN + OUT)
        model.evaluate(x, y, batch_size=4, verbose=0)
        assert counter.multiply_adds == 20 * (CONV + HIDDEN + OUT)
        model.predict(tensorflow.data.Dataset.from_tensor_slices(x).batch(4), steps=2, verbose=0)
        assert counter.multiply_adds == 28 * (CONV + HIDDEN + OUT)
    assert counter.uncounted == set()


@pytest.mark.parametrize(
    ("frozen", "by_hand"),
    [
        # each layer: forward, gradient of its weights, gradient of its input where a layer below learns too
        (0, CONV * 2 + HIDDEN * 3 + OUT * 3),
        (1, CONV + HIDDEN * 2 + OUT * 3),
        (3, CONV + HIDDEN + OUT * 2),
    ],
)
def test_training_pays_for_the_gradients_of_what_learns(photos, frozen, by_hand):
    compiled, x, y = photos
    model = compiled(frozen)
    with cost.Counter() as counter:
        model.fit(x, y, batch_size=4, epochs=2, verbose=0)
    assert counter.multiply_adds == 2 * 10 * by_hand


@pytest.mark.parametrize("frozen", [0, 1, 3])
def test_the_gradients_that_tensorflow_computes_are_those(tensorflow, photos, frozen):
    tf = tensorflow
    model = photos[0](frozen)

    def step(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(images, training=True))
        return tape.gradient(loss, [variable.value for variable in model.trainable_variables])

    graph = tf.function(step).get_concrete_function(tf.TensorSpec((1, 6, 6, 2))).graph
    waiting, needed = [tensor.op for tensor in graph.outputs], {}  # TensorFlow leaves out what no output needs
    while waiting:
        operation = waiting.pop()
        if operation.name not in needed:
            needed[operation.name] = operation
            waiting += [tensor.op for tensor in operation.inputs] + list(operation.control_inputs)
    kinds = [operation.type for operation in needed.values()]
    assert kinds.count("Conv2DBackpropFilter") == (frozen == 0) and "Conv2DBackpropInput" not in kinds
    # the last layer's forward pass is missing: the gradient of a sum of outputs does not need it
    gradients = {0: HIDDEN * 2 + OUT * 2, 1: HIDDEN + OUT * 2, 3: OUT}[frozen]
    products = [operation for operation in needed.values() if operation.type == "MatMul"]
    assert sum(map(cost._products, products)) == HIDDEN + gradients


def test_validation_steps_and_data_sets_are_counted_batch_by_batch(tensorflow, photos):
    compiled, x, y = photos
    model = compiled()
    batches = tensorflow.data.Dataset.from_tensor_slices((x, y)).batch(4)
    forward, both = CONV + HIDDEN + OUT, CONV * 2 + HIDDEN * 3 + OUT * 3
    with cost.Counter() as counter:
        model.fit(batches, validation_data=(x[:3], y[:3]), epochs=2, shuffle=False, verbose=0)
        assert counter.multiply_adds == 2 * (10 * both + 3 * forward)
    with cost.Counter() as counter:
        compiled().fit(batches.repeat(), steps_per_epoch=4, shuffle=False, verbose=0)
        assert counter.multiply_adds == (4 + 4 + 2 + 4) * both
    with cost.Counter() as counter:
        thirds = ((x[i : i + 3], y[i : i + 3]) for i in range(0, 9, 3))
        compiled().fit(thirds, steps_per_epoch=3, shuffle=False, verbose=0)
        assert counter.multiply_adds == 9 * both


def test_what_compile_has_not_seen_does_not_count_as_frozen(photos):
    compiled, x, y = photos
    model = compiled()
    with cost.Counter() as counter:
        model.fit(x, y, batch_size=4, verbose=0)
        once = counter.multiply_adds
        model.layers[0].trainable = False  # without compiling again, the traced step goes on as it was
        model.fit(x, y, batch_size=4, verbose=0)
        assert counter.multiply_adds == 2 * once


def test_several_inputs(keras):
    inputs = {"image": keras.Input((4, 4, 2), name="image"), "number": keras.Input((3,), name="number")}
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 1)(inputs["image"]))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Concatenate()([x, inputs["number"]])))
    with cost.Counter() as counter:
        model.predict({"image": np.zeros((5, 4, 4, 2)), "number": np.zeros((5, 3))}, verbose=0)
    assert counter.multiply_adds == 5 * (4 * 4 * 2 * 4 + 7 * 2) and not counter.uncounted


def test_images_of_open_sizes_are_counted_as_long_as_their_size_is_seen(keras):
    model = keras.Sequential([keras.Input((None, None, 2)), keras.layers.Conv2D(4, 1)], name="open")
    with cost.Counter() as counter:
        model.predict(np.zeros((5, 4, 4, 2)), verbose=0)
        assert counter.multiply_adds == 5 * 4 * 4 * 2 * 4 and not counter.uncounted
        model.predict(np.zeros((5, 6, 6, 2)), verbose=0)  # traced anew, for any size
        assert counter.uncounted == {"open"}


def test_features_that_are_read_back_cost_nothing(pocket, tmp_path):
    backbone = pocket["pocket_resnet"]
    pixels = np.random.default_rng(0).integers(256, size=(7, 32, 32, 1)).astype("uint8")
    examples = data.Examples(np.zeros(7), pixels=pixels, image_size=(32, 32), channels=1)
    with cost.Counter() as counter:
        for _ in range(2):
            features.extract(backbone, examples, tmp_path, batch_size=4)
    assert counter.multiply_adds == 7 * cost.multiply_adds(backbone)


def test_fine_tuning_pays_for_the_frozen_part_once(pocket):
    backbone = backbones.load("pocket_vgg")
    model = models.classifier(backbone, 2)
    pixels = np.random.default_rng(0).integers(256, size=(6, 32, 32, 1)).astype("uint8")
    examples = data.Examples(np.arange(6) % 2, pixels=pixels, image_size=(32, 32), channels=1)
    task = data.ImageTask("noise", examples, class_names=("a", "b"))
    with cost.Counter() as counter:
        training.fine_tune(model, task, 1, epochs=3, start="as_is", batch_size=4, progress=False)
    frozen, tail = models.split(model, 1)
    whole, above = cost.multiply_adds(model), cost.multiply_adds(tail)
    below = cost.multiply_adds(frozen)
    assert whole == below + above
    # three passes an epoch over what trains, but for the gradient of the images at the boundary
    assert 6 * below + 3 * 6 * 2 * above < counter.multiply_adds < 6 * below + 3 * 6 * 3 * above


def test_counting_changes_no_result_and_ends(keras, tensorflow, photos):
    compiled, x, y = photos
    steps = [getattr(keras.Model, name) for name in ("train_step", "test_step", "predict_step")]
    model = compiled()
    start = model.get_weights()
    ends = []
    for count in (False, True):
        model.set_weights(start)
        compiled()
        if count:
            with cost.Counter():
                model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
        else:
            model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
        ends.append(model.get_weights())
    assert all(np.array_equal(a, b) for a, b in zip(*ends))
    assert [getattr(keras.Model, name) for name in ("train_step", "test_step", "predict_step")] == steps
    assert cost.Counter.running is None


@pytest.mark.parametrize(("limit", "counts_evaluation"), [("_MOST_WAITING", True), ("_MOST_PASSES", False)])
def test_more_ways_of_using_models_than_there_is_room_for(monkeypatch, photos, limit, counts_evaluation):
    monkeypatch.setattr(cost, limit, 1)
    compiled, x, y = photos
    model = compiled(frozen=3)
    with cost.Counter() as counter:
        model.fit(x, y, batch_size=4, verbose=0)
        model.evaluate(x, y, batch_size=4, verbose=0)
    trained, evaluated = 10 * (CONV + HIDDEN + 2 * OUT), 10 * (CONV + HIDDEN + OUT)
    assert counter.multiply_adds == trained + counts_evaluation * evaluated
    assert counter.uncounted == (set() if counts_evaluation else {model.name})


def test_a_model_whose_cost_cannot_be_seen_is_named(keras, tensorflow):
    class Repeat(keras.layers.Layer):
        def call(self, x):
            return tensorflow.while_loop(lambda x: tensorflow.reduce_sum(x) < 100.0, lambda x: (x + 1.0,), (x,))[0]

        def compute_output_shape(self, shape):
            return shape

    model = keras.Sequential([keras.Input((3,)), Repeat()], name="loop")
    with cost.Counter() as counter:
        assert model.predict(np.zeros((2, 3)), verbose=0).sum() >= 100
    assert counter.uncounted == {"loop"} and counter.multiply_adds == 0


def test_minutes_on_a_t4():
    # 8.1e12 operations a second at full speed, two operations a multiply-add, 60 seconds a minute
    assert cost.t4_minutes(8.1e12 * 60 / 2) == pytest.approx(1 / cost.T4_SHARE)
    assert 0.01 <= cost.T4_SHARE <= 0.1


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
