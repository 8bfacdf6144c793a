"""The graphs of exports: what int8 rounds, and how far, so that no processor answers otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, load_model_from_string, numpy_helper

from pneumolib import runtime
from pneumolib.config import Config
from pneumolib.models.export_graphs import FIRST_WIDE, _too_fine_for_bytes, onnx
from pneumolib.models.resnet import build_model


@pytest.fixture(scope="module")
def graphs() -> tuple[ModelProto, ModelProto]:
    """A small network as float32 and as int8."""
    with runtime.seeded(0):
        model = build_model(Config.preset("ci", width=8), precision="float32")
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            gamma, *rest = layer.get_weights()
            # As built, some are zero and would take their kernels along.
            layer.set_weights([np.ones_like(gamma), *rest])
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64), dtype=np.uint8)
    return load_model_from_string(onnx(model, 1.5)), load_model_from_string(onnx(model, 1.5, images))


def test_nothing_but_the_answer_is_left(graphs: tuple[ModelProto, ModelProto]) -> None:
    for model in graphs:
        assert [i.name for i in model.graph.input] == ["image"]
        assert [o.name for o in model.graph.output] == ["probabilities"]
        assert "Log" not in {node.op_type for node in model.graph.node}, "the style is not asked for"
        read = {name for node in model.graph.node for name in node.input} | {"probabilities"}
        assert {constant.name for constant in model.graph.initializer} <= read
        assert {name for node in model.graph.node for name in node.output} <= read


def test_seven_bits_hold_every_weight_so_that_no_sum_is_cut_off(graphs: tuple[ModelProto, ModelProto]) -> None:
    _, model = graphs
    constants = {c.name: numpy_helper.to_array(c) for c in model.graph.initializer}
    kernels = [value for value in constants.values() if value.dtype == np.int8 and value.ndim == 4]
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(kernels) == len(convolutions) - 1
    for kernel in kernels:
        assert -64 <= kernel.min() < -60
        assert 60 < kernel.max() <= 64


def test_the_first_convolution_and_the_head_compute_with_float32(graphs: tuple[ModelProto, ModelProto]) -> None:
    _, model = graphs
    whole = {c.name for c in model.graph.initializer if numpy_helper.to_array(c).dtype == np.float32}
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    assert first.input[1] in whole
    (head,) = (node for node in model.graph.node if node.op_type == "Gemm")
    assert set(head.input[1:]) <= whole


def test_of_inverted_residuals_bytes_hold_the_later_wide_layers_alone() -> None:
    from onnx.helper import make_node

    stem = [make_node("Conv", ["image"], ["0"], name="stem"), make_node("Clip", ["0"], ["a"], name="cut the stem")]
    wide = [
        node
        for i in range(FIRST_WIDE + 2)
        for node in (
            make_node("Conv", ["a"], [f"b{i}"], name=f"wide {i}"),
            make_node("Clip", [f"b{i}"], ["c"], name=f"cut {i}"),
        )
    ]
    narrow = [make_node("Conv", ["e"], ["f"], name="narrow"), make_node("Add", ["f", "a"], ["g"], name="sum")]
    depthwise = make_node("Conv", ["c"], ["d"], name="depthwise", group=8)
    rectified = make_node("Clip", ["d"], ["e"], name="cut again")
    kept = _too_fine_for_bytes([*stem, *wide, depthwise, rectified, *narrow])
    assert kept == {"stem", "depthwise", "narrow", "sum", *(f"wide {i}" for i in range(FIRST_WIDE))}
    assert _too_fine_for_bytes([*stem, *wide, *narrow]) == set()
