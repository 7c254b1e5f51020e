"""huaweicloudsdkdms: /v2 paths, signed requests."""

import unittest

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkdms import v2 as sdk

from service import ACCESS_KEY, REST, SECRET_KEY, new_project


class Huawei(unittest.TestCase):
    def setUp(self):
        self.client = self.client_with(SECRET_KEY)

    def client_with(self, secret):
        credentials = BasicCredentials(ACCESS_KEY, secret, new_project())
        return sdk.DmsClient.new_builder().with_credentials(credentials).with_endpoint(REST).build()

    def create_queue(self, name="orders", **settings):
        body = sdk.CreateQueueReq(name=name, **settings)
        return self.client.create_queue(sdk.CreateQueueRequest(body=body)).id

    def create_group(self, queue, name="billing"):
        body = sdk.CreateConsumerGroupReq(groups=[sdk.GroupEntity(name=name)])
        return self.client.create_consumer_group(sdk.CreateConsumerGroupRequest(queue_id=queue, body=body)).groups[0].id

    def send(self, queue, *messages, **options):
        body = sdk.SendMessagesReq(messages=[sdk.SendMessageEntity(**message) for message in messages], **options)
        return self.client.send_messages(sdk.SendMessagesRequest(queue_id=queue, body=body)).messages

    def consume(self, queue, group, **options):
        request = sdk.ConsumeMessagesRequest(queue_id=queue, consumer_group_id=group, time_wait=1, **options)
        return self.client.consume_messages(request).body or []

    def ack(self, queue, group, *statuses):
        entries = [sdk.ConfirmMessageEntity(handler=handler, status=status) for handler, status in statuses]
        body = sdk.ConfirmConsumptionMessagesReq(message=entries)
        request = sdk.ConfirmConsumptionMessagesRequest(queue_id=queue, consumer_group_id=group, body=body)
        answer = self.client.confirm_consumption_messages(request)
        return answer.success, answer.fail

    def refusal(self, call, *arguments, **options):
        with self.assertRaises(ClientRequestException) as refused:
            call(*arguments, **options)
        return refused.exception

    def test_queues(self):
        queue = self.create_queue(description="all", queue_mode="FIFO", redrive_policy="enable", max_consume_count=2)
        shown = self.client.show_queue(sdk.ShowQueueRequest(queue_id=queue, include_deadletter=True))
        self.assertEqual((shown.id, shown.name, shown.description, shown.queue_mode), (queue, "orders", "all", "FIFO"))
        self.assertEqual((shown.redrive_policy, shown.max_consume_count), ("enable", 2))
        self.assertEqual((shown.reservation, shown.max_msg_size_byte, shown.group_count), (4320, 524288, 0))
        listed = self.client.list_queues(sdk.ListQueuesRequest())
        self.assertEqual((listed.total, [found.id for found in listed.queues]), (1, [queue]))
        self.assertIsNone(listed.queues[0].redrive_policy)
        self.assertEqual(self.client.delete_queue(sdk.DeleteQueueRequest(queue_id=queue)).status_code, 204)
        gone = self.refusal(self.client.show_queue, sdk.ShowQueueRequest(queue_id=queue))
        self.assertEqual((gone.status_code, gone.error_code), (404, "DMS.10240401"))

    def test_kafka_queues_have_a_topic(self):
        created = self.client.create_queue(
            sdk.CreateQueueRequest(body=sdk.CreateQueueReq(name="log", queue_mode="KAFKA_HA", retention_hours=36))
        )
        self.assertTrue(created.kafka_topic.startswith("k-") and created.kafka_topic.endswith(created.id))
        [listed] = self.client.list_queues(sdk.ListQueuesRequest()).queues
        self.assertEqual(listed.reservation, 36 * 60)

    def test_errors_carry_code_text_and_request_id(self):
        self.create_queue()
        taken = self.refusal(self.create_queue)
        self.assertEqual((taken.status_code, taken.error_code), (400, "DMS.10240017"))
        self.assertTrue(taken.error_msg.startswith("name: "))
        self.assertEqual(len(taken.request_id), 36)

    def test_a_wrong_secret_is_refused(self):
        refused = self.refusal(self.client_with("other").list_queues, sdk.ListQueuesRequest())
        self.assertEqual((refused.status_code, refused.error_code), (401, "DMS.10240101"))

    def test_groups(self):
        queue = self.create_queue(redrive_policy="enable", max_consume_count=1)
        group = self.create_group(queue)
        listed = self.client.list_consumer_groups(
            sdk.ListConsumerGroupsRequest(queue_id=queue, include_deadletter=True, page_size=10, current_page=1)
        )
        self.assertEqual((listed.queue_id, listed.queue_name, listed.redrive_policy), (queue, "orders", "enable"))
        [found] = listed.groups
        self.assertEqual((found.id, found.name, found.available_messages, found.available_deadletters), (group, "billing", 0, 0))
        gone = sdk.DeleteSpecifiedConsumerGroupRequest(queue_id=queue, group_id=group)
        self.assertEqual(self.client.delete_specified_consumer_group(gone).status_code, 204)
        self.assertEqual(self.refusal(self.client.delete_specified_consumer_group, gone).error_code, "DMS.10240405")

    def test_messages(self):
        queue = self.create_queue()
        group = self.create_group(queue)
        bodies = [{"foo": [1, None]}, "text", 4.5]
        sent = self.send(queue, *({"body": body, "attributes": {"a": "b"}} for body in bodies), return_id=True)
        self.assertEqual([(message.state, message.error, message.error_code) for message in sent], [(0, None, None)] * 3)
        self.assertEqual(len({message.id for message in sent}), 3)
        received = self.consume(queue, group, max_msgs=10, ack_wait=60)
        self.assertEqual([message["message"]["body"] for message in map(as_dict, received)], bodies)
        self.assertEqual(as_dict(received[0])["message"]["attributes"], {"a": "b"})
        handlers = [as_dict(message)["handler"] for message in received]
        self.assertEqual(self.ack(queue, group, (handlers[0], "success"), (handlers[1], None), (handlers[2], "fail")), (2, 1))
        [again] = map(as_dict, self.consume(queue, group))
        self.assertEqual(again["message"]["body"], 4.5)
        twice = self.refusal(self.ack, queue, group, (handlers[0], "success"))
        self.assertEqual((twice.status_code, twice.error_code), (400, "DMS.10542209"))

    def test_an_empty_consume_is_an_empty_list(self):
        queue = self.create_queue()
        request = sdk.ConsumeMessagesRequest(queue_id=queue, consumer_group_id=self.create_group(queue), time_wait=1)
        answer = self.client.consume_messages(request)
        self.assertEqual((answer.status_code, answer.raw_content), (200, b"[]"))

    def test_labels_and_delays(self):
        queue = self.create_queue()
        group = self.create_group(queue)
        late = {"body": "late", "tags": ["red"], "delay_time": 600_000}
        self.send(queue, {"body": "other", "tags": ["blue"]}, late, {"body": "now", "tags": ["red", "big"]})
        received = self.consume(queue, group, tag=["red", "big"], tag_type="and")
        self.assertEqual([(as_dict(found)["message"]["body"], as_dict(found)["message"]["tags"]) for found in received], [("now", ["red", "big"])])

    def test_dead_letters(self):
        queue = self.create_queue(redrive_policy="enable", max_consume_count=1)
        group = self.create_group(queue)
        self.send(queue, {"body": "bad"})
        [message] = map(as_dict, self.consume(queue, group))
        self.assertEqual(self.ack(queue, group, (message["handler"], "fail")), (0, 1))
        request = sdk.ConsumeDeadlettersMessageRequest(queue_id=queue, consumer_group_id=group, max_msgs=1, time_wait=5)
        [dead] = map(as_dict, self.client.consume_deadletters_message(request).body)
        self.assertEqual(dead["message"]["body"], "bad")
        body = sdk.ConfirmDeadLettersMessagesReq(message=[sdk.ConfirmMessageEntity(handler=dead["handler"], status="success")])
        request = sdk.ConfirmDeadLettersMessagesRequest(queue_id=queue, consumer_group_id=group, body=body)
        answer = self.client.confirm_dead_letters_messages(request)
        self.assertEqual((answer.success, answer.fail), (1, 0))

    def test_quotas(self):
        self.create_queue()
        [quota] = self.client.show_quotas(sdk.ShowQuotasRequest()).quotas.resources
        self.assertEqual((quota.type, quota.quota, quota.used, quota.min, quota.max), ("queue", 30, 1, 0, 500))

    def test_tags(self):
        queue = self.create_queue()
        change = lambda action, *tags: self.client.batch_create_or_delete_queue_tag(
            sdk.BatchCreateOrDeleteQueueTagRequest(
                queue_id=queue,
                body=sdk.BatchCreateOrDeleteTagReq(
                    action=action, tags=[sdk.BatchCreateOrDeleteTagReqTags(key=key, value=value) for key, value in tags]
                ),
            )
        )
        shown = lambda: [(tag.key, tag.value) for tag in self.client.show_queue_tags(sdk.ShowQueueTagsRequest(queue_id=queue)).tags]
        self.assertEqual(change("create", ("env", "test"), ("team", "")).status_code, 204)
        self.assertEqual(shown(), [("env", "test"), ("team", "")])
        [env, team] = self.client.show_queue_project_tags(sdk.ShowQueueProjectTagsRequest()).tags
        self.assertEqual((env.key, env.values, team.key, team.values), ("env", ["test"], "team", [""]))
        self.assertEqual(change("delete", ("env", "test")).status_code, 204)
        self.assertEqual(shown(), [("team", "")])


def as_dict(message):
    return message if isinstance(message, dict) else message.to_dict()


if __name__ == "__main__":
    unittest.main()
