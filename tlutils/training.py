"""Training: solve a head, fine-tune blocks, or train everything from scratch.

All three are one idea: whatever is frozen is computed once, and only the rest is trained. ``linear_probe`` freezes the
whole backbone and solves what is left, a convex problem, to its optimum; ``fine_tune`` freezes all but the last blocks;
``train_from_scratch`` freezes nothing.
"""

import hashlib
import json
import math
import re
import time
import warnings
import weakref
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path

import numpy as np

from tlutils import checkpoints, features, models
from tlutils.runtime import kept, require_tensorflow, shows_progress

# Fixed beforehand for fewer than three labels a class, where cross-validation is impossible; chosen on the images of
# the development seeds of experiments/first_transfer.py, never on test images.
DEFAULT_C = 0.01
C_GRID = tuple(float(c) for c in np.logspace(-4, 2, 7))
MIN_LABELS_FOR_CV = 3
# Most bytes of activations that fine-tuning keeps in memory; while they are made, it takes twice as much.
MOST_KEPT = 2 * 1024**3


@dataclass
class Fit:
    """What training returns.

    Attributes:
        model: keras.Model; raw pixels 0–255 to logits (or numbers). The very model that was passed in, now trained and
            compiled for ``evaluate``.
        history: Dict of lists, one value an epoch (``loss``, ``val_loss``, …); for a probe what was tried and chosen.
        seconds: Wall time of the call.
        best_epoch: The epoch whose weights the model holds, counted from 1; 0 means the weights it started from.
    """

    model: object = field(repr=False)
    history: dict = field(repr=False)
    seconds: float
    best_epoch: int


def linear_probe(model, task, l2="cv", *, cache_dir=None, engine="auto", seed=0, progress=None):
    """Solve a linear head on the frozen backbone to its optimum.

    The features are extracted once. A classifier's head is scikit-learn's multinomial logistic regression, a
    regressor's is ridge regression, both on standardised features; the solution is written into the Keras head, so the
    returned model's predictions equal scikit-learn's. Only ``task.train`` is looked at.

    Args:
        model: A classifier or regressor with a linear head, whatever its pooling.
        task: An :class:`~tlutils.data.ImageTask`.
        l2: ``"cv"`` chooses the penalty by cross-validation within the training labels (three folds, accuracy; the
            stronger penalty where two are level) and uses a fixed default with fewer than three labels a class; a
            number is the penalty's strength, the inverse of scikit-learn's ``C`` (``alpha`` for ridge).
        cache_dir: Folder in which to keep the features, see :func:`tlutils.features.extract`.
        engine: What runs the frozen backbone, see there.
        seed: Seed of the folds.
        progress: Say how far the features are, see there.

    Returns:
        Fit: ``history`` holds ``l2`` and, where it was chosen, the candidates and their scores.

    Raises:
        ValueError: The head has hidden layers (train it with ``fine_tune(model, task, blocks=0)``), the model and the
            task disagree on the shape of the images or the number of classes, or ``l2`` is not positive.
    """
    started = time.perf_counter()
    require_tensorflow()
    _check(model, task)
    if _hidden(model):
        raise ValueError(
            f"linear_probe solves a linear head; {model.name!r} has hidden layers in its head. "
            "Train it with fine_tune(model, task, blocks=0)."
        )
    if l2 != "cv" and not (isinstance(l2, Real) and not isinstance(l2, bool) and 0 < l2 < np.inf):
        raise ValueError(f"l2 must be 'cv' or a positive number, not {l2!r}")
    models.freeze(model)
    pooling = {"GlobalAveragePooling2D": "avg", "GlobalMaxPooling2D": "max"}.get(type(model.get_layer("pool")).__name__)
    options = {"pooling": pooling, "engine": engine, "progress": progress}
    x = features.extract(models.backbone_layer(model), task.train, cache_dir, **options)
    x = x.reshape(len(x), -1)
    solve = solve_classifier if task.kind == "classification" else solve_regressor
    weights, bias, history = solve(x, task.train.labels, l2, seed)
    model.get_layer(models.OUTPUT_LAYER).set_weights([weights, bias])
    _compile(model, task, "sgd")
    return Fit(model, history, time.perf_counter() - started, 1)


def solve_classifier(x, y, l2="cv", seed=0):
    """Multinomial logistic regression as the weights of a layer that gives logits.

    Args:
        x: Features, shape (N, d).
        y: Labels 0 … classes − 1, shape (N,).
        l2: As for :func:`linear_probe`.
        seed: Seed of the folds.

    Returns:
        ``(weights, bias, history)``: shapes (d, classes) and (classes,).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    x = np.asarray(x, "float64")
    scaler = StandardScaler().fit(x)
    z, axes = scaler.transform(x), None
    history = {"l2": l2}
    # Matrices this small gain nothing from a second thread; threads that wait for each other cost a lot.
    with threadpool_limits(1, "blas"):
        if z.shape[1] > len(z):
            # With a quadratic penalty the optimum lies in the span of the images. Solving there, in as many dimensions
            # as there are images, gives the same weights many times faster.
            axes = np.linalg.svd(z, full_matrices=False)[2]
            z = z @ axes.T
        if l2 == "cv":
            _, history = tune(LogisticRegression(max_iter=5000), {"C": C_GRID}, {"C": DEFAULT_C}, z, y, seed)
            history = {"l2": 1 / history["chosen"]["C"], **history}
        # The solver's own tolerance is good enough to choose by, but stops well before the optimum.
        regression = LogisticRegression(C=1 / history["l2"], max_iter=5000, tol=1e-10).fit(z, y)
    weights, bias = regression.coef_.T, regression.intercept_
    if weights.shape[1] == 1:  # two classes: scikit-learn gives one logit, the log-odds of the second
        weights, bias = np.hstack([-weights, weights]) / 2, np.hstack([-bias, bias]) / 2
    if axes is not None:
        weights = axes.T @ weights
    return *_unscaled(scaler, weights, bias), history


def solve_regressor(x, y, l2="cv", seed=0):
    """Ridge regression as the weights of a layer; like :func:`solve_classifier`, for targets (N,) or (N, outputs)."""
    from sklearn.linear_model import Ridge, RidgeCV
    from sklearn.preprocessing import StandardScaler

    x, y = np.asarray(x, "float64"), np.asarray(y, "float64").reshape(len(y), -1)
    scaler = StandardScaler().fit(x)
    if l2 == "cv":
        # Generalised cross-validation leaves one out in closed form, so there are no folds to seed.
        ridge = RidgeCV(alphas=np.logspace(-3, 5, 17)).fit(scaler.transform(x), y)
        history = {"l2": float(ridge.alpha_)}
    else:
        ridge = Ridge(alpha=l2).fit(scaler.transform(x), y)
        history = {"l2": float(l2)}
    weights = ridge.coef_.reshape(y.shape[1], -1).T
    return *_unscaled(scaler, weights, np.broadcast_to(ridge.intercept_, y.shape[1])), history


def tune(estimator, grid, default, x, y, seed=0):
    """Fit a scikit-learn classifier with its settings chosen by the rule that every method of the book follows.

    Three-fold stratified cross-validation within the given labels, by accuracy; of settings that are level, the first
    of the grid. With fewer than three labels in a class there is nothing to cross-validate and ``default`` is used.

    Args:
        estimator: A scikit-learn classifier or pipeline.
        grid: Dict of setting → candidates, the strongest penalty first.
        default: Dict of setting → value for small budgets.
        x: Features, shape (N, d).
        y: Labels, shape (N,).
        seed: Seed of the folds.

    Returns:
        ``(estimator, history)``: the fitted estimator, and a dict with ``chosen`` and, after a search, ``candidates``
        and ``scores``.
    """
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    if np.unique(y, return_counts=True)[1].min() < MIN_LABELS_FOR_CV:
        return estimator.set_params(**default).fit(x, y), {"chosen": dict(default)}
    folds = StratifiedKFold(MIN_LABELS_FOR_CV, shuffle=True, random_state=seed)
    candidates = {key: list(values) for key, values in grid.items()}
    search = GridSearchCV(estimator, candidates, cv=folds, refit=_first_best).fit(x, y)
    results = search.cv_results_
    return search.best_estimator_, {
        "chosen": search.best_params_,
        "candidates": list(results["params"]),
        "scores": results["mean_test_score"].tolist(),
    }


def _first_best(results):
    """Index of the first candidate with the best mean score; means that differ by rounding only are level."""
    scores = np.round(results["mean_test_score"], 9)
    return int(np.flatnonzero(scores == scores.max())[0])


def _unscaled(scaler, weights, bias):
    """Fold standardisation into a linear layer: (x − mean)/scale · W + b = x · W/scale + (b − mean · W/scale)."""
    weights = weights / scaler.scale_[:, None]
    return weights, bias - scaler.mean_ @ weights


def fine_tune(
    model,
    task,
    blocks=2,
    epochs=10,
    learning_rate=1e-4,
    *,
    l2=0.0,
    l2_sp=0.0,
    weight_decay=0.0,
    label_smoothing=0.0,
    augment=None,
    views=None,
    backup_dir=None,
    start="probe",
    block_decay=1.0,
    batch_size=32,
    warmup=0.1,
    patience=3,
    cache=True,
    cache_dir=None,
    engine="auto",
    shuffle=True,
    stop_after=None,
    seed=0,
    progress=None,
):
    """Train the last blocks of the backbone together with the head.

    By default the head is solved first and then everything above the boundary is tuned, so that a random head does not
    destroy pretrained features (Kumar et al., 2022). BatchNorm layers stay frozen one by one. Adam's rate warms up
    linearly and then falls along a cosine. Without augmentation the activations at the frozen boundary are computed
    once and only what trains is run; with augmentation, if ``views`` says so. The result is the same, unless frozen
    blocks hold dropout, as EfficientNet's do: nothing is dropped from activations that are computed once.

    Args:
        model: A classifier or regressor. It is changed in place, and so is the backbone that it holds.
        task: An :class:`~tlutils.data.ImageTask`; with ``task.val`` the epoch with the lowest validation loss is kept
            and training stops early, without it all epochs run.
        blocks: What trains, as for :func:`tlutils.models.unfreeze`.
        epochs: Passes over ``task.train``, at most.
        learning_rate: Adam's peak rate for the head and the last block.
        l2: Strength of the pull towards zero, λ in λ/2 · ‖w‖², on every kernel that trains, the head's included; biases
            are left alone, and so is BatchNorm, which does not train.
        l2_sp: Strength of the pull towards the weights the blocks started from, λ in λ/2 · ‖w − w₀‖² (Li et al., 2018),
            on every weight of the backbone that trains; the head is not pulled.
        weight_decay: Share, times the rate of the step, by which the kernels that ``l2`` names shrink in each step,
            past Adam (decoupled weight decay, Loshchilov and Hutter, 2019).
        label_smoothing: Share s of each label that is spread over all classes (Szegedy et al., 2016), in the loss of
            training and of validation; for classifiers.
        augment: A Keras layer or model applied to raw pixels during training, such as :func:`augmentation`, or
            ``None``. Each epoch changes every image anew and so runs the whole network, unless ``views`` is given.
        views: How many augmented views of each image to make and keep. The first epoch trains on the first view, the
            second on the next, and after the last the first comes again; what is random in view v is drawn from
            (seed, v). Views are fixed, so their activations are cached like those of plain images: one pass through
            the frozen part a view, and memory for each. It changes what is learnt: images vary less than with
            ``None``, which never shows the same view twice. Without effect where nothing is frozen.
        backup_dir: Folder for the state after each epoch, one a run. A run that was interrupted goes on from there when
            it is called again with the same arguments, and ends where it would have ended. ``None`` keeps nothing,
            unless there is a folder for all trainings, see :func:`tlutils.runtime.keep`.
        start: ``"probe"`` solves the head first (a head with hidden layers is trained on frozen features instead);
            ``"as_is"`` starts from the model as it comes.
        block_decay: The rate of each block is this times the rate of the block above it; 1 gives all the same rate
            (discriminative rates, Howard and Ruder, 2018).
        batch_size: Images a step.
        warmup: Share of all steps during which the rate rises from zero.
        patience: Epochs without a lower validation loss before training stops.
        cache: Keep activations at the frozen boundary in memory, unless they take more than 2 GB (and there are no
            ``views``); ``False`` runs the whole network each epoch.
        cache_dir: Folder in which to keep the features of the probe and the activations too, for the next call; see
            :func:`tlutils.features.extract`. Those of augmented views are not kept.
        engine: What runs the frozen part, see there.
        shuffle: New order each epoch; ``False`` keeps the order of ``task.train``.
        stop_after: Epochs to run of a schedule that is made for ``epochs`` of them; ``None`` runs all.
        seed: Seed of the order and of dropout, both derived from (seed, epoch).
        progress: Show a line an epoch, and how far the activations are; ``None`` does so in a terminal or an
            interactive notebook.

    Returns:
        Fit

    Raises:
        ValueError: ``blocks`` is out of range or names no block (the message lists them), ``start`` is unknown,
            ``epochs``, ``batch_size``, ``patience``, ``views`` or ``stop_after`` is below 1, there are ``views``
            without ``augment`` or without ``cache``, a strength is negative or infinite, ``label_smoothing`` is not in
            [0, 1) or asked of a regressor, or the model and the task disagree on the number of classes.

    Warns:
        CheckpointWarning: What an interrupted run has left in ``backup_dir`` is damaged, and training starts again.
        UserWarning: The activations would take more than 2 GB.
    """
    started = time.perf_counter()
    require_tensorflow()
    _check(model, task)
    if start not in ("probe", "as_is"):
        raise ValueError(f"start must be 'probe' or 'as_is', not {start!r}")
    if label_smoothing and task.kind != "classification":
        raise ValueError(
            f"label_smoothing is for classifiers, and the targets of {task.name!r} are numbers: leave it at 0, not "
            f"{label_smoothing!r}"
        )
    if views is not None and augment is None:
        raise ValueError(f"views={views!r} needs augment, which says how the views of an image differ")
    if views is not None and not cache:
        raise ValueError(f"views={views!r} are kept, and cache=False keeps nothing: leave one of the two out")
    settings = _Settings(
        epochs,
        learning_rate,
        batch_size,
        warmup,
        patience,
        shuffle,
        seed,
        progress,
        backup_dir,
        start,
        block_decay,
        l2_sp,
        l2,
        weight_decay,
        label_smoothing,
        stop_after,
        views,
        engine,
        cache_dir,
    )
    models.unfreeze(model, blocks)  # a wrong name fails here, before any work
    if start == "probe":
        if _hidden(model):
            fine_tune(
                model,
                task,
                0,
                epochs,
                1e-3,
                l2=l2,
                weight_decay=weight_decay,
                label_smoothing=label_smoothing,
                start="as_is",
                batch_size=batch_size,
                warmup=warmup,
                patience=patience,
                cache=cache,
                cache_dir=cache_dir,
                engine=engine,
                shuffle=shuffle,
                seed=seed,
                progress=progress,
            )
        else:
            linear_probe(model, task, cache_dir=cache_dir, engine=engine, seed=seed, progress=progress)
        models.unfreeze(model, blocks)
    frozen, tail = _split(model, blocks) if cache and (augment is None or views) else (None, model)
    if frozen is not None and not views and (size := _activation_bytes(frozen, task)) > MOST_KEPT:
        gigabytes = f"{size / 1024**3:.1f} GB"
        warnings.warn(f"the frozen activations would take {gigabytes}; the whole network runs each epoch", stacklevel=2)
        frozen, tail = None, model
    history, best = _train(model, tail, frozen, task, settings, augment)
    return Fit(model, history, time.perf_counter() - started, best)


def augmentation(rotation=0.04, shift=0.1, zoom=0.1, flip=False):
    """Layers for ``augment``: every image turned, shifted and scaled at random, anew in each epoch.

    Args:
        rotation: Largest turn in either direction, as a share of a full turn (0.04 are 14 degrees).
        shift: Largest shift, as a share of the height and of the width.
        zoom: Largest change of the scale.
        flip: Whether to mirror left and right too: right for most photographs, wrong for writing.

    Returns:
        keras.Sequential: raw pixels 0–255, shape (N, height, width, channels), to the same; black where the image ends.
    """
    require_tensorflow()
    import keras
    from keras import layers

    fill = {"fill_mode": "constant", "fill_value": 0.0}
    moves = [
        layers.RandomRotation(rotation, **fill),
        layers.RandomTranslation(shift, shift, **fill),
        layers.RandomZoom(zoom, **fill),
    ]
    return keras.Sequential([*moves, layers.RandomFlip("horizontal")] if flip else moves, name="augmentation")


def train_from_scratch(
    model,
    task,
    epochs=60,
    learning_rate=1e-3,
    *,
    augment=None,
    backup_dir=None,
    batch_size=32,
    warmup=0.1,
    patience=10,
    batch_norm_momentum=0.9,
    shuffle=True,
    seed=0,
    progress=None,
):
    """Train every weight, BatchNorm included, from where the model stands: the baseline that transfer has to beat.

    Build the model from a backbone with ``weights=None``. The same trainer as :func:`fine_tune`, with the arguments it
    describes.

    Args:
        model: A classifier or regressor, changed in place.
        task: An :class:`~tlutils.data.ImageTask`.
        epochs: Passes over ``task.train``, at most.
        learning_rate: Adam's peak rate.
        augment: A Keras layer or model applied to raw pixels during training, or ``None``.
        backup_dir: Folder for the state after each epoch, one a run.
        batch_size: Images a step.
        warmup: Share of all steps during which the rate rises.
        patience: Epochs without a lower validation loss before training stops.
        batch_norm_momentum: Upper limit for BatchNorm's momentum. Keras' default of 0.99 needs hundreds of steps before
            the moving averages are of use, and a small data set does not have them.
        shuffle: New order each epoch.
        seed: Seed of the order and of dropout.
        progress: Show a line an epoch.

    Returns:
        Fit
    """
    started = time.perf_counter()
    require_tensorflow()
    import keras

    _check(model, task)
    settings = _Settings(
        epochs,
        learning_rate,
        batch_size,
        warmup,
        patience,
        shuffle,
        seed,
        progress,
        backup_dir,
        method="scratch",
    )
    models.unfreeze(model, -1)
    for layer in models.inner_layers(models.backbone_layer(model)):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = True
            layer.momentum = min(layer.momentum, batch_norm_momentum)
    history, best = _train(model, model, None, task, settings, augment)
    return Fit(model, history, time.perf_counter() - started, best)


# ---------------------------------------------------------------------------------------------------------- the trainer


@dataclass(frozen=True)
class _Settings:
    epochs: int
    learning_rate: float
    batch_size: int
    warmup: float
    patience: int
    shuffle: bool
    seed: int
    progress: bool | None
    backup_dir: str | Path | None
    start: str = "as_is"
    block_decay: float = 1.0
    l2_sp: float = 0.0
    l2: float = 0.0
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    stop_after: int | None = None
    views: int | None = None
    engine: str = "auto"
    cache_dir: str | Path | None = None
    method: str = "fine_tune"

    def __post_init__(self):
        for name in ("epochs", "batch_size", "patience", "stop_after", "views"):
            if getattr(self, name) is not None and not getattr(self, name) >= 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)!r}")
        for name in ("l2", "l2_sp", "weight_decay"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} is a strength, 0 or a positive number, not {getattr(self, name)!r}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is a share, at least 0 and below 1, not {self.label_smoothing!r}")


def _train(model, tail, frozen, task, settings, augment=None):
    """Train ``tail`` on what ``frozen`` makes of the images; ``model`` is the whole that both are parts of.

    Returns ``(history, best_epoch)``; the model holds the weights of the best epoch and is compiled.
    """
    train = _Source(task.train, frozen, settings, augment)
    val = _Source(task.val, frozen, settings) if task.val is not None else None
    trained = _compiled(model, tail, task, settings, augment if frozen is None else None)

    history = {}
    last = min(settings.epochs, settings.stop_after or settings.epochs)
    best, best_loss, best_weights = last, np.inf, None
    if val is not None:
        best, best_loss, best_weights = 0, trained.evaluate(val.batches(), verbose=0)[0], tail.get_weights()
    backup = _Backup(settings, model, trained, augment, task, best_weights)
    first, history, best, best_loss = backup.restore(history, best, best_loss)
    best_weights = backup.best_weights
    show = shows_progress(settings.progress)
    for epoch in range(first, last):
        if val is not None and epoch - best >= settings.patience:
            break
        _seed(trained, settings.seed, epoch)  # so that a resumed run drops what the whole run would have dropped
        order = np.arange(len(task.train))
        if settings.shuffle:
            order = np.random.default_rng([settings.seed, epoch]).permutation(order)
        logs = trained.fit(train.batches(order, epoch), shuffle=False, verbose=0).history
        if val is not None:
            names = ["val_loss", *(f"val_{name}" for name in list(logs) if name != "loss")]
            scores = trained.evaluate(val.batches(), verbose=0)
            logs |= {name: [score] for name, score in zip(names, scores)}
            if scores[0] < best_loss:
                best, best_loss, best_weights = epoch + 1, scores[0], tail.get_weights()
        for name, values in logs.items():
            history.setdefault(name, []).append(float(values[0]))
        backup.save(epoch + 1, history, best, best_loss, best_weights)
        if show:
            shown = "  ".join(f"{name} {values[-1]:.4f}" for name, values in history.items())
            print(f"epoch {epoch + 1:>3}/{settings.epochs}  {shown}", flush=True)
    if best_weights is not None:
        tail.set_weights(best_weights)
    backup.remove()
    _compile(model, task, "sgd")  # plain, so that the saved model needs nothing of this package
    return history, best


# Keras traces a training step once for each compiled model, which takes longer than tens of epochs on a small one. What
# was split and compiled last is kept for each model, and used again when nothing but weights, data and seed differ.
_splits = weakref.WeakKeyDictionary()
_trainers = weakref.WeakKeyDictionary()


def _split(model, blocks):
    key, parts = _splits.get(model, (None, None))
    if key != blocks:
        parts = models.split(model, blocks)
        # A tail that is the model itself would keep the model alive as long as this entry.
        _splits[model] = blocks, parts if parts[1] is not model else None
    return parts or (None, model)


def _compiled(model, tail, task, settings, augment):
    """The model whose ``fit`` trains the tail, compiled, with its optimizer in its first state."""
    import keras

    steps = -(-len(task.train) // settings.batch_size) * settings.epochs
    factors = _rate_factors(model, tail, settings.block_decay)
    # Everything that the traced step has built in. Ids will do: what they belong to lives as long as what is kept here.
    key = (
        [id(layer) for layer in tail.layers[1:]],
        [id(variable) for variable in tail.trainable_variables],
        [getattr(layer, "momentum", None) for layer in models.inner_layers(tail)],
        (id(augment), task.kind, factors, steps, settings.learning_rate, settings.warmup),
        (settings.l2, settings.l2_sp, settings.weight_decay, settings.label_smoothing),
    )
    known, trained = _trainers.get(model, (None, None))
    if known != key:
        rising = round(settings.warmup * steps)
        schedule = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if rising else settings.learning_rate,
            decay_steps=max(steps - rising, 1),
            warmup_target=settings.learning_rate if rising else None,
            warmup_steps=rising,
        )
        # Layer by layer: a model that held the tail itself would keep the caller's model alive for good.
        inputs = keras.Input(tail.input_shape[1:], dtype=tail.inputs[0].dtype)
        x = augment(inputs) if augment is not None else inputs
        for layer in tail.layers[1:]:
            x = layer(x)
        trained = keras.Model(inputs, x)
        _compile(trained, task, _adam(schedule, tail, factors, settings), settings.label_smoothing)
        trained.optimizer.build(trained.trainable_variables)
        # Metrics that are first built inside the step make TensorFlow trace it a second time.
        trained.compute_metrics(None, task.train.labels[:1], keras.ops.zeros((1, *trained.output_shape[1:])), None)
        trained.reset_metrics()
        _trainers[model] = key, trained
    optimizer = trained.optimizer  # in mixed precision the one that scales the loss, which holds ours
    for variable in optimizer.variables:
        variable.assign(keras.ops.zeros_like(variable))
    if hasattr(optimizer, "dynamic_scale"):
        optimizer.dynamic_scale.assign(optimizer.initial_scale)
    for start, variable in zip(getattr(optimizer, "inner_optimizer", optimizer).starts, trained.trainable_variables):
        if start is not None:
            start.assign(variable)
    return trained


def _seed(layer, *numbers):
    """Let what the random layers in a layer draw next depend on nothing but these numbers."""
    states = [variable for variable in getattr(layer, "variables", ()) if "seed_generator" in variable.path]
    for i, state in enumerate(states):
        state.assign(np.random.default_rng([*numbers, i]).integers(2**31, size=2).astype("uint32"))


def _activation_bytes(frozen, task):
    images = sum(len(part) for part in (task.train, task.val) if part is not None)
    return images * math.prod(frozen.compute_output_shape((1, *task.image_size, task.channels))) * 4


class _Source:
    """Batches of one split: images as they are, or the activations at the frozen boundary, computed once a view."""

    def __init__(self, examples, frozen, settings, augment=None):
        self.examples, self.frozen, self.settings, self.augment = examples, frozen, settings, augment
        self.kept, self.order = {}, None

    def batches(self, order=None, epoch=0):
        order = np.arange(len(self.examples)) if order is None else order
        if self.frozen is None and self.examples.paths is not None:
            return self.examples.subset(order).batches(self.settings.batch_size)
        view = 0 if self.frozen is None else epoch % (self.settings.views or 1)
        if view not in self.kept:
            self.kept[view] = self._keep(self.examples.images() if self.frozen is None else self._activations(view))
        self.order.assign(order)
        return self.kept[view]

    def _activations(self, view):
        _seed(self.augment, self.settings.seed, view)
        settings = self.settings
        options = {"pooling": None, "engine": settings.engine, "augment": self.augment, "progress": settings.progress}
        found = features.extract(self.frozen, self.examples, settings.cache_dir, **options)
        return found.astype(self.frozen.output.dtype, copy=False)

    def _keep(self, inputs):
        """Hold what is in memory anyway once, whatever the order; a GPU's memory has better uses."""
        import tensorflow as tf

        with tf.device("CPU:0"):
            x, y = tf.constant(inputs), tf.constant(self.examples.labels)
            if self.order is None:
                self.order = tf.Variable(np.arange(len(self.examples)))
            order = self.order

            def pick(places):
                rows = tf.gather(order, places)
                return tf.cast(tf.gather(x, rows), tf.float32), tf.gather(y, rows)

            return tf.data.Dataset.range(len(self.examples)).batch(self.settings.batch_size).map(pick).prefetch(2)


def _adam(schedule, tail, factors, settings):
    """Adam with a rate for each weight and, where they are asked for, pulls to zero and to where the weights started.

    The gradients of the penalties are added to that of the loss, so Adam divides them by the size of the whole gradient
    as well; decoupled weight decay goes past it.
    """
    import keras

    head = {id(weight) for layer in _head(tail) for weight in layer.weights}

    class BlockAdam(keras.optimizers.Adam):
        def build(self, variables):
            if self.built:  # the optimizer that scales the loss builds the one inside it a second time
                return
            super().build(variables)
            # Among the optimizer's own variables, so that a backup holds the starting weights as well.
            self.kernels = [variable.name.endswith("kernel") for variable in variables]  # a depthwise_kernel is one too
            pulled = [settings.l2_sp and id(variable) not in head for variable in variables]
            self.starts = [
                self.add_variable_from_reference(variable, name="start") if pull else None
                for variable, pull in zip(variables, pulled)
            ]

        def update_step(self, gradient, variable, learning_rate):
            i = self._get_variable_index(variable)
            learning_rate = learning_rate * factors[i]
            if self.starts[i] is not None:
                gradient = gradient + settings.l2_sp * (variable - self.starts[i])
            if self.kernels[i] and settings.l2:
                gradient = gradient + settings.l2 * variable
            if self.kernels[i] and settings.weight_decay:
                shrink = keras.ops.cast(learning_rate * settings.weight_decay, variable.dtype)
                self.assign_sub(variable, shrink * variable)
            super().update_step(gradient, variable, learning_rate)

    return BlockAdam(schedule)


def _rate_factors(model, tail, decay):
    """The factor of each trained weight's rate: 1 for the head and the last block, ``decay`` for each block below."""
    parts = models.backbone_layer(model).layers[1:]
    depth = {id(weight): depth for depth, part in enumerate(reversed(parts)) for weight in part.trainable_variables}
    return [decay ** depth.get(id(weight), 0) for weight in tail.trainable_variables]


class _Backup:
    """The state of a training after its last epoch, in one file; it is only read by the very same training."""

    def __init__(self, settings, model, trained, augment, task, best_weights):
        self.variables = [*trained.variables, *trained.optimizer.variables]
        self.best_weights = best_weights
        self.file = None
        folder = kept("backups") if settings.backup_dir is None else settings.backup_dir
        if folder is not None:
            elsewhere = ("progress", "backup_dir", "cache_dir")  # what they say changes no weight
            described = {k: repr(v) for k, v in vars(settings).items() if k not in elsewhere}
            described["shapes"] = [list(variable.shape) for variable in self.variables]
            described["layers"] = [_described(x) for x in (model, trained, augment) if hasattr(x, "get_config")]
            frozen = [weight for x in models.inner_layers(model) if not x.trainable for weight in x.weights]
            described["frozen"] = [hashlib.sha256(np.asarray(weight).tobytes()).hexdigest() for weight in frozen]
            described["data"] = [
                (part.fingerprint, hashlib.sha256(part.labels.tobytes()).hexdigest())
                for part in (task.train, task.val)
                if part is not None
            ]
            key = hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()[:16]
            self.file = Path(folder) / f"training-{key}.npz"

    def restore(self, history, best, best_loss):
        """``(epochs done, history, best epoch, best loss)``; sets the variables where there is something to restore."""
        saved = self.file and checkpoints.load(self.file)
        if not saved:
            return 0, history, best, best_loss
        state, arrays = saved
        for variable, value in zip(self.variables, arrays):
            variable.assign(value)
        if self.best_weights is not None:
            self.best_weights = arrays[len(self.variables) :]
        return state["epoch"], state["history"], state["best"], state["best_loss"]

    def save(self, epoch, history, best, best_loss, best_weights):
        self.best_weights = best_weights
        if self.file is None:
            return
        state = {"epoch": epoch, "history": history, "best": best, "best_loss": best_loss}
        checkpoints.save(self.file, state, [*map(np.asarray, self.variables), *(best_weights or [])])

    def remove(self):
        if self.file is not None:
            self.file.unlink(missing_ok=True)


def _described(layer):
    """The configuration of a layer or model, without what Keras makes up anew: numbers in names, and seeds."""

    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if k not in ("seed", "compile_config")}
        if isinstance(value, (list, tuple)):
            return [plain(v) for v in value]
        return re.sub(r"_\d+(CLONE)*$", "", value) if isinstance(value, str) else value

    try:
        return plain(layer.get_config())
    except NotImplementedError:  # a custom layer that does not say how it is made; those inside it may
        return [type(layer).__name__, *map(_described, models.inner_layers(layer)[1:])]


def _compile(model, task, optimizer, label_smoothing=0.0):
    import keras

    def smoothed(labels, logits):
        targets = keras.ops.one_hot(keras.ops.cast(labels, "int32"), logits.shape[-1])
        return keras.losses.categorical_crossentropy(targets, logits, from_logits=True, label_smoothing=label_smoothing)

    if task.kind == "classification":
        loss, metrics = keras.losses.SparseCategoricalCrossentropy(from_logits=True), ["accuracy"]
        loss = smoothed if label_smoothing else loss
    else:
        loss, metrics = "mse", ["mae"]
    # XLA would compile each new shape anew, which costs more than it saves on models this small.
    model.compile(optimizer, loss, metrics=metrics, jit_compile=False)


def _head(model):
    """The layers after the backbone, in a whole model or in the tail of one."""
    names = [layer.name for layer in model.layers]
    return model.layers[names.index("pool") :]


def _hidden(model):
    return any(layer.name.startswith("hidden") for layer in model.layers)


def _check(model, task):
    outputs = model.output_shape[-1]
    models.backbone_layer(model)
    wanted, given = model.input_shape[1:], (*task.image_size, task.channels)
    if any(a not in (None, b) for a, b in zip(wanted, given)):
        raise ValueError(
            f"{model.name!r} takes images of shape {wanted}, but those of {task.name!r} are {given}: build its "
            f"backbone with backbones.load(name, input_shape={given}), or load the data with image_size={wanted[:2]}, "
            f"channels={wanted[2]}"
        )
    if task.kind == "classification" and outputs != task.num_classes:
        raise ValueError(
            f"{model.name!r} gives {outputs} logits, but {task.name!r} has {task.num_classes} classes: "
            f"build it with models.classifier(backbone, {task.num_classes})"
        )
    targets = task.train.labels.reshape(len(task.train), -1).shape[1]
    if task.kind == "regression" and outputs != targets:
        raise ValueError(
            f"{model.name!r} gives {outputs} numbers, but {task.name!r} has {targets} targets an image: "
            f"build it with models.regressor(backbone, {targets})"
        )
