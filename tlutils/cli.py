"""The ``tlutils`` command: run the notebooks, make a classifier of photographs and use it, diagnose a model, and more.

Nothing here imports TensorFlow before a command needs it, so that ``tlutils --help`` answers at once.
"""

import argparse
import contextlib
import glob
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import tlutils
from tlutils.notes import suggestion

OK, FAILED, USAGE, NO_GPU, FOUND, INTERRUPTED = 0, 1, 2, 3, 4, 130

_GPU_CHECK = """
import sys
from tlutils import runtime
try:
    runtime.setup(gpu="require")
except runtime.GPURequiredError as error:
    print(error)
    sys.exit(3)
"""
_TENSORFLOW_CHECK = """
import json
import tensorflow, keras
gpus = [gpu.name for gpu in tensorflow.config.list_physical_devices("GPU")]
print(json.dumps({"tensorflow": tensorflow.__version__, "keras": keras.__version__, "gpus": gpus}))
"""


class CommandError(Exception):
    """Ends the command with one sentence on stderr."""

    def __init__(self, message, code=FAILED):
        super().__init__(message)
        self.code = code


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise CommandError(f"{message} (see {self.prog} --help)", USAGE)


def main(argv=None):
    """Run the command; return its exit code.

    Codes: 0 all went well, 1 something failed, 2 the command was wrong, 3 a GPU was required and there is none, 4
    ``diagnose`` found an error in the model or its data, 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a pipe on Windows may not know every character
    try:
        arguments = _parser().parse_args(argv)
        return arguments.command(arguments)
    except CommandError as error:
        print(f"tlutils: {error}", file=sys.stderr)
        return error.code
    except OSError as error:
        print(f"tlutils: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("tlutils: interrupted", file=sys.stderr)
        return INTERRUPTED


def _parser():
    parser = _Parser(prog="tlutils", description="Transfer learning, step by step: the commands of the book.")
    parser.add_argument("--version", action="version", version=f"tlutils {tlutils.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="execute notebooks", description="Execute notebooks with papermill.")
    run.set_defaults(command=_run)
    run.add_argument("notebook", nargs="*", metavar="NOTEBOOK", help="path, chapter number or name; none means all")
    run.add_argument("--profile", choices=("quick", "full"), help="quick: two cores, minutes; full: ImageNet scale")
    run.add_argument(
        "--gpu", choices=("auto", "require", "off"), help="use a GPU if there is one, insist on it, or not"
    )
    run.add_argument("--dataset", metavar="NAME|FOLDER", help="a registered data set or your own folder of images")
    run.add_argument("--backbone", metavar="NAME", help="the pretrained model to use")
    run.add_argument("--seed", type=_at_least(0), metavar="N", help="seed of every random draw")
    run.add_argument(
        "--jobs", type=_at_least(1), default=1, metavar="N", help="notebooks at the same time (default: 1)"
    )
    run.add_argument("--out", default="_build/notebooks", metavar="DIR", help="for the results (default: %(default)s)")
    run.add_argument("--write", action="store_true", help="update the notebooks themselves, too")
    run.add_argument(
        "--record",
        action="store_true",
        help="with --profile full: store the numbers and claims of each notebook that succeeds in book/results/full, "
        "for its section “At ImageNet scale”; of a folder of images only the name is stored",
    )
    run.add_argument(
        "--timeout", type=_at_least(1), metavar="SECONDS", help="limit for one cell (default: 300 quick, 1800 full)"
    )

    diagnose = commands.add_parser(
        "diagnose",
        help="find the traps in a saved model and its images",
        description="Look for the traps of transfer learning in a saved Keras model, the way it is compiled, and a "
        "folder of images with a sub-folder a class, or with train/ and val/. Nothing is changed. Exit codes: 0 no "
        "error was found (warnings and notes do not count), 4 an error was found, 1 the model or the folder could not "
        "be read, 2 the command was wrong or names a file or folder that is not there, 130 interrupted.",
    )
    diagnose.set_defaults(command=_diagnose)
    diagnose.add_argument("model", metavar="MODEL", help="a .keras or .h5 file")
    diagnose.add_argument("folder", nargs="?", metavar="FOLDER", help="the images; none looks at the model alone")

    _add_photo_commands(commands)
    backbones = commands.add_parser("backbones", help="list the pretrained models")
    backbones.set_defaults(command=_backbones)
    datasets = commands.add_parser(
        "datasets",
        help="list the data sets, or fetch some",
        description="List the data sets, with licence, source and what is on this machine. `tlutils datasets get NAME` "
        "fetches.",
    )
    datasets.set_defaults(command=_datasets)
    get = datasets.add_subparsers(metavar="get").add_parser(
        "get",
        help="fetch data sets into $KERAS_HOME/datasets (~/.keras/datasets)",
        description="Fetch data sets into $KERAS_HOME/datasets, by default ~/.keras/datasets, and check them. What is "
        "there already is checked and not fetched again. Exit codes: 0 all of them are there, 1 one could not be "
        "fetched or is not what is expected (the others are fetched all the same), 2 a name is unknown and nothing was "
        "fetched, 130 interrupted: nothing is left of the data set that was on its way.",
    )
    get.set_defaults(command=_datasets_get)
    get.add_argument("names", nargs="+", metavar="NAME", help="as `tlutils datasets` lists them")
    doctor = commands.add_parser("doctor", help="check this installation and say how to mend it")
    doctor.set_defaults(command=_doctor)
    return parser


def _add_photo_commands(commands):
    train = commands.add_parser(
        "train",
        help="make a classifier of a folder of photographs",
        description="Train a classifier on a folder with one sub-folder of images a class, or with train/, val/ and "
        "test/: a linear probe, then fine-tuning, which is kept only if it gets more validation images right. Files "
        "that are no images are reported and left out. Beside the model are written a model card (.md), the report "
        "(.json) and the learning curves (.png). Interrupted, the same command goes on where it was. FOLDER is only "
        "read. Exit codes: 0 the model is written, 1 the images or the weights could not be used or training failed, 2 "
        "the command was wrong or a file would be replaced, 3 a GPU was required and there is none, 130 interrupted.",
    )
    train.set_defaults(command=_train)
    train.add_argument("folder", metavar="FOLDER", help="the images, or the name of a registered data set")
    train.add_argument("--backbone", default="mobilenet_v2", metavar="NAME", help="default: %(default)s")
    train.add_argument("--out", metavar="FILE", help="the model, a .keras file (default: FOLDER's name, here)")
    train.add_argument("--overwrite", action="store_true", help="replace what an earlier training wrote there")
    train.add_argument(
        "--epochs",
        type=_at_least(0),
        default=10,
        metavar="N",
        help="epochs of fine-tuning, at most (default: 10; 0: none)",
    )
    train.add_argument("--augment", action="store_true", help="turn, shift, scale and mirror the images; slower")
    train.add_argument(
        "--image-size", type=_at_least(1), metavar="PIXELS", help="side of the images (default: the backbone's own)"
    )
    train.add_argument("--seed", type=_at_least(0), default=0, metavar="N", help="seed of every random draw")
    train.add_argument("--gpu", choices=("auto", "require", "off"), default="auto", help="default: %(default)s")

    evaluate = commands.add_parser(
        "evaluate",
        help="measure a trained classifier on a folder of images",
        description="Measure a model that `tlutils train` wrote on a folder with one sub-folder of images a class: on "
        "its test/ where it has one, else on all its images. Images that the model was trained on are left out. Exit "
        "codes: 0 it was measured, 1 the model or the images could not be used, 2 the command was wrong, 130 "
        "interrupted.",
    )
    evaluate.set_defaults(command=_evaluate)
    evaluate.add_argument("model", metavar="MODEL", help="a .keras file that tlutils train wrote")
    evaluate.add_argument("folder", metavar="FOLDER", help="the images")

    predict = commands.add_parser(
        "predict",
        help="name what images show",
        description="Give the three most probable classes of each image, by a model that `tlutils train` wrote. Exit "
        "codes: 0 every file was read, 1 a file could not be read (the others are named all the same) or the model "
        "could not, 2 the command was wrong, 130 interrupted.",
    )
    predict.set_defaults(command=_predict)
    predict.add_argument("model", metavar="MODEL", help="a .keras file that tlutils train wrote")
    predict.add_argument("images", nargs="+", metavar="IMAGE", help="image files, or patterns such as holiday/*.jpg")
    predict.add_argument("--json", action="store_true", help="print JSON: file, classes, problem")


def _at_least(minimum):
    def number(text):
        if not text.removeprefix("-").isdecimal() or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {minimum}")
        return int(text)

    return number


def _import(name):
    """Import a module of the package; say which extra brings what it lacks."""
    try:
        return importlib.import_module(f"tlutils.{name}")
    except ModuleNotFoundError as error:
        raise CommandError(f"{error.name} is not installed: pip install 'tlutils[tensorflow,notebook,run]'") from None


# --- run --------------------------------------------------------------------------------------------------------------


def _run(arguments):
    runner = _import("runner")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave through `finally`, which ends the kernels
    try:
        paths = runner.find(arguments.notebook)
        parameters = _parameters(arguments)
        if arguments.write and not parameters.items() <= {"PROFILE": "quick", "GPU": arguments.gpu}.items():
            raise CommandError(
                "--write is for the set-up that the chapters describe: leave out --profile full, --dataset, --backbone "
                "and --seed, or leave out --write and find the executed notebooks in --out",
                USAGE,
            )
        if arguments.gpu == "require":
            _require_gpu()
        outcomes = runner.run(
            paths,
            arguments.out,
            parameters,
            jobs=arguments.jobs,
            timeout=arguments.timeout,
            report=runner.Display(),
            record=arguments.record,
        )
    except runner.UsageError as error:
        raise CommandError(str(error), USAGE) from None
    out = _relative(arguments.out)
    print(f"\n{runner.table(outcomes)}\n\nexecuted notebooks and report.json: {out}")
    for outcome in outcomes:
        if arguments.record and outcome.status == "ok":
            print(f"recorded book/results/full/{outcome.notebook}.json")
    kept = []
    if arguments.write:
        ran = [(path, outcome) for path, outcome in zip(paths, outcomes) if outcome.status == "ok"]
        kept = [path for path, outcome in ran if runner.edited(path, outcome)]
        for path in runner.update(paths, outcomes):
            print(f"updated {_relative(path)}")
    for path in kept:
        print(f"kept {_relative(path)}: it was edited while it ran; the executed copy is in {out}", file=sys.stderr)
    failed = [outcome for outcome in outcomes if outcome.status != "ok"]
    for outcome in failed:
        where = f" in {outcome.failed_cell}" if outcome.failed_cell else ""
        print(f"{outcome.notebook} {outcome.status}{where}: {outcome.error}", file=sys.stderr)
        if outcome.output.is_file():
            print(f"  look at {out / outcome.output.name}, kept as far as it ran", file=sys.stderr)
    return FAILED if failed or kept else OK


def _relative(path):
    """A path as seen from the current folder, where there is a way; on Windows there is none to another drive."""
    try:
        return Path(os.path.relpath(path))
    except ValueError:
        return Path(path)


def _parameters(arguments):
    """The notebook parameters that the user gave; the notebooks' own defaults hold for the rest."""
    given = {
        "PROFILE": arguments.profile,
        "GPU": arguments.gpu,
        "SEED": arguments.seed,
        "DATASET": arguments.dataset and _dataset(arguments.dataset),
        "BACKBONE": arguments.backbone and _backbone(arguments.backbone),
    }
    return {name: value for name, value in given.items() if value is not None}


def _dataset(name):
    known = list(_import("data").registry())
    if name in known:
        return name
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(folder.resolve())  # the notebooks run in a folder of their own
    hint = suggestion(name, known)
    raise CommandError(f"no data set or folder is called {name!r}; {hint}, or give a folder of images", USAGE)


def _backbone(name):
    try:
        return _import("backbones").find(name)
    except ValueError as error:
        raise CommandError(str(error), USAGE) from None


def _require_gpu():
    """Look for a GPU in another process, because TensorFlow would hold on to its memory in this one."""
    check = _python(_GPU_CHECK)
    if check.returncode == NO_GPU:
        raise CommandError(check.stdout.strip(), NO_GPU)
    if check.returncode:
        raise CommandError(_last_line(check.stderr))


def _python(code, **options):
    """Run code in another process, which speaks UTF-8 whatever the terminal does."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-X", "utf8", "-c", code]
    return subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", env=environment, **options)


# --- diagnose ---------------------------------------------------------------------------------------------------------


def _diagnose(arguments):
    path = Path(arguments.model).expanduser()
    folder = arguments.folder and Path(arguments.folder).expanduser()
    if not path.is_file():
        raise CommandError(f"there is no model at {path}: give a file that model.save wrote (.keras or .h5)", USAGE)
    if folder and not folder.is_dir():
        raise CommandError(f"there is no folder of images at {folder}", USAGE)
    diagnose, data = _import("diagnose"), _import("data")
    try:
        _import("runtime").require_tensorflow()
    except ImportError as error:
        raise CommandError(str(error)) from None
    import keras

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as that an optimizer was saved before its first step
            model = keras.models.load_model(path)
    except Exception as error:  # Keras raises what a file makes it raise
        hint = "a model with layers of your own is diagnosed in Python, where they are known: tlutils.diagnose"
        raise CommandError(f"cannot load {path}: {_last_line(str(error))[:200]} ({hint})") from None
    try:
        found = diagnose.diagnose(model, folder)
    except data.DataError as error:
        raise CommandError(str(error)) from None
    print(found)
    return FOUND if found.errors else OK


# --- train, evaluate, predict -----------------------------------------------------------------------------------------


def _train(arguments):
    folder = Path(arguments.folder).expanduser()
    source = folder if folder.is_dir() else _dataset(arguments.folder)
    out = Path(arguments.out or f"{Path(source).resolve().name}.keras").expanduser()
    backbone = _backbone(arguments.backbone)
    photos, runtime = _import("photos"), _import("runtime")
    with _in_one_line():
        try:
            print(runtime.setup(arguments.gpu, arguments.seed), flush=True)
            warnings.simplefilter("ignore", _import("data").DataWarning)  # they stand in the summary
            trained = photos.train(
                source,
                out,
                backbone,
                image_size=arguments.image_size,
                epochs=arguments.epochs,
                augment=arguments.augment,
                seed=arguments.seed,
                overwrite=arguments.overwrite,
                progress=True,
            )
        except runtime.GPURequiredError as error:
            raise CommandError(str(error), NO_GPU) from None
        except photos.PlaceError as error:
            raise CommandError(f"{error} (see --out and --overwrite)", USAGE) from None
        except FileNotFoundError as error:
            if error.filename is not None:
                raise
            raise RuntimeError(f"{error} For example: --backbone pocket_resnet") from None  # it is the weights
        except KeyboardInterrupt:
            raise CommandError("interrupted: the same command goes on where it was", INTERRUPTED) from None
    print(f"\n{trained}")
    return OK


def _evaluate(arguments):
    folder = Path(arguments.folder).expanduser()
    if not folder.is_dir():
        raise CommandError(f"there is no folder of images at {folder}", USAGE)
    classifier = _classifier(arguments.model)
    with _in_one_line():
        report, notes = classifier.evaluate(folder)
    for note in notes:
        print(f"Note: {note}.")
    print(report)
    return OK


def _predict(arguments):
    classifier = _classifier(arguments.model)
    with _in_one_line():
        predictions = classifier.predict(_expanded(arguments.images))
    if arguments.json:
        found = [
            {
                "file": prediction.file,
                "classes": [{"name": name, "probability": p} for name, p in prediction.classes],
                "problem": prediction.problem,
            }
            for prediction in predictions
        ]
        print(json.dumps(found, indent=2))  # in ASCII, which every pipe can carry
    elif rows := [(p.file, *(f"{name} {share:.3f}" for name, share in p.classes)) for p in predictions if p.classes]:
        heading = ("image", "first", "second", "third")[: len(rows[0])]
        print(_import("tables").as_text(heading, rows, "", left=range(len(heading))))
    problems = [prediction for prediction in predictions if prediction.problem]
    for prediction in problems:
        print(f"tlutils: {prediction.file}: {prediction.problem}", file=sys.stderr)
    return FAILED if problems else OK


def _classifier(path):
    if not Path(path).expanduser().is_file():
        raise CommandError(f"there is no model at {path}: give a file that tlutils train wrote (.keras)", USAGE)
    with _in_one_line():
        _import("runtime").setup()  # among other things, it leaves the rest of a GPU's memory to others
        return _import("photos").load(path)


@contextlib.contextmanager
def _in_one_line():
    """End the command with what the package says of a failure, and show warnings without where they come from."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # they name no file; what cannot be read is reported anyway
        warnings.simplefilter("ignore", DeprecationWarning)  # for the authors of libraries
        warnings.showwarning = lambda message, *_: print(f"tlutils: {_joined(message)}", file=sys.stderr)
        try:
            yield
        except MemoryError:
            raise CommandError("there is not enough memory: close other programs, or give fewer images") from None
        except (ValueError, RuntimeError, ImportError) as error:
            raise CommandError(_joined(error)) from None


def _joined(message):
    return " ".join(str(message).split())


def _expanded(names):
    """The files that names and patterns stand for. On Windows no shell puts files in the place of a pattern."""
    for name in names:
        yield from (not os.path.exists(name) and sorted(glob.glob(os.path.expanduser(name)))) or [name]


# --- lists ------------------------------------------------------------------------------------------------------------


def _datasets(arguments):
    for source in _import("data").registry().values():
        size = f" ({source.bytes / 1e6:.0f} MB)" if source.bytes else ""
        print(source.name)
        for line in (
            source.description,
            f"licence: {source.licence}",
            f"people: {source.people}",
            f"cite: {source.citation}",
            f"from: {source.url}{size}" if source.url else "",
            _whereabouts(source.download) if source.download else "",
        ):
            for part in textwrap.wrap(line, 100, break_long_words=False, break_on_hyphens=False):
                print(f"    {part}")
    return OK


def _whereabouts(download):
    try:
        folder = download.locate()
    except ValueError as error:
        return f"here: no; {error}"
    return f"here: {folder}" if folder else f"here: no; tlutils datasets get {download.name}"


def _datasets_get(arguments):
    data = _import("data")
    sources = data.registry()
    for name in arguments.names:
        if name not in sources:
            raise CommandError(f"no data set is called {name!r}; {suggestion(name, sources)}", USAGE)
    code = OK
    for name in dict.fromkeys(arguments.names):
        source = sources[name]
        if source.download is None:
            print(f"{name}: made or installed on this machine, nothing to fetch")
            continue
        try:
            if source.download.locate() is None:
                size = f", {source.bytes / 1e6:.0f} MB" if source.bytes else ""
                print(f"{name}: from {source.url}{size}; licence: {source.licence}", flush=True)
            print(f"{name}: checked, in {source.download.fetch()}", flush=True)
        except data.DataError as error:
            print(f"tlutils: {error}", file=sys.stderr)
            code = FAILED
    return code


def _backbones(arguments):
    rows = [("name", "family", "parameters", "pixels", "weights here", "licence of the weights")]
    for entry in _import("backbones").describe():
        local = "yes" if entry["local"] else "no"
        size, count = str(entry["image_size"]), f"{entry['parameters']:,}"
        rows.append((entry["name"], entry["family"], count, size, local, entry["licence"]))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    return OK


# --- doctor -----------------------------------------------------------------------------------------------------------


def _doctor(arguments):
    findings = [
        _check_python(),
        *_check_tensorflow(),
        *_check_weights(),
        *(_check_module(*module) for module in _MODULES),
        _check_browser(),
        _check_disk(),
        _check_memory(),
    ]
    for level, text in findings:
        print(f"{level:<7}  {text}")
    return FAILED if any(level == "problem" for level, _ in findings) else OK


_MODULES = (
    ("ipywidgets", "the sliders in the notebooks", "notebook"),
    ("papermill", "tlutils run", "run"),
    ("jupytext", "pairing notebooks with their text", "run"),
    ("pooch", "fetching data sets", "data"),
)


def _check_python():
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        return "ok", f"Python {version}"
    return "problem", f"Python {version}: TensorFlow needs 3.11, 3.12 or 3.13; install one of them"


def _check_tensorflow():
    if importlib.util.find_spec("tensorflow") is None:
        yield "problem", "TensorFlow is not installed: pip install 'tlutils[tensorflow]'"
        return
    try:
        check = _python(_TENSORFLOW_CHECK, timeout=300)
    except subprocess.TimeoutExpired:
        yield "problem", "TensorFlow did not load within five minutes: try `python -c 'import tensorflow'`"
        return
    if check.returncode:
        fix = "reinstall it: pip install --force-reinstall tensorflow"
        yield "problem", f"TensorFlow does not load: {_last_line(check.stderr)}; {fix}"
        return
    found = json.loads(check.stdout.splitlines()[-1])
    yield "ok", f"TensorFlow {found['tensorflow']} with Keras {found['keras']}"
    if found["gpus"]:
        yield "ok", f"GPU: {len(found['gpus'])} seen by TensorFlow"
    elif shutil.which("nvidia-smi"):
        yield "warn", "GPU: nvidia-smi is here, but TensorFlow sees none: pip install 'tensorflow[and-cuda]'"
    else:
        yield (
            "ok",
            "GPU: none. The quick profile needs none; for the full one, use Colab (Runtime → Change runtime type)",
        )


def _check_weights():
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    named = "KERAS_HOME" if os.environ.get("KERAS_HOME") else "KERAS_HOME is not set, so"
    found = sorted(path.name for path in (home / "models").glob("*") if path.suffix in (".h5", ".keras"))
    if found:
        yield "ok", f"{named} {home}: {len(found)} weight files ({', '.join(found)})"
    else:
        yield (
            "ok",
            f"{named} {home}: no weights yet; the full profile downloads what it needs, the quick one ships its own",
        )
    existing = next(folder for folder in (home, *home.absolute().parents) if folder.exists())
    if os.access(existing, os.W_OK):
        yield "ok", f"{home} can be written"
    else:
        yield "problem", f"{existing} cannot be written: set KERAS_HOME to a folder of your own"


def _check_module(name, use, extra):
    if importlib.util.find_spec(name):
        return "ok", f"{name}, for {use}"
    return "warn", f"{name} is not installed ({use}): pip install 'tlutils[{extra}]'"


def _check_browser():
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if browser:
        return "ok", f"Chromium: {browser}"
    linux = sys.platform.startswith("linux")
    fix = "apt-get install chromium" if linux else "install Chrome, and put its program on the PATH as chrome"
    return "warn", f"Chromium is not installed, so the tests of the book's sliders are skipped: {fix}"


def _check_disk():
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    if free < 2:
        return "warn", f"disk: {free:.1f} GB free here; an environment with TensorFlow takes about 2 GB, so make room"
    return "ok", f"disk: {free:.0f} GB free"


def _check_memory():
    if not importlib.util.find_spec("psutil"):
        return "warn", "memory: psutil is not installed, so it cannot be measured: pip install 'tlutils[run]'"
    import psutil

    free = psutil.virtual_memory().available / 1e9
    if free < 1.5:
        return "warn", f"memory: {free:.1f} GB available; a chapter may take 1.5 GB, so close other programs"
    return "ok", f"memory: {free:.1f} GB available"


def _last_line(text):
    return (text.strip().splitlines() or ["no message"])[-1]


if __name__ == "__main__":
    sys.exit(main())
