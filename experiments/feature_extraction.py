"""The tables of chapter 04: five heads on the same frozen backbone, from the same labels, over ten draws of them.

Linear heads are solved by `training.linear_probe`, which chooses its penalty within the labels. Heads with hidden
layers are trained on the cached features by `training.fine_tune(model, task, blocks=0)`; their rate and dropout were
chosen with seeds from 100 on, on the validation images of `data.load("digits", seed=...)`:

    python experiments/feature_extraction.py --develop

The test images, the last 797 of the file, are opened once for each run. Without an argument the script measures
everything and writes book/results/feature_extraction.json.
"""

import argparse
import time
from itertools import product

from tlutils import backbones, data, evaluation, models, results, training
from tlutils.models import Head
from tlutils.runtime import setup

NAME = "feature_extraction"
BACKBONE = "pocket_resnet"
BUDGETS = (5, 20)
SEEDS = range(10)
HEADS = {
    "linear, average": Head(),
    "linear, maximum": Head(pooling="max"),
    "linear, flatten": Head(pooling="flatten"),
    "256, average": models.HEADS["mlp"],
    "1024-512, flatten": models.HEADS["flatten"],
}
RECIPES = {
    "256, average": {"steps": 200, "learning_rate": 3e-3, "dropout": 0.0},
    "1024-512, flatten": {"steps": 200, "learning_rate": 3e-4, "dropout": 0.0},
}

# What `make test` measures again and compares with the stored rows.
CHECK = [
    {"head": "linear, flatten", "labels_per_class": 5, "seed": 0},
    {"head": "linear, maximum", "labels_per_class": 20, "seed": 1},
    {"head": "256, average", "labels_per_class": 5, "seed": 2},
]

_models = {}


def measure(head, labels_per_class, seed):
    """One row: draw the labels, train the head, and look at the test images once."""
    task = data.load("digits", labels_per_class=labels_per_class, seed=seed)
    started = time.perf_counter()
    model = train(head, task, seed)
    seconds = time.perf_counter() - started
    report = evaluation.evaluate(model, task.test)
    return {
        "head": head,
        "labels_per_class": labels_per_class,
        "seed": seed,
        "images": len(task.test),
        "accuracy": report.accuracy,
        "log_loss": report.log_loss,
        "train_accuracy": evaluation.evaluate(model, task.train).accuracy,
        "correct": evaluation.pack(report),
        "seconds": round(seconds, 2),
    }


def train(head, task, seed, recipe=None):
    """Train one head on ``task.train``; returns the whole model."""
    if not HEADS[head].hidden:
        model = _fresh_model(head, 0.0, seed)
        training.linear_probe(model, task, seed=seed)
        return model
    recipe = recipe or RECIPES[head]
    model = _fresh_model(head, recipe["dropout"], seed)
    epochs = round(recipe["steps"] / -(-len(task.train) // 32))
    training.fine_tune(model, task, 0, epochs, recipe["learning_rate"], start="as_is", batch_size=32, seed=seed)
    return model


def _fresh_model(head, dropout, seed):
    """A model whose head has new random weights; its graph is kept, because tracing takes longer than training."""
    import keras

    if "backbone" not in _models:
        _models["backbone"] = backbones.load(BACKBONE)
    keras.utils.set_random_seed(seed)
    fresh = models.classifier(_models["backbone"], 10, HEADS[head], dropout)
    kept = _models.setdefault((head, dropout), fresh)
    for layer, other in zip(kept.layers, fresh.layers):
        if layer.name.startswith("hidden") or layer.name == models.OUTPUT_LAYER:
            layer.set_weights(other.get_weights())
    return kept


def develop():
    """Print what the recipes were chosen by: mean validation accuracy and log-loss over development seeds."""
    draws = range(100, 103)
    validation = {seed: data.load("digits", seed=seed).val for seed in draws}
    for labels_per_class in BUDGETS:
        tasks = [(seed, data.load("digits", labels_per_class=labels_per_class, seed=seed)) for seed in draws]
        for head in HEADS:
            grid = [None]
            if HEADS[head].hidden:
                grid = [
                    {"steps": 200, "learning_rate": rate, "dropout": dropout}
                    for rate, dropout in product((1e-4, 3e-4, 1e-3, 3e-3), (0.0, 0.5))
                ]
            for recipe in grid:
                reports = [evaluation.evaluate(train(head, task, s, recipe), validation[s]) for s, task in tasks]
                accuracy = sum(report.accuracy for report in reports) / len(reports)
                loss = sum(report.log_loss for report in reports) / len(reports)
                print(f"{labels_per_class:>3}  {head:<18} {accuracy:.3f} {loss:.3f}  {recipe or ''}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--develop", action="store_true", help="compare recipes on validation images; stores nothing")
    options = parser.parse_args()
    setup(gpu="auto")
    if options.develop:
        return develop()
    started, rows = time.perf_counter(), []
    for head, labels_per_class in product(HEADS, BUDGETS):
        new = [measure(head, labels_per_class, seed) for seed in SEEDS]
        mean = sum(row["accuracy"] for row in new) / len(new)
        print(f"{labels_per_class:>3} labels  {head:<18} {mean:.3f}", flush=True)
        rows += new
    results.save(
        NAME,
        rows,
        metrics={"backbone": BACKBONE, "recipes": RECIPES},
        command="make experiments",
        seconds=time.perf_counter() - started,
    )


if __name__ == "__main__":
    main()
