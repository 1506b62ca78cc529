"""What this device runs a model with, as `crykit bench --choose` measured and stored it."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from crykit.bundle import Bundle
from crykit.files import write_aside
from crykit.runtime import available_runtimes

SCHEMA_VERSION = 1
FILE_NAME = "choices.json"


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One model on one machine. `model` and `sha256` are the manifest's name and digest."""

    model: str
    sha256: str
    machine: str
    runtime: str
    precision: str
    step_samples: int | None
    threads: int
    why: list[str]
    measured_at: str


class _File(msgspec.Struct):
    schema_version: int = SCHEMA_VERSION
    choices: list[Choice] = []


def choices_path() -> Path:
    """Where the choices of this user lie."""
    import platformdirs

    return Path(platformdirs.user_config_path("crykit", appauthor=False)) / FILE_NAME


def store_choice(choice: Choice) -> Path:
    """Keep a choice in place of what was chosen for a model of this name on this machine.

    Raises:
        OSError: the user's configuration folder cannot be written.
    """
    path = choices_path()
    kept = [
        other
        for other in _read(path) or []
        if (other.model, other.machine) != (choice.model, choice.machine)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    document = _File(choices=[*kept, choice])
    with write_aside(path) as file:
        file.write(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    return path


def stored_choice(bundle: Bundle) -> tuple[Choice | None, str | None]:
    """The choice for a bundle on this machine, or None; and why a stored one does not count."""
    path = choices_path()
    choices = _read(path)
    if choices is None:
        return None, f"{path} cannot be read"
    here = machine_id()
    mine = [c for c in choices if c.model == bundle.manifest.name and c.machine == here]
    if not mine:
        return None, None
    choice = mine[0]
    if choice.sha256 != bundle.manifest_sha256:
        return None, f"it was made for another version of {choice.model}"
    missing = {(r, p): why for r, p, why in available_runtimes(bundle)}
    why = missing.get((choice.runtime, choice.precision), "is not in the bundle")
    if why is not None:
        return None, f"{choice.runtime} {choice.precision} {why}"
    return choice, None


@dataclass(frozen=True)
class Way:
    """How a model is run. `step_samples` is None for the manifest's own step."""

    runtime: str = "onnx"
    precision: str = "fp32"
    step_samples: int | None = None
    threads: int = 1


def way_to_run(
    bundle: Bundle,
    runtime: str | None = None,
    precision: str | None = None,
    step_samples: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Way:
    """What was asked for, else what was chosen for this device, else ONNX Runtime in fp32.

    Args:
        runtime, precision, step_samples: None where nobody asked. One that is given sets the stored
            choice aside as a whole: its parts were measured together.
        say: told, in one line, why a stored choice does not count.
    """
    if runtime is None and precision is None and step_samples is None:
        choice, why_not = stored_choice(bundle)
        if choice is not None:
            return Way(choice.runtime, choice.precision, choice.step_samples, choice.threads)
        if why_not is not None:
            say(f"the stored choice is ignored: {why_not}; renew it: crykit bench --choose")
    return Way(runtime or Way.runtime, precision or Way.precision, step_samples)


def _read(path: Path) -> list[Choice] | None:
    """All choices, none where there is no file; None where the file is damaged or newer."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_File)
    except FileNotFoundError:
        return []
    except (OSError, msgspec.DecodeError):
        return None
    return found.choices if found.schema_version == SCHEMA_VERSION else None


def machine_id() -> str:
    """What two runs must share for their times to be compared: CPU, cores, architecture."""
    return f"{cpu_name()}, {os.cpu_count()} cores, {platform.machine()}"


def cpu_name() -> str:
    """As the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.lower().startswith(("model name", "hardware")):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
