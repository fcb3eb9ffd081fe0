"""The Homebrew formula, the Nix flake and the metadata for cargo binstall, as far as they can be looked at without Homebrew,
nixpkgs and a release: by their own languages, with a stand-in for the rest. Nothing is built here."""

import json
import os
import re
import shutil
import subprocess
import tomllib

import pytest
import yaml

import programs
from programs import ROOT

HERE = ROOT / "tests/peers/ci"
MANIFEST = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]


def tool(name):
    if not shutil.which(name):
        pytest.fail(f"{name} is not there; run: scripts/setup-tests ci")
    return name


def formula(file):
    script = (HERE / "formula.rb").read_text().replace('require_relative "../../../contrib/homebrew/wandb-cred"', f'load "{file}"')
    done = subprocess.run([tool("ruby"), "-w", "-"], input=script, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return json.loads(done.stdout)


def test_the_formula_builds_both_programs_and_installs_what_is_there():
    file = ROOT / "contrib/homebrew/wandb-cred.rb"
    assert subprocess.run([tool("ruby"), "-wc", file], capture_output=True, text=True).stdout == "Syntax OK\n"
    did = formula(file)
    (cargo,) = did["ran"]
    assert cargo[:2] == ["cargo", "install"] and [cargo[at + 1] for at, word in enumerate(cargo) if word == "--bin"] == [
        "wandb-cred", "wandb-credd"]
    assert sorted(file for _, file in did["installed"]) == sorted(
        str(page.relative_to(ROOT)) for page in (ROOT / "man").glob("*.[158]"))
    assert all(section == f"man{file[-1]}" for section, file in did["installed"])
    assert did["fields"]["run"] == ["/opt/wandb-cred/bin/wandb-credd", "run"]
    assert did["fields"]["license"] == {"any_of": MANIFEST["license"].split(" OR ")}


def test_the_formula_of_a_release_has_its_address_and_hash(tmp_path):
    archive = tmp_path / "source.tar.gz"
    archive.write_bytes(b"the source")
    text = subprocess.run([ROOT / "scripts/formula", archive], check=True, capture_output=True, text=True).stdout
    (tmp_path / "wandb-cred.rb").write_text(text)
    fields = formula(tmp_path / "wandb-cred.rb")["fields"]
    hashed = subprocess.run(["sha256sum", archive], capture_output=True, text=True).stdout.split()[0]
    assert fields["sha256"] == hashed
    assert fields["url"] == f"{MANIFEST['repository']}/archive/refs/tags/v{MANIFEST['version']}.tar.gz"


def test_the_formulas_own_test_holds_for_the_programs(tmp_path):
    """What its `test do` runs."""
    text = (ROOT / "contrib/homebrew/wandb-cred.rb").read_text()
    config = tmp_path / "config.toml"
    config.write_text(re.search(r"<<~TOML\n(.*?)\n    TOML", text, re.S)[1])
    run = lambda name, *argv: subprocess.run([programs.binary(name), *argv], env={"HOME": str(tmp_path), **env},
                                             capture_output=True, text=True)
    env = {}
    assert MANIFEST["version"] in run("wandb-cred", "--version").stdout
    assert run("wandb-credd", "check", "--config", config).returncode == 0
    env = {"WANDB_CRED_SOCKET": str(tmp_path / "s")}
    assert run("wandb-cred", "status").returncode == 69


@pytest.mark.parametrize("system", ["x86_64-linux", "aarch64-darwin"])
def test_the_flake_and_its_modules_evaluate(system, tmp_path):
    argv = [tool("nix-instantiate"), "--eval", "--strict", "--json", "--store", "dummy://", "--argstr", "system", system]
    env = os.environ | {"NIX_CONFIG": "build-users-group =", "HOME": str(tmp_path)}
    done = subprocess.run([*argv, HERE / "flake.nix"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    package = found["package"]
    assert (package["pname"], package["version"]) == (MANIFEST["name"], MANIFEST["version"])
    assert package["meta"]["homepage"] == MANIFEST["repository"] and found["lock"]
    assert found["systems"] == ["aarch64-darwin", "aarch64-linux", "x86_64-darwin", "x86_64-linux"]
    assert found["off"] == {}
    linux = system.endswith("linux")
    for unit in re.findall(r"systemd/[\w.-]+", package["postInstall"].replace("share/systemd/user", "")):
        assert linux and (ROOT / unit).is_file(), unit
    if linux:
        # The one path that the package replaces.
        assert (ROOT / "systemd/wandb-cred.service").read_text().count("/usr/bin/wandb-credd") == 1
        assert found["nixos"]["systemd"]["user"]["sockets"]["wandb-cred"]["wantedBy"] == ["sockets.target"]
    home = found["home"]
    written = home["xdg"]["configFile"]["wandb-cred/config.toml"] if linux else home["home"]["file"][
        "Library/Application Support/wandb-cred/config.toml"]
    assert written["source"]["value"] == {"profile": {"work": {"audience": "acme", "provider": {"gcp": {}}}}}


def test_what_runs_on_other_machines_passes_shellcheck(tmp_path):
    _, body = yaml.safe_load_all((ROOT / "templates/wandb-cred.yml").read_text())
    (job,) = body.values()
    posix = [tmp_path / name for name in ["before_script", "after_script"]]
    for file in posix:
        file.write_text("".join(job[file.name]))
    posix += [*(ROOT / "contrib/ci").glob("*.sh"), ROOT / "scripts/tarball", ROOT / "scripts/formula"]
    plugin = ROOT / "contrib/buildkite/wandb-cred"
    for shell, files in {"sh": posix, "bash": [plugin / "lib/job.bash", *(plugin / "hooks").iterdir()]}.items():
        done = subprocess.run([tool("shellcheck"), "--severity", "warning", "-s", shell, *files], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_binstall_finds_the_archive_that_is_made(tmp_path):
    binstall = MANIFEST["metadata"]["binstall"]
    target = "x86_64-unknown-linux-gnu"
    values = {"repo": MANIFEST["repository"], "name": MANIFEST["name"], "version": MANIFEST["version"], "target": target,
              "binary-ext": ""}
    # leon's language: { NAME }.
    render = lambda text, **more: re.sub(r"\{ ?([\w-]+) ?\}", lambda found: (values | more)[found[1]], text)
    names = [bin["name"] for bin in tomllib.loads((ROOT / "Cargo.toml").read_text())["bin"]]
    for name in names:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    env = os.environ | {"WANDB_CRED_BIN_DIR": str(tmp_path), "WANDB_CRED_TARGET": target}
    subprocess.run([ROOT / "scripts/tarball", tmp_path / "dist"], env=env, check=True, stdout=subprocess.DEVNULL)
    (archive,) = (tmp_path / "dist").iterdir()
    assert render(binstall["pkg-url"]) == f"{MANIFEST['repository']}/releases/download/v{MANIFEST['version']}/{archive.name}"
    shutil.unpack_archive(archive, tmp_path / "unpacked")
    # It wants every program of the crate.
    for name in names:
        assert os.access(tmp_path / "unpacked" / render(binstall["bin-dir"], bin=name), os.X_OK), name


def test_every_recipe_names_this_version_and_this_repository():
    """A release changes the version in Cargo.toml, and in what cannot read it there."""
    component = next(yaml.safe_load_all((ROOT / "templates/wandb-cred.yml").read_text()))["spec"]["inputs"]
    assert component["version"]["default"] == MANIFEST["version"]
    assert component["releases"]["default"] == f"{MANIFEST['repository']}/releases/download"
    assert f"{MANIFEST['repository']}/releases/download" in (ROOT / "contrib/ci/install.sh").read_text()
    page = (ROOT / "docs/install.md").read_text()
    assert set(re.findall(r"(?:wandb-cred[-_]|version=)(\d+\.\d+\.\d+)", page)) == {MANIFEST["version"]}
    formula = (ROOT / "contrib/homebrew/wandb-cred.rb").read_text()
    assert formula.count(MANIFEST["repository"]) == 3 and f"/tags/v{MANIFEST['version']}.tar.gz" in formula
