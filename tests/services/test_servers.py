"""The servers that other tests rely on do what they say."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from redis import Redis

from tests.services.kafka import KafkaServer, fetch_jars
from tests.services.process import free_port
from tests.services.valkey import ValkeyServer


@pytest.mark.redis
def test_valkey_keeps_its_data_over_a_kill_unless_it_starts_empty() -> None:
    """What was answered is there after kill -9; an empty restart has nothing."""
    with ValkeyServer() as server, Redis.from_url(server.url) as client:
        client.set("a", "1")
        server.kill()
        server.start()
        assert client.get("a") == b"1"
        server.restart(empty=True)
        assert client.get("a") is None


@pytest.mark.kafka
def test_kafka_keeps_its_topics_over_a_kill() -> None:
    """The broker comes back on its port with its data."""
    with KafkaServer() as server:
        admin = KafkaAdminClient(bootstrap_servers=server.bootstrap)
        admin.create_topics({"kept": {"num_partitions": 3}}, wait_for_metadata=True)
        admin.close()
        server.kill()
        server.start()
        admin = KafkaAdminClient(bootstrap_servers=server.bootstrap)
        assert len(admin.describe_topics(["kept"])[0]["partitions"]) == 3
        admin.close()


def test_missing_java_fails_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The tests of the broker are never skipped in silence."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="apt-get install openjdk-17-jre-headless maven"):
        fetch_jars()


@pytest.mark.redis
def test_a_server_in_the_foreground_says_its_address_and_ends_on_ctrl_c() -> None:
    """What the README offers to people without Docker."""
    port = free_port()
    command = [sys.executable, "-m", "tests.services", "valkey", "--port", str(port)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert f"redis://127.0.0.1:{port}" in child.stdout.readline()
        with Redis(port=port) as client:
            assert client.ping()
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 0
