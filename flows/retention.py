"""The flow `retention`: what `register.keep` does not keep goes. `python -m flows.retention`, `--apply` to do it."""

from __future__ import annotations

from typing import Any

from prefect import State, flow, runtime

from flows import command, endings, registry_command
from flows.fenced import fenced
from flows.outbox import Page, outbox, send
from flows.runtime import failure_log
from flows.runtime.cancellation import Cancellable
from flows.runtime.checkout import safe_name
from flows.runtime.liveness import follow_worker
from flows.runtime.paths import Paths
from flows.stages import stage_task
from flows.stores import user_registry
from zerovl import params_file
from zerovl.params import RegisterParams
from zerovl.registry import notes
from zerovl.registry import retention as policy
from zerovl.registry.registry import Registry


@flow(name="retention")
def retention(apply: bool = False) -> State[Any] | str:
    """Retire the versions that register.keep of params.yaml does not keep, and remove files past their grace time.

    Args:
        apply: do it; without, only say what would go, what stays and why
    """
    with Cancellable() as ended:
        failure_log.install()
        follow_worker(runtime.flow_run.id)
        settings = params_file.load(Paths.here().root / "params.yaml").register_
        before = versions_in_use(settings.name)
        if before is None:
            return f"there is no {settings.name} in the registry yet"
        words = [settings.name] if apply else [settings.name, "--dry-run"]
        said = [str(registry_command.run_registry_command([action, *words])) for action in ("expire", "gc")]
        with outbox(Paths.here().reports / safe_name(runtime.flow_run.name)):
            show_versions(settings, said)
        return endings.retired(settings.name, before - (versions_in_use(settings.name) or set()), said)
    return ended.state


@stage_task("look up versions", "Reads which versions of the registry are in use", retries=3)
def versions_in_use(name: str) -> set[int] | None:
    """Return the numbers of a model's versions that are not retired; None where it never had a version."""
    registry = user_registry(Paths.here())
    numbers = set(registry.numbers(name))
    retired = {number for number, said in registry.notes(name).items() if notes.state(said).retired}
    return numbers - retired if numbers else None


@stage_task("versions", "Shows what went or would go, what stays, and why", retries=3)
def show_versions(settings: RegisterParams, said: list[str]) -> None:
    """Show what the commands said, and what becomes of each version, in the Artifacts tab."""
    send(page(user_registry(Paths.here()), settings, said))


def page(registry: Registry, settings: RegisterParams, said: list[str]) -> Page:
    """Return the page of what the commands said, and of all versions: which stay and why, which do not."""
    name = settings.name
    rows = [
        (
            version.number,
            version.created,
            "in use" if reason else "**to go**",
            reason or "register.keep does not keep it",
        )
        for version, reason in policy.reasons(registry, name, settings.keep)
    ]
    shown = {number for number, *_ in rows}
    gone = {number: notes.state(lines) for number, lines in registry.notes(name).items() if number not in shown}
    rows += [
        (version.number, version.created, gone[version.number].word, notes.sentence("it", gone[version.number]))
        for version in registry.versions(name, sorted(gone))
    ]
    # A list and no table: the UI wraps no cell, and the end of a long reason would not be seen.
    versions = [
        f"- `{name}@{number}` of {created[:10]}, {state}: {why}"
        for number, created, state, why in sorted(rows, reverse=True)
    ]
    text = "\n".join([*map(fenced, said), "", *versions])
    return Page("retention", f"What of {name} went or would go, what stays, and why", text)


if __name__ == "__main__":
    command.main(retention)
