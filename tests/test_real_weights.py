"""Real ImageNet weights on real photographs: MobileNetV2 on ants and bees, both of which are classes of ImageNet."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tlutils import backbones, data, evaluation, models, runtime, training

HOME = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
NAME = "mobilenet_v2"

pytestmark = [
    pytest.mark.weights,
    pytest.mark.skipif(
        not next(row["local"] for row in backbones.describe() if row["name"] == NAME),
        reason=f"the ImageNet weights of {NAME} are not in {HOME / 'models'}",
    ),
    pytest.mark.skipif(
        not (HOME / "datasets" / "hymenoptera_data").is_dir(),
        reason=f"there is no hymenoptera_data in {HOME / 'datasets'}",
    ),
]


def norms(model):
    import keras

    return [layer for layer in models.all_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]


def statistics(model):
    return [np.array(value) for layer in norms(model) for value in (layer.moving_mean, layer.moving_variance)]


@pytest.fixture(scope="module")
def task():
    runtime.setup(gpu="off")
    return data.load("hymenoptera")


@pytest.fixture(scope="module")
def probed(task):
    """The model after its linear probe, and its weights, to go back to."""
    model = models.classifier(backbones.load(NAME), 2)
    training.linear_probe(model, task)
    return model, model.get_weights()


@pytest.fixture
def model(probed):
    model, weights = probed
    model.set_weights(weights)
    return model


def test_all_photographs_are_there_but_the_one_that_shows_no_ant(task):
    assert (len(task.train), len(task.val), task.test) == (244, 153, None)
    assert task.class_names == ("ants", "bees")


def test_the_probe_tells_ants_from_bees(task, model):
    report = evaluation.evaluate(model, task.val, class_names=task.class_names)
    assert report.accuracy >= 0.93
    assert report.interval[0] > 0.88  # 153 photographs: plus or minus four points
    assert all(row["recall"] > 0.85 for row in report.per_class)


def test_fine_tuning_moves_no_batch_norm_statistic(task, model):
    before, weights = statistics(model), model.get_weights()
    training.fine_tune(model, replace(task, val=None), 1, epochs=1, learning_rate=1e-4, start="as_is")
    assert len(before) == 2 * 52
    assert all(np.abs(now - then).max() == 0.0 for now, then in zip(statistics(model), before))
    assert any(not np.array_equal(a, b) for a, b in zip(weights, model.get_weights()))
    assert not any(layer.trainable for layer in norms(model))


@pytest.mark.slow
def test_fine_tuning_with_validation_is_never_worse_than_the_probe_there(task, model):
    before = evaluation.evaluate(model, task.val).log_loss
    fit = training.fine_tune(model, task, 2, epochs=6, learning_rate=1e-4)
    report = evaluation.evaluate(model, task.val)
    assert report.log_loss <= before + 1e-6
    assert report.accuracy >= 0.93
    assert 0 <= fit.best_epoch <= 6


@pytest.mark.slow
def test_cached_activations_end_where_the_whole_network_ends(task, probed):
    few = replace(task, train=task.train.subset(np.r_[0:24, 200:224]), val=None)
    backbone = backbones.load(NAME)
    model, ends = models.classifier(backbone, 2, dropout=0.0), []
    start = model.get_weights()
    for cache in (True, False):
        model.set_weights(start)
        training.fine_tune(model, few, 2, epochs=1, shuffle=False, cache=cache)
        ends.append(model.get_weights())
    assert max(np.abs(a - b).max() for a, b in zip(*ends)) < 1e-5
    assert max(np.abs(a - b).max() for a, b in zip(ends[0][:-2], start[:-2])) > 5e-5


@pytest.mark.slow
def test_the_tuned_model_saves_and_loads_without_this_package(task, model, tmp_path):
    import keras

    model.save(tmp_path / "ants_and_bees.keras")
    loaded = keras.models.load_model(tmp_path / "ants_and_bees.keras", safe_mode=True)
    images = task.val.subset(np.arange(16)).images().astype("float32")
    np.testing.assert_allclose(loaded.predict(images, verbose=0), model.predict(images, verbose=0), atol=1e-5)
