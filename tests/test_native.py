"""The native ExecuTorch runtime: the numbers of ExecuTorch's own, without torch, small, quick."""

from __future__ import annotations

import ast
import gc
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from crykit.bundle import Bundle
from crykit.errors import InputError
from crykit.runtime import open_runtime
from crykit.synth import synthetic_cry

native = pytest.importorskip("crykit_executorch", reason="needs ./native")

STEP = 2560
MAX_START_MS = 250.0
MAX_PEAK_MB = 45.0
MAX_INSTALLED_BYTES = 16_000_000

needs_executorch = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("torch", "executorch"))), reason="needs crykit[export]"
)


needs_proc = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")


def run(script: str, *arguments: object, **more) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **more)


@pytest.fixture(scope="module")
def network(bundle: Bundle, n_states: int):
    return native.Program(bundle.path("model.pte"), states=n_states)


@pytest.fixture(scope="module")
def n_states(bundle: Bundle) -> int:
    return len(bundle.manifest.graphs.network.states())


def zeros(program) -> list[np.ndarray]:
    return [np.zeros(spec.shape, spec.dtype) for spec in program.inputs]


def noise(program, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(s.shape).astype(s.dtype) for s in program.inputs]


COMPARE = """
import sys
import numpy as np
paths, order = sys.argv[2:], sys.argv[1]
def ours():
    import crykit_executorch
    return lambda path: crykit_executorch.Program(path).run
def theirs():
    import torch
    from executorch.runtime import Runtime
    methods = []
    def load(path):
        methods.append(Runtime.get().load_program(path).load_method("forward"))
        execute = methods[-1].execute
        return lambda arrays: [o.numpy().copy() for o in execute([torch.tensor(a) for a in arrays])]
    return load
loaders = {"ours": ours, "theirs": theirs}
first, second = (loaders[name]() for name in order.split(","))
from crykit_executorch import Program
for path in paths:
    specs = Program(path).inputs
    a, b = first(path), second(path)
    n_states = len(specs) - 1
    rng = np.random.default_rng(1)
    states = [[np.zeros(s.shape, s.dtype) for s in specs[1:]] for _ in "ab"]
    for step in range(20):
        data = (10.0 ** -(step % 4) * rng.standard_normal(specs[0].shape)).astype(specs[0].dtype)
        outputs = [f([data, *state]) for f, state in zip((a, b), states)]
        assert all(x.tobytes() == y.tobytes() for x, y in zip(*outputs, strict=True)), (path, step)
        states = [output[-n_states:] for output in outputs]
    print(path, "equal over", n_states, "states")
"""


@pytest.mark.executorch
@needs_executorch
@pytest.mark.parametrize("order", ["ours,theirs", "theirs,ours"])
def test_outputs_are_bit_identical_to_executorchs_own(bundle: Bundle, order: str) -> None:
    """In one process, whichever is loaded first: the libraries of both are then the same."""
    names = ["frontend.pte", "model.pte", "model.int8.pte"]
    done = run(COMPARE, order, *(bundle.path(name) for name in names))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("equal over") == 3
    assert "register_pal" not in done.stderr


START = """
import sys
import numpy as np
from crykit_executorch import Program
frontend = Program(sys.argv[1], states=int(sys.argv[2]))
network = Program(sys.argv[3], states=int(sys.argv[4]))
samples = np.zeros(frontend.inputs[0].shape, np.float32)
features, _ = frontend.step([samples], frontend.initial_state())
network.step(features, network.initial_state())
import time; print(time.monotonic_ns())
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) / 1024)
"""


@needs_proc
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_start_to_first_inference_and_peak_memory(bundle: Bundle, precision: str) -> None:
    """Front end and network together, Python's own start included.

    The best of several starts counts. A machine with more to do than it has cores gets so many
    times the time; memory does not depend on load.
    """
    artefact = bundle.artefact("executorch", precision)
    graphs = bundle.manifest.graphs
    arguments: list[object] = []
    for name, spec in ((artefact.frontend, graphs.frontend), (artefact.network, graphs.network)):
        arguments += [bundle.path(name), len(spec.states())]
    starts: list[float] = []
    for _ in range(6):
        before_ns = time.monotonic_ns()
        done = run(START, *arguments)
        assert done.returncode == 0, done.stderr
        after_ns, peak_mb = done.stdout.split()
        assert float(peak_mb) <= MAX_PEAK_MB
        starts.append((int(after_ns) - before_ns) / 1e6)
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    assert min(starts) <= MAX_START_MS * max(1.0, load), starts


@needs_proc
def test_no_torch_is_reached(bundle_path: Path) -> None:
    script = (
        "import sys, numpy as np; from crykit import Bundle, open_runtime\n"
        "model = open_runtime(Bundle.open(sys.argv[1]), 'executorch', 'int8')\n"
        "model.step(np.zeros(model.step_samples, np.float32), model.initial_state())\n"
        "print(*sorted({m.partition('.')[0] for m in sys.modules}))\n"
        "print(*{line.split()[-1] for line in open('/proc/self/maps') if 'executorch' in line})"
    )
    done = run(script, bundle_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    modules, mapped = (set(line.split()) for line in done.stdout.splitlines())
    assert "crykit_executorch" in modules
    assert not modules & {"torch", "executorch", "onnxruntime"}
    # The libraries beside the module, not those of an installed executorch.
    libraries = {Path(path) for path in mapped if "libexecutorch" in path}
    assert len(libraries) == 4
    assert {path.parent.name for path in libraries} == {"crykit_executorch"}


def test_a_device_without_torch_finds_the_same_cries(run_cli, tmp_path: Path) -> None:
    """As `crykit listen` would; importing torch or executorch ends the process."""
    sound_file = tmp_path / "cry.wav"
    sound = np.pad(synthetic_cry(6.0, 1, level_dbfs=-25.0), (16_000, 32_000))
    soundfile.write(sound_file, sound, 16_000)
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'executorch'):\n"
        "            raise SystemExit(f'reached {name}')\n"
        "sys.meta_path.insert(0, Absent())\n"
    )
    events: dict[str, list[dict]] = {}
    for runtime in ("onnx", "executorch"):
        done = run_cli(
            "analyze", "--runtime", runtime, sound_file, env={"PYTHONPATH": str(tmp_path)}
        )
        assert done.returncode == 0 and done.stderr == b"", done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        events[runtime] = [e for e in lines if e["type"] == "cry"]
    spans = {r: [(e["onset_s"], e["offset_s"]) for e in found] for r, found in events.items()}
    assert spans["onnx"] == spans["executorch"] != []


def test_what_is_installed_is_whole_and_small() -> None:
    files = importlib.metadata.files("crykit-executorch") or []
    names = {file.name for file in files}
    assert {"py.typed", "_native.pyi", "LICENSE.executorch", "libexecutorch.so"} <= names
    assert sum(Path(file.locate()).stat().st_size for file in files) <= MAX_INSTALLED_BYTES
    requires = importlib.metadata.requires("crykit-executorch") or []
    assert [line.partition(">")[0] for line in requires] == ["numpy"]


def test_the_stub_tells_of_every_name() -> None:
    stub = ast.parse(Path(native.__file__).with_name("_native.pyi").read_text())
    for node in stub.body:
        if isinstance(node, ast.ClassDef):
            inside = {n.name for n in node.body if isinstance(n, ast.FunctionDef)}
            there = {n for n in vars(getattr(native, node.name)) if not n.startswith("_")}
            assert inside - {"__init__"} == there, node.name
    named = {n.name for n in stub.body if isinstance(n, ast.ClassDef)} | {"EXECUTORCH_VERSION"}
    assert named == set(native.__all__)


def test_a_program_tells_its_shapes(network, bundle: Bundle) -> None:
    spec = bundle.manifest.graphs.network
    assert [i.shape for i in network.inputs] == [i.shape for i in spec.inputs]
    assert [o.shape for o in network.outputs] == [o.shape for o in spec.outputs]
    assert {i.dtype for i in network.inputs} == {"float32"} and network.threads == 1
    assert not any(i.dynamic for i in network.inputs)
    assert native.EXECUTORCH_VERSION.startswith("1.5.1")


def test_step_is_run_with_the_states_inside(network, n_states: int) -> None:
    data, *states = noise(network)
    state, arrays = network.initial_state(), [np.zeros_like(s) for s in states]
    for _ in range(4):
        results, state = network.step([data], state)
        outputs = network.run([data, *arrays])
        arrays = outputs[-n_states:]
        pairs = zip([*results, *state.arrays()], outputs, strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)
    assert state.nbytes == sum(a.nbytes for a in arrays)


def test_a_state_is_never_changed_and_outputs_belong_to_the_caller(network) -> None:
    data = noise(network)[:1]
    _, state = network.step(data, network.initial_state())
    (first, *_), _ = network.step(data, state)
    kept = first.copy()
    state.arrays()[0][:] = 7.0
    (again, *_), _ = network.step(data, state)
    assert np.array_equal(first, kept) and np.array_equal(again, kept)
    again[:] = 0.0
    assert np.array_equal(first, kept)


def test_bytes_paths_and_odd_arrays_are_taken(bundle: Bundle, network) -> None:
    inputs = noise(network)
    expected = network.run(inputs)
    content = native.Program(bundle.path("model.pte").read_bytes())
    gc.collect()
    assert np.array_equal(content.run(inputs)[0], expected[0])
    assert np.array_equal(native.Program(str(bundle.path("model.pte"))).run(inputs)[0], expected[0])
    odd = [np.asfortranarray(a) for a in inputs]
    odd[0].flags.writeable = False
    assert np.array_equal(network.run(tuple(odd))[0], expected[0])


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("/nowhere/model.pte", FileNotFoundError, "/nowhere/model.pte"),
        ("/", IsADirectoryError, "'/'"),
        ("/dev/null", OSError, "Invalid argument"),
        (3, TypeError, "not int"),
        (b"", native.ProgramError, "the given bytes: no ExecuTorch program"),
        (b"x" * 1000, native.ProgramError, "Program identifier 'xxxx' != expected 'ET12'"),
    ],
)
def test_what_is_no_program(source: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        native.Program(source)
    assert "\n" not in str(caught.value)


def test_a_program_cut_short_or_of_another_kind(bundle: Bundle, n_states: int) -> None:
    content = bundle.path("model.pte").read_bytes()
    with pytest.raises(native.ProgramError, match="File size is too small"):
        native.Program(content[:-1000])
    with pytest.raises(native.ProgramError, match="no method 'backward'"):
        native.Program(content, method="backward")
    with pytest.raises(native.ProgramError, match="model.onnx: no ExecuTorch program"):
        native.Program(bundle.path("model.onnx"))
    for states, words in (
        (99, "expected 99 states"),
        (-1, "-1 states"),
        (n_states + 1, "state 0 does not"),
    ):
        with pytest.raises(native.ProgramError, match=words):
            native.Program(content, states=states)


def test_inputs_that_do_not_fit(network) -> None:
    inputs = zeros(network)
    wrong = [
        (inputs[:1], ValueError, f"expected {len(inputs)} inputs, got 1"),
        ([inputs[0][..., :3], *inputs[1:]], ValueError, r"input 0: expected the shape .*, 3\)"),
        ([*inputs[:-1], inputs[-1].ravel()], ValueError, rf"got \({inputs[-1].size},\)"),
        ([*inputs[:-1], inputs[-1].astype("f8")], TypeError, "expected float32, got float64"),
        ([*inputs[:-1], inputs[-1].astype(">f4")], TypeError, "got ndarray of >f4"),
        ([*inputs[:-1], [1.0]], TypeError, "expected a numpy array of float32 .* got list"),
        ([*inputs[:-1], None], TypeError, "got NoneType"),
    ]
    for arrays, error, words in wrong:
        with pytest.raises(error, match=words) as caught:
            network.run(arrays)
        assert "\n" not in str(caught.value)
    assert len(network.run(inputs)) == len(network.outputs)  # none of them did any harm


def test_a_state_of_another_program_is_refused(network, bundle: Bundle, n_states: int) -> None:
    other = native.Program(bundle.path("frontend.pte"), states=1)
    with pytest.raises(ValueError, match="a state of this program"):
        network.step(zeros(network)[:1], other.initial_state())
    # The int8 network carries the same: what one precision heard, the other can go on from.
    int8 = native.Program(bundle.path("model.int8.pte"), states=n_states)
    int8.step(zeros(int8)[:1], network.initial_state())


def test_the_interpreter_is_free_while_it_runs(network) -> None:
    inputs, ticks, over = zeros(network), [0], threading.Event()

    def tick() -> None:
        while not over.is_set():
            ticks[0] += 1
            time.sleep(0)

    before = sys.getswitchinterval()
    other = threading.Thread(target=tick)
    sys.setswitchinterval(100.0)  # nobody is made to let go
    try:
        other.start()
        started = ticks[0]
        for _ in range(300):
            network.run(inputs)
        moved = ticks[0] - started
    finally:
        sys.setswitchinterval(before)
        over.set()
        other.join()
    assert moved > 0


def test_threads_may_share_a_program(network) -> None:
    inputs = [noise(network, seed) for seed in range(4)]
    expected = [network.run(arrays)[0] for arrays in inputs]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(50):
            if not np.array_equal(network.run(inputs[index])[0], expected[index]):
                wrong.append(index)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_threads_of_the_pool(bundle: Bundle, network) -> None:
    path = bundle.path("model.pte")
    for threads in (0, -1, 1000):
        with pytest.raises(ValueError, match=f"expected 1 to 256, got {threads}"):
            native.Program(path, threads=threads)
    two = native.Program(path, threads=2)
    inputs = noise(network)
    for a, b in zip(two.run(inputs), network.run(inputs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    with pytest.raises(ValueError, match="share a pool of 2: expected that many or 1, got 3"):
        native.Program(path, threads=3)
    del two
    gc.collect()
    assert native.Program(path, threads=3).threads == 3


def test_nothing_is_printed(bundle: Bundle) -> None:
    script = (
        "import sys, numpy as np; from crykit_executorch import Program\n"
        "content = open(sys.argv[1], 'rb').read()\n"
        "for source in (content[:-9], b'', content[:100] + bytes(200) + content[300:]):\n"
        "    try: Program(source)\n"
        "    except RuntimeError: pass\n"
        "program = Program(content, threads=2)\n"
        "program.run([np.zeros(s.shape, s.dtype) for s in program.inputs])"
    )
    done = run(script, bundle.path("model.pte"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program without a delegate, whose first extent may change and whose types are many."""
    torch = pytest.importorskip("torch", reason="needs crykit[export]")
    exir = pytest.importorskip("executorch.exir", reason="needs crykit[export]")

    class Sums(torch.nn.Module):
        def forward(self, a, b, c):
            return torch.cumsum(a, 0), b + 1, torch.logical_not(c), a.mean(0)

    example = (torch.zeros(8, 3), torch.zeros(2, dtype=torch.int64), torch.zeros(1).bool())
    shapes = ({0: torch.export.Dim("n", min=1, max=8)}, None, None)
    program = torch.export.export(Sums(), example, dynamic_shapes=shapes)
    path = tmp_path_factory.mktemp("growing") / "sums.pte"
    path.write_bytes(exir.to_edge(program).to_executorch().buffer)
    return path


@pytest.mark.executorch
def test_changing_shapes_and_other_types(growing: Path) -> None:
    program = native.Program(growing)
    assert [(i.shape, i.dtype, i.dynamic) for i in program.inputs] == [
        ((8, 3), "float32", True),
        ((2,), "int64", False),
        ((1,), "bool", False),
    ]
    counts, flags = np.array([1, -5]), np.array([False])
    for n in (8, 1, 5):
        a = np.arange(3 * n, dtype=np.float32).reshape(n, 3)
        total, more, other, mean = program.run([a, counts, flags])
        np.testing.assert_allclose(total, np.cumsum(a, 0))
        np.testing.assert_allclose(mean, a.mean(0))
        assert more.tolist() == [2, -4] and other.tolist() == [True]
    with pytest.raises(ValueError, match=r"up to \(8, 3\), got \(9, 3\)"):
        program.run([np.zeros((9, 3), np.float32), counts, flags])
    with pytest.raises(native.ProgramError, match="state 0 does not leave as it came in"):
        native.Program(growing, states=3)


def test_the_runtime_says_what_does_not_fit(bundle: Bundle) -> None:
    model = open_runtime(bundle, "executorch", "int8")
    with pytest.raises(InputError, match=rf"frontend.pte: .* expected the shape \(1, {STEP}\)"):
        model.step(np.zeros(STEP - 1, np.float32), model.initial_state())
