"""The wheel: what is in it, and what a fresh machine without torch can do with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pytest

# Whatever the index and the disk are like: one fixture downloads and unpacks 200 MB.
pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parents[1]
PACKAGES = {"crykit", "crykit_app", "crykit_bench", "crykit_export", "crykit_train"}
AUDIO = {".wav", ".flac", ".ogg", ".mp3", ".aiff", ".m4a"}
PICKLES = {".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".bin", ".joblib", ".npy", ".npz"}
MODEL = "crykit/models/cry-student.cry"
MODELS = (
    MODEL,
    "crykit/models/cry-student-nano.cry",
    "crykit/models/cry-student-permissive.cry",
)
MAX_MODEL_BYTES = 4_000_000
MAX_INSTALLED_BYTES = 350_000_000

# A small machine with a 64-bit ARM processor and a C library from 2021 on.
RASPBERRY_PI = ["--platform", "manylinux_2_28_aarch64", "--platform", "manylinux_2_17_aarch64"]


def run(command: Sequence[str | Path], **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=600, **more)


def pip(python: Path, *arguments: str | Path) -> None:
    """Run pip, or skip where there is no package index to install from."""
    command = [python, "-m", "pip", "--disable-pip-version-check"]
    done = run([*command, *arguments])
    if done.returncode == 0:
        return
    with tempfile.TemporaryDirectory() as folder:
        # As small a package as there is, which the base install needs too.
        probe = run([*command, "download", "--no-deps", "--no-cache-dir", "-d", folder, "mdurl"])
    if probe.returncode:
        pytest.skip("pip reaches no package index from here")
    raise AssertionError(done.stderr)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    out = tmp_path_factory.mktemp("dist")
    done = run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", out, ROOT])
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def files(wheel: Path) -> dict[str, int]:
    """Names in the wheel, and sizes in bytes, without its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        listed = {info.filename: info.file_size for info in archive.infolist()}
    return {name: size for name, size in listed.items() if ".dist-info/" not in name}


@pytest.fixture(scope="session")
def device(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fresh virtual environment that holds the base install, nothing else."""
    folder = tmp_path_factory.mktemp("device") / "venv"
    venv.create(folder, with_pip=True)
    pip(folder / "bin" / "python", "install", "--quiet", wheel)
    return folder


def test_it_claims_our_names_and_no_others(files: dict[str, int]) -> None:
    assert {name.partition("/")[0] for name in files} == PACKAGES


def test_every_module_of_the_checkout_is_in_it(files: dict[str, int]) -> None:
    rooms = ["crykit", "train/crykit_train", "export/crykit_export"]
    rooms += ["device_app/crykit_app", "benchmarks/crykit_bench"]
    for room in map(ROOT.joinpath, rooms):
        sources = {p.relative_to(room.parent).as_posix() for p in room.rglob("*.py")}
        assert sources and sources <= set(files), sources - set(files)
    assert "crykit_app/app.tcss" in files and "crykit_app/report/page.css" in files


def test_the_templates_of_the_phone_kits_are_in_it(files: dict[str, int]) -> None:
    listed = run(["git", "-C", ROOT, "ls-files", "export/kits"]).stdout.split()
    if not listed:
        pytest.skip("not a checkout")
    kits = {name.replace("export/kits", "crykit_export/_kits") for name in listed}
    there = {name for name in files if name.startswith("crykit_export/_kits/")}
    assert kits <= there, kits - there
    assert not [name for name in there if "node_modules" in name or "/dist/" in name]


def test_it_carries_no_tests_no_recordings_no_pickles(files: dict[str, int]) -> None:
    # A kit brings its own tests along.
    paths = [PurePosixPath(name) for name in files if "/_kits/" not in name]
    assert not [p for p in paths if "tests" in p.parts or p.name.startswith("test_")]
    assert not [p for p in paths if p.suffix in PICKLES]
    sound = {str(p) for p in paths if p.suffix in AUDIO}
    assert sound <= {f"{model}/golden/input.flac" for model in MODELS}  # synthetic


@pytest.mark.parametrize("model", MODELS)
def test_the_model_in_it_is_whole_and_small(files: dict[str, int], wheel: Path, model: str) -> None:
    if not (ROOT / model).is_dir():
        pytest.skip("the shipped model is not in this checkout")
    inside = {n.removeprefix(f"{model}/"): s for n, s in files.items() if n.startswith(model)}
    with zipfile.ZipFile(wheel) as archive:
        manifest = json.loads(archive.read(f"{model}/manifest.json"))
    listed = {name: entry["bytes"] for name, entry in manifest["files"].items()}
    assert inside == {**listed, "manifest.json": inside["manifest.json"]}
    assert {"MODEL_CARD.md", "model.onnx", "model.int8.onnx", "golden/input.flac"} <= set(inside)
    assert sum(inside.values()) <= MAX_MODEL_BYTES


def test_base_install_has_no_torch_and_is_small(device: Path) -> None:
    python = device / "bin" / "python"
    listed = run([python, "-m", "pip", "list", "--format", "json"]).stdout
    names = {entry["name"].lower() for entry in json.loads(listed)}
    assert "crykit" in names and "onnxruntime" in names
    assert not names & {"torch", "torchaudio", "executorch", "scipy", "scikit-learn", "onnx"}
    stored = [p.stat().st_size for p in device.rglob("*") if p.is_file() and not p.is_symlink()]
    assert sum(stored) < MAX_INSTALLED_BYTES


def test_base_install_runs_the_demo(device: Path, tmp_path: Path, bundle_path: Path) -> None:
    shipped = (ROOT / MODEL).is_dir() and "CRYKIT_TEST_BUNDLE" not in os.environ
    # The model comes out of the wheel; only a checkout without one is lent one.
    model = [] if shipped else ["--model", bundle_path]
    done = run(
        [device / "bin" / "crykit", "demo", "--headless", "--duration", "60", *model],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["state"] == "stopped" and lines[-1]["position_s"] == 60.0
    assert "made-up sound, not a recording" in done.stderr


def test_base_install_makes_a_web_kit(device: Path, tmp_path: Path, bundle_path: Path) -> None:
    command = [device / "bin" / "crykit", "export", bundle_path, "--kit", "web", "--out", "kits"]
    done = run(command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    kit = tmp_path / "kits" / "web"
    for name in ("package-lock.json", ".gitignore", "src/main.ts", "public/kit/network.onnx"):
        assert (kit / name).is_file(), name


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["train", "detector", "--recipe", "r.toml", "--out", "run"], "train"),
        (["export", "run"], "export"),
    ],
    ids=["train", "export"],
)
def test_what_is_not_installed_is_named_with_its_extra(
    device: Path, tmp_path: Path, arguments: list[str], extra: str
) -> None:
    done = run([device / "bin" / "crykit", *arguments], cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and f"crykit[{extra}]" in done.stderr


def test_every_part_of_the_base_install_has_an_arm_wheel(wheel: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    pip(
        Path(sys.executable),
        *("install", "--quiet", "--dry-run", "--ignore-installed", "--only-binary=:all:"),
        *("--target", tmp_path / "none", "--python-version", "3.11", *RASPBERRY_PI),
        *("--report", report, wheel),
    )
    wheels = [entry["download_info"]["url"] for entry in json.loads(report.read_text())["install"]]
    named = [url.rpartition("/")[2] for url in wheels]
    assert any(name.startswith("onnxruntime-") and "aarch64" in name for name in named)
    assert all(name.endswith("any.whl") or "aarch64" in name for name in named), named
