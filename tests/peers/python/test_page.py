"""Every snippet of docs/python.md runs, in its order, in one program."""

import json
import re

from conftest import ROOT

PAGE = (ROOT / "docs/python.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)

RAY = """
class _Ray:
    def init(self, runtime_env):
        print("RAY", json.dumps(runtime_env))

import json, sys
sys.modules["ray"] = _Ray()
"""


def test_the_snippets_do_what_the_page_says(world, sandbox):
    world.configure(sandbox, extra="serve-identity-token = true\n")
    assert len(SNIPPETS) == PAGE.count("```python")
    # Ray itself is run by test_ray.py.
    out = world.python(RAY + "\n".join(SNIPPETS))
    assert "\nno-such-profile\n" in out and f"work {sandbox.url}" in out
    [ray] = [json.loads(line[4:]) for line in out.splitlines() if line.startswith("RAY ")]
    assert list(ray) == ["py_executable", "env_vars"] and " exec -- " in ray["py_executable"]
    stats = sandbox.stats()
    assert (stats["sdk_exchanges"], stats["auth_failures"], len(stats["runs"])) == (0, {}, 1)
    assert stats["exchanges"]["total"] == 1


def test_every_public_name_is_on_the_page_and_says_what_it_is():
    import wandb_cred

    for name in wandb_cred.__all__:
        assert getattr(wandb_cred, name).__doc__, name
    for name in set(wandb_cred.__all__) - {"Session", "Token"}:
        assert name in PAGE, name
