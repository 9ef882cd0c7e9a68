"""The story of `make demo`: a swarm of three machines on this one, step by step, in words.

Every step is the command that a user would type. The lab stays; `make clean` removes it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

SWARMKIT = Path(sys.executable).with_name("swarmkit")
LAB = "demo"


def run(*arguments: str, inventory: Path | None = None, quiet: bool = False) -> Any:
    """Run a swarmkit command; its progress passes through unless `quiet`, its JSON result is returned."""
    options = ["-i", str(inventory)] if inventory else []
    done = subprocess.run(
        [SWARMKIT, "-o", "json", *options, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if quiet else None,
        text=True,
        check=False,
    )
    if done.returncode:
        print(f"\nThis step failed, with exit code {done.returncode}. `make clean` removes what there is.")
        sys.exit(done.returncode)
    return json.loads(done.stdout)


def step(words: str, *arguments: str, inventory: Path | None = None) -> Any:
    """Say what comes, do it, and say how long it took."""
    print(f"\n\033[1m{words}\033[0m" if sys.stdout.isatty() else f"\n{words}", flush=True)
    print(f"$ swarmkit {' '.join(arguments)}", flush=True)
    start = time.monotonic()
    result = run(*arguments, inventory=inventory)
    print(f"  done in {time.monotonic() - start:.1f} s", flush=True)
    return result


def answers(url: str, count: int) -> Counter[str]:
    """Who answers `count` requests: tasks with their nodes."""
    seen: Counter[str] = Counter()
    for _ in range(count):
        with urllib.request.urlopen(f"{url}/whoami", timeout=10) as answer:
            who = json.load(answer)
        seen[f"{'.'.join(who['task'].split('.')[:2])} on {who['node']}"] += 1
    return seen


def show_answers(url: str, count: int = 60) -> None:
    """Ask the balancer, and print who answered."""
    print(f"  {count} requests to {url} were answered by:")
    for who, times in sorted(answers(url, count).items()):
        print(f"    {who}: {times}")


def main() -> None:
    """Tell the story."""
    lab = step("Three machines, as bare as rented ones", "lab", "up", "--bare", "--name", LAB)
    inventory, url = Path(lab["inventory"]), lab["urls"]["balancer"]
    workers = [node["name"] for node in lab["nodes"] if node["role"] == "worker"]

    def on_lab(words: str, *arguments: str) -> Any:
        return step(words, *arguments, inventory=inventory)

    on_lab("Docker on all of them, and one swarm of the three", "init")
    again = on_lab("The same again: there is nothing to do", "init")
    print(f"  changed: {again['changed']}")
    on_lab("A web site of three tasks, behind a load balancer", "stack", "up", "web")
    show_answers(url)
    on_lab("Seven tasks", "scale", "web=7")
    show_answers(url)
    on_lab(f"{workers[-1]} has to be serviced: its tasks move", "node", "drain", workers[-1])
    show_answers(url)
    on_lab(f"{workers[-1]} is back", "node", "activate", workers[-1])

    print("\nPower cut: all machines off, then only the manager on again", flush=True)
    start = time.monotonic()
    for node in lab["nodes"]:
        run("lab", "stop", node["name"], "--name", LAB, quiet=True)
    run("lab", "start", "m1", "--name", LAB, quiet=True)
    while True:
        try:
            if sum(answers(url, 20).values()) == 20:
                break
        except OSError:
            if time.monotonic() - start > 120:
                sys.exit("The site did not come back in two minutes.")
            time.sleep(0.5)
    print(f"  the site answers again {time.monotonic() - start:.1f} s after the power cut began")
    show_answers(url, 20)
    for worker in workers:
        run("lab", "start", worker, "--name", LAB, quiet=True)
    on_lab("The workers are on again, and the swarm is whole", "init")

    print(f"\nOpen {url} and reload it: each time another task answers.")
    print(f"The inventory is {inventory}; try `.venv/bin/swarmkit -i {inventory} status`.")
    print("`make clean` removes everything.")


if __name__ == "__main__":
    main()
