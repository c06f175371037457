"""The ec2-metadata package.

Usage: ec2_metadata_imds.py PATH...

Prints one JSON line for each path, with the value as the package's property for it parses it,
written again as IMDS has it.
"""

import json
import sys

from ec2_metadata import ec2_metadata


def notice():
    found = ec2_metadata.spot_instance_action
    if found is None:
        return None
    time = found.time.strftime("%Y-%m-%dT%H:%M:%SZ")
    return json.dumps({"action": found.action, "time": time})


PROPERTIES = {
    "/latest/meta-data/spot/instance-action": notice,
    "/latest/meta-data/autoscaling/target-lifecycle-state":
        lambda: ec2_metadata.autoscaling_target_lifecycle_state,
    "/latest/meta-data/instance-life-cycle": lambda: ec2_metadata.instance_life_cycle,
}

for path in sys.argv[1:]:
    value = PROPERTIES[path]()
    if value is None:
        print(json.dumps({"status": 404, "body": ""}))
    else:
        print(json.dumps({"status": 200, "body": value}))
