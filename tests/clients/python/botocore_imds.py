"""botocore, as boto3 and the AWS CLI use it.

Prints one JSON line: the notice as its IMDS fetcher reads it, then what its credential and
region fetchers found. A botocore with default settings; nothing names an endpoint.
"""

import json

from botocore.utils import (
    IMDSFetcher,
    InstanceMetadataFetcher,
    InstanceMetadataRegionFetcher,
)


class SpotFetcher(IMDSFetcher):
    """botocore has no call for the notice, so ask with its own token and request code."""

    def fetch(self):
        token = self._fetch_metadata_token()
        response = self._get_request(
            "latest/meta-data/spot/instance-action",
            retry_func=lambda response: response.status_code not in (200, 404),
            token=token,
        )
        notice = {"status": response.status_code, "token": token is not None}
        if response.status_code == 200:
            notice.update(json.loads(response.text))
        return notice


found = SpotFetcher().fetch()
found["access_key"] = InstanceMetadataFetcher().retrieve_iam_role_credentials().get("access_key")
found["region"] = InstanceMetadataRegionFetcher().retrieve_region()
print(json.dumps(found))
