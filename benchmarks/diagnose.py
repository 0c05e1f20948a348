"""What `diagnose` costs for MobileNetV2 with 200 images, against one `predict` of the same images.

    python benchmarks/diagnose.py

The weights are ImageNet's where $KERAS_HOME holds them, else random ones, which take the same time. The images are
drawn on the spot; with `hymenoptera` in $KERAS_HOME its folder of photographs is diagnosed as well, decoding included.
"""

import argparse
import sys
import time

import numpy as np

from tlutils import backbones, data, diagnose
from tlutils.runtime import setup

GOAL, IMAGES, SIDE = 10, 200, 224


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


def seconds(function, *arguments, **options):
    started = time.perf_counter()
    result = function(*arguments, **options)
    return time.perf_counter() - started, result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3, help="default: %(default)s")
    options = parser.parse_args()
    print(setup(gpu="auto"))
    model, weights = build()
    print(f"MobileNetV2, {weights} weights, {IMAGES} images of {SIDE}×{SIDE}")
    x = np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE, 3)).astype("float32")
    pair = x[: IMAGES // 2], np.arange(IMAGES // 2) % 2
    other = x[IMAGES // 2 :], np.arange(IMAGES // 2) % 2
    cases = {"arrays": (pair, other)}
    try:
        task = data.load("hymenoptera")
        folder = next(path for path in task.train.paths[0].parents if path.name == "train").parent
        cases[f"folder of {len(task.train) + len(task.val)} photographs"] = (folder, None)
    except data.DataError as error:
        print(f"photographs skipped: {error}")
    model.predict(x[:64], verbose=0)  # Keras traces once
    for name, (first, second) in cases.items():
        runs = []
        for _ in range(options.repetitions):
            predicting, _ = seconds(model.predict, x, batch_size=64, verbose=0)
            looking, found = seconds(diagnose.diagnose, model, first, second)
            runs.append((predicting, looking))
        predicting, looking = np.median(runs, axis=0)
        ratios = [b / a for a, b in runs]
        print(
            f"{name:<26} predict {predicting:>5.1f} s   diagnose {looking:>5.1f} s   diagnose/predict: min "
            f"{min(ratios):.1f} median {np.median(ratios):.1f} max {max(ratios):.1f}   ({found.summary()})"
        )
        if name == "arrays":
            print(f"goal for {IMAGES} images: at most {GOAL} s; it takes {looking:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
