"""paramiko over a socket of the tunnel: what takes a socket takes ours."""

from __future__ import annotations

import threading

import paramiko
import pytest

import wgpy
import wgpy.sync
from wgpy.adapters.thread import TunnelThread


class Door(paramiko.ServerInterface):
    def __init__(self) -> None:
        self.asked = threading.Event()

    def check_auth_password(self, username: str, password: str) -> int:
        return paramiko.AUTH_SUCCESSFUL if (username, password) == ("me", "secret") else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.asked.set()
        return True


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # paramiko's own
def test_a_command_over_ssh(far: tuple[wgpy.InterfaceConfig, TunnelThread]) -> None:
    config, thread = far
    listener = thread.submit(thread.listen, 22, None).result()

    def serve() -> None:
        connection, _ = thread.submit(listener.accept).result()
        server = paramiko.Transport(connection)
        server.add_server_key(paramiko.ECDSAKey.generate())
        door = Door()
        server.start_server(server=door)
        channel = server.accept(30)
        assert channel
        door.asked.wait(30)
        channel.sendall(bytes(500_000))
        channel.send_exit_status(7)
        channel.close()

    far_side = threading.Thread(target=serve)
    far_side.start()
    with wgpy.sync.open_tunnel(config) as tunnel, paramiko.SSHClient() as client:
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect(
            "office.test",
            username="me",
            password="secret",
            sock=tunnel.create_connection(("office.test", 22), timeout=30),
            look_for_keys=False,
            allow_agent=False,
        )
        _, output, _ = client.exec_command("anything")
        assert output.read() == bytes(500_000)
        assert output.channel.recv_exit_status() == 7
        far_side.join()
