"""Settings: one frozen, validated `Config` with named presets, and the only reader of environment variables."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pneumolib.errors import ConfigError

Architecture = Literal["resnet18", "resnet34", "resnet50", "resnet50v2", "efficientnet_lite0"]
Strength = Literal["none", "light", "medium", "strong", "framed"]
Precision = Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"]
Devices = Literal["one", "all"]

_LATER = {"devices": "one", "stochastic_depth": 0, "mixup": 0, "final_rate": 0, "margin": 0}
_NEVER = object()

ARCHITECTURES: tuple[str, ...] = typing.get_args(Architecture)
PRETRAINABLE = ("resnet50", "resnet50v2", "efficientnet_lite0")
CHANGEABLE = {  # by which settings the networks of this package differ from those that were published
    "mix_style": ("resnet18", "resnet34", "efficientnet_lite0"),
    "stochastic_depth": ("resnet18", "resnet34"),
}


@dataclass(frozen=True)
class Config:
    """Everything that decides what a training run computes; equal configs on equal data give equal weights on a CPU.

    Build one from a preset and change what you need: ``Config.preset("quick", epochs=10)``. Every field is checked when
    the object is made; a bad value raises `ConfigError` that names the field, what is allowed and what came.

    Examples:
        >>> config = Config.preset("quick", epochs=10)
        >>> config.architecture, config.size, config.epochs
        ('resnet18', 96, 10)
        >>> config.replace(size=128).size
        128
    """

    name: str = "custom"

    # data
    size: int = 160  # side of the square image, pixels
    margin: float = 0.0  # share of the side that the network leaves out at each edge, where letters and frames are
    classes: int = 3  # 3: normal, bacterial, viral (then summed); 2: normal, pneumonia
    seed: int = 0  # decides the split, the initial weights, the order of images and the augmentation
    phantom_allowed: bool = False  # may synthetic X-rays stand in when no real ones can be had?

    # model
    architecture: Architecture = "resnet18"
    width: int = 32  # filters of the first stage; resnet18/34 only
    weights: str | None = None  # None: random; "imagenet"; or the path of a weights file
    dropout: float = 0.0  # before the classifier
    stochastic_depth: float = 0.0  # share of images that skip the last block in training; resnet18/34 only

    # augmentation
    augmentation: Strength | Mapping[str, float] = "medium"  # a strength, or fields of `Augmentation`
    mix_style: float = 0.0  # probability with which an image takes the style of another (`MixStyle`); not in resnet50
    mixup: float = 0.0  # both parameters of the Beta law by which images and targets are mixed in pairs; 0 is off

    # optimisation
    epochs: int = 28
    frozen_epochs: int = 0  # first epochs in which a pre-trained backbone stays frozen
    batch_size: int = 32
    min_steps: int = 1  # of an epoch; images of a small data set are visited several times in one
    learning_rate: float = 1e-3  # peak, reached after the warm-up, then cosine decay
    final_rate: float = 0.0  # share of the peak that is left at the end
    fine_tune_learning_rate: float = 1e-4  # peak once a pre-trained backbone is unfrozen
    weight_decay: float = 0.05
    warmup_epochs: float = 1.0
    label_smoothing: float = 0.05
    class_weights: bool = True  # weigh images so that the classes count the same
    export_weights: float = 1.0  # weigh the two export groups of a class alike, each image at most so much; 1 is off
    average_weights: float | None = 0.99  # momentum of the moving average of weights; None switches it off

    # hardware
    precision: Precision = "auto"  # auto: float16 on a GPU with tensor cores, bfloat16 on a CPU that has it
    compile_xla: bool | None = None  # None: on for a GPU, off for a CPU
    devices: Devices = "one"  # all: every GPU of the host computes its share of each batch

    def __post_init__(self) -> None:
        if isinstance(self.augmentation, Mapping):
            # A copy, so that whoever made the mapping cannot change a config that is in use.
            object.__setattr__(self, "augmentation", dict(self.augmentation))
        for field in dataclasses.fields(self):
            _check_type(field.name, getattr(self, field.name), _TYPES[field.name])
        _check(32 <= self.size <= 1024, "size", "32 to 1024 pixels", self.size)
        _check(0 <= self.margin <= 0.25, "margin", "0 to 0.25", self.margin)
        _check(self.inner_size >= 32, "margin", "one that leaves 32 pixels or more of size", self.margin)
        _check(self.classes in (2, 3), "classes", "2 or 3", self.classes)
        _check(self.seed >= 0, "seed", "0 or more", self.seed)
        _check(4 <= self.width <= 128, "width", "4 to 128", self.width)
        _check(0 <= self.dropout < 1, "dropout", "0 <= dropout < 1", self.dropout)
        _check(self.epochs >= 1, "epochs", "1 or more", self.epochs)
        _check(0 <= self.frozen_epochs < self.epochs, "frozen_epochs", "0 to epochs - 1", self.frozen_epochs)
        _check(self.batch_size >= 1, "batch_size", "1 or more", self.batch_size)
        _check(self.min_steps >= 1, "min_steps", "1 or more", self.min_steps)
        _check(self.learning_rate > 0, "learning_rate", "more than 0", self.learning_rate)
        _check(self.fine_tune_learning_rate > 0, "fine_tune_learning_rate", "more than 0", self.fine_tune_learning_rate)
        _check(self.weight_decay >= 0, "weight_decay", "0 or more", self.weight_decay)
        _check(0 <= self.warmup_epochs <= self.epochs, "warmup_epochs", "0 to epochs", self.warmup_epochs)
        _check(0 <= self.label_smoothing < 0.5, "label_smoothing", "0 <= label_smoothing < 0.5", self.label_smoothing)
        _check(1 <= self.export_weights <= 100, "export_weights", "1 to 100", self.export_weights)
        if self.average_weights is not None:
            _check(0 < self.average_weights < 1, "average_weights", "None, or between 0 and 1", self.average_weights)
        _check(0 <= self.mix_style <= 1, "mix_style", "0 to 1", self.mix_style)
        _check(0 <= self.stochastic_depth < 1, "stochastic_depth", "0 <= stochastic_depth < 1", self.stochastic_depth)
        _check(0 <= self.mixup <= 10, "mixup", "0 to 10", self.mixup)
        _check(0 <= self.final_rate <= 1, "final_rate", "0 to 1", self.final_rate)
        for name, architectures in CHANGEABLE.items():
            if getattr(self, name) and self.architecture not in architectures:
                raise ConfigError(
                    f"{name}={getattr(self, name)} needs {' or '.join(architectures)}: {self.architecture} is left as "
                    "it was published."
                )
        if self.weights is not None and self.architecture not in PRETRAINABLE:
            raise ConfigError(
                f"weights={self.weights!r} needs one of the architectures {', '.join(PRETRAINABLE)}: "
                f"{self.architecture} is built for one gray channel and trained from scratch."
            )
        if self.frozen_epochs and self.weights is None:
            raise ConfigError(
                f"frozen_epochs={self.frozen_epochs} needs pre-trained weights: a random backbone that is frozen "
                "learns nothing. Set weights, or frozen_epochs=0."
            )

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Config:
        """Return the preset called `name`, with the fields in `changes` set otherwise.

        Args:
            name: one of `PRESETS`: ``full`` (ResNet-50 on a GPU), ``cpu`` (EfficientNet-Lite0, about an hour on two
                cores), ``scratch`` (ResNet-18 without borrowed weights, longer),
                ``quick`` (a few minutes on two cores), ``ci`` (seconds), or ``auto``, which takes the environment
                variable ``PNEUMOLIB_PRESET`` if it is set, else ``full`` where there is a GPU, else ``quick``.
            **changes: fields of `Config`.

        Raises:
            ConfigError: the name is no preset, or a change is no field or out of range.
        """
        if name == "auto":
            name = environment().preset or ("full" if _has_gpu() else "quick")
        if name not in PRESETS:
            raise ConfigError(
                f"There is no preset of that name. Allowed: auto, {', '.join(PRESETS)}. Received: {name!r}"
            )
        return cls.from_dict({"name": name, **PRESETS[name], **changes})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """Return the config whose fields are `values`; unknown names raise `ConfigError`."""
        unknown = sorted(set(values) - set(_TYPES))
        if unknown:
            raise ConfigError(f"Unknown settings: {', '.join(unknown)}. Allowed: {', '.join(_TYPES)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict of plain values, ready for JSON."""
        return dataclasses.asdict(self)

    def __hash__(self) -> int:
        return hash(self.fingerprint())

    def replace(self, **changes: Any) -> Config:
        """Return a copy with the fields in `changes` set otherwise."""
        return self.from_dict({**self.to_dict(), **changes})

    @property
    def margin_pixels(self) -> int:
        """How many pixels at each edge of the square the network leaves out."""
        return round(self.size * self.margin)

    @property
    def inner_size(self) -> int:
        """The side in pixels of what the network looks at: the square without its margins."""
        return self.size - 2 * self.margin_pixels

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the model's outputs, in order."""
        return ("normal", "bacterial", "viral") if self.classes == 3 else ("normal", "pneumonia")

    def fingerprint(self) -> str:
        """Return 8 hexadecimal digits that change when any setting other than the name does."""
        # Fingerprints name folders and results: a setting that came later is left out where it changes nothing.
        values = {k: v for k, v in self.to_dict().items() if k != "name" and _LATER.get(k, _NEVER) != v}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


PRESETS: dict[str, dict[str, Any]] = {
    # ResNet-50 with ImageNet weights, for a GPU such as Colab's. Head first, then the whole net at a low rate.
    "full": dict(
        size=224,
        architecture="resnet50",
        weights="imagenet",
        augmentation="strong",
        epochs=20,
        frozen_epochs=3,
        dropout=0.2,
        warmup_epochs=0.5,
    ),
    # EfficientNet-Lite0 with ImageNet weights, its early stages kept, about an hour on two CPU cores; the reference
    # result of the README. It sees the inner 160 pixels: what stands at the edges tells who took the picture.
    # Depthwise convolutions are slower in bfloat16 on a CPU than in float32.
    "cpu": dict(
        size=192,
        margin=1 / 12,
        architecture="efficientnet_lite0",
        weights="imagenet",
        augmentation="strong",
        mix_style=0.5,
        epochs=18,
        warmup_epochs=0.5,
        fine_tune_learning_rate=5e-4,
        final_rate=0.1,
        average_weights=0.998,
        precision="float32",
    ),
    # ResNet-18 from scratch, in an hour and a half on two CPU cores: what can be had without ImageNet.
    "scratch": dict(
        size=160,
        architecture="resnet18",
        width=32,
        augmentation="strong",
        mix_style=0.5,
        epochs=48,
        average_weights=0.998,
        final_rate=0.25,
    ),
    # A small ResNet-18 from scratch: minutes on two cores, for a first walk through the series.
    "quick": dict(
        size=96,
        architecture="resnet18",
        width=16,
        augmentation="light",
        epochs=8,
        learning_rate=2e-3,
        min_steps=60,
        phantom_allowed=True,
    ),
    # Tiny: shows that everything runs, proves nothing about accuracy.
    "ci": dict(
        size=64,
        architecture="resnet18",
        width=8,
        augmentation="light",
        epochs=8,
        batch_size=16,
        learning_rate=3e-3,
        min_steps=40,
        average_weights=0.9,
        phantom_allowed=True,
    ),
}


@dataclass(frozen=True)
class Environment:
    """What the environment variables say; the fields are None where a variable is not set."""

    data: str | None  # PNEUMOLIB_DATA: a folder, a zip, "kaggle" or "phantom"
    preset: str | None  # PNEUMOLIB_PRESET: the preset that "auto" stands for
    home: Path  # PNEUMOLIB_HOME: where stores, phantoms and runs go; default ./artifacts
    cache: Path  # PNEUMOLIB_CACHE: where decoded stores and phantoms go; default ~/.cache/pneumolib
    api_key: str | None  # PNEUMOLIB_API_KEY: what callers of `pneumolib serve` have to send
    tensorflow_logs: bool  # PNEUMOLIB_TF_LOGS=1: let TensorFlow print its log lines


def environment() -> Environment:
    """Return the settings that come from environment variables, read now.

    Raises:
        ConfigError: ``PNEUMOLIB_PRESET`` names no preset.
    """
    preset = os.environ.get("PNEUMOLIB_PRESET") or None
    if preset is not None and preset not in PRESETS:
        raise ConfigError(f"PNEUMOLIB_PRESET must be one of {', '.join(PRESETS)}. Received: {preset!r}")
    default_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pneumolib"
    return Environment(
        data=os.environ.get("PNEUMOLIB_DATA") or None,
        preset=preset,
        home=Path(os.environ.get("PNEUMOLIB_HOME") or "artifacts"),
        cache=Path(os.environ.get("PNEUMOLIB_CACHE") or default_cache),
        api_key=os.environ.get("PNEUMOLIB_API_KEY") or None,
        tensorflow_logs=os.environ.get("PNEUMOLIB_TF_LOGS", "") not in ("", "0"),
    )


def _has_gpu() -> bool:
    from pneumolib import runtime

    return runtime.has_gpu()


def _check(holds: bool, field: str, allowed: str, received: object) -> None:
    if not holds:
        raise ConfigError(f"{field} must be {allowed}. Received: {received!r}")


def _check_type(field: str, value: object, expected: Any) -> None:
    if field == "augmentation":
        _check_augmentation(value)
        return
    options = typing.get_args(expected) or (expected,)
    if typing.get_origin(expected) is Literal:
        _check(value in options, field, "one of " + ", ".join(map(repr, options)), value)
        return
    for option in options:
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return
        if option is int and isinstance(value, int) and not isinstance(value, bool):
            return
        if option not in (int, float) and isinstance(value, option):
            return
    raise ConfigError(f"{field} must be {' or '.join(o.__name__ for o in options)}. Received: {value!r}")


def _check_augmentation(value: object) -> None:
    strengths = typing.get_args(Strength)
    allowed = "one of " + ", ".join(map(repr, strengths)) + ", or a mapping of steps of Augmentation to numbers"
    if isinstance(value, Mapping):
        good = all(isinstance(k, str) and type(v) in (int, float) for k, v in value.items())
    else:
        good = isinstance(value, str) and value in strengths
    _check(good, "augmentation", allowed, value)


_TYPES: dict[str, Any] = typing.get_type_hints(Config)
