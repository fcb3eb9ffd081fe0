// A certified OpenID Provider (panva oidc-provider) on a free loopback port, for tests.
//
//     NPM_DIR=.test/npm node op.mjs        prints `ready http://127.0.0.1:PORT`
//
// AUDIENCE  what the service's JWTs are for (a resource indicator, RFC 8707; an absolute URI)
// TTL       life of everything it signs, in seconds
//
// Two clients: `service` (client credentials; secret in SERVICE_SECRET) gets RS256 JWT access tokens, `command`
// is a public native client for code + PKCE, the device flow and rotating refresh tokens. All state is in memory.
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { once } from 'node:events';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const { AUDIENCE = 'https://wandb.example/oidc', NPM_DIR = '.', SERVICE_SECRET = 'service-secret' } = process.env;
const TTL = Number(process.env.TTL ?? 600);

const require = createRequire(`${resolve(NPM_DIR)}/`);
const { Provider } = await import(pathToFileURL(require.resolve('oidc-provider')));

// The issuer is part of the configuration, so the port has to be known first.
const server = createServer();
server.listen(Number(process.env.PORT ?? 0), '127.0.0.1');
await once(server, 'listening');
const issuer = `http://127.0.0.1:${server.address().port}`;

const DEVICE_GRANT = 'urn:ietf:params:oauth:grant-type:device_code';
const provider = new Provider(issuer, {
  clients: [
    {
      client_id: 'service',
      client_secret: SERVICE_SECRET,
      grant_types: ['client_credentials'],
      response_types: [],
      redirect_uris: [],
    },
    {
      client_id: 'command',
      token_endpoint_auth_method: 'none',
      application_type: 'native',
      grant_types: ['authorization_code', 'refresh_token', DEVICE_GRANT],
      response_types: ['code'],
      redirect_uris: ['http://127.0.0.1/callback'],
    },
  ],
  pkce: { required: () => true },
  scopes: ['openid', 'offline_access', 'email'],
  claims: { openid: ['sub'], email: ['email', 'email_verified'] },
  conformIdTokenClaims: false,
  findAccount: async (_ctx, id) => ({
    accountId: id,
    claims: async () => ({ sub: id, email: `${id}@example.com`, email_verified: true }),
  }),
  rotateRefreshToken: true,
  issueRefreshToken: async (_ctx, client) => client.grantTypeAllowed('refresh_token'),
  ttl: {
    AccessToken: TTL,
    ClientCredentials: TTL,
    IdToken: TTL,
    AuthorizationCode: 60,
    DeviceCode: 300,
    RefreshToken: 3600,
    Grant: 86400,
    Interaction: 3600,
    Session: 86400,
  },
  features: {
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    devInteractions: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: async (_ctx, client) => (client.clientId === 'service' ? AUDIENCE : undefined),
      useGrantedResource: async () => true,
      getResourceServerInfo: async () => ({
        scope: '',
        audience: AUDIENCE,
        accessTokenFormat: 'jwt',
        accessTokenTTL: TTL,
        jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
  cookies: { keys: ['loopback tests only'] },
});
provider.on('server_error', (_ctx, error) => console.error('server_error', error));
provider.on('grant.error', (_ctx, error) => console.error('grant.error', error.error, error.error_detail));
server.on('request', provider.callback());
console.log(`ready ${issuer}`);
