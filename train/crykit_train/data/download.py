"""Fetching a data set's archive: checked, whole or not at all, and unpacked beside itself."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

from crykit.errors import FaultFound, InputError

PIECE_BYTES = 1 << 20
TIMEOUT_S = 60
Progress = Callable[[int, int, float], None]


def fetch(url: str, target: Path, *, sha256: str = "", progress: Progress | None = None) -> Path:
    """Download a file; nothing is left at ``target`` unless all of it arrived.

    Args:
        sha256: what the bytes must hash to, in hex; "" checks the length alone.
        progress: called with (bytes so far, bytes in all).

    Raises:
        InputError: no network, no such address, or fewer bytes than the server announced.
        FaultFound: the digest differs.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.part")
    try:
        digest = _receive(url, aside, progress)
        if sha256 and digest != sha256.lower():
            raise FaultFound(f"{url}: SHA-256 is {digest}, expected {sha256.lower()}; not kept")
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
    return target


def _receive(url: str, aside: Path, progress: Progress | None) -> str:
    hasher = hashlib.sha256()
    done = 0
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer, aside.open("wb") as file:
            announced = int(answer.headers.get("Content-Length") or 0)
            while piece := answer.read(PIECE_BYTES):
                file.write(piece)
                hasher.update(piece)
                done += len(piece)
                if progress:
                    progress(done, announced or done, float("nan"))
    except (urllib.error.URLError, http.client.HTTPException, ValueError, TimeoutError) as error:
        reason = getattr(error, "reason", error)
        raise InputError(
            f"{url}: cannot be fetched ({reason}); check the network, or fetch it elsewhere, "
            "unpack it and leave out --download"
        ) from None
    if announced and done != announced:
        raise InputError(f"{url}: {done} of {announced} bytes arrived; try again")
    return hasher.hexdigest()


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip; every member is checked against its CRC and kept inside ``folder``.

    Raises:
        InputError: no zip, or a damaged one.
    """
    try:
        with zipfile.ZipFile(archive) as members:
            members.extractall(folder)
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        raise InputError(f"{archive}: is no whole zip ({error}); fetch it anew") from None
