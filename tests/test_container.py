"""The image and the work pools of containers, as far as they can be looked at without one."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.server.schemas.actions import WorkPoolCreate
from prefect.utilities.schema_tools import validate
from prefect.utilities.templating import apply_values
from prefect.workers.process import ProcessWorker

from tests.support.paths import ROOT

POOLS = sorted((ROOT / "flows" / "pools").glob("*.json"))
PLACEHOLDER = re.compile(r"\{\{ (\w+) \}\}")


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile: comments left out, continued lines as one."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())]


DOCKERFILE = instructions((ROOT / "Dockerfile").read_text())
IGNORE = (ROOT / ".dockerignore").read_text().splitlines()


def of(word: str) -> list[str]:
    return [rest for name, rest in DOCKERFILE if name == word]


def reaches_the_builder(path: str) -> bool:
    """Whether `.dockerignore` leaves a path: of the lines that match it or a folder above it, the last one decides."""
    left = True
    parts = path.split("/")
    above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    for line in IGNORE:
        pattern = line.removeprefix("!").removeprefix("**/")
        names = [*above, *parts] if "**/" in line else above
        if line and not line.startswith("#") and any(fnmatch(name, pattern) for name in names):
            left = line.startswith("!")
    return left


def test_the_base_has_a_version() -> None:
    (base,) = of("FROM")
    name, _, tag = base.partition(":")
    assert name == "nvidia/cuda"
    assert re.match(r"\d+\.\d+\.\d+-", tag)


def test_a_container_is_not_root() -> None:
    assert of("USER")[-1] == "zerovl"
    words = [word for word, _ in DOCKERFILE]
    assert words.index("USER") < words.index("COPY")  # what is copied and installed is the user's


def test_packages_are_those_of_the_lock_and_from_no_named_host() -> None:
    (sync,) = [rest for rest in of("RUN") if "requirements.lock" in rest]
    assert "uv pip sync --no-cache --require-hashes requirements.lock" in sync
    assert "://" not in " ".join(rest for _, rest in DOCKERFILE)
    # A mirror's address with its password: the history of an image has the value of each ARG.
    assert of("ARG") == ["UID=1000"]
    assert sync.startswith("--mount=type=secret,id=pip_index,mode=0444 ")  # the user of the build may read it
    for install in (rest for rest in of("RUN") if "apt-get install" in rest):
        assert "--no-install-recommends" in install
        assert install.rstrip().endswith("rm -rf /var/lib/apt/lists/*")
    # The largest layer comes before the code, and is not made again with it.
    copied = [rest.split() for rest in of("COPY")]
    assert copied[0][-2] == "requirements.lock"
    assert all(words[0] == "--chown=zerovl" for words in copied)


def test_what_is_copied_is_there_and_reaches_the_builder() -> None:
    for rest in of("COPY"):
        for source in rest.split()[1:-1]:
            found = [ROOT / source, *(path for path in (ROOT / source).rglob("*") if "__pycache__" not in path.parts)]
            for path in (path for path in found if path.is_file()):
                assert reaches_the_builder(path.relative_to(ROOT).as_posix()), path
            assert found[0].exists()


@pytest.mark.parametrize(
    "path", [".git/config", ".dvc/config.local", ".env", "data/raw/a.jpg", "registry/x", "zerovl/__pycache__/a.pyc"]
)
def test_nothing_else_does(path: str) -> None:
    assert not reaches_the_builder(path)


def template(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text())
    return content


@pytest.mark.parametrize("file", POOLS, ids=lambda file: file.stem)
def test_prefects_server_takes_a_pools_template(file: Path) -> None:
    """`prefect work-pool create --base-job-template` sends it as it is."""
    made = WorkPoolCreate(name="zerovl", type=file.stem, base_job_template=template(file))
    assert made.base_job_template == template(file)
    broken = template(file)
    broken["job_configuration"]["image"] = "{{ imagee }}"
    with pytest.raises(ValueError, match="imagee"):
        WorkPoolCreate(name="zerovl", type=file.stem, base_job_template=broken)


@pytest.mark.parametrize("file", POOLS, ids=lambda file: file.stem)
def test_each_variable_has_a_sentence_and_is_used(file: Path) -> None:
    content = template(file)
    variables = content["variables"]["properties"]
    assert all(each.get("title") and each.get("description") for each in variables.values())
    used = set(PLACEHOLDER.findall(json.dumps(content["job_configuration"])))
    assert used <= set(variables)
    assert set(variables) - used <= {"env"}  # laid over the variables that are there, by Prefect


@pytest.mark.parametrize("file", POOLS, ids=lambda file: file.stem)
def test_a_run_finds_the_checkout_the_gpu_and_memory_to_share(file: Path) -> None:
    content = template(file)
    defaults = {name: each["default"] for name, each in content["variables"]["properties"].items() if "default" in each}
    job = apply_values(content["job_configuration"], defaults)
    text = json.dumps(job)
    assert "/srv/zerovl" in text
    if file.stem == "docker":
        assert job["volumes"] == ["/srv/zerovl:/srv/zerovl"]
        assert job["container_create_kwargs"]["device_requests"][0]["count"] == -1
        assert job["container_create_kwargs"]["shm_size"] == "16g"
        # On the mounted checkout: in the container's own /tmp nobody else would see it.
        assert job["env"]["ZEROVL_LEASE"] == "/srv/zerovl/.flows/leases"
        environment = job["env"]
    else:
        (container,) = (pod := job["job_manifest"]["spec"]["template"]["spec"])["containers"]
        environment = {each["name"]: each["value"] for each in container["env"]}
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
        places = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
        assert places == {"checkout": "/srv/zerovl", "shared-memory": "/dev/shm"}
        assert {each["name"] for each in pod["volumes"]} == set(places)
        assert pod["securityContext"]["runAsNonRoot"]
    # Else `prefect flow-run execute` has no handler, and an evicted training saves nothing.
    assert environment["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] == "reschedule"


DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_who_trains_nothing_asks_for_no_gpu(deployment: dict[str, Any]) -> None:
    variables = deployment["work_pool"]["job_variables"]
    trains = deployment["name"] not in ("notify", "promote", "rollback", "retention")
    templates = {"process": ProcessWorker.get_default_base_job_template()}
    templates |= {file.stem: template(file) for file in POOLS}
    for content in templates.values():
        validate(variables, content["variables"], raise_on_error=True, preprocess=True, ignore_required=True)
    defaults = {name: each.get("default") for name, each in templates["kubernetes"]["variables"]["properties"].items()}
    job = apply_values(templates["kubernetes"]["job_configuration"], defaults | variables)
    (container,) = job["job_manifest"]["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == (1 if trains else 0)
    assert container["resources"]["requests"]["cpu"] == ("8" if trains else "2")
    # What a template has no variable for is left out.
    assert "gpus" not in apply_values(templates["process"]["job_configuration"], variables)


def test_the_pool_is_that_of_the_deployments() -> None:
    from flows.server.deploy import POOL

    assert {each["work_pool"]["name"] for each in DEPLOYMENTS} == {POOL}
    text = (ROOT / "docs" / "pools.md").read_text()
    version = yaml.safe_load((ROOT / "prefect.yaml").read_text())["prefect-version"]
    assert text.count(f"pip install prefect=={version} ") == len(POOLS)
    for file in POOLS:
        assert (
            f"prefect work-pool create {POOL} --type {file.stem} --base-job-template {file.relative_to(ROOT)}" in text
        )
