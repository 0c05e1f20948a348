"""(h) What `diagnose` costs for MobileNetV2 with 200 images, tracing included, against what it may take.

python benchmarks/diagnose.py

The weights are ImageNet's where $KERAS_HOME holds them, else random ones, which take the same time. The images are
drawn on the spot; with `hymenoptera` in $KERAS_HOME its folder of photographs is diagnosed as well, decoding included.
"""

import contextlib
import sys

import numpy as np
import table

from tlutils import backbones, data, diagnose
from tlutils.runtime import setup

SECONDS, IMAGES, SIDE = 10, 200, 224


def build():
    """The model of the Keras guide, unfrozen as the guide does it, so that every detector has something to look at."""
    import keras

    here = next(entry["local"] for entry in backbones.describe() if entry["name"] == "mobilenet_v2")
    weights = "imagenet" if here else None
    base = keras.applications.MobileNetV2(weights=weights, include_top=False, input_shape=(SIDE, SIDE, 3))
    inputs = keras.Input((SIDE, SIDE, 3))
    x = base(keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs), training=False)
    x = keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-5), loss, metrics=["accuracy"])
    return model, "ImageNet's" if here else "random"


def measure(repetitions=3):
    """Rows of the table."""
    setup(gpu="auto")
    model, weights = build()
    x = np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE, 3)).astype("float32")
    half = IMAGES // 2
    arguments = {f"{IMAGES} images drawn on the spot": [(part, np.arange(half) % 2) for part in (x[:half], x[half:])]}
    with contextlib.suppress(data.DataError):  # the photographs are not on this machine
        task = data.load("hymenoptera")
        folder = next(path for path in task.train.paths[0].parents if path.name == "train").parent
        arguments[f"a folder of {len(task.train) + len(task.val)} photographs"] = [folder]
    for what, given in arguments.items():
        pairs = [(table.seconds(diagnose.diagnose, model, *given), SECONDS) for _ in range(repetitions)]
        goal = 1 if len(given) == 2 else None
        yield table.Row("h", f"diagnose, {weights} weights, {what}", "what it may take", pairs, goal=goal)


if __name__ == "__main__":
    sys.exit(table.main(measure))
