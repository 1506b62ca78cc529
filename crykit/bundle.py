"""A model as a folder ``NAME.cry/``: verified by its digests before anything in it is parsed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Generic, TypeVar

import msgspec

from crykit.errors import InputError, UsageError
from crykit.files import write_aside
from crykit.manifest import FORMAT_VERSION, Artefact, EncoderManifest, FileEntry, Manifest

MANIFEST_NAME = "manifest.json"
WEIGHTS_NAME = "weights.safetensors"
GOLDEN_INPUT = "golden/input.flac"
GOLDEN_EXPECTED = "golden/expected.safetensors"
DEFAULT_MODEL = "cry-student"

MANIFEST_MAX_BYTES = 4 * 1024 * 1024
# Formats that can run code when they are loaded. Nothing here would load them; a bundle that
# carries one is not ours all the same.
PICKLE_SUFFIXES = frozenset(
    {".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".bin", ".joblib", ".dill", ".npy", ".npz", ".pt2"}
)
_CHUNK_BYTES = 1024 * 1024


class BundleDigestError(InputError):
    """The bundle's files are not those that its manifest lists: tampered with, or cut short."""


M = TypeVar("M", Manifest, EncoderManifest)


class VerifiedFolder(Generic[M]):
    """What every opened bundle is: a manifest, and the paths of its verified files."""

    def __init__(self, path: Path, manifest: M, manifest_sha256: str) -> None:
        self.folder = path
        self.manifest: M = manifest
        self.manifest_sha256 = manifest_sha256

    @property
    def model_id(self) -> str:
        """``name@sha256:<12 hex>`` of the manifest, which itself fixes every other file."""
        return f"{self.manifest.name}@sha256:{self.manifest_sha256[:12]}"

    def path(self, name: str) -> Path:
        """The path of a file that the manifest lists.

        Raises:
            InputError: it does not list it.
        """
        if name not in self.manifest.files:
            raise InputError(f"{self.folder}: the manifest lists no file {name!r}")
        return self.folder / name


class EncoderBundle(VerifiedFolder[EncoderManifest]):
    """An opened encoder; see `open_any`."""


class Bundle(VerifiedFolder[Manifest]):
    """An opened detector."""

    @classmethod
    def open(cls, path: str | Path, verify: bool = True) -> Bundle:
        """Read a bundle's manifest and check every file against it.

        Args:
            path: the folder.
            verify: compare every file's size and sha256 with the manifest. Leave it on, except
                where the same process has done it already.

        Raises:
            UsageError: the bundle is an encoder.
            InputError: no bundle, a manifest that makes no sense or is of a newer format, a path
                that leads out of the folder, a pickled file.
            BundleDigestError: a file is missing, surplus, cut short or altered.
        """
        opened = open_any(path, verify)
        if isinstance(opened, EncoderBundle):
            raise UsageError(
                f"{opened.manifest.name} is an encoder: it has no state to step with and detects "
                "no cries; use it with: crykit embed --model"
            )
        return opened

    @property
    def has_weights(self) -> bool:
        """Whether the torch weights are in the bundle."""
        return WEIGHTS_NAME in self.manifest.files

    def artefact(self, runtime: str, precision: str, step_samples: int | None = None) -> Artefact:
        """The artefact for a runtime, precision and step (the manifest's own unless given).

        Raises:
            UsageError: there is none.
        """
        found = self.manifest.artefact(runtime, precision, step_samples)
        if found is None:
            what = f"{self.manifest.name} has no {runtime} {precision} model"
            raise UsageError(what if step_samples is None else self._no_step(what, step_samples))
        return found

    def _no_step(self, what: str, step_samples: int) -> str:
        manifest = self.manifest
        offered = sorted({manifest.step_of(artefact) for artefact in manifest.artefacts})
        in_ms = [1000 * samples / manifest.sample_rate_hz for samples in (step_samples, *offered)]
        return f"{what} of {in_ms[0]:g} ms steps; it has {', '.join(f'{ms:g}' for ms in in_ms[1:])}"


def open_any(path: str | Path, verify: bool = True) -> Bundle | EncoderBundle:
    """As `Bundle.open`, for bundles of every kind."""
    folder = Path(path)
    raw = _read_manifest(folder)
    manifest = _parse_manifest(folder, raw)
    for name in manifest.files:
        _check_name(folder, name)
    if verify:
        _check_files(folder, manifest.files)
    digest = hashlib.sha256(raw).hexdigest()
    if isinstance(manifest, EncoderManifest):
        return EncoderBundle(folder, manifest, digest)
    return Bundle(folder, manifest, digest)


def resolve_model(model: str | Path | None = None) -> Path:
    """The folder of a model given by path, by name, or not at all (the shipped one).

    A name is looked for among the models in the package, then in the user's data folder.

    Raises:
        UsageError: there is no such folder and no such name.
    """
    if model is not None and Path(model).is_dir():
        return Path(model)
    name = DEFAULT_MODEL if model is None else str(model)
    if "/" not in name and os.sep not in name:
        for folder in _model_folders():
            found = folder / f"{name.removesuffix('.cry')}.cry"
            if found.is_dir():
                return found
    if model is None:
        raise UsageError("the shipped model is not in this installation: name one with --model")
    raise UsageError(
        f"no model {name!r}: expected a bundle folder or one of the names "
        f"{', '.join(model_names()) or '(none installed)'}"
    )


def _model_folders() -> list[Path]:
    import platformdirs

    return [
        Path(__file__).parent / "models",
        Path(platformdirs.user_data_path("crykit", appauthor=False)) / "models",
    ]


def model_names() -> list[str]:
    """Names that `resolve_model` knows."""
    return sorted({p.stem for folder in _model_folders() for p in folder.glob("*.cry")})


def open_model_bundle(model: str | Path | None = None) -> Bundle:
    """`Bundle.open` of `resolve_model`."""
    return Bundle.open(resolve_model(model))


def digest_files(folder: str | Path) -> dict[str, FileEntry]:
    """The `files` of a manifest: every file in the folder except the manifest, by POSIX path.

    Raises:
        InputError: a symbolic link, or a file that no bundle may hold.
    """
    root = Path(folder)
    entries: dict[str, FileEntry] = {}
    for name in sorted(_walk(root)):
        if name == MANIFEST_NAME:
            continue
        _check_name(root, name)
        digest, size, head = _digest(root / name)
        _check_head(root, name, head)
        entries[name] = FileEntry(sha256=digest, bytes=size)
    return entries


def write_manifest(folder: str | Path, fields: dict[str, Any]) -> Manifest | EncoderManifest:
    """Digest the folder's files, check the manifest and write it, aside and then renamed.

    Args:
        folder: of a bundle that is otherwise complete.
        fields: the manifest without `format_version` and `files`, which are filled in.

    Raises:
        InputError: the fields do not make a manifest.
    """
    entries = digest_files(folder)
    document = {
        **fields,
        "format_version": FORMAT_VERSION,
        "files": {name: msgspec.to_builtins(entry) for name, entry in entries.items()},
    }
    raw = msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"
    manifest = _parse_manifest(Path(folder), raw)
    with write_aside(Path(folder) / MANIFEST_NAME) as file:
        file.write(raw)
    return manifest


def _read_manifest(folder: Path) -> bytes:
    path = folder / MANIFEST_NAME
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a model bundle, a folder NAME.cry; there is none")
    if path.is_symlink() or not path.is_file():
        raise InputError(f"{folder}: not a model bundle: it has no {MANIFEST_NAME}")
    if path.stat().st_size > MANIFEST_MAX_BYTES:
        raise InputError(f"{path}: larger than {MANIFEST_MAX_BYTES} bytes; not a manifest")
    return path.read_bytes()


class _Head(msgspec.Struct):
    format_version: int
    kind: str = "detector"


def _parse_manifest(folder: Path, raw: bytes) -> Manifest | EncoderManifest:
    try:
        head = msgspec.json.decode(raw, type=_Head)
        version = head.format_version
        if version != FORMAT_VERSION:
            hint = "upgrade crykit to read it" if version > FORMAT_VERSION else "export it anew"
            raise InputError(
                f"{folder}: bundle format {version}, but this crykit reads {FORMAT_VERSION}; {hint}"
            )
        kind = EncoderManifest if head.kind == "encoder" else Manifest
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{folder}: {MANIFEST_NAME} is not a manifest: {error}") from None


def _check_name(folder: Path, name: str) -> None:
    """Refuse a listed name that could leave the folder or be loaded as code."""
    pure = PurePosixPath(name)
    odd = "\\" in name or ":" in name or not name.isprintable()
    if not pure.parts or odd or pure.is_absolute() or ".." in pure.parts or str(pure) != name:
        raise InputError(f"{folder}: the manifest lists {name!r}, which is no path inside a bundle")
    if name == MANIFEST_NAME:
        raise InputError(f"{folder}: the manifest lists itself")
    if pure.suffix.lower() in PICKLE_SUFFIXES:
        raise InputError(f"{folder}: {name}: pickled and archived formats are not accepted")


def _walk(folder: Path) -> Iterator[str]:
    """POSIX paths of every file below, links refused."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise InputError(f"{folder}: {name} is a symbolic link; a bundle holds plain files")
        if path.is_file():
            yield name
        elif not path.is_dir():
            raise InputError(f"{folder}: {name} is no plain file")


def _check_files(folder: Path, files: dict[str, FileEntry]) -> None:
    present = set(_walk(folder)) - {MANIFEST_NAME}
    missing, surplus = sorted(set(files) - present), sorted(present - set(files))
    if missing:
        raise BundleDigestError(f"{folder}: {missing[0]} is missing; get the bundle again")
    if surplus:
        raise BundleDigestError(f"{folder}: {surplus[0]} is not listed in the manifest")
    for name, entry in files.items():
        size = (folder / name).stat().st_size
        if size != entry.bytes:
            raise BundleDigestError(
                f"{folder}: {name} has {size} bytes, the manifest says {entry.bytes}; "
                "get the bundle again"
            )
        digest, _, head = _digest(folder / name)
        if digest != entry.sha256:
            raise BundleDigestError(
                f"{folder}: {name} was altered: sha256 {digest[:12]}..., "
                f"the manifest says {entry.sha256[:12]}...; get the bundle again"
            )
        _check_head(folder, name, head)


def _digest(path: Path) -> tuple[str, int, bytes]:
    """sha256, size and first bytes of a file."""
    sha256, size, head = hashlib.sha256(), 0, b""
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            head = head or chunk[:4]
            sha256.update(chunk)
            size += len(chunk)
    return sha256.hexdigest(), size, head


def _check_head(folder: Path, name: str, head: bytes) -> None:
    """Refuse a pickle or a zip (torch's container of pickles) under another name."""
    # A pickle of protocol 2 to 5 starts with 0x80, the protocol and an opcode, which is never zero;
    # a little-endian header length that happens to start alike is followed by zeros.
    pickled = head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5")
    if (pickled and head[2:3] != b"\0") or head[:4] == b"PK\3\4":
        raise InputError(f"{folder}: {name}: pickled and archived formats are not accepted")
