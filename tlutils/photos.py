"""Your own photographs: a folder in, a classifier out, with what it takes to use it and to judge it.

:func:`train` runs the book's recipe on a folder and writes a model file that plain Keras can load. Beside it stand a
model card, the report and the learning curves. :func:`load` opens such a file to name new photographs and to measure it
on others. The command line has the same as ``tlutils train``, ``tlutils predict`` and ``tlutils evaluate``::

    runtime.setup()
    print(photos.train("my_photos", "flowers.keras", "mobilenet_v2"))
    classifier = photos.load("flowers.keras")
    report, notes = classifier.evaluate("kept_back")
    predictions = classifier.predict(["holiday/1.jpg", "holiday/2.jpg"])

The names of the classes travel inside the ``.keras`` file, in its ``metadata.json``, which Keras writes but does not
read. So do the beginnings of the hashes of the photographs: no photograph can be made from them, but whoever has the
same file can tell that the model has met it.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import warnings
import zipfile
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from scipy.special import softmax

import tlutils
from tlutils import backbones, checkpoints, data, evaluation, models, training
from tlutils.folders import layout
from tlutils.images import check_files, decode
from tlutils.notes import DataError, Log, listed
from tlutils.runtime import require_tensorflow, shows_progress
from tlutils.tables import as_text, ends_text

# Peak rate of fine-tuning: what profile("full") takes for ImageNet networks, and what book/results/fine_tuning.json
# shows to be good for two blocks of the small ones.
_RATE, _POCKET_RATE = 1e-4, 3e-3
_METADATA, _KEY = "metadata.json", "tlutils"
_CHANNELS = 3
_DIGEST = 16  # hex digits of a file's SHA-256 that are kept of each image that the model has seen

_RULE = "the tuned model is kept only if it gets more validation images right than the probe"
_FLATTERS = (
    "These validation images chose the model: the probe or the tuned one, the epoch, and the temperature. So the "
    "numbers flatter it. For a fair number, measure it on images that it has not met (tlutils evaluate)."
)
_SEEN = (
    "Beside the names of the classes, the file holds how the SHA-256 of each training and validation image begins. "
    "Whoever has one of these images can tell that the model has met it.\n\n"
)


# ---------------------------------------------------------------------------------------------------------------- train


class PlaceError(ValueError):
    """The model cannot be written where it was asked for; the message says why and what to do."""


@dataclass(frozen=True)
class Trained:
    """What :func:`train` made.

    Attributes:
        model: keras.Model; raw pixels 0–255, shape (N, height, width, 3), to logits (N, classes).
        task: The :class:`~tlutils.data.ImageTask` that the folder was read as; ``task.notes`` names files that were
            skipped.
        report: The :class:`~tlutils.evaluation.Report` of the model on the test images, or on the validation images
            where there is no test split; it says which.
        kept: ``"probe"`` or ``"fine-tuned"``.
        why: The sentence that says so, with the numbers.
        temperature: What its logits were divided by; 1 where no temperature helps.
        stages: One dict a stage: ``stage``, ``report`` (on the validation images, before that division), and
            ``history``, ``best_epoch`` and ``seconds`` as in :class:`~tlutils.training.Fit`; after an interruption the
            seconds since then.
        files: The files that were written, the model first.
    """

    model: object = field(repr=False)
    task: object
    report: object
    kept: str
    why: str
    temperature: float
    stages: tuple = field(repr=False)
    files: tuple

    def __str__(self):
        heading = ("stage", "validation accuracy", "95% interval", "log-loss", "seconds")
        rows = [
            (
                stage["stage"],
                f"{stage['report'].accuracy:.3f}",
                ends_text(stage["report"].interval, ".3f"),
                f"{stage['report'].log_loss:.3f}",
                f"{stage['seconds']:.1f}",
            )
            for stage in self.stages
        ]
        parts = [as_text(heading, rows, self.why), _divided(self.temperature), str(self.report)]
        if self.report.split == "val":
            parts.append(_FLATTERS)
        return "\n\n".join([*parts, f"written: {', '.join(map(str, self.files))}"])


def train(
    folder,
    out,
    backbone="mobilenet_v2",
    *,
    image_size=None,
    epochs=10,
    augment=False,
    seed=0,
    overwrite=False,
    progress=None,
):
    """Train a classifier on a folder of photographs and write it to a file that plain Keras can load.

    A linear probe on the frozen backbone is solved first. Then its last two blocks are fine-tuned from there, and the
    epoch with the lowest validation loss is taken. The tuned model is kept only if it gets more validation images right
    than the probe; where they are level, the probe stays. In the end the weights of the output are divided by a
    temperature, so that the probabilities fit the validation images; that changes no class.

    Written are, for ``flowers.keras``, the model, ``flowers.md`` (the model card), ``flowers.json`` (the report, for
    :meth:`~tlutils.evaluation.Report.from_json`) and ``flowers.png`` (loss and accuracy by epoch). While it works it
    keeps its state in ``flowers.backup/``. After a crash the same call goes on from there, and ends with the weights
    that it would have ended with. The folder of photographs is read only.

    Call :func:`tlutils.runtime.setup` before, so that two runs give the same numbers.

    Args:
        folder: A folder with one sub-folder a class, or with ``train/``, ``val/`` and ``test/``, see
            :func:`tlutils.data.load`; where there is no folder of that name, the name of a registered data set.
        out: The model file, ``….keras``, outside ``folder``.
        backbone: A name of :func:`tlutils.backbones.available`.
        image_size: Side in pixels to which every image is resized; ``None`` takes the backbone's own.
        epochs: Most epochs of fine-tuning; 0 stops after the probe, and no curves are drawn.
        augment: Turn, shift, scale and mirror every photograph anew in each epoch: slower, because nothing can be
            computed beforehand.
        seed: Decides the splits, the order and the dropout.
        overwrite: Whether files that an earlier call wrote may be replaced.
        progress: Say what is being done, line by line; ``None`` does so in a terminal or an interactive notebook.

    Returns:
        Trained: prints as a table of the stages, the decision and the report.

    Raises:
        PlaceError: ``out`` is no place for a model, or a file would be replaced and ``overwrite`` is false.
        DataError: The folder cannot be used, or an image cannot be decoded; the message says which.
        FileNotFoundError: The backbone's weights are neither here nor to be downloaded.
        ValueError: The backbone is unknown, or ``image_size`` is too small for it.

    Warns:
        DataWarning: Files were skipped or copies dropped; ``task.notes`` has the details.
        CheckpointWarning: A file of the backup is damaged; what it held is computed again.
    """
    name = backbones.find(backbone)
    source = Path(folder).expanduser()
    source = source if source.is_dir() else folder
    files = _Files(out, source, overwrite)
    known = next(row for row in backbones.describe() if row["name"] == name)
    say = partial(print, flush=True) if shows_progress(progress) else lambda *_: None

    task = data.load(source, image_size=image_size or known["image_size"], channels=_CHANNELS, seed=seed)
    if task.kind != "classification":
        raise ValueError(f"{task.name!r} is a regression: its labels are numbers, not classes of photographs")
    say(task.summary())
    require_tensorflow()
    import keras

    rate = _POCKET_RATE if name.startswith("pocket_") else _RATE
    settings = {"blocks": 2, "epochs": epochs, "learning_rate": rate, "augment": augment, "seed": seed}
    versions = {"tlutils": tlutils.__version__, "keras": keras.__version__, "backbone": name}
    network = backbones.load(name, input_shape=(*task.image_size, _CHANNELS))
    model = models.classifier(network, task.num_classes)
    if before := files.begin(settings | versions, task):
        say(before)

    def probe():
        say(f"linear probe: {name} looks once at {len(task.train):,} images")
        return training.linear_probe(model, task, cache_dir=files.backup, seed=seed, progress=progress)

    def tune():
        say(f"fine-tuning: the last {settings['blocks']} blocks, at most {epochs} epoch{'s' * (epochs > 1)}")
        options = {
            "augment": training.augmentation(flip=True) if augment else None,
            "start": "as_is",
            "backup_dir": files.backup,
            "progress": progress,
        }
        return training.fine_tune(model, task, **settings | options)

    with _tensorflow_errors():
        stages = [_stage("probe", model, task, files, probe)]
        weights = model.get_weights()
        if epochs:
            stages.append(_stage("fine-tuned", model, task, files, tune))
        kept, why = _decide(stages)
        if kept == "probe":
            model.set_weights(weights)
        report = next(stage["report"] for stage in stages if stage["stage"] == kept)
        if model.compute_dtype != "float32":
            model = _in_float32(model)
            report = evaluation.evaluate(model, task.val, class_names=task.class_names)
        temperature = _divide(model, report)
        report = replace(report, outputs=report.outputs / temperature)
        if task.test is not None:
            report = evaluation.evaluate(model, task.test, class_names=task.class_names)

    # The file is the same whichever stage ran in this process. BatchNorm stays frozen for whoever trains on.
    models.freeze(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"], jit_compile=False)
    _save(model, files.made(".keras"), _facts(task, name))
    limits = [_FLATTERS] if report.split == "val" else []
    recipe = f"{_recipe(stages, settings, why)} {_divided(temperature)}"
    card = evaluation.model_card(report, files.model.stem, backbone=network, task=task, training=recipe, limits=limits)
    files.made(".md").write_text(card + "\n" + _how_to_use(files.model.name, task, keras.__version__), encoding="utf-8")
    report.to_json(files.made(".json"))
    if epochs:
        _curves(stages, kept).savefig(files.made(".png"), dpi=144)
    return Trained(model, task, report, kept, why, temperature, tuple(stages), files.finish())


class _Files:
    """The files of one training: what is written beside the model, and the backup that it goes on from."""

    def __init__(self, out, source, overwrite):
        self.model = Path(out).expanduser()
        self.all = [self.model.with_suffix(suffix) for suffix in (".keras", ".md", ".json", ".png")]
        self.backup = self.model.with_suffix(".backup")
        self._key = self.backup / "tlutils-training.txt"
        parent = self.model.parent
        if self.model.suffix != ".keras":
            raise PlaceError(f"the name of the model file must end in .keras, and {self.model} does not")
        if not parent.is_dir():
            raise PlaceError(f"there is no folder {parent} for {self.model.name}: make it, or give another place")
        if not os.access(parent, os.W_OK):
            raise PlaceError(f"{parent} cannot be written, so there is no place for {self.model.name}: give another")
        if isinstance(source, Path) and source.resolve() in self.model.resolve().parents:
            raise PlaceError(f"{self.model} lies inside {source}, which is only read: give a place outside it")
        # Beside a backup, everything but the model itself may stem from the training that was interrupted.
        guarded = self.all[:1] if self._key.is_file() else self.all
        there = [str(file) for file in guarded if file.exists()]
        if there and not overwrite:
            raise PlaceError(f"{listed(there)} would be replaced: give another name, or say overwrite")
        if folders := [str(file) for file in self.all if file.is_dir()]:
            raise PlaceError(f"{listed(folders)} is a folder: give another name")
        ours = self._key.is_file() or (self.backup.is_dir() and not any(self.backup.iterdir()))
        if self.backup.exists() and not ours:
            raise PlaceError(f"{self.backup} is needed for the state of the training and holds other things: move them")

    def begin(self, settings, task):
        """Make the backup ready; that of another training is thrown away. Gives what there is to say about it."""
        parts = [(part.fingerprint, part.labels.tolist()) for part in (task.train, task.val)]
        described = json.dumps([settings, parts, task.class_names], sort_keys=True)
        key = hashlib.sha256(described.encode()).hexdigest()
        found = self._key.read_bytes() if self._key.is_file() else None
        if found == key.encode():
            return f"going on from {self.backup}"
        if found is not None:
            self._remove()
        self.backup.mkdir(exist_ok=True)
        self._key.write_text(key)
        return f"starting anew: {self.backup} was of another training, with other images or settings" if found else ""

    def made(self, suffix):
        """Where a file is written before all of them are moved to their places."""
        return self.backup / f"made{suffix}"

    def finish(self):
        """Move what was made to its place, the model last, and remove the backup; gives the files, the model first."""
        for file in reversed(self.all):
            made = self.made(file.suffix)
            if made.exists():
                os.replace(made, file)
            else:
                file.unlink(missing_ok=True)  # of an earlier training, whose other files have just been replaced
        self._remove()
        return tuple(file for file in self.all if file.exists())

    def _remove(self):
        """Remove the backup, the key last: what a killed process leaves of it is still known for what it is."""
        for path in self.backup.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path != self._key:
                path.unlink()
        self._key.unlink()
        self.backup.rmdir()


def _stage(name, model, task, files, run):
    """One stage of the training, or what an interrupted call has kept of it; the model then holds its weights."""
    file = files.backup / f"{name}.npz"
    if kept := checkpoints.load(file):
        fit, weights = kept
        model.set_weights(weights)
    else:
        done = run()
        fit = {"history": done.history, "seconds": done.seconds, "best_epoch": done.best_epoch}
        checkpoints.save(file, fit, model.get_weights())
    report = evaluation.evaluate(model, task.val, class_names=task.class_names)
    return {"stage": name, "report": report, **fit}


def _decide(stages):
    """``(kept, why)``: which stage's model is kept, and the sentence that says so."""
    if len(stages) == 1:
        return "probe", "Kept: the probe; fine-tuning was not asked for."
    if not stages[1]["best_epoch"]:
        return "probe", "Kept: the probe; no epoch of fine-tuning has a lower validation loss."
    probe, tuned = (int(stage["report"].correct.sum()) for stage in stages)
    images = len(stages[0]["report"])
    if tuned > probe:
        epoch = f"epoch {stages[1]['best_epoch']} of {len(stages[1]['history']['loss'])}"
        return "fine-tuned", (
            f"Kept: the fine-tuned model ({epoch}). It gets {tuned:,} of {images:,} validation images right, the probe "
            f"{probe:,}; {_RULE}."
        )
    return "probe", (
        f"Kept: the probe. It gets {probe:,} of {images:,} validation images right, the fine-tuned model {tuned:,}; "
        f"{_RULE}."
    )


def _in_float32(model):
    """A copy of a model that was trained in mixed precision: the file may be used where float16 gains nothing."""
    import keras

    copy = keras.models.model_from_json(model.to_json().replace('"mixed_float16"', '"float32"'))
    copy.set_weights(model.get_weights())
    return copy


def _divide(model, report):
    """Divide the logits by the temperature that fits a report best; gives it. The weights of the output take it in.

    The labels are smoothed by the rule of succession: on easy photographs every validation image is right, and plain
    temperature scaling would then make the model ever surer.
    """
    try:
        temperature = evaluation.temperature(report.outputs, report.labels, smoothing=1 / (len(report) + 2))
    except ValueError:  # it is no better than chance
        return 1.0
    output = model.get_layer(models.OUTPUT_LAYER)
    output.set_weights([weight / temperature for weight in output.get_weights()])
    return temperature


def _divided(temperature):
    """The sentence about the temperature."""
    if temperature == 1:
        return "The logits are left as they are: on the validation images no temperature helps."
    return (
        f"The logits are divided by {temperature:.3g}, so that the probabilities fit the validation images "
        "(temperature scaling, Guo et al., 2017, with targets by Laplace's rule of succession). That changes no class."
    )


def _recipe(stages, settings, why):
    """How the model was trained, in words, for the card."""
    text = f"a linear probe on the frozen backbone (L2 penalty {stages[0]['history']['l2']:.3g})"
    if len(stages) > 1:
        text += (
            f", then the last {settings['blocks']} blocks fine-tuned with Adam (at most {settings['epochs']} epochs, "
            f"peak rate {settings['learning_rate']:g}, {'with' if settings['augment'] else 'without'} augmentation)"
        )
    return f"{text}; seed {settings['seed']}. {why}"


def _curves(stages, kept):
    """Loss and accuracy by epoch, with the probe as a line to compare with."""
    from tlutils import plots

    probe, tuned = stages
    fig = plots.curves(tuned["history"], tuned["best_epoch"] if kept == "fine-tuned" else None)
    for axis, value in zip(fig.axes, (probe["report"].log_loss, probe["report"].accuracy)):
        for line in axis.lines:
            line.set_marker("o")  # one epoch makes no line
        axis.axhline(value, color=plots.COLOURS["green"], linestyle="--", linewidth=1.5, label="probe, validation")
        axis.xaxis.get_major_locator().set_params(integer=True)
    fig.axes[0].get_legend().remove()
    fig.legend(*fig.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return fig


@contextlib.contextmanager
def _tensorflow_errors():
    """Name the file that could not be decoded where TensorFlow reports the failure of a function, with its stack."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        if found := re.search(r"DataError: (.*)", str(error)):
            raise DataError(found[1]) from None
        reason = next(iter(error.message.splitlines()), "no reason given")
        raise RuntimeError(f"TensorFlow stopped ({type(error).__name__}): {reason}") from error


# ------------------------------------------------------------------------------------------------------- the model file


def _facts(task, backbone):
    """What goes into the model file beside the network."""
    seen = {"train": task.train, "val": task.val}
    return {
        "class_names": list(task.class_names),
        "backbone": backbone,
        "seen": {side: [digest[:_DIGEST] for digest in part.digests or ()] for side, part in seen.items()},
    }


def _save(model, path, facts):
    """Write a ``.keras`` file whose metadata hold ``facts``."""
    plain = path.with_name("plain.keras")
    model.save(plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w") as target:
        for item in source.infolist():
            content = source.read(item)
            if item.filename == _METADATA:
                content = json.dumps({**json.loads(content), _KEY: facts}, ensure_ascii=False).encode()
            target.writestr(item, content)
    plain.unlink()


def _how_to_use(file, task, keras_version):
    """The last section of the card: plain Keras is enough."""
    height, width = task.image_size
    quoted = json.dumps(file, ensure_ascii=False)
    seen = "" if task.train.digests is None else _SEEN
    return f"""## How to use it

Keras alone loads the file; no other package is needed. It was written with Keras {keras_version}; an older one may \
not read it. The model takes raw pixels from 0 to 255, RGB, of shape (N, {height}, {width}, {task.channels}), and \
gives logits. Whole images were turned as their EXIF block says and resized to that shape, not cropped.

{seen}```python
import json
import zipfile

import keras
import numpy
from PIL import Image, ImageOps

model = keras.models.load_model({quoted})
names = json.loads(zipfile.ZipFile({quoted}).read("{_METADATA}"))["{_KEY}"]["class_names"]
photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")
pixels = numpy.array(photo.resize(({width}, {height}), Image.Resampling.BILINEAR))
logits = model.predict(pixels[None])
print(dict(zip(names, keras.ops.convert_to_numpy(keras.ops.softmax(logits))[0])))
```
"""


# ------------------------------------------------------------------------------------------------------ use and measure


@dataclass(frozen=True)
class Prediction:
    """What a classifier says about one file.

    Attributes:
        file: The file, as it was given.
        classes: ``(name, probability)``, the most probable first; empty where the file could not be read.
        problem: Why it could not be read, or ``None``.
    """

    file: str
    classes: tuple = ()
    problem: str | None = None


@dataclass(frozen=True)
class Classifier:
    """A model file that :func:`train` wrote, opened.

    Attributes:
        path: The file.
        model: keras.Model; raw pixels 0–255, shape (N, height, width, 3), to logits (N, classes).
        class_names: One name a class, in the order of the logits.
        backbone: Name of the backbone.
        seen: ``{"train": …, "val": …}``: how the SHA-256 of the image files begins that the model was trained on, and
            of those that chose it.
    """

    path: Path
    model: object = field(repr=False)
    class_names: tuple
    backbone: str
    seen: dict = field(repr=False)

    @property
    def image_size(self):
        """(height, width) in pixels to which every image is resized."""
        return self.model.input_shape[1:3]

    def predict(self, files, top=3, *, batch_size=64):
        """Name what image files show. The images are decoded as those of the training were.

        Args:
            files: Paths of image files.
            top: How many classes to give for each, at most.
            batch_size: Files that are in memory at a time.

        Returns:
            list of Prediction: one a file, in order. A file that is no image has a ``problem``, and the others go on.
        """
        files = [os.fspath(file) for file in files]
        return [
            prediction
            for start in range(0, len(files), batch_size)
            for prediction in self._predict_batch(files[start : start + batch_size], top)
        ]

    def _predict_batch(self, files, top):
        paths = [Path(file).expanduser() for file in files]
        problems, pixels = [], []
        for path, check in zip(paths, check_files(paths)):
            problem = _why_no_file(path) or check.problem
            if not problem:
                try:
                    pixels.append(decode(path, self.image_size, _CHANNELS))
                except DataError as error:
                    problem = f"cannot be decoded ({error.__cause__}); fetch it again or remove it"
            problems.append(problem)
        rows = iter(())
        if pixels:
            with _tensorflow_errors():
                logits = self.model.predict(np.stack(pixels).astype("float32"), verbose=0)
            rows = iter(softmax(logits.astype("float64"), axis=1))
        for file, problem in zip(files, problems):
            if problem:
                yield Prediction(file, problem=problem)
            else:
                row = next(rows)
                best = np.argsort(-row, kind="stable")[:top]
                yield Prediction(file, tuple((self.class_names[i], float(row[i])) for i in best))

    def evaluate(self, folder):
        """Measure the classifier on a folder of labelled images.

        Taken are the images of ``test/`` where the folder has one, else all of its images. Left out are those that the
        model was trained on, told by their content; a cropped or recoded copy of one is not recognised. Classes go by
        their names, whatever their order. A class without images is no hindrance.

        Args:
            folder: A folder with one sub-folder a class, or with ``train/``, ``val/`` and ``test/``.

        Returns:
            ``(report, notes)``: a :class:`~tlutils.evaluation.Report`, whose ``split`` is ``"val"`` if any of the
            images chose the model and else ``"test"``, and sentences about files that were skipped or left out.

        Raises:
            DataError: The folder is not laid out in classes, has a class that the model does not know, or no image is
                left to measure on.
        """
        folder, log = Path(folder).expanduser(), Log()
        sides = layout(folder, log)
        sides = {"test": sides["test"]} if "test" in sides else sides
        found = [(name, path) for classes in sides.values() for name, files in classes.items() for path in files]
        if unknown := sorted({name for name, _ in found} - set(self.class_names)):
            raise DataError(
                f"{folder} has classes that {self.path.name} does not know ({listed(unknown)}); it knows "
                f"{listed(self.class_names, 30)}: rename the folders, or give one without them"
            )
        labels, paths, skipped, trained_on, chose = [], [], 0, 0, 0
        seen = {side: set(begins) for side, begins in self.seen.items()}
        for (name, path), check in zip(found, check_files([path for _, path in found])):
            if check.problem:
                skipped += 1
                log.note(f"skipped {path.relative_to(folder).as_posix()}: {check.problem}")
            elif check.digest[:_DIGEST] in seen["train"]:
                trained_on += 1
            else:
                chose += check.digest[:_DIGEST] in seen["val"]
                labels.append(self.class_names.index(name))
                paths.append(path)
        if trained_on:
            log.note(f"left out {trained_on:,} images that the model was trained on")
        if chose:
            log.note(f"{chose:,} of the {len(labels):,} images chose the model, so the numbers flatter it")
        if not labels:
            raise DataError(
                f"no image of {folder} is left to measure on: {trained_on:,} of {len(found):,} were trained on, "
                f"{skipped:,} cannot be read: give images that are new to the model"
            )
        labels = np.array(labels, "int64")
        examples = data.Examples(labels, image_size=self.image_size, channels=_CHANNELS, paths=paths)
        examples.split = "val" if chose else "test"
        with _tensorflow_errors():
            return evaluation.evaluate(self.model, examples, class_names=self.class_names), log.notes


def load(path):
    """Open a model file that :func:`train` wrote.

    Keras' safe mode is on, which keeps a file from bringing code of its own. Ways around it have been found in earlier
    releases of Keras: open only files of people whom you trust.

    Args:
        path: The ``.keras`` file.

    Returns:
        Classifier

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no Keras model, is damaged, or does not say which classes it knows.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no model at {path}: give a file that tlutils train wrote (.keras)")
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()  # Keras compares no checksums, and would take wrong weights for right
            metadata = None if damaged else json.loads(file.read(_METADATA))
    except (zipfile.BadZipFile, KeyError, ValueError):
        raise ValueError(f"{path} is not a Keras model: give a file that tlutils train wrote (.keras)") from None
    if damaged:
        raise ValueError(f"{path} is damaged (the checksum of its {damaged} is wrong): copy it again, or train again")
    try:
        facts = metadata[_KEY]
    except (KeyError, TypeError):
        raise ValueError(
            f"{path} does not say which classes it knows, so it was not written by tlutils train, or was saved again "
            "since: load it with keras.models.load_model, and measure it with tlutils.evaluation.evaluate"
        ) from None
    require_tensorflow()
    import keras

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = keras.models.load_model(path, compile=False, safe_mode=True)
        classifier = Classifier(path, model, tuple(facts["class_names"]), facts["backbone"], facts["seen"])
        if (outputs := model.output_shape[-1]) != len(classifier.class_names):
            raise ValueError(f"it gives {outputs} logits and names {len(classifier.class_names)} classes")
        return classifier
    except Exception as error:  # Keras raises what a file makes it raise
        reason = (str(error).strip().splitlines() or ["no message"])[-1][:200]
        by = metadata.get("keras_version", "an unknown version")
        raise ValueError(f"cannot load {path}, written by Keras {by}, with {keras.__version__}: {reason}") from error


def _why_no_file(path):
    """What stands in the way of reading a file at all; ``None`` where that, or the check of its content, goes on."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return "there is no such file; check the path"
    except (OSError, ValueError):  # the check says what it is
        return None
    return "a folder; give the image files in it" if stat.S_ISDIR(found.st_mode) else None
