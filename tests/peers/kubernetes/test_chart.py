"""contrib/kubernetes: the chart, by real Helm; what it renders, by Kubernetes' own schemas; and what both give the daemon."""

import copy
import json
import os
import pathlib
import subprocess

import pytest
import yaml

import kubernetes_validate
from programs import ROOT, binary

HELM = ROOT / ".test/helm/helm"
CHART = ROOT / "contrib/kubernetes/wandb-cred"
MANIFEST = ROOT / "contrib/kubernetes/manifest.yaml"
VERSION = "1.35"


def helm(*argv, check=True):
    if not HELM.exists():
        pytest.fail(f"{HELM} is not there; run: scripts/setup-tests kubernetes")
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    done = subprocess.run([HELM, *argv], env=env, capture_output=True, text=True, timeout=60)
    assert not check or done.returncode == 0, done.stderr
    return done


def render(*settings):
    return helm("template", "train", CHART, "--kube-version", VERSION, *settings).stdout


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


def validate(document):
    kubernetes_validate.validate(document, VERSION, strict=True)


def pod_of(documents):
    [job] = [document for document in documents if document["kind"] == "Job"]
    return job["spec"]["template"]["spec"]


def config_of(documents):
    [config] = [document for document in documents if document["kind"] == "ConfigMap"]
    return config["data"]["config.toml"]


def test_the_committed_manifest_is_what_the_chart_renders():
    # To make it anew: .test/helm/helm template train contrib/kubernetes/wandb-cred --kube-version 1.35
    assert render() == MANIFEST.read_text()


@pytest.mark.parametrize("settings", [(), ("--set", "allowGids={2000,2001}"), ("--set", "serviceAccount.create=false")])
def test_what_is_rendered_is_valid_kubernetes(settings):
    rendered = documents(render(*settings))
    for document in rendered:
        validate(document)
    assert len(rendered) == (2 if "serviceAccount.create=false" in settings else 3)


@pytest.mark.parametrize(
    "where",
    [
        lambda pod: pod,
        lambda pod: pod["initContainers"][0],
        lambda pod: pod["initContainers"][0]["securityContext"],
        lambda pod: pod["initContainers"][0]["volumeMounts"][0],
        lambda pod: pod["volumes"][2]["projected"]["sources"][0]["serviceAccountToken"],
    ],
    ids=["pod", "sidecar", "securityContext", "volumeMount", "token"],
)
def test_a_misspelt_field_would_be_found(where):
    rendered = documents(render())
    [job] = [document for document in rendered if document["kind"] == "Job"]
    broken = copy.deepcopy(job)
    where(broken["spec"]["template"]["spec"])["restartPolice"] = "Always"
    validate(job)
    with pytest.raises(kubernetes_validate.ValidationError, match="restartPolice"):
        validate(broken)


@pytest.mark.parametrize(
    ("setting", "named"),
    [("allowGid={2000}", "allowGid"), ("tokenSeconds=60", "600"), ("baseUrl=http://wandb.example", "https")],
)
def test_a_value_that_means_nothing_is_refused(setting, named):
    done = helm("template", "train", CHART, "--set", setting, check=False)
    assert done.returncode != 0 and named in done.stderr


def test_helm_lint_has_nothing_to_say():
    assert "1 chart(s) linted, 0 chart(s) failed" in helm("lint", "--strict", CHART).stdout


@pytest.mark.parametrize("settings", [(), ("--set", "allowGids={2000,2001}")])
def test_the_daemon_takes_the_configuration(settings, tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(config_of(documents(render(*settings))))
    path.chmod(0o600)
    # A temporary folder may be below one that others can write to; this one is ours.
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run([binary("wandb-credd"), "check", "--config", path], env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "1 profile(s): pod" in done.stdout, done.stderr


def test_the_paths_of_the_two_containers_are_the_same():
    pod = pod_of(documents(MANIFEST.read_text()))
    sidecar, main = pod["initContainers"][0], pod["containers"][0]
    value = lambda container, name: next(each["value"] for each in container["env"] if each["name"] == name)
    mount = lambda container, volume: next(
        each["mountPath"] for each in container["volumeMounts"] if each["name"] == volume)
    socket = pathlib.PurePath(value(sidecar, "WANDB_CRED_SOCKET"))
    assert value(main, "WANDB_CRED_SOCKET") == str(socket)
    assert mount(main, "wandb-cred-run") == mount(sidecar, "wandb-cred-run") == str(socket.parent.parent)
    for name in ["WANDB_IDENTITY_TOKEN_FILE", "WANDB_CREDENTIALS_FILE"]:
        assert pathlib.PurePath(value(main, name)).parent == socket.parent / "profiles/pod"
    [token] = pod["volumes"][2]["projected"]["sources"]
    inside = f"{mount(sidecar, 'wandb-cred-token')}/{token['serviceAccountToken']['path']}"
    assert json.dumps(inside) in config_of(documents(MANIFEST.read_text()))
