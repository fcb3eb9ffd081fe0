"""An OpenID Provider that misbehaves on demand: `twist` says how the next ID token is wrong."""

import base64
import json
import time
import urllib.parse

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

import loopback

OURS = rsa.generate_private_key(public_exponent=65537, key_size=2048)
FOREIGN = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Rogue:
    def __init__(self, **metadata):
        self.twist, self.nonce, self.requests = None, None, []
        self.metadata = metadata
        self.refresh_answer = None
        rogue = self

        class Handler(loopback.Handler):
            def do_GET(self):
                path = urllib.parse.urlsplit(self.path).path
                if path == "/.well-known/openid-configuration":
                    return self.answer(200, rogue.discovery())
                if path == "/jwks":
                    key = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(OURS.public_key()))
                    return self.answer(200, {"keys": [{**key, "kid": "k1", "use": "sig", "alg": "RS256"}]})
                self.answer(404, {})

            def do_POST(self):
                body = self.body()
                form = {key: value[0] for key, value in urllib.parse.parse_qs(body).items()}
                rogue.requests.append((self.path, form))
                status, answer = rogue.token(form)
                self.answer(status, answer)

        self.issuer = loopback.start(Handler)

    def discovery(self):
        here = self.issuer
        return {
            "issuer": here, "authorization_endpoint": f"{here}/auth", "token_endpoint": f"{here}/token",
            "jwks_uri": f"{here}/jwks", "response_types_supported": ["code"], "subject_types_supported": ["public"],
            # A client that believes this would take an unsigned token.
            "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"], **self.metadata,
        }

    def token(self, form):
        if form["grant_type"] == "refresh_token":
            if self.refresh_answer:
                return self.refresh_answer
        if self.twist == "code of another client":
            return 400, {"error": "invalid_grant", "error_description": "code was issued to another client"}
        token = {"access_token": "at", "token_type": "Bearer", "expires_in": 60, "refresh_token": f"rt{len(self.requests)}"}
        if self.twist != "no id token":
            token["id_token"] = self.id_token()
        return 200, token

    def id_token(self):
        now = int(time.time())
        body = {"iss": self.issuer, "aud": "cli", "sub": "mallory", "iat": now, "exp": now + 600, "nonce": self.nonce}
        twist = self.twist
        body |= {
            "wrong nonce": {"nonce": "another"}, "another audience": {"aud": "another"},
            "another issuer": {"iss": "https://stranger.example"}, "expired": {"exp": now - 600},
            "another audience beside": {"aud": ["cli", "another"]}, "another party": {"azp": "another"},
            "another person": {"sub": "trudy"},
        }.get(twist, {})
        if twist == "no nonce":
            del body["nonce"]
        if twist == "alg none":
            part = lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
            return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(body)}."
        if twist == "hmac with the public key":
            return jwt.encode(body, "a" * 40, "HS256", headers={"kid": "k1"})
        key = FOREIGN if twist == "foreign key" else OURS
        return jwt.encode(body, key, "RS256", headers={"kid": "k9" if twist == "unknown key" else "k1"})
