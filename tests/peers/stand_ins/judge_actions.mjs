// The Actions toolkit asks the stand-in for an ID token, as a workflow step does. Run in the folder of node_modules.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
const require = createRequire(process.cwd() + '/');
let core;
try {
  core = require('@actions/core');
} catch {
  core = await import(pathToFileURL(process.cwd() + '/node_modules/@actions/core/lib/core.js'));
}
const token = await core.getIDToken('acme');
const claims = JSON.parse(Buffer.from(token.split('.')[1], 'base64url'));
if (claims.aud !== 'acme') throw new Error(`aud is ${claims.aud}`);
