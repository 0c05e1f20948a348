"""ONNX Runtime against Keras, and what happens where it cannot be used."""

import warnings
from importlib.util import find_spec

import numpy as np
import pytest

from tlutils import backbones, data, engines, features, models, training
from tlutils.engines import EngineWarning

pytestmark = pytest.mark.usefixtures("tensorflow")
FAST = all(find_spec(name) for name in engines.PACKAGES)


def fast(test):
    """A test of ONNX Runtime itself, in which Keras must not step in."""
    test = pytest.mark.filterwarnings("error::tlutils.engines.EngineWarning")(test)
    return pytest.mark.skipif(not FAST, reason="ONNX Runtime is not installed: pip install 'tlutils[fast]'")(test)


def network(seed=0, name="small"):
    """Three convolutions with BatchNorm and a branch, preprocessing inside."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(inputs)
    y = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(x))
    x = layers.Conv2D(12, 3, activation="swish")(layers.Add()([x, y]))
    return backbones.wrap(keras.Model(inputs, x, name=name), [layers.Rescaling(1 / 127.5, -1)])


def task(n=30, side=16, channels=3):
    """Noise, brighter from class to class."""
    labels = np.arange(n) % 3
    noise = np.random.default_rng(0).integers(0, 156, (n, side, side, channels))
    return data.from_arrays("noise", ((noise + 45 * labels[:, None, None, None]).astype("uint8"), labels))


@pytest.fixture
def conversions(monkeypatch):
    """How many networks have been converted."""
    count, convert = [0], engines._convert

    def counted(*arguments):
        count[0] += 1
        return convert(*arguments)

    monkeypatch.setattr(engines, "_convert", counted)
    return count


@pytest.fixture
def installed(monkeypatch):
    """As if the packages were there."""
    monkeypatch.setattr(engines, "find_spec", lambda name: name)


@pytest.fixture
def missing(monkeypatch):
    """As if they were not."""
    monkeypatch.setattr(engines, "find_spec", lambda name: None)


# --- which engine runs ------------------------------------------------------------------------------------------------


def test_an_unknown_engine_is_refused():
    with pytest.raises(ValueError, match="'auto', 'keras' or 'onnx', not 'torch'"):
        features.extract(network(), task().train, engine="torch")


@pytest.mark.parametrize(
    ("engine", "pixels", "gpu", "chosen"),
    [
        ("keras", 10**12, False, "keras"),
        ("onnx", 1, False, "onnx"),
        ("onnx", 1, True, "onnx"),
        ("auto", engines.WORTHWHILE, False, "onnx"),
        ("auto", engines.WORTHWHILE - 1, False, "keras"),
        ("auto", engines.WORTHWHILE, True, "keras"),
    ],
)
def test_auto_converts_where_that_pays(installed, monkeypatch, engine, pixels, gpu, chosen):
    monkeypatch.setattr(engines, "_has_gpu", lambda: gpu)
    assert engines.choose(engine, network().model, pixels) == (chosen, None)


def test_auto_asks_for_the_pixels_of_all_images(monkeypatch):
    asked = []
    monkeypatch.setattr(engines, "choose", lambda engine, model, pixels: asked.append(pixels) or ("keras", None))
    features.extract(network(), task(30).train)
    assert asked == [30 * 16 * 16]


# --- where ONNX Runtime cannot be used --------------------------------------------------------------------------------


def test_without_the_packages_keras_runs_and_a_sentence_says_how_to_get_them(missing):
    backbone, images = network(), task().train
    with pytest.warns(EngineWarning) as warned:
        found = features.extract(backbone, images, engine="onnx")
    assert [str(warning.message) for warning in warned] == [
        "onnxruntime, onnx, tf2onnx are not installed here (pip install 'tlutils[fast]'); "
        "Keras runs the network instead"
    ]
    assert warned[0].filename == __file__
    np.testing.assert_array_equal(found, features.extract(backbone, images, engine="keras"))


def test_auto_does_not_ask_for_packages_that_are_not_there(missing, monkeypatch):
    monkeypatch.setattr(engines, "WORTHWHILE", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features.extract(network(), task().train, engine="auto")


def test_only_float32_is_converted(installed):
    import keras

    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        backbone = network()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    engine, obstacle = engines.choose("onnx", backbone.model, 1)
    assert engine == "keras" and "float32" in obstacle and "float16" in obstacle


@pytest.mark.parametrize("engine", ["onnx", "auto"])
def test_a_network_that_cannot_be_converted_is_run_by_keras_and_tried_once(installed, monkeypatch, engine, tmp_path):
    import keras

    tried = []

    def fail(*arguments, **options):
        tried.append(1)
        raise NotImplementedError("no such operation: Swirl\nand much more")

    monkeypatch.setattr(keras.Model, "export", fail)
    monkeypatch.setattr(engines, "WORTHWHILE", 1)
    backbone, images = network(), task().train
    expected = features.extract(backbone, images, engine="keras")
    runs, with_keras = [], engines.with_keras
    monkeypatch.setattr(engines, "with_keras", lambda model: runs.append(1) or with_keras(model))
    for _ in range(2):
        with pytest.warns(
            EngineWarning, match=r"converted to ONNX \(no such operation: Swirl\); Keras runs the network"
        ):
            np.testing.assert_array_equal(features.extract(backbone, images, tmp_path, engine=engine), expected)
    assert len(tried) == 1
    assert len(runs) == 1  # the second time, what Keras made is read back
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]


class Session:
    """Stands for a network that was converted wrongly."""

    def __init__(self, network, factor):
        self.network, self.factor = network, factor

    def get_inputs(self):
        return [type("Input", (), {"name": "pixels"})]

    def run(self, outputs, inputs):
        return [self.factor * np.asarray(self.network(inputs["pixels"]))]


@pytest.mark.parametrize(("factor", "refused"), [(1.0005, False), (1.002, True), (np.nan, True)])
def test_a_network_that_gives_other_features_is_not_used(installed, monkeypatch, tmp_path, factor, refused):
    import keras

    backbone, images = network(), task().train
    pooled = features._pooled(backbone.model, "avg")
    monkeypatch.setattr(keras.Model, "export", lambda self, path, **options: open(path, "w").close())
    monkeypatch.setattr(engines, "_load", lambda path: Session(pooled, factor))
    expected = features.extract(backbone, images)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        found = features.extract(backbone, images, tmp_path, engine="onnx")
    assert [warning.category for warning in warned] == [EngineWarning] * refused
    np.testing.assert_allclose(found, expected * (1 if refused else factor), rtol=1e-5, atol=1e-7)
    assert bool(list(tmp_path.glob("*.onnx"))) != refused


def test_a_kept_network_that_gives_other_features_is_converted_anew(installed, monkeypatch, tmp_path):
    import keras

    backbone, images = network(), task().train
    pooled = features._pooled(backbone.model, "avg")
    monkeypatch.setattr(keras.Model, "export", lambda self, path, **options: open(path, "w").close())
    monkeypatch.setattr(engines, "_load", lambda path: Session(pooled, 1 if path.name == "network.onnx" else 2))
    digest = features._digest(pooled)
    (tmp_path / f"{digest}.onnx").touch()  # as if another release had left it, or a disk had changed it
    with warnings.catch_warnings():
        warnings.simplefilter("error", EngineWarning)
        found = features.extract(backbone, images, tmp_path, engine="onnx")
    np.testing.assert_allclose(found, features.extract(backbone, images), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("engine", ["onnx", "auto"])
def test_where_onnx_fails_on_the_way_keras_takes_over(installed, monkeypatch, tmp_path, engine):
    import keras

    class Failing(Session):
        calls = 0

        def run(self, outputs, inputs):
            self.calls += 1
            if self.calls > 4:  # the first is the comparison
                raise OverflowError("out of memory\nand much more")
            return super().run(outputs, inputs)

    backbone, images = network(), task(30).train
    pooled = features._pooled(backbone.model, "avg")
    session = Failing(pooled, 1.0005)
    monkeypatch.setattr(keras.Model, "export", lambda self, path, **options: open(path, "w").close())
    monkeypatch.setattr(engines, "_load", lambda path: session)
    monkeypatch.setattr(engines, "WORTHWHILE", 1)
    monkeypatch.setattr(features, "PART_SECONDS", 0)
    expected = features.extract(backbone, images, engine="keras")
    with pytest.warns(EngineWarning, match=r"ONNX Runtime failed on .* \(out of memory\); Keras runs the network"):
        found = features.extract(backbone, images, tmp_path, batch_size=4, engine=engine)
    assert session.calls > 4
    np.testing.assert_allclose(found, expected, rtol=1e-5)  # all of them, those that ONNX Runtime had made included


# --- the real thing ---------------------------------------------------------------------------------------------------


def close(found, expected):
    assert found.shape == expected.shape and found.dtype == expected.dtype == np.float32
    assert expected.std() > 1e-3
    return np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()


@fast
@pytest.mark.parametrize("pooling", ["avg", "max", None])
def test_onnx_gives_the_features_of_keras_without_a_word(pooling, capfd):
    backbone, images = network(), task().train
    expected = features.extract(backbone, images, pooling=pooling, engine="keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = features.extract(backbone, images, pooling=pooling, batch_size=7, engine="onnx")
    assert close(found, expected)
    assert capfd.readouterr() == ("", "")


@fast
@pytest.mark.parametrize("name", ["pocket_resnet", "pocket_vgg", "pocket_inception", "pocket_mobilenet"])
def test_the_probe_predicts_the_same_classes_with_both_engines(name):
    digits = data.load("digits", labels_per_class=5)
    logits, seen = [], []
    for engine in ("keras", "onnx"):
        backbone = backbones.load(name)
        model = models.classifier(backbone, 10)
        training.linear_probe(model, digits, engine=engine)
        seen.append(features.extract(backbone, digits.test, engine=engine))
        weights, bias = model.get_layer("output").get_weights()
        logits.append(seen[-1] @ weights + bias)
    assert close(*seen)
    np.testing.assert_array_equal(logits[0].argmax(axis=1), logits[1].argmax(axis=1))


@fast
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side"),
    [("mobilenet_v2", 64), ("efficientnet_v2_b0", 64), ("resnet50", 64), ("inception_v3", 96), ("densenet121", 64)],
)
def test_networks_of_imagenet_give_the_same_features_with_both_engines(name, side):
    import keras

    backbone = backbones.load(name, weights=None, input_shape=(side, side, 3))
    for layer in models.inner_layers(backbone.model):  # random weights let the signal fade; such statistics do not
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    images = task(12, side).train
    backbone.model(images.images().astype("float32"), training=True)
    found = [features.extract(backbone, images, engine=engine) for engine in ("onnx", "keras")]
    assert close(*found)


@fast
def test_a_network_is_converted_once_as_long_as_its_weights_stay(conversions):
    backbone, images = network(), task().train
    first = [features.extract(backbone, images, engine="onnx") for _ in range(2)]
    assert conversions == [1]
    np.testing.assert_array_equal(*first)
    backbone.model.set_weights([2 * weight for weight in backbone.model.get_weights()])
    found = features.extract(backbone, images, engine="onnx")
    assert conversions == [2]
    assert close(found, features.extract(backbone, images, engine="keras")) and not close(found, first[0])


@fast
def test_the_converted_network_and_the_features_are_kept(conversions, tmp_path):
    first = features.extract(network(), task(30).train, tmp_path, engine="onnx")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".npy", ".onnx"]
    other = features.extract(network(), task(31).train, tmp_path, engine="onnx")  # built again, as in another process
    assert conversions == [1]
    np.testing.assert_allclose(other[:30], first, rtol=1e-5)
    features.extract(network(), task(30).train, tmp_path, engine="keras")
    assert len(list(tmp_path.glob("*.npy"))) == 3  # the two engines do not pass for each other


@fast
def test_a_damaged_file_is_converted_anew(conversions, tmp_path):
    expected = features.extract(network(), task(30).train, tmp_path, engine="onnx")
    (file,) = tmp_path.glob("*.onnx")
    file.write_bytes(file.read_bytes()[:1000])
    other = features.extract(network(), task(31).train, tmp_path, engine="onnx")
    assert conversions == [2]
    np.testing.assert_allclose(other[:30], expected, rtol=1e-5)


@fast
def test_means_and_variances_become_part_of_the_converted_network():
    import keras

    inputs = keras.Input((16, 16, 3))
    normalize = keras.layers.Normalization(mean=[100.0, 110.0, 120.0], variance=[900.0, 1000.0, 1100.0])
    small = keras.Model(inputs, keras.layers.Conv2D(4, 3)(normalize(inputs)))
    images, mean = task().train, normalize.mean
    assert close(features.extract(small, images, engine="onnx"), features.extract(small, images, engine="keras"))
    assert normalize.mean is mean


@fast
def test_fine_tuning_may_start_from_activations_of_onnx(conversions):
    small, ends = task(12), []
    for engine in ("keras", "onnx"):
        model = models.classifier(network(), 3)
        start = model.get_weights()
        training.fine_tune(model, small, 0, epochs=3, learning_rate=1e-2, engine=engine, start="as_is")
        ends.append(model.get_weights())
    moved = max(np.abs(a - b).max() for a, b in zip(ends[0], start))
    assert conversions == [1]
    assert max(np.abs(a - b).max() for a, b in zip(*ends)) < 0.02 * moved
