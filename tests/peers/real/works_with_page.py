"""docs/works-with.md: what was seen, in tables between two marks. The rest of the page is written by hand."""

import re

from conftest import PROXY_VERSIONS, WANDB_VERSIONS, WEAVE_VERSION
from programs import ROOT
from works_with_rows import HEAVY, LIGHT, MODES

PATH = ROOT / "docs/works-with.md"
BEGIN, END = "<!-- begin: written by scripts/test-works-with -->\n", "<!-- end -->\n"


class Page:
    def __init__(self, text):
        self.text = text
        self.before, rest = text.split(BEGIN)
        table, self.after = rest.split(END)
        self.outcomes = {}
        rows = {row.name: row for row in [*LIGHT, *HEAVY]}
        for line in table.splitlines():
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            if cells[0] in rows:
                row = rows[cells[0]]
                # What another version did says nothing.
                if cells[1] == versions(row):
                    self.outcomes |= {(row.name, mode): cell for mode, cell in zip(MODES, cells[2:4])}

    @classmethod
    def read(cls):
        return cls(PATH.read_text())

    def write(self):
        self.text = self.rendered()
        PATH.write_text(self.text)

    def outcome(self, row, mode):
        return self.outcomes.get((row.name, mode), "not run")

    def record(self, row, mode, outcome):
        self.outcomes[row.name, mode] = outcome

    def rendered(self):
        lines = [*surfaces(), "", *self.table("frameworks and programs", LIGHT), "", *self.table("with torch or TensorFlow", HEAVY)]
        return self.before + BEGIN + "\n".join(lines) + "\n" + END + self.after

    def table(self, what, rows):
        yield f"| {what} | version | `exec` | `exec --proxy` | |"
        yield "|---|---|---|---|---|"
        for row in rows:
            outcomes = " | ".join(self.outcome(row, mode) for mode in MODES)
            yield f"| {row.name} | {versions(row)} | {outcomes} | {row.note} |"


def versions(row):
    """As they are pinned; a row that names no package has the SDK's."""
    if len(row.packages) > 1:
        return ", ".join(f"{package} {pin(row.venv, package)}" for package in row.packages)
    return pin(row.venv, *row.packages or ("wandb",))


def pin(venv, package):
    pins = (ROOT / f"tests/peers/requirements/{venv}.txt").read_text()
    return re.search(rf"^{package}==(\S+)$", pins, re.M)[1]


def surfaces():
    """What other suites run, by their own lists of versions."""
    ray = pin("ray", "ray")
    files, proxy = ", ".join(WANDB_VERSIONS), ", ".join(PROXY_VERSIONS)
    api = ", ".join(WANDB_VERSIONS[1:])
    yield "| surface | by `exec` | by `exec --proxy` | run by |"
    yield "|---|---|---|---|"
    yield f"| runs: `init`, `log`, `finish` | wandb {files} | wandb {proxy} | `scripts/test-real`, `scripts/test-proxy` |"
    yield f"| `wandb.Api()` | wandb {api} | wandb {proxy} | the same |"
    yield f"| files, up and down | not run | wandb {proxy} | `scripts/test-proxy` |"
    yield f"| weave calls | weave {WEAVE_VERSION} | weave {WEAVE_VERSION}; more in `scripts/test-proxy` | `scripts/test-real` |"
    yield "| launch | not run | not run | |"
    yield f"| Ray, `wandb.init` in tasks | ray {ray} | not run | `scripts/test-slurm --long` |"
    yield "| Ray's `WandbLoggerCallback`, `setup_wandb` | no, they want a key | yes | `scripts/test-proxy` |"
    yield "| JavaScript: the SDK, weave | no, they know no identity federation | yes | `scripts/test-proxy` |"
