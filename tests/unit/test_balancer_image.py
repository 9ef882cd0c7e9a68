"""What the controller's image is made of does for it, without what speaks to engines."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

from swarmkit.images.context import packed
from swarmkit.resources import PACKAGE, folder

# In the image there is none of what the toolkit itself brings along.
BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in {blocked!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
import swarmkit
assert swarmkit.__file__.startswith({place!r}), swarmkit.__file__
import swarmkit.balancer.controller, swarmkit.balancer.filter
"""
OURS = (
    *("docker", "paramiko", "pydantic", "tenacity", "fabric", "invoke", "jinja2", "platformdirs", "yaml"),
    *("cryptography", "rich", "ruamel", "typer", "click", "requests", "urllib3"),
)


def contents(dockerfile: Path) -> list[str]:
    with packed(PACKAGE, str(dockerfile)) as context, tarfile.open(fileobj=context.archive) as archive:
        return archive.getnames()


def test_the_controller_can_be_imported_with_what_is_in_its_image_alone(tmp_path: Path) -> None:
    dockerfile = folder("nginx") / "controller" / "Dockerfile"
    with packed(PACKAGE, str(dockerfile)) as context, tarfile.open(fileobj=context.archive) as archive:
        archive.extractall(tmp_path / "swarmkit", filter="data")
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(blocked=OURS, place=str(tmp_path))],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_no_more_of_the_package_is_in_the_image_than_it_needs() -> None:
    names = contents(folder("nginx") / "controller" / "Dockerfile")
    assert "balancer/controller.py" in names
    assert not [
        name for name in names if name.startswith(("cli", "remote", "_data")) or "__pycache__" in name
    ]
    # The command's side changes more often, and would make a new controller each time.
    assert "balancer/deploy.py" not in names


def test_nothing_of_the_proxy_s_image_changes_with_the_stack_or_the_controller() -> None:
    with packed(folder("nginx")) as context, tarfile.open(fileobj=context.archive) as archive:
        assert {*archive.getnames()} - {".dockerignore"} == {"Dockerfile", "agent.py"}
