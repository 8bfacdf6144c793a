"""The shapes of requests and answers; what is here changes with the version of the API only."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pneumolib.serving.problems import PROBLEMS

NOTICE = "Research and teaching software: no medical device, not for diagnosis."

HeatmapKind = Literal["none", "layer", "overlay"]
MEDIA_TYPES = ("image/jpeg", "image/png", "image/tiff", "image/bmp", "image/webp", "application/dicom")
ANY_BINARY = "application/octet-stream"


class _Fixed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_serialization_defaults_required=True)


class Wish(_Fixed):
    """What may stand in the address of a request for an answer; nothing else may."""

    operating_point: str = Field(
        default="balanced",
        max_length=64,
        examples=["balanced", "high_sensitivity", "high_specificity"],
        description="Which of the detector's operating points decides; `/v1/model` lists them",
    )
    heatmap: HeatmapKind = Field(
        default="none",
        description="`layer`: colours with transparency, to lay over the picture; `overlay`: laid over it",
    )
    picture: bool = Field(default=False, description="Also give the picture as the server read it")


class Nothing(_Fixed):
    """What may stand in an address that takes no options."""


class ModelName(_Fixed):
    """Which detector answered."""

    name: str
    version: str = Field(description="The version of pneumolib that made the detector")
    sha256: str = Field(description="Names the detector: the SHA-256 of its manifest")
    phantom: bool = Field(description="Trained on synthetic X-rays only: its answers mean nothing on real ones")


class Threshold(_Fixed):
    """The operating point that decided."""

    name: str
    threshold: float = Field(ge=0, le=1, description="Pneumonia from this probability on")


class Subtypes(_Fixed):
    """How the probability of pneumonia divides; how well it does is unproven, so decide nothing by it."""

    bacterial: float = Field(ge=0, le=1)
    viral: float = Field(ge=0, le=1)
    proven: Literal[False] = False


class InputState(_Fixed):
    """Whether the picture looks enough like a chest X-ray to decide on."""

    ok: bool
    code: str | None = Field(description="One word for programs, such as inverted, turned, layout, unfamiliar")
    reason: str | None = Field(description="The same for people")


class Picture(_Fixed):
    """A PNG of the picture as the server read it, upright, its longer side at most 1,024 pixels."""

    media_type: Literal["image/png"] = "image/png"
    width: int
    height: int
    data: str = Field(description="Base64", json_schema_extra={"contentEncoding": "base64"})


class Heatmap(_Fixed):
    """What speaks for pneumonia, and where."""

    kind: Literal["layer", "overlay"] = Field(
        description="layer: colours with transparency, to be stretched over the picture; overlay: laid over it"
    )
    method: Literal["cam"] = "cam"
    target: Literal["pneumonia"] = "pneumonia"
    media_type: Literal["image/png"] = "image/png"
    width: int
    height: int
    data: str = Field(description="Base64", json_schema_extra={"contentEncoding": "base64"})


class Timing(_Fixed):
    """Where the time went, in milliseconds."""

    queue: float
    decode: float
    inference: float
    heatmap: float
    total: float = Field(description="From the last byte received to the answer made")


class Answer(_Fixed):
    """The answer to one picture."""

    schema_: Literal["pneumolib.answer/1"] = Field(default="pneumolib.answer/1", serialization_alias="schema")
    request_id: str
    model: ModelName
    probability: float | None = Field(ge=0, le=1, description="Calibrated P(pneumonia); null where input.ok is false")
    decision: Literal["pneumonia", "normal"] | None = Field(description="null where input.ok is false")
    operating_point: Threshold
    subtypes: Subtypes | None = Field(description="null where input.ok is false, or the detector knows none")
    input: InputState
    heatmap: Heatmap | None
    picture: Picture | None
    timing: Timing
    notice: str = NOTICE


class ProblemDetails(_Fixed):
    """Problem details (RFC 9457): `code` stays the same, texts may not."""

    type: str
    title: str
    status: int
    code: str = Field(json_schema_extra={"enum": list(PROBLEMS)})
    detail: str
    request_id: str


class BatchItem(_Fixed):
    """What became of one file of a batch: an answer, or a problem."""

    index: int = Field(description="The place of the file in the request, from 0")
    answer: Answer | None
    problem: ProblemDetails | None


class BatchAnswer(_Fixed):
    """The answers to a batch, in the order of its files."""

    schema_: Literal["pneumolib.batch/1"] = Field(default="pneumolib.batch/1", serialization_alias="schema")
    request_id: str
    results: list[BatchItem]


class Point(_Fixed):
    """An operating point, and what it gave on validation images."""

    name: str
    threshold: float
    sensitivity: float
    specificity: float
    rule: str


class InputPolicy(_Fixed):
    """What is taken in."""

    media_types: list[str]
    max_bytes: int
    max_pixels: int
    max_files: int
    max_batch_bytes: int


class SelfCheck(_Fixed):
    """The detector's answer to a picture made for this, held against the one recorded when it was saved."""

    recorded: bool
    difference: float | None


class ModelInfo(_Fixed):
    """The detector that answers, and how."""

    schema_: Literal["pneumolib.model/1"] = Field(default="pneumolib.model/1", serialization_alias="schema")
    model: ModelName
    architecture: str
    size: int = Field(description="Side of the square that pictures are stretched to, in pixels")
    classes: list[str]
    operating_points: list[Point]
    temperature: float = Field(description="What logits are divided by before they become probabilities")
    validation: dict[str, float] = Field(description="What it was accepted with, on validation images")
    input: InputPolicy
    self_check: SelfCheck
    versions: dict[str, str]
    notice: str = NOTICE


class Health(_Fixed):
    """The state of the server."""

    live: bool
    ready: bool
    reason: str | None = Field(description="Why it is not ready")
