#!/usr/bin/env python3
"""``healthy /readyz``: status 0 when the Jobflow of this container answers 200 there. The image has no curl."""

import http.client
import os
import sys

try:
    # Not urllib: it would ask a proxy of the environment.
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("PORT") or 8000), timeout=4)
    connection.request("GET", sys.argv[1])
    answer = connection.getresponse()
    print(answer.status, answer.read(200).decode())
    sys.exit(answer.status != 200)
except OSError as error:
    print(error)
    sys.exit(1)
