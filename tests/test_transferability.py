"""Transferability scores, each against an independent computation."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kendalltau

from tlutils import backbones, data, evaluation, features, models
from tlutils import transferability as scores

FEATURE_SCORES = {
    "knn": scores.knn,
    "hscore": scores.hscore,
    "hscore-shrunk": lambda x, y: scores.hscore(x, y, shrinkage=True),
    "logme": scores.logme,
    "probe": scores.probe,
}
ALL_SCORES = {**FEATURE_SCORES, "leep": scores.leep}


def classes(n=40, d=6, count=4, seed=0):
    """Features of ``count`` overlapping clouds, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % count
    return rng.normal(size=(count, d))[labels] + rng.normal(size=(n, d)), labels


def probabilities(n=40, sources=7, count=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % count
    logits = 2 * rng.normal(size=(count, sources))[labels] + rng.normal(size=(n, sources))
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


# --- LogME: the largest evidence --------------------------------------------------------------------------------------


def brute_force_evidence(f, y):
    """The largest log density of N(y; 0, I/β + F Fᵀ/α), divided by n: a grid, then Nelder–Mead from its best points."""
    from scipy.optimize import minimize
    from scipy.stats import multivariate_normal

    n = len(y)

    def negative(logs):
        a, b = np.clip(logs, -40, 40)
        covariance = np.eye(n) * np.exp(-b) + f @ f.T * np.exp(-a)
        try:
            return -multivariate_normal.logpdf(y, np.zeros(n), covariance) / n
        except (np.linalg.LinAlgError, ValueError):  # singular to rounding
            return np.inf

    starts = [(a, b) for a in np.arange(-10, 31, 2.5) for b in np.arange(-4, 13, 2)]
    starts.sort(key=negative)
    options = {"xatol": 1e-10, "fatol": 1e-14, "maxiter": 4000, "maxfev": 4000}
    return max(-minimize(negative, start, method="Nelder-Mead", options=options).fun for start in starts[:4])


def evidence_cases():
    rng = np.random.default_rng(3)
    tall, wide = rng.normal(size=(24, 5)), rng.normal(size=(12, 20))
    uneven = tall * 10.0 ** np.arange(-2, 3)
    return {
        "more images than features": (tall, tall @ rng.normal(size=5) + 0.3 * rng.normal(size=24)),
        "fewer images than features": (wide, wide @ rng.normal(size=20) + 2 * rng.normal(size=12)),
        "features of other sizes": (uneven, uneven @ rng.normal(size=5) / 10 + rng.normal(size=24)),
        "without noise": (wide, wide @ rng.normal(size=20)),
        "nothing but noise": (tall, rng.normal(size=24)),
        "targets far from zero": (tall, 50 + rng.normal(size=24)),
    }


@pytest.mark.parametrize("case", evidence_cases())
def test_logme_is_the_maximum_of_the_evidence(case):
    f, y = evidence_cases()[case]
    assert scores.logme(f, y) == pytest.approx(brute_force_evidence(f, y), rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(30, 4), (12, 20)])
def test_logme_of_classes_is_the_mean_over_one_against_the_rest(n, d):
    f, labels = classes(n, d, 3)
    expected = np.mean([brute_force_evidence(f, (labels == label).astype(float)) for label in range(3)])
    assert scores.logme(f, labels) == pytest.approx(expected, rel=1e-6)


def test_logme_of_several_outputs_is_their_mean():
    f, _ = classes()
    y = np.random.default_rng(1).normal(size=(len(f), 3))
    assert scores.logme(f, y) == pytest.approx(np.mean([scores.logme(f, column) for column in y.T]), rel=1e-12)


def test_logme_of_targets_without_a_share_in_the_features_is_pure_noise():
    f = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 6)))[0]
    y, n = 3 * f[:, 5], 20
    expected = (np.log(n / 9) - np.log(2 * np.pi) - 1) / 2
    assert scores.logme(f[:, :5], y) == pytest.approx(expected, rel=1e-9)


def test_logme_has_no_maximum_where_few_features_fit_many_images_exactly():
    f = np.random.default_rng(0).normal(size=(20, 3))
    assert scores.logme(f, f @ np.array([1.0, 2.0, 3.0])) == np.inf


def test_logme_does_not_mind_the_scale_of_the_features():
    f, labels = classes()
    assert scores.logme(1e4 * f, labels) == pytest.approx(scores.logme(f, labels), rel=1e-9)


# --- LEEP, H-score, nearest neighbours, probe: the formulas in loops, or scikit-learn ---------------------------------


def leep_in_loops(theta, labels):
    n, sources = theta.shape
    joint = {}
    for label in sorted(set(labels.tolist())):
        for z in range(sources):
            joint[label, z] = sum(theta[i, z] for i in range(n) if labels[i] == label) / n
    marginal = [sum(joint[label, z] for label in set(labels.tolist())) for z in range(sources)]
    likelihoods = [sum(joint[labels[i], z] / marginal[z] * theta[i, z] for z in range(sources)) for i in range(n)]
    return sum(np.log(value) for value in likelihoods) / n


def test_leep_is_its_formula():
    theta, labels = probabilities()
    assert scores.leep(theta, labels) == pytest.approx(leep_in_loops(theta, labels), rel=1e-12)


def test_leep_neither_minds_the_order_of_the_source_classes_nor_one_that_never_occurs():
    theta, labels = probabilities()
    expected = scores.leep(theta, labels)
    assert scores.leep(theta[:, ::-1], labels) == pytest.approx(expected, rel=1e-12)
    assert scores.leep(np.hstack([theta, np.zeros((len(theta), 1))]), labels) == pytest.approx(expected, rel=1e-12)


def hscore_directly(f, labels):
    means = np.stack([f[labels == label].mean(axis=0) for label in labels])
    return np.trace(np.linalg.pinv(np.cov(f, rowvar=False)) @ np.cov(means, rowvar=False))


def test_hscore_is_its_formula():
    f, labels = classes()
    assert scores.hscore(f, labels) == pytest.approx(hscore_directly(f, labels), rel=1e-9)


@pytest.mark.parametrize(("n", "d"), [(40, 6), (16, 30)])
def test_the_shrunk_hscore_is_its_formula(n, d):
    from sklearn.covariance import LedoitWolf

    f, labels = classes(n, d)
    shrunk = LedoitWolf().fit(f)
    means = np.stack([f[labels == label].mean(axis=0) for label in labels])
    between = np.cov(means, rowvar=False, bias=True)
    expected = (1 - shrunk.shrinkage_) * np.trace(np.linalg.inv(shrunk.covariance_) @ between)
    assert 0 < shrunk.shrinkage_ < 1
    assert scores.hscore(f, labels, shrinkage=True) == pytest.approx(expected, rel=1e-9)


def test_hscore_does_not_mind_an_invertible_map_of_the_features():
    f, labels = classes()
    turned = f @ np.random.default_rng(1).normal(size=(6, 6)) + 3
    assert scores.hscore(turned, labels) == pytest.approx(scores.hscore(f, labels), rel=1e-9)
    assert scores.hscore(turned, labels, shrinkage=True) != pytest.approx(scores.hscore(f, labels, shrinkage=True))


def test_the_plain_hscore_is_blind_with_fewer_images_than_features():
    f, labels = classes(16, 30)
    permuted = np.random.default_rng(0).permutation(labels)
    assert scores.hscore(f, labels) == pytest.approx(3, rel=1e-9)
    assert scores.hscore(f, permuted) == pytest.approx(3, rel=1e-9)
    assert scores.hscore(f, permuted, shrinkage=True) < scores.hscore(f, labels, shrinkage=True) - 0.01


@pytest.mark.parametrize("neighbours", [None, 1, 3, 4])
def test_knn_is_leave_one_out_of_scikit_learn(neighbours):
    from sklearn.model_selection import LeaveOneOut, cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    f, labels = classes(60)
    expected = cross_val_score(KNeighborsClassifier(neighbours or 1), f, labels, cv=LeaveOneOut()).mean()
    assert 0.3 < expected < 1
    assert scores.knn(f, labels, neighbours) == pytest.approx(expected)


def test_knn_of_numbers_is_leave_one_out_of_scikit_learn():
    from sklearn.model_selection import LeaveOneOut, cross_val_score
    from sklearn.neighbors import KNeighborsRegressor

    f, _ = classes()
    y = f[:, :2] ** 2
    errors = cross_val_score(KNeighborsRegressor(5), f, y, cv=LeaveOneOut(), scoring="neg_mean_absolute_error")
    assert scores.knn(f, y) == pytest.approx(errors.mean())


@pytest.mark.parametrize("neighbours", [0, 40, 1.5, True])
def test_knn_wants_a_possible_number_of_neighbours(neighbours):
    with pytest.raises(ValueError, match=r"neighbours must be an integer from 1 to 39"):
        scores.knn(*classes(), neighbours)


@pytest.mark.parametrize(("n", "d", "seed"), [(40, 6, 0), (40, 6, 5), (24, 60, 0)])
def test_probe_is_the_best_score_of_a_grid_search(n, d, seed):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.preprocessing import StandardScaler

    f, labels = classes(n, d)
    folds = StratifiedKFold(3, shuffle=True, random_state=seed)
    grid = {"C": [1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 100]}
    search = GridSearchCV(LogisticRegression(max_iter=5000), grid, cv=folds)
    search.fit(StandardScaler().fit_transform(f), labels)
    assert scores.probe(f, labels, seed) == pytest.approx(search.best_score_)


def test_probe_of_numbers_is_leave_one_out_of_ridge():
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import LeaveOneOut, cross_val_predict
    from sklearn.preprocessing import StandardScaler

    f, _ = classes()
    y = f[:, :2] + np.random.default_rng(0).normal(size=(len(f), 2))
    z = StandardScaler().fit_transform(f)
    errors = [
        ((cross_val_predict(Ridge(alpha), z, y, cv=LeaveOneOut()) - y) ** 2).mean() for alpha in np.logspace(-3, 5, 17)
    ]
    assert scores.probe(f, y) == pytest.approx(1 - min(errors) / y.var(axis=0).mean(), rel=1e-6)


@pytest.mark.parametrize(("score", "values"), [(scores.leep, probabilities()[0]), (scores.hscore, classes()[0])])
def test_numbers_are_cut_into_five_bins_of_equal_size(score, values):
    order = np.random.default_rng(0).permutation(40)
    assert score(values, np.exp(order / 10)) == pytest.approx(score(values, order // 8), rel=1e-12)
    two = np.stack([order, order[::-1]], axis=1).astype(float)
    expected = (score(values, order // 8) + score(values, order[::-1] // 8)) / 2
    assert score(values, two) == pytest.approx(expected, rel=1e-12)
    rare = (order < 3).astype(float)  # equal numbers stay together, and two kinds never share a bin
    assert score(values, rare) == pytest.approx(score(values, rare.astype(int)), rel=1e-12)


# --- what cannot be scored --------------------------------------------------------------------------------------------


def values_for(name):
    return probabilities() if name == "leep" else classes()


@pytest.mark.parametrize("name", ALL_SCORES)
def test_every_score_says_what_is_wrong(name):
    score, (x, y) = ALL_SCORES[name], values_for(name)
    assert np.isfinite(score(x, y))
    broken, unlabelled = x.copy(), y.astype(float)
    broken[3, 1], unlabelled[5] = np.nan, np.inf
    for values, labels, message in [
        (x[:1], y[:1], r"at least 2 of them, not 1"),
        (x[:0], y[:0], r"at least 2 of them, not 0"),
        (x[:, :, None], y, r"must have the shape \(images, \w+\), not \(40, \d, 1\)"),
        (x[:-1], y, r"of 39 images, but 40 labels"),
        (broken, y, r"of 1 of 40 images are NaN or infinite"),
        (x, unlabelled, r"the labels of 1 of 40 images are NaN or infinite"),
        (np.tile(x[:1], (40, 1)), y, r"the same for all 40 images"),
        (x, np.full(40, 7), r"at least 2 classes, but all 40 labels are 7"),
        (x, np.full(40, 0.5), r"all 40 labels of output 0 are 0\.5"),
        (x, y.astype(str), r"labels must be integers"),
    ]:
        with pytest.raises(ValueError, match=message):
            score(values, labels)


def test_differences_of_the_size_of_rounding_are_none():
    x, y = classes()
    with pytest.raises(ValueError, match="the same for all 40 images"):
        scores.logme(1 + 1e-8 * x, y)


@pytest.mark.parametrize(("name", "images", "least"), [("knn", 1, 2), ("probe", 2, 3)])
def test_a_class_with_too_few_images(name, images, least):
    x, y = classes()
    y = np.where(y == 3, 2, y)
    y[:images] = 3
    with pytest.raises(ValueError, match=rf"{name} needs at least {least} images .* 4 classes has {images}"):
        FEATURE_SCORES[name](x, y)
    assert np.isfinite(scores.logme(x, y))


def test_leep_wants_probabilities():
    theta, labels = probabilities()
    with pytest.raises(ValueError, match=r"cannot be negative, and the smallest is -"):
        scores.leep(np.log(theta), labels)
    theta[4] *= 2
    with pytest.raises(ValueError, match=r"those of image 4 sum to 2"):
        scores.leep(theta, labels)


# --- backbones --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet(tensorflow):
    return backbones.load("pocket_resnet")


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", labels_per_class=10)


def test_scores_of_a_backbone_are_those_of_its_pooled_features(resnet, digits):
    pooled, labels = features.extract(resnet, digits.train), digits.train.labels
    for method, score in FEATURE_SCORES.items():
        assert evaluation.transferability(resnet, digits, method) == pytest.approx(score(pooled, labels), rel=1e-9)
    assert evaluation.transferability(resnet, digits) == evaluation.transferability(resnet, digits, "logme")
    seeds = {evaluation.transferability(resnet, digits, "probe", seed=seed) for seed in range(4)}
    assert len(seeds) > 1


@pytest.mark.parametrize("method", evaluation.TRANSFERABILITY_METHODS)
def test_permuted_labels_score_worse(resnet, digits, method):
    # The plain H-score is blind with fewer images than features.
    train = (data.load("digits", labels_per_class=50) if method == "hscore" else digits).train
    values = features.extract(resnet.source_classifier() if method == "leep" else resnet, train)
    assert method != "hscore" or len(values) > values.shape[1]
    score = ALL_SCORES[method]
    true = score(values, train.labels)
    for seed in range(5):
        assert score(values, np.random.default_rng(seed).permutation(train.labels)) < true


@pytest.mark.parametrize("method", ["knn", "logme"])
def test_random_weights_score_lower(resnet, digits, method):
    import keras

    keras.utils.set_random_seed(0)
    untrained = backbones.load("pocket_resnet", weights=None)
    assert evaluation.transferability(untrained, digits, method) < evaluation.transferability(resnet, digits, method)


class Untouchable:
    """A split that fails where anything but its name is used."""

    split = None

    def __getattr__(self, name):
        raise AssertionError(f"the score looked at {name!r} of a split that is not for training")

    def __len__(self):
        raise AssertionError("the score looked at the length of a split that is not for training")


@pytest.mark.parametrize("method", evaluation.TRANSFERABILITY_METHODS)
def test_only_the_training_images_are_looked_at(resnet, digits, method):
    guarded = replace(digits, val=Untouchable(), test=Untouchable())
    assert evaluation.transferability(resnet, guarded, method) == evaluation.transferability(resnet, digits, method)


@pytest.mark.parametrize("method", evaluation.TRANSFERABILITY_METHODS)
def test_a_regression_can_be_scored(resnet, digits, method):
    """The value of the digit as a number: what the network tells apart, it can also count."""
    images, values = digits.train.images(), digits.train.labels.astype("float32")
    task = data.from_arrays("value", (images, values), kind="regression")
    found = evaluation.transferability(resnet, task, method)
    assert np.isfinite(found)
    for seed in range(5):
        permuted = np.random.default_rng(seed).permutation(values)
        other = evaluation.transferability(resnet, replace(task, train=relabelled(task.train, permuted)), method)
        # 100 images have no more than 100 of 224 directions, so the plain H-score is blind here.
        assert other == pytest.approx(found) if method == "hscore" else other < found


def relabelled(examples, labels):
    return data.Examples(labels, image_size=examples.image_size, channels=1, pixels=examples.images())


def test_an_unknown_method_is_answered_with_the_list(resnet, digits):
    with pytest.raises(ValueError, match=r"unknown method 'logm'; choose from knn, leep, hscore, hscore-shrunk, logme"):
        evaluation.transferability(resnet, digits, "logm")


def test_features_are_kept_where_asked(resnet, digits, tmp_path):
    first = evaluation.transferability(resnet, digits, cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    assert evaluation.transferability(resnet, digits, "logme", cache_dir=tmp_path) == first
    evaluation.transferability(resnet, digits, "leep", cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


# --- the classifier of the source task --------------------------------------------------------------------------------


def softmax(logits):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_the_source_classifier_of_the_pocket_zoo_is_the_pretrained_one(resnet, digits):
    from tlutils import zoo

    pixels = digits.train.images().astype("float32")
    expected = softmax(zoo.load("pocket_resnet").predict(pixels / 255, verbose=0))
    found = resnet.source_classifier().predict(pixels, verbose=0)
    assert np.abs(found - expected).max() < 1e-5
    expected = leep_in_loops(expected.astype(float), digits.train.labels)
    assert evaluation.transferability(resnet, digits, "leep") == pytest.approx(expected, abs=1e-4)


def test_the_source_classifier_shares_the_backbone_at_any_size(tensorflow):
    backbone = backbones.load("pocket_vgg", input_shape=(48, 40, 3))
    classify = backbone.source_classifier()
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 48, 40, 3)).astype("float32")
    before = np.asarray(classify(pixels))
    assert before.sum(axis=1) == pytest.approx(1, abs=1e-5)
    backbone.model.set_weights([0.5 * weight for weight in backbone.model.get_weights()])
    assert np.abs(np.asarray(classify(pixels)) - before).max() > 1e-3


def test_leep_needs_a_source_classifier(resnet, digits):
    cut = models.truncate(resnet, 2)
    for backbone in (backbones.load("pocket_resnet", weights=None), cut, backbones.wrap(resnet.model)):
        assert backbone.source_classifier is None
        with pytest.raises(ValueError, match=r"needs the classifier of the source task.*knn, hscore, hscore-shrunk"):
            evaluation.transferability(backbone, digits, "leep")


def test_a_model_of_ones_own_brings_its_classifier(resnet, digits):
    own = backbones.wrap(resnet.model, source_classifier=resnet.source_classifier())
    assert evaluation.transferability(own, digits, "leep") == evaluation.transferability(resnet, digits, "leep")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mobilenet_0.25", "mobilenet_2_5_224_tf.h5"),
        ("mobilenet_v3_small", "weights_mobilenet_v3_small_224_1.0_float.h5"),
    ],
)
def test_imagenet_networks_get_the_layers_of_the_file_with_the_classifier(
    tensorflow, monkeypatch, tmp_path, name, file
):
    """On random weights in files of the names that Keras uses: nothing is downloaded."""
    import keras

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    entry = backbones._BACKBONES[name]
    build = getattr(keras.applications, entry.application)
    keras.utils.set_random_seed(0)
    whole = build(weights=None, include_top=True, **entry.options)
    (tmp_path / "models").mkdir()
    whole.save_weights(tmp_path / "models" / "w.weights.h5")
    absent = backbones._source_classifier(name, entry, "pretrained", None)
    assert absent is None
    loaded = build(weights=None, include_top=False, input_shape=(224, 224, 3), **entry.options)
    for layer in loaded.layers:  # what Keras' own two files have in common
        layer.set_weights(whole.get_layer(layer.name).get_weights() if layer.weights else [])
    (tmp_path / "models" / file).touch()

    def reads_our_file(**options):
        if options["weights"] is None:
            return build(**options)
        assert options["weights"] == str(tmp_path / "models" / file)
        return whole

    monkeypatch.setattr(keras.applications, entry.application, reads_our_file)
    classify = backbones._source_classifier(name, entry, "pretrained", loaded)()
    pixels = np.random.default_rng(0).uniform(-1, 1, (2, 224, 224, 3)).astype("float32")
    assert np.abs(np.asarray(classify(pixels)) - np.asarray(whole(pixels))).max() < 1e-6


def test_a_classifier_that_needs_one_image_size_says_which(tensorflow, tmp_path, monkeypatch):
    import keras

    entry = replace(backbones._BACKBONES["vgg16"], image_size=32)  # a small copy of the family with dense layers

    def small(include_top, weights, input_shape):
        inputs = keras.Input(input_shape)
        x = keras.layers.Conv2D(2, 3, strides=4, name="block1_conv1")(inputs)
        return keras.Model(
            inputs, keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(x)) if include_top else x
        )

    monkeypatch.setattr(keras.applications, "VGG16", small)
    good, bad = (small(False, None, (side, side, 3)) for side in (32, 64))
    assert backbones._application_classifier(entry, tmp_path, good).output_shape == (None, 3)
    with pytest.raises(ValueError, match=r"needs images of 32×32 pixels.*input_shape \(64, 64, 3\)"):
        backbones._application_classifier(entry, tmp_path, bad)


# --- distance and agreement -------------------------------------------------------------------------------------------


def test_the_frechet_distance_is_that_of_the_matrix_square_root():
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(3)
    one, other = rng.normal(size=(60, 5)), rng.normal(1, 2, (80, 5)) @ rng.normal(size=(5, 5))
    c1, c2 = np.cov(one.T), np.cov(other.T)
    gap = one.mean(axis=0) - other.mean(axis=0)
    expected = gap @ gap + np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real)
    assert scores.frechet(one, other) == pytest.approx(expected, rel=1e-8)
    assert scores.frechet(one, other) == pytest.approx(scores.frechet(other, one), rel=1e-10)
    assert scores.frechet(one, one) == pytest.approx(0, abs=1e-9)
    assert scores.frechet(one, one + np.array([3, 4, 0, 0, 0])) == pytest.approx(25)


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (np.zeros((3, 2)), np.zeros((3, 4)), r"\(3, 2\) and \(3, 4\)"),
        (np.zeros((1, 2)), np.zeros((3, 2)), "at least two images"),
        (np.full((3, 2), np.nan), np.zeros((3, 2)), "NaN"),
    ],
)
def test_no_distance_without_two_sets_of_features(one, other, message):
    with pytest.raises(ValueError, match=message):
        scores.frechet(one, other)


def test_agreement_counts_pairs_and_the_loss_of_the_pick():
    guesses, outcomes = [3.0, 1.0, 2.0, 0.0], [0.8, 0.9, 0.7, 0.1]
    ordered = sum(
        np.sign(guesses[i] - guesses[j]) * np.sign(outcomes[i] - outcomes[j]) for i in range(4) for j in range(i)
    )
    tau, regret = scores.agreement(guesses, outcomes)
    assert tau == pytest.approx(ordered / 6)
    assert regret == pytest.approx(0.9 - 0.8)
    assert scores.agreement(outcomes, outcomes) == (pytest.approx(1), 0)
    assert scores.agreement([9, 9, 9, 9 + 1e-12], outcomes) == (0, pytest.approx(0.9 - np.mean(outcomes)))
    with pytest.raises(ValueError, match="two or more candidates"):
        scores.agreement([1.0], [1.0])
    with pytest.raises(ValueError, match="two or more candidates"):
        scores.agreement([1.0, 2.0], [1.0])


def test_outcomes_that_differ_by_rounding_are_level():
    assert scores.agreement([1.0, 2.0, 3.0], [0.5, 0.5 + 1e-13, 0.5 - 1e-13])[0] == 0
    assert scores.agreement([1.0, 2.0, 3.0], [0.5, 0.7, 0.7 - 1e-13])[0] == pytest.approx(
        kendalltau([1, 2, 3], [1, 2, 2])[0]
    )


def test_the_permutation_test_agrees_with_every_permutation():
    rng = np.random.default_rng(3)
    guesses, outcomes = rng.normal(size=(3, 5)), rng.normal(size=(3, 5)).round(1)
    outcomes[:, 1] = outcomes[:, 0]  # a level pair in each draw

    def tau(order):
        return np.mean([kendalltau(g[list(order)], o).statistic for g, o in zip(guesses, outcomes)])

    every = np.array([tau(order) for order in itertools.permutations(range(5))])
    exact = np.mean(np.abs(every - every.mean()) >= abs(tau(range(5)) - every.mean()) - 1e-9)
    found, p = scores.permutation_test(guesses, outcomes)
    assert found == pytest.approx(tau(range(5)))
    assert p == pytest.approx(exact, abs=0.02)  # four standard errors of 10,000 shuffles


def test_a_score_that_knows_the_group_only_is_no_better_than_chance_within_groups():
    groups = np.repeat(["near", "far"], 6)
    outcomes = np.tile(np.r_[np.linspace(0.9, 0.95, 6), np.linspace(0.5, 0.55, 6)], (4, 1))
    known = np.tile(np.r_[np.ones(6), np.zeros(6)], (4, 1))
    assert scores.permutation_test(known, outcomes)[1] < 0.05
    assert scores.permutation_test(known, outcomes, groups)[1] == 1
    assert scores.permutation_test(outcomes, outcomes, groups)[1] < 0.01


def test_the_permutation_test_is_right_as_often_as_it_says():
    rng = np.random.default_rng(0)
    found = [
        scores.permutation_test(rng.normal(size=(2, 8)), rng.normal(size=(2, 8)), times=200, seed=i)[1]
        for i in range(300)
    ]
    assert np.mean(np.array(found) <= 0.1) < 0.16  # 0.1 expected, with a standard error of 0.017
    # A constant score that never changes has no spread over the draws, and is still no proof of anything.
    same = np.tile(rng.normal(size=8), (5, 1))
    assert scores.permutation_test(same, np.tile(rng.normal(size=8), (5, 1)))[1] > 0.05


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda g: (g, g[:, :3]), "must both have the shape"),
        (lambda g: (g[0], g[0]), "must both have the shape"),
        (lambda g: (g[:, :1], g[:, :1]), "two or more candidates"),
        (lambda g: (g * np.nan, g), "leave that candidate out"),
        (lambda g: (g, g, ["a"]), "need as many groups"),
    ],
)
def test_the_permutation_test_refuses_what_it_cannot_deal_out(bad, message):
    with pytest.raises(ValueError, match=message):
        scores.permutation_test(*bad(np.arange(8.0).reshape(2, 4)))
