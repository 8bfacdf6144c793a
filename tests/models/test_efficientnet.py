"""EfficientNet-Lite0: the published weights in their places, early stages kept, and clear errors without them."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from pneumolib import runtime
from pneumolib.config import Config
from pneumolib.errors import ArtifactError, DataNotFoundError, MissingExtraError
from pneumolib.models import efficientnet
from pneumolib.models.resnet import build_model, unfreeze_backbone
from pneumolib.models.torch_weights import read_torch_weights

keras = runtime.keras()
CONFIG = Config(name="test", size=64, architecture="efficientnet_lite0", weights="imagenet", precision="float32")


@pytest.fixture(scope="module")
def model() -> object:
    return build_model(CONFIG)


def test_published_kernels_stand_where_they_belong(model: keras.Model) -> None:
    published = read_torch_weights(efficientnet._published())

    def kernel(name: str) -> np.ndarray:
        return np.asarray(model.get_layer(f"{name}_conv").kernel)

    stem = published["_conv_stem.weight"]
    np.testing.assert_allclose(kernel("stem")[2, 0, 0, 5], stem[5, :, 2, 0].sum(), rtol=1e-5)
    # The last block is the 15th, since the last stage of the published network is left out.
    assert kernel("stage6_block4_depth")[4, 1, 30, 0] == published["_blocks.14._depthwise_conv.weight"][30, 0, 4, 1]
    assert kernel("stage6_block4_project")[0, 0, 9, 7] == published["_blocks.14._project_conv.weight"][7, 9, 0, 0]
    assert kernel("stage3_block1_expand")[0, 0, 3, 50] == published["_blocks.3._expand_conv.weight"][50, 3, 0, 0]
    gamma, beta, mean, variance = model.get_layer("stage2_block2_depth_norm").get_weights()
    for ours, theirs in ((gamma, "weight"), (beta, "bias"), (mean, "running_mean"), (variance, "running_var")):
        np.testing.assert_array_equal(ours, published[f"_blocks.2._bn1.{theirs}"])


def test_a_picture_meets_the_statistics_that_the_weights_expect(model: keras.Model) -> None:
    """Kernels read with their axes exchanged would leave most channels far from their means."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (16, 8, 8, 1)).astype(np.float32)
    pictures = np.asarray(keras.ops.image.resize(coarse, (64, 64), interpolation="bicubic")).clip(0, 255)
    for name in ("stage1_block1_depth_norm", "stage2_block2_expand_norm", "stage4_block1_depth_norm"):
        norm = model.get_layer(name)
        before = np.asarray(keras.Model(model.input, norm.input)(pictures)).reshape(-1, norm.input.shape[-1])
        spread = np.sqrt(np.asarray(norm.moving_variance) + norm.epsilon)
        assert np.median(np.abs(before.mean(0) - np.asarray(norm.moving_mean)) / spread) < 1, name


def test_early_stages_stay_as_they_are_in_training(model: keras.Model) -> None:
    unfreeze_backbone(model)
    names = {layer.name.split("_")[0] for layer in model.layers if layer.trainable_variables}
    assert names == {"stage3", "stage4", "stage5", "stage6", "head", "logits"}
    early, late = model.get_layer("stage2_block2_depth_norm"), model.get_layer("stage5_block1_depth_norm")
    before = [np.asarray(norm.moving_mean).copy() for norm in (early, late)]
    model(np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 1)).astype(np.float32), training=True)
    np.testing.assert_array_equal(np.asarray(early.moving_mean), before[0])
    assert (np.asarray(late.moving_mean) != before[1]).any()


def test_weights_that_cannot_be_had_are_clear_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataNotFoundError, match=r"Received: '.*missing\.pth'"):
        build_model(CONFIG.replace(weights=str(tmp_path / "missing.pth")))
    with monkeypatch.context() as patched:
        patched.setattr(efficientnet, "read_torch_weights", lambda _: {"_conv_stem.weight": np.zeros((8, 3, 3, 3))})
        with pytest.raises(ArtifactError, match="does not hold weights of EfficientNet-Lite0"):
            build_model(CONFIG)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == efficientnet.PACKAGE else find(name, *rest)
    )
    with pytest.raises(MissingExtraError, match=r"pneumolib\[train\]"):
        build_model(CONFIG)
    assert build_model(CONFIG, pretrained=False).count_params() > 2e6
