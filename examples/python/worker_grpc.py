#!/usr/bin/env python3
"""A worker over gRPC, with classes generated from proto/ (how: examples/README.md).

It finds or creates its queue and its group by name, consumes with a long poll, settles what it has handled, lives through restarts
and overload of the service, and on SIGTERM finishes what it holds. To use it, copy it and put your work into `handle`.
"""

import json
import logging
import os
import random
import signal
import sys
import threading
import time

import grpc
from dms.v1 import message_pb2, message_service_pb2, message_service_pb2_grpc, queue_pb2, queue_service_pb2
from dms.v1 import queue_service_pb2_grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status

TARGET = os.environ.get("DMS_GRPC", "127.0.0.1:50051")
PROJECT = os.environ.get("DMS_PROJECT", "demo")
TOKEN = os.environ.get("DMS_TOKEN")
QUEUE = {"name": "orders", "redrive_policy": queue_pb2.REDRIVE_POLICY_ENABLE, "max_consume_count": 3}
GROUP = "billing"
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


def retry_delay(error):
    """The seconds after which the service asks to be called again, if it does."""
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            return info.retry_delay.ToTimedelta().total_seconds()
    return None


def call(method, request, until=None):
    """The answer to a call, which is tried again while the service is away or overloaded: until a time of the monotonic clock, or
    else until the worker is to stop."""
    pause = 0.1
    while True:
        try:
            metadata = [("authorization", f"Bearer {TOKEN}")] if TOKEN else []
            return method(request, timeout=WAIT + 20, metadata=metadata)
        except grpc.RpcError as error:
            delay = retry_delay(error)
            away = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            if delay is None and not away:
                raise
            if time.monotonic() > until if until else stopping.is_set():
                raise TimeoutError(error.details()) from error
            pause = delay or min(2 * pause, PAUSE_MAX)
            log.warning("%s; next attempt in about %.1f s", error.details(), pause)
            time.sleep(pause * random.uniform(1, 1.5))


def find_or_create(find, create, name):
    """The id of the queue or group that has this name."""
    if not (found := {item.name: item.id for item in find()}.get(name)):
        try:
            create()
        except grpc.RpcError as error:
            # Another worker that has just started was faster.
            if error.code() != grpc.StatusCode.ALREADY_EXISTS:
                raise
        found = {item.name: item.id for item in find()}[name]
    return found


def find_or_create_both(channel):
    """The fields of a request that say which project, queue and group."""
    queues, pb = queue_service_pb2_grpc.QueueServiceStub(channel), queue_service_pb2
    project = {"project_id": PROJECT}
    queue_id = find_or_create(
        lambda: call(queues.ListQueues, pb.ListQueuesRequest(**project)).queues,
        lambda: call(queues.CreateQueue, pb.CreateQueueRequest(**project, **QUEUE)),
        QUEUE["name"],
    )
    queue = project | {"queue_id": queue_id}
    group_id = find_or_create(
        lambda: call(queues.ListConsumerGroups, pb.ListConsumerGroupsRequest(**queue)).groups,
        lambda: call(queues.CreateConsumerGroups, pb.CreateConsumerGroupsRequest(**queue, names=[GROUP])),
        GROUP,
    )
    return queue | {"group_id": group_id}


def handle_batch(batch):
    """The entries that settle a batch. The service walks them in order, and what stands behind a failure fails with it, whatever
    its status: so what succeeded comes first."""
    succeeded, failed = [], []
    for delivery in batch:
        try:
            handle(json.loads(delivery.message.body))
            succeeded.append(message_pb2.AckEntry(handler=delivery.handler, status=message_pb2.ACK_STATUS_SUCCESS))
        except Exception:
            log.exception("message %s has failed, attempt %s", delivery.message.id, delivery.delivery_attempt)
            failed.append(message_pb2.AckEntry(handler=delivery.handler, status=message_pb2.ACK_STATUS_FAIL))
    return succeeded + failed


def work(channel):
    messages, pb = message_service_pb2_grpc.MessageServiceStub(channel), message_service_pb2
    group = find_or_create_both(channel)
    options = message_pb2.ConsumeOptions(max_messages=BATCH, wait=Duration(seconds=WAIT), lease=Duration(seconds=LEASE))
    log.info("consuming %s", group)
    while not stopping.is_set():
        batch = call(messages.ConsumeMessages, pb.ConsumeMessagesRequest(**group, options=options)).messages
        lease_ends = time.monotonic() + LEASE
        if not batch:
            continue
        try:
            call(messages.AckMessages, pb.AckMessagesRequest(**group, entries=handle_batch(batch)), until=lease_ends)
        except (grpc.RpcError, TimeoutError) as error:
            # Its leases have ended, or an earlier attempt was carried out and its answer lost.
            log.warning("a batch was not settled now: %s", error)


def main():
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    # gRPC connects again by itself; for TLS take grpc.secure_channel. Keepalive notices a peer that is gone without a word.
    options = [("grpc.max_reconnect_backoff_ms", PAUSE_MAX * 1000), ("grpc.keepalive_time_ms", 30_000)]
    with grpc.insecure_channel(TARGET, options=options) as channel:
        try:
            work(channel)
        except TimeoutError as error:
            if not stopping.is_set():
                raise
            log.info("stopped while the service was away: %s", error)
    log.info("stopped")


if __name__ == "__main__":
    sys.exit(main())
