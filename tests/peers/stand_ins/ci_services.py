"""GitHub's ID token service at /github and Buildkite's agent API at /buildkite, as strict as the real ones."""

import json
from urllib.parse import parse_qs, urlsplit

from loopback import Handler, Server, serve
from signing import mint

KNOWN = {"audience", "lifetime", "claims", "subject_claim", "aws_session_tags"}


class Services(Handler):
    def do_GET(self):
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        if url.path != "/github/idtoken" or query.get("api-version") != ["2.0"]:
            return self.answer(404, {"message": "not found"})
        if self.headers.get("authorization", "").lower() != "bearer request-token":
            return self.answer(401, {"message": "unauthorized"})
        audience = query.get("audience", ["https://github.com/acme"])[0]
        subject = "repo:acme/train:ref:refs/heads/main"
        self.answer(200, {"value": mint(audience, subject, "https://token.actions.githubusercontent.com")})

    def do_POST(self):
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
