"""The pocket zoo: four families of the literature in miniature, and their pretraining.

Each network takes images scaled to [0, 1], 32×32 with one channel, and has 100,000 to 300,000 parameters. ``make zoo``
(``python -m tlutils.zoo``) pretrains all four on printed letters and writes their weights to ``tlutils/weights``;
``make zoo-sources`` does the same with the other source tasks of :mod:`tlutils.sources`. The networks are plain Keras;
:mod:`tlutils.backbones` gives them preprocessing and blocks like any other backbone.
"""

import argparse
import json
import os
import sys
import time
import zipfile
import zlib
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from tlutils import letters, results, sources
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


def pretrain(
    name,
    images=60_000,
    epochs=6,
    learning_rate=3e-3,
    batch_size=256,
    seed=0,
    work=None,
    verbose=True,
    source="letters",
):
    """Pretrain one pocket network on a source task.

    Adam with a cosine decay to zero; no label smoothing, which makes features transfer worse (Kornblith et al., 2021).
    With ``work`` the state is kept after each epoch, and an interrupted call goes on where it stopped and ends with
    the weights it would have had.

    Args:
        name: One of ``FAMILIES``.
        images: How many images to draw.
        epochs: Passes over them.
        learning_rate: Adam's rate at the start.
        batch_size: Images a step.
        seed: Seed of the images, the initial weights and the order of the batches.
        work: Folder for the state; ``None`` keeps none.
        verbose: Show Keras' progress bar.
        source: One of ``sources.SOURCES``.

    Returns:
        ``(model, record)``: the classifier of the source task, as :func:`load` gives it, and a dict of everything that
        is stored beside its weights.
    """
    require_tensorflow()
    import keras

    started = time.perf_counter()
    keras.utils.set_random_seed(seed)
    task = sources.find(source)
    x, y = task.draw(images, seed, "train")
    steps = -(-images // batch_size)
    model = _with_classifier(build(name), task)
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
        state, log = (Path(work) / f"{_file_stem(name, source)}.{kind}" for kind in ("keras", "json"))
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

    accuracy, pairs = validate(model, source=source)
    fonts = f", {len(letters.fonts())} fonts" if source == "letters" else ""
    option = "" if source == "letters" else f" --source {source}"
    record = {
        "name": name,
        "source": source,
        "source_task": f"{len(task.class_names)} classes of {task.description}{fonts}",
        "command": f"python -m tlutils.zoo {name}{option} --images {images} --epochs {epochs} --seed {seed}",
        "settings": settings,
        "parameters": model.get_layer(name).count_params(),
        "held_out": task.held_out,
        **({"held_out_fonts": [path.stem for path in letters.fonts("validation")]} if source == "letters" else {}),
        "accuracy": round(accuracy, 4),
        "confused_pairs": pairs,
        "data_sha256": letters.fingerprint(x, y),
        "versions": results.versions() | {package: version(package) for package in ("pillow", "matplotlib")},
        "seconds": round(spent + time.perf_counter() - started),
        "date": date.today().isoformat(),
    }
    return model, record


def validate(model, n=5_000, seed=1, source="letters"):
    """Accuracy of a source classifier on fresh images of the validation split, and its most confused pairs.

    Args:
        model: Images in [0, 1], shape (N, 32, 32, 1), to logits over the classes of the source task.
        n: Number of images.
        seed: Seed of the images.
        source: One of ``sources.SOURCES``; of letters and strokes, validation has fonts and writers of its own.

    Returns:
        ``(accuracy, pairs)``: a float, and the ten most frequent ``[true, predicted, count]``.
    """
    task = sources.find(source)
    x, y = task.draw(n, seed, "validation")
    predicted = model.predict(x / np.float32(255), batch_size=500, verbose=0).argmax(1)
    wrong = np.flatnonzero(predicted != y)
    pairs, counts = np.unique(np.stack([y[wrong], predicted[wrong]]), axis=1, return_counts=True)
    names = task.class_names
    worst = np.argsort(-counts, kind="stable")[:10]
    return float((predicted == y).mean()), [[names[pairs[0, i]], names[pairs[1, i]], int(counts[i])] for i in worst]


def weights_file(name, source="letters", folder=WEIGHTS):
    """Where the weights of a network that was pretrained on a source task are kept."""
    return Path(folder) / f"{_file_stem(name, sources.find(source).name)}.npz"


def _file_stem(name, source):
    return name if source == "letters" else f"{name}-{source}"


def save(model, record, folder=WEIGHTS):
    """Write a pretrained classifier as float16 to :func:`weights_file`, with its record as JSON beside it."""
    arrays = {weight.path: np.asarray(weight, np.float16) for weight in model.weights}
    file = weights_file(record["name"], record.get("source", "letters"), folder)
    _write(file, lambda path: np.savez_compressed(path, **arrays))
    _write_json(file.with_suffix(".json"), record)


def _write(path, write):
    """Write a file under another name first, so that an interruption never leaves half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    write(temporary)
    os.replace(temporary, path)


def _write_json(path, content):
    _write(path, lambda temporary: temporary.write_text(json.dumps(content, indent=1) + "\n"))


def load(name, path=None, source="letters"):
    """The classifier of a source task, pretrained, of one family.

    Args:
        name: One of ``FAMILIES``.
        path: A file that :func:`save` wrote; ``None`` takes the one that ships with the package.
        source: One of ``sources.SOURCES``.

    Returns:
        keras.Model: images in [0, 1], shape (N, 32, 32, 1), to logits over the classes of the source task; its layer
        ``name`` is the network without the classifier, its last layer is called after the source task.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file holds something else, or the weights of another network.
    """
    path = Path(path or weights_file(name, source))
    target = "zoo" if source == "letters" else "zoo-sources"
    if not path.exists():
        raise FileNotFoundError(f"no weights at {path}; `make {target}` rebuilds them")
    model = _with_classifier(build(name), sources.find(source))
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):  # not .npz, or damaged
        arrays = {}
    if {key: array.shape for key, array in arrays.items()} != {w.path: tuple(w.shape) for w in model.weights}:
        raise ValueError(f"{path} does not hold the weights of {name} for {source}; `make {target}` rebuilds them")
    for weight in model.weights:
        weight.assign(arrays[weight.path].astype(np.float32))
    return model


def record(name, source="letters"):
    """What is stored beside the weights that ship: settings, versions, data hash, accuracy, confused pairs, date."""
    return json.loads(weights_file(name, source).with_suffix(".json").read_text())


def _with_classifier(network, task=sources.SOURCES["letters"]):
    """The network, global average pooling and a linear layer over the classes of a source task."""
    import keras
    from keras import layers

    inputs = keras.Input(network.input_shape[1:], name="image")
    x = layers.GlobalAveragePooling2D(name="pool")(network(inputs))
    return keras.Model(
        inputs, layers.Dense(len(task.class_names), name=task.name)(x), name=f"{network.name}_{task.name}"
    )


def main(argv=None):
    """Pretrain the pocket zoo; networks that this call's settings already finished are not trained again."""
    parser = argparse.ArgumentParser(prog="python -m tlutils.zoo", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(FAMILIES)}; default: all")
    parser.add_argument(
        "--source", nargs="+", default=["letters"], metavar="TASK", help=f"{', '.join(sources.SOURCES)}"
    )
    parser.add_argument("--images", type=int, default=60_000, help="images to draw (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=6, help="passes over them (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder for the weights (default: the package's)")
    parser.add_argument(
        "--work", type=Path, default=Path("_build/zoo"), help="folder for resuming (default: %(default)s)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="networks trained side by side (default: %(default)s)")
    options = parser.parse_args(argv)
    for known, given, what in ((FAMILIES, options.names, "network"), (sources.SOURCES, options.source, "source task")):
        if unknown := set(given) - set(known):
            parser.error(f"unknown {what} {', '.join(sorted(unknown))}; choose from {', '.join(known)}")

    todo = [(options, name, source) for source in options.source for name in options.names or FAMILIES]
    if options.jobs == 1:
        list(map(_pretrain_and_save, *zip(*todo)))
    else:
        for threads in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"):
            os.environ[threads] = "1"  # for the processes to come: their threads would wait for each other
        with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
            list(pool.map(_pretrain_and_save, *zip(*todo)))
    return 0


def _pretrain_and_save(options, name, source):
    setup(gpu="auto", seed=options.seed)
    what = f"{name} on {source}"
    print(f"{what}: {options.images:,} images, {options.epochs} epochs", flush=True)
    model, result = pretrain(
        name,
        options.images,
        options.epochs,
        seed=options.seed,
        work=options.work,
        verbose=options.jobs == 1,
        source=source,
    )
    save(model, result, options.out)
    held_out = sources.find(source).held_out
    print(f"{what}: {result['accuracy']:.1%} on held-out {held_out} after {result['seconds']} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
