"""Which rows there are: what the given models offer, and what stands beside them to compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from crykit.bundle import WEIGHTS_NAME, Bundle, EncoderBundle
from crykit.errors import InputError, UsageError
from crykit.manifest import Artefact, ClipArtefact
from crykit.runtime import available_runtimes, missing_engine
from crykit_bench import yamnet
from crykit_bench.models import CNN14, YAMNET
from crykit_bench.protocol import Row

KINDS = (
    "torch-fp32",
    "onnx-fp32",
    "onnx-fp16",
    "onnx-int8",
    "executorch-fp32",
    "executorch-fp16",
    "executorch-int8",
    "cnn14-fp32",
    "yamnet",
)
CNN14_ID, YAMNET_ID = "cnn14-fp32", "yamnet"
CNN14_NOTE = "random weights: cost only, no accuracy"
ENCODER_NOTE = "an encoder: cost only, it detects nothing"
NOT_IN_BUNDLE = "not in the bundle"
WINDOW_S = 1.0
"""What an encoder hears at a time, once for each such stretch; CNN14 as well."""

AnyBundle = Bundle | EncoderBundle


@dataclass
class Entry:
    """A row and what it is made from. `bundle` is None for CNN14 and YAMNet."""

    row: Row
    bundle: AnyBundle | None = None
    artefact: Artefact | ClipArtefact | None = None
    path: Path | None = None

    @property
    def detector(self) -> Bundle | None:
        """The bundle, if it hears cries."""
        return self.bundle if isinstance(self.bundle, Bundle) else None

    @property
    def step_samples(self) -> int | None:
        """Heard at a time, if not the manifest's own step."""
        return self.artefact.step_samples if isinstance(self.artefact, Artefact) else None

    @property
    def hears(self) -> bool:
        """Whether it is asked for clips and streams: rows of other steps hear the same frames."""
        return (self.detector is not None and self.step_samples is None) or (
            self.row.runtime == YAMNET
        )


def plan_rows(
    bundles: Sequence[AnyBundle], kinds: Sequence[str] | None, yamnet_file: Path | None
) -> list[Entry]:
    """Rows in the order of the table.

    Args:
        bundles: the first is the one that the bench is about; its rows have short ids.
        kinds: some of `KINDS`; None for all that there is.
        yamnet_file: `yamnet.tflite`, if it is given.

    Raises:
        UsageError: a kind is unknown, or two models have one name.
        InputError: YAMNet's file is missing.
    """
    _check(bundles, kinds, yamnet_file)
    entries: list[Entry] = []
    for index, bundle in enumerate(bundles):
        prefix = f"{bundle.manifest.name}:" if index else ""
        if isinstance(bundle, Bundle):
            entries += _of_bundle(bundle, prefix, kinds)
        else:
            entries += _of_encoder(bundle, prefix, kinds)
    if kinds is None or CNN14_ID in kinds:
        absent = [m for m in ("torch", "onnx", "onnxscript") if find_spec(m) is None]
        needs = f"needs {' and '.join(absent)}: pip install 'crykit[export]'" if absent else None
        entries.append(Entry(_peer(CNN14_ID, CNN14, "fp32", needs, CNN14_NOTE)))
    if yamnet_file and (kinds is None or YAMNET_ID in kinds):
        note = (
            "weights in int8 as released; on streams by the rule of the most used home detector "
            f"built on it, score over {yamnet.RULE_SCORE:g} and loud enough"
        )
        row = _peer(YAMNET_ID, YAMNET, "mixed", yamnet.missing(), note)
        entries.append(Entry(row, path=yamnet_file))
    return entries


def _check(
    bundles: Sequence[AnyBundle], kinds: Sequence[str] | None, yamnet_file: Path | None
) -> None:
    wrong = [kind for kind in kinds or () if kind not in KINDS]
    if wrong or (kinds is not None and not kinds):
        raise UsageError(f"--rows: expected some of {', '.join(KINDS)}; got {', '.join(wrong)!r}")
    if kinds and YAMNET_ID in kinds and yamnet_file is None:
        raise UsageError("--rows: yamnet needs its file: add --yamnet yamnet.tflite")
    if yamnet_file and not yamnet_file.is_file():
        raise InputError(f"--yamnet {yamnet_file}: no such file; give the path of yamnet.tflite")
    names = [bundle.manifest.name for bundle in bundles]
    if len(set(names)) < len(names):
        raise UsageError(f"expected models of different names, got {', '.join(names)}")


def _of_bundle(bundle: Bundle, prefix: str, kinds: Sequence[str] | None) -> list[Entry]:
    missing = {(runtime, precision): why for runtime, precision, why in available_runtimes(bundle)}
    offered: list[tuple[str, str, Artefact | None]] = [
        (a.runtime, a.precision, a) for a in bundle.manifest.artefacts
    ]
    if bundle.has_weights:
        offered.append(("torch", "fp32", None))
    there = {f"{runtime}-{precision}" for runtime, precision, _ in offered}
    for kind in kinds or ():
        if kind not in there and kind not in (CNN14_ID, YAMNET_ID):
            runtime, precision = kind.rsplit("-", 1)
            offered.append((runtime, precision, None))
            missing[runtime, precision] = NOT_IN_BUNDLE
    entries = [
        Entry(_row(bundle, prefix, *offer, missing[offer[:2]]), bundle, offer[2], bundle.folder)
        for offer in offered
        if kinds is None or f"{offer[0]}-{offer[1]}" in kinds
    ]
    return sorted(entries, key=lambda entry: _rank(entry.row))


def _of_encoder(bundle: EncoderBundle, prefix: str, kinds: Sequence[str] | None) -> list[Entry]:
    entries: list[Entry] = []
    for clip in bundle.manifest.clips:
        kind = f"{clip.runtime}-{clip.precision}"
        if kinds is not None and kind not in kinds:
            continue
        row = Row(
            id=f"{prefix}{kind}",
            model=bundle.manifest.name,
            runtime=clip.runtime,
            precision=clip.precision,
            note=ENCODER_NOTE,
            file_bytes=bundle.path(clip.file).stat().st_size,
        )
        if missing := missing_engine(clip.runtime):
            row.status, row.note = "skipped", missing
        entries.append(Entry(row, bundle, clip, bundle.folder))
    return entries


def window_samples(bundle: EncoderBundle, clip: ClipArtefact) -> int:
    """A second, or the shortest clip that the encoder takes if that is longer."""
    wanted = max(round(WINDOW_S * bundle.manifest.sample_rate_hz), clip.min_samples)
    return -(-wanted // clip.multiple_of) * clip.multiple_of


def _rank(row: Row) -> tuple[int, float]:
    kind = f"{row.runtime}-{row.precision}"
    return KINDS.index(kind) if kind in KINDS else len(KINDS), row.step_ms or 0.0


def _row(
    bundle: Bundle,
    prefix: str,
    runtime: str,
    precision: str,
    artefact: Artefact | None,
    missing: str | None,
) -> Row:
    manifest = bundle.manifest
    samples = manifest.step_of(artefact) if artefact else manifest.step_samples
    step_ms = 1000.0 * samples / manifest.sample_rate_hz
    suffix = f"@{step_ms:g}ms" if samples != manifest.step_samples else ""
    row = Row(
        id=f"{prefix}{runtime}-{precision}{suffix}",
        model=manifest.name,
        runtime=runtime,
        precision=precision,
        step_ms=step_ms,
    )
    if missing:
        row.status, row.note = "skipped", missing
    else:
        names = {artefact.frontend, artefact.network} if artefact else {WEIGHTS_NAME}
        row.file_bytes = sum(bundle.path(name).stat().st_size for name in names)
    return row


def _peer(row_id: str, name: str, precision: str, missing: str | None, note: str) -> Row:
    status = "skipped" if missing else "ok"
    return Row(
        id=row_id, model=name, runtime=name, precision=precision, status=status,
        note=missing or note,
    )  # fmt: skip
