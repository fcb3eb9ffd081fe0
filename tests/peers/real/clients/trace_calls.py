"""A traced program as weave's users have it.

trace_calls.py CALLS
"""

import sys

import weave

client = weave.init("team/real")


@weave.op
def double(number):
    return number * 2


for number in range(int(sys.argv[1])):
    assert double(number) == number * 2
client.finish()
