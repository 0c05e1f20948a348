"""Evaluation against scikit-learn, closed forms typed out here, and simulations of what an interval promises."""

import json
import math
from collections import Counter

import numpy as np
import pytest
from scipy.stats import binom, binomtest
from sklearn import metrics

from tlutils import data, evaluation, features, models


def made_up(n=400, classes=5, seed=0, sharpness=1.5):
    """Logits that are right more often than chance, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    return rng.normal(size=(n, classes)) * 2 + sharpness * np.eye(classes)[labels], labels


def softmax(logits):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


# --- one report -------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_scikit_learn():
    logits, labels = made_up()
    report = evaluation.report(logits, labels)
    probabilities = softmax(logits)
    predicted = logits.argmax(axis=1)
    assert report.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert report.log_loss == pytest.approx(metrics.log_loss(labels, probabilities))
    np.testing.assert_allclose(report.probabilities, probabilities)
    assert np.array_equal(report.predictions, predicted)
    assert np.array_equal(report.confusion, metrics.confusion_matrix(labels, predicted))
    assert 0.3 < report.accuracy < 0.9  # neither all right nor all wrong


def test_the_table_of_classes_is_that_of_scikit_learn():
    logits, labels = made_up(classes=4)
    names = ["ant", "bee", "cat", "dog"]
    rows = evaluation.report(logits, labels, class_names=names).per_class
    expected = metrics.classification_report(labels, logits.argmax(axis=1), target_names=names, output_dict=True)
    assert [row["name"] for row in rows] == names
    for row in rows:
        theirs = expected[row["name"]]
        assert (row["precision"], row["recall"], row["f1"], row["support"]) == pytest.approx(
            (theirs["precision"], theirs["recall"], theirs["f1-score"], theirs["support"])
        )
        low, high = row["recall_interval"]
        assert low < row["recall"] < high


def test_a_class_without_examples_or_predictions_has_no_score_and_a_full_interval():
    logits = np.eye(3)[[0, 0, 1, 1]] * 5.0
    report = evaluation.report(logits, np.array([0, 1, 1, 0]), class_names="abc")
    row = report.per_class[2]
    assert (row["support"], row["precision"], row["recall"], row["f1"]) == (0, 0, 0, 0)
    assert row["recall_interval"] == (0.0, 1.0)
    assert report.confusion.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]


def test_large_logits_do_not_overflow():
    logits = np.array([[1000.0, 0.0], [0.0, -800.0], [-900.0, 900.0]])
    report = evaluation.report(logits, np.array([0, 1, 1]))
    assert report.log_loss == pytest.approx(800 / 3)
    np.testing.assert_allclose(report.probabilities[:, 0], [1, 1, 0], atol=1e-12)


def test_calibration_error_of_a_case_worked_out_by_hand():
    # Bins of a fifteenth: .60 and .62 fall into [.600, .667), .95 and .99 into [.933, 1], .52 into [.467, .533).
    confidence = np.array([0.60, 0.62, 0.95, 0.99, 0.52])
    right = np.array([True, False, True, True, False])
    logits = np.stack([np.log(confidence / (1 - confidence)), np.zeros(5)], axis=1)
    report = evaluation.report(logits, np.where(right, 0, 1))
    gaps = [2 * abs(0.61 - 0.5), 2 * abs(0.97 - 1.0), 1 * abs(0.52 - 0.0)]
    assert report.ece == pytest.approx(sum(gaps) / 5)


def test_calibration_error_of_perfect_and_of_boastful_predictions():
    labels = np.zeros(1000, int)
    labels[:300] = 1
    honest = np.tile([math.log(0.7), math.log(0.3)], (1000, 1))
    assert evaluation.report(honest, labels).ece == pytest.approx(0, abs=1e-9)
    assert evaluation.report(honest + np.array([30.0, 0.0]), labels).ece == pytest.approx(0.3, abs=1e-6)


def test_the_most_frequent_mistakes_come_first():
    logits, labels = made_up(seed=4)
    report = evaluation.report(logits, labels, class_names="abcde")
    predicted = logits.argmax(axis=1)
    counted = Counter((t, p) for t, p in zip(labels, predicted) if t != p)
    found = report.most_confused(3)
    assert [count for *_, count in found] == sorted(counted.values(), reverse=True)[:3]
    for true, guess, count in found:
        assert counted["abcde".index(true), "abcde".index(guess)] == count
    perfect = evaluation.report(np.eye(3) * 9, np.arange(3))
    assert perfect.most_confused() == []


def test_a_report_prints_its_interval_and_what_it_covers():
    logits, labels = made_up(n=50, classes=2)
    text = str(evaluation.report(logits, labels, class_names=["ants", "bees"]))
    low, high = evaluation.report(logits, labels).interval
    assert f"on 50 images\n95% interval {low:.3f} to {high:.3f} (over the choice of images)" in text
    assert "ants" in text
    assert "bees" in text


def test_a_regression_has_an_error_and_no_accuracy():
    report = evaluation.report(np.array([[1.0], [2.0], [4.0]]), np.array([1.5, 2.0, 2.0], "float32"))
    assert report.mae == pytest.approx(2.5 / 3)
    assert report.accuracy is report.confusion is report.interval is None
    assert report.per_class == []
    assert str(report).startswith("mean absolute error 0.8333 on 3 images\n")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_model_that_gives_no_numbers_is_said_to_have_diverged(value):
    message = "gives NaN or infinity for 2 of 5 images: training diverged; lower the learning rate"
    logits = np.zeros((5, 3))
    logits[1], logits[4, 2] = value, value
    with pytest.raises(ValueError, match=message):
        evaluation.report(logits, np.array([0, 1, 2, 0, 1]))
    with pytest.raises(ValueError, match=message):
        evaluation.report(logits[:, 2:].copy() + logits[:, :1], np.zeros(5, "float32"))


def test_labels_without_a_logit_are_refused():
    with pytest.raises(ValueError, match="labels run from 0 to 3, but there are 3 logits"):
        evaluation.report(np.zeros((2, 3)), np.array([0, 3]))


def test_names_must_be_as_many_as_logits():
    with pytest.raises(ValueError, match="2 class names, but 3 logits"):
        evaluation.report(np.zeros((2, 3)), np.array([0, 1]), class_names=["ants", "bees"])


class _Fixed:
    """A model that gives stored logits, whatever the images, but in the order in which they come."""

    def __init__(self, logits):
        self.logits, self.seen = logits, []

    def predict(self, batches, verbose):
        self.seen += [images.numpy() for images, _ in batches]
        return self.logits.astype("float32")


def test_evaluate_looks_at_every_image_once_in_order():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)
    logits, labels = made_up(n=30, classes=3)
    examples = data.from_arrays("noise", (images, labels)).train
    model = _Fixed(logits)
    report = evaluation.evaluate(model, examples, class_names="xyz", batch_size=7)
    np.testing.assert_array_equal(np.concatenate(model.seen), images)
    assert report.accuracy == pytest.approx(np.mean(logits.argmax(axis=1) == labels))
    assert report.class_names == ("x", "y", "z")
    with pytest.raises(ValueError, match="no examples"):
        evaluation.evaluate(model, examples.subset(np.array([], int)))
    with pytest.raises(ValueError, match=r"has no such split; measure on task\.val"):
        evaluation.evaluate(model, data.from_arrays("noise", (images, labels)).test)


NAMES = ("ant", "bee", "cat", "dog", "eel")


def test_areas_are_those_of_scikit_learn_for_each_class_against_the_rest():
    logits, labels = made_up()
    report = evaluation.report(logits, labels, class_names=NAMES)
    probabilities, truth = softmax(logits), np.eye(5)[labels]
    for i, row in enumerate(report.per_class):
        assert row["roc_auc"] == pytest.approx(metrics.roc_auc_score(truth[:, i], probabilities[:, i]))
        expected = metrics.average_precision_score(truth[:, i], probabilities[:, i])
        assert row["average_precision"] == pytest.approx(expected)
    assert report.roc_auc == pytest.approx(metrics.roc_auc_score(labels, probabilities, multi_class="ovr"))
    assert report.average_precision == pytest.approx(metrics.average_precision_score(truth, probabilities))


def test_areas_see_the_order_of_images_whose_probabilities_round_to_one():
    logits = np.array([[900.0, 0.0], [800.0, 0.0], [700.0, 0.0]])
    report = evaluation.report(logits, np.array([0, 0, 1]))
    assert (report.probabilities[:, 0] == 1).all()
    assert report.roc_auc == report.average_precision == 1
    flat = evaluation.report(np.ones((4, 2)), np.array([0, 1, 0, 1]))  # all tie
    assert (flat.roc_auc, flat.average_precision) == (0.5, 0.5)


def test_the_curve_of_thresholds_is_a_recount():
    logits, labels = made_up(n=120, classes=3)
    logits = logits.round()  # some tie
    report = evaluation.report(logits, labels, class_names="xyz")
    data, probability = report.thresholds("y"), softmax(logits)[:, 1]
    assert len(np.unique(data["threshold"])) == len(data["threshold"]) == len(np.unique(probability.round(8)))
    for threshold, precision, recall, false in zip(*data.values(), strict=True):
        called = probability >= threshold - 1e-9
        assert precision == pytest.approx((labels[called] == 1).mean())
        assert recall == pytest.approx(called[labels == 1].mean())
        assert false == pytest.approx(called[labels != 1].mean())
    assert report.thresholds(1)["recall"].tolist() == data["recall"].tolist()
    for unknown in ("w", 3, -1):
        with pytest.raises(ValueError, match="there is no class"):
            report.thresholds(unknown)


def test_brier_score_is_the_squared_distance_to_the_truth():
    logits, labels = made_up()
    report = evaluation.report(logits, labels)
    assert report.brier == pytest.approx(((softmax(logits) - np.eye(5)[labels]) ** 2).sum(axis=1).mean())
    logits, labels = made_up(classes=2)
    binary = metrics.brier_score_loss(labels, softmax(logits)[:, 1])  # one of two equal terms
    assert evaluation.report(logits, labels).brier == pytest.approx(2 * binary)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_top_k_is_that_of_scikit_learn(k):
    logits, labels = made_up()
    share, low, high = evaluation.report(logits, labels).top_k(k)
    assert share == pytest.approx(metrics.top_k_accuracy_score(labels, logits, k=k, labels=range(5)) if k < 5 else 1)
    assert (low, high) == evaluation.wilson(round(share * 400), 400)


def test_top_k_breaks_ties_as_the_prediction_does():
    labels = np.array([0, 1, 2])
    report = evaluation.report(np.zeros((3, 3)), labels)
    assert report.top_k(1)[0] == report.accuracy == pytest.approx(1 / 3)
    assert [report.top_k(k)[0] for k in (2, 3)] == pytest.approx([2 / 3, 1])
    for k in (0, 4, True, 1.0):
        with pytest.raises(ValueError, match=f"from 1 to 3, the classes, not {k!r}"):
            report.top_k(k)


def test_averages_over_classes_are_those_of_scikit_learn():
    logits, labels = made_up(n=90)
    labels[labels == 4] = 3  # no image of the last class, but some predictions
    report = evaluation.report(logits, labels)
    predicted = logits.argmax(axis=1)
    recalls = metrics.recall_score(labels, predicted, labels=range(4), average=None)
    assert report.balanced_accuracy == pytest.approx(recalls.mean())
    assert report.macro_f1 == pytest.approx(metrics.f1_score(labels, predicted, average="macro", zero_division=0))
    assert 4 in predicted


def test_every_row_of_the_classes_has_the_intervals_of_its_counts():
    logits, labels = made_up(n=150)
    report = evaluation.report(logits, labels)
    predicted = logits.argmax(axis=1)
    for i, row in enumerate(report.per_class):
        both, either = ((labels == i) & (predicted == i)).sum(), ((labels == i) | (predicted == i)).sum()
        assert row["predicted"] == (predicted == i).sum()
        assert row["precision_interval"] == evaluation.wilson(int(both), row["predicted"])
        assert row["recall_interval"] == evaluation.wilson(int(both), row["support"])
        jaccard = evaluation.wilson(int(both), int(either))
        assert row["f1_interval"] == pytest.approx([2 * j / (1 + j) for j in jaccard])
        assert row["f1_interval"][0] < row["f1"] < row["f1_interval"][1]


def test_the_hardest_images_have_the_largest_losses():
    logits, labels = made_up()
    report = evaluation.report(logits, labels)
    loss = -np.log(softmax(logits)[np.arange(400), labels])
    assert report.hardest(7).tolist() == sorted(range(400), key=lambda i: -loss[i])[:7]
    assert report.losses == pytest.approx(loss)
    assert len(report.hardest(1000)) == 400


def test_a_slice_is_the_report_of_its_images():
    logits, labels = made_up()
    report = evaluation.report(logits, labels, class_names=NAMES, split="val")
    part = report.subset(labels < 2)
    assert part.accuracy == pytest.approx(np.mean(logits.argmax(axis=1)[labels < 2] == labels[labels < 2]))
    assert (part.split, part.class_names, len(part)) == ("val", NAMES, (labels < 2).sum())
    with pytest.raises(ValueError, match="no image is left"):
        report.subset(labels > 9)


# --- calibration ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("binning", ["width", "mass"])
def test_the_diagram_and_the_error_are_those_of_scikit_learn(binning):
    from sklearn.calibration import calibration_curve

    logits, labels = made_up(n=600)
    report = evaluation.report(logits, labels)
    rows = report.reliability(15, binning)
    strategy = {"width": "uniform", "mass": "quantile"}[binning]
    accuracy, confidence = calibration_curve(report.correct, report.confidence, n_bins=15, strategy=strategy)
    between = binning == "mass"  # their edges lie between two images, so that a bin holds one image more or less
    assert [row["accuracy"] for row in rows] == pytest.approx(accuracy.tolist(), abs=0.03 if between else 1e-9)
    assert [row["confidence"] for row in rows] == pytest.approx(confidence.tolist(), abs=5e-3 if between else 1e-9)
    assert sum(row["images"] for row in rows) == 600
    error = sum(row["images"] * abs(row["confidence"] - row["accuracy"]) for row in rows) / 600
    assert error == pytest.approx(report.ece if binning == "width" else report.ece_adaptive)
    for row in rows:
        assert row["interval"] == evaluation.wilson(round(row["accuracy"] * row["images"]), row["images"])


@pytest.mark.parametrize("bins", [5, 10, 15])
def test_the_calibration_error_is_the_formula_of_guo_written_as_a_loop(bins):
    logits, labels = made_up(n=500, classes=3)
    report = evaluation.report(logits, labels)
    probabilities, error = softmax(logits), 0.0
    for m in range(bins):
        inside = [i for i in range(500) if m / bins < probabilities[i].max() <= (m + 1) / bins]
        if inside:
            right = sum(probabilities[i].argmax() == labels[i] for i in inside) / len(inside)
            sure = sum(probabilities[i].max() for i in inside) / len(inside)
            error += len(inside) / 500 * abs(right - sure)
    assert evaluation.calibration_error(report.confidence, report.correct, bins) == pytest.approx(error)
    assert error > 0.01


def test_bins_of_equal_mass_hold_equally_many_images():
    logits, labels = made_up(n=600)
    report = evaluation.report(logits, labels)
    assert {row["images"] for row in report.reliability(15, "mass")} == {40}
    parts = np.array_split(np.argsort(report.confidence), 15)
    gaps = [abs(report.confidence[part].sum() - report.correct[part].sum()) for part in parts]
    assert report.ece_adaptive == pytest.approx(sum(gaps) / 600)


def test_images_of_the_same_confidence_stay_in_one_bin():
    confidence, correct = np.full(100, 0.8), np.arange(100) < 80
    assert evaluation.calibration_error(confidence, correct, binning="mass") == pytest.approx(0, abs=1e-12)
    assert len(evaluation.reliability(confidence, correct, binning="mass")) == 1


def test_the_error_of_a_calibrated_model_is_the_mean_deviation_of_a_binomial():
    mean, limit = evaluation.error_if_calibrated(np.full(50, 0.7), samples=4000)
    k = np.arange(51)
    assert mean == pytest.approx((binom.pmf(k, 50, 0.7) * abs(k / 50 - 0.7)).sum(), rel=0.03)
    assert binom.pmf(k, 50, 0.7)[abs(k / 50 - 0.7) <= limit + 1e-9].sum() >= 0.95
    few, many = (evaluation.error_if_calibrated(np.random.default_rng(0).uniform(0.5, 1, n)) for n in (50, 5000))
    assert few[0] > 5 * many[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5, 1.2], [1, 1]), "from 0 to 1, not 1.2"),
        (([0.5, np.nan], [1, 1]), "from 0 to 1, not nan"),
        (([], []), "no images"),
        (([0.5], [1], 0), "bins must be a whole number of at least 1, not 0"),
        (([0.5], [1], 5, "size"), "binning must be 'width' .* not 'size'"),
        (([0.5, 0.6], [1]), r"confidences have the shape \(2,\), right and wrong answers \(1,\)"),
    ],
)
def test_bins_and_confidences_must_be_of_use(arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluation.calibration_error(*arguments)


def test_the_temperature_has_the_lowest_log_loss_there_is():
    from scipy.optimize import minimize_scalar

    logits, labels = made_up(sharpness=3.0)

    def loss(log_temperature):
        return metrics.log_loss(labels, softmax(logits / np.exp(log_temperature)))

    found = evaluation.temperature(logits, labels)
    assert np.log(found) == pytest.approx(minimize_scalar(loss, bounds=(-4, 4), method="bounded").x, abs=1e-4)
    assert evaluation.temperature(7 * logits, labels) == pytest.approx(7 * found)


@pytest.mark.parametrize(("images", "classes"), [(1, 2), (9, 2), (9, 5), (200, 3)])
def test_smoothing_by_the_rule_of_succession_is_as_sure_as_so_many_right_answers_allow(images, classes):
    logits = np.tile(8.0 * np.eye(classes)[0], (images, 1))
    labels = np.zeros(images, int)
    found = evaluation.temperature(logits, labels, smoothing=1 / (images + 2))
    assert softmax(logits / found)[0, 0] == pytest.approx((images + 1) / (images + 2))


def test_smoothing_gives_the_lowest_log_loss_of_smoothed_labels():
    from scipy.optimize import minimize_scalar

    logits, labels = made_up(sharpness=3.0)
    classes = logits.shape[1]
    smoothed = np.full(logits.shape, 0.1 / (classes - 1))
    smoothed[np.arange(len(labels)), labels] = 0.9

    def loss(log_temperature):
        return -(smoothed * np.log(softmax(logits / np.exp(log_temperature)))).sum()

    found = evaluation.temperature(logits, labels, smoothing=0.1)
    assert np.log(found) == pytest.approx(minimize_scalar(loss, bounds=(-4, 4), method="bounded").x, abs=1e-4)
    assert found > evaluation.temperature(logits, labels)


def test_a_temperature_must_exist():
    with pytest.raises(ValueError, match="all 3 images are right"):
        evaluation.temperature(np.eye(3), np.arange(3))
    with pytest.raises(ValueError, match=r"logit of the true class is 0 on average, not above .* 0.5"):
        evaluation.temperature(np.eye(2), np.array([1, 0]))
    with pytest.raises(ValueError, match="no temperature helps"):
        evaluation.temperature(np.zeros((2, 3)), np.array([0, 0]))  # all classes tie
    with pytest.raises(ValueError, match="logits of 1 images are NaN or infinite"):
        evaluation.temperature(np.array([[1, np.nan], [0, 1]]), np.array([0, 0]))
    with pytest.raises(ValueError, match=r"smoothing is a share, at least 0 and below 0\.667, not 0\.7"):
        evaluation.temperature(np.eye(3), np.arange(3), smoothing=0.7)
    with pytest.raises(ValueError, match="no temperature helps"):
        evaluation.temperature(np.eye(2), np.array([1, 0]), smoothing=0.1)


@pytest.fixture(scope="module")
def boastful(tensorflow):
    """A classifier of digits that fits five images a class without any penalty, and the task."""
    from sklearn.linear_model import LogisticRegression

    from tlutils import backbones

    task = data.load("digits")
    backbone = backbones.load("pocket_vgg", input_shape=(*task.image_size, task.channels))
    few = task.train.subset(np.concatenate([np.flatnonzero(task.train.labels == i)[:5] for i in range(10)]))
    probe = LogisticRegression(C=1e4, max_iter=1000).fit(features.extract(backbone, few), few.labels)
    model = models.classifier(backbone, 10)
    model.get_layer("output").set_weights([probe.coef_.T, probe.intercept_])
    return model, task


def test_calibration_lowers_the_log_loss_of_held_out_digits_and_changes_no_prediction(boastful, tmp_path):
    import keras

    model, task = boastful
    before, weights = evaluation.evaluate(model, task.test), model.get_weights()
    calibrated = evaluation.calibrate(model, task.val)
    after = evaluation.evaluate(calibrated, task.test)
    assert after.log_loss < before.log_loss - 0.1
    assert after.ece < before.ece
    assert np.array_equal(after.predictions, before.predictions)
    found = 1 / calibrated.get_layer("temperature").scale
    assert found > 1.2
    on_val = evaluation.evaluate(model, task.val)
    assert found == pytest.approx(evaluation.temperature(on_val.outputs, on_val.labels))
    np.testing.assert_allclose(after.outputs, before.outputs / found, rtol=1e-4, atol=1e-4)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), weights, strict=True))
    assert len(model.layers) == len(calibrated.layers) - 1

    calibrated.save(tmp_path / "one.keras")
    loaded = keras.models.load_model(tmp_path / "one.keras", safe_mode=True)
    np.testing.assert_allclose(evaluation.evaluate(loaded, task.test).outputs, after.outputs, atol=1e-4)
    assert models.block_names(loaded) == models.block_names(model)


def test_a_temperature_lowers_the_log_loss_whatever_the_draw_of_labels(boastful):
    """Held-out digits again: five draws of five labels a class, and the five pooled with one temperature."""
    from sklearn.linear_model import LogisticRegression

    from tlutils import backbones

    _, task = boastful
    backbone = backbones.load("pocket_vgg", input_shape=(*task.image_size, task.channels))
    train, val, test = (features.extract(backbone, part) for part in (task.train, task.val, task.test))
    logits = []
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(train))
        few = np.concatenate([order[task.train.labels[order] == i][:5] for i in range(10)])
        probe = LogisticRegression(C=1e4, max_iter=1000).fit(train[few], task.train.labels[few])
        logits.append([probe.decision_function(part) for part in (val, test)])
        on_val, on_test = logits[-1]
        calm = on_test / evaluation.temperature(on_val, task.val.labels)
        assert metrics.log_loss(task.test.labels, softmax(calm)) < metrics.log_loss(task.test.labels, softmax(on_test))
        assert np.array_equal(calm.argmax(axis=1), on_test.argmax(axis=1))
    on_val, on_test = (np.concatenate(parts) for parts in zip(*logits))
    one = evaluation.temperature(on_val, np.tile(task.val.labels, 5))
    before, after = (evaluation.report(on_test / t, np.tile(task.test.labels, 5)) for t in (1, one))
    assert after.log_loss < before.log_loss - 0.05
    assert np.array_equal(after.predictions, before.predictions)


def test_a_calibrated_model_can_be_calibrated_again(boastful):
    model, task = boastful
    half = task.val.subset(np.arange(0, len(task.val), 2))
    once, again = evaluation.calibrate(model, half), evaluation.calibrate(evaluation.calibrate(model, task.val), half)
    assert [layer.name for layer in again.layers] == [layer.name for layer in once.layers]
    assert again.layers[-1].scale == pytest.approx(once.layers[-1].scale)


def test_only_what_can_be_calibrated_is(boastful):
    import keras

    model, task = boastful
    with pytest.raises(ValueError, match=r"these are 8\d\d training images"):
        evaluation.calibrate(model, task.train)
    sure = keras.Sequential([model, keras.layers.Softmax()])
    with pytest.raises(ValueError, match=r"probabilities, not logits .* softmax"):
        evaluation.calibrate(sure, task.val)
    with pytest.raises(ValueError, match="no inputs to build on"):
        evaluation.calibrate(keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10)]), task.val)


# --- degenerate cases -------------------------------------------------------------------------------------------------


def test_a_perfect_model():
    labels = np.arange(40) % 4
    report = evaluation.report(np.eye(4)[labels] * 50, labels)
    assert report.accuracy == report.balanced_accuracy == report.macro_f1 == report.roc_auc == 1
    assert report.interval == (pytest.approx(binomtest(40, 40).proportion_ci(method="wilson").low), 1)
    assert report.bootstrap_interval == (1, 1)  # the bootstrap has seen no mistake and expects none
    assert report.scores["balanced accuracy"]["interval"] is None  # and says nothing elsewhere
    assert report.per_class[0]["f1_interval"][0] < 1 == report.per_class[0]["f1_interval"][1]
    assert report.log_loss == pytest.approx(0, abs=1e-12)
    assert "not defined" not in str(report)


def test_a_single_image():
    right, wrong = (evaluation.report(np.array([[2.0, 0.0, 1.0]]), np.array([label])) for label in (0, 1))
    assert (right.accuracy, wrong.accuracy) == (1, 0)
    assert right.interval == evaluation.wilson(1, 1)
    for report in (right, wrong):
        assert report.roc_auc is report.average_precision is None
        assert report.scores["log-loss"]["interval"] is None
        assert "not defined" in str(report) and "not defined" in report.model_card("one")
        assert report.scores == evaluation.Report.from_json(report.to_json()).scores
        with pytest.raises(ValueError, match="at least 2 images to draw from, not 1"):
            report.bootstrap(lambda r: r.accuracy)
    alone = evaluation.report(np.array([[2.5]]), np.array([2.0]))
    assert (alone.mae, alone.rmse, alone.r2) == (0.5, 0.5, None)
    assert "not defined" in str(alone)


def test_one_class_present():
    logits, _ = made_up(n=30, classes=3)
    report = evaluation.report(logits, np.zeros(30, int), class_names=["ant", "bee", "cat"])
    assert report.roc_auc is report.average_precision is None
    assert [row["roc_auc"] for row in report.per_class] == [None] * 3
    assert report.balanced_accuracy == report.accuracy
    with pytest.raises(ValueError, match="30 of 30 images are of the class 'ant'"):
        report.thresholds("ant")
    assert "ROC area              not defined" in str(report)


@pytest.mark.parametrize(
    ("outputs", "labels", "message"),
    [
        (np.zeros((3, 2)), np.zeros(2, int), "outputs for 3 images, but 2 labels"),
        (np.zeros(3), np.zeros(3, int), r"shape \(images, classes\) .*, not \(3,\) and \(3,\)"),
        (np.zeros((3, 2)), np.zeros((3, 1), int), r"classes shape \(images,\), not \(3, 2\) and \(3, 1\)"),
        (np.zeros((3, 3)), np.eye(3, dtype=int), r"one-hot; give .* labels.argmax\(axis=1\)"),
        (np.zeros((3, 3)), np.eye(3), "one-hot"),
        (np.zeros((3, 1)), np.array([0, 2, 1]), "from 0 to 2, but a single logit is for the classes 0 and 1"),
        (np.zeros((0, 2)), np.zeros(0, int), "no examples"),
        (np.zeros((3, 2)), np.zeros(3), r"outputs of shape \(3, 2\) cannot be compared with numbers of \(3,\)"),
        (np.zeros((3, 1)), np.array([0, np.nan, np.inf]), "2 of 3 true numbers are NaN or infinite"),
    ],
)
def test_what_does_not_fit_is_refused(outputs, labels, message):
    with pytest.raises(ValueError, match=message):
        evaluation.report(outputs, labels)


def test_a_split_must_be_known():
    with pytest.raises(ValueError, match="not 'exam'"):
        evaluation.report(np.zeros((2, 2)), np.array([0, 1]), split="exam")


def test_probabilities_are_not_taken_for_logits():
    logits, labels = made_up(n=30, classes=3)
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)
    examples = data.from_arrays("noise", (images, labels)).train
    with pytest.raises(ValueError, match=r"probabilities, not logits .* from_logits=False"):
        evaluation.evaluate(_Fixed(softmax(logits)), examples)
    found = evaluation.evaluate(_Fixed(softmax(logits)), examples, from_logits=False)
    np.testing.assert_allclose(found.probabilities, softmax(logits), atol=1e-6)
    with pytest.raises(ValueError, match="from_logits=False is for probabilities, and the outputs of image"):
        evaluation.evaluate(_Fixed(logits), examples, from_logits=False)
    certain = evaluation.evaluate(_Fixed(np.eye(3)[labels]), examples, from_logits=False)
    assert np.isfinite(certain.log_loss)
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="NaN or infinity for 30 of 30"):
            evaluation.evaluate(_Fixed(np.full((30, 3), value)), examples, from_logits=False)


@pytest.fixture(scope="module")
def binary(tensorflow):
    """Two classes of gray images, and a model with a single output for each ending: a logit and a sigmoid."""
    import keras

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    images = np.clip(rng.normal(110 + 30 * labels[:, None, None, None], 60, (400, 4, 4, 1)), 0, 255).astype("uint8")
    found = {}
    for ending in ("linear", "sigmoid"):
        dense = keras.layers.Dense(1, activation=ending)
        found[ending] = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), dense])
        dense.set_weights([np.full((16, 1), 0.01), np.array([-20.5])])
    parts = [(images[part], labels[part]) for part in (slice(300), slice(300, 400))]
    examples = data.from_arrays("grays", *parts).val
    return found, examples


def test_a_binary_classifier_with_one_output_is_one_with_two(binary):
    found, examples = binary
    z = found["linear"].predict(examples.images(), verbose=0)[:, 0].astype(float)
    probability = 1 / (1 + np.exp(-z))
    for report in (
        evaluation.evaluate(found["linear"], examples, class_names=["dark", "light"]),
        evaluation.evaluate(found["sigmoid"], examples, class_names=["dark", "light"], from_logits=False),
        evaluation.report(z[:, None], examples.labels == 1, class_names=["dark", "light"]),
    ):
        assert report.accuracy == np.mean((z > 0) == examples.labels)
        assert report.log_loss == pytest.approx(metrics.log_loss(examples.labels, probability), rel=1e-4)
        assert report.roc_auc == pytest.approx(metrics.roc_auc_score(examples.labels, z))
        assert report.class_names == ("dark", "light")
    assert 0.6 < report.accuracy < 1


def test_a_sigmoid_is_not_taken_for_a_logit_nor_a_softmax_that_is_certain(binary):
    import keras

    found, examples = binary
    with pytest.raises(ValueError, match=r"probabilities, not logits \(it ends in a sigmoid\)"):
        evaluation.evaluate(found["sigmoid"], examples)
    with pytest.raises(ValueError, match="from_logits=False is for probabilities"):
        evaluation.evaluate(found["linear"], examples, from_logits=False)
    two = keras.layers.Concatenate()([-3e4 * found["linear"].outputs[0], 3e4 * found["linear"].outputs[0]])
    certain = keras.Model(found["linear"].inputs, keras.layers.Softmax()(two))  # so sure that it says 0 and 1
    assert np.isin(certain.predict(examples.images(), verbose=0), (0, 1)).all()
    with pytest.raises(ValueError, match="it ends in a softmax"):
        evaluation.evaluate(certain, examples)
    with pytest.raises(ValueError, match="there are 1 class names, but 2 classes"):
        evaluation.evaluate(found["linear"], examples, class_names=["light"])
    small = np.full((2, 1), 0.4)  # a logit may lie between 0 and 1 too
    assert evaluation.report(small, np.array([0, 1])).confidence == pytest.approx(1 / (1 + math.exp(-0.4)))


def test_a_binary_classifier_is_calibrated_as_any_other(binary):
    found, examples = binary
    before = evaluation.evaluate(found["linear"], examples)
    after = evaluation.evaluate(evaluation.calibrate(found["linear"], examples), examples)
    assert after.log_loss < before.log_loss
    assert np.array_equal(after.predictions, before.predictions)
    assert np.ptp(after.outputs[:, 0]) == 0


# --- regression -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(80,), (80, 3)])
def test_errors_of_a_regression_are_those_of_scikit_learn(shape):
    rng = np.random.default_rng(1)
    true = rng.normal(size=shape)
    guess = true + 0.3 * rng.normal(size=shape) + 0.1
    report = evaluation.report(guess.reshape(80, -1), true)
    assert report.mae == pytest.approx(metrics.mean_absolute_error(true, guess))
    assert report.rmse == pytest.approx(metrics.mean_squared_error(true, guess) ** 0.5)
    assert report.r2 == pytest.approx(metrics.r2_score(true, guess))
    np.testing.assert_allclose(report.residuals, guess - true)
    low, high = report.scores["root mean squared error"]["interval"]
    assert low < report.rmse < high
    worst = np.abs(guess - true).reshape(80, -1).mean(axis=1)
    assert report.hardest(3).tolist() == np.argsort(-worst)[:3].tolist()
    assert report.scores == evaluation.Report.from_json(report.to_json()).scores


def test_nothing_to_explain_is_no_share_of_it():
    assert evaluation.report(np.array([[1.0], [2.0]]), np.array([1.0, 1.0])).r2 is None
    for use in (
        lambda r: r.top_k(1),
        lambda r: r.reliability(),
        lambda r: r.most_confused(),
        lambda r: r.areas,
        lambda r: r.thresholds(0),
    ):
        with pytest.raises(ValueError, match="for classifiers"):
            use(evaluation.report(np.array([[1.0], [2.0]]), np.array([1.0, 1.5])))


# --- tables, files, cards ---------------------------------------------------------------------------------------------


def test_a_report_is_a_table_in_a_terminal_and_in_a_notebook():
    import xml.etree.ElementTree as ET

    logits, labels = made_up(classes=3)
    report = evaluation.report(logits, labels, class_names=["ant", "<bee>", "c & d"])
    text = str(report)
    assert max(map(len, text.splitlines())) <= 66
    tables = ET.fromstring(f"<div>{report._repr_html_()}</div>").findall("table")
    scores = {row[0].text: (row[1].text, row[2].text) for row in tables[0].find("tbody")}
    for name, score in report.scores.items():
        assert scores[name][0] == f"{score['value']:.3f}"
        if score["interval"]:
            assert scores[name][1] == "{:.3f} to {:.3f}".format(*score["interval"])
        (line,) = (line for line in text.splitlines() if line.startswith(name + "  "))
        assert scores[name][0] in line and scores[name][1] in line
    rows = [[cell.text for cell in row] for row in tables[1].find("tbody")]
    assert [row[0] for row in rows] == ["ant", "<bee>", "c & d"]
    for cells, row in zip(rows, report.per_class, strict=True):
        assert cells[1] == str(row["support"])
        assert cells[2] == "{:.3f} {:.2f}–{:.2f}".format(row["precision"], *row["precision_interval"])
        assert cells[4] == "{:.3f} {:.2f}–{:.2f}".format(row["f1"], *row["f1_interval"])
    assert repr(report) == f"Report(accuracy {report.accuracy:.3f} on 400 images)"


def test_of_many_classes_the_worst_are_listed():
    logits, labels = made_up(n=900, classes=50)
    report = evaluation.report(logits, labels)
    table = str(report).split("\n\n")[2].splitlines()
    assert len(table) == 32 and "30 classes of 50 with the lowest F1" in table[-1]
    worst = sorted(report.per_class, key=lambda row: row["f1"])[:30]
    assert [line.split()[0] for line in table[1:-1]] == [row["name"] for row in worst]


def test_a_report_comes_back_from_its_file(tmp_path):
    logits, labels = made_up(n=60)
    report = evaluation.report(logits.astype("float32"), labels, class_names=NAMES, split="val")
    text = report.to_json(tmp_path / "report.json")
    content = json.loads(text)
    assert content["scores"]["accuracy"]["value"] == report.accuracy
    assert content["measured_on"].startswith("60 validation images (not a test")
    for back in (evaluation.Report.from_json(text), evaluation.Report.from_json(tmp_path / "report.json")):
        assert np.array_equal(back.outputs, report.outputs) and np.array_equal(back.labels, report.labels)
        assert (back.class_names, back.split, back.scores) == (NAMES, "val", report.scores)
        assert evaluation.compare(back, report).only_a == 0
    for other, found in (('{"format": "x"}', "'x'"), ("[1]", "'list'")):
        with pytest.raises(ValueError, match=f"not a report: its format is {found}"):
            evaluation.Report.from_json(other)
    with pytest.raises(ValueError, match=r"'report\.json' is no JSON; of a file, give its Path"):
        evaluation.Report.from_json("report.json")


def test_names_that_are_numbers_are_written_too():
    logits, labels = made_up(n=20, classes=3)
    report = evaluation.report(logits, labels.astype("uint8"), class_names=np.array([10, 20, 30]))
    back = evaluation.Report.from_json(report.to_json())
    assert back.class_names == report.class_names == ("10", "20", "30")
    assert back.per_class == report.per_class


def cards(split, **what):
    logits, labels = made_up(n=60, classes=3)
    report = evaluation.report(logits, labels, class_names=["ant", "bee|wasp", "cat"], split=split)
    return report, report.model_card("Insects", **what)


def test_a_model_card_calls_validation_data_by_its_name():
    for split, sentence in (
        ("val", "**Validation data, not a test.**"),
        ("train", "**These are the images the model was trained on."),
    ):
        _, text = cards(split)
        assert sentence in text and "There is no test result here" in text
    _, text = cards("test")
    assert "alidation" not in text and "no test result" not in text


def test_a_model_card_says_what_was_measured_and_what_was_not(boastful):
    from tlutils import backbones

    _, task = boastful
    backbone = backbones.load("pocket_vgg")
    runs = evaluation.repeated(range(3), np.random.default_rng(0).random((3, 50)) < 0.8)
    more = {"backbone": backbone, "task": task, "training": "a probe.", "limits": ["Not for hospitals."]}
    report, text = cards("test", repeated=runs, **more)
    assert f"| accuracy | {report.accuracy:.3f} | {report.interval[0]:.3f} to {report.interval[1]:.3f} |" in text
    assert f"Expected calibration error {report.ece:.3f} (15 bins of equal width)" in text
    for words in (backbone.licence, backbone.source_task, "digits: 10 classes", "Not for hospitals.", str(runs)):
        assert words in text
    assert "bee\\|wasp" in text
    assert "One training run" not in text
    few = sum(row["support"] < 30 for row in report.per_class)
    assert f"{few} of 3 classes were measured on fewer than 30 images" in text
    _, bare = cards(None)
    assert "not stated" in bare and "One training run" in bare and "no test result" not in bare
    regression = evaluation.report(np.array([[1.0], [2.5]]), np.array([1.0, 2.0]), split="test")
    assert "| R² | 0.5 |" in regression.model_card("age")


def test_a_model_card_says_whether_the_calibration_is_more_than_chance():
    labels = np.zeros(1000, int)
    labels[:300] = 1
    honest = np.tile([math.log(0.7), math.log(0.3)], (1000, 1))
    assert "no more than chance explains" in evaluation.report(honest, labels).model_card("honest")
    boast = evaluation.report(honest + np.array([3.0, 0.0]), labels).model_card("boast")
    assert "surer than it is right (mean confidence 0.979, accuracy 0.700)" in boast


# --- the bootstrap ----------------------------------------------------------------------------------------------------


def test_the_bootstrap_of_a_share_and_of_a_mean_are_those_of_scipy():
    from scipy.stats import bootstrap

    rng = np.random.default_rng(0)
    right, values = np.arange(200) < 170, rng.exponential(size=300)
    options = {"method": "percentile", "n_resamples": 20_000, "random_state": 1}
    theirs = bootstrap((right,), np.mean, **options).confidence_interval
    assert evaluation.bootstrap_share(170, 200) == pytest.approx(tuple(theirs), abs=0.006)
    theirs = bootstrap((values,), np.mean, **options).confidence_interval
    assert evaluation.bootstrap_mean(values) == pytest.approx(tuple(theirs), abs=0.01)


def test_the_bootstrap_of_any_score_draws_images():
    logits, labels = made_up(n=200)
    report = evaluation.report(logits, labels)
    found = report.bootstrap(lambda r: r.accuracy)
    assert found == pytest.approx(report.bootstrap_interval, abs=0.011)

    def recall(r):
        return metrics.recall_score(r.labels, r.predictions, average="macro", labels=range(5))

    percentiles, same = (report.bootstrap(score, samples=600) for score in (recall, lambda r: r.balanced_accuracy))
    assert percentiles == pytest.approx(same)
    assert report.scores["balanced accuracy"]["interval"] == pytest.approx(same, abs=0.02)
    low, high = report.bootstrap(lambda r: r.macro_f1, samples=600)
    reflected = 2 * report.macro_f1 - high, 2 * report.macro_f1 - low  # the basic interval
    assert report.scores["macro F1"]["interval"] == pytest.approx(reflected, abs=0.02)
    assert report.bootstrap(lambda r: 1.0, samples=50) is None
    with pytest.raises(ValueError, match="score of a bootstrap sample is nan"):
        report.bootstrap(lambda r: np.nan, samples=10)


def test_images_of_one_group_are_drawn_together():
    logits, labels = made_up(n=60)
    copies, one = (
        evaluation.report(np.repeat(logits, 9, axis=0), np.repeat(labels, 9)),
        evaluation.report(logits, labels),
    )
    groups = np.repeat(np.arange(60), 9)
    whole, alone = copies.bootstrap(lambda r: r.accuracy, groups=groups), one.bootstrap(lambda r: r.accuracy)
    assert whole == pytest.approx(alone)
    narrow = copies.bootstrap(lambda r: r.accuracy)
    assert (whole[1] - whole[0]) / (narrow[1] - narrow[0]) == pytest.approx(3, rel=0.1)
    with pytest.raises(ValueError, match=r"one id an image, shape \(60,\), not shape \(540,\)"):
        one.bootstrap(lambda r: r.accuracy, groups=groups)
    with pytest.raises(ValueError, match="at least 2 groups to draw from, not 1"):
        one.bootstrap(lambda r: r.accuracy, groups=np.zeros(60))


@pytest.mark.parametrize(("writers", "least", "most"), [(40, 0.9, 0.99), (5, 0.75, 0.9)])
def test_whole_groups_cover_what_single_images_do_not_and_few_groups_do_not_either(writers, least, most):
    """Writers are read with different accuracies, .8 on average; the truth is that of new writers."""
    rng, groups, covered = np.random.default_rng(0), np.repeat(np.arange(writers), 20), np.zeros(2)
    for seed in range(200):
        right = rng.random(len(groups)) < np.repeat(rng.beta(4, 1, writers), 20)
        report = guess(np.arange(len(groups)) % 2, right)
        for i, which in enumerate((groups, None)):
            low, high = report.bootstrap(lambda r: r.accuracy, groups=which, samples=150, seed=seed)
            covered[i] += low <= 0.8 <= high
    assert least <= covered[0] / 200 <= most
    assert covered[1] / 200 < 0.75


# --- what 95% promises ------------------------------------------------------------------------------------------------

LEVELS = (0.1, 0.25, 0.5, 0.8, 0.9, 0.95)


@pytest.mark.parametrize("n", [500, 797, 2000])
@pytest.mark.parametrize("kind", [evaluation.wilson, evaluation.bootstrap_share])
def test_intervals_of_an_accuracy_cover_it(kind, n):
    """Simulated: new test images are drawn again and again, and the interval of each draw is looked at."""
    rng = np.random.default_rng(0)
    for p in LEVELS:
        right, often = np.unique(rng.binomial(n, p, 20_000), return_counts=True)
        low, high = np.array([kind(int(k), n) for k in right]).T
        assert 0.93 <= often[(low <= p) & (p <= high)].sum() / 20_000 <= 0.97


def test_intervals_of_an_accuracy_cover_it_at_every_level_in_between():
    """Not simulated: the probabilities of all numbers of right answers, added up, for 171 levels."""
    n = 500
    for kind in (evaluation.wilson, evaluation.bootstrap_share):
        low, high = np.array([kind(k, n) for k in range(n + 1)]).T
        levels = np.linspace(0.1, 0.95, 171)[:, None]
        covered = np.where((low <= levels) & (levels <= high), binom.pmf(np.arange(n + 1), n, levels), 0).sum(axis=1)
        assert covered.min() > 0.93 and covered.max() < 0.97


def test_near_one_the_bootstrap_fails_and_wilson_does_not():
    n, p = 500, 0.998
    share = {}
    for kind in (evaluation.wilson, evaluation.bootstrap_share):
        covered = [binom.pmf(k, n, p) for k in range(480, n + 1) if kind(k, n)[0] <= p <= kind(k, n)[1]]
        share[kind.__name__] = sum(covered)
    assert share["bootstrap_share"] < 0.7
    assert share["wilson"] > 0.9


@pytest.mark.parametrize("n", [500, 797])
@pytest.mark.parametrize(
    ("level", "gain", "only_b"),
    [
        (0.1, 0.02, 0.045),
        (0.25, 0.0, 0.01),
        (0.5, 0.0, 0.125),
        (0.8, 0.05, 0.08),
        (0.9, 0.0, 0.045),
        (0.95, 0.01, 0.006),
    ],
)
def test_the_paired_interval_covers_the_difference(n, level, gain, only_b):
    """Models of accuracy ``level`` and ``level − gain``: some strangers, some that agree on 98% of the images."""
    rng = np.random.default_rng(2)
    only_a = only_b + gain
    draws = rng.multinomial(n, [only_a, only_b, level - only_a, 1 - level - only_b], 2500)
    kinds, often = np.unique(draws[:, :2], axis=0, return_counts=True)
    covered = 0
    for i, ((a, b), times) in enumerate(zip(kinds.tolist(), often)):
        low, high = evaluation.compare(*pair(0, a, b, n - a - b), samples=1000, seed=i).interval
        covered += times * (low - 1e-12 <= gain <= high + 1e-12)
    assert 0.93 <= covered / len(draws) <= 0.97


def test_the_interval_of_f1_covers_it():
    """Images of the class, named so or not, and others named so: F1 is 2·.5/(2·.5 + .1 + .15)."""
    rng = np.random.default_rng(0)
    truth, covered = 1 / 1.25, 0
    draws = rng.multinomial(500, [0.5, 0.1, 0.15, 0.25], 1500)
    for both, missed, false, _ in draws.tolist():
        low, high = evaluation.f1_interval(both, both + missed + false)
        covered += low <= truth <= high
    assert 0.93 <= covered / len(draws) <= 0.97
    assert evaluation.f1_interval(0, 0) == (0, 1)


def test_the_intervals_of_the_means_over_classes_cover_them_with_many_classes_and_few_images():
    """5 images a class: for the mean F1 the percentiles would cover a little more than one time out of two."""
    from tlutils.intervals import bootstrap_classes, percentiles, reflected

    rng, classes = np.random.default_rng(0), 50
    cells = np.full((classes, classes), 0.3 / (classes - 1) / classes)
    np.fill_diagonal(cells, 0.7 / classes)
    covered = np.zeros(3)
    for seed in range(120):
        counts = rng.multinomial(250, cells.ravel()).reshape(classes, classes)
        labels, predicted = np.repeat(np.indices(counts.shape).reshape(2, -1), counts.ravel(), axis=1)
        right, images, named = bootstrap_classes(labels, predicted, classes, samples=200, seed=seed)
        assert (images.sum(axis=1) == 250).all() and (named.sum(axis=1) == 250).all() and (right <= images).all()
        with np.errstate(invalid="ignore"):
            recall, f1 = np.nanmean(right / images, axis=1), np.nanmean(2 * right / (images + named), axis=1)
        value = metrics.f1_score(labels, predicted, average="macro")
        ends = percentiles(recall), reflected(value, f1), percentiles(f1)
        covered += [low <= 0.7 <= high for low, high in ends]
    assert covered[0] / 120 > 0.88 and covered[1] / 120 > 0.88
    assert covered[2] / 120 < 0.75  # why the mean F1 is given the other one


# --- one proportion ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "n"), [(0, 10), (7, 10), (10, 10), (146, 153), (1, 1), (400, 797)])
def test_wilson_interval_is_the_closed_form(k, n):
    z, p = 1.959963984540054, k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert evaluation.wilson(k, n) == pytest.approx((centre - half, centre + half), abs=1e-9)


@pytest.mark.parametrize(("k", "n"), [(0, 0), (5, 3), (-1, 4)])
def test_a_share_must_be_one(k, n):
    for interval in (evaluation.wilson, evaluation.bootstrap_share):
        with pytest.raises(ValueError, match=f"at least 1 trial .*, not {k} of {n}"):
            interval(k, n)


@pytest.mark.parametrize("values", [[], [1, np.nan], [[1, 2]]])
def test_a_mean_needs_one_number_an_image(values):
    with pytest.raises(ValueError, match="one finite number an image"):
        evaluation.bootstrap_mean(values)


def test_wilson_interval_with_another_confidence_is_wider():
    low, high = evaluation.wilson(80, 100, confidence=0.99)
    z = 2.5758293035489004
    assert high - low == pytest.approx(2 * z / (1 + z * z / 100) * math.sqrt(0.16 / 100 + z * z / 40000), abs=1e-9)


@pytest.mark.parametrize("p", [0.5, 0.9])
def test_wilson_interval_covers(p):
    k = np.arange(154)
    covered = np.array([low <= p <= high for low, high in (evaluation.wilson(int(i), 153) for i in k)])
    assert 0.93 < binom.pmf(k, 153, p)[covered].sum() < 0.97


# --- two models on the same images ------------------------------------------------------------------------------------


def guess(labels, right, split=None):
    """A report that is right where ``right`` says so."""
    predicted = np.where(right, labels, 1 - labels)
    return evaluation.report(np.eye(2)[predicted] * 3.0, labels, split=split)


def pair(both, only_a, only_b, neither):
    labels = np.arange(both + only_a + only_b + neither) % 2
    a = np.repeat([1, 1, 0, 0], [both, only_a, only_b, neither]).astype(bool)
    b = np.repeat([1, 0, 1, 0], [both, only_a, only_b, neither]).astype(bool)
    return guess(labels, a), guess(labels, b)


@pytest.mark.parametrize(("only_a", "only_b"), [(8, 2), (2, 8), (5, 5), (1, 0), (12, 3)])
def test_mcnemar_is_the_exact_sign_test_of_the_pairs_that_differ(only_a, only_b):
    found = evaluation.compare(*pair(60, only_a, only_b, 20))
    n, k = only_a + only_b, min(only_a, only_b)
    by_hand = min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)
    assert (found.only_a, found.only_b) == (only_a, only_b)
    assert found.p_value == pytest.approx(by_hand)
    assert found.difference == pytest.approx((only_a - only_b) / (80 + n))
    assert f"p = {found.p_value:.3g}" in str(found)


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("val", "validation images"),
        ("train", "training images"),
        ("test", "test images"),
        (None, "the choice of images"),
    ],
)
def test_a_comparison_says_which_images_it_was_made_on(split, words):
    logits, labels = made_up(n=40)
    one, other = (evaluation.report(part, labels, split=split) for part in (logits, -logits))
    found = evaluation.compare(one, other)
    low, high = found.interval
    lines = str(found).splitlines()
    assert lines[:2] == [
        f"difference {found.difference:+.3f}",
        f"95% interval {low:+.3f} to {high:+.3f} (over {words})",
    ]
    assert max(map(len, lines)) <= 66


def test_models_that_agree_do_not_differ_as_far_as_so_many_images_can_tell():
    found = evaluation.compare(*pair(50, 0, 0, 10))
    low, high = found.interval
    assert (found.difference, found.p_value) == (0.0, 1.0)
    assert low == -high
    assert binom.pmf(0, 60, high) == pytest.approx(0.025)  # were one better on so many, 60 images would rarely hide it


def test_models_that_differ_everywhere_may_still_agree_on_what_was_not_seen():
    for counts, sign in (((0, 40, 0, 0), 1), ((0, 0, 40, 0), -1)):
        found = evaluation.compare(*pair(*counts))
        assert found.difference == sign
        inner, outer = sorted(found.interval, key=abs)
        assert outer == sign
        # At worst the unseen images go the other way, and each of them costs two.
        assert binom.pmf(0, 40, (1 - abs(inner)) / 2) == pytest.approx(0.025)


def test_the_interval_is_that_of_drawing_images_with_replacement():
    a, b = pair(60, 14, 6, 20)
    found = evaluation.compare(a, b)
    gain = (a.predictions == a.labels).astype(int) - (b.predictions == b.labels)
    rng = np.random.default_rng(11)
    means = gain[rng.integers(0, len(gain), (20_000, len(gain)))].mean(axis=1)
    assert found.interval == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.011)
    assert evaluation.compare(a, b) == found


def test_the_interval_of_a_difference_covers_it():
    rng = np.random.default_rng(5)
    covered, rounds, n = 0, 400, 200
    for i in range(rounds):
        kind = rng.choice(4, size=n, p=[0.75, 0.10, 0.04, 0.11])  # the true difference is .06
        labels = np.arange(n) % 2
        a, b = guess(labels, (kind == 0) | (kind == 1)), guess(labels, (kind == 0) | (kind == 2))
        low, high = evaluation.compare(a, b, samples=1000, seed=i).interval
        covered += low <= 0.06 <= high
    assert covered / rounds > 0.91


def test_a_regression_has_no_right_answers_to_count():
    labels = np.array([1.0, 2.0, 3.0], "float32")
    regression = evaluation.report(labels[:, None] + 0.5, labels)
    for name, use in {
        "compare": lambda: evaluation.compare(regression, regression),
        "repeat": lambda: evaluation.repeat(lambda seed: regression, [0, 1]),
        "pack": lambda: evaluation.pack(regression),
    }.items():
        with pytest.raises(ValueError, match=f"{name} is for classifiers"):
            use()


def test_reports_on_other_examples_cannot_be_compared():
    a, b = pair(10, 3, 2, 5)
    other = evaluation.report(np.eye(2)[b.predictions], 1 - b.labels)
    with pytest.raises(ValueError, match="same examples in the same order"):
        evaluation.compare(a, other)


# --- several seeds ----------------------------------------------------------------------------------------------------


def test_the_interval_over_seeds_and_images_is_the_analysis_of_variance_typed_out():
    scores = np.random.default_rng(2).random((4, 6)) + np.arange(4)[:, None] + 0.5 * np.arange(6)
    found = evaluation.repeated(range(4), scores)
    grand = scores.mean()
    ms_seed = sum(6 * (row.mean() - grand) ** 2 for row in scores) / 3
    ms_image = sum(4 * (column.mean() - grand) ** 2 for column in scores.T) / 5
    ms_rest = (
        sum((scores[i, j] - scores[i].mean() - scores[:, j].mean() + grand) ** 2 for i in range(4) for j in range(6))
        / 15
    )
    variance = (ms_seed + ms_image - ms_rest) / 24
    degrees = (24 * variance) ** 2 / (ms_seed**2 / 3 + ms_image**2 / 5 + ms_rest**2 / 15)
    from scipy.stats import t

    half = t.ppf(0.975, degrees) * math.sqrt(variance)
    assert ms_seed > ms_rest < ms_image  # no estimate is cut off at zero here
    assert found.mean == pytest.approx(grand)
    assert found.interval == pytest.approx((grand - half, grand + half))
    assert found.accuracies == pytest.approx(tuple(scores.mean(axis=1)))


def simulate(rng, seeds, images, by_seed, by_image, level=0.0):
    """Right or wrong for each seed and image; probability from crossed random effects on the log-odds."""
    odds = level + rng.normal(0, by_seed, (seeds, 1)) + rng.normal(0, by_image, (1, images))
    return rng.random((seeds, images)) < 1 / (1 + np.exp(-odds))


def expected_accuracy(by_seed, by_image, level):
    """What the mean estimates: the probability of being right, over both effects."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    spread = math.hypot(by_seed, by_image)
    return float((weights / (1 + np.exp(-(level + spread * nodes)))).sum() / weights.sum())


@pytest.mark.parametrize(
    ("seeds", "by_seed", "by_image"), [(5, 0.5, 2.0), (10, 0.5, 2.0), (5, 1.0, 0.2), (10, 0.0, 2.0), (5, 0.0, 0.0)]
)
def test_the_interval_over_seeds_and_images_covers(seeds, by_seed, by_image):
    """Seeds are few, and seeds and images are both drawn anew: 95% is promised, at least 90% is asked for."""
    rng = np.random.default_rng(3)
    truth, rounds = expected_accuracy(by_seed, by_image, 1.0), 400
    covered = 0
    for _ in range(rounds):
        correct = simulate(rng, seeds, 200, by_seed, by_image, 1.0)
        low, high = evaluation.repeated(range(seeds), correct).interval
        covered += low <= truth <= high
    assert covered / rounds >= 0.9


def test_an_interval_over_images_alone_would_not_cover():
    """What the simulation above would say of an interval that forgets the seeds."""
    rng = np.random.default_rng(3)
    truth, covered = expected_accuracy(1.0, 0.2, 1.0), 0
    for _ in range(200):
        correct = simulate(rng, 5, 200, 1.0, 0.2, 1.0)
        low, high = evaluation.wilson(int(correct.sum()), correct.size)
        covered += low <= truth <= high
    assert covered / 200 < 0.5


def test_the_paired_difference_covers_and_is_narrower_than_an_unpaired_one():
    rng = np.random.default_rng(8)
    covered, widths, rounds = 0, [], 300
    truth = expected_accuracy(0.4, 2.0, 1.3) - expected_accuracy(0.4, 2.0, 1.0)
    for _ in range(rounds):
        odds = rng.normal(0, 0.4, (6, 1)) + rng.normal(0, 2.0, (1, 200))  # both methods see the same
        a, b = (
            evaluation.repeated(range(6), rng.random((6, 200)) < 1 / (1 + np.exp(-(odds + level))))
            for level in (1.3, 1.0)
        )
        low, high = (a - b).interval
        assert (a - b).mean == pytest.approx(a.mean - b.mean)
        covered += low <= truth <= high
        widths.append((high - low, (a.interval[1] - a.interval[0]) + (b.interval[1] - b.interval[0])))
    assert covered / rounds >= 0.9
    paired, separate = np.mean(widths, axis=0)
    assert paired < 0.6 * separate


def test_more_confidence_is_a_wider_interval():
    correct = simulate(np.random.default_rng(0), 5, 100, 0.5, 1.0)
    usual = evaluation.repeated(range(5), correct).interval
    wide = evaluation.repeated(range(5), correct, confidence=1 - 0.05 / 3).interval
    assert wide[0] < usual[0] < usual[1] < wide[1]


@pytest.mark.parametrize("confidence", [0.95, 0.99])
def test_where_nothing_varies_the_interval_is_what_so_many_images_can_exclude(confidence):
    """The exact limit of Clopper and Pearson for 20 of 20, which no number of seeds makes narrower."""
    right, wrong = np.ones((3, 20), bool), np.zeros((3, 20), bool)
    limit = binomtest(20, 20).proportion_ci(confidence, method="exact").low
    all_right = evaluation.repeated(range(3), right, confidence=confidence)
    all_wrong = evaluation.repeated(range(3), wrong, confidence=confidence)
    assert (all_right.mean, all_right.interval) == (1.0, (pytest.approx(limit), 1.0))
    assert (all_wrong.mean, all_wrong.interval) == (0.0, (0.0, pytest.approx(1 - limit)))
    assert (all_right - all_right).interval == (pytest.approx(limit - 1), pytest.approx(1 - limit))
    assert (all_right - all_wrong).interval == (pytest.approx(2 * limit - 1), 1.0)


def test_an_interval_ends_where_the_scale_ends():
    right = np.ones((3, 20), bool)
    right[0, :3] = False
    most, few = evaluation.repeated(range(3), right), evaluation.repeated(range(3), ~right)
    unlimited = evaluation.repeated(range(3), 5.0 * right)  # the same five times as large: a scale of its own
    below = unlimited.mean - unlimited.interval[0]
    assert most.mean + below / 5 > 1 == most.interval[1]
    assert most.interval[0] == pytest.approx(most.mean - below / 5)  # the other end is where it was
    assert few.interval == (0, pytest.approx(1 - most.interval[0]))
    assert (most - few).interval[1] == 1 and (few - most).interval[0] == -1


@pytest.mark.parametrize("shape", [(1, 50), (5, 1), (5,)])
def test_one_seed_or_one_image_says_nothing_about_the_next(shape):
    with pytest.raises(ValueError, match=r"at least 2 seeds and 2 images"):
        evaluation.repeated(range(shape[0]), np.ones(shape))


def test_seeds_must_be_as_many_as_rows():
    with pytest.raises(ValueError, match="3 seeds, but 2 rows"):
        evaluation.repeated(range(3), np.ones((2, 10)))


def test_scores_that_are_no_numbers_have_no_mean():
    with pytest.raises(ValueError, match="1 of 6 scores are NaN or infinite"):
        evaluation.repeated(range(2), np.array([[1, 0, 1], [0.5, np.nan, 1]]))


def test_repeat_runs_each_seed_once_on_the_same_images():
    labels = np.arange(40) % 2
    called = []

    def run(seed):
        called.append(seed)
        return guess(labels, np.random.default_rng(seed).random(40) < 0.8, split="val")

    found = evaluation.repeat(run, iter([3, 5, 7]))
    assert called == [3, 5, 7] == list(found.seeds)
    assert found.correct.shape == (3, 40)
    assert found.mean == pytest.approx(np.mean([run(seed).accuracy for seed in (3, 5, 7)]))
    assert found.covers == (found - found).covers == "3 seeds and 40 validation images"
    low, high = found.interval
    assert str(found) == f"{found.mean:.3f}, {low:.3f} to {high:.3f} (95% over 3 seeds and 40 validation images)"
    same = evaluation.repeated(found.seeds, found.correct)
    assert same.interval == found.interval
    assert same.covers == "3 seeds and 40 test images"


def test_repeat_needs_two_seeds_and_one_set_of_images():
    labels = np.arange(10) % 2
    with pytest.raises(ValueError, match="at least 2 seeds, not 1"):
        evaluation.repeat(lambda seed: guess(labels, labels == 0), [0])
    with pytest.raises(ValueError, match="same examples in the same order"):
        evaluation.repeat(lambda seed: guess((labels + seed) % 2, labels == 0), [0, 1])


def test_only_the_same_seeds_on_the_same_images_are_paired():
    one = evaluation.repeated((0, 1), np.eye(2, 9))
    for other in (evaluation.repeated((0, 2), np.eye(2, 9)), evaluation.repeated((0, 1), np.eye(2, 8))):
        with pytest.raises(ValueError, match="same seeds on the same test images"):
            one - other


# --- stored rows ------------------------------------------------------------------------------------------------------


def rows_of(rng, methods=("svm", "probe"), budgets=(1, 10), seeds=4, images=13):
    labels = rng.integers(0, 2, images)
    rows, truth = [], {}
    for method in methods:
        for budget in budgets:
            right = rng.random((seeds, images)) < 0.7
            truth[method, budget] = right
            for seed in reversed(range(seeds)):  # the order in a file is of no matter
                report = guess(labels, right[seed])
                rows.append(
                    {
                        "method": method,
                        "labels_per_class": budget,
                        "seed": seed,
                        "images": images,
                        "accuracy": report.accuracy,
                        "correct": evaluation.pack(report),
                    }
                )
    return json.loads(json.dumps(rows)), truth


def test_what_was_packed_is_read_back_image_by_image():
    rows, truth = rows_of(np.random.default_rng(0))
    for (method, budget), right in truth.items():
        found = evaluation.from_rows(rows, method=method, labels_per_class=budget)
        assert np.array_equal(found.correct, right)
        assert found.seeds == (0, 1, 2, 3)
        assert found.interval == evaluation.repeated(range(4), right).interval
    wide = evaluation.from_rows(rows, confidence=0.99, method="svm", labels_per_class=1).interval
    assert wide == evaluation.repeated(range(4), truth["svm", 1], confidence=0.99).interval


def test_rows_of_two_methods_give_their_paired_difference():
    rows, truth = rows_of(np.random.default_rng(1))
    a, b = (evaluation.from_rows(rows, method=method, labels_per_class=10) for method in ("probe", "svm"))
    gain = truth["probe", 10].astype(float) - truth["svm", 10]
    assert (a - b).interval == evaluation.repeated(range(4), gain).interval


def test_rows_must_name_each_seed_once():
    rows, _ = rows_of(np.random.default_rng(2))
    with pytest.raises(ValueError, match=r"selects the seeds \[\]"):
        evaluation.from_rows(rows, method="magic")
    with pytest.raises(ValueError, match=r"\[0, 0, 1, 1"):
        evaluation.from_rows(rows, method="probe")
    with pytest.raises(ValueError, match=r"\[3\]"):
        evaluation.from_rows(rows[:1], method="svm", labels_per_class=1)


def test_a_summary_has_one_line_a_group():
    rows, truth = rows_of(np.random.default_rng(3))
    summary = evaluation.summarise(rows, ("method", "labels_per_class"))
    assert [(row["method"], row["labels_per_class"]) for row in summary] == list(truth)
    for row in summary:
        right = truth[row["method"], row["labels_per_class"]]
        assert row["mean"] == pytest.approx(right.mean())
        assert (row["low"], row["high"]) == evaluation.repeated(range(4), right).interval
        assert row["seeds"] == 4


def test_every_function_of_the_module_is_among_its_public_names():
    import inspect

    found = {name for name, each in vars(evaluation).items() if inspect.isfunction(each) or inspect.isclass(each)}
    public = {name for name in found if not name.startswith("_")} - {"dataclass", "field"}
    assert public == set(evaluation.__all__) - {"CONFIDENCE", "TRANSFERABILITY_METHODS"}


def test_importing_this_module_does_not_load_tensorflow():
    import subprocess
    import sys

    code = (
        "import sys, tlutils.evaluation, tlutils.plots; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_interval_over_seeds_is_that_of_the_t_test():
    from scipy.stats import ttest_1samp

    values = np.random.default_rng(0).normal(3, 2, 7)
    interval = ttest_1samp(values, 0).confidence_interval(0.99)
    assert evaluation.over_seeds(values, 0.99) == pytest.approx((values.mean(), interval.low, interval.high))
    assert evaluation.over_seeds([2.0, 2.0, 2.0]) == (2, 2, 2)
    with pytest.raises(ValueError, match="at least 2 numbers"):
        evaluation.over_seeds([1.0])


def differences(seed):
    """A small difference of two made-up methods, over five seeds and eighty images."""
    rng = np.random.default_rng(seed)
    one, other = (simulate(rng, 5, 80, 0.3, 1.0, level) for level in (0.2, 0.0))
    return one.astype(float) - other


@pytest.mark.parametrize("seed", range(4))
def test_a_p_value_is_the_confidence_at_which_the_interval_ends_at_zero(seed):
    gain = differences(seed)
    p = evaluation.repeated(range(5), gain).p_value
    assert 0 < p < 1
    ends = evaluation.repeated(range(5), gain, confidence=1 - p).interval
    assert min(np.abs(ends)) == pytest.approx(0, abs=1e-9)


def test_where_only_seeds_differ_the_p_value_is_that_of_the_t_test():
    from scipy.stats import ttest_1samp

    by_seed = np.array([0.1, 0.3, -0.1, 0.2, 0.2])
    found = evaluation.repeated(range(5), np.repeat(by_seed[:, None], 40, axis=1))
    assert found.p_value == pytest.approx(ttest_1samp(by_seed, 0).pvalue)


def test_a_p_value_is_rarely_small_where_nothing_differs():
    rng = np.random.default_rng(1)
    found = []
    for _ in range(1000):
        one, other = (simulate(rng, 5, 100, 0.4, 1.0) for _ in range(2))
        found.append(evaluation.repeated(range(5), one.astype(float) - other).p_value)
    assert 0.03 < np.mean(np.array(found) < 0.05) < 0.07
    assert np.mean(np.array(found) < 0.5) > 0.4  # and they are not all large


def test_the_p_value_of_a_difference_without_any_variance():
    nothing = evaluation.repeated(range(3), np.zeros((3, 20)))
    everything = evaluation.repeated(range(3), np.ones((3, 20)))
    assert nothing.p_value == 1
    assert everything.p_value == pytest.approx(binomtest(20, 20).pvalue)  # the sign test
    ends = evaluation.repeated(range(3), np.ones((3, 20)), confidence=1 - everything.p_value).interval
    assert ends == (pytest.approx(0), 1)
    assert evaluation.repeated(range(3), np.ones((3, 20), bool)).p_value is None  # no difference, nothing to test
    a, b = (evaluation.repeated(range(3), np.full((3, 20), value)) for value in (True, False))
    assert (a - b).p_value == everything.p_value


def test_holms_adjusted_p_values_are_those_of_testing_every_set_of_hypotheses():
    """The closed procedure behind it: the largest, over all sets that hold it, of Bonferroni's p-value of the set."""
    from itertools import combinations

    p = np.random.default_rng(0).random(6) ** 3
    p[4] = p[1]
    sets = [list(s) for size in range(1, 7) for s in combinations(range(6), size)]
    closed = [max(min(1, len(s) * p[s].min()) for s in sets if i in s) for i in range(6)]
    assert evaluation.holm(p) == pytest.approx(closed)
    assert (evaluation.holm(p) <= np.minimum(6 * p, 1) + 1e-12).all()
    assert evaluation.holm([0.02]) == pytest.approx([0.02])
    assert evaluation.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize("wrong", [[0.5, 1.2], [-0.1], [np.nan], [[0.1, 0.2]], 0.3])
def test_what_is_no_row_of_p_values_is_refused(wrong):
    with pytest.raises(ValueError, match="a row of numbers from 0 to 1"):
        evaluation.holm(wrong)
