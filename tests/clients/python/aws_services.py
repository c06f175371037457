"""Makes and reads what the tests need in AWS, by boto3.

    queue NAME                     makes a queue; prints its URL
    receive URL                    prints each message in the queue as a line of JSON
    route BUS SOURCE QUEUE_URL     makes a bus whose events of a source go to a queue
"""

import json
import sys

import boto3

sqs = boto3.client("sqs")
events = boto3.client("events")


def queue(name):
    fifo = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
    print(sqs.create_queue(QueueName=name, Attributes=fifo)["QueueUrl"])


def receive(url):
    while True:
        answer = sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["All"]
        )
        messages = answer.get("Messages", [])
        for message in messages:
            print(json.dumps(message))
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        if not messages:
            return


def route(bus, source, url):
    if bus != "default":
        events.create_event_bus(Name=bus)
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    pattern = json.dumps({"source": [source]})
    events.put_rule(Name="to-queue", EventBusName=bus, EventPattern=pattern)
    target = {"Id": "queue", "Arn": attributes["Attributes"]["QueueArn"]}
    events.put_targets(Rule="to-queue", EventBusName=bus, Targets=[target])


{"queue": queue, "receive": receive, "route": route}[sys.argv[1]](*sys.argv[2:])
