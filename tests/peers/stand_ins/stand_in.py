"""What the Python stand-ins share: a signing key, the ready line, and an end when the test ends."""

import sys
import threading
import time

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

KEY = ec.generate_private_key(ec.SECP256R1())


def mint(audiences, subject, issuer, life=300, **claims):
    """A signed JWT, as the real services mint them."""
    now = int(time.time())
    claims = {"iss": issuer, "sub": subject, "aud": audiences, "iat": now, "exp": now + life, **claims}
    return jwt.encode(claims, KEY, "ES256", headers={"kid": "k1", "typ": "JWT"})


def ready(address, stop):
    """Tells the test where to call, and stops when it closes our standard input (or dies)."""
    print("ready", address, flush=True)

    def wait():
        sys.stdin.read()
        stop()

    threading.Thread(target=wait, daemon=True).start()
