"""The tables of chapter 13: the classic VGG recipe in miniature and its repairs, over ten draws of labels.

Each draw has ten or fifty labelled digits a class. A fifth of them is held out to choose by, and all recipes learn from
the other four fifths. The steps:

* ``copied``: `recipes.classic` on pixels 0–255, with the epoch that comes last;
* ``preprocessed``: the same, but the network gets what it was pretrained on;
* ``slow``: ``preprocessed`` at a tenth of Adam's default rate;
* ``small``: ``preprocessed`` with averages and one linear layer in place of the head; everything still trains at once;
* ``frozen``: the classic head trained on features that are computed once;
* ``pooled``: averages and one linear layer on the frozen network, solved (`training.linear_probe`);
* ``tuned``: two blocks tuned from there at a small rate, the epoch chosen by the held-out images.

Nothing was tuned: heads, rates and epochs of the first five are those of the classic recipe, but for what is changed
on purpose, and the rate of the last is a third of Adam's default. Of the first five each row holds, epoch by epoch, the
loss on the held-out images and which test images were right, because the chapter shows what choosing by either does.

Seconds are those of training, tracing and the pass over the held-out images included. Loading a network and looking at
the test images are left out; every row begins with a network of its own.

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
SEEDS = range(10)
HIDDEN = (512, 256)  # about as large beside pocket_vgg as 1024 and 512 are beside VGG16
EPOCHS = 10
SLOW = 1e-4  # a tenth of Adam's default rate
RATE = 3e-4
OTHERS = ("pocket_resnet", "pocket_inception", "pocket_mobilenet")

# What `make test` measures again. Steps in which everything trains are left out: what becomes of a network that is torn
# apart differs from machine to machine.
CHECK = [
    {"step": "frozen", "backbone": "pocket_vgg", "labels_per_class": 50, "seed": 0},
    {"step": "pooled", "backbone": "pocket_vgg", "labels_per_class": 10, "seed": 1},
    {"step": "tuned", "backbone": "pocket_mobilenet", "labels_per_class": 50, "seed": 2},
]


def measure(step, backbone, labels_per_class, seed):
    """One row: draw the labels, run one step, and look at the test images."""
    import keras

    task = data.load("digits", labels_per_class=labels_per_class, seed=seed)
    task = recipes.within_training(task, seed=seed)
    network = backbones.load(backbone)
    before = network.model.get_weights()
    keras.utils.set_random_seed(seed)
    report, found = RUNS[step](step, network, task, seed)
    row = {
        "step": step,
        "backbone": backbone,
        "labels_per_class": labels_per_class,
        "seed": seed,
        "images": len(task.test),
        "accuracy": report.accuracy,
        "correct": evaluation.pack(report),
        "moved": _distance(before, network.model.get_weights()),
        **found,
    }
    keras.utils.clear_session()
    return row


def _everything(step, network, task, seed):
    """All weights train at once: the classic recipe, or with one thing changed."""
    model = _whole(step, network, task.num_classes)
    fit = {"x": task.train.batches(32, shuffle=True, seed=seed), "validation_data": task.val.batches(100)}
    return _watched(
        lambda watch: model.fit(**fit, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=[watch]),  # x is shuffled
        lambda: evaluation.evaluate(model, task.test, from_logits=step == "small"),
        model,
    )


def _whole(step, network, classes):
    """A network and its head, compiled."""
    import keras

    if step == "small":
        model = models.classifier(network, classes, dropout=0)
        models.unfreeze(model, -1)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        return model
    model = recipes.classic(network, classes, HIDDEN, preprocess=step != "copied")
    if step == "slow":
        model.optimizer.learning_rate = SLOW
    return model


def _on_features(step, network, task, seed):
    """The classic head alone, on maps that are computed once."""
    import keras
    from keras import layers

    started = time.perf_counter()
    train, val = (features.extract(network, part, pooling=None) for part in (task.train, task.val))
    seconds = time.perf_counter() - started
    test = features.extract(network, task.test, pooling=None)
    dense = [layers.Dense(width, activation="relu") for width in HIDDEN]
    output = layers.Dense(task.num_classes, activation="softmax")
    head = keras.Sequential([keras.Input(train.shape[1:]), layers.Flatten(), *dense, output])
    head.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    fit = {"x": train, "y": task.train.labels, "batch_size": 32, "validation_data": (val, task.val.labels)}

    def look():
        probabilities = head.predict(test, batch_size=100, verbose=0)
        return evaluation.report(np.log(np.maximum(probabilities, 1e-30)), task.test.labels, split="test")

    report, found = _watched(
        lambda watch: head.fit(**fit, epochs=EPOCHS, verbose=0, callbacks=[watch]),
        look,
        head,
    )
    return report, {**found, "seconds": round(found["seconds"] + seconds, 2)}


def _watched(train, look, model):
    """Train, look at the test images after each epoch, and stop the clock meanwhile: the last look, and the row."""
    import keras

    looks, elsewhere = [], 0.0

    def after_epoch(epoch, logs):
        nonlocal elsewhere
        started = time.perf_counter()
        looks.append(look())
        elsewhere += time.perf_counter() - started

    started = time.perf_counter()
    history = train(keras.callbacks.LambdaCallback(on_epoch_end=after_epoch)).history
    seconds = time.perf_counter() - started - elsewhere
    return looks[-1], {
        "by_epoch": [evaluation.pack(report) for report in looks],
        "val_loss": [round(float(loss), 5) for loss in history["val_loss"]],
        "trained": sum(int(np.prod(weight.shape)) for weight in model.trainable_weights),
        "seconds": round(seconds, 2),
    }


def _solved(step, network, task, seed):
    """A linear head, solved; and two blocks tuned from there."""
    model = models.classifier(network, task.num_classes)
    fits = [training.linear_probe(model, task, seed=seed)]
    trained = models.trainable_report(model).trainable
    if step == "tuned":
        options = {"blocks": 2, "epochs": EPOCHS, "learning_rate": RATE, "start": "as_is"}
        fits.append(training.fine_tune(model, task, seed=seed, progress=False, **options))
        trained = models.trainable_report(model).trainable
    seconds = round(sum(fit.seconds for fit in fits), 2)
    return evaluation.evaluate(model, task.test), {"trained": trained, "seconds": seconds}


def _distance(before, after):
    """How far weights have gone, as a share of their norm: ‖after − before‖ / ‖before‖."""
    gone, size = (sum(float(np.sum(w**2)) for w in ws) for ws in ([a - b for a, b in zip(after, before)], before))
    return round((gone / size) ** 0.5, 5)


RUNS = {
    **dict.fromkeys(("copied", "preprocessed", "slow", "small"), _everything),
    "frozen": _on_features,
    **dict.fromkeys(("pooled", "tuned"), _solved),
}


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    setup(gpu="auto")
    started, rows = time.perf_counter(), []
    settings = [(step, "pocket_vgg") for step in RUNS]
    settings += [(step, name) for name in OTHERS for step in ("pooled", "tuned")]
    settled = {"hidden": HIDDEN, "epochs": EPOCHS, "slow": SLOW, "learning_rate": RATE}
    for seed in SEEDS:
        for k, (step, name) in product(BUDGETS, settings):
            rows.append(measure(step, name, k, seed))
            found = f"{rows[-1]['accuracy']:.3f} {rows[-1]['seconds']:6.1f} s"
            print(f"seed {seed}, {k} labels, {name}, {step}: {found}", flush=True)
        # What is stored is always whole draws, also if the rest is interrupted.
        results.save(NAME, rows, metrics=settled, command="make experiments", seconds=time.perf_counter() - started)


if __name__ == "__main__":
    main()
