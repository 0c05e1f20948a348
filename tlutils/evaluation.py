"""Evaluation: one look at the test images, with intervals, and fair comparisons.

:class:`Report` lives in ``tlutils.reports``, intervals in ``tlutils.intervals``, calibration in
``tlutils.calibration`` and model cards in ``tlutils.cards``; all of it is reached from here.
"""

from dataclasses import dataclass, field

import numpy as np

from tlutils import inspection
from tlutils.calibration import calibrate, calibration_error, error_if_calibrated, reliability, temperature
from tlutils.cards import model_card
from tlutils.intervals import CONFIDENCE, bootstrap_mean, bootstrap_share, f1_interval, wilson
from tlutils.reports import SPLITS, Report, report

__all__ = [
    "CONFIDENCE",
    "TRANSFERABILITY_METHODS",
    "Comparison",
    "Repeated",
    "Report",
    "bootstrap_mean",
    "bootstrap_share",
    "calibrate",
    "calibration_error",
    "compare",
    "error_if_calibrated",
    "evaluate",
    "f1_interval",
    "from_rows",
    "holm",
    "model_card",
    "over_seeds",
    "pack",
    "reliability",
    "repeat",
    "repeated",
    "report",
    "summarise",
    "temperature",
    "transferability",
    "wilson",
]


def evaluate(model, examples, *, class_names=None, batch_size=64, from_logits=True):
    """Measure a model on labelled images.

    Args:
        model: Raw pixels 0–255 to logits (N, classes), to the single logit (N, 1) of a binary classifier (see
            :func:`report`), or to numbers (N, outputs).
        examples: :class:`~tlutils.data.Examples`.
        class_names: Names of the classes, in the order of the logits; ``None`` numbers them.
        batch_size: Images a step.
        from_logits: ``False`` for a classifier that ends in a softmax, or a binary one that ends in a sigmoid: its
            probabilities are then taken as they are.

    Returns:
        Report

    Raises:
        ValueError: There is no example, a label has no logit, the names are not as many as the logits, the model gives
            NaN or infinity, or it gives probabilities where logits are expected, or the reverse.
    """
    if examples is None:
        raise ValueError("there are no examples: the task has no such split; measure on task.val, and say so")
    if len(examples) == 0:
        raise ValueError("there are no examples to evaluate on")
    outputs = np.asarray(model.predict(examples.batches(batch_size), verbose=0), "float64")
    if np.issubdtype(examples.labels.dtype, np.integer) and outputs.ndim == 2 and np.isfinite(outputs).all():
        outputs = _logits(model, outputs, from_logits)
    return report(outputs, examples.labels, class_names=class_names, split=examples.split)


def _logits(model, outputs, from_logits):
    """Outputs of a classifier as logits; a softmax over probabilities would squeeze them towards each other, unseen."""
    single = outputs.shape[1] == 1
    probable = outputs.min() >= 0 and (outputs.max() <= 1 if single else np.allclose(outputs.sum(axis=1), 1, atol=1e-3))
    if from_logits:
        # A single number from 0 to 1 may be a logit, and so may zeros and ones: the model itself must say what it is.
        telling = not single and not np.isin(outputs, (0, 1)).all()
        if probable and (telling or inspection.ending(model) in ("softmax", "sigmoid")):
            what = "it ends in a sigmoid" if single else "each row sums to 1: it ends in a softmax"
            raise ValueError(
                f"the model gives probabilities, not logits ({what}); say from_logits=False to evaluate it, or take "
                "that activation off"
            )
        return outputs
    if not probable:
        row = int(np.abs(outputs.sum(axis=1) - 1).argmax())
        raise ValueError(
            f"from_logits=False is for probabilities, and the outputs of image {row} run from {outputs[row].min():.4g} "
            f"to {outputs[row].max():.4g} with sum {outputs[row].sum():.4g}"
        )
    if single:
        outputs = np.concatenate([1 - outputs, outputs], axis=1)
    return np.log(np.maximum(outputs, np.finfo("float32").tiny))  # what rounds to 0 is no more certain than that


TRANSFERABILITY_METHODS = ("knn", "leep", "hscore", "hscore-shrunk", "logme", "probe")


def transferability(backbone, task, method="logme", *, cache_dir=None, seed=0):
    """Guess how well a backbone will transfer to a task, without fine-tuning it.

    Only ``task.train`` is looked at. Its images go through the backbone once, with average pooling; ``"leep"`` runs the
    classifier of the source task instead. For a regression see what :mod:`tlutils.transferability` says of each score.

    Args:
        backbone: A :class:`~tlutils.backbones.Backbone`.
        task: An :class:`~tlutils.data.ImageTask`.
        method: ``"knn"``, ``"leep"``, ``"hscore"``, ``"hscore-shrunk"``, ``"logme"`` or ``"probe"``: the functions of
            :mod:`tlutils.transferability`, with their formulas and papers.
        cache_dir: Folder in which to keep the features or probabilities, see :func:`tlutils.features.extract`.
        seed: Seed of the folds of ``"probe"``; the other methods draw nothing.

    Returns:
        float: higher for a backbone that is expected to transfer better. To be compared only among backbones scored by
        the same method on the same task.

    Raises:
        ValueError: The method is unknown, ``"leep"`` finds no classifier of the source task, or the labels or features
            do not allow the score; the message says why.
    """
    from tlutils import features
    from tlutils import transferability as scores

    if method not in TRANSFERABILITY_METHODS:
        raise ValueError(f"unknown method {method!r}; choose from {', '.join(TRANSFERABILITY_METHODS)}")
    network = backbone
    if method == "leep":
        if backbone.source_classifier is None:
            others = ", ".join(name for name in TRANSFERABILITY_METHODS if name != "leep")
            raise ValueError(
                f"LEEP needs the classifier of the source task, and there is none for {backbone.name}: its weights are "
                "random or from elsewhere, its structure was changed, or Keras' file of weights with the classifier is "
                f"not on this machine. Use another method: {others}"
            )
        network = backbone.source_classifier()
    values, labels = features.extract(network, task.train, cache_dir), task.train.labels
    if method in ("hscore", "hscore-shrunk"):
        return scores.hscore(values, labels, shrinkage=method == "hscore-shrunk")
    if method == "probe":
        return scores.probe(values, labels, seed)
    return getattr(scores, method)(values, labels)


def _right(report, name):
    """Whether each image was right, for the function of this name."""
    if not report.is_classifier:
        raise ValueError(
            f"{name} is for classifiers: it counts right and wrong answers, and a regression has neither; "
            "compare the mean absolute errors instead"
        )
    return report.correct


def _all_alike(mean, n, lowest, highest, confidence=CONFIDENCE):
    """The interval of a mean of ``n`` images that all scored the same, on a scale from ``lowest`` to ``highest``.

    Nothing varied, so there is no variance to estimate; but images that score otherwise may just be rare. So many of
    them are possible as ``n`` images miss with probability (1 − confidence) / 2 (Clopper and Pearson, 1934).
    """
    unseen = 1 - ((1 - confidence) / 2) ** (1 / n)
    return mean - unseen * (mean - lowest), mean + unseen * (highest - mean)


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found.

    Attributes:
        difference: Accuracy of ``a`` minus accuracy of ``b`` on the same images.
        interval: 95% bootstrap interval of the difference over test images; where all images say the same, what so
            many of them can exclude. With fewer than about ten images that only one of the two got right it is too
            narrow: trust the test then, also where the interval leaves zero out.
        only_a: Images that only ``a`` got right.
        only_b: Images that only ``b`` got right.
        p_value: McNemar's exact test of equal accuracy.
        images: What the images are: ``"test images"``, ``"validation images"`` …
    """

    difference: float
    interval: tuple
    only_a: int
    only_b: int
    p_value: float
    images: str = "test images"

    def __str__(self):
        low, high = self.interval
        return (
            f"difference {self.difference:+.3f}\n"
            f"95% interval {low:+.3f} to {high:+.3f} (over {self.images})\n"
            f"{self.only_a} images only the first gets right, {self.only_b} only the second\n"
            f"McNemar's exact test p = {self.p_value:.3g}"
        )


def compare(a, b, *, samples=10_000, seed=0):
    """Compare two models on the same test images, pair by pair.

    Args:
        a: A Report.
        b: A Report on the same examples in the same order.
        samples: Bootstrap samples.
        seed: Seed of the bootstrap.

    Returns:
        Comparison

    Raises:
        ValueError: The reports were not made on the same labels, or are not of classifiers.
    """
    from scipy.stats import binomtest

    right_a, right_b = _right(a, "compare"), _right(b, "compare")
    if not np.array_equal(a.labels, b.labels):
        raise ValueError("the two reports were not made on the same examples in the same order")
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    n = len(a.labels)
    # Resampling the images with replacement only changes how often each kind of pair is drawn.
    draws = np.random.default_rng(seed).multinomial(n, np.array([only_a, only_b, n - only_a - only_b]) / n, samples)
    low, high = np.quantile((draws[:, 0] - draws[:, 1]) / n, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    if n in (only_a, only_b, n - only_a - only_b):
        low, high = _all_alike((only_a - only_b) / n, n, -1, 1)
    p = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    split = a.split or b.split
    images = SPLITS[split] if split else "the choice of images"
    return Comparison((only_a - only_b) / n, (float(low), float(high)), only_a, only_b, float(p), images)


@dataclass(frozen=True)
class Repeated:
    """A score, such as the accuracy, over seeds and images.

    Attributes:
        mean: Mean over the seeds.
        interval: Interval of the mean; where no score differs from another, what so many images can exclude.
        covers: What the interval covers, in words.
        seeds: The seeds.
        accuracies: Mean of each seed.
        correct: Whether each image was right, or its score, shape (seeds, images); kept for paired differences.
        confidence: Coverage of the interval.
        p_value: Of a difference: the two-sided test that its mean is zero, from the same t; it is below 1 − confidence
            just where the interval leaves zero out. ``None`` where the scores are right and wrong answers.
        images: What the images are: ``"test images"``, ``"validation images"`` …
    """

    mean: float
    interval: tuple
    covers: str
    seeds: tuple
    accuracies: tuple
    correct: np.ndarray = field(repr=False)
    confidence: float = CONFIDENCE
    p_value: float | None = None
    images: str = "test images"

    def __str__(self):
        low, high = self.interval
        return f"{self.mean:.3f}, {low:.3f} to {high:.3f} ({100 * self.confidence:.4g}% over {self.covers})"

    def __sub__(self, other):
        """The difference of two methods run with the same seeds on the same images, paired by both."""
        if self.seeds != other.seeds or self.correct.shape != other.correct.shape:
            raise ValueError("only runs with the same seeds on the same test images can be paired")
        gain = self.correct.astype(float) - other.correct
        return repeated(self.seeds, gain, confidence=self.confidence, images=self.images)


def repeat(run, seeds):
    """Run something for several seeds and give its accuracy with an interval over seeds *and* test images.

    See :func:`repeated` for the interval: a new reader would have other labels to train on and other images to test
    on, and both count.

    Args:
        run: Function of a seed that returns a :class:`Report`; every seed on the same test images.
        seeds: The seeds, at least two.

    Returns:
        Repeated: subtract one from another for the paired difference of two methods.

    Raises:
        ValueError: Fewer than two seeds, reports on different examples, or reports that are not of classifiers.
    """
    seeds = tuple(seeds)
    if len(seeds) < 2:
        raise ValueError(f"an interval over seeds needs at least 2 seeds, not {len(seeds)}")
    labels, correct = None, []
    for seed in seeds:
        report = run(seed)
        correct.append(_right(report, "repeat"))
        labels = report.labels if labels is None else labels
        if not np.array_equal(report.labels, labels):
            raise ValueError("every seed must be evaluated on the same examples in the same order")
    return repeated(seeds, np.stack(correct), images=SPLITS[report.split])


def repeated(seeds, correct, *, confidence=CONFIDENCE, images="test images"):
    """The mean of one score for each seed and image, with an interval over both.

    Seeds and images are crossed random effects: the variance of the mean is estimated from the mean squares of a
    two-way analysis of variance, and Student's t takes Satterthwaite's degrees of freedom, so that a handful of seeds
    gives an honestly wide interval.

    Args:
        seeds: The seeds.
        correct: Shape (seeds, images): booleans, whether the image was right, or numbers, such as a difference of two
            such arrays or of losses. The interval ends where the scale does: at 0 and 1, at −1 and 1, or, of numbers
            beyond those, at the largest of them and its negative.
        confidence: Coverage; raise it to 1 − 0.05/m when m comparisons are read together (Bonferroni).
        images: What the images are, for :attr:`Repeated.covers`.

    Returns:
        Repeated

    Raises:
        ValueError: Fewer than two seeds or two images, seeds that are not as many as the rows, or scores that are NaN
            or infinite.
    """
    from scipy.stats import t

    seeds, scores = tuple(seeds), np.asarray(correct, float)
    if scores.ndim != 2 or min(scores.shape) < 2:
        raise ValueError(f"an interval over both needs at least 2 seeds and 2 images, not scores of {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError(f"{(~np.isfinite(scores)).sum()} of {scores.size} scores are NaN or infinite")
    n_seeds, n_images = scores.shape
    if len(seeds) != n_seeds:
        raise ValueError(f"there are {len(seeds)} seeds, but {n_seeds} rows of scores")
    mean, by_seed, by_image = scores.mean(), scores.mean(axis=1), scores.mean(axis=0)
    rest = scores - by_seed[:, None] - by_image + mean
    degrees = np.array([n_seeds - 1, n_images - 1, (n_seeds - 1) * (n_images - 1)])
    squares = np.array(
        [n_images * ((by_seed - mean) ** 2).sum(), n_seeds * ((by_image - mean) ** 2).sum(), (rest**2).sum()]
    )
    seed, image, residual = squares / degrees
    # An effect that is smaller than chance alone would make it is no effect, not a negative one.
    seed, image = max(seed, residual), max(image, residual)
    variance = (seed + image - residual) / scores.size
    highest = max(1, np.abs(scores).max())  # above 1 for losses, and where differences were subtracted from each other
    lowest = 0 if np.asarray(correct).dtype == bool else -highest
    if variance > 0:
        freedom = (variance * scores.size) ** 2 / (np.array([seed, image, residual]) ** 2 / degrees).sum()
        half = t.ppf((1 + confidence) / 2, freedom) * np.sqrt(variance)
        low, high = max(mean - half, lowest), min(mean + half, highest)
        p_value = 2 * t.sf(abs(mean) / np.sqrt(variance), freedom)
    else:
        low, high = _all_alike(mean, n_images, lowest, highest, confidence)
        p_value = min(1.0, 2 * (highest / (highest + abs(mean))) ** n_images)  # where that interval ends at zero
    return Repeated(
        float(mean),
        (float(low), float(high)),
        f"{n_seeds} seeds and {n_images:,} {images}",
        seeds,
        tuple(float(a) for a in by_seed),
        np.asarray(correct),
        confidence,
        None if np.asarray(correct).dtype == bool else float(p_value),
        images,
    )


def holm(p_values):
    """Adjust p-values for having looked at all of them (Holm, 1979).

    The smallest of m is multiplied by m, the next by m − 1, and so on, and none may be smaller than the one before it.
    Calling those below 0.05 real, one is wrong about any of them with a probability of at most 0.05, however the tests
    depend on each other; it finds all that Bonferroni's correction finds, and sometimes more.

    Args:
        p_values: Shape (m,), numbers from 0 to 1.

    Returns:
        ndarray: the adjusted p-values, shape (m,), in the order given.

    Raises:
        ValueError: A p-value does not lie between 0 and 1, or they are not in one row.
    """
    p = np.asarray(p_values, float)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values are a row of numbers from 0 to 1, not {p_values!r}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted


def over_seeds(values, confidence=CONFIDENCE):
    """Mean of one number a seed with Student's t interval, for scores that have no test image behind each part of them.

    Args:
        values: One number a seed, at least two.
        confidence: Coverage; raise it to 1 − 0.05/m when m comparisons are read together (Bonferroni).

    Returns:
        ``(mean, low, high)``: the interval covers the seeds, not the choice of test images.

    Raises:
        ValueError: Fewer than two numbers.
    """
    from scipy.stats import t

    values = np.asarray(values, float)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"an interval over seeds needs at least 2 numbers, one a seed, not shape {values.shape}")
    half = t.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def pack(report):
    """Which test images a classifier's report got right, as a short string to store in a row of an experiment."""
    return np.packbits(_right(report, "pack")).tobytes().hex()


def from_rows(rows, *, confidence=CONFIDENCE, **where):
    """The :class:`Repeated` of a stored experiment's rows.

    Args:
        rows: Dicts with ``seed``, ``images`` (how many test images) and ``correct`` (see :func:`pack`).
        confidence: Coverage, see :func:`repeated`.
        **where: Which rows: the values of other keys, such as ``method="probe"``.

    Returns:
        Repeated: one row a seed, in the order of the seeds.

    Raises:
        ValueError: Fewer than two rows match, or two of them have the same seed.
    """
    chosen = sorted(
        (row for row in rows if all(row.get(k) == v for k, v in where.items())), key=lambda row: row["seed"]
    )
    seeds = tuple(row["seed"] for row in chosen)
    if len(seeds) < 2 or len(set(seeds)) < len(seeds):
        raise ValueError(f"{where} selects the seeds {list(seeds)}; it must select two or more, each once")
    bits = [np.frombuffer(bytes.fromhex(row["correct"]), np.uint8) for row in chosen]
    correct = np.stack([np.unpackbits(b, count=row["images"]) for b, row in zip(bits, chosen)]).astype(bool)
    return repeated(seeds, correct, confidence=confidence)


def summarise(rows, by):
    """Mean and interval of each group of a stored experiment's rows.

    Args:
        rows: As for :func:`from_rows`.
        by: Names of the keys that make a group, such as ``("method", "labels_per_class")``.

    Returns:
        list of dict: the keys of ``by``, and ``mean``, ``low``, ``high``, ``seeds``, in order of first appearance.
    """
    groups = dict.fromkeys(tuple(row[key] for key in by) for row in rows)
    summary = []
    for group in groups:
        where = dict(zip(by, group))
        result = from_rows(rows, **where)
        low, high = result.interval
        summary.append({**where, "mean": result.mean, "low": low, "high": high, "seeds": len(result.seeds)})
    return summary
