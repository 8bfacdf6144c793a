"""pneumolib: a pneumonia detector for chest X-rays, with the data work, the evaluation and the notebooks around it.

Research and teaching software; no medical device. The names below are loaded when they are first used, so that
``import pneumolib`` stays fast and imports neither TensorFlow nor a plotting library.

Examples:
    >>> import pneumolib as pn
    >>> pn.Config.preset("ci").architecture
    'resnet18'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pneumolib import errors as errors
    from pneumolib.config import Config as Config
    from pneumolib.data.audit import audit as audit
    from pneumolib.data.card import CARD as CARD
    from pneumolib.data.dataset import Dataset as Dataset
    from pneumolib.data.dataset import ImageSet as ImageSet
    from pneumolib.data.dataset import load_dataset as load_dataset
    from pneumolib.data.download import download as download
    from pneumolib.data.images import decode as decode
    from pneumolib.data.images import load_square as load_square
    from pneumolib.data.phantom import make_phantom as make_phantom
    from pneumolib.data.splits import Split as Split
    from pneumolib.data.splits import split_by_patient as split_by_patient
    from pneumolib.evaluation import plots as plots
    from pneumolib.evaluation.report import Report as Report
    from pneumolib.models.augment import Augmentation as Augmentation
    from pneumolib.models.detector import Detector as Detector
    from pneumolib.models.detector import load_detector as load_detector
    from pneumolib.models.evaluate import evaluate as evaluate
    from pneumolib.models.explain import explain as explain
    from pneumolib.models.resnet import build_model as build_model
    from pneumolib.models.stress import stress_test as stress_test
    from pneumolib.models.training import Run as Run
    from pneumolib.models.training import train as train
    from pneumolib.serving.server import serve as serve

__version__ = "0.1.0"

_HOME = {
    "CARD": "data.card",
    "Augmentation": "models.augment",
    "Config": "config",
    "Dataset": "data.dataset",
    "Detector": "models.detector",
    "ImageSet": "data.dataset",
    "Report": "evaluation.report",
    "Run": "models.training",
    "Split": "data.splits",
    "audit": "data.audit",
    "build_model": "models.resnet",
    "decode": "data.images",
    "download": "data.download",
    "errors": "errors",
    "evaluate": "models.evaluate",
    "explain": "models.explain",
    "load_dataset": "data.dataset",
    "load_detector": "models.detector",
    "load_square": "data.images",
    "make_phantom": "data.phantom",
    "plots": "evaluation.plots",
    "serve": "serving.server",
    "split_by_patient": "data.splits",
    "stress_test": "models.stress",
    "train": "models.training",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pneumolib' has no attribute {name!r}")
    module = importlib.import_module(f"pneumolib.{_HOME[name]}")
    value = module if module.__name__.endswith(f".{name}") and not hasattr(module, name) else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
