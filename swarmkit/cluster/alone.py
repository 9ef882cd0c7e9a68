"""Work on one machine that is done to its end, and by one run at a time."""

from __future__ import annotations

LOCK = "/run/swarmkit.lock"
# How long an earlier run may go on, and how long the work may be silent: apt has no limit of its own.
WAIT_SECONDS = 600
ALONE_SECONDS = 3600

_SCRIPT = """\
work() {{
{script}
}}
said=$(mktemp -d) || exit 1
(
  flock -w {seconds} 9 || {{ echo 'another run has been at work here for {seconds} s' >&2; exit 1; }}
  (work) 9>&- >"$said/out" 2>"$said/err"
  # A shell may become its last command, and the lock would go with what it closes.
  exit $?
) 9>{lock}
status=$?
cat "$said/out"
cat "$said/err" >&2
rm -rf "$said"
exit $status
"""


def alone(script: str, lock: str = LOCK) -> str:
    """Shell (run as root) that runs a script when no other one that was made so runs on the machine.

    A run of swarmkit that is interrupted leaves its script at work there. What the script prints is kept
    until it is done: if it were sent at once, the script would end at its next word, and apt half-way
    through its packages. Ends with the script's status, or with 1 where the other one does not end.
    """
    return _SCRIPT.format(script=script, seconds=WAIT_SECONDS, lock=lock)
