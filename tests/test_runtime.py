import os
import random
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tlutils import results, runtime


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """Whatever a test sets up does not outlive it."""
    monkeypatch.setattr(results, "_context", dict(results._context))
    environment = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(environment)
    if "keras" in sys.modules:
        sys.modules["keras"].mixed_precision.set_global_policy("float32")


def run(code, **environment):
    """Run code in a fresh interpreter."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("TF_", "CUDA_", "KERAS_BACKEND"))}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=own | environment, timeout=600
    )


# --- what is loaded when ----------------------------------------------------------------------------------------------

LIGHT = ("", ".cli", ".data", ".evaluation", ".explore", ".letters", ".plots", ".results", ".runner", ".runtime")


@pytest.mark.parametrize("module", LIGHT)
def test_importing_loads_neither_tensorflow_nor_keras(module):
    code = f"import sys, tlutils{module}; print(sorted({{'tensorflow', 'keras'}} & set(sys.modules)))"
    result = run(code)
    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_the_other_modules_do_not_either_and_all_are_attributes_of_the_package():
    code = """
import sys, tlutils
for name in dir(tlutils):
    getattr(tlutils, name)
print(sorted({"tensorflow", "keras"} & set(sys.modules)), tlutils.runtime is sys.modules["tlutils.runtime"])
try:
    tlutils.bakbones
except AttributeError as error:
    print(error)
"""
    loaded, error = run(code).stdout.splitlines()
    assert loaded == "[] True"
    assert "'bakbones'" in error
    assert "backbones" in error


def test_setting_up_and_computing_writes_nothing_to_stderr_and_sees_no_hidden_gpu():
    code = """
import os
from tlutils import runtime
found = runtime.setup(gpu="off", seed=3)
print(found)
import keras, tensorflow as tf
assert runtime.require_tensorflow() is tf
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
model.compile("sgd", "mse")
model.fit(tf.ones((8, 4)), tf.ones((8, 2)), verbose=0)
print(tf.config.get_visible_devices("GPU"), tf.config.list_physical_devices("GPU"))
print(os.environ["CUDA_VISIBLE_DEVICES"])
"""
    result = run(code)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == ["Running on the CPU; seed 3.", "[] []", "-1"]


def test_a_gpu_that_is_hidden_is_not_there_to_be_required():
    code = """
from tlutils import runtime
try:
    runtime.setup(gpu="require")
except runtime.GPURequiredError as error:
    print(error)
"""
    result = run(code, CUDA_VISIBLE_DEVICES="-1")
    assert "Runtime → Change runtime type → T4 GPU" in result.stdout
    assert result.stderr == ""


# --- TensorFlow that is missing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [{"tensorflow"}, {"keras"}, {"tensorflow", "keras"}])
def test_a_missing_package_is_named_with_the_way_to_install_it(missing, monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setattr(runtime, "find_spec", lambda name: None if name in missing else SimpleNamespace())
    with pytest.raises(ImportError) as error:
        runtime.require_tensorflow()
    message = str(error.value)
    assert all(name in message for name in missing)
    assert all(f"tlutils[{extra}]" in message for extra in ("tensorflow", "cpu", "gpu"))
    assert "pip install" in message


WITHOUT_TENSORFLOW = """
import importlib.util, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "keras"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name in ("tensorflow", "keras") else find_spec(name, *a)

import numpy as np
from tlutils import backbones, data, features, letters, runtime, zoo
examples = data.Examples(np.zeros(2, int), image_size=(32, 32), channels=1, pixels=letters.draw(2, 0)[0])
for name, use in {
    "setup": runtime.setup,
    "backbones.load": lambda: backbones.load("pocket_resnet"),
    "backbones.wrap": lambda: backbones.wrap(None),
    "zoo.load": lambda: zoo.load("pocket_resnet"),
    "zoo.build": lambda: zoo.build("pocket_resnet"),
    "zoo.pretrain": lambda: zoo.pretrain("pocket_resnet", images=2, epochs=1),
    "features.extract": lambda: features.extract(None, examples),
    "batches": lambda: examples.batches(2),
}.items():
    try:
        use()
    except ImportError as error:
        print(name, "tlutils needs tensorflow and keras" in str(error))
    else:
        print(name, "went through")
"""


def test_every_first_use_of_tensorflow_says_how_to_install_it():
    result = run(WITHOUT_TENSORFLOW)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 8
    assert [line for line in lines if not line.endswith(" True")] == []


def test_another_keras_backend_is_refused(monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(ImportError, match="KERAS_BACKEND is 'jax'; unset it"):
        runtime.require_tensorflow()


def test_what_is_written_while_loading_is_shown_only_if_loading_fails(capfd):
    with runtime.quiet_stderr():
        os.write(2, b"Could not find cuda drivers\n")
    assert capfd.readouterr().err == ""
    with pytest.raises(OSError, match="broken"), runtime.quiet_stderr():
        os.write(2, b"undefined symbol\n")
        raise OSError("broken")
    assert capfd.readouterr().err == "undefined symbol\n"
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


# --- progress ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("progress", "variable", "terminal", "notebook", "shown"),
    [
        (True, "0", False, False, True),
        (False, "1", True, True, False),
        (None, "1", False, False, True),
        (None, "0", True, True, False),
        (None, None, True, False, True),
        (None, None, False, True, True),
        (None, None, False, False, False),
    ],
)
def test_progress_is_shown_where_somebody_looks(monkeypatch, progress, variable, terminal, notebook, shown):
    monkeypatch.delenv("TLUTILS_PROGRESS", raising=False)
    if variable is not None:
        monkeypatch.setenv("TLUTILS_PROGRESS", variable)
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: terminal))
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    if notebook:
        monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())
    assert runtime.shows_progress(progress) is shown


# --- device -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def machine(tensorflow, monkeypatch):
    """A machine with the given GPU, or none: ``machine(compute_capability)``; gives what was asked of TensorFlow."""

    def pretend(compute_capability=None):
        gpus = [] if compute_capability is None else ["GPU:0"]
        asked = SimpleNamespace(visible=[], growth=[])
        details = {"device_name": "Tesla T4", "compute_capability": compute_capability}
        monkeypatch.setattr(tensorflow.config, "list_physical_devices", lambda kind=None: list(gpus))
        monkeypatch.setattr(tensorflow.config, "set_visible_devices", lambda *call: asked.visible.append(call))
        experimental = tensorflow.config.experimental
        monkeypatch.setattr(experimental, "set_memory_growth", lambda *call: asked.growth.append(call))
        monkeypatch.setattr(experimental, "get_device_details", lambda device: details)
        return asked

    return pretend


def test_a_required_gpu_that_is_not_there_raises_with_the_way_to_get_one(machine):
    machine()
    with pytest.raises(runtime.GPURequiredError, match="Runtime → Change runtime type → T4 GPU") as error:
        runtime.setup(gpu="require")
    assert isinstance(error.value, RuntimeError)
    assert "requires a GPU" in str(error.value)


def test_without_a_gpu_it_runs_on_the_cpu(machine):
    machine()
    found = runtime.setup(seed=7)
    assert (found.device, found.device_name, found.seed, found.mixed_precision) == ("CPU", "CPU", 7, False)
    assert str(found) == "Running on the CPU; seed 7."


@pytest.mark.parametrize("gpu", ["auto", "require"])
def test_a_gpu_is_used_with_its_memory_shared_and_mixed_precision_where_that_gains(machine, gpu):
    import keras

    asked = machine((7, 5))
    found = runtime.setup(gpu=gpu)
    assert (found.device, found.device_name, found.mixed_precision) == ("GPU", "Tesla T4", True)
    assert str(found) == "Running on the GPU (Tesla T4), mixed precision; seed 0."
    assert keras.mixed_precision.global_policy().name == "mixed_float16"
    assert asked.growth == [("GPU:0", True)]
    assert asked.visible == []


@pytest.mark.parametrize("mixed", [True, False])
@pytest.mark.parametrize("device", ["CPU", "GPU", "Tesla T4", "Radeon (TM) Pro"])
def test_the_device_is_read_back_from_what_was_printed(device, mixed):
    found = runtime.Runtime("CPU" if device == "CPU" else "GPU", device, 3, mixed)
    assert runtime.Runtime.device_name_in(["Running on the GPU of a friend", str(found), "more"]) == device
    assert runtime.Runtime.device_name_in(["Running on the GPU of a friend"]) is None


def test_an_old_gpu_computes_in_single_precision(machine):
    import keras

    machine((6, 1))
    found = runtime.setup()
    assert (found.device, found.mixed_precision) == ("GPU", False)
    assert keras.mixed_precision.global_policy().name == "float32"


def test_gpu_off_hides_the_gpu(machine):
    import keras

    asked = machine((7, 5))
    keras.mixed_precision.set_global_policy("mixed_float16")  # left over from a cell that ran before
    found = runtime.setup(gpu="off")
    assert asked.visible == [([], "GPU")]
    assert (found.device, found.mixed_precision) == ("CPU", False)
    assert keras.mixed_precision.global_policy().name == "float32"


def test_a_second_setup_after_tensorflow_has_started_is_no_error(machine, tensorflow, monkeypatch):
    machine((7, 5))

    def late(*call):
        raise RuntimeError("Physical devices cannot be modified after being initialized")

    monkeypatch.setattr(tensorflow.config.experimental, "set_memory_growth", late)
    assert runtime.setup().device == "GPU"
    # … but a GPU that is in use cannot be hidden, and that is not passed over.
    monkeypatch.setattr(tensorflow.config, "set_visible_devices", late)
    with pytest.raises(RuntimeError, match="cannot be modified"):
        runtime.setup(gpu="off")


@pytest.mark.parametrize("gpu", ["on", True, None, "", "GPU"])
def test_other_devices_are_refused(gpu):
    with pytest.raises(ValueError, match=f"'auto', 'require' or 'off', not {gpu!r}"):
        runtime.setup(gpu=gpu)


# --- seeds ------------------------------------------------------------------------------------------------------------


def draws(tensorflow):
    import keras

    dense = keras.layers.Dense(3)
    dense.build((None, 4))
    drawn = [
        random.random(),
        np.random.rand(),  # noqa: NPY002 (what scikit-learn draws from)
        *np.asarray(tensorflow.random.uniform((3,))).tolist(),
        *np.asarray(dense.kernel).ravel().tolist(),
    ]
    # Before 3.15, Keras' own stream goes on where it was when a process is seeded for the second time.
    if tuple(map(int, keras.__version__.split(".")[:2])) >= (3, 15):
        drawn += np.asarray(keras.random.normal((3,))).tolist()
    return drawn


def test_the_same_seed_gives_the_same_random_numbers(tensorflow):
    drawn = []
    for seed in (5, 5, 6):
        runtime.setup(seed=seed)
        drawn.append(draws(tensorflow))
    assert drawn[0] == drawn[1]
    assert all(a != b for a, b in zip(drawn[0], drawn[2]))


def test_operations_are_deterministic(tensorflow):
    runtime.setup()
    tensorflow.random.set_seed(None)
    try:
        # With determinism on, TensorFlow refuses what could not be repeated.
        with pytest.raises(RuntimeError, match="determinism"):
            tensorflow.random.uniform((3,))
    finally:
        runtime.setup()


# --- profile ----------------------------------------------------------------------------------------------------------


def stops_on_a_failed_claim():
    try:
        results.claim("It holds.", False)
    except results.ClaimError:
        return True
    return False


@pytest.mark.parametrize(
    ("arguments", "reference"),
    [
        ({}, True),
        ({"name": "quick", "seed": 0}, True),
        ({"seed": 1}, False),
        ({"dataset": "letters"}, False),
        ({"backbone": "pocket_vgg"}, False),
        ({"name": "full"}, False),
    ],
)
def test_only_the_quick_profile_with_all_defaults_is_the_reference(arguments, reference, capsys):
    for before in (True, False):
        results.set_context(reference=before)
        assert runtime.profile(**arguments).reference is reference
        assert stops_on_a_failed_claim() is reference


def test_the_quick_profile_is_the_pocket_zoo_on_digits():
    quick = runtime.profile()
    assert (quick.name, quick.dataset, quick.backbone) == ("quick", "digits", "pocket_resnet")
    full = runtime.profile("full")
    assert (full.name, full.dataset) == ("full", "flowers")


def test_what_the_profiles_name_exists():
    from tlutils import backbones, data

    for name in ("quick", "full"):
        chosen = runtime.profile(name)
        assert chosen.dataset in data.registry()
        assert chosen.backbone in backbones.available()


def test_the_readers_choice_takes_the_place_of_the_default_and_nothing_else():
    chosen = runtime.profile("full", dataset="my/photos", backbone="vgg16")
    default = runtime.profile("full")
    assert (chosen.dataset, chosen.backbone) == ("my/photos", "vgg16")
    rest = ("name", "image_size", "epochs", "scratch_epochs", "learning_rate", "batch_size")
    assert [getattr(chosen, key) for key in rest] == [getattr(default, key) for key in rest]


@pytest.mark.parametrize("name", ["fast", "QUICK", None, ""])
def test_other_profiles_are_refused_and_change_nothing(name):
    results.set_context(reference=True)
    with pytest.raises(ValueError, match=f"'quick' or 'full', not {name!r}"):
        runtime.profile(name)
    assert stops_on_a_failed_claim()
