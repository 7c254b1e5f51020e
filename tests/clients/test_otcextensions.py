"""openstacksdk with otcextensions, as its users have it: a cloud with a catalog, `connection.dms`."""

import os
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

import openstack
from openstack import exceptions
from otcextensions import sdk
from otcextensions.sdk.dms.v1 import group_message

from identity import Identity
from service import REST, new_project


class OpenStack(unittest.TestCase):
    def setUp(self):
        project = new_project()
        identity = Identity(f"{REST}/v1.0/{project}", project)
        self.addCleanup(identity.close)
        connection = openstack.connection.Connection(**identity.cloud())
        self.addCleanup(connection.close)
        sdk.register_otc_extensions(connection)
        self.dms = connection.dms

    def queue_and_group(self, **settings):
        queue = self.dms.create_queue(name="orders", **settings)
        return queue, self.dms.create_group(queue, "billing")

    def consume(self, queue, group, **query):
        return list(self.dms.consume_message(queue, group, time_wait=1, **query))

    def test_queues_are_created_found_listed_and_deleted(self):
        created = self.dms.create_queue(
            name="orders", description="all orders", queue_mode="FIFO", redrive_policy="enable", max_consume_count=3
        )
        shown = self.dms.get_queue(created.id)
        self.assertEqual((shown.name, shown.description, shown.queue_mode), ("orders", "all orders", "FIFO"))
        self.assertAlmostEqual(shown.created / 1000, time.time(), delta=60)
        [listed] = self.dms.queues(include_deadletter=True, include_messages_num=True)
        self.assertEqual((listed.id, listed.redrive_policy, listed.max_consume_count), (created.id, "enable", 3))
        self.assertEqual(self.dms.find_queue("orders").id, created.id)
        self.assertEqual(self.dms.find_queue(created.id).id, created.id)
        self.assertIsNone(self.dms.find_queue("nothing"))
        self.dms.delete_queue(created)
        self.assertEqual(list(self.dms.queues()), [])
        self.dms.delete_queue(created, ignore_missing=True)
        with self.assertRaises(exceptions.NotFoundException):
            self.dms.delete_queue(created, ignore_missing=False)

    def test_a_name_that_is_taken_is_a_bad_request(self):
        self.dms.create_queue(name="orders")
        with self.assertRaises(exceptions.BadRequestException) as refused:
            self.dms.create_queue(name="orders")
        self.assertIn("DMS.10240017", str(refused.exception))

    def test_groups_are_created_found_listed_and_deleted(self):
        queue, group = self.queue_and_group(redrive_policy="enable", max_consume_count=1)
        self.assertTrue(group.id.startswith("g-"))
        [listed] = self.dms.groups(queue, include_deadletter=True)
        self.assertEqual((listed.id, listed.name, listed.produced_deadletters), (group.id, "billing", 0))
        second = self.dms.create_group(queue, "shipping")
        page = list(self.dms.groups(queue, page_size=1, current_page=2))
        self.assertEqual([group.id for group in page], [second.id])
        self.dms.delete_group(queue, second)
        self.assertEqual([group.id for group in self.dms.groups(queue)], [group.id])

    def test_messages_come_back_as_they_were_sent_and_are_acknowledged(self):
        queue, group = self.queue_and_group(queue_mode="FIFO")
        bodies = ["TEST11", {"foo": "test02"}, [1, None, "\u00e9"], 4.5]
        attributes = {"attribute1": "value1", "attribute2": "value2"}
        sent = self.dms.send_messages(queue, [{"body": body, "attributes": attributes} for body in bodies], return_id=True)
        self.assertEqual([message["state"] for message in sent.messages], [0, 0, 0, 0])
        self.assertEqual(len({message["id"] for message in sent.messages}), 4)
        received = self.consume(queue, group)
        self.assertEqual([message.body for message in received], bodies)
        self.assertEqual(received[0].attributes, attributes)
        self.dms.ack_message(queue, group, [message.id for message in received])
        [counted] = self.dms.groups(queue)
        self.assertEqual((counted.produced_messages, counted.consumed_messages, counted.available_messages), (4, 4, 0))

    def test_a_failed_message_comes_again(self):
        queue, group = self.queue_and_group()
        sent = self.dms.send_message(queue, body={"order": 1})
        self.assertEqual(sent.state, 0)
        [first] = self.consume(queue, group, max_msgs=1, ack_wait=15)
        self.dms.ack_message(queue, group, [first.id], status="fail")
        [again] = self.consume(queue, group)
        self.assertEqual(again.body, {"order": 1})
        self.assertNotEqual(again.id, first.id)
        with self.assertRaises(exceptions.BadRequestException) as refused:
            self.dms.ack_message(queue, group, [first.id])
        self.assertIn("DMS.10542209", str(refused.exception))

    def test_the_older_message_class_consumes_and_acknowledges(self):
        queue, group = self.queue_and_group()
        self.dms.send_message(queue, body="x", attributes={"a": "b"})
        address = {"queue_id": queue.id, "consumer_group_id": group.id}
        [received] = group_message.GroupMessage.list(self.dms, max_msgs=1, **address)
        self.assertEqual(received.message, {"body": "x", "attributes": {"a": "b"}})
        acknowledged = received.ack(self.dms)
        self.assertEqual((acknowledged.success, acknowledged.fail), (1, 0))

    def test_quotas(self):
        # Not with the Quota class: its list() calls a method that this version of the SDK does not have.
        self.dms.create_queue(name="orders")
        [quota] = self.dms.get("/quotas/dms").json()["quotas"]["resources"]
        self.assertEqual(quota, {"type": "queue", "quota": 30, "used": 1, "min": 0, "max": 500})


class OwnFunctionalTests(unittest.TestCase):
    """The tests that otcextensions runs against the real cloud."""

    def test_they_pass(self):
        project = new_project()
        identity = Identity(f"{REST}/v1.0/{project}", project)
        self.addCleanup(identity.close)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        clouds = Path(folder.name, "clouds.yaml")
        clouds.write_text(str({"clouds": {"otc": identity.cloud()}}))
        # Both are read when the tests are imported; the pause is for a slow cloud.
        environment = {"OS_CLIENT_CONFIG_FILE": str(clouds), "OS_CLOUD": "otc"}
        with mock.patch.dict(os.environ, environment), mock.patch("time.sleep"):
            result = self.run_modules("test_queue", "test_message")
        problems = result.errors + result.failures + result.skipped
        self.assertEqual(problems, [], "\n".join(text for _, text in problems))
        self.assertEqual(result.testsRun, 4)

    @staticmethod
    def run_modules(*names):
        modules = [f"otcextensions.tests.functional.sdk.dms.v1.{name}" for name in names]
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromNames(modules).run(result)
        return result


if __name__ == "__main__":
    unittest.main()
