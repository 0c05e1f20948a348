"""Model cards: what a model is, what was measured, and what was not (Mitchell et al., 2019)."""

from tlutils.calibration import BINS
from tlutils.tables import as_markdown, ends_text

_FEW = 30  # with so many images of a class, a recall of one half is known to ±17 points

_WHAT_IT_IS = {
    "train": "**These are the images the model was trained on. The numbers say nothing about new images.**",
    "val": "**Validation data, not a test.** Choices may have been made on these images, and the numbers are then too "
    "good. A test on images that nobody looked at is still to be done.",
    "test": "Test images. The numbers hold for new images of the same kind if no choice was made on these.",
    None: "Which split these images are was not stated.",
}


def model_card(report, name, *, backbone=None, task=None, training=None, repeated=None, limits=()):
    """A model card in Markdown, made of what was measured.

    Args:
        report: A :class:`Report`.
        name: Name of the model.
        backbone: The :class:`~tlutils.backbones.Backbone`: its name, source task, size and licence.
        task: The :class:`~tlutils.data.ImageTask`: name, classes, sizes of the splits, notes.
        training: How it was trained, in words, or ``None``.
        repeated: A :class:`Repeated` of the same recipe: the interval over seeds, or ``None``.
        limits: Sentences about what the model must not be used for, added to what the numbers say.

    Returns:
        str: Markdown.
    """
    parts = [
        f"# Model card: {name}",
        "## The model",
        _lines(_about(backbone, training)),
        "## What it was measured on",
        _lines([f"Measured on {report.measured_on}.", _WHAT_IT_IS[report.split], *_data(task)]),
        "## Scores",
        as_markdown(*report._score_table()),
        "Intervals are 95% intervals over the choice of images. They do not cover the choice of training images or the "
        "seed.",
    ]
    if repeated is not None:
        parts.append(f"The same recipe with several seeds: accuracy {repeated}.")
    if report.is_classifier:
        parts += ["## Class by class", as_markdown(*report._class_table())]
        if pairs := report.most_confused():
            parts += ["## Most frequent mistakes", _lines(f"{a} taken for {b}: {n}" for a, b, n in pairs)]
        parts += ["## Calibration", _calibration(report)]
    parts += ["## Limits", _lines([*_limits(report, repeated), *limits])]
    return "\n\n".join(parts) + "\n"


def _about(backbone, training):
    if backbone is None:
        yield "Backbone: not stated. Licence of its weights: not stated; find out before you pass the model on."
    else:
        yield f"Backbone: {backbone.name} ({backbone.family}), {backbone.parameters:,} parameters."
        yield f"Pretrained on: {backbone.source_task}."
        missing = "; find out before you pass the model on" if backbone.licence == "not stated" else ""
        yield f"Licence and origin of the weights: {backbone.licence}{missing}."
    yield f"Training: {training or 'not stated.'}"


def _data(task):
    if task is None:
        return ["Data set: not stated."]
    return [line.rstrip(".") + "." for line in task.summary().splitlines()]


def _calibration(report):
    mean, limit = report.ece_if_calibrated
    average, accuracy = float(report.confidence.mean()), report.accuracy
    direction = "surer than it is right" if average > accuracy else "right more often than it is sure"
    verdict = (
        f"That is more than chance explains: the model is {direction} (mean confidence {average:.3f}, accuracy "
        f"{accuracy:.3f})."
        if report.ece > limit
        else "That is no more than chance explains for so many images."
    )
    return (
        f"Expected calibration error {report.ece:.3f} ({BINS} bins of equal width), {report.ece_adaptive:.3f} ({BINS} "
        f"bins of equally many images). A perfectly calibrated model of the same confidences would show {mean:.3f} on "
        f"average, and less than {limit:.3f} in 95% of the cases. {verdict}"
    )


def _limits(report, repeated):
    if report.split in ("train", "val"):
        yield "There is no test result here; see above."
    if repeated is None:
        yield "One training run was measured: another seed or other training images give another model."
    if not report.is_classifier:
        yield "The model gives a number for every image, also for one that shows something else."
        return
    yield "The model names one of its classes for every image, also for one that shows something else."
    few = [row for row in report.per_class if 0 < row["support"] < _FEW]
    none = [row["name"] for row in report.per_class if not row["support"]]
    if few:
        worst = min(few, key=lambda row: row["support"])
        yield (
            f"{len(few)} of {len(report.class_names)} classes were measured on fewer than {_FEW} images: the recall of "
            f"{worst['name']} ({worst['support']} images) lies somewhere from "
            f"{ends_text(worst['recall_interval'], '.2f')} (95%)."
        )
    if none:
        yield f"Not measured at all, for want of images: {', '.join(map(str, none[:20]))}."
    yield "Images of another kind (camera, light, writer, place) were not measured unless they are among those above."


def _lines(texts):
    return "\n".join(f"- {text}" for text in texts)
