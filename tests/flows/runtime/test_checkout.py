"""Checkouts of runs: apart from each other and from the user's, on a branch that keeps what they did."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from dvc.repo import Repo

from flows import pipeline
from flows.runtime import pushing
from flows.runtime.checkout import fetch, make, resolve, safe_name
from flows.runtime.git import CheckoutError
from flows.runtime.paths import Paths
from flows.runtime.switches import PUSH_RUNS
from tests.support.project_copy import commit, copy_project, git
from zerovl import params_file
from zerovl.kept_syntax import kept_file


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(tmp_path_factory.mktemp("factory") / "project")


@pytest.fixture
def paths(root: Path, tmp_path: Path) -> Paths:
    return Paths(root, tmp_path / "state")


def test_a_checkout_shares_cache_remote_and_run_state_but_no_files(paths: Paths) -> None:
    (paths.root / "untracked").write_text("the user's")
    first, second = make(paths, "one", "id-1", "HEAD"), make(paths, "two", "id-2", "main")
    assert not (first.path / "untracked").exists()
    (first.path / "params.yaml").write_text("changed: true\n")
    assert (second.path / "params.yaml").read_text() == (paths.root / "params.yaml").read_text()
    (first.path / "runs" / "state").write_text("shared")
    assert (second.path / "runs" / "state").read_text() == "shared"
    (first.path / "data/.tars/state").write_text("shared")
    assert (second.path / "data/.tars/state").read_text() == "shared"
    with Repo(str(paths.root)) as user, Repo(str(first.path)) as own:
        assert own.cache.local_cache_dir == user.cache.local_cache_dir
        assert own.config["remote"]["local"]["url"] == user.config["remote"]["local"]["url"]
        assert own.tmp_dir != user.tmp_dir  # DVC's locks
    first.share_store("registry")
    (first.path / "registry" / "release").write_text("kept")
    assert (paths.root / "registry" / "release").read_text() == "kept"
    assert git(first.path, "status", "--porcelain") == "M params.yaml"  # links are ignored: a release is not "dirty"


def test_a_store_of_another_name_is_shared_and_no_change_to_git(paths: Paths) -> None:
    (paths.root / ".git" / "info" / "exclude").write_text("/mine\n/releases/")  # a folder's pattern; no line end
    checkout = make(paths, "store", "id", "HEAD")
    checkout.share_store("releases")
    checkout.share_store("releases")
    (checkout.path / "releases" / "kept").write_text("")
    assert (paths.root / "releases" / "kept").exists()
    assert git(checkout.path, "status", "--porcelain") == ""
    assert (paths.root / ".git" / "info" / "exclude").read_text() == "/mine\n/releases/\n/releases\n"
    with pytest.raises(CheckoutError, match="git has files in docs, so releases of a run would go with"):
        checkout.share_store("docs")


def test_a_model_to_start_from_must_be_in_the_commit(paths: Paths) -> None:
    checkout = make(paths, "start", "id", "HEAD")
    with pytest.raises(CheckoutError, match=r"train.init_from: start is not in commit .*`dvc add start` and commit"):
        checkout.start_file("start")
    (checkout.path / "start.dvc").write_text("outs:\n- path: start\n")
    assert checkout.start_file("start") == checkout.start_file("start/") == "start.dvc"
    assert checkout.start_file("") is None
    assert checkout.start_file(str(paths.root / "zerovl")) is None  # by its whole path


def test_raw_data_must_be_in_the_commit_or_known_to_dvc(paths: Paths) -> None:
    def require(*settings: str) -> None:
        checkout.require_raw(params_file.from_recipe({}, list(settings), "test").data)

    checkout = make(paths, "raw", "id", "HEAD")
    (paths.root / "photos" / "web").mkdir(parents=True)  # the user's, whom git and DVC do not know
    why = r"photos is not in commit \w{12}, .*; `dvc add photos` and commit photos\.dvc, or name a folder by its whole"
    with pytest.raises(CheckoutError, match=f"^data.raw: {why}"):
        require("data.raw=photos")
    with pytest.raises(CheckoutError, match=r"^data.sources web: photos/web is not in commit"):
        require("data.sources=[{name: web, path: photos/web}]")
    require("data.sources=[{name: web, path: s3://bucket/web}]")
    require(f"data.raw={paths.root}/photos")
    require("data.raw=data/demo/raw")  # which the first stage draws
    (checkout.path / "photos.dvc").write_text("outs:\n- path: photos\n")
    require("data.raw=photos")
    require("data.sources=[{name: web, path: photos/web}]")
    (checkout.path / "others" / "web").mkdir(parents=True)
    require("data.raw=others")


def test_the_same_run_finds_its_checkout_again_another_of_the_same_name_does_not(paths: Paths) -> None:
    first = make(paths, "tacky heron!", "0000-1", "HEAD")
    assert first.name == "tacky-heron"
    (first.path / "half-done").write_text("")
    assert make(paths, "tacky heron!", "0000-1", "HEAD") == first
    assert (first.path / "half-done").exists()
    other = make(paths, "tacky heron!", "11112222-3", "HEAD")
    assert other.branch == "runs/tacky-heron-11112222"
    first.remove()
    assert make(paths, "tacky heron!", "33334444-5", "HEAD").name == "tacky-heron-33334444"  # its branch is kept
    again = make(paths, "tacky heron!", "0000-1", "HEAD")  # retried after it was removed: on the branch that it has
    assert (again.name, again.path.exists()) == ("tacky-heron", True)
    again.discard()
    assert git(paths.root, "branch", "--list", "runs/tacky-heron") == ""


def test_what_a_run_has_parsed_the_next_one_does_not_parse(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)

    def kept(root: Path) -> Path:
        return kept_file(root / "zerovl")

    changed = git(paths.root, "status", "--porcelain")
    first = make(paths, "first", "id-1", "HEAD")
    kept(first.path).parent.mkdir(exist_ok=True)
    kept(first.path).write_text("what the first has parsed")
    first.remove()
    second = make(paths, "second", "id-2", "HEAD")
    assert kept(second.path).read_text() == "what the first has parsed"
    kept(second.path).write_text("and the second")
    assert make(paths, "second", "id-2", "HEAD") == second  # tried again: with its own
    assert kept(second.path).read_text() == "and the second"
    assert git(paths.root, "status", "--porcelain") == changed


def test_a_run_that_was_killed_while_its_checkout_was_made(paths: Paths) -> None:
    checkout = make(paths, "cut", "id", "HEAD")
    (checkout.path / "runs").unlink()  # not yet shared
    assert (make(paths, "cut", "id", "HEAD").path / "runs").is_dir()


def test_a_branch_that_the_remote_has_gone_on_with(root: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--bare", str(root), "remote.git")
    git(tmp_path, "clone", "--quiet", "remote.git", "here")
    git(tmp_path, "clone", "--quiet", "remote.git", "elsewhere")
    paths = Paths(tmp_path / "here", tmp_path / "state")
    local = git(paths.root, "rev-parse", "HEAD")
    assert resolve(paths, "main") == local
    (tmp_path / "elsewhere" / "data" / "raw.dvc").write_text("outs: []\n")
    newer = commit(tmp_path / "elsewhere", "new data")
    git(tmp_path / "elsewhere", "push", "--quiet", "origin", "main", "HEAD:refs/heads/crawl")
    assert fetch(paths) == ""
    assert resolve(paths, "main") == newer
    assert resolve(paths, "crawl") == newer
    assert resolve(paths, "HEAD") == local
    git(paths.root, "remote", "set-url", "origin", str(tmp_path / "gone.git"))
    assert "going on with the commits that are here" in fetch(paths)
    assert resolve(paths, "main") == newer


def test_a_run_commits_parameters_and_locks_and_nothing_else(paths: Paths) -> None:
    checkout = make(paths, "commits", "id", "HEAD")
    assert not checkout.commit("nothing")
    (checkout.path / "dvc.lock").write_text("schema: '2.0'\n")
    (checkout.path / "scratch.txt").write_text("not a record")
    before = git(paths.root, "rev-parse", "HEAD")
    assert checkout.commit("Run commits")
    assert git(checkout.path, "show", "--name-only", "--format=%s", "HEAD").split() == ["Run", "commits", "dvc.lock"]
    assert git(paths.root, "rev-parse", "HEAD") == before  # the user's branch stays
    checkout.remove()
    assert not checkout.path.exists()
    assert git(paths.root, "log", "-1", "--format=%s", "runs/commits") == "Run commits"


def test_commits_need_no_name_in_gits_settings(paths: Paths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    checkout = make(paths, "nameless", "id", "HEAD")
    (checkout.path / "dvc.lock").write_text("a: 1\n")
    assert checkout.commit("Run")
    assert git(checkout.path, "log", "-1", "--format=%an <%ae>") == "zerovl flows <flows@localhost>"


def test_the_branch_goes_to_the_remote_where_the_setting_says_so(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = make(paths, "pushed", "id", "HEAD")
    monkeypatch.setenv(PUSH_RUNS.variable, "1")
    assert pushing.remote(paths) is None
    assert pushing.sentence(paths) == "branches runs/* stay here: there is no git remote"
    git(tmp_path, "init", "--quiet", "--bare", "remote.git")
    git(paths.root, "remote", "add", "origin", str(tmp_path / "remote.git"))
    try:
        assert pushing.remote(paths) == "origin"
        assert pushing.sentence(paths) == "branches runs/* are pushed to origin (ZEROVL_PUSH_RUNS=1)"
        checkout.push("origin")
        (checkout.path / "dvc.lock").write_text("b: 2\n")
        checkout.commit("more")
        checkout.push("origin")
        assert git(tmp_path / "remote.git", "rev-parse", "runs/pushed") == checkout.head()
        for off in ("", "0"):
            monkeypatch.setenv(PUSH_RUNS.variable, off)
            assert pushing.remote(paths) is None
            assert pushing.sentence(paths) == "branches runs/* stay here; ZEROVL_PUSH_RUNS=1 pushes them to origin"
        monkeypatch.setenv(PUSH_RUNS.variable, "yes")
        with pytest.raises(CheckoutError, match="ZEROVL_PUSH_RUNS=yes: 1 pushes"):
            pushing.remote(paths)
    finally:
        git(paths.root, "remote", "remove", "origin")


def test_nothing_of_a_run_is_published_unless_asked_for(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting is looked at where the run's stages end, whatever remote the clone has."""
    said: list[str] = []
    monkeypatch.setattr(pipeline, "get_run_logger", lambda: SimpleNamespace(info=said.append))
    monkeypatch.delenv(PUSH_RUNS.variable, raising=False)
    checkout = make(paths, "private", "id", "HEAD")
    git(tmp_path, "init", "--quiet", "--bare", "remote.git")
    git(paths.root, "remote", "add", "origin", str(tmp_path / "remote.git"))
    try:
        pipeline._push_branch(checkout)
        assert git(tmp_path / "remote.git", "branch", "--list") == ""
        assert said == ["branches runs/* stay here; ZEROVL_PUSH_RUNS=1 pushes them to origin"]
    finally:
        git(paths.root, "remote", "remove", "origin")


def test_a_branch_that_is_called_runs(paths: Paths, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "other")
    other = Paths(tmp_path / "other", tmp_path / "state")
    commit(other.root, "start")
    git(other.root, "branch", "runs")
    with pytest.raises(
        CheckoutError, match=r"a branch is called 'runs', .* rename it: git branch -m runs another-name"
    ):
        make(other, "one", "id", "HEAD")


def test_reports_outlive_the_checkout(paths: Paths) -> None:
    checkout = make(paths, "reports", "id", "HEAD")
    for text in ("old", "new"):
        (checkout.path / "reports").mkdir(exist_ok=True)
        (checkout.path / "reports" / "page.html").write_text(text)
        assert checkout.keep_reports() == paths.reports / "reports"
    checkout.remove()
    assert (paths.reports / "reports" / "page.html").read_text() == "new"


def test_an_older_revision(paths: Paths) -> None:
    old = git(paths.root, "rev-parse", "HEAD")
    (paths.root / "params.yaml").write_text((paths.root / "params.yaml").read_text() + "# newer\n")
    commit(paths.root, "newer")
    assert not (make(paths, "old", "id", old).path / "params.yaml").read_text().endswith("# newer\n")
    with pytest.raises(CheckoutError, match="git knows no revision 'no-such'; name a branch"):
        make(paths, "new", "id", "no-such")
    with pytest.raises(CheckoutError, match="--output"):
        make(paths, "new", "id", "--output=/tmp/x")


@pytest.mark.parametrize(("name", "safe"), [("a b/c", "a-b-c"), ("../..", "run"), ("tacky-heron", "tacky-heron")])
def test_safe_names(name: str, safe: str) -> None:
    assert safe_name(name) == safe
