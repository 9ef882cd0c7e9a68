"""A secret input on its way from what the user gives to what the swarm gets, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmkit.compose.convert import convert
from swarmkit.compose.load import written
from swarmkit.deploy.catalogue import find
from swarmkit.deploy.draft import Draft, draft
from swarmkit.deploy.values import Given
from swarmkit.errors import Problems, SwarmkitError

SECRET = "correct horse"
ENVIRONMENT = {"SWARMKIT_INPUT_TOKEN": SECRET}


def drafted(folder: Path, text: str) -> Draft:
    (folder / "inputs.yml").write_text("token: {type: secret}\n")
    (folder / "stack.yml.j2").write_text(text)
    return draft(find(str(folder)), Given(environment=ENVIRONMENT))


def test_it_becomes_a_secret_of_the_swarm(tmp_path: Path) -> None:
    made = drafted(
        tmp_path,
        "services: {a: {image: x, secrets: [token]}}\n"
        "secrets: {token: {environment: SWARMKIT_INPUT_TOKEN}}\n",
    )
    project = made.ready(ENVIRONMENT).project
    stack = convert(project, "s")
    (secret,) = stack.secrets
    assert (secret.name, secret.data) == ("s_token", SECRET.encode())
    assert project.warnings == ()
    shown = f"{made!r} {made.render()!r} {project!r} {written(project)} {stack!r} {stack.services[0].spec}"
    assert SECRET not in shown
    assert "secret-input" not in shown


@pytest.mark.parametrize(
    "text",
    [
        "services: {a: {image: 'x:$SWARMKIT_INPUT_TOKEN'}}",
        "services: {a: {image: x, env_file: vars}}",
        "services: {a: {image: x, environment: [SWARMKIT_INPUT_TOKEN]}}",
        "services: {a: {image: x}}\nconfigs: {c: {environment: SWARMKIT_INPUT_TOKEN}}",
        "services: {a: {image: x}}\nconfigs: {c: {content: '${SWARMKIT_INPUT_TOKEN}'}}",
        "services: {a: {image: x, build: {context: ., args: [SWARMKIT_INPUT_TOKEN]}}}",
        "services: {a: {extends: {file: other.yml, service: b}}}",
        "include: [other.yml]\nservices: {a: {image: x}}",
        "name: 'n$SWARMKIT_INPUT_TOKEN'\nservices: {a: {image: x}}",
        "services: {a: {image: x}}\nnetworks: {default: {name: '$SWARMKIT_INPUT_TOKEN'}}",
    ],
)
def test_it_gets_nowhere_else(tmp_path: Path, text: str) -> None:
    (tmp_path / "vars").write_text("A=${SWARMKIT_INPUT_TOKEN}\nSWARMKIT_INPUT_TOKEN\n")
    (tmp_path / "other.yml").write_text("services: {b: {image: x, command: '${SWARMKIT_INPUT_TOKEN}'}}")
    (tmp_path / "Dockerfile").touch()
    made = drafted(tmp_path, text)
    with pytest.raises(SwarmkitError) as caught:
        made.ready(ENVIRONMENT)
    errors = caught.value.errors if isinstance(caught.value, Problems) else [caught.value]
    said = "".join(f"{each} {each.hint} {each!r}" for each in errors)
    assert SECRET not in said
    assert "secret" in said
