"""Training against independent truths: scikit-learn, closed forms, plain loops, and runs of a model of their own."""

import itertools
import os
import re
import signal
import subprocess
import sys
import tracemalloc
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tlutils import backbones, data, engines, features, models, runtime, training
from tlutils.checkpoints import CheckpointWarning

FAMILIES = ("pocket_vgg", "pocket_resnet", "pocket_inception", "pocket_mobilenet")
SIZE = 16


@pytest.fixture(scope="module", autouse=True)
def set_up():
    runtime.setup(gpu="off")


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("TLUTILS_PROGRESS", "0")


# --- material ---------------------------------------------------------------------------------------------------------


def digits(train=6, val=0, classes=3, skip=0, **options):
    """A task of a few digits, 16×16; ``skip`` takes other images of the same classes."""
    whole = data.load("digits", image_size=SIZE)

    def pick(examples, first, count):
        rows = np.concatenate([np.flatnonzero(examples.labels == c)[first : first + count] for c in range(classes)])
        return examples.images()[rows], examples.labels[rows]

    return data.from_arrays(
        "some digits",
        pick(whole.train, skip, train),
        pick(whole.val, 0, val) if val else None,
        pick(whole.test, 0, 20),
        **options,
    )


def brightness(outputs=1):
    """A regression that an image's features can solve nearly: how bright its parts are."""
    task = digits(10)

    def targets(examples):
        halves = examples.images().reshape(len(examples), 2, -1).mean(axis=2) / 255
        return halves[:, 0] if outputs == 1 else halves[:, :outputs]

    pairs = [(part.images(), targets(part)) for part in (task.train, task.test)]
    return data.from_arrays("brightness", pairs[0], None, pairs[1], kind="regression")


def tiny(channels=1):
    """A backbone of three convolutional blocks with BatchNorm, quickly traced."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(3)
    x = inputs = keras.Input((SIZE, SIZE, channels))
    for i, filters in enumerate((4, 6, 8), start=1):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", name=f"conv{i}")(x)
        x = layers.BatchNormalization(name=f"bn{i}")(x)
        x = layers.LeakyReLU(name=f"block{i}")(x)
    network = keras.Model(inputs, x, name="tiny")
    return backbones.wrap(network, [layers.Rescaling(1 / 255)], ["block1", "block2", "block3"])


def composite():
    """A model whose BatchNorms are inside other layers: one of the reader's own, and a TimeDistributed."""
    import keras
    from keras import layers

    class Unit(layers.Layer):
        def __init__(self, filters):
            super().__init__(name="unit")
            self.conv, self.norm = layers.Conv2D(filters, 3, strides=2), layers.BatchNormalization()

        def build(self, shape):
            self.conv.build(shape)
            self.norm.build(self.conv.compute_output_shape(shape))

        def call(self, x):
            return self.norm(self.conv(x))

    inputs = keras.Input((SIZE, SIZE, 1))
    x = layers.TimeDistributed(layers.BatchNormalization(), name="rows")(Unit(4)(inputs))
    return models.classifier(backbones.wrap(keras.Model(inputs, x, name="composite"), layers.Rescaling(1 / 255)), 3)


def fresh(dropout=0.5, head="linear", classes=3):
    return models.classifier(tiny(), classes, head=head, dropout=dropout)


@pytest.fixture(scope="module")
def shared():
    """Models that several tests use one after the other; each call gives one back with its first weights."""
    made = {}

    def model(**options):
        key = tuple(options.items())
        if key not in made:
            one = fresh(**options)
            made[key] = one, one.get_weights()
        one, weights = made[key]
        one.set_weights(weights)
        return one

    return model


@pytest.fixture
def model(shared):
    return shared()


def pixels(examples):
    return examples.images().astype("float32")


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def farthest(one, other):
    return max(np.abs(a - b).max() for a, b in zip(one, other, strict=True))


def statistics(model):
    """BatchNorm's moving averages, by path."""
    import keras

    layers = [x for x in models.all_layers(model) if isinstance(x, keras.layers.BatchNormalization)]
    return {w.path: np.array(w) for layer in layers for w in (layer.moving_mean, layer.moving_variance)}


def parts(model):
    """Weights of the model part by part, from input to output."""
    chain = models.backbone_layer(model).layers[1:]
    return {part.name: part.get_weights() for part in chain} | {"head": model.get_layer("output").get_weights()}


def softmax(logits):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.fixture
def passes(monkeypatch):
    """How many images each pass through a frozen network has run."""
    counts, with_keras = [], engines.with_keras

    def counting(model):
        forward = with_keras(model)
        counts.append(0)

        def run(images):
            counts[-1] += len(images)
            return forward(images)

        return run

    monkeypatch.setattr(engines, "with_keras", counting)
    return counts


@pytest.fixture
def fits(monkeypatch):
    """Every call of ``fit``: the learning rates of its steps, read from the optimizer."""
    import keras

    calls, fit = [], keras.Model.fit

    class Rates(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            calls[-1].append(float(self.model.optimizer.learning_rate))

    def recording(self, *args, **options):
        calls.append([])
        return fit(self, *args, callbacks=[Rates()], **options)

    monkeypatch.setattr(keras.Model, "fit", recording)
    return calls


# --- the linear probe -------------------------------------------------------------------------------------------------


def by_scikit_learn(x, task, C):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=5000, tol=1e-10)).fit(x, task.train.labels)


def pooled(model, examples, pooling="avg"):
    """Features as the package extracts them, after a look whether they are what they should be.

    scikit-learn's solver stops at a tolerance, which has to be tight for two ways to the optimum to end together.
    """
    maps = models.backbone_layer(model).predict(pixels(examples), verbose=0)
    found = features.extract(models.backbone_layer(model), examples, pooling=pooling)
    np.testing.assert_allclose(found, {"avg": np.mean, "max": np.max}[pooling](maps, axis=(1, 2)), atol=1e-5)
    return found.astype("float64")  # in single precision scikit-learn stops before the optimum


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_the_probe_predicts_what_scikit_learn_predicts(classes, pooling, tmp_path):
    import keras

    task = digits(8, classes=classes)
    model = models.classifier(tiny(), classes, head=models.Head(pooling=pooling))
    fit = training.linear_probe(model, task)
    train, test = (pooled(model, part, pooling) for part in (task.train, task.test))
    judge = by_scikit_learn(train, task, C=1 / fit.history["l2"])
    assert fit.model is model
    model.save(tmp_path / "model.keras")
    for one in (model, keras.models.load_model(tmp_path / "model.keras")):
        logits = one.predict(pixels(task.test), verbose=0)
        assert logits.shape == (len(task.test), classes)
        np.testing.assert_allclose(softmax(logits), judge.predict_proba(test), atol=1e-4)
        assert np.array_equal(logits.argmax(axis=1), judge.predict(test))


def test_the_probe_on_the_shipped_weights_predicts_what_scikit_learn_predicts():
    task = data.load("digits", labels_per_class=5)
    model = models.classifier(backbones.load("pocket_resnet"), 10)
    fit = training.linear_probe(model, task)
    judge = by_scikit_learn(pooled(model, task.train), task, C=1 / fit.history["l2"])
    found = softmax(model.predict(pixels(task.test), verbose=0))
    x = pooled(model, task.test)
    np.testing.assert_allclose(found, judge.predict_proba(x), atol=1e-4)
    assert np.array_equal(found.argmax(axis=1), judge.predict(x))
    assert np.mean(found.argmax(axis=1) == task.test.labels) > 0.8


@pytest.mark.parametrize("seed", [0, 3])
def test_the_penalty_is_chosen_by_cross_validation_the_stronger_of_equals(seed):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(1)
    y = np.repeat(np.arange(3), 12)
    x = rng.normal(size=(36, 5)) * 3 + np.eye(5)[y] * 2.5 + 7
    _, _, history = training.solve_classifier(x, y, seed=seed)
    grid = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0]
    folds = StratifiedKFold(3, shuffle=True, random_state=seed)
    z = StandardScaler().fit_transform(x)
    scores = [cross_val_score(LogisticRegression(C=C, max_iter=5000), z, y, cv=folds).mean() for C in grid]
    assert len(set(np.round(scores, 9))) > 2  # otherwise any choice would do
    np.testing.assert_allclose(history["scores"], scores)
    assert history["l2"] == pytest.approx(1 / grid[int(np.argmax(np.round(scores, 9)))])


def test_more_features_than_images_have_the_same_optimum():
    """The short way through the span of the images ends where scikit-learn ends in all dimensions."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(2)
    y = np.repeat(np.arange(4), 5)
    x = rng.normal(size=(20, 300)) + rng.normal(size=(4, 300))[y] + 3
    weights, bias, _ = training.solve_classifier(x, y, l2=2.0)
    scaler = StandardScaler().fit(x)
    judge = LogisticRegression(C=0.5, tol=1e-10, max_iter=10_000).fit(scaler.transform(x), y)
    unseen = rng.normal(size=(50, 300)) + 3
    expected = judge.predict_proba(scaler.transform(unseen))
    np.testing.assert_allclose(softmax(unseen @ weights + bias), expected, atol=1e-4)


def test_candidates_whose_folds_are_the_same_in_another_order_are_level():
    mean = np.mean([[0.7, 0.8, 0.9], [0.9, 0.8, 0.7]], axis=1)
    assert mean[1] > mean[0]  # by rounding
    assert training._first_best({"mean_test_score": mean}) == 0


def test_the_stronger_penalty_wins_where_all_are_level():
    y = np.repeat([0, 1], 10)
    _, _, history = training.solve_classifier(y[:, None] * 100.0 + np.arange(20)[:, None] % 3, y)
    perfect = [c["C"] for c, s in zip(history["candidates"], history["scores"]) if s == 1]
    assert len(perfect) > 1
    assert 1 / history["l2"] == pytest.approx(min(perfect))


@pytest.mark.parametrize(("labels", "searched"), [(1, False), (2, False), (3, True)])
def test_below_three_labels_a_class_the_penalty_is_the_fixed_default(model, labels, searched):
    task = digits(labels)
    history = training.linear_probe(model, task).history
    assert ("scores" in history) == searched
    if not searched:
        assert history["l2"] == pytest.approx(1 / training.DEFAULT_C)
        judge = by_scikit_learn(pooled(model, task.train), task, C=training.DEFAULT_C)
        found = softmax(model.predict(pixels(task.test), verbose=0))
        np.testing.assert_allclose(found, judge.predict_proba(pooled(model, task.test)), atol=1e-4)


def test_a_penalty_may_be_given(model):
    task = digits(4)
    assert training.linear_probe(model, task, l2=2.5).history == {"l2": 2.5}
    judge = by_scikit_learn(pooled(model, task.train), task, C=1 / 2.5)
    found = softmax(model.predict(pixels(task.test), verbose=0))
    np.testing.assert_allclose(found, judge.predict_proba(pooled(model, task.test)), atol=1e-4)


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("l2", ["cv", 0.7])
def test_the_probe_of_a_regression_is_ridge_in_closed_form(outputs, l2):
    task = brightness(outputs)
    model = models.regressor(tiny(), outputs)
    found_l2 = training.linear_probe(model, task, l2=l2).history["l2"]
    x, test = (pooled(model, part).astype("float64") for part in (task.train, task.test))
    mean, scale = x.mean(axis=0), x.std(axis=0)
    x, test = (x - mean) / scale, (test - mean) / scale
    y = task.train.labels.reshape(len(x), -1).astype("float64")

    def solve(alpha):
        return np.linalg.solve(x.T @ x + alpha * np.eye(x.shape[1]), x.T @ (y - y.mean(axis=0)))

    def left_out_error(alpha):  # mean squared error of leaving out one, intercept included, from the hat matrix
        hat = x @ np.linalg.solve(x.T @ x + alpha * np.eye(x.shape[1]), x.T) + 1 / len(x)
        return np.mean(((y - x @ solve(alpha) - y.mean(axis=0)) / (1 - np.diag(hat))[:, None]) ** 2)

    if l2 == "cv":
        grid = np.logspace(-3, 5, 17)
        assert found_l2 == pytest.approx(min(grid, key=left_out_error))
    else:
        assert found_l2 == l2
    predicted = model.predict(pixels(task.test), verbose=0)
    np.testing.assert_allclose(predicted, test @ solve(found_l2) + y.mean(axis=0), atol=1e-4)


class _Closed:
    """Examples that nobody may look at."""

    def __getattr__(self, name):
        raise AssertionError(f"looked at {name!r} of a split that is closed")


def test_the_probe_runs_the_backbone_once_over_the_training_images_alone(model, passes):
    task = replace(digits(7), val=_Closed(), test=_Closed())
    fit = training.linear_probe(model, task)
    assert passes == [21]
    assert fit.seconds > 0


def test_the_probe_reads_features_back_from_its_folder(model, passes, tmp_path):
    task = digits(4)
    training.linear_probe(model, task, cache_dir=tmp_path)
    solved = model.get_weights()
    training.linear_probe(model, task, cache_dir=tmp_path)
    assert passes == [12]
    assert same(solved, model.get_weights())


def test_the_probe_changes_nothing_but_the_head(model):
    before = parts(model)
    training.linear_probe(model, digits(4))
    after = parts(model)
    assert not same(before.pop("head"), after.pop("head"))
    assert all(same(before[name], after[name]) for name in before)


def test_the_probe_can_be_evaluated_by_keras(model):
    task = digits(6)
    training.linear_probe(model, task)
    loss, accuracy = model.evaluate(pixels(task.test), task.test.labels, verbose=0)
    logits = model.predict(pixels(task.test), verbose=0)
    truth = softmax(logits)[np.arange(len(task.test)), task.test.labels]
    assert loss == pytest.approx(-np.log(truth).mean(), rel=1e-4)
    assert accuracy == pytest.approx(np.mean(logits.argmax(axis=1) == task.test.labels))


def test_a_head_with_hidden_layers_is_no_probe(shared):
    with pytest.raises(ValueError, match=r"hidden layers.*fine_tune\(model, task, blocks=0\)"):
        training.linear_probe(shared(head="mlp"), digits())


@pytest.mark.parametrize("train", ["linear_probe", "fine_tune", "train_from_scratch"])
def test_model_and_task_must_agree_on_the_classes(model, train):
    with pytest.raises(ValueError, match=r"3 logits.*2 classes.*models\.classifier\(backbone, 2\)"):
        getattr(training, train)(model, digits(classes=2))


@pytest.mark.parametrize("train", ["linear_probe", "fine_tune", "train_from_scratch"])
def test_model_and_task_must_agree_on_the_targets(train):
    with pytest.raises(ValueError, match=r"3 numbers.*1 targets.*models\.regressor\(backbone, 1\)"):
        getattr(training, train)(models.regressor(tiny(), 3), brightness())


@pytest.mark.parametrize("l2", [-1.0, 0, "auto", None])
def test_a_penalty_of_no_use_is_refused(model, l2):
    with pytest.raises(ValueError, match="'cv' or a positive number"):
        training.linear_probe(model, digits(), l2=l2)


# --- fine-tuning: what moves ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_no_batch_norm_statistic_moves(name):
    task = digits(4)
    model = models.classifier(backbones.load(name, weights=None, input_shape=(SIZE, SIZE, 1)), 3)
    before, weights = statistics(model), model.get_weights()
    training.fine_tune(model, task, -1, epochs=1, learning_rate=1e-2, start="as_is", warmup=0)
    after = statistics(model)
    assert bool(before) == (name != "pocket_vgg")  # the one family without BatchNorm
    assert all(np.abs(after[path] - before[path]).max() == 0.0 for path in before)
    assert farthest(weights, model.get_weights()) > 1e-3


def test_no_batch_norm_statistic_of_mobilenet_v2_moves():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    task = data.from_arrays("noise", (images, np.array([0, 0, 0, 0, 1, 1])))
    model = models.classifier(backbones.load("mobilenet_v2", weights=None, input_shape=(32, 32, 3)), 2)
    before, weights = statistics(model), model.get_weights()
    training.fine_tune(model, task, 2, epochs=2, learning_rate=1e-2, start="as_is", warmup=0)
    after = statistics(model)
    assert len(before) == 2 * 52
    assert all(np.abs(after[path] - before[path]).max() == 0.0 for path in before)
    assert farthest(weights, model.get_weights()) > 1e-3


def test_no_batch_norm_statistic_inside_another_layer_moves():
    model = composite()
    before = {weight.path: weight.numpy() for weight in model.weights}
    training.fine_tune(model, digits(4), -1, epochs=2, learning_rate=1e-2, start="as_is", warmup=0)
    moved = [weight.path for weight in model.weights if (weight.numpy() != before[weight.path]).any()]
    assert {path.rsplit("/", 1)[1] for path in moved} == {"kernel", "bias"}
    assert sum("/moving_" in path for path in before) == 4


def test_batch_norm_statistics_do_move_where_the_layers_are_not_frozen():
    """What the two tests above look for can be seen."""
    import keras

    task, model = digits(4), fresh()
    models.unfreeze(model, -1)
    for layer in models.all_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = True
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = statistics(model)
    model.fit(pixels(task.train), task.train.labels, verbose=0)
    assert all(np.abs(value - before[path]).max() > 0 for path, value in statistics(model).items())


@pytest.mark.parametrize("blocks", [np.int64(1), np.int32(-1)])
def test_a_number_of_blocks_may_be_numpys(shared, blocks):
    ends = []
    for number in (blocks, int(blocks)):
        model = shared()
        training.fine_tune(model, digits(), number, epochs=1, start="as_is")
        ends.append(model.get_weights())
    assert same(*ends)


@pytest.mark.parametrize("setting", ["epochs", "batch_size", "patience"])
@pytest.mark.parametrize("value", [0, -3])
@pytest.mark.parametrize("train", ["fine_tune", "train_from_scratch"])
def test_settings_below_one_are_refused_before_any_work(model, train, setting, value, passes, fits):
    before = model.get_weights()
    with pytest.raises(ValueError, match=f"{setting} must be at least 1, not {value}"):
        getattr(training, train)(model, digits(), **{setting: value})
    assert passes == fits == []
    assert same(before, model.get_weights())


@pytest.mark.parametrize(
    ("blocks", "trained"),
    [(0, []), (1, ["block3"]), ("block2", ["block2", "block3"]), (-1, ["block1", "block2", "block3"])],
)
@pytest.mark.parametrize("cache", [True, False])
def test_only_the_asked_blocks_and_the_head_change(model, blocks, trained, cache):
    before = parts(model)
    training.fine_tune(model, digits(), blocks, epochs=1, learning_rate=1e-2, start="as_is", warmup=0, cache=cache)
    changed = [name for name, weights in parts(model).items() if not same(weights, before[name])]
    assert changed == [*trained, "head"]


def test_only_the_asked_blocks_of_a_pocket_network_change():
    model = models.classifier(backbones.load("pocket_resnet", weights=None, input_shape=(SIZE, SIZE, 1)), 3)
    before = parts(model)
    training.fine_tune(model, digits(), "block4", epochs=1, learning_rate=1e-2, start="as_is", warmup=0)
    changed = [name for name, weights in parts(model).items() if not same(weights, before[name])]
    assert changed == ["block4", "block5", "head"]


@pytest.mark.parametrize("blocks", [4, -2, "block9", 1.5, True])
def test_blocks_that_do_not_exist_are_refused_before_any_work(model, blocks, passes, fits):
    before = model.get_weights()
    with pytest.raises(ValueError, match="block1, block2, block3"):
        training.fine_tune(model, digits(), blocks)
    assert passes == fits == []
    assert same(before, model.get_weights())


def test_an_unknown_start_is_refused(model, passes):
    with pytest.raises(ValueError, match=r"'probe' or 'as_is', not 'cold'"):
        training.fine_tune(model, digits(), start="cold")
    assert passes == []


# --- fine-tuning: the start -------------------------------------------------------------------------------------------


def test_tuning_starts_from_the_solved_head(shared):
    task = digits(5)
    model = shared(dropout=0.0)
    training.linear_probe(model, task)
    solved = model.get_weights()
    model = shared(dropout=0.0)
    assert not same(solved, model.get_weights())
    fit = training.fine_tune(model, task, epochs=1, learning_rate=0.0)
    assert same(solved, model.get_weights())
    logits = model.predict(pixels(task.train), verbose=0)
    truth = softmax(logits)[np.arange(len(task.train)), task.train.labels]
    assert fit.history["loss"] == [pytest.approx(-np.log(truth).mean(), rel=1e-4)]


def test_augmentation_moves_images_and_leaves_them_alone_outside_of_training():
    import keras

    keras.utils.set_random_seed(0)
    images = np.zeros((40, 21, 21, 1), "float32")
    images[:, 10, 14] = 255.0  # one dot, right of the middle
    layers = training.augmentation(rotation=0, shift=0.1, zoom=0)
    moved = np.asarray(layers(images, training=True))
    assert moved.shape == images.shape and moved.min() >= 0 and moved.max() <= 255
    rows, columns = (np.tensordot(moved.sum(axis=(other, 3)), np.arange(21), 1) / 255 for other in (2, 1))
    inside = np.abs(moved.sum(axis=(1, 2, 3)) - 255) < 0.01
    assert inside.all()
    assert np.abs(rows - 10).max() <= 2.1 + 1e-3 and np.abs(columns - 14).max() <= 2.1 + 1e-3  # a tenth of 21 pixels
    assert rows.std() > 0.5 and columns.std() > 0.5
    np.testing.assert_array_equal(np.asarray(layers(images, training=False)), images)
    mirrored = np.asarray(training.augmentation(0, 0, 0, flip=True)(images, training=True))[:, 10, :, 0].argmax(1)
    assert set(mirrored) == {6, 14}


@pytest.mark.parametrize("train", [training.linear_probe, training.fine_tune, training.train_from_scratch])
def test_images_of_another_shape_than_the_models_are_refused_with_both_shapes(train, model):
    task = data.load("digits", image_size=SIZE + 1, labels_per_class=1)
    with pytest.raises(
        ValueError, match=rf"\({SIZE}, {SIZE}, 1\), .* \({SIZE + 1}, {SIZE + 1}, 1\): build its backbone"
    ):
        train(model, task)


def test_as_is_keeps_the_head(model):
    before = model.get_weights()
    training.fine_tune(model, digits(), epochs=1, learning_rate=0.0, start="as_is")
    assert same(before, model.get_weights())


def test_a_head_with_hidden_layers_is_trained_on_frozen_features_first(shared):
    task, model = digits(), shared(head="mlp", dropout=0.0)
    models.backbone_layer(model).get_layer("block3").get_layer("bn3").gamma.assign([20.0] * 8)  # features to learn from
    before = parts(model)
    hidden = model.get_layer("hidden1").get_weights()
    fit = training.fine_tune(model, task, epochs=20, learning_rate=0.0, batch_size=2)
    after = parts(model)
    assert not same(before.pop("head"), after.pop("head"))
    assert not same(hidden, model.get_layer("hidden1").get_weights())
    assert all(same(before[name], after[name]) for name in before)
    assert fit.history["loss"][0] < 1.08  # it was trained: guessing gives log 3 = 1.099


def test_the_head_is_trained_on_frozen_features_with_the_callers_settings(shared, passes):
    """The same as the two steps one after the other, each written out."""
    task, ends = digits(9, val=4), []
    settings = {"epochs": 6, "batch_size": 5, "warmup": 0.5, "patience": 1, "shuffle": False, "cache": False, "seed": 3}
    model = shared(head="mlp")
    training.fine_tune(model, task, 0, learning_rate=1e-3, start="as_is", **settings)
    training.fine_tune(model, task, 1, learning_rate=1e-2, start="as_is", **settings)
    ends.append(model.get_weights())
    model = shared(head="mlp")
    training.fine_tune(model, task, 1, learning_rate=1e-2, start="probe", **settings)
    assert passes == []  # nothing is cached where the caller does not want it
    ends.append(model.get_weights())
    assert same(*ends)
    model = shared(head="mlp")
    training.fine_tune(model, task, 1, learning_rate=1e-2, start="probe", **settings | {"warmup": 0.1})
    assert not same(ends[0], model.get_weights())


# --- fine-tuning: the boundary ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "pocket_resnet",
        "pocket_mobilenet",
        pytest.param("pocket_vgg", marks=pytest.mark.slow),
        pytest.param("pocket_inception", marks=pytest.mark.slow),
    ],
)
def test_cached_activations_end_where_the_whole_network_ends(name):
    task = digits(8)  # with validation images the epoch might be taken back
    model = models.classifier(backbones.load(name, weights=None, input_shape=(SIZE, SIZE, 1)), 3, dropout=0)
    start, ends, losses = model.get_weights(), [], []
    for cache in (True, False):
        model.set_weights(start)
        options = {"batch_size": 8, "shuffle": False, "start": "as_is", "cache": cache}
        losses.append(training.fine_tune(model, task, 2, epochs=1, **options).history)
        ends.append(model.get_weights())
    assert farthest(ends[0], ends[1]) < 1e-5 < 1e-4 < farthest(ends[0], start)
    assert losses[0] == {key: pytest.approx(value, abs=1e-4) for key, value in losses[1].items()}


# The smallest images of each family, and blocks to train.
IMAGENET = {
    "mobilenet_v2": (32, 2),
    "mobilenet": (32, 2),
    "mobilenet_v3_small": (32, 2),
    "vgg16": (32, 1),
    "resnet50": (32, 2),
    "resnet50_v2": (32, 2),
    "inception_v3": (75, 2),
    "xception": (75, 2),
    "densenet121": (32, 1),
    "efficientnet_b0": (32, 2),
    "efficientnet_v2_b0": (32, 2),
    "convnext_tiny": (32, 2),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name != "mobilenet_v2" else ()) for name in IMAGENET]
)
def test_every_family_of_imagenet_is_split_where_the_whole_network_would_end(name):
    import keras

    side, blocks = IMAGENET[name]
    images = np.random.default_rng(0).integers(0, 256, (12, side, side, 3), dtype=np.uint8)
    task = data.from_arrays("noise", (images, np.arange(12) % 3))
    backbone = backbones.load(name, weights=None, input_shape=(side, side, 3))
    inner = models.inner_layers(backbone.model)
    norms = [layer for layer in inner if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:  # random weights let the signal fade; statistics that fit keep it alive
        layer.momentum = 0.0
    backbone.model(images.astype("float32"), training=True)
    for layer in inner:
        if "Dropout" in type(layer).__name__:  # frozen blocks drop nothing when they are run once, see fine_tune
            layer.rate = 0.0
    model = models.classifier(backbone, 3, dropout=0.0)
    start, ends, losses = model.get_weights(), [], []
    assert np.asarray(backbone.model(images.astype("float32"))).std() > 1e-3
    for cache in (True, False):
        model.set_weights(start)
        options = {"epochs": 2, "batch_size": 6, "start": "as_is", "warmup": 0.0, "cache": cache}
        losses.append(training.fine_tune(model, task, blocks, learning_rate=1e-3, **options).history["loss"])
        ends.append(model.get_weights())
    moved = farthest(ends[1], start)
    assert moved > 1e-3
    assert farthest(*ends) < 0.02 * moved
    np.testing.assert_allclose(*losses, rtol=1e-3)


def test_the_frozen_part_runs_once_whatever_the_epochs(model, passes):
    training.fine_tune(model, digits(6, val=2), 1, epochs=5, start="as_is", patience=9)
    assert sorted(passes) == [6, 18]


def test_activations_that_memory_could_not_hold_are_not_kept(monkeypatch, model, passes):
    task, start, ends = digits(6, val=2), model.get_weights(), []
    options = {"epochs": 2, "start": "as_is", "progress": False}
    frozen = models.split(model, 1)[0]
    size = 4 * 24 * int(np.prod(frozen.output_shape[1:]))  # float32, for all images
    for limit, cache in ((size, True), (size - 1, True), (size, False)):
        model.set_weights(start)
        monkeypatch.setattr(training, "MOST_KEPT", limit)
        passes.clear()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            training.fine_tune(model, task, 1, cache=cache, **options)
        assert [str(w.message) for w in warned if "activations would take" in str(w.message)] == [
            "the frozen activations would take 0.0 GB; the whole network runs each epoch"
        ] * (cache and limit < size)
        assert bool(passes) == (cache and limit == size)
        ends.append(model.get_weights())
    assert same(*ends[1:])


def test_the_activations_are_kept_once_whatever_the_order():
    """Neither a new order nor an epoch copies them in Python's memory, and each batch holds what it should."""
    import keras

    images = np.random.default_rng(0).integers(0, 256, (4000, SIZE, SIZE, 1), dtype=np.uint8)
    examples = data.from_arrays("noise", (images, np.arange(4000) % 3)).train

    inputs = keras.Input((SIZE, SIZE, 1))
    frozen = keras.Model(inputs, keras.layers.UpSampling1D(8)(keras.layers.Reshape((-1, 1))(inputs)))  # 33 MB
    source = training._Source(examples, frozen, training._Settings(1, 1e-3, 32, 0.1, 3, True, 0, False, None))
    source.batches()
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(4000)
        tracemalloc.start()
        for (x, y), first in zip(source.batches(order), range(0, 4000, 32), strict=True):
            rows = order[first : first + 32]
            np.testing.assert_array_equal(x[:, ::8, 0], images[rows].reshape(len(rows), -1))
            np.testing.assert_array_equal(y, rows % 3)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8e6
    np.testing.assert_array_equal(np.concatenate([y for _, y in source.batches()]), np.arange(4000) % 3)


def test_without_a_cache_the_frozen_part_is_not_run_beforehand(model, passes):
    training.fine_tune(model, digits(), 1, epochs=1, start="as_is", cache=False)
    assert passes == []


# --- fine-tuning: rates and penalties ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("warmup", "rising"), [(0.0, 0), (0.1, 2), (0.5, 9)])
def test_the_rate_rises_linearly_and_falls_along_a_cosine(model, fits, warmup, rising):
    training.fine_tune(model, digits(6), 1, epochs=6, learning_rate=0.02, warmup=warmup, batch_size=7, start="as_is")
    steps = 3 * 6  # 18 images in batches of 7
    expected = [
        0.02 * step / rising if step < rising else 0.01 * (1 + np.cos(np.pi * (step - rising) / (steps - rising)))
        for step in range(steps)
    ]
    assert [len(epoch) for epoch in fits] == [3] * 6
    np.testing.assert_allclose(np.concatenate(fits), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("cache", [True, False])
def test_each_block_down_takes_a_smaller_step(model, cache):
    """The first step of Adam is as long as its rate, whatever the gradient."""
    before = parts(model)
    options = {"epochs": 1, "warmup": 0.0, "start": "as_is", "cache": cache, "block_decay": 0.25}
    training.fine_tune(model, digits(), -1, learning_rate=1e-2, **options)
    step = {name: farthest(weights, before[name]) for name, weights in parts(model).items() if before[name]}
    assert step == pytest.approx({"head": 1e-2, "block3": 1e-2, "block2": 2.5e-3, "block1": 6.25e-4}, rel=1e-2)


def test_without_decay_each_block_takes_the_same_step(model):
    before = parts(model)
    training.fine_tune(model, digits(), -1, epochs=1, learning_rate=1e-2, warmup=0.0, start="as_is")
    step = {name: farthest(weights, before[name]) for name, weights in parts(model).items() if before[name]}
    assert step == pytest.approx(dict.fromkeys(("block1", "block2", "block3", "head"), 1e-2), rel=1e-2)


def by_hand(model, task, blocks, epochs, rate, l2=0.0, l2_sp=0.0, weight_decay=0.0, label_smoothing=0.0, views=None):
    """The same training in a plain loop: penalties in the loss, where autodiff finds their gradients; Keras' AdamW."""
    import keras
    import tensorflow as tf

    models.unfreeze(model, blocks)
    tuned = models.backbone_layer(model).trainable_weights
    start = [weight.numpy() for weight in tuned]
    variables = model.trainable_weights
    kernels = [variable for variable in variables if variable.shape.rank > 1]
    assert len(kernels) == len(variables) / 2  # BatchNorm is frozen: the others are biases
    schedule = keras.optimizers.schedules.CosineDecay(rate, epochs)
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=weight_decay, epsilon=1e-7)
    optimizer.exclude_from_weight_decay([variable for variable in variables if variable.shape.rank == 1])
    targets = (1 - label_smoothing) * np.eye(3)[task.train.labels] + label_smoothing / 3
    views = views or [pixels(task.train)]
    for epoch in range(epochs):  # all images in one batch
        with tf.GradientTape() as tape:
            logits = model(views[epoch % len(views)], training=True)
            loss = -tf.reduce_mean(tf.reduce_sum(targets.astype("float32") * tf.nn.log_softmax(logits), axis=1))
            loss += l2_sp / 2 * sum(tf.reduce_sum((w.value - w0) ** 2) for w, w0 in zip(tuned, start))
            loss += l2 / 2 * sum(tf.reduce_sum(kernel.value**2) for kernel in kernels)
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        optimizer.apply_gradients(zip(gradients, variables))
    return model.get_weights()


PENALTIES = {
    "none": {},
    "l2": {"l2": 3.0},
    "l2_sp": {"l2_sp": 3.0},
    "weight_decay": {"weight_decay": 3.0},
    "label_smoothing": {"label_smoothing": 0.3},
    "all": {"l2": 0.3, "l2_sp": 1.0, "weight_decay": 2.0, "label_smoothing": 0.1},
}


@pytest.mark.parametrize("penalty", PENALTIES)
def test_training_is_gradient_descent_with_penalties_in_the_loss_and_decay_past_adam(shared, penalty):
    task, model, penalty = digits(), shared(dropout=0.0), PENALTIES[penalty]
    expected = by_hand(model, task, 2, 8, 3e-3, **penalty)
    other = by_hand(shared(dropout=0.0), task, 2, 8, 3e-3, **({} if penalty else {"l2": 3.0}))
    model = shared(dropout=0.0)
    options = {"warmup": 0.0, "shuffle": False, "start": "as_is", **penalty}
    fit = training.fine_tune(model, task, 2, epochs=8, learning_rate=3e-3, **options)
    assert farthest(model.get_weights(), expected) < 1e-5
    assert farthest(other, expected) > 1e-3
    assert set(fit.history) == {"loss", "accuracy"}


@pytest.mark.parametrize(("penalty", "shrinks"), [("l2", False), ("weight_decay", True)])
def test_decay_shrinks_a_kernel_by_its_own_size_and_l2_by_the_rate_alone(model, penalty, shrinks):
    """Where the loss has no gradient, the first step of Adam is as long as its rate, whatever the weight and λ."""
    for layer in models.all_layers(model):
        if layer.name in ("block3", "bn3"):
            layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])  # every feature is zero
    task = digits(6)
    head = model.get_layer("output")
    head.set_weights([head.get_weights()[0], np.zeros(3)])
    conv = next(layer for layer in models.all_layers(model) if layer.name == "conv3")
    conv.set_weights([np.where(np.arange(8) % 2, 0.5, -0.25) + 0 * conv.get_weights()[0], np.full(8, 0.7)])
    before = conv.get_weights()
    training.fine_tune(model, task, 1, 1, learning_rate=1e-2, warmup=0.0, start="as_is", **{penalty: 0.5})
    kernel, bias = conv.get_weights()
    assert np.array_equal(bias, before[1])
    expected = before[0] * (1 - 1e-2 * 0.5) if shrinks else before[0] - 1e-2 * np.sign(before[0])
    np.testing.assert_allclose(kernel, expected, rtol=1e-5)


def test_each_block_down_decays_less(model):
    before = parts(model)
    options = {"warmup": 0.0, "start": "as_is", "block_decay": 0.25, "weight_decay": 50.0}
    training.fine_tune(model, digits(), -1, epochs=1, learning_rate=1e-2, **options)
    shrunk = parts(model)
    for name, rate in {"head": 1e-2, "block3": 1e-2, "block2": 2.5e-3, "block1": 6.25e-4}.items():
        # One step of decay, then one of Adam, as long as the rate.
        steps = np.abs(shrunk[name][0] - before[name][0] * (1 - 50 * rate))
        assert steps.max() <= rate * 1.01 and np.median(steps) > rate * 0.9


@pytest.mark.parametrize("name", ["l2", "l2_sp", "weight_decay"])
@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf])
def test_strengths_of_no_use_are_refused_before_any_work(model, name, value, passes, fits):
    with pytest.raises(ValueError, match=f"{name} is a strength, 0 or a positive number, not {value}"):
        training.fine_tune(model, digits(), **{name: value})
    assert passes == fits == []


@pytest.mark.parametrize("value", [-0.1, 1.0, np.nan])
def test_a_share_of_label_smoothing_lies_between_nought_and_one(model, value, passes, fits):
    with pytest.raises(ValueError, match=f"at least 0 and below 1, not {value}"):
        training.fine_tune(model, digits(), label_smoothing=value)
    assert passes == fits == []


def test_numbers_cannot_be_smoothed(passes, fits):
    with pytest.raises(ValueError, match=r"label_smoothing is for classifiers.*'brightness' are numbers.*not 0\.1"):
        training.fine_tune(models.regressor(tiny()), brightness(), label_smoothing=0.1)
    assert passes == fits == []


def test_smoothed_labels_are_those_of_validation_as_well_and_the_model_comes_back_with_plain_ones(shared):
    task, model = digits(6, val=4), shared(dropout=0.0)
    fit = training.fine_tune(model, task, 1, 1, learning_rate=0.0, start="as_is", label_smoothing=0.3)
    targets = 0.7 * np.eye(3)[task.val.labels] + 0.1
    probabilities = softmax(model.predict(pixels(task.val), verbose=0))
    smoothed = -(targets * np.log(probabilities)).sum(axis=1).mean()
    assert fit.history["val_loss"] == [pytest.approx(smoothed, rel=1e-4)]
    plain = -np.log(probabilities[np.arange(len(task.val)), task.val.labels]).mean()
    loss, accuracy = model.evaluate(pixels(task.val), task.val.labels, verbose=0)
    assert loss == pytest.approx(plain, rel=1e-4)
    assert [accuracy] == fit.history["val_accuracy"]


def test_a_head_with_hidden_layers_is_penalised_while_it_is_trained_on_frozen_features(shared):
    task, sizes = digits(), []
    for decay in (0.0, 30.0):
        model = shared(head="mlp", dropout=0.0)
        training.fine_tune(model, task, 1, epochs=20, learning_rate=0.0, batch_size=2, weight_decay=decay)
        sizes.append(np.linalg.norm(model.get_layer("hidden1").kernel))
    assert sizes[1] < 0.9 * sizes[0]


def test_stopping_after_some_epochs_leaves_the_schedule_as_it_is(model, fits):
    training.fine_tune(model, digits(6), 1, epochs=6, learning_rate=0.02, batch_size=7, start="as_is")
    whole = list(fits)
    fits.clear()
    fit = training.fine_tune(model, digits(6), 1, 6, 0.02, batch_size=7, start="as_is", stop_after=4)
    assert fits == whole[:4]
    assert fit.best_epoch == len(fit.history["loss"]) == 4
    fits.clear()
    assert training.fine_tune(model, digits(6), 1, 2, 0.02, start="as_is", stop_after=4).best_epoch == len(fits) == 2
    with pytest.raises(ValueError, match="stop_after must be at least 1, not 0"):
        training.fine_tune(model, digits(), stop_after=0)


def test_a_strong_pull_holds_the_blocks_but_not_the_head(model):
    start = parts(model)

    def moved(l2_sp):
        model.set_weights([w for weights in start.values() for w in weights])
        training.fine_tune(model, digits(), 1, epochs=30, learning_rate=1e-2, start="as_is", l2_sp=l2_sp)
        after = parts(model)
        return {name: farthest(after[name], start[name]) for name in ("block3", "head")}

    free, pulled = moved(0.0), moved(100.0)
    assert pulled["block3"] < 0.1 * free["block3"]
    assert pulled["head"] > 0.5 * free["head"]


# --- mixed precision --------------------------------------------------------------------------------------------------


@pytest.fixture
def mixed():
    import keras

    keras.mixed_precision.set_global_policy("mixed_float16")
    yield
    keras.mixed_precision.set_global_policy("float32")


def test_the_first_call_pulls_towards_the_starting_weights_in_mixed_precision_too(mixed):
    model = fresh(dropout=0.0)
    before = parts(model)
    training.fine_tune(model, digits(), 1, epochs=30, learning_rate=1e-2, start="as_is", l2_sp=100.0)
    moved = {name: farthest(weights, before[name]) for name, weights in parts(model).items() if before[name]}
    size = max(np.abs(weight).max() for weight in before["block3"])
    assert moved["block3"] < 0.1 * size  # towards zero it would have gone all the way
    assert moved["head"] > 0.1


def bright():
    """Targets so large that their gradients overflow float16 until the loss is scaled down some steps later."""
    task = brightness()
    return data.from_arrays("bright", (task.train.images(), 300 * task.train.labels), None, kind="regression")


def test_the_scale_of_the_loss_is_part_of_a_trainings_state(mixed, monkeypatch, tmp_path):
    options = {"blocks": 1, "epochs": 5, "learning_rate": 0.01, "start": "as_is", "batch_size": 5}
    model, task = models.regressor(tiny()), bright()
    start, ends = model.get_weights(), []
    for _ in range(2):  # a second call starts like the first
        model.set_weights(start)
        training.fine_tune(model, task, **options)
        ends.append(model.get_weights())
    assert same(*ends)
    scale = float(training._trainers[model][1].optimizer.dynamic_scale.numpy())
    assert scale < 2.0**15, "no step overflowed, so this shows nothing"
    for resumed in (model, models.regressor(tiny())):
        model.set_weights(start)
        resumed.set_weights(start)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupt_after(patch, 2)
            training.fine_tune(model, task, backup_dir=tmp_path, **options)
        training.fine_tune(resumed, task, backup_dir=tmp_path, **options)
        assert same(resumed.get_weights(), ends[0])


# --- early stopping ---------------------------------------------------------------------------------------------------


def test_the_epoch_with_the_lowest_validation_loss_is_kept(shared):
    task, model = digits(9, val=8), shared(dropout=0.0)
    wrong = np.where(np.arange(27) % 3 == 0, (task.train.labels + 1) % 3, task.train.labels)  # to be learnt by heart
    task = replace(task, train=data.from_arrays("wrong", (task.train.images(), wrong)).train)
    fit = training.fine_tune(model, task, -1, epochs=40, learning_rate=0.05, patience=4, start="as_is", warmup=0)
    losses = fit.history["val_loss"]
    assert 0 < fit.best_epoch < len(losses) < 40
    assert fit.best_epoch == np.argmin(losses) + 1
    assert len(losses) == fit.best_epoch + 4
    logits = model.predict(pixels(task.val), verbose=0)
    truth = softmax(logits)[np.arange(len(task.val)), task.val.labels]
    assert -np.log(truth).mean() == pytest.approx(min(losses), rel=1e-4)


def test_where_tuning_only_hurts_the_probe_is_kept(shared):
    task, model = digits(5, val=8), shared(dropout=0.0)
    training.linear_probe(model, task)
    solved = model.get_weights()
    fit = training.fine_tune(shared(dropout=0.0), task, 2, epochs=20, learning_rate=10.0, patience=3, warmup=0)
    assert fit.best_epoch == 0
    assert len(fit.history["loss"]) == 3
    assert same(solved, model.get_weights())


def test_without_validation_data_all_epochs_run(model):
    fit = training.fine_tune(model, digits(), 1, epochs=6, patience=1, start="as_is")
    assert fit.best_epoch == 6
    assert {key: len(values) for key, values in fit.history.items()} == {"loss": 6, "accuracy": 6}
    assert fit.model is model
    assert fit.seconds > 0
    assert "history" not in repr(fit)


# --- backup and resumption --------------------------------------------------------------------------------------------


def interrupt_after(monkeypatch, epochs):
    import keras

    fit, calls = keras.Model.fit, []

    def failing(self, *args, **options):
        calls.append(1)
        if len(calls) > epochs:
            raise KeyboardInterrupt
        return fit(self, *args, **options)

    monkeypatch.setattr(keras.Model, "fit", failing)


def noise():
    import keras

    return keras.layers.GaussianDropout(0.3)


RESUMED = {
    "plain": {"blocks": 2, "start": "as_is"},
    "probe, pull and decay": {"blocks": 2, "l2_sp": 0.5, "block_decay": 0.5, "l2": 0.1, "weight_decay": 0.5},
    "whole network, augmented": {"blocks": 1, "start": "as_is", "augment": True},
    "cached views": {"blocks": 1, "start": "as_is", "augment": True, "views": 2},
    "validation": {"blocks": 2, "start": "as_is", "val": 4, "patience": 2},
}


@pytest.mark.parametrize(
    ("settings", "memory"),
    [
        ("plain", "a new process"),
        ("validation", "a new process"),
        ("probe, pull and decay", "a new process"),
        ("probe, pull and decay", "the same model"),
        ("whole network, augmented", "the same model"),
        ("cached views", "a new process"),
        pytest.param("whole network, augmented", "a new process", marks=pytest.mark.slow),
        pytest.param("validation", "the same model", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_ends_where_the_whole_run_ends(monkeypatch, tmp_path, settings, memory):
    settings = dict(RESUMED[settings])
    task = digits(6, val=settings.pop("val", 0))
    if settings.pop("augment", False):
        settings["augment"] = noise()
    settings |= {"epochs": 5, "learning_rate": 0.05, "batch_size": 5, "seed": 4}
    first = fresh(dropout=0.5)
    start = first.get_weights()
    whole = training.fine_tune(first, task, **settings)
    expected = first.get_weights()

    first.set_weights(start)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, 2)
        training.fine_tune(first, task, backup_dir=tmp_path, **settings)
    assert not same(first.get_weights(), expected)
    second = first
    if memory == "a new process":
        second = fresh(dropout=0.5)
        second.set_weights(start)
        if "augment" in settings:
            settings["augment"] = noise()
    resumed = training.fine_tune(second, task, backup_dir=tmp_path, **settings)
    assert same(second.get_weights(), expected)
    assert resumed.history == whole.history
    assert resumed.best_epoch == whole.best_epoch
    assert list(tmp_path.iterdir()) == []  # a run that is through does not hinder the next one


KILLED = {"blocks": 2, "epochs": 5, "learning_rate": 0.05, "batch_size": 5, "seed": 4, "patience": 9}
STEPS = 4 * 5  # 18 images in batches of 5


def train_and_die(folder, when, number):
    """What the other process of the next test does: train, and be killed in a step or right after a backup."""
    import keras

    runtime.setup(gpu="off")
    fit, save, steps = keras.Model.fit, training._Backup.save, itertools.count(1)

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    class Killer(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if next(steps) == number:
                die()

    def saving(self, epoch, *arguments):
        save(self, epoch, *arguments)
        if epoch == number:
            die()

    if when == "step":
        keras.Model.fit = lambda *args, **options: fit(*args, callbacks=[Killer()], **options)
    else:
        training._Backup.save = saving
    training.fine_tune(fresh(dropout=0.5), digits(6, val=4), backup_dir=folder, **KILLED)


POINTS = [("epoch", 1), ("epoch", 3), ("epoch", 4)]
POINTS += [("step", int(step)) for step in np.random.default_rng(0).choice(np.arange(1, STEPS), 3, replace=False)]


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL on Windows")
@pytest.mark.parametrize(
    "point",
    [pytest.param(point, marks=[] if point in POINTS[2:4] else pytest.mark.slow, id=f"{point}") for point in POINTS],
)
def test_a_killed_run_ends_where_the_whole_run_ends(tmp_path, point):
    when, number = point
    task, whole = digits(6, val=4), fresh(dropout=0.5)
    fit = training.fine_tune(whole, task, **KILLED)
    code = f"import test_training; test_training.train_and_die({str(tmp_path)!r}, {when!r}, {number})"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (Path(__file__).parent, Path.cwd(), *sys.path)))}
    killed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    epochs_done = number if when == "epoch" else (number - 1) // 4
    assert len(list(tmp_path.iterdir())) == (epochs_done > 0)

    model = fresh(dropout=0.5)
    resumed = training.fine_tune(model, task, backup_dir=tmp_path, **KILLED)
    assert same(model.get_weights(), whole.get_weights())
    assert resumed.history == fit.history
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_does_not_repeat_epochs(monkeypatch, tmp_path, model, fits):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, 2)
        training.fine_tune(model, digits(), 1, epochs=5, start="as_is", backup_dir=tmp_path)
    fits.clear()
    training.fine_tune(model, digits(), 1, epochs=5, start="as_is", backup_dir=tmp_path)
    assert len(fits) == 3


@pytest.mark.parametrize(
    "damage", [lambda whole: b"", lambda whole: whole[:-99], lambda whole: whole[:500] + whole[501:]]
)
def test_a_damaged_backup_is_named_and_training_starts_again(monkeypatch, tmp_path, model, fits, damage):
    task, start = digits(6, val=2), model.get_weights()
    options = {"blocks": 1, "epochs": 4, "learning_rate": 0.01, "start": "as_is", "patience": 9}
    whole = training.fine_tune(model, task, **options)
    expected = model.get_weights()
    model.set_weights(start)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, 3)
        training.fine_tune(model, task, backup_dir=tmp_path, **options)
    model.set_weights(start)
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    fits.clear()
    with pytest.warns(CheckpointWarning, match=f"{file.name} is damaged .* computed again"):
        again = training.fine_tune(model, task, backup_dir=tmp_path, **options)
    assert len(fits) == 4 and again.history == whole.history
    assert same(model.get_weights(), expected)
    assert list(tmp_path.iterdir()) == []


def test_training_from_scratch_resumes_as_well(monkeypatch, tmp_path, model):
    start = model.get_weights()
    training.train_from_scratch(model, digits(), epochs=4)
    expected = model.get_weights()
    model.set_weights(start)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, 2)
        training.train_from_scratch(model, digits(), epochs=4, backup_dir=tmp_path)
    training.train_from_scratch(model, digits(), epochs=4, backup_dir=tmp_path)
    assert same(model.get_weights(), expected)


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"l2_sp": 0.1},
        {"l2": 0.1},
        {"weight_decay": 0.1},
        {"label_smoothing": 0.1},
        {"block_decay": 0.5},
        {"start": "probe"},
        {"task": "images"},
        {"task": "labels"},
    ],
    ids=str,
)
def test_another_run_does_not_go_on_from_the_backup(monkeypatch, tmp_path, model, fits, other):
    task = digits()
    settings = {"blocks": 1, "epochs": 3, "start": "as_is", "backup_dir": tmp_path}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, 2)
        training.fine_tune(model, task, **settings)
    fits.clear()
    settings |= other
    changed = settings.pop("task", None)
    if changed == "images":
        task = digits(skip=6)
    elif changed == "labels":
        task = data.from_arrays("some digits", (task.train.images(), 2 - task.train.labels))
    training.fine_tune(model, task, **settings)
    assert len(fits) == 3


def rotation(factor):
    import keras

    return keras.layers.RandomRotation(factor)


def momentum(value):
    import keras

    model = fresh()
    for layer in models.all_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = value
    return model


def activation(name):
    """The same weights, another network."""
    import keras
    from keras import layers

    inputs = keras.Input((SIZE, SIZE, 1))
    x = layers.Conv2D(4, 3, strides=2, activation=name, name="conv")(inputs)
    return models.classifier(backbones.wrap(keras.Model(inputs, x, name="one")), 3)


def filled(value):
    """Other frozen weights, as another pretrained backbone of the same family has them."""
    model = fresh()
    conv = models.backbone_layer(model).get_layer("block1").get_layer("conv1")
    conv.set_weights([np.full_like(weight, value) for weight in conv.get_weights()])
    return model


@pytest.mark.parametrize(
    ("build", "augment", "second", "epochs"),
    [
        (lambda _: fresh(), rotation, 0.04, 1),  # another model and layer, but the same in all that matters
        (lambda _: fresh(), rotation, 0.2, 3),
        (lambda rate: fresh(dropout=rate), None, 0.2, 3),
        (lambda rate: momentum(0.5 + rate), None, 0.2, 3),
        (lambda value: filled(value), None, 0.2, 3),
        (lambda rate: activation("relu" if rate < 0.1 else "tanh"), None, 0.2, 3),
    ],
    ids=["the same", "augmentation", "dropout", "momentum", "frozen weights", "architecture"],
)
def test_a_backup_belongs_to_one_model_and_augmentation(monkeypatch, tmp_path, fits, build, augment, second, epochs):
    options = {"blocks": 1, "epochs": 3, "start": "as_is", "backup_dir": tmp_path}

    def run(value):
        training.fine_tune(build(value), digits(), augment=augment and augment(value), **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, 2)
        run(0.04)
    fits.clear()
    run(second)
    assert len(fits) == epochs


def test_training_from_scratch_does_not_go_on_from_a_fine_tuning(monkeypatch, tmp_path, fits):
    options = {"epochs": 3, "learning_rate": 1e-3, "patience": 9, "backup_dir": tmp_path}
    model = activation("relu")  # without BatchNorm both train the very same weights
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, 2)
        training.fine_tune(model, digits(), -1, start="as_is", **options)
    fits.clear()
    training.train_from_scratch(model, digits(), **options)
    assert len(fits) == 3


def test_a_layer_that_does_not_say_how_it_is_made_is_no_hindrance(monkeypatch, tmp_path, fits):
    options = {"blocks": -1, "epochs": 3, "start": "as_is", "backup_dir": tmp_path}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, 2)
        training.fine_tune(composite(), digits(), **options)
    fits.clear()
    training.fine_tune(composite(), digits(), **options)
    assert len(fits) == 1


# --- augmentation -----------------------------------------------------------------------------------------------------


def watching(log):
    """An augmentation that paints training images white and writes down each batch that it sees."""
    import keras
    import tensorflow as tf

    class White(keras.layers.Layer):
        def call(self, images, training=None):
            if not training:
                return images
            tf.py_function(lambda batch: log.append(batch.numpy()), [images], [])
            return images * 0 + 255.0

    return White()


def test_augmentation_touches_training_images_alone_and_every_epoch_anew(model, passes):
    seen, task = [], digits(6, val=3)
    fit = training.fine_tune(
        model, task, 1, epochs=3, learning_rate=0.0, augment=watching(seen), start="as_is", batch_size=6
    )
    clean = model.predict(pixels(task.val), verbose=0)
    passes.clear()
    assert [len(batch) for batch in seen] == [6] * 9
    for epoch in range(3):  # raw pixels, each image once an epoch, in another order each time
        batches = np.concatenate(seen[3 * epoch : 3 * epoch + 3]).astype("uint8")
        assert sorted(map(bytes, batches)) == sorted(map(bytes, task.train.images()))
    assert not np.array_equal(seen[0], seen[3])
    clean_loss = -np.log(softmax(clean)[np.arange(len(task.val)), task.val.labels]).mean()
    assert fit.history["val_loss"] == [pytest.approx(clean_loss, rel=1e-4)] * 3


def test_random_augmentation_differs_between_epochs_and_repeats_between_calls(model):
    start, task = model.get_weights(), digits()
    options = {"blocks": 1, "epochs": 3, "start": "as_is", "augment": noise(), "learning_rate": 0.01}
    ends = []
    for _ in range(2):
        model.set_weights(start)
        training.fine_tune(model, task, **options)
        ends.append(model.get_weights())
    model.set_weights(start)
    training.fine_tune(model, task, **options | {"augment": None, "cache": False})
    assert same(*ends)
    assert not same(ends[0], model.get_weights())


# --- cached views -----------------------------------------------------------------------------------------------------


def speckling(log):
    """An augmentation that adds noise to images and writes down what comes out."""
    import keras
    import tensorflow as tf

    class Speckle(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.seed_generator = keras.random.SeedGenerator(7)

        def call(self, images, training=None):
            if training:
                images = images + 60 * keras.random.normal(keras.ops.shape(images), seed=self.seed_generator)
                tf.py_function(lambda batch: log.append(batch.numpy()), [images], [])
            return images

    return Speckle()


def test_training_on_cached_views_is_gradient_descent_on_each_view_in_turn(shared, passes):
    task, model, seen = digits(), shared(dropout=0.0), []
    options = {"learning_rate": 3e-3, "warmup": 0.0, "shuffle": False, "start": "as_is"}
    fit = training.fine_tune(model, task, 2, epochs=8, augment=speckling(seen), views=3, **options)
    found = model.get_weights()
    assert passes == [18] * 3  # each view runs through the frozen part once
    assert [view.shape for view in seen] == [(18, SIZE, SIZE, 1)] * 3
    assert min(np.abs(a - b).mean() for a, b in itertools.combinations([*seen, pixels(task.train)], 2)) > 30
    expected = by_hand(shared(dropout=0.0), task, 2, 8, 3e-3, views=seen)
    other = by_hand(shared(dropout=0.0), task, 2, 8, 3e-3, views=seen[::-1])
    assert farthest(found, expected) < 1e-5 < 1e-3 < farthest(other, expected)
    assert len(fit.history["loss"]) == 8


def test_a_view_follows_from_the_seed_and_its_number_and_is_made_when_it_is_needed(model):
    views = {}
    for name, epochs, settings in (("a", 9, {}), ("again", 9, {}), ("short", 2, {}), ("other", 9, {"seed": 1})):
        seen = views[name] = []
        options = {"augment": speckling(seen), "views": 4, "start": "as_is", **settings}
        training.fine_tune(model, digits(), 1, epochs=epochs, **options)
    assert [len(seen) for seen in views.values()] == [4, 4, 2, 4]
    assert same(views["a"], views["again"])
    assert same(views["a"][:2], views["short"])
    assert not any(np.array_equal(a, b) for a in views["a"] for b in views["other"])


def test_validation_images_are_never_augmented_and_views_need_something_frozen(model):
    task, seen = digits(6, val=3), []
    options = {"augment": speckling(seen), "views": 2, "start": "as_is", "learning_rate": 0.0}
    fit = training.fine_tune(model, task, 1, epochs=3, **options)
    clean = softmax(model.predict(pixels(task.val), verbose=0))
    loss = -np.log(clean[np.arange(len(task.val)), task.val.labels]).mean()
    assert fit.history["val_loss"] == [pytest.approx(loss, rel=1e-4)] * 3
    assert sum(map(len, seen)) == 2 * 18
    seen.clear()
    training.fine_tune(model, task, -1, epochs=3, **options)  # every epoch anew
    assert sum(map(len, seen)) == 3 * 18


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"views": 2}, "views=2 needs augment"),
        ({"views": 2, "augment": True, "cache": False}, "views=2 are kept, and cache=False keeps nothing"),
        ({"views": 0, "augment": True}, "views must be at least 1, not 0"),
    ],
)
def test_views_of_no_use_are_refused_before_any_work(model, settings, message, passes, fits):
    if "augment" in settings:
        settings = settings | {"augment": noise()}
    with pytest.raises(ValueError, match=message):
        training.fine_tune(model, digits(), 1, **settings)
    assert passes == fits == []


@pytest.mark.parametrize(("second", "epochs"), [({}, 1), ({"views": 3}, 3), ({"views": None}, 3), ({"rate": 0.5}, 3)])
def test_views_are_part_of_a_trainings_state(monkeypatch, tmp_path, fits, second, epochs):
    def run(views=2, rate=0.1):
        import keras

        model = fresh(dropout=0.5)
        options = {"epochs": 3, "learning_rate": 0.05, "start": "as_is", "backup_dir": tmp_path, "views": views}
        training.fine_tune(model, digits(), 1, augment=keras.layers.GaussianDropout(rate), **options)
        return model.get_weights()

    whole = run()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, 2)
        run()
    fits.clear()
    resumed = run(**second)
    assert len(fits) == epochs
    assert same(whole, resumed) == (not second)


# --- one call after another -------------------------------------------------------------------------------------------

BASE = {"blocks": 2, "epochs": 2, "learning_rate": 0.02, "start": "as_is", "batch_size": 7}

BETWEEN = {
    "other images": lambda model: training.fine_tune(model, digits(skip=6), **BASE),
    "more images": lambda model: training.fine_tune(model, digits(9), **BASE),
    "validation": lambda model: training.fine_tune(model, digits(val=2), **BASE),
    "rate": lambda model: training.fine_tune(model, digits(), **BASE | {"learning_rate": 0.1}),
    "warm-up": lambda model: training.fine_tune(model, digits(), **BASE | {"warmup": 0.5}),
    "fewer blocks": lambda model: training.fine_tune(model, digits(), **BASE | {"blocks": 1}),
    "all blocks": lambda model: training.fine_tune(model, digits(), **BASE | {"blocks": -1}),
    "pull": lambda model: training.fine_tune(model, digits(), **BASE | {"l2_sp": 10.0}),
    "pull to zero": lambda model: training.fine_tune(model, digits(), **BASE | {"l2": 10.0}),
    "weight decay": lambda model: training.fine_tune(model, digits(), **BASE | {"weight_decay": 10.0}),
    "smoothed labels": lambda model: training.fine_tune(model, digits(), **BASE | {"label_smoothing": 0.5}),
    "stopped": lambda model: training.fine_tune(model, digits(), **BASE | {"stop_after": 1}),
    "decay": lambda model: training.fine_tune(model, digits(), **BASE | {"block_decay": 0.1}),
    "no cache": lambda model: training.fine_tune(model, digits(), **BASE | {"cache": False}),
    "augmentation": lambda model: training.fine_tune(model, digits(), **BASE | {"augment": noise()}),
    "solved head": lambda model: training.fine_tune(model, digits(), **BASE | {"start": "probe"}),
    "probe": lambda model: training.linear_probe(model, digits()),
    "from scratch": lambda model: training.train_from_scratch(model, digits(), epochs=2),
    "frozen": lambda model: models.freeze(model),
    "compiled otherwise": lambda model: model.compile("sgd", "mse"),
}


@pytest.fixture(scope="module")
def alone():
    """Where ``BASE`` ends on a model that nothing else was done with."""
    model = fresh()
    training.fine_tune(model, digits(), **BASE)
    return model.get_weights()


@pytest.mark.parametrize("source", ["arrays", "files"])
@pytest.mark.parametrize("options", [{}, {"cache": False}, {"augment": True, "views": 2}, {"augment": True}], ids=str)
def test_everything_is_traced_once_for_all_epochs_and_seeds(monkeypatch, folder, options, source):
    """Two fits with a probe, validation, and batches of two sizes: each step is traced once."""
    import keras

    traced = []

    def counted(owner, name):
        function = getattr(owner, name)

        def tracing(self, *arguments, **settings):
            if isinstance(self, keras.Model) and not tf.executing_eagerly():
                traced.append((id(self), name))
            return function(self, *arguments, **settings)

        monkeypatch.setattr(owner, name, tracing)

    tf = runtime.require_tensorflow()
    if "augment" in options:
        options = options | {"augment": noise()}
    task = digits(6, val=3)
    if source == "files":
        for name in "abc":
            folder.fill(name, 9, size=(SIZE, SIZE), channels=1)
        task = data.load(folder.path, image_size=SIZE, channels=1)
    model = fresh()
    for name in ("train_step", "test_step", "predict_step"):
        counted(keras.Model, name)
    counts = []
    for seed in (0, 1):
        settings = {"blocks": 1, "epochs": 4, "batch_size": 7, "patience": 9, "seed": seed, "learning_rate": 0.0}
        training.fine_tune(model, task, **settings | options)
        counts.append(sorted(name for _, name in traced))
    assert counts == [["test_step", "train_step"]] * 2


@pytest.mark.parametrize("name", BETWEEN)
def test_what_ran_before_on_the_same_model_leaves_no_trace(shared, alone, name):
    between, model = BETWEEN[name], shared()
    training.fine_tune(model, digits(), **BASE)
    assert same(alone, model.get_weights())

    model = shared()
    between(model)
    changed = model.get_weights()
    model = shared()
    training.fine_tune(model, digits(), **BASE)
    assert same(alone, model.get_weights())

    own = fresh()  # and what ran before it left none on the interlude
    between(own)
    assert same(own.get_weights(), changed)
    if name not in ("validation", "no cache"):  # those two may well end at the same place
        assert not same(alone, changed)


def test_another_limit_of_the_momentum_is_not_lost_on_a_second_call():
    ends = []
    for before in ([0.95], []):
        model = fresh()
        start = model.get_weights()
        for momentum in (*before, 0.5):
            model.set_weights(start)
            training.train_from_scratch(model, digits(), epochs=2, batch_norm_momentum=momentum)
        ends.append(model.get_weights())
    assert same(*ends)


@pytest.mark.parametrize(
    "train",
    [
        lambda model: training.linear_probe(model, digits()),
        lambda model: training.fine_tune(model, digits(), 1, epochs=1),
        lambda model: training.fine_tune(model, digits(), 1, epochs=1, cache=False),
        lambda model: training.train_from_scratch(model, digits(), epochs=1),
    ],
    ids=["probe", "cached", "whole", "scratch"],
)
def test_a_model_that_is_dropped_is_freed(train):
    import gc
    import weakref

    model = fresh()
    reference = weakref.ref(model)
    train(model)
    del model
    gc.collect()
    assert reference() is None


# --- from scratch -----------------------------------------------------------------------------------------------------


def test_training_from_scratch_learns_and_moves_every_weight(model):
    task = digits(25)
    before = model.get_weights()
    fit = training.train_from_scratch(model, task, epochs=40, learning_rate=0.02)
    predicted = model.predict(pixels(task.test), verbose=0).argmax(axis=1)
    assert np.mean(predicted == task.test.labels) > 0.85
    assert fit.best_epoch == len(fit.history["loss"]) == 40
    assert all(not np.array_equal(a, b) for a, b in zip(before, model.get_weights()))


def test_training_from_scratch_lowers_the_momentum_and_never_raises_it():
    import keras

    model = fresh()
    norms = [layer for layer in models.all_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    norms[0].momentum = 0.8
    assert norms[1].momentum == norms[2].momentum == 0.99  # Keras' default, too slow for a few steps
    training.train_from_scratch(model, digits(), epochs=1)
    assert [layer.momentum for layer in norms] == [0.8, 0.9, 0.9]


def test_training_from_scratch_reaches_batch_norm_inside_another_layer():
    model, ends = composite(), []
    start = model.get_weights()
    for momentum in (0.9, 0.5):  # the second call may not go on with what was traced in the first
        model.set_weights(start)
        training.train_from_scratch(model, digits(), epochs=1, learning_rate=0.0, batch_norm_momentum=momentum)
        ends.append({w.path.split("/")[-3]: w.numpy() for w in model.weights if w.path.endswith("/moving_mean")})
    # One batch, in which the mean moves by (1 − momentum) of the way; a TimeDistributed moves it once a row.
    np.testing.assert_allclose(ends[1]["unit"], 5 * ends[0]["unit"], rtol=1e-5)
    assert all(0 < np.abs(ends[0][name]).max() < np.abs(ends[1][name]).max() for name in ("unit", "rows"))


@pytest.mark.slow
def test_the_momentum_decides_whether_a_few_steps_are_of_use():
    """With the default of 0.99 the same training looks as if it had learnt nothing."""
    task, scores = digits(25), []
    for momentum in (0.9, 0.99):
        model = fresh(dropout=0.0)
        training.train_from_scratch(model, task, epochs=15, learning_rate=0.02, batch_norm_momentum=momentum)
        scores.append(model.evaluate(pixels(task.train), task.train.labels, verbose=0)[0])
    assert scores[0] < 0.5 * scores[1]


def test_fine_tuning_after_training_from_scratch_freezes_batch_norm_again(model):
    training.train_from_scratch(model, digits(), epochs=1)
    before = statistics(model)
    training.fine_tune(model, digits(), -1, epochs=2, learning_rate=0.01, start="as_is")
    assert all(np.array_equal(value, before[path]) for path, value in statistics(model).items())


# --- regression -------------------------------------------------------------------------------------------------------


def test_a_regression_is_tuned():
    task = brightness(2)
    model = models.regressor(tiny(), 2)
    training.linear_probe(model, task)
    before = np.abs(model.predict(pixels(task.train), verbose=0) - task.train.labels).mean()
    fit = training.fine_tune(model, task, 2, epochs=60, learning_rate=3e-3)
    after = np.abs(model.predict(pixels(task.train), verbose=0) - task.train.labels).mean()
    assert set(fit.history) == {"loss", "mae"}
    assert after < 0.5 * before
    assert model.evaluate(pixels(task.train), task.train.labels, verbose=0)[1] == pytest.approx(after, rel=1e-4)


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_nothing_is_printed_where_nobody_looks(model, capfd):
    training.fine_tune(model, digits(val=2), 1, epochs=2)
    training.train_from_scratch(model, digits(), epochs=1)
    assert capfd.readouterr() == ("", "")


def test_progress_is_one_line_an_epoch_on_stdout(model, capfd):
    training.fine_tune(model, digits(val=2), 1, epochs=2, progress=True)
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert len(lines) == 2
    assert re.match(r"epoch   1/2  \w+ \d", lines[0])
    assert all("val_accuracy" in line for line in lines)
    assert err == ""


def test_a_log_file_shows_no_progress_unless_asked(model, capfd, monkeypatch):
    monkeypatch.delenv("TLUTILS_PROGRESS")
    monkeypatch.delitem(__import__("sys").modules, "ipykernel", raising=False)
    training.fine_tune(model, digits(), 1, epochs=1, start="as_is")
    assert capfd.readouterr().out == ""
    monkeypatch.setenv("TLUTILS_PROGRESS", "1")
    training.fine_tune(model, digits(), 1, epochs=1, start="as_is")
    assert "epoch   1/1" in capfd.readouterr().out


def test_the_result_is_one_model_that_saves_without_this_package(model, tmp_path):
    import keras

    training.fine_tune(model, digits(), 1, epochs=1)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    x = pixels(digits().test)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    assert features.extract(models.backbone_layer(loaded), digits().train).shape == (18, 8)
