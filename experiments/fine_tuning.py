"""The tables of chapter 05: how many blocks, which rate, which start, and what is forgotten.

Every setting of one seed sees the same k labels a class and nothing more, and all of them start from the same solved
probe, but for those that ask for a random head. Each is tested on the last 797 digits of the file and, with the letter
classifier's own head put on the tuned backbone, on freshly drawn letters of the held-out fonts: the source task.
Epochs and the candidate values were set by hand; every setting that was measured is stored, and none is chosen by the
test images. Without an argument the script measures everything and writes book/results/fine_tuning.json.
"""

import argparse
import time
from functools import cache

import _pool
import numpy as np

from tlutils import backbones, data, evaluation, letters, models, results, training, zoo
from tlutils.features import extract
from tlutils.runtime import setup

NAME = "fine_tuning"
BACKBONE = "pocket_resnet"
BUDGETS = (10, 50)
BLOCKS = (1, 2, 3, -1)
RATES = (1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2)
EPOCHS = 10
SEEDS = range(6)
LETTERS = 500

# What `make test` measures again and compares with the stored rows.
CHECK = [
    {"labels_per_class": 10, "blocks": 0, "seed": 0},
    {"labels_per_class": 10, "blocks": 2, "learning_rate": 1e-3, "seed": 1},
    {"labels_per_class": 10, "blocks": 1, "learning_rate": 1e-2, "seed": 0},
]


def settings():
    """Every setting of the study, as arguments of :func:`measure`."""
    for labels_per_class in BUDGETS:
        budget = {"labels_per_class": labels_per_class}
        yield budget | {"blocks": 0}
        for blocks in BLOCKS:
            for rate in RATES:
                yield budget | {"blocks": blocks, "learning_rate": rate}
        for rate in (1e-4, 1e-3, 3e-3, 1e-2):
            yield budget | {"blocks": -1, "learning_rate": rate, "start": "random"}
    for rate in (3e-3, 1e-2, 3e-2):
        yield {"labels_per_class": 50, "blocks": -1, "learning_rate": rate, "block_decay": 0.5}
    for strength in (1e-2, 1e-1, 1.0):
        yield {"labels_per_class": 50, "blocks": -1, "learning_rate": 1e-2, "l2_sp": strength}


def measure(labels_per_class, blocks, seed, learning_rate=0.0, start="probe", block_decay=1.0, l2_sp=0.0):
    """One row: draw the labels, tune, and look at the test images once.

    Args:
        labels_per_class: Label budget.
        blocks: Blocks that train, counted from the output; 0 is the probe alone, -1 all and the stem.
        seed: Draws the labels, the order of the images and a random head.
        learning_rate: Peak rate.
        start: ``"probe"`` or ``"random"``: the head before the first step.
        block_decay: As for :func:`tlutils.training.fine_tune`.
        l2_sp: As for :func:`tlutils.training.fine_tune`.

    Returns:
        dict: the arguments, ``images``, ``accuracy`` and ``correct`` (test digits), ``letters`` (accuracy on the source
        task), ``moved`` (how far the trained weights of the backbone went, relative to their size) and ``loss`` (on the
        training images, in the last epoch).
    """
    bench = _bench()
    task = data.load("digits", labels_per_class=labels_per_class, seed=seed)
    head = bench.random_head(seed) if start == "random" else bench.solved_head(labels_per_class, seed)
    bench.model.set_weights(bench.pretrained)
    bench.model.get_layer(models.OUTPUT_LAYER).set_weights(head)
    models.unfreeze(bench.model, blocks)
    trained = models.backbone_layer(bench.model).trainable_weights
    before = [weight.numpy() for weight in trained]
    loss = None
    if blocks:
        fit = training.fine_tune(
            bench.model,
            task,
            blocks,
            EPOCHS,
            learning_rate,
            start="as_is",
            block_decay=block_decay,
            l2_sp=l2_sp,
            seed=seed,
        )
        loss = round(fit.history["loss"][-1], 4)
    report = bench.report(task.test, bench.model.get_layer(models.OUTPUT_LAYER).get_weights())
    return {
        "method": "fine_tune" if blocks else "probe",
        "labels_per_class": labels_per_class,
        "blocks": blocks,
        "learning_rate": learning_rate,
        "start": start,
        "block_decay": block_decay,
        "l2_sp": l2_sp,
        "seed": seed,
        "images": len(task.test),
        "accuracy": report.accuracy,
        "letters": bench.report(bench.letters, bench.letters_head).accuracy,
        "moved": round(distance(before, trained), 5),
        "loss": loss,
        "correct": evaluation.pack(report),
    }


def distance(before, after):
    """Euclidean distance of Keras variables from the arrays they were before, relative to the length of these."""
    if not before:
        return 0.0
    squares = sum(((b.numpy() - a) ** 2).sum() for a, b in zip(before, after))
    return float(np.sqrt(squares / sum((a**2).sum() for a in before)))


class _Bench:
    """What one process needs for all settings: one model, which is put back to its first weights each time."""

    def __init__(self):
        setup(gpu="auto")
        self.backbone = backbones.load(BACKBONE)
        self.model = models.classifier(self.backbone, 10)
        self.pretrained = self.model.get_weights()
        self.letters_head = zoo.load(BACKBONE).get_layer("letters").get_weights()
        drawn = letters.draw(LETTERS, seed=900, fonts="validation")
        self.letters = data.from_arrays("letters", drawn, class_names=letters.CLASS_NAMES).train
        self._solved = {}

    def solved_head(self, labels_per_class, seed):
        """The probe's weights and bias, the same for every setting of a seed and so solved once."""
        if (labels_per_class, seed) not in self._solved:
            self.model.set_weights(self.pretrained)
            task = data.load("digits", labels_per_class=labels_per_class, seed=seed)
            training.linear_probe(self.model, task, seed=seed)
            head = self.model.get_layer(models.OUTPUT_LAYER).get_weights()
            self._solved[labels_per_class, seed] = head
        return self._solved[labels_per_class, seed]

    def random_head(self, seed):
        """Glorot's uniform distribution, Keras' default for a new layer."""
        shape = self.model.get_layer(models.OUTPUT_LAYER).kernel.shape
        limit = np.sqrt(6 / sum(shape))
        return np.random.default_rng(seed).uniform(-limit, limit, shape), np.zeros(shape[1])

    def report(self, examples, head):
        """A Report of the backbone as it is now, under a linear head."""
        weights, bias = head
        return evaluation.report(extract(self.backbone, examples) @ weights + bias, examples.labels)


_bench = cache(_Bench)


def _measure_seeds(setting):
    return [measure(**setting, seed=seed) for seed in SEEDS]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _pool.add_argument(parser)
    options = parser.parse_args()
    started, rows, todo = time.perf_counter(), [], list(settings())
    for done, measured in enumerate(_pool.measured(_measure_seeds, todo, options.jobs), start=1):
        rows += measured
        mean, seconds = np.mean([row["accuracy"] for row in measured]), time.perf_counter() - started
        print(f"{done:>3}/{len(todo)}  {seconds:4.0f} s  {mean:.3f}  {todo[done - 1]}", flush=True)
    results.save(
        NAME,
        rows,
        metrics={"backbone": BACKBONE, "epochs": EPOCHS, "letters": LETTERS},
        command="make experiments",
        seconds=time.perf_counter() - started,
    )


if __name__ == "__main__":
    main()
