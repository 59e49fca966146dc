"""The compose file and the Dockerfile: what can be held to without containers is run here."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from string import Template
from typing import Any

import pytest
import redis
import typer
import yaml
from confluent_kafka.admin import AdminClient

import producers.cli
import worker.cli
from tests.services.kafka import KAFKA_VERSION, KafkaServer
from tests.services.process import free_port
from tests.services.valkey import ValkeyServer
from worker.config import load_settings
from worker.contracts.settings import KafkaSettings, RunnerSettings
from worker.errors import ConfigError
from worker.stopping import STOP_S

ROOT = Path(__file__).parent.parent
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
DOCKERFILE = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
OURS = [name for name, service in SERVICES.items() if "build" in service]
STAYING = [name for name, s in SERVICES.items() if s.get("restart") == "unless-stopped"]
APPS = {"riverwatch": worker.cli.app, "riverwatch-produce": producers.cli.app}
SECRET = re.compile(r"password|passwd|secret|token|credential|api_key", re.IGNORECASE)


def parse(entrypoint: str, args: list[str]) -> dict[str, Any]:
    """Return the parameters that a command line has for the real command, without running it."""
    group: Any = typer.main.get_command(APPS[entrypoint])
    return group.commands[args[0]].make_context(args[0], args[1:]).params


def entrypoint_of(service: dict[str, Any]) -> str:
    return service["entrypoint"][0] if "entrypoint" in service else instruction("ENTRYPOINT")


def instruction(name: str) -> str:
    """Return the words of an instruction of the Dockerfile's last stage, of a list the first."""
    last = DOCKERFILE.rsplit("\nFROM ", 1)[1]
    words = re.findall(rf"^{name} (.*)$", last, re.MULTILINE)[-1]
    return yaml.safe_load(words)[0] if words.startswith("[") else words


def address_file() -> str:
    """Return the configuration that the image's build makes, by its own sed expressions."""
    command = re.search(r"^RUN (sed .*) > cards.yaml$", DOCKERFILE, re.MULTILINE)
    assert command is not None
    done = subprocess.run(
        shlex.split(command[1]), cwd=ROOT, check=True, capture_output=True, text=True
    )
    return done.stdout


def test_every_own_command_line_is_accepted_by_the_real_parser() -> None:
    """The commands in the compose file have the options that the commands really have."""
    parsed = {
        name: parse(entrypoint_of(SERVICES[name]), SERVICES[name]["command"]) for name in OURS
    }
    assert parsed["worker"]["slot"] == "0"
    assert parsed["topics"]["create"] is True
    assert parsed["player"]["labels_topic"] == "labels"


@pytest.mark.parametrize("extra", [["--slots", "1"], ["stray"], ["--log-level"]])
def test_a_wrong_command_line_is_refused_by_the_parser(extra: list[str]) -> None:
    """The check above can fail: an unknown option, a stray word and a missing value are refused."""
    with pytest.raises(Exception, match=r"(?i)no such option|unexpected extra|requires an arg"):
        parse("riverwatch", [*SERVICES["worker"]["command"], *extra])


def test_images_are_pinned_by_a_version_tag() -> None:
    """Foreign images and base images name a version, never latest or nothing."""
    foreign = [s["image"] for name, s in SERVICES.items() if name not in OURS]
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(foreign) == 2
    assert len(bases) == 2
    for image in (*foreign, *bases):
        assert re.fullmatch(r"[a-z/]+:\d+\.\d+[\w.-]*", image), image


def test_the_kafka_image_is_of_the_version_that_the_tests_run() -> None:
    """The broker is the tests' Kafka, one node that is broker and controller."""
    kafka = SERVICES["kafka"]
    assert kafka["image"] == f"apache/kafka:{KAFKA_VERSION}"
    assert kafka["environment"]["KAFKA_PROCESS_ROLES"] == "broker,controller"
    assert kafka["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_every_service_that_stays_has_a_health_check() -> None:
    """Servers and the worker say whether they are well."""
    assert set(STAYING) == {"kafka", "valkey", "worker"}
    for name in STAYING:
        assert SERVICES[name]["healthcheck"]["test"], name


def test_dependencies_wait_for_what_their_target_can_say() -> None:
    """Healthy is asked of services with a health check, completion of those that end."""
    for name, service in SERVICES.items():
        for target, how in service.get("depends_on", {}).items():
            stays = target in STAYING
            condition = "service_healthy" if stays else "service_completed_successfully"
            assert how["condition"] == condition, (name, target)


def test_the_worker_starts_after_servers_and_topics() -> None:
    """Nothing runs against a broker that is not there or topics that are not made."""
    assert set(SERVICES["worker"]["depends_on"]) == {"kafka", "valkey", "topics"}
    assert "worker" in SERVICES["player"]["depends_on"]
    assert SERVICES["player"]["profiles"] == ["play"]


def test_no_service_holds_a_secret() -> None:
    """The compose file is public: no environment variable or argument is a secret."""
    for name, service in SERVICES.items():
        assert not SECRET.search(yaml.safe_dump(service)), name


def test_the_image_runs_as_another_user_than_root() -> None:
    """The last USER of the last stage is a number that is not 0, set before the entry point."""
    assert int(instruction("USER")) > 0
    assert DOCKERFILE.rindex("\nUSER ") < DOCKERFILE.index("\nENTRYPOINT ")


def test_the_image_keeps_compiled_kernels_where_its_user_may_write() -> None:
    """NUMBA_CACHE_DIR is made for the user, and the build fills it before the first start."""
    assert "NUMBA_CACHE_DIR=/var/cache/riverwatch" in DOCKERFILE
    assert re.search(r'install -d -o riverwatch "\$NUMBA_CACHE_DIR"', DOCKERFILE)
    assert DOCKERFILE.rindex("RUN riverwatch demo") > DOCKERFILE.rindex("\nUSER ")


def test_the_build_context_holds_everything_that_is_copied() -> None:
    """Each COPY from the context is let through by .dockerignore, which excludes all else."""
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignore if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    assert "*" in ignore
    assert sources == allowed
    assert all((ROOT / source).exists() for source in sources)


def test_the_image_configuration_is_the_example_with_the_services_addresses() -> None:
    """With the compose file's environment the worker finds the broker's listener and Valkey."""
    environment = SERVICES["worker"]["environment"]
    built = yaml.safe_load(address_file())
    for section, key in (("stream", "bootstrap_servers"), ("store", "url")):
        built[section][key] = Template(built[section][key]).substitute(environment)
    example = yaml.safe_load((ROOT / "examples/cards/cards.yaml").read_text())
    broker = SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert f"INSIDE://{built['stream']['bootstrap_servers']}" in broker.split(",")
    assert built["store"]["url"] == "redis://valkey:6379/0"
    example["stream"]["bootstrap_servers"] = built["stream"]["bootstrap_servers"]
    example["store"]["url"] = built["store"]["url"]
    assert built == example


def test_the_image_configuration_is_read_by_the_real_loader(tmp_path: Path) -> None:
    """The worker's environment is all that the image's configuration asks for."""
    path = tmp_path / "cards.yaml"
    path.write_text(address_file())
    environment = SERVICES["worker"]["environment"]
    settings = load_settings(path, environment, checks=())
    assert isinstance(settings.stream, KafkaSettings)
    assert settings.stream.bootstrap_servers == environment["KAFKA_BOOTSTRAP"]
    with pytest.raises(ConfigError, match="REDIS_URL"):
        load_settings(path, {"KAFKA_BOOTSTRAP": "kafka:19092"}, checks=())


def test_the_player_writes_the_topics_that_the_worker_reads() -> None:
    """Player and worker agree on broker and topics."""
    settings = yaml.safe_load(address_file())
    player = parse("riverwatch-produce", SERVICES["player"]["command"])
    assert player["topic"] == settings["events"]["topic"]
    assert player["labels_topic"] == settings["labels"]["topic"]
    reached = SERVICES["player"]["environment"]["RIVERWATCH_BOOTSTRAP"]
    assert reached == SERVICES["worker"]["environment"]["KAFKA_BOOTSTRAP"]


def test_ports_and_probes_are_those_of_the_settings() -> None:
    """The default metrics port is the one that is exposed, published and probed."""
    port = RunnerSettings().metrics_port
    assert instruction("EXPOSE") == str(port)
    assert SERVICES["worker"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"http://127.0.0.1:{port}/healthz" in DOCKERFILE
    assert f"http://127.0.0.1:{port}/readyz" in SERVICES["worker"]["healthcheck"]["test"][-1]


def test_the_worker_may_take_its_time_to_stop() -> None:
    """Docker kills a worker later than it leaves by itself."""
    grace_s = int(SERVICES["worker"]["stop_grace_period"].removesuffix("s"))
    assert grace_s > STOP_S + 1


@pytest.mark.parametrize(("ready", "code"), [(True, 0), (False, 1)])
def test_the_readiness_probe_fails_until_the_worker_is_ready(ready: bool, code: int) -> None:
    """The worker's health check, run as written against a real server, tells the two apart."""
    from worker.telemetry import HealthServer, Telemetry

    telemetry = Telemetry(lambda: 0.0)
    telemetry.ready = ready
    server = HealthServer(telemetry, 0, "127.0.0.1")
    try:
        probe = SERVICES["worker"]["healthcheck"]["test"][-1].replace("9464", str(server.port))
        done = subprocess.run([sys.executable, "-c", probe], capture_output=True, check=False)
    finally:
        server.close()
    assert done.returncode == code


def test_the_image_probe_succeeds_while_the_worker_lives() -> None:
    """The Dockerfile's health check, run as written, asks for life and not for readiness."""
    from worker.telemetry import HealthServer, Telemetry

    server = HealthServer(Telemetry(lambda: 0.0), 0, "127.0.0.1")
    check = re.search(r"^HEALTHCHECK .*CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert check is not None
    probe = yaml.safe_load(check[1])[-1]
    try:
        probe = probe.replace("9464", str(server.port))
        done = subprocess.run([sys.executable, "-c", probe], capture_output=True, check=False)
    finally:
        server.close()
    assert done.returncode == 0


@pytest.mark.redis
def test_valkey_runs_with_the_flags_of_the_compose_file() -> None:
    """The real server accepts the flags, never evicts and logs every write to a file."""
    name, *options = SERVICES["valkey"]["command"]
    assert name == "valkey-server"
    with (
        ValkeyServer(persistent=False, options=options) as server,
        redis.Redis.from_url(server.url, decode_responses=True) as client,
    ):
        found = client.config_get("maxmemory-policy", "appendonly", "maxmemory")
    assert found == {
        "maxmemory-policy": "noeviction",
        "appendonly": "yes",
        "maxmemory": str(2**30),
    }


@pytest.mark.kafka
def test_the_broker_runs_with_the_variables_of_the_compose_file() -> None:
    """The real broker takes the properties, and each listener sends its clients to itself."""
    ports = {port: str(free_port()) for port in ("19092", "9092", "9093")}
    properties = broker_properties(ports)
    inside, outside = f"127.0.0.1:{ports['19092']}", f"127.0.0.1:{ports['9092']}"
    assert properties["advertised.listeners"] == f"INSIDE://{inside},OUTSIDE://{outside}"
    with KafkaServer(properties=properties):
        for address in (inside, outside):
            client = AdminClient({"bootstrap.servers": address})
            brokers = client.list_topics(timeout=10).brokers.values()
            assert [f"{broker.host}:{broker.port}" for broker in brokers] == [address]


def broker_properties(ports: dict[str, str]) -> dict[str, str]:
    """Return what the image makes of its environment, at other ports of the loopback interface."""
    found = {}
    for name, value in SERVICES["kafka"]["environment"].items():
        here = re.sub(r"(//|@)(kafka|localhost)?:(\d+)",
                      lambda part: f"{part[1]}127.0.0.1:{ports[part[3]]}", value)  # fmt: skip
        found[name.removeprefix("KAFKA_").lower().replace("_", ".")] = here
    del found["log.dirs"]
    return found
