import numpy as np
import pytest

from tlutils import backbones, models

pytestmark = pytest.mark.usefixtures("tensorflow")

POCKET_BLOCKS = {"pocket_vgg": 4, "pocket_resnet": 5, "pocket_inception": 4, "pocket_mobilenet": 6}


@pytest.fixture(scope="module", params=POCKET_BLOCKS)
def any_pocket(request):
    """A pocket backbone; tests leave its weights as they are, and nothing about what is trainable can be relied on."""
    return backbones.load(request.param)


@pytest.fixture(scope="module")
def resnet():
    return backbones.load("pocket_resnet", input_shape=(32, 32, 3))


@pytest.fixture
def tiny():
    """A backbone that is traced in a moment, with BatchNorm in both blocks."""
    import keras
    from keras import layers

    inputs = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(4, 3, name="low_conv")(inputs)
    x = layers.BatchNormalization(momentum=0.5, name="low_bn")(x)
    x = layers.Conv2D(5, 3, name="high_conv")(x)
    x = layers.BatchNormalization(momentum=0.5, name="high_bn")(x)
    network = keras.Model(inputs, x, name="tiny")
    return backbones.wrap(network, layers.Rescaling(1 / 255), {"low": "low_bn", "high": "high_bn"})


def composite():
    """A backbone whose BatchNorms are inside other layers: one of one's own, and a TimeDistributed."""
    import keras
    from keras import layers

    class Unit(layers.Layer):
        def __init__(self, filters):
            super().__init__(name="unit")
            self.conv, self.norm = layers.Conv2D(filters, 3), layers.BatchNormalization()

        def build(self, shape):
            self.conv.build(shape)
            self.norm.build(self.conv.compute_output_shape(shape))

        def call(self, x):
            return self.norm(self.conv(x))

    inputs = keras.Input((8, 8, 1))
    x = layers.TimeDistributed(layers.BatchNormalization(), name="rows")(Unit(4)(inputs))
    return backbones.wrap(keras.Model(inputs, x, name="composite"), layers.Rescaling(1 / 255))


def pixels(shape, n=3):
    return np.random.default_rng(0).integers(0, 256, (n, *shape)).astype("float32")


def sizes(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def close(a, b, within=1e-6):
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and np.abs(a - b).max() <= within * max(1, np.abs(b).max())


def paths(weights):
    return {weight.path for weight in weights}


# --- heads ------------------------------------------------------------------------------------------------------------

F, K = 224, 10  # features of pocket_resnet, classes


@pytest.mark.parametrize(
    ("head", "parameters"),
    [
        ("linear", F * K + K),
        ("mlp", F * 256 + 256 + 256 * K + K),
        ("flatten", 4 * 4 * F * 1024 + 1024 + 1024 * 512 + 512 + 512 * K + K),
        (models.Head(), F * K + K),
        (models.Head(pooling="max"), F * K + K),
        (models.Head(hidden=(7, 6)), F * 7 + 7 + 7 * 6 + 6 + 6 * K + K),
        (models.Head(hidden=(7,), pooling="flatten"), 16 * F * 7 + 7 + 7 * K + K),
    ],
)
def test_a_head_has_the_parameters_of_its_closed_form(resnet, head, parameters):
    model = models.classifier(resnet, K, head=head)
    assert sizes(model.weights) - sizes(resnet.model.weights) == parameters
    assert model.input_shape == (None, 32, 32, 3)
    assert model.output_shape == (None, K)


@pytest.mark.parametrize(("pooling", "pool"), [("avg", np.mean), ("max", np.max)])
def test_a_linear_head_gives_the_logits_of_its_pooled_features(resnet, pooling, pool):
    images = pixels((32, 32, 3))
    model = models.classifier(resnet, K, head=models.Head(pooling=pooling))
    kernel, bias = model.layers[-1].get_weights()
    expected = pool(np.asarray(resnet.model(images)), axis=(1, 2)) @ kernel + bias
    logits = np.asarray(model(images))
    assert logits.dtype == np.float32
    assert close(logits, expected, 1e-5)
    assert logits.min() < 0  # no softmax: that is left to the loss


def test_hidden_layers_are_relu_and_flattening_keeps_positions_apart(resnet):
    images = pixels((32, 32, 3))
    model = models.classifier(resnet, K, head=models.Head(hidden=(6,), pooling="flatten"))
    kernel, bias, out, out_bias = (weight.numpy() for weight in model.weights[-4:])
    hidden = np.maximum(np.asarray(resnet.model(images)).reshape(3, -1) @ kernel + bias, 0)
    assert close(model(images), hidden @ out + out_bias, 1e-5)


def test_logits_are_float32_in_mixed_precision():
    import keras

    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = models.classifier(backbones.load("pocket_vgg"), 3)
        regressor = models.regressor(backbones.load("pocket_vgg"))
        assert model.get_layer("pool").compute_dtype == "float16"
        assert model(pixels((32, 32, 1))).dtype == regressor(pixels((32, 32, 1))).dtype == "float32"
    finally:
        keras.mixed_precision.set_global_policy("float32")


def test_dropout_works_during_training_only(tiny):
    images = pixels((8, 8, 1))
    model = models.classifier(tiny, 4, dropout=0.5)
    assert close(model(images), model(images), 0)
    assert not close(model(images, training=True), model(images, training=True))
    assert "dropout" not in [layer.name for layer in models.classifier(tiny, 4, dropout=0).layers]


def test_a_regressor_gives_numbers(tiny):
    images = pixels((8, 8, 1))
    model = models.regressor(tiny, 2)
    kernel, bias = model.layers[-1].get_weights()
    assert close(model(images), np.asarray(tiny.model(images)).mean((1, 2)) @ kernel + bias, 1e-5)
    assert models.regressor(tiny).output_shape == (None, 1)


@pytest.mark.parametrize("classes", [1, 0, -3])
def test_a_classifier_needs_two_classes(tiny, classes):
    with pytest.raises(ValueError, match=f"at least 2 classes, not {classes}"):
        models.classifier(tiny, classes)


def test_a_regressor_needs_an_output(tiny):
    with pytest.raises(ValueError, match="at least 1 output, not 0"):
        models.regressor(tiny, 0)


def test_an_unknown_head_lists_those_there_are(tiny):
    with pytest.raises(ValueError, match="unknown head 'deep'; choose from linear, mlp, flatten"):
        models.classifier(tiny, 3, head="deep")
    with pytest.raises(ValueError, match="unknown pooling 'sum'; choose from avg, max, flatten"):
        models.classifier(tiny, 3, head=models.Head(pooling="sum"))


def test_flattening_needs_a_fixed_image_size():
    backbone = backbones.load("pocket_vgg", weights=None, input_shape=(None, None, 1))
    with pytest.raises(ValueError, match=r"fixed image size, and pocket_vgg .* \(None, None, 1\)"):
        models.classifier(backbone, 3, head="flatten")
    assert models.classifier(backbone, 3)(pixels((48, 40, 1))).shape == (3, 3)


# --- what trains ------------------------------------------------------------------------------------------------------


def expected_trainable(backbone, blocks):
    """Paths of the weights that train, told by layer names: the last blocks' kernels and biases, never BatchNorm's."""
    first = len(backbone.blocks) - blocks + 1
    chosen = set()
    for weight in backbone.model.weights:
        layer, kind = weight.path.split("/")[-2:]
        number = next((int(digit) for digit in layer.removeprefix("block")[:1] if digit.isdigit()), None)
        if layer.startswith("top"):  # what follows the last block belongs to it
            number = len(backbone.blocks)
        if number is not None and number >= first and kind in ("kernel", "bias"):
            chosen.add(weight.path)
    return chosen


def test_freezing_leaves_the_head(any_pocket):
    model = models.classifier(any_pocket, 10, head="mlp")
    models.unfreeze(model, -1)
    report = models.freeze(model)
    assert paths(model.trainable_weights) == paths(model.weights) - paths(any_pocket.model.weights)
    assert report.trainable == sizes(model.trainable_weights)
    assert report.frozen == any_pocket.parameters
    assert report.trainable + report.frozen == sizes(model.weights) == model.count_params()


def test_the_last_blocks_train_and_batch_norm_never_does(any_pocket):
    model = models.classifier(any_pocket, 10)
    head = paths(model.weights) - paths(any_pocket.model.weights)
    count = POCKET_BLOCKS[any_pocket.name]
    for blocks in (*range(count + 1), np.int64(1)):  # and back again
        report = models.unfreeze(model, blocks)
        assert paths(model.trainable_weights) == expected_trainable(any_pocket, blocks) | head
        assert report.trainable == sizes(model.trainable_weights)
        assert report.frozen == sizes(model.non_trainable_weights)
        assert report.trainable + report.frozen == model.count_params()


def test_minus_one_is_everything_but_batch_norm(any_pocket):
    model = models.classifier(any_pocket, 10)
    report = models.unfreeze(model, -1)
    assert paths(model.non_trainable_weights) == {path for path in paths(model.weights) if "_bn/" in path}
    stem = {path for path in paths(model.trainable_weights) if "stem" in path}
    assert bool(stem) == (any_pocket.name != "pocket_vgg")  # which starts with its first block
    assert report.trainable == sizes(model.trainable_weights)


def test_a_block_can_be_named(any_pocket):
    model = models.classifier(any_pocket, 10)
    for number, block in enumerate(any_pocket.blocks):
        by_name = models.unfreeze(model, block)
        assert by_name == models.unfreeze(model, len(any_pocket.blocks) - number)


def test_a_backbone_that_was_frozen_as_a_whole_trains_again_also_when_loaded(tiny, tmp_path):
    import keras

    tiny.model.trainable = False  # as Keras' own guide freezes a base model
    model = models.classifier(tiny, 3)
    report = models.unfreeze(model, 1)
    assert {path.split("/")[-2] for path in paths(model.trainable_weights)} == {"high_conv", "output"}
    assert report.trainable == sizes(model.trainable_weights)
    assert {path.split("/")[-2] for path in paths(tiny.model.trainable_weights)} == {"high_conv"}
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert paths(loaded.trainable_weights) == paths(model.trainable_weights)


def test_a_layer_that_was_frozen_by_hand_trains_again(tiny):
    model = models.classifier(tiny, 3)
    before = models.unfreeze(model, 1)
    block = models.backbone_layer(model).get_layer("high")
    for name in ("high_conv", "high_bn"):
        block.get_layer(name).trainable = False
    assert models.trainable_report(model).trainable < before.trainable
    assert models.unfreeze(model, 1) == before


def test_batch_norm_inside_other_layers_does_not_train():
    model = models.classifier(composite(), 3)
    report = models.unfreeze(model, -1)
    trained = {path.rsplit("/", 1)[1] for path in paths(model.trainable_weights)}
    assert trained == {"kernel", "bias"}  # no gamma, no beta
    assert report.frozen == 2 * 4 * 4  # two BatchNorms of four features
    models.unfreeze(model, 0)
    assert len(model.trainable_weights) == 2
    assert models.unfreeze(model, -1) == report


def test_the_conversion_to_gray_never_trains(resnet):
    model = models.classifier(resnet, 3)
    models.unfreeze(model, -1)
    assert not any("rgb_to_gray" in path for path in paths(model.trainable_weights))


def test_an_imagenet_network_trains_block_by_block():
    backbone = backbones.load("mobilenet_v2_0.35", weights=None, input_shape=(64, 64, 3))
    model = models.classifier(backbone, 5)
    head = paths(model.weights) - paths(backbone.model.weights)
    models.unfreeze(model, 2)
    last = ("block_15_", "block_16_", "Conv_1")
    norms = ("gamma", "beta", "moving_mean", "moving_variance")
    expected = {path for path in paths(backbone.model.weights) if any(name in path for name in last)}
    expected = {path for path in expected if not path.endswith(norms)}
    assert len(expected) == 3 + 3 + 1
    assert paths(model.trainable_weights) == expected | head
    models.unfreeze(model, -1)
    assert paths(model.non_trainable_weights) == {path for path in paths(model.weights) if path.endswith(norms)}


def test_a_step_of_training_changes_what_the_report_says(tiny):
    model = models.classifier(tiny, 3)
    images, labels = pixels((8, 8, 1), n=8), np.arange(8) % 3
    for blocks, trained in ((0, set()), (1, {"high_conv"}), (-1, {"low_conv", "high_conv"})):
        models.unfreeze(model, blocks)
        model.compile("sgd", "sparse_categorical_crossentropy")
        before = {weight.path: weight.numpy() for weight in model.weights}
        model.fit(images, labels, epochs=2, verbose=0)
        changed = {weight.path for weight in model.weights if (weight.numpy() != before[weight.path]).any()}
        assert {path.split("/")[-2] for path in changed} == trained | {"output"}
        assert changed == paths(model.trainable_weights)


def test_it_works_on_a_model_that_was_saved_and_loaded(resnet, tmp_path):
    import keras

    model = models.classifier(resnet, 4, head="mlp")
    models.unfreeze(model, 3)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert models.block_names(loaded) == models.block_names(model) == resnet.blocks
    assert paths(loaded.trainable_weights) == paths(model.trainable_weights)
    for blocks in (2, "block2", -1, 0):
        assert models.unfreeze(loaded, blocks) == models.unfreeze(model, blocks)
        assert paths(loaded.trainable_weights) == paths(model.trainable_weights)
    images = pixels((32, 32, 3))
    assert close(loaded(images), model(images))
    frozen, tail = models.split(loaded, 2)
    assert close(tail(frozen(images)), model(images))


def test_the_report_lists_the_parts_from_input_to_output(resnet):
    model = models.classifier(resnet, 4)
    report = models.unfreeze(model, 1)
    assert [row[0] for row in report.rows] == ["preprocess", "stem", *resnet.blocks, "head"]
    for part, trainable, frozen in report.rows[:-1]:
        layer = resnet.model.get_layer(part)
        assert trainable + frozen == sizes(layer.weights)
        assert (trainable > 0) == (part == "block5")
    assert report.rows[-1] == ("head", 224 * 4 + 4, 0)
    printed = str(report).splitlines()
    assert len(printed) == len(report.rows) + 2
    assert printed[-1].split() == ["total", f"{report.trainable:,}", f"{report.frozen:,}"]
    assert len({len(line) for line in printed}) == 1


@pytest.mark.parametrize("blocks", [6, -2, 100, True, 1.0, "block6", "stem", "preprocess", "", None])
def test_blocks_that_there_are_not_raise_an_error_with_those_there_are(resnet, blocks):
    model = models.classifier(resnet, 4)
    models.unfreeze(model, 2)
    before = paths(model.trainable_weights)
    for function in (models.unfreeze, models.split):
        with pytest.raises(ValueError, match="block1, block2, block3, block4, block5") as error:
            function(model, blocks)
        assert repr(blocks) in str(error.value)
    assert paths(model.trainable_weights) == before


def test_a_model_without_a_backbone_is_refused():
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="dense")
    with pytest.raises(ValueError, match="'dense' holds no backbone"):
        models.freeze(model)


def test_all_layers_are_those_that_hold_the_weights(resnet):
    model = models.classifier(resnet, 4)
    layers = list(models.all_layers(model))
    assert len({id(layer) for layer in layers}) == len(layers)
    assert sum(sizes(layer.weights) for layer in layers) == sizes(model.weights)
    assert not any(getattr(layer, "layers", None) for layer in layers)


# --- sharing ----------------------------------------------------------------------------------------------------------


def test_two_classifiers_on_one_backbone_share_it(tiny):
    images = pixels((8, 8, 1))
    one, two = models.classifier(tiny, 3), models.classifier(tiny, 5)
    before = np.asarray(two(images))
    shared = {id(weight) for weight in one.weights} & {id(weight) for weight in two.weights}
    assert shared == {id(weight) for weight in tiny.model.weights}
    models.unfreeze(one, -1)
    one.compile("sgd", "sparse_categorical_crossentropy")
    one.fit(images, np.arange(3), verbose=0)
    assert not close(two(images), before)


# --- truncate ---------------------------------------------------------------------------------------------------------


def test_a_truncated_backbone_is_the_network_up_to_that_block(any_pocket):
    import keras

    from tlutils import zoo

    network = zoo.load(any_pocket.name).get_layer(any_pocket.name)
    images = pixels((32, 32, 1))
    for kept, block in enumerate(any_pocket.blocks, start=1):
        ends = [layer for layer in network.layers if layer.name.startswith(block)]
        until = network if kept == len(any_pocket.blocks) else keras.Model(network.input, ends[-1].output)
        cut = models.truncate(any_pocket, block)
        assert close(cut.model(images), until(images / 255), 1e-5)
        assert cut.blocks == any_pocket.blocks[:kept]
        assert (
            models.truncate(any_pocket, kept).blocks == models.truncate(any_pocket, np.int64(kept)).blocks == cut.blocks
        )
        assert {id(weight) for weight in cut.model.weights} <= {id(weight) for weight in any_pocket.model.weights}
        assert cut.parameters == sizes(until.weights)


def test_a_truncated_backbone_carries_a_classifier(resnet):
    cut = models.truncate(resnet, "block3")
    assert (cut.name, cut.source_task, cut.input_shape) == (resnet.name, resnet.source_task, resnet.input_shape)
    model = models.classifier(cut, 4)
    report = models.unfreeze(model, 1)
    assert [row[0] for row in report.rows] == ["preprocess", "stem", "block1", "block2", "block3", "head"]
    assert not any("block2" in path for path in paths(model.trainable_weights))
    assert models.truncate(cut, 1).blocks == ("block1",)


@pytest.mark.parametrize("block", ["block6", "stem", 0, 6, -1, 2.0, True, None])
def test_cutting_where_there_is_no_block_lists_the_blocks(resnet, block):
    with pytest.raises(ValueError, match="block1, block2, block3, block4, block5") as error:
        models.truncate(resnet, block)
    assert repr(block) in str(error.value)


# --- split ------------------------------------------------------------------------------------------------------------


def test_the_two_parts_of_a_split_compose_to_the_model(any_pocket):
    model = models.classifier(any_pocket, 10, head="mlp")
    images = pixels((32, 32, 1))
    logits = model(images)
    for blocks in range(len(any_pocket.blocks) + 1):
        models.unfreeze(model, blocks)
        frozen, tail = models.split(model, blocks)
        if frozen is None:
            assert (any_pocket.name, blocks) == ("pocket_vgg", 4)  # nothing stands before its first block
            assert tail is model
            continue
        assert close(tail(frozen(images)), logits, 1e-6)
        assert not frozen.trainable_weights
        assert {id(weight) for weight in tail.trainable_weights} == {id(weight) for weight in model.trainable_weights}
        own, other = paths(frozen.weights), paths(tail.weights)
        assert not own & other
        assert own | other == paths(model.weights)
        assert tail.input_shape == frozen.output_shape


def test_where_everything_trains_there_is_no_frozen_part(any_pocket):
    model = models.classifier(any_pocket, 10)
    frozen, tail = models.split(model, -1)
    assert frozen is None
    assert tail is model


def test_a_split_at_a_named_block_starts_there(resnet):
    model = models.classifier(resnet, 4)
    frozen, tail = models.split(model, "block4")
    assert [layer.name for layer in frozen.layers] == ["pixels", "preprocess", "stem", "block1", "block2", "block3"]
    assert [layer.name for layer in tail.layers] == ["boundary", "block4", "block5", "pool", "dropout", "output"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg16", "resnet50", "densenet121", "efficientnet_b0", "inception_v3"])
def test_imagenet_networks_split_and_truncate_at_every_block(name):
    backbone = backbones.load(name, weights=None, input_shape=(80, 80, 3))
    model = models.classifier(backbone, 3)
    images = pixels((80, 80, 3), n=1)
    x = backbone.preprocess(images)
    for layer in backbone.model.layers:
        if layer.name in ("stem", *backbone.blocks):
            x = np.asarray(layer(x))
        if layer.name in backbone.blocks:
            assert close(models.truncate(backbone, layer.name).model(images), x, 1e-5)
    for blocks in range(1, len(backbone.blocks)):
        frozen, tail = models.split(model, blocks)
        assert close(tail(frozen(images)), model(images))
        assert sizes(frozen.weights) + sizes(tail.weights) == model.count_params()
