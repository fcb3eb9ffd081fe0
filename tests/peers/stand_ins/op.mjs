// panva's certified OpenID Provider with the client-credentials grant: one client per way to prove itself.
// Run in the folder of node_modules. Argument: DIR, where the secret and the private keys of the clients are put.
import { generateKeyPairSync } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const require = createRequire(process.cwd() + '/');
const { default: Provider } = await import(pathToFileURL(require.resolve('oidc-provider')));

const client = (id, rest) => ({
  client_id: id, grant_types: ['client_credentials'], response_types: [], redirect_uris: [], ...rest,
});
// A secret with characters that must be form-encoded before they go into the Basic header.
const secret = 'p/l:a+n t%ed-0123456789';
const dir = process.argv[2];
writeFileSync(`${dir}/secret`, secret + '\n', { mode: 0o600 });
const key = (name, type, options, alg) => {
  const { privateKey, publicKey } = generateKeyPairSync(type, options);
  writeFileSync(`${dir}/${name}.pem`, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
  return { ...publicKey.export({ format: 'jwk' }), kid: name, alg, use: 'sig' };
};
const keys = [key('rsa', 'rsa', { modulusLength: 2048 }, 'RS256'), key('ec', 'ec', { namedCurve: 'P-256' }, 'ES256')];
key('stranger', 'rsa', { modulusLength: 2048 }, 'RS256');
const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const op = new Provider(issuer, {
    clients: [
      client('basic', { client_secret: secret, token_endpoint_auth_method: 'client_secret_basic' }),
      client('post', { client_secret: secret, token_endpoint_auth_method: 'client_secret_post' }),
      client('key', { token_endpoint_auth_method: 'private_key_jwt', jwks: { keys } }),
    ],
    clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'private_key_jwt'],
    enabledJWA: { clientAuthSigningAlgValues: ['RS256', 'ES256'] },
    scopes: ['wandb'],
    cookies: { keys: ['k'] },
    ttl: { ClientCredentials: 600 },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: async (_context, resource) => ({
          scope: 'wandb', audience: resource.endsWith('/acme') ? 'acme' : resource,
          accessTokenFormat: 'jwt', accessTokenTTL: 600, jwt: { sign: { alg: 'RS256' } },
        }),
      },
    },
  });
  server.on('request', op.callback());
  console.log('ready', issuer);
});
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
