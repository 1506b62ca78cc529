"""Phone kits: a template and a model become a folder that an engineer can open and run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from crykit.bundle import MANIFEST_NAME, Bundle
from crykit.errors import InputError, MissingPart, UsageError
from crykit.manifest import Artefact
from crykit_export.kit_payload import write_payload
from crykit_export.staging import staged_folder

# In the order of preference where none is named: the smallest that the bundle has.
PRECISIONS = ("int8", "fp32")
# What building a template in place leaves in it.
NOT_COPIED = ("node_modules", "dist", "build", ".gradle", ".kotlin", ".build", ".swiftpm")


@dataclass(frozen=True)
class Kit:
    """One kind of kit: whose files it runs, and where in it they lie."""

    runtime: str
    payload: str


KITS = {
    "web": Kit("onnx", "public/kit"),
    "android": Kit("executorch", "app/src/main/assets/kit"),
    "ios": Kit("executorch", "Sources/CryKit/Resources/kit"),
}


def open_bundle(model: Path) -> Bundle:
    """Open what `--kit` is given; a training run is told from a bundle.

    Raises:
        UsageError: MODEL is a training run.
        InputError: it is neither, or a damaged bundle.
    """
    if (model / "model.json").is_file() and not (model / MANIFEST_NAME).exists():
        raise UsageError(
            f"{model}: a kit is made of a bundle, and this is a training run; "
            f"`crykit export {model} -o NAME.cry` first"
        )
    return Bundle.open(model)


def write_kits(
    bundle: Bundle,
    names: Sequence[str],
    out: Path,
    precision: str | None = None,
    replace: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Write OUT/NAME for each kit: all of them or none.

    Args:
        names: keys of `KITS`.
        precision: of the artefacts; None takes int8 where the bundle has it, else fp32.
        replace: whether a kit that is there already gives way.
        say: told one line for each kit.

    Returns:
        The folders, in the order of the names.

    Raises:
        UsageError: an unknown kit, no artefact for its runtime, or a folder that is there already.
        MissingPart: the runtime, or the template, is not installed.
        FaultFound: an artefact does not match its golden clip.
        InputError: the folder cannot be written.
    """
    _check_names(names)
    artefacts = {name: choose_artefact(bundle, KITS[name].runtime, precision) for name in names}
    templates = {name: template_of(name) for name in names}
    targets = [out / name for name in names]
    lines: list[str] = []
    try:
        with ExitStack() as stack:
            for name, target in zip(names, targets, strict=True):
                stage = stack.enter_context(staged_folder(target, replace=replace))
                shutil.copytree(templates[name], stage, ignore=_ignored, dirs_exist_ok=True)
                lines.append(_fill(bundle, artefacts[name], name, stage))
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise InputError(
            f"{error.filename or out}: expected a folder to write the kits in, got "
            f"'{error.strerror}'; name another with --out"
        ) from None
    for line in lines:
        say(line)
    return targets


def _check_names(names: Sequence[str]) -> None:
    wrong = [name for name in names if name not in KITS]
    if wrong or not names:
        raise UsageError(f"kits are {', '.join(KITS)}; got {', '.join(wrong) or 'none'}")


def choose_artefact(bundle: Bundle, runtime: str, precision: str | None) -> Artefact:
    """The artefact of the model's own step for a runtime, of the precision asked for.

    Raises:
        UsageError: the bundle has none.
    """
    for wanted in PRECISIONS if precision is None else (precision,):
        found = bundle.manifest.artefact(runtime, wanted)
        if found is not None:
            return found
    has = ", ".join(dict.fromkeys(f"{a.runtime} {a.precision}" for a in bundle.manifest.artefacts))
    raise UsageError(
        f"{bundle.manifest.name} has no {runtime} {precision or 'model'}, which the kit runs; "
        f"it has {has or 'no artefacts'}: export it with `--to {runtime}`"
    )


def kits_folder() -> Path:
    """Where the templates lie: in the source tree, or in the installed package."""
    here = Path(__file__).resolve().parent
    installed = here / "_kits"
    return installed if installed.is_dir() else here.parent / "kits"


def template_of(name: str) -> Path:
    """The folder of a kit's template.

    Raises:
        MissingPart: this installation has none.
    """
    folder = kits_folder() / name
    if not folder.is_dir():
        raise MissingPart(f"this installation has no template of the {name} kit: reinstall crykit")
    return folder


def _ignored(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name in NOT_COPIED]


def _fill(bundle: Bundle, artefact: Artefact, name: str, stage: Path) -> str:
    """Put the model into a staged kit and say what came of it."""
    payload = stage / KITS[name].payload
    # A template is built with a payload in place; the one that counts is written here.
    shutil.rmtree(payload, ignore_errors=True)
    golden = write_payload(bundle, artefact, kits_folder() / "gate_vectors.json", payload)
    size = sum(path.stat().st_size for path in payload.rglob("*") if path.is_file())
    seconds = len(golden.samples) / bundle.manifest.sample_rate_hz
    cries = "1 cry" if len(golden.events) == 1 else f"{len(golden.events)} cries"
    return (
        f"{name}: {bundle.model_id}, {artefact.runtime} {artefact.precision}, {size / 1e6:.2f} MB; "
        f"{cries} in {seconds:g} s of golden sound"
    )
