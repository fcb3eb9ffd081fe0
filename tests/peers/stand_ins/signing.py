"""The stand-ins' signing key, and JWTs made with it."""

import time

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

KEY = ec.generate_private_key(ec.SECP256R1())


def mint(audiences, subject, issuer, life=300, **claims):
    """A signed JWT, as the real services mint them."""
    now = int(time.time())
    claims = {"iss": issuer, "sub": subject, "aud": audiences, "iat": now, "exp": now + life, **claims}
    return jwt.encode(claims, KEY, "ES256", headers={"kid": "k1", "typ": "JWT"})
