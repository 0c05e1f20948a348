"""Transferability scores: guess which pretrained network will transfer best, without fine-tuning any of them.

Each function compares what a network makes of the labelled images with their labels and returns a float, higher for a
network that is expected to transfer better. A score ranks networks on one task; scores of different methods, or of
different tasks, say nothing about each other. :func:`tlutils.evaluation.transferability` calls them for a backbone.

Labels that are integers are classes. Labels that are floats, shape (N,) or (N, outputs), are numbers to predict;
:func:`leep` and :func:`hscore`, which are made for classes, cut them into five bins of equal size first.
"""

import numpy as np

QUANTILE_BINS = 5
REGRESSION_NEIGHBOURS = 5

# Features are computed in float32: what differs by less than this share is rounding.
_ROUNDING = float(np.finfo(np.float32).eps)


def knn(features, labels, neighbours=None):
    """Leave-one-out accuracy of nearest neighbours (as a proxy: Puigcerver et al., 2021; Renggli et al., 2022).

    Every image gets the label that is most frequent among the images nearest to it, itself left out, by Euclidean
    distance between the features as they are; the score is the share of images whose label that is. For numbers:
    minus the mean absolute error of the neighbours' mean.

    Args:
        features: Shape (N, d).
        labels: Classes, shape (N,), or numbers, shape (N,) or (N, outputs).
        neighbours: How many; ``None`` takes 1 for classes and 5 for numbers (fewer where there are fewer images).

    Returns:
        float: from 0 to 1; at most 0 for numbers.

    Raises:
        ValueError: See the module's common checks (:func:`checked`); a class with a single image, which has no
            neighbour of its own class; ``neighbours`` that is no integer from 1 to N − 1.
    """
    from scipy.stats import mode
    from sklearn.neighbors import NearestNeighbors

    x, y, kind = checked(features, labels)
    if kind == "classes":
        _require_each_class(y, 2, "knn", "an image without a second one of its class can only be wrong")
    if neighbours is None:
        neighbours = 1 if kind == "classes" else min(REGRESSION_NEIGHBOURS, len(x) - 1)
    if isinstance(neighbours, bool) or not isinstance(neighbours, int | np.integer) or not 1 <= neighbours < len(x):
        raise ValueError(
            f"neighbours must be an integer from 1 to {len(x) - 1} for {len(x)} images, not {neighbours!r}"
        )
    # Asked without a query, scikit-learn gives each point's neighbours among the others.
    nearest = NearestNeighbors(n_neighbors=neighbours).fit(x).kneighbors(return_distance=False)
    if kind == "numbers":
        return float(-np.abs(y[nearest].mean(axis=1) - y).mean())
    return float((mode(y[nearest], axis=1).mode == y).mean())  # of classes that are level the first


def leep(probabilities, labels):
    r"""Log expected empirical prediction (Nguyen et al., 2020).

    The source classifier says how probable each source class z is for each image, θ(x)_z. From these and the labels
    follows the empirical joint distribution P(y, z) = 1/N · Σ_{i: y_i = y} θ(x_i)_z, and from it P(y | z). The score
    is the mean log-likelihood of the labels when a label is predicted through a source class:
    1/N · Σ_i log Σ_z P(y_i | z) θ(x_i)_z.

    Args:
        probabilities: Output of the source classifier, shape (N, source classes); rows sum to 1.
        labels: Classes, shape (N,), or numbers, shape (N,) or (N, outputs), which are cut into five bins of equal size;
            of several outputs the mean score.

    Returns:
        float: at most 0.

    Raises:
        ValueError: See :func:`checked`; probabilities that are negative or do not sum to 1.
    """
    theta, y, kind = checked(probabilities, labels, "probabilities")
    if theta.min() < 0:
        raise ValueError(
            f"probabilities cannot be negative, and the smallest is {theta.min():.3g}: give softmax(logits)"
        )
    sums = theta.sum(axis=1)
    worst = int(np.abs(sums - 1).argmax())
    if abs(sums[worst] - 1) > 1e-3:
        raise ValueError(
            f"the probabilities of an image must sum to 1; those of image {worst} sum to {sums[worst]:.4g}: "
            "give softmax(logits)"
        )
    if kind == "numbers":
        return _mean_over_bins(leep, theta, y)
    joint = np.stack([theta[y == label].sum(axis=0) for label in range(y.max() + 1)]) / len(y)
    marginal = joint.sum(axis=0)
    conditional = joint / np.where(marginal > 0, marginal, 1)  # a source class that never occurs adds nothing
    return float(np.log((conditional[y] * theta).sum(axis=1)).mean())


def hscore(features, labels, shrinkage=False):
    """H-score (Bao et al., 2019): how much of the features' variance lies between the classes.

    tr(cov(f)⁺ · cov(E[f | y])), with the pseudo-inverse ⁺: the variance of the class means, measured in units of the
    variance of the features. It lies between 0 and the number of classes minus 1, does not change under an invertible
    linear map of the features, and is computed from a singular value decomposition: with the left singular vectors U of
    the centred features it is Σ_c N_c · ‖mean of the rows of U in class c‖².

    With no more images than features the plain score is blind: if the images' features are affinely independent, it is
    classes − 1 whatever the labels are. With ``shrinkage`` the covariance is the one of Ledoit and Wolf, a mix
    (1 − a) cov(f) + a σ² I with the mean variance σ² and an estimated weight a, and the score is
    (1 − a) · tr(cov_a(f)⁻¹ · cov(E[f | y])) (Ibrahim et al., 2022). Then it depends on the scale of single features.

    Args:
        features: Shape (N, d).
        labels: Classes, shape (N,), or numbers, shape (N,) or (N, outputs), which are cut into five bins of equal size;
            of several outputs the mean score.
        shrinkage: Whether to shrink the covariance.

    Returns:
        float: from 0 to classes − 1.

    Raises:
        ValueError: See :func:`checked`.
    """
    x, y, kind = checked(features, labels)
    if kind == "numbers":
        return _mean_over_bins(hscore, x, y, shrinkage)
    x = x - x.mean(axis=0)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    u, s = u[:, s > s[0] * _ROUNDING], s[s > s[0] * _ROUNDING]
    weights = np.ones(len(s))
    if shrinkage:
        from sklearn.covariance import ledoit_wolf_shrinkage

        a = ledoit_wolf_shrinkage(x, assume_centered=True)
        variances = s**2 / len(x)
        # Class means lie in the span of the images, where the shrunk covariance has the same axes as the plain one.
        weights = (1 - a) * variances / ((1 - a) * variances + a * variances.sum() / x.shape[1])
    means = np.stack([u[y == label].mean(axis=0) for label in range(y.max() + 1)])
    return float((np.bincount(y)[:, None] * means**2 * weights).sum())


def logme(features, labels):
    """Logarithm of the maximum evidence (You et al., 2021).

    The labels are modelled as y = F w + noise, with w ~ N(0, I/α) and noise ~ N(0, I/β), nothing centred. With w
    integrated out, y ~ N(0, I/β + F Fᵀ/α); the score is the logarithm of this density at y, divided by N, at the α and
    β that make it largest. For classes: the mean over classes, each with targets 1 for its images and 0 for all others;
    for numbers: the mean over outputs.

    The paper iterates towards α and β, and can stop early. Here the maximum is found: for a ratio λ = α/β, with the
    singular values s and left singular vectors U of F and z = Uᵀy, the best β is N/Q with
    Q(λ) = Σ z² λ/(λ + s²) + ‖y − U z‖², and what remains,
    ½ log(N/Q) − ½ log 2π − ½ − 1/(2N) Σ log(1 + s²/λ), depends on λ alone. It is searched on a grid of log λ that
    covers all scales of F, and polished. Both ends count: λ → ∞ (w = 0, pure noise) and, with as many independent
    features as images, λ → 0 (no noise); both limits are finite.

    Args:
        features: Shape (N, d); N may be smaller than d.
        labels: Classes, shape (N,), or numbers, shape (N,) or (N, outputs). In other units the numbers shift every
            network's score by the same constant.

    Returns:
        float: in nats an image. Infinity where fewer independent features than images fit a target without any error:
        then the density grows without bound as β does.

    Raises:
        ValueError: See :func:`checked`.
    """
    x, y, kind = checked(features, labels)
    targets = np.eye(y.max() + 1)[y] if kind == "classes" else y
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    rank = int((s > s[0] * max(x.shape) * np.finfo(float).eps).sum())
    u, s2 = u[:, :rank], (s[:rank] / s[0]) ** 2  # the scale of F is absorbed by α
    z = u.T @ targets
    rest = ((targets - u @ z) ** 2).sum(axis=0) if rank < len(x) else np.zeros(targets.shape[1])
    return float(np.mean([_log_evidence(s2, *column, len(x)) for column in zip((z**2).T, rest)]))


def _log_evidence(s2, z2, rest, n):
    """The largest log evidence, divided by n, of one target: see :func:`logme`. ``rest`` is ‖y − U z‖²."""
    from scipy.optimize import minimize_scalar

    total = z2.sum() + rest
    exact = rest <= (n * np.finfo(float).eps) ** 2 * total
    if exact and len(s2) < n:
        return np.inf

    def evidence(log_ratio):
        ratio = np.exp(np.atleast_1d(log_ratio))[:, None]
        q = (z2 * ratio / (ratio + s2)).sum(axis=1) + rest
        return (np.log(n / q) - np.log(2 * np.pi) - 1) / 2 - np.log1p(s2 / ratio).sum(axis=1) / (2 * n)

    limits = [(np.log(n / total) - np.log(2 * np.pi) - 1) / 2]  # λ → ∞
    lowest = s2[-1]
    if exact:  # as many independent features as images: λ → 0
        limits.append((np.log(n / (z2 / s2).sum()) - np.log(2 * np.pi) - 1) / 2 - np.log(s2).sum() / (2 * n))
    elif rest > 0:  # below all s², the maximum is where this says
        lowest = min(lowest, len(s2) * rest / max(n - len(s2), 1) / max((z2 / s2).sum(), np.finfo(float).tiny))
    # The curve is a sum of steps about one unit of log λ wide; beyond the ends it is within 1e-9 of its limits.
    grid = np.arange(np.log(lowest) - 12, 12.25, 0.25)
    values = evidence(grid)
    peaks = 1 + np.flatnonzero((values[1:-1] > values[:-2]) & (values[1:-1] >= values[2:]))
    found = [
        minimize_scalar(
            lambda t: -evidence(t)[0], bounds=grid[[i - 1, i + 1]], method="bounded", options={"xatol": 1e-9}
        )
        for i in peaks
    ]
    return max([*limits, values.max(), *(-result.fun for result in found)])


def probe(features, labels, seed=0):
    """Cross-validated accuracy of the book's own linear probe within the labels.

    The best mean accuracy that :func:`tlutils.training.solve_classifier` sees when it chooses its penalty: three
    stratified folds. For numbers: the leave-one-out R² of ridge regression with the penalty that
    :func:`tlutils.training.solve_regressor` chooses, 1 − mean squared error / variance, pooled over the outputs.
    The best of several penalties is chosen and reported on the same folds, so the score is slightly optimistic.

    Args:
        features: Shape (N, d).
        labels: Classes, shape (N,), with at least three images each, or numbers, shape (N,) or (N, outputs).
        seed: Seed of the folds.

    Returns:
        float: at most 1.

    Raises:
        ValueError: See :func:`checked`; a class with fewer than three images.
    """
    from tlutils import training

    x, y, kind = checked(features, labels)
    if kind == "classes":
        _require_each_class(y, training.MIN_LABELS_FOR_CV, "probe", "it is cross-validated in three folds")
        return max(training.solve_classifier(x, y, "cv", seed)[2]["scores"])
    from sklearn.linear_model import RidgeCV
    from sklearn.preprocessing import StandardScaler

    z, chosen = StandardScaler().fit_transform(x), training.solve_regressor(x, y)[2]["l2"]
    return float(1 + RidgeCV(alphas=[chosen]).fit(z, y).best_score_ / y.var(axis=0).mean())


def checked(values, labels, what="features"):
    """The checks that all scores share.

    Args:
        values: Shape (N, d).
        labels: Integers, shape (N,), or floats, shape (N,) or (N, outputs).
        what: Name of the values in messages.

    Returns:
        ``(values, labels, kind)``: float64 values; for ``kind`` ``"classes"`` labels numbered from 0 without gaps, for
        ``"numbers"`` float64, shape (N, outputs).

    Raises:
        ValueError: Values that are not two-dimensional, labels of another kind or length, fewer than two images, NaN or
            infinity, values that are the same for all images, or labels that are the same for all images.
    """
    x, y = np.asarray(values, "float64"), np.asarray(labels)
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"{what} must have the shape (images, {what}), not {x.shape}: pool or reshape them first")
    is_class = np.issubdtype(y.dtype, np.integer) and y.ndim == 1
    if not is_class and not (np.issubdtype(y.dtype, np.floating) and y.ndim in (1, 2) and y.size):
        raise ValueError(
            "labels must be integers of shape (images,) for classes, or floats of shape (images,) or (images, outputs) "
            f"for numbers, not {y.dtype} of shape {y.shape}"
        )
    if len(x) != len(y):
        raise ValueError(f"there are {what} of {len(x)} images, but {len(y)} labels: give one label an image")
    if len(x) < 2:
        raise ValueError(f"a transferability score compares images: it needs at least 2 of them, not {len(x)}")
    for name, array in ((what, x), ("labels", y)):
        if bad := int((~np.isfinite(array)).reshape(len(array), -1).any(axis=1).sum()):
            raise ValueError(
                f"the {name} of {bad} of {len(array)} images are NaN or infinite: leave these images out, or repair "
                "what made them so"
            )
    if not (np.ptp(x, axis=0) > 8 * _ROUNDING * np.abs(x).max(axis=0)).any():
        raise ValueError(
            f"the {what} are the same for all {len(x)} images, so they say nothing about the labels: check that the "
            "images differ and that the network is intact"
        )
    if is_class:
        classes, y = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"there must be at least 2 classes, but all {len(y)} labels are {classes[0]}")
        return x, y.reshape(-1), "classes"
    y = y.astype("float64").reshape(len(y), -1)
    if len(constant := np.flatnonzero(np.ptp(y, axis=0) == 0)):
        raise ValueError(
            f"all {len(y)} labels of output {constant[0]} are {y[0, constant[0]]:g}: there is nothing to predict, "
            "leave this output out"
        )
    return x, y, "numbers"


def _require_each_class(y, least, method, why):
    counts = np.bincount(y)
    if counts.min() < least:
        raise ValueError(
            f"{method} needs at least {least} images of each class, because {why}; the smallest of {len(counts)} "
            f"classes has {counts.min()}: give more labels, or use another method"
        )


def _mean_over_bins(score, values, numbers, *arguments):
    """The mean score over outputs, each cut into bins of equal size; images with the same number share a bin."""
    from scipy.stats import rankdata

    bins = (QUANTILE_BINS * (rankdata(numbers, axis=0) - 0.5) / len(numbers)).astype(int)
    return float(np.mean([score(values, column, *arguments) for column in bins.T]))


def frechet(one, other):
    """Fréchet distance between two sets of features, each taken for a Gaussian (Heusel et al., 2017).

    ‖m₁ − m₂‖² + tr(C₁ + C₂ − 2 (C₁ C₂)^½), with the means m and covariances C. It is no transferability score: it does
    not look at labels, and a smaller one means that the images are more alike for the network that made the features.

    Args:
        one: Shape (N, d).
        other: Shape (M, d).

    Returns:
        float: 0 for equal means and covariances; in squared units of the features.

    Raises:
        ValueError: The shapes do not fit, there are fewer than two rows, or a value is NaN or infinite.
    """
    one, other = np.asarray(one, "float64"), np.asarray(other, "float64")
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1]:
        raise ValueError(f"two sets of features of one network are wanted, not of shapes {one.shape} and {other.shape}")
    if min(len(one), len(other)) < 2 or not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise ValueError("each set needs at least two images, and no feature may be NaN or infinite")
    gap = ((one.mean(axis=0) - other.mean(axis=0)) ** 2).sum()
    a, b = ((x - x.mean(axis=0)) / np.sqrt(len(x) - 1) for x in (one, other))
    # The trace of the root of C₁ C₂ is the sum of the singular values of A Bᵀ, if C₁ = AᵀA and C₂ = BᵀB.
    common = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(gap + (a**2).sum() + (b**2).sum() - 2 * common)


def agreement(scores, outcomes):
    """How well scores rank candidates: Kendall's tau-b with the outcomes, and the regret of the candidate they pick.

    Args:
        scores: One a candidate, higher for a better guess.
        outcomes: What each candidate really reached, higher is better.

    Returns:
        ``(tau, regret)``: tau from −1 to 1, 0 where the scores are all level; the best outcome minus that of the
        candidate with the highest score, of several with the same score their mean.

    Raises:
        ValueError: Fewer than two candidates, or scores that are not as many as the outcomes.
    """
    from scipy.stats import kendalltau

    scores, outcomes = np.asarray(scores, float), np.asarray(outcomes, float)
    if scores.shape != outcomes.shape or scores.ndim != 1 or len(scores) < 2:
        raise ValueError(
            f"a ranking needs two or more candidates, with one score and one outcome each, not {scores.shape} and "
            f"{outcomes.shape}"
        )
    level, reached = _levelled(scores), _levelled(outcomes)
    tau = kendalltau(level, reached).statistic if np.ptp(level) > 0 and np.ptp(reached) > 0 else 0.0
    return float(tau), float(outcomes.max() - outcomes[level == level.max()].mean())


def _levelled(values):
    """Values along the last axis on a scale where those that differ by rounding only are level."""
    return np.round(values / np.maximum(np.abs(values).max(axis=-1, keepdims=True), 1e-300), 9)


def permutation_test(scores, outcomes, groups=None, *, times=10_000, seed=0):
    """Whether scores rank candidates better, or worse, than chance: a permutation test of Kendall's tau.

    Scores are dealt out to the candidates again and again, all draws of one candidate together, and tau-b with the
    outcomes is computed each time. An interval over draws cannot answer this: it says how much tau changes from draw to
    draw, and a score that means nothing and never changes has an interval without width.

    Args:
        scores: Shape (draws, candidates), higher for a better guess.
        outcomes: What each candidate reached, for each draw, shape (draws, candidates).
        groups: A name for each candidate. With it, scores are dealt out within each group only, which tests whether
            they know more than the group.
        times: Number of shuffles.
        seed: Seed of the shuffles.

    Returns:
        ``(tau, p)``: mean tau over the draws, and the two-sided p-value: the share of shuffles, this order counted as
        one of them, that lie at least as far from their own mean.

    Raises:
        ValueError: Shapes that differ or have not two dimensions, fewer than two candidates, NaN, or groups that are
            not as many as the candidates.
    """
    scores, outcomes = np.asarray(scores, float), np.asarray(outcomes, float)
    if scores.shape != outcomes.shape or scores.ndim != 2 or scores.shape[1] < 2:
        raise ValueError(
            "scores and outcomes must both have the shape (draws, candidates), with two or more candidates, not "
            f"{scores.shape} and {outcomes.shape}"
        )
    if not (np.isfinite(scores).all() and np.isfinite(outcomes).all()):
        raise ValueError("a score or an outcome is NaN or infinite: leave that candidate out")
    groups = np.zeros(scores.shape[1]) if groups is None else np.asarray(groups)
    if groups.shape != scores.shape[1:]:
        raise ValueError(f"{scores.shape[1]} candidates need as many groups, not {groups.shape}")
    blocks = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    first, second = np.triu_indices(scores.shape[1], 1)

    def order_of(values):
        """The order of every pair of candidates in each draw: −1, 0 or 1."""
        levelled = _levelled(values)
        return np.sign(levelled[:, :, None] - levelled[:, None, :])

    ahead, better = order_of(scores), order_of(outcomes)[:, first, second]
    ordered = np.sqrt((ahead[:, first, second] != 0).sum(axis=1) * (better != 0).sum(axis=1))
    weights = better / np.maximum(ordered, 1)[:, None] / len(scores)

    def tau(order):
        return (ahead[:, order[first], order[second]] * weights).sum()

    rng, order, dealt = np.random.default_rng(seed), np.arange(scores.shape[1]), np.empty(times)
    found = tau(order)
    for i in range(times):
        for block in blocks:
            order[block] = rng.permutation(block)
        dealt[i] = tau(order)
    as_far = np.abs(dealt - dealt.mean()) >= abs(found - dealt.mean()) - 1e-9
    return float(found), float((1 + as_far.sum()) / (1 + times))
