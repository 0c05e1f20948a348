"""The table of chapter 09: what helps against over-fitting at 5, 20 and 50 labels a class, and what does not.

Every run fine-tunes all blocks of a network that read printed letters, on k handwritten digits a class, from a fresh
head. All methods see the same labels, start from the same head (drawn with the seed) but for "probe_first", and take
the same steps at the same rate; each adds one thing to "none". "frozen" trains nothing but the head.

What a method may choose it chooses by three-fold cross-validation inside the k labels, with the rule of the whole book:
the highest accuracy, averaged over the folds; the strongest of those that are level. "l2", "weight_decay" and "l2_sp"
choose from three strengths, "early_stopping" chooses the epoch, "frozen" its penalty. A fold takes as many steps as the
run on all labels, and stopping is counted in shares of these steps. Dropout, label smoothing and augmentation are what
was published, or this book's default.

The rate and the three strengths were chosen with seeds from 100 on, on the validation images of
`data.load("digits", seed=...)`, by the accuracy averaged over three draws and the three budgets. The rate is the best
one of "none", the smaller where two are level. Strengths are powers of ten. The one in the middle is the strongest that
lost less than a point against the best one, which is about what so many images can tell; beside it stand the next
stronger one, which does harm, and the next weaker one. All three penalties follow the same rule. The tables behind it
are in book/results/regularization_choices.json:

    python experiments/regularization.py --develop

The rule was changed once, after these tables had been seen and before any test image had been. By the earlier one the
strengths of "l2" were 1e-3, 1e-4 and 1e-5, which in the tables are level with no penalty at all; those of the other two
were what they are now. What the study says about "l2" hangs on this change.

Ten draws a cell were planned, and they were measured in two parts. After seeds 0 to 4 the result was read and a first
version of chapter 09 was written on it; seeds 5 to 9 were measured later, with nothing changed. The chapter asks these
alone what the first five had suggested.

The test images, the last 797 of the file, are opened once for each run. Without an argument the script measures
everything and writes book/results/regularization.json. It takes about an hour on two cores; with `--partial FILE`
the rows are kept in FILE when they are measured, and a second call goes on from there.
"""

import argparse
import json
import time
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import _pool
import numpy as np

from tlutils import backbones, data, evaluation, models, results, training
from tlutils.runtime import setup

NAME, DEVELOPED = "regularization", "regularization_choices"
BACKBONE = "pocket_resnet"
BUDGETS = (5, 20, 50)
SEEDS = range(10)
STEPS, BATCH, FOLDS = 200, 32, 3
RATE = 1e-3
STRENGTHS = {"l2": (1e-1, 1e-2, 1e-3), "weight_decay": (10.0, 1.0, 0.1), "l2_sp": (1e-1, 1e-2, 1e-3)}
FIXED = {
    "none": {},
    "dropout": {"dropout": 0.5},  # Srivastava et al. (2014)
    "label_smoothing": {"label_smoothing": 0.1},  # Szegedy et al. (2016)
    "augmentation": {"augment": True},  # training.augmentation()
    "probe_first": {"start": "probe"},  # Kumar et al. (2022)
}
METHODS = (*FIXED, *STRENGTHS, "early_stopping", "frozen")

DEVELOPMENT = range(100, 103)
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
LADDERS = {
    "l2": tuple(10.0**p for p in range(1, -6, -1)),
    "weight_decay": tuple(10.0**p for p in range(3, -4, -1)),
    "l2_sp": tuple(10.0**p for p in range(1, -6, -1)),
}

# What `make test` measures again and compares with the stored rows.
CHECK = [
    {"method": "none", "labels_per_class": 50, "seed": 0},
    {"method": "label_smoothing", "labels_per_class": 20, "seed": 1},
    {"method": "frozen", "labels_per_class": 5, "seed": 2},
]


def measure(method, labels_per_class, seed):
    """One row: draw the labels, choose inside them, train, and look at the test images once.

    Returns:
        dict: the arguments; ``images``, ``accuracy``, ``correct``, ``log_loss`` and ``ece`` on the test images;
        ``train_accuracy``; ``chosen``, a strength, a share of the steps, or None, its ``candidates``, ``fold_scores``;
        ``moved``, how far the backbone's weights went relative to their length; ``seconds``, the choosing included.
    """
    task, bench = data.load("digits", labels_per_class=labels_per_class, seed=seed), _bench()
    started, found = time.perf_counter(), {}
    if method == "frozen":
        model = bench.model(method)
        history = bench.probe(model, task, seed)
        found = chosen([1 / candidate["C"] for candidate in history["candidates"]], history["scores"])
    elif method == "early_stopping":
        found = bench.best_share(task, seed)
        model = bench.train(task, seed, stop_after=max(1, round(found["chosen"] * epochs_of(task))))
    elif method in STRENGTHS:
        found = bench.best_strength(method, task, seed)
        model = bench.train(task, seed, **{method: found["chosen"]})
    else:
        model = bench.train(task, seed, **FIXED[method])
    seconds = time.perf_counter() - started
    report = evaluation.evaluate(model, task.test)
    return {
        "method": method,
        "labels_per_class": labels_per_class,
        "seed": seed,
        "images": len(task.test),
        "accuracy": report.accuracy,
        "log_loss": round(report.log_loss, 5),
        "ece": round(report.ece, 5),
        "train_accuracy": evaluation.evaluate(model, task.train).accuracy,
        "chosen": None,
        "moved": round(bench.moved(model), 5),
        "seconds": round(seconds, 2),
        "correct": evaluation.pack(report),
        **found,
    }


def epochs_of(task):
    """Passes that come closest to the number of steps."""
    return round(STEPS / -(-len(task.train) // BATCH))


class _Bench:
    """What one process needs: the models of one method and budget, whose graphs are kept: tracing takes long."""

    def __init__(self):
        setup(gpu="auto")
        self.backbone = backbones.load(BACKBONE)
        self.pretrained = self.backbone.model.get_weights()
        self.augmentation = training.augmentation()
        self.models = {}

    def model(self, *key, dropout=0.0):
        """A classifier with the pretrained weights, the same one for the same key."""
        if key not in self.models:
            self.models[key] = models.classifier(backbones.load(BACKBONE), 10, dropout=dropout)
        models.backbone_layer(self.models[key]).set_weights(self.pretrained)
        return self.models[key]

    def probe(self, model, task, seed):
        return training.linear_probe(model, task, seed=seed).history

    def train(self, task, seed, rate=None, dropout=0.0, start="as_is", augment=False, **options):
        """All blocks tuned on ``task.train``, from a head that the seed draws."""
        epochs = epochs_of(task)
        stop_after = options.pop("stop_after", None)  # changes nothing in the graph
        key = rate, dropout, augment, epochs * -(-len(task.train) // BATCH), *sorted(options.items())
        model = self.model(*key, dropout=dropout)
        shape = model.get_layer(models.OUTPUT_LAYER).kernel.shape
        limit = np.sqrt(6 / sum(shape))  # Glorot's uniform distribution, Keras' default for a new layer
        head = np.random.default_rng(seed).uniform(-limit, limit, shape), np.zeros(shape[1])
        model.get_layer(models.OUTPUT_LAYER).set_weights(head)
        if start == "probe":
            self.probe(model, task, seed)
        self.fit = training.fine_tune(
            model,
            task,
            -1,
            epochs,
            rate or RATE,
            start="as_is",
            augment=self.augmentation if augment else None,
            batch_size=BATCH,
            patience=epochs,
            stop_after=stop_after,
            seed=seed,
            **options,
        )
        return model

    def best_strength(self, method, task, seed):
        scores = [
            np.mean(
                [
                    evaluation.evaluate(self.train(fold, seed, **{method: strength}), held).accuracy
                    for fold, held in folds(task, seed)
                ]
            )
            for strength in STRENGTHS[method]
        ]
        return chosen(STRENGTHS[method], scores)

    def best_share(self, task, seed):
        """The share of the steps after which accuracy on images held out was highest first."""
        curves = []
        for fold, held in folds(task, seed):
            self.train(replace(fold, val=held), seed)
            curves.append(self.fit.history["val_accuracy"])
        shares = [round((epoch + 1) / len(curves[0]), 4) for epoch in range(len(curves[0]))]
        return chosen(shares, np.mean(curves, axis=0))

    def moved(self, model):
        weights = models.backbone_layer(model).get_weights()
        squares = sum(((new - old) ** 2).sum() for new, old in zip(weights, self.pretrained))
        return float(np.sqrt(squares / sum((old**2).sum() for old in self.pretrained)))


def folds(task, seed):
    """The training images in three parts: ``(task without one part, that part)``."""
    from sklearn.model_selection import StratifiedKFold

    splits = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for rest, held in splits.split(task.train.labels, task.train.labels):
        yield replace(task, train=task.train.subset(rest), val=None, test=None), task.train.subset(held)


def chosen(candidates, scores):
    """The first of the best; scores that differ by rounding only are level."""
    scores = [round(float(score), 6) for score in scores]
    return {"chosen": candidates[int(np.argmax(scores))], "candidates": list(candidates), "fold_scores": scores}


_bench = cache(_Bench)


# --- the script -------------------------------------------------------------------------------------------------------


def develop(jobs):
    """Choose the rate and the three strengths of each penalty, and store what was tried."""
    started = time.perf_counter()
    tried = {"rate": dict(zip(map(str, RATES), _pool.measured(_validated, [{"rate": r} for r in RATES], jobs)))}
    rate = best_rate(tried)
    print(f"{time.perf_counter() - started:5.0f} s  rate {rate:g}  {tried['rate']}", flush=True)
    for method, ladder in LADDERS.items():
        options = [{"rate": rate, method: strength} for strength in ladder]
        tried[method] = dict(zip(map(str, ladder), _pool.measured(_validated, options, jobs)))
        print(f"{time.perf_counter() - started:5.0f} s  {method}: {tried[method]}", flush=True)
    strengths = {method: list(three_strengths(tried, method)) for method in LADDERS}
    print(rate, strengths)
    results.save(
        DEVELOPED,
        metrics={"rate": rate, "strengths": strengths, "tried": tried},
        command=f"python experiments/{NAME}.py --develop",
        seconds=time.perf_counter() - started,
    )


def best_rate(tried):
    return min(RATES, key=lambda rate: (-tried["rate"][str(rate)]["mean"], rate))


def three_strengths(tried, method):
    """The strongest that is within a point of the best, with its neighbours, the strongest first."""
    ladder = LADDERS[method]
    means = [tried[method][str(strength)]["mean"] for strength in ladder]
    place = next(i for i, mean in enumerate(means) if mean > max(means) - 0.01)
    place = min(max(place, 1), len(ladder) - 2)
    return ladder[place - 1 : place + 2]


def _validated(options):
    """Validation accuracy by budget, averaged over the development draws, and the mean of the budgets."""
    bench, found = _bench(), {}
    for k in BUDGETS:
        tasks = [(seed, data.load("digits", labels_per_class=k, seed=seed)) for seed in DEVELOPMENT]
        found[str(k)] = float(
            np.mean([_accuracy(bench.train(t, s, **options), data.load("digits", seed=s).val) for s, t in tasks])
        )
        bench.models.clear()
    return found | {"mean": float(np.mean([found[str(k)] for k in BUDGETS]))}


def _accuracy(model, examples):
    try:
        return evaluation.evaluate(model, examples).accuracy
    except ValueError:  # diverged
        return 0.0


def _measure_seeds(cell):
    method, labels_per_class, seeds = cell
    rows = [measure(method, labels_per_class, seed) for seed in seeds]
    _bench().models.clear()
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--develop", action="store_true", help="choose rate and strengths on validation images")
    parser.add_argument("--partial", type=Path, metavar="FILE", help="keep rows here, and go on from those it holds")
    _pool.add_argument(parser)
    options = parser.parse_args()
    if options.develop:
        return develop(options.jobs)
    rows = []
    if options.partial and options.partial.exists():
        rows = [json.loads(line) for line in options.partial.read_text(encoding="utf-8").splitlines()]
    done = {(row["method"], row["labels_per_class"], row["seed"]) for row in rows}
    # Five seeds at a time, for which a graph is traced once. Those that search take longest: first, so that no process
    # waits for another at the end.
    order = sorted(METHODS, key=lambda method: (method not in STRENGTHS, method != "early_stopping"))
    todo = [
        (method, k, seeds)
        for first in range(0, len(SEEDS), 5)
        for method, k in product(order, BUDGETS)
        if (seeds := [seed for seed in SEEDS[first : first + 5] if (method, k, seed) not in done])
    ]
    started = time.perf_counter()
    for cell, new in zip(todo, _pool.measured(_measure_seeds, todo, options.jobs)):
        rows += new
        if options.partial:
            with options.partial.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in new)
        mean, seconds = np.mean([row["accuracy"] for row in new]), time.perf_counter() - started
        print(f"{seconds:5.0f} s  {mean:.4f}  {cell}", flush=True)
    places = {cell: i for i, cell in enumerate(product(METHODS, BUDGETS))}
    results.save(
        NAME,
        sorted(rows, key=lambda row: (places[row["method"], row["labels_per_class"]], row["seed"])),
        metrics={"rate": RATE, "steps": STEPS, "batch": BATCH, "strengths": STRENGTHS},
        command="make experiments",
        seconds=sum(row["seconds"] for row in rows) / options.jobs,
    )


if __name__ == "__main__":
    main()
