"""Intervals of a proportion or a mean over images, for :mod:`tlutils.evaluation`."""

import numpy as np

CONFIDENCE = 0.95
SAMPLES = 2000  # of a bootstrap; the ends of an interval then move by 1 or 2% of its width with the seed


def wilson(successes, n, confidence=CONFIDENCE):
    """Wilson's score interval for a proportion (Wilson, 1927).

    Args:
        successes: Number of successes.
        n: Number of trials, at least 1.
        confidence: Coverage of the interval.

    Returns:
        ``(low, high)``

    Raises:
        ValueError: There is no trial, or the successes are fewer than 0 or more than the trials.
    """
    from scipy.stats import binomtest

    _check_counts(successes, n)
    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_share(successes, n, confidence=CONFIDENCE):
    """The percentile bootstrap interval of a proportion (Efron, 1979), without drawing anything.

    Drawn with replacement, the number of successes has a binomial distribution, so that the quantiles of infinitely
    many bootstrap samples are known. Where all trials succeed, or none, every sample says the same and the interval has
    no width: take :func:`wilson` near 0 and 1.

    Args:
        successes: Number of successes.
        n: Number of trials, at least 1.
        confidence: Coverage of the interval.

    Returns:
        ``(low, high)``

    Raises:
        ValueError: As of :func:`wilson`.
    """
    from scipy.stats import binom

    _check_counts(successes, n)
    ends = binom.ppf([(1 - confidence) / 2, (1 + confidence) / 2], n, successes / n) / n
    return float(ends[0]), float(ends[1])


def _check_counts(successes, n):
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"a share needs at least 1 trial and from 0 to all of them right, not {successes} of {n}")


def bootstrap_mean(values, confidence=CONFIDENCE, samples=SAMPLES, seed=0):
    """The percentile bootstrap interval of a mean of one number an image.

    Where a few images make most of the mean, as of the log-loss of an overconfident model, a test of about a hundred
    images may not hold one of them, and the interval is too narrow.

    Args:
        values: Shape (N,).
        confidence: Coverage of the interval.
        samples: Bootstrap samples.
        seed: Seed of the draws.

    Returns:
        ``(low, high)``, or ``None`` where nothing varies, for then the bootstrap has nothing to say.

    Raises:
        ValueError: The values are not one finite number an image.
    """
    values, draw = np.asarray(values, float), np.random.default_rng(seed)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        wrong = f"{(~np.isfinite(values)).sum()} of shape {values.shape} are NaN or infinite"
        raise ValueError(f"a mean over images needs one finite number an image; {wrong}")
    n = len(values)
    return percentiles([values[draw.integers(n, size=n)].mean() for _ in range(samples)], confidence)


def bootstrap_classes(true, predicted, classes, samples=SAMPLES, seed=0):
    """What counts in scores of classes, in bootstrap samples of the images.

    Args:
        true: True classes, integers of shape (N,).
        predicted: Predicted classes, shape (N,).
        classes: Number of classes.
        samples: Bootstrap samples.
        seed: Seed of the draws.

    Returns:
        Three ndarrays of shape (samples, classes): right answers, images and predictions of each class.
    """
    draw, n = np.random.default_rng(seed), len(true)
    right, images, named = np.empty((3, samples, classes), int)
    for i in range(samples):
        chosen = draw.integers(n, size=n)
        t, p = true[chosen], predicted[chosen]
        parts = t[t == p], t, p
        right[i], images[i], named[i] = (np.bincount(part, minlength=classes) for part in parts)
    return right, images, named


def percentiles(draws, confidence=CONFIDENCE):
    """The central interval of bootstrap draws, or ``None`` where all of them are the same."""
    draws = np.asarray(draws, float)
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return None if np.ptp(draws) < 1e-12 else (float(low), float(high))


def reflected(value, draws, confidence=CONFIDENCE):
    """The basic bootstrap interval (Davison and Hinkley, 1997) of a score from 0 to 1 whose draws are too low.

    With few images a class the mean F1 of a bootstrap sample is too low, as the mean F1 itself is: the percentiles
    would add one bias to the other. The basic interval reflects them at the score, so that the two cancel out. With
    three images a class even this one is too narrow (simulated, of 100 classes: 95% caught the truth in about 77%).

    Args:
        value: The score of all images.
        draws: Its bootstrap draws, shape (samples,).
        confidence: Coverage of the interval.

    Returns:
        ``(low, high)``, or ``None`` where nothing varies.
    """
    ends = percentiles(draws, confidence)
    return ends and (max(float(2 * value - ends[1]), 0.0), min(float(2 * value - ends[0]), 1.0))


def f1_interval(both, either, confidence=CONFIDENCE):
    """Interval of the F1 score of one class.

    F1 is 2J / (1 + J), where J is the share of the images that are of the class *and* named so among those that are of
    the class *or* named so. J is a proportion and has Wilson's interval; F1 grows with J, so the ends carry over.

    Args:
        both: Images of the class that were named so.
        either: Images of the class or named so.
        confidence: Coverage of the interval.

    Returns:
        ``(low, high)``; ``(0.0, 1.0)`` where there is no such image.
    """
    if not either:
        return 0.0, 1.0
    low, high = wilson(both, either, confidence)
    return 2 * low / (1 + low), 2 * high / (1 + high)
