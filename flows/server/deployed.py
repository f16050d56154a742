"""What `make deploy` applied the last time, kept on the server: it tells what someone has edited in the UI since.

A deployment that is applied again gets new schedules, and a run that is due in that minute would be made twice; so what
has not changed since is not applied again, and what was edited since stays.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import __version__
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import VariableCreate, VariableUpdate
from prefect.exceptions import ObjectAlreadyExists

from flows.command import TAG
from flows.runtime.paths import Paths

VARIABLE = "zerovl_deployed"  # and zerovl_deployed_2, ... where one has no room for all deployments
_LARGEST = 4500  # characters of the fields in one; a variable of Prefect has 5000
# What a deployment is made of: its entry, and the form, which comes from the flows' code and what they offer.
_MADE_OF = ("prefect.yaml", "flows/**/*.py", "recipes/*.yaml", "zerovl/params/*.py", "zerovl/params_file.py")
Snapshot = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Deployed:
    """Digests of what was applied."""

    source: str  # of the files that deployments are made of
    fields: dict[str, dict[str, str]]  # by deployment and field, as the server had them right after

    @classmethod
    def read(cls, client: SyncPrefectClient) -> Deployed | None:
        """Return what the server's variable says; None where nothing was applied yet, or by an older version."""
        first = _value(client, VARIABLE)
        if first is None:
            return None
        fields = dict(first["fields"])
        for name in _names(first.get("variables", 1))[1:]:
            # One that is gone, or of a deploy that was cut short: of its deployments nothing is known.
            further = _value(client, name)
            fields |= further["fields"] if further and further["source"] == first["source"] else {}
        return cls(first["source"], fields)

    @classmethod
    def now(cls, paths: Paths, snapshot: Snapshot) -> Deployed:
        """Return what is to be kept of a snapshot that was just applied."""
        ours = {name: each for name, each in snapshot.items() if TAG in each["tags"]}
        fields = {name: {key: digest(value) for key, value in each.items()} for name, each in ours.items()}
        return cls(source_digest(paths), fields)

    def write(self, client: SyncPrefectClient) -> None:
        """Keep it in the server's variables, the first one last: it says what was applied, and how many there are."""
        parts = _parts(self.fields)
        for name, part in reversed(list(zip(_names(len(parts)), parts, strict=True))):
            _keep(client, name, {"source": self.source, "variables": len(parts), "fields": part})

    def covers(self, paths: Paths, snapshot: Snapshot) -> bool:
        """Return whether nothing is to be applied: the same files, and all that was made of them is there.

        A deployment loses its work pool when somebody deletes that, for example to have one of containers.
        """
        if not self.fields.keys() <= snapshot.keys():
            return False
        with_pool = all(snapshot[name]["work_pool_name"] for name in self.fields)
        return with_pool and self.source == source_digest(paths)

    def edited(self, snapshot: Snapshot) -> dict[str, list[str]]:
        """Return, by deployment, the fields that differ from what was applied, of those that were."""
        found = {}
        for name in self.fields.keys() & snapshot.keys():
            known = self.fields[name]
            changed = [key for key, value in snapshot[name].items() if key in known and known[key] != digest(value)]
            if changed:
                found[name] = changed
        return dict(sorted(found.items()))


def unknown(last: Deployed | None, snapshot: Snapshot) -> dict[str, list[str]]:
    """Return, by deployment of ours, the fields of which nobody knows whether they are as they were applied."""
    known = last.fields if last else {}
    ours = {name: each for name, each in snapshot.items() if TAG in each["tags"]}
    found = {name: [key for key in each if key not in known.get(name, {})] for name, each in ours.items()}
    return {name: keys for name, keys in sorted(found.items()) if keys}


def _names(count: int) -> list[str]:
    return [VARIABLE, *(f"{VARIABLE}_{number}" for number in range(2, count + 1))]


def _parts(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Share deployments out over as many variables as hold them; one at least."""
    parts: list[dict[str, Any]] = [{}]
    for name, each in fields.items():
        if parts[-1] and len(json.dumps({**parts[-1], name: each})) > _LARGEST:
            parts.append({})
        parts[-1][name] = each
    return parts


def _value(client: SyncPrefectClient, name: str) -> dict[str, Any] | None:
    variable = client.read_variable_by_name(name)
    return variable.value if variable is not None and isinstance(variable.value, dict) else None


def _keep(client: SyncPrefectClient, name: str, value: dict[str, Any]) -> None:
    if client.read_variable_by_name(name) is None:
        with suppress(ObjectAlreadyExists):  # made meanwhile from another machine
            client.create_variable(VariableCreate(name=name, value=value))
            return
    client.update_variable(VariableUpdate(name=name, value=value))


def source_digest(paths: Paths) -> str:
    """Return a digest of all files that deployments are made of, and of where they are applied from."""
    whole = hashlib.sha256(f"{__version__} {paths.root}".encode())
    for file in sorted(_files(paths.root)):
        whole.update(f"\n{file.relative_to(paths.root).as_posix()} ".encode())
        whole.update(hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()[:16]


def _files(root: Path) -> Iterable[Path]:
    for pattern in _MADE_OF:
        # An editor's lock is a link to nowhere that is named like the file: `.#train.py`.
        yield from (path for path in root.glob(pattern) if path.is_file())


def digest(value: Any) -> str:
    """Return a short digest of a field of a deployment; whether a schedule is paused is not part of it."""
    return hashlib.sha256(json.dumps(_plain(value), sort_keys=True, default=str).encode()).hexdigest()[:8]


def _plain(value: Any) -> Any:
    """Return a value without what is the user's to switch: `make deploy` leaves a paused schedule paused."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items() if key != "active"}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
