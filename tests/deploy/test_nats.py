"""nats-server itself reads every configuration file of deploy/nats."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from atto.broker.binary import find_server
from tests.deploy.files import DEPLOY, K8S, NATS, variables_of
from tests.permissions.certificates import Authority
from tests.permissions.keys import Key

FILES = sorted(file.name for file in NATS.glob("*.conf"))
# To be included: by themselves they set what nothing uses, and the server refuses that.
PARTS = {"permissions.conf", "exports.conf"}
WHOLE = [name for name in FILES if name not in PARTS]
ROUTES = '["nats://route:route@nats-1:6222", "nats://route:route@nats-2:6222"]'


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    authority = Authority(tmp_path)
    signed = authority.sign("server")
    given = {
        "HOSTNAME": "nats-1",
        "NATS_ROUTES": ROUTES,
        "ATTO_TLS_CERT": str(signed.certificate),
        "ATTO_TLS_KEY": str(signed.key),
        "ATTO_TLS_CA": str(authority.ca),
    }
    for name in FILES:
        for variable in variables_of((NATS / name).read_text()) - given.keys():
            assert variable.endswith(("_PASSWORD", "_NKEY")), f"{name}: what is ${variable}?"
            given[variable] = Key("user").public if variable.endswith("_NKEY") else "secret"
    return given


def checked(path: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What `nats-server -t` says."""
    return subprocess.run(
        [find_server(), "-t", "--config", path],
        env={"PATH": os.defpath, **environment},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize("name", WHOLE)
def test_the_server_takes_it(name: str, environment: dict[str, str]):
    done = checked(NATS / name, environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", WHOLE)
def test_it_does_not_start_without_its_secrets(name: str, environment: dict[str, str]):
    for variable in variables_of((NATS / name).read_text()):
        done = checked(NATS / name, {key: value for key, value in environment.items() if key != variable})
        assert done.returncode != 0, f"{name} is content without ${variable}"


def test_deployments_serve_callers_from_accounts_of_their_own():
    """Within one account a reply subject of a caller is written to, wherever it leads."""
    shipped = [*DEPLOY.glob("compose*.yaml"), *K8S.rglob("*.yaml"), NATS / "cluster.conf"]
    shipped += [NATS / "kustomization.yaml"]
    assert [path.name for path in shipped if "users.conf" in path.read_text()] == ["scaledobject.yaml"]
    assert "/etc/atto/tenant.conf" in (DEPLOY / "compose.single.yaml").read_text()
    assert "UNSAFE BETWEEN TENANTS" in (NATS / "users.conf").read_text()


def test_a_cluster_keeps_its_data_and_shuts_out_strangers():
    text = (NATS / "cluster.conf").read_text()
    assert text.index("include tenant.conf") < text.index("\njetstream {"), "the include would take it back"
    assert re.search(r'store_dir: "/data"', text)
    assert re.search(
        r"cluster \{.*authorization \{ user: route, password: \$NATS_ROUTE_PASSWORD", text, re.DOTALL
    )
