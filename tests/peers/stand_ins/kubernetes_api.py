"""A Kubernetes API server that knows TokenRequest, on TLS with an authority of its own. Argument: DIR.

Lays a pod's account folder in DIR (token, ca.crt, namespace), as the kubelet does. The account ml/trainer may ask
for its own tokens; ml/forbidden exists and may not; every other is unknown. ml/busy is throttled.
"""

import datetime
import ipaddress
import json
import re
import ssl
import sys
from pathlib import Path

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from loopback import Handler, Server, serve
from signing import KEY, mint

DIR = Path(sys.argv[1])
ISSUER = "https://cluster.example"
API_AUDIENCE = "https://kubernetes.default.svc"
POD = {"name": "trainer-0", "uid": "7c1f-pod"}


def certificates():
    """The cluster's authority (into ca.crt) and a server certificate for 127.0.0.1 (into DIR/server.pem)."""
    now = datetime.datetime.now(datetime.timezone.utc)
    name = lambda common: x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])
    builder = lambda subject, key: (
        x509.CertificateBuilder()
        .subject_name(name(subject)).issuer_name(name("kubernetes")).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
    )
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = (
        builder("kubernetes", root_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(root_key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True
        )
        .sign(root_key, hashes.SHA256())
    )
    server = (
        builder("kube-apiserver", key)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), False)
        .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .sign(root_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (DIR / "ca.crt").write_bytes(root.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (DIR / "server.pem").write_bytes(private + server.public_bytes(pem))


class Api(Handler):
    def do_POST(self):
        body = self.body()
        found = re.fullmatch(r"/api/v1/namespaces/([^/]+)/serviceaccounts/([^/]+)/token", self.path)
        if not found:
            return self.status(404, "NotFound", "the server could not find the requested resource")
        namespace, name = found.groups()
        try:
            scheme, bearer = self.headers.get("authorization", "").split(" ")
            asker = jwt.decode(bearer, KEY.public_key(), ["ES256"], audience=API_AUDIENCE)["sub"]
            assert scheme.lower() == "bearer"
        except Exception:
            return self.status(401, "Unauthorized", "Unauthorized")
        if name == "busy":
            return self.status(429, "TooManyRequests", "too many requests", retry=7)
        if name not in ("trainer", "forbidden"):
            return self.status(404, "NotFound", f'serviceaccounts "{name}" not found')
        if asker != f"system:serviceaccount:{namespace}:{name}":
            why = f'serviceaccounts "{name}" is forbidden: User "{asker}" cannot create resource "serviceaccounts/token"'
            return self.status(403, "Forbidden", why)
        request = json.loads(body)
        # Both may be absent, as the official Python client leaves them: the path says what is meant.
        given = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"} | request
        if (given["apiVersion"], given["kind"]) != ("authentication.k8s.io/v1", "TokenRequest"):
            return self.status(400, "BadRequest", "no TokenRequest")
        spec = request["spec"]
        life = spec.get("expirationSeconds") or 3600
        if life < 600:
            return self.status(422, "Invalid", "spec.expirationSeconds: may not specify a duration less than 10 minutes")
        bound = spec.get("boundObjectRef")
        if bound and (bound.get("kind"), bound.get("apiVersion"), bound["name"], bound["uid"]) != (
            "Pod", "v1", POD["name"], POD["uid"],
        ):
            return self.status(409, "Conflict", "the pod is another one")
        claims = {"namespace": namespace, "serviceaccount": {"name": name}} | ({"pod": POD} if bound else {})
        token = mint(spec["audiences"], asker, ISSUER, life, **{"kubernetes.io": claims})
        ends = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=life)
        status = {"token": token, "expirationTimestamp": ends.strftime("%Y-%m-%dT%H:%M:%SZ")}
        self.answer(201, request | {"metadata": {"name": name, "namespace": namespace}, "status": status})

    def status(self, code, reason, message, retry=None):
        body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code}
        body |= {"reason": reason, "message": message} | ({"details": {"retryAfterSeconds": retry}} if retry else {})
        self.answer(code, body)


certificates()
for account in ("trainer", "forbidden"):
    own = {"namespace": "ml", "pod": POD, "serviceaccount": {"name": account}}
    token = mint([API_AUDIENCE], f"system:serviceaccount:ml:{account}", ISSUER, 3600, **{"kubernetes.io": own})
    (DIR / ("token" if account == "trainer" else "token-forbidden")).write_text(token)
(DIR / "namespace").write_text("ml")
server = Server(Api)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(DIR / "server.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
serve(server, server.server_port)
