"""Public data sets, each read from the layout in which it is published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from crykit.errors import UsageError
from crykit_train.data.sources import cries, donateacry, esc50, folder, fsd50k, youtube
from crykit_train.data.sources.base import Findings, ImportOptions


@dataclass(frozen=True)
class Source:
    """A data set: how its clips are found, and where it may be fetched from, if anywhere.

    ``terms`` tells how to come by it where it is not ours to fetch.
    """

    name: str
    find: Callable[[ImportOptions], Findings]
    archive_url: str = ""
    terms: str = ""


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source("donateacry", donateacry.find, donateacry.ARCHIVE_URL),
        Source("esc50", esc50.find, esc50.ARCHIVE_URL),
        Source("fsd50k", fsd50k.find, terms="fetch its archives from zenodo.org/records/4060432"),
        Source(
            "audioset",
            youtube.find_audioset,
            terms="its audio belongs to the uploaders; bring a folder of clips by --audio",
        ),
        Source(
            "vggsound",
            youtube.find_vggsound,
            terms="its audio belongs to the uploaders; bring a folder of clips by --audio",
        ),
        Source("chillanto", cries.find_chillanto, terms="ask INAOE, Mexico, for it"),
        Source(
            "cryceleb",
            cries.find_cryceleb,
            terms="accept its conditions at huggingface.co/datasets/Ubenwa/CryCeleb2023",
        ),
        Source("folder", folder.find, terms="it is a folder of your own"),
    )
}


def source_of(name: str) -> Source:
    """A source by its name.

    Raises:
        UsageError: an unknown name; the choices are listed.
    """
    if name not in SOURCES:
        raise UsageError(f"unknown source {name!r}: expected one of {', '.join(SOURCES)}")
    return SOURCES[name]
