"""What other clients than the SDK's runs do through the proxy. Each is refused whatever is not a live token."""

from conftest import HERE
from programs import interpreter

CLIENTS = HERE / "clients"


def refused_nothing(sandbox):
    stats = sandbox.stats()
    assert (stats["auth_failures"], stats["sdk_exchanges"]) == ({}, 0)
    return stats


def takes_an_artifact_up_and_down(version, start_pair):
    """By signed addresses; and again where those have expired, when clients ask the server itself."""
    sandbox, daemon = start_pair()
    argv = [interpreter(f"wandb-{version}"), CLIENTS / "artifact_up_and_down.py"]
    assert "the same" in daemon.exec(*argv, "one", options=["--proxy"]).stdout
    before = sandbox.stats()["artifact_downloads"].get("token", 0)
    # The oldest asks the server itself for every file.
    assert before == (2 if version == "0.12.21" else 0)
    sandbox.post("/sandbox/settings", {"signed_downloads": False})
    assert "the same" in daemon.exec(*argv, "two", options=["--proxy"]).stdout
    assert refused_nothing(sandbox)["artifact_downloads"]["token"] == before + 2


def runs_a_sweep(version, start_pair):
    """The agent asks what to run, through the proxy like everything else."""
    sandbox, daemon = start_pair()
    daemon.exec(interpreter(f"wandb-{version}"), CLIENTS / "sweep.py", options=["--proxy"])
    stats = refused_nothing(sandbox)
    runs = {name: sandbox.run(name)["rows"] for name in stats["runs"]}
    assert sorted(runs) == ["team/real/sweep0-0", "team/real/sweep0-1"]
    for number, name in enumerate(sorted(runs)):
        assert [(row["row"], row["lr"]) for row in runs[name]] == [(row, number) for row in range(5)]


def traces_calls(version, start_pair):
    sandbox, daemon = start_pair()
    script = CLIENTS / "trace_calls.py"
    daemon.exec(interpreter(f"weave-{version}", "proxy"), script, "10", options=["--proxy"])
    weave = refused_nothing(sandbox)["weave"]
    assert (weave["calls_started"], weave["calls_ended"]) == (10, 10)


def trains_with_ray(way, start_pair):
    """`callback` looks for a key before it does anything, and `setup_wandb` as well."""
    sandbox, daemon = start_pair()
    argv = [interpreter("ray", "proxy"), CLIENTS / "ray_tune.py", way]
    daemon.exec(*argv, options=["--proxy"], timeout=240)
    runs = refused_nothing(sandbox)["runs"]
    assert len(runs) == 2
    for name in runs:
        run = sandbox.run(name)
        assert [row["row"] for row in run["rows"]] == list(range(5)), name
        assert run["complete"] and run["exit_code"] == 0
