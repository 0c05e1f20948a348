"""The tables of chapter 03: which source is worth what for which target, and which score knew it beforehand.

Sixteen candidates (four families of the pocket zoo, each pretrained on letters, strokes or textures, or not at all)
meet three targets. A pretrained candidate is fine-tuned: the head is solved, then every block is trained. A candidate
with random weights is trained from scratch, for as many epochs. Nobody augments. Every candidate sees the same k labels
a class (ten times k images of the tilt) and nothing more, in five draws. Before it is tuned, each pretrained candidate
is given the scores of `evaluation.transferability` on the same labels. With 50 labels a class two families do.

The peak rate of each candidate on each target was chosen by

    python experiments/transfer_matrix.py --develop

with 10 labels a class, on the validation images of `data.load(target, seed=...)` for the seeds 100 and 101: the highest
mean accuracy (the lowest mean absolute error of the tilt), the lower rate where two are level. The search starts with
three rates and goes on in the direction of the best one until that is no longer at the edge. The choice is written to
book/results/transfer_matrix_rates.json and serves both label budgets. The test images, the last 797 digits or 800
patches, are opened once for each run.
"""

import argparse
import time
from functools import cache
from itertools import product

import _pool
import numpy as np

from tlutils import backbones, data, evaluation, models, results, training
from tlutils.runtime import setup

NAME = "transfer_matrix"
DEVELOPED = "transfer_matrix_rates"
FAMILIES = ("pocket_vgg", "pocket_resnet", "pocket_inception", "pocket_mobilenet")
SOURCES = ("letters", "strokes", "textures", "random")
TARGETS = ("digits", "tilted_digits", "patterns")
BUDGETS = (10, 50)
SEEDS = range(5)
DEVELOPMENT = (100, 101)

EPOCHS = {10: 60, 50: 20}  # by label budget
LADDER = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
FIRST = (1e-3, 3e-3, 1e-2)


def cells():
    """Every cell of the study, as arguments of :func:`measure`; networks from scratch first, they take longest."""
    families = {10: FAMILIES, 50: ("pocket_vgg", "pocket_resnet")}
    for k in BUDGETS:
        yield from product(families[k], reversed(SOURCES), TARGETS, (k,))


# The study runs on one thread a process, and there gives the same numbers again. Another number of threads rounds
# otherwise, and hundreds of steps at a high rate make a difference of rounding one of a few images in a hundred.
TOLERANCE = 0.04

# What `make test` measures again and compares with the stored rows.
CHECK = [
    {"family": "pocket_resnet", "source": "letters", "target": "digits", "labels_per_class": 10, "seed": 0},
    {"family": "pocket_vgg", "source": "textures", "target": "patterns", "labels_per_class": 10, "seed": 1},
    {"family": "pocket_mobilenet", "source": "strokes", "target": "tilted_digits", "labels_per_class": 10, "seed": 2},
]


def measure(family, source, target, labels_per_class, seed):
    """One row: draw the labels, score the candidate, train it, and look at the test images once.

    Returns:
        dict: the arguments; ``images``; ``accuracy`` and ``correct``, or ``mae`` in degrees for the tilt; ``loss`` on
        the training images in the last epoch; ``scores`` and ``score_seconds`` by method, empty for random weights;
        ``seconds`` of the training.
    """
    rate = stored_rates()[f"{family} {source} {target}"]
    task = data.load(target, labels_per_class=labels_per_class, seed=seed)
    bench = _bench(family, source, task.num_classes)
    bench.reset(seed)
    scores, score_seconds = {}, {}
    for method in evaluation.TRANSFERABILITY_METHODS if source != "random" else ():
        started = time.perf_counter()
        scores[method] = evaluation.transferability(bench.backbone, task, method, seed=seed)
        score_seconds[method] = round(time.perf_counter() - started, 3)
    fit = bench.train(task, rate, EPOCHS[labels_per_class], seed)
    report = evaluation.evaluate(bench.model, task.test)
    row = {
        "family": family,
        "source": source,
        "target": target,
        "labels_per_class": labels_per_class,
        "seed": seed,
        "images": len(task.test),
        "loss": round(fit.history["loss"][-1], 5),
        "scores": scores,
        "score_seconds": score_seconds,
        "seconds": round(fit.seconds, 2),
    }
    if report.accuracy is None:
        return row | {"mae": report.mae}
    return row | {"accuracy": report.accuracy, "correct": evaluation.pack(report)}


class _Bench:
    """One candidate on one kind of target; its graph is kept, because tracing takes longer than training."""

    def __init__(self, family, source, num_classes):
        self.family, self.source, self.num_classes = family, source, num_classes
        self.backbone, self.model = self._build()
        self.pretrained = self.model.get_weights()

    def _build(self):
        backbone = backbones.load(self.family, weights=None if self.source == "random" else self.source)
        if self.num_classes is None:
            return backbone, models.regressor(backbone)
        return backbone, models.classifier(backbone, self.num_classes)

    def reset(self, seed):
        import keras

        if self.source == "random":  # each seed starts from other random weights
            keras.utils.set_random_seed(seed)
            self.pretrained = self._build()[1].get_weights()
        self.model.set_weights(self.pretrained)

    def train(self, task, rate, epochs, seed):
        if self.source != "random":
            return training.fine_tune(self.model, task, -1, epochs, rate, seed=seed)
        if self.num_classes is None:
            # A network that starts at 0 degrees with unit outputs would first have to learn the scale of the answer.
            head = self.model.get_layer(models.OUTPUT_LAYER)
            kernel, bias = head.get_weights()
            head.set_weights([kernel * task.train.labels.std(), bias + task.train.labels.mean()])
        return training.train_from_scratch(self.model, task, epochs, rate, seed=seed)


_bench = cache(_Bench)


@cache
def stored_rates():
    return results.load(DEVELOPED)["metrics"]["rates"]


def _develop(candidate):
    """The rates of one candidate on one target: mean validation accuracy, or minus the mean absolute error."""
    setup(gpu="auto")
    found = {}
    while new := _next_rates(found):
        found |= {rate: float(np.mean([_validated(*candidate, rate, seed) for seed in DEVELOPMENT])) for rate in new}
    return found


def _next_rates(found):
    if not found:
        return FIRST
    place = LADDER.index(_best(found))
    return [rate for rate in LADDER[max(place - 1, 0) : place + 2] if rate not in found]


def _best(found):
    return max(found, key=lambda rate: (found[rate], -rate))


def _validated(family, source, target, rate, seed):
    task = data.load(target, labels_per_class=10, seed=seed)
    bench = _bench(family, source, task.num_classes)
    bench.reset(seed)
    bench.train(task, rate, EPOCHS[10], seed)
    try:
        report = evaluation.evaluate(bench.model, data.load(target, seed=seed).val)
    except ValueError:  # diverged
        return -np.inf
    return -report.mae if report.accuracy is None else report.accuracy


def develop(jobs):
    started, rates, tried = time.perf_counter(), {}, {}
    candidates = list(product(FAMILIES, SOURCES, TARGETS))
    for candidate, found in zip(candidates, _pool.measured(_develop, candidates, jobs)):
        name = " ".join(candidate)
        rates[name] = _best(found)
        tried[name] = {str(rate): score if np.isfinite(score) else None for rate, score in found.items()}
        print(f"{time.perf_counter() - started:5.0f} s  {name}: {rates[name]:g}  {tried[name]}", flush=True)
    results.save(
        DEVELOPED,
        metrics={"rates": rates, "tried": tried},
        command="python experiments/transfer_matrix.py --develop",
        seconds=time.perf_counter() - started,
    )


def _measure_seeds(cell):
    setup(gpu="auto")
    return [measure(*cell, seed=seed) for seed in SEEDS]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--develop", action="store_true", help="choose the rates on validation images")
    _pool.add_argument(parser)
    options = parser.parse_args()
    if options.develop:
        return develop(options.jobs)
    started, rows = time.perf_counter(), []
    todo = list(cells())
    for cell, new in zip(todo, _pool.measured(_measure_seeds, todo, options.jobs)):
        rows += new
        mean, seconds = np.mean([row.get("accuracy", row.get("mae")) for row in new]), time.perf_counter() - started
        print(f"{seconds:5.0f} s  {' '.join(map(str, cell))}: {mean:.3f}", flush=True)
    results.save(
        NAME,
        rows,
        metrics={"epochs": {str(k): epochs for k, epochs in EPOCHS.items()}},
        command="make experiments",
        seconds=time.perf_counter() - started,
    )


if __name__ == "__main__":
    main()
