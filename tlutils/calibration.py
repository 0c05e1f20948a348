"""Calibration: does a model that says 80% have it right in 80% of the cases, and a temperature that mends it."""

import numpy as np

from tlutils.intervals import wilson
from tlutils.runtime import require_tensorflow

BINS = 15
BINNINGS = ("width", "mass")
TEMPERATURE_LAYER = "temperature"


def calibration_error(confidence, correct, bins=BINS, binning="width"):
    """Expected calibration error: mean gap between confidence and accuracy over bins, weighted by their size.

    Args:
        confidence: Probability that the model gives to the class it predicts, shape (N,).
        correct: Whether that class is the true one, shape (N,).
        bins: Number of bins.
        binning: ``"width"``: bins of equal width from 0 to 1 (Guo et al., 2017), where an edge belongs to the bin above
            it. ``"mass"``: bins of equally many images, so that none is nearly empty (as in the adaptive error of Nixon
            et al., 2019, who do so for every class); images of the same confidence stay together, so there may be
            fewer bins.

    Returns:
        float: from 0 to 1. Few images in a bin make a gap by chance alone: see :func:`error_if_calibrated`.

    Raises:
        ValueError: ``bins`` or ``binning`` is of no use, there is no image, a confidence is no probability, or
            ``correct`` is not as long as ``confidence``.
    """
    index, confidence, correct = _binned(confidence, correct, bins, binning)
    return float(np.abs(np.bincount(index, confidence - correct)).sum() / len(index))


def error_if_calibrated(confidence, bins=BINS, binning="width", *, samples=1000, seed=0):
    """The calibration error that a perfectly calibrated model of these confidences would show by chance.

    Right and wrong are drawn as the confidences say, again and again (consistency resampling: Bröcker and Smith, 2007).
    The error of a finite number of images is never 0, and the fewer they are, the larger it is.

    Args:
        confidence: As for :func:`calibration_error`.
        bins: As there.
        binning: As there.
        samples: Draws.
        seed: Seed of the draws.

    Returns:
        ``(mean, limit)``: the mean error of such a model, and what 95% of the draws stay below.
    """
    confidence, draw = np.asarray(confidence, float), np.random.default_rng(seed)
    index = _bin_of(confidence, bins, binning)
    expected, errors = np.bincount(index, confidence), []
    for _ in range(samples):
        right = np.bincount(index[draw.random(len(index)) < confidence], minlength=len(expected))
        errors.append(np.abs(expected - right).sum() / len(index))
    return float(np.mean(errors)), float(np.quantile(errors, 0.95))


def reliability(confidence, correct, bins=BINS, binning="width"):
    """The data of a reliability diagram.

    Args:
        confidence: As for :func:`calibration_error`.
        correct: As there.
        bins: As there.
        binning: As there.

    Returns:
        list of dict: one for each bin that holds images: ``images`` (how many), ``confidence`` and ``accuracy`` (their
        means), ``interval`` (Wilson's, of the accuracy).
    """
    index, confidence, correct = _binned(confidence, correct, bins, binning)
    rows = []
    for i in np.unique(index):
        inside = index == i
        images, right = int(inside.sum()), int(correct[inside].sum())
        mean = float(confidence[inside].mean())
        rows.append(
            {"images": images, "confidence": mean, "accuracy": right / images, "interval": wilson(right, images)}
        )
    return rows


def _binned(confidence, correct, bins, binning):
    """The number of the bin of each image, its confidence, and whether it is right."""
    confidence, correct = np.asarray(confidence, float), np.asarray(correct)
    if confidence.shape != correct.shape:
        raise ValueError(f"confidences have the shape {confidence.shape}, right and wrong answers {correct.shape}")
    return _bin_of(confidence, bins, binning), confidence, correct


def _bin_of(confidence, bins, binning):
    """The number of the bin of each image."""
    confidence = np.asarray(confidence, float)
    if isinstance(bins, bool) or not isinstance(bins, int | np.integer) or bins < 1:
        raise ValueError(f"bins must be a whole number of at least 1, not {bins!r}")
    if binning not in BINNINGS:
        raise ValueError(f"binning must be 'width' (equal width) or 'mass' (equally many images), not {binning!r}")
    if len(confidence) == 0:
        raise ValueError("there are no images to sort into bins")
    if not (np.all(confidence >= 0) and np.all(confidence <= 1 + 1e-9)):  # also false for NaN
        wrong = confidence[~((confidence >= 0) & (confidence <= 1 + 1e-9))][0]
        raise ValueError(f"a confidence is a probability from 0 to 1, not {wrong}")
    if binning == "width":
        return np.minimum((confidence * bins).astype(int), bins - 1)
    edges = np.quantile(confidence, np.arange(1, bins) / bins, method="inverted_cdf")
    return np.searchsorted(np.unique(edges), confidence)


def temperature(logits, labels, *, smoothing=0.0):
    """The temperature T for which softmax(logits / T) has the lowest log-loss (Guo et al., 2017).

    The log-loss is a convex function of 1/T, so there is one minimum, where its slope is zero.

    Args:
        logits: Shape (N, classes).
        labels: Integer classes, shape (N,).
        smoothing: Share of each label that is spread over the other classes. Above 0 there is a minimum even where
            every image is right. 1 / (N + 2) is Laplace's rule of succession, as if two more images had been seen, one
            of them wrong; Platt (1999) takes his targets from it.

    Returns:
        float: above 1 for a model that is too sure of itself, below 1 for one that is too modest.

    Raises:
        ValueError: There is no minimum: every image is right, so that ever more confidence is ever better; or the
            logits are no better than chance, so that the best confidence is none. Or a logit is NaN or infinite, or
            ``smoothing`` is no share.
    """
    from scipy.optimize import brentq
    from scipy.special import softmax

    logits, labels = np.asarray(logits, float), np.asarray(labels)
    if not np.isfinite(logits).all():
        raise ValueError(f"the logits of {(~np.isfinite(logits)).any(axis=1).sum()} images are NaN or infinite")
    most = 1 - 1 / logits.shape[1]  # all classes alike
    if not 0 <= smoothing < most:
        raise ValueError(f"smoothing is a share, at least 0 and below {most:.3g}, not {smoothing!r}")
    true = logits[np.arange(len(labels)), labels]
    others = (logits.sum(axis=1) - true) / (logits.shape[1] - 1)
    wanted = (1 - smoothing) * true + smoothing * others

    def slope(inverse):
        return float(((softmax(logits * inverse, axis=1) * logits).sum(axis=1) - wanted).mean())

    if slope(0) >= 0:
        raise ValueError(
            f"no temperature helps: the logit of the true class is {true.mean():.4g} on average, not above the mean of "
            f"all logits, {logits.mean():.4g}; are labels and logits in the same order of classes?"
        )
    if not smoothing and np.all(true >= logits.max(axis=1)):
        raise ValueError(
            f"all {len(labels)} images are right: the log-loss falls for ever as the temperature goes to 0, and they "
            "cannot say where to stop; take more images, some of which the model gets wrong"
        )
    upper = 1.0
    while slope(upper) <= 0:
        upper *= 2
    return 1 / brentq(slope, 0, upper, rtol=1e-12)


def calibrate(model, examples, *, batch_size=64):
    """Temperature scaling (Guo et al., 2017): one Keras model that divides the logits by the best temperature.

    The predicted classes stay what they are; only the confidence changes. The result is the same network with one more
    layer, ``"temperature"``, a plain ``Rescaling``: it is saved and loaded like any other. It shares its layers with
    ``model``, which is left as it is. A model that has such a layer already gets a new temperature.

    Args:
        model: Classifier: functional or sequential keras.Model, raw pixels to logits (N, classes), or to the single
            logit (N, 1) of a binary classifier.
        examples: :class:`~tlutils.data.Examples` that the model has not learned from, such as the validation images.
            What they say of the calibrated model is no test: measure it on other images.
        batch_size: Images a step.

    Returns:
        keras.Model: raw pixels to logits / T, in float32. T is ``1 / model.get_layer("temperature").scale``.

    Raises:
        ValueError: Training images (a model is surer of them than of any others), a model that gives probabilities or
            has no fixed graph, or no temperature is best (see :func:`temperature`).
    """
    from tlutils.evaluation import evaluate  # here, because that module imports this one

    require_tensorflow()
    import keras

    if not getattr(model, "inputs", None):
        raise ValueError(f"{model!r} has no inputs to build on: it must be a functional or sequential model, built")
    if examples.split == "train":
        raise ValueError(
            f"these are {len(examples):,} training images: the model is surer of them than of any others, and its "
            "temperature would come out too low; calibrate on validation images"
        )
    output = model.layers[-1].input if model.layers[-1].name == TEMPERATURE_LAYER else model.outputs[0]
    bare = keras.Model(model.inputs, output, name=model.name) if output is not model.outputs[0] else model
    report = evaluate(bare, examples, batch_size=batch_size)
    if not report.is_classifier:
        raise ValueError("a regression has no confidence to calibrate: the labels must be classes")
    scale = 1 / temperature(report.outputs, report.labels)
    # float32 even where the rest computes in float16, as the logits themselves
    scaled = keras.layers.Rescaling(scale, dtype="float32", name=TEMPERATURE_LAYER)(output)
    return keras.Model(model.inputs, scaled, name=model.name)
