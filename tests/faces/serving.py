"""A node under load in a folder of its own, asked and told as anybody would."""

import atexit
import functools
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

PROGRAM = os.environ["BULKHEAD"]
# Longer than anything takes that goes well, on a slow and busy machine too, seconds.
PATIENCE = 180

# All four series are measured in it.
ROLLOUT = Path(__file__).with_name("rollout.toml").read_text()


def until(what, condition, patience=PATIENCE, every=0.05):
    """The first true value of `condition`, asked again until there is one."""
    deadline = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience} s: {what}")
        # Between two questions; what is waited for is the condition.
        threading.Event().wait(every)


class Serving:
    """`bulkhead serve`, killed when the `with` is left."""

    def __init__(self, policy=ROLLOUT, arguments=("--nodes", "2", "--load", "steady", "--rate", "50")):
        self.temporary = tempfile.TemporaryDirectory(prefix="faces-")
        self.folder = Path(self.temporary.name)
        self.head = f'schema = 1\n[code_cache]\ndirectory = "{self.folder}/code"\n'
        (self.folder / "p.toml").write_text(self.head + policy)
        self.log = (self.folder / "stderr").open("w+")
        command = [PROGRAM, "serve", "--config", "p.toml", "--state", "state", "--http", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            [*command, *arguments], cwd=self.folder, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        self.said = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.address = self._address()
        except BaseException:
            self.__exit__()
            raise

    def _read(self):
        for line in self.process.stdout:
            self.said.put(line)
        self.said.put(None)

    def _address(self):
        lines = []
        while (line := self.said.get(timeout=PATIENCE)) is not None:
            if line.startswith("http://"):
                return line.strip().rstrip("/")
            lines.append(line)
        self.log.seek(0)
        raise AssertionError("the node ended: " + "".join(lines) + self.log.read())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.log.close()
        self.temporary.cleanup()

    def get(self, path, accept=None):
        """Type and bytes of an answer, which has to be a good one."""
        request = urllib.request.Request(self.address + path, headers={"Accept": accept} if accept else {})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.headers["Content-Type"], answer.read()

    def json(self, path):
        """An answer as data."""
        return json.loads(self.get(path)[1])

    def told(self, *arguments):
        """A command on the admin socket, which has to succeed."""
        command = [PROGRAM, *arguments, "--admin", "state/admin.sock", "--reason", "a test of the faces"]
        ran = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE)
        assert ran.returncode == 0, f"{arguments}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def rollout(self):
        """The rollout as the node shows it."""
        return self.json("/v1/rollouts/faces")

    def start_rollout(self):
        """Starts it and waits for the step in which both nodes are measured, each in its mode."""
        until("the rollout is planned", self._planned)
        self.told("start", "faces")
        until("one node is sandboxed", lambda: (self.rollout()["step"] or {}).get("name") == "one-node")

    def _planned(self):
        try:
            return self.rollout()["phase"] == "planned"
        except urllib.error.HTTPError:
            return False


@functools.cache
def running():
    """One node for all tests: it rolls out, a guard has spoken, and both modes go on being measured."""
    node = Serving()
    atexit.register(node.__exit__)
    node.start_rollout()
    until("a guard has a ratio", lambda: any(one["ratio"] for one in node.rollout()["verdicts"]))
    return node
