"""The compose files: what they name exists, and what they say of themselves holds."""

import re
from typing import Any

import pytest
import yaml

from tests.deploy.files import (
    APP,
    DEPLOY,
    NATS,
    declare_variables,
    login_of,
    program_variables,
    seconds,
    variables_of,
    worker_variables,
)

FILES = ["compose.yaml", "compose.single.yaml"]


def read(name: str) -> dict[str, Any]:
    """With the defaults of its variables."""
    text = (DEPLOY / name).read_text()
    assert re.findall(r"\$\{\w+\}", text) == [], "`up` must work without any setting"
    return yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))


@pytest.fixture(params=FILES)
def project(request: pytest.FixtureRequest) -> dict[str, Any]:
    return read(request.param)


@pytest.fixture
def services(project: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return project["services"]


def test_the_projects_do_not_meet():
    assert len({read(name)["name"] for name in FILES}) == len(FILES)


def test_services_depend_on_services_that_can_be_what_is_asked_for(services: dict[str, dict[str, Any]]):
    for name, service in services.items():
        needed = service.get("depends_on", {})
        for other in needed:
            assert other in services, f"{name} needs {other}"
            condition = needed[other]["condition"] if isinstance(needed, dict) else "service_started"
            if condition == "service_healthy":
                assert "test" in services[other]["healthcheck"]
            if condition == "service_completed_successfully":
                assert services[other].get("restart", "no") == "no"


def test_files_and_volumes_are_there(project: dict[str, Any]):
    for service in project["services"].values():
        if "build" in service:
            context = (DEPLOY / service["build"]["context"]).resolve()
            assert (context / service["build"]["dockerfile"]).is_file()
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert (DEPLOY / source).is_dir() if source.startswith(".") else source in project["volumes"]


def test_one_service_builds_the_image_that_all_of_them_run(services: dict[str, dict[str, Any]]):
    own = {name for name in services if name in {"declare", "worker", "producer"}}
    assert own == {"declare", "worker", "producer"}
    assert {services[name]["image"] for name in own} == {"atto:dev"}
    assert [name for name, service in services.items() if "build" in service] == ["declare"]


def test_nothing_is_published_beyond_this_machine(services: dict[str, dict[str, Any]]):
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_containers_can_do_no_more_than_they_must(services: dict[str, dict[str, Any]]):
    for name, service in services.items():
        if name != "postgres":
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]


def test_a_worker_is_given_more_time_to_stop_than_its_turns(services: dict[str, dict[str, Any]]):
    worker = services["worker"]
    assert seconds(worker["stop_grace_period"]) >= float(worker["environment"]["ATTO_GRACE"]) + 10


@pytest.mark.parametrize(
    ("service", "role"), [("declare", "admin"), ("worker", "worker"), ("producer", "client")]
)
def test_each_logs_in_as_its_role(services: dict[str, dict[str, Any]], service: str, role: str):
    environment = services[service]["environment"]
    assert environment["ATTO_USER"] == f"atto-{role}"
    assert environment["ATTO_INBOX_PREFIX"] == login_of(f"atto-{role}")
    known = [
        node["environment"] for node in services.values() if "ATTO_ADMIN_PASSWORD" in node["environment"]
    ]
    assert {node[f"ATTO_{role.upper()}_PASSWORD"] for node in known} == {environment["ATTO_PASSWORD"]}


def test_variables_are_those_that_somebody_reads(services: dict[str, dict[str, Any]]):
    [_, program] = services["producer"]["entrypoint"]
    assert (APP / program).is_file()
    assert services["producer"]["environment"].keys() <= program_variables(program)
    assert services["declare"]["environment"].keys() <= declare_variables()
    assert services["worker"]["environment"].keys() <= worker_variables()


def test_brokers_are_given_what_their_configuration_asks_for(services: dict[str, dict[str, Any]]):
    brokers = [service for name, service in services.items() if name.startswith("nats")]
    for broker in brokers:
        option, path, *_ = broker["command"]
        assert option == "--config"
        wanted = variables_of((NATS / path.removeprefix("/etc/atto/")).read_text())
        given = {*broker["environment"], *({"HOSTNAME"} if "hostname" in broker else ())}
        assert wanted == given
    assert len(brokers) in {1, 3}


def test_a_cluster_knows_all_of_its_nodes():
    services = read("compose.yaml")["services"]
    nodes = [name for name in services if name.startswith("nats")]
    for name in nodes:
        routes = yaml.safe_load(services[name]["environment"]["NATS_ROUTES"])
        password = services[name]["environment"]["NATS_ROUTE_PASSWORD"]
        assert routes == [f"nats://route:{password}@{node}:6222" for node in nodes]
        assert services[name]["hostname"] == name
        assert services[name]["networks"]["default"]["aliases"] == ["nats"]
    assert services["declare"]["environment"]["ATTO_REPLICAS"] == str(len(nodes))
