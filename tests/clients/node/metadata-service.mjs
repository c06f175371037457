// The AWS SDK for JavaScript: prints the notice as MetadataService reads it, as one JSON line.
//
// Usage: node metadata-service.mjs DIRECTORY, which holds the installed node_modules. (An
// import resolves beside this file only, and NODE_PATH is not read for modules.)

import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.argv[2], "package.json"));
const { MetadataService } = require("@aws-sdk/ec2-metadata-service");

try {
  const body = await new MetadataService().request(
    "/latest/meta-data/spot/instance-action",
    {},
  );
  console.log(JSON.stringify({ status: 200, ...JSON.parse(body) }));
} catch (error) {
  if (error.$metadata?.httpStatusCode !== 404) throw error;
  console.log(JSON.stringify({ status: 404 }));
}
