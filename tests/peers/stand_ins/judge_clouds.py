"""The vendors' own clients make the calls that wandb-cred makes, told where by the environment as it is.

Arguments: gcp | gcp-probe | gcp-user URL [ACCOUNT] | azure [ID_KIND=ID] | azure-arc TOKENS_DIR | azure-pipelines CONNECTION | aws [PROFILE]
"""

import sys

AUDIENCE = "api://acme"


def gcp():
    import google.auth.transport.requests
    from google.auth import compute_engine

    request = google.auth.transport.requests.Request()
    credentials = compute_engine.IDTokenCredentials(request, AUDIENCE, use_metadata_identity_endpoint=True)
    credentials.refresh(request)
    assert credentials.token.count(".") == 2 and credentials.expiry


def gcp_probe():
    import google.auth.transport.requests
    from google.auth.compute_engine import _metadata

    assert _metadata.ping(google.auth.transport.requests.Request())


def gcp_user(url, account=None):
    """Application Default Credentials, and the account that they are used as."""
    import google.auth
    import google.auth.iam
    import google.auth.transport.requests
    import google.oauth2.credentials
    from google.auth import impersonated_credentials

    google.oauth2.credentials._GOOGLE_OAUTH2_TOKEN_ENDPOINT = f"{url}/oauth2/token"
    google.auth.iam._IAM_IDTOKEN_ENDPOINT = url + "/v1/projects/-/serviceAccounts/{}:generateIdToken"
    credentials, _ = google.auth.default()
    if account:
        credentials = impersonated_credentials.Credentials(credentials, account, [], delegates=[])
    token = impersonated_credentials.IDTokenCredentials(credentials, AUDIENCE, include_email=True)
    token.refresh(google.auth.transport.requests.Request())
    assert token.token.count(".") == 2 and token.expiry


def azure(identity=None):
    from azure.identity import ManagedIdentityCredential

    kind, _, value = (identity or "").partition("=")
    credential = ManagedIdentityCredential(identity_config={kind: value} if kind else None)
    assert credential.get_token(f"{AUDIENCE}/.default").token.count(".") == 2


def azure_arc(tokens, *identity):
    import msal.managed_identity

    msal.managed_identity._supported_arc_platforms_and_their_prefixes["linux"] = tokens
    azure(*identity)


def azure_pipelines(connection):
    """The first half of what the credential does; the second is Entra ID's."""
    from azure.identity import AzurePipelinesCredential

    credential = AzurePipelinesCredential(tenant_id="t", client_id="c", service_connection_id=connection,
                                          system_access_token="access-token")
    assert credential._get_oidc_token().count(".") == 2


def aws(profile=None):
    import boto3

    session = boto3.Session(profile_name=profile)
    given = session.client("sts").get_web_identity_token(
        Audience=[AUDIENCE], SigningAlgorithm="RS256", DurationSeconds=3600,
        Tags=[{"Key": "team", "Value": "r&d ünits"}, {"Key": "tier", "Value": "1"}])
    assert given["WebIdentityToken"].count(".") == 2 and given["Expiration"]


{"gcp": gcp, "gcp-probe": gcp_probe, "gcp-user": gcp_user, "azure": azure, "azure-arc": azure_arc, "aws": aws,
 "azure-pipelines": azure_pipelines}[sys.argv[1]](*sys.argv[2:])
