"""Evaluation against scikit-learn, closed forms typed out here, and simulations of what an interval promises."""

import json
import math
from collections import Counter

import numpy as np
import pytest
from scipy.stats import binom, binomtest
from sklearn import metrics

from tlutils import data, evaluation


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
    assert f"on 50 images\n95% interval {low:.3f} to {high:.3f} (over test images)" in text
    assert "ants" in text
    assert "bees" in text


def test_a_regression_has_an_error_and_no_accuracy():
    report = evaluation.report(np.array([[1.0], [2.0], [4.0]]), np.array([1.5, 2.0, 2.0], "float32"))
    assert report.mae == pytest.approx(2.5 / 3)
    assert report.accuracy is report.confusion is report.interval is None
    assert report.per_class == []
    assert str(report) == "mean absolute error 0.8333 on 3 images"


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


# --- one proportion ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "n"), [(0, 10), (7, 10), (10, 10), (146, 153), (1, 1), (400, 797)])
def test_wilson_interval_is_the_closed_form(k, n):
    z, p = 1.959963984540054, k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert evaluation.wilson(k, n) == pytest.approx((centre - half, centre + half), abs=1e-9)


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


def guess(labels, right):
    """A report that is right where ``right`` says so."""
    predicted = np.where(right, labels, 1 - labels)
    return evaluation.report(np.eye(2)[predicted] * 3.0, labels)


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


@pytest.mark.parametrize("shape", [(1, 50), (5, 1)])
def test_one_seed_or_one_image_says_nothing_about_the_next(shape):
    with pytest.raises(ValueError, match=r"at least 2 seeds and 2 images"):
        evaluation.repeated(range(shape[0]), np.ones(shape))


def test_seeds_must_be_as_many_as_rows():
    with pytest.raises(ValueError, match="3 seeds, but 2 rows"):
        evaluation.repeated(range(3), np.ones((2, 10)))


def test_repeat_runs_each_seed_once_on_the_same_images():
    labels = np.arange(40) % 2
    called = []

    def run(seed):
        called.append(seed)
        return guess(labels, np.random.default_rng(seed).random(40) < 0.8)

    found = evaluation.repeat(run, iter([3, 5, 7]))
    assert called == [3, 5, 7] == list(found.seeds)
    assert found.correct.shape == (3, 40)
    assert found.mean == pytest.approx(np.mean([run(seed).accuracy for seed in (3, 5, 7)]))
    assert found.covers == "3 seeds and 40 test images"
    assert (
        str(found)
        == f"{found.mean:.3f}, {found.interval[0]:.3f} to {found.interval[1]:.3f} (95% over 3 seeds and 40 test images)"
    )
    same = evaluation.repeated(found.seeds, found.correct)
    assert same.interval == found.interval


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
