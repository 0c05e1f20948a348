"""The formulas in NumPy, each against Keras, automatic differentiation, scikit-learn or a difference quotient."""

import ast
import inspect
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tlutils import backbones, data, features
from tlutils import reference as r

SHAPES = [(1, 2), (7, 3), (40, 10)]
ANY_SHAPES = [(5,), (6, 3), (2, 3, 4)]


def autodiff(function, x):
    """A function of a float64 tensor at x: its value, and its gradient by automatic differentiation."""
    import tensorflow as tf

    x = tf.Variable(np.asarray(x, "float64"), dtype="float64")
    with tf.GradientTape() as tape:
        value = tf.convert_to_tensor(function(x))
    assert value.dtype == tf.float64
    return float(value), tape.gradient(value, x).numpy()


def agree(found, expected, relative=1e-8):
    """Within ``relative`` entry by entry; entries that are 0 up to rounding may differ by rounding."""
    np.testing.assert_allclose(found, expected, rtol=relative, atol=1e-15)


def examples(shape, seed=0, scale=3.0):
    """Random logits, class numbers, and target probabilities."""
    rng = np.random.default_rng(seed)
    return (
        scale * rng.normal(size=shape),
        rng.integers(0, shape[1], shape[0]),
        rng.dirichlet(np.ones(shape[1]), shape[0]),
    )


def hard_and_soft(shape, seed=0):
    logits, labels, soft = examples(shape, seed)
    return [(logits, labels, np.eye(shape[1])[labels]), (logits, soft, soft)]


# --- the module alone -------------------------------------------------------------------------------------------------


def test_the_module_imports_only_numpy():
    code = "import sys, tlutils.reference; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in loaded
    assert not {"tensorflow", "keras", "scipy", "sklearn", "matplotlib", "PIL"} & set(loaded)


def test_the_file_works_without_the_package(tmp_path):
    """Not even inside a function is there another import, and a copy of the file runs by itself."""
    source = Path(r.__file__).read_text(encoding="utf-8")
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in imports] == ["import numpy as np"]
    (tmp_path / "alone.py").write_text(source, encoding="utf-8")
    code = "import alone; print(alone.cross_entropy([[0.0, 0.0]], [1]))"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert float(run.stdout) == pytest.approx(np.log(2))


def test_a_gradient_takes_the_arguments_of_its_function():
    functions = dict(inspect.getmembers(r, inspect.isfunction))
    gradients = [
        name
        for name in functions
        if name.endswith("_gradient") and name not in ("numerical_gradient", "check_gradient")
    ]
    assert len(gradients) >= 13
    for name in gradients:
        stem = name.removesuffix("_gradient")
        function = functions.get(f"{stem}_loss", functions.get(stem))
        assert inspect.signature(functions[name]) == inspect.signature(function)


# --- softmax, sigmoid, targets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [*SHAPES, (4,), (2, 3, 5)])
def test_softmax_and_sigmoid_agree_with_scipy(shape):
    from scipy import special

    z = 5 * np.random.default_rng(1).normal(size=shape)
    agree(r.softmax(z), special.softmax(z, axis=-1), 1e-13)
    agree(r.log_softmax(z), special.log_softmax(z, axis=-1), 1e-13)
    agree(r.sigmoid(z), special.expit(z), 1e-13)


def test_softmax_does_not_see_a_constant():
    z, _, _ = examples((6, 4))
    agree(r.softmax(z + 1e4), r.softmax(z), 1e-10)


def test_float32_input_is_computed_in_float64():
    z = examples((6, 4))[0].astype("float32")
    assert r.softmax(z).dtype == r.cross_entropy_gradient(z, [0, 1, 2, 3, 0, 1]).dtype == np.float64
    agree(r.softmax(z), r.softmax(z.astype("float64")), 1e-15)


def test_one_hot():
    np.testing.assert_array_equal(r.one_hot([2, 0], 3), [[0, 0, 1], [1, 0, 0]])


@pytest.mark.usefixtures("tensorflow")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_smoothed_labels_give_the_loss_of_keras(shape, smoothing):
    import keras

    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing, dtype="float64")
    z, labels, soft = examples(shape)
    for targets, y in ((labels, np.eye(shape[1])[labels]), (soft, soft)):
        smooth = r.smooth_labels(targets, smoothing, shape[1])
        value, gradient = autodiff(lambda t, y=y: loss(y, t), z)
        agree(r.cross_entropy(z, smooth), value)
        agree(r.cross_entropy_gradient(z, smooth), gradient)
    agree(r.smooth_labels(soft, smoothing), r.smooth_labels(soft, smoothing, shape[1]))


def test_balanced_weights_agree_with_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.random.default_rng(0).choice(4, 200, p=[0.7, 0.2, 0.05, 0.05])
    weights = r.balanced_class_weight(labels, 4)
    agree(weights, compute_class_weight("balanced", classes=np.arange(4), y=labels), 1e-14)
    assert weights[labels].mean() == pytest.approx(1)


# --- losses of classifiers --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tensorflow")
@pytest.mark.parametrize("shape", SHAPES)
def test_cross_entropy_agrees_with_keras(shape):
    import keras

    loss = keras.losses.CategoricalCrossentropy(from_logits=True, dtype="float64")
    weights = np.random.default_rng(2).uniform(0, 3, shape[1])
    for z, targets, y in hard_and_soft(shape):
        for class_weight, of_example in ((None, None), (weights, weights[y.argmax(axis=1)])):
            value, gradient = autodiff(lambda t, y=y, w=of_example: loss(y, t, sample_weight=w), z)
            agree(r.cross_entropy(z, targets, class_weight), value)
            agree(r.cross_entropy_gradient(z, targets, class_weight), gradient)


@pytest.mark.usefixtures("tensorflow")
@pytest.mark.parametrize("kind", ["numbers", "one-hot", "soft"])
def test_class_weights_mean_what_they_mean_in_training(kind):
    """The loss that Keras reports for a batch when it is given ``class_weight``, in float32."""
    import keras

    z, labels, soft = examples((12, 3))
    weights = np.array([0.2, 1.0, 4.0])
    targets = {"numbers": labels, "one-hot": np.eye(3)[labels], "soft": soft}[kind]
    sparse = "Sparse" if kind == "numbers" else ""
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(3, kernel_initializer="identity")])
    model.compile("sgd", getattr(keras.losses, f"{sparse}CategoricalCrossentropy")(from_logits=True), run_eagerly=True)
    reported = model.train_on_batch(z, targets, class_weight=dict(enumerate(weights)))
    assert r.cross_entropy(z, targets, weights) == pytest.approx(float(reported), rel=1e-5)


@pytest.mark.usefixtures("tensorflow")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("epsilon", [0.0, 1e-7])
def test_cross_entropy_from_probabilities_agrees_with_keras(shape, epsilon):
    """Keras divides p by its sum first: with G by the normalised p, the gradient by p is G − Σ_c G_c p_c."""
    import keras

    loss = keras.losses.CategoricalCrossentropy(dtype="float64")
    for z, targets, y in hard_and_soft(shape):
        p = r.softmax(z)
        if epsilon:  # Keras clips here
            p[0] = 1e-9
            p[0, 0] = 1 - p[0, 1:].sum()
            assert p[0, 1:].max() < epsilon
        value, gradient = autodiff(lambda t, y=y: loss(y, t), p)
        ours = r.cross_entropy_from_probabilities_gradient(p, targets, epsilon)
        agree(r.cross_entropy_from_probabilities(p, targets, epsilon), value)
        agree(ours - (ours * p).sum(axis=1, keepdims=True), gradient)


@pytest.mark.usefixtures("tensorflow")
@pytest.mark.parametrize("shape", SHAPES)
def test_cross_entropy_from_probabilities_agrees_with_autodiff(shape):
    import tensorflow as tf

    for z, targets, y in hard_and_soft(shape):
        p = r.softmax(z)
        value, gradient = autodiff(lambda t, y=y: -tf.reduce_mean(tf.reduce_sum(y * tf.math.log(t), axis=1)), p)
        agree(r.cross_entropy_from_probabilities(p, targets), value)
        agree(r.cross_entropy_from_probabilities_gradient(p, targets), gradient)
        agree(r.cross_entropy_from_probabilities(p, targets), r.cross_entropy(z, targets))


def test_nothing_is_clipped_unless_asked_for():
    p, labels = [[0.0, 1.0], [1.0, 0.0]], [0, 0]
    assert r.cross_entropy_from_probabilities(p, labels) == np.inf
    assert r.cross_entropy_from_probabilities(p, [1, 0]) == 0
    np.testing.assert_array_equal(r.cross_entropy_from_probabilities_gradient(p, labels), [[-np.inf, 0], [-0.5, 0]])
    assert r.cross_entropy_from_probabilities(p, labels, 1e-7) == pytest.approx(-np.log(1e-7) / 2, rel=1e-6)
    np.testing.assert_array_equal(r.cross_entropy_from_probabilities_gradient(p, labels, 1e-7), np.zeros((2, 2)))


@pytest.mark.usefixtures("tensorflow")
@pytest.mark.parametrize("shape", ANY_SHAPES)
def test_binary_cross_entropy_agrees_with_keras(shape):
    import keras

    loss = keras.losses.BinaryCrossentropy(from_logits=True, dtype="float64")
    rng = np.random.default_rng(3)
    z = 3 * rng.normal(size=shape)
    for t in (rng.integers(0, 2, shape).astype("float64"), rng.uniform(size=shape)):
        value, gradient = autodiff(lambda tensor, t=t: loss(t, tensor), z)
        agree(r.binary_cross_entropy(z, t), value)
        agree(r.binary_cross_entropy_gradient(z, t), gradient)


def test_two_classes_are_the_binary_case():
    """Softmax over (0, z) is the sigmoid of z."""
    z, _, _ = examples((9, 2))
    labels = np.arange(9) % 2
    agree(r.cross_entropy(z, labels), r.binary_cross_entropy(z[:, 1] - z[:, 0], labels), 1e-12)


@pytest.mark.usefixtures("tensorflow")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.5])
def test_focal_loss_agrees_with_keras(shape, gamma):
    import keras

    for alpha in (None, 0.25, np.random.default_rng(4).uniform(0, 2, shape[1])):
        given = 1.0 if alpha is None else alpha if np.ndim(alpha) == 0 else alpha[None]
        loss = keras.losses.CategoricalFocalCrossentropy(given, gamma, from_logits=True, dtype="float64")
        for z, targets, y in hard_and_soft(shape):
            value, gradient = autodiff(lambda t, y=y, loss=loss: loss(y, t), z)
            agree(r.focal_loss(z, targets, gamma, alpha), value)
            agree(r.focal_loss_gradient(z, targets, gamma, alpha), gradient)


def test_focal_loss_without_focus_is_cross_entropy():
    z, labels, soft = examples((9, 4))
    for targets in (labels, soft):
        agree(r.focal_loss(z, targets, gamma=0), r.cross_entropy(z, targets), 1e-12)
        agree(r.focal_loss_gradient(z, targets, gamma=0), r.cross_entropy_gradient(z, targets), 1e-12)


FROM_LOGITS = {
    "cross_entropy": (r.cross_entropy, r.cross_entropy_gradient),
    "focal_loss": (r.focal_loss, r.focal_loss_gradient),
    "focal_loss, gamma 0.5": (partial(r.focal_loss, gamma=0.5), partial(r.focal_loss_gradient, gamma=0.5)),
    "focal_loss, gamma 0": (partial(r.focal_loss, gamma=0), partial(r.focal_loss_gradient, gamma=0)),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FROM_LOGITS)
def test_extreme_logits_of_classes(name):
    """Logits of ±1e4, right and wrong: the loss is the gap between them, the gradient p − y, and nothing warns."""
    loss, gradient = FROM_LOGITS[name]
    z = 1e4 * np.array([[1, -1, 0], [1, -1, 0], [-1, -1, 1], [1, 1, -1], [-1, -1, -1]])
    for labels in ([0] * 5, [1] * 5, [2] * 5):
        assert np.isfinite(loss(z, labels)) and np.isfinite(gradient(z, labels)).all()
    assert np.isfinite(loss(z, np.full((5, 3), 1 / 3))) and np.isfinite(gradient(z, np.full((5, 3), 1 / 3))).all()
    assert loss(z[:1], [0]) == 0
    assert loss(z[:1], [1]) == 2e4
    np.testing.assert_array_equal(gradient(z[:1], [0]), [[0, 0, 0]])
    np.testing.assert_array_equal(gradient(z[:1], [1]), [[1, -1, 0]])


@pytest.mark.filterwarnings("error")
def test_extreme_logits_of_one_class():
    z = np.array([1e4, -1e4, 1e4, -1e4])
    assert r.binary_cross_entropy(z, [1, 0, 0, 1]) == 5e3
    np.testing.assert_array_equal(r.binary_cross_entropy_gradient(z, [1, 0, 0, 1]), [0, 0, 0.25, -0.25])
    np.testing.assert_array_equal(r.sigmoid(z), [1, 0, 1, 0])
    np.testing.assert_array_equal(r.softmax(z), [0.5, 0, 0.5, 0])
    assert np.isfinite(r.log_softmax(z)).all()


@pytest.mark.filterwarnings("error")
def test_focal_loss_next_to_certainty():
    """Between p = 0.5 and p = 1 up to the last bit the derivative follows the closed form of two classes."""
    for gap in (0.0, 5.0, 15.0, 30.0, 36.0, 40.0):
        rest = 1 / (1 + np.exp(gap))  # 1 − p, exact also where p rounds to 1
        log_p = np.log1p(-rest)
        for gamma in (0.5, 2.0):
            expected = rest**gamma * (gamma * (1 - rest) * log_p - rest)
            found = r.focal_loss_gradient([[gap, 0.0]], [0], gamma)[0]
            assert found == pytest.approx([expected, -expected], rel=1e-3, abs=1e-15)


# --- losses of regression ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tensorflow")
@pytest.mark.parametrize("shape", ANY_SHAPES)
@pytest.mark.parametrize(
    "name, options",
    [
        ("MeanSquaredError", {}),
        ("MeanAbsoluteError", {}),
        ("Huber", {"delta": 1.0}),
        ("Huber", {"delta": 0.3}),
        ("Huber", {"delta": 50.0}),
    ],
)
def test_regression_losses_agree_with_keras(shape, name, options):
    import keras

    ours = {"MeanSquaredError": "mean_squared_error", "MeanAbsoluteError": "mean_absolute_error", "Huber": "huber"}[
        name
    ]
    loss = getattr(keras.losses, name)(**options, dtype="float64")
    rng = np.random.default_rng(5)
    predictions, targets = 3 * rng.normal(size=shape), rng.normal(size=shape)
    predictions.flat[0] = targets.flat[0]  # the kink of the absolute error
    value, gradient = autodiff(lambda t: loss(targets, t), predictions)
    agree(getattr(r, ours)(predictions, targets, **options), value)
    agree(getattr(r, f"{ours}_gradient")(predictions, targets, **options), gradient)


# --- penalties --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tensorflow")
@pytest.mark.parametrize("shape", [(), *ANY_SHAPES])
def test_penalties_agree_with_autodiff_and_keras(shape):
    """Keras' regularizers, which compute in float32, confirm the factors."""
    import tensorflow as tf
    from keras import regularizers

    rng = np.random.default_rng(6)
    w, start = np.asarray(rng.normal(size=shape)), np.asarray(rng.normal(size=shape))

    def size(t):
        return tf.reduce_sum(tf.abs(t))

    def squares(t):
        return tf.reduce_sum(t**2)

    for name, arguments, formula, of_keras, point in (
        ("l1", (0.3,), lambda t: 0.3 * size(t), regularizers.L1(0.3), w),
        ("l2", (0.3,), lambda t: 0.15 * squares(t), regularizers.L2(0.15), w),
        ("elastic_net", (0.2, 0.7), lambda t: 0.2 * size(t) + 0.35 * squares(t), regularizers.L1L2(0.2, 0.35), w),
        ("l2_sp", (start, 0.3), lambda t: 0.15 * squares(t - start), regularizers.L2(0.15), w - start),
    ):
        value, gradient = autodiff(formula, w)
        found = getattr(r, name)(w, *arguments)
        agree(found, value)
        agree(getattr(r, f"{name}_gradient")(w, *arguments), gradient)
        assert found == pytest.approx(float(of_keras(point.astype("float32"))), rel=1e-5)


def test_soft_threshold_solves_its_problem():
    """The w on a fine grid at which ½ (w − v)² + τ |w| is smallest."""
    grid = np.linspace(-3, 3, 60001)
    values = np.random.default_rng(7).uniform(-2, 2, 30)
    found = r.soft_threshold(values, 0.8)
    best = grid[((grid - values[:, None]) ** 2 / 2 + 0.8 * np.abs(grid)).argmin(axis=1)]
    np.testing.assert_allclose(found, best, atol=1e-4)
    np.testing.assert_array_equal(found == 0, np.abs(values) <= 0.8)
    np.testing.assert_array_equal(r.soft_threshold(values, 0), values)


# --- optimizers -------------------------------------------------------------------------------------------------------

OPTIMIZERS = {
    "gradient descent": (r.gradient_descent_step, "SGD", {}, {}),
    "momentum": (r.momentum_step, "SGD", {}, {"momentum": 0.9}),
    "momentum 0.5": (r.momentum_step, "SGD", {"momentum": 0.5}, {"momentum": 0.5}),
    "nesterov": (r.nesterov_step, "SGD", {}, {"momentum": 0.9, "nesterov": True}),
    "rmsprop": (r.rmsprop_step, "RMSprop", {}, {}),
    "rmsprop, options": (r.rmsprop_step, "RMSprop", *2 * [{"rho": 0.5, "epsilon": 1e-3}]),
    "adam": (r.adam_step, "Adam", {}, {}),
    "adam, options": (r.adam_step, "Adam", *2 * [{"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3}]),
    "adamw": (r.adamw_step, "AdamW", {}, {}),
    "adamw, options": (r.adamw_step, "AdamW", *2 * [{"weight_decay": 0.1, "beta_2": 0.99}]),
}


def softmax_head(n=60, d=6, classes=3, seed=8):
    """Features with columns of different scales and labels that depend on them, and a random start."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * np.geomspace(0.3, 3, d)
    labels = (x @ rng.normal(size=(d, classes)) + rng.normal(size=(n, classes))).argmax(axis=1)
    return x, labels, rng.normal(size=(d, classes))


@pytest.mark.usefixtures("tensorflow")
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("kind", ["one gradient for both", "each its own gradient"])
def test_optimizers_agree_with_keras(name, kind):
    """50 steps on the loss of a softmax head, with Keras in float32.

    What is left under Adam, 3e-6 of the largest parameter, is Keras' rounding of 0.999 to float32: see the next test.
    """
    import keras

    step, keras_name, options, keras_options = OPTIMIZERS[name]
    x, labels, start = softmax_head()
    start = start.astype("float32")
    rate = 0.1 if keras_name == "SGD" else 0.01
    optimizer = getattr(keras.optimizers, keras_name)(rate, **keras_options)
    variable = keras.Variable(start)
    parameters, state = start, None
    for _ in range(50):
        theirs = r.logistic_gradient(variable.numpy(), x, labels, 0.01).astype("float32")
        ours = theirs if kind == "one gradient for both" else r.logistic_gradient(parameters, x, labels, 0.01)
        optimizer.apply([theirs], [variable])
        parameters, state = step(parameters, ours, state, rate, **options)
    assert state["step"] == 50
    assert np.abs(parameters - start).max() > 0.1  # it went somewhere
    assert np.abs(parameters - variable.numpy()).max() <= 1e-5 * np.abs(parameters).max()


@pytest.mark.usefixtures("tensorflow")
@pytest.mark.parametrize(
    "step, name, options, keras_options",
    [
        (r.gradient_descent_step, "SGD", {}, {}),
        (r.momentum_step, "SGD", *2 * [{"momentum": 0.875}]),
        (r.nesterov_step, "SGD", {"momentum": 0.875}, {"momentum": 0.875, "nesterov": True}),
        (r.rmsprop_step, "RMSprop", *2 * [{"rho": 0.875, "epsilon": 2**-20}]),
        (r.adam_step, "Adam", *2 * [{"beta_1": 0.875, "beta_2": 1 - 2**-10, "epsilon": 2**-20}]),
        (
            r.adamw_step,
            "AdamW",
            *2 * [{"beta_1": 0.875, "beta_2": 1 - 2**-10, "weight_decay": 2**-4, "epsilon": 2**-20}],
        ),
    ],
)
def test_optimizers_are_those_of_keras_to_the_last_digits(step, name, options, keras_options):
    """In float64, with options that float32 holds exactly, because Keras passes them through it."""
    import keras

    x, labels, start = softmax_head()
    optimizer = getattr(keras.optimizers, name)(2**-6, **keras_options)
    variable = keras.Variable(start, dtype="float64")
    parameters, state = start, None
    for _ in range(50):
        gradient = r.logistic_gradient(variable.numpy(), x, labels, 0.01)
        optimizer.apply([gradient], [variable])
        parameters, state = step(parameters, gradient, state, 2**-6, **options)
    assert np.abs(parameters - variable.numpy()).max() <= 1e-12 * np.abs(parameters).max()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_changes_no_input(name):
    step, options = OPTIMIZERS[name][0], OPTIMIZERS[name][2]
    w, g = np.ones((2, 3)), np.full((2, 3), 0.5)
    _, state = step(w, g, None, 0.1, **options)
    kept = {key: np.copy(value) for key, value in state.items()}
    _, later = step(w, g, state, 0.1, **options)
    np.testing.assert_array_equal(w, np.ones((2, 3)))
    np.testing.assert_array_equal(g, np.full((2, 3), 0.5))
    assert state.keys() == kept.keys() == later.keys() and later["step"] == state["step"] + 1 == 2
    for key, value in kept.items():
        np.testing.assert_array_equal(state[key], value)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_rate_for_each_parameter(name):
    """Discriminative rates: the same as one run for each part."""
    step, options = OPTIMIZERS[name][0], OPTIMIZERS[name][2]
    start = softmax_head()[2]
    gradients = np.random.default_rng(9).normal(size=(5, *start.shape))

    def run(rate):
        parameters, state = start, None
        for gradient in gradients:
            parameters, state = step(parameters, gradient, state, rate, **options)
        return parameters

    rates = np.array([[0.1]] * 3 + [[0.01]] * 3)
    found = run(rates)
    agree(found[:3], run(0.1)[:3], 1e-13)
    agree(found[3:], run(0.01)[3:], 1e-13)


def test_adamw_is_not_adam_with_an_l2_penalty_but_sgd_cannot_tell():
    """Why weight decay has a name of its own: the two differ under Adam, and are one under plain gradient descent."""
    x, labels, start = softmax_head()
    gradient, penalised = (partial(r.logistic_gradient, features=x, targets=labels, l2_strength=s) for s in (0, 0.1))
    decayed = r.descend(gradient, start, 0.01, 20, r.adamw_step, weight_decay=0.1)
    assert np.abs(decayed[-1] - r.descend(penalised, start, 0.01, 20, r.adam_step)[-1]).max() > 0.01
    w = start
    for _ in range(20):
        w = w - 0.01 * 0.1 * w - 0.01 * gradient(w)
    agree(w, r.descend(penalised, start, 0.01, 20)[-1], 1e-12)


# --- runs -------------------------------------------------------------------------------------------------------------


def ridge_problem(n=50, d=8, seed=10):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
    return x, x @ rng.normal(size=d) + rng.normal(size=n), rng.normal(size=d)


def test_descend_follows_the_formula_on_a_quadratic():
    """w_t − w* = (1 − η a)ᵗ (w_0 − w*) for the gradient a (w − w*), and the path starts at the start."""
    path = r.descend(lambda w: 3 * (w - 2), np.array([7.0, 2.0]), 0.1, 6)
    assert path.shape == (7, 2)
    agree(path, 2 + 0.7 ** np.arange(7)[:, None] * np.array([5.0, 0.0]), 1e-13)
    assert r.descend(lambda w: w, 1.0, 0.1, 0).shape == (1,)


@pytest.mark.parametrize("strength", [0.1, 1.0])
def test_the_largest_rate_that_converges(strength):
    """On ridge regression 2 / λ_max parts convergence from divergence to within 1%."""
    x, y, start = ridge_problem()
    curvature = r.largest_curvature(x, strength)
    assert curvature == pytest.approx(np.linalg.eigvalsh(x.T @ x / len(x)).max() + strength, rel=1e-12)
    best = r.ridge(x, y, strength)
    gradient = partial(r.ridge_gradient, features=x, targets=y, strength=strength)
    distance = {
        factor: np.linalg.norm(r.descend(gradient, start, factor * 2 / curvature, 4000)[[0, 2000, 4000]] - best, axis=1)
        for factor in (0.99, 1.01)
    }
    assert distance[0.99][2] < 1e-6 * distance[0.99][0]
    assert distance[1.01][2] > 1e6 * distance[1.01][1] > 1e6 * distance[1.01][0]


def test_minibatches_cover_every_example_once():
    batches = list(r.minibatches(10, 4, np.random.default_rng(0)))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert sorted(np.concatenate(batches)) == list(range(10))
    others = np.concatenate(list(r.minibatches(10, 4, np.random.default_rng(1))))
    assert list(others) != list(np.concatenate(batches))


def test_sgd_with_one_batch_is_gradient_descent():
    x, labels, start = softmax_head()
    full = r.descend(partial(r.logistic_gradient, features=x, targets=labels), start, 0.1, 12, r.momentum_step)
    path = r.sgd(
        lambda w, i: r.logistic_gradient(w, x[i], labels[i]), start, 60, 0.1, 12, 60, step=r.momentum_step, momentum=0.9
    )
    agree(path, full, 1e-10)


def test_sgd_takes_a_step_a_batch_in_the_order_of_its_seed():
    x, labels, start = softmax_head()
    seen = []

    def gradient(w, indices):
        seen.append(indices)
        return r.logistic_gradient(w, x[indices], labels[indices])

    path = r.sgd(gradient, start, 60, 0.1, epochs=3, batch_size=16, seed=5)
    assert path.shape == (1 + 3 * 4, *start.shape)
    agree(path[1], start - 0.1 * r.logistic_gradient(start, x[seen[0]], labels[seen[0]]), 1e-13)
    epochs = [np.concatenate(seen[i : i + 4]) for i in (0, 4, 8)]
    assert all(sorted(epoch) == list(range(60)) for epoch in epochs) and list(epochs[0]) != list(epochs[1])
    np.testing.assert_array_equal(path, r.sgd(gradient, start, 60, 0.1, 3, 16, seed=5))
    assert (path[1:] != r.sgd(gradient, start, 60, 0.1, 3, 16, seed=6)[1:]).any()


def test_a_run_that_overflows_says_so():
    with (
        np.errstate(over="ignore", invalid="ignore"),
        pytest.raises(ValueError, match=r"divergence.*lower learning rate"),
    ):
        r.descend(lambda w: 10 * w, np.ones(3), 1.0, 1000)


# --- linear models ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frozen(tensorflow):
    """Standardised features of 500 digits through a frozen pocket network, and the digits."""
    train = data.load("digits", labels_per_class=50).train
    x = features.extract(backbones.load("pocket_resnet"), train).astype("float64")
    x = x[:, x.std(axis=0) > 1e-6]
    return (x - x.mean(axis=0)) / x.std(axis=0), np.asarray(train.labels)


@pytest.mark.parametrize("strength", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("outputs", [None, 10])
def test_ridge_agrees_with_scikit_learn(frozen, strength, outputs):
    from sklearn.linear_model import Ridge

    x, labels = frozen
    y = labels.astype("float64") if outputs is None else np.eye(10)[labels]
    found = r.ridge(x, y, strength)
    expected = Ridge(alpha=len(x) * strength, fit_intercept=False, solver="svd").fit(x, y).coef_.T
    assert found.shape == expected.shape == (x.shape[1], *y.shape[1:])
    assert np.abs(found - expected).max() <= 1e-8 * np.abs(expected).max()
    # An intercept that is not penalised: centre first.
    centred = r.ridge(x - x.mean(axis=0), y - y.mean(axis=0), strength)
    expected = Ridge(alpha=len(x) * strength, solver="svd").fit(x, y).coef_.T
    assert np.abs(centred - expected).max() <= 1e-8 * np.abs(expected).max()


def test_ridge_is_where_its_gradient_vanishes():
    x, y, start = ridge_problem()
    assert np.abs(r.ridge_gradient(r.ridge(x, y, 0.2), x, y, 0.2)).max() < 1e-12
    agree(r.ridge(x, y, 0), np.linalg.lstsq(x, y)[0], 1e-8)
    assert (
        r.check_gradient(lambda w: r.ridge_loss(w, x, y, 0.2), lambda w: r.ridge_gradient(w, x, y, 0.2), start) < 1e-6
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_the_logistic_gradient_is_right(shape):
    x, labels, soft = examples(shape)
    weights = np.random.default_rng(11).normal(size=(shape[1], shape[1]))
    for targets in (labels, soft):
        pair = [
            partial(f, features=x, targets=targets, l2_strength=0.3) for f in (r.logistic_loss, r.logistic_gradient)
        ]
        assert r.check_gradient(*pair, weights) < 1e-6


def newton_cg(x, labels, strength, intercept):
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        C=1 / (len(x) * strength), fit_intercept=intercept, solver="newton-cg", tol=1e-8, max_iter=1000
    )
    return model.fit(x, labels)


@pytest.mark.parametrize(
    "strength, steps, step, options",
    [(0.1, 500, r.gradient_descent_step, {}), (0.01, 300, r.nesterov_step, {"momentum": 0.97})],
)
def test_the_softmax_head_reaches_the_minimum_of_scikit_learn(frozen, strength, steps, step, options):
    """C = 1 / (N λ); the column of ones is penalised by both."""
    x, labels = frozen
    x = np.column_stack([x, np.ones(len(x))])
    theirs = newton_cg(x, labels, strength, intercept=False).coef_.T
    gradient = partial(r.logistic_gradient, features=x, targets=labels, l2_strength=strength)
    # The Hessian of the cross-entropy is at most half of XᵀX / N.
    rate = 1 / (r.largest_curvature(x) / 2 + strength)
    ours = r.descend(gradient, np.zeros((x.shape[1], 10)), rate, steps, step, **options)[-1]
    found, expected = (r.logistic_loss(w, x, labels, strength) for w in (ours, theirs))
    assert -1e-9 < found - expected < 1e-4
    assert expected < 0.9 * r.logistic_loss(np.zeros_like(ours), x, labels, strength)


def test_the_softmax_head_with_a_free_bias_reaches_the_minimum_of_scikit_learn(frozen):
    """The bias is a row of weights that the penalty leaves out."""
    (x, labels), strength = frozen, 0.1
    labels = np.minimum(labels, 4)  # unbalanced, so that the bias matters
    x = np.column_stack([x[:, ::4], np.ones(len(x))])

    def loss(w):
        return r.cross_entropy(x @ w, labels) + r.l2(w[:-1], strength)

    def gradient(w):
        return r.logistic_gradient(w, x, labels) + np.vstack([r.l2_gradient(w[:-1], strength), np.zeros((1, 5))])

    model = newton_cg(x[:, :-1], labels, strength, intercept=True)
    theirs = np.vstack([model.coef_.T, model.intercept_])
    rate = 1 / (r.largest_curvature(x) / 2 + strength)
    ours = r.descend(gradient, np.zeros_like(theirs), rate, 1200)[-1]
    assert -1e-9 < loss(ours) - loss(theirs) < 1e-4
    penalised = newton_cg(x, labels, strength, intercept=False).coef_.T
    assert loss(penalised) - loss(theirs) > 1e-4  # to penalise the bias would be seen


@pytest.mark.parametrize("problem", ["random", "frozen features"])
def test_the_zeros_of_the_l1_path_are_those_of_scikit_learn(problem, frozen):
    from sklearn.linear_model import lasso_path

    if problem == "random":
        rng = np.random.default_rng(12)
        x = rng.normal(size=(60, 25))
        y = x[:, :6] @ rng.normal(size=6) + rng.normal(size=60)
    else:  # is it a 3?
        x, y = frozen[0][:, ::8], (frozen[1] == 3) - 0.1
    strongest = np.abs(x.T @ y).max() / len(x)
    strengths = strongest * np.array([1.01, 0.7, 0.4, 0.2, 0.1, 0.05])
    _, expected, _ = lasso_path(x, y, alphas=strengths, tol=1e-14, max_iter=200_000)
    gradient, rate = partial(r.ridge_gradient, features=x, targets=y), 1 / r.largest_curvature(x)
    w, zeros = np.zeros(x.shape[1]), []
    for strength, theirs in zip(strengths, expected.T, strict=True):
        w = r.proximal_descent(gradient, w, rate, 4000, strength)
        np.testing.assert_array_equal(w == 0, theirs == 0)
        np.testing.assert_allclose(w, theirs, atol=1e-6 * np.abs(theirs).max())
        zeros.append((w == 0).mean())
    assert zeros[0] == 1 > zeros[1] > zeros[-1]  # from nothing to most of them


def test_proximal_descent_without_a_penalty_is_gradient_descent():
    x, y, start = ridge_problem()
    gradient = partial(r.ridge_gradient, features=x, targets=y)
    agree(r.proximal_descent(gradient, start, 0.01, 30, 0), r.descend(gradient, start, 0.01, 30)[-1], 1e-13)


# --- a network with two layers ----------------------------------------------------------------------------------------


def network(d, hidden, classes, seed=13):
    rng = np.random.default_rng(seed)
    shapes = {
        "hidden_kernel": (d, hidden),
        "hidden_bias": hidden,
        "output_kernel": (hidden, classes),
        "output_bias": classes,
    }
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


@pytest.mark.usefixtures("tensorflow")
@pytest.mark.parametrize("n, d, hidden, classes", [(1, 2, 3, 2), (20, 5, 7, 4), (64, 30, 16, 10)])
def test_backpropagation_agrees_with_autodiff(n, d, hidden, classes):
    import tensorflow as tf

    rng = np.random.default_rng(14)
    x, labels, parameters = rng.normal(size=(n, d)), rng.integers(0, classes, n), network(d, hidden, classes)
    logits, cache = r.two_layer_forward(x, parameters)
    found = r.two_layer_backward(r.cross_entropy_gradient(logits, labels), cache, parameters)
    variables = {name: tf.Variable(value, dtype="float64") for name, value in parameters.items()}
    with tf.GradientTape() as tape:
        inside = tf.nn.relu(x @ variables["hidden_kernel"] + variables["hidden_bias"])
        z = inside @ variables["output_kernel"] + variables["output_bias"]
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, z))
    agree(logits, z.numpy())
    assert found.keys() == parameters.keys()
    for name, gradient in tape.gradient(loss, variables).items():
        np.testing.assert_allclose(found[name], gradient, rtol=1e-8, atol=1e-14)


def test_the_network_learns_what_a_line_cannot():
    """Exclusive or, which no linear head gets right."""
    x, labels = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])
    parameters = network(2, 8, 2)
    for _ in range(300):
        logits, cache = r.two_layer_forward(x, parameters)
        gradients = r.two_layer_backward(r.cross_entropy_gradient(logits, labels), cache, parameters)
        parameters = {
            name: r.gradient_descent_step(parameters[name], gradients[name], None, 0.5)[0] for name in gradients
        }
    assert r.cross_entropy(r.two_layer_forward(x, parameters)[0], labels) < 0.05


# --- the checker ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_the_numerical_gradient_of_a_cubic(shape):
    x = np.asarray(np.random.default_rng(15).normal(size=shape))
    found = r.numerical_gradient(lambda v: (v**3).sum(), x)
    assert found.shape == shape
    np.testing.assert_allclose(found, 3 * x**2, atol=1e-8)


def test_the_checker_tells_right_from_wrong():
    x = np.arange(1.0, 5)
    assert r.check_gradient(lambda v: (v**2).sum(), lambda v: 2 * v, x) < 1e-8
    assert r.check_gradient(lambda v: (v**2).sum(), lambda v: v, x) == pytest.approx(0.5)
    one_wrong = np.array([0, 0, 0, 0.01])
    assert r.check_gradient(lambda v: (v**2).sum(), lambda v: 2 * v + one_wrong, x) == pytest.approx(0.01 / 8.01)
    assert r.check_gradient(lambda v: 1.0, np.zeros_like, x) == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_the_checker_agrees_with_every_gradient(shape):
    """A second truth besides Keras, also for what Keras has not."""
    z, labels, soft = examples(shape)
    rng = np.random.default_rng(16)
    other, p, weights = (
        rng.normal(size=shape),
        rng.dirichlet(np.full(shape[1], 5.0), shape[0]),
        rng.uniform(size=shape[1]),
    )
    for name, x, arguments in (
        ("cross_entropy", z, (labels, weights)),
        ("cross_entropy", z, (soft, weights)),
        ("cross_entropy_from_probabilities", p, (soft,)),
        ("binary_cross_entropy", z, (soft,)),
        ("focal_loss", z, (labels, 1.5, weights)),
        ("focal_loss", z, (soft, 0.7)),
        ("mean_squared_error", z, (other,)),
        ("mean_absolute_error", z, (other,)),
        ("huber", z, (other, 0.7)),
        ("l1", z, (0.3,)),
        ("l2", z, (0.3,)),
        ("elastic_net", z, (0.3, 0.2)),
        ("l2_sp", z, (other, 0.3)),
    ):
        loss, gradient = getattr(r, name), getattr(r, f"{name}_gradient")
        error = r.check_gradient(
            lambda v, f=loss, a=arguments: f(v, *a), lambda v, f=gradient, a=arguments: f(v, *a), x
        )
        assert error < 1e-6, name


# --- errors -----------------------------------------------------------------------------------------------------------

Z = np.zeros((3, 2))
NAN = np.array([[0, np.nan], [0, 0], [0, 0]])
W = np.ones(4)
PARAMETERS = network(2, 3, 2)


@pytest.mark.parametrize(
    "call, message",
    [
        # shapes
        (lambda: r.softmax(1.0), "axis of classes.* 1.0"),
        (lambda: r.softmax(np.zeros((0, 3))), r"empty.*\(0, 3\)"),
        (lambda: r.cross_entropy(np.zeros(3), [0, 1, 2]), r"logits must have 2 axes.*\(3,\)"),
        (lambda: r.cross_entropy(Z, [0, 1]), "3 examples, but 2 targets"),
        (lambda: r.cross_entropy(Z, np.full((3, 3), 1 / 3)), r"targets must have the shape \(3, 2\), not \(3, 3\)"),
        (lambda: r.cross_entropy(Z, [0, 1, 0], [1, 1, 1]), r"class_weight must have the shape \(2,\), not \(3,\)"),
        (lambda: r.cross_entropy_gradient(Z, [[0, 1, 0]]), r"targets must have the shape \(3, 2\)"),
        (lambda: r.binary_cross_entropy(Z, [0, 1, 1]), r"targets must have the shape \(3, 2\), not \(3,\)"),
        (lambda: r.focal_loss(Z, [0, 1, 0], alpha=[1, 1, 1]), r"alpha must have the shape \(2,\)"),
        (lambda: r.mean_squared_error(W, W[:, None]), r"targets must have the shape \(4,\), not \(4, 1\)"),
        (lambda: r.huber_gradient(W, W[1:]), r"targets must have the shape \(4,\)"),
        (lambda: r.l2_sp(W, Z, 1), r"start must have the shape \(4,\)"),
        (lambda: r.adam_step(W, W[1:], None, 0.1), r"gradient must have the shape \(4,\), not \(3,\)"),
        (
            lambda: r.momentum_step(W, W, None, [0.1, 0.2]),
            r"learning_rate must be one number or fit.*\(4,\), not have the shape \(2,\)",
        ),
        (lambda: r.sgd(lambda w, i: Z, W, 5, 0.1, 1, 2), r"gradient must have the shape \(4,\)"),
        (lambda: r.ridge(Z, np.zeros(4), 1), r"targets must have the shape \(3,\) or \(3, outputs\), not \(4,\)"),
        (lambda: r.ridge_gradient(W, Z, np.zeros(3)), r"weights must have the shape \(2,\), not \(4,\)"),
        (lambda: r.logistic_loss(np.zeros((3, 2)), Z, [0, 1, 0]), r"weights must have the shape \(2, C\)"),
        (lambda: r.largest_curvature(W), "features must have 2 axes"),
        (lambda: r.two_layer_forward(np.zeros((4, 5)), PARAMETERS), r"hidden_kernel must have the shape \(5, 3\)"),
        (lambda: r.two_layer_forward(Z, {"kernel": 1}), "dict of hidden_kernel.*not of kernel"),
        (
            lambda: r.two_layer_backward(np.zeros((2, 2)), r.two_layer_forward(Z, PARAMETERS)[1], PARAMETERS),
            r"logits_gradient must have the shape \(3, 2\)",
        ),
        (lambda: r.check_gradient(np.sum, lambda v: 1.0, W), r"gradient must have the shape \(4,\)"),
        # not finite
        (lambda: r.softmax(NAN), r"logits hold nan at \[0, 1\]"),
        (lambda: r.sigmoid([np.inf]), r"logits hold inf at \[0\]"),
        (lambda: r.cross_entropy(NAN, [0, 1, 0]), "logits hold nan"),
        (lambda: r.cross_entropy(Z, NAN), "targets hold nan"),
        (lambda: r.cross_entropy_from_probabilities(NAN, [0, 1, 0]), "probabilities hold nan"),
        (lambda: r.focal_loss_gradient(NAN, [0, 1, 0]), "logits hold nan"),
        (lambda: r.mean_absolute_error(NAN, Z), "predictions hold nan"),
        (lambda: r.mean_squared_error_gradient(Z, NAN), "targets hold nan"),
        (lambda: r.l1(NAN, 1), "weights hold nan"),
        (lambda: r.l2(W, np.nan), "strength must be one finite number.*nan"),
        (lambda: r.gradient_descent_step(W, W * np.nan, None, 0.1), "gradient hold nan.*lower learning rate"),
        (lambda: r.rmsprop_step(W, W, None, np.nan), "learning_rate hold nan"),
        (lambda: r.ridge(NAN, np.zeros(3), 1), "features hold nan"),
        # out of range
        (lambda: r.l1(W, -0.1), r"strength must be one finite number in \[0, inf\), not -0.1"),
        (lambda: r.elastic_net(W, 1, -1), "strength.*not -1"),
        (lambda: r.l2_sp_gradient(W, W, -2), "strength.*not -2"),
        (lambda: r.soft_threshold(W, -1), "threshold.*not -1"),
        (lambda: r.ridge(Z, np.zeros(3), -1), "strength.*not -1"),
        (lambda: r.logistic_loss(np.zeros((2, 2)), Z, [0, 1, 0], -1), "strength.*not -1"),
        (lambda: r.proximal_descent(np.sign, W, 0.1, 3, -1), "l1_strength.*not -1"),
        (lambda: r.proximal_descent(np.sign, W, -0.1, 3, 1), r"learning_rate.*\(0, inf\), not -0.1"),
        (lambda: r.gradient_descent_step(W, W, None, -0.1), "learning_rate must be positive, not -0.1"),
        (lambda: r.adamw_step(W, W, None, 0), "learning_rate must be positive, not 0"),
        (lambda: r.nesterov_step(W, W, None, 0.1, momentum=1), r"momentum.*\[0, 1\), not 1"),
        (lambda: r.rmsprop_step(W, W, None, 0.1, rho=-0.1), "rho.*not -0.1"),
        (lambda: r.adam_step(W, W, None, 0.1, beta_1=1.5), "beta_1.*not 1.5"),
        (lambda: r.adam_step(W, W, None, 0.1, epsilon=0), "epsilon.*not 0"),
        (lambda: r.adamw_step(W, W, None, 0.1, weight_decay=-1), "weight_decay.*not -1"),
        (lambda: r.smooth_labels([0, 1], 1.1, 2), r"smoothing.*\[0, 1\], not 1.1"),
        (lambda: r.focal_loss(Z, [0, 1, 0], gamma=-1), "gamma.*not -1"),
        (lambda: r.focal_loss(Z, [0, 1, 0], alpha=-1), "alpha.*not -1"),
        (lambda: r.cross_entropy(Z, [0, 1, 0], [1, -2]), "class_weight cannot be negative.*-2"),
        (lambda: r.huber(W, W, 0), r"delta.*\(0, inf\), not 0"),
        (lambda: r.cross_entropy_from_probabilities(Z + 0.5, [0, 1, 0], 0.5), r"epsilon.*\[0, 0.5\), not 0.5"),
        (lambda: r.numerical_gradient(np.sum, W, 0), "step.*not 0"),
        (lambda: r.descend(np.sign, W, 0.1, -1), "steps must be an integer of at least 0, not -1"),
        (lambda: list(r.minibatches(5, 0, np.random.default_rng(0))), "batch_size.*not 0"),
        (lambda: r.sgd(lambda w, i: w, W, 5, 0.1, 1.5, 2), "epochs.*not 1.5"),
        # targets
        (lambda: r.cross_entropy(Z, [0, 1, 2]), "from 0 to 1, and one is 2"),
        (lambda: r.one_hot([-1], 3), "one is -1"),
        (lambda: r.one_hot([0.0, 1.0], 3), "integers.*float64"),
        (lambda: r.cross_entropy(Z, Z + 1), "sum to 1; those of example 0 sum to 2"),
        (lambda: r.cross_entropy(Z, [[2, -1]] * 3), "targets cannot be negative.*-1"),
        (lambda: r.cross_entropy_from_probabilities(Z, [0, 1, 0]), "probabilities.*sum to 0"),
        (lambda: r.binary_cross_entropy(W, 2 * W), "from 0 to 1, and are from 2 to 2"),
        (lambda: r.smooth_labels([0, 1], 0.1), "give num_classes"),
        (lambda: r.smooth_labels(1, 0.1), r"not \(\)"),
        (lambda: r.balanced_class_weight([0, 0, 2], 3), "class 1 has no example"),
        # what does not fit together
        (lambda: r.adam_step(W, W, r.momentum_step(W, W, None, 0.1)[1], 0.1), "state.*velocity.*does not fit"),
        (lambda: r.adam_step(W, W, r.adam_step(Z, Z, None, 0.1)[1], 0.1), r"state.*does not fit.*\(4,\)"),
        (lambda: r.ridge(Z, np.zeros(3), 0), "2 features are not independent on these 3 examples.*strength above 0"),
    ],
)
def test_errors_say_what_was_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- convolution and pooling, and their way back ----------------------------------------------------------------------
