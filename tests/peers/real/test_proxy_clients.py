"""Other clients through the loopback proxy: those that are quick. proxy_versions.py has the rest, by scripts/test-proxy."""

from clients_by_proxy import CLIENTS, refused_nothing, runs_a_sweep, takes_an_artifact_up_and_down


def test_an_artifact_goes_up_and_comes_down_through_the_proxy(start_pair):
    takes_an_artifact_up_and_down("0.31.0", start_pair)


def test_a_sweep_runs_through_the_proxy(start_pair):
    runs_a_sweep("0.31.0", start_pair)


def test_the_javascript_sdk_logs_every_row_through_the_proxy(start_pair):
    sandbox, daemon = start_pair()
    daemon.exec("node", CLIENTS / "js_rows.mjs", "js", "20", options=["--proxy"])
    refused_nothing(sandbox)
    run = sandbox.run("team/real/js")
    assert [row["row"] for row in run["rows"]] == list(range(20))
    assert run["complete"] and run["exit_code"] == 0


def test_weaves_javascript_client_traces_every_call_through_the_proxy(start_pair):
    sandbox, daemon = start_pair()
    daemon.exec("node", CLIENTS / "js_traces.mjs", "10", options=["--proxy"])
    weave = refused_nothing(sandbox)["weave"]
    assert (weave["calls_started"], weave["calls_ended"]) == (10, 10)
