"""Transfer learning with TensorFlow/Keras: the code behind the book.

Data flows one way through the modules: ``data`` → ``backbones`` → ``models`` → ``training`` → ``evaluation`` →
``plots``. Each loads on first use, so ``import tlutils`` is instant and does not load TensorFlow.
"""

import importlib

__version__ = "0.1.0"

_MODULES = (
    "backbones",
    "cli",
    "colab",
    "cost",
    "data",
    "diagnose",
    "downloads",
    "engines",
    "evaluation",
    "exercises",
    "explain",
    "explore",
    "features",
    "inspection",
    "letters",
    "models",
    "photos",
    "plots",
    "recipes",
    "reference",
    "results",
    "runner",
    "runtime",
    "sounds",
    "sources",
    "surgery",
    "targets",
    "training",
    "transferability",
    "zoo",
)

__all__ = [*_MODULES, "__version__"]


def __getattr__(name):
    if name in _MODULES:
        return importlib.import_module(f"tlutils.{name}")
    raise AttributeError(f"module 'tlutils' has no attribute {name!r}; its modules are {', '.join(_MODULES)}")


def __dir__():
    return __all__
