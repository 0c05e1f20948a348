"""(c) What an epoch of fine-tuning costs with activations kept at the frozen boundary, against Keras' plain `fit`.

python benchmarks/fine_tune_cost.py

Both train the same layers on the same images, decoded beforehand, with Adam and batches of 32. The first epoch, in
which Keras traces the step, does not count. Computing the activations is not part of an epoch; it has a row of its own.
"""

import sys
import time

import numpy as np
import photographs
import table

from tlutils import models, training
from tlutils.runtime import setup

BLOCKS = 2
EPOCHS = 4
CASES = (("mobilenet_v2", "hymenoptera", 0.35), ("pocket_resnet", "digits", None))


def plain(model, task):
    """Median seconds of an epoch of ``fit`` with the last blocks and the head trainable, as Keras' guides have it."""
    import keras

    models.unfreeze(model, BLOCKS)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-5), loss, metrics=["accuracy"], jit_compile=False)
    images = task.train.images().astype("float32")
    epochs = [table.seconds(model.fit, images, task.train.labels, batch_size=32, verbose=0) for _ in range(EPOCHS)]
    return np.median(epochs[1:])


def cached(model, task):
    """``(median seconds of an epoch of fine_tune, seconds of all that comes before and after the epochs)``."""
    import keras

    epochs, fit = [], keras.Model.fit

    def timed(self, *arguments, **options):
        started = time.perf_counter()
        history = fit(self, *arguments, **options)
        epochs.append(time.perf_counter() - started)
        return history

    keras.Model.fit = timed
    try:
        whole = table.seconds(training.fine_tune, model, task, BLOCKS, EPOCHS, start="as_is", engine="keras")
    finally:
        keras.Model.fit = fit
    return np.median(epochs[1:]), whole - sum(epochs)


def measure(repetitions=5):
    """Rows of the table."""
    setup(gpu="auto")
    for name, source, goal in CASES:
        backbone, task = photographs.in_memory(name, source)
        model = models.classifier(backbone, task.num_classes)
        cached(model, task)  # traces the frozen part
        runs = np.array([(*cached(model, task), plain(model, task)) for _ in range(repetitions)])
        what = f"epoch of fine_tune, last {BLOCKS} blocks of {name}"
        yield table.Row("c", what, "epoch of plain fit", runs[:, [0, 2]], goal=goal)
        yield table.Row("c", f"all of it but the epochs (activations), {name}", "epoch of plain fit", runs[:, [1, 2]])


if __name__ == "__main__":
    sys.exit(table.main(measure))
