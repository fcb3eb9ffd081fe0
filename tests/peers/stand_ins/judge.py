"""The vendors' own clients make the call that wandb-cred makes: a stand-in they refuse may test nobody.

Arguments: spiffe ADDRESS | kubernetes DIR PORT | vault URL
"""

import sys
from pathlib import Path


def spiffe(address):
    from spiffe import WorkloadApiClient

    with WorkloadApiClient(address) as client:
        svid = client.fetch_jwt_svid(audience={"acme"})
        assert str(svid.spiffe_id) == "spiffe://example.org/trainer" and svid.audience == {"acme"}, svid
        # Checked against the bundle, signature included.
        client.fetch_jwt_bundles()


def vault(url):
    import hvac

    client = hvac.Client(url=url, token="vault-token")
    data = client.secrets.identity.generate_signed_id_token("wandb")["data"]
    assert data["token"].count(".") == 2 and data["client_id"] == "acme", data
    try:
        hvac.Client(url=url, token="another").secrets.identity.generate_signed_id_token("wandb")
        raise SystemExit("a wrong token got an identity")
    except hvac.exceptions.Forbidden:
        pass


def kubernetes(folder, port):
    from kubernetes import client
    from kubernetes.config import incluster_config as incluster

    loader = incluster.InClusterConfigLoader(
        token_filename=str(Path(folder) / "token"),
        cert_filename=str(Path(folder) / "ca.crt"),
        environ={incluster.SERVICE_HOST_ENV_NAME: "127.0.0.1", incluster.SERVICE_PORT_ENV_NAME: port},
    )
    configuration = client.Configuration()
    loader.load_and_set(configuration)
    api = client.CoreV1Api(client.ApiClient(configuration))
    spec = client.V1TokenRequestSpec(audiences=["acme"], expiration_seconds=3600)
    granted = api.create_namespaced_service_account_token("trainer", "ml", client.AuthenticationV1TokenRequest(spec=spec))
    assert granted.status.token.count(".") == 2 and granted.status.expiration_timestamp, granted
    try:
        api.create_namespaced_service_account_token("forbidden", "ml", client.AuthenticationV1TokenRequest(spec=spec))
        raise SystemExit("the forbidden account got a token")
    except client.ApiException as error:
        assert error.status == 403, error


{"spiffe": spiffe, "kubernetes": kubernetes, "vault": vault}[sys.argv[1]](*sys.argv[2:])
