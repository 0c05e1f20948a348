"""The pocket zoo: four families of the literature in miniature, and their pretraining on printed letters.

Each network takes images scaled to [0, 1], 32×32 with one channel, and has 100,000 to 300,000 parameters. ``make zoo``
(``python -m tlutils.zoo``) pretrains all four and writes their weights to ``tlutils/weights``. The networks are plain
Keras; :mod:`tlutils.backbones` gives them preprocessing and blocks like any other backbone.
"""

import argparse
import json
import os
import sys
import time
import zipfile
import zlib
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np

from tlutils import letters, results
from tlutils.runtime import require_tensorflow, setup

INPUT_SHAPE = (letters.SIZE, letters.SIZE, 1)
WEIGHTS = Path(__file__).parent / "weights"

# BatchNorm's default momentum (0.99) needs hundreds of steps before its moving averages are of use.
BATCH_NORM_MOMENTUM = 0.9


def build(name, input_shape=INPUT_SHAPE):
    """Build one pocket network without its classifier, with random weights.

    Args:
        name: One of ``FAMILIES``.
        input_shape: (height, width, 1).

    Returns:
        keras.Model: images in [0, 1], shape (N, height, width, 1), to a feature map. Layers carry their block's name.
    """
    require_tensorflow()
    import keras

    inputs = keras.Input(input_shape, name="image")
    return keras.Model(inputs, FAMILIES[name](inputs), name=name)


def _conv(x, filters, name, kernel=3, strides=1, activation="relu"):
    """Convolution, BatchNorm, activation: the unit that every family after VGG is made of."""
    from keras import layers

    x = layers.Conv2D(filters, kernel, strides, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"{name}_bn")(x)
    return layers.Activation(activation, name=f"{name}_{activation}")(x) if activation else x


def _vgg(x):
    """Simonyan and Zisserman (2015): pairs of 3×3 convolutions, then pooling; no BatchNorm, no shortcuts."""
    from keras import layers

    for block, filters in enumerate((16, 32, 64, 96), start=1):
        for i in (1, 2):
            x = layers.Conv2D(
                filters,
                3,
                padding="same",
                activation="relu",
                kernel_initializer="he_normal",
                name=f"block{block}_conv{i}",
            )(x)
        x = layers.MaxPooling2D(name=f"block{block}_pool")(x)
    return x


def _resnet(x):
    """He et al. (2016): bottleneck units (1×1, 3×3, 1×1) whose output is added to a shortcut of their input."""
    from keras import layers

    x = _conv(x, 24, "stem", kernel=5, strides=2)
    for block, (width, strides) in enumerate(((16, 1), (16, 1), (32, 2), (32, 1), (56, 2)), start=1):
        name, filters, shortcut = f"block{block}", 4 * width, x
        if x.shape[-1] != filters:
            shortcut = _conv(x, filters, f"{name}_shortcut", kernel=1, strides=strides, activation=None)
        x = _conv(x, width, f"{name}_reduce", kernel=1, strides=strides)
        x = _conv(x, width, f"{name}_middle")
        x = _conv(x, filters, f"{name}_expand", kernel=1, activation=None)
        x = layers.Add(name=f"{name}_add")([shortcut, x])
        x = layers.Activation("relu", name=f"{name}_out")(x)
    return x


def _inception(x):
    """Szegedy et al. (2015, 2016): branches of several receptive fields side by side, concatenated."""
    from keras import layers

    x = _conv(x, 24, "stem", kernel=5, strides=2)
    for block, (width, pool) in enumerate(((16, False), (32, True), (32, False), (48, True)), start=1):
        name = f"block{block}"
        if pool:
            x = layers.MaxPooling2D(name=f"{name}_shrink")(x)
        one = _conv(x, width, f"{name}_1x1", kernel=1)
        three = _conv(_conv(x, width // 2, f"{name}_3x3_reduce", kernel=1), width, f"{name}_3x3")
        five = _conv(x, width // 2, f"{name}_5x5_reduce", kernel=1)
        five = _conv(_conv(five, width, f"{name}_5x5_a"), width, f"{name}_5x5_b")
        pooled = layers.AveragePooling2D(3, strides=1, padding="same", name=f"{name}_pool")(x)
        pooled = _conv(pooled, width, f"{name}_pool_project", kernel=1)
        x = layers.Concatenate(name=f"{name}_mixed")([one, three, five, pooled])
    return x


def _mobilenet(x):
    """Sandler et al. (2018): inverted residuals: expand 1×1, filter each channel 3×3, project 1×1 linearly."""
    from keras import layers

    x = _conv(x, 16, "stem", strides=2)
    units = ((24, 1), (24, 1), (40, 2), (40, 1), (72, 2), (80, 1))
    for block, (filters, strides) in enumerate(units, start=1):
        name, entry = f"block{block}", x
        x = _conv(x, 3 * x.shape[-1], f"{name}_expand", kernel=1, activation="relu6")
        x = layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False, name=f"{name}_depthwise")(x)
        x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"{name}_depthwise_bn")(x)
        x = layers.Activation("relu6", name=f"{name}_depthwise_relu6")(x)
        x = _conv(x, filters, f"{name}_project", kernel=1, activation=None)
        if strides == 1 and entry.shape[-1] == filters:
            x = layers.Add(name=f"{name}_add")([entry, x])
    return _conv(x, 272, "top", kernel=1, activation="relu6")


FAMILIES = {
    "pocket_vgg": _vgg,
    "pocket_resnet": _resnet,
    "pocket_inception": _inception,
    "pocket_mobilenet": _mobilenet,
}


def pretrain(name, images=60_000, epochs=6, learning_rate=3e-3, batch_size=256, seed=0, work=None, verbose=True):
    """Pretrain one pocket network on printed letters.

    Adam with a cosine decay to zero; no label smoothing, which makes features transfer worse (Kornblith et al., 2021).
    With ``work`` the state is kept after each epoch, and an interrupted call goes on where it stopped and ends with
    the weights it would have had.

    Args:
        name: One of ``FAMILIES``.
        images: How many letters to draw from the training fonts.
        epochs: Passes over them.
        learning_rate: Adam's rate at the start.
        batch_size: Images a step.
        seed: Seed of the letters, the initial weights and the order of the batches.
        work: Folder for the state; ``None`` keeps none.
        verbose: Show Keras' progress bar.

    Returns:
        ``(model, record)``: the letter classifier, as :func:`load` gives it, and a dict of everything that is stored
        beside its weights.
    """
    require_tensorflow()
    import keras

    started = time.perf_counter()
    keras.utils.set_random_seed(seed)
    x, y = letters.draw(images, seed)
    steps = -(-images // batch_size)
    model = _with_classifier(build(name))
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, epochs * steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    settings = {
        "images": images,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "seed": seed,
    }
    done, spent = 0, 0.0
    if work:
        state, log = Path(work) / f"{name}.keras", Path(work) / f"{name}.json"
        progress = json.loads(log.read_text()) if state.exists() and log.exists() else {}
        if progress.get("settings") == settings:
            model, spent = keras.models.load_model(state), progress["seconds"]
            done = int(model.optimizer.iterations) // steps
        else:
            state.unlink(missing_ok=True)
    for epoch in range(done, epochs):
        order = np.random.default_rng([seed, epoch]).permutation(images)
        model.fit(
            x[order] / np.float32(255),
            y[order],
            batch_size=batch_size,
            shuffle=False,
            initial_epoch=epoch,
            epochs=epoch + 1,
            verbose="auto" if verbose else 0,
        )
        if work:
            _write_json(log, {"settings": settings, "seconds": spent + time.perf_counter() - started})
            _write(state, model.save)

    accuracy, pairs = validate(model)
    record = {
        "name": name,
        "source_task": f"{len(letters.CLASS_NAMES)} classes of printed letters, {len(letters.fonts())} fonts",
        "command": f"python -m tlutils.zoo {name} --images {images} --epochs {epochs} --seed {seed}",
        "settings": settings,
        "parameters": model.get_layer(name).count_params(),
        "held_out_fonts": [path.stem for path in letters.fonts("validation")],
        "accuracy": round(accuracy, 4),
        "confused_pairs": pairs,
        "data_sha256": letters.fingerprint(x, y),
        "versions": results.versions() | {package: version(package) for package in ("pillow", "matplotlib")},
        "seconds": round(spent + time.perf_counter() - started),
        "date": date.today().isoformat(),
    }
    return model, record


def validate(model, n=5_000, seed=1):
    """Accuracy of a letter classifier on freshly drawn letters of the held-out fonts, and its most confused pairs.

    Args:
        model: Images in [0, 1], shape (N, 32, 32, 1), to logits over ``letters.CLASS_NAMES``.
        n: Number of letters.
        seed: Seed of the letters.

    Returns:
        ``(accuracy, pairs)``: a float, and the ten most frequent ``[true, predicted, count]``.
    """
    x, y = letters.draw(n, seed, fonts="validation")
    predicted = model.predict(x / np.float32(255), batch_size=500, verbose=0).argmax(1)
    wrong = np.flatnonzero(predicted != y)
    pairs, counts = np.unique(np.stack([y[wrong], predicted[wrong]]), axis=1, return_counts=True)
    names = letters.CLASS_NAMES
    worst = np.argsort(-counts, kind="stable")[:10]
    return float((predicted == y).mean()), [[names[pairs[0, i]], names[pairs[1, i]], int(counts[i])] for i in worst]


def save(model, record, folder=WEIGHTS):
    """Write a pretrained letter classifier as float16 to ``folder/NAME.npz``, with its record as JSON beside it."""
    arrays = {weight.path: np.asarray(weight, np.float16) for weight in model.weights}
    _write(Path(folder, f"{record['name']}.npz"), lambda path: np.savez_compressed(path, **arrays))
    _write_json(Path(folder, f"{record['name']}.json"), record)


def _write(path, write):
    """Write a file under another name first, so that an interruption never leaves half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    write(temporary)
    os.replace(temporary, path)


def _write_json(path, content):
    _write(path, lambda temporary: temporary.write_text(json.dumps(content, indent=1) + "\n"))


def load(name, path=None):
    """The pretrained letter classifier of one family.

    Args:
        name: One of ``FAMILIES``.
        path: A file that :func:`save` wrote; ``None`` takes the one that ships with the package.

    Returns:
        keras.Model: images in [0, 1], shape (N, 32, 32, 1), to logits over ``letters.CLASS_NAMES``; its layer
        ``name`` is the network without the classifier.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file holds something else, or the weights of another network.
    """
    path = Path(path or WEIGHTS / f"{name}.npz")
    if not path.exists():
        raise FileNotFoundError(f"no weights at {path}; `make zoo` rebuilds the pocket zoo")
    model = _with_classifier(build(name))
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):  # not .npz, or damaged
        arrays = {}
    if {key: array.shape for key, array in arrays.items()} != {w.path: tuple(w.shape) for w in model.weights}:
        raise ValueError(f"{path} does not hold the weights of {name}; `make zoo` rebuilds the pocket zoo")
    for weight in model.weights:
        weight.assign(arrays[weight.path].astype(np.float32))
    return model


def record(name):
    """What is stored beside the weights that ship: settings, versions, data hash, accuracy, confused pairs, date."""
    return json.loads((WEIGHTS / f"{name}.json").read_text())


def _with_classifier(network):
    """The network, global average pooling and a linear layer over the letters."""
    import keras
    from keras import layers

    inputs = keras.Input(network.input_shape[1:], name="image")
    x = layers.GlobalAveragePooling2D(name="pool")(network(inputs))
    return keras.Model(
        inputs, layers.Dense(len(letters.CLASS_NAMES), name="letters")(x), name=f"{network.name}_letters"
    )


def main(argv=None):
    """Pretrain the whole zoo; families that this call's settings already finished are not trained again."""
    parser = argparse.ArgumentParser(prog="python -m tlutils.zoo", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(FAMILIES)}; default: all")
    parser.add_argument("--images", type=int, default=60_000, help="letters to draw (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=6, help="passes over them (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder for the weights (default: the package's)")
    parser.add_argument(
        "--work", type=Path, default=Path("_build/zoo"), help="folder for resuming (default: %(default)s)"
    )
    options = parser.parse_args(argv)
    unknown = set(options.names) - set(FAMILIES)
    if unknown:
        parser.error(f"unknown network {', '.join(sorted(unknown))}; choose from {', '.join(FAMILIES)}")

    setup(gpu="auto", seed=options.seed)
    for name in options.names or FAMILIES:
        print(f"{name}: {options.images:,} letters, {options.epochs} epochs", flush=True)
        model, result = pretrain(name, options.images, options.epochs, seed=options.seed, work=options.work)
        save(model, result, options.out)
        print(f"{name}: {result['accuracy']:.1%} on held-out fonts after {result['seconds']} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
