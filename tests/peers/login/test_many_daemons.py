"""Several daemons share one session whose refresh token can be redeemed once.

`WANDB_CRED_TEST_LONG=1` makes the run with random kills five minutes long, with tokens of 20 s.
"""

import concurrent.futures
import contextlib
import fcntl
import http.client
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import tempfile
import time

import pytest
from conftest import BIN, Daemon, Provider, Wandb, claims_of, until

LONG = os.environ.get("WANDB_CRED_TEST_LONG")


class Jobs:
    """Commands under `exec` that have a private daemon each: they look for a service where there is none."""

    def __init__(self, daemon):
        # Short, as a runtime folder is: a socket's path has little room.
        self.runtime = tempfile.TemporaryDirectory(prefix="wc")
        runtime = pathlib.Path(self.runtime.name)
        self.folder = runtime / "wandb-cred"
        self.env = {**daemon.env, "XDG_RUNTIME_DIR": str(runtime)}
        self.running = []

    def start(self, *command):
        job = subprocess.Popen([BIN / "wandb-cred", "exec", "--private", "--", *command], env=self.env, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
        self.running.append(job)
        return job

    def daemon(self, job):
        """The private daemon of a job: another view of the same machinery."""
        private = Daemon.__new__(Daemon)
        private.socket = self.folder / f"exec-{job.pid}/wandb-cred.sock"
        return private

    def pid(self, job):
        """Of the private daemon, if it answers."""
        with contextlib.suppress(OSError):
            return self.daemon(job).call("GET", "/v1/status")[1]["pid"]

    def stop(self):
        for job in self.running:
            job.kill()
            job.wait()
        until(self.clean, 20, "the end of the daemons, which write in their folders until then")

    def clean(self):
        with contextlib.suppress(OSError):
            self.runtime.cleanup()
            return True


@contextlib.contextmanager
def nobody_redeems(daemon):
    """Takes the session's lock: no daemon is between redeeming and storing."""
    with daemon.lock().open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def world(tmp_path):
    """A session with tokens of a few seconds, and nothing that runs."""
    provider, wandb = Provider(ID_TTL=20 if LONG else 5, DELAY_MS=100), Wandb(expires_in=20 if LONG else 5)
    daemon = Daemon(tmp_path, provider.issuer, wandb.url).start()
    daemon.sign_in()
    daemon.kill(signal.SIGTERM)
    jobs = Jobs(daemon)
    yield provider, wandb, daemon, jobs
    jobs.stop()
    daemon.kill()
    provider.stop()


def test_jobs_that_start_at_once_all_get_a_token(world):
    provider, wandb, daemon, jobs = world
    done = [jobs.start("true") for _ in range(4)]
    said = [job.communicate(timeout=60)[1] for job in done]
    assert [job.returncode for job in done] == [0] * 4, said
    assert "refresh_token invalid_grant" not in provider.stats()
    assert provider.stats()["refresh_token success"] == 4, "each JWT can be exchanged once"


def test_many_daemons_and_random_kills_lose_no_session(world):
    provider, wandb, daemon, jobs = world
    dice = random.Random(11)
    running = [jobs.start("sleep", "1000") for _ in range(8)]
    daemon.start()
    daemon.cli("exec", "--", "true")
    kills = 0
    end = time.monotonic() + (300 if LONG else 30)
    while time.monotonic() < end:
        time.sleep(dice.random() * (4 if LONG else 1))
        number = dice.randrange(9)
        if number == 8:
            how = dice.choice([signal.SIGTERM, signal.SIGKILL])
            # Whoever is killed between redeeming and storing loses what was redeemed; anywhere else nothing is lost.
            with nobody_redeems(daemon) if how == signal.SIGKILL else contextlib.nullcontext():
                daemon.kill(how)
            daemon.start()
        else:
            job = running[number]
            if (pid := jobs.pid(job)) and dice.random() < 0.5:
                with nobody_redeems(daemon):
                    os.kill(pid, signal.SIGKILL)
            job.kill()
            job.wait()
            running[number] = jobs.start("sleep", "1000")
        kills += 1
        assert daemon.token()[0] == 200
    views = [jobs.daemon(job) for job in running] + [daemon]
    for view in views:
        until(lambda: answers(view, 200), 40, "a token from every daemon")
    stats = provider.stats()
    print(f"{kills} kills, {stats}")
    assert stats["authorization_code success"] == 1 and "refresh_token invalid_grant" not in stats, stats
    assert stats["refresh_token success"] >= 20, stats
    assert {claims_of(jwt)["sub"] for jwt in wandb.assertions} == {"alice"}


def answers(view, status):
    with contextlib.suppress(OSError):
        return view.token()[0] == status


def test_a_holder_that_hangs_is_named_and_its_end_frees_the_session(world):
    provider, wandb, daemon, jobs = world
    daemon.start()
    assert daemon.token()[0] == 200
    holder = subprocess.Popen(["flock", "--exclusive", "--no-fork", daemon.lock(), "sleep", "1000"])
    try:
        until(lambda: daemon.redeems(), what="the lock")
        daemon.lock().write_text(f"{holder.pid} {os.uname().nodename}\n")
        before = provider.stats()["refresh_token success"]

        def named():
            status, _ = daemon.call("GET", "/v1/token?wait=25")
            error = daemon.profile()["identity"]["last_error"] or ""
            return f"process {holder.pid} holds the session of profile work" in error and (status, error)

        start = time.monotonic()
        until(named, 60, "the holder's name")
        assert time.monotonic() - start < 60
        assert provider.stats()["refresh_token success"] == before, "nothing is redeemed without the lock"
        assert daemon.profile()["identity"]["state"] != "needs-login"
        assert daemon.call("GET", "/healthz")[0] == 200, "the daemon does not wait"
    finally:
        # Without a word: the kernel gives the lock back.
        holder.kill()
        holder.wait()
    until(lambda: daemon.token()[0] == 200, 40, "a token")
    assert "refresh_token invalid_grant" not in provider.stats()


def test_a_daemon_killed_while_it_waits_for_the_provider_frees_the_session(world):
    provider, wandb, daemon, jobs = world
    provider.process.send_signal(signal.SIGSTOP)
    try:
        daemon.start()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            asking = pool.submit(lambda: answers(daemon, 200))
            until(lambda: daemon.redeems(), what="the lock")
            assert daemon.lock().read_text().split()[0] == str(daemon.process.pid)
            daemon.kill()
            asking.result()
    finally:
        provider.process.send_signal(signal.SIGCONT)
    daemon.start()
    until(lambda: daemon.token()[0] in (200, 403), what="an answer")


def test_a_slow_provider_loses_no_session_to_a_stop_or_a_reload(tmp_path):
    provider, wandb = Provider(ID_TTL=600, LATE_MS=2500), Wandb()
    daemon = Daemon(tmp_path, provider.issuer, wandb.url).start()
    config = daemon.home / ".config/wandb-cred/config.toml"
    plain = config.read_text()
    # The profile is another one after the reload, or it is gone and comes back.
    changed = plain.replace("[profile.work]", "[profile.work]\nkeep-warm = true")
    other = f'[profile.other]\nbase-url = "{wandb.url}"\n[profile.other.provider.env]\nvariable = "X"\n'
    try:
        daemon.sign_in()
        for then in [None, changed, other, None]:
            spent = provider.stats().get("refresh_token success", 0)
            with concurrent.futures.ThreadPoolExecutor() as pool:
                asking = pool.submit(ask, daemon, lambda: provider.stats().get("refresh_token success", 0) > spent)
                until(lambda: provider.stats().get("refresh_token success", 0) > spent, 30, "the token to be spent")
                if then is None:
                    daemon.process.send_signal(signal.SIGTERM)
                    daemon.process.wait(30)
                else:
                    config.write_text(then)
                    reloads = daemon.log.read_text().count("configuration reloaded")
                    daemon.process.send_signal(signal.SIGHUP)
                    until(lambda: daemon.log.read_text().count("configuration reloaded") > reloads, what="the reload")
                    config.write_text(plain)
                    daemon.kill(signal.SIGTERM)
                asking.result()
            daemon.start()
        assert daemon.renew()[0] == 200, "still signed in"
        assert "refresh_token invalid_grant" not in provider.stats(), provider.stats()
    finally:
        daemon.kill()
        provider.stop()


def ask(daemon, begun):
    """Forces a renewal, of which the daemon makes one in five seconds. Does not wait for it: a stop would wait for the caller."""
    with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
        end = time.monotonic() + 30
        while not begun() and time.monotonic() < end:
            daemon.call("POST", "/v1/refresh?wait=1")
            time.sleep(0.1)


@contextlib.contextmanager
def mounted(*arguments):
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", arguments[-1]], check=True)


def is_not_redeemed_while(provider, daemon, said):
    """The session's folder takes nothing now."""
    before = provider.stats().get("refresh_token success", 0)
    daemon.start()

    def refused():
        daemon.call("GET", "/v1/token?wait=1")
        error = daemon.profile()["identity"]["last_error"] or ""
        return re.search(said, error) and error

    error = until(refused, 30, "a refusal")
    assert "cannot be saved" in error
    assert daemon.profile()["identity"]["state"] != "needs-login"
    assert provider.stats().get("refresh_token success", 0) == before, "a token was spent whose successor has no place"


def test_nothing_is_redeemed_while_the_session_folder_is_read_only(world):
    provider, wandb, daemon, jobs = world
    sessions = str(daemon.home / ".local/state/wandb-cred/sessions")
    with mounted("--bind", sessions, sessions):
        subprocess.run(["mount", "-o", "remount,ro,bind", sessions], check=True)
        is_not_redeemed_while(provider, daemon, "Read-only file system")
        login = daemon.begin()
        assert login["state"] == "failed" and "cannot be saved" in login["error"], "before a person takes the trouble"
    until(lambda: daemon.renew()[0] == 200, what="a token, now that there is room")
    assert "refresh_token invalid_grant" not in provider.stats()


def test_nothing_is_redeemed_while_the_disk_is_full(world):
    provider, wandb, daemon, jobs = world
    state = daemon.home / ".local/state"
    [session] = state.rglob("*.json")
    name, saved = session.relative_to(state), session.read_bytes()
    with mounted("-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(state)):
        (state / name).parent.mkdir(parents=True, mode=0o700)
        (state / "wandb-cred").chmod(0o700)
        (state / name).touch(mode=0o600)
        (state / name).write_bytes(saved)
        ballast = state / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as full:
            while True:
                full.write(b"x" * 4096)
        is_not_redeemed_while(provider, daemon, "No space left")
        ballast.unlink()
        until(lambda: daemon.renew()[0] == 200, what="a token, now that there is room")
        assert json.loads((state / name).read_text())["refresh_token"] != json.loads(saved)["refresh_token"]
        assert not list((state / name).parent.glob(".writing-*")), "nothing is left beside it"
        daemon.kill()
    assert "refresh_token invalid_grant" not in provider.stats()
