"""Surgery keeps what a network computes: checked on the pretrained pocket zoo and on small models made for it."""

import numpy as np
import pytest

from tlutils import backbones, models, surgery

pytestmark = pytest.mark.usefixtures("tensorflow")


@pytest.fixture(scope="module")
def vgg():
    return backbones.load("pocket_vgg")


@pytest.fixture(scope="module")
def resnet():
    return backbones.load("pocket_resnet", input_shape=(32, 32, 3))


def build(make, shape=(8, 8, 1), blocks=None):
    """A backbone of layers that ``make`` puts on an input; a colour image is scaled to [0, 1] first."""
    import keras
    from keras import layers

    inputs = keras.Input(shape, name="image")
    network = keras.Model(inputs, make(inputs, layers), name="small")
    rng = np.random.default_rng(1)
    network.set_weights([rng.uniform(0.1, 1, weight.shape) - (len(weight.shape) > 1) / 2 for weight in network.weights])
    return backbones.wrap(network, layers.Rescaling(1 / 255), blocks)


@pytest.fixture
def dense():
    """Two blocks with nearly everything that copies can go through, and a dense part."""

    def make(x, layers):
        x = layers.Conv2D(6, 3, activation="relu", name="low")(x)
        x = layers.BatchNormalization(name="low_norm")(x)
        x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", activation="relu", name="low_depth")(x)
        side = layers.Conv2D(3, 1, name="side")(x)
        x = layers.Concatenate(name="both")([layers.LeakyReLU(name="leaky")(x), side])
        x = layers.PReLU(shared_axes=(1, 2), name="prelu")(x)
        x = layers.AveragePooling2D(2, name="pool_low")(x)
        x = layers.SeparableConv2D(5, 2, depth_multiplier=2, activation="relu", name="separable")(x)
        x = layers.ZeroPadding2D(name="pad")(layers.SpatialDropout2D(0.5, name="drop")(x))
        x = layers.Flatten(name="flat")(x)
        x = layers.Dense(7, activation="relu", name="first")(x)
        x = layers.Dense(8, activation="tanh", name="second")(x)
        return layers.Reshape((2, 2, 2), name="maps")(x)

    return build(make, blocks={"one": "pool_low", "two": "maps"})


def pixels(shape, n=4):
    return np.random.default_rng(0).integers(0, 256, (n, *shape)).astype("float32")


def outputs(model, training=False):
    network = getattr(model, "model", model)
    shape = tuple(side or 32 for side in network.input_shape[1:])
    return np.asarray(network(pixels(shape), training=training))


def same(a, b, within=1e-5):
    a, b = outputs(a), outputs(b)
    return a.shape == b.shape and np.abs(a - b).max() <= within * np.abs(b).max()


def weights_of(model):
    """Arrays by layer and weight, such as ``block1_conv1/kernel``."""
    network = getattr(model, "model", model)
    return {
        f"{layer.name}/{weight.path.split('/')[-1]}": weight.numpy()
        for layer in models.all_layers(network)
        for weight in layer.weights
    }


def touched(new, old):
    """Names of weights that are not bit for bit those of the original; new ones included."""
    new, old = weights_of(new), weights_of(old)
    assert old.keys() <= new.keys()
    return {name for name in new if name not in old or not np.array_equal(new[name], old[name])}


def norm(name):
    return {f"{name}/{weight}" for weight in ("gamma", "beta", "moving_mean", "moving_variance")}


# --- widen ------------------------------------------------------------------------------------------------------------


def test_a_wider_vgg_computes_the_same_with_the_counted_parameters(vgg):
    before = weights_of(vgg)
    wider = models.widen(vgg, "block2_conv1", 50)
    assert same(wider, vgg)
    assert touched(wider, vgg) == {"block2_conv1/kernel", "block2_conv1/bias", "block2_conv2/kernel"}
    assert weights_of(wider)["block2_conv1/kernel"].shape == (3, 3, 16, 50)
    # 18 more kernels of 3×3×16 with a bias, and 18 more channels that enter 32 kernels of 3×3
    assert wider.parameters - vgg.parameters == 18 * (9 * 16 + 1) + 18 * 9 * 32
    assert (wider.name, wider.family, wider.blocks, wider.source_task) == (
        *(vgg.name, vgg.family, vgg.blocks, vgg.source_task),
    )
    assert all(np.array_equal(a, before[name]) for name, a in weights_of(vgg).items())


def test_a_wider_resnet_computes_the_same_with_the_counted_parameters(resnet):
    wider = models.widen(resnet, "block3_reduce_conv", 45)
    assert same(wider, resnet)
    changed = {"block3_reduce_conv/kernel", "block3_middle_conv/kernel", *norm("block3_reduce_bn")}
    assert touched(wider, resnet) == changed
    # 13 more kernels of 1×1×64, four numbers of BatchNorm each, 13 more channels that enter 32 kernels of 3×3
    assert wider.parameters - resnet.parameters == 13 * 64 + 13 * 4 + 13 * 9 * 32
    # the stem's channels enter the first unit and its shortcut: two layers take the copies in
    stem = models.widen(resnet, "stem_conv", 30)
    assert same(stem, resnet)
    assert stem.parameters - resnet.parameters == 6 * 25 + 6 * 4 + 6 * (16 + 64)


def test_copies_are_copies_and_share_what_the_original_gave(vgg):
    old, new = weights_of(vgg), weights_of(models.widen(vgg, "block1_conv2", 40))
    kernel, following = new["block1_conv2/kernel"], new["block2_conv1/kernel"]
    assert np.array_equal(kernel[..., :16], old["block1_conv2/kernel"])
    columns = kernel.reshape(-1, 40).T
    origins = [int(np.flatnonzero((columns[:16] == column).all(axis=1))[0]) for column in columns]
    assert origins[:16] == list(range(16))
    for channel in range(16):
        copies = [i for i, origin in enumerate(origins) if origin == channel]
        given = old["block2_conv1/kernel"][:, :, channel]
        assert np.allclose(following[:, :, copies].sum(axis=2), given, atol=1e-6)
        assert np.allclose(following[:, :, copies], given[:, :, None] / len(copies), atol=1e-7)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("pocket_inception", ("stem_conv", "block1_1x1_conv", "block2_pool_project_conv")),
        ("pocket_mobilenet", ("stem_conv", "block2_expand_conv", "block6_project_conv")),
    ],
)
def test_copies_are_followed_through_branches_and_depthwise_convolutions(name, layers):
    backbone = backbones.load(name)
    for layer in layers:
        wider = models.widen(backbone, layer, surgery._width(surgery._find(backbone.model, layer)[0]) + 5, seed=2)
        assert same(wider, backbone)
        assert wider.parameters > backbone.parameters


@pytest.mark.parametrize("layer", ["low", "side", "separable", "first"])
def test_copies_are_followed_through_a_small_model_with_a_dense_part(dense, layer):
    wider = models.widen(dense, layer, 19, seed=3)
    assert same(wider, dense)
    assert len(weights_of(wider)[f"{layer}/bias"]) == 19
    changed = {name.split("/")[0] for name in touched(wider, dense)}
    assert (
        changed
        == {layer}
        | {
            "low": {"low_norm", "low_depth", "side", "prelu", "separable"},
            "side": {"prelu", "separable"},
            "separable": {"first"},
            "first": {"second"},
        }[layer]
    )


def test_a_dense_layer_gets_the_counted_parameters(dense):
    flat = 4 * 4 * 5
    assert models.widen(dense, "first", 9).parameters - dense.parameters == 2 * (flat + 1) + 2 * 8


def test_widening_is_exact_in_training_mode_too(resnet):
    # copies of a channel have the statistics of the channel
    wider = models.widen(resnet, "block1_middle_conv", 21)
    for network in (wider, models.widen(wider, "block1_middle_conv", 33)):
        expected = outputs(models.replace_layer(resnet, "block5_out", _relu("block5_out")), training=True)
        assert np.abs(outputs(network, training=True) - expected).max() <= 1e-4 * np.abs(expected).max()


def _relu(name):
    from keras import layers

    return layers.Activation("relu", name=name)


def test_the_head_takes_in_what_a_backbone_alone_cannot_give_away(vgg):
    with pytest.raises(ValueError, match="leaves pocket_vgg"):
        models.widen(vgg, "block4_conv2", 100)
    model = models.classifier(vgg, 10, head=models.Head(hidden=(12,), pooling="flatten"))
    for layer, width in (("block4_conv2", 100), ("hidden1", 20)):
        wider = models.widen(model, layer, width)
        assert same(wider, model)
        assert models.block_names(wider) == vgg.blocks
        assert {layer, "hidden1"} <= {name.split("/")[0] for name in touched(wider, model)}


def test_noise_is_added_to_the_copies_only(vgg):
    old, new = weights_of(vgg), weights_of(models.widen(vgg, "block2_conv1", 64, noise=0.05))
    plain = weights_of(models.widen(vgg, "block2_conv1", 64))
    kernel = new["block2_conv1/kernel"]
    assert np.array_equal(kernel[..., :32], old["block2_conv1/kernel"])
    added = (kernel - plain["block2_conv1/kernel"])[..., 32:]
    assert np.std(added) == pytest.approx(0.05 * old["block2_conv1/kernel"].std(), rel=0.05)
    assert abs(added.mean()) < 5 * added.std() / np.sqrt(added.size)
    assert all(np.array_equal(new[name], plain[name]) for name in new if name != "block2_conv1/kernel")


def test_the_seed_draws_the_copies(vgg):
    def kernel(seed):
        return weights_of(models.widen(vgg, "block2_conv1", 48, seed=seed))["block2_conv1/kernel"]

    assert np.array_equal(kernel(1), kernel(1))
    assert not np.array_equal(kernel(1), kernel(2))


def fitted(model, epochs=1):
    images = pixels(model.input_shape[1:], n=16)
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(images, np.random.default_rng(0).normal(size=(16, model.output_shape[-1])), epochs=epochs, verbose=0)
    return weights_of(model)


def test_copies_stay_twins_without_noise_and_part_with_it(dense):
    apart = {}
    for noise in (0.0, 0.1):
        model = models.widen(models.classifier(models.truncate(dense, "one"), 3, dropout=0), "low", 12, noise=noise)
        before = weights_of(model)["low/kernel"].copy()
        after = fitted(model, 3)["low/kernel"]
        assert (after[..., 6:] != before[..., 6:]).any(axis=(0, 1, 2)).all()  # every new channel has learned
        origins = np.random.default_rng(0).integers(6, size=6)
        apart[noise] = np.abs((after - before)[..., 6:] - (after - before)[..., origins]).max()
    assert apart[0.0] < 1e-5 < apart[0.1]


def test_widenable_lists_what_widen_accepts(vgg, resnet):
    assert models.widenable(vgg) == tuple(f"block{b}_conv{i}" for b in (1, 2, 3, 4) for i in (1, 2))[:-1]
    units = [f"block{b}_{part}_conv" for b in range(1, 6) for part in ("reduce", "middle")]
    assert models.widenable(resnet) == ("stem_conv", *units)
    for layer in ("block1_expand_conv", "block3_shortcut_conv"):
        with pytest.raises(ValueError, match=f"cannot widen '{layer}'.*'block\\d_add' .Add.*shortcut.*block1_reduce"):
            models.widen(resnet, layer, 500)


@pytest.mark.parametrize("width", [32, 31, 0, -5, 40.0, True, None])
def test_a_width_that_is_not_larger_is_refused(vgg, width):
    with pytest.raises(ValueError, match="'block2_conv1' has 32 channels") as error:
        models.widen(vgg, "block2_conv1", width)
    assert repr(width) in str(error.value)


def test_what_cannot_be_found_lists_near_names(resnet):
    calls = (lambda n: models.widen(resnet, n, 99), lambda n: models.deepen(resnet, n))
    for call in (*calls, lambda n: models.replace_layer(resnet, n, _relu("new"))):
        with pytest.raises(ValueError, match=r"'block3_reduce' is unknown in 'pocket_resnet'.*block3_reduce_conv"):
            call("block3_reduce")
        with pytest.raises(ValueError, match=r"'block3' is no single layer but a part of.*block3_middle_conv"):
            call("block3")
        with pytest.raises(ValueError, match="'pixels' is unknown"):
            call("pixels")
    with pytest.raises(ValueError, match=r"block3_reduce_bn.*no width of its own.*block3_reduce_conv"):
        models.widen(resnet, "block3_reduce_bn", 99)
    with pytest.raises(ValueError, match="noise must be 0 or a positive number, not -1"):
        models.widen(resnet, "block3_reduce_conv", 99, noise=-1)
    with pytest.raises(ValueError, match="functional Keras model, not 'resnet'"):
        models.widen("resnet", "block3_reduce_conv", 99)


BLOCKING = {
    "softmax": (lambda x, L: L.Conv2D(4, 3, activation="softmax", name="wide")(x), "activation of 'wide'"),
    "layer norm": (lambda x, L: L.LayerNormalization(name="n")(L.Conv2D(4, 3, name="wide")(x)), "'n', and a LayerNorm"),
    "groups": (
        lambda x, L: L.Conv2D(4, 3, groups=2, name="g")(L.Conv2D(4, 3, name="wide")(x)),
        "takes its channels in 2 groups",
    ),
    "own groups": (lambda x, L: L.Conv2D(4, 1, groups=2, name="wide")(L.Concatenate()([x, x])), "made in 2 groups"),
    "other axis": (
        lambda x, L: L.BatchNormalization(axis=1, name="n")(L.Conv2D(4, 3, name="wide")(x)),
        "works along axis 1",
    ),
}


@pytest.mark.parametrize("case", BLOCKING)
def test_what_mixes_channels_stops_the_copies_with_its_name(case):
    make, reason = BLOCKING[case]
    backbone = build(lambda x, layers: layers.Conv2D(3, 2, name="last")(make(x, layers)))
    with pytest.raises(ValueError, match=f"cannot widen 'wide' of small: .*{reason}"):
        models.widen(backbone, "wide", 9)
    assert models.widenable(backbone) == () or case == "groups"


def test_a_layer_that_is_called_twice_must_meet_the_same_copies_twice():
    def make(x, layers):
        wide, shared = layers.Conv2D(4, 1, name="wide"), layers.Conv2D(2, 3, name="shared")
        other = layers.Conv2D(4, 1, name="other")(x)
        return layers.Add(name="sum")([shared(wide(x)), shared(other)])

    with pytest.raises(ValueError, match="'shared', which is also called on something else"):
        models.widen(build(make), "wide", 9)

    def twice(x, layers):
        y = layers.Conv2D(4, 1, name="wide")(x)
        y = layers.Multiply(name="square")([y, layers.Activation("sigmoid", name="gate")(y)])
        return layers.Conv2D(2, 3, name="last")(y)

    backbone = build(twice)
    assert same(models.widen(backbone, "wide", 9), backbone)  # both sides of the product are the same copies


# --- deepen -----------------------------------------------------------------------------------------------------------


def test_a_deeper_vgg_computes_the_same_with_the_counted_parameters(vgg):
    deeper = models.deepen(vgg, "block2_conv2")
    assert same(deeper, vgg)
    assert touched(deeper, vgg) == {"block2_conv2_deeper/kernel", "block2_conv2_deeper/bias"}
    assert deeper.parameters - vgg.parameters == 9 * 32 * 32 + 32
    assert deeper.blocks == vgg.blocks
    kernel = weights_of(deeper)["block2_conv2_deeper/kernel"]
    x = np.random.default_rng(0).random((1, 5, 5, 32)).astype("float32")
    by_hand = np.einsum("hwc,cd->hwd", x[0], kernel[1, 1])
    assert np.array_equal(by_hand, x[0])
    assert np.count_nonzero(kernel) == 32


def test_a_deeper_resnet_has_batch_norm_that_is_the_identity_in_inference(resnet):
    deeper = models.deepen(resnet, "block2_out")
    assert same(deeper, resnet)
    assert touched(deeper, resnet) == {"block2_out_deeper/kernel", *norm("block2_out_deeper_bn")}
    assert deeper.parameters - resnet.parameters == 9 * 64 * 64 + 4 * 64
    layer = deeper.model.get_layer("block2").get_layer("block2_out_deeper_bn")
    old = resnet.model.get_layer("block2").get_layer("block2_middle_bn")
    assert (layer.momentum, layer.epsilon) == (old.momentum, old.epsilon)
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 64)).astype("float32")
    assert np.allclose(layer(x), x, rtol=1e-6)
    plain = models.deepen(resnet, "block2_out", kernel_size=1, batch_norm=False, name="mix")
    assert plain.parameters - resnet.parameters == 64 * 64 + 64
    assert same(plain, resnet)


def test_deepenable_lists_where_deepen_works(vgg, dense):
    each = [f"block{b}_{part}" for b in (1, 2, 3, 4) for part in ("conv1", "conv2", "pool")]
    assert models.deepenable(vgg) == tuple(each)
    assert models.deepenable(dense) == ("low", "low_depth", "separable", "drop", "pad", "flat", "first")


@pytest.mark.parametrize("after", ["block1_expand_relu6", "block4_depthwise_relu6", "top_relu6"])
def test_relu6_comes_after_relu6(after):
    backbone = backbones.load("pocket_mobilenet")
    deeper = models.deepen(backbone, after)
    assert same(deeper, backbone)
    new = [layer for layer in models.all_layers(deeper.model) if layer.name == f"{after}_deeper_activation"]
    assert np.asarray(new[0](np.float32([-1, 3, 9]))).tolist() == [0, 3, 6]


def test_a_dense_layer_gets_the_identity_matrix(dense):
    deeper = models.deepen(dense, "first", name="extra")
    assert same(deeper, dense)
    assert deeper.parameters - dense.parameters == 7 * 7 + 7
    assert np.array_equal(weights_of(deeper)["extra/kernel"], np.eye(7))
    model = models.classifier(dense, 3, head=models.Head(hidden=(9,)))
    deeper = models.deepen(model, "hidden1")
    assert same(deeper, model)
    assert deeper.count_params() - model.count_params() == 9 * 9 + 9


@pytest.mark.parametrize("after", ["separable", "drop", "pad"])
def test_pooling_dropout_and_padding_keep_what_an_activation_made(dense, after):
    deeper = models.deepen(dense, after, batch_norm=True)
    assert same(deeper, dense)


def test_where_a_second_activation_would_change_something_it_is_refused(dense, resnet):
    for after in ("leaky", "second", "low_norm", "side", "both", "maps", "image"):
        with pytest.raises(ValueError, match=r"φ\(φ\(x\)\) = φ\(x\)|unknown in"):
            models.deepen(dense, after)
    with pytest.raises(ValueError, match=r"cannot insert a layer after 'block1_add'.*block1_out"):
        models.deepen(resnet, "block1_add")
    for size in (2, 0, -1, 3.0, True):
        with pytest.raises(ValueError, match=f"kernel_size must be odd.*not {size}"):
            models.deepen(resnet, "block1_out", kernel_size=size)
    with pytest.raises(ValueError, match="'block1' already has a layer 'block1_add'"):
        models.deepen(resnet, "block1_out", name="block1_add")


def test_surgery_can_be_repeated_and_combined(resnet):
    model = models.deepen(models.deepen(resnet, "block1_out"), "block1_out")
    assert {f"block1_out_deeper{i}/kernel" for i in ("", "2")} <= weights_of(model).keys()
    model = models.widen(models.widen(model, "block1_out_deeper2", 80), "block4_middle_conv", 50)
    assert same(model, resnet)
    assert [layer.name for layer in model.model.layers] == [layer.name for layer in resnet.model.layers]
    cut = models.truncate(model, "block2")
    assert same(cut, models.truncate(resnet, "block2"))


# --- replace ----------------------------------------------------------------------------------------------------------


def test_another_layer_stands_in_its_place_and_the_rest_keep_their_weights(vgg):
    from keras import layers

    new = layers.SeparableConv2D(64, 3, padding="same", activation="relu", name="light")
    changed = models.replace_layer(vgg, "block3_conv2", new)
    light = {"light/depthwise_kernel", "light/pointwise_kernel", "light/bias"}
    old = {name: a for name, a in weights_of(vgg).items() if not name.startswith("block3_conv2/")}
    found = weights_of(changed)
    assert found.keys() == old.keys() | light
    assert all(np.array_equal(found[name], a) for name, a in old.items())
    assert changed.parameters - vgg.parameters == (9 * 64 + 64 * 64 + 64) - (9 * 64 * 64 + 64)
    assert not same(changed, vgg)


def test_a_layer_with_the_old_weights_gives_the_old_output(vgg):
    from keras import layers

    old = vgg.model.get_layer("block2").get_layer("block2_conv1")
    new = layers.Conv2D(32, 3, padding="same", activation="relu", name="block2_conv1")
    new.build((None, None, None, 16))
    new.set_weights(old.get_weights())
    assert same(models.replace_layer(vgg, "block2_conv1", new), vgg, within=0)


def test_a_layer_that_does_not_fit_is_refused(vgg, resnet):
    from keras import layers

    for new in (layers.Conv2D(65, 3, padding="same", name="n"), layers.Conv2D(64, 3, strides=2, name="n")):
        with pytest.raises(ValueError, match=r"'n' cannot replace 'block3_conv2': from .* it makes"):
            models.replace_layer(vgg, "block3_conv2", new)
    with pytest.raises(ValueError, match="'n' cannot replace 'block3_conv2': "):
        models.replace_layer(vgg, "block3_conv2", layers.Conv3D(64, 3, name="n"))
    with pytest.raises(ValueError, match="'block1' already has a layer 'block1_add'"):
        models.replace_layer(resnet, "block1_out", _relu("block1_add"))
    assert not same(models.replace_layer(resnet, "block5_add", layers.Maximum(name="most")), resnet)


# --- what all of them keep --------------------------------------------------------------------------------------------

OPERATIONS = {
    "widen": lambda backbone: models.widen(backbone, "block4_middle_conv", 40),
    "deepen": lambda backbone: models.deepen(backbone, "block4_middle_relu"),
    "replace": lambda backbone: models.replace_layer(backbone, "block4_middle_relu", _relu("block4_middle_relu")),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_it_trains_and_the_original_stays_as_it_was(resnet, operation):
    before, expected = weights_of(resnet), outputs(resnet)
    changed = OPERATIONS[operation](resnet)
    assert not {id(w) for w in changed.model.weights} & {id(w) for w in resnet.model.weights}
    model = models.classifier(changed, 3)
    report = models.unfreeze(model, 2)
    assert [row[0] for row in report.rows] == ["preprocess", "stem", *resnet.blocks, "head"]
    start = weights_of(model)
    moved = {name for name, a in fitted(model).items() if not np.array_equal(a, start[name])}
    kernels = {name for name in start if name.startswith(("block4", "block5")) and name.endswith("kernel")}
    assert kernels <= moved
    assert {name.split("_")[0] for name in moved} == {"block4", "block5", "output/kernel", "output/bias"}
    assert not any("_bn/" in name for name in moved)
    if operation == "widen":
        gone = np.abs(weights_of(model)["block4_middle_conv/kernel"] - start["block4_middle_conv/kernel"])
        assert (gone.reshape(-1, 40).max(axis=0)[32:] > 0).any()
    assert all(np.array_equal(a, before[name]) for name, a in weights_of(resnet).items())
    assert np.array_equal(outputs(resnet), expected)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_it_survives_saving(resnet, operation, tmp_path):
    import keras

    model = models.classifier(OPERATIONS[operation](resnet), 3, head="mlp")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert same(loaded, model, within=1e-6)
    assert models.block_names(loaded) == resnet.blocks


def test_what_was_frozen_stays_frozen(resnet):
    model = models.classifier(resnet, 3)
    models.unfreeze(model, 1)
    wider = models.widen(model, "block5_middle_conv", 60)
    assert models.trainable_report(wider).rows[:-2] == models.trainable_report(model).rows[:-2]
    assert {w.path for w in wider.trainable_weights} == {w.path for w in model.trainable_weights}
    models.unfreeze(model, -1)


def test_preprocessing_is_copied_with_its_constants():
    from keras import layers

    def make(x, layers):
        return layers.Conv2D(2, 3, name="last")(layers.Conv2D(4, 3, activation="relu", name="wide")(x))

    plain = build(make, (8, 8, 3))
    normal = layers.Normalization(name="normal")
    normal.adapt(pixels((8, 8, 3)))
    backbone = backbones.wrap(plain.model, normal, name="adapted")
    assert same(models.widen(backbone, "wide", 7), backbone)
    assert same(models.deepen(backbone, "wide"), backbone)
    gray = backbones.load("pocket_vgg", input_shape=(16, 24, 3))
    assert same(models.widen(gray, "block1_conv1", 20), gray)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("vgg16", "block3_conv2"),
        ("resnet50", "conv3_block2_1_conv"),
        ("inception_v3", "conv2d_30"),
        ("mobilenet", "conv_pw_3"),
        ("mobilenet_v2", "block_6_expand"),
        ("densenet121", "conv3_block2_1_conv"),
    ],
)
def test_imagenet_networks_can_be_widened_and_deepened(name, layer):
    backbone = backbones.load(name, weights=None, input_shape=(96, 96, 3))
    layer = layer if layer in models.widenable(backbone) else models.widenable(backbone)[5]
    width = surgery._width(surgery._find(backbone.model, layer)[0]) + 9
    rng = np.random.default_rng(0)
    for part in models.all_layers(backbone.model):
        if type(part).__name__ == "BatchNormalization":  # random weights alone would leave nothing to compare
            part.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in part.get_weights()])
    assert np.abs(outputs(backbone)).max() > 1e-3
    assert same(models.widen(backbone, layer, width), backbone)
    able = models.deepenable(backbone)
    assert same(models.deepen(backbone, able[len(able) // 2]), backbone)
