r"""The book's formulas in NumPy: losses, penalties, optimizers and their gradients, one short function a formula.

The module imports NumPy and nothing else, so it can be read and used alone. Every function is checked against Keras or
against another independent computation in ``tests/test_reference.py``.

Conventions: N examples, C classes, D features. Everything is computed in float64, whatever the inputs are. A loss is
the mean over the N examples, a float. A function ``..._gradient`` takes the same arguments as the function it belongs
to and returns the gradient with respect to the first of them, in its shape. No input is ever changed in place.

``targets`` of a classification loss are class numbers, integers of shape (N,), or probabilities of shape (N, C) whose
rows sum to 1.

Every function raises a ValueError if a shape does not fit, a value is NaN or infinite, a strength is negative or a rate
is not positive; the docstrings do not repeat it.
"""

import numpy as np

# --- Input checks -----------------------------------------------------------------------------------------------------


def _array(name, values, shape=None, ndim=None):
    """``values`` in float64, after a check that they are finite and have the shape, or the number of axes, wanted."""
    array = np.asarray(values, "float64")
    if shape is not None and array.shape != tuple(shape):
        raise ValueError(f"{name} must have the shape {tuple(shape)}, not {array.shape}: the inputs belong together")
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes, not {array.ndim} as in the shape {array.shape}: reshape them")
    if array.size == 0:
        raise ValueError(f"{name} are empty, with the shape {array.shape}: give at least one number")
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(
            f"{name} hold {array[where]} at {list(where)}: repair what made it so; in the course of an optimization it "
            "is a sign of divergence, which a lower learning rate avoids"
        )
    return array


def _number(name, value, least=0.0, most=np.inf, above=False, below=False):
    """``value`` as a float in [least, most]; ``above`` and ``below`` exclude the ends."""
    number = np.asarray(value, "float64")
    inside = number.ndim == 0 and np.isfinite(number) and least <= number <= most
    if not inside or (above and number == least) or (below and number == most):
        interval = f"{'(' if above else '['}{least:g}, {most:g}{')' if below or most == np.inf else ']'}"
        raise ValueError(f"{name} must be one finite number in {interval}, not {value!r}")
    return float(number)


def _count(name, value, least=1):
    """``value`` as an int of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, not {value!r}")
    return int(value)


def _distributions(name, values, shape=None):
    """``values``, shape (N, C), after a check that each row holds probabilities that sum to 1."""
    p = _array(name, values, shape, ndim=2)
    if p.min() < 0:
        raise ValueError(f"{name} cannot be negative, and the smallest is {p.min():.3g}: give probabilities")
    sums = p.sum(axis=1)
    worst = int(np.abs(sums - 1).argmax())
    if abs(sums[worst] - 1) > 1e-4:
        raise ValueError(f"{name} of one example must sum to 1; those of example {worst} sum to {sums[worst]:.6g}")
    return p


def _one_hot_targets(targets, shape):
    """Targets of either kind as probabilities of the shape (N, C)."""
    if np.ndim(targets) == 1:
        if len(targets) != shape[0]:
            raise ValueError(f"there are {shape[0]} examples, but {len(targets)} targets: give one target an example")
        return one_hot(targets, shape[1])
    return _distributions("targets", targets, shape)


# --- From logits to probabilities -------------------------------------------------------------------------------------


def softmax(logits):
    """Probabilities from logits: p_c = exp(z_c) / Σ_k exp(z_k).

    The largest logit is subtracted first. That changes no probability and keeps exp from overflowing.

    Args:
        logits: Shape (..., C).

    Returns:
        ndarray: shape (..., C); sums to 1 over the last axis.
    """
    z = _logits(logits)
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def log_softmax(logits):
    """Logarithms of the probabilities: log p_c = z_c − m − log Σ_k exp(z_k − m), with the largest logit m.

    Finite also where the probability itself is too small for a float.

    Args:
        logits: Shape (..., C).

    Returns:
        ndarray: shape (..., C), at most 0.
    """
    z = _logits(logits)
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def _logits(logits):
    z = _array("logits", logits)
    if z.ndim == 0:
        raise ValueError(f"logits must have an axis of classes, not be the single number {float(z)}")
    return z


def sigmoid(logits):
    """Probability of one class against the rest: σ(z) = 1 / (1 + exp(−z)), without overflow for any z.

    Args:
        logits: Any shape.

    Returns:
        ndarray: the same shape, from 0 to 1.
    """
    z = _array("logits", logits)
    e = np.exp(-np.abs(z))  # at most 1
    return np.where(z >= 0, 1, e) / (1 + e)


def one_hot(labels, num_classes):
    """Class numbers as probabilities: 1 for the class itself, 0 for all others.

    Args:
        labels: Integers from 0 to C − 1, shape (N,).
        num_classes: C.

    Returns:
        ndarray: shape (N, C).
    """
    return np.eye(_count("num_classes", num_classes))[_labels(labels, num_classes)]


def _labels(labels, num_classes):
    y = np.asarray(labels)
    if y.ndim != 1 or y.size == 0 or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"class numbers must be integers of the shape (N,), not {y.dtype} of the shape {y.shape}")
    if y.min() < 0 or y.max() >= num_classes:
        wrong = y.min() if y.min() < 0 else y.max()
        raise ValueError(f"class numbers must be from 0 to {num_classes - 1}, and one is {wrong}: check num_classes")
    return y


def smooth_labels(targets, smoothing, num_classes=None):
    """Label smoothing (Szegedy et al., 2016): y ← (1 − s) y + s / C.

    Args:
        targets: Class numbers, shape (N,), or probabilities, shape (N, C).
        smoothing: s, from 0 (nothing changes) to 1 (every class is as probable).
        num_classes: C; needed for class numbers.

    Returns:
        ndarray: probabilities, shape (N, C).
    """
    s = _number("smoothing", smoothing, 0, 1)
    if np.ndim(targets) == 1 and num_classes is None:
        raise ValueError("class numbers do not say how many classes there are: give num_classes")
    if np.ndim(targets) not in (1, 2):
        raise ValueError(f"targets must have the shape (N,) or (N, C), not {np.shape(targets)}")
    y = _one_hot_targets(targets, (len(targets), np.shape(targets)[-1] if num_classes is None else num_classes))
    return (1 - s) * y + s / y.shape[1]


def balanced_class_weight(labels, num_classes):
    """A weight for each class with which all classes count the same: N / (C · N_c), scikit-learn's "balanced".

    Args:
        labels: Integers from 0 to C − 1, shape (N,), with at least one of each class.
        num_classes: C.

    Returns:
        ndarray: shape (C,); its mean over the examples is 1.
    """
    counts = np.bincount(_labels(labels, _count("num_classes", num_classes)), minlength=num_classes)
    if counts.min() == 0:
        raise ValueError(f"class {counts.argmin()} has no example, so no weight can balance it: leave it out")
    return counts.sum() / (num_classes * counts)


# --- Losses of classifiers --------------------------------------------------------------------------------------------


def cross_entropy(logits, targets, class_weight=None):
    """Cross-entropy from logits: L = −1/N Σ_i w_i Σ_c y_ic log p_ic, with p = softmax(z).

    As in Keras, the weighted losses are divided by N, not by the sum of the weights.

    Args:
        logits: z, shape (N, C).
        targets: Class numbers, shape (N,), or probabilities, shape (N, C).
        class_weight: One weight a class, at least 0, shape (C,); w_i is the weight of the class of example i, for
            probabilities of the most probable one. ``None`` weighs all alike with 1.

    Returns:
        float: in nats, at least 0.
    """
    z, y, w = _weighted(logits, targets, class_weight)
    return float(-(w * (y * log_softmax(z)).sum(axis=1)).mean())


def cross_entropy_gradient(logits, targets, class_weight=None):
    """Gradient of :func:`cross_entropy`: ∂L/∂z_ic = w_i (p_ic − y_ic) / N.

    Returns:
        ndarray: shape (N, C).
    """
    z, y, w = _weighted(logits, targets, class_weight)
    return w[:, None] * (softmax(z) - y) / len(z)


def _weighted(logits, targets, class_weight):
    z = _array("logits", logits, ndim=2)
    y = _one_hot_targets(targets, z.shape)
    if class_weight is None:
        return z, y, np.ones(len(z))
    return z, y, _weights_of_classes("class_weight", class_weight, z.shape[1])[y.argmax(axis=1)]


def _weights_of_classes(name, values, num_classes):
    weights = _array(name, values, (num_classes,))
    if weights.min() < 0:
        raise ValueError(f"{name} cannot be negative, and the smallest is {weights.min():g}")
    return weights


def cross_entropy_from_probabilities(probabilities, targets, epsilon=0.0):
    """Cross-entropy from probabilities: L = −1/N Σ_i Σ_c y_ic log p_ic, with y log p = 0 where y = 0.

    Nothing is clipped unless you ask for it: a target class with the probability 0 makes the loss infinite. With
    ``epsilon`` every p is first clipped to [ε, 1 − ε], as Keras does with 1e-7. Then no example costs more than
    −log ε, about 16 for 1e-7, and one that is clipped has the gradient 0: it teaches nothing. From logits,
    :func:`cross_entropy` needs no clipping.

    Args:
        probabilities: p, shape (N, C); rows sum to 1.
        targets: Class numbers, shape (N,), or probabilities, shape (N, C).
        epsilon: ε, at least 0 and less than 0.5.

    Returns:
        float: in nats, possibly infinite.
    """
    p, y, _ = _clipped(probabilities, targets, epsilon)
    with np.errstate(divide="ignore"):
        return float(-(y * np.log(np.where(y > 0, p, 1))).sum(axis=1).mean())


def cross_entropy_from_probabilities_gradient(probabilities, targets, epsilon=0.0):
    """Gradient of :func:`cross_entropy_from_probabilities`: ∂L/∂p_ic = −y_ic / (N p_ic), 0 where p is clipped.

    Each p counts as a variable of its own. Keras divides p by its sum over the classes before it takes the logarithm,
    which adds 1/N to every entry where nothing is clipped and makes no difference to the gradient by the logits.

    Returns:
        ndarray: shape (N, C); −inf where a target class has the probability 0 and ``epsilon`` is 0.
    """
    p, y, kept = _clipped(probabilities, targets, epsilon)
    with np.errstate(divide="ignore"):
        return np.where(kept, -y / np.where(y > 0, p, 1) / len(p), 0)


def _clipped(probabilities, targets, epsilon):
    epsilon = _number("epsilon", epsilon, 0, 0.5, below=True)
    p = _distributions("probabilities", probabilities)
    clipped = np.clip(p, epsilon, 1 - epsilon) if epsilon else p
    return clipped, _one_hot_targets(targets, p.shape), clipped == p


def binary_cross_entropy(logits, targets):
    """Binary cross-entropy from logits: the mean of −t log σ(z) − (1 − t) log(1 − σ(z)) over all entries.

    Computed as ``max(z, 0) − t z + log(1 + exp(−|z|))``, which is the same and cannot overflow.

    Args:
        logits: z, any shape.
        targets: t, from 0 to 1, the same shape.

    Returns:
        float: in nats, at least 0.
    """
    z, t = _binary(logits, targets)
    return float((np.maximum(z, 0) - t * z + np.log1p(np.exp(-np.abs(z)))).mean())


def binary_cross_entropy_gradient(logits, targets):
    """Gradient of :func:`binary_cross_entropy`: (σ(z) − t) / number of entries.

    Returns:
        ndarray: the shape of the logits.
    """
    z, t = _binary(logits, targets)
    return (sigmoid(z) - t) / z.size


def _binary(logits, targets):
    z = _array("logits", logits)
    t = _array("targets", targets, z.shape)
    if t.min() < 0 or t.max() > 1:
        raise ValueError(f"binary targets must be from 0 to 1, and are from {t.min():g} to {t.max():g}")
    return z, t


def focal_loss(logits, targets, gamma=2.0, alpha=None):
    """Focal loss (Lin et al., 2017) over classes: L = −1/N Σ_i Σ_c α_c y_ic (1 − p_ic)^γ log p_ic.

    The factor (1 − p)^γ takes the weight off examples that are already right. With γ = 0 and no α it is
    :func:`cross_entropy`. Keras has the same formula in CategoricalFocalCrossentropy, with p clipped at 1e-7 and
    α = 0.25 if none is given; nothing is clipped here.

    Args:
        logits: z, shape (N, C).
        targets: Class numbers, shape (N,), or probabilities, shape (N, C).
        gamma: γ, at least 0.
        alpha: α, at least 0: one number, one a class, shape (C,), or ``None`` for 1.

    Returns:
        float: at least 0.
    """
    log_p, y, gamma, alpha = _focal(logits, targets, gamma, alpha)
    return float(-(alpha * y * (-np.expm1(log_p)) ** gamma * log_p).sum(axis=1).mean())


def focal_loss_gradient(logits, targets, gamma=2.0, alpha=None):
    """Gradient of :func:`focal_loss`: ∂L/∂z_ik = (g_ik − p_ik Σ_c g_ic) / N.

    g_ic = −α_c y_ic (1 − p_ic)^γ · (1 − γ p_ic log p_ic / (1 − p_ic)) is the derivative by log p_ic, and
    ∂ log p_c / ∂ z_k = [c = k] − p_k. The quotient log p / (1 − p) goes to −1 for p → 1, so g goes to 0 if γ > 0.

    Returns:
        ndarray: shape (N, C).
    """
    log_p, y, gamma, alpha = _focal(logits, targets, gamma, alpha)
    p, rest = np.exp(log_p), -np.expm1(log_p)
    quotient = log_p / np.where(rest > 0, rest, 1)
    g = -alpha * y * rest**gamma * (1 - gamma * p * quotient)
    return (g - p * g.sum(axis=1, keepdims=True)) / len(p)


def _focal(logits, targets, gamma, alpha):
    z = _array("logits", logits, ndim=2)
    if alpha is None:
        alpha = 1.0
    alpha = _number("alpha", alpha) if np.ndim(alpha) == 0 else _weights_of_classes("alpha", alpha, z.shape[1])
    # Rounding can leave the logarithm of a probability next to 1 a little above 0.
    return np.minimum(log_softmax(z), 0), _one_hot_targets(targets, z.shape), _number("gamma", gamma), alpha


# --- Losses of regression ---------------------------------------------------------------------------------------------


def mean_squared_error(predictions, targets):
    """Mean squared error: the mean of (ŷ − y)² over all entries.

    Args:
        predictions: ŷ, any shape.
        targets: y, the same shape.

    Returns:
        float: in squared units of the targets.
    """
    return float((_errors(predictions, targets) ** 2).mean())


def mean_squared_error_gradient(predictions, targets):
    """Gradient of :func:`mean_squared_error`: 2 (ŷ − y) / number of entries.

    Returns:
        ndarray: the shape of the predictions.
    """
    error = _errors(predictions, targets)
    return 2 * error / error.size


def mean_absolute_error(predictions, targets):
    """Mean absolute error: the mean of ``|ŷ − y|`` over all entries.

    Args:
        predictions: ŷ, any shape.
        targets: y, the same shape.

    Returns:
        float: in units of the targets.
    """
    return float(np.abs(_errors(predictions, targets)).mean())


def mean_absolute_error_gradient(predictions, targets):
    """Gradient of :func:`mean_absolute_error`: sign(ŷ − y) / number of entries, 0 where the error is exactly 0.

    Returns:
        ndarray: the shape of the predictions.
    """
    error = _errors(predictions, targets)
    return np.sign(error) / error.size


def huber(predictions, targets, delta=1.0):
    """Huber loss (Huber, 1964): the mean of ``½ e²`` where ``|e| ≤ δ``, of ``δ |e| − ½ δ²`` elsewhere.

    Args:
        predictions: ŷ, any shape; e = ŷ − y.
        targets: y, the same shape.
        delta: δ > 0, in units of the targets: where the square turns into a line.

    Returns:
        float: in squared units of the targets.
    """
    size, delta = np.abs(_errors(predictions, targets)), _number("delta", delta, above=True)
    return float(np.where(size <= delta, size**2 / 2, delta * size - delta**2 / 2).mean())


def huber_gradient(predictions, targets, delta=1.0):
    """Gradient of :func:`huber`: the error, clipped to [−δ, δ], / number of entries.

    Returns:
        ndarray: the shape of the predictions.
    """
    error, delta = _errors(predictions, targets), _number("delta", delta, above=True)
    return np.clip(error, -delta, delta) / error.size


def _errors(predictions, targets):
    predictions = _array("predictions", predictions)
    return predictions - _array("targets", targets, predictions.shape)


# --- Penalties --------------------------------------------------------------------------------------------------------


def l1(weights, strength):
    """L1 penalty: ``λ Σ |w|``, as Keras' ``L1(λ)`` and the ``alpha`` of scikit-learn's Lasso have it.

    Args:
        weights: w, any shape.
        strength: λ, at least 0.

    Returns:
        float: at least 0.
    """
    return _number("strength", strength) * float(np.abs(_array("weights", weights)).sum())


def l1_gradient(weights, strength):
    """Gradient of :func:`l1`: λ sign(w); at w = 0, where the penalty has a kink, 0.

    Returns:
        ndarray: the shape of the weights.
    """
    return _number("strength", strength) * np.sign(_array("weights", weights))


def l2(weights, strength):
    """L2 penalty: λ/2 Σ w².

    The factor ½ makes the gradient λ w. Keras' ``L2(s)`` is s Σ w², so s = λ/2. In scikit-learn, where the loss is a
    sum over the examples, ``Ridge(alpha)`` is α Σ w² beside a sum of squares, so α = N λ for the loss 1/(2N) Σ e², and
    ``LogisticRegression(C)`` has C = 1/(N λ).

    Args:
        weights: w, any shape.
        strength: λ, at least 0.

    Returns:
        float: at least 0.
    """
    return _number("strength", strength) / 2 * float((_array("weights", weights) ** 2).sum())


def l2_gradient(weights, strength):
    """Gradient of :func:`l2`: λ w.

    Returns:
        ndarray: the shape of the weights.
    """
    return _number("strength", strength) * _array("weights", weights)


def elastic_net(weights, l1_strength, l2_strength):
    """Elastic net (Zou and Hastie, 2005): ``λ₁ Σ |w| + λ₂/2 Σ w²``.

    scikit-learn's ``ElasticNet(alpha, l1_ratio)`` is the same with λ₁ = alpha · l1_ratio, λ₂ = alpha · (1 − l1_ratio).

    Args:
        weights: w, any shape.
        l1_strength: λ₁, at least 0.
        l2_strength: λ₂, at least 0.

    Returns:
        float: at least 0.
    """
    return l1(weights, l1_strength) + l2(weights, l2_strength)


def elastic_net_gradient(weights, l1_strength, l2_strength):
    """Gradient of :func:`elastic_net`: λ₁ sign(w) + λ₂ w.

    Returns:
        ndarray: the shape of the weights.
    """
    return l1_gradient(weights, l1_strength) + l2_gradient(weights, l2_strength)


def l2_sp(weights, start, strength):
    """L2-SP penalty (Li et al., 2018): λ/2 Σ (w − w₀)², a pull towards the pretrained weights instead of towards 0.

    Args:
        weights: w, any shape.
        start: w₀, the weights at the start of fine-tuning, the same shape.
        strength: λ, at least 0.

    Returns:
        float: at least 0.
    """
    weights = _array("weights", weights)
    return l2(weights - _array("start", start, weights.shape), strength)


def l2_sp_gradient(weights, start, strength):
    """Gradient of :func:`l2_sp`: λ (w − w₀).

    Returns:
        ndarray: the shape of the weights.
    """
    weights = _array("weights", weights)
    return l2_gradient(weights - _array("start", start, weights.shape), strength)


def soft_threshold(values, threshold):
    """Soft-thresholding: ``sign(v) · max(|v| − τ, 0)``, the w that makes ``½ (w − v)² + τ |w|`` smallest.

    Args:
        values: v, any shape.
        threshold: τ, at least 0.

    Returns:
        ndarray: the same shape; exactly 0 where ``|v| ≤ τ``.
    """
    v, threshold = _array("values", values), _number("threshold", threshold)
    return np.sign(v) * np.maximum(np.abs(v) - threshold, 0)


# --- Optimizers, one step each ----------------------------------------------------------------------------------------
#
# parameters, state = xxx_step(parameters, gradient, state, learning_rate, ...), with state None at the start and then
# what the step before returned. The formulas are those of the Keras optimizers.


def gradient_descent_step(parameters, gradient, state, learning_rate):
    """One step of gradient descent: w ← w − η g. Keras: ``SGD``.

    Args:
        parameters: w, any shape.
        gradient: g, the same shape.
        state: What the step before returned, or ``None`` at the start; plain gradient descent only counts its steps.
        learning_rate: η > 0: one number, or an array that broadcasts to the parameters (discriminative rates).

    Returns:
        ``(parameters, state)``: the new w, and a dict to pass to the next step.
    """
    w, g, rate, state = _step(parameters, gradient, state, learning_rate)
    return w - rate * g, state


def momentum_step(parameters, gradient, state, learning_rate, momentum=0.9):
    """One step with momentum (Polyak, 1964): u ← μ u − η g; w ← w + u. Keras: ``SGD(momentum=μ)``.

    Args:
        parameters, gradient, state, learning_rate: See :func:`gradient_descent_step`.
        momentum: μ, at least 0 and less than 1.

    Returns:
        ``(parameters, state)``: the new w; the velocity u is ``state["velocity"]``.
    """
    w, g, rate, state = _step(parameters, gradient, state, learning_rate, "velocity")
    u = _share("momentum", momentum) * state["velocity"] - rate * g
    return w + u, {**state, "velocity": u}


def nesterov_step(parameters, gradient, state, learning_rate, momentum=0.9):
    """One step of Nesterov's momentum (Sutskever et al., 2013): u ← μ u − η g; w ← w + μ u − η g.

    As in Keras, ``SGD(momentum=μ, nesterov=True)``, w is the point one look ahead, where the gradient is taken.

    Args:
        parameters, gradient, state, learning_rate: See :func:`gradient_descent_step`.
        momentum: μ, at least 0 and less than 1.

    Returns:
        ``(parameters, state)``: the new w; the velocity u is ``state["velocity"]``.
    """
    w, g, rate, state = _step(parameters, gradient, state, learning_rate, "velocity")
    momentum = _share("momentum", momentum)
    u = momentum * state["velocity"] - rate * g
    return w + momentum * u - rate * g, {**state, "velocity": u}


def rmsprop_step(parameters, gradient, state, learning_rate, rho=0.9, epsilon=1e-7):
    """One step of RMSprop (Tieleman and Hinton, 2012): v ← ρ v + (1 − ρ) g²; w ← w − η g / √(v + ε).

    Args:
        parameters, gradient, state, learning_rate: See :func:`gradient_descent_step`.
        rho: ρ, at least 0 and less than 1.
        epsilon: ε > 0, which as in Keras is under the root.

    Returns:
        ``(parameters, state)``: the new w; the mean square v is ``state["v"]``.
    """
    w, g, rate, state = _step(parameters, gradient, state, learning_rate, "v")
    rho = _share("rho", rho)
    v = rho * state["v"] + (1 - rho) * g**2
    return w - rate * g / np.sqrt(v + _number("epsilon", epsilon, above=True)), {**state, "v": v}


def adam_step(parameters, gradient, state, learning_rate, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """One step of Adam (Kingma and Ba, 2015).

    m ← β₁ m + (1 − β₁) g; v ← β₂ v + (1 − β₂) g²; w ← w − η_t m / (√v + ε), where
    η_t = η √(1 − β₂ᵗ) / (1 − β₁ᵗ) corrects for the start at 0, t = 1 in the first step. This is the form in which Keras
    computes it (in section 2 of the paper); the paper's algorithm 1 adds ε to √(v / (1 − β₂ᵗ)) instead.

    Args:
        parameters, gradient, state, learning_rate: See :func:`gradient_descent_step`.
        beta_1: β₁, at least 0 and less than 1.
        beta_2: β₂, at least 0 and less than 1.
        epsilon: ε > 0.

    Returns:
        ``(parameters, state)``: the new w; ``state`` holds m, v and t as ``"m"``, ``"v"`` and ``"step"``.
    """
    w, g, rate, state = _step(parameters, gradient, state, learning_rate, "m", "v")
    beta_1, beta_2, t = _share("beta_1", beta_1), _share("beta_2", beta_2), state["step"]
    m = beta_1 * state["m"] + (1 - beta_1) * g
    v = beta_2 * state["v"] + (1 - beta_2) * g**2
    rate = rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
    return w - rate * m / (np.sqrt(v) + _number("epsilon", epsilon, above=True)), {**state, "m": m, "v": v}


def adamw_step(parameters, gradient, state, learning_rate, beta_1=0.9, beta_2=0.999, epsilon=1e-7, weight_decay=0.004):
    """One step of AdamW (Loshchilov and Hutter, 2019): w ← w − η λ w, then a step of :func:`adam_step`.

    The decay does not enter m and v, so it is not divided by √v: that is the difference from Adam with an L2 penalty.

    Args:
        parameters, gradient, state, learning_rate: See :func:`gradient_descent_step`.
        beta_1, beta_2, epsilon: See :func:`adam_step`.
        weight_decay: λ, at least 0.

    Returns:
        ``(parameters, state)``: as :func:`adam_step`.
    """
    w, g, rate, _ = _step(parameters, gradient, None, learning_rate)
    decayed = w - rate * _number("weight_decay", weight_decay) * w
    return adam_step(decayed, g, state, rate, beta_1, beta_2, epsilon)


def _step(parameters, gradient, state, learning_rate, *averages):
    """The checked inputs of a step; ``state`` with its count raised, and zeros for the averages at the start."""
    w = _array("parameters", parameters)
    g = _array("gradient", gradient, w.shape)
    rate = _array("learning_rate", learning_rate)
    if rate.min() <= 0:
        raise ValueError(f"learning_rate must be positive, not {learning_rate!r}")
    try:
        np.broadcast_to(rate, w.shape)
    except ValueError as error:
        raise ValueError(
            f"learning_rate must be one number or fit the parameters' shape {w.shape}, not have the shape {rate.shape}"
        ) from error
    if state is None:
        state = {"step": 0, **{name: np.zeros_like(w) for name in averages}}
    if "step" not in state or any(name not in state or state[name].shape != w.shape for name in averages):
        raise ValueError(
            f"state, with {', '.join(state)}, does not fit this optimizer and parameters of the shape {w.shape}: pass "
            "None at the start, and then what the same step function returned"
        )
    return w, g, rate, {**state, "step": state["step"] + 1}


def _share(name, value):
    return _number(name, value, 0, 1, below=True)


# --- Runs of an optimizer ---------------------------------------------------------------------------------------------


def descend(gradient, start, learning_rate, steps, step=gradient_descent_step, **options):
    """Take ``steps`` steps with the gradient of all examples.

    Args:
        gradient: Function that takes parameters and returns their gradient.
        start: Parameters at the start, any shape.
        learning_rate: See :func:`gradient_descent_step`.
        steps: How many.
        step: A step function of this module.
        **options: What the step function takes beyond the learning rate, ``momentum`` for example.

    Returns:
        ndarray: the parameters before the first step and after each, shape (steps + 1, \\*start.shape).

    Raises:
        ValueError: Also where a run diverges so far that parameters or gradient overflow.
    """
    path, state = [_array("start", start)], None
    for _ in range(_count("steps", steps, 0)):
        parameters, state = step(path[-1], gradient(path[-1].copy()), state, learning_rate, **options)
        path.append(parameters)
    return np.stack(path)


def minibatches(n, batch_size, rng):
    """One pass through n examples in a random order, each exactly once.

    Args:
        n: How many examples.
        batch_size: B; the last batch holds what is left and can be smaller.
        rng: A ``numpy.random.Generator``.

    Yields:
        ndarray: the numbers of up to B examples.
    """
    order = rng.permutation(_count("n", n))
    for first in range(0, n, _count("batch_size", batch_size)):
        yield order[first : first + batch_size]


def sgd(gradient, start, n, learning_rate, epochs, batch_size, seed=0, step=gradient_descent_step, **options):
    """Stochastic gradient descent: one step a mini-batch, every example once an epoch, in an order of the seed.

    Args:
        gradient: Function that takes parameters and the numbers of a batch's examples, and returns the gradient of
            their mean loss.
        start: Parameters at the start, any shape.
        n: How many examples there are.
        learning_rate: See :func:`gradient_descent_step`.
        epochs: How many passes.
        batch_size: B, examples a step.
        seed: Of the order.
        step: A step function of this module.
        **options: See :func:`descend`.

    Returns:
        ndarray: the parameters before the first step and after each, shape (1 + epochs · ⌈n / B⌉, \\*start.shape).
    """
    rng = np.random.default_rng(seed)
    path, state = [_array("start", start)], None
    for _ in range(_count("epochs", epochs, 0)):
        for batch in minibatches(n, batch_size, rng):
            parameters, state = step(path[-1], gradient(path[-1].copy(), batch), state, learning_rate, **options)
            path.append(parameters)
    return np.stack(path)


def proximal_descent(gradient, start, learning_rate, steps, l1_strength):
    """Proximal gradient descent, ISTA (Daubechies et al., 2004), for a smooth loss plus ``λ Σ |w|``.

    w ← soft_threshold(w − η g, η λ): a step down the smooth part, then exact zeros from the penalty.

    Args:
        gradient: Function that takes parameters and returns the gradient of the smooth part alone.
        start: Parameters at the start, any shape.
        learning_rate: η > 0, one number; below 1 / λ_max of the smooth part every step lowers the sum.
        steps: How many.
        l1_strength: λ, at least 0.

    Returns:
        ndarray: the parameters after the last step.
    """
    w, rate = _array("start", start), _number("learning_rate", learning_rate, above=True)
    threshold = rate * _number("l1_strength", l1_strength)
    for _ in range(_count("steps", steps, 0)):
        w = soft_threshold(gradient_descent_step(w, gradient(w.copy()), None, rate)[0], threshold)
    return w


# --- Linear models on features ----------------------------------------------------------------------------------------


def ridge(features, targets, strength):
    """Ridge regression in closed form: W = (XᵀX / N + λ I)⁻¹ Xᵀy / N, where :func:`ridge_loss` is smallest.

    There is no intercept: centre features and targets first, or add a column of ones, which is then penalised too.
    scikit-learn's ``Ridge(alpha=N · λ, fit_intercept=False)`` gives the same.

    Args:
        features: X, shape (N, D).
        targets: y, shape (N,) or (N, outputs).
        strength: λ, at least 0; 0 needs D independent features.

    Returns:
        ndarray: the weights, shape (D,) or (D, outputs).
    """
    x, y = _regression(features, targets)
    strength = _number("strength", strength)
    if strength == 0 and np.linalg.matrix_rank(x) < x.shape[1]:
        raise ValueError(
            f"the {x.shape[1]} features are not independent on these {len(x)} examples, so many weights are as good: "
            "give a strength above 0"
        )
    return np.linalg.solve(x.T @ x / len(x) + strength * np.eye(x.shape[1]), x.T @ y / len(x))


def ridge_loss(weights, features, targets, strength=0.0):
    """What ridge regression minimises: J = 1/(2N) ‖X W − y‖² + λ/2 ‖W‖².

    Args:
        weights: W, shape (D,) or (D, outputs), as the targets.
        features: X, shape (N, D).
        targets: y, shape (N,) or (N, outputs).
        strength: λ, at least 0.

    Returns:
        float: J.
    """
    x, y = _regression(features, targets)
    w = _array("weights", weights, (x.shape[1], *y.shape[1:]))
    return float(((x @ w - y) ** 2).sum() / (2 * len(x))) + l2(w, strength)


def ridge_gradient(weights, features, targets, strength=0.0):
    """Gradient of :func:`ridge_loss`: Xᵀ(X W − y) / N + λ W.

    Returns:
        ndarray: the shape of the weights.
    """
    x, y = _regression(features, targets)
    w = _array("weights", weights, (x.shape[1], *y.shape[1:]))
    return x.T @ (x @ w - y) / len(x) + l2_gradient(w, strength)


def _regression(features, targets):
    x, y = _array("features", features, ndim=2), _array("targets", targets)
    if y.ndim not in (1, 2) or len(y) != len(x):
        raise ValueError(f"targets must have the shape ({len(x)},) or ({len(x)}, outputs), not {y.shape}")
    return x, y


def largest_curvature(features, strength=0.0):
    """λ_max, the largest eigenvalue of H = XᵀX / N + λ I, the Hessian of :func:`ridge_loss`.

    Gradient descent on it converges from every start for a rate below 2 / λ_max, and diverges above.

    Args:
        features: X, shape (N, D).
        strength: λ, at least 0.

    Returns:
        float: λ_max.
    """
    x = _array("features", features, ndim=2)
    return float(np.linalg.norm(x, 2) ** 2 / len(x)) + _number("strength", strength)


def logistic_loss(weights, features, targets, l2_strength=0.0):
    """What the softmax head minimises: J = cross_entropy(X W, y) + λ/2 ‖W‖².

    There is no bias: a column of ones in the features gives one, which is then penalised too. scikit-learn's
    ``LogisticRegression(C=1 / (N · λ), fit_intercept=False)`` minimises the same.

    Args:
        weights: W, shape (D, C).
        features: X, shape (N, D).
        targets: Class numbers, shape (N,), or probabilities, shape (N, C).
        l2_strength: λ, at least 0.

    Returns:
        float: J.
    """
    x, w = _head(features, weights)
    return cross_entropy(x @ w, targets) + l2(w, l2_strength)


def logistic_gradient(weights, features, targets, l2_strength=0.0):
    """Gradient of :func:`logistic_loss`: Xᵀ(P − Y) / N + λ W.

    Returns:
        ndarray: shape (D, C).
    """
    x, w = _head(features, weights)
    return x.T @ cross_entropy_gradient(x @ w, targets) + l2_gradient(w, l2_strength)


def _head(features, weights):
    x, w = _array("features", features, ndim=2), _array("weights", weights, ndim=2)
    if x.shape[1] != w.shape[0]:
        raise ValueError(f"weights must have the shape ({x.shape[1]}, C) for {x.shape[1]} features, not {w.shape}")
    return x, w


# --- A network with two layers ----------------------------------------------------------------------------------------


def two_layer_forward(features, parameters):
    """A network with one hidden layer: z = max(X W₁ + b₁, 0) W₂ + b₂.

    Args:
        features: X, shape (N, D).
        parameters: A dict of ``"hidden_kernel"`` W₁ (D, H), ``"hidden_bias"`` b₁ (H,), ``"output_kernel"`` W₂ (H, C)
            and ``"output_bias"`` b₂ (C,).

    Returns:
        ``(logits, cache)``: z, shape (N, C), and what :func:`two_layer_backward` needs again.
    """
    x, w1, b1, w2, b2 = _layers(features, parameters)
    before = x @ w1 + b1
    hidden = np.maximum(before, 0)
    return hidden @ w2 + b2, {"features": x, "before": before, "hidden": hidden}


def two_layer_backward(logits_gradient, cache, parameters):
    """Backpropagation through :func:`two_layer_forward`, the chain rule from the last layer to the first.

    With G = ∂L/∂z: ∂L/∂W₂ = hiddenᵀ G; ∂L/∂b₂ = Σ_i G_i; G₁ = (G W₂ᵀ) · [before > 0]; ∂L/∂W₁ = Xᵀ G₁; ∂L/∂b₁ = Σ_i G₁ᵢ.

    Args:
        logits_gradient: G, shape (N, C), from :func:`cross_entropy_gradient` for example.
        cache: What the forward pass returned.
        parameters: The same as in the forward pass.

    Returns:
        dict: the gradients, under the names and in the shapes of the parameters.
    """
    x, _, _, w2, b2 = _layers(cache["features"], parameters)
    g = _array("logits_gradient", logits_gradient, (len(x), len(b2)))
    g1 = (g @ w2.T) * (cache["before"] > 0)
    return {
        "hidden_kernel": x.T @ g1,
        "hidden_bias": g1.sum(axis=0),
        "output_kernel": cache["hidden"].T @ g,
        "output_bias": g.sum(axis=0),
    }


def _layers(features, parameters):
    names = ("hidden_kernel", "hidden_bias", "output_kernel", "output_bias")
    if set(parameters) != set(names):
        raise ValueError(f"parameters must be a dict of {', '.join(names)}, not of {', '.join(map(str, parameters))}")
    x, b1, b2 = (
        _array("features", features, ndim=2),
        *(_array(name, parameters[name], ndim=1) for name in names[1::2]),
    )
    w1 = _array("hidden_kernel", parameters["hidden_kernel"], (x.shape[1], len(b1)))
    return x, w1, b1, _array("output_kernel", parameters["output_kernel"], (len(b1), len(b2))), b2


# --- Is a gradient right? ---------------------------------------------------------------------------------------------


def numerical_gradient(function, x, step=1e-6):
    """Gradient by central differences: ∂f/∂x_j ≈ (f(x + h e_j) − f(x − h e_j)) / (2h).

    The error is of the order h² from the formula and ``1e-16 · |f| / h`` from rounding.

    Args:
        function: Takes an array of the shape of x and returns a number.
        x: Where, any shape; two calls of the function for each entry.
        step: h > 0.

    Returns:
        ndarray: the shape of x.
    """
    x, h = _array("x", x), _number("step", step, above=True)
    gradient = np.empty_like(x)
    for j in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[j] += h
        down[j] -= h
        gradient[j] = (function(up) - function(down)) / (up[j] - down[j])
    return gradient


def check_gradient(function, gradient, x, step=1e-6):
    """Compare a gradient with :func:`numerical_gradient`: ``max |g − ĝ| / max(|g|, |ĝ|)`` over all entries.

    The largest difference is measured against the largest entry, because rounding spoils a difference quotient by the
    same amount everywhere. Kinks (of max, of ``|x|``) within a step of x show as errors.

    Args:
        function: Takes an array of the shape of x and returns a number.
        gradient: Takes the same array and returns its gradient.
        x: Where, any shape.
        step: h > 0.

    Returns:
        float: about 1e-9 to 1e-7 for a right gradient, about 1 for a wrong one; 0 where both are 0.
    """
    x = _array("x", x)
    ours, numerical = _array("gradient", gradient(x.copy()), x.shape), numerical_gradient(function, x, step)
    largest = max(np.abs(ours).max(), np.abs(numerical).max())
    return float(np.abs(ours - numerical).max() / largest) if largest > 0 else 0.0


# --- Convolution and pooling, and their way back ----------------------------------------------------------------------


def conv2d(images, kernel, stride=1, padding="same"):
    """Convolution as networks have it (the kernel is not flipped), without a bias.

    out[n, r, c] = Σ_ij x[n, s·r + i, s·c + j] · kernel[i, j], with x padded by zeros and stride s.

    Args:
        images: Shape (N, H, W, channels).
        kernel: Shape (height, width, channels, filters).
        stride: Step of the kernel in both directions.
        padding: ``"same"`` adds zeros so that the output has ⌈H / stride⌉ rows, as TensorFlow places them (the odd one
            at the end); ``"valid"`` adds none.

    Returns:
        ndarray: shape (N, rows, columns, filters).
    """
    images, kernel, padded, _, (rows, columns) = _convolution(images, kernel, stride, padding)
    out = np.zeros((len(images), rows, columns, kernel.shape[3]))
    for i, j in np.ndindex(kernel.shape[:2]):
        out += padded[:, i : i + stride * rows : stride, j : j + stride * columns : stride] @ kernel[i, j]
    return out


def conv2d_backward(gradient, images, kernel, stride=1, padding="same"):
    """The way back through :func:`conv2d`: from the gradient of its output to those of its two inputs.

    Every product of the way forward, x · kernel[i, j], gives its share: ∂L/∂kernel[i, j] = Σ xᵀ g over all images and
    positions, and ∂L/∂x = Σ_ij g · kernel[i, j]ᵀ, written back to where x was read.

    Args:
        gradient: ∂L/∂out, shape (N, rows, columns, filters).
        images: What :func:`conv2d` was given.
        kernel: What :func:`conv2d` was given.
        stride: As for :func:`conv2d`.
        padding: As for :func:`conv2d`.

    Returns:
        ``(images_gradient, kernel_gradient)``: of the shapes of ``images`` and ``kernel``.
    """
    images, kernel, padded, (top, left), (rows, columns) = _convolution(images, kernel, stride, padding)
    gradient = _array("gradient", gradient, (len(images), rows, columns, kernel.shape[3]))
    padded_gradient, kernel_gradient = np.zeros_like(padded), np.zeros_like(kernel)
    for i, j in np.ndindex(kernel.shape[:2]):
        read = (slice(None), slice(i, i + stride * rows, stride), slice(j, j + stride * columns, stride))
        kernel_gradient[i, j] = np.tensordot(padded[read], gradient, ([0, 1, 2], [0, 1, 2]))
        padded_gradient[read] += gradient @ kernel[i, j].T
    height, width = images.shape[1:3]
    return padded_gradient[:, top : top + height, left : left + width], kernel_gradient


def max_pool2d(images, size=2):
    """The largest value of each window of ``size`` × ``size``; rows and columns that fill no window are left out.

    Args:
        images: Shape (N, H, W, channels).
        size: Side of a window, and the step from one to the next.

    Returns:
        ndarray: shape (N, H // size, W // size, channels).
    """
    return _windows(_array("images", images, ndim=4), size).max(axis=3)


def max_pool2d_backward(gradient, images, size=2):
    """The way back through :func:`max_pool2d`: the gradient goes to the place of the maximum, the first one of equals.

    Args:
        gradient: ∂L/∂out, shape (N, H // size, W // size, channels).
        images: What :func:`max_pool2d` was given.
        size: As for :func:`max_pool2d`.

    Returns:
        ndarray: ∂L/∂images, of the shape of ``images``.
    """
    images = _array("images", images, ndim=4)
    windows = _windows(images, size)
    n, rows, columns, _, channels = windows.shape
    gradient = _array("gradient", gradient, (n, rows, columns, channels))
    first = windows.argmax(axis=3)[:, :, :, None] == np.arange(size * size)[:, None]
    parts = (first * gradient[:, :, :, None]).reshape(n, rows, columns, size, size, channels)
    out = np.zeros_like(images)
    out[:, : rows * size, : columns * size] = parts.transpose(0, 1, 3, 2, 4, 5).reshape(
        n, rows * size, columns * size, channels
    )
    return out


def global_average_pool(maps):
    """The mean of each feature map: (N, H, W, channels) to (N, channels)."""
    return _array("maps", maps, ndim=4).mean(axis=(1, 2))


def global_average_pool_backward(gradient, maps):
    """The way back through :func:`global_average_pool`: every position gets an equal share, 1 / (H · W).

    Args:
        gradient: ∂L/∂out, shape (N, channels).
        maps: What :func:`global_average_pool` was given.

    Returns:
        ndarray: ∂L/∂maps, of the shape of ``maps``.
    """
    maps = _array("maps", maps, ndim=4)
    gradient = _array("gradient", gradient, (len(maps), maps.shape[3]))
    return np.broadcast_to(gradient[:, None, None] / (maps.shape[1] * maps.shape[2]), maps.shape).copy()


def filter_direction(weights, seed=0):
    """A random direction whose filters are as long as those of the network (Li et al., 2018, "filter normalisation").

    A step of length r along it changes every filter by r times its own length, so that r means the same in each layer
    and in each network. A filter is what makes one output channel: all weights with the same last index. Biases, scales
    and shifts (arrays with one axis) stay where they are.

    Args:
        weights: List of arrays, such as ``model.get_weights()``.
        seed: An integer, or a sequence of integers.

    Returns:
        list: One array a weight, of its shape.
    """
    rng = np.random.default_rng(seed)
    direction = []
    for i, weight in enumerate(weights):
        weight = _array(f"the weights of array {i}", weight)
        if weight.ndim < 2:
            direction.append(np.zeros_like(weight))
            continue
        random, axes = rng.normal(size=weight.shape), tuple(range(weight.ndim - 1))
        length = np.sqrt((weight**2).sum(axis=axes))
        direction.append(random * length / np.sqrt((random**2).sum(axis=axes)))
    return direction


def _convolution(images, kernel, stride, padding):
    """Checked inputs, the padded images, where they begin in them, and the rows and columns of the output."""
    images, kernel = _array("images", images, ndim=4), _array("kernel", kernel, ndim=4)
    if kernel.shape[2] != images.shape[3]:
        raise ValueError(
            f"the kernel {kernel.shape} takes {kernel.shape[2]} channels (its third axis), the images {images.shape} "
            f"have {images.shape[3]}"
        )
    stride = _count("stride", stride)
    if padding not in ("same", "valid"):
        raise ValueError(f"padding must be 'same' or 'valid', not {padding!r}")
    sides, pads = [], []
    for length, width in zip(images.shape[1:3], kernel.shape[:2]):
        if padding == "valid" and length < width:
            raise ValueError(f"a kernel {kernel.shape[:2]} does not fit into images {images.shape[1:3]}; pad them")
        sides.append(-(-length // stride) if padding == "same" else (length - width) // stride + 1)
        missing = max((sides[-1] - 1) * stride + width - length, 0) if padding == "same" else 0
        pads.append((missing // 2, missing - missing // 2))
    padded = np.pad(images, [(0, 0), *pads, (0, 0)])
    return images, kernel, padded, (pads[0][0], pads[1][0]), sides


def _windows(images, size):
    """Windows of size × size that lie side by side: shape (N, rows, columns, size · size, channels)."""
    n, height, width, channels = images.shape
    if _count("size", size) > min(height, width):
        raise ValueError(
            f"size must be at most {min(height, width)}, as the images are {height} × {width}, not {size!r}"
        )
    rows, columns = height // size, width // size
    kept = images[:, : rows * size, : columns * size].reshape(n, rows, size, columns, size, channels)
    return kept.transpose(0, 1, 3, 2, 4, 5).reshape(n, rows, columns, size * size, channels)


def logistic_curvature(weights, features, l2_strength=0.0, steps=1000, tolerance=1e-10):
    """The largest eigenvalue of the Hessian of :func:`logistic_loss` at some weights, by power iteration.

    The Hessian is applied without being built: it turns a direction V into Xᵀ(p ∘ (a − p·a)) / N + λ V with a = X V.

    Args:
        weights: W, shape (D, C).
        features: X, shape (N, D).
        l2_strength: λ, at least 0.
        steps: Iterations at most.
        tolerance: Relative change of the eigenvalue below which the iteration ends.

    Returns:
        float: λ_max, from below.
    """
    x, w = _head(features, weights)
    strength = _number("l2_strength", l2_strength)
    p = softmax(x @ w)
    direction, found = np.random.default_rng(0).normal(size=w.shape), 0.0
    for _ in range(_count("steps", steps)):
        direction = direction / np.linalg.norm(direction)
        a = x @ direction
        image = x.T @ (p * (a - (p * a).sum(axis=1, keepdims=True))) / len(x) + strength * direction
        before, found = found, float((direction * image).sum())
        if abs(found - before) <= tolerance * found:
            break
        direction = image
    return found
