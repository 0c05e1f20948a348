"""Heat maps of networks whose evidence is known: in one corner, in one channel, in closed form."""

import numpy as np
import pytest

from tlutils import backbones, data, evaluation, explain, features, models

pytestmark = pytest.mark.usefixtures("tensorflow")


def pixels(n=4, side=12, channels=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, channels), dtype=np.uint8)


def corner_network(side=12, activation=None):
    """Two classes: the sum of the upper left and of the lower right quarter, in units of 255 a pixel."""
    import keras

    inputs = keras.Input((side, side, 1))
    x = keras.layers.Rescaling(1 / 255, name="unit")(inputs)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(2, use_bias=False, activation=activation, name="output")(x)
    weights = np.zeros((side, side, 2), "float32")
    weights[: side // 2, : side // 2, 0] = weights[side // 2 :, side // 2 :, 1] = 1
    model = keras.Model(inputs, x, name="corner")
    model.layers[-1].set_weights([weights.reshape(-1, 2)])
    return model


def pooled_network(activation=None, bias=0.5):
    """Three channels, average pooling, a linear head: Grad-CAM is the class's weighted sum of the channels."""
    import keras

    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(3, 3, strides=2, padding="same", activation="relu", name="maps"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(
                4, activation=activation, bias_initializer=keras.initializers.Constant(bias), name="out"
            ),
        ],
        name="pooled",
    )


def maps_of(model, images, name):
    import keras

    return keras.Model(model.inputs, model.get_layer(name).output).predict(images, verbose=0)


# --- Grad-CAM ---------------------------------------------------------------------------------------------------------


def test_on_pooling_and_a_linear_head_the_map_is_the_weighted_sum_of_the_channels():
    model, images = pooled_network(), pixels()
    maps, kernel = maps_of(model, images, "maps"), model.layers[-1].get_weights()[0]
    for target in range(4):
        contributions = maps @ kernel[:, target] / (6 * 6)
        found = explain.grad_cam(model, images, "maps", target, upsample=False)
        np.testing.assert_allclose(found, np.maximum(contributions, 0), atol=1e-6)
        logit = model.predict(images, verbose=0)[:, target]
        np.testing.assert_allclose(contributions.sum(axis=(1, 2)) + 0.5, logit, atol=1e-5)  # so it adds up


def test_by_default_the_last_map_explains_the_predicted_class_at_the_size_of_the_image():
    import tensorflow as tf

    model, images = pooled_network(), pixels()
    predicted = model.predict(images, verbose=0).argmax(axis=1)
    small = explain.grad_cam(model, images, "maps", predicted, upsample=False)
    found = explain.grad_cam(model, images)
    assert found.shape == (4, 12, 12) and found.dtype == "float32"
    np.testing.assert_allclose(found, tf.image.resize(small[..., None], (12, 12))[..., 0], atol=1e-6)


@pytest.mark.parametrize("corner", [(0, 0), (0, 6), (6, 0), (6, 6)])
def test_evidence_in_one_corner_is_found_in_that_corner(corner):
    """A network that looks for light, in whichever corner it is."""
    import keras

    inputs = keras.Input((12, 12, 1))
    x = keras.layers.AveragePooling2D(3, name="maps")(keras.layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x)))
    model.layers[-1].set_weights([np.array([[9.0, -9.0]], "float32"), np.zeros(2, "float32")])
    y, x = corner
    image = np.zeros((1, 12, 12, 1), np.uint8)
    image[0, y : y + 6, x : x + 6] = 255
    for found in (explain.grad_cam(model, image), explain.occlusion(model, image, patch=3, stride=3, fill=0)):
        assert found[0, y : y + 6, x : x + 6].sum() > 0.8 * found.sum() > 0
        assert (found[0, y + 1 : y + 5, x + 1 : x + 5] > found.max() / 2).all()
    assert not explain.grad_cam(model, image, target=1).any()  # light is evidence against the other class


def test_through_a_flattening_head_a_channel_has_the_mean_of_its_slopes_as_weight():
    """The slope is 1 in a quarter of the positions, so the weight of the only channel is 1/4 everywhere."""
    images = pixels()
    for block in ("unit", None):
        found = explain.grad_cam(corner_network(), images, block, [0, 1, 0, 1], upsample=False)
        np.testing.assert_allclose(found, images[..., 0] / 255 / 4, atol=1e-6)


def test_a_channel_that_speaks_against_the_class_is_cut_off():
    import keras

    inputs = keras.Input((8, 8, 2))
    x = keras.layers.Activation("linear", name="maps")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, use_bias=False)(keras.layers.GlobalAveragePooling2D()(x)))
    model.layers[-1].set_weights([np.array([[64.0, 0.0], [-64.0, 1.0]], "float32")])
    image = np.zeros((1, 8, 8, 2), "float32")
    image[0, :4, :, 0], image[0, 4:, :, 1] = 3, 5
    found = explain.grad_cam(model, image, "maps", 0)[0]
    assert (found[:4] == 3).all() and (found[4:] == 0).all()


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_final_activation_is_left_out(activation):
    """Where a softmax is sure of itself its slope is zero, and so would be the map."""
    import keras

    images = pixels()
    plain, sure = pooled_network(), pooled_network(activation)
    kernel, bias = plain.layers[-1].get_weights()
    for model in (plain, sure):
        model.layers[-1].set_weights([1000 * kernel, bias])
    expected = explain.grad_cam(plain, images, target=2)
    assert expected.max() > 1
    np.testing.assert_allclose(explain.grad_cam(sure, images, target=2), expected, rtol=1e-4)
    for layer in (keras.layers.Activation(activation), keras.layers.Softmax()):
        apart = keras.Sequential([*plain.layers, layer])
        apart.build((None, 12, 12, 1))
        np.testing.assert_allclose(explain.grad_cam(apart, images, target=2), expected, rtol=1e-4)


def test_a_final_activation_inside_a_nested_model_is_left_out():
    """As in a Sequential of a layer and a whole classifier, and of a network and its head."""
    import keras

    images, plain, sure = pixels(), pooled_network(), pooled_network("softmax")
    kernel, bias = plain.layers[-1].get_weights()
    for model in (plain, sure):
        model.layers[-1].set_weights([1000 * kernel, bias])
    expected = explain.grad_cam(plain, images, target=2)
    fall = explain.occlusion(plain, images, target=2, patch=4)
    inputs = keras.Input((12, 12, 1))
    front = keras.Model(inputs, sure.get_layer("maps")(keras.layers.Rescaling(1 / 255)(inputs)), name="front")
    head = keras.Sequential([keras.Input((6, 6, 3)), *sure.layers[-2:]], name="head")
    for nested in (keras.Model(inputs, sure(inputs)), keras.Model(inputs, head(front(inputs)))):
        np.testing.assert_allclose(explain.grad_cam(nested, images, "maps", target=2), expected, rtol=1e-4)
        np.testing.assert_allclose(explain.grad_cam(nested, images, target=2), expected, rtol=1e-4)
        np.testing.assert_allclose(explain.occlusion(nested, images, target=2, patch=4), fall, atol=1e-5)
    outer = keras.Model(inputs, head(sure.get_layer("maps")(keras.layers.Rescaling(1 / 255)(inputs))))
    np.testing.assert_allclose(explain.grad_cam(outer, images, "maps", target=2), expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["pocket_vgg", "pocket_resnet", "pocket_inception", "pocket_mobilenet"])
def test_every_block_of_a_classifier_has_its_map_and_the_model_stays_as_it_is(name):
    backbone = backbones.load(name)
    model = models.classifier(backbone, 3)
    models.freeze(model)
    images = pixels(3, 32)
    before, config = model.get_weights(), model.get_config()
    for block in backbone.blocks:
        part = models.truncate(backbone, block).model
        side = part.output_shape[1]
        found = explain.grad_cam(model, images, block, upsample=False)
        assert found.shape == (3, side, side)
        assert found.min() >= 0
    assert found.any()
    last = backbone.model.predict(images, verbose=0)
    kernel = model.layers[-1].get_weights()[0]
    for target in (0, 2):
        expected = np.maximum(last @ kernel[:, target] / (side * side), 0)
        whole = explain.grad_cam(model, images, target=target, upsample=False)
        np.testing.assert_allclose(whole, expected, atol=1e-5)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert model.get_config() == config


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in backbones.available() if not name.startswith("pocket")])
def test_every_backbone_of_the_book_has_maps(name):
    backbone = backbones.load(name, weights=None, input_shape=(96, 96, 3))
    model, images = models.classifier(backbone, 3), pixels(1, 96, 3)
    kernel, bias = model.layers[-1].get_weights()
    features = backbone.model.predict(images, verbose=0)
    kernel[:, 1] = np.abs(kernel[:, 1]) * np.sign(
        features.mean(axis=(0, 1, 2))
    )  # so that there is evidence for class 1
    model.layers[-1].set_weights([kernel, bias])
    for block in (backbone.blocks[0], backbone.blocks[len(backbone.blocks) // 2], backbone.blocks[-1]):
        found = explain.grad_cam(model, images, block, 1, upsample=False)
        assert found.shape == (1, *models.truncate(backbone, block).model.output_shape[1:3])
    expected = np.maximum(features @ kernel[:, 1] / features[0, :, :, 0].size, 0)
    np.testing.assert_allclose(found / expected.max(), expected / expected.max(), atol=1e-4)


def test_the_slope_of_an_inner_block_is_that_of_finite_differences():
    backbone = backbones.load("pocket_vgg")
    model = models.classifier(backbone, 3)
    images, block = pixels(1, 32), backbone.blocks[-2]
    front, tail = models.split(model, backbone.blocks[-1])  # up to this block's end, and from there on
    maps = front.predict(images, verbose=0).astype("float64")
    found = explain.grad_cam(model, images, block, 1, upsample=False)[0]
    step = 1e-3 * np.eye(maps.shape[-1])[:, None, None]  # all positions of a channel at once: the sum of its slopes
    up, down = (tail.predict((maps + sign * step).astype("float32"), verbose=0)[:, 1] for sign in (1, -1))
    slopes = (up - down) / 2e-3
    expected = np.maximum(maps[0] @ slopes / maps[0, :, :, 0].size, 0)
    np.testing.assert_allclose(found, expected, atol=0.02 * expected.max())


def test_a_layer_inside_a_nested_network_is_found():
    import keras

    inner = keras.Sequential([keras.Input((12, 12, 1)), *pooled_network().layers[:2]], name="inner")
    inputs = keras.Input((12, 12, 1))
    x = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(inner(inputs)))
    outer = keras.Model(inputs, keras.layers.Activation("softmax")(x))
    one, other = (explain.grad_cam(outer, pixels(), block, target=1) for block in ("maps", "inner"))
    np.testing.assert_allclose(one, other, atol=1e-7)
    assert one.any()


def test_a_calibrated_model_and_a_regressor_have_maps():
    import keras

    model, images = pooled_network(), pixels()
    halved = keras.Model(model.inputs, keras.layers.Rescaling(0.5, name="temperature")(model.outputs[0]))
    np.testing.assert_allclose(
        explain.grad_cam(halved, images, target=1) * 2, explain.grad_cam(model, images, target=1)
    )
    regressor = models.regressor(backbones.load("pocket_vgg"))
    assert explain.grad_cam(regressor, pixels(2, 32)).shape == (2, 32, 32)


def test_images_are_explained_one_by_one():
    model, images = pooled_network(), pixels(7)
    whole = explain.grad_cam(model, images, target=np.arange(7) % 4)
    in_parts = explain.grad_cam(model, images, target=np.arange(7) % 4, batch_size=3)
    np.testing.assert_allclose(whole, in_parts, atol=1e-6)
    task = data.from_arrays("noise", (images, np.arange(7) % 2))
    np.testing.assert_allclose(explain.grad_cam(model, task.train, target=1), explain.grad_cam(model, images, target=1))


def test_a_map_follows_the_weights():
    model, images = pooled_network(), pixels()
    before = explain.grad_cam(model, images, target=1)
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([3 * kernel, bias])
    np.testing.assert_allclose(explain.grad_cam(model, images, target=1), 3 * before, atol=1e-6)


def test_what_cannot_be_explained_is_said():
    import keras

    model, images = pooled_network(), pixels()
    with pytest.raises(ValueError, match=r"'pooled' has no block or layer 'map'; .* are: rescaling\w*, maps"):
        explain.grad_cam(model, images, "map")
    with pytest.raises(ValueError, match="what leaves 'out' is no feature map"):
        explain.grad_cam(model, images, "out")
    for target in (4, -1, [0, 1, 2, 9]):
        with pytest.raises(ValueError, match="the model has outputs 0 to 3, none with number"):
            explain.grad_cam(model, images, target=target)
    for target in (0.5, [0, 1]):
        with pytest.raises(ValueError, match=r"one an image, shape \(4,\)"):
            explain.grad_cam(model, images, target=target)
    with pytest.raises(ValueError, match=r"not \(12, 12, 1\)"):
        explain.grad_cam(model, images[0])
    flat = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)], name="flat")
    with pytest.raises(ValueError, match="no layer of 'flat' gives a feature map"):
        explain.grad_cam(flat, images)

    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="no functional or sequential"):
        explain.grad_cam(Own(), images)

    inputs = keras.Input((12, 12, 1))
    side = keras.layers.Conv2D(2, 3, name="side")(inputs)
    pool = keras.layers.GlobalAveragePooling2D()
    gate = keras.layers.Concatenate()([pool(inputs), keras.ops.stop_gradient(pool(side))])
    stopped = keras.Model(inputs, keras.layers.Dense(2)(gate), name="stopped")
    with pytest.raises(ValueError, match="the output of 'side' does not reach the output of 'stopped'"):
        explain.grad_cam(stopped, images, "side")


# --- occlusion --------------------------------------------------------------------------------------------------------


def test_covering_a_linear_network_takes_away_what_was_there():
    """Squares side by side, black: each pixel gets the sum of its square, in the quarter that counts, and else 0."""
    images = pixels()
    found = explain.occlusion(corner_network(), images, 0, patch=3, stride=3, fill=0, score="output")
    quarter = images[:, :6, :6, 0] / 255
    sums = quarter.reshape(4, 2, 3, 2, 3).sum(axis=(2, 4))
    np.testing.assert_allclose(found[:, :6, :6], sums.repeat(3, axis=1).repeat(3, axis=2), rtol=1e-5)
    assert np.abs(found[:, 6:]).max() == np.abs(found[:, :, 6:]).max() == 0


def test_squares_that_overlap_are_averaged_and_end_at_the_border():
    images = pixels(side=10)
    model = corner_network(10)
    patch, stride = 4, 3
    starts = [0, 3, 6]
    expected, count = np.zeros((4, 10, 10)), np.zeros((10, 10))
    for y in starts:
        for x in starts:
            copy = images.astype("float32")
            copy[:, y : y + patch, x : x + patch] = 50
            fall = (model.predict(images, verbose=0) - model.predict(copy, verbose=0))[:, 1]
            expected[:, y : y + patch, x : x + patch] += fall[:, None, None]
            count[y : y + patch, x : x + patch] += 1
    found = explain.occlusion(model, images, 1, patch=patch, stride=stride, fill=50, score="output")
    np.testing.assert_allclose(found, expected / count, atol=1e-4)
    at_the_end = explain.occlusion(corner_network(), pixels(), 1, patch=5, stride=4, fill=0, score="output")
    assert at_the_end[:, -1, -1].min() > 0  # 12 − 5 is no multiple of 4, and yet the corner is covered


def test_the_fall_of_a_probability_is_that_of_the_softmax():
    images = pixels()
    logits, sure = corner_network(), corner_network(activation="softmax")
    one = explain.occlusion(logits, images)
    np.testing.assert_allclose(one, explain.occlusion(sure, images), atol=1e-5)
    assert np.abs(one).max() <= 1 and one.any()


def test_by_default_a_square_has_the_mean_of_its_image():
    flat = np.stack([np.full((12, 12, 1), v, np.uint8) for v in (10, 200)])
    assert np.abs(explain.occlusion(corner_network(), flat, 0, score="output")).max() < 1e-4
    assert explain.occlusion(corner_network(), flat, 0, score="output", fill=0)[1].max() > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 13}, "patch must be from 1 to 12 pixels, .* not 13"),
        ({"patch": 4, "stride": 5}, "stride must be from 1 to 4, .* not 5"),
        ({"patch": 4, "stride": 0}, "not 0"),
        ({"score": "loss"}, "not 'loss'"),
        ({"target": 2}, "outputs 0 to 1, none with number 2"),
    ],
)
def test_squares_must_be_of_use(options, message):
    with pytest.raises(ValueError, match=message):
        explain.occlusion(corner_network(), pixels(), **options)


def test_the_softmax_of_a_single_output_says_nothing():
    import keras

    model = corner_network()
    one = keras.Model(model.inputs, keras.layers.Dense(1, use_bias=False)(model.outputs[0]))
    one.layers[-1].set_weights([np.array([[1.0], [0.0]], "float32")])
    with pytest.raises(ValueError, match="single output the softmax is always 1: say score='output'"):
        explain.occlusion(one, pixels())
    options = {"patch": 3, "stride": 3, "fill": 0, "score": "output"}
    expected = explain.occlusion(model, pixels(), 0, **options)
    np.testing.assert_allclose(explain.occlusion(one, pixels(), **options), expected, rtol=1e-5)


# --- images -----------------------------------------------------------------------------------------------------------


def test_the_nearest_images_are_those_with_the_smallest_distance_between_features():
    backbone = backbones.load("pocket_vgg")
    known, queries = (
        data.from_arrays("noise", (pixels(n, 32, seed=seed), np.arange(n) % 2)).train for n, seed in ((9, 1), (3, 2))
    )
    positions, distances = explain.nearest(backbone, queries, known, 4)
    there, here = features.extract(backbone, known), features.extract(backbone, queries)
    expected = np.linalg.norm(here[:, None] - there[None], axis=2)
    assert positions.tolist() == np.argsort(expected, axis=1)[:, :4].tolist()
    np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :4], rtol=1e-5)
    itself, zero = explain.nearest(backbone, known, known, 1, pooling=None)
    assert itself[:, 0].tolist() == list(range(9))
    assert zero.max() < 1e-4
    for n in (0, 10, True):
        with pytest.raises(ValueError, match=f"from 1 to 9, the known images, not {n}"):
            explain.nearest(backbone, queries, known, n)


def test_the_most_confused_are_found_and_the_surest_come_first():
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    logits = np.eye(3)[[1, 1, 1, 0, 2, 1, 2]] * np.array([1.0, 3.0, 2.0, 1.0, 1.0, 1.0, 1.0])[:, None]
    report = evaluation.report(logits, labels, class_names=["ant", "bee", "cat"])
    first, second = explain.most_confused(report)
    assert (first.true, first.predicted, first.count) == ("ant", "bee", 3)
    assert first.positions.tolist() == [1, 2, 0]
    assert (second.true, second.predicted, second.positions.tolist()) == ("bee", "cat", [4])
    (only,) = explain.most_confused(report, pairs=1, n=2)
    assert only.positions.tolist() == [1, 2]
    assert explain.most_confused(evaluation.report(np.eye(3), np.arange(3))) == []
