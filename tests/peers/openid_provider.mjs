// A certified OpenID Provider (panva's oidc-provider) with strict settings, on loopback.
//
//   node openid_provider.mjs        prints `ready ISSUER`; ends with its standard input
//
// PKCE is required, refresh tokens rotate and replaying one revokes its family, offline access needs
// prompt=consent. State is in memory, so a restart forgets it. GET /stats answers what the token endpoint has
// seen, by grant type and outcome. The environment changes it:
//
//   PORT            default: any free one
//   ID_TTL          life of ID tokens, in seconds
//   DEVICE_TTL      life of device codes, in seconds
//   DELAY_MS        token answers leave up to this late: after the grant was spent, before anybody knows
//   LATE_MS         the same, and always this late
//   SERVICE_SECRET  the secret of the client `service`
//   AUDIENCE        what the JWTs of `service` are for (a resource indicator, RFC 8707)
//   KEYS_DIR        adds the clients `basic`, `post` and `key`, and puts their secret and private keys there
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { pathToFileURL } from 'node:url';

import { npm } from './npm.mjs';

const { default: Provider } = await import(pathToFileURL(npm.resolve('oidc-provider')));
const { env } = process;
const DEVICE_GRANT = 'urn:ietf:params:oauth:grant-type:device_code';
const delay = Number(env.DELAY_MS ?? 0);
const late = Number(env.LATE_MS ?? 0);
const stats = {};

// A command on somebody's machine.
const native = (client_id, more) => ({
  client_id,
  token_endpoint_auth_method: 'none',
  application_type: 'native',
  grant_types: ['authorization_code', 'refresh_token', DEVICE_GRANT],
  response_types: ['code'],
  redirect_uris: ['http://127.0.0.1/callback', 'http://localhost/callback'],
  ...more,
});

// A service that signs in as itself (client credentials).
const service = (client_id, more) => ({
  client_id,
  grant_types: ['client_credentials'],
  response_types: [],
  redirect_uris: [],
  ...more,
});

// One client per way to prove who it is.
function withKeys(dir) {
  // Characters that must be form-encoded before they go into the Basic header.
  const client_secret = 'p/l:a+n t%ed-0123456789';
  writeFileSync(`${dir}/secret`, client_secret + '\n', { mode: 0o600 });
  const key = (name, type, options, alg) => {
    const { privateKey, publicKey } = generateKeyPairSync(type, options);
    writeFileSync(`${dir}/${name}.pem`, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
    return { ...publicKey.export({ format: 'jwk' }), kid: name, alg, use: 'sig' };
  };
  const keys = [key('rsa', 'rsa', { modulusLength: 2048 }, 'RS256'), key('ec', 'ec', { namedCurve: 'P-256' }, 'ES256')];
  key('stranger', 'rsa', { modulusLength: 2048 }, 'RS256');
  return [
    service('basic', { client_secret, token_endpoint_auth_method: 'client_secret_basic' }),
    service('post', { client_secret, token_endpoint_auth_method: 'client_secret_post' }),
    service('key', { token_endpoint_auth_method: 'private_key_jwt', jwks: { keys } }),
  ];
}

// The issuer is part of the configuration, so the port has to be known first.
const server = createServer();
server.listen(Number(env.PORT ?? 0), '127.0.0.1');
await once(server, 'listening');
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  clients: [
    native('cli'),
    native('other-cli'),
    native('confidential', {
      token_endpoint_auth_method: 'client_secret_basic',
      client_secret: 'a secret with spaces & signs: 100%',
    }),
    native('form', {
      grant_types: ['implicit'],
      response_types: ['id_token'],
      redirect_uris: ['http://127.0.0.1/callback'],
    }),
    service('service', { client_secret: env.SERVICE_SECRET ?? 'service-secret' }),
    ...(env.KEYS_DIR ? withKeys(env.KEYS_DIR) : []),
  ],
  clientAuthMethods: ['none', 'client_secret_basic', 'client_secret_post', 'private_key_jwt'],
  enabledJWA: { clientAuthSigningAlgValues: ['RS256', 'ES256'] },
  pkce: { required: () => true },
  scopes: ['openid', 'offline_access', 'email', 'profile', 'wandb'],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
  // The ID token is what W&B reads: it needs the e-mail address in it.
  conformIdTokenClaims: false,
  async findAccount(_ctx, id) {
    const claims = { sub: id, email: `${id}@example.com`, email_verified: true, name: id };
    return { accountId: id, claims: async () => claims };
  },
  rotateRefreshToken: true,
  issueRefreshToken: async (_ctx, client, code) =>
    client.grantTypeAllowed('refresh_token') && code.scopes.has('offline_access'),
  ttl: {
    AccessToken: 60, AuthorizationCode: 60, ClientCredentials: 600, DeviceCode: Number(env.DEVICE_TTL ?? 300),
    Grant: 86400, IdToken: Number(env.ID_TTL ?? 60), Interaction: 3600, RefreshToken: 3600, Session: 86400,
  },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: true },
    deviceFlow: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: async (_ctx, client) => (client.clientId === 'service' ? env.AUDIENCE : undefined),
      useGrantedResource: async () => true,
      getResourceServerInfo: async (_ctx, resource) => ({
        scope: 'wandb',
        audience: resource.endsWith('/acme') ? 'acme' : resource,
        accessTokenFormat: 'jwt',
        accessTokenTTL: 600,
        jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
  cookies: { keys: ['loopback tests only'] },
});

const count = (ctx, outcome) => {
  const grant = ctx.oidc?.params?.grant_type?.split(':').at(-1) ?? '?';
  const key = `${grant} ${outcome}`;
  stats[key] = (stats[key] ?? 0) + 1;
};
provider.on('grant.success', (ctx) => count(ctx, 'success'));
provider.on('grant.error', (ctx, error) => {
  count(ctx, error.error);
  console.error('grant.error', error.error, error.error_detail);
});
provider.on('server_error', (_ctx, error) => console.error('server_error', error));
provider.use(async (ctx, next) => {
  if (ctx.path === '/stats') ctx.body = stats;
  else await next();
  if (ctx.path === '/token') await new Promise((done) => setTimeout(done, late + Math.random() * delay));
});
server.on('request', provider.callback());
console.log(`ready ${issuer}`);
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
