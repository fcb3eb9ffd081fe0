"""A SPIFFE Workload API on a Unix socket: real gRPC, JWT-SVIDs only. Arguments: SOCKET BEHAVIOUR.

BEHAVIOUR: ok, two (identities, with hints), none (an empty answer), silent, or a gRPC status to refuse with.
"""

import json
import sys
import threading
from concurrent import futures

import grpc
from jwt.algorithms import ECAlgorithm
from spiffe._proto import workload_pb2 as pb
from spiffe._proto import workload_pb2_grpc as service

from loopback import ready
from signing import KEY, mint

SOCKET, BEHAVIOUR = sys.argv[1:]
DOMAIN = "spiffe://example.org"
forever = threading.Event()


def svid(request, path, hint=""):
    token = mint(list(request.audience), f"{DOMAIN}/{path}", "https://oidc.example.org")
    return pb.JWTSVID(spiffe_id=f"{DOMAIN}/{path}", svid=token, hint=hint)


class Agent(service.SpiffeWorkloadAPIServicer):
    def FetchJWTSVID(self, request, context):
        if dict(context.invocation_metadata()).get("workload.spiffe.io") != "true":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")
        if not request.audience:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "audience must be specified")
        if BEHAVIOUR == "silent":
            forever.wait()
        if BEHAVIOUR == "none":
            return pb.JWTSVIDResponse()
        known = {"ok": [("trainer", "")], "two": [("trainer", "internal"), ("batch", "external")]}
        if BEHAVIOUR not in known:
            context.abort(grpc.StatusCode[BEHAVIOUR], "no identity issued for planted0SECRET0value0here")
        wanted = [(path, hint) for path, hint in known[BEHAVIOUR] if request.spiffe_id in ("", f"{DOMAIN}/{path}")]
        if not wanted:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
        return pb.JWTSVIDResponse(svids=[svid(request, path, hint) for path, hint in wanted])

    def FetchJWTBundles(self, request, context):
        jwk = json.loads(ECAlgorithm.to_jwk(KEY.public_key())) | {"kid": "k1", "use": "jwt-svid"}
        yield pb.JWTBundlesResponse(bundles={DOMAIN: json.dumps({"keys": [jwk]}).encode()})
        forever.wait()


server = grpc.server(futures.ThreadPoolExecutor(4))
service.add_SpiffeWorkloadAPIServicer_to_server(Agent(), server)
server.add_insecure_port(f"unix://{SOCKET}")
server.start()


def stop():
    forever.set()
    server.stop(0)


ready(f"unix://{SOCKET}", stop)
server.wait_for_termination()
