"""Plain gRPC with classes generated from proto/, reflection, health."""

import time
import unittest

import grpc
from dms.v1 import dead_letter_service_pb2_grpc, message_service_pb2_grpc, queue_service_pb2_grpc, tag_service_pb2_grpc
from dms.v1 import dead_letter_service_pb2 as dead, message_pb2, message_service_pb2 as pb, queue_pb2
from dms.v1 import queue_service_pb2 as queues, tag_service_pb2 as tags
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

from service import GRPC, TOKEN, new_project

SERVICES = ["dms.v1.DeadLetterService", "dms.v1.MessageService", "dms.v1.QueueService", "dms.v1.TagService"]


class ShowToken(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Call credentials of grpcio need TLS, which the service under test has not."""

    def intercept_unary_unary(self, proceed, details, request):
        return proceed(self._with_token(details), request)

    intercept_stream_stream = intercept_unary_unary

    def _with_token(self, details):
        return details._replace(metadata=[*(details.metadata or ()), ("authorization", f"Bearer {TOKEN}")])


class Grpc(unittest.TestCase):
    def setUp(self):
        self.project = new_project()
        self.bare = grpc.insecure_channel(GRPC)
        self.addCleanup(self.bare.close)
        self.channel = grpc.intercept_channel(self.bare, ShowToken())
        self.queues = queue_service_pb2_grpc.QueueServiceStub(self.channel)
        self.messages = message_service_pb2_grpc.MessageServiceStub(self.channel)
        self.dead_letters = dead_letter_service_pb2_grpc.DeadLetterServiceStub(self.channel)
        self.tags = tag_service_pb2_grpc.TagServiceStub(self.channel)

    def queue_and_group(self, **settings):
        request = queues.CreateQueueRequest(project_id=self.project, name="orders", **settings)
        queue = self.queues.CreateQueue(request).queue
        request = queues.CreateConsumerGroupsRequest(project_id=self.project, queue_id=queue.id, names=["billing"])
        group = self.queues.CreateConsumerGroups(request).groups[0]
        return {"project_id": self.project, "queue_id": queue.id}, {"group_id": group.id}

    def test_send_consume_fail_and_dead_letter(self):
        queue, group = self.queue_and_group(redrive_policy=queue_pb2.REDRIVE_POLICY_ENABLE, max_consume_count=1)
        body, attributes = b'{ "n" : 1.0e2, "s":"\\ud800" }', b'{"a" : 1}'
        message = message_pb2.NewMessage(body=body, attributes=attributes, tags=["red"])
        sent = self.messages.SendMessages(pb.SendMessagesRequest(messages=[message], return_ids=True, **queue))
        [leased] = self.messages.ConsumeMessages(pb.ConsumeMessagesRequest(**queue, **group)).messages
        found = leased.message
        self.assertEqual((found.id, found.body, found.attributes), (sent.results[0].message_id, body, attributes))
        self.assertEqual((list(found.tags), leased.delivery_attempt), (["red"], 1))
        entry = message_pb2.AckEntry(handler=leased.handler, status=message_pb2.ACK_STATUS_FAIL)
        result = self.messages.AckMessages(pb.AckMessagesRequest(entries=[entry], **queue, **group)).result
        self.assertEqual((result.success_count, result.fail_count), (0, 1))
        request = dead.ConsumeDeadLettersRequest(**queue, **group)
        [letter] = self.dead_letters.ConsumeDeadLetters(request).messages
        self.assertEqual(letter.message.body, body)
        self.assertEqual(letter.message.dead_letter.reason, message_pb2.DEAD_LETTER_REASON_ACK_FAIL)
        entry = message_pb2.AckEntry(handler=letter.handler)
        result = self.dead_letters.AckDeadLetters(dead.AckDeadLettersRequest(entries=[entry], **queue, **group)).result
        self.assertEqual((result.success_count, result.fail_count), (1, 0))

    def test_old_connections_are_made_anew_and_no_call_is_lost(self):
        # The service under test asks for a new connection after about a second.
        queue, group = self.queue_and_group()
        states = []
        self.bare.subscribe(states.append)
        options = message_pb2.ConsumeOptions(wait=Duration(seconds=20))
        polled = self.messages.ConsumeMessages.future(pb.ConsumeMessagesRequest(options=options, **queue, **group))
        project = {"project_id": self.project}
        ends = time.monotonic() + 4
        while time.monotonic() < ends:
            self.queues.ListQueues(queues.ListQueuesRequest(**project))
        self.assertGreaterEqual(states.count(grpc.ChannelConnectivity.READY), 3, states)
        self.assertFalse(polled.done())
        self.messages.SendMessages(pb.SendMessagesRequest(messages=[message_pb2.NewMessage(body=b"1")], **queue))
        self.assertEqual(len(polled.result().messages), 1)

    def test_errors_have_details(self):
        queue, group = self.queue_and_group()
        options = message_pb2.ConsumeOptions(max_messages=11)
        with self.assertRaises(grpc.RpcError) as refused:
            self.messages.ConsumeMessages(pb.ConsumeMessagesRequest(options=options, **queue, **group))
        self.assertEqual(refused.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        for detail in rpc_status.from_call(refused.exception).details:
            detail.Unpack(info) or detail.Unpack(bad_request)
        self.assertEqual((info.domain, info.reason), ("dms", "MAX_MESSAGES_OUT_OF_RANGE"))
        self.assertEqual(info.metadata["dms_code"], "DMS.10240014")
        [violation] = bad_request.field_violations
        self.assertEqual(violation.field, "max_messages")
        self.assertEqual(violation.description, "max_messages: '11' is not an integer from 1 to 10")

    def test_a_wait_ends_with_its_time_the_deadline_or_a_message(self):
        queue, group = self.queue_and_group()
        one_second = message_pb2.ConsumeOptions(wait=Duration(seconds=1))
        request = pb.ConsumeMessagesRequest(options=one_second, **queue, **group)
        self.assertEqual(self.timed(request), (0, 1.0))
        long = message_pb2.ConsumeOptions(wait=Duration(seconds=60))
        request = pb.ConsumeMessagesRequest(options=long, **queue, **group)
        self.assertEqual(self.timed(request, timeout=1)[0], 0)
        waiting = self.messages.ConsumeMessages.future(request, timeout=30)
        self.messages.SendMessages(pb.SendMessagesRequest(messages=[message_pb2.NewMessage(body=b"1")], **queue))
        self.assertEqual([leased.message.body for leased in waiting.result().messages], [b"1"])

    def timed(self, request, **options):
        started = time.monotonic()
        messages = self.messages.ConsumeMessages(request, **options).messages
        return len(messages), round(time.monotonic() - started, 0)

    def test_tags(self):
        queue, _ = self.queue_and_group()
        self.tags.AddQueueTag(tags.AddQueueTagRequest(tag=tags.Tag(key="env", value="test"), **queue))
        found = self.tags.SearchQueues(
            tags.SearchQueuesRequest(
                project_id=self.project,
                action=tags.SEARCH_ACTION_FILTER,
                tags=[tags.TagValues(key="env", values=["test"])],
            )
        )
        self.assertEqual([(found.queue_id, found.queue_name) for found in found.resources], [(queue["queue_id"], "orders")])

    def raw(self, method, request):
        """Sends bytes as a request; what the service thinks of them."""
        call = self.channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
        with self.assertRaises(grpc.RpcError) as refused:
            call(request, timeout=20)
        info = error_details_pb2.ErrorInfo()
        for detail in rpc_status.from_call(refused.exception).details:
            detail.Unpack(info)
        return refused.exception.code(), info.metadata["dms_code"]

    def test_bytes_that_are_no_request_are_refused(self):
        send = "/dms.v1.MessageService/SendMessages"
        wrong = (grpc.StatusCode.INVALID_ARGUMENT, "DMS.10540010")
        not_utf8, wrong_type, cut_off, endless = b"\n\x02\xff\xfe", b"\n\x01", b"\x1a\x7f\x00", b"\x0b" * 200
        for request in [b"\xff" * 50, b"garbage", not_utf8, wrong_type, cut_off, endless]:
            self.assertEqual(self.raw(send, request), wrong, request)
        self.assertEqual(self.raw(send, b""), (grpc.StatusCode.INVALID_ARGUMENT, "DMS.10240005"))
        self.assertEqual(self.raw(send, b"\0" * 3_000_000), (grpc.StatusCode.INVALID_ARGUMENT, "DMS.10540011"))
        unknown = (grpc.StatusCode.UNIMPLEMENTED, "DMS.10240406")
        for method in ["/dms.v1.MessageService/Nothing", "/dms.v1.Nothing/SendMessages", "/a/b"]:
            self.assertEqual(self.raw(method, b""), unknown, method)
        self.test_tags()

    def test_a_call_without_a_token_is_refused(self):
        with self.assertRaises(grpc.RpcError) as refused:
            queue_service_pb2_grpc.QueueServiceStub(self.bare).ListQueues(queues.ListQueuesRequest(project_id=self.project))
        self.assertEqual(refused.exception.code(), grpc.StatusCode.UNAUTHENTICATED)

    def test_health(self):
        health = health_pb2_grpc.HealthStub(self.bare)
        for name in ["", *SERVICES]:
            status = health.Check(health_pb2.HealthCheckRequest(service=name)).status
            self.assertEqual(status, health_pb2.HealthCheckResponse.SERVING, name)
        with self.assertRaises(grpc.RpcError) as unknown:
            health.Check(health_pb2.HealthCheckRequest(service="nothing"))
        self.assertEqual(unknown.exception.code(), grpc.StatusCode.NOT_FOUND)

    def test_reflection_describes_every_service(self):
        database = ProtoReflectionDescriptorDatabase(self.channel)
        self.assertLessEqual(set(SERVICES) | {"grpc.health.v1.Health"}, set(database.get_services()))
        pool = DescriptorPool(database)
        methods = [method.name for method in pool.FindServiceByName("dms.v1.MessageService").methods]
        self.assertEqual(methods, ["SendMessages", "ConsumeMessages", "AckMessages"])


if __name__ == "__main__":
    unittest.main()
