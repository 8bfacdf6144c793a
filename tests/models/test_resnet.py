"""Networks: named layers, pixels inside, frozen and unfrozen backbones, weights files."""

from pathlib import Path

import numpy as np
import pytest

from pneumolib import runtime
from pneumolib.config import Config
from pneumolib.errors import ArtifactError, DataNotFoundError, DownloadError
from pneumolib.models.resnet import build_model, freeze_backbone, unfreeze_backbone

keras = runtime.keras()
NAMES = ("image", "features", "pooled", "logits", "probabilities")


def config(architecture: str = "resnet18", **changes) -> Config:
    return Config(name="test", size=64, width=8, architecture=architecture, **changes)


@pytest.mark.parametrize("architecture", ["resnet18", "resnet34", "resnet50", "resnet50v2", "efficientnet_lite0"])
def test_every_network_is_flat_and_has_the_five_names(architecture: str) -> None:
    model = build_model(config(architecture), precision="float32")
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    assert all(model.get_layer(name) for name in NAMES)
    assert model.get_layer("features").output.shape[1:3] == (2, 2)
    p = model(np.zeros((2, 64, 64, 1), np.float32))
    np.testing.assert_allclose(np.asarray(p).sum(1), 1, rtol=1e-5)


def test_depth_and_width_are_those_of_the_paper() -> None:
    def convolutions(architecture: str) -> int:
        return sum(layer.name.endswith(("_conv", "logits")) and "shortcut" not in layer.name
                   for layer in build_model(config(architecture)).layers)  # fmt: skip

    assert convolutions("resnet18") == 18
    assert convolutions("resnet34") == 34
    wide = build_model(Config(size=64, width=64, classes=3), precision="float32")
    # The paper's ResNet-18 has 11,689,512 trainable parameters with 1,000 classes and three input channels.
    trainable = sum(int(np.prod(v.shape)) for v in wide.trainable_variables)
    assert trainable == 11_689_512 - (512 * 1000 + 1000) + (512 * 3 + 3) - 2 * 64 * 7 * 7


def test_blocks_are_skipped_in_training_alone_and_the_deeper_the_more_often() -> None:
    config = Config(size=32, width=4, precision="float32")
    skipping = build_model(config.replace(stochastic_depth=0.4))
    rates = [layer.rate for layer in skipping.layers if layer.name.endswith("_skip")]
    assert rates == pytest.approx([0.05 * (block + 1) for block in range(8)])
    plain = build_model(config)
    for layer in plain.layers:
        layer.set_weights(skipping.get_layer(layer.name).get_weights())
    x = np.random.default_rng(0).uniform(0, 255, (6, 32, 32, 1)).astype(np.float32)
    assert not any("_skip" in layer.name for layer in plain.layers)
    block = skipping.get_layer("stage4_block2_skip")
    branch = np.ones((200, 1, 1, 3), np.float32)
    np.testing.assert_array_equal(block(branch, training=False), branch)
    kept = np.asarray(block(branch, training=True))
    assert (kept == kept[:, :, :, :1]).all(), "a whole image skips the block, or none of it"
    assert 0.45 < (kept > 0).mean() < 0.75
    np.testing.assert_allclose(skipping(x, training=False), plain(x, training=False), rtol=1e-5)


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50", "efficientnet_lite0"])
def test_what_lies_in_the_margin_is_not_looked_at(architecture: str) -> None:
    model = build_model(config(architecture, margin=0.125), precision="float32", pretrained=False)
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 255, (1, 64, 64, 1)).astype(np.float32)
    framed = np.full_like(image, 255)
    framed[:, 8:-8, 8:-8] = image[:, 8:-8, 8:-8]
    logits = runtime.keras().Model(model.input, model.get_layer("logits").output)
    np.testing.assert_array_equal(logits(image), logits(framed))
    framed[:, 8] = 0
    assert (np.asarray(logits(image)) != np.asarray(logits(framed))).any()


def test_a_narrow_network_learns_from_large_images() -> None:
    """Where TensorFlow's gradient of a strided 1x1 convolution ended the process."""
    model = build_model(Config(size=224, width=8, precision="float32"))
    model.compile(optimizer="sgd", loss="categorical_crossentropy", jit_compile=False)
    x = np.random.default_rng(0).uniform(0, 255, (2, 224, 224, 1)).astype(np.float32)
    for _ in range(3):
        assert np.isfinite(model.train_on_batch(x, np.eye(3, dtype=np.float32)[:2]))


def test_two_classes_and_mixed_precision() -> None:
    model = build_model(config(classes=2), precision="mixed_bfloat16")
    assert model.output_shape == (None, 2)
    assert model.get_layer("stem_conv").compute_dtype == "bfloat16"
    assert model.get_layer("logits").compute_dtype == "float32"
    assert model.output.dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize(("architecture", "module"), [("resnet50", "resnet"), ("resnet50v2", "resnet_v2")])
def test_the_right_preprocessing_lives_inside(architecture: str, module: str) -> None:
    model = build_model(config(architecture), precision="float32")
    gray = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 1)).astype(np.float32)
    inside = keras.Model(model.input, model.get_layer("rescale").output)(gray)
    expected = getattr(keras.applications, module).preprocess_input(np.repeat(gray, 3, axis=-1).copy())
    np.testing.assert_allclose(np.asarray(inside), expected, atol=1e-4)


def test_freezing_leaves_the_classifier_and_unfreezing_leaves_out_batch_normalisation() -> None:
    model = build_model(config("resnet50"), precision="float32")
    freeze_backbone(model)
    assert [v.path for v in model.trainable_variables] == ["logits/kernel", "logits/bias"]
    unfreeze_backbone(model)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms
    assert not any(norm.trainable for norm in norms)
    before = [np.asarray(norm.moving_mean).copy() for norm in norms]
    x = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 1)).astype(np.float32)
    model(x, training=True)
    for norm, mean in zip(norms, before, strict=True):
        np.testing.assert_array_equal(np.asarray(norm.moving_mean), mean)


def test_a_local_weights_file_is_read(tmp_path: Path) -> None:
    source = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(64, 64, 3))
    path = tmp_path / "backbone.weights.h5"
    source.save_weights(path)
    model = build_model(config("resnet50", weights=str(path)), precision="float32")
    np.testing.assert_array_equal(
        np.asarray(model.get_layer("conv2_block1_1_conv").kernel),
        np.asarray(source.get_layer("conv2_block1_1_conv").kernel),
    )


def test_weights_that_cannot_be_had_are_clear_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataNotFoundError, match=r"Received: '.*missing\.h5'"):
        build_model(config("resnet50", weights=str(tmp_path / "missing.h5")))
    other = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save_weights(other)
    with pytest.raises(ArtifactError, match="does not hold weights of resnet50"):
        build_model(config("resnet50", weights=str(other)))

    def offline(**_: object) -> None:
        raise Exception("URL fetch failure on somewhere: None -- no network")

    monkeypatch.setattr(keras.applications, "ResNet50", offline)
    with pytest.raises(DownloadError, match="pass its path"):
        build_model(config("resnet50", weights="imagenet"))
    build_model(config("resnet18"))
