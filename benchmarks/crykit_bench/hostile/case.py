"""One damaged bundle, made anew from the seed and its number."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crykit.bundle import MANIFEST_NAME, WEIGHTS_NAME, write_manifest
from crykit_bench.hostile.mutate import damage_bytes, damage_json


@dataclass(frozen=True)
class Case:
    """What was done, and what is to be tried.

    Args:
        file: the one that was damaged.
        sealed: the manifest's digests were made to fit, so that the parser is reached.
        runtime, precision: that use the file.
    """

    number: int
    file: str
    how: str
    sealed: bool
    runtime: str
    precision: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Workshop:
    """Makes the cases of a seed out of one sound bundle, each in a folder that is used again.

    Args:
        bundle: its folder. Its torch weights are left out: they are no runtime's file.
        scratch: an empty folder; the sound copy is linked into each worker's.
    """

    def __init__(self, bundle: Path, scratch: Path, seed: int) -> None:
        self.seed = seed
        self.base = scratch / "sound.cry"
        shutil.copytree(bundle, self.base)
        (self.base / WEIGHTS_NAME).unlink(missing_ok=True)
        fields = json.loads((self.base / MANIFEST_NAME).read_bytes())
        write_manifest(self.base, fields)
        self._manifest = (self.base / MANIFEST_NAME).read_bytes()
        self._artefacts = [
            (a["runtime"], a["precision"], a[part])
            for a in json.loads(self._manifest)["artefacts"]
            if a.get("step_samples") is None
            for part in ("frontend", "network")
        ]

    def make(self, number: int, folder: Path) -> Case:
        """Write the damaged bundle into `folder`, in place of what it held."""
        rng = random.Random(f"{self.seed}/{number}")
        runtime, precision, name = rng.choice(self._artefacts)
        sealed = True
        if rng.random() < 0.3:
            name = MANIFEST_NAME
            how, content = damage_json(rng, self._manifest)
            manifest = content
        else:
            how, content = damage_bytes(rng, (self.base / name).read_bytes())
            sealed = rng.random() < 0.85
            manifest = self._sealed(name, content) if sealed else self._manifest
        self._link(folder)
        for file, data in ((name, content), (MANIFEST_NAME, manifest)):
            (folder / file).unlink()  # never through the link
            (folder / file).write_bytes(data)
        return Case(number, name, how, sealed, runtime, precision)

    def _sealed(self, name: str, content: bytes) -> bytes:
        document = json.loads(self._manifest)
        digest = hashlib.sha256(content).hexdigest()
        document["files"][name] = {"sha256": digest, "bytes": len(content)}
        return json.dumps(document).encode()

    def _link(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.base, folder, copy_function=os.link)
