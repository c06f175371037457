"""A handler as it runs in Lambda: tells Slack of a Spot interruption."""

import json
import os
import urllib.request


def lambda_handler(event, context):
    if event["detail-type"] != "EC2 Spot Instance Interruption Warning":
        return {"statusCode": 204}
    detail = event["detail"]
    text = f"{detail['instance-id']} in {event['region']}: {detail['instance-action']}"
    request = urllib.request.Request(
        os.environ["SLACK_WEBHOOK_URL"],
        data=json.dumps({"text": text}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return {"statusCode": response.status}
