"""What the `command` provider runs: client credentials at an OpenID Provider, the JWT on stdout.

    fetch_from_op.py ISSUER SECRET_FILE

The secret is in a file because arguments are readable to everybody on the machine.
"""

import json
import pathlib
import sys
import urllib.parse
import urllib.request

issuer, secret_file = sys.argv[1:]
with urllib.request.urlopen(f"{issuer}/.well-known/openid-configuration", timeout=10) as answer:
    endpoint = json.load(answer)["token_endpoint"]
form = {
    "grant_type": "client_credentials",
    "client_id": "service",
    "client_secret": pathlib.Path(secret_file).read_text(),
}
with urllib.request.urlopen(endpoint, urllib.parse.urlencode(form).encode(), timeout=10) as answer:
    print(json.load(answer)["access_token"])
