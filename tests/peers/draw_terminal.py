"""Draws the README's picture: draw_terminal.py FILE. scripts/terminal-svg runs it."""

import io
import pathlib
import re
import sys

from rich import _export_format
from rich.console import Console
from rich.text import Text

from terminal_story import COLUMNS, play

console = Console(
    record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor", legacy_windows=False
)
for number, (command, output) in enumerate(play()):
    shown = [Text(f"$ {command}", style="bold"), *map(Text.from_ansi, output.rstrip("\n").split("\n"))]
    for line in shown if number == 0 else [Text(), *shown]:
        console.print(line, no_wrap=True, overflow="ellipsis")
# Where a picture is shown, nothing is fetched from elsewhere.
form = re.sub(r"@font-face \{\{.*?\}\}\n", "", _export_format.CONSOLE_SVG_FORMAT, flags=re.S)
picture = console.export_svg(title="wandb-cred", code_format=form, unique_id="terminal")
pathlib.Path(sys.argv[1]).write_text("\n".join(line.rstrip() for line in picture.splitlines()) + "\n")
