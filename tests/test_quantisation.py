"""Int8: what is really quantised, what may stay in floating point, and what torch makes of it."""

from __future__ import annotations

import copy
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import onnx  # noqa: E402
from tiny_model import N_CONVOLUTIONS, tiny_student, write_run  # noqa: E402

from crykit.errors import InputError, UsageError  # noqa: E402
from crykit.nn import fake_quant  # noqa: E402
from crykit.nn.frontend import LogMelFrontEnd  # noqa: E402
from crykit.nn.student import CryStudent  # noqa: E402
from crykit_export import int8  # noqa: E402
from crykit_export.calibration import calibration_steps  # noqa: E402
from crykit_export.golden import golden_clip  # noqa: E402
from crykit_export.graphs import ExportGraph, build_graphs  # noqa: E402
from crykit_export.int8 import (  # noqa: E402
    count_onnx_per_channel,
    count_per_channel,
    quantise_pt2e,
    write_executorch_int8,
    write_onnx_int8,
)
from crykit_export.quantisation import onnx_nodes_of, read_quantise_recipe  # noqa: E402
from crykit_export.slim import slim_onnx  # noqa: E402
from crykit_export.to_onnx import write_onnx  # noqa: E402

pytestmark = pytest.mark.torch

Runs = Callable[..., "subprocess.CompletedProcess[bytes]"]
Steps = list[dict[str, torch.Tensor]]
BLOCKS = ["stem", "blocks.0", "blocks.1", "blocks.2", "collapse", "temporal.0", "temporal.1"]
# Convolutions of each block: full and collapsing ones have one, separable ones two.
COUNTS = dict(zip([*BLOCKS, "head"], (1, 1, 2, 2, 1, 2, 2, 1), strict=True))


@pytest.fixture(scope="module")
def graph() -> ExportGraph:
    return build_graphs(tiny_student(), "matmul")[1]


@pytest.fixture(scope="module")
def steps(graph: ExportGraph) -> Steps:
    front_end = build_graphs(tiny_student(), "matmul")[0]
    return list(calibration_steps(front_end, graph, [golden_clip()]))


@pytest.fixture(scope="module")
def onnx_fp32(tmp_path_factory: pytest.TempPathFactory, graph: ExportGraph) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_onnx(graph, path)
    return path


@pytest.fixture(scope="module")
def features() -> torch.Tensor:
    """(1, 2, 64, frames) of the golden clip."""
    front_end = LogMelFrontEnd("fft")
    samples = torch.from_numpy(golden_clip())[None]
    with torch.inference_mode():
        return front_end(samples, *front_end.initial_state(1))[0].clone()


def prepared(features: torch.Tensor, keep_float: tuple[str, ...] = ()) -> CryStudent:
    """The tiny student in eight bits, its ranges those of the golden clip."""
    student = fake_quant.fake_quantise(tiny_student(), keep_float)
    with torch.inference_mode():
        student(features, *student.initial_state(1))
    fake_quant.set_mode(student, "fixed")
    return student


def test_blocks_are_named_in_order() -> None:
    assert fake_quant.block_names(tiny_student()) == [*BLOCKS, "head"]
    assert sum(COUNTS.values()) == N_CONVOLUTIONS


@pytest.mark.parametrize("keep_float", [(), ("head",), ("stem", "blocks.1"), ("temporal.0",)])
def test_onnx_keeps_the_blocks_that_a_recipe_names(
    onnx_fp32: Path, steps: Steps, tmp_path: Path, keep_float: tuple[str, ...]
) -> None:
    path = tmp_path / "model.int8.onnx"
    write_onnx_int8(onnx_fp32, path, steps[:4], keep_float)
    kept = sum(COUNTS[name] for name in keep_float)
    assert count_onnx_per_channel(path) == N_CONVOLUTIONS - kept


def optimised(path: Path, folder: Path) -> dict[str, int]:
    """How often ONNX Runtime runs each operator of a file, once it has loaded it."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(str(folder / "optimised.onnx")).graph.node
    return Counter(node.op_type for node in nodes)


@pytest.mark.parametrize("keep_float", [(), ("collapse",), ("stem", "blocks.1", "temporal.0")])
def test_onnx_runtime_multiplies_in_eight_bits_what_it_should(
    onnx_fp32: Path, steps: Steps, tmp_path: Path, keep_float: tuple[str, ...]
) -> None:
    path = tmp_path / "model.int8.onnx"
    write_onnx_int8(onnx_fp32, path, steps[:4], keep_float)
    run = optimised(path, tmp_path)
    kept = sum(COUNTS[name] for name in keep_float)
    assert run["QLinearConv"] == N_CONVOLUTIONS - kept
    assert run["Conv"] + run["FusedConv"] == kept


def test_a_slim_file_computes_the_same(
    onnx_fp32: Path, steps: Steps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime as ort

    fat, slim = tmp_path / "fat.onnx", tmp_path / "slim.onnx"
    with monkeypatch.context() as patch:
        patch.setattr(int8, "slim_onnx", lambda path: None)
        write_onnx_int8(onnx_fp32, fat, steps[:4])
    slim.write_bytes(fat.read_bytes())
    slim_onnx(slim)
    assert slim.stat().st_size < 0.75 * fat.stat().st_size
    onnx.checker.check_model(str(slim), full_check=True)
    feed = {name: value.numpy() for name, value in steps[3].items()}
    sessions = [ort.InferenceSession(str(path)) for path in (fat, slim)]
    names = [[output.name for output in s.get_outputs()] for s in sessions]
    assert names[0] == names[1]
    before, after = (session.run(None, feed) for session in sessions)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.executorch
@pytest.mark.parametrize("keep_float", [(), ("stem", "blocks.1", "head")])
def test_pt2e_keeps_the_blocks_that_a_recipe_names(
    graph: ExportGraph, steps: Steps, keep_float: tuple[str, ...]
) -> None:
    pytest.importorskip("executorch")
    kept = sum(COUNTS[name] for name in keep_float)
    quantised = quantise_pt2e(graph, steps[:2], keep_float)
    assert count_per_channel(quantised) == N_CONVOLUTIONS - kept


@pytest.mark.executorch
def test_xnnpack_takes_a_network_that_is_float_in_places(
    graph: ExportGraph, steps: Steps, tmp_path: Path
) -> None:
    pytest.importorskip("executorch")
    kept = ("blocks.1", "head")
    assert write_executorch_int8(graph, tmp_path / "a.pte", steps[:2], kept) == []


def test_a_block_owns_what_lies_between_its_convolutions(onnx_fp32: Path) -> None:
    model = onnx.load(str(onnx_fp32))
    kinds = {node.name: node.op_type for node in model.graph.node}
    owned = {name: [kinds[n] for n in onnx_nodes_of(model, [name])] for name in COUNTS}
    for name, count in COUNTS.items():
        assert owned[name].count("Conv") == count
    assert owned["blocks.2"].count("Add") == 1
    assert owned["temporal.0"].count("Concat") == 1
    assert owned["head"].count("Add") == 0


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ('keep_float = ["stems"]', UsageError, "no block is called stems; this model has stem, bl"),
        ("keep_floats = []", UsageError, "keep_floats"),
        ('keep_float = "stem"', UsageError, "expected keep_float"),
        ("keep_float = [", InputError, "no TOML"),
        (f"keep_float = {[*BLOCKS, 'head']}", UsageError, "nothing would be left for int8"),
        (None, InputError, "cannot be read"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_one_line(
    tmp_path: Path, text: str | None, error: type[Exception], words: str
) -> None:
    path = tmp_path / "quantise.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(error, match=words) as refused:
        read_quantise_recipe(path, tiny_student())
    assert "\n" not in str(refused.value)


def test_a_recipe_is_read(tmp_path: Path) -> None:
    path = tmp_path / "quantise.toml"
    path.write_text('keep_float = ["stem", "temporal.1"]  # they lose most\n')
    assert read_quantise_recipe(path, tiny_student()) == ("stem", "temporal.1")
    path.write_text("")
    assert read_quantise_recipe(path, tiny_student()) == ()


def test_export_names_the_blocks_that_there_are(tmp_path: Path, run_cli: Runs) -> None:
    recipe = tmp_path / "quantise.toml"
    recipe.write_text('keep_float = ["block7"]')
    out = tmp_path / "x.cry"
    done = run_cli(
        "export", write_run(tmp_path / "run"), "--quantise", recipe, "-o", out, timeout_s=300
    )
    assert done.returncode == 2
    assert b"this model has stem, blocks.0, blocks.1, blocks.2, collapse" in done.stderr
    assert not out.exists()


def test_rounded_weights_have_255_steps_for_each_channel() -> None:
    weight = torch.randn(5, 3, 3, 3) * torch.logspace(-4, 0, 5)[:, None, None, None]
    rounded = fake_quant.round_weight(weight)
    for channel, kept in zip(weight, rounded, strict=True):
        scale = channel.abs().max() / 127
        assert (kept - channel).abs().max() <= scale / 2 * 1.001
        assert torch.allclose(kept / scale, torch.round(kept / scale), atol=1e-3)


def test_folding_batch_norm_does_not_change_what_is_rounded() -> None:
    weight, factor = torch.randn(4, 2, 3, 3), torch.tensor([2.0, -0.3, 1e-3, 7.0])
    folded = fake_quant.round_weight(weight * factor[:, None, None, None])
    assert torch.allclose(folded, fake_quant.round_weight(weight) * factor[:, None, None, None])


def test_gradients_pass_what_is_rounded_and_stop_at_what_is_cut_off() -> None:
    found = fake_quant.Range()
    found(torch.tensor([-1.0, 1.0]))
    found.mode = "fixed"
    x = torch.tensor([-5.0, -0.5, 0.1, 5.0], requires_grad=True)
    found(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 0.0]
    assert found(torch.zeros(1)).item() == 0.0, "silence and padding stay exact"


def test_observing_rounds_nothing(features: torch.Tensor) -> None:
    student = fake_quant.fake_quantise(tiny_student())
    with torch.inference_mode():
        before = tiny_student()(features, *student.initial_state(1))
        after = student(features, *student.initial_state(1))
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_preparing_changes_no_name_of_a_weight(features: torch.Tensor) -> None:
    plain, student = tiny_student(), prepared(features)
    state = fake_quant.without_ranges(student.state_dict())
    assert list(state) == list(plain.state_dict())
    kept = fake_quant.plain_student(student).state_dict()
    assert all(torch.equal(kept[name], value) for name, value in plain.state_dict().items())
    copied = copy.deepcopy(student)
    with torch.inference_mode():
        for found in fake_quant.ranges(student):
            found.range_high.zero_()
        rounded = copied(features, *copied.initial_state(1))[0]
    assert rounded.std() > 0.1, "a copy has ranges of its own"


def test_torch_in_eight_bits_is_what_onnx_runtime_computes(
    graph: ExportGraph, onnx_fp32: Path, steps: Steps, features: torch.Tensor, tmp_path: Path
) -> None:
    import onnxruntime as ort

    path = tmp_path / "model.int8.onnx"
    write_onnx_int8(onnx_fp32, path, steps)
    session = ort.InferenceSession(str(path))
    names = [output.name for output in session.get_outputs()]
    state = {k: v.numpy() for k, v in list(graph.inputs.items())[1:]}
    heard = []
    for start in range(0, features.shape[3], 16):
        step = features[:, :, :, start : start + 16].contiguous().numpy()
        out = dict(zip(names, session.run(None, {"features": step, **state}), strict=True))
        state = {name: out[f"{name}_next"] for name in state}
        heard.append(out["cry_probability"][0])
    simulated, full = prepared(features), tiny_student()
    with torch.inference_mode():
        rounded = simulated(features, *simulated.initial_state(1))[0][0].numpy()
        exact = full(features, *full.initial_state(1))[0][0].numpy()
    onnx_error = np.abs(np.concatenate(heard) - exact)
    between = np.abs(np.concatenate(heard) - rounded)
    # A frame on a steep stretch of the sigmoid may round the other way; on the whole they agree.
    assert between.max() < 0.1 and between.mean() < 0.003
    assert 0.3 < np.abs(rounded - exact).mean() / onnx_error.mean() < 3.0


def test_fine_tuning_in_eight_bits_lessens_their_error(features: torch.Tensor) -> None:
    teacher = tiny_student()
    with torch.no_grad():
        wanted = teacher.logits(features, *teacher.initial_state(1))[0]
        student = fake_quant.fake_quantise(tiny_student())
        student(features, *student.initial_state(1))
    fake_quant.set_mode(student, "follow")
    optimiser = torch.optim.Adam(student.parameters(), lr=3e-5)

    def error() -> torch.Tensor:
        return (student.logits(features, *student.initial_state(1))[0] - wanted).square().mean()

    before = error().item()
    for _ in range(12):
        optimiser.zero_grad()
        loss = error()
        loss.backward()
        optimiser.step()
    assert error().item() < 0.7 * before
