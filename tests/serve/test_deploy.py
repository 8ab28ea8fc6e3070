"""The files for operators: rules and dashboard speak of metrics that exist, manifests of flags that do."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from hangtag.endpoint.telemetry import Telemetry
from serve import server

ROOT = Path(__file__).resolve().parents[2]
MONITORING, DEPLOY = ROOT / "serve" / "monitoring", ROOT / "serve" / "deploy"


def metric_names() -> set[str]:
    registry = CollectorRegistry()
    Telemetry(registry)
    names: set[str] = set()
    for family in registry.collect():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        names |= {family.name + suffix for suffix in suffixes}
    return names


@pytest.mark.parametrize("name", ["alerts.yaml", "alerts_test.yaml", "dashboard.json"])
def test_metrics_that_are_asked_for_exist(name: str) -> None:
    used = set(re.findall(r"\bhangtag_\w+", (MONITORING / name).read_text(encoding="utf-8")))
    assert len(used) > 4
    assert used <= metric_names()


def test_every_alert_says_what_to_do_and_is_tested() -> None:
    document = yaml.safe_load((MONITORING / "alerts.yaml").read_text(encoding="utf-8"))
    rules = document["groups"][0]["rules"]
    tested = (MONITORING / "alerts_test.yaml").read_text(encoding="utf-8")
    for rule in rules:
        assert set(rule["annotations"]) == {"summary", "description"}
        assert f'alertname="{rule["alert"]}"' in tested
    assert len(rules) >= 8


@pytest.mark.parametrize(
    "command",
    ["check rules alerts.yaml", "test rules alerts_test.yaml", "check config --syntax-only prometheus.yaml"],
)
def test_promtool_accepts_the_rules(command: str) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("no promtool (Debian package prometheus)")
    done = subprocess.run(
        ["promtool", *command.split()], cwd=MONITORING, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_complete() -> None:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"]) >= 10
    assert all(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])


def test_the_image_takes_what_is_there_and_starts_the_server() -> None:
    lines = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    assert {"src", "serve", "pyproject.toml"} <= set(copied)
    assert all((ROOT / name).exists() for name in copied)
    kept = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    assert {f"!{name}" for name in copied} <= set(kept)
    options = [json.loads(line.split(" ", 1)[1]) for line in lines if line.startswith(("ENTRYPOINT", "CMD"))]
    command = options[0] + options[1]
    assert command[:3] == ["python", "-m", "serve.server"]
    assert server._parser().parse_args(command[3:]).run == "/run/hangtag"
    assert any(line.startswith("USER") for line in lines)


def containers() -> list[tuple[str, list[str]]]:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    pods = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8")))
    container = pods[0]["spec"]["template"]["spec"]["containers"][0]
    return [("compose", compose["services"]["hangtag"]["command"]), ("kubernetes", container["args"])]


@pytest.mark.parametrize(("name", "arguments"), containers())
def test_manifests_give_flags_that_exist(name: str, arguments: list[str]) -> None:
    _, unknown = server._parser().parse_known_args(arguments)
    assert unknown == [], shlex.join(arguments)


def test_compose_mounts_files_that_are_there_or_are_to_be_made() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    made = {"./keys.txt", "./prometheus.key", "../../runs/shop"}
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in made or (DEPLOY / source).exists(), source


def test_the_kubernetes_manifest_holds_together() -> None:
    objects: list[dict[str, Any]] = list(
        yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8"))
    )
    assert [one["kind"] for one in objects] == [
        "Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler",
    ]  # fmt: skip
    deployment, service, budget, scaler = objects
    pod = deployment["spec"]["template"]
    [container] = pod["spec"]["containers"]
    assert pod["metadata"]["labels"] == service["spec"]["selector"] == budget["spec"]["selector"]["matchLabels"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        one["name"] for one in pod["spec"]["volumes"]
    }
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] == "/health"
    grace = float(container["args"][container["args"].index("--grace") + 1])
    assert pod["spec"]["terminationGracePeriodSeconds"] > grace + 10 + 30
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
