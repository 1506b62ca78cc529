"""A bundle opens only as it was made: every kind of tampering has its own one-line refusal."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from crykit.bundle import (
    Bundle,
    BundleDigestError,
    digest_files,
    resolve_model,
    write_manifest,
)
from crykit.errors import InputError, UsageError


@pytest.fixture
def copy(bundle_path: Path, tmp_path: Path) -> Path:
    target = tmp_path / "copy.cry"
    shutil.copytree(bundle_path, target)
    return target


def change(folder: Path, edit: Callable[[dict], None]) -> None:
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def listed(folder: Path, name: str, content: bytes) -> None:
    """Add a file whose digest the manifest does know."""
    (folder / name).write_bytes(content)
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    change(folder, lambda d: d["files"].update({name: entry}))


def refused(folder: Path, words: str, kind: type[Exception] = InputError) -> None:
    with pytest.raises(kind, match=words) as caught:
        Bundle.open(folder)
    assert "\n" not in str(caught.value)
    # A digest that does not match is told apart from a bundle that makes no sense.
    assert type(caught.value) is kind


def test_opens_and_names_itself(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    digest = hashlib.sha256((bundle_path / "manifest.json").read_bytes()).hexdigest()
    assert bundle.model_id == f"{bundle.manifest.name}@sha256:{digest[:12]}"
    assert {(a.runtime, a.precision) for a in bundle.manifest.artefacts} == {
        (runtime, precision) for runtime in ("onnx", "executorch") for precision in ("fp32", "int8")
    }
    with pytest.raises(InputError, match="lists no file"):
        bundle.path("manifest.json")


def test_shipped_bundle_is_small(bundle: Bundle) -> None:
    assert sum(entry.bytes for entry in bundle.manifest.files.values()) <= 4_000_000
    assert bundle.manifest.files["model.int8.onnx"].bytes <= 400_000


def test_altered_file(copy: Path) -> None:
    path = copy / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    refused(copy, "model.onnx was altered", BundleDigestError)


def test_truncated_file(copy: Path) -> None:
    path = copy / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    refused(copy, "weights.safetensors has .* bytes", BundleDigestError)


def test_missing_and_surplus_files(copy: Path) -> None:
    (copy / "extra.txt").write_text("hello")
    refused(copy, "extra.txt is not listed", BundleDigestError)
    (copy / "extra.txt").unlink()
    (copy / "golden" / "input.flac").unlink()
    refused(copy, "golden/input.flac is missing", BundleDigestError)


@pytest.mark.parametrize(
    "name",
    ["two\nlines", "../outside", "/etc/hostname", "golden/../../x", "a\\b", "C:x", "", ".", "a//b"],
)
def test_paths_that_lead_out(copy: Path, name: str) -> None:
    entry = {"sha256": "0" * 64, "bytes": 1}
    change(copy, lambda d: d["files"].update({name: entry}))
    refused(copy, "no path inside a bundle")


def test_symbolic_links(copy: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.onnx"
    shutil.move(copy / "model.onnx", outside)
    (copy / "model.onnx").symlink_to(outside)
    refused(copy, "model.onnx is a symbolic link")
    (copy / "model.onnx").unlink()
    shutil.move(outside, copy / "model.onnx")
    shutil.move(copy / "golden", tmp_path / "golden")
    (copy / "golden").symlink_to(tmp_path / "golden")
    refused(copy, "golden is a symbolic link")


def test_a_pipe_is_not_waited_for(copy: Path) -> None:
    os.mkfifo(copy / "pipe")
    refused(copy, "no plain file")


def test_pickles_by_name_and_by_content(copy: Path, tmp_path: Path) -> None:
    listed(copy, "weights.pt", b"anything")
    refused(copy, "weights.pt: pickled")
    change(copy, lambda d: d["files"].pop("weights.pt"))
    (copy / "weights.pt").unlink()
    listed(copy, "notes.txt", pickle.dumps({"a": 1}))
    refused(copy, "notes.txt: pickled")
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("data.pkl", b"x")
    listed(copy, "notes.txt", (tmp_path / "zip").read_bytes())
    refused(copy, "notes.txt: pickled")


def test_format_versions(copy: Path) -> None:
    change(copy, lambda d: d.update(format_version=2))
    refused(copy, "bundle format 2, but this crykit reads 1; upgrade")
    change(copy, lambda d: d.update(format_version=0))
    refused(copy, "bundle format 0")
    change(copy, lambda d: d.pop("format_version"))
    refused(copy, "not a manifest: .*format_version")


def test_a_newer_format_is_named_even_if_all_else_is_new(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format_version": 9, "files": "elsewhere"}')
    refused(tmp_path, "bundle format 9")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda d: d.pop("gate"), "gate"),
        (lambda d: d["gate"].update(off_threshold=2.0), "thresholds"),
        (lambda d: d.update(step_samples=1000), "whole frames"),
        (lambda d: d.update(frame_samples=0), "must be positive"),
        (lambda d: d["artefacts"][0].update(network="else.onnx"), "not among its files"),
        (lambda d: d["clip"].update(top_fraction=0), "top_fraction"),
        (lambda d: d["files"]["model.onnx"].update(sha256="\n" * 64), "64 hexadecimal"),
        (lambda d: d.update(name="cry\x1b[2J"), "must be printable"),
    ],
)
def test_manifests_that_make_no_sense(copy: Path, edit: Callable, words: str) -> None:
    change(copy, edit)
    refused(copy, f"not a manifest: .*{words}")


def test_things_that_are_no_bundle(tmp_path: Path) -> None:
    refused(tmp_path / "absent.cry", "expected a model bundle")
    refused(tmp_path, "has no manifest.json")
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe{")
    refused(tmp_path, "not a manifest")
    (tmp_path / "manifest.json").write_bytes(b" " * (5 * 1024 * 1024))
    refused(tmp_path, "not a manifest")
    (tmp_path / "manifest.json").write_bytes(b'{"format_version": 1, "a": ' + b"[" * 100_000)
    refused(tmp_path, "not a manifest: maximum recursion depth")


def test_writing_a_manifest_makes_a_bundle_that_opens(copy: Path) -> None:
    fields = json.loads((copy / "manifest.json").read_text())
    (copy / "more.txt").write_text("more")
    written = write_manifest(copy, {**fields, "name": "renamed"})
    assert Bundle.open(copy).manifest == written
    assert written.files == digest_files(copy)
    assert "more.txt" in written.files and "manifest.json" not in written.files
    before = (copy / "manifest.json").read_bytes()
    with pytest.raises(InputError):
        write_manifest(copy, {"name": "half"})
    assert (copy / "manifest.json").read_bytes() == before
    assert not list(copy.glob(".manifest*"))


def test_models_are_found_by_path_and_by_name(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolve_model(copy) == copy
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    mine = tmp_path / "data" / "crykit" / "models" / "mine.cry"
    shutil.copytree(copy, mine)
    assert resolve_model("mine") == resolve_model("mine.cry") == mine
    with pytest.raises(UsageError, match="no model 'other'.*mine"):
        resolve_model("other")
