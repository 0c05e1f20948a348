"""The tables of chapter 13: the classic VGG recipe in miniature, repaired step by step, over five draws of labels.

Each draw has ten or fifty labelled digits a class. A fifth of them is held out to choose by, and all recipes learn from
the other four fifths. The steps:

* ``copied``: `recipes.classic` on pixels 0–255, with the epoch that comes last;
* ``preprocessed``: the same, but the network gets what it was pretrained on;
* ``frozen``: the same head trained on features that are computed once;
* ``chosen``: of those ten epochs, the one with the lowest loss on the held-out images;
* ``pooled``: averages and one linear layer, solved (`training.linear_probe`);
* ``tuned``: two blocks tuned from there at a small rate, the epoch chosen by the held-out images.

Nothing was tuned: head, rate and epochs of the first four are those of the classic recipe, and the rate of the last is
a third of Adam's default. The accuracy after each epoch is measured on the test images too, because the chapter shows
what happens when one chooses by it; no step here does.

Without an argument the script measures everything and writes book/results/classic_recipe.json.
"""

import argparse
import time
from itertools import product

import numpy as np

from tlutils import backbones, data, evaluation, features, models, recipes, results, training
from tlutils.runtime import setup

NAME = "classic_recipe"
BUDGETS = (10, 50)
SEEDS = range(5)
HIDDEN = (512, 256)  # about as large beside pocket_vgg as 1024 and 512 are beside VGG16
EPOCHS = 10
RATE = 3e-4
OTHERS = ("pocket_resnet", "pocket_inception", "pocket_mobilenet")

# What `make test` measures again. The first two steps are left out: what becomes of a network that is torn apart
# differs from machine to machine.
CHECK = [
    {"step": "frozen", "backbone": "pocket_vgg", "labels_per_class": 50, "seed": 0},
    {"step": "pooled", "backbone": "pocket_vgg", "labels_per_class": 10, "seed": 1},
    {"step": "tuned", "backbone": "pocket_mobilenet", "labels_per_class": 50, "seed": 2},
]

_kept = {}  # backbones and models: tracing them again would take longer than training


def measure(step, backbone, labels_per_class, seed):
    """One row: draw the labels, run one step, and look at the test images."""
    import keras

    task = data.load("digits", labels_per_class=labels_per_class, seed=seed)
    task = recipes.within_training(task, seed=seed)
    if backbone not in _kept:
        network = backbones.load(backbone)
        _kept[backbone] = network, network.model.get_weights(), models.classifier(network, task.num_classes)
    network, pretrained, model = _kept[backbone]
    network.model.set_weights(pretrained)
    keras.utils.set_random_seed(seed)
    report, found = RUNS[step](step, network, model, task, seed)
    return {
        "step": step,
        "backbone": backbone,
        "labels_per_class": labels_per_class,
        "seed": seed,
        "images": len(task.test),
        "accuracy": report.accuracy,
        "correct": evaluation.pack(report),
        **found,
    }


def _classic(step, backbone, model, task, seed):
    import keras

    before = backbone.model.get_weights()
    network = recipes.classic(backbone, task.num_classes, HIDDEN, preprocess=step == "preprocessed")
    by_epoch, elsewhere = [], 0.0

    def after_epoch(epoch, logs):
        nonlocal elsewhere
        started = time.perf_counter()
        by_epoch.append(evaluation.evaluate(network, task.test, from_logits=False))
        elsewhere += time.perf_counter() - started

    watch = keras.callbacks.LambdaCallback(on_epoch_end=after_epoch)
    quiet = {"shuffle": False, "verbose": 0, "callbacks": [watch]}  # the batches are shuffled
    batches, val = task.train.batches(32, shuffle=True, seed=seed), task.val.batches(100)
    started = time.perf_counter()
    history = network.fit(batches, epochs=EPOCHS, validation_data=val, **quiet).history
    seconds = time.perf_counter() - started - elsewhere
    return by_epoch[-1], {
        **_epochs(by_epoch, history),
        "trained": sum(int(np.prod(w.shape)) for w in network.trainable_weights),
        "moved": _distance(before, backbone.model.get_weights()),
        "seconds": round(seconds, 2),
    }


def _on_features(step, backbone, model, task, seed):
    import keras
    from keras import layers

    started = time.perf_counter()
    train, val = (features.extract(backbone, part, pooling=None) for part in (task.train, task.val))
    seconds = time.perf_counter() - started
    test = features.extract(backbone, task.test, pooling=None)
    dense = [layers.Dense(width, activation="relu") for width in HIDDEN]
    output = layers.Dense(task.num_classes, activation="softmax")
    head = keras.Sequential([keras.Input(train.shape[1:]), layers.Flatten(), *dense, output])
    head.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    by_epoch, elsewhere = [], 0.0

    def after_epoch(epoch, logs):
        nonlocal elsewhere
        started = time.perf_counter()
        logits = np.log(np.maximum(head.predict(test, batch_size=100, verbose=0), np.finfo("float32").tiny))
        by_epoch.append(evaluation.report(logits, task.test.labels, split="test"))
        elsewhere += time.perf_counter() - started

    watch = keras.callbacks.LambdaCallback(on_epoch_end=after_epoch)
    options = {"validation_data": (val, task.val.labels), "batch_size": 32, "verbose": 0, "callbacks": [watch]}
    started = time.perf_counter()
    history = head.fit(train, task.train.labels, epochs=EPOCHS, **options).history
    seconds += time.perf_counter() - started - elsewhere
    chosen = int(np.argmin(history["val_loss"])) if step == "chosen" else EPOCHS - 1
    return by_epoch[chosen], {
        **_epochs(by_epoch, history),
        "trained": head.count_params(),
        "moved": 0.0,
        "seconds": round(seconds, 2),
    }


def _distance(before, after):
    """How far weights have gone, as a share of their norm: ‖after − before‖ / ‖before‖."""
    gone, size = (sum(float(np.sum(w**2)) for w in ws) for ws in ([a - b for a, b in zip(after, before)], before))
    return round((gone / size) ** 0.5, 5)


def _epochs(by_epoch, history):
    return {
        "by_epoch": [round(report.accuracy, 5) for report in by_epoch],
        "val_loss": [round(float(loss), 5) for loss in history["val_loss"]],
        "val_accuracy": [round(float(share), 5) for share in history["val_accuracy"]],
    }


def _solved(step, backbone, model, task, seed):
    before = backbone.model.get_weights()
    fits = [training.linear_probe(model, task, seed=seed)]
    trained = models.trainable_report(model).trainable
    if step == "tuned":
        options = {"blocks": 2, "epochs": EPOCHS, "learning_rate": RATE, "start": "as_is"}
        fits.append(training.fine_tune(model, task, seed=seed, progress=False, **options))
        trained = models.trainable_report(model).trainable
    return evaluation.evaluate(model, task.test), {
        "trained": trained,
        "moved": _distance(before, backbone.model.get_weights()),
        "seconds": round(sum(fit.seconds for fit in fits), 2),
    }


RUNS = {
    **dict.fromkeys(("copied", "preprocessed"), _classic),
    **dict.fromkeys(("frozen", "chosen"), _on_features),
    **dict.fromkeys(("pooled", "tuned"), _solved),
}


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    setup(gpu="auto")
    started, rows = time.perf_counter(), []
    settings = [(step, "pocket_vgg") for step in RUNS]
    settings += [(step, name) for name in OTHERS for step in ("pooled", "tuned")]
    settled = {"hidden": HIDDEN, "epochs": EPOCHS, "learning_rate": RATE}
    for seed in SEEDS:
        for k, (step, name) in product(BUDGETS, settings):
            rows.append(measure(step, name, k, seed))
            found = f"{rows[-1]['accuracy']:.3f} {rows[-1]['seconds']:6.1f} s"
            print(f"seed {seed}, {k} labels, {name}, {step}: {found}", flush=True)
        # What is stored is always whole draws, also if the rest is interrupted.
        results.save(NAME, rows, metrics=settled, command="make experiments", seconds=time.perf_counter() - started)


if __name__ == "__main__":
    main()
