"""The wheel as people install it: by pip in a clean environment, by uv, by pipx. The programs are those under test."""

import email
import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile
import zlib

import pytest
from conftest import BINARIES, ROOT

SCRIPTS = pathlib.Path(sys.executable).parent


def run(*argv, env, check=True, cwd=None):
    done = subprocess.run([str(arg) for arg in argv], env=env, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert not check or done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done


CRATES = [
    {"name": "wandb-cred", "version": "0.1.0", "source": "local", "root": True, "dependencies": [1, 2]},
    {"name": "cc", "version": "1.0.0", "source": "crates.io", "kind": "build"},
    {"name": "libc", "version": "0.2.1", "source": "crates.io"},
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out, programs = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("programs")
    # As `cargo auditable` leaves it in the programs that are shipped.
    (programs / "crates").write_bytes(zlib.compress(json.dumps({"packages": CRATES}).encode()))
    for name in ("wandb-cred", "wandb-credd"):
        run("objcopy", "--strip-debug", f"--add-section=.dep-v0={programs}/crates", BINARIES / name, programs / name, env=None)
    env = {**os.environ, "WANDB_CRED_BIN_DIR": str(programs), "SOURCE_DATE_EPOCH": "1700000000"}
    said = run(ROOT / "scripts/wheel", out, env=env).stdout
    [path] = out.iterdir()
    assert said == f"{path.name} {path.stat().st_size} bytes\n"
    first = path.read_bytes()
    run(ROOT / "scripts/wheel", out, env=env)
    assert path.read_bytes() == first, "built twice"
    return path


@pytest.fixture
def clean(world, sandbox):
    """A user's environment that knows nothing of this tree."""
    world.configure(sandbox)
    del world.variables["PYTHONPATH"]
    world.variables["PATH"] = os.environ["PATH"].replace(f"{BINARIES}:", "")
    world.variables["WANDB_CRED_PROFILE"] = "work"
    return world


def test_the_wheel_holds_what_it_should_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = email.message_from_bytes(archive.read("wandb_cred-0.1.0.dist-info/METADATA"))
        bill = json.loads(archive.read("wandb_cred-0.1.0.dist-info/sboms/wandb-cred.cdx.json"))
        modes = {name: archive.getinfo(name).external_attr >> 16 & 0o777 for name in names}
    assert metadata["Requires-Dist"] is None and metadata["Requires-Python"] == ">=3.8"
    own, library = "pkg:cargo/wandb-cred@0.1.0", "pkg:cargo/libc@0.2.1"
    assert [component["purl"] for component in bill["components"]] == [library], "what only build scripts need is not in it"
    assert {need["ref"]: need["dependsOn"] for need in bill["dependencies"]} == {own: [library], library: []}
    programs = [name for name in names if ".data/scripts/" in name]
    assert [name.rpartition("/")[2] for name in programs] == ["wandb-cred", "wandb-credd"], "no sandbox"
    assert {modes[name] for name in programs} == {0o755} and set(modes.values()) == {0o755, 0o644}
    package = sorted(path.name for path in (ROOT / "python/wandb_cred").iterdir() if path.suffix in (".py", ".typed"))
    assert sorted(name.rpartition("/")[2] for name in names if name.startswith("wandb_cred/")) == package
    ends = ["man1/wandb-cred-exec.1", "man5/wandb-cred-config.5", "man8/wandb-credd.8", "licenses/LICENSE-MIT", "_wandb-cred"]
    assert all(any(name.endswith(end) for name in names) for end in ends)


def test_pip_installs_a_command_and_a_package_that_find_the_daemon_beside(wheel, clean, sandbox):
    venv = clean.folder / "venv"
    run(sys.executable, "-m", "venv", venv, env=clean.variables)
    run(venv / "bin/pip", "install", "--no-index", "--quiet", wheel, env=clean.variables)
    token = run(venv / "bin/wandb-cred", "token", env=clean.variables).stdout.strip()
    code = "import wandb_cred; print(wandb_cred.token(), wandb_cred.__file__)"
    said = run(venv / "bin/python", "-c", code, env=clean.variables, cwd=clean.folder).stdout.split()
    assert said[0] == token and said[1].startswith(str(venv))
    assert sandbox.exchanges() == 1
    run(venv / "bin/pip", "uninstall", "--quiet", "-y", "wandb-cred", env=clean.variables)
    left = [path for path in venv.rglob("*wandb*") if "__pycache__" not in str(path)]
    assert left == []


def test_pip_install_target_finds_its_command_too(wheel, clean):
    target = clean.folder / "target"
    run(sys.executable, "-m", "pip", "install", "--no-index", "--quiet", "--target", target, wheel, env=clean.variables)
    code = "import wandb_cred._daemon as daemon; print(daemon.command())"
    env = {**clean.variables, "PYTHONPATH": str(target), "PATH": "/usr/bin:/bin"}
    assert run(sys.executable, "-c", code, env=env).stdout.strip() == str(target / "bin/wandb-cred")


def test_uv_installs_a_tool_that_finds_its_daemon_through_the_link(wheel, clean, sandbox):
    home = pathlib.Path(clean.variables["HOME"])
    env = {**clean.variables, "UV_OFFLINE": "1", "UV_PYTHON": sys.executable, "UV_PYTHON_DOWNLOADS": "never"}
    run(SCRIPTS / "uv", "tool", "install", "--no-index", "--quiet", wheel, env=env)
    link = home / ".local/bin/wandb-cred"
    assert link.is_symlink()
    assert run(link, "token", env=env).stdout.startswith("wb_at_")
    ran = run(SCRIPTS / "uvx", "--no-index", "--quiet", "--from", wheel, "wandb-cred", "status", env=env).stdout
    assert "work" in ran
    assert sandbox.exchanges() == 1
    dry = run(link, "service", "install", "--dry-run", env=env, check=False).stdout
    assert "note: the service runs" not in dry, "the environment of a tool stays"


def test_pipx_installs_a_tool_with_manual_pages(wheel, clean):
    home = pathlib.Path(clean.variables["HOME"])
    # By uv, since with pip it first asks an index for a newer pip.
    env = {**clean.variables, "UV_OFFLINE": "1", "PIPX_DEFAULT_PYTHON": sys.executable}
    env["PATH"] = f"{SCRIPTS}:{env['PATH']}"
    run(SCRIPTS / "pipx", "install", "--quiet", "--backend", "uv", wheel, env=env)
    assert run(home / ".local/bin/wandb-cred", "token", env=env).stdout.startswith("wb_at_")
    assert (home / ".local/share/man/man1/wandb-cred.1").exists()


def test_the_source_distribution_takes_nothing_from_build_folders(tmp_path):
    tree = tmp_path / "tree"
    ignore = shutil.ignore_patterns("target", ".test", ".git")
    shutil.copytree(ROOT, tree, ignore=ignore)
    for rubbish in ("dist/old.whl", ".test/x", "target/y", "python/wandb_cred/__pycache__/z.pyc"):
        (tree / rubbish).parent.mkdir(parents=True, exist_ok=True)
        (tree / rubbish).write_text("rubbish")
    maturin = ROOT / ".test/venvs/dist/bin/maturin"
    run(maturin, "sdist", "--out", tmp_path / "out", env=dict(os.environ), cwd=tree)
    [sdist] = (tmp_path / "out").iterdir()
    names = run("tar", "tzf", sdist, env=dict(os.environ)).stdout
    assert "/python/wandb_cred/py.typed" in names and "/src/bin/wandb-credd.rs" in names
    for rubbish in ("/dist/", "/.test/", "/target/", "__pycache__"):
        assert rubbish not in names
