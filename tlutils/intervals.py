"""Intervals of a proportion or a mean over images, for :mod:`tlutils.evaluation`."""

import numpy as np

CONFIDENCE = 0.95
SAMPLES = 2000  # of a bootstrap; the ends of its interval then move by a few per cent of its width with the seed


def wilson(successes, n, confidence=CONFIDENCE):
    """Wilson's score interval for a proportion (Wilson, 1927).

    Args:
        successes: Number of successes.
        n: Number of trials, at least 1.
        confidence: Coverage of the interval.

    Returns:
        ``(low, high)``
    """
    from scipy.stats import binomtest

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
    """
    from scipy.stats import binom

    ends = binom.ppf([(1 - confidence) / 2, (1 + confidence) / 2], n, successes / n) / n
    return float(ends[0]), float(ends[1])


def bootstrap_mean(values, confidence=CONFIDENCE, samples=SAMPLES, seed=0):
    """The percentile bootstrap interval of a mean of one number an image.

    Args:
        values: Shape (N,).
        confidence: Coverage of the interval.
        samples: Bootstrap samples.
        seed: Seed of the draws.

    Returns:
        ``(low, high)``, or ``None`` where nothing varies, for then the bootstrap has nothing to say.
    """
    values, draw = np.asarray(values, float), np.random.default_rng(seed)
    n = len(values)
    means = [values[draw.integers(n, size=n)].mean() for _ in range(samples)]
    return percentiles(means, confidence)


def bootstrap_cells(counts, scores, confidence=CONFIDENCE, samples=SAMPLES, seed=0):
    """The basic bootstrap interval of scores that depend on a confusion matrix alone and lie between 0 and 1.

    Drawing images with replacement draws the cells of the matrix from a multinomial distribution. With few images a
    class the mean F1 of a bootstrap sample is too low, as the mean F1 itself is: the percentiles would add one bias to
    the other. The basic interval (Davison and Hinkley, 1997) reflects them at the score, so that the two cancel out.

    Args:
        counts: Confusion matrix, shape (classes, classes); rows are true, columns predicted.
        scores: Function of the right answers, the images and the predictions of each class, each of shape
            (samples, classes), that gives a list of scores, each of shape (samples,).
        confidence: Coverage of the interval.
        samples: Bootstrap samples.
        seed: Seed of the draws.

    Returns:
        list: for each score ``(value, interval)``, the interval ``(low, high)``, or ``None`` where nothing varies.
    """
    true, predicted = np.nonzero(counts)
    n, classes, draw = int(counts.sum()), np.arange(len(counts)), np.random.default_rng(seed)
    by_true, by_prediction = (np.equal.outer(index, classes).astype(float) for index in (true, predicted))

    def scored(cells):
        return scores(cells @ (by_true * by_prediction), cells @ by_true, cells @ by_prediction)

    found, at_once = [], max(1, 2_000_000 // len(true))  # many classes would fill the memory
    for first in range(0, samples, at_once):
        draws = draw.multinomial(n, counts[true, predicted] / n, min(at_once, samples - first))
        found.append(scored(draws.astype(float)))
    result = []
    for (value,), *parts in zip(scored(counts[true, predicted][None].astype(float)), *found):
        ends = percentiles(np.concatenate(parts), confidence)
        interval = ends and (max(float(2 * value - ends[1]), 0.0), min(float(2 * value - ends[0]), 1.0))
        result.append((float(value), interval))
    return result


def percentiles(draws, confidence=CONFIDENCE):
    """The central interval of bootstrap draws, or ``None`` where all of them are the same."""
    draws = np.asarray(draws, float)
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return None if np.ptp(draws) < 1e-12 else (float(low), float(high))


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
