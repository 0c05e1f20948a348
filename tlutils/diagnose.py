"""Find the traps of transfer learning in a model and data of any make.

``diagnose(model, data, validation)`` looks at the model, at the way it is compiled and at samples of the data, through
public interfaces of Keras, and names what is wrong. It never changes anything: the model is only called where Keras
keeps whatever a call would write, so weights, flags, optimizer and random states stay as they are. Each detector is a
small function in this module, and ``@_detector`` above it is all that registers it. What one cannot decide it does not
report.
"""

import html
import math
import random
import re
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
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
# Of others, such as Adadelta, the rate alone does not tell.
_RATE_LIMITS = {"SGD": 0.05, "Lion": 3e-4, **dict.fromkeys(("Adam", "AdamW", "Adamax", "Nadam", "RMSprop"), 1e-3)}
_PARAMETERS_PER_IMAGE = (10_000, 100)  # of a head, from which on there is a warning, or a note
_IMBALANCE = (10, 3)
_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
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
    or on a model that was loaded. At most 64 images go through it as in ``evaluate``, and 32 of them as in a training
    step where BatchNorm trains. Of each side at most 256 images are looked at pixel by pixel. All labels that are at
    hand are counted; files, and the first 20,000 images of arrays, are compared as a whole (of images over 64×64 every
    third pixel of every third row). Of a dataset only the first 256 images are read, twice, to see whether its passes
    agree: a dataset that shuffles moves on to its next order by that, as by every pass.

    Nothing is changed: neither weights nor flags, compile state, optimizer or random states, and no file. (A dataset
    that caches to a file of its own does so when it is read.)

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
        case = inspection.Case(model, data, validation)
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
        why = f"{type(error).__name__}: {inspection.first_line(error)}"
        return [Finding("note", what, case.model.name, why, "check it by hand", _EVALUATION)]


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
    if not case.fits:
        yield Finding(
            "error",
            f"the images have shape {case.side.images.shape[1:]}, and the model takes {case.input_shape}",
            case.side.name,
            "Keras refuses such images.",
            "resize the images when they are loaded, or build the model with that input shape",
            _MODELS,
        )


# ----- what trains


@_detector
def _batch_norm_that_moves(case):
    """Reported where the reader has said that it should stand still; otherwise it is nobody's mistake."""
    groups = {}
    for norm, shift in () if case.run is None else case.run.moved.values():
        if said := _said_to_stand_still(case, norm):
            groups.setdefault(said, []).append((norm, shift))
    for (holder, said), members in groups.items():
        momentum = float(np.mean([norm.momentum for norm, _ in members]))
        distance = float(np.mean([shift for _, shift in members])) / (1 - momentum)
        half = math.ceil(math.log(0.5) / math.log(momentum)) if momentum > 0.5 else 1
        total = case.train.total if case.train is not None else None
        epoch = f" (an epoch of these data has {math.ceil(total / 32):,}, in batches of 32)" if total else ""
        yield Finding(
            "warning",
            f"{_plural(len(members), 'BatchNorm layer')} will move in fit although meant to be frozen: {said}",
            f"{holder}: {listed([norm.name for norm, _ in members], 4)}",
            f"The averages that these layers keep lie {distance:.2g} standard deviations from those of a batch of your "
            f"images. Every step of fit takes them there, half of the way in {_plural(half, 'step')}{epoch}. So the "
            "features change under the head.",
            "set layer.trainable = False on each BatchNormalization layer, then compile again "
            "(tlutils.models.unfreeze does it)",
            _TUNING,
        )


def _said_to_stand_still(case, norm):
    """``(name of what was frozen, how)``, or ``None``.

    It is said by a call with ``training=False`` that the graph records, or by weights of the layer's own that do not
    train; of a layer without such weights, by ``trainable = False`` on a model around it.
    """
    if holder := case.told_inference.get(id(norm)):
        return holder, f"{holder!r} was called with training=False, which fit overrides in this version of Keras"
    own = [weight for weight in (norm.gamma, norm.beta) if weight is not None]
    if own and not any(id(weight) in case.trainable for weight in own):
        return case.model.name, "their weights do not train, but the layers themselves are trainable"
    if not own and (holder := case.under_frozen.get(id(norm))):
        return holder, f"{holder!r} has trainable = False, but layers inside it do not"
    return None


@_detector
def _batch_norm_of_the_unfrozen_part(case):
    partly = any(x.weights and not any(id(w) in case.trainable for w in x.weights) for x in case.leaves)
    if case.run is None or not partly:
        return
    pretrained = {id(x) for network in case.networks if network.trained_before for x in network.leaves}
    loose = [norm for norm, _ in case.run.moved.values() if id(norm) in pretrained]
    if loose and not any(_said_to_stand_still(case, norm) for norm in loose):
        yield Finding(
            "note",
            f"{_plural(len(loose), 'BatchNorm layer')} of the unfrozen part will adapt to the new images",
            listed([norm.name for norm in loose], 4),
            "That is right with many images and costs accuracy with few, because batches of few images are noisy.",
            "with few images, set trainable = False on each of them, then compile again",
            _TUNING,
        )


@_detector
def _flags_changed_since_compile(case):
    """By asking the optimizer, which refuses weights that it was not built for before it does anything else."""
    import keras

    optimizer, model = case.optimizer, case.model
    own_step = type(model).train_step is not keras.Model.train_step  # which may train part of the model on purpose
    if optimizer is None or not getattr(optimizer, "built", False) or not case.built or own_step:
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
    known = {id(weight) for weight in model.variables if knows(weight)}
    added = [weight for weight in model.trainable_variables if id(weight) not in known]
    dropped = [weight for weight in model.variables if id(weight) in known - case.trainable]
    if added and not known:
        yield Finding(
            "note",
            "the optimizer knows none of the weights that train",
            f"{model.name}: optimizer {type(optimizer).__name__}",
            "It was built for another model, or Keras has loaded the model from an .h5 file. fit will stop with "
            "“Unknown variable”; predict and evaluate work.",
            "compile again with a new optimizer before fit, and save as .keras",
            _TUNING,
        )
    elif added:
        ignored = "fit goes on without them." if traced else "fit will stop with “Unknown variable”."
        yield _changed_flags(case, "unfrozen", "compiled", added, f"trainable = True, but {ignored}")
    if dropped and traced and case.trainable and not model.run_eagerly:  # a model frozen as a whole is not to train
        text = "trainable = False, but fit goes on training them."
        yield _changed_flags(case, "frozen", "compiled and trained", dropped, text)


def _changed_flags(case, change, before, weights, text):
    owners = inspection.by_owner(weights, case.leaves)
    return Finding(
        "error",
        f"layers were {change} after the model was {before}",
        f"{case.model.name}: {listed(owners, 4)}",
        f"{sum(owners.values()):,} parameters have {text}",
        "compile again, with a new optimizer, after every change of a trainable flag",
        _TUNING,
    )


@_detector
def _learning_rate(case):
    """Only for networks of keras.applications that were trained before: small ones bear more."""
    kind = type(case.optimizer).__name__
    if kind not in _RATE_LIMITS:
        return
    try:
        rate = _highest_rate(case.optimizer)
    except Exception:  # a schedule of the reader's own
        return
    if rate < _RATE_LIMITS[kind] * 0.99:
        return
    import keras

    for network in case.networks:
        unfrozen = [kernel for kernel in network.kernels if id(kernel) in case.trainable]
        if not unfrozen or not case.pretrained(network):
            continue
        size = float(np.mean([np.abs(keras.ops.convert_to_numpy(weight)).mean() for weight in unfrozen]))
        step = f"100 steps of {kind} at {rate:.3g} can move each of them by {100 * rate:.2g}."
        if kind == "SGD":
            step = f"Each step takes {rate:.3g} of the gradient off them, and the first gradients are large."
        yield Finding(
            "note" if case.scratch(network) else "warning",
            f"a learning rate of {rate:.3g} for unfrozen pretrained layers",
            f"optimizer {kind}; {network.name}: {_plural(len(unfrozen), 'trainable kernel')}",
            f"The weights are {size:.2g} in size on average. {step} That undoes what was learnt before.",
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
    if case.train is None or not case.train.total or not case.built or not case.networks:
        return
    import keras

    body = {id(layer) for network in case.networks for layer in network.leaves}
    above = [layer for layer in case.leaves if id(layer) not in body]
    if not case.networks[0].nested and any(isinstance(x, keras.layers.LayerNormalization) for x in above):
        return  # a transformer on a single convolution, not a head
    head = [layer for layer in above if isinstance(layer, keras.layers.Dense)]
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


# ----- the last layer, the loss and the labels


@_detector
def _logits_or_probabilities(case):
    loss, activation = case.loss, case.activation
    if case.kind not in ("sparse", "categorical", "binary") or activation is None:
        return
    where = f"{case.model.name}: last layer, and loss {loss.name}"
    if loss.from_logits and activation in ("softmax", "sigmoid"):
        level, why = _activated_twice(case)
        yield Finding(
            level,
            f"the model ends in {activation}, and the loss has from_logits=True",
            where,
            why,
            f"keep one of them: drop the {activation}, or set from_logits=False",
            _LOSSES,
        )
    outside = 0 if case.outputs is None else float(np.mean((case.outputs < -1e-6) | (case.outputs > 1 + 1e-6)))
    if not loss.from_logits and (activation == "linear" or (outside and activation != "logsoftmax")):
        measured = f" {outside:.0%} of its outputs are such numbers: Keras clips them, and they give no gradient."
        yield Finding(
            "error",
            f"the model gives logits (last activation: {activation}), and the loss expects probabilities",
            where,
            f"The loss takes logarithms of numbers that may lie below 0 or above 1.{measured if outside else ''}",
            "set from_logits=True in the loss, or end the model in softmax (one output: sigmoid)",
            _LOSSES,
        )


def _activated_twice(case):
    """``(level, why)``: TensorFlow undoes an activation that it finds in the graph, as the value of the loss shows."""
    loss, p, y = case.loss, case.outputs, case.labels and case.side.sample_labels
    if case.run is None or case.run.loss_of_guess is None:
        return "warning", "The activation is applied twice, unless TensorFlow finds it in the graph and undoes it."
    inside = case.run.loss_of_guess
    clipped = np.clip(p, 1e-7, 1 - 1e-7)
    logits = np.log(clipped) - (np.log1p(-clipped) if case.activation == "sigmoid" else 0)
    with warnings.catch_warnings(action="ignore"):
        guess = inspection.guess(loss, p)
        undone, twice = float(loss.mean(guess, logits)), float(loss.mean(guess, p))
        if abs(undone - twice) < 5e-3:
            text = "The activation is applied twice, unless TensorFlow finds it in the graph and undoes it. "
            return "warning", f"{text}Here all outputs are nearly equal, so that the loss does not tell."
        if abs(inside - twice) < abs(inside - undone):
            others = p.shape[-1] - 1 if case.activation == "softmax" else 1
            best = math.log1p(others / math.e)  # one probability is 1, the others are 0, and all are taken for logits
            return "error", f"It is applied twice: even a perfect prediction has a loss of {best:.2f}."
        text = (
            f"TensorFlow finds the {case.activation} in the graph and undoes it, so fit works. Another backend does not"
        )
        if case.run.loss is None:
            return "warning", f"{text}, and the outputs of predict are no logits."
        alone = float(loss.mean(y[: len(p)], p))
    return "warning", (
        f"{text}. The outputs of predict are no logits: their loss is {alone:.4f} instead of {case.run.loss:.4f}."
    )


@_detector
def _loss_against_labels(case):
    if case.kind is None or case.labels is None or case.width is None:
        return
    level, problem, fix = _misfit(case) or (None, None, None)
    if problem:
        yield Finding(
            level,
            f"the loss does not fit the labels: {problem}",
            f"loss {case.loss.name}; {case.side.name}, labels of shape {np.shape(case.side.sample_labels)}",
            _consequence(case),
            fix,
            _LOSSES,
        )


def _misfit(case):
    """``(level, problem, fix)`` of a loss and labels that do not go together, or ``None``."""
    labels, width, classes = case.labels, case.width, case.classes
    rows, one_of_many = labels in ("onehot", "multihot"), "use SparseCategoricalCrossentropy"
    if case.kind == "regression":
        if labels == "sparse" and width > 1:
            return "error", f"a regression loss on class numbers and {width} outputs", f"{one_of_many}, or one output"
        if width == 1 and case.side.class_names is not None and classes > 2:
            problem = "class numbers are learnt as amounts, as if class 2 lay between 1 and 3"
            return "warning", problem, f"give the model {classes} outputs and {one_of_many}"
        return None
    if labels == "numbers":
        y = np.asarray(case.side.sample_labels)
        wanted = {"sparse": "class numbers", "categorical": "one-hot rows", "binary": "0 or 1"}[case.kind]
        if case.kind != "binary" or y.min() < 0 or y.max() > 1:
            problem = f"labels are amounts between {y.min():.4g} and {y.max():.4g}, the loss wants {wanted}"
            return "error", problem, "use a regression loss such as 'mse', or number the classes from 0"
    elif case.kind == "sparse":
        if rows:
            return "error", "labels are one-hot rows, the loss wants class numbers", "use CategoricalCrossentropy"
        if width == 1:
            return "error", "one output cannot tell classes apart", "use one output a class, or BinaryCrossentropy"
    elif case.kind == "categorical":
        if labels == "sparse":
            fix = f"{one_of_many}, or keras.utils.to_categorical(y)"
            fix = "for two classes and one output use BinaryCrossentropy" if width == 1 else fix
            return "error", "labels are class numbers, the loss wants one-hot rows", fix
        if labels == "multihot":
            problem = "rows of labels hold several ones or none, and softmax lets one class win"
            return "warning", problem, "use sigmoid and BinaryCrossentropy"
    elif labels == "sparse" and width == 1 and classes is not None and classes > 2:
        fix = f"give the model {classes} outputs and {one_of_many}"
        return "error", f"binary cross-entropy on labels 0 to {classes - 1}", fix
    elif labels == "sparse" and width > 1:
        problem = f"labels are class numbers, the loss wants a row of {width} zeros and ones for each"
        return "error", problem, f"{one_of_many}, or a single output for two classes"
    elif labels == "onehot" and width > 2 and case.activation == "softmax":
        fix = "use CategoricalCrossentropy; metrics=['accuracy'] then counts images, too"
        return "warning", "binary cross-entropy on a softmax over several classes", fix
    return None


def _consequence(case):
    """What the loss says to the first labels."""
    if case.outputs is None or case.loss is None or case.loss.function is None:
        return "Keras refuses it, or learns something else than was meant."
    try:
        with warnings.catch_warnings(action="ignore"):
            y = np.asarray(case.side.sample_labels)[: len(case.outputs)]
            value = float(case.loss.mean(y, case.outputs)) if case.run.loss is None else case.run.loss
    except Exception as error:
        return f"Keras refuses it: {inspection.first_line(error)}"
    return f"Keras does not complain: the loss of {len(y)} images is {value:.3g}, and is not what was meant."


@_detector
def _softmax_over_one_output(case):
    if case.width == 1 and case.activation == "softmax":
        yield Finding(
            "error",
            "softmax over a single output",
            f"{case.model.name}: last layer",
            "It is 1 for every image, whatever the weights are, so nothing can be learnt.",
            "use sigmoid with one output, or softmax with one output a class",
            _LOSSES,
        )


@_detector
def _number_of_targets(case):
    if case.width is None or case.labels != "numbers" or case.kind not in (None, "regression"):
        return
    targets = np.asarray(case.side.sample_labels).reshape(len(case.side.images), -1).shape[1]
    if case.width != targets:
        yield Finding(
            "error",
            f"the model has {_plural(case.width, 'output')} for {_plural(targets, 'target')} an image",
            f"{case.model.name}: last layer",
            _consequence(case),
            f"make the last layer Dense({targets})",
            _STRUCTURE,
        )


@_detector
def _width_of_the_last_layer(case):
    """Of classifiers: by their loss, or by a softmax. Other models may have any width, such as an embedding."""
    width, classes = case.width, case.classes
    classifies = case.kind in ("sparse", "categorical", "binary") or case.activation == "softmax"
    if width is None or classes is None or case.labels in ("multihot", "numbers") or not classifies:
        return
    named = case.side.class_names is not None
    missing = None
    if width == 1:
        if classes > 2 and named and case.labels is None:
            missing = "One output can only tell two classes apart."
    elif width < classes and case.labels == "onehot":
        missing = f"Rows of {classes} labels meet {width} outputs, which Keras refuses."
    elif width < classes:
        low = 0 if case.known is None else case.known.min()
        start = f" They start at {low}." if low else ""
        missing = f"Labels go up to {classes - 1}, and the loss has no output to look at for them.{start} On a CPU "
        missing += "TensorFlow stops; on a GPU the loss becomes NaN."
    certain = named or case.labels == "onehot"
    far = width >= 2 * classes and width > classes + 2
    if not missing and (width <= classes or not (certain or case.side.counted)):
        return
    fix = f"make the last layer Dense({classes})"
    if missing and case.known is not None and case.known.min() == 1 and width == classes - 1:
        fix = "number the classes from 0: y - 1"
    question = " Is this the classifier of the source task?" if far else ""
    yield Finding(
        "error" if missing else "warning" if certain or far else "note",
        f"the model has {_plural(width, 'output')}, the data have {_plural(classes, 'class')}",
        f"{case.model.name}: last layer",
        missing or f"{_plural(width - classes, 'output')} can never be right in these data.{question}",
        fix + ("; load the backbone with include_top=False" if far and not missing else ""),
        _STRUCTURE,
    )


# ----- pixels


_WANTED = {
    "caffe": "0–255 in the order blue, green, red, minus the mean of each",
    "tf": "[-1, 1]",
    "torch": "ImageNet's mean 0 and standard deviation 1",
    "inside": "raw pixels 0–255, which it rescales inside",
    "unit": "[0, 1]",
}
_TWICE = (
    "the pixels are rescaled twice, so that all images look alike to the network",
    "rescale once: feed raw pixels 0–255 to a model that rescales inside, or take its Rescaling layer out",
)


@_detector
def _range_of_pixels(case):
    """By the numbers that really reach the first convolution, whatever stands before it."""
    if case.run is None or case.side is None or not inspection.is_pictures(case.side.images):
        return
    images = case.side.images[: inspection.RUN]
    given = float(images.min()), float(images.max())
    for network, met in zip(case.networks, case.run.entry):
        mode = network.mode if network.trained_before else None  # random weights want nothing
        if met is None or given[1] - given[0] < 0.2:
            continue
        if mode is None and network.entry.weights[0].shape[-2] != images.shape[-1]:
            continue  # of a model of its own class the first layer by name need not be the first that pixels meet
        problem = _range_problem(network.family, mode, met, given)
        if problem is None:
            continue
        what, fix = problem
        level = "error" if mode else "warning"
        if case.side.kind == "folder" and problem != _TWICE:
            what, level = f"{what}, if fit gets them as they are in the files", "note"
        elif case.scratch(network) and problem != _TWICE:
            what, level = f"{what}, unless it was trained from scratch on such pixels", "note"
        wanted = f"{network.family} has learnt on {_WANTED[mode]}. " if mode else ""
        yield Finding(
            level,
            what,
            f"{network.name}: {network.entry.name}",
            f"{wanted}Images between {given[0]:.4g} and {given[1]:.4g} reach the first convolution as numbers between "
            f"{met[0]:.4g} and {met[1]:.4g}.",
            fix,
            _MODELS,
        )


def _range_problem(family, mode, met, given):
    """``(what, fix)``, or ``None``; ``met`` is what reaches the first convolution, see ``inspection.Run``."""
    low, high, spread = met
    preprocess = f"put keras.applications' preprocess_input of {family} before the network"
    raw = "the pixels are not preprocessed as this network wants them"
    if mode is None:
        return _TWICE if spread < 0.02 and given[1] - given[0] > 0.5 else None
    if mode == "caffe":
        if spread <= 3:
            down = "the pixels are scaled down, which this network does not want"
            return down, f"{preprocess}, and do not divide by 255"
        return (raw, preprocess) if low >= -0.5 and high > 152 else None
    if mode == "inside" and max(-low, high) > 4:
        return raw, f"build the network with include_preprocessing=True, or {preprocess}"
    if spread < 0.05:
        return _TWICE
    if mode == "inside":
        return None
    if mode == "unit":
        if high > 2:
            return "the pixels are not rescaled", "put a Rescaling(1 / 255) layer before the network"
        around_zero = "the pixels are rescaled to [-1, 1] instead of [0, 1]"
        return (around_zero, "use Rescaling(1 / 255)") if low < -0.2 else None
    if max(-low, high) > 4:
        return raw, preprocess
    bright = given[1] > 2 and high - low > 1.4 / 255 * (given[1] - given[0])  # scaled to more than [0, 1], no dark ones
    if low >= -0.01 and high <= 1.01 and not bright:
        fix = "use Rescaling(1 / 127.5, offset=-1)" if mode == "tf" else preprocess
        return "the pixels are rescaled to [0, 1], and this network wants others", fix
    return None


@_detector
def _another_range_in_validation(case):
    """A rescaling that one side has and the other lacks."""
    sides = case.train, case.val
    if not all(side is not None and inspection.is_pictures(side.images) for side in sides):
        return
    largest = [float(np.abs(side.images).max()) for side in sides]
    if max(largest) > 10 * min(largest) > 0:
        ranges = [f"{side.images.min():.4g} and {side.images.max():.4g}" for side in sides]
        yield Finding(
            "error",
            "the validation images are scaled otherwise than the training images",
            "training and validation data",
            f"Training pixels lie between {ranges[0]}, validation pixels between {ranges[1]}. The model is judged on "
            "pixels of a kind that it has never seen.",
            "prepare both sides by one function, or by layers of the model",
            _MODELS,
        )


# ----- copies, and data that change


@_detector
def _validation_that_reshuffles(case):
    """Two passes over the validation set: do images leave it, and turn up in the training set?"""
    if not _moved_between_sides(case):
        return
    first, second = set(case.val.digests), set(case.val.again)
    both = (first | second) & {*case.train.digests, *case.train.again}
    yield Finding(
        "error",
        "the validation set is drawn anew in each pass and mixes with the training set",
        "validation data",
        f"{len(second - first)} of {len(second)} validation images were not in the pass before, and {len(both)} were "
        "met in the training data as well. After some epochs the model has trained on all of them.",
        "split before shuffling, or use shuffle(..., reshuffle_each_iteration=False) before take and skip",
        _EVALUATION,
    )


def _moved_between_sides(case):
    train, val = case.train, case.val
    if train is None or val is None or train.again is None or val.again is None or not val.whole:
        return False
    return not (set(val.again) - set(val.digests)).isdisjoint([*train.digests, *train.again])


def _copies(case):
    """Positions ``(in the training data, among the different validation images)``, and the number of the latter."""
    places = {key: i for i, key in reversed(list(enumerate([*case.train.digests, *(case.train.again or ())]))) if key}
    seen = dict.fromkeys([*case.val.digests, *(case.val.again or ())])  # both passes, and each image once
    return [(places[key], j) for j, key in enumerate(seen) if key in places], len(seen)


@_detector
def _copies_across_sides(case):
    train, val = case.train, case.val
    if train is None or val is None or _moved_between_sides(case):
        return
    copies, compared = _copies(case)
    if not copies:
        return
    datasets = train.again is not None and val.again is not None
    yield Finding(
        "error" if len(copies) / compared >= 0.01 else "warning",
        f"{_plural(len(copies), 'validation image')} also in the training data",
        "both datasets" if datasets else listed([f"{val.file(j)} = {train.file(i)}" for i, j in copies], 3, "; "),
        f"{len(copies) / compared:.1%} of the {compared:,} validation images that were compared were trained on, so "
        "the score is partly memory.",
        "split before shuffling, or with reshuffle_each_iteration=False, if both come from one dataset"
        if datasets
        else "drop the copies from the training data (tlutils.data.load does), and split before augmenting",
        _EVALUATION,
    )


@_detector
def _near_copies_across_sides(case):
    train, val = case.train, case.val
    if train is None or val is None or _moved_between_sides(case) or _copies(case)[0]:
        return
    if not (inspection.is_pictures(train.images) and inspection.is_pictures(val.images)):
        return
    if near := _near_copies(train.images, val.images):
        yield Finding(
            "warning" if len(near) > 1 else "note",
            f"{_plural(len(near), 'validation image')} almost equal to a training image",
            listed([f"{val.file(val.rows[j])} ~ {train.file(train.rows[i])} ({c:.4f})" for c, i, j in near], 3, "; "),
            f"{len(val.images)} and {len(train.images)} images were compared; the number is the correlation. They are "
            "resized or recompressed copies, or frames of one video. The score is partly memory.",
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
    if copies := len(side.digests) - len(set(side.digests)):
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
    if case.run is None or not case.run.random:
        return
    import keras

    noise = keras.layers.Dropout, keras.layers.GaussianDropout, keras.layers.GaussianNoise
    on_purpose = all(isinstance(each, noise) for each in case.run.random)  # which nobody leaves on by mistake
    yield Finding(
        "note" if on_purpose else "warning",
        "something random is active when the model is evaluated",
        f"{case.model.name}: {listed([getattr(each, 'name', each) for each in case.run.random], 4)}",
        "With training=False it still draws random numbers, so scores and predictions change from call to call.",
        "use Keras' augmentation layers and pass the training argument on; no tf.image.random_… inside a model",
        _AUGMENTING,
    )


@_detector
def _validation_that_changes(case):
    val = case.val
    if val is None or val.again is None or not val.whole or _moved_between_sides(case):
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


# ----- classes


@_detector
def _splits_taken_for_classes(case):
    for side in (case.train, case.val):
        names = () if side is None else side.class_names or ()
        if len(names) > 1 and {name.lower() for name in names} <= _SPLITS:
            yield Finding(
                "warning",
                f"the classes are called {' and '.join(names)}",
                side.name,
                "These are names of splits: the folder is one level too high, and the model learns to tell training "
                "from validation images.",
                "load each split from a folder of its own, such as …/train, which holds one sub-folder a class",
                _EVALUATION,
            )


@_detector
def _different_classes(case):
    train, val = case.train, case.val
    if train is None or val is None or not train.class_names or val.class_names in (None, train.class_names):
        return
    only = [
        f"{name} ({side.name})"
        for side, other in ((train, val), (val, train))
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


@_detector
def _empty_classes(case):
    too_narrow = case.classes is not None and 1 < (case.width or 1) < case.classes  # then the numbers are in doubt
    if case.train is None or case.classes is None or too_narrow or any(_different_classes(case)):
        return
    told = set()
    for side in (case.train, case.val):
        counts = case.by_class(side)
        names = () if counts is None else [name for name, count in zip(case.class_names, counts) if not count]
        missing = [name for name in names if name not in told]
        told.update(missing)
        if missing:
            yield Finding(
                "warning" if side is case.train or side.kind == "folder" else "note",
                f"{_plural(len(missing), 'class')} without an image",
                f"{side.name}: {listed(missing, 6)}",
                "It cannot be learnt." if side is case.train else "Nothing is measured on it.",
                "add images, or number the classes without it",
                _EVALUATION,
            )


@_detector
def _imbalance(case):
    counts = None if case.train is None else case.by_class(case.train)
    if counts is None or (counts > 0).sum() < 2:
        return
    few, many = int(counts[counts > 0].min()), int(counts.max())
    if many / few < _IMBALANCE[1]:
        return
    largest, smallest = (case.class_names[counts.tolist().index(count)] for count in (many, few))
    yield Finding(
        "warning" if many / few >= _IMBALANCE[0] and not case.train.weighted else "note",
        f"classes of {few:,} to {many:,} images",
        f"{case.train.name}: {largest} against {smallest}",
        f"Always answering {largest!r} is right for {many / counts.sum():.0%} of the images.",
        "report balanced accuracy and recall a class; weight the loss (fit(..., class_weight=...))",
        _EVALUATION,
    )


@_detector
def _classes_that_imagenet_knows(case):
    if case.side is None or not case.side.class_names or not any(map(case.pretrained, case.networks)):
        return
    names = case.side.class_names
    found = {name: known for name in names if (known := imagenet_classes(name))}
    if found:
        shown = [f"{name} ({listed(known, 2)})" for name, known in found.items()]
        yield Finding(
            "note",
            f"{len(found)} of {len(names)} classes are classes of ImageNet",
            f"{case.side.name}: {listed(shown, 4)}",
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
