"""Prints what a URL answers. Argument: URL."""

import sys
import urllib.request

print(urllib.request.urlopen(sys.argv[1]).read().decode())
