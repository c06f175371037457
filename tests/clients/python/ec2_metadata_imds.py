"""The ec2-metadata package: prints the notice as it parses it, as one JSON line."""

import json

from ec2_metadata import ec2_metadata

notice = ec2_metadata.spot_instance_action
if notice is None:
    print(json.dumps({"status": 404}))
else:
    time = notice.time.strftime("%Y-%m-%dT%H:%M:%SZ")
    print(json.dumps({"status": 200, "action": notice.action, "time": time}))
