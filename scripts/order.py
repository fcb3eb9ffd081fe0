"""Reads a program's symbols (nm) and what of them ran (callgrind); prints what package-order.ld holds.

A pattern is as short as it can be without fitting a function that did not run.
"""

import re
import sys
from bisect import bisect_left
from collections import Counter, defaultdict
from os.path import commonprefix

BURST = 2000


def calls(path):
    """How often each function of the program was called."""
    counts, names, here = Counter(), {}, None
    for line in open(path):
        if named := re.match(r"(c?)fn=\((\d+)\)(?: ([^ ']+))?", line):
            if named[3]:
                names[named[2]] = named[3].rstrip()
            here = names[named[2]]
            counts[here] += 0
        elif counted := re.match(r"calls=(\d+)", line):
            counts[here] += int(counted[1])
    return counts


def section(symbol):
    """The name without what differs from build to build: the numbers of crates and of copies."""
    symbol = re.sub(r"(?<=Cs)[0-9A-Za-z]+(?=_)", lambda number: "?" * len(number[0]), symbol)
    return re.sub(r"\.\d+$", "", symbol)


def prefixes(wanted, others):
    """The shortest beginnings that each of `wanted` has, and none of `others`."""
    others, found = sorted(others), set()
    for name in wanted:
        at = bisect_left(others, name)
        shared = max(len(commonprefix([name, other])) for other in [*others[max(at - 1, 0) : at + 1], ""])
        # Not in the middle of a crate's number: its rest would match anything.
        found.add(re.match(r".{%d}\?*_?" % min(shared + 1, len(name)), name)[0])
    return sorted(found)


# Functions alike share an address: whichever of them callgrind names, all of them ran.
alike, sections = defaultdict(set), {}
for line in sys.stdin:
    if symbol := re.match(r"(\S+) [tTwW] (\S+)", line):
        alike[symbol[1]].add(section(symbol[2]))
        sections[symbol[2]] = alike[symbol[1]]
ran = Counter()
for path in sys.argv[1:]:
    for name, count in calls(path).items():
        for same in sections.get(name, ()):
            ran[same] += count
often = {name for name, count in ran.items() if count >= BURST / 2}
every = set().union(*alike.values())
for wanted in often, ran.keys() - often:
    for start in prefixes(wanted, every - wanted - often):
        print(f"*(.text.{start}* .text.unlikely.{start}*)")
