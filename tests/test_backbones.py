import json
import os
import re
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlutils import backbones, models, sources, zoo

pytestmark = pytest.mark.usefixtures("tensorflow")

POCKET = ("pocket_vgg", "pocket_resnet", "pocket_inception", "pocket_mobilenet")

# Name; function and module of keras.applications; repeated units as the papers count them; and what is documented to
# be done to the pixels: "caffe" is BGR less the means, "tf" is [-1, 1], "torch" is ImageNet's mean and deviation, and
# where it is "inside", preprocess_input does nothing.
IMAGENET = {
    "vgg16": ("VGG16", "vgg16", 5, "caffe"),
    "vgg19": ("VGG19", "vgg19", 5, "caffe"),
    "resnet50": ("ResNet50", "resnet", 3 + 4 + 6 + 3, "caffe"),
    "resnet101": ("ResNet101", "resnet", 3 + 4 + 23 + 3, "caffe"),
    "resnet50_v2": ("ResNet50V2", "resnet_v2", 3 + 4 + 6 + 3, "tf"),
    "inception_v3": ("InceptionV3", "inception_v3", 11, "tf"),
    "xception": ("Xception", "xception", 14, "tf"),
    "mobilenet": ("MobileNet", "mobilenet", 13, "tf"),
    "mobilenet_0.25": ("MobileNet", "mobilenet", 13, "tf"),
    "mobilenet_v2": ("MobileNetV2", "mobilenet_v2", 17, "tf"),
    "mobilenet_v2_0.35": ("MobileNetV2", "mobilenet_v2", 17, "tf"),
    "mobilenet_v3_small": ("MobileNetV3Small", "mobilenet_v3", 11, "inside"),
    "mobilenet_v3_large": ("MobileNetV3Large", "mobilenet_v3", 15, "inside"),
    "densenet121": ("DenseNet121", "densenet", 4, "torch"),
    "efficientnet_b0": ("EfficientNetB0", "efficientnet", 1 + 2 + 2 + 3 + 3 + 4 + 1, "inside"),
    "efficientnet_v2_b0": ("EfficientNetV2B0", "efficientnet_v2", 1 + 2 + 2 + 3 + 5 + 8, "inside"),
    "convnext_tiny": ("ConvNeXtTiny", "convnext", 3 + 3 + 9 + 3, "inside"),
}
ALPHA = {"mobilenet_0.25": 0.25, "mobilenet_v2_0.35": 0.35}

# One of each way to prepare pixels; the others are slow.
QUICK = ("vgg16", "mobilenet_0.25", "mobilenet_v2_0.35", "mobilenet_v3_small", "densenet121")


def slow_unless(quick, names):
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in names]


def colours(height, width, n=2, channels=3):
    """Random pixels 0–255, both ends included."""
    pixels = np.random.default_rng(height * width).integers(0, 256, (n, height, width, channels)).astype("float32")
    pixels[0, 0], pixels[0, -1] = 0, 255
    return pixels


def preprocess_input(name, pixels):
    """What Keras itself does to pixels before this network."""
    import keras

    return getattr(keras.applications, IMAGENET[name][1]).preprocess_input(pixels.copy())


def original(name, **options):
    import keras

    options = {"weights": None, "include_top": False} | options
    if name in ALPHA:
        options["alpha"] = ALPHA[name]
    return getattr(keras.applications, IMAGENET[name][0])(**options)


def randomize(model, seed=0):
    """Weights under which signals keep their size, so that outputs differ where inputs do.

    With Keras' own random weights the outputs of a MobileNet are 1e-11 and comparing them proves nothing.
    """
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        (layer, name), shape = weight.path.split("/")[-2:], tuple(weight.shape)
        if layer == "rgb_to_gray" or name in ("mean", "variance", "count"):  # constants of the preprocessing
            continue
        if name == "kernel":
            depthwise = len(shape) == 4 and shape[-1] == 1
            value = rng.normal(0, np.sqrt(2 / np.prod(shape[:2] if depthwise else shape[:-1])), shape)
        elif name in ("gamma", "moving_variance"):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = rng.normal(0, 0.1, shape)
        weight.assign(value.astype("float32"))
    return model


def difference(a, b):
    """The largest difference of two arrays, relative to the largest value."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    assert np.isfinite(a).all()
    return np.abs(a - b).max() / np.abs(b).max()


def run(code, *arguments, **environment):
    """Run code in a fresh interpreter; return its standard output."""
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


# --- what there is ----------------------------------------------------------------------------------------------------


def test_the_pocket_zoo_and_all_families_are_available():
    assert backbones.available() == (*POCKET, *IMAGENET)


def test_describe_tells_what_there_is_without_loading_tensorflow():
    code = """
import sys, json
from tlutils import backbones
print(json.dumps(backbones.describe()))
print({"tensorflow", "keras"} & set(sys.modules))
"""
    described, loaded = run(code).splitlines()
    assert loaded == "set()"
    rows = json.loads(described)
    assert [row["name"] for row in rows] == [*POCKET, *IMAGENET]
    assert all(row["licence"] and row["family"] and row["source_task"] for row in rows)
    assert {row["image_size"] for row in rows if row["name"] in POCKET} == {32}
    assert {row["name"] for row in rows if row["image_size"] == 299} == {"inception_v3", "xception"}
    assert all(("letters" in row["source_task"]) == (row["name"] in POCKET) for row in rows)
    assert all(("ImageNet" in row["source_task"]) == (row["name"] in IMAGENET) for row in rows)


def test_describe_says_which_weights_are_here(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    def local():
        return {row["name"] for row in backbones.describe() if row["local"]}

    assert local() == set(POCKET)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mobilenet_2_5_224_tf_no_top.h5").touch()
    assert local() == {*POCKET, "mobilenet_0.25"}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("MobileNetV2", "mobilenet_v2"),
        ("VGG-16", "vgg16"),
        ("ResNet50V2", "resnet50_v2"),
        ("Pocket ResNet", "pocket_resnet"),
        ("EfficientNetV2B0", "efficientnet_v2_b0"),
        ("mobilenet_0.25", "mobilenet_0.25"),
        *((functional, name) for name, (functional, *_) in IMAGENET.items() if name not in ALPHA),
    ],
)
def test_a_name_is_found_however_it_is_written(written, meant):
    assert backbones.find(written) == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("resnet_5O", "resnet50"),
        ("mobilnet_v2", "mobilenet_v2"),
        ("inceptionV4", "inception_v3"),
        ("pocketvg", "pocket_vgg"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(written, meant):
    with pytest.raises(ValueError, match=f"unknown backbone '{written}'; did you mean '{meant}'") as error:
        backbones.load(written)
    assert all(name in str(error.value) for name in backbones.available())


# --- ImageNet families ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=IMAGENET)
def family(request):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return backbones.load(request.param, weights=None, input_shape=(80, 96, 3))


def test_what_enters_the_network_is_what_keras_prescribes(family):
    pixels = colours(80, 96)
    right = preprocess_input(family.name, pixels)
    assert difference(family.preprocess(pixels), right) < 1e-5


def test_wrong_preprocessing_fails_that_comparison_wherever_it_is_wrong(family):
    pixels = colours(80, 96)
    entering = family.preprocess(pixels)
    wrong = {
        "none": pixels,
        "[0, 1]": pixels / 255,
        "[-1, 1]": pixels / 127.5 - 1,
        "swapped": preprocess_input(family.name, pixels)[..., ::-1],
        "of swapped pixels": preprocess_input(family.name, pixels[..., ::-1]),
    }
    right = {"inside": {"none"}, "tf": {"[-1, 1]"}}.get(IMAGENET[family.name][3], set())
    assert {way for way, tensor in wrong.items() if difference(entering, tensor) < 1e-5} == right
    # And a caller who prepares the pixels although the model does gets something else, unless there is nothing to do.
    twice = difference(family.preprocess(preprocess_input(family.name, pixels)), entering)
    assert (twice < 1e-5) == (IMAGENET[family.name][3] == "inside")


def test_the_model_is_a_chain_of_the_blocks_that_the_paper_counts(family):
    import keras

    assert len(family.blocks) == len(set(family.blocks)) == IMAGENET[family.name][2]
    names = [layer.name for layer in family.model.layers]
    assert names[-len(family.blocks) :] == list(family.blocks)
    assert set(names) - set(family.blocks) <= {"pixels", "preprocess", "stem"}
    for above, below in zip(family.model.layers[1:], family.model.layers[2:]):
        assert isinstance(below, keras.Model)
        assert len(below.inputs) == len(below.outputs) == 1
        # Entered by what the block before gives, and by nothing else.
        assert [tensor._keras_history.operation for tensor in below._inbound_nodes[-1].input_tensors] == [above]
    assert family.model.input_shape == (None, 80, 96, 3)
    assert len(family.model.output_shape) == 4


def test_its_parameters_are_those_of_the_table(family):
    counted = sum(int(np.prod(weight.shape)) for weight in original_weights(family))
    (row,) = (row for row in backbones.describe() if row["name"] == family.name)
    assert row["parameters"] == family.parameters == counted
    assert family.source_task == "none (random weights)"


def original_weights(family):
    """The weights in the blocks, each once; preprocessing has constants, no parameters."""
    return {id(weight): weight for weight in family.model.weights}.values()


@pytest.fixture(scope="module", params=slow_unless(QUICK, IMAGENET))
def pair(request, tmp_path_factory):
    """A network of keras.applications with weights that matter, and the backbone that loads them from a file."""
    network = randomize(original(request.param, input_shape=(None, None, 3)))
    path = tmp_path_factory.mktemp("weights") / "random.weights.h5"
    network.save_weights(path)
    backbone = backbones.load(request.param, weights=path, input_shape=(96, 80, 3))
    path.unlink()
    return network, backbone


def test_raw_pixels_give_what_the_original_network_gives_on_prepared_ones(pair):
    network, backbone = pair
    pixels = colours(96, 80)
    features = np.asarray(backbone.model(pixels))
    prepared = preprocess_input(backbone.name, pixels)
    assert features.std() > 1e-3
    assert difference(features, network(backbone.preprocess(pixels))) < 1e-5
    # Random weights amplify the last bits in which the two ways to prepare the pixels differ.
    assert difference(features, network(prepared)) < 1e-3
    assert all(difference(features, network(wrong)) > 1e-2 for wrong in (pixels / 255, prepared[..., ::-1]))
    assert backbone.model(pixels).shape[1:] == backbone.model.output_shape[1:]


def test_the_chain_is_the_sum_of_its_parts(pair):
    _, backbone = pair
    pixels = colours(96, 80)
    x = backbone.preprocess(pixels)
    for layer in backbone.model.layers:
        if layer.name in ("stem", *backbone.blocks):
            x = layer(x)
            assert np.asarray(x).std() > 1e-3, layer.name  # every block passes something on
    assert difference(x, backbone.model(pixels)) < 1e-6


def test_a_saved_backbone_loads_in_safe_mode_and_predicts_the_same(pair, tmp_path):
    import keras

    _, backbone = pair
    backbone.model.save(tmp_path / "backbone.keras")
    loaded = keras.models.load_model(tmp_path / "backbone.keras", safe_mode=True)
    pixels = colours(96, 80)
    assert difference(loaded(pixels), backbone.model(pixels)) < 1e-6
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in backbone.model.layers]


# name, channels: with each kind of preprocessing layer in the quick ones
ELSEWHERE = [("vgg16", 1), ("mobilenet_v2_0.35", 3), ("pocket_resnet", 3)]


def predicts_the_same_elsewhere(names, folder):
    for i, (name, channels) in enumerate(names):
        backbone = backbones.load(name, weights=None, input_shape=(80, 80, channels))
        randomize(backbone.model).save(folder / f"{i}.keras")
        pixels = colours(80, 80, channels=channels)
        np.savez(folder / f"{i}.npz", pixels=pixels, features=np.asarray(backbone.model(pixels)))
    code = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, numpy as np
for i in range(int(sys.argv[2])):
    model = keras.models.load_model(f"{sys.argv[1]}/{i}.keras")
    arrays = np.load(f"{sys.argv[1]}/{i}.npz")
    features = np.asarray(model(arrays["pixels"]))
    print(np.abs(features - arrays["features"]).max() / np.abs(arrays["features"]).max())
print("tlutils" in sys.modules)
"""
    *differences, imported = run(code, folder, len(names)).splitlines()
    assert imported == "False"
    assert len(differences) == len(names)
    assert max(map(float, differences)) < 1e-5


def test_a_saved_backbone_needs_nothing_of_this_package(tmp_path):
    predicts_the_same_elsewhere(ELSEWHERE, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_no_saved_backbone_needs_anything_of_this_package(tmp_path, channels):
    predicts_the_same_elsewhere([(name, channels) for name in backbones.available()], tmp_path)


def test_a_gray_image_is_repeated_to_rgb(tmp_path):
    rgb = backbones.load("mobilenet_v2_0.35", weights=None, input_shape=(64, 64, 3))
    randomize(rgb.model)
    gray = backbones.load("mobilenet_v2_0.35", weights=None, input_shape=(64, 64, 1))
    gray.model.set_weights(rgb.model.get_weights())
    pixels = colours(64, 64, channels=1)
    repeated = np.repeat(pixels, 3, axis=-1)
    assert gray.preprocess(pixels).shape == (2, 64, 64, 3)
    assert difference(gray.preprocess(pixels), preprocess_input("mobilenet_v2_0.35", repeated)) < 1e-5
    assert difference(gray.model(pixels), rgb.model(repeated)) < 1e-6
    assert gray.parameters == rgb.parameters


# --- pocket zoo -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "blocks"), list(zip(POCKET, (4, 5, 4, 6))))
def test_a_pocket_backbone_is_the_pretrained_network_on_raw_pixels(name, blocks):
    import keras

    backbone = backbones.load(name)
    assert (backbone.name, backbone.input_shape) == (name, (32, 32, 1))
    assert backbone.blocks == tuple(f"block{i}" for i in range(1, blocks + 1))
    assert "letters" in backbone.source_task
    pixels = colours(32, 32, channels=1)
    assert difference(backbone.preprocess(pixels), pixels / 255) < 1e-6
    classifier = zoo.load(name)
    features = classifier.get_layer(name)(pixels / 255)
    assert difference(backbone.model(pixels), features) < 1e-5
    (row,) = (row for row in backbones.describe() if row["name"] == name)
    assert row["parameters"] == backbone.parameters == classifier.get_layer(name).count_params()
    for block in backbone.blocks:
        assert isinstance(backbone.model.get_layer(block), keras.Model)


def test_rgb_enters_the_pocket_zoo_as_luminance():
    backbone = backbones.load("pocket_resnet", input_shape=(32, 32, 3))
    gray = backbones.load("pocket_resnet")
    pixels = colours(32, 32)
    luminance = np.stack([Image.fromarray(image.astype(np.uint8)).convert("L") for image in pixels])[..., None]
    # Pillow rounds to whole levels.
    assert np.abs(backbone.preprocess(pixels) * 255 - luminance).max() < 0.6
    assert not any(weight.trainable for weight in backbone.model.get_layer("preprocess").weights)
    white = np.repeat(colours(32, 32, channels=1), 3, axis=-1)
    assert difference(backbone.model(white), gray.model(white[..., :1])) < 1e-4


def test_the_pocket_zoo_takes_other_sizes():
    small, large = (backbones.load("pocket_resnet", input_shape=(*size, 1)) for size in ((32, 32), (64, 48)))
    assert large.model(colours(64, 48, channels=1)).shape == (2, 8, 6, 224)
    for a, b in zip(small.model.get_weights(), large.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_random_weights_are_random():
    import keras

    keras.utils.set_random_seed(0)
    random, pretrained = backbones.load("pocket_resnet", weights=None), backbones.load("pocket_resnet")
    assert random.source_task == random.licence == "none (random weights)"
    assert (
        difference(random.model.get_layer("stem").get_weights()[0], pretrained.model.get_layer("stem").get_weights()[0])
        > 0.1
    )


def test_pocket_weights_come_from_a_path(tmp_path):
    model = randomize(zoo._with_classifier(zoo.build("pocket_vgg")))
    zoo.save(model, {"name": "own"}, tmp_path)
    backbone = backbones.load("pocket_vgg", weights=tmp_path / "own.npz")
    assert backbone.source_task == backbone.licence == "not stated"  # who knows what they were trained on
    pixels = colours(32, 32, channels=1)
    assert difference(backbone.model(pixels), model.get_layer("pocket_vgg")(pixels / 255)) < 0.01  # stored as float16


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 4), (32, 32, 3, 1), 224, ()])
def test_other_input_shapes_are_refused(shape):
    with pytest.raises(
        ValueError, match=rf"\(height, width, 1\) or \(height, width, 3\), not {re.escape(repr(shape))}"
    ):
        backbones.load("pocket_vgg", input_shape=shape)


SMALLEST = {"pocket_vgg": 16, "vgg16": 32, "mobilenet_0.25": 32, "inception_v3": 75, "xception": 75}


@pytest.mark.parametrize("name", SMALLEST)
def test_images_that_are_too_small_are_refused(name):
    side = SMALLEST[name] - 1
    with pytest.raises(ValueError, match=f"{name} needs images of at least {side + 1} pixels a side, not 90×{side}"):
        backbones.load(name, weights=None, input_shape=(90, side, 3))


@pytest.mark.parametrize("name", slow_unless(("pocket_vgg", "vgg16"), (*POCKET, *IMAGENET)))
def test_the_smallest_images_are_taken(name):
    side = SMALLEST.get(name, 16 if name in POCKET else 32)
    backbone = backbones.load(name, weights=None, input_shape=(side, side, 3))
    assert min(backbone.model(colours(side, side)).shape) >= 1


def test_any_image_size_is_taken():
    backbone = backbones.load("pocket_vgg", weights=None, input_shape=(None, None, 3))
    assert backbone.input_shape == (None, None, 3)
    assert backbone.model(colours(48, 64)).shape[1:3] == (3, 4)


@pytest.mark.parametrize("name", ["pocket_vgg", "mobilenet_0.25"])
def test_a_missing_weights_file_is_named(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "none.h5"))):
        backbones.load(name, weights=tmp_path / "none.h5")


# --- without a network ------------------------------------------------------------------------------------------------


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """No weights here and no network: the names of the files that Keras asks for. ``answer`` is given for them."""
    import keras
    from keras.src.utils import file_utils

    class Downloads(list):
        answer = None

    asked = Downloads()

    def get_file(fname, origin, **options):
        asked.append(fname)
        if asked.answer is None:
            raise Exception(f"URL fetch failure on {origin}: None -- no route to host")
        return str(asked.answer)

    def refuse(*arguments):
        raise AssertionError("a test went to the network")

    assert keras.applications
    monkeypatch.setattr(file_utils, "get_file", get_file)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    return asked


@pytest.mark.parametrize("name", slow_unless(("vgg16", "mobilenet_0.25", "mobilenet_v3_small"), IMAGENET))
def test_weights_that_are_neither_here_nor_to_be_had_are_named_and_the_pocket_zoo_is_offered(name, downloads, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        backbones.load(name)
    (file,) = downloads  # what Keras itself asked for
    message = str(error.value)
    assert f"the ImageNet weights of {name} are not on this machine" in message
    assert "no route to host" in message
    assert f"put {file} into {tmp_path / 'models'}" in message
    assert all(pocket in message for pocket in POCKET)
    # And where that file is, it is seen.
    Path(tmp_path, "models").mkdir()
    Path(tmp_path, "models", file).touch()
    assert name in {row["name"] for row in backbones.describe() if row["local"]}


def test_keras_own_failure_to_download_says_the_same(tmp_path):
    code = """
from tlutils import backbones
try:
    backbones.load("mobilenet_0.25")
except FileNotFoundError as error:
    print("message:", error)
"""
    nobody = "http://127.0.0.1:9"  # the discard port: refused at once
    message = run(
        code, KERAS_HOME=str(tmp_path), https_proxy=nobody, http_proxy=nobody, HTTPS_PROXY=nobody, no_proxy=""
    )
    assert "message: the ImageNet weights of mobilenet_0.25 are not on this machine" in message
    assert str(tmp_path / "models") in message
    assert "pocket_resnet" in message


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mobilenet_0.25", "mobilenet_2_5_224_tf_no_top.h5"),
        ("mobilenet_v2_0.35", "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"),
    ],
)
def test_mobilenets_take_the_weights_of_224_at_every_size(name, file, downloads, tmp_path):
    network = randomize(original(name, input_shape=(None, None, 3)))
    downloads.answer = tmp_path / "random.weights.h5"
    network.save_weights(downloads.answer)
    for side in (96, 128, 160):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            backbone = backbones.load(name, input_shape=(side, side, 3))
        assert backbone.input_shape == (side, side, 3)
        for a, b in zip(backbone.model.get_weights(), network.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        assert "ImageNet" in backbone.source_task
    assert set(downloads) == {file}


def test_the_weights_file_of_efficientnet_gives_the_same_from_a_path(downloads, tmp_path):
    """Keras adds a layer for ImageNet weights that it loads itself; the file's variances are standard deviations."""
    network = randomize(original("efficientnet_b0", input_shape=(None, None, 3)))
    (normalization,) = (layer for layer in network.layers if layer.name.startswith("normalization"))
    normalization.set_weights([np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225]), np.array(0)])
    normalization.finalize_state()
    downloads.answer = tmp_path / "efficientnetb0.weights.h5"
    network.save_weights(downloads.answer)
    keras_own = original("efficientnet_b0", weights="imagenet", input_shape=(None, None, 3))
    backbone = backbones.load("efficientnet_b0", weights=downloads.answer, input_shape=(64, 64, 3))
    pixels = colours(64, 64)
    assert difference(backbone.model(pixels), keras_own(pixels)) < 1e-4
    assert difference(backbone.model(pixels), network(pixels)) > 0.1


# --- real weights -----------------------------------------------------------------------------------------------------


def pretrained(name, **options):
    (row,) = (row for row in backbones.describe() if row["name"] == name)
    if not row["local"]:
        pytest.skip(f"the ImageNet weights of {name} are not in $KERAS_HOME/models")
    return backbones.load(name, **options)


@pytest.mark.weights
@pytest.mark.parametrize("name", ["mobilenet_0.25", "mobilenet_v2", "mobilenet_v2_0.35"])
def test_pretrained_features_are_those_of_keras_applications(name):
    backbone = pretrained(name, input_shape=(224, 224, 3))
    network = original(name, weights="imagenet", input_shape=(224, 224, 3))
    pixels = colours(224, 224)
    features = network(preprocess_input(name, pixels))
    assert np.asarray(features).std() > 0.01
    assert difference(backbone.model(pixels), features) < 1e-4
    assert "ImageNet" in backbone.source_task


@pytest.mark.weights
@pytest.mark.parametrize("size", [96, 128])
def test_pretrained_features_at_other_sizes_come_from_the_same_weights(size):
    backbone = pretrained("mobilenet_0.25", input_shape=(size, size, 3))
    network = original("mobilenet_0.25", weights="imagenet", input_shape=(224, 224, 3))
    for a, b in zip(backbone.model.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# --- any Keras model --------------------------------------------------------------------------------------------------


@pytest.fixture
def in_house():
    """A small network with a shortcut: only ``first``, ``sum``, ``third`` and ``last`` cut it in two."""
    import keras
    from keras import layers

    inputs = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(4, 3, name="first")(inputs)
    inner = layers.Conv2D(4, 3, padding="same", activation="relu", name="inner")(x)
    x = layers.Add(name="sum")([x, inner])
    x = layers.Conv2D(5, 3, strides=2, name="third")(x)
    return keras.Model(inputs, layers.ReLU(name="last")(x), name="in_house")


def test_a_wrapped_model_computes_what_it_did(in_house):
    pixels = colours(16, 16)
    backbone = backbones.wrap(in_house, source_task="screws", licence="ours")
    assert (backbone.name, backbone.blocks, backbone.input_shape) == ("in_house", ("model",), (16, 16, 3))
    assert (backbone.source_task, backbone.licence) == ("screws", "ours")
    assert backbone.parameters == in_house.count_params()
    assert difference(backbone.model(pixels), in_house(pixels)) < 1e-6
    np.testing.assert_array_equal(backbone.preprocess(pixels), pixels)


@pytest.mark.parametrize(
    ("blocks", "names"),
    [
        (["sum", "last"], ("sum", "last")),
        (["first", "third"], ("first", "third")),  # the last one includes what follows
        ({"low": "first", "high": "third"}, ("low", "high")),
        ([], ("model",)),
    ],
)
def test_a_wrapped_model_has_the_blocks_it_was_given(in_house, blocks, names):
    backbone = backbones.wrap(in_house, blocks=blocks, name="screws")
    assert (backbone.name, backbone.blocks) == ("screws", names)
    assert [layer.name for layer in backbone.model.layers] == ["pixels", *names]
    pixels = colours(16, 16)
    assert difference(backbone.model(pixels), in_house(pixels)) < 1e-6
    assert backbone.parameters == in_house.count_params()
    if len(names) > 1:
        end = blocks[names[0]] if isinstance(blocks, dict) else blocks[0]
        import keras

        until = keras.Model(in_house.input, in_house.get_layer(end).output)
        assert difference(backbone.model.get_layer(names[0])(pixels), until(pixels)) < 1e-6


def test_a_model_can_be_wrapped_again(in_house):
    first = backbones.wrap(in_house, blocks=["sum", "last"])
    second = backbones.wrap(in_house, blocks=["first", "third"])
    in_house.get_layer("first").kernel.assign_add(np.ones((3, 3, 3, 4)))
    pixels = colours(16, 16)
    assert difference(first.model(pixels), in_house(pixels)) < 1e-6
    assert difference(second.model(pixels), in_house(pixels)) < 1e-6


def _rescaling():
    import keras

    return keras.layers.Rescaling(1 / 255)


def _steps():
    import keras

    return [keras.layers.Rescaling(1 / 127.5), lambda x: x - 1]


@pytest.mark.parametrize(
    ("preprocess", "expected"),
    [
        (lambda: _rescaling(), lambda pixels: pixels / 255),
        (lambda: lambda x: x / 255, lambda pixels: pixels / 255),
        (lambda: _steps(), lambda pixels: pixels / 127.5 - 1),
    ],
    ids=["layer", "function", "list"],
)
def test_a_wrapped_model_holds_its_preprocessing(in_house, preprocess, expected, tmp_path):
    import keras

    backbone = backbones.wrap(in_house, preprocess=preprocess(), blocks=["sum", "last"])
    pixels = colours(16, 16)
    assert difference(backbone.preprocess(pixels), expected(pixels)) < 1e-6
    assert difference(backbone.model(pixels), in_house(expected(pixels))) < 1e-5
    backbone.model.save(tmp_path / "backbone.keras")
    loaded = keras.models.load_model(tmp_path / "backbone.keras")
    assert difference(loaded(pixels), backbone.model(pixels)) < 1e-6


def test_sequential_nested_and_shared_layers_can_be_wrapped(in_house):
    import keras
    from keras import layers

    pixels = colours(16, 16)
    sequential = keras.Sequential(
        [keras.Input((16, 16, 3)), layers.Conv2D(4, 3, name="a"), layers.Conv2D(4, 3, name="b")]
    )
    inputs = keras.Input((16, 16, 3))
    nested = keras.Model(inputs, layers.ReLU(name="top")(in_house(layers.Rescaling(1 / 255, name="scale")(inputs))))
    inputs, relu = keras.Input((16, 16, 3)), layers.ReLU(name="relu")
    shared = keras.Model(inputs, relu(layers.Conv2D(4, 3, name="b")(relu(layers.Conv2D(4, 3, name="a")(inputs)))))
    for model, blocks in ((sequential, ["a", "b"]), (nested, ["in_house", "top"]), (shared, ["a", "b"])):
        backbone = backbones.wrap(model, blocks=blocks)
        assert backbone.blocks == tuple(blocks)
        assert difference(backbone.model(pixels), model(pixels)) < 1e-6
        assert backbone.parameters == model.count_params()


@pytest.mark.parametrize("end", ["inner", "image", "elsewhere"])
def test_a_block_ends_only_where_a_single_tensor_goes_on(in_house, end):
    with pytest.raises(ValueError, match=f"can end at '{end}'.*Such layers are: first, sum, third, last"):
        backbones.wrap(in_house, blocks=[end, "last"])


def test_blocks_are_listed_from_input_to_output(in_house):
    with pytest.raises(ValueError, match="from input to output"):
        backbones.wrap(in_house, blocks=["third", "first"])
    with pytest.raises(ValueError, match="must be different"):
        backbones.wrap(in_house, blocks={"a": "sum", "b": "sum"})


def test_names_that_begin_like_others_are_free(in_house):
    names = ("pooling", "hidden", "stem2")
    backbone = backbones.wrap(in_house, blocks=dict(zip(names, ("first", "sum", "last"))))
    assert backbone.blocks == models.block_names(models.classifier(backbone, 2, head="mlp")) == names


@pytest.mark.parametrize(
    "taken", ["stem", "preprocess", "pixels", "boundary", "pool", "hidden1", "hidden12", "dropout", "output"]
)
def test_names_with_a_meaning_are_not_given_to_blocks(in_house, taken):
    with pytest.raises(ValueError, match=f"no block can be called '{taken}'"):
        backbones.wrap(in_house, blocks={taken: "first", "rest": "last"})


def test_a_model_with_several_inputs_or_outputs_is_no_backbone(in_house):
    import keras
    from keras import layers

    other = keras.Input((16, 16, 3))
    two_inputs = keras.Model([in_house.input, other], layers.Add()([in_house.input, other]))
    two_outputs = keras.Model(in_house.input, [in_house.output, in_house.get_layer("sum").output])
    with pytest.raises(ValueError, match="has 2 and 1"):
        backbones.wrap(two_inputs)
    with pytest.raises(ValueError, match="has 1 and 2"):
        backbones.wrap(two_outputs)


def test_a_model_without_a_graph_is_no_backbone():
    import keras

    class Subclassed(keras.Model):
        def call(self, x):
            return x

    for model in (Subclassed(), keras.Sequential([keras.layers.ReLU()])):
        with pytest.raises(ValueError, match="functional Keras model"):
            backbones.wrap(model)


# --- other source tasks of the pocket zoo -----------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["letters", "strokes", "textures"])
def test_the_pocket_zoo_has_weights_of_several_source_tasks(source):
    backbone = backbones.load("pocket_vgg", weights=source)
    task = sources.find(source)
    assert backbone.source_task.startswith(f"{task.description} ({len(task.class_names)} classes")
    images, labels = task.draw(300, 5, "validation")
    probabilities = backbone.source_classifier().predict(images.astype("float32"), verbose=0)
    assert np.mean(probabilities.argmax(axis=1) == labels) > 0.9  # raw pixels in, classes of this source task out
    others = set(sources.SOURCES) - {source}
    for other in others:
        weights = backbones.load("pocket_vgg", weights=other).model.get_weights()
        assert not all(np.array_equal(a, b) for a, b in zip(weights, backbone.model.get_weights()))


def test_pretrained_means_letters_in_the_pocket_zoo():
    one, other = (backbones.load("pocket_vgg", weights=w).model.get_weights() for w in ("pretrained", "letters"))
    assert all(np.array_equal(a, b) for a, b in zip(one, other))


def test_an_unknown_source_task_is_refused_with_the_names_there_are():
    with pytest.raises(FileNotFoundError, match=r"no weights file at stroke, .*letters, strokes, textures"):
        backbones.load("pocket_vgg", weights="stroke")
    with pytest.raises(FileNotFoundError, match=r"no weights file at strokes$"):
        backbones.load("vgg16", weights="strokes")
