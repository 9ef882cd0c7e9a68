"""The wheel: whole, and of use far from the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, folder: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SWARMKIT")}
    environment["SWARMKIT_HOME"] = str(folder / "home")
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=240, env=environment, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_an_installed_wheel_brings_the_catalogue_and_all_data(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT, folder=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "venv", folder=tmp_path)
    python = tmp_path / "venv/bin/python"
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel, folder=tmp_path)

    swarmkit = tmp_path / "venv/bin/swarmkit"
    stacks = json.loads(run(swarmkit, "stack", "ls", "-o", "json", folder=tmp_path))
    assert "web" in {stack["name"] for stack in stacks}
    assert "services:" in run(swarmkit, "stack", "render", "web", folder=tmp_path)
    data = "from swarmkit.resources import folder; print(*(str(p.relative_to(folder('lab').parent)) "
    data += "for name in ('stacks', 'nginx', 'inventories', 'lab') for p in folder(name).rglob('*')))"
    found = run(python, "-c", data, folder=tmp_path).split()
    assert {
        "stacks/web/image/Dockerfile",
        "nginx/agent.py",
        "nginx/stack.yml",
        "nginx/.dockerignore",
        "lab/Dockerfile",
        "inventories/one-vm.yml",
    } <= {*found}
    assert "images/base.sh" in run(
        python,
        "-c",
        "import swarmkit.images as i, pathlib; print(*pathlib.Path(i.__file__).parent.parent.rglob('*.sh'))",
        folder=tmp_path,
    )
    # The package itself is what the balancer's controller is built from, without the data beside it.
    context = "import tarfile\nfrom swarmkit.images.context import packed\n"
    context += "from swarmkit.resources import PACKAGE, folder\n"
    context += "with packed(PACKAGE, str(folder('nginx') / 'controller' / 'Dockerfile')) as found:\n"
    context += "    print(*tarfile.open(fileobj=found.archive).getnames())\n"
    names = run(python, "-c", context, folder=tmp_path).split()
    assert "balancer/controller.py" in names
    assert not [name for name in names if name.startswith(("cli/", "_data/stacks"))]
