"""The README's picture against what the programs print now."""

import itertools
import xml.etree.ElementTree

from programs import ROOT
from terminal_story import essence, lines, play


def drawn():
    """The lines of docs/terminal.svg: the pieces of a line stand at the same height."""
    tree = xml.etree.ElementTree.parse(ROOT / "docs/terminal.svg")
    pieces = [text for text in tree.iter("{http://www.w3.org/2000/svg}text") if text.get("y") and not text.get("class").endswith("title")]
    for _, line in itertools.groupby(pieces, key=lambda piece: piece.get("y")):
        yield "".join("".join(piece.itertext()) for piece in line)


def test_the_picture_shows_what_the_programs_print():
    now = [essence(line) for line in lines(play())]
    then = [essence(line) for line in drawn()]
    assert [line for line in then if line] == [line for line in now if line], "run scripts/terminal-svg"
