"""cloud-init's EC2 data source, as it crawls IMDS at boot.

Takes the directory of cloud-init's modules. Prints one JSON line: what it crawled, and what it
logged as a warning or worse.
"""

import json
import logging
import sys
import tempfile

sys.path.insert(0, sys.argv[1])

from cloudinit import distros, helpers  # noqa: E402
from cloudinit.sources import DataSourceEc2 as ec2  # noqa: E402


class Complaints(logging.Handler):
    """Everything that is logged as a warning or worse."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []

    def emit(self, record):
        self.lines.append(self.format(record))


complaints = Complaints()
logging.getLogger().addHandler(complaints)

with tempfile.TemporaryDirectory() as directory:
    paths = helpers.Paths({"cloud_dir": directory, "run_dir": directory})
    distro = distros.fetch("debian")("debian", {}, paths)
    source = ec2.DataSourceEc2({}, distro, paths)
    # Which cloud it is on it would read from the firmware. With this one it insists on tokens.
    source._cloud_name = ec2.CloudNames.AWS
    crawled = source.crawl_metadata()

print(json.dumps({"crawled": crawled, "complaints": complaints.lines}, default=bytes.decode))
