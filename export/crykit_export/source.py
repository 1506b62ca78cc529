"""What is exported: a training run's weights and record, or those of an existing bundle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from crykit.bundle import MANIFEST_NAME, WEIGHTS_NAME, Bundle
from crykit.errors import InputError
from crykit.gate import GateSettings
from crykit.manifest import ClipPooling, Evidence
from crykit.nn.student import CryStudent, StudentConfig

RUN_WEIGHTS = "model.safetensors"
RUN_RECORD = "model.json"


class Record(msgspec.Struct, kw_only=True):
    """What a run's `model.json` says besides the weights; all but the shape is optional."""

    architecture: dict[str, Any]
    name: str = "cry-student"
    version: str = "0.1.0"
    licence: str = "Apache-2.0"
    description: str = "Streaming infant-cry detector"
    gate: GateSettings = GateSettings()
    clip: ClipPooling = ClipPooling()
    training: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True)
class TrainedModel:
    """A student in evaluation mode, its raw weights and its record."""

    student: CryStudent
    weights: dict[str, Tensor]
    record: Record


def load_model(path: Path) -> TrainedModel:
    """Read a training run's folder or a bundle.

    Raises:
        InputError: it is neither, or its weights do not fit its architecture.
    """
    if (path / MANIFEST_NAME).is_file():
        bundle = Bundle.open(path)
        fields = {f: getattr(bundle.manifest, f) for f in Record.__struct_fields__}
        return _build(bundle.path(WEIGHTS_NAME), Record(**fields))
    weights, record = path / RUN_WEIGHTS, path / RUN_RECORD
    if not weights.is_file() or not record.is_file():
        raise InputError(
            f"{path}: expected a training run with {RUN_WEIGHTS} and {RUN_RECORD}, or a bundle; "
            "name a finished run's folder"
        )
    return _build(weights, read_record(record))


def read_record(path: Path) -> Record:
    """A run's `model.json`.

    Raises:
        InputError: it is not what `crykit train` writes.
    """
    try:
        document = json.loads(path.read_bytes())
        return msgspec.convert(_without_folders(document), Record)
    except (ValueError, msgspec.ValidationError) as error:
        raise InputError(f"{path}: not the record of a training run: {error}") from None


def _without_folders(value: Any) -> Any:
    """The record with every path cut to its last part: a bundle names no folder of its maker."""
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    if isinstance(value, str) and value.startswith(("/", "./", "../", "~")):
        return Path(value).name
    return value


def student_config(architecture: dict[str, Any]) -> StudentConfig:
    """The network's shape from a manifest's `architecture`.

    Raises:
        InputError: another kind of network, or a field that makes no sense.
    """
    fields = dict(architecture)
    kind = fields.pop("kind", None)
    if kind != "cry_student":
        raise InputError(f"architecture: expected kind 'cry_student', got {kind!r}")
    try:
        return msgspec.convert(fields, StudentConfig)
    except msgspec.ValidationError as error:
        raise InputError(f"architecture: {error}") from None


def _build(weights_path: Path, record: Record) -> TrainedModel:
    student = CryStudent(student_config(record.architecture)).eval()
    try:
        weights = load_file(weights_path)
        student.load_state_dict(weights)
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{weights_path}: weights do not fit the architecture: {reason}") from None
    return TrainedModel(student, weights, record)


def override(
    model: TrainedModel, record: Path | None, gate: Path | None, named: dict[str, str | None]
) -> TrainedModel:
    """The model with parts of its record replaced: by a JSON file, a gate's file, single names.

    Raises:
        InputError: a file that cannot be read, or an outcome that is no record.
    """
    document = msgspec.to_builtins(model.record)
    if record is not None:
        document.update(_without_folders(_read_json(record)))
    if gate is not None:
        document["gate"] = _read_json(gate)
    document.update({key: value for key, value in named.items() if value is not None})
    try:
        replaced = msgspec.convert(document, Record)
    except msgspec.ValidationError as error:
        files = " and ".join(str(path) for path in (record, gate) if path) or "the record"
        raise InputError(f"{files}: {error}") from None
    return TrainedModel(model.student, model.weights, replaced)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(document, dict):
        raise InputError(f"{path}: expected a JSON object")
    return document
