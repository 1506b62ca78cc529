"""What an ONNX file says of itself, and no byte more than it needs.

Exporters and quantisers name every tensor after the code it came from and note the shape of each;
in an int8 network of 70,000 weights that is a third of the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx

from crykit.nn.frontend import HOP_SAMPLES, SAMPLE_RATE_HZ
from crykit.nn.student import FRAME_SAMPLES

PRODUCER = "crykit"


def detector_facts(name: str, version: str, licence: str, step_samples: int) -> dict[str, str]:
    """What a detector's files carry as metadata; whole clips have a step of 0."""
    return {
        "name": name,
        "version": version,
        "licence": licence,
        "labels": "cry",
        "sample_rate_hz": str(SAMPLE_RATE_HZ),
        "hop_samples": str(HOP_SAMPLES),
        "frame_samples": str(FRAME_SAMPLES),
        "step_samples": str(step_samples),
        "latency_samples": str(step_samples),
    }


def finish_onnx(path: Path, facts: dict[str, str], doc: str) -> None:
    """Write metadata and producer into a file, and take out what no runtime reads.

    Names of inputs and outputs stay; inner tensors get short ones.
    """
    model = onnx.load(str(path))
    model.producer_name, model.producer_version = PRODUCER, version("crykit")
    model.doc_string = doc
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, facts)
    graph = model.graph
    graph.name = facts["name"]
    del graph.value_info[:]
    kept = {tensor.name for tensor in (*graph.input, *graph.output)}
    short = _short_names(graph, kept)
    for node in graph.node:
        node.name, node.doc_string = "", ""
        del node.metadata_props[:]
        node.input[:] = [short.get(name, name) for name in node.input]
        node.output[:] = [short.get(name, name) for name in node.output]
    for tensor in graph.initializer:
        tensor.name = short.get(tensor.name, tensor.name)
        tensor.doc_string = ""
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _short_names(graph: Any, kept: Iterable[str]) -> dict[str, str]:
    """A name of one to three letters and digits for every inner tensor."""
    inner = dict.fromkeys(t.name for t in graph.initializer)
    inner |= dict.fromkeys(name for node in graph.node for name in node.output if name)
    fresh = (name for name in _names() if name not in set(kept))
    return {name: next(fresh) for name in inner if name not in set(kept)}


def _names() -> Iterator[str]:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    index = 0
    while True:
        name, left = "", index
        while left or not name:
            name, left = digits[left % 36] + name, left // 36
        yield "t" + name
        index += 1
