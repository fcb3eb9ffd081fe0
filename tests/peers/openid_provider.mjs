// A real, certified OpenID Provider (panva's oidc-provider) with strict settings, for the tests of signing in.
//
//   NPM_DIR=... node op.mjs PORT
//
// PKCE is required, refresh tokens rotate and replaying one revokes its family, offline access needs
// prompt=consent, ID tokens live ID_TTL seconds. Prints "ready" when it serves. Grants are in memory, so a
// restart forgets them. Token answers leave up to DELAY_MS late: after the grant was spent, before anybody knows.
// GET /stats answers what the token endpoint has seen, by grant type and outcome.
import { createRequire } from 'node:module';

const require = createRequire(`${process.env.NPM_DIR}/`);
const { default: Provider } = await import(require.resolve('oidc-provider'));
const port = Number(process.argv[2]);
const issuer = `http://127.0.0.1:${port}`;
const idTtl = Number(process.env.ID_TTL ?? 60);
const device = 'urn:ietf:params:oauth:grant-type:device_code';
const delay = Number(process.env.DELAY_MS ?? 0);
const stats = {};

const native = (client_id, more) => ({
  client_id,
  token_endpoint_auth_method: 'none',
  application_type: 'native',
  grant_types: ['authorization_code', 'refresh_token', device],
  response_types: ['code'],
  redirect_uris: ['http://127.0.0.1/callback', 'http://localhost/callback'],
  ...more,
});

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
  ],
  pkce: { required: () => true },
  scopes: ['openid', 'offline_access', 'email', 'profile'],
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
    AccessToken: 60, AuthorizationCode: 60, DeviceCode: Number(process.env.DEVICE_TTL ?? 300), Grant: 86400,
    IdToken: idTtl, Interaction: 3600, RefreshToken: 3600, Session: 86400,
  },
  features: { devInteractions: { enabled: true }, deviceFlow: { enabled: true }, revocation: { enabled: true } },
  cookies: { keys: ['only for tests'] },
});

const count = (ctx, outcome) => {
  const grant = ctx.oidc?.params?.grant_type?.split(':').at(-1) ?? '?';
  const key = `${grant} ${outcome}`;
  stats[key] = (stats[key] ?? 0) + 1;
};
provider.on('grant.success', (ctx) => count(ctx, 'success'));
provider.on('grant.error', (ctx, error) => count(ctx, error.error));
provider.on('server_error', (_ctx, error) => console.error('server_error', error));
provider.use(async (ctx, next) => {
  if (ctx.path === '/stats') ctx.body = stats;
  else await next();
  if (ctx.path === '/token') await new Promise((done) => setTimeout(done, Math.random() * delay));
});
provider.listen(port, '127.0.0.1', () => console.log('ready'));
