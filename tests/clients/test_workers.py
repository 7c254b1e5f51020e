"""The workers of examples/, each beside a service that is overloaded, is restarted in the middle, and keeps count.

All three run at once, in projects of their own, so that one restart does for all.
"""

import collections
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

from service import TOKEN, new_project

PROGRAM, RUST_WORKER = os.environ["DMS_TEST_PROGRAM"], os.environ["DMS_TEST_RUST_WORKER"]
PYTHON_WORKERS = Path(__file__).resolve().parents[2] / "examples" / "python"
WORKERS = {
    "rest": [sys.executable, PYTHON_WORKERS / "worker_rest.py"],
    "grpc": [sys.executable, PYTHON_WORKERS / "worker_grpc.py"],
    "rust": [RUST_WORKER],
}
# So little that a worker meets the limit when the test calls too.
CALLS_PER_SECOND = 5
MAX_CONSUME_COUNT = 3
# Of each wait, and of the whole test: a worker that misses one is not waited for again.
PATIENCE = 120
PATIENCE_OF_ALL = 480


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Patience:
    """The time that the test has left."""

    ends = 0.0

    @classmethod
    def begin(cls):
        cls.ends = time.monotonic() + PATIENCE_OF_ALL

    @classmethod
    def left(cls):
        return max(0.1, min(PATIENCE, cls.ends - time.monotonic()))


def eventually(what, condition):
    limit = Patience.left()
    ends = time.monotonic() + limit
    while not (found := condition()):
        if time.monotonic() > ends:
            raise AssertionError(f"not within {limit:.0f} s: {what}")
        time.sleep(0.5)
    return found


class Service:
    """A `dms dev` with ports and data of its own, to start more than once."""

    def __init__(self, folder):
        self.folder, self.process = folder, None
        self.rest, self.grpc = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"

    def start(self):
        command = [PROGRAM, "dev", "--grpc-addr", self.grpc, "--rest-addr", self.rest, "--data-dir", self.folder / "data"]
        command += ["--project-calls-per-second", str(CALLS_PER_SECOND)]
        environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
        with open(self.folder / "service.log", "a") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
        killer = threading.Timer(Patience.left(), self.process.kill)
        killer.start()
        try:
            for line in self.process.stdout:
                if line.startswith("Ctrl-C"):
                    return
        finally:
            killer.cancel()
        raise AssertionError((self.folder / "service.log").read_text())

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
        if self.process:
            self.process.stdout.close()


class Project:
    """A project with one worker, and what the service says of it over REST."""

    def __init__(self, service, name, folder):
        self.service, self.name, self.log = service, name, folder / f"{name}.log"
        self.id, self.worker, self.sent = new_project(), None, 0
        self.log.touch()

    def start(self):
        environment = os.environ | {"DMS_PROJECT": self.id, "DMS_TOKEN": TOKEN}
        environment |= {"DMS_URL": f"http://{self.service.rest}", "DMS_GRPC": self.service.grpc}
        with open(self.log, "a") as log:
            self.worker = subprocess.Popen(WORKERS[self.name], env=environment, stdout=log, stderr=log)

    def terminate(self):
        self.worker.send_signal(signal.SIGTERM)

    def kill(self):
        if self.worker and self.worker.poll() is None:
            self.worker.kill()
            self.worker.wait()

    def ending(self):
        """The end of its log, and its status when it has one."""
        return f"status {self.worker and self.worker.poll()}, {self.log.read_text()[-2000:]}"

    def said(self, pattern):
        return re.findall(pattern, self.log.read_text())

    def handled(self):
        return [int(order) for order in self.said(r"handled order (\d+)")]

    def attempt(self, path, body=None):
        """The answer in a list, or nothing when the limit of calls is met."""
        headers = {"X-Auth-Token": TOKEN, "Content-Type": "application/json"}
        data = body and json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.service.rest}/v1.0/{self.id}{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return [json.load(answer)]
        except urllib.error.HTTPError as error:
            with error:
                if error.headers["Retry-After"] is None:
                    raise
            return None

    def call(self, path, body=None):
        return eventually(f"an answer to {path}", lambda: self.attempt(path, body))[0]

    def has_met_the_limit(self):
        """Whether the worker has; makes so many calls for a second that it will when it makes one."""
        ends = time.monotonic() + 1
        while not (met := self.said("next attempt")) and time.monotonic() < ends:
            self.attempt("/queues")
        return met

    def queue(self):
        """The path of its queue, when the worker has made it with its group."""
        for queue in self.call("/queues")["queues"]:
            if queue["name"] == "orders" and queue["group_count"]:
                return f"/queues/{queue['id']}"
        return None

    def group(self):
        [group] = self.call(f"{self.queue()}/groups?include_deadletter=true")["groups"]
        return group

    def send(self, count, takes, poison=()):
        bodies = [{"order": self.sent + index, "takes": takes} for index in range(count)]
        self.sent += count
        bodies[1:1] = poison
        for first in range(0, len(bodies), 10):
            self.call(f"{self.queue()}/messages", {"messages": [{"body": body} for body in bodies[first : first + 10]]})

    def dead_letters(self):
        path = f"{self.queue()}/groups/{self.group()['id']}/deadletters?time_wait=1"
        found = []
        while letters := self.call(path):
            found += [letter["message"]["body"] for letter in letters]
        return found


class Workers(unittest.TestCase):
    def setUp(self):
        # Readable to the user of Postgres, when this is root.
        folder = Path(tempfile.mkdtemp(dir=os.environ["DMS_TEST_WORK"]))
        folder.chmod(0o755)
        self.service = Service(folder)
        self.addCleanup(self.service.stop)
        self.projects = [Project(self.service, name, folder) for name in WORKERS]
        for project in self.projects:
            self.addCleanup(project.kill)
        Patience.begin()

    def each(self, what, condition):
        for project in list(self.projects):
            with self.subTest(worker=project.name):
                try:
                    eventually(f"{project.name} {what}", lambda: condition(project))
                except Exception as error:
                    self.projects.remove(project)
                    raise AssertionError(f"{project.name} {what}: {error}: {project.ending()}") from error

    def end_each(self):
        for project in self.projects:
            project.terminate()
        self.each("ends", lambda project: project.worker.poll() is not None)

    def test_each_message_is_settled_as_it_should_be_through_overload_a_restart_and_the_end_of_workers(self):
        self.service.start()
        for project in self.projects:
            project.start()
        self.each("makes its queue and group", Project.queue)

        for project in self.projects:
            project.send(20, takes=0.05, poison=["poison 1", {"poison": 2}])
        self.each("handles some", lambda project: len(project.handled()) >= 10)
        self.each("has met the limit of calls", Project.has_met_the_limit)
        self.service.stop()
        self.service.start()
        for project in self.projects:
            project.send(10, takes=0.05, poison=["poison 3"])
        self.each("handles all", lambda project: len(project.handled()) >= 30)
        self.each("buries the poison", lambda project: project.group()["produced_deadletters"] == 3)

        # Told to end while it holds a batch: what it has handled is settled when it has ended.
        for project in self.projects:
            project.send(20, takes=0.5)
        self.each("begins a batch", lambda project: len(project.handled()) > 30)
        self.end_each()
        for project in self.projects:
            with self.subTest(worker=project.name):
                self.assertEqual(project.worker.returncode, 0, project.log.read_text())
                self.assertEqual(project.group()["consumed_messages"], len(project.handled()))
                self.assertLess(len(project.handled()), 50, "it has ended before it had handled all")

        # The next worker finds queue and group by name.
        for project in self.projects:
            project.start()
        self.each("handles the rest", lambda project: project.group()["available_messages"] == 0)
        self.end_each()
        for project in self.projects:
            with self.subTest(worker=project.name):
                self.assertEqual(project.worker.returncode, 0, project.log.read_text())
                self.check_settled(project)

    def check_settled(self, project):
        self.assertEqual(sorted(project.handled()), list(range(50)), "each is handled once")
        group = project.group()
        counters = ["produced_messages", "consumed_messages", "available_messages", "produced_deadletters"]
        self.assertEqual([group[counter] for counter in counters], [53, 50, 0, 3])
        bodies = collections.Counter(json.dumps(body) for body in project.dead_letters())
        self.assertEqual(bodies, {'"poison 1"': 1, '{"poison": 2}': 1, '"poison 3"': 1})
        self.assertEqual(len(project.said("message .*has failed")), 3 * MAX_CONSUME_COUNT)
        self.assertEqual(project.said("not settled"), [])


if __name__ == "__main__":
    unittest.main()
