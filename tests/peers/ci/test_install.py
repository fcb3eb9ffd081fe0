"""contrib/ci/install.sh and what it installs: the archive of a release, the wheel, a folder."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from programs import ROOT

INSTALLER = ROOT / "contrib/ci/install.sh"
TOOLS = ["sh", "tar", "gzip", "uname", "sha256sum", "cut", "basename", "chmod", "cp", "rm", "mv"]
TARGET = "x86_64-unknown-linux-gnu"
ARCHIVE = f"wandb-cred-1.2.3-{TARGET}.tar.gz"


@pytest.fixture(scope="session")
def programs(built, tmp_path_factory):
    """The command, and something small for the others: packing a debug build takes long."""
    folder = tmp_path_factory.mktemp("programs")
    (folder / "wandb-cred").symlink_to(built / "wandb-cred")
    for name in ["wandb-credd", "wandb-cred-sandbox"]:
        (folder / name).write_text(f"#!/bin/sh\necho {name}\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def archive(programs, tmp_path_factory):
    """What scripts/tarball makes of the programs."""
    folder = tmp_path_factory.mktemp("archive")
    env = os.environ | {"WANDB_CRED_BIN_DIR": str(programs), "WANDB_CRED_TARGET": TARGET}
    subprocess.run([ROOT / "scripts/tarball", folder], env=env, check=True, stdout=subprocess.DEVNULL)
    return next(folder.iterdir())


@pytest.fixture
def release(releases, archive):
    """A release 1.2.3 on a server; gives what its address is."""
    folder = releases.folder / "v1.2.3"
    folder.mkdir()
    shutil.copy(archive, folder / ARCHIVE)
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  other.whl\n{sha256(archive)} *{ARCHIVE}\n")
    releases.release = folder
    return releases


@pytest.fixture
def install(tmp_path):
    def run(source, tools=("curl",), substitutes={}, version="1.2.3", **env):
        target, path = tmp_path / "target", tmp_path / "path"
        for made in [target, path]:
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
        for tool in [*TOOLS, *tools]:
            (path / tool).symlink_to(substitutes.get(tool) or shutil.which(tool))
        env = {"PATH": str(path), "HOME": str(tmp_path), **{name.upper(): str(value) for name, value in env.items()}}
        done = subprocess.run(["sh", INSTALLER, target, version, source], env=env, capture_output=True, text=True, timeout=60)
        if done.returncode == 0:
            assert sorted(file.name for file in target.iterdir()) == ["wandb-cred", "wandb-credd"]
        else:
            assert done.stderr.startswith("wandb-cred: ") or "\nwandb-cred: " in done.stderr, done.stderr
        return done.returncode, done.stderr

    return run


def sha256(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("tool", ["curl", "wget", "python3"])
def test_a_release_is_installed_with_what_is_there(install, release, tool):
    # Where pyenv is, python3 in PATH is a script of its own.
    substitutes = {"python3": os.path.realpath(sys.executable)} if tool == "python3" else {}
    assert install("release", [tool], substitutes, wandb_cred_releases=release.url) == (0, "")


def test_nothing_to_download_with_is_said(install, release):
    code, said = install("release", [], wandb_cred_releases=release.url)
    assert code != 0 and "no curl, wget or python3" in said


def test_an_archive_with_another_hash_is_not_unpacked(install, release, archive, tmp_path):
    with open(release.release / ARCHIVE, "ab") as file:
        file.write(b"x")
    code, said = install("release", wandb_cred_releases=release.url)
    assert code != 0 and sha256(archive) in said and "nothing was installed" in said
    assert not (tmp_path / "target/wandb-cred").exists()


def test_a_hash_that_the_user_names_goes_before_that_of_the_release(install, release, archive):
    good = sha256(archive)
    (release.release / "SHA256SUMS").unlink()
    assert install("release", wandb_cred_releases=release.url, wandb_cred_sha256=good) == (0, "")
    code, said = install("release", wandb_cred_releases=release.url, wandb_cred_sha256="f" * 64)
    assert code != 0 and "not " + "f" * 64 in said


def test_a_release_that_does_not_name_its_archive_is_refused(install, release):
    (release.release / "SHA256SUMS").write_text(f"{'0' * 64}  {ARCHIVE}.sig\n")
    code, said = install("release", wandb_cred_releases=release.url)
    assert code != 0 and "does not name" in said


def test_a_release_that_is_not_there_is_named(install, release):
    code, said = install("release", version="9.9.9", wandb_cred_releases=release.url)
    assert code != 0 and "no wandb-cred-9.9.9-" in said and "v9.9.9" in said


def test_releases_come_by_https(install):
    code, said = install("release", wandb_cred_releases="http://example.com/releases")
    assert code != 0 and "by https" in said


def test_a_machine_that_no_release_is_made_for_is_named(install, release, tmp_path):
    (tmp_path / "uname").write_text("#!/bin/sh\necho Linux riscv64\n")
    (tmp_path / "uname").chmod(0o755)
    substitutes = {"uname": tmp_path / "uname"}
    code, said = install("release", substitutes=substitutes, wandb_cred_releases=release.url)
    assert code != 0 and "no release is made for Linux riscv64" in said


def test_a_path_is_a_folder_or_an_archive(install, programs, archive, tmp_path):
    assert install(str(programs), []) == (0, "")
    assert install(str(archive), []) == (0, "")
    for path in [tmp_path / "none", tmp_path / "none.tar.gz", tmp_path]:
        code, said = install(str(path), [])
        assert code != 0 and str(path) in said


def test_an_image_without_glibc_is_told_apart(install, built, tmp_path):
    """The daemon's program with an interpreter that is not there, as glibc's is not on Alpine."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name in ["wandb-cred", "wandb-credd"]:
        program = (built / name).read_bytes()
        (folder / name).write_bytes(program.replace(b"/lib64/ld-linux-x86-64.so.2", b"/lib64/ld-other-x86-64.so.2"))
        (folder / name).chmod(0o755)
    code, said = install(str(folder), [])
    assert code != 0 and "does not run here" in said and "glibc 2.17" in said


@pytest.fixture
def wheel(programs, tmp_path):
    """A wheel as the project makes it: both programs among its scripts."""
    file, records = tmp_path / "wandb_cred-1.2.3-py3-none-any.whl", []
    with zipfile.ZipFile(file, "w") as wheel:
        for name in ["wandb-cred", "wandb-credd"]:
            info = zipfile.ZipInfo(f"wandb_cred-1.2.3.data/scripts/{name}")
            info.external_attr = 0o100755 << 16
            wheel.writestr(info, (programs / name).read_bytes())
            records.append(info.filename)
        texts = {"METADATA": "Metadata-Version: 2.1\nName: wandb-cred\nVersion: 1.2.3\n",
                 "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
        for name, text in texts.items():
            wheel.writestr(f"wandb_cred-1.2.3.dist-info/{name}", text)
            records.append(f"wandb_cred-1.2.3.dist-info/{name}")
        record = "wandb_cred-1.2.3.dist-info/RECORD"
        wheel.writestr(record, "".join(f"{name},,\n" for name in [*records, record]))
    return file


def test_the_wheel_is_installed_by_pip(wheel, releases, tmp_path):
    folder = releases.folder / "simple/wandb-cred"
    folder.mkdir(parents=True)
    shutil.copy(wheel, folder)
    (folder / "index.html").write_text(f'<a href="{releases.url}/simple/wandb-cred/{wheel.name}">{wheel.name}</a>')
    path = f"{ROOT}/.test/venvs/pytest/bin{os.pathsep}{os.environ['PATH']}"
    env = {"PATH": path, "HOME": str(tmp_path), "PIP_INDEX_URL": f"{releases.url}/simple", "PIP_CONFIG_FILE": "/dev/null"}
    for number, source in enumerate([str(wheel), "pypi"]):
        target = tmp_path / str(number)
        target.mkdir()
        subprocess.run(["sh", INSTALLER, target, "1.2.3", source], env=env, check=True, timeout=60)
        assert sorted(file.name for file in target.iterdir()) == ["wandb-cred", "wandb-credd"]
    target = tmp_path / "absent"
    target.mkdir()
    done = subprocess.run(["sh", INSTALLER, target, "9.9.9", "pypi"], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "wandb-cred==9.9.9 could not be installed" in done.stderr


def test_the_archive_is_reproducible_and_names_no_place(programs, archive, tmp_path):
    env = os.environ | {"WANDB_CRED_BIN_DIR": str(programs), "WANDB_CRED_TARGET": TARGET, "LANG": "de_DE.UTF-8"}
    subprocess.run([ROOT / "scripts/tarball", tmp_path / "again"], env=env, check=True, stdout=subprocess.DEVNULL)
    assert sha256(tmp_path / "again" / archive.name) == sha256(archive)
    shutil.unpack_archive(archive, tmp_path / "unpacked")
    for file in (tmp_path / "unpacked/completions").iterdir():
        assert "/tmp" not in file.read_text() and str(ROOT) not in file.read_text()
    assert {"wandb-cred", "wandb-credd", "LICENSE-MIT", "LICENSE-APACHE"} <= set(os.listdir(tmp_path / "unpacked"))


def test_the_pages_lines_for_by_hand_install_both_programs(release, tmp_path):
    page = (ROOT / "docs/install.md").read_text()
    lines = page.split("## By hand", 1)[1].split("```sh\n", 1)[1].split("```", 1)[0]
    assert "wandb-cred service install\n" in lines
    lines = lines.replace("https://github.com/OWNER/wandb-cred/releases/download", release.url).replace("version=0.1.0", "version=1.2.3")
    (release.release / "SHA256SUMS").write_text(f"{'0' * 64}  other.whl\n{sha256(release.release / ARCHIVE)}  {ARCHIVE}\n")
    env = {"PATH": f"{tmp_path}/home/.local/bin{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    lines = lines.replace("wandb-cred service install", "wandb-cred --version")
    done = subprocess.run(["bash", "-e", "-c", lines], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.splitlines()[-1].startswith("wandb-cred "), done.stderr
    assert (tmp_path / "home/.local/bin/wandb-credd").exists()
