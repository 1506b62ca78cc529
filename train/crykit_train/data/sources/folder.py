"""Any folder of recordings: one subfolder for each class, its name the label.

Who was recorded is told by a folder between the class and the file, or by a pattern on the file's
name. A folder that tells neither is refused: each file as a group of its own would put two takes
of one voice on both sides of a split.
"""

from __future__ import annotations

from crykit.errors import InputError
from crykit_train.data.events import event_of
from crykit_train.data.sources.base import Findings, Found, ImportOptions, audio_files, compiled


def find(options: ImportOptions) -> Findings:
    """CLASS/GROUP/file or, with ``group_pattern``, CLASS/file; deeper folders belong to the group.

    Raises:
        InputError: no sound file in a class folder, or nothing tells the groups.
    """
    pattern = compiled(options.group_pattern) if options.group_pattern else None
    found = Findings()
    for path in audio_files(options.root):
        label, *between = path.relative_to(options.root).parts[:-1] or ("",)
        if not label:
            found.left_out["not in a class folder"] += 1
            continue
        name = pattern.search(path.name) if pattern else None
        if name is not None:
            group = name[1]
        elif between:
            group = "/".join(between)
        else:
            raise InputError(
                f"{path}: nothing tells who was recorded; put the files of each baby, room or "
                "recording in a folder of their own (CLASS/GROUP/file), or give --group-pattern "
                "with the part of the name that tells it in parentheses"
            )
        found.clips.append(
            Found(
                path=path,
                event=options.events.get(label) or event_of(label),
                group=group,
                source=options.root.resolve().name,
                licence=options.licence or "none stated",
                orig_label=label,
            )
        )
    if not found.clips:
        raise InputError(f"{options.root}: expected folders of sound files, one for each class")
    return found
