"""Recipes that people copy: they do what their descriptions say, faults included."""

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tlutils import backbones, data, models, recipes, results, runtime


@pytest.fixture(scope="module", autouse=True)
def tensorflow():
    runtime.setup(gpu="off")


@pytest.fixture(scope="module")
def task():
    return data.load("digits", labels_per_class=5, seed=0)


def chained(backbone, pixels, preprocess):
    """What the parts of a backbone make of pixels, one after the other."""
    for part in backbone.model.layers[1:]:
        if part.name != "preprocess" or preprocess:
            pixels = part(pixels)
    return np.asarray(pixels)


@pytest.mark.parametrize("preprocess", [False, True])
def test_the_classic_recipe_hands_the_network_what_its_description_says(preprocess):
    backbone = backbones.load("pocket_vgg")
    model = recipes.classic(backbone, 10, hidden=(8, 4), preprocess=preprocess)
    x = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 1)).astype("float32")
    flat = chained(backbone, x, preprocess).reshape(3, -1)
    for layer in model.layers[-3:]:
        weights, bias = layer.get_weights()
        flat = flat @ weights + bias
        flat = np.maximum(flat, 0) if layer is not model.layers[-1] else flat
    exponentials = np.exp(flat - flat.max(axis=1, keepdims=True))
    np.testing.assert_allclose(model(x), exponentials / exponentials.sum(axis=1, keepdims=True), atol=1e-5)


def test_the_classic_recipe_trains_everything_with_adam_at_its_default_rate():
    backbone = backbones.load("pocket_resnet")
    models.freeze(models.classifier(backbone, 10))  # what was frozen before does not stay so
    model = recipes.classic(backbone, 10, hidden=(8, 4))
    height, width, channels = backbone.model.output_shape[1:]
    flat = height * width * channels
    assert model.count_params() == backbone.parameters + flat * 8 + 8 + 8 * 4 + 4 + 4 * 10 + 10
    assert {weight.path for weight in model.non_trainable_weights} == {
        weight.path for weight in model.weights if "moving_" in weight.path
    }
    assert type(model.optimizer).__name__ == "Adam"
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-3)


def test_images_of_other_channels_are_refused_where_nothing_prepares_them():
    backbone = backbones.load("pocket_vgg", input_shape=(32, 32, 3))
    with pytest.raises(ValueError, match="needs images of 1 channels, not 3"):
        recipes.classic(backbone, 10)
    assert recipes.classic(backbone, 10, preprocess=True).input_shape == (None, 32, 32, 3)


def test_the_tutorial_counts_layers_as_keras_does():
    import keras

    backbone = backbones.load("mobilenet_v2", weights=None, input_shape=(32, 32, 3))
    network = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3))
    ours = [layer.name for layer in recipes._numbered(backbone)]
    assert len(ours) == 154
    assert ours[1:] == [layer.name for layer in network.layers][1:]


def test_the_tutorial_trains_the_head_and_then_what_comes_after_the_layer(task, monkeypatch):
    monkeypatch.setattr(recipes, "TUTORIAL_FROZEN", 7)
    backbone = backbones.load("pocket_vgg")
    kernels = [layer for layer in recipes._numbered(backbone) if layer.weights]
    before, stages = [layer.get_weights()[0] for layer in kernels], []

    def stage(name, model):
        stages.append((name, [np.any(layer.get_weights()[0] != old) for layer, old in zip(kernels, before)]))

    model = recipes.tutorial(backbone, task, epochs=(1, 1), stage=stage)
    upper = [position >= 7 for position, layer in enumerate(recipes._numbered(backbone)) if layer.weights]
    assert any(upper) and not all(upper)
    assert stages == [("frozen", [False] * len(kernels)), ("tuned", upper)]
    assert model.output_shape == (None, 10)


def test_what_is_held_out_comes_from_the_training_images(task):
    inside = recipes.within_training(task, seed=3)

    def contents(examples):
        return {hashlib.sha256(image.tobytes()).hexdigest() for image in examples.images()}

    assert contents(inside.train) | contents(inside.val) == contents(task.train)
    assert not contents(inside.train) & contents(inside.val)
    assert np.bincount(inside.val.labels).tolist() == [1] * 10
    assert contents(inside.test) == contents(task.test)


def test_groups_and_copies_stay_on_one_side():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 8, 8), dtype="uint8")
    images[20:] = images[:20]  # every image twice
    labels = np.tile(np.repeat([0, 1], 10), 2)
    test = rng.integers(0, 256, (4, 8, 8), dtype="uint8"), np.array([0, 1, 0, 1])
    inside = recipes.within_training(data.from_arrays("twice", (images, labels), test=test))
    kept, held = ({image.tobytes() for image in part.images()} for part in (inside.train, inside.val))
    assert not kept & held
    assert len(inside.train) + len(inside.val) == 40


def test_validation_images_become_the_test_where_there_is_none():
    rng = np.random.default_rng(0)

    def images(n):
        return rng.integers(0, 256, (n, 8, 8), dtype="uint8"), np.arange(n) % 2

    task = data.from_arrays("without test", images(20), val=images(6))
    inside = recipes.within_training(task)
    assert np.array_equal(inside.test.images(), task.val.images())
    assert (inside.test.split, task.val.split, inside.val.split) == ("test", "val", "val")
    assert "validation images take its place" in inside.notes[-1]
    with pytest.raises(ValueError, match="neither test nor validation"):
        recipes.as_test(data.from_arrays("nothing", images(20)))


# --- the study of chapter 13 ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study():
    file = Path(__file__).parents[1] / "experiments" / "classic_recipe.py"
    spec = importlib.util.spec_from_file_location("classic_recipe", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_change_changes_one_thing(study):
    backbone = backbones.load("pocket_vgg")
    built = {step: study._whole(step, backbone, 10) for step in ("preprocessed", "slow", "small")}
    assert built["slow"].count_params() == built["preprocessed"].count_params()
    assert built["small"].count_params() == backbone.parameters + 96 * 10 + 10
    rates = {step: float(model.optimizer.learning_rate) for step, model in built.items()}
    assert rates == pytest.approx({"preprocessed": 1e-3, "slow": 1e-4, "small": 1e-3})
    for model in built.values():
        assert type(model.optimizer).__name__ == "Adam"
        assert not model.non_trainable_weights  # a VGG has no moving statistics


def test_the_study_is_complete_and_its_last_epoch_is_its_result(study):
    rows = results.load(study.NAME)["rows"]
    networks = {("pocket_vgg", step) for step in study.RUNS}
    networks |= {(name, step) for name in study.OTHERS for step in ("pooled", "tuned")}
    measured = [(row["backbone"], row["step"], row["labels_per_class"], row["seed"]) for row in rows]
    wanted = {(*network, k, seed) for network in networks for k in study.BUDGETS for seed in study.SEEDS}
    assert set(measured) == wanted and len(measured) == len(wanted)
    for row in rows:
        assert ("by_epoch" in row) == (row["step"] not in ("pooled", "tuned"))
        if "by_epoch" in row:
            assert len(row["by_epoch"]) == len(row["val_loss"]) == study.EPOCHS
            assert row["by_epoch"][-1] == row["correct"]
        assert (row["moved"] == 0) == (row["step"] in ("frozen", "pooled")) or row["step"] == "tuned"
