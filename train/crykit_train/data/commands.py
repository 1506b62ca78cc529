"""`crykit data ...`: manifests from public data sets, shards, and the leakage audit."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from crykit.errors import UsageError


@click.group()
def command() -> None:
    """Build, check and pack tables of recordings."""


@command.command("import")
@click.argument("source")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", "-o", required=True, type=click.Path(path_type=Path), help="Output folder.")
@click.option("--download", is_flag=True, help="Fetch the data set into FOLDER first.")
@click.option("--url", default="", help="With --download: another address of the archive.")
@click.option("--sha256", default="", help="With --download: what the archive must hash to.")
@click.option("--audio", type=click.Path(path_type=Path), help="Audio, where it lies elsewhere.")
@click.option("--seed", default=1, show_default=True, help="Of the split.")
@click.option("--published-splits", is_flag=True, help="Keep the source's own split.")
@click.option("--group-pattern", default="", help="Pattern whose (part) of a name is the group.")
@click.option("--event", "events", multiple=True, metavar="CLASS=EVENT", help="For folder.")
@click.option("--licence", default="", help="For folder and chillanto: the clips' terms.")
@click.option("--convert", is_flag=True, help="Convert what cannot be read, by ffmpeg.")
@click.option("--jobs", default=1, show_default=True, help="Processes that measure.")
def import_command(
    source: str,
    folder: Path,
    out: Path,
    download: bool,
    url: str,
    sha256: str,
    audio: Path | None,
    seed: int,
    published_splits: bool,
    group_pattern: str,
    events: tuple[str, ...],
    licence: str,
    convert: bool,
    jobs: int,
) -> None:
    """Build a manifest of SOURCE from its published layout in FOLDER.

    SOURCE is donateacry, esc50, fsd50k, audioset, vggsound, chillanto, cryceleb or folder.
    """
    from crykit_train.data.importing import import_source
    from crykit_train.data.sources import source_of
    from crykit_train.data.sources.base import ImportOptions
    from crykit_train.progress import progress_bar

    chosen = source_of(source)
    if download:
        _download(chosen.name, url or chosen.archive_url, chosen.terms, folder, sha256)
    elif url or sha256:
        raise UsageError("--url and --sha256 go with --download")
    options = ImportOptions(folder, audio, group_pattern, _pairs(events), licence)
    with progress_bar("measuring") as progress:
        report = import_source(
            chosen,
            options,
            out,
            seed=seed,
            published_splits=published_splits,
            convert=convert,
            jobs=jobs,
            progress=progress,
        )
    _print(report)


def _download(name: str, url: str, terms: str, folder: Path, sha256: str) -> None:
    from crykit_train.data.download import fetch, unpack
    from crykit_train.progress import progress_bar

    if not url:
        raise UsageError(f"{name}: is not fetched from here: {terms}")
    archive = folder / f"{name}.zip"
    with progress_bar("fetching (bytes)") as progress:
        fetch(url, archive, sha256=sha256, progress=progress)
    unpack(archive, folder)
    archive.unlink()


def _pairs(words: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise UsageError(f"--event {word!r}: expected CLASS=EVENT")
        pairs[name] = value
    return pairs


@command.command("shard")
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--out", "-o", required=True, type=click.Path(path_type=Path), help="Output folder.")
@click.option("--clips-per-shard", default=256, show_default=True)
@click.option("--seed", default=1, show_default=True, help="Of the order of clips.")
@click.option("--leaky", is_flag=True, help="Accept groups on two sides of a split (diagnostic).")
def shard_command(manifest: Path, out: Path, clips_per_shard: int, seed: int, leaky: bool) -> None:
    """Write a manifest's clips as sharded tar files (webdataset)."""
    from crykit.dataset import read_manifest
    from crykit_train.data.shards import write_shards
    from crykit_train.progress import progress_bar

    clips = read_manifest(manifest, leaky=leaky)
    with progress_bar("writing") as progress:
        index = write_shards(
            clips, out, clips_per_shard=clips_per_shard, seed=seed, leaky=leaky, progress=progress
        )
    shards = index["shards"]
    _print(
        {
            "out": str(out),
            "leaky": leaky,
            "shards": len(shards),
            "clips": sum(shard["clips"] for shard in shards),
            "seconds": round(sum(shard["seconds"] for shard in shards), 1),
            "bytes": sum(shard["bytes"] for shard in shards),
        }
    )


@command.command("audit")
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The whole report as JSON.")
@click.option("--strict", is_flag=True, help="A strong shortcut counts as a fault too.")
@click.option("--bootstrap", default=500, show_default=True, help="Draws for the intervals.")
@click.pass_context
def audit_command(
    ctx: click.Context, manifest: Path, as_json: bool, strict: bool, bootstrap: int
) -> None:
    """Look for leaks between splits and for shortcuts; exit code 1 if there is a leak."""
    from crykit_train.data.audit import audit_manifest, report_lines
    from crykit_train.progress import progress_bar

    with progress_bar("auditing") as progress:
        report = audit_manifest(manifest, bootstrap=bootstrap, progress=progress)
    if as_json:
        _print(report)
    else:
        print("\n".join(report_lines(report)))
    shortcut = any(row["verdict"] == "strong" for row in report["shortcuts"])
    if report["leak"] or (strict and shortcut):
        ctx.exit(1)


def _print(report: dict[str, Any]) -> None:
    json.dump(report, sys.stdout, indent=2)
    print()
