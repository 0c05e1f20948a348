"""Set-ups as tutorials write them: right ones, in which nothing may be raised, and wrong ones, whose fault is named."""

import hashlib
import pickle
import random

import numpy as np
import pytest

from tlutils import backbones, data, diagnose, inspection, models, training

CLASSES, SIZE = 3, 32


# --------------------------------------------------------------------------------------------------- building blocks


def photos(count, seed, size=SIZE, channels=3):
    """Smooth random pictures, uint8, no two of which are alike, with the labels 0, 1, 2, 0 …"""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, 5, 5, channels))
    axis = np.linspace(0, 4, size)
    low, part = np.minimum(axis.astype(int), 3), axis - np.minimum(axis.astype(int), 3)
    rows = coarse[:, low] * (1 - part)[:, None, None] + coarse[:, low + 1] * part[:, None, None]
    images = rows[:, :, low] * (1 - part)[:, None] + rows[:, :, low + 1] * part[:, None]
    return np.clip(images + rng.normal(0, 4, images.shape), 0, 255).astype(np.uint8), np.arange(count) % CLASSES


X, Y = photos(90, 0)
VX, VY = photos(30, 1)
RAW = X.astype("float32"), Y
RAW_VAL = VX.astype("float32"), VY
PLUS_MINUS = (X / np.float32(127.5) - 1, Y)
ONE_HOT = np.eye(CLASSES, dtype="float32")[Y]
BINARY = (X.astype("float32"), (Y > 0).astype("float32"))


@pytest.fixture(scope="module", autouse=True)
def _tensorflow(tensorflow):
    yield


def pretend_pretrained(model):
    """Give BatchNorm and biases the values that training would have left, so that they are not fresh."""
    import keras

    for layer in inspection.leaves(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(np.full(layer.moving_mean.shape, 0.3, "float32"))
            layer.moving_variance.assign(np.full(layer.moving_variance.shape, 1.7, "float32"))
        elif inspection.is_convolution(layer) and getattr(layer, "bias", None) is not None:
            layer.bias.assign(np.full(layer.bias.shape, 0.02, "float32"))
    return model


def mobilenet(pretrained=True):
    """A network whose layers are called as MobileNetV2's are, and which wants its pixels in [-1, 1]."""
    import keras
    from keras import layers

    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="Conv1")(inputs)
    x = layers.ReLU(6.0, name="Conv1_relu")(layers.BatchNormalization(name="bn_Conv1")(x))
    x = layers.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False, name="block_1_depthwise")(x)
    x = layers.BatchNormalization(name="block_1_depthwise_BN")(x)
    x = layers.Conv2D(16, 1, use_bias=False, name="block_1_project")(x)
    x = layers.BatchNormalization(name="block_1_project_BN")(x)
    network = keras.Model(inputs, x, name="mobilenetv2_mini")
    return pretend_pretrained(network) if pretrained else network


def vgg():
    """The first two blocks of VGG16, the second one narrow; which network it is shows in the first."""
    import keras
    from keras import layers

    network = keras.Sequential([keras.Input((SIZE, SIZE, 3))], name="vgg_mini")
    for block, width in ((1, 64), (2, 8)):
        for i in (1, 2):
            name = f"block{block}_conv{i}"
            network.add(layers.Conv2D(width, 3, strides=i, padding="same", activation="relu", name=name))
        network.add(layers.MaxPooling2D(name=f"block{block}_pool"))
    return pretend_pretrained(network)


def freeze_batch_norm(model):
    import keras

    for layer in inspection.leaves(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def keras_guide(base, rescale=True, frozen=True):
    """keras.io/guides/transfer_learning: the functional model, one logit."""
    import keras

    base.trainable = not frozen
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs) if rescale else inputs
    x = base(x, training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(0.2)(x)
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    return compiled(model, keras.losses.BinaryCrossentropy(from_logits=True))


def tutorial(base):
    """tensorflow.org/tutorials/images/transfer_learning: augmentation and preprocess_input as operations."""
    import keras

    base.trainable = False
    augmentation = keras.Sequential([keras.layers.RandomFlip("horizontal"), keras.layers.RandomRotation(0.2)])
    inputs = keras.Input((SIZE, SIZE, 3))
    x = augmentation(inputs)
    x = keras.applications.mobilenet_v2.preprocess_input(x)
    x = base(x, training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(0.2)(x)
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x))
    return compiled(model, keras.losses.BinaryCrossentropy(), keras.optimizers.Adam(1e-4))


def recipe(base, hidden=(64, 32), loss="categorical_crossentropy", activation="softmax", units=CLASSES):
    """The VGG16 recipe of most tutorials: sequential, flattened, two hidden layers."""
    import keras

    base.trainable = False
    model = keras.Sequential([base, keras.layers.Flatten()])
    for width in hidden:
        model.add(keras.layers.Dense(width, activation="relu"))
        model.add(keras.layers.Dropout(0.5))
    model.add(keras.layers.Dense(units, activation=activation))
    return compiled(model, loss)


def small_network(last="softmax", units=CLASSES, rescale=True, channels=3, norm=False):
    """A small network from scratch, as in the image classification tutorial."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((SIZE, SIZE, channels)),
            *([layers.Rescaling(1 / 255)] if rescale else []),
            layers.Conv2D(8, 3, activation="relu"),
            *([layers.BatchNormalization()] if norm else []),
            layers.MaxPooling2D(),
            layers.Conv2D(8, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(units, activation=last),
        ]
    )


def tiny_network(units, size=8):
    """A softmax on one convolution."""
    import keras
    from keras import layers

    inside = [layers.Rescaling(1 / 255), layers.Conv2D(2, 3), layers.GlobalAveragePooling2D()]
    return keras.Sequential([keras.Input((size, size, 3)), *inside, layers.Dense(units, activation="softmax")])


def compiled(model, loss="sparse_categorical_crossentropy", optimizer="adam"):
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)  # XLA takes longer than the step
    return model


def step(model, x, y):
    """One step of fit, without the seconds that it takes to trace it."""
    model.run_eagerly = True
    model.fit(x, y, batch_size=len(x), verbose=0)
    model.run_eagerly = False
    return model


def subclassed(base, call=None, augmentation=None):
    """A model of its own class, which preprocesses in ``call`` and holds the backbone in inference mode there."""
    import keras

    class Transfer(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = keras.layers.Dense(CLASSES, activation="softmax")  # made first, as people do
            self.base = base
            self.pool = keras.layers.GlobalAveragePooling2D()
            self.augmentation = augmentation

        def call(self, x, training=None):
            if self.augmentation is not None:
                x = self.augmentation(x, training=True)
            if call is not None:
                x = call(x)
            x = keras.applications.mobilenet_v2.preprocess_input(x)
            return self.head(self.pool(self.base(x, training=False)))

    model = Transfer()
    model(X[:1].astype("float32"))
    return compiled(model, optimizer="rmsprop")


def dataset(x, y, batch=16):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch)


def digits(labels_per_class=None):
    return data.load("digits", labels_per_class=labels_per_class)


@pytest.fixture(scope="module")
def picture_folder(tmp_path_factory):
    from PIL import Image

    root = tmp_path_factory.mktemp("pictures")
    for side, (images, labels) in {"train": (X, Y), "val": (VX, VY)}.items():
        for i, (image, label) in enumerate(zip(images, labels)):
            path = root / side / ("goldfish", "gizmos", "bees")[label] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return root


# --------------------------------------------------------------------------------------------------- correct set-ups


def right_keras_guide():
    return keras_guide(mobilenet()), BINARY, None


def right_keras_guide_fine_tuned():
    import keras

    base = mobilenet()
    model = step(keras_guide(base), *BINARY)
    base.trainable = True
    freeze_batch_norm(base)
    compiled(model, keras.losses.BinaryCrossentropy(from_logits=True), keras.optimizers.Adam(1e-5))
    return model, BINARY, (RAW_VAL[0], (VY > 0).astype("float32"))


def right_tutorial():
    import tensorflow as tf

    train = dataset(*BINARY).shuffle(6, seed=1).prefetch(tf.data.AUTOTUNE)
    return tutorial(mobilenet()), train, dataset(RAW_VAL[0], (VY > 0).astype("float32")).prefetch(1)


def right_tutorial_fine_tuned():
    import keras

    base = mobilenet()
    model = tutorial(base)
    base.trainable = True
    for layer in base.layers[:4]:
        layer.trainable = False
    freeze_batch_norm(base)
    compiled(model, keras.losses.BinaryCrossentropy(), keras.optimizers.RMSprop(1e-5))
    return model, dataset(*BINARY), None


def right_recipe_vgg16():
    import keras

    x = keras.applications.vgg16.preprocess_input(RAW[0].copy())
    val = keras.applications.vgg16.preprocess_input(RAW_VAL[0].copy())
    return recipe(vgg()), (x, ONE_HOT), (val, np.eye(CLASSES, dtype="float32")[VY])


def right_recipe_pocket_vgg():
    network = backbones._pocket_network("pocket_vgg", "letters")
    import keras

    model = keras.Sequential([keras.Input((SIZE, SIZE, 1)), keras.layers.Rescaling(1 / 255), network])
    model = recipe(model, loss="sparse_categorical_crossentropy", units=10)
    return model, digits(), None


def right_scratch():
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return compiled(small_network(last=None, norm=True), loss), RAW, RAW_VAL


def right_scratch_trained():
    return step(compiled(small_network(norm=True)), *RAW), RAW, RAW_VAL


def right_scratch_unit_range_without_rescaling():
    return compiled(small_network(rescale=False)), (X / np.float32(255), Y), (VX / np.float32(255), VY)


def right_application_from_scratch():
    import keras

    base = mobilenet(pretrained=False)
    model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Rescaling(1 / 127.5, offset=-1), base])
    model.add(keras.layers.GlobalAveragePooling2D())
    model.add(keras.layers.Dense(CLASSES, activation="softmax"))
    return compiled(model), RAW, RAW_VAL


def right_subclassed_unfrozen():
    import keras

    model = subclassed(mobilenet())
    compiled(model, "sparse_categorical_crossentropy", keras.optimizers.Adam(1e-5))
    return model, RAW, RAW_VAL


def right_flat_functional():
    """keras.io/api/applications, InceptionV3: the layers of the backbone belong to the model itself."""
    import keras

    base = mobilenet()
    outputs = keras.layers.Dense(CLASSES, "softmax")(keras.layers.GlobalAveragePooling2D()(base.output))
    model = keras.Model(base.input, outputs)
    for layer in model.layers[:6]:
        layer.trainable = False
    for layer in model.layers[6:]:
        layer.trainable = True
    sgd = keras.optimizers.SGD(learning_rate=0.0001, momentum=0.9)
    return compiled(model, optimizer=sgd), PLUS_MINUS, None


def right_backbone_that_trains_on_purpose():
    """Nobody has said that BatchNorm should stand still."""
    import keras

    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.GlobalAveragePooling2D()(mobilenet()(keras.layers.Rescaling(1 / 127.5, -1)(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(CLASSES, "softmax")(x))
    return compiled(model, optimizer=keras.optimizers.Adam(1e-5)), RAW, None


def right_subclassed_from_scratch():
    """The first layer of the class is not the first that pixels meet."""
    import keras

    class Small(keras.Model):
        def __init__(self):
            super().__init__()
            self.late = keras.layers.Conv2D(4, 3, activation="relu")
            self.early = keras.layers.Conv2D(
                4, 3, activation="relu", kernel_initializer=keras.initializers.Constant(1e-5)
            )
            self.pool = keras.layers.GlobalAveragePooling2D()
            self.head = keras.layers.Dense(CLASSES, activation="softmax")

        def call(self, x):
            return self.head(self.pool(self.late(self.early(x / 255))))

    model = Small()
    model(RAW[0][:1])
    return compiled(model), RAW, RAW_VAL


def right_last_layers_unfrozen_under_a_frozen_base():
    import keras

    base = mobilenet()
    model = recipe(base, hidden=())
    for layer in base.layers[-4:]:
        layer.trainable = True
    return compiled(model, optimizer=keras.optimizers.Adam(1e-5)), PLUS_MINUS, None


def right_linear_probe():
    task = digits(1)
    model = models.classifier(backbones.load("pocket_vgg"), 10)
    training.linear_probe(model, task)
    return model, task, None


def right_fine_tune():
    task = digits(1)
    model = models.classifier(backbones.load("pocket_mobilenet"), 10)
    training.fine_tune(model, task, blocks=1, epochs=1, learning_rate=3e-3, progress=False)
    models.unfreeze(model, 1)  # for the next call of fine_tune, which compiles a model of its own
    return model, task, None


def right_rgb_pictures_on_the_pocket_zoo():
    model = models.classifier(backbones.load("pocket_vgg", input_shape=(SIZE, SIZE, 3)), CLASSES)
    return model, data.from_arrays("pictures", (X, Y), (VX, VY)), None


def right_regressor():
    task = data.load("tilted_digits")
    model = models.regressor(backbones.load("pocket_vgg"))
    models.freeze(model)
    compiled(model, "mse", "adam")
    return model, task, None


def right_whole_numbers_as_amounts():
    model = compiled(small_network(last=None, units=1), "mse")
    return model, (RAW[0], Y * 7), None


def right_multi_label():
    rng = np.random.default_rng(0)
    model = compiled(small_network("sigmoid"), "binary_crossentropy")
    return model, (RAW[0], (rng.random((len(X), CLASSES)) < 0.5).astype("float32")), None


def right_two_classes_two_ways():
    return compiled(small_network("softmax", 2)), (RAW[0], Y % 2), (RAW_VAL[0], VY % 2)


def right_softmax_as_an_operation():
    import keras

    model = small_network(last=None)
    model = keras.Model(model.inputs, keras.ops.softmax(model.outputs[0]))
    return compiled(model), RAW, None


def right_partial_loss():
    from functools import partial

    import keras

    loss = partial(keras.losses.sparse_categorical_crossentropy, from_logits=True)
    return compiled(small_network(last=None), loss), RAW, None


def right_label_smoothing():
    import keras

    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    return compiled(small_network(), loss), (RAW[0], ONE_HOT * 0.9 + 0.1 / 3), None


def right_mixed_precision():
    import keras

    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        base = mobilenet()
        model = keras_guide(base)
        outputs = keras.layers.Activation("sigmoid", dtype="float32")(model.outputs[0])
        model = compiled(keras.Model(model.inputs, outputs), "binary_crossentropy")
    finally:
        keras.mixed_precision.set_global_policy("float32")
    return model, BINARY, None


def right_warm_up():
    import keras

    schedule = keras.optimizers.schedules.CosineDecay(0.0, 1000, warmup_target=1e-5, warmup_steps=100)
    model = keras_guide(base := mobilenet())
    base.trainable = True
    freeze_batch_norm(base)
    compiled(model, keras.losses.BinaryCrossentropy(from_logits=True), keras.optimizers.Adam(schedule))
    return model, BINARY, None


def right_augmented_training_data():
    import tensorflow as tf

    train = dataset(*RAW).map(lambda x, y: (tf.image.random_flip_left_right(x), y))
    return compiled(small_network()), train, dataset(*RAW_VAL)


def right_take_and_skip():
    import tensorflow as tf

    whole = tf.data.Dataset.from_tensor_slices(RAW).shuffle(90, seed=3, reshuffle_each_iteration=False)
    train, val = whole.skip(30).shuffle(60).batch(8), whole.take(30).batch(8)
    return compiled(small_network()), train, val


def right_validation_that_shuffles_within_itself():
    import tensorflow as tf

    val = tf.data.Dataset.from_tensor_slices(RAW_VAL).shuffle(30).batch(8)
    return compiled(small_network()), dataset(*RAW), val


def right_not_batched():
    import tensorflow as tf

    return compiled(small_network()), tf.data.Dataset.from_tensor_slices(RAW), None


def right_images_without_a_channel_axis():
    gray = RAW[0].mean(-1)
    return compiled(small_network(channels=1)), (gray, Y[:, None]), (RAW_VAL[0].mean(-1), VY[:, None])


def right_weighted_samples():
    return compiled(small_network("sigmoid", 1), "binary_crossentropy"), (RAW[0], Y > 0, np.ones(90)), None


def right_endless_dataset():
    import tensorflow as tf

    endless = tf.data.Dataset.from_tensor_slices((*RAW, np.ones(90))).shuffle(90).repeat().batch(16)
    return compiled(small_network()), endless, dataset(*RAW_VAL)


def right_hinge():
    return compiled(small_network(None, 1), "hinge"), (RAW[0], np.where(Y > 0, 1.0, -1.0)), None


def right_files_of_keras(picture_folder):
    import keras

    def load(side, **options):
        return keras.utils.image_dataset_from_directory(
            picture_folder / side, image_size=(SIZE, SIZE), batch_size=16, verbose=False, **options
        )

    return compiled(small_network()), load("train", seed=1), load("val", shuffle=False)


def right_folder(picture_folder):
    return compiled(small_network()), picture_folder, None


def right_folder_of_preprocessed_pixels(picture_folder):
    """The files hold 0–255, the model wants [-1, 1]: what lies between is not known."""
    import keras

    base = mobilenet()
    base.trainable = False
    model = keras.Sequential([base, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(CLASSES, "softmax")])
    return compiled(model), picture_folder, None


def right_small_digits():
    from sklearn.datasets import load_digits

    raw = load_digits()
    x = np.repeat(np.repeat(raw.images, 4, 1), 4, 2)[..., None] / 16
    model = compiled(small_network(units=10, rescale=False, channels=1))
    return model, (x[:1000], raw.target[:1000]), (x[1000:], raw.target[1000:])


def right_not_compiled():
    model = keras_guide(mobilenet())
    import keras

    return keras.Model(model.inputs, model.outputs), None, None


def right_not_built():
    import keras

    model = keras.Sequential([keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(CLASSES)])
    return compiled(model, keras.losses.SparseCategoricalCrossentropy(from_logits=True)), RAW, RAW_VAL


def right_frozen_before_the_first_fit():
    """With TensorFlow a flag counts up to the first step: nothing is lost here, and nothing is said."""
    base = mobilenet()
    model = compiled(recipe(base, hidden=()), "sparse_categorical_crossentropy")
    base.trainable = True
    freeze_batch_norm(base)
    base.trainable = False
    return model, PLUS_MINUS, None


def right_saved_and_loaded(tmp_path):
    import keras

    base = mobilenet()
    base.trainable = False
    model = step(compiled(recipe(base, hidden=()), "sparse_categorical_crossentropy"), *PLUS_MINUS)
    model.save(tmp_path / "model.keras")
    return keras.models.load_model(tmp_path / "model.keras"), PLUS_MINUS, None


def right_loaded_and_frozen(tmp_path):
    import keras

    model = step(compiled(small_network()), *RAW)
    model.save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    model.layers[1].trainable = False  # counts, because the first step is yet to be traced
    return model, RAW, None


def right_flat_with_a_hidden_layer():
    """Most tutorials: Model(base.input, head(base.output)), the base frozen, Adam as it comes."""
    import keras
    from keras import layers

    base = mobilenet()
    base.trainable = False
    x = layers.Conv2D(8, 1, activation="relu")(base.output)
    x = layers.Dense(16, activation="relu")(layers.Flatten()(x))
    return compiled(keras.Model(base.input, layers.Dense(CLASSES, "softmax")(x))), PLUS_MINUS, None


def right_sequential_layer_by_layer():
    """for layer in base.layers: model.add(layer)"""
    import keras

    base = mobilenet()
    base.trainable = False
    head = [keras.layers.Flatten(), keras.layers.Dense(CLASSES, activation="softmax")]
    return compiled(keras.Sequential([keras.Input((SIZE, SIZE, 3)), *base.layers[1:], *head])), PLUS_MINUS, None


def right_own_network_with_the_names_of_vgg16():
    import keras
    from keras import layers

    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), layers.Rescaling(1 / 255)])
    for i in (1, 2):
        model.add(layers.Conv2D(64, 3, 2, activation="relu", name=f"block1_conv{i}"))
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(CLASSES, activation="softmax"))
    return compiled(model), RAW, None


def right_random_weights_want_no_range():
    """MobileNetV2 with weights=None may be given any pixels …"""
    import keras

    base = mobilenet(pretrained=False)
    model = keras.Sequential([base, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(CLASSES, "softmax")])
    return compiled(model), (X / np.float32(255), Y), None


def right_random_weights_that_were_trained():
    """… after it was trained as well."""
    model, (x, y), _ = right_random_weights_want_no_range()
    return step(model, x, y), (x, y), None


def right_bright_images():
    return keras_guide(mobilenet()), (RAW[0] * 0.45 + 140, BINARY[1]), None


def right_embedding():
    """A network that gives features has any width."""
    import keras

    return keras.Sequential([mobilenet(), keras.layers.GlobalAveragePooling2D()]), PLUS_MINUS, None


def right_sorted_dataset():
    """Of a dataset only the first images are read, which need not show every class."""
    x = photos(600, 3, size=8)[0].astype("float32")
    return compiled(tiny_network(10)), dataset(x, np.sort(np.arange(600) % 10)), None


def right_shuffled_validation_files():
    """What image_dataset_from_directory gives of 1,200 files; by default it shuffles the validation images, too."""
    import tensorflow as tf

    x, y = photos(1200, 3, size=8)
    val = tf.data.Dataset.from_tensor_slices((x[40:].astype("float32"), y[40:])).shuffle(1160).batch(32)
    val.class_names, val.file_paths = list("abc"), [f"val/{'abc'[label]}/{i}.png" for i, label in enumerate(y[40:])]
    return compiled(tiny_network(CLASSES)), dataset(x[:40].astype("float32"), y[:40]), val


def right_gray_batches_without_a_channel_axis():
    return compiled(small_network(channels=1)), dataset(RAW[0].mean(-1), Y), dataset(RAW_VAL[0].mean(-1), VY)


def right_separable_from_the_start():
    import keras
    from keras import layers

    first = [keras.Input((SIZE, SIZE, 3)), layers.Rescaling(1 / 255), layers.SeparableConv2D(4, 3)]
    last = [layers.GlobalAveragePooling2D(), layers.Dense(CLASSES, activation="softmax")]
    return compiled(keras.Sequential([*first, *last])), RAW, None


def right_subclassed_with_parts_of_its_own():
    """A layer that is never called, one that counts with a tf.Variable, and a step that trains the head only."""
    import keras
    import tensorflow as tf

    class Part(keras.Model):
        def __init__(self):
            super().__init__()
            self.unused = keras.layers.Conv2D(3, 3)
            self.conv = keras.layers.Conv2D(3, 3)
            self.pool = keras.layers.GlobalAveragePooling2D()
            self.head = keras.layers.Dense(CLASSES, activation="softmax")
            self.calls = tf.Variable(0, trainable=False)

        def call(self, x):
            self.calls.assign_add(1)
            return self.head(self.pool(self.conv(x / 255)))

        def train_step(self, batch):
            with tf.GradientTape() as tape:
                loss = self.compute_loss(batch[0], batch[1], self(batch[0]))
            weights = self.head.trainable_variables
            self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
            return {"loss": loss}

    model = Part()
    model(RAW[0][:1])
    compiled(model)
    model.train_step((RAW[0][:8], Y[:8]))
    return model, RAW, None


def right_monte_carlo_dropout():
    import keras

    class Uncertain(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv = keras.layers.Conv2D(4, 3)
            self.pool, self.drop = keras.layers.GlobalAveragePooling2D(), keras.layers.Dropout(0.5)
            self.head = keras.layers.Dense(CLASSES, activation="softmax")

        def call(self, x):
            return self.head(self.drop(self.pool(self.conv(x / 255)), training=True))

    model = Uncertain()
    model(RAW[0][:1])
    return compiled(model), RAW, None


def right_hard_sigmoid():
    return compiled(small_network("hard_sigmoid", 1), "binary_crossentropy"), BINARY, None


def right_softmax_of_tensorflow():
    import tensorflow as tf

    return compiled(small_network(tf.nn.softmax)), RAW, None


def right_labels_that_the_loss_passes_over():
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    return compiled(small_network(last=None), loss), (RAW[0], np.where(np.arange(90) % 7, Y, -1)), None


def right_two_columns_and_binary_cross_entropy():
    """flow_from_directory(class_mode="categorical") with two classes."""
    return compiled(small_network("softmax", 2), "binary_crossentropy"), (RAW[0], np.eye(2)[Y % 2]), None


def right_amounts_and_a_loss_of_ones_own():
    def pinball(y, outputs):
        return abs(y - outputs)

    return compiled(small_network(None, 1), pinball), (RAW[0], np.arange(90) ** 2 % 91), None


def right_segmentation():
    import keras
    from keras import layers

    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, layers.Conv2D(CLASSES, 1, activation="softmax")(x))
    return compiled(model), (RAW[0], X[..., 0] // 86), None


def right_vision_transformer():
    """Its single convolution cuts the patches; what follows is no head."""
    import keras
    from keras import layers

    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Reshape((16, 16))(layers.Conv2D(16, 8, 8)(layers.Rescaling(1 / 255)(inputs)))
    x = layers.Dense(16)(layers.Dense(30_000, activation="gelu")(layers.LayerNormalization()(x)))
    model = keras.Model(inputs, layers.Dense(CLASSES, activation="softmax")(layers.GlobalAveragePooling1D()(x)))
    return compiled(model), RAW, None


def right_adadelta():
    """Its default rate of 0.001 moves next to nothing."""
    import keras

    model, *rest = right_warm_up()
    compiled(model, keras.losses.BinaryCrossentropy(from_logits=True), keras.optimizers.Adadelta())
    return model, *rest


def right_lora():
    base = mobilenet()
    base.trainable = False
    base.get_layer("Conv1").enable_lora(2)
    return recipe(base, hidden=()), (PLUS_MINUS[0], ONE_HOT), None


def right_imbalance_with_weights():
    return compiled(small_network()), (RAW[0], np.repeat([0, 1, 2], (80, 6, 4)), np.ones(90)), None


def right_frozen_as_a_whole_after_training():
    """The discriminator of a GAN, or the teacher of a distillation: nobody is going to fit it."""
    model = compiled(small_network(), optimizer="sgd")
    model.fit(*RAW, verbose=0)
    model.trainable = False
    return model, RAW, None


def right_loaded_from_h5(tmp_path):
    import keras

    model = compiled(tiny_network(CLASSES, SIZE))
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.h5")
    return keras.models.load_model(tmp_path / "model.h5"), RAW, None


RIGHT = [value for name, value in list(globals().items()) if name.startswith("right_")]


@pytest.mark.parametrize("setup", RIGHT, ids=lambda setup: setup.__name__.removeprefix("right_"))
def test_a_right_set_up_raises_nothing_above_a_note(setup, request):
    names = setup.__code__.co_varnames[: setup.__code__.co_argcount]
    found = diagnose.diagnose(*setup(*(request.getfixturevalue(name) for name in names)))
    assert not found and all(finding.level == "note" for finding in found), f"\n{found}"
    blind = [finding.what for finding in found if "could not be" in finding.what]
    assert not blind or setup is right_not_built, f"\n{found}"


# ---------------------------------------------------------------------------------------------------- faulty set-ups


def wrong(detector, level="error", words=""):
    """Marks a set-up: which detector has to speak, how loudly, and a few of its words."""

    def mark(function):
        function.expected = detector, level, words
        return function

    return mark


@wrong("_batch_norm_that_moves", "warning", "called with training=False")
def wrong_keras_guide_as_it_is():
    import keras

    base = mobilenet()
    model = keras_guide(base)
    base.trainable = True
    compiled(model, keras.losses.BinaryCrossentropy(from_logits=True), keras.optimizers.Adam(1e-5))
    return model, BINARY, None


@wrong("_batch_norm_that_moves", "warning", "called with training=False")
def wrong_tutorial_as_it_is():
    import keras

    base = mobilenet()
    model = tutorial(base)
    base.trainable = True
    for layer in base.layers[:4]:
        layer.trainable = False
    compiled(model, keras.losses.BinaryCrossentropy(), keras.optimizers.RMSprop(1e-5))
    return model, dataset(*BINARY), None


@wrong("_batch_norm_that_moves", "warning", "their weights do not train, but the layers themselves are trainable")
def wrong_frozen_weight_by_weight():
    import keras

    base = mobilenet()
    for weight in base.variables:
        weight.trainable = False
    model = keras.Sequential(
        [base, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(CLASSES, activation="softmax")]
    )
    return compiled(model, "sparse_categorical_crossentropy"), PLUS_MINUS, None


@wrong("_batch_norm_that_moves", "warning", "has trainable = False, but layers inside it do not")
def wrong_norm_without_weights_under_a_frozen_base():
    import keras

    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(4, 3)(inputs)
    x = keras.layers.BatchNormalization(center=False, scale=False, name="norm")(x)
    base = keras.Model(inputs, x, name="base")
    model = recipe(base, hidden=())
    base.get_layer("norm").trainable = True
    return compiled(model), PLUS_MINUS, None


@wrong("_batch_norm_that_moves", "warning", "called with training=False")
def wrong_keras_guide_without_data():
    return *wrong_keras_guide_as_it_is()[:1], None, None


@wrong("_flags_changed_since_compile", words="unfrozen after")
def wrong_unfrozen_without_compiling():
    base = mobilenet()
    model = keras_guide(base)
    model.fit(*BINARY, verbose=0)
    base.trainable = True
    freeze_batch_norm(base)
    return model, BINARY, None


@wrong("_flags_changed_since_compile", words="frozen after")
def wrong_frozen_without_compiling():
    model = compiled(small_network(), optimizer="sgd")
    model.fit(*RAW, verbose=0)
    model.layers[1].trainable = False
    return model, RAW, None


@wrong("_flags_changed_since_compile", words="unfrozen after")
def wrong_same_optimizer_again():
    import keras

    base, adam = mobilenet(), keras.optimizers.Adam(1e-5)
    model = compiled(recipe(base, hidden=()), optimizer=adam)
    model.fit(*PLUS_MINUS, verbose=0)
    base.trainable = True
    freeze_batch_norm(base)
    return compiled(model, optimizer=adam), PLUS_MINUS, None


@wrong("_logits_or_probabilities", "warning", "ends in softmax")
def wrong_softmax_and_from_logits():
    import keras

    return compiled(small_network(), keras.losses.SparseCategoricalCrossentropy(from_logits=True)), RAW, None


@wrong("_logits_or_probabilities", "warning", "unless TensorFlow finds it")
def wrong_softmax_and_from_logits_where_all_outputs_are_equal():
    """Twice or once: the loss is the same, so it is not said which."""
    model, *rest = wrong_softmax_and_from_logits()
    model.layers[-1].set_weights([0 * weight for weight in model.layers[-1].get_weights()])
    return model, *rest


@wrong("_logits_or_probabilities", "error", "ends in softmax")
def wrong_softmax_behind_a_reshape():
    import keras

    model = small_network()
    model.add(keras.layers.Reshape((CLASSES,)))
    return compiled(model, keras.losses.SparseCategoricalCrossentropy(from_logits=True)), RAW, None


@wrong("_logits_or_probabilities", "warning", "ends in sigmoid")
def wrong_sigmoid_and_from_logits():
    import keras

    model = compiled(small_network("sigmoid", 1), keras.losses.BinaryCrossentropy(from_logits=True))
    return model, BINARY, None


@wrong("_logits_or_probabilities", "warning", "ends in softmax")
def wrong_softmax_and_from_logits_subclassed():
    import keras

    base = mobilenet()
    base.trainable = False
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return compiled(subclassed(base), loss), RAW, None


@wrong("_logits_or_probabilities", words="gives logits")
def wrong_logits_without_from_logits():
    return compiled(small_network(last=None)), RAW, None


@wrong("_logits_or_probabilities", words="gives logits")
def wrong_one_logit_without_from_logits():
    return compiled(keras_guide(mobilenet()), "binary_crossentropy"), BINARY, None


@wrong("_loss_against_labels", words="labels are one-hot rows")
def wrong_sparse_loss_on_one_hot():
    return compiled(small_network()), (RAW[0], ONE_HOT), None


@wrong("_loss_against_labels", words="labels are class numbers")
def wrong_categorical_loss_on_numbers():
    return compiled(small_network(), "categorical_crossentropy"), dataset(*RAW), None


@wrong("_loss_against_labels", words="labels 0 to 2")
def wrong_binary_loss_on_three_classes():
    return compiled(small_network("sigmoid", 1), "binary_crossentropy"), RAW, None


@wrong("_loss_against_labels", "warning", "softmax over several classes")
def wrong_binary_loss_on_softmax():
    return compiled(small_network(), "binary_crossentropy"), (RAW[0], ONE_HOT), None


@wrong("_loss_against_labels", words="class numbers and 10 outputs")
def wrong_squares_on_class_numbers():
    model = models.classifier(backbones.load("pocket_vgg"), 10)
    models.freeze(model)
    return compiled(model, "mse"), digits(), None


@wrong("_loss_against_labels", words="labels are amounts")
def wrong_classes_of_amounts():
    model = models.classifier(backbones.load("pocket_vgg"), 10)
    models.freeze(model)
    compiled(model, training_loss(), "adam")
    return model, data.load("tilted_digits"), None


def training_loss():
    import keras

    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@wrong("_width_of_the_last_layer", words="5 outputs, the data have 10 classes")
def wrong_too_few_outputs():
    model = models.classifier(backbones.load("pocket_vgg"), 5)
    models.freeze(model)
    return compiled(model, training_loss()), digits(), None


@wrong("_width_of_the_last_layer", words="number the classes from 0")
def wrong_labels_from_one():
    return compiled(small_network()), (RAW[0], Y + 1), None


@wrong("_width_of_the_last_layer", "warning", "1,000 outputs")
def wrong_classifier_of_the_source_task():
    return compiled(small_network(units=1000)), RAW, None


@wrong("_softmax_over_one_output", words="softmax over a single output")
def wrong_softmax_over_one():
    return compiled(small_network("softmax", 1), "binary_crossentropy"), BINARY, None


@wrong("_softmax_over_one_output", words="softmax over a single output")
def wrong_softmax_over_one_in_a_class():
    import keras

    class Single(keras.Model):
        def __init__(self):
            super().__init__()
            self.pool = keras.layers.GlobalAveragePooling2D()
            self.head = keras.layers.Dense(1, activation="softmax")

        def call(self, x):
            return self.head(self.pool(x / 255))

    model = Single()
    model(RAW[0][:1])
    return compiled(model, "binary_crossentropy"), BINARY, None


@wrong("_number_of_targets", words="1 output for 2 targets")
def wrong_number_of_targets():
    y = np.stack([Y / 7, Y / 3], 1)
    return compiled(small_network(None, 1), "mse"), (RAW[0], y), None


@wrong("_width_of_the_last_layer", words="1 output, the data have 3 classes")
def wrong_one_output_for_a_folder_of_three(picture_folder):
    return compiled(small_network("sigmoid", 1), "binary_crossentropy"), picture_folder, None


@wrong("_shape_of_images", words="the model takes (32, 32, 3)")
def wrong_shape():
    return compiled(small_network()), photos(20, 5, size=28), None


@wrong("_range_of_pixels", words="not preprocessed")
def wrong_raw_pixels():
    return keras_guide(mobilenet(), rescale=False), BINARY, None


@wrong("_range_of_pixels", words="to [0, 1]")
def wrong_unit_range_for_mobilenet():
    return keras_guide(mobilenet(), rescale=False), (BINARY[0] / 255, BINARY[1]), None


@wrong("_range_of_pixels", words="rescaled twice")
def wrong_rescaled_twice():
    """ImageDataGenerator(rescale=1/255), and a model that rescales."""
    return tutorial(mobilenet()), dataset(BINARY[0] / 255, BINARY[1]), None


@wrong("_range_of_pixels", "warning", "rescaled twice")
def wrong_rescaled_twice_from_scratch():
    return compiled(small_network()), (X / np.float32(255), Y), None


@wrong("_range_of_pixels", words="scaled down, which this network does not want")
def wrong_unit_range_for_vgg16():
    return recipe(vgg()), (X / np.float32(255), ONE_HOT), None


@wrong("_range_of_pixels", words="not preprocessed")
def wrong_raw_pixels_for_vgg16():
    return recipe(vgg()), (RAW[0], ONE_HOT), None


@wrong("_range_of_pixels", words="rescaled twice")
def wrong_preprocessed_twice_subclassed():
    base = mobilenet()
    base.trainable = False
    return subclassed(base, call=lambda x: x / 255), RAW, None


@wrong("_range_of_pixels", words="rescaled twice")
def wrong_scaled_pixels_for_a_backbone_of_ours():
    model = models.classifier(backbones.load("pocket_vgg"), 10)
    models.freeze(model)
    task = digits()
    return model, (task.train.images() / np.float32(255), task.train.labels), None


@wrong("_another_range_in_validation", words="between 0 and 1, validation pixels between 0 and 255")
def wrong_rescaling_of_the_training_data_only():
    """ImageDataGenerator(rescale=1/255) for the one, ImageDataGenerator() for the other."""
    return compiled(small_network(rescale=False)), (X / np.float32(255), Y), RAW_VAL


@wrong("_learning_rate", "warning", "0.001")
def wrong_rate_of_the_frozen_phase():
    base = mobilenet()
    model = keras_guide(base)
    for layer in base.layers:
        layer.trainable = True
    base.trainable = True
    freeze_batch_norm(base)
    for layer in base.layers[:4]:
        layer.trainable = False
    import keras

    compiled(model, keras.losses.BinaryCrossentropy(from_logits=True), keras.optimizers.Adam())
    return model, BINARY, None


@wrong("_learning_rate", "warning", "0.01")
def wrong_rate_at_the_top_of_a_schedule():
    import keras

    model, *rest = right_warm_up()
    schedule = keras.optimizers.schedules.CosineDecay(0.0, 1000, warmup_target=1e-2, warmup_steps=100)
    compiled(model, keras.losses.BinaryCrossentropy(from_logits=True), keras.optimizers.Adam(schedule))
    return model, *rest


@wrong("_learning_rate", "warning", "unfrozen pretrained layers")
def wrong_rate_for_a_flat_model():
    import keras

    base = mobilenet()
    freeze_batch_norm(base)
    outputs = keras.layers.Dense(CLASSES, "softmax")(keras.layers.GlobalAveragePooling2D()(base.output))
    return compiled(keras.Model(base.input, outputs)), PLUS_MINUS, None


@wrong("_size_of_the_head", "warning", "parameters for 90 images")
def wrong_head_that_a_class_makes_before_its_base():
    import keras

    class Large(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = keras.layers.Dense(1000, activation="relu")
            self.head = keras.layers.Dense(CLASSES, activation="softmax")
            self.base, self.flatten = mobilenet(), keras.layers.Flatten()
            self.base.trainable = False

        def call(self, x):
            return self.head(self.hidden(self.flatten(self.base(x))))

    model = Large()
    model(PLUS_MINUS[0][:1])
    return compiled(model), PLUS_MINUS, None


@wrong("_size_of_the_head", "warning", "parameters for 90 images")
def wrong_head_of_the_recipe_for_few_images():
    import keras

    x = keras.applications.vgg16.preprocess_input(RAW[0].copy())
    return recipe(vgg(), hidden=(16384, 64)), (x, ONE_HOT), None


@wrong("_validation_that_reshuffles")
def wrong_take_and_skip_of_a_shuffled_dataset():
    """The TensorFlow tutorial: a test set taken from a validation set that shuffles."""
    import tensorflow as tf

    whole = tf.data.Dataset.from_tensor_slices(RAW).shuffle(90).batch(10)
    return compiled(small_network()), whole.skip(3), whole.take(3)


@wrong("_copies_across_sides", words="reshuffle_each_iteration=False")
def wrong_take_and_skip_of_more_images_than_are_read():
    import tensorflow as tf

    x, y = photos(900, 6)
    whole = tf.data.Dataset.from_tensor_slices((x.astype("float32"), y)).shuffle(900).batch(30)
    return compiled(small_network()), whole.skip(10), whole.take(10)


@wrong("_copies_across_sides", words="30 validation images also in the training data")
def wrong_validating_on_what_was_trained():
    return compiled(small_network()), RAW, (RAW[0][:30], Y[:30])


@wrong("_copies_across_sides", words="1 validation image also in the training data")
def wrong_one_file_twice(picture_folder, tmp_path):
    import shutil

    folder = tmp_path / "photos"
    shutil.copytree(picture_folder, folder)
    shutil.copy(folder / "train" / "bees" / "2.png", folder / "val" / "bees" / "copy of 2.png")
    return compiled(small_network()), folder, None


@wrong("_near_copies_across_sides", "warning", "almost equal")
def wrong_recompressed_copies():
    import io

    from PIL import Image

    def jpeg(image):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=75)
        return np.asarray(Image.open(file))

    val = np.concatenate([VX[:20], [jpeg(image) for image in X[:5]]]).astype("float32")
    return compiled(small_network()), RAW, (val, np.concatenate([VY[:20], Y[:5]]))


@wrong("_random_at_evaluation", "warning", "random_flip")
def wrong_augmentation_that_is_always_on():
    import keras

    base = mobilenet()
    base.trainable = False
    return subclassed(base, augmentation=keras.layers.RandomFlip(name="random_flip")), RAW, None


@wrong("_random_at_evaluation", "warning", "Random")
def wrong_tensorflow_augmentation_in_a_lambda():
    import keras
    import tensorflow as tf

    model = small_network()
    flip = keras.layers.Lambda(lambda x: tf.image.random_flip_left_right(x))
    return compiled(keras.Sequential([keras.Input((SIZE, SIZE, 3)), flip, model])), RAW, None


@wrong("_validation_that_changes", "warning", "change from pass to pass")
def wrong_augmented_validation():
    import keras

    augmentation = keras.Sequential([keras.layers.RandomTranslation(0.2, 0.2), keras.layers.RandomFlip()])
    val = dataset(*RAW_VAL).map(lambda x, y: (augmentation(x, training=True), y))
    return compiled(small_network()), dataset(*RAW), val


@wrong("_imbalance", "warning", "classes of 2 to 60 images")
def wrong_balance():
    y = np.where(np.arange(90) < 60, 0, 1)
    y[-2:] = 2
    return compiled(small_network()), (RAW[0], y), None


@wrong("_empty_classes", "warning", "1 class without an image")
def wrong_empty_class():
    return compiled(small_network(units=4)), (RAW[0], np.where(Y == 1, 3, Y)), None


@wrong("_empty_classes", "warning", "gadgets")
def wrong_empty_folder(picture_folder, tmp_path):
    import shutil

    folder = tmp_path / "photos"
    shutil.copytree(picture_folder, folder)
    (folder / "train" / "gadgets").mkdir()
    (folder / "val" / "gadgets").mkdir()
    return compiled(small_network(units=4)), folder, None


@wrong("_different_classes", words="gizmos (training data), gadgets (validation data)")
def wrong_folders_of_different_classes(picture_folder, tmp_path):
    import shutil

    folder = tmp_path / "photos"
    shutil.copytree(picture_folder, folder)
    (folder / "val" / "gizmos").rename(folder / "val" / "gadgets")
    return compiled(small_network()), folder, None


@wrong("_imbalance", "warning", "classes of 200 to 20,600 images")
def wrong_balance_of_more_images_than_are_hashed():
    x = np.random.default_rng(0).integers(0, 256, (21_000, 8, 8, 3), np.uint8)
    return compiled(tiny_network(CLASSES)), (x, np.repeat([0, 1, 2], (20_600, 200, 200))), None


@wrong("_splits_taken_for_classes", "warning", "called train and val")
def wrong_level_of_the_folder(picture_folder):
    import keras

    files = keras.utils.image_dataset_from_directory(picture_folder, image_size=(SIZE, SIZE), verbose=False)
    return compiled(small_network(units=2)), files, None


@wrong("_batch_norm_of_the_unfrozen_part", "note", "will adapt to the new images")
def wrong_norms_unfrozen_with_the_last_layers():
    return right_last_layers_unfrozen_under_a_frozen_base()


@wrong("_model_could_not_be_run", "note", "could not be run")
def wrong_model_without_weights():
    return right_not_built()


@wrong("_classes_that_imagenet_knows", "note", "bees (bee)")
def wrong_classes_of_the_source(picture_folder):
    return *right_folder_of_preprocessed_pixels(picture_folder)[:2], None


@wrong("_copies_within_a_folder", "note", "1 file with the same content")
def wrong_copies_in_one_folder(picture_folder, tmp_path):
    import shutil

    folder = tmp_path / "photos"
    shutil.copytree(picture_folder / "train", folder)
    shutil.copy(folder / "bees" / "2.png", folder / "bees" / "copy of 2.png")
    return compiled(small_network()), folder, None


WRONG = [value for name, value in list(globals().items()) if name.startswith("wrong_")]


@pytest.mark.parametrize("setup", WRONG, ids=lambda setup: setup.__name__.removeprefix("wrong_"))
def test_the_fault_of_a_wrong_set_up_is_named(setup, request):
    names = setup.__code__.co_varnames[: setup.__code__.co_argcount]
    detector, level, words = setup.expected
    model, *rest = setup(*(request.getfixturevalue(name) for name in names))
    case = inspection.Case(model, *rest)
    own, found = list(getattr(diagnose, detector)(case)), diagnose._examine(case)
    assert case.run is not None or not case.built or not case.fits, case.run_problem
    assert [finding.level for finding in own] == [level], f"\n{found}"
    assert words in str(own[0]).replace("\n" + " " * 16, " ").replace("\n" + " " * 9, " "), f"\n{own[0]}"
    assert own[0].what in [finding.what for finding in found]
    louder = [finding for finding in found if finding.level == "error" and finding.what != own[0].what]
    assert level != "error" or not louder, f"\n{found}"  # one fault, one error


def test_every_detector_has_a_wrong_set_up():
    assert {detector.__name__ for detector in diagnose.DETECTORS} == {f.expected[0] for f in WRONG}


# --------------------------------------------------------------------------------------- nothing is changed by looking


def fingerprint(model, config=True):
    """Everything that a look could change, as text and hashes."""
    import keras

    def digest(variables):
        arrays = [keras.ops.convert_to_numpy(variable) for variable in variables]
        return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()

    layers = [model, *model.layers, *inspection.leaves(model)]
    return {
        "weights": digest(model.variables),
        "optimizer": digest(model.optimizer.variables),
        "metrics": digest(variable for metric in model.metrics for variable in metric.variables),
        "flags": [layer.trainable for layer in layers],
        "variables": [variable.trainable for variable in model.variables],
        "functions": [id(getattr(model, f"{name}_function")) for name in ("train", "test", "predict")],
        "compiled": repr(model.get_compile_config()),
        "built": [layer.built for layer in layers],
        "config": repr(model.get_config()) if config else None,
        "python": hashlib.sha256(pickle.dumps(random.getstate())).hexdigest(),
        "numpy": hashlib.sha256(pickle.dumps(np.random.get_state())).hexdigest(),  # noqa: NPY002
        "attributes": sorted(vars(model)),
    }


@pytest.fixture(scope="module")
def used_models():
    """A model before its first step, and one after it, with an optimizer that has a state."""
    base = mobilenet()
    fresh, trained = tutorial(base), tutorial(mobilenet())
    base.trainable = True
    trained.fit(*BINARY, verbose=0)
    trained.predict(BINARY[0], verbose=0)
    return fresh, trained


@pytest.mark.parametrize("kind", ["arrays", "dataset", "folder", "nothing"])
def test_a_look_changes_neither_model_nor_files(picture_folder, used_models, kind):
    import tensorflow as tf

    data, validation = {
        "arrays": (BINARY, BINARY),
        "dataset": (dataset(*BINARY).shuffle(3), dataset(*BINARY)),
        "folder": (picture_folder, None),
        "nothing": (None, None),
    }[kind]

    def files():
        paths = sorted(path for path in picture_folder.rglob("*") if path.is_file())
        return [(path, path.read_bytes(), path.stat().st_mtime_ns) for path in paths]

    x, before_files = BINARY[0].copy(), files()
    for model in used_models:
        tf.random.set_seed(5)
        expected = tf.random.uniform((3,)).numpy()
        tf.random.set_seed(5)
        before = fingerprint(model)
        assert diagnose.diagnose(model, data, validation) is not None
        assert fingerprint(model) == before
        assert (tf.random.uniform((3,)).numpy() == expected).all()
    assert files() == before_files
    assert (x == BINARY[0]).all()


def failing_data(kind):
    """Data that raise while they are looked at."""
    import tensorflow as tf

    def fail(i):
        np.random.random(), random.random()  # noqa: NPY002
        raise RuntimeError("this file is broken")

    if kind == "a dataset that breaks":
        rows = tf.data.Dataset.range(4).map(lambda i: (tf.numpy_function(fail, [i], tf.float32), i))
        return rows.map(lambda x, y: (tf.ensure_shape(x, (SIZE, SIZE, 3)), y)).batch(2)
    return {"arrays that do not fit": (X, Y[:-1]), "no folder": "no/such/folder", "no data": 7}[kind]


@pytest.mark.parametrize("kind", ["a dataset that breaks", "arrays that do not fit", "no folder", "no data"])
def test_nothing_is_changed_where_a_look_ends_in_an_error(used_models, kind):
    model = used_models[1]
    before = fingerprint(model)
    with pytest.raises(Exception):  # noqa: B017, whatever the data raise
        diagnose.diagnose(model, failing_data(kind))
    assert fingerprint(model) == before


def test_nothing_is_changed_by_a_model_that_fails_half_way():
    """After it has written to a weight, to a variable of TensorFlow's and to the states of Python and NumPy."""
    import keras
    import tensorflow as tf

    class Half(keras.Model):
        def __init__(self):
            super().__init__()
            self.norm, self.head = keras.layers.BatchNormalization(), keras.layers.Dense(CLASSES)
            self.pool, self.calls = keras.layers.GlobalAveragePooling2D(), tf.Variable(0)
            self.fails_with = None

        def call(self, x, training=None):
            self.calls.assign_add(1)
            np.random.random(), random.random()  # noqa: NPY002
            y = self.head(self.pool(self.norm(x, training=True)))
            if training is self.fails_with:
                raise RuntimeError("half way")
            return y

    model = Half()
    model(RAW[0][:1], training=False)
    compiled(model, training_loss(), "adam")
    for model.fails_with in (False, True, "never"):
        before, calls = fingerprint(model, config=False), int(model.calls)
        found = diagnose.diagnose(model, RAW)
        assert ("half way" in str(found)) == (model.fails_with != "never")
        assert fingerprint(model, config=False) == before and int(model.calls) == calls


def test_training_goes_on_as_if_nobody_had_looked():
    import keras

    def trained(look):
        keras.utils.set_random_seed(7)
        model = tutorial(mobilenet())
        model.fit(*BINARY, epochs=1, verbose=0)
        if look:
            diagnose.diagnose(model, BINARY)
        model.fit(*BINARY, epochs=1, verbose=0)
        return model.get_weights()

    assert all((a == b).all() for a, b in zip(trained(False), trained(True)))


def test_a_layer_that_draws_from_python_and_numpy_leaves_them_alone():
    import keras

    class Noisy(keras.layers.Layer):
        def call(self, x):
            return x + random.random() * 1e-3 + np.random.random() * 1e-3  # noqa: NPY002

    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), Noisy(), small_network()])
    states = random.getstate(), pickle.dumps(np.random.get_state())  # noqa: NPY002
    diagnose.diagnose(compiled(model), RAW)
    assert states == (random.getstate(), pickle.dumps(np.random.get_state()))  # noqa: NPY002


# ------------------------------------------------------------------------------- what it says, against what Keras does


def batch_norm_moves(model, x, y):
    """The BatchNorm layers that a step of fit really moves."""
    norms = [layer for layer in inspection.leaves(model) if hasattr(layer, "moving_mean")]
    before = [np.array(norm.moving_mean) for norm in norms]
    step(model, x[:32], y[:32])
    return {norm.name for norm, mean in zip(norms, before) if (np.array(norm.moving_mean) != mean).any()}


@pytest.mark.parametrize(
    "setup",
    [
        wrong_keras_guide_as_it_is,
        wrong_frozen_weight_by_weight,
        wrong_norm_without_weights_under_a_frozen_base,
        right_subclassed_unfrozen,
        right_flat_functional,
        right_keras_guide_fine_tuned,
        right_keras_guide,
    ],
)
def test_batch_norm_moves_where_it_is_said_to(setup):
    model, examples, _ = setup()
    x, y = (
        examples
        if isinstance(examples, tuple)
        else (np.concatenate(part) for part in zip(*examples.as_numpy_iterator()))
    )
    said = set(inspection.Case(model, (x, y), None).run.moved)
    assert said == batch_norm_moves(model, x, y)


def test_the_size_of_the_move_is_that_of_fit():
    model, (x, y), _ = wrong_keras_guide_as_it_is()
    norm, shift = inspection.Case(model, (x[:32], y[:32]), None).run.moved["bn_Conv1"]
    mean, variance = np.array(norm.moving_mean), np.array(norm.moving_variance)
    step(model, x[:32], y[:32])
    moved = np.abs(np.array(norm.moving_mean) - mean) / np.sqrt(variance + norm.epsilon)
    assert shift == pytest.approx(moved.mean(), rel=1e-3)


@pytest.mark.parametrize("setup", [wrong_unfrozen_without_compiling, wrong_frozen_without_compiling])
def test_flags_that_are_said_to_be_ignored_are_ignored(setup):
    model, (x, y), _ = setup()
    flags = {weight.path: weight.trainable for weight in model.variables if "seed" not in weight.path}
    before = {weight.path: np.array(weight) for weight in model.variables}
    model.fit(x, y, verbose=0)
    kernels = [path for path in flags if path.endswith("kernel")]
    moved = {weight.path for weight in model.variables if (np.array(weight) != before[weight.path]).any()}
    assert any(flags[path] != (path in moved) for path in kernels)


@pytest.mark.parametrize(
    "setup", [wrong_softmax_and_from_logits, wrong_softmax_behind_a_reshape, wrong_sigmoid_and_from_logits]
)
def test_the_loss_that_is_named_is_that_of_evaluate(setup):
    model, (x, y), _ = setup()
    case = inspection.Case(model, (x[:60], y[:60]), None)
    loss = model.evaluate(x[:60], y[:60], verbose=0)[0]
    assert case.run.loss == pytest.approx(loss, abs=1e-4)
    (finding,) = diagnose._logits_or_probabilities(case)
    if finding.level == "warning":
        alone = float(model.loss(y[:60, None] if case.width == 1 else y[:60], model.predict(x[:60], verbose=0)))
        assert finding.why.endswith(f"their loss is {alone:.4f} instead of {loss:.4f}.")


@pytest.mark.parametrize("setup", [f for f in WRONG if f.expected[0] == "_loss_against_labels"])
def test_what_keras_is_said_to_do_with_such_labels_is_what_it_does(setup):
    model, examples, _ = setup()
    (finding,) = diagnose._loss_against_labels(case := inspection.Case(model, examples, None))
    x, y = case.side.images[: inspection.RUN], case.side.sample_labels[: inspection.RUN]
    try:
        loss = np.ravel(model.evaluate(x, y, batch_size=inspection.RUN, verbose=0))[0]
    except Exception:
        assert "refuses" in finding.why
    else:
        assert f"is {loss:.3g}, and is not" in finding.why


@pytest.mark.parametrize(
    "name",
    [
        "pocket_vgg",
        *(pytest.param(f"pocket_{name}", marks=pytest.mark.slow) for name in ("resnet", "inception", "mobilenet")),
    ],
)
def test_the_range_at_the_first_convolution_is_that_of_preprocess(name):
    backbone, task = backbones.load(name), digits(1)
    case = inspection.Case(models.classifier(backbone, 10), task, None)
    wanted = backbone.preprocess(case.train.images[: inspection.RUN])
    assert case.networks[0].mode == "unit" and len(case.networks) == 1
    middle = wanted[:, 8:24, 8:24]
    spread = (middle.max((0, 1, 2)) - middle.min((0, 1, 2))).max()
    assert case.run.entry[0] == pytest.approx((middle.min(), middle.max(), spread))


@pytest.mark.parametrize(
    ("name", "family", "mode"),
    [
        ("VGG16", "VGG", "caffe"),
        ("MobileNetV2", "MobileNetV2", "tf"),
        ("MobileNetV3Small", "MobileNetV3", "inside"),
        ("MobileNet", "MobileNet", "tf"),
        *(
            pytest.param(*row, marks=pytest.mark.slow)
            for row in (
                ("ResNet50", "ResNet", "caffe"),
                ("ResNet50V2", "ResNetV2", "tf"),
                ("DenseNet121", "DenseNet", "torch"),
                ("InceptionV3", "InceptionV3", "tf"),
                ("InceptionResNetV2", "InceptionResNetV2", "tf"),
                ("Xception", "Xception", "tf"),
                ("EfficientNetB0", "EfficientNet", "inside"),
                ("EfficientNetV2B0", "EfficientNet", "inside"),
                ("ConvNeXtTiny", "ConvNeXt", "inside"),
                ("NASNetMobile", "NASNet", "tf"),
            )
        ),
    ],
)
def test_networks_of_keras_are_recognised_nested_and_flat(name, family, mode):
    import keras

    base = getattr(keras.applications, name)(weights=None, include_top=False, input_shape=(96, 96, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(base.output)
    flat = keras.Model(base.input, keras.layers.Dense(2)(pooled))
    nested = keras.Sequential([base, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
    for model, inside in ((flat, False), (nested, True)):
        (network,) = inspection.networks(model)
        assert (network.family, network.mode, network.nested, network.trained_before) == (family, mode, inside, False)
    assert inspection.networks(nested)[0].entry.name == inspection.networks(flat)[0].entry.name


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["vgg16", "resnet50", "resnet50_v2", "inception_v3", "xception", "mobilenet", "mobilenet_v2", "densenet121",
             "mobilenet_v3_small", "efficientnet_b0", "efficientnet_v2_b0", "convnext_tiny"]
)  # fmt: skip
def test_every_backbone_is_content_with_raw_pixels_and_no_other(name):
    backbone = backbones.load(name, weights=None, input_shape=(96, 96, 3))
    pretend_pretrained(backbone.model)  # random weights want no range
    model = models.classifier(backbone, CLASSES)
    x, y = photos(12, 3, size=96)
    right = inspection.Case(model, (x, y), None)
    assert not list(diagnose._range_of_pixels(right)) and right.run.entry[0] is not None
    (found,) = diagnose._range_of_pixels(inspection.Case(model, (x / np.float32(255), y), None))
    assert found.level == "error"


# --------------------------------------------------------------------------------------------- copies, and their like


@pytest.mark.parametrize("source", ["digits", "patterns", "letters"])
def test_different_images_are_not_taken_for_copies(source):
    task = data.load(source)
    rng = np.random.default_rng(0)
    train = task.train.images()[rng.permutation(len(task.train))[:700]]
    val = (task.test or task.val).images()[:700]
    assert diagnose._near_copies(train, val) == []


def test_copies_that_were_changed_a_little_are_found_and_others_are_not():
    import io

    from PIL import Image

    def jpeg(image):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=60)
        return np.asarray(Image.open(file))

    def resized(image):
        return np.asarray(Image.fromarray(image).resize((48, 48)).resize((64, 64)))

    images = photos(60, 4, size=64)[0]
    changed = [jpeg(images[7]), resized(images[8]), np.clip(images[9] * 0.9 + 8, 0, 255), images[10] / 255]
    val = np.concatenate([photos(40, 5, size=64)[0], np.stack(changed)]).astype("float32")
    assert {(i, j) for _, i, j in diagnose._near_copies(images, val)} == {(7, 40), (8, 41), (9, 42), (10, 43)}


def test_images_without_content_are_no_copies():
    x = np.zeros((20, SIZE, SIZE, 3), "float32")
    x[10:] = RAW[0][:10]
    found = diagnose.diagnose(compiled(small_network()), (x, np.arange(20) % 3), (x[:8], np.arange(8) % 3))
    assert not [finding for finding in found if "validation image" in finding.what]


def test_copies_are_found_whatever_type_the_pixels_have():
    model = compiled(small_network())
    found = diagnose.diagnose(model, (X, Y), (X[:5].astype("float64"), Y[:5]))
    assert [finding.what for finding in found.errors] == ["5 validation images also in the training data"]


def test_the_test_images_of_a_task_are_looked_at_where_it_has_no_validation():
    task = digits(1)
    assert task.val is None
    case = inspection.Case(models.classifier(backbones.load("pocket_vgg"), 10), task, None)
    assert case.val.total == 797 and len(case.val.images) == inspection.LOOK and case.train.total == 10


# ------------------------------------------------------------------------------------------------ answers and mistakes


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("ants", ["ant"]),
        ("bees", ["bee"]),
        ("Tiger cat", ["tiger_cat"]),
        ("n02206856-bee", ["bee"]),
        ("n99999999-thing", []),
        ("butterflies", None),
        ("dandelion", []),
        ("roses", []),
        ("7", []),
        ("A", []),
        ("dog", None),
    ],
)
def test_classes_of_imagenet_are_known_by_name(name, known):
    found = diagnose.imagenet_classes(name)
    assert bool(found) if known is None else found == known


def test_the_list_of_imagenet_classes_is_whole():
    classes = diagnose._imagenet()
    assert len(classes) == 1000 and len({synset for synset, _ in classes}) == 1000
    assert classes[0] == ("n01440764", "tench") and classes[999] == ("n15075141", "toilet_tissue")


def test_findings_are_a_sequence_that_prints_as_a_table():
    made = [
        diagnose.Finding(level, f"what {level}", "<where>", "why", "fix & more", "05 fine_tuning")
        for level in ("note", "error", "warning")
    ]
    found = diagnose.Findings(made, "Looked at it.")
    assert [finding.level for finding in found] == ["error", "warning", "note"] and len(found) == 3 and found
    assert [len(part) for part in (found.errors, found.warnings, found.notes)] == [1, 1, 1]
    assert found.summary() == "1 error, 1 warning, 1 note" and str(found) == repr(found)
    assert str(found).startswith("1 error, 1 warning, 1 note.\n\nerror    what error\n         where  <where>\n")
    assert max(map(len, str(found).splitlines())) <= 88 and str(found).endswith("Looked at it.")
    assert found._repr_html_().count("<tr>") == 4 and "&lt;where&gt;" in found._repr_html_()
    assert "fix &amp; more" in found._repr_html_() and "<where>" not in found._repr_html_()
    notes = diagnose.Findings([made[0]])
    assert not notes and len(notes) == 1 and len(diagnose.Findings([])) == 0 and not diagnose.Findings([])
    assert str(diagnose.Findings([])) == "nothing found."
    with pytest.raises(ValueError, match="'fatal'"):
        diagnose.Finding("fatal", "", "", "", "", "")


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("no/such/folder", data.DataError, "no/such/folder"),
        (7, TypeError, "not int"),
        ((X, Y[:-1]), ValueError, "90 images but 89 labels"),
        ((X[:0], Y[:0]), ValueError, "is empty"),
        (([X, np.zeros((90, 2))], Y), TypeError, "several inputs"),
        (({"image": X}, Y), TypeError, "several inputs"),
    ],
)
def test_data_of_no_use_are_refused(given, error, words):
    with pytest.raises(error, match=words):
        diagnose.diagnose(small_network(), given)


def test_something_that_is_no_model_is_refused():
    with pytest.raises(TypeError, match=r"keras\.Model, not str"):
        diagnose.diagnose("model.keras")


def test_a_detector_that_fails_leaves_the_others_alone(monkeypatch):
    def broken(case):
        raise RuntimeError("cannot go on\nwith this")

    monkeypatch.setattr(diagnose, "DETECTORS", [broken, *diagnose.DETECTORS])
    found = diagnose.diagnose(compiled(small_network(last=None)), RAW)
    assert [finding.what for finding in found.notes] == ["broken: could not be checked"] and found.errors
    assert "RuntimeError: cannot go on" in found.notes[0].why


def test_a_model_that_cannot_be_called_is_said_to_be_so():
    import keras

    class Broken(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = keras.layers.Dense(2)

        def call(self, x):
            if x.shape[1] == SIZE:
                raise ValueError("not today")
            return self.head(x)

    model = Broken()
    model(np.zeros((1, 4), "float32"))
    found = diagnose.diagnose(model, RAW)
    assert "not today" in found.notes[0].why and "could not be run" in found.looked_at


def test_data_that_are_no_pictures_are_no_obstacle():
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    x = np.random.default_rng(0).normal(size=(50, 4)).astype("float32")
    assert len(diagnose.diagnose(compiled(model), (x, np.arange(50) % 3), (x[:0:-9] + 1, np.arange(6) % 3))) == 0
    assert diagnose.diagnose(compiled(model), (x, np.eye(3)[np.arange(50) % 3])).errors


def test_every_finding_names_a_chapter_of_the_design():
    source = [value for name, value in vars(diagnose).items() if name.startswith("_") and isinstance(value, str)]
    chapters = [value for value in source if value[:2].isdigit()]
    assert len(chapters) == 8 and all(len(chapter.split()) == 2 for chapter in chapters)
