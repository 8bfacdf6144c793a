"""The networks: compact ResNets for one gray channel; ResNet-50 and EfficientNet-Lite0 with ImageNet weights.

Every model is a plain, flat functional Keras model with the same five names to hold on to:

===============  ===========================  =========================================================
layer            shape                        what it is
===============  ===========================  =========================================================
``image``        ``[B, S, S, 1]`` float32     gray values, 0 to 255; rescaling happens inside the model
``features``     ``[B, S/32, S/32, K]``       the last feature map
``pooled``       ``[B, K]``                   its mean over space
``logits``       ``[B, C]`` float32           one number a class, linear in ``pooled``
``probabilities``  ``[B, C]`` float32         their softmax, the model's output
===============  ===========================  =========================================================

Since ``logits`` is linear in the mean of ``features``, a class activation map needs no gradient. `style_layers` names
the layers whose statistics tell how a picture was taken.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pneumolib import runtime
from pneumolib.config import Config
from pneumolib.errors import ArtifactError, DataNotFoundError, DownloadError
from pneumolib.models import efficientnet

if TYPE_CHECKING:
    import keras

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}

STYLE_STAGES = 3
MIXED_STAGES = 2  # the style of a device lives in early feature maps, the disease in late ones

MARGIN = "margin"  # the layer that leaves the edges of the square out

# Mean and standard deviation of the training images' gray values, rounded: the net starts near zero mean, unit scale.
GRAY_MEAN, GRAY_STD = 122.0, 60.0


def build_model(config: Config, *, precision: str | None = None, pretrained: bool = True) -> keras.Model:
    """Return the uncompiled network that `config` describes, output P(class) ``[B, C]`` float32.

    Args:
        config: architecture, size, classes, width, dropout, weights.
        precision: a Keras dtype policy; None takes `config.precision`, whose ``auto`` is the machine's best.
        pretrained: False ignores `config.weights` and leaves the network random, for weights that are loaded next.

    Raises:
        MissingExtraError: Keras, or the package with the ImageNet weights of EfficientNet-Lite0, is not installed.
        DownloadError: the ImageNet weights could not be fetched.
        DataNotFoundError: `config.weights` is a path where no file stands.
        ArtifactError: that file does not fit the architecture.

    Examples:
        >>> model = build_model(Config.preset("ci"))
        >>> model.output_shape
        (None, 3)
    """
    keras = runtime.keras()
    wanted = precision or config.precision
    if wanted == "auto":
        wanted = runtime.best_precision()
    with _dtype_policy(wanted):
        image = keras.Input((config.size, config.size, 1), name="image", dtype="float32")
        x = image
        if config.margin_pixels:
            x = keras.layers.Cropping2D(config.margin_pixels, name=MARGIN)(image)
        if config.architecture in BLOCKS:
            x = _compact_resnet(x, config)
        elif config.architecture == "efficientnet_lite0":
            x = efficientnet.efficientnet_lite0(x, config.mix_style, config.seed)
        else:
            x = _resnet50(x, config, config.weights if pretrained else None)
        x = keras.layers.Activation("linear", name="features")(x)
        x = keras.layers.GlobalAveragePooling2D(name="pooled")(x)
        if config.dropout:
            x = keras.layers.Dropout(config.dropout, seed=config.seed, name="dropout")(x)
        x = keras.layers.Dense(len(config.class_names), dtype="float32", name="logits")(x)
        output = keras.layers.Activation("softmax", dtype="float32", name="probabilities")(x)
    model = keras.Model(image, output, name=config.architecture)
    if config.architecture == "efficientnet_lite0" and config.weights is not None and pretrained:
        efficientnet.load_weights(model, config.weights)
    return model


def style_layers(model: keras.Model) -> list[str]:
    """Return the names of three layers of `model`, as `build_model` gives it, that tell how a picture was taken.

    They are the last of each of the first three stages; of EfficientNet-Lite0, whose early stages are not trained, the
    last of the stem and of the first two.
    """
    if model.name == "efficientnet_lite0":
        return list(efficientnet.STYLE)
    names = {layer.name for layer in model.layers}
    found = []
    for stage in range(1, STYLE_STAGES + 1):
        ends = (f"stage{stage}_block{{}}_relu", f"conv{stage + 1}_block{{}}_out")
        blocks = [end.format(block) for end in ends for block in range(1, 10) if end.format(block) in names]
        found.append(blocks[-1])
    return found


def freeze_backbone(model: keras.Model) -> None:
    """Leave only the classifier of `model` trainable; compile the model after this, as Keras asks."""
    for layer in model.layers:
        layer.trainable = layer.name == "logits"


def unfreeze_backbone(model: keras.Model) -> None:
    """Make a pre-trained `model` trainable but for what has to stay as ImageNet left it; compile the model after this.

    Of a ResNet-50 that is the batch normalisation, which stays in inference mode: statistics of small batches of X-rays
    would destroy what the statistics of ImageNet carry; a frozen `BatchNormalization` layer in Keras uses its stored
    statistics. Of EfficientNet-Lite0 it is the early stages.
    """
    if model.name == "efficientnet_lite0":
        efficientnet.freeze_early_stages(model)
        return
    keras = runtime.keras()
    for layer in model.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)


def _compact_resnet(image: Any, config: Config) -> Any:
    """ResNet v1 with basic blocks (He et al., 2016, arXiv:1512.03385) for one gray channel."""
    from pneumolib.models.mixstyle import MixStyle

    layers = runtime.keras().layers
    x = layers.Rescaling(1 / GRAY_STD, offset=-GRAY_MEAN / GRAY_STD, name="rescale")(image)
    x = _conv_norm(x, config.width, 7, 2, "stem")
    x = layers.ReLU(name="stem_relu")(x)
    x = layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)
    # The deeper a block, the more often it is skipped (Huang et al., 2016, arXiv:1603.09382).
    skipped = iter(np.linspace(0, config.stochastic_depth, sum(BLOCKS[config.architecture]) + 1)[1:])
    for stage, blocks in enumerate(BLOCKS[config.architecture]):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            name = f"stage{stage + 1}_block{block + 1}"
            x = _basic_block(x, config.width * 2**stage, stride, name, float(next(skipped)), config.seed)
        if config.mix_style and stage < MIXED_STAGES:
            x = MixStyle(config.mix_style, seed=config.seed + stage, name=f"stage{stage + 1}_mix_style")(x)
    return x


def _basic_block(x: Any, filters: int, stride: int, name: str, skipped: float, seed: int) -> Any:
    layers = runtime.keras().layers
    shortcut = x
    if stride != 1:
        # The pixels that a 1x1 convolution of this stride would read. Its gradient ends the process in TensorFlow 2.21
        # on a CPU where the network is narrow and the image large: 8 filters, float32, 224 pixels.
        shortcut = layers.MaxPooling2D(1, stride, name=f"{name}_pick")(shortcut)
    if x.shape[-1] != filters:
        shortcut = _conv_norm(shortcut, filters, 1, 1, f"{name}_shortcut")
    x = _conv_norm(x, filters, 3, stride, f"{name}_a")
    x = layers.ReLU(name=f"{name}_a_relu")(x)
    # A scale of zero makes each block start as the identity, which steadies the first epochs (arXiv:1706.02677, 5.1).
    x = _conv_norm(x, filters, 3, 1, f"{name}_b", scale_init="zeros")
    if skipped:
        x = layers.Dropout(skipped, noise_shape=(None, 1, 1, 1), seed=seed, name=f"{name}_skip")(x)
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.ReLU(name=f"{name}_relu")(x)


def _conv_norm(x: Any, filters: int, kernel: int, stride: int, name: str, scale_init: str = "ones") -> Any:
    layers = runtime.keras().layers
    x = layers.Conv2D(
        filters, kernel, stride, padding="same", use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv"
    )(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, gamma_initializer=scale_init, name=f"{name}_norm")(x)


def _resnet50(image: Any, config: Config, weights: str | None) -> Any:
    """Keras's own ResNet-50 or 50V2, built into our graph so that it stays flat; gray goes to three equal channels."""
    keras = runtime.keras()
    layers = keras.layers
    x = layers.Concatenate(name="gray_to_three_channels")([image, image, image])
    if config.architecture == "resnet50":
        # The published weights expect blue, green, red with ImageNet's means taken off and no other scaling.
        x = layers.Rescaling(1.0, offset=[-103.939, -116.779, -123.68], name="rescale")(x)
        application = keras.applications.ResNet50
    else:
        x = layers.Rescaling(1 / 127.5, offset=-1.0, name="rescale")(x)
        application = keras.applications.ResNet50V2
    if weights not in (None, "imagenet") and not Path(weights).is_file():
        raise DataNotFoundError(
            f"There is no weights file at that path. Allowed: 'imagenet', a file, or None. Received: {weights!r}"
        )
    try:
        backbone = application(include_top=False, weights=weights, input_tensor=x)
    except Exception as error:
        if weights == "imagenet":
            raise DownloadError(
                "The ImageNet weights could not be fetched. Try again with a network, or download Keras's "
                f"{config.architecture} weights file without top elsewhere and pass its path: "
                f"Config.preset('full', weights='FILE'). The cause: {error}"
            ) from error
        if weights is not None:
            raise ArtifactError(
                f"{weights} does not hold weights of {config.architecture} without its top. The cause: {error}"
            ) from error
        raise
    return backbone.output


@contextlib.contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    keras = runtime.keras()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
