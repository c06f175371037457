// The AWS SDK for JavaScript: prints one JSON line for each path as MetadataService reads it.
//
// Usage: node metadata-service.mjs DIRECTORY PATH..., with the directory that holds the
// installed node_modules. (An import resolves beside this file only, and NODE_PATH is not read
// for modules.)

import { createRequire } from "node:module";
import { join } from "node:path";

const [directory, ...paths] = process.argv.slice(2);
const require = createRequire(join(directory, "package.json"));
const { MetadataService } = require("@aws-sdk/ec2-metadata-service");

const service = new MetadataService();
for (const path of paths) {
  try {
    const body = await service.request(path, {});
    console.log(JSON.stringify({ status: 200, body }));
  } catch (error) {
    if (error.$metadata?.httpStatusCode !== 404) throw error;
    console.log(JSON.stringify({ status: 404, body: "" }));
  }
}
