"""Over SSH, against a server of our own on this machine, with keys that live as long as a test."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hwnas.errors import DeviceError, UserInputError
from hwnas.latency.remote.bundle import write_bundle
from hwnas.latency.remote.ssh import Ssh
from hwnas.latency.timing import Protocol
from tests.latency.conftest import QUICK

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
needs_sshd = pytest.mark.skipif(
    SSHD is None or shutil.which("ssh") is None or shutil.which("ssh-keygen") is None,
    reason="no SSH server here (Debian: apt-get install openssh-server)",
)


class Server:
    """An sshd on a free port of 127.0.0.1, for one key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("host", "key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)],
                check=True,
            )
        (folder / "authorized").write_text((folder / "key.pub").read_text())
        (folder / "authorized").chmod(0o600)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        home = folder / "home"
        home.mkdir()
        # What is written there goes below the test's folder: the account's own home stays as it is.
        (folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {folder}/host\n"
            f"AuthorizedKeysFile {folder}/authorized\nPidFile {folder}/pid\nStrictModes no\n"
            "UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            f"PermitRootLogin prohibit-password\nSubsystem sftp internal-sftp -d {home}\n"
            f'ForceCommand cd {home} && case "$SSH_ORIGINAL_COMMAND" in '
            f'*sftp*) exec {self._sftp()} -d {home};; *) eval "$SSH_ORIGINAL_COMMAND";; esac\n'
        )
        (folder / "ssh_config").write_text(
            f"Host *\n  IdentityFile {folder}/key\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {folder}/known\n  StrictHostKeyChecking accept-new\n"
            "  LogLevel ERROR\n"
        )
        self.home = home
        self.process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def _sftp() -> str:
        places = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server")
        return next((each for each in places if Path(each).exists()), "sftp-server")

    def start(self) -> None:
        Path("/run/sshd").mkdir(exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(SSHD), "-D", "-e", "-f", str(self.folder / "sshd_config")],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        pytest.skip(f"sshd does not start: {(self.folder / 'log').read_text()[-300:]}")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(10)

    def connections(self) -> list[int]:
        """Return the processes that serve a connection each."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(each) for each in children.read_text().split()]

    def client(self, **settings) -> Ssh:
        user = pwd.getpwuid(os.getuid()).pw_name
        settings = {"python": sys.executable, "wait_s": 0.2, **settings}
        config = str(self.folder / "ssh_config")
        return Ssh(f"{user}@127.0.0.1:{self.port}", options=("-F", config), **settings)


@pytest.fixture
def server(tmp_path):
    try:
        made = Server(tmp_path)
        made.start()
    except PermissionError as error:
        pytest.skip(f"sshd cannot be started: {error}")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, conv_chain, device):
    path = tmp_path_factory.mktemp("bundle") / "out.zip"
    protocol = Protocol(**{**QUICK.model_dump(), "rounds": 3})
    return write_bundle(
        path, conv_chain, device, networks=8, calibration_networks=3, protocol=protocol
    )


@needs_sshd
def test_a_machine_is_measured_over_ssh_and_nothing_stays_there(server, bundle, device):
    seen = []
    table, notes = server.client().measure(bundle, lambda done, total: seen.append((done, total)))
    assert table.fingerprint == device.fingerprint
    assert len(table.entries) == bundle.kernels
    assert notes == []
    assert seen
    assert list(server.home.iterdir()) == []


@needs_sshd
def test_a_lost_connection_is_made_again_and_goes_on(server, bundle):
    def cut() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            logs = list(server.home.glob("*/progress.jsonl"))
            if logs and logs[0].read_bytes().count(b"\n") > 5:
                before.append(logs[0].read_bytes())
                for each in server.connections():
                    os.kill(each, signal.SIGKILL)
                return
            time.sleep(0.005)

    before: list[bytes] = []
    killer = threading.Thread(target=cut)
    killer.start()
    calls = []
    client = server.client(attempts=20)
    follow = Ssh._follow

    def counted(self, command, progress):
        code, last = follow(self, command, progress)
        calls.append(code)
        return code, last

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ssh, "_follow", counted)
        table, _ = client.measure(bundle)
    killer.join()
    assert before
    assert calls[0] == 255
    assert calls[-1] == 0
    assert len(table.entries) == bundle.kernels


@needs_sshd
def test_what_is_missing_there_is_said(server, bundle, tmp_path):
    with pytest.raises(DeviceError, match="has no no-such-python"):
        server.client(python="no-such-python").measure(bundle)
    blind = tmp_path / "python"
    blind.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    blind.chmod(0o755)
    with pytest.raises(DeviceError, match="cannot import numpy and onnxruntime") as raised:
        server.client(python=str(blind)).measure(bundle)
    assert "pip install" in str(raised.value.hint)
    server.stop()
    with pytest.raises(DeviceError, match="cannot connect"):
        server.client(attempts=2, wait_s=0.01).measure(bundle)


@pytest.mark.parametrize("target", ["-oProxyCommand=x", "a b", "host:0x", "", "-x@host", "h:99999"])
def test_what_is_no_host_is_refused_before_anything_is_called(target, bundle, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("called"))
    with pytest.raises(UserInputError, match="is no host"):
        Ssh(target).measure(bundle)


def test_a_machine_without_ssh_is_told_what_to_do(bundle, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DeviceError, match="no ssh and no scp") as raised:
        Ssh("host").measure(bundle)
    assert "--bundle" in str(raised.value.hint)
