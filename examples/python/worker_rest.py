#!/usr/bin/env python3
"""A worker over REST, with nothing but Python's standard library.

It finds or creates its queue and its group by name, consumes with a long poll, settles what it has handled, lives through restarts
and overload of the service, and on SIGTERM finishes what it holds. To use it, copy it and put your work into `handle`.
"""

import http.client
import json
import logging
import os
import random
import re
import signal
import sys
import threading
import time
from urllib.parse import urlencode, urlsplit

URL = urlsplit(os.environ.get("DMS_URL", "http://127.0.0.1:8080"))
PROJECT = os.environ.get("DMS_PROJECT", "demo")
TOKEN = os.environ.get("DMS_TOKEN")
QUEUE = {"name": "orders", "redrive_policy": "enable", "max_consume_count": 3}
GROUP = {"name": "billing"}
BATCH = 10  # messages that are consumed at once
LEASE = 60  # seconds in which a whole batch is handled and settled; what takes longer is delivered again
WAIT = 10  # seconds that a poll waits for messages, and that SIGTERM may have to wait for a poll
PAUSE_MAX = 5  # seconds between two attempts to reach a service that is away

log = logging.getLogger("worker")
stopping = threading.Event()


def handle(body):
    """Does the work for one message. Deliveries are at least once, so the work must bear to be done again.

    What it raises fails the message: it is delivered again, and becomes a dead letter when it has failed max_consume_count times.
    """
    order = body["order"]
    time.sleep(body.get("takes", 0))  # stands for the work
    print(f"handled order {order}", flush=True)


class Refused(Exception):
    """An answer that would be the same if the call were made again."""

    def __init__(self, answer):
        super().__init__(f"{answer.get('error_code')}: {answer.get('error_msg')}")
        self.code = answer.get("error_code")


class Unreadable(Exception):
    """A good answer with a body that Python's parser refuses, such as one a thousand arrays deep: DMS takes any JSON value."""

    def handler(self):
        """Of the last message in the answer: it stands behind the message."""
        found = re.search(rb'"handler":"([A-Za-z0-9_-]+)"[^{}]*}]$', self.args[0])
        return found and found[1].decode()


class Client:
    """Calls of one project, over one connection that is made anew when it is lost."""

    def __init__(self):
        connect = http.client.HTTPSConnection if URL.scheme == "https" else http.client.HTTPConnection
        self.connection = connect(URL.netloc, timeout=WAIT + 20)
        self.headers = {"Content-Type": "application/json"} | ({"X-Auth-Token": TOKEN} if TOKEN else {})

    def call(self, method, path, body=None, until=None):
        """The answer to a call, which is tried again while the service is away or overloaded: until a time of the monotonic
        clock, or else until the worker is to stop."""
        pause = 0.1
        while True:
            try:
                status, retry_after, answer = self.attempt(method, path, body)
                if status < 300:
                    return answer
                # Overload is a 404 with Retry-After; a 404 without it is final.
                if retry_after is None and status < 500:
                    raise Refused(answer)
                reason = answer.get("error_msg")
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.connection.close()
                retry_after, reason = None, error
            if time.monotonic() > until if until else stopping.is_set():
                raise TimeoutError(f"{method} {path}: {reason}")
            pause = float(retry_after) if retry_after else min(2 * pause, PAUSE_MAX)
            log.warning("%s %s: %s; next attempt in about %.1f s", method, path, reason, pause)
            time.sleep(pause * random.uniform(1, 1.5))

    def attempt(self, method, path, body):
        self.connection.request(method, f"/v1.0/{PROJECT}{path}", body and json.dumps(body), self.headers)
        response = self.connection.getresponse()
        text = response.read()
        try:
            answer = json.loads(text)
        except (RecursionError, ValueError):
            if response.status >= 300:
                raise ValueError(f"an answer with status {response.status} that is not JSON") from None
            raise Unreadable(text) from None
        return response.status, response.headers["Retry-After"], answer


def find_or_create(client, path, kind, settings, request):
    """The id of the queue or group that has this name."""

    def find():
        return next((found["id"] for found in client.call("GET", path)[kind] if found["name"] == settings["name"]), None)

    if not (found := find()):
        try:
            client.call("POST", path, request)
        except Refused as refused:
            # Another worker that has just started was faster.
            if refused.code not in ("DMS.10240017", "DMS.10240018"):
                raise
        found = find()
    return found


def handle_batch(batch):
    """The entries that settle a batch. The service walks them in order, and what stands behind a failure fails with it, whatever
    its status: so what succeeded comes first."""
    succeeded, failed = [], []
    for delivery in batch:
        try:
            handle(delivery["message"]["body"])
            succeeded.append({"handler": delivery["handler"], "status": "success"})
        except Exception:
            log.exception("a message has failed")
            failed.append({"handler": delivery["handler"], "status": "fail"})
    return succeeded + failed


def fail(client, path, handler):
    """Fails a message that cannot be read, so that it becomes a dead letter instead of coming back for ever."""
    log.error("a message cannot be read, and fails: handler %s", handler)
    try:
        client.call("POST", f"{path}/ack", {"message": [{"handler": handler, "status": "fail"}]})
    except (Refused, TimeoutError) as error:
        log.warning("it was not settled now: %s", error)


def work(client):
    queue = find_or_create(client, "/queues", "queues", QUEUE, QUEUE)
    group = find_or_create(client, f"/queues/{queue}/groups", "groups", GROUP, {"groups": [GROUP]})
    path = f"/queues/{queue}/groups/{group}"
    log.info("consuming queue %s as group %s", queue, group)
    alone = 0  # polls that take one message, to find the one in a batch that cannot be read
    while not stopping.is_set():
        poll = {"max_msgs": 1 if alone else BATCH, "time_wait": WAIT, "ack_wait": LEASE}
        lease_ends = time.monotonic() + LEASE
        try:
            batch = client.call("GET", f"{path}/messages?{urlencode(poll)}")
        except Unreadable as unreadable:
            if alone and (handler := unreadable.handler()):
                fail(client, path, handler)
            else:
                log.error("a batch cannot be read: its messages are taken one by one when their lease has ended")
            alone = BATCH
            continue
        if not batch:
            continue
        alone = max(0, alone - 1)
        try:
            client.call("POST", f"{path}/ack", {"message": handle_batch(batch)}, until=lease_ends)
        except (Refused, TimeoutError) as error:
            # Its leases have ended, or an earlier attempt was carried out and its answer lost.
            log.warning("a batch was not settled now: %s", error)


def main():
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        work(Client())
    except TimeoutError as error:
        if not stopping.is_set():
            raise
        log.info("stopped while the service was away: %s", error)
    log.info("stopped")


if __name__ == "__main__":
    sys.exit(main())
