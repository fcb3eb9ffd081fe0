"""Tokens, and what one is told when there is none."""

import json
import os
import pathlib
import pickle
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import is_running

import wandb_cred
from programs import wait_for


def test_a_token_comes_from_the_running_daemon(world, sandbox, here):
    world.configure(sandbox)
    world.serve()
    here()
    first = wandb_cred.token()
    assert first == world.command("token").strip()
    assert (first.profile, first.base_url) == ("work", sandbox.url)
    assert first.expires_in > 3000 and first.expires_at.tzinfo is not None
    assert str(first) not in repr(first) and "work" in repr(first)
    again = pickle.loads(pickle.dumps(first))
    assert (again, again.profile) == (first, "work")
    assert sandbox.exchanges() == 1


def test_a_daemon_is_started_where_none_runs_and_shared_with_the_command(world, sandbox, here):
    world.configure(sandbox)
    here()
    assert wandb_cred.token() == world.command("token").strip() == wandb_cred.token("work", min_ttl=60)
    assert sandbox.exchanges() == 1


def test_threads_and_forked_processes_share_one_exchange(world, sandbox, here):
    world.configure(sandbox)
    here()
    with ThreadPoolExecutor(16) as pool:
        tokens = set(pool.map(lambda _: wandb_cred.token(), range(64)))
    forked = world.python(
        """
        import multiprocessing, wandb_cred
        mine = wandb_cred.token()
        with multiprocessing.get_context("fork").Pool(4) as pool:
            assert set(pool.map(wandb_cred.token, ["work"] * 16)) == {mine}
        print(mine)
        """
    )
    assert {forked} == tokens
    assert sandbox.exchanges() == 1


def test_a_running_event_loop_does_not_matter(world, sandbox):
    world.configure(sandbox)
    world.python(
        """
        import asyncio, wandb_cred
        async def main():
            inside = wandb_cred.token()
            others = await asyncio.gather(*(asyncio.to_thread(wandb_cred.token) for _ in range(8)))
            assert set(others) == {inside}
            with wandb_cred.session():
                await asyncio.sleep(0)
        asyncio.run(main())
        """
    )


def test_a_wrong_profile_is_told_in_the_daemons_words(world, sandbox, here):
    world.configure(sandbox)
    world.serve()
    here()
    with pytest.raises(wandb_cred.Error) as caught:
        wandb_cred.token("wrok")
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.type, error.title) == ("no-such-profile", "There is no such profile")
    assert "wrok" in error.detail and "WANDB_CRED_PROFILE=work" in error.next
    assert str(error) == f"{error.detail}\n  next: {error.next}"


def test_without_any_configuration_the_error_says_what_to_do(world, here):
    here()
    with pytest.raises(wandb_cred.Error) as caught:
        wandb_cred.token()
    assert caught.value.reason["code"] == "no-source"
    assert caught.value.next


def test_a_mistake_in_the_configuration_is_told_in_the_daemons_words(world, sandbox, here):
    world.configure(sandbox, extra="colour = 'blue'\n")
    here()
    with pytest.raises(wandb_cred.Error, match="colour") as caught:
        wandb_cred.token()
    assert (caught.value.type, caught.value.next) == ("misconfigured", "wandb-cred check")


def test_a_daemon_that_cannot_be_started_is_told_in_the_commands_words(world, sandbox, here):
    world.configure(sandbox)
    world.variables["WANDB_CREDD"] = "/nonexistent/wandb-credd"
    here()
    with pytest.raises(wandb_cred.Error, match="cannot run /nonexistent/wandb-credd") as caught:
        wandb_cred.token()
    assert caught.value.type == "no-daemon" and "WANDB_CREDD" in caught.value.next


def test_without_the_command_the_error_says_so(world, here, monkeypatch):
    here()
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(wandb_cred.Error) as caught:
        wandb_cred.token()
    assert (caught.value.type, "neither beside this Python nor in PATH" in str(caught.value)) == ("no-daemon", True)


def test_too_long_a_life_is_refused_with_what_there_is(world, sandbox, here):
    world.configure(sandbox)
    here()
    with pytest.raises(wandb_cred.Error) as caught:
        wandb_cred.token(min_ttl=10**7, wait=2)
    assert caught.value.type == "lifetime-too-short"


def test_a_daemon_that_is_killed_midway_is_followed_by_another(world, sandbox, here):
    world.configure(sandbox)
    here()
    with wandb_cred.session():
        first = wandb_cred.token()
        daemon = json.loads(world.command("status", "--json"))["pid"]
        os.kill(daemon, signal.SIGKILL)
        wait_for("end of the daemon", lambda: not is_running(daemon))
        assert wandb_cred.token() == first, "the next one takes the session's token over"
        [job] = json.loads(world.command("status", "--json", "--jobs"))["job_list"]
        assert job["pid"] == os.getpid(), "and the session"
        assert str(first) in pathlib.Path(os.environ["WANDB_CREDENTIALS_FILE"]).read_text()
    assert sandbox.exchanges() == 1


def test_variables_that_a_job_of_the_past_has_left_say_nothing(world, sandbox, here):
    world.configure(sandbox)
    gone = world.folder / "gone/profiles/old"
    world.variables.update(
        WANDB_IDENTITY_TOKEN_FILE=f"{gone}/identity-token",
        WANDB_CREDENTIALS_FILE=f"{gone}/credentials.json",
        WANDB_CRED_PROFILE="old",
        WANDB_CRED_SOCKET=str(world.folder / "gone/s"),
    )
    here()
    assert wandb_cred.token().profile == "work"
    assert wandb_cred.token() == world.command("token").strip()
    with wandb_cred.session() as session:
        assert session.profile == "work"
    assert sandbox.exchanges() == 1


def test_a_socket_in_a_folder_that_others_can_reach_is_passed_over_as_the_command_does(world, sandbox, here, capsys):
    world.configure(sandbox)
    world.serve()
    (world.folder / "wandb-cred").chmod(0o755)
    here()
    token = wandb_cred.token()
    assert "chmod 700" in capsys.readouterr().err, "what the command says is passed on"
    assert token == world.command("token").strip()
    assert f"{world.folder}/wandb-cred/" not in world.command("status", "--json")


def test_two_profiles_have_two_tokens(world, start_sandbox, here):
    one, two = start_sandbox(), start_sandbox()
    world.configure(one, "one")
    world.configure(two, "two")
    world.serve()
    here()
    first, second = wandb_cred.token("one"), wandb_cred.token("two")
    assert first != second and (first.base_url, second.base_url) == (one.url, two.url)


def test_the_identity_token_comes_only_where_the_profile_allows_it(world, sandbox, here):
    world.configure(sandbox, "work")
    world.configure(sandbox, "open", extra="serve-identity-token = true\n")
    world.serve()
    here()
    jwt = wandb_cred.identity_hook("open")
    assert jwt.count(".") == 2 and jwt not in repr(jwt)
    with pytest.raises(wandb_cred.Error, match="serve-identity-token = true"):
        wandb_cred.identity_hook()


def test_a_daemon_that_does_not_answer_is_given_up(world, here, monkeypatch):
    (world.folder / "wandb-cred").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(world.folder / "wandb-cred/wandb-cred.sock"))
        listener.listen()
        here()
        with pytest.raises(wandb_cred.Error) as caught:
            wandb_cred.token(wait=-4)
    assert (caught.value.type, caught.value.next) == ("no-answer", "wandb-cred service status")


@pytest.mark.parametrize(
    "answer, said",
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not a wandb-credd of this version"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "not a wandb-credd of this version"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n{}", "not a wandb-credd of this version"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "no 'access_token'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}", "broke off after 41 bytes of its answer"),
    ],
    ids=["ssh", "list", "huge", "empty", "cut"],
)
def test_what_is_no_answer_of_a_daemon_is_told_apart(answer, said, world, here):
    (world.folder / "wandb-cred").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(world.folder / "wandb-cred/wandb-cred.sock"))
        listener.listen()

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        here()
        with pytest.raises(wandb_cred.Error, match=said):
            wandb_cred.token()
        thread.join()


def test_a_token_is_there_in_time(world, sandbox):
    """25 ms as a process of its own, on a machine that is as fast as ours; what is held to here is the share of Python itself."""
    world.configure(sandbox)
    world.serve()
    world.python("import wandb_cred; wandb_cred.token()")

    def cpu(code):
        import resource

        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], env=world.variables, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    own = min(cpu("import wandb_cred; wandb_cred.token()") for _ in range(10))
    bare = min(cpu("pass") for _ in range(10))
    assert own < 3 * bare, f"{own * 1000:.1f} ms of processor time, {bare * 1000:.1f} ms of them for Python itself"
