"""The study behind the chapter on fine-tuning: how many blocks, which rate, which start, and what is forgotten.

    python experiments/fine_tuning.py

One row a setting and seed. Every setting of one seed sees the same labels and, but for a random head, starts from the
same solved probe. Accuracy is measured on the 797 test digits, and once more on printed letters, the source task: the
letter classifier's own head is put on the tuned backbone. The settings, epochs among them, were fixed beforehand on
development seeds (100 and up) and validation digits.
"""

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context

import numpy as np

from tlutils import backbones, data, evaluation, letters, models, results, training, zoo
from tlutils.features import extract
from tlutils.runtime import setup

BACKBONE = "pocket_resnet"
LABELS_PER_CLASS = 20
EPOCHS = 20
SEEDS = range(5)
LETTERS = 1_000

BLOCKS = (1, 2, 3, 4, -1)
RATES = (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
DEFAULTS = {"blocks": -1, "learning_rate": 1e-3, "start": "probe", "block_decay": 1.0, "l2_sp": 0.0}


def settings():
    """The settings of the study, each a dict of arguments of :func:`measure`."""
    grid = [{"blocks": blocks, "learning_rate": rate} for blocks in BLOCKS for rate in RATES]
    starts = [{"start": "random", "learning_rate": rate} for rate in RATES[1:]]
    decays = [{"block_decay": decay, "learning_rate": rate} for decay in (0.3, 0.6) for rate in RATES[3:]]
    pulls = [{"l2_sp": strength, "learning_rate": 3e-3} for strength in (1e-3, 1e-2, 1e-1)]
    return [DEFAULTS | chosen for chosen in [{"blocks": 0, "learning_rate": 0.0}, *grid, *starts, *decays, *pulls]]


# Cheap settings that the tests measure again.
CHECK = [
    (DEFAULTS | {"blocks": 0, "learning_rate": 0.0}, 0),
    (DEFAULTS | {"blocks": 1, "learning_rate": 1e-3}, 0),
    (DEFAULTS | {"blocks": 2, "learning_rate": 1e-2}, 1),
]


def measure(blocks, learning_rate, start, block_decay, l2_sp, seed):
    """Train one setting with one seed, and test it.

    Args:
        blocks: Blocks that train, counted from the output; 0 is the probe, -1 all and the stem.
        learning_rate: Peak rate.
        start: ``"probe"`` or ``"random"``: the head before the first step.
        block_decay: See :func:`tlutils.training.fine_tune`.
        l2_sp: See :func:`tlutils.training.fine_tune`.
        seed: Draws the labels, a random head, and the order of the images.

    Returns:
        dict: a row: the arguments, and ``images``, ``accuracy``, ``correct`` (test digits), ``letters`` (accuracy on
        the source task), ``moved`` (distance of the backbone's trained weights from where they started, relative to
        their size) and ``loss`` (on the training images, last epoch).
    """
    bench = _bench()
    task = data.load("digits", labels_per_class=LABELS_PER_CLASS, seed=seed)
    bench.model.set_weights(bench.pretrained)
    bench.model.get_layer(models.OUTPUT_LAYER).set_weights(_head(start, seed))
    models.unfreeze(bench.model, blocks)
    trained = models.backbone_layer(bench.model).trainable_weights
    before = [np.array(weight) for weight in trained]
    loss = None
    if blocks:
        options = {"start": "as_is", "block_decay": block_decay, "l2_sp": l2_sp, "seed": seed}
        fit = training.fine_tune(bench.model, task, blocks, EPOCHS, learning_rate, **options)
        loss = round(fit.history["loss"][-1], 4)
    report = _report(bench, task.test, bench.model.get_layer(models.OUTPUT_LAYER).get_weights())
    return {
        "method": "fine_tune" if blocks else "probe",
        "blocks": blocks,
        "learning_rate": learning_rate,
        "start": start,
        "block_decay": block_decay,
        "l2_sp": l2_sp,
        "seed": seed,
        "images": len(task.test),
        "accuracy": report.accuracy,
        "letters": _report(bench, bench.letters, bench.letters_head).accuracy,
        "moved": round(_distance(before, trained), 5),
        "loss": loss,
        "correct": evaluation.pack(report),
    }


class _Bench:
    """The one model that a process uses for all settings, and what it starts from."""

    def __init__(self):
        setup(gpu="off", seed=0)
        self.backbone = backbones.load(BACKBONE)
        self.model = models.classifier(self.backbone, 10)
        self.pretrained = self.model.get_weights()
        self.letters_head = zoo.load(BACKBONE).get_layer("letters").get_weights()
        drawn = letters.draw(LETTERS, seed=900, fonts="validation")
        self.letters = data.from_arrays("letters", drawn, class_names=letters.CLASS_NAMES).train


_bench = cache(_Bench)


@cache
def _head(start, seed):
    """Weights and bias of the head before the first step; the solved one is the same for every setting of a seed."""
    bench = _bench()
    if start == "random":
        rng = np.random.default_rng(seed)
        features, classes = bench.pretrained[-2].shape
        limit = np.sqrt(6 / (features + classes))  # Glorot's uniform distribution, Keras' default
        return rng.uniform(-limit, limit, (features, classes)), np.zeros(classes)
    bench.model.set_weights(bench.pretrained)
    task = data.load("digits", labels_per_class=LABELS_PER_CLASS, seed=seed)
    training.linear_probe(bench.model, task, seed=seed)
    return bench.model.get_layer(models.OUTPUT_LAYER).get_weights()


def _report(bench, examples, head):
    """A Report of the backbone as it is now, under a linear head."""
    weights, bias = head
    return evaluation.report(extract(bench.backbone, examples) @ weights + bias, examples.labels)


def _distance(before, now):
    """Euclidean distance of two lists of weights, relative to the size of the first."""
    if not before:
        return 0.0
    moved = sum(((np.array(b) - a) ** 2).sum() for a, b in zip(before, now))
    return float(np.sqrt(moved / sum((a**2).sum() for a in before)))


def _measure_all(setting):
    return [measure(**setting, seed=seed) for seed in SEEDS]


def main(argv=None):
    """Measure everything on two processes and store it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="processes, one core each (default: %(default)s)")
    options = parser.parse_args(argv)
    started = time.perf_counter()
    rows = []
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for done, measured in enumerate(pool.map(_measure_all, settings()), start=1):
            rows += measured
            print(f"{done}/{len(settings())} settings, {time.perf_counter() - started:.0f} s", flush=True)
    metrics = {"labels_per_class": LABELS_PER_CLASS, "epochs": EPOCHS, "letters": LETTERS, "backbone": BACKBONE}
    seconds = time.perf_counter() - started
    path = results.save("fine_tuning", rows, metrics=metrics, command="make experiments", seconds=seconds)
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
