"""Telling others that an alias has moved: a command that reads JSON, or an address that is sent it, signed.

    POST  {"delivery": ..., "sent": ..., "store": ..., "before": 2, "move": {the record of the move}}
    X-ZeroVL-Delivery: an id, the same for all attempts
    X-ZeroVL-Signature: sha256=HEX, the HMAC-SHA256 of the body's bytes by `ZEROVL_HOOK_SECRET`

The move is made by then and stays, whatever becomes of its hooks: a failure is a warning. What came of each is kept:

    NAME/hooks/<alias>/<move>/<hook>.json
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import re
import shlex
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from zerovl import params_file
from zerovl.errors import ZeroVLError
from zerovl.log import logger
from zerovl.params import HookParams
from zerovl.registry import keys
from zerovl.registry.records import Move, now
from zerovl.registry.registry import Registry
from zerovl.text_format import plural

URL_VARIABLE, SECRET_VARIABLE = "ZEROVL_HOOK_URL", "ZEROVL_HOOK_SECRET"
WAITS = (1.0, 5.0)  # seconds between attempts; one attempt more than waits
_ANSWER_SECONDS, _COMMAND_SECONDS = 10.0, 60.0


class HookError(ZeroVLError):
    """Somebody was not told."""


class Target(Protocol):
    """Somebody who is told."""

    @property
    def name(self) -> str:
        """How messages and records name it, without a secret."""

    def tell(self, delivery: str, body: bytes) -> None:
        """Hand the body over once; raises `HookError`."""


@dataclass(frozen=True)
class Webhook:
    """An address that is sent the body."""

    url: str

    @property
    def name(self) -> str:
        """Scheme and host: all else may hold a secret."""
        scheme, separator, rest = self.url.partition("://")
        host = re.split(r"[/?#\\]", rest)[0].rpartition("@")[2]
        return f"{scheme}://{host}" if separator else "an address without http:// or https://"

    def tell(self, delivery: str, body: bytes) -> None:
        """Post the body with its signature; any answer but 2xx is a failure, a redirection too.

        Raises `HookError` for a failure, and where there is no secret to sign with.
        """
        secret = os.environ.get(SECRET_VARIABLE, "")
        if not secret:
            raise HookError(f"{SECRET_VARIABLE} is not set, so the body cannot be signed")
        signature = hmac.new(os.fsencode(secret), body, hashlib.sha256).hexdigest()
        headers = {
            "Content-Type": "application/json",
            "X-ZeroVL-Delivery": delivery,
            "X-ZeroVL-Signature": f"sha256={signature}",
        }
        try:
            if urllib.parse.urlsplit(self.url).scheme not in ("http", "https"):
                raise ValueError
            request = urllib.request.Request(self.url, body, headers, method="POST")
            with urllib.request.build_opener(_NoRedirection).open(request, timeout=_ANSWER_SECONDS):
                return
        except urllib.error.HTTPError as error:
            raise HookError(f"answered {error.code}") from None
        except (ValueError, http.client.InvalidURL):  # their texts repeat parts of the address, which may be secret
            raise HookError(
                "it cannot be sent there: expected http(s)://HOST[:PORT]/PATH without user, password and spaces"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise HookError(f"no answer ({getattr(error, 'reason', error)})") from None


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    """A body that was posted would be lost on the way: what follows a redirection is a GET."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none."""


@dataclass(frozen=True)
class Command:
    """A command that gets the body on its standard input; no shell is between."""

    command: str

    @property
    def name(self) -> str:
        """The program: arguments may hold a secret."""
        return self.command.split()[0]

    def tell(self, delivery: str, body: bytes) -> None:
        """Run the command to its end; any status but 0 is a failure.

        What it leaves in the background goes on after it. One that does not end is killed with all that it started.
        Raises `HookError` for a failure.
        """
        # Files, not pipes: those would be read until the last process in the background had closed them.
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
            given.write(body)
            given.seek(0)
            try:
                status = _run(shlex.split(self.command), {"ZEROVL_HOOK_DELIVERY": delivery}, given, said)
            except (OSError, ValueError) as error:
                raise HookError(str(error)) from None
            said.seek(0)
            last = said.read().decode(errors="replace").strip().splitlines()[-1:]
        if status:
            raise HookError(f"exit status {status}" + "".join(f", {line}" for line in last))


def _run(words: Sequence[str], variables: Mapping[str, str], given: IO[bytes], said: IO[bytes]) -> int:
    """Return a command's exit status; `said` gets what it says of errors. Raises `HookError` where it does not end."""
    child = subprocess.Popen(
        words,
        env={**os.environ, **variables},
        stdin=given,
        stdout=subprocess.DEVNULL,
        stderr=said,
        start_new_session=True,
    )
    try:
        return child.wait(_COMMAND_SECONDS)
    except BaseException as error:
        with suppress(ProcessLookupError):  # it ended meanwhile, and Python heard of it
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            raise HookError(f"no end after {_COMMAND_SECONDS:g} s") from None
        raise


@dataclass(frozen=True)
class Outcome:
    """What came of telling one of them of a move."""

    hook: str
    told: bool
    attempts: int
    when: str  # UTC, ISO 8601
    delivery: str
    error: str = ""  # of the last attempt

    def __str__(self) -> str:
        tries = plural(self.attempts, "attempt")
        return f"{self.hook} told after {tries}" if self.told else f"{self.hook} NOT told, {tries}: {self.error}"


@dataclass(frozen=True)
class Hooks:
    """All who are told of a move."""

    targets: tuple[Target, ...] = ()
    waits: tuple[float, ...] = WAITS

    def after(self, registry: Registry, move: Move) -> None:
        """Tell all of them at once, each as often as it takes, and keep what came of it; never raises."""
        if not self.targets:
            return
        try:
            before = registry.move(move.name, move.alias, move.number - 1).version if move.number > 1 else None
            with ThreadPoolExecutor(len(self.targets)) as executor:
                bodies = [_body(registry, move, before) for _ in self.targets]
                outcomes = list(executor.map(self._tell, self.targets, bodies))
            for number, outcome in enumerate(outcomes, 1):
                if not outcome.told:
                    logger().warning(f"{move.name}@{move.alias} moved; hook {outcome}")
                data = (json.dumps(asdict(outcome), indent=2) + "\n").encode()
                registry.store.create(keys.hook(move.name, move.alias, move.number, number), data)
        except ZeroVLError as error:
            logger().warning(f"{move.name}@{move.alias} moved; what came of its hooks is not known: {error}")

    def _tell(self, target: Target, body: tuple[str, bytes]) -> Outcome:
        delivery, error = body[0], ""
        for attempt, wait in enumerate((*self.waits, 0.0), 1):
            try:
                target.tell(*body)
            except HookError as failure:
                error = str(failure)
                time.sleep(wait)
            else:
                return Outcome(target.name, True, attempt, now(), delivery)
        return Outcome(target.name, False, len(self.waits) + 1, now(), delivery, error)


SILENT = Hooks()


def configured(hooks: Sequence[HookParams]) -> Hooks:
    """Return the hooks of `register.hooks`, and the address of `ZEROVL_HOOK_URL` where it is set."""
    targets: list[Target] = [Webhook(hook.url) if hook.url else Command(hook.command) for hook in hooks]
    if url := os.environ.get(URL_VARIABLE):
        targets.append(Webhook(url))
    return Hooks(tuple(dict.fromkeys(targets)), WAITS)


def of_folder(params: Path = Path("params.yaml")) -> Hooks:
    """Return the hooks that commands use: of ./params.yaml where there is one, and of the environment."""
    try:
        return configured(params_file.load(params).register_.hooks if params.is_file() else ())
    except ZeroVLError as error:
        logger().warning(f"register.hooks of {params} are not used: {error}")
        return configured(())


def outcomes(registry: Registry, name: str, alias: str) -> dict[int, list[Outcome]]:
    """Return what came of the hooks of each move of an alias that had any, by the move's number.

    Raises `ZeroVLError` for a record that is not one of this registry.
    """
    found: dict[int, list[Outcome]] = {}
    for key in registry.store.keys(keys.hooks(name, alias)):
        try:
            outcome = Outcome(**json.loads(registry.store.read(key)))
        except (ValueError, TypeError) as error:
            raise ZeroVLError(f"{registry.store.describe()}: {key}: not a record of this registry ({error})") from None
        found.setdefault(int(key.split("/")[-2]), []).append(outcome)
    return found


def _body(registry: Registry, move: Move, before: int | None) -> tuple[str, bytes]:
    """An id of the delivery, and the bytes that are sent."""
    delivery = uuid.uuid4().hex
    content = {
        "delivery": delivery,
        "sent": now(),
        "store": registry.store.uri,
        "before": before,
        "move": asdict(move),
    }
    return delivery, json.dumps(content, ensure_ascii=False).encode()
