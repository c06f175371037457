"""botocore, as boto3 and the AWS CLI use it.

Usage: botocore_imds.py [--credentials] PATH...

Prints one JSON line for each path as its IMDS fetcher reads it, then one with what a session
finds there: credentials and region. A botocore with default settings; only the environment can
name an endpoint.
"""

import json
import sys

from botocore.session import Session
from botocore.utils import IMDSFetcher, IMDSRegionProvider


class PathFetcher(IMDSFetcher):
    """botocore has no call for events, so ask with its own token and request code."""

    def fetch(self, paths):
        token = self._fetch_metadata_token()
        assert token is not None
        for path in paths:
            response = self._get_request(
                path.lstrip("/"),
                retry_func=lambda response: response.status_code not in (200, 404),
                token=token,
            )
            yield {"status": response.status_code, "body": response.text}


credentials, paths = "--credentials" in sys.argv, [arg for arg in sys.argv[1:] if arg[0] == "/"]
session = Session()
endpoint = session.get_config_variable("ec2_metadata_service_endpoint")
fetcher = PathFetcher(config={"ec2_metadata_service_endpoint": endpoint} if endpoint else None)
for answer in fetcher.fetch(paths):
    print(json.dumps(answer))
if credentials:
    found = session.get_credentials()
    region = IMDSRegionProvider(session).provide()
    print(json.dumps({"access_key": found and found.access_key, "region": region}))
