"""Phone kits: what is put into every template, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import Cli, Float32
from safetensors.numpy import load_file, save_file

from crykit.bundle import GOLDEN_EXPECTED, Bundle, write_manifest
from crykit.errors import CrykitError, FaultFound, InputError, MissingPart, UsageError
from crykit.offline import events_of, make_listener
from crykit.runtime import open_runtime
from crykit_export import kit_payload, kits
from crykit_export.kits import KITS, choose_artefact, open_bundle, template_of, write_kits


@pytest.fixture
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two small templates, one of which was built in place."""
    folder = tmp_path / "templates"
    for name in ("web", "android"):
        (folder / name / "src").mkdir(parents=True)
        (folder / name / "src" / "main.txt").write_text(name)
        stale = folder / name / KITS[name].payload
        stale.mkdir(parents=True)
        (stale / "old.onnx").write_text("of another model")
        (folder / name / "node_modules" / "left").mkdir(parents=True)
    shutil.copy(kits.kits_folder() / "gate_vectors.json", folder)
    monkeypatch.setattr(kits, "kits_folder", lambda: folder)
    # Which sound is taken has tests of its own.
    monkeypatch.setattr(kit_payload, "_is_plain", lambda *_: True)
    return folder


@pytest.fixture
def altered(bundle_path: Path, tmp_path: Path) -> Path:
    """A copy of the shipped bundle that a test may change."""
    return Path(shutil.copytree(bundle_path, tmp_path / "altered.cry"))


def restate(folder: Path, **changes: Any) -> Bundle:
    """Write the manifest of a changed bundle anew."""
    fields = json.loads((folder / "manifest.json").read_text())
    write_manifest(folder, {**fields, **changes})
    return Bundle.open(folder)


def names_in(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_a_kit_is_the_template_with_this_model_in_it(
    bundle: Bundle, templates: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    (folder,) = write_kits(bundle, ["web"], tmp_path / "out", say=said.append)
    assert folder == tmp_path / "out" / "web"
    golden = {f"golden/{name}" for name in ("golden.wav", "expected.json", "gate_vectors.json")}
    payload = {"kit.json", "frontend.onnx", "network.onnx", "MODEL_CARD.md", *golden}
    assert names_in(folder) == {"src/main.txt", *(f"public/kit/{name}" for name in payload)}
    assert len(said) == 1 and said[0].startswith(f"web: {bundle.model_id}, onnx int8")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["web"]


def test_kit_json_tells_all_that_an_app_must_know(
    bundle: Bundle, templates: Path, tmp_path: Path
) -> None:
    (folder,) = write_kits(bundle, ["web"], tmp_path, precision="fp32")
    payload = folder / "public" / "kit"
    kit = json.loads((payload / "kit.json").read_text())
    manifest = json.loads((bundle.folder / "manifest.json").read_text())
    for name in ("name", "licence", "labels", "sample_rate_hz", "step_samples", "gate", "evidence"):
        assert kit[name] == manifest[name]
    assert (kit["format_version"], kit["model_id"]) == (1, bundle.model_id)
    assert (kit["runtime"], kit["precision"]) == ("onnx", "fp32")
    for what in ("frontend", "network"):
        data = (payload / kit[what]["file"]).read_bytes()
        assert kit[what]["bytes"] == len(data)
        assert kit[what]["sha256"] == hashlib.sha256(data).hexdigest()
        assert kit[what]["inputs"] == manifest["graphs"][what]["inputs"]
        assert kit[what]["outputs"] == manifest["graphs"][what]["outputs"]
    for name in kit["golden"].values():
        assert (payload / name).is_file()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_what_is_expected_is_what_the_listener_hears_in_the_wav(
    bundle: Bundle, templates: Path, tmp_path: Path, precision: str
) -> None:
    (folder,) = write_kits(bundle, ["web"], tmp_path, precision=precision)
    golden = folder / "public" / "kit" / "golden"
    expected = json.loads((golden / "expected.json").read_text())
    samples, rate = soundfile.read(golden / "golden.wav", dtype="float32")
    assert (rate, soundfile.info(golden / "golden.wav").subtype) == (16_000, "PCM_16")
    listener = make_listener(bundle, open_runtime(bundle, "onnx", precision))
    heard = list(events_of([samples], listener))
    assert len(expected["events"]) == len(heard) / 2 >= 1
    for event, (started, ended) in zip(
        expected["events"], zip(heard[::2], heard[1::2], strict=True), strict=True
    ):
        assert event["onset_sample"] == round(ended.onset_s * rate)
        assert event["offset_sample"] == round(ended.offset_s * rate)
        assert event["detected_sample"] == round(started.detected_s * rate)
        assert event["mean_probability"] == pytest.approx(ended.mean_probability, abs=1e-9)
        assert event["level_dbfs"] == pytest.approx(ended.level_dbfs, abs=1e-9)
    frames = len(samples) // expected["frame_samples"]
    assert len(expected["cry_probability"]) == len(expected["level_dbfs"]) == frames


def test_int8_is_taken_where_there_is_one_else_fp32(bundle: Bundle, altered: Path) -> None:
    assert choose_artefact(bundle, "onnx", None).precision == "int8"
    fields = json.loads((altered / "manifest.json").read_text())
    full = [a for a in fields["artefacts"] if a["precision"] == "fp32"]
    assert choose_artefact(restate(altered, artefacts=full), "onnx", None).precision == "fp32"


@pytest.mark.parametrize("plain", [True, False])
def test_a_golden_cry_that_rounding_could_undo_gives_way_to_a_plain_one(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, plain: bool
) -> None:
    runtime = open_runtime(bundle, "onnx", "fp32")
    sound = kit_payload.cry_in_a_room(0, 16_000)[: 84 * 2560]
    answers = {"cry_probability": kit_payload.hear(bundle, runtime, sound).cry_probability}
    monkeypatch.setattr(kit_payload, "read_golden", lambda _: (sound, answers))
    judged: list[int] = []

    def is_plain(_: object, __: object, heard: kit_payload.Heard) -> bool:
        judged.append(len(heard.samples))
        return plain or len(judged) == 2

    monkeypatch.setattr(kit_payload, "_is_plain", is_plain)
    found = kit_payload.golden_sound(bundle, choose_artefact(bundle, "onnx", "fp32"), runtime)
    assert judged[0] == len(sound)
    assert np.array_equal(found.samples, sound) == plain


@pytest.mark.parametrize(
    ("late_by", "count", "plain"), [(0, 1, True), (1280, 1, True), (1281, 1, False), (0, 2, False)]
)
def test_a_plain_cry_is_one_that_any_microphone_hears_at_the_same_time(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, late_by: int, count: int, plain: bool
) -> None:
    runtime = open_runtime(bundle, "onnx", "fp32")
    frames = np.full(100, 0.999, np.float32)
    sound = np.zeros(64_000, np.float32)

    def heard(samples: Float32, by: int = 0, times: int = 1) -> kit_payload.Heard:
        start = len(sound) - len(samples)
        event = {"onset_sample": 16_000 - start + by, "offset_sample": 48_000 - start}
        return kit_payload.Heard(samples, frames, 0 * frames - 30, [event] * times)

    monkeypatch.setattr(kit_payload, "hear", lambda _, __, samples: heard(samples, late_by, count))
    assert kit_payload._is_plain(bundle, runtime, heard(sound)) == plain


def test_golden_sound_without_a_cry_gives_way_to_one_with(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = open_runtime(bundle, "onnx", "fp32")
    silence = np.zeros(16_000, np.float32)[: 6 * 2560]
    quiet = kit_payload.hear(bundle, runtime, silence)
    assert not quiet.events
    answers = {"cry_probability": quiet.cry_probability}
    monkeypatch.setattr(kit_payload, "read_golden", lambda _: (silence, answers))
    found = kit_payload.golden_sound(bundle, choose_artefact(bundle, "onnx", "fp32"), runtime)
    assert found.events and len(found.samples) > 10 * 16_000


def test_a_gate_that_hears_no_cry_at_all_makes_no_kit(
    altered: Path, templates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kit_payload, "CRY_TRIES", 1)
    deaf = restate(altered, gate={"on_threshold": 1.0, "off_threshold": 1.0})
    with pytest.raises(FaultFound, match="finds a cry neither"):
        write_kits(deaf, ["web"], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_all_kits_are_written_or_none(
    bundle: Bundle, templates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise MissingPart("no runtime")

    written = kits.write_payload
    monkeypatch.setattr(
        kits,
        "write_payload",
        lambda bundle, artefact, *rest: (
            refuse() if artefact.runtime == "executorch" else written(bundle, artefact, *rest)
        ),
    )
    with pytest.raises(MissingPart):
        write_kits(bundle, ["web", "android"], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_kit_that_is_there_gives_way_only_to_force(
    bundle: Bundle, templates: Path, tmp_path: Path
) -> None:
    write_kits(bundle, ["web"], tmp_path / "out")
    mine = tmp_path / "out" / "web" / "mine.txt"
    mine.write_text("worked on")
    with pytest.raises(UsageError, match="there already.*--force"):
        write_kits(bundle, ["web"], tmp_path / "out")
    assert mine.is_file()
    write_kits(bundle, ["web"], tmp_path / "out", replace=True)
    assert not mine.exists() and (mine.parent / "public" / "kit" / "kit.json").is_file()


def _onnx_only(folder: Path) -> Bundle:
    fields = json.loads((folder / "manifest.json").read_text())
    return restate(folder, artefacts=[a for a in fields["artefacts"] if a["runtime"] == "onnx"])


def test_what_cannot_be_made_is_refused(bundle: Bundle, altered: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    onnx_only = _onnx_only(altered)
    cases: list[tuple[type[CrykitError], str, Bundle, list[str], Path, str | None]] = [
        (UsageError, "kits are web, android, ios; got palm", bundle, ["palm"], tmp_path, None),
        (UsageError, "got none", bundle, [], tmp_path, None),
        (UsageError, "no executorch model", onnx_only, ["android"], tmp_path, None),
        (UsageError, "no onnx fp8", bundle, ["web"], tmp_path, "fp8"),
        (InputError, "expected a folder", bundle, ["web"], file / "out", None),
    ]
    for kind, message, model, names, out, precision in cases:
        with pytest.raises(kind, match=message):
            write_kits(model, names, out, precision)


def test_a_template_that_is_not_there_is_named(
    templates: Path,
) -> None:
    with pytest.raises(MissingPart, match="no template of the ios kit"):
        template_of("ios")


def test_a_run_is_told_from_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "model.json").touch()
    with pytest.raises(UsageError, match="crykit export .* first"):
        open_bundle(tmp_path)
    (tmp_path / "model.json").unlink()
    with pytest.raises(InputError, match="not a model bundle"):
        open_bundle(tmp_path)


def test_a_golden_clip_that_does_not_match_exits_1(
    altered: Path, tmp_path: Path, run_cli: Cli
) -> None:
    path = altered / GOLDEN_EXPECTED
    expected: dict[str, Float32] = load_file(path)
    save_file({**expected, "cry_probability": 1.0 - expected["cry_probability"]}, path)
    restate(altered)
    done = run_cli("export", altered, "--kit", "web", "--out", tmp_path / "out")
    assert done.returncode == 1 and done.stdout == b""
    assert done.stderr.count(b"\n") == 1 and b"does not match the golden clip" in done.stderr
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kit", "web"], b"--out DIR"),
        (["--out", "kits"], b"--kit KIT"),
        (["--kit", "web,palm", "--out", "kits"], b"palm"),
    ],
)
def test_the_command_says_what_it_needs(
    run_cli: Cli, bundle_path: Path, arguments: list[str], message: bytes
) -> None:
    done = run_cli("export", bundle_path, *arguments)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1 and message in done.stderr
