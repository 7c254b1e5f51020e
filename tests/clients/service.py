"""The service under test; scripts/test-clients starts it and says where it listens."""

import os
import uuid

REST = os.environ["DMS_TEST_REST"]
GRPC = os.environ["DMS_TEST_GRPC"]
# What the service lets in; scripts/test-clients has told it.
TOKEN = "token"
ACCESS_KEY, SECRET_KEY = "access", "secret"


def new_project():
    """A project of its own for each test: 32 hexadecimal digits, as the original service had them."""
    return uuid.uuid4().hex
