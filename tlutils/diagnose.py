"""Find the traps of transfer learning in a model and data of any make.

``diagnose(model, data, validation)`` looks at the model, at the way it is compiled and at samples of the data, through
public interfaces of Keras, and names what is wrong. It never changes anything: the model is only called where Keras
keeps whatever a call would write, so weights, flags, optimizer and random states stay as they are. Each detector is a
small function in this module. What one cannot decide it does not report.
"""

import html
import math
import random
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from tlutils import inspection
from tlutils.notes import listed
from tlutils.runtime import require_tensorflow

LEVELS = ("error", "warning", "note")

_STRUCTURE, _MODELS, _CHOOSING = "06 changing_the_structure", "02 pretrained_models", "03 choosing"
_HEADS, _TUNING, _LOSSES = "04 feature_extraction", "05 fine_tuning", "07 loss_functions"
_AUGMENTING, _EVALUATION = "09 regularization", "10 evaluation"

# A step of Adam moves every weight by about its rate, whatever the gradient; plain gradients are smaller than that.
_RATE_LIMITS = {"SGD": 0.05, "Lion": 3e-4}
_ADAPTIVE_LIMIT = 1e-3
_PARAMETERS_PER_IMAGE = (10_000, 100)  # of a head, from which on there is a warning, or a note
_IMBALANCE = (10, 3)
# Two different images of the digits correlate by .9945 at most (797 with 800 of them), a JPEG copy by more than .998.
_NEAR = {"correlation": 0.997, "bits": 6}


@dataclass(frozen=True)
class Finding:
    """One thing that a detector found.

    Attributes:
        level: ``"error"``: it does not do what it is meant to. ``"warning"``: it probably costs accuracy, or makes a
            result look better than it is. ``"note"``: worth knowing, and often intended.
        what: What is so.
        where: The layer, the part of the compile state, the side of the data or the file.
        why: Why it matters, with a measured consequence where one is cheap to have.
        fix: What to write instead.
        chapter: The chapter of the book that explains it.
    """

    level: str
    what: str
    where: str
    why: str
    fix: str
    chapter: str

    def __post_init__(self):
        if self.level not in LEVELS:
            raise ValueError(f"level must be one of {', '.join(LEVELS)}, not {self.level!r}")

    def __str__(self):
        return "\n".join(_lines(self))


class Findings(Sequence):
    """What :func:`diagnose` found: a sequence of :class:`Finding`, errors first.

    It is true where there is an error or a warning, so ``if diagnose(model, data):`` asks whether there is something to
    do; notes alone leave it false. ``len`` counts them all. It prints as a table, in a terminal and in a notebook.

    Attributes:
        looked_at: One sentence: what was looked at, and what could not be.
    """

    def __init__(self, findings, looked_at=""):
        self._findings = tuple(sorted(findings, key=lambda finding: LEVELS.index(finding.level)))
        self.looked_at = looked_at

    def __getitem__(self, index):
        return self._findings[index]

    def __len__(self):
        return len(self._findings)

    def __bool__(self):
        return bool(self.errors or self.warnings)

    @property
    def errors(self):
        """The findings of level ``"error"``."""
        return self._of("error")

    @property
    def warnings(self):
        """The findings of level ``"warning"``."""
        return self._of("warning")

    @property
    def notes(self):
        """The findings of level ``"note"``."""
        return self._of("note")

    def _of(self, level):
        return tuple(finding for finding in self if finding.level == level)

    def summary(self):
        """How many there are of each level, in words."""
        counts = [(len(self._of(level)), level) for level in LEVELS]
        found = ", ".join(f"{count} {level}{'s' if count > 1 else ''}" for count, level in counts if count)
        return found or "nothing found"

    def __str__(self):
        parts = [f"{self.summary()}.", *map(str, self)]
        return "\n\n".join([*parts, textwrap.fill(self.looked_at, 88)] if self.looked_at else parts)

    __repr__ = __str__

    def _repr_html_(self):
        # two columns, so that it can be read on a phone
        style = 'style="text-align: left; vertical-align: top"'
        rows = "".join(
            f"<tr><td {style}><strong>{html.escape(x.level)}</strong></td><td {style}>"
            f"<strong>{html.escape(x.what)}</strong><br><em>Where:</em> {html.escape(x.where)}<br>"
            f"<em>Why:</em> {html.escape(x.why)}<br><em>Fix:</em> {html.escape(x.fix)}<br>"
            f"<em>See:</em> {html.escape(x.chapter)}</td></tr>"
            for x in self
        )
        head = f"<thead><tr><th {style}>level</th><th {style}>finding</th></tr></thead>"
        table = f"<table>{head}<tbody>{rows}</tbody></table>" if rows else ""
        return f"<p>{html.escape(self.summary())}.</p>{table}<p>{html.escape(self.looked_at)}</p>"


def _lines(finding):
    head = f"{finding.level:<8} {finding.what}"
    yield from textwrap.wrap(head, 88, subsequent_indent=" " * 9, break_long_words=False)
    for name in ("where", "why", "fix", "chapter"):
        label = "see" if name == "chapter" else name
        text = f"{label:<6} {getattr(finding, name)}"
        indent = {"initial_indent": " " * 9, "subsequent_indent": " " * 16}
        yield from textwrap.wrap(text, 88, break_long_words=False, **indent)


def diagnose(model, data=None, validation=None):
    """Look for the traps of transfer learning in a Keras model, the way it is compiled, and its data.

    The model may be functional, sequential or subclassed, from this package or not; call it before ``fit``, after it,
    or on a model that was loaded. At most 64 images go through it, once as in ``evaluate`` and once as in a training
    step. Of each side at most 256 images are looked at pixel by pixel. All labels that are at hand are counted, and
    arrays and files are compared as a whole (of images over 64×64 every third pixel of every third row). Of a dataset
    only the first 256 images are read, twice, to see whether its passes agree: a dataset that shuffles moves on to its
    next order by that, as by every pass.

    Nothing is changed: neither weights nor flags, compile state, optimizer or random states, and no file.

    Args:
        model: keras.Model.
        data: What it trains on: an :class:`~tlutils.data.ImageTask`, a ``tf.data.Dataset`` of (images, labels) or a
            pair of arrays (x, y), both as they are given to ``fit`` (weights of samples may follow); or a folder with a
            sub-folder a class, or with ``train/`` and ``val/``. ``None`` looks at the model alone.
        validation: What it is validated on, likewise. An ImageTask or a folder may bring it along.

    Returns:
        Findings

    Raises:
        TypeError: ``model`` is no Keras model, or the data are none of the above.
        DataError: A folder that is no data set.
        ValueError: Arrays that are empty, or of different lengths.
    """
    require_tensorflow()
    import keras

    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a keras.Model, not {type(model).__name__}; load a file with keras.models")
    states = random.getstate(), np.random.get_state()  # noqa: NPY002, layers of the reader's may draw from it
    try:
        case = _Case(model, data, validation)
        return _examine(case)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def _examine(case):
    findings = [finding for detector in DETECTORS for finding in _ask(detector, case)]
    return Findings(findings, case.looked_at())


def _ask(detector, case):
    try:
        return list(detector(case))
    except Exception as error:  # a model of a make that nobody thought of must not hide what the others found
        what = f"{detector.__name__.strip('_').replace('_', ' ')}: could not be checked"
        why = f"{type(error).__name__}: {_first_line(error)}"
        return [Finding("note", what, case.model.name, why, "check it by hand", _EVALUATION)]


def _first_line(error):
    text = re.sub(r"\x1b\[\d*m", "", str(error))  # Keras sets the cause in bold, below a line of its own
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Exception encountered when calling")] or lines
    return (lines or ["no message"])[0][:200]


class _Case:
    """A model and its data, as the detectors see them; what costs time is found out once, when it is asked for."""

    def __init__(self, model, data, validation):
        self.model = model
        self.built = bool(model.built and model.weights)
        self.networks = inspection.networks(model)
        self.leaves = inspection.leaves(model)
        self.train, self.val = inspection.sides(data, validation, self._image_shape())
        self.loss = inspection.loss_of(model)
        self.optimizer = inspection.optimizer_of(model)
        self.compiled = bool(getattr(model, "compiled", False))

    @cached_property
    def trainable(self):
        """The ids of the weights that train."""
        return {id(weight) for weight in self.model.trainable_variables}

    def _input_shape(self):
        """(height, width, channels) as the model states it, or ``None``."""
        try:
            shape = self.model.input_shape
        except AttributeError:  # subclassed, or not built
            return None
        return tuple(shape[1:]) if isinstance(shape, tuple) and len(shape) == 4 else None

    def _image_shape(self):
        height, width, channels = self._input_shape() or (224, 224, 3)
        return height or 224, width or 224, channels or 3

    @cached_property
    def side(self):
        """The side whose images go through the model."""
        return self.train or self.val

    @cached_property
    def fits(self):
        """Whether the images have the shape that the model wants."""
        wanted = self._input_shape()
        if self.side is None or wanted is None:
            return True
        shape = self.side.images.shape[1:]
        if len(shape) == 2:  # Keras adds the axis itself
            shape = (*shape, 1)
        return len(shape) == 3 and all(a in (None, b) for a, b in zip(wanted, shape))

    @cached_property
    def run(self):
        """What the model did, or ``None``; ``run_problem`` then says why."""
        self.run_problem = None
        if not self.built:
            self.run_problem = "it has no weights yet: call it on a batch first, or give it a keras.Input"
            return None
        if not self.fits:
            return None
        if self.side is not None:
            x, labels = self.side.images[: inspection.RUN], self.side.sample_labels
            labels = None if labels is None or self.side.kind == "folder" else labels[: inspection.RUN]
        elif self._input_shape() is None:
            self.run_problem = "there are no data to call it on, and it does not say what shape it takes"
            return None
        else:
            x, labels = inspection.noise((8, *self._image_shape())), None
        try:
            return inspection.run(self.model, self.networks, x, labels, self.loss)
        except Exception as error:
            self.run_problem = f"calling it failed with {type(error).__name__}: {_first_line(error)}"
            return None

    @cached_property
    def width(self):
        """The number of outputs, or ``None``."""
        if self.run is not None and self.run.outputs is not None:
            return self.run.outputs.shape[-1] if self.run.outputs.ndim == 2 else None
        try:
            shape = self.model.output_shape
        except (AttributeError, ValueError):
            return None
        return shape[-1] if isinstance(shape, tuple) and len(shape) == 2 else None

    @cached_property
    def activation(self):
        """What the model ends in, by what it does where that decides, by its last layer elsewhere."""
        named = inspection.ending(self.model)
        outputs = None if self.run is None else self.run.outputs
        if outputs is None or outputs.ndim != 2 or not np.isfinite(outputs).all():
            return named
        inside = bool((outputs >= -1e-6).all() and (outputs <= 1 + 1e-6).all())
        if outputs.shape[1] > 1 and inside and np.allclose(outputs.sum(1), 1, atol=5e-3):
            return "softmax"
        if not inside:
            return "linear" if named in (None, "linear", "sigmoid", "softmax") else named
        if named is not None:
            return named
        sigmoids = [
            x
            for x in self.leaves
            if getattr(getattr(x, "activation", None), "__name__", "") == "sigmoid"
            and getattr(x, "units", None) == outputs.shape[1]
        ]
        return "sigmoid" if sigmoids else None

    @cached_property
    def labels(self):
        """``"sparse"``, ``"onehot"``, ``"multihot"``, ``"numbers"``, or ``None`` where it is not known."""
        if self.side is None or self.side.kind == "folder" or self.side.sample_labels is None:
            return None
        y = np.asarray(self.side.sample_labels)
        if self.side.regression:
            return "numbers"
        if y.dtype.kind not in "buif" or not len(y):
            return None
        whole = bool(np.isfinite(y).all() and (y == np.round(y)).all() and (y >= 0).all())
        if y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1):
            return "sparse" if whole else "numbers"
        if y.ndim == 2 and whole and y.max() <= 1:
            return "onehot" if (y.sum(1) == 1).all() else "multihot"
        # smoothed rows still add up to one
        return "onehot" if y.ndim == 2 and (y >= 0).all() and np.allclose(y.sum(1), 1, atol=1e-3) else "numbers"

    @cached_property
    def known(self):
        """All known labels as class numbers, shape (N,), or ``None``."""
        side = self.side
        if side is None or side.labels is None or self.labels not in ("sparse", "onehot", None):
            return None
        labels = _class_numbers(side.labels)
        return None if labels is None or labels.min() < 0 else labels

    @cached_property
    def classes(self):
        """Number of classes of the data, or ``None``."""
        side = self.side
        if side is None or side.regression:
            return None
        if side.class_names is not None:
            return len(side.class_names)
        if self.loss is not None and self.loss.kind == "regression":  # whole numbers that are amounts
            return None
        if self.labels == "onehot":
            return np.asarray(side.sample_labels).shape[1]
        return None if self.known is None else int(self.known.max()) + 1

    def looked_at(self):
        """One sentence on what the findings rest on."""
        parts = ["the model" + (" and how it is compiled" if self.compiled else ", which is not compiled")]
        for side in (self.train, self.val):
            if side is not None:
                total = f" of {side.total:,}" if side.total and side.total > len(side.images) else ""
                parts.append(f"{len(side.images):,}{total} images of the {side.name}")
        text = f"Looked at {'; '.join(parts)}."
        problem = getattr(self, "run_problem", None)
        return f"{text} The model could not be run: {problem}." if problem else text


def _class_numbers(labels):
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] > 1:
        return labels.argmax(1)
    labels = labels.reshape(-1)
    if labels.dtype.kind not in "buif" or not len(labels) or (labels != np.round(labels)).any():
        return None
    return labels.astype(int)


# ---------------------------------------------------------------------------------------------------------- detectors

DETECTORS = []


def _detector(function):
    DETECTORS.append(function)
    return function


@_detector
def _model_could_not_be_run(case):
    """So that nobody takes silence for health."""
    if case.run is None and case.run_problem:
        yield Finding(
            "note",
            "the model could not be run, so what it does was not looked at",
            case.model.name,
            f"{case.run_problem[:1].upper()}{case.run_problem[1:]}.",
            "give data as they go into fit, and a model that has been built",
            _EVALUATION,
        )


@_detector
def _shape_of_images(case):
    if case.fits:
        return
    wanted, given = case._input_shape(), case.side.images.shape[1:]
    yield Finding(
        "error",
        f"the images have shape {given}, and the model takes {wanted}",
        case.side.name,
        "Keras refuses such a batch, or resizes nothing and fails inside.",
        "resize the images when they are loaded, or build the model with that input shape",
        _MODELS,
    )


@_detector
def _batch_norm_that_moves(case):
    """Reported where the reader has said that it should stand still.

    That is said by a call with ``training=False`` that the graph records, or by weights of the layer's own that do not
    train; of a layer without such weights, by ``trainable = False`` on a model around it. A BatchNorm layer that trains
    as a whole is nobody's mistake: with enough images it is right.
    """
    if case.run is None or not case.run.moved:
        return
    model, moved = case.model, case.run.moved
    told = {id(x): holder for holder in inspection.recorded_as_inference(model) for x in inspection.leaves(holder)}
    frozen = _under_frozen(model)
    groups = {}
    for norm, shift in moved.values():
        own = [weight for weight in (norm.gamma, norm.beta) if weight is not None]
        if id(norm) in told:
            reason = ("called", told[id(norm)].name)
        elif own and not any(id(weight) in case.trainable for weight in own):
            reason = ("own", model.name)
        elif not own and id(norm) in frozen:
            reason = ("frozen", frozen[id(norm)].name)
        else:
            continue
        groups.setdefault(reason, []).append((norm, shift))
    for (reason, name), members in groups.items():
        said = {
            "called": f"{name!r} was called with training=False, which fit overrides in this version of Keras",
            "frozen": f"{name!r} has trainable = False, but layers inside it do not",
            "own": "their weights do not train, but the layers themselves are trainable",
        }[reason]
        momentum = float(np.mean([norm.momentum for norm, _ in members]))
        shift = float(np.mean([shift for _, shift in members]))
        epoch = ""
        if case.train is not None and case.train.total:
            share = 1 - momentum ** math.ceil(case.train.total / 32)
            epoch = f", {share:.0%} in an epoch of batches of 32"
        yield Finding(
            "warning",
            f"{_plural(len(members), 'BatchNorm layer')} will move in fit although meant to be frozen: {said}",
            f"{name}: {listed([norm.name for norm, _ in members], 4)}",
            f"In {min(case.run.images, inspection.STEP)} images their averages lie {shift / (1 - momentum):.2g} "
            f"standard deviations from the stored ones, which go {1 - momentum:.1%} of that way in each step{epoch}. "
            "So the features change under the head.",
            "set layer.trainable = False on each BatchNormalization layer, then compile again "
            "(tlutils.models.unfreeze does it)",
            _TUNING,
        )
    rest = len(moved) - sum(map(len, groups.values()))
    pretrained = {id(x) for network in case.networks if network.trained_before for x in network.leaves}
    partly = any(x.weights and not any(id(w) in case.trainable for w in x.weights) for x in case.leaves)
    loose = [norm.name for norm, _ in moved.values() if id(norm) in pretrained]
    if rest and partly and not groups and loose:
        yield Finding(
            "note",
            f"{_plural(len(loose), 'BatchNorm layer')} of the unfrozen part will adapt to the new images",
            listed(loose, 4),
            "That is right with many images and costs accuracy with few, because batches of few images are noisy.",
            "with few images, set trainable = False on each of them, then compile again",
            _TUNING,
        )


def _under_frozen(model):
    """The layers inside a frozen model or layer, by id, with what is frozen."""
    found = {}

    def walk(layer, above):
        above = above or (layer if not layer.trainable else None)
        for inside in inspection.children(layer):
            if above is not None:
                found.setdefault(id(inside), above)
            walk(inside, above)

    walk(model, None)
    return found


@_detector
def _flags_changed_since_compile(case):
    """By asking the optimizer, which refuses weights that it was not built for before it does anything else."""
    import keras

    optimizer, model = case.optimizer, case.model
    if optimizer is None or not getattr(optimizer, "built", False) or not case.built:
        return

    def knows(variable):
        with keras.StatelessScope():
            try:
                optimizer.apply([None], [variable])
            except ValueError as error:
                return not str(error).startswith("Unknown variable")
        return None

    if knows(optimizer.iterations) is not False:  # an optimizer of another make, which does not tell
        return
    traced = getattr(model, "train_function", None) is not None
    added = [weight for weight in model.trainable_variables if not knows(weight)]
    dropped = [weight for weight in model.variables if id(weight) not in case.trainable and knows(weight)]
    if added:
        owners = inspection.by_owner(added, case.leaves)
        yield Finding(
            "error",
            "layers were unfrozen after the model was compiled",
            f"{case.model.name}: {listed(owners, 4)}",
            f"{sum(owners.values()):,} parameters have trainable = True and are not known to the optimizer: "
            + ("fit goes on without them." if traced else "fit will stop with “Unknown variable”."),
            "compile again, with a new optimizer, after every change of a trainable flag",
            _TUNING,
        )
    if dropped and traced and not model.run_eagerly:
        owners = inspection.by_owner(dropped, case.leaves)
        yield Finding(
            "error",
            "layers were frozen after the model was compiled and trained",
            f"{case.model.name}: {listed(owners, 4)}",
            f"{sum(owners.values()):,} parameters have trainable = False, but fit goes on training them.",
            "compile again after every change of a trainable flag",
            _TUNING,
        )


@_detector
def _logits_or_probabilities(case):
    loss, width = case.loss, case.width
    if loss is None or loss.kind not in ("sparse", "categorical", "binary") or case.activation is None:
        return
    probabilities = case.activation in ("softmax", "sigmoid")
    where = f"{case.model.name}: last layer, and loss {loss.name}"
    if loss.from_logits and probabilities:
        saved = case.run is not None and case.run.loss is not None and abs(np.subtract(*case.run.loss)) > 1e-4
        if saved:
            inside, alone = case.run.loss
            why = (
                f"TensorFlow finds the {case.activation} in the graph and undoes it, so fit works. Another backend "
                "does not, and the outputs of predict are no logits"
            )
            real = case.labels is not None
            why += f": the loss of those is {alone:.4f} instead of {inside:.4f}." if real else "."
        else:
            others = width - 1 if case.activation == "softmax" and width else 1
            best = math.log1p(others / math.e)  # one probability is 1, the others are 0, and all are taken for logits
            why = f"The activation is applied twice: even a perfect prediction costs {best:.2f}; gradients are small."
        yield Finding(
            "warning" if saved else "error",
            f"the model ends in {case.activation}, and the loss has from_logits=True",
            where,
            why,
            f"keep one of them: drop the {case.activation}, or set from_logits=False",
            _LOSSES,
        )
    elif not loss.from_logits and not probabilities and case.activation != "logsoftmax":
        outputs = None if case.run is None else case.run.outputs
        measured = ""
        if outputs is not None:
            outside = float(np.mean((outputs < 0) | (outputs > 1)))
            measured = (
                f" {outside:.0%} of its outputs are no probabilities: Keras clips them, and they give no gradient."
            )
        yield Finding(
            "error",
            f"the model gives logits (last activation: {case.activation}), and the loss expects probabilities",
            where,
            f"The loss takes logarithms of numbers below 0 or above 1.{measured}",
            "set from_logits=True in the loss, or end the model in softmax (one output: sigmoid)",
            _LOSSES,
        )


@_detector
def _loss_against_labels(case):
    loss, labels, width = case.loss, case.labels, case.width
    if loss is None or loss.kind is None or labels is None or width is None:
        return
    y = np.asarray(case.side.sample_labels)
    classes = case.classes
    problem = fix = None
    level = "error"
    if loss.kind == "sparse":
        if labels in ("onehot", "multihot"):
            problem, fix = "labels are one-hot rows, the loss wants class numbers", "use CategoricalCrossentropy"
        elif labels == "numbers":
            problem, fix = "labels are amounts, the loss wants class numbers", "use a regression loss such as 'mse'"
        elif width == 1:
            problem, fix = "one output cannot tell classes apart", "give one output a class, or use BinaryCrossentropy"
    elif loss.kind == "categorical":
        if labels == "sparse":
            problem = "labels are class numbers, the loss wants one-hot rows"
            fix = "use SparseCategoricalCrossentropy, or keras.utils.to_categorical(y)"
            if width == 1:
                fix = "for two classes and one output use BinaryCrossentropy"
        elif labels == "numbers":
            problem, fix = "labels are amounts, the loss wants one-hot rows", "use a regression loss such as 'mse'"
        elif labels == "multihot":
            problem, fix = "rows hold several ones, softmax lets one class win", "use sigmoid and BinaryCrossentropy"
            level = "warning"
    elif loss.kind == "binary":
        if width == 1 and classes is not None and classes > 2 and labels == "sparse":
            problem = f"binary cross-entropy on labels 0 to {classes - 1}"
            fix = f"give the model {classes} outputs and use SparseCategoricalCrossentropy"
        elif labels == "numbers" and (y.min() < 0 or y.max() > 1):
            problem, fix = "labels are amounts, the loss wants 0 or 1", "use a regression loss such as 'mse'"
        elif width > 1 and labels == "sparse":
            problem = f"labels are class numbers, the loss wants a row of {width} zeros and ones for each"
            fix = "use SparseCategoricalCrossentropy, or a single output for two classes"
        elif width > 2 and labels == "onehot" and case.activation == "softmax":
            problem, level = "binary cross-entropy on a softmax over several classes", "warning"
            fix = "use CategoricalCrossentropy; metrics=['accuracy'] then counts images, too"
    elif loss.kind == "regression" and labels == "sparse" and width > 1:
        problem = f"a regression loss on class numbers and {width} outputs"
        fix = "use SparseCategoricalCrossentropy, or one output for an amount"
    elif loss.kind == "regression" and width == 1 and case.side.class_names is not None and classes > 2:
        problem, level = "class numbers are learnt as amounts: class 2 lies between 1 and 3", "warning"
        fix = f"give the model {classes} outputs and use SparseCategoricalCrossentropy"
    if problem:
        yield Finding(
            level,
            f"the loss does not fit the labels: {problem}",
            f"loss {loss.name}; {case.side.name}, labels of shape {y.shape}",
            _consequence(case),
            fix,
            _LOSSES,
        )


def _consequence(case):
    """What the loss says to the first labels."""
    outputs = None if case.run is None else case.run.outputs
    if outputs is None or case.loss.function is None:
        return "Keras refuses it, or learns something else than was meant."
    y = np.asarray(case.side.sample_labels)[: len(outputs)]
    try:
        with inspection.Quiet():
            value = case.run.loss[0] if case.run.loss else float(case.loss.mean(y, outputs))
    except Exception as error:
        return f"Keras refuses it: {_first_line(error)}"
    return f"Keras does not complain: the loss of {len(outputs)} images is {value:.3g}, and is not what was meant."


@_detector
def _width_of_the_last_layer(case):
    width = case.width
    if width is None:
        return
    if width == 1 and inspection.ending(case.model) == "softmax":
        yield Finding(
            "error",
            "softmax over a single output",
            f"{case.model.name}: last layer",
            "It is 1 for every image, whatever the weights are, so nothing can be learnt.",
            "use sigmoid with one output, or softmax with one output a class",
            _LOSSES,
        )
        return
    kind = None if case.loss is None else case.loss.kind
    if case.labels == "numbers":
        wanted = np.asarray(case.side.sample_labels).reshape(len(case.side.images), -1).shape[1]
        if wanted != width and kind in (None, "regression"):
            yield Finding(
                "error",
                f"the model has {_plural(width, 'output')} for {_plural(wanted, 'target')} an image",
                f"{case.model.name}: last layer",
                "Keras repeats the shorter of the two without a word, or refuses.",
                f"make the last layer Dense({wanted})",
                _STRUCTURE,
            )
        return
    classes = case.classes
    if classes is None or case.labels == "multihot" or kind == "regression":
        return
    if width == 1:
        if classes > 2 and case.side.class_names is not None and (kind is None or case.labels is None):
            yield _too_narrow(case, width, classes, "one output can only tell two classes apart")
        return
    if width < classes:
        low = "" if case.known is None or case.known.min() == 0 else f" Labels start at {case.known.min()}."
        text = f"labels go up to {classes - 1}, and the loss has no output to look at for them.{low}"
        if case.labels == "onehot":
            text = f"rows of {classes} labels meet {width} outputs, which Keras refuses"
        yield _too_narrow(case, width, classes, text)
    elif width > classes:
        certain = case.side.class_names is not None or case.labels == "onehot"
        far = width >= 2 * classes and width > classes + 2
        yield Finding(
            "warning" if certain or far else "note",
            f"the model has {_plural(width, 'output')}, the data have {_plural(classes, 'class')}",
            f"{case.model.name}: last layer",
            f"{width - classes} outputs are never right. Is this the classifier of the source task?"
            if far
            else f"{width - classes} outputs are never right in these data.",
            f"make the last layer Dense({classes})" + ("; load the backbone with include_top=False" if far else ""),
            _STRUCTURE,
        )


def _too_narrow(case, width, classes, text):
    first = case.known is not None and case.known.min() == 1 and width == classes - 1
    return Finding(
        "error",
        f"the model has {_plural(width, 'output')}, the data have {_plural(classes, 'class')}",
        f"{case.model.name}: last layer",
        f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'} On a CPU TensorFlow stops; on a GPU the loss "
        "becomes NaN.",
        "number the classes from 0: y - 1" if first else f"make the last layer Dense({classes})",
        _STRUCTURE,
    )


_WANTED = {
    "caffe": "0–255 in the order blue, green, red, minus the mean of each",
    "tf": "[-1, 1]",
    "torch": "ImageNet's mean 0 and standard deviation 1",
    "inside": "raw pixels 0–255, which it rescales itself",
    "unit": "[0, 1]",
}


@_detector
def _range_of_pixels(case):
    """By the numbers that really reach the first convolution, whatever stands before it."""
    if case.run is None or case.side is None or not inspection.is_pictures(case.side.images):
        return
    given = case.side.images[: inspection.RUN]
    low, high = float(given.min()), float(given.max())
    if high - low < 0.2:
        return
    for network, met in zip(case.networks, case.run.entry):
        if met is None:
            continue
        if network.mode is None and network.entry.kernel.shape[-2] != given.shape[-1]:
            continue  # of a model of its own class the first layer by name need not be the first that pixels meet
        problem = _range_problem(network, *met, low, high)
        if problem is None:
            continue
        level, what, fix = problem
        wanted = f"{network.family} wants {_WANTED[network.mode]}. " if network.mode else ""
        raw = case.side.kind == "folder" and "twice" not in what
        if raw:  # what the reader does between the files and the model is not known here
            what, level = f"fed with pixels as they are in the files, {what}", "note"
        yield Finding(
            level,
            what,
            f"{network.name}: {network.entry.name}",
            f"{wanted}Images between {low:.4g} and {high:.4g} reach its first convolution as numbers between "
            f"{met[0]:.4g} and {met[1]:.4g}; the weights were learnt on others."
            if network.mode
            else f"Images between {low:.4g} and {high:.4g} reach the first convolution as numbers between "
            f"{met[0]:.4g} and {met[1]:.4g}.",
            fix,
            _MODELS,
        )


def _range_problem(network, low, high, spread, given_low, given_high):
    """``(level, what, fix)``, or ``None``; from what reaches the first convolution, see ``inspection.Run``."""
    mode, family = network.mode, network.family
    call = f"keras.applications' preprocess_input of {family}"
    largest = max(abs(low), abs(high))
    twice = (
        "error" if mode else "warning",
        "the pixels are rescaled twice, so that all images look alike to the network",
        "rescale once: feed raw pixels 0–255 to a model that rescales inside, or take its Rescaling layer out",
    )
    if mode is None:
        return twice if spread < 0.02 and given_high - given_low > 0.5 else None
    if mode == "caffe":
        if spread <= 3:
            fix = f"feed raw pixels through {call} instead of dividing by 255"
            return "error", "the pixels are scaled down, which this network does not want", fix
        if low >= -0.5 and high > 152:
            return "error", "the pixels are not preprocessed", f"put {call} before the network"
        return None
    if mode == "inside" and largest > 4:
        fix = f"build the network with include_preprocessing=True, or put {call} before it"
        return "error", "the pixels are not preprocessed", fix
    if spread < 0.05:
        return twice
    if mode == "unit":
        if high > 2:
            return "error", "the pixels are not rescaled", "put a Rescaling(1 / 255) layer before the network"
        if low < -0.2:
            return "error", "the pixels are rescaled to [-1, 1] instead of [0, 1]", "use Rescaling(1 / 255)"
        return None
    if largest > 4:
        return "error", "the pixels are not preprocessed", f"put {call} before the network"
    if low >= -0.01 and high <= 1.01 and mode in ("tf", "torch"):
        fix = "use Rescaling(1 / 127.5, offset=-1)" if mode == "tf" else f"put {call} before the network"
        return "error", "the pixels are rescaled to [0, 1], and this network wants others", fix
    return None


@_detector
def _learning_rate(case):
    """Only for networks of keras.applications that were trained before: small ones bear more."""
    if case.optimizer is None:
        return
    import keras

    try:
        rate = _highest_rate(case.optimizer)
    except Exception:  # a schedule of the reader's own
        return
    kind = type(case.optimizer).__name__
    limit = _RATE_LIMITS.get(kind, _ADAPTIVE_LIMIT)
    if rate < limit * 0.99:
        return
    for network in case.networks:
        if network.family is None or network.mode == "unit" or not network.trained_before:
            continue
        unfrozen = [
            weight
            for layer in network.leaves
            for weight in layer.trainable_variables
            if id(weight) in case.trainable and len(weight.shape) > 1
        ]
        if not unfrozen:
            continue
        size = float(np.mean([np.abs(keras.ops.convert_to_numpy(weight)).mean() for weight in unfrozen]))
        everything = all(id(w) in case.trainable for x in network.leaves for w in x.weights if len(w.shape) > 1)
        used = everything and int(case.optimizer.iterations) > 0  # it may have been trained from scratch
        step = (
            f"Plain gradients at {rate:.3g} are large for weights of {size:.2g} on average"
            if kind == "SGD"
            else f"100 steps of {kind} at {rate:.3g} move a weight by up to {100 * rate:.2g}, "
            f"{100 * rate / size:.0%} of the average weight"
        )
        yield Finding(
            "note" if used else "warning",
            f"a learning rate of {rate:.3g} for unfrozen pretrained layers",
            f"optimizer {kind}; {network.name}: {_plural(len(unfrozen), 'trainable kernel')}",
            f"{step}: they undo what was learnt before.",
            "compile again with a rate 10 to 100 times lower, such as 1e-5 for Adam, after the head has been trained",
            _TUNING,
        )


def _highest_rate(optimizer):
    """The largest rate that an optimizer will use, of a schedule over its first 100,000 steps."""
    import keras

    rate = optimizer.get_config()["learning_rate"]
    if isinstance(rate, dict):
        schedule = keras.saving.deserialize_keras_object(rate)
        steps = [0, *np.unique(np.geomspace(1, 1e5, 60).astype(int))]
        return max(float(np.asarray(schedule(int(step)))) for step in steps)
    return float(rate)


@_detector
def _size_of_the_head(case):
    if case.train is None or not case.train.total or not case.built:
        return
    import keras

    last = max((i for i, layer in enumerate(case.leaves) if inspection.is_convolution(layer)), default=None)
    if last is None:
        return
    inside = {id(layer) for network in case.networks if network.nested for layer in network.leaves}
    head = [
        layer
        for layer in case.leaves[last + 1 :]
        if isinstance(layer, keras.layers.Dense) and id(layer) not in inside and layer.trainable_variables
    ]
    sizes = inspection.by_owner([w for x in head for w in x.trainable_variables if id(w) in case.trainable], head)
    count, images = sum(sizes.values()), case.train.total
    if not count or count / images < _PARAMETERS_PER_IMAGE[1]:
        return
    widest = max(sizes, key=sizes.get)
    yield Finding(
        "warning" if count / images > _PARAMETERS_PER_IMAGE[0] else "note",
        f"a head of {count:,} parameters for {images:,} images",
        f"{case.model.name}: {widest} has {sizes[widest]:,} of them",
        f"That is {count / images:,.0f} parameters an image: it can learn every image by heart.",
        "use GlobalAveragePooling2D instead of Flatten, or fewer units; with few images, one linear layer",
        _HEADS,
    )


@_detector
def _validation_that_reshuffles(case):
    """Two passes over the validation set: do images leave it, and turn up in the training set?"""
    if not _moved_between_sides(case):
        return
    first, second = set(case.val.digests), set(case.val.again)
    seen = set(case.train.digests) | set(case.train.again)
    both = (first | second) & seen
    yield Finding(
        "error",
        "the validation set is drawn anew in each pass and mixes with the training set",
        "validation data",
        f"{len(second - first)} of {len(second)} validation images were not in the pass before, and {len(both)} were "
        "met in the training data as well: after some epochs the model has trained on all of them.",
        "split before shuffling, or use shuffle(..., reshuffle_each_iteration=False) before take and skip",
        _EVALUATION,
    )


def _moved_between_sides(case):
    train, val = case.train, case.val
    if train is None or val is None or val.again is None or not val.complete or train.again is None:
        return False
    first, second = set(val.digests), set(val.again)
    return bool((second - first) & (set(train.digests) | set(train.again)))


@_detector
def _copies_across_sides(case):
    train, val = case.train, case.val
    if train is None or val is None or _moved_between_sides(case):
        return
    places = {key: i for i, key in reversed(list(enumerate([*train.digests, *(train.again or ())]))) if key}
    seen = dict.fromkeys([*val.digests, *(val.again or ())])  # both passes, and each image once
    copies = [(places[key], i) for i, key in enumerate(seen) if key in places]
    if copies:
        share = len(copies) / len(seen)
        shuffled = train.again is not None and val.again is not None
        yield Finding(
            "error" if share >= 0.01 else "warning",
            f"{_plural(len(copies), 'validation image')} also in the training data",
            listed([f"{val.file(j)} = {train.file(i)}" for i, j in copies], 3, "; ")
            if train.again is None and val.again is None
            else "both datasets",
            f"{share:.1%} of the {len(seen):,} validation images that were compared were trained on, so the "
            "score is partly memory.",
            "split before shuffling, or with reshuffle_each_iteration=False, if both come from one dataset"
            if shuffled
            else "drop the copies from the training data (tlutils.data.load does), and split before augmenting",
            _EVALUATION,
        )
        return
    if not (inspection.is_pictures(train.images) and inspection.is_pictures(val.images)):
        return
    near = _near_copies(train.images, val.images)
    if near:
        yield Finding(
            "warning" if len(near) > 1 else "note",
            f"{_plural(len(near), 'validation image')} almost equal to a training image",
            listed([f"sampled image {j} ~ {i} (correlation {c:.4f})" for c, i, j in near], 3, "; "),
            f"Found among {len(val.images)} and {len(train.images)} images: resized or recompressed copies, or frames "
            "of one video. The score is partly memory.",
            "put all pictures of one scene, person or video on one side (tlutils.data.load, groups=)",
            _EVALUATION,
        )


def _near_copies(train, val):
    (hashes, patches), (others, pieces) = inspection.thumbnails(train), inspection.thumbnails(val)
    correlation = pieces @ patches.T
    pairs = []
    for j, row in enumerate(correlation):
        i = int(row.argmax())
        if row[i] >= _NEAR["correlation"] and (hashes[i] != others[j]).sum() <= _NEAR["bits"]:
            pairs.append((float(row[i]), i, j))
    return sorted(pairs, reverse=True)


@_detector
def _copies_within_a_folder(case):
    """A flat folder is still to be split, and copies would then fall on both sides."""
    side = case.train
    if side is None or side.kind != "folder" or case.val is not None:
        return
    copies = len(side.digests) - len(set(side.digests))
    if copies:
        yield Finding(
            "note",
            f"{_plural(copies, 'file')} with the same content as another one",
            side.name,
            "A random split puts some pairs on both sides, and the score is then partly memory.",
            "load the folder with tlutils.data.load, which keeps copies on one side",
            _EVALUATION,
        )


@_detector
def _random_at_evaluation(case):
    if case.run is not None and case.run.random:
        yield Finding(
            "warning",
            "something random is active when the model is evaluated",
            f"{case.model.name}: {listed(case.run.random, 4)}",
            "With training=False it still draws random numbers, so scores and predictions change from call to call.",
            "use Keras' augmentation layers and pass the training argument on; no tf.image.random_… inside a model",
            _AUGMENTING,
        )
    val = case.val
    if val is None or val.again is None or not val.complete or _moved_between_sides(case):
        return
    first, second = set(val.digests), set(val.again)
    if len(val.digests) == len(val.again) and len(second - first) > len(second) / 2:
        yield Finding(
            "warning",
            "the validation images change from pass to pass",
            "validation data",
            f"{len(second - first)} of {len(second)} images of the second pass were not in the first: they are "
            "augmented, or drawn at random.",
            "map the augmentation over the training data only, or put it into the model as layers",
            _AUGMENTING,
        )


@_detector
def _balance_of_classes(case):
    train = case.train
    if train is None or train.regression or case.classes is None:
        return
    names = train.class_names or tuple(map(str, range(case.classes)))
    if case.val is not None and case.val.class_names not in (None, train.class_names) and train.class_names:
        only = [
            f"{name} ({side.name})"
            for side, other in ((train, case.val), (case.val, train))
            for name in side.class_names
            if name not in other.class_names
        ]
        yield Finding(
            "error",
            "the training and the validation data have different classes",
            listed(only, 6) or "their order differs",
            "Classes are numbered in order, so from there on the same number means another class on each side.",
            "give both sides the same sub-folders, or pass class_names= when they are loaded",
            _EVALUATION,
        )
        return
    counted, absent = {}, set()
    for side in (train, case.val):
        numbers = None if side is None or side.labels is None or not side.complete else _class_numbers(side.labels)
        if numbers is not None and (numbers >= 0).all() and case.labels in ("sparse", "onehot", None):
            counted[side.name] = np.bincount(numbers, minlength=len(names))[: len(names)]
            missing = [name for name, count in zip(names, counted[side.name]) if not count and name not in absent]
            absent |= set(missing)
            if missing:
                certain = side is train or side.kind == "folder"
                yield Finding(
                    "warning" if certain else "note",
                    f"{_plural(len(missing), 'class')} without an image",
                    f"{side.name}: {listed(missing, 6)}",
                    "It cannot be learnt." if side is train else "Nothing is measured on it.",
                    "add images, or number the classes without it",
                    _EVALUATION,
                )
    if train.name not in counted or case.classes < 2:
        return
    counts = counted[train.name]
    present = counts[counts > 0]
    ratio = present.max() / present.min() if len(present) > 1 else 1
    if ratio >= _IMBALANCE[1]:
        largest, smallest = int(counts.argmax()), int(np.where(counts > 0, counts, counts.max() + 1).argmin())
        yield Finding(
            "warning" if ratio >= _IMBALANCE[0] else "note",
            f"classes of {present.min():,} to {present.max():,} images",
            f"{train.name}: {names[largest]} against {names[smallest]}",
            f"Always answering {names[largest]!r} is right for {counts.max() / counts.sum():.0%} of the images.",
            "report balanced accuracy and recall a class; weight the loss (fit(..., class_weight=...))",
            _EVALUATION,
        )


@_detector
def _classes_that_imagenet_knows(case):
    side = case.side
    pretrained = [n for n in case.networks if n.family and n.mode != "unit" and n.trained_before]
    if not pretrained or side is None or not side.class_names:
        return
    found = {name: known for name in side.class_names if (known := imagenet_classes(name))}
    if found:
        shown = [f"{name} ({listed(known, 2)})" for name, known in found.items()]
        yield Finding(
            "note",
            f"{len(found)} of {len(side.class_names)} classes are classes of ImageNet",
            f"{side.name}: {listed(shown, 4)}",
            "If the weights are ImageNet's, the network has learnt these very classes: a good score says little about "
            "transfer to something new.",
            "say so when you report the score, or compare with classes that ImageNet does not have",
            _CHOOSING,
        )


def imagenet_classes(name):
    """The classes of ImageNet that a class name stands for, singular or plural, or as the kind of thing they are.

    Args:
        name: Such as ``"ants"``, ``"tiger cat"``, ``"n02206856-bee"``; ``"dog"`` finds those that end in it.

    Returns:
        list of str
    """
    synsets = dict(_imagenet())
    if match := re.match(r"n\d{8}", name):
        return [synsets[match[0]]] if match[0] in synsets else []
    plain = re.sub(r"[^a-z]+", "_", name.lower()).strip("_")
    singular = {plain, plain.removesuffix("s"), plain.removesuffix("es"), re.sub("ies$", "y", plain)} - {""}
    words = {known: known.lower().replace("-", "_") for known in synsets.values()}
    exact = [known for known, word in words.items() if word in singular]
    return exact or [
        known for known, word in words.items() if any(len(x) > 2 and word.endswith(f"_{x}") for x in singular)
    ]


@cache
def _imagenet():
    text = Path(__file__).with_name("imagenet_classes.txt").read_text(encoding="utf-8")
    return tuple(tuple(line.split()) for line in text.splitlines() if not line.startswith("#"))


def _plural(count, noun):
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"
