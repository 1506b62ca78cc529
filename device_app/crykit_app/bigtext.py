"""Large letters from half blocks, for the one word that must be read across a dark room."""

from __future__ import annotations

# Nine pixel rows: two ascender, five x-height, two descender. Two pixel rows a terminal row.
_HEIGHT = 9

_LETTERS: dict[str, tuple[str, ...]] = {
    "a": ("", "", " ### ", "    #", " ####", "#   #", " ####"),
    "c": ("", "", " ####", "#    ", "#    ", "#    ", " ####"),
    "d": ("    #", "    #", " ####", "#   #", "#   #", "#   #", " ####"),
    "e": ("", "", " ### ", "#   #", "#####", "#    ", " ####"),
    "g": ("", "", " ####", "#   #", "#   #", "#   #", " ####", "    #", " ### "),
    "i": ("#", "", "#", "#", "#", "#", "#"),
    "n": ("", "", "#### ", "#   #", "#   #", "#   #", "#   #"),
    "o": ("", "", " ### ", "#   #", "#   #", "#   #", " ### "),
    "p": ("", "", "#### ", "#   #", "#   #", "#   #", "#### ", "#    ", "#    "),
    "q": ("", "", " ####", "#   #", "#   #", "#   #", " ####", "    #", "    #"),
    "r": ("", "", "# ##", "##  ", "#   ", "#   ", "#   "),
    "s": ("", "", " ####", "#    ", " ### ", "    #", "#### "),
    "t": (" #  ", " #  ", "####", " #  ", " #  ", " #  ", "  ##"),
    "u": ("", "", "#   #", "#   #", "#   #", "#   #", " ####"),
    "y": ("", "", "#   #", "#   #", "#   #", "#   #", " ####", "    #", " ### "),
    "0": (" ### ", "#   #", "#   #", "#   #", "#   #", "#   #", " ### "),
    "1": ("  # ", " ## ", "  # ", "  # ", "  # ", "  # ", " ###"),
    "2": (" ### ", "#   #", "    #", "  ## ", " #   ", "#    ", "#####"),
    "3": ("#### ", "    #", "    #", " ### ", "    #", "    #", "#### "),
    "4": ("#   #", "#   #", "#   #", "#####", "    #", "    #", "    #"),
    "5": ("#####", "#    ", "#### ", "    #", "    #", "    #", "#### "),
    "6": (" ### ", "#    ", "#    ", "#### ", "#   #", "#   #", " ### "),
    "7": ("#####", "    #", "   # ", "   # ", "  #  ", "  #  ", "  #  "),
    "8": (" ### ", "#   #", "#   #", " ### ", "#   #", "#   #", " ### "),
    "9": (" ### ", "#   #", "#   #", " ####", "    #", "    #", " ### "),
    ":": ("", "", "#", "", "", "#", ""),
    " ": ("  ",),
}

_BLOCKS = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}


def big_text(text: str, scale: int = 1) -> list[str]:
    """`text` as terminal rows, all equally long; 5 rows at scale 1, 9 at scale 2.

    Raises `KeyError` for a letter that the font has not.
    """
    pixels = [""] * _HEIGHT
    for letter in text:
        glyph = _LETTERS[letter]
        width = max(len(row) for row in glyph)
        for row in range(_HEIGHT):
            line = glyph[row] if row < len(glyph) else ""
            pixels[row] += line.ljust(width) + " "
    scaled = ["".join(pixel * scale for pixel in row[:-1]) for row in pixels for _ in range(scale)]
    if len(scaled) % 2:
        scaled.append(" " * len(scaled[0]))
    return [
        "".join(
            _BLOCKS[above != " ", below != " "] for above, below in zip(top, bottom, strict=True)
        )
        for top, bottom in zip(scaled[::2], scaled[1::2], strict=True)
    ]
