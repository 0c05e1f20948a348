"""Convolution, pooling and filter directions of tlutils.reference, against TensorFlow's autodiff in float64."""

import numpy as np
import pytest

from tlutils import reference
from tlutils.runtime import require_tensorflow

CONVOLUTIONS = [  # images, kernel, stride, padding
    ((2, 5, 5, 3), (3, 3, 3, 4), 1, "same"),
    ((1, 6, 7, 2), (3, 3, 2, 3), 2, "same"),
    ((2, 7, 6, 1), (2, 5, 1, 2), 3, "same"),
    ((2, 6, 5, 3), (3, 2, 3, 2), 1, "valid"),
    ((1, 8, 8, 2), (3, 3, 2, 2), 2, "valid"),
    ((3, 4, 4, 5), (1, 1, 5, 2), 1, "same"),
]


def convolution_case(images, kernel):
    rng = np.random.default_rng([*images, *kernel])
    return rng.normal(size=images), rng.normal(size=kernel)


@pytest.mark.parametrize(("images", "kernel", "stride", "padding"), CONVOLUTIONS)
def test_convolution_and_its_gradients_are_tensorflows(images, kernel, stride, padding):
    tf = require_tensorflow()
    x, k = convolution_case(images, kernel)
    with tf.GradientTape() as tape:
        variables = [tf.constant(x), tf.constant(k)]
        tape.watch(variables)
        out = tf.nn.conv2d(*variables, strides=stride, padding=padding.upper())
        upstream = np.random.default_rng(1).normal(size=out.shape)
        loss = tf.reduce_sum(out * upstream)
    expected = [value.numpy() for value in tape.gradient(loss, variables)]
    np.testing.assert_allclose(reference.conv2d(x, k, stride, padding), out.numpy(), rtol=1e-8, atol=1e-10)
    found = reference.conv2d_backward(upstream, x, k, stride, padding)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("shape", "size"), [((2, 4, 4, 3), 2), ((1, 5, 7, 2), 2), ((2, 7, 6, 1), 3)])
@pytest.mark.parametrize("ties", (False, True))
def test_max_pooling_and_its_gradient_are_tensorflows(shape, size, ties):
    tf = require_tensorflow()
    x = np.random.default_rng(shape).normal(size=shape)
    x = np.maximum(x, 0) if ties else x  # after a ReLU whole windows are zero
    with tf.GradientTape() as tape:
        variable = tf.constant(x)
        tape.watch(variable)
        out = tf.nn.max_pool2d(variable, size, size, "VALID")
        upstream = np.random.default_rng(1).normal(size=out.shape)
        loss = tf.reduce_sum(out * upstream)
    np.testing.assert_array_equal(reference.max_pool2d(x, size), out.numpy())
    found = reference.max_pool2d_backward(upstream, x, size)
    np.testing.assert_allclose(found, tape.gradient(loss, variable).numpy(), rtol=1e-8)


def test_global_average_pooling_and_its_gradient():
    maps = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    upstream = np.random.default_rng(1).normal(size=(2, 5))
    np.testing.assert_allclose(reference.global_average_pool(maps), maps.sum(axis=(1, 2)) / 12)
    found = reference.global_average_pool_backward(upstream, maps)
    assert found.shape == maps.shape
    np.testing.assert_allclose(found.sum(axis=(1, 2)), upstream)
    assert np.ptp(found, axis=(1, 2)).max() == 0


def test_a_filter_direction_is_as_long_as_the_network_filter_by_filter():
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(3, 3, 2, 4)) * [1, 10, 0.1, 0], rng.normal(size=4), rng.normal(size=(5, 2))]
    kernel, bias, dense = reference.filter_direction(weights, seed=3)
    np.testing.assert_allclose((kernel**2).sum(axis=(0, 1, 2)), (weights[0] ** 2).sum(axis=(0, 1, 2)))
    np.testing.assert_allclose((dense**2).sum(axis=0), (weights[2] ** 2).sum(axis=0))
    assert not bias.any()
    again, other = reference.filter_direction(weights, seed=3), reference.filter_direction(weights, seed=4)
    assert np.array_equal(again[0], kernel) and not np.array_equal(other[0], kernel)
    along = kernel[..., 0].ravel() @ weights[0][..., 0].ravel()
    assert abs(along) < 0.9 * (weights[0][..., 0] ** 2).sum(), "a random direction, not that of the weights"


MAPS, KERNEL = np.ones((1, 4, 4, 2)), np.ones((3, 3, 2, 1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reference.conv2d(np.ones((4, 4, 2)), KERNEL), "images must have 4 axes"),
        (lambda: reference.conv2d(MAPS, np.ones((3, 3, 5, 1))), "5 channels"),
        (lambda: reference.conv2d(MAPS, KERNEL, stride=0), "stride.*0"),
        (lambda: reference.conv2d(MAPS, KERNEL, padding="full"), "full"),
        (lambda: reference.conv2d(MAPS, np.ones((5, 5, 2, 1)), padding="valid"), "does not fit"),
        (lambda: reference.conv2d(MAPS * np.nan, KERNEL), "images hold nan"),
        (lambda: reference.conv2d_backward(np.ones((1, 2, 2, 1)), MAPS, KERNEL), r"\(1, 4, 4, 1\)"),
        (lambda: reference.max_pool2d(MAPS, 5), "size.*5"),
        (lambda: reference.max_pool2d_backward(np.ones((1, 4, 4, 2)), MAPS), r"\(1, 2, 2, 2\)"),
        (lambda: reference.global_average_pool_backward(np.ones((1, 3)), MAPS), r"\(1, 2\)"),
        (lambda: reference.filter_direction([np.array([[np.inf, 1]])]), "array 0 hold inf"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_offending_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("strength", (0.0, 0.3))
def test_the_curvature_of_the_softmax_head_is_that_of_its_whole_hessian(strength):
    rng = np.random.default_rng(5)
    x, w, y = rng.normal(size=(12, 4)), rng.normal(size=(4, 3)), rng.integers(0, 3, 12)

    def gradient(flat):
        return reference.logistic_gradient(flat.reshape(w.shape), x, y, strength).ravel()

    step = 1e-5 * np.eye(w.size)
    hessian = np.stack([(gradient(w.ravel() + e) - gradient(w.ravel() - e)) / 2e-5 for e in step])
    found = reference.logistic_curvature(w, x, strength)
    assert found == pytest.approx(np.linalg.eigvalsh((hessian + hessian.T) / 2)[-1], rel=1e-6)
    assert found <= reference.largest_curvature(x) / 2 + strength, "no curvature of a softmax is above one half"
