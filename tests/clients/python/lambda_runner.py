"""Calls a Lambda-style handler with the event on standard input: FILE, without its context."""

import importlib.util
import json
import sys

# Nothing is left beside the handler.
sys.dont_write_bytecode = True
spec = importlib.util.spec_from_file_location("handler", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(json.dumps(module.lambda_handler(json.load(sys.stdin), None)))
