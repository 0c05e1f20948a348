"""Recipes that people copy, written again from their description, so that they can be measured. None is recommended.

:func:`classic` is what most VGG16 tutorials do. :func:`tutorial` is TensorFlow's own tutorial on transfer learning,
https://www.tensorflow.org/tutorials/images/transfer_learning. Faults are kept: they are what is to be measured.
:func:`within_training` is what every comparison with them needs: images to choose by that are not the test images.
"""

import hashlib
from dataclasses import replace

import numpy as np

from tlutils import models, splits
from tlutils.backbones import PREPROCESS_LAYER
from tlutils.runtime import require_tensorflow


def classic(backbone, num_classes, hidden=(1024, 512), preprocess=False):
    """The classic recipe: the whole network, Flatten, two large dense layers and a softmax, compiled with Adam.

    Everything trains at once, BatchNorm included, at Adam's default rate of 0.001. The backbone's own model becomes
    part of it, not a copy: training changes the backbone.

    Args:
        backbone: A :class:`~tlutils.backbones.Backbone` with a fixed image size.
        num_classes: Number of classes.
        hidden: Widths of the dense layers between Flatten and softmax.
        preprocess: Whether the network gets what it was trained on. The classic recipe hands it pixels 0–255.

    Returns:
        keras.Model: raw pixels 0–255, shape (N, height, width, channels), to probabilities (N, num_classes).

    Raises:
        ValueError: Without preprocessing, the images have other channels than the network.
    """
    require_tensorflow()
    import keras
    from keras import layers

    inputs = x = keras.Input(backbone.input_shape, name="pixels")
    for part in backbone.model.layers[1:]:
        for layer in models.inner_layers(part):
            layer.trainable = True
        if part.name != PREPROCESS_LAYER or preprocess:
            x = part(x)
        elif part.output_shape[-1] != part.input_shape[-1]:
            raise ValueError(
                f"without preprocessing {backbone.name} needs images of {part.output_shape[-1]} channels, not "
                f"{part.input_shape[-1]}: load it and the data with as many"
            )
    x = layers.Flatten()(x)
    for width in hidden:
        x = layers.Dense(width, activation="relu")(x)
    x = layers.Dense(num_classes, activation="softmax", dtype="float32")(x)
    model = keras.Model(inputs, x, name="classic")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


TUTORIAL_FROZEN = 100  # of the 154 layers of MobileNetV2, those that stay frozen in the second phase


def tutorial(backbone, task, epochs=(10, 10), *, augment=True, seed=0, stage=None):
    """TensorFlow's tutorial: ten epochs on a frozen backbone, ten more of everything from layer 100 on.

    Flips and turns, the backbone called with ``training=False``, average pooling, dropout 0.2, one layer; Adam at 1e-4,
    then RMSprop at 1e-5, batches of 32. One logit a class here, also for two classes; the tutorial's validation pass
    after each epoch decides nothing and is left out.

    Args:
        backbone: A :class:`~tlutils.backbones.Backbone`, in the tutorial ``mobilenet_v2``; trained in place.
        task: An :class:`~tlutils.data.ImageTask`; all of ``task.train`` is trained on.
        epochs: Epochs of the two phases; 0 leaves the second one out.
        augment: Whether to flip and turn, which is no good for spectrograms or writing.
        seed: Seed of the order, of what is random in the layers and of the new layer's weights.
        stage: Called with ``(name, model)`` after ``"frozen"`` and after ``"tuned"``.

    Returns:
        keras.Model: raw pixels 0–255 to logits (N, classes).
    """
    require_tensorflow()
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    backbone.model.trainable = True
    backbone.model.trainable = False
    inputs = x = keras.Input(backbone.input_shape, name="pixels")
    if augment:
        x = layers.RandomFlip("horizontal")(x)
        x = layers.RandomRotation(0.2)(x)
    x = backbone.model(x, training=False)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2)(x)
    model = keras.Model(inputs, layers.Dense(task.num_classes, dtype="float32")(x), name="tutorial")

    def fit(optimizer, first, count):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, metrics=["accuracy"])
        batches = task.train.batches(32, shuffle=True, seed=seed)
        model.fit(batches, initial_epoch=first, epochs=first + count, shuffle=False, verbose=0)  # they are shuffled

    fit(keras.optimizers.Adam(1e-4), 0, epochs[0])
    if stage is not None:
        stage("frozen", model)
    if epochs[1]:
        backbone.model.trainable = True
        for layer in _numbered(backbone)[:TUTORIAL_FROZEN]:
            layer.trainable = False
        fit(keras.optimizers.RMSprop(1e-5), epochs[0], epochs[1])
        if stage is not None:
            stage("tuned", model)
    return model


def _numbered(backbone):
    """The layers of the network as Keras numbers them where it is one model: an input first, then layer by layer."""
    import keras

    parts = [part for part in backbone.model.layers[1:] if part.name != PREPROCESS_LAYER]
    leaves = [layer for part in parts for layer in models.all_layers(part)]
    return [backbone.model.layers[0], *(layer for layer in leaves if not isinstance(layer, keras.layers.InputLayer))]


def as_test(task):
    """The same task with the validation images in the place of the test images that the data do not have.

    Raises:
        ValueError: There are neither test nor validation images.
    """
    if task.test is not None:
        return task
    if task.val is None:
        raise ValueError(f"{task.name!r} has neither test nor validation images, so there is nothing to measure on")
    note = "there is no test split: the validation images take its place"
    return replace(task, val=None, test=task.val.subset(np.arange(len(task.val))), notes=(*task.notes, note))


def within_training(task, fraction=0.2, seed=0):
    """Hold out images to choose by from the training images, so that the test images can be opened once.

    Where the data have no test split, their validation images take its place (:func:`as_test`). Copies of an image and
    images of a group stay on one side.

    Args:
        task: An :class:`~tlutils.data.ImageTask` of a classification, with a test or a validation split.
        fraction: Share of the training images that is held out.
        seed: Decides which.

    Returns:
        ImageTask: ``train`` and ``val``, both from what was ``train`` before, and ``test``.

    Raises:
        ValueError: There are neither test nor validation images.
        tlutils.data.DataError: A class has too few images to have some on both sides.
    """
    task, train = as_test(task), task.train
    digests = train.digests or [hashlib.sha256(np.ascontiguousarray(image)).hexdigest() for image in train.images()]
    kept, held = splits.hold_out(train.labels, digests, train.groups, fraction, seed, task.class_names)
    return replace(task, train=train.subset(kept), val=train.subset(held))
