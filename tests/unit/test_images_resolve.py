"""Digests, platforms and credentials of images, as docker's client finds them out."""

from __future__ import annotations

import base64
import json
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkit.errors import OperationFailed, SwarmkitError, UsageError
from swarmkit.images.credentials import Credentials, registry_of
from swarmkit.images.resolve import (
    Image,
    Resolve,
    Unresolved,
    choose,
    found,
    look_up,
    look_up_all,
    needs_credentials,
    placed,
    warnings,
)
from swarmkit.remote import Engine

DIGEST = "sha256:" + "a" * 64
AMD64 = {"architecture": "amd64", "os": "linux"}
SECRET = "s3cr3t-passw0rd"


def live(image: str, label: str, platforms: list[dict[str, str]] | None = None) -> dict[str, Any]:
    return {
        "Labels": {"com.docker.stack.image": label},
        "TaskTemplate": {"ContainerSpec": {"Image": image}, "Placement": {"Platforms": platforms}},
    }


# ---------------------------------------------------------------- what is to be done


@pytest.mark.parametrize(
    ("mode", "in_swarm", "expected"),
    [
        ("always", None, None),
        ("changed", None, None),
        ("never", None, Image("web:latest")),
        ("always", live(f"web:latest@{DIGEST}", "web"), None),
        ("changed", live(f"web:latest@{DIGEST}", "web"), Image(f"web:latest@{DIGEST}")),
        ("never", live(f"web:latest@{DIGEST}", "web"), Image(f"web:latest@{DIGEST}")),
        ("changed", live("web:1", "web:1"), None),
        ("never", live("web:1", "web:1"), Image("web:latest")),
        ("changed", {"Labels": None, "TaskTemplate": {"ContainerSpec": {"Image": "x"}}}, None),
    ],
)
def test_a_registry_is_asked_when_docker_asks(
    mode: Resolve, in_swarm: dict[str, Any] | None, expected: Image | None
) -> None:
    assert choose("web", mode, in_swarm) == expected


def test_an_image_that_has_not_changed_keeps_its_platforms() -> None:
    platform = {"Architecture": "amd64", "OS": "linux"}
    assert choose("web", "changed", live("web:latest", "web", [platform])) == Image("web:latest", (platform,))


def test_platforms_are_those_that_can_be_run_and_nodes_of_arm_are_not_shut_out() -> None:
    answer = {
        "Descriptor": {"digest": DIGEST},
        "Platforms": [
            AMD64,
            {"architecture": "arm", "os": "linux", "variant": "v6"},
            {"architecture": "arm", "os": "linux", "variant": "v7"},
            {"architecture": "arm64", "os": "linux"},
            {"architecture": "unknown", "os": "unknown"},
        ],
    }
    assert found("web:1", answer) == Image(
        f"web:1@{DIGEST}",
        (
            {"Architecture": "amd64", "OS": "linux"},
            {"Architecture": "", "OS": "linux"},
            {"Architecture": "arm64", "OS": "linux"},
        ),
    )


def test_a_reference_by_digest_keeps_it() -> None:
    reference = f"web@sha256:{'b' * 64}"
    assert found(reference, {"Descriptor": {"digest": DIGEST}, "Platforms": None}) == Image(reference)


def test_the_answer_is_written_into_a_copy_of_the_spec() -> None:
    container = {"Image": "web", "User": "me"}
    spec = {"TaskTemplate": {"ContainerSpec": container, "Placement": {"MaxReplicas": 1}}}
    platform = {"Architecture": "amd64", "OS": "linux"}
    assert placed(spec, Image("web@1", (platform,)))["TaskTemplate"] == {
        "ContainerSpec": {"Image": "web@1", "User": "me"},
        "Placement": {"MaxReplicas": 1, "Platforms": [platform]},
    }
    assert placed(placed(spec, Image("web@1", (platform,))), Image("web"))["TaskTemplate"]["Placement"] == {
        "MaxReplicas": 1
    }
    assert container["Image"] == "web"


def test_moby_34351_credentials_go_with_a_new_service_or_another_image() -> None:
    spec = placed(live("", ""), Image("web@1"))
    assert needs_credentials(spec, None)
    assert needs_credentials(spec, live("web@2", "web"))
    assert not needs_credentials(spec, live("web@1", "web"))


# ---------------------------------------------------------------- asking the engine

_ANSWERS: dict[str, tuple[int, Any]] = {
    "web:latest": (200, {"Descriptor": {"digest": DIGEST}, "Platforms": [AMD64]}),
    "gone:1": (404, {"message": "manifest for gone:1 not found: manifest unknown"}),
    "private.example/a:1": (401, {"message": "unauthorized: authentication required"}),
    "private.example/b:1": (403, {"message": "denied: requested access to the resource is denied"}),
    "private.example/c:1": (500, {"message": "pull access denied for c, repository does not exist"}),
    "far.example/a:1": (500, {"message": 'Get "https://far.example/v2/": dial tcp: no such host'}),
}


class Asked:
    """An engine at a URL that has the answers of a registry, and remembers the credentials it was sent."""

    def __init__(self) -> None:
        asked = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = 200, {"ApiVersion": "1.45", "Version": "26.1"}
                if "/distribution/" in self.path:
                    name = self.path.partition("/distribution/")[2].removesuffix("/json")
                    asked.headers[name] = self.headers.get("X-Registry-Auth")
                    status, body = _ANSWERS[name]
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: the tests say what went wrong."""

        self.headers: dict[str, str | None] = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"tcp://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def asked() -> Iterator[Asked]:
    running = Asked()
    thread = threading.Thread(target=running.server.serve_forever, daemon=True)
    thread.start()
    yield running
    running.server.shutdown()
    running.server.server_close()
    thread.join()


@pytest.fixture
def engine(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.delenv("DOCKER_TLS_VERIFY", raising=False)
    engine = Engine.at(asked.url)
    yield engine
    engine.close()


def test_a_tag_becomes_the_digest_that_the_registry_has(engine: Engine, asked: Asked) -> None:
    expected = Image(f"web:latest@{DIGEST}", ({"Architecture": "amd64", "OS": "linux"},))
    assert look_up(engine, "docker.io/library/web", Credentials()) == expected
    assert asked.headers == {"web:latest": None}


@pytest.mark.parametrize(
    ("image", "reason", "warning"),
    [
        ("gone:1", "missing", "gone:1: docker.io has no such image; only nodes that hold it can run it"),
        (
            "private.example/a:1",
            "denied",
            "private.example/a:1: private.example denies access, or has no such image; if it is private:"
            " docker login private.example",
        ),
        ("private.example/b:1", "denied", ""),
        ("private.example/c:1", "denied", ""),
        (
            "far.example/a:1",
            "unreachable",
            'far.example/a:1: far.example cannot be reached from the manager (Get "https://far.example/v2/":'
            " dial tcp: no such host); each node will look for the tag by itself, and may find another image",
        ),
    ],
)
def test_an_image_that_cannot_be_resolved_says_which_of_three_things_is_wrong(
    engine: Engine, image: str, reason: str, warning: str
) -> None:
    answer = look_up(engine, image, Credentials())
    assert isinstance(answer, Unresolved)
    assert answer.reason == reason
    assert warning in ("", answer.warning())


def test_images_are_looked_up_once_each(engine: Engine, asked: Asked) -> None:
    answers = look_up_all(engine, ["web", "gone:1", "web"], Credentials())
    assert list(answers) == ["gone:1", "web"]
    assert len(warnings(answers)) == 1
    assert set(asked.headers) == {"gone:1", "web:latest"}


def test_the_credentials_of_its_registry_go_with_the_question(
    engine: Engine, asked: Asked, tmp_path: Path
) -> None:
    auth = base64.b64encode(f"me:{SECRET}".encode()).decode()
    credentials = configured(tmp_path, {"auths": {"private.example": {"auth": auth}}})
    look_up_all(engine, ["web", "private.example/a:1"], credentials)
    assert asked.headers["web:latest"] is None
    assert decoded(asked.headers["private.example/a:1"]) == {
        "username": "me",
        "password": SECRET,
        "serveraddress": "private.example",
    }


# ---------------------------------------------------------------- credentials


def configured(folder: Path, config: object) -> Credentials:
    (folder / "config.json").write_text(json.dumps(config))
    return Credentials.read({"DOCKER_CONFIG": str(folder)})


def decoded(header: str | None) -> Any:
    assert header
    return json.loads(base64.urlsafe_b64decode(header))


def helper(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A credential helper that keeps what it was asked in `asked` beside it."""
    program = folder / f"docker-credential-{name}"
    program.write_text(f'#!/bin/sh\nserver=$(cat)\necho "$* $server" >>"{folder}/asked"\n{script}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("web", "docker.io"),
        ("me/web:1", "docker.io"),
        ("docker.io/me/web", "docker.io"),
        ("index.docker.io/me/web", "docker.io"),
        ("r.example/web@sha256:1", "r.example"),
        ("r:5000/web", "r:5000"),
        ("localhost/web", "localhost"),
        ("Upper/web", "Upper"),
        ("web:1.2", "docker.io"),
    ],
)
def test_the_registry_of_an_image(image: str, registry: str) -> None:
    assert registry_of(image) == registry


def test_without_a_configuration_there_are_no_credentials(tmp_path: Path) -> None:
    assert Credentials.read({"HOME": str(tmp_path)}).headers("web") == {}


def test_the_configuration_is_in_the_home_of_the_user(tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    configured(tmp_path / ".docker", {"auths": {"r.example": {"username": "me", "password": SECRET}}})
    header = Credentials.read({"HOME": str(tmp_path)}).headers("r.example/web")["X-Registry-Auth"]
    assert decoded(header)["password"] == SECRET


@pytest.mark.parametrize(
    ("key", "image"),
    [
        ("https://index.docker.io/v1/", "web"),
        ("index.docker.io", "me/web"),
        ("https://r.example", "r.example/web"),
        ("r.example:5000", "r.example:5000/web"),
    ],
)
def test_registries_are_found_as_docker_login_wrote_them(key: str, image: str, tmp_path: Path) -> None:
    credentials = configured(tmp_path, {"auths": {key: {"username": "me", "password": SECRET}}})
    assert decoded(credentials.header(image))["username"] == "me"


def test_an_identity_token_goes_in_place_of_a_password(tmp_path: Path) -> None:
    credentials = configured(tmp_path, {"auths": {"r.example": {"identitytoken": SECRET}}})
    assert decoded(credentials.header("r.example/web")) == {
        "identitytoken": SECRET,
        "serveraddress": "r.example",
    }


@given(st.text(st.characters(exclude_characters=":", exclude_categories=["Cs"]), min_size=1), st.text())
def test_any_user_and_password_arrive(user: str, password: str) -> None:
    encoded = base64.b64encode(f"{user}:{password}".encode("utf-8", "replace")).decode()
    header = Credentials("file", {"auths": {"r.example": {"auth": encoded}}}).header("r.example/web")
    assert decoded(header)["username"] == user
    assert "+" not in str(header)
    assert "/" not in str(header)


def test_a_helper_of_the_registry_goes_before_the_store_and_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper(tmp_path, "own", f"""echo '{{"Username": "own", "Secret": "{SECRET}"}}'""", monkeypatch)
    helper(tmp_path, "store", f"""echo '{{"Username": "<token>", "Secret": "{SECRET}"}}'""", monkeypatch)
    credentials = configured(
        tmp_path,
        {
            "credHelpers": {"r.example": "own"},
            "credsStore": "store",
            "auths": {"r.example": {"username": "file", "password": "x"}},
        },
    )
    assert decoded(credentials.header("r.example/web"))["username"] == "own"
    assert decoded(credentials.header("web")) == {
        "identitytoken": SECRET,
        "serveraddress": "https://index.docker.io/v1/",
    }
    asked = (tmp_path / "asked").read_text()
    assert asked == "get r.example\nget https://index.docker.io/v1/\n"


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    def auths(**users: str) -> dict[str, Any]:
        encoded = {key: base64.b64encode(f"{user}:{SECRET}".encode()).decode() for key, user in users.items()}
        return {"auths": {f"{key}.example": {"auth": auth} for key, auth in encoded.items()}}

    (tmp_path / "config.json").write_text(json.dumps(auths(a="file", b="file")))
    environment = {"DOCKER_AUTH_CONFIG": json.dumps(auths(a="environment"))}
    both = Credentials.read({"DOCKER_CONFIG": str(tmp_path), **environment})
    assert decoded(both.header("a.example/web"))["username"] == "environment"
    assert decoded(both.header("b.example/web"))["username"] == "file"
    alone = Credentials.read({"HOME": "/nowhere", **environment})
    assert decoded(alone.header("a.example/web"))["username"] == "environment"
    assert alone.header("b.example/web") is None
    assert SECRET not in repr(both)
    with pytest.raises(UsageError, match="not JSON") as caught:
        Credentials.read({"DOCKER_AUTH_CONFIG": f"{{{SECRET}"})
    assert caught.value.where == "DOCKER_AUTH_CONFIG"
    assert SECRET not in str(caught.value)


def test_a_helper_that_has_none_is_no_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path, "empty", "echo credentials not found in native keychain; exit 1", monkeypatch)
    assert configured(tmp_path, {"credsStore": "empty"}).header("web") is None


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (f"echo {SECRET}; echo {SECRET} >&2; exit 3", "gave no credentials for r.example (exit code 3)"),
        (f"echo '{SECRET}'", "answered something else than credentials"),
        (f"""echo '["{SECRET}"]'""", "answered something else than credentials"),
    ],
)
def test_a_helper_that_fails_is_named_and_what_it_printed_is_not_shown(
    script: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper(tmp_path, "bad", script, monkeypatch)
    with pytest.raises(OperationFailed) as caught:
        configured(tmp_path, {"credsStore": "bad"}).header("r.example/web")
    assert str(caught.value) == f"docker-credential-bad {message}"
    assert SECRET not in caught.value.hint


def test_a_helper_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OperationFailed, match="docker-credential-nowhere cannot be asked") as caught:
        configured(tmp_path, {"credsStore": "nowhere"}).header("web")
    assert str(tmp_path) in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        f'{{"auths": {{"r.example": {{"auth": "{SECRET}"}}}}}}',
        f'{{"auths": "{SECRET}"}}',
        f'["{SECRET}"]',
        f'{{"{SECRET}"',
    ],
)
def test_a_file_that_makes_no_sense_is_an_error_that_shows_none_of_it(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError) as caught:
        Credentials.read({"DOCKER_CONFIG": str(tmp_path)}).header("r.example/web")
    error: SwarmkitError = caught.value
    assert str(tmp_path) in error.where
    assert SECRET not in f"{error} {error.hint}"


def test_credentials_are_in_no_repr() -> None:
    credentials = Credentials("file", {"auths": {"r.example": {"username": "me", "password": SECRET}}})
    assert SECRET not in repr(credentials)
