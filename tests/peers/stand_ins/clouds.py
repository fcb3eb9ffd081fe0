"""A stand-in for the metadata services of Google Cloud, Azure and AWS, and for AWS STS, on one port.

The paths do not overlap, as they do not on the one address the three share. Arguments: ADDRESS PORT (0 for any
free one) [MTLS_DIR]: with a folder, it speaks TLS, asks for a client certificate, and puts there what Google's guest
agent puts. Prints `ready URL`; ends with its standard input. `GET /recorded` answers what was asked since the last
time, as shapes that two clients can be compared by. Signatures are recomputed by botocore.
"""

import datetime
import ipaddress
import json
import pathlib
import ssl
import sys
import time
from urllib.parse import parse_qsl, urlsplit

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from loopback import Handler, Server, serve

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ARC_KEY = "arc-key-file-content"
SECRETS = {"app-service-header": "X-IDENTITY-HEADER", "ml-secret": "secret"}
# Headers that are part of a request's shape; the rest is the client's own business.
SHAPE = ["metadata-flavor", "metadata", "x-identity-header", "secret", "x-aws-ec2-metadata-token",
         "x-aws-ec2-metadata-token-ttl-seconds", "x-amz-security-token", "authorization", "x-goog-user-project",
         "x-amz-sso_bearer_token"]
ACCESS_KEYS = {"AKIDENV": "secret/env+key", "ASIAROLE": "secret/role+key"}
RECORDED = []


def mint(audience, life=3600, **claims):
    now = int(time.time())
    claims = {"sub": "stand-in", "aud": audience, "iat": now, "exp": now + life, **claims}
    return jwt.encode(claims, KEY, "RS256", headers={"kid": "k1"})


def utc(seconds):
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def role_credentials():
    return {"Code": "Success", "LastUpdated": utc(0), "Type": "AWS-HMAC", "AccessKeyId": "ASIAROLE",
            "SecretAccessKey": ACCESS_KEYS["ASIAROLE"], "Token": "session/of+role==", "Expiration": utc(6 * 3600)}


class Clouds(Handler):
    def do_GET(self):
        body = self.body()
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        if url.path == "/recorded":
            recorded = json.dumps(RECORDED)
            RECORDED.clear()
            return self.send(200, recorded, "application/json")
        # google-auth looks the account's address up before it asks; that is for callers we do not have.
        if not url.path.endswith("/service-accounts/default/"):
            RECORDED.append(self.shape(url, body))
        for prefix, serve in [("/computeMetadata", self.google), ("/latest", self.imds), ("/metadata", self.azure_vm),
                              ("/msi/token", self.app_service), ("/MSI/auth", self.ml), ("/arc", self.arc),
                              ("/v1/credentials", self.container), ("/federation/credentials", self.sso)]:
            if url.path.startswith(prefix):
                return serve(url, query)
        if url.path == "/oauth2/token":
            return self.google_user(dict(parse_qsl(body)))
        if url.path.startswith("/v1/projects/-/serviceAccounts/"):
            return self.generate_id_token(url, body)
        if self.command == "POST":
            return self.sts(body)
        self.send(200, "", "text/html", {"Metadata-Flavor": "Google"})

    do_PUT = do_POST = do_GET

    def shape(self, url, body):
        headers = {name: self.headers[name] for name in SHAPE if name in self.headers}
        if headers.get("authorization", "").startswith("AWS4"):
            headers["authorization"] = headers["authorization"].partition(", Signature=")[0]
        if self.command == "POST":
            headers["content-type"] = self.headers["content-type"]
        body = json.loads(body) if body.startswith("{") else sorted(parse_qsl(body))
        return [self.command, url.path, sorted(parse_qsl(url.query)), sorted(headers.items()), body]

    def google(self, url, query):
        if self.headers.get("Metadata-Flavor") != "Google":
            return self.send(403, "Missing Metadata-Flavor:Google header.")
        if url.path.endswith("/service-accounts/default/"):
            account = {"aliases": ["default"], "email": "a@p.iam.gserviceaccount.com", "scopes": []}
            return self.send(200, json.dumps(account), "application/json", {"Metadata-Flavor": "Google"})
        if not url.path.endswith("/service-accounts/default/identity"):
            return self.send(404, "not found")
        if not query.get("audience"):
            return self.send(400, "non-empty audience parameter required")
        claims = {"iss": "https://accounts.google.com"}
        if query.get("format") == "full":
            claims.update(email="a@p.iam.gserviceaccount.com", google={"compute_engine": {"zone": "z"}})
        self.send(200, mint(query["audience"], **claims), "text/html", {"Metadata-Flavor": "Google"})

    def google_user(self, form):
        wanted = {"grant_type": "refresh_token", "client_id": "c", "client_secret": "s", "refresh_token": "r"}
        if form != wanted:
            return self.answer(400, {"error": "invalid_grant", "error_description": "Bad Request"})
        self.answer(200, {"access_token": "ya29.user", "expires_in": 3599, "token_type": "Bearer", "scope": "s"})

    def generate_id_token(self, url, body):
        account, _, method = url.path.rpartition("/")[2].partition(":")
        wanted, body = {"audience", "delegates", "includeEmail"}, json.loads(body)
        if method != "generateIdToken" or set(body) - wanted or self.headers.get("content-type") != "application/json":
            return self.answer(400, {"error": {"code": 400, "message": "bad", "status": "INVALID_ARGUMENT"}})
        if self.headers.get("authorization") != "Bearer ya29.user":
            return self.answer(401, {"error": {"code": 401, "message": "no", "status": "UNAUTHENTICATED"}})
        claims = {"email": account} if body.get("includeEmail") else {}
        self.answer(200, {"token": mint(body["audience"], iss="https://accounts.google.com", **claims)})

    def azure_vm(self, url, query):
        if self.headers.get("Metadata") != "true":
            return self.answer(400, {"error": "Bad Request"})
        if url.path == "/metadata/instance":
            return self.answer(200, {"compute": {}})
        self.azure(query, "2018-02-01", expires_in=True)

    def app_service(self, _, query):
        if self.headers.get("X-IDENTITY-HEADER") != "app-service-header":
            return self.answer(401, {"statusCode": 401, "message": "bad header"})
        self.azure(query, "2019-08-01")

    def ml(self, _, query):
        if self.headers.get("secret") != "ml-secret":
            return self.send(401, "", "application/json")
        self.azure(query, "2017-09-01")

    def arc(self, _, query):
        if self.headers.get("Metadata") != "true":
            return self.send(400, "{}", "application/json")
        if self.headers.get("Authorization") != f"Basic {ARC_KEY}":
            realm = "Basic realm=/var/opt/azcmagent/tokens/proof.key"
            return self.send(401, "", headers={"WWW-Authenticate": realm})
        self.azure(query, "2020-06-01", expires_in=True)

    def azure(self, query, version, expires_in=False):
        if query.get("api-version") != version or not query.get("resource"):
            return self.answer(400, {"error": "invalid_request"})
        life = 86400
        given = {"access_token": mint(query["resource"], life, iss="https://sts.windows.net/t/"),
                 "expires_on": str(int(time.time()) + life), "resource": query["resource"], "token_type": "Bearer"}
        if expires_in:
            given |= {"expires_in": str(life), "not_before": str(int(time.time()))}
        for name in ("client_id", "object_id", "msi_res_id"):
            if name in query:
                given[name] = query[name]
        self.answer(200, given)

    def imds(self, url, _):
        if url.path == "/latest/api/token":
            if self.command != "PUT" or not self.headers.get("x-aws-ec2-metadata-token-ttl-seconds"):
                return self.send(400, "")
            return self.send(200, "imds-session-token", "text/plain")
        if self.headers.get("x-aws-ec2-metadata-token") != "imds-session-token":
            return self.send(401, "")
        answers = {"iam/security-credentials/": "my-role", "placement/region": "eu-north-1",
                   "iam/security-credentials/my-role": json.dumps(role_credentials())}
        known = answers.get(url.path.removeprefix("/latest/meta-data/"))
        self.send(404, "") if known is None else self.send(200, known, "text/plain")

    def container(self, *_):
        if self.headers.get("Authorization") != "agent-token":
            return self.answer(403, {"code": "AccessDenied", "message": "no"})
        self.answer(200, role_credentials())

    def sso(self, _, query):
        if self.headers.get("x-amz-sso_bearer_token") != "sso-token":
            return self.answer(401, {"message": "Session token not found or invalid"})
        if query != {"account_id": "123456789012", "role_name": "Train"}:
            return self.answer(403, {"message": "No access"})
        role = role_credentials()
        self.answer(200, {"roleCredentials": {
            "accessKeyId": role["AccessKeyId"], "secretAccessKey": role["SecretAccessKey"],
            "sessionToken": role["Token"], "expiration": int((time.time() + 6 * 3600) * 1000)}})

    def sts(self, body):
        form = dict(parse_qsl(body))
        if form.get("Action") == "AssumeRoleWithWebIdentity":
            if form["WebIdentityToken"] != "pod-token":
                return self.refuse(400, "InvalidIdentityToken")
            role = role_credentials()
            return self.xml(form["Action"], f"<Credentials><AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>"
                            f"{role['SecretAccessKey']}</SecretAccessKey><SessionToken>{role['Token']}</SessionToken>"
                            f"<Expiration>{utc(7200)}</Expiration></Credentials>")
        if not self.signed(body):
            return self.refuse(403, "SignatureDoesNotMatch")
        if form.get("Action") == "AssumeRole":
            role = role_credentials()
            return self.xml("AssumeRole", f"<Credentials><AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>"
                            f"{role['SecretAccessKey']}</SecretAccessKey><SessionToken>{role['Token']}</SessionToken>"
                            f"<Expiration>{utc(7200)}</Expiration></Credentials>")
        if form.get("Action") != "GetWebIdentityToken" or form.get("SigningAlgorithm") not in ("RS256", "ES384"):
            return self.refuse(400, "ValidationError")
        life = int(form.get("DurationSeconds", 300))
        if not 60 <= life <= 3600:
            return self.refuse(400, "ValidationError")
        token = mint(form["Audience.member.1"], life, iss="https://x.tokens.sts.global.api.aws")
        self.xml(form["Action"], f"<WebIdentityToken>{token}</WebIdentityToken><Expiration>{utc(life)}</Expiration>")

    def signed(self, body):
        """Whether botocore, given the same request and the key, signs it the same way."""
        given = self.headers.get("Authorization") or ""
        fields = dict(part.strip().split("=", 1) for part in given.removeprefix("AWS4-HMAC-SHA256").split(",") if "=" in part)
        key, _, region, service, _ = fields.get("Credential", "////").split("/")
        if key not in ACCESS_KEYS or service != "sts":
            return False
        session = self.headers.get("X-Amz-Security-Token")
        if (key == "ASIAROLE") != (session == "session/of+role=="):
            return False
        names = fields["SignedHeaders"].split(";")
        if not {"host", "x-amz-date"} <= set(names) or (session and "x-amz-security-token" not in names):
            return False
        request = botocore.awsrequest.AWSRequest(
            method="POST", url=f"http://{self.headers['Host']}{self.path}", data=body.encode(),
            headers={name: self.headers[name] for name in names})
        request.context["timestamp"] = self.headers["X-Amz-Date"]
        signer = botocore.auth.SigV4Auth(botocore.credentials.Credentials(key, ACCESS_KEYS[key]), service, region)
        wanted = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
        return fields["Signature"] == wanted

    def xml(self, action, inner):
        self.send(200, f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result>{inner}'
                  f"</{action}Result><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></{action}Response>",
                  "text/xml")

    def refuse(self, status, code):
        self.send(status, f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>no</Message></Error>"
                  "<RequestId>r</RequestId></ErrorResponse>", "text/xml")


def certificate(name, key, issuer=None, issuer_key=None):
    """A certificate authority without an issuer, else a leaf for the metadata server's two names."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = [x509.DNSName("metadata.google.internal"), x509.IPAddress(ipaddress.ip_address("169.254.169.254"))]
    built = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer.subject if issuer else subject)
    built = built.public_key(key.public_key()).serial_number(x509.random_serial_number())
    built = built.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
    built = built.add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    if issuer:
        built = built.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return built.sign(issuer_key or key, hashes.SHA256())


def mutual_tls(folder):
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
    root = certificate("root", keys[0])
    pem = [root.public_bytes(Encoding.PEM)]
    for name, key in [("server", keys[1]), ("client", keys[2])]:
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        pem.append(certificate(name, key, root, keys[0]).public_bytes(Encoding.PEM) + secret)
    folder.mkdir(exist_ok=True)
    for name, content in zip(["root.crt", "server.pem", "client.key"], pem):
        (folder / name).write_bytes(content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    context.load_verify_locations(folder / "root.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


server = Server(Clouds, sys.argv[1], int(sys.argv[2]))
if sys.argv[3:]:
    server.socket = mutual_tls(pathlib.Path(sys.argv[3])).wrap_socket(server.socket, server_side=True)
serve(server)
