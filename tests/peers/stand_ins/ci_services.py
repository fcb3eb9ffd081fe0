"""GitHub's ID token service at /github, Buildkite's agent API at /buildkite, Azure DevOps' at /azure, and Vault's, as
strict as the real ones."""

import json
from urllib.parse import parse_qs, urlsplit

from loopback import Handler, Server, serve
from signing import mint

KNOWN = {"audience", "lifetime", "claims", "subject_claim", "aws_session_tags"}


class Services(Handler):
    def do_GET(self):
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        if url.path.startswith("/v1/"):
            return self.vault(url)
        if url.path != "/github/idtoken" or query.get("api-version") != ["2.0"]:
            return self.answer(404, {"message": "not found"})
        if self.headers.get("authorization", "").lower() != "bearer request-token":
            return self.answer(401, {"message": "unauthorized"})
        audience = query.get("audience", ["https://github.com/acme"])[0]
        subject = "repo:acme/train:ref:refs/heads/main"
        self.answer(200, {"value": mint(audience, subject, "https://token.actions.githubusercontent.com")})

    def vault(self, url):
        if self.headers.get("x-vault-token") != "vault-token" or self.headers.get("x-vault-request") != "true":
            return self.answer(403, {"errors": ["permission denied"]})
        if url.path != "/v1/identity/oidc/token/wandb":
            return self.answer(400, {"errors": ["role not found"]})
        token = mint("acme", "0184990a-477b", "https://vault.example/v1/identity/oidc", 3600)
        self.answer(200, {"request_id": "r", "lease_id": "", "renewable": False, "lease_duration": 0, "wrap_info": None,
                          "warnings": None, "auth": None, "data": {"client_id": "acme", "token": token, "ttl": 3600}})

    def azure(self, url):
        if parse_qs(url.query).get("api-version") != ["7.1"]:
            return self.answer(400, {"message": "no api-version"})
        if self.headers.get("authorization") != "Bearer access-token":
            return self.answer(401, {"message": "unauthorized"})
        connection = parse_qs(url.query).get("serviceConnectionId")
        subject = "sc://acme/train/" + connection[0] if connection else "p://acme/train/nightly"
        token = mint("api://AzureADTokenExchange", subject, "https://vstoken.dev.azure.com/0188")
        self.answer(200, {"oidcToken": token})

    def do_POST(self):
        url = urlsplit(self.path)
        if url.path == "/azure/oidctoken":
            return self.azure(url)
        body = json.loads(self.body() or "{}")
        if self.path != "/buildkite/v3/jobs/0189-job/oidc/tokens":
            return self.answer(404, {"message": "Not Found"})
        if self.headers.get("authorization") != "Token agent-token":
            return self.answer(401, {"message": "Authentication required"})
        if set(body) - KNOWN or self.headers.get("content-type") != "application/json":
            return self.answer(422, {"message": "unknown parameter"})
        subjects = {"pipeline_id": "0188-pipeline", "organization_id": "0187-org"}
        compound = "organization:acme:pipeline:train:ref:refs/heads/main:commit:9f3384da:step:build"
        subject = subjects.get(body["subject_claim"]) if "subject_claim" in body else compound
        if subject is None:
            return self.answer(422, {"message": "subject_claim is not an immutable claim"})
        token = mint(body.get("audience"), subject, "https://agent.buildkite.com", body.get("lifetime", 300))
        self.answer(200, {"token": token})


serve(Server(Services))
