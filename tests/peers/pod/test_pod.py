"""The sidecar of contrib/kubernetes in a pod: whom it serves, and what happens when the kubelet replaces the token."""

import json
import stat

from pod import USER

TOKEN = ["/usr/bin/wandb-cred", "token"]
OTHER = 1001


def test_the_image_is_small_and_has_no_shell(image):
    bundle = image.bundle()
    files = {str(path.relative_to(bundle / "rootfs")) for path in (bundle / "rootfs").rglob("*") if path.is_file()}
    assert {"usr/bin/wandb-cred", "usr/bin/wandb-credd", "etc/ssl/certs/ca-certificates.crt"} <= files
    assert not [file for file in files if file.startswith("bin/") or file.endswith("/sh")]
    config = json.loads((bundle / "config.json").read_text())["process"]
    assert (config["user"]["uid"], config["args"]) == (USER, ["/usr/bin/wandb-credd", "run"])


def test_a_container_of_the_same_user_has_tokens_and_files(start_pod, wandb):
    pod = start_pod()
    done = pod.run(*TOKEN)
    assert done.stdout.startswith("wb_at_"), done
    [main] = pod.spec["containers"]
    variables = {variable["name"]: variable["value"] for variable in main["env"]}
    for name in ["WANDB_IDENTITY_TOKEN_FILE", "WANDB_CREDENTIALS_FILE"]:
        inside = variables[name].removeprefix("/run/wandb-cred/daemon/")
        held = pod.file(inside).stat()
        assert (held.st_uid, stat.S_IMODE(held.st_mode)) == (USER, 0o600)
    assert stat.S_IMODE(pod.file(".").stat().st_mode) & 0o077 == 0
    # It registers with the daemon though neither sees the other's processes.
    assert pod.run("/usr/bin/wandb-cred", "exec", "--", *TOKEN).stdout == done.stdout
    assert wandb.stats()["exchanges"]["total"] == 1


def test_a_container_of_another_user_gets_nothing(start_pod):
    pod = start_pod()
    done = pod.run(*TOKEN, uid=OTHER, gid=OTHER)
    assert done.returncode != 0 and not done.stdout
    # Nor one whose user may be named in the configuration of another pod, but not in this one's.
    done = pod.run(*TOKEN, uid=OTHER, env=[f"WANDB_CRED_SOCKET_UID={USER}"])
    assert done.returncode != 0 and not done.stdout


def test_a_container_of_another_user_is_served_by_its_group(start_pod):
    socket = "/run/wandb-cred/guests/wandb-cred.sock"
    pod = start_pod(f'allow-gids = [2000]\nguest-socket = "{socket}"\n')
    env = [f"WANDB_CRED_SOCKET={socket}", f"WANDB_CRED_SOCKET_UID={USER}"]
    done = pod.run(*TOKEN, uid=OTHER, gid=2000, env=env)
    assert done.stdout.startswith("wb_at_"), done
    # By its primary group alone, and for tokens alone.
    assert pod.run(*TOKEN, uid=OTHER, gid=OTHER, groups=[2000], env=env).returncode != 0
    assert pod.run("/usr/bin/wandb-cred", "status", uid=OTHER, gid=2000, env=env).returncode != 0
    assert stat.S_IMODE(pod.file(".").stat().st_mode) & 0o077 == 0


def test_a_token_that_the_kubelet_replaces_is_read_and_exchanged(start_pod, wandb):
    pod = start_pod()
    first = pod.run(*TOKEN).stdout
    pod.project(wandb.mint())
    # W&B takes each JWT once, so this fails with the old one.
    assert pod.exec("/usr/bin/wandb-cred", "refresh").returncode == 0
    assert pod.run(*TOKEN).stdout not in ["", first]
    assert wandb.stats()["exchanges"]["by_outcome"] == {"ok": 2}


def test_the_sidecar_ends_by_sigterm_and_starts_again_on_what_it_left(start_pod, wandb):
    pod = start_pod()
    first = pod.run(*TOKEN).stdout
    pod.stop()
    pod.start_sidecar()
    assert pod.run(*TOKEN).stdout == first
    assert wandb.stats()["exchanges"]["total"] == 1
