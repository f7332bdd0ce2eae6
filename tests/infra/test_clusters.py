"""What lies in infra/ is what Ray, the operator and Docker take: read by Ray's own parser where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"


def read(name: str) -> Any:
    return yaml.safe_load((INFRA / name).read_text(encoding="utf-8"))


def test_the_cluster_on_aws_is_one_that_ray_can_start() -> None:
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    config = read("aws/cluster.yaml")
    validate_config(fillout_defaults(config))
    workers = {name: kind for name, kind in config["available_node_types"].items() if name != config["head_node_type"]}
    assert all(kind["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"} for kind in workers.values())
    assert all(kind["max_workers"] <= config["max_workers"] for kind in workers.values())


def test_a_cluster_that_ray_cannot_start_is_noticed() -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    config = fillout_defaults(read("aws/cluster.yaml"))
    with pytest.raises((ValidationError, ValueError)):
        validate_config({**config, "max_worker": 3})


def test_the_head_holds_no_trials_anywhere() -> None:
    assert read("aws/cluster.yaml")["available_node_types"]["head"]["resources"] == {"CPU": 0}
    assert read("kubernetes/raycluster.yaml")["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert "--num-cpus=0" in read("compose.yaml")["services"]["head"]["command"]


def test_all_of_them_run_one_image_and_one_version_of_ray() -> None:
    from importlib.metadata import version

    dockerfile = (INFRA / "image" / "Dockerfile").read_text(encoding="utf-8")
    kubernetes = read("kubernetes/raycluster.yaml")["spec"]
    groups = [kubernetes["headGroupSpec"], *kubernetes["workerGroupSpecs"]]
    images = {container["image"] for group in groups for container in group["template"]["spec"]["containers"]}
    assert images == {read("aws/cluster.yaml")["docker"]["image"]}
    assert kubernetes["rayVersion"] == version("ray")
    assert f"ARG RAY={version('ray')}-" in dockerfile


def test_the_image_copies_what_is_there_and_asks_for_extras_that_there_are() -> None:
    import tomllib

    lines = (INFRA / "image" / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[2:-1]]
    assert copied
    assert all((ROOT / name).exists() for name in copied)
    extras = next(line for line in lines if "[" in line and "pip install" in line).partition("[")[2].partition("]")[0]
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(extras.split(",")) <= set(known)
