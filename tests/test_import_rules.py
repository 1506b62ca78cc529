"""Who may import whom, and what must never be loaded on a device."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "torchaudio", "executorch", "scipy", "sklearn", "onnxscript", "matplotlib"}


def modules_after(code: str) -> set[str]:
    """Top-level names in sys.modules of a fresh interpreter that has run `code`."""
    script = f"{code}\nimport sys; print('\\n'.join({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_import_contracts() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import crykit; crykit.Bundle, crykit.Listener, crykit.open_runtime",
        "import crykit.offline, crykit.verification, crykit.runtime.onnx, crykit.audio",
        "from crykit.commands import analyze, classify, embed, verify",
        "import importlib, pkgutil, crykit_app\n"
        "for m in pkgutil.walk_packages(crykit_app.__path__, 'crykit_app.'):\n"
        "    if not m.name.endswith('__main__'): importlib.import_module(m.name)",
    ],
    ids=["crykit", "engine", "commands", "app"],
)
def test_no_torch_is_loaded(code: str) -> None:
    assert not modules_after(code) & HEAVY


def test_the_package_itself_and_the_help_load_nothing_heavy() -> None:
    assert not modules_after("import crykit") & (HEAVY | {"numpy", "onnxruntime", "click"})
    # What every command loads before it knows its arguments.
    loaded = modules_after(
        "from importlib.metadata import entry_points\n"
        "for point in entry_points(group='crykit.commands'): point.load()"
    )
    assert not loaded & (HEAVY | {"onnxruntime", "textual", "sounddevice", "soundfile"})
