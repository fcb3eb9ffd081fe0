"""A run that outlives its access tokens: what the short and the long test share.

The SDK looks into its file again once the token it holds has 300 s or less. Access tokens of a little more than
that are turned over quickly, while the daemon has to keep what it publishes above 300 s.
"""

import subprocess
import time

from conftest import HERE, WANDB_VERSIONS
from programs import binary, interpreter

TOKEN_LIFE = 335


def outlive(start_pair, folder, enough, within, settings=None):
    """Logs until `enough(run, seconds)`, where `run` is what the sandbox holds; then nothing may be amiss."""
    sandbox, daemon = start_pair("--token-life", str(TOKEN_LIFE))
    stop = folder / "stop"
    work = folder / "work"
    work.mkdir()
    argv = [binary("wandb-cred"), "exec", "--", interpreter(f"wandb-{WANDB_VERSIONS[-1]}")]
    client = subprocess.Popen(
        [str(arg) for arg in [*argv, HERE / "clients/log_until.py", "long", stop]],
        env=daemon.env | (settings or {}),
        cwd=work,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    began = time.monotonic()
    try:
        while True:
            seconds = time.monotonic() - began
            run = sandbox.stats()["runs"].get("team/real/long", {"access_tokens": []})
            if enough(run, seconds) or seconds > within or client.poll() is not None:
                break
            time.sleep(1)
        stop.touch()
        output, _ = client.communicate(timeout=120)
    finally:
        client.kill()
        client.wait()
    print(output)
    assert client.returncode == 0, output
    assert "will not be synced" not in output, output

    stats = sandbox.stats()
    run = sandbox.run("team/real/long")
    print(f"{seconds:.0f} s, {len(run['rows'])} rows, tokens {run['access_tokens']}, {stats['exchanges']}")
    assert enough(run, seconds), f"after {seconds:.0f} s the run had used the tokens {run['access_tokens']}"
    assert stats["sdk_exchanges"] == 0
    assert stats["auth_failures"] == {}
    [logged] = [int(line.removeprefix("rows ")) for line in output.splitlines() if line.startswith("rows ")]
    assert [row["row"] for row in run["rows"]] == list(range(logged))
    assert run["complete"] and run["exit_code"] == 0
    return run
