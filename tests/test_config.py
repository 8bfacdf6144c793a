"""Settings are checked when they are made, and name what is wrong."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from pneumolib import config, runtime
from pneumolib.config import PRESETS, Config, environment
from pneumolib.errors import ConfigError

VARIABLES = ("DATA", "PRESET", "HOME", "CACHE", "TF_LOGS")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(f"PNEUMOLIB_{name}", raising=False)


class TestConfig:
    def test_a_margin_leaves_32_pixels_or_more(self) -> None:
        assert Config(size=192, margin=1 / 12).inner_size == 160
        assert Config(size=192).inner_size == 192
        with pytest.raises(ConfigError, match=r"leaves 32 pixels or more of size\. Received: 0\.25"):
            Config(size=60, margin=0.25)

    @pytest.mark.parametrize(
        ("field", "bad"),
        [
            ("size", 31),
            ("size", 1025),
            ("size", 160.0),
            ("size", True),
            ("margin", 0.3),
            ("classes", 4),
            ("seed", -1),
            ("width", 2),
            ("dropout", 1.0),
            ("epochs", 0),
            ("frozen_epochs", 28),
            ("batch_size", 0),
            ("learning_rate", 0),
            ("learning_rate", "fast"),
            ("fine_tune_learning_rate", -1e-4),
            ("weight_decay", -0.1),
            ("warmup_epochs", 29),
            ("label_smoothing", 0.5),
            ("average_weights", 1.0),
            ("class_weights", 1),
            ("phantom_allowed", "yes"),
            ("architecture", "vgg16"),
            ("augmentation", "extreme"),
            ("augmentation", {"rotation": "much"}),
            ("augmentation", ["rotation"]),
            ("mix_style", 1.1),
            ("stochastic_depth", 1.0),
            ("mixup", -0.1),
            ("final_rate", 1.5),
            ("precision", "float16"),
            ("compile_xla", "auto"),
            ("weights", 5),
        ],
    )
    def test_bad_value_is_refused_by_name(self, field: str, bad: Any) -> None:
        with pytest.raises(ConfigError) as raised:
            Config(**{field: bad})
        assert str(raised.value).startswith(f"{field} must be ")
        assert f"Received: {bad!r}" in str(raised.value)

    @pytest.mark.parametrize(
        ("field", "good"),
        [
            ("size", 32),
            ("size", 1024),
            ("weight_decay", 0),
            ("learning_rate", 1),
            ("average_weights", None),
            ("compile_xla", None),
            ("compile_xla", True),
            ("warmup_epochs", 0),
        ],
    )
    def test_edge_of_what_is_allowed_is_taken(self, field: str, good: Any) -> None:
        assert getattr(Config(**{field: good}), field) == good

    def test_pretrained_weights_need_an_architecture_that_has_them(self) -> None:
        with pytest.raises(ConfigError, match="resnet50, resnet50v2"):
            Config(weights="imagenet")
        assert Config(weights="imagenet", architecture="resnet50").weights == "imagenet"

    @pytest.mark.parametrize(
        ("field", "fitting"),
        [("mix_style", "resnet18 or resnet34 or efficientnet_lite0"), ("stochastic_depth", "resnet18 or resnet34")],
    )
    def test_what_changes_the_network_needs_one_of_ours(self, field: str, fitting: str) -> None:
        with pytest.raises(ConfigError, match=rf"{field}=0\.5 needs {fitting}:"):
            Config(architecture="resnet50", **{field: 0.5})
        assert getattr(Config(**{field: 0.5}), field) == 0.5

    @pytest.mark.parametrize(
        ("field", "changed"), [("devices", "all"), ("stochastic_depth", 0.1), ("mixup", 0.2), ("final_rate", 0.1)]
    )
    def test_a_setting_that_came_later_changes_the_fingerprint_only_where_it_is_used(
        self, field: str, changed: Any
    ) -> None:
        assert Config().fingerprint() == "cfc7d35c"
        assert Config(**{field: changed}).fingerprint() != "cfc7d35c"

    def test_augmentation_may_be_spelt_out_and_is_copied(self) -> None:
        steps = {"rotation": 5, "tone": 0.5}
        config = Config(augmentation=steps)
        steps["rotation"] = 90
        assert config.augmentation == {"rotation": 5, "tone": 0.5}
        again = Config.from_dict(json.loads(json.dumps(config.to_dict())))
        assert again == config
        assert hash(again) == hash(config)
        assert config.fingerprint() != Config(augmentation={"rotation": 6, "tone": 0.5}).fingerprint()

    def test_frozen_random_backbone_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="learns nothing"):
            Config(architecture="resnet50", frozen_epochs=2)

    def test_config_cannot_be_changed_in_place(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            Config().size = 64  # type: ignore[misc]

    def test_replace_checks_too_and_leaves_the_first_alone(self) -> None:
        first = Config()
        assert first.replace(size=96).size == 96
        assert first.size == 160
        with pytest.raises(ConfigError, match="size must be"):
            first.replace(size=1)

    def test_unknown_setting_is_named(self) -> None:
        with pytest.raises(ConfigError, match="Unknown settings: colour"):
            Config().replace(colour="red")

    def test_class_names_follow_the_number_of_classes(self) -> None:
        assert Config(classes=3).class_names == ("normal", "bacterial", "viral")
        assert Config(classes=2).class_names == ("normal", "pneumonia")

    @pytest.mark.parametrize("name", PRESETS)
    def test_round_trip_through_json(self, name: str) -> None:
        preset = Config.preset(name)
        again = Config.from_dict(json.loads(json.dumps(preset.to_dict())))
        assert again == preset
        assert again.fingerprint() == preset.fingerprint()

    def test_fingerprint_is_of_the_settings_not_of_the_name(self) -> None:
        assert Config().fingerprint() == Config(name="other").fingerprint()
        prints = {Config(**change).fingerprint() for change in ({}, {"seed": 1}, {"dropout": 0.1}, {"size": 96})}
        assert len(prints) == 4


class TestPresets:
    def test_presets_have_their_own_names_and_take_changes(self) -> None:
        for name in PRESETS:
            assert Config.preset(name).name == name
            assert Config.preset(name, seed=7).seed == 7

    def test_phantom_stands_in_for_small_presets_only(self) -> None:
        assert {name for name in PRESETS if Config.preset(name).phantom_allowed} == {"quick", "ci"}

    def test_unknown_preset_names_the_known(self) -> None:
        with pytest.raises(ConfigError, match=r"Allowed: auto, full, cpu, scratch, quick, ci. Received: 'huge'"):
            Config.preset("huge")

    @pytest.mark.parametrize(("gpu", "expected"), [(True, "full"), (False, "quick")])
    def test_auto_goes_by_the_hardware(self, gpu: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runtime, "has_gpu", lambda: gpu)
        assert Config.preset("auto").name == expected

    def test_auto_goes_by_the_environment_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PNEUMOLIB_PRESET", "ci")
        monkeypatch.setattr(runtime, "has_gpu", lambda: True)
        assert Config.preset("auto").name == "ci"
        assert Config.preset("quick").name == "quick"


class TestEnvironment:
    def test_defaults(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert environment() == config.Environment(
            data=None,
            preset=None,
            home=Path("artifacts"),
            cache=tmp_path / "pneumolib",
            api_key=None,
            tensorflow_logs=False,
        )

    def test_variables_are_read_at_each_call(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        values = {"DATA": "phantom", "PRESET": "quick", "HOME": tmp_path, "CACHE": tmp_path / "c"}
        values |= {"TF_LOGS": "1", "API_KEY": "k" * 16}
        for name, value in values.items():
            monkeypatch.setenv(f"PNEUMOLIB_{name}", str(value))
        assert environment() == config.Environment("phantom", "quick", tmp_path, tmp_path / "c", "k" * 16, True)

    def test_empty_variable_counts_as_not_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in VARIABLES:
            monkeypatch.setenv(f"PNEUMOLIB_{name}", "")
        found = environment()
        assert (found.data, found.preset, found.home, found.tensorflow_logs) == (None, None, Path("artifacts"), False)

    def test_unknown_preset_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PNEUMOLIB_PRESET", "fast")
        with pytest.raises(ConfigError, match=r"PNEUMOLIB_PRESET must be one of .* Received: 'fast'"):
            environment()
