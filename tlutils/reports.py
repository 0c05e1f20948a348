"""What was measured on labelled images: the ``Report`` of :mod:`tlutils.evaluation`, its numbers and its tables."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from textwrap import fill

import numpy as np

from tlutils import calibration
from tlutils.calibration import BINS
from tlutils.intervals import (
    CONFIDENCE,
    SAMPLES,
    bootstrap_classes,
    bootstrap_mean,
    bootstrap_share,
    f1_interval,
    percentiles,
    reflected,
    wilson,
)
from tlutils.tables import as_html, as_text, ends_text

SPLITS = {None: "images", "train": "training images", "val": "validation images", "test": "test images"}
_REMARKS = {
    "train": " (no measure of what is new to the model)",
    "val": " (not a test: choices may have been made on them)",
}
_FORMAT = "tlutils report 1"
_PER_CLASS = ("precision", "recall", "f1")
_MOST_ROWS = 30  # classes that a printed table lists
_WIDTH = 66  # of a printed line; the tables are wider only where the names of the classes are long


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """What a model's outputs are worth on labelled images; made by :func:`evaluate` and :func:`report`.

    Every number is computed when it is first asked for. Intervals cover the choice of images only: not the seeds, not
    the choice of training images.

    Attributes:
        labels: The true classes, integers of shape (N,); for regression the true numbers, (N,) or (N, outputs).
        outputs: Logits, shape (N, classes), at least two; for regression numbers of the shape of ``labels``.
        class_names: Names of the classes; ``None`` for regression.
        split: The side of the task that was measured: ``"train"``, ``"val"``, ``"test"`` or ``None`` (unknown).
    """

    labels: np.ndarray
    outputs: np.ndarray
    class_names: tuple | None = None
    split: str | None = field(default=None)

    def __len__(self):
        return len(self.labels)

    @property
    def measured_on(self):
        """Number of images, and which split they are; of validation images it says that they are no test."""
        return f"{len(self):,} {SPLITS[self.split]}{_REMARKS.get(self.split, '')}"

    @property
    def is_classifier(self):
        """Whether there are classes, not numbers."""
        return self.class_names is not None

    def subset(self, indices):
        """The Report on some of the images (integers, or a boolean mask): a slice, a group, a bootstrap sample.

        Raises:
            ValueError: No image is left.
        """
        labels = self.labels[indices]
        if len(labels) == 0:
            raise ValueError("no image is left in this slice of the report")
        return Report(labels, self.outputs[indices], self.class_names, self.split)

    # --- classification -----------------------------------------------------------------------------------------------

    @cached_property
    def log_probabilities(self):
        """Logarithm of the softmax of the logits, shape (N, classes); ``None`` for regression."""
        if not self.is_classifier:
            return None
        shifted = self.outputs - self.outputs.max(axis=1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

    @cached_property
    def probabilities(self):
        """Softmax of the logits, shape (N, classes); ``None`` for regression."""
        return np.exp(self.log_probabilities) if self.is_classifier else None

    @cached_property
    def predictions(self):
        """Predicted classes, shape (N,), the first of those that tie; for regression the predicted numbers."""
        return self.outputs.argmax(axis=1) if self.is_classifier else self.outputs

    @cached_property
    def correct(self):
        """Whether each image was right, shape (N,); ``None`` for regression."""
        return self.predictions == self.labels if self.is_classifier else None

    @cached_property
    def confidence(self):
        """Probability of the predicted class, shape (N,); ``None`` for regression."""
        return self.probabilities.max(axis=1) if self.is_classifier else None

    @property
    def accuracy(self):
        """Share of right predictions; ``None`` for regression."""
        return float(self.correct.mean()) if self.is_classifier else None

    @cached_property
    def interval(self):
        """Wilson's 95% interval of the accuracy; ``None`` for regression."""
        return wilson(int(self.correct.sum()), len(self)) if self.is_classifier else None

    @cached_property
    def bootstrap_interval(self):
        """The percentile bootstrap's 95% interval of the accuracy; it has no width where all images are right."""
        return bootstrap_share(int(self.correct.sum()), len(self)) if self.is_classifier else None

    @cached_property
    def confusion(self):
        """Counts, shape (classes, classes); rows are true, columns predicted; ``None`` for regression."""
        if not self.is_classifier:
            return None
        counts = np.zeros((len(self.class_names),) * 2, int)
        np.add.at(counts, (self.labels, self.predictions), 1)
        return counts

    @cached_property
    def _counts(self):
        """Right answers, images and predictions of each class."""
        return np.diag(self.confusion), self.confusion.sum(axis=1), self.confusion.sum(axis=0)

    @property
    def balanced_accuracy(self):
        """Mean recall of the classes that have images, each class counting the same; ``None`` for regression."""
        return float(_mean_recall(*self._counts)) if self.is_classifier else None

    @property
    def macro_f1(self):
        """Mean F1 of the classes that have images or predictions; ``None`` for regression."""
        return float(_mean_f1(*self._counts)) if self.is_classifier else None

    def top_k(self, k):
        """Share of images whose true class is among the ``k`` largest logits, and Wilson's interval of it.

        Of classes that tie, the first counts as the larger, as for ``predictions``.

        Returns:
            ``(share, low, high)``

        Raises:
            ValueError: ``k`` is not from 1 to the number of classes, or the report is of a regression.
        """
        self._need_classes("top_k")
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= len(self.class_names):
            raise ValueError(f"k must be a whole number from 1 to {len(self.class_names)}, the classes, not {k!r}")
        true = self.outputs[np.arange(len(self)), self.labels][:, None]
        earlier = np.arange(len(self.class_names)) < self.labels[:, None]
        before = (self.outputs > true) | ((self.outputs == true) & earlier)
        hits = int((before.sum(axis=1) < k).sum())
        return (hits / len(self), *wilson(hits, len(self)))

    @cached_property
    def losses(self):
        """Negative log-probability of the true class of each image, in nats; for regression the absolute errors."""
        if not self.is_classifier:
            return np.abs(self.residuals).reshape(len(self), -1).mean(axis=1)
        return -self.log_probabilities[np.arange(len(self)), self.labels]

    @property
    def log_loss(self):
        """Mean negative log-probability of the true class, in nats; ``None`` for regression."""
        return float(self.losses.mean()) if self.is_classifier else None

    @cached_property
    def _brier(self):
        true = self.probabilities[np.arange(len(self)), self.labels]
        return (self.probabilities**2).sum(axis=1) - true**2 + (1 - true) ** 2

    @property
    def brier(self):
        """Mean squared distance to the truth, summed over classes, 0 to 2 (Brier, 1950); ``None`` for regression."""
        return float(self._brier.mean()) if self.is_classifier else None

    @property
    def ece(self):
        """Expected calibration error, 15 bins of equal width; ``None`` for regression."""
        return calibration.calibration_error(self.confidence, self.correct) if self.is_classifier else None

    @property
    def ece_adaptive(self):
        """Expected calibration error, 15 bins of equally many images; ``None`` for regression."""
        if not self.is_classifier:
            return None
        return calibration.calibration_error(self.confidence, self.correct, binning="mass")

    @cached_property
    def ece_if_calibrated(self):
        """What ``ece`` would be by chance, were the model calibrated, see :func:`error_if_calibrated`."""
        return calibration.error_if_calibrated(self.confidence) if self.is_classifier else None

    def reliability(self, bins=BINS, binning="width"):
        """The bins of a reliability diagram, see :func:`tlutils.evaluation.reliability`."""
        self._need_classes("reliability")
        return calibration.reliability(self.confidence, self.correct, bins, binning)

    @cached_property
    def _rivals(self):
        """Logarithm of the sum of exp(logit) over all classes but the predicted one, shape (N,)."""
        others = self.outputs.copy()
        others[np.arange(len(self)), self.predictions] = -np.inf
        top = others.max(axis=1)
        return top + np.log(np.exp(others - top[:, None]).sum(axis=1))

    def _log_odds(self, i):
        """log(p / (1 − p)) of class ``i``, for the order of its probabilities, also where they round to 0 or 1."""
        best, logs = self.predictions == i, self.log_probabilities[:, i]
        odds = np.empty(len(self))
        odds[best] = self.outputs[best, i] - self._rivals[best]
        odds[~best] = logs[~best] - np.log1p(-np.exp(logs[~best]))
        return odds.round(10)  # so that what ties is not told apart by the last digit of a sum

    @cached_property
    def areas(self):
        """Areas under the curves, one class against all others.

        Returns:
            ndarray: shape (classes, 2): area under the ROC curve, and under the precision-recall curve (average
            precision); NaN for a class that no image, or every image, belongs to.
        """
        self._need_classes("areas")
        found = np.full((len(self.class_names), 2), np.nan)
        for i in np.unique(self.labels):
            odds = self._log_odds(i)
            found[i] = _areas(np.sort(odds), np.sort(odds[self.labels == i]))
        return found

    @property
    def roc_auc(self):
        """Area under the ROC curve, one class against the rest, mean over classes; ``None`` with one class present."""
        return self._mean_area(0)

    @property
    def average_precision(self):
        """Area under the precision-recall curve, one class against the rest, mean over classes (see ``areas``)."""
        return self._mean_area(1)

    def _mean_area(self, column):
        if not self.is_classifier or np.isnan(self.areas).all():
            return None
        return float(np.nanmean(self.areas[:, column]))

    def thresholds(self, class_name):
        """What happens if an image is called ``class_name`` where its probability reaches a threshold.

        Args:
            class_name: Name of a class, or its number.

        Returns:
            dict of ndarray, from the highest threshold to the lowest: ``threshold``, ``precision``, ``recall`` (the
            true positive rate), ``false_positive_rate``.

        Raises:
            ValueError: There is no such class, or no image, or every image, belongs to it.
        """
        from sklearn.metrics import roc_curve

        i = self._class_number(class_name)
        positive = self.labels == i
        if not 0 < positive.sum() < len(self):
            raise ValueError(
                f"{positive.sum()} of {len(self)} images are of the class {self.class_names[i]!r}: a curve needs some "
                "that are and some that are not"
            )
        false, recall, odds = roc_curve(positive, self._log_odds(i), drop_intermediate=False)
        false, recall, odds = false[1:], recall[1:], odds[1:]  # the first point is above every threshold
        hits, alarms = recall * positive.sum(), false * (~positive).sum()
        with np.errstate(over="ignore"):
            threshold = 1 / (1 + np.exp(-odds))
        return {
            "threshold": threshold,
            "precision": hits / (hits + alarms),
            "recall": recall,
            "false_positive_rate": false,
        }

    @cached_property
    def per_class(self):
        """List of dicts, one a class.

        ``name``; ``support`` (its images); ``predicted`` (images named so); ``precision``, ``recall``, ``f1`` with
        ``precision_interval``, ``recall_interval``, ``f1_interval`` (see :func:`f1_interval`); ``roc_auc`` and
        ``average_precision`` against the rest, ``None`` where there is nothing to tell apart. What would be 0/0 is 0,
        with the interval from 0 to 1. Empty for regression.
        """
        if not self.is_classifier:
            return []
        rows = []
        counts = (part.tolist() for part in self._counts)
        for i, (name, hits, n, calls) in enumerate(zip(self.class_names, *counts)):
            either = n + calls - hits
            roc, average = (None if np.isnan(area) else float(area) for area in self.areas[i])
            rows.append(
                {
                    "name": name,
                    "support": n,
                    "predicted": calls,
                    "precision": hits / calls if calls else 0.0,
                    "recall": hits / n if n else 0.0,
                    "f1": 2 * hits / (n + calls) if either else 0.0,
                    "precision_interval": wilson(hits, calls) if calls else (0.0, 1.0),
                    "recall_interval": wilson(hits, n) if n else (0.0, 1.0),
                    "f1_interval": f1_interval(hits, either),
                    "roc_auc": roc,
                    "average_precision": average,
                }
            )
        return rows

    def most_confused(self, n=5):
        """The ``n`` most frequent mistakes as ``(true, predicted, count)``, names and a number."""
        self._need_classes("most_confused")
        off = self.confusion - np.diag(np.diag(self.confusion))
        order = np.argsort(-off, axis=None, kind="stable")[:n]
        pairs = [np.unravel_index(i, off.shape) for i in order]
        return [(self.class_names[i], self.class_names[j], int(off[i, j])) for i, j in pairs if off[i, j]]

    def hardest(self, n=10):
        """Positions of the ``n`` images with the largest loss, the worst first: wrong and sure of it.

        Look at them before you look for a better model: some of them may be labelled wrongly. For regression: the
        largest absolute errors.
        """
        return np.argsort(-self.losses, kind="stable")[:n]

    # --- regression ---------------------------------------------------------------------------------------------------

    @property
    def residuals(self):
        """Predicted minus true numbers, of the shape of ``labels``; ``None`` for classes."""
        return None if self.is_classifier else self.outputs - self.labels

    @property
    def mae(self):
        """Mean absolute error (regression only)."""
        return None if self.is_classifier else float(np.abs(self.residuals).mean())

    @property
    def rmse(self):
        """Root of the mean squared error (regression only)."""
        return None if self.is_classifier else float(np.sqrt((self.residuals**2).mean()))

    @property
    def r2(self):
        """Share of the variance explained, mean over outputs (regression only).

        ``None`` with fewer than two images or where the true numbers of an output do not vary: there is nothing to
        explain. Below 0 for a model that is worse than always saying the mean.
        """
        from sklearn.metrics import r2_score

        if self.is_classifier or len(self) < 2 or np.any(np.ptp(self.labels, axis=0) == 0):
            return None
        return float(r2_score(self.labels, self.outputs))

    # --- all numbers together -----------------------------------------------------------------------------------------

    @cached_property
    def scores(self):
        """Every score that is one number, as a dict of name → dict of ``value``, ``interval`` and ``method``.

        ``interval`` is ``(low, high)`` or ``None``; ``method`` says in words how it was made, or what the score is.
        """
        return self._class_scores() if self.is_classifier else self._number_scores()

    def _class_scores(self):
        drawn = bootstrap_classes(self.labels, self.predictions, len(self.class_names))
        f1 = reflected(self.macro_f1, _mean_f1(*drawn))
        boot = "bootstrap"
        found = {
            "accuracy": (self.accuracy, self.interval, "Wilson"),
            "accuracy (bootstrap)": (self.accuracy, self.bootstrap_interval, boot),
            "balanced accuracy": (self.balanced_accuracy, percentiles(_mean_recall(*drawn)), boot),
            "macro F1": (self.macro_f1, f1, f"basic {boot}"),
        }
        mean, limit = self.ece_if_calibrated
        classes = len(self.class_names)
        if classes > 2:
            k = 5 if classes > 5 else 2
            share, *interval = self.top_k(k)
            found[f"top-{k} accuracy"] = share, tuple(interval), "Wilson"
        found |= {
            "log-loss": (self.log_loss, bootstrap_mean(self.losses), f"{boot}; nats"),
            "Brier score": (self.brier, bootstrap_mean(self._brier), f"{boot}; 0 to 2"),
            "ROC area": (self.roc_auc, None, "one against the rest"),
            "PR area": (self.average_precision, None, "average precision"),
            "ECE": (self.ece, None, f"{BINS} equal-width bins"),
            "ECE by chance": (mean, (0.0, limit), "were it calibrated"),
            "ECE, adaptive": (self.ece_adaptive, None, f"{BINS} equal-mass bins"),
        }
        return {name: dict(zip(("value", "interval", "method"), row)) for name, row in found.items()}

    def _number_scores(self):
        squares = (self.residuals**2).reshape(len(self), -1).mean(axis=1)
        square = bootstrap_mean(squares)
        found = {
            "mean absolute error": (self.mae, bootstrap_mean(self.losses), "bootstrap"),
            "root mean squared error": (self.rmse, square and tuple(np.sqrt(square).tolist()), "bootstrap"),
            "R²": (self.r2, None, "1 is perfect, 0 is the mean"),
        }
        return {name: dict(zip(("value", "interval", "method"), row)) for name, row in found.items()}

    def bootstrap(self, score, *, groups=None, samples=SAMPLES, seed=0, confidence=CONFIDENCE):
        """The percentile bootstrap interval of any score.

        Args:
            score: Function of a Report that gives a number, such as ``lambda r: r.roc_auc``. Not a calibration error,
                nor the mean F1 of many classes: images that are drawn twice bias them (``scores`` has the latter).
            groups: One id an image (writer, patient …), shape (N,): whole groups are then drawn, because images of one
                group are alike and tell less than as many of different groups. ``None`` draws images. Few groups make
                the interval too narrow: simulated with equal groups, 95% caught the truth in about 83% of the cases
                with 5 groups, 90% with 10, 94% with 30.
            samples: Bootstrap samples.
            seed: Seed of the draws.
            confidence: Coverage of the interval.

        Returns:
            ``(low, high)``, or ``None`` where nothing varies.

        Raises:
            ValueError: ``groups`` are not as many as the images or there is only one; or the score of a sample is no
                number.
        """
        draw, members = np.random.default_rng(seed), np.arange(len(self))
        if groups is not None:
            groups = np.asarray(groups)
            if groups.shape != (len(self),):
                raise ValueError(f"groups must be one id an image, shape ({len(self)},), not shape {groups.shape}")
            members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
        if len(members) < 2:
            what = "image" if groups is None else "group"
            raise ValueError(f"a bootstrap needs at least 2 {what}s to draw from, not {len(members)}")
        draws = []
        for _ in range(samples):
            chosen = draw.integers(len(members), size=len(members))
            images = chosen if groups is None else np.concatenate([members[i] for i in chosen])
            draws.append(score(self.subset(images)))
        if any(value is None or not np.isfinite(value) for value in draws):
            wrong = next(value for value in draws if value is None or not np.isfinite(value))
            raise ValueError(f"the score of a bootstrap sample is {wrong}: it is not defined on every sample")
        return percentiles(draws, confidence)

    def _need_classes(self, name):
        if not self.is_classifier:
            raise ValueError(f"{name} is for classifiers, and this report is of a regression")

    def _class_number(self, class_name):
        self._need_classes("a threshold")
        if class_name in self.class_names:
            return self.class_names.index(class_name)
        if isinstance(class_name, int | np.integer) and 0 <= class_name < len(self.class_names):
            return int(class_name)
        raise ValueError(f"there is no class {class_name!r}; there are {', '.join(map(str, self.class_names))}")

    # --- tables -------------------------------------------------------------------------------------------------------

    def __repr__(self):
        score = f"accuracy {self.accuracy:.3f}" if self.is_classifier else f"mean absolute error {self.mae:.4g}"
        return f"Report({score} on {self.measured_on})"

    def __str__(self):
        if not self.is_classifier:
            head = fill(f"mean absolute error {self.mae:.4g} on {self.measured_on}", _WIDTH)
        else:
            low, high = self.interval
            head = fill(f"accuracy {self.accuracy:.3f} on {self.measured_on}", _WIDTH)
            head += f"\n95% interval {low:.3f} to {high:.3f} (over the choice of images)"
        tables = [as_text(*self._score_table(), left=(0, 3))]
        if self.is_classifier:
            tables.append(as_text(*self._class_table()))
        return "\n\n".join([head, *tables])

    def _repr_html_(self):
        tables = [as_html(*self._score_table())]
        if self.is_classifier:
            tables.append(as_html(*self._class_table()))
        return f"<p>Measured on {escape(self.measured_on)}. Intervals cover the choice of images.</p>" + "".join(tables)

    def _score_table(self):
        """Heading, rows of text and a note."""
        digits = ".3f" if self.is_classifier else ".4g"
        rows = []
        for name, score in self.scores.items():
            value = "not defined" if score["value"] is None else format(score["value"], digits)
            rows.append((name, value, ends_text(score["interval"], digits), score["method"]))
        return ("score", "value", "95% interval", "how"), rows, ""

    def _class_table(self):
        rows, note = self.per_class, ""
        if len(rows) > _MOST_ROWS:
            rows = sorted(rows, key=lambda row: row["f1"])[:_MOST_ROWS]
            note = f"the {_MOST_ROWS} classes of {len(self.class_names):,} with the lowest F1"
        heading = ("class", "images", "precision, 95%", "recall, 95%", "F1, 95%")
        texts = []
        for row in rows:
            scores = [f"{row[key]:.3f} {ends_text(row[f'{key}_interval'], '.2f', '–')}" for key in _PER_CLASS]
            texts.append((row["name"], f"{row['support']:,}", *scores))
        return heading, texts, note

    # --- files --------------------------------------------------------------------------------------------------------

    def to_json(self, path=None):
        """Everything as JSON: the scores for whoever reads it, labels and outputs for :meth:`from_json`.

        Args:
            path: File to write, or ``None``.

        Returns:
            str: the text. Undefined numbers are ``null``.
        """
        content = {
            "format": _FORMAT,
            "measured_on": self.measured_on,
            "split": self.split,
            "class_names": self.class_names,
            "scores": self.scores,
            "per_class": self.per_class,
            "most_confused": self.most_confused() if self.is_classifier else [],
            "confusion": self.confusion.tolist() if self.is_classifier else None,
            "labels": self.labels.tolist(),
            "outputs": self.outputs.tolist(),
        }
        text = json.dumps(content, ensure_ascii=False, allow_nan=False)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    @classmethod
    def from_json(cls, source):
        """The Report that :meth:`to_json` wrote; every score is computed again.

        Args:
            source: The text, or the ``Path`` of a file.

        Raises:
            ValueError: It is no such text.
        """
        text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"this is not a report: {text[:40]!r} is no JSON; of a file, give its Path") from error
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            found = content.get("format") if isinstance(content, dict) else type(content).__name__
            raise ValueError(f"this is not a report: its format is {found!r}, not {_FORMAT!r}")
        names = content["class_names"]
        labels = np.array(content["labels"], "int64" if names else "float64")
        return report(np.array(content["outputs"]), labels, class_names=names, split=content["split"])

    def model_card(self, name, **what):
        """A model card in Markdown; see :func:`tlutils.evaluation.model_card`."""
        from tlutils.cards import model_card

        return model_card(self, name, **what)


def _areas(all_scores, own):
    """Area under the ROC curve, and average precision, of the sorted scores of all images and of those of the class.

    The first is the probability that an image of the class has a higher score than another one, where a tie counts one
    half; the second is the mean, over the images of the class, of the precision at their score. (scikit-learn gives the
    same numbers, but sorts and checks the images anew for either: a long wait where there are a thousand classes.)
    """
    if len(own) == len(all_scores):
        return np.nan, np.nan
    (below, upto), (own_below, own_upto) = (
        [np.searchsorted(scores, own, side) for side in ("left", "right")] for scores in (all_scores, own)
    )
    others = ((below - own_below) + (upto - own_upto)) / 2
    precision = (len(own) - own_below) / (len(all_scores) - below)
    return others.mean() / (len(all_scores) - len(own)), precision.mean()


def _mean_recall(right, images, named):
    """Mean over the classes that have images; each argument of shape (…, classes)."""
    with np.errstate(invalid="ignore"):
        return np.nanmean(right / images, axis=-1)


def _mean_f1(right, images, named):
    """Mean over the classes that have images or predictions; each argument of shape (…, classes)."""
    with np.errstate(invalid="ignore"):
        return np.nanmean(2 * right / (images + named), axis=-1)


def report(outputs, labels, *, class_names=None, split=None):
    """The :class:`Report` of given logits (N, classes) with integer labels, or of numbers with float targets.

    Args:
        outputs: Logits, shape (N, classes); of a regression, numbers, as many as ``labels``. A single logit an image,
            shape (N, 1), is that of class 1 against class 0, as of a binary classifier that ends in ``Dense(1)``; it
            becomes the two logits 0 and itself, which say the same.
        labels: Integers or booleans, shape (N,), for classes; floats, shape (N,) or (N, outputs), for a regression.
        class_names: Names of the classes, in the order of the logits; ``None`` numbers them.
        split: ``"train"``, ``"val"``, ``"test"`` or ``None``.

    Returns:
        Report

    Raises:
        ValueError: There is no image, shapes do not fit, labels are one-hot, a label has no logit or is no number, the
            names are not as many as the classes, or an output is NaN or infinite.
    """
    outputs, labels = np.asarray(outputs), np.asarray(labels)
    if len(labels) == 0:
        raise ValueError("there are no examples to evaluate on")
    if len(outputs) != len(labels):
        raise ValueError(f"there are outputs for {len(outputs):,} images, but {len(labels):,} labels")
    if split not in SPLITS:
        raise ValueError(f"split must be 'train', 'val', 'test' or None, not {split!r}")
    outputs = outputs.astype("float64", copy=False)
    broken = int((~np.isfinite(outputs)).reshape(len(outputs), -1).any(axis=1).sum())
    if broken:
        raise ValueError(
            f"the model gives NaN or infinity for {broken:,} of {len(labels):,} images: training diverged; lower the "
            "learning rate"
        )
    if labels.ndim == 2 and labels.shape[1] > 1 and np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all():
        raise ValueError("the labels are one-hot; give the numbers of the classes: labels.argmax(axis=1)")
    if labels.dtype != bool and not np.issubdtype(labels.dtype, np.integer):
        return _of_numbers(outputs, labels.astype("float64", copy=False), split)
    if outputs.ndim != 2 or labels.ndim != 1:
        raise ValueError(
            "logits must have shape (images, classes) and classes shape (images,), not "
            f"{outputs.shape} and {labels.shape}"
        )
    single, labels = outputs.shape[1] == 1, labels.astype("int64", copy=False)
    if single:
        outputs = np.concatenate([np.zeros_like(outputs), outputs], axis=1)
    classes = outputs.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        there_are = f"there are {classes} logits"
        if single:
            there_are = "a single logit is for the classes 0 and 1 (the labels of a regression must be floats)"
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}, but {there_are}")
    names = tuple(map(str, range(classes) if class_names is None else class_names))
    if len(names) != classes:
        raise ValueError(f"there are {len(names)} class names, but {classes} {'classes' if single else 'logits'}")
    return Report(labels, outputs, names, split)


def _of_numbers(outputs, labels, split):
    wrong = int((~np.isfinite(labels)).sum())
    if wrong:
        raise ValueError(f"{wrong} of {labels.size} true numbers are NaN or infinite")
    if outputs.size != labels.size:
        raise ValueError(f"outputs of shape {outputs.shape} cannot be compared with numbers of {labels.shape}")
    return Report(labels, outputs.reshape(labels.shape), None, split)
