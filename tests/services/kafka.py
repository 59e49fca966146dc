"""A real Apache Kafka broker (KRaft, one node) from the jars that Apache publishes to Maven."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.services.process import ServerProcess, free_port

KAFKA_VERSION = "4.3.1"
_LOG4J_VERSION = "2.25.1"
_ROOT = Path(__file__).parents[2]
LIBS = _ROOT / "build" / "kafka-libs"
_INSTALL = "apt-get install openjdk-17-jre-headless maven"
# base64url of 16 bytes; must not begin with "-", which the tool reads as an option.
_CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qg"
# The published POM leaves log4j out; slf4j is 1.7, so the slf4j2 binding would be wrong.
_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion><groupId>t</groupId><artifactId>t</artifactId><version>1</version>
<dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
<version>{KAFKA_VERSION}</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId>
<version>{_LOG4J_VERSION}</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId>
<version>{_LOG4J_VERSION}</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-1.2-api</artifactId>
<version>{_LOG4J_VERSION}</version></dependency>
</dependencies></project>
"""
_LOG4J = """rootLogger.level = WARN
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %m (%c)%n
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = INFO
"""
_READY = "Kafka Server started"
# One node, small and quick; sources of the values: docs/design.md, "Tests".
_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "auto.create.topics.enable": "false",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "log.cleaner.dedupe.buffer.size": "4194304",
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "300",
    "controlled.shutdown.enable": "false",
}


class KafkaServer:
    """One broker on the loopback interface.

    Parameters
    ----------
    port
        Of the clients' listener; a free one by default.
    directory
        Kept data; by default a temporary directory that `stop` and `kill` leave and `close`
        removes.
    properties
        Broker properties that win over the defaults.
    long_running
        Lets the JVM compile fully: slower to start, right for benchmarks.
    """

    def __init__(
        self,
        port: int | None = None,
        directory: Path | None = None,
        properties: Mapping[str, str] | None = None,
        *,
        long_running: bool = False,
    ) -> None:
        self._temporary = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="kafka-"))
        self.port = port or free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self._properties = {
            **_PROPERTIES,
            **_addresses(self.port, free_port()),
            "log.dirs": str(self.directory / "data"),
            **(properties or {}),
        }
        self._libs = fetch_jars()
        self._archive = self._libs / ("long.jsa" if long_running else "quick.jsa")
        self._long_running = long_running
        self._recorded: Path | None = None
        self._process: ServerProcess | None = None

    @property
    def running(self) -> bool:
        """Return whether the broker's process lives."""
        return self._process is not None and self._process.running

    @property
    def pid(self) -> int:
        """Return the process id of the broker, which was started."""
        assert self._process is not None, "started"
        return self._process.pid

    def start(self) -> KafkaServer:
        """Start the broker on its data and wait until it answers (0.7 to 1.6 s); return itself."""
        config = self._write_config()
        if not (self.directory / "data" / "meta.properties").exists():
            self._format(config)
        command = [*self._java(*self._recording()), "kafka.Kafka", str(config)]
        self._process = ServerProcess("kafka", command, self.directory / "server.log")
        self._process.start(lambda output: _READY in output)
        return self

    def stop(self) -> None:
        """Stop in order (SIGTERM), keep the data."""
        if self._process is not None:
            self._process.stop()
        if self._recorded is not None and self._recorded.exists():
            _publish(self._recorded, self._archive)

    def kill(self) -> None:
        """Stop as ``kill -9`` does, keep the data."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        """Start again on the same port and data; the broker waits for its old session (2-3 s)."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Make the broker silent without closing connections, until `thaw`."""
        assert self._process is not None
        self._process.freeze()

    def thaw(self) -> None:
        """End `freeze`."""
        assert self._process is not None
        self._process.thaw()

    def close(self) -> None:
        """End the broker for good and remove a temporary directory."""
        self.kill() if self._recorded is None else self.stop()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> KafkaServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write_config(self) -> Path:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "log4j2.properties").write_text(_LOG4J)
        config = self.directory / "server.properties"
        lines = [f"{name}={value}\n" for name, value in self._properties.items()]
        config.write_text("".join(lines))
        return config

    def _format(self, config: Path) -> None:
        arguments = ["kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", str(config)]
        done = subprocess.run(
            [*self._java(), *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"kafka storage was not formatted:\n{done.stdout}{done.stderr}")

    def _java(self, *options: str) -> list[str]:
        """Return the command of a JVM with the jars; sorted, for the archive fixes their order."""
        jars = ":".join(str(jar) for jar in sorted(self._libs.glob("*.jar")))
        quick = [] if self._long_running else ["-XX:TieredStopAtLevel=1"]
        heap = ["-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:-UsePerfData", *quick]
        log4j = f"-Dlog4j.configurationFile={self.directory / 'log4j2.properties'}"
        shared = [f"-XX:SharedArchiveFile={self._archive}"] if self._archive.exists() else []
        return [_tool("java"), *heap, log4j, *shared, *options, "-cp", jars]

    def _recording(self) -> list[str]:
        """Return the option that writes a class-data archive when this broker stops, if none is.

        The archive (47 MB) brings every later start from 1.6 s to 0.7 s.
        """
        if self._archive.exists():
            return []
        self._recorded = self.directory / "classes.jsa"
        return [f"-XX:ArchiveClassesAtExit={self._recorded}"]


def fetch_jars() -> Path:
    """Return the directory of the broker's jars; Maven fetches them once (47 jars, 44 MB, 5 s).

    Raises
    ------
    RuntimeError
        Java or Maven is missing; the message names the command that installs them.
    """
    _tool("java")
    if LIBS.exists():
        return LIBS
    LIBS.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=LIBS.parent, prefix="kafka-jars-") as work:
        (Path(work) / "pom.xml").write_text(_POM)
        command = [_tool("mvn"), "-q", "-B", "dependency:copy-dependencies"]
        command += ["-DincludeScope=runtime", "-DoutputDirectory=libs"]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(
                f"maven could not fetch kafka {KAFKA_VERSION}:\n{done.stdout[-2_000:]}"
            )
        _publish(Path(work) / "libs", LIBS)
    return LIBS


def _publish(made: Path, place: Path) -> None:
    """Move ``made`` to its place in one step; another process that was faster wins."""
    if made.is_dir():
        try:
            made.rename(place)
        except OSError:
            if not place.exists():
                raise
        return
    beside = place.with_name(f"{place.name}.{os.getpid()}")
    shutil.move(made, beside)
    beside.rename(place)


def _tool(name: str) -> str:
    """Return the path of a program that must be there."""
    path = shutil.which(name)
    if path is None:
        raise RuntimeError(f"{name} is missing, which the tests' Kafka needs: {_INSTALL}")
    return path


def _addresses(port: int, controller_port: int) -> dict[str, str]:
    clients, controller = f"PLAINTEXT://127.0.0.1:{port}", f"127.0.0.1:{controller_port}"
    return {
        "listeners": f"{clients},CONTROLLER://{controller}",
        "advertised.listeners": clients,
        "controller.quorum.voters": f"1@{controller}",
    }
