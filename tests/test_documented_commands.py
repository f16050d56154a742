"""Every command of a block in README and docs is run, here in a small project or by a named test, or has a reason.

A line that begins with `zerovl` is run here unless it is listed below.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import signal
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.paths import ROOT
from tests.support.registries import publish
from tests.support.tiny_project import RECIPE, make_project
from tests.test_docs import CURRENT, by_name
from zerovl import cli, params_file
from zerovl.registry import release_files, transfer
from zerovl.registry.registry import Registry
from zerovl.registry.stores import open_store

pytestmark = pytest.mark.timeout(300)
# What another test runs: how the command begins, the test, and its call there.
ELSEWHERE = (
    (r"make (demo|test|setup|lint)", ".ci/run", r"(?m)^make {0}$"),
    (r"make towers", "tests/interop/test_package_towers.py", r"make\(out, towers\(\)"),
    (r"make ui", "tests/flows/server/test_ui.py", r'"-m", "flows\.server\.ui"'),
    (r"make deploy", "tests/flows/test_runs.py", r'command\("-m", "flows\.server\.deploy"\)'),
    (r"make experiments", "tests/test_dvc_metrics.py", r"run\(\*make_experiments\(\)\)"),
    (
        r"dvc exp run --queue .*choice\(",
        "tests/test_experiments.py",
        r"\(dvc exp run --queue .*\n *run\(\*shlex\.split\(queue\)\)",
    ),
    (r"dvc exp run --run-all", "tests/test_experiments.py", r'run\("dvc", "exp", "run", "--run-all", "--jobs"'),
    (r"dvc exp run --temp", "tests/test_experiments.py", r'run\("dvc", "exp", "run", "--temp"'),
    (r"dvc exp apply", "tests/test_experiments.py", r'run\("dvc", "exp", "apply"'),
    (r"dvc queue status", "tests/test_experiments.py", r'run\("dvc", "queue", "status"'),
    (r"dvc exp run --name", "tests/test_experiments.py", r'run\("dvc", "exp", "run", "--name"'),
    (r"dvc import-url", "tests/flows/test_new_data.py", r'"import-url", put\.raw, "data/raw"'),
    (r"dvc push", "tests/stages/test_clone.py", r'dvc\("push"'),
    (r"ZEROVL_DASK=\S+ ", "tests/data/raw/test_cluster_packing.py", r'setenv\("ZEROVL_DASK", address'),
    (r"dvc add", "tests/registry/test_dvc_remote.py", r'run\("dvc", "add"'),
    (r"dvc repro", ".ci/check_demo.py", r'command\("dvc", "repro"\)'),
    (r"prefect event emit", "tests/flows/test_runs.py", r'"prefect", "event", "emit", "zerovl\.new-data"'),
    (r"python -m flows\.retention", "tests/flows/test_retention_flow.py", r'run_module\("flows\.retention"'),
    (r"torchrun", "tests/training/test_two_nodes.py", r'"-m", "torch\.distributed\.run", \*arguments'),
    (
        r"zerovl index .* --approximate",
        "tests/commands/test_approximate_index.py",
        r'making = \["index", .*\n *assert cli\.main\(\[\*making, "--approximate"',
    ),
    (r"zerovl serve", "tests/commands/test_serve.py", r'cli\.main\(\["serve"'),
    (
        r"zerovl recipe recipes/zerovl-14m\.yaml",
        "tests/benchmarks/test_readme.py",
        r'cli\.main\(\["recipe", str\(ROOT / "recipes" / "zerovl-14m\.yaml"',
    ),
    (r"zerovl plan .*--pairs", "tests/benchmarks/test_readme.py", r'cli\.main\(\["plan", \*readme\.PLANNED\]'),
    (
        r"zerovl sweep train\.lr=\S+$",
        "tests/commands/test_sweep_with_dvc.py",
        r"\(sweep train\\\.lr=[\s\S]*= zerovl\(\*words\.split\(\)\)",
    ),
    (r"zerovl sweep", "tests/commands/test_sweep.py", r'cli\.main\(\["sweep", LR'),
    (r"zerovl track", "tests/tracking/test_trackers.py", r"track\.track\(recipe\(TRACKED, "),
    (r"zerovl train --from", "tests/training/test_continue.py", r'cli\.main\(\["train", "--from"'),
    (r"zerovl compare .*HEAD", "tests/comparison/test_compare.py", r'compare\("HEAD", "other-lr"'),
    (r"zerovl registry add", "tests/commands/test_registry_add.py", r'cli\.main\(\["registry", "add", "higher-lr"\]'),
    (
        r"zerovl registry forget",
        "tests/release/test_forget.py",
        r'cli\.main\(\["registry", .*\*words\][\s\S]*run\("forget", "zerovl", "--key"',
    ),
    (r"zerovl push", "tests/interop/test_hub_push.py", r'"zerovl\.cli", "push"'),
    (r"zerovl export", "tests/interop/test_open_clip.py", r'cli\.main\(\["export", .*"--to", "open-clip"'),
    (r"zerovl import", "tests/interop/test_import.py", r'cli\.main\(\["import", str\(exported\)'),
    (r"zerovl recipe auto", "tests/planning/test_first_try.py", r'cli\.main\(\["recipe", "auto", "data\.raw=raw"'),
    (
        r"zerovl recipe \S+/train\.yaml",
        "tests/support/exchange.py",
        r'cli\.main\(\["recipe", str\(imported / "train\.yaml"\), "data\.raw=data/raw"',
    ),
    (r"zerovl train --params", "tests/test_documented_commands.py", r'run\("zerovl train --params params\.yaml"\)'),
)
# What no test can run, and why.
NOT_RUN = (
    (r"git (clone|stash|add|commit)", "of whoever works here: their history, their changes"),
    (r"cd |source |export |cp ", "a line of a shell: it computes nothing"),
    (r"python -c", "reads what somebody's own data and trainings left: pictures that were refused, logs of steps"),
    (r"dask (scheduler|worker)", "of dask.distributed: the test of `ZEROVL_DASK` starts both as a LocalCluster"),
    (
        r"prefect work-pool create",
        "sends a template to a server, whose own check of it tests/test_container.py calls",
    ),
    (r"\S+/prefect worker start", "of a type that is a package of its own, for a container runtime or a cluster"),
    (r"(?:\S+/)?pip (install|download)|python3 -m venv", "packages come from an index, which tests do not reach"),
    (r"(PYTHONPATH=site )?python -m pytest tests/gpu", "the tests of a GPU themselves, which `make test-gpu` runs so"),
    (r"docker |kubectl ", "needs a container runtime or a cluster: .ci/run builds where there is one"),
)


READERS = {"yaml": yaml.safe_load, "json": json.loads, "python": ast.parse}


def blocks() -> Iterator[tuple[str, list[str]]]:
    """Each block of console with its page and its commands, comments left out and continued lines as one."""
    for page in CURRENT:
        text = page.read_text(encoding="utf-8")
        for number, block in enumerate(re.findall(r"^ *```console\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL), 1):
            joined = re.sub(r"\\\n\s*", " ", block)
            lines = [line.strip()[2:] for line in joined.splitlines() if line.strip().startswith("$ ")]
            commands = [part.strip() for line in lines for part in re.split(r"\s#\s.*|&&", line) if part.strip()]
            yield f"{by_name(page)} {number}", commands


def indented(text: str) -> list[str]:
    """Return the first line of each block that is code by its indent alone, where no command is seen."""
    outside = re.sub(r"^ *```.*?^ *```$", "```", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"(?:\A|\n[ \t]*\n)(?: {4,}|\t)(\S.*)", outside)


@pytest.mark.parametrize("page", CURRENT, ids=by_name)
def test_code_has_fences_that_say_what_it_is(page: Path) -> None:
    """So that each command is seen by the tests below, and settings by the last one."""
    assert indented(page.read_text(encoding="utf-8")) == []


def test_code_that_is_only_indented_is_seen() -> None:
    page = "1. A list:\n\n       dvc push\n\n```console\n\n    $ git add\n```\n\n    dvc pull\n    dvc gc\n\n   text\n"
    assert indented(page) == ["dvc push", "dvc pull"]


BLOCKS = list(blocks())


def is_elsewhere(command: str) -> bool:
    return any(re.match(pattern, command) for pattern, *_ in (*ELSEWHERE, *NOT_RUN))


@pytest.mark.parametrize("command", sorted({each for _, commands in BLOCKS for each in commands}))
def test_a_command_is_run_or_says_why_not(command: str) -> None:
    assert is_elsewhere(command) or command.startswith("zerovl "), f"nothing runs `{command}`: name a test, or a reason"
    for pattern, file, called in ELSEWHERE:
        if found := re.match(pattern, command):
            text = (ROOT / file).read_text(encoding="utf-8")
            assert re.search(called.format(*found.groups()), text), f"{file} does not run {command}"


def words_of(pattern: str) -> list[str]:
    """The words behind its program that a pattern asks of a command as they are."""
    module, words = pattern.startswith("python -m "), pattern.replace(r"\.", ".").split(" ")
    words = words[2 if module else 1 :]
    return [re.sub(r".*/", "", word) for word in words if re.fullmatch(r"[\w./=-]+", word)]


@pytest.mark.parametrize(("pattern", "file", "called"), [row for row in ELSEWHERE if not row[0].startswith("make ")])
def test_the_call_of_a_row_has_the_words_of_its_command(pattern: str, file: str, called: str) -> None:
    """What `make` runs stands in the Makefile, whose words those rows have."""
    call = re.search(called, (ROOT / file).read_text(encoding="utf-8"))
    assert call, f"{file} has no {called}"
    assert [word for word in words_of(pattern) if word not in call[0]] == [], call[0]


def test_no_line_of_the_tables_is_left_over() -> None:
    commands = {each for _, commands in BLOCKS for each in commands}
    for pattern, *_ in (*ELSEWHERE, *NOT_RUN):
        assert any(re.match(pattern, command) for command in commands), pattern


@pytest.fixture(scope="module", autouse=True)
def handlers() -> Iterator[None]:
    """A training in this process takes its signals; they are given back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def finished(handlers: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with three releases, made by the stages themselves, and the files that the commands name."""
    root = tmp_path_factory.mktemp("documented") / "project"
    make_project(root)
    pictures = sorted((root / "raw" / "alpha" / "valid").glob("*.jpg"))
    (root / "photos").mkdir()
    for number, picture in enumerate(pictures):
        shutil.copy(picture, root / "photos" / f"{number}.jpg")
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(pictures[0], root / name)
    (root / "pairs.csv").write_text("image,image_id,caption,caption_id\n0.jpg,1,a red box,1\n1.jpg,2,a green box,2\n")
    poster = root / "data" / "demo" / "raw" / "poster"  # as the demo draws it
    shutil.copytree(root / "photos", poster / "valid")
    shutil.copy(root / "pairs.csv", poster / "valid_anno.csv")
    (root / "names.txt").write_text("red\ngreen\n")
    (root / "recipes").symlink_to(ROOT / "recipes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("ZEROVL_STORE", raising=False)
        patch.setenv("ZEROVL_CACHE", str(root.parent / "cache"))
        changes = ["data.raw=raw", "train.epochs=0.5", "register.gate.min_rsum=0"]
        params_file.write(params_file.from_recipe(RECIPE, changes, "tiny"), root / "params.yaml")
        run("zerovl train --params params.yaml")
        run("zerovl evaluate")
        run("zerovl register")
        _register_again(Registry(open_store("registry")), root.parent / "pulled")
        run("zerovl registry promote zerovl@2 production --why 'for a rollback'")
        run("zerovl registry promote zerovl@1 production --why 'for a rollback'")
    return root


def _register_again(registry: Registry, folder: Path) -> None:
    """The release once more, with other bytes in a file, and one that somebody retires, whose files nobody reads."""
    first = registry.resolve("zerovl@1")
    transfer.pull(registry.store, first, folder)
    files: dict[str, Path | bytes] = {path: folder / path for path in first.files}
    files[release_files.METRICS] = (folder / release_files.METRICS).read_bytes() + b"\n"
    publish(registry, files, metrics=first.metrics, provenance=first.provenance, verdict=first.verdict)
    publish(registry, {"config.json": b"{}"})


@pytest.fixture
def project(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy for a block of its own."""
    root = tmp_path / "project"
    shutil.copytree(finished, root, symlinks=True)
    monkeypatch.chdir(root)
    monkeypatch.setenv("ZEROVL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ZEROVL_STORE", raising=False)
    return root


def run(command: str) -> None:
    """Run a command as a shell would; what it writes to a file with `>` is printed."""
    words = shlex.split(command.partition(" > ")[0])
    assert words[0] == "zerovl"
    assert cli.main(words[1:]) == 0, command


@pytest.mark.parametrize(("name", "commands"), BLOCKS, ids=[name for name, _ in BLOCKS])
def test_the_commands_of_a_block(
    name: str, commands: list[str], project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if name.startswith("README.md "):  # there the demo is all that a newcomer has
        shutil.rmtree("photos")
        Path("pairs.csv").unlink()
    for command in commands:
        if not is_elsewhere(command):
            run(command.replace("@photo>", "@alpha>"))  # a source of the demo
            assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("page", ["README.md", "docs/use.md"])
def test_the_python_of_a_page(page: str, project: Path) -> None:
    """Other pages' blocks are pieces of something, or run by the tests of what they name."""
    for block in re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(block, page, "exec"), {})


@pytest.mark.parametrize("page", CURRENT, ids=by_name)
def test_settings_and_programs_of_a_page_can_be_read(page: Path) -> None:
    for kind, block in re.findall(r"^ *```(yaml|json|python)\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL):
        READERS[kind](textwrap.dedent(block))
