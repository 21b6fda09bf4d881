"""Runs a command in a terminal of its own until it shows what it should, ends it, and
tells as JSON what it wrote and how it left the terminal.

terminal.py END [NAME=VALUE ...] -- COMMAND...
END is a signal's name without SIG, or what is typed.
"""

import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time

end, *rest = sys.argv[1:]
environment = dict(pair.split("=", 1) for pair in rest[: rest.index("--")])
command = rest[rest.index("--") + 1 :]

ours, theirs = os.openpty()
fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
before = termios.tcgetattr(theirs)
child = subprocess.Popen(
    command,
    stdin=theirs,
    stdout=theirs,
    stderr=theirs,
    start_new_session=True,
    env={"TERM": "xterm-256color", "LANG": "C.UTF-8", **environment},
)
output = b""


def read(seconds):
    """What it has written meanwhile."""
    ready, _, _ = select.select([ours], [], [], seconds)
    return os.read(ours, 65536) if ready else b""


deadline = time.monotonic() + 60
while b"acme" not in output and child.poll() is None and time.monotonic() < deadline:
    output += read(0.1)
raw = not termios.tcgetattr(theirs)[3] & (termios.ICANON | termios.ECHO)

if hasattr(signal, "SIG" + end):
    child.send_signal(getattr(signal, "SIG" + end))
else:
    os.write(ours, end.encode().decode("unicode_escape").encode())

deadline = time.monotonic() + 60
while child.poll() is None and time.monotonic() < deadline:
    output += read(0.1)
if child.poll() is None:
    child.kill()
code = child.wait()
while more := read(0.2):
    output += more

print(
    json.dumps(
        {
            "code": code,
            "raw": raw,
            "restored": termios.tcgetattr(theirs) == before,
            "output": output.decode(errors="replace"),
        }
    )
)
