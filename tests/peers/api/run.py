"""Starts sandbox, daemon and a TCP relay, and lets schemathesis loose on them."""

import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

BIN = pathlib.Path(sys.argv[1]).resolve()
ROOT = pathlib.Path(__file__).resolve().parents[3]


def until(what, probe, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if probe():
            return
        time.sleep(0.02)
    sys.exit(f"test-api: {what} took more than {seconds} s")


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def relay(server, path):
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        daemon = socket.socket(socket.AF_UNIX)
        daemon.connect(str(path))
        for pair in ((client, daemon), (daemon, client)):
            threading.Thread(target=pump, args=pair, daemon=True).start()


def check_metrics(port, textfile):
    """Prometheus' own parsers take what the daemon shows."""

    def fetch(accept):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.headers["Content-Type"], answer.read().decode()

    until("the file of metrics", textfile.exists)
    kind, text = fetch("application/openmetrics-text")
    assert kind.startswith("application/openmetrics-text"), kind
    found = {"OpenMetrics": openmetrics.text_string_to_metric_families(text)}
    kind, text = fetch("*/*")
    assert kind.startswith("text/plain"), kind
    found["text"] = parser.text_string_to_metric_families(text)
    found["file"] = parser.text_string_to_metric_families(textfile.read_text())
    for form, families in found.items():
        kinds = {family.name: family.type for family in families}
        assert kinds.get("wandb_cred_exchanges") == "counter", (form, kinds)
        assert kinds.get("wandb_cred_usable") == "gauge", (form, kinds)
        assert "unknown" not in kinds.values(), (form, kinds)


def main(tmp):
    sandbox = subprocess.Popen(
        [BIN / "wandb-cred-sandbox", "serve"], stdout=subprocess.PIPE, text=True
    )
    url = sandbox.stdout.readline().split()[1]
    config = tmp / "config.toml"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config.write_text(
        f'metrics-listen = "127.0.0.1:{port}"\nmetrics-textfile = "{tmp}/wandb-cred.prom"\n'
        f'[profile.good]\nbase-url = "{url}"\naudience = "sandbox"\nserve-identity-token = true\n'
        f"[profile.good.provider.command]\n"
        f'argv = ["{BIN}/wandb-cred-sandbox", "mint", "--url", "{url}"]\n'
    )
    config.chmod(0o600)
    path = tmp / "run" / "wandb-cred.sock"
    env = os.environ | {"WANDB_CRED_CONFIG": str(config), "WANDB_CRED_SOCKET": str(path)}
    daemon = subprocess.Popen([BIN / "wandb-credd", "run", "--log-level", "error"], env=env)
    try:
        until("the daemon", path.exists)
        check_metrics(port, tmp / "wandb-cred.prom")
        server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=relay, args=(server, path), daemon=True).start()
        checks = "not_a_server_error,status_code_conformance,content_type_conformance"
        checks += ",response_headers_conformance,response_schema_conformance"
        outcome = subprocess.run(
            [
                pathlib.Path(sys.executable).parent / "schemathesis",
                "run",
                "--url",
                f"http://127.0.0.1:{server.getsockname()[1]}",
                "--checks",
                # 502 and 503 are answers here, described as such; the crash they stand for elsewhere is a
                # daemon that is gone, which is looked for below.
                checks.removeprefix("not_a_server_error,"),
                "--max-examples",
                os.environ.get("API_EXAMPLES", "40"),
                "--seed",
                "1",
                "--no-color",
                "--request-timeout",
                "150",
                ROOT / "openapi.yaml",
            ],
            cwd=tmp,
        )
        if daemon.poll() is not None:
            sys.exit(f"test-api: the daemon ended ({daemon.returncode})")
        return outcome.returncode
    finally:
        daemon.terminate()
        sandbox.terminate()
        daemon.wait(10)


with tempfile.TemporaryDirectory() as tmp:
    pathlib.Path(tmp).chmod(0o700)
    sys.exit(main(pathlib.Path(tmp)))
