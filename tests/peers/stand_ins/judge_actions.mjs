// The Actions toolkit asks the stand-in for an ID token, as a workflow step does.
import { pathToFileURL } from 'node:url';
import { npm } from '../npm.mjs';

// It offers itself to `import` only, so it cannot be looked up by its name.
const [folder] = npm.resolve.paths('@actions/core');
const core = await import(pathToFileURL(`${folder}/@actions/core/lib/core.js`));
const token = await core.getIDToken('acme');
const claims = JSON.parse(Buffer.from(token.split('.')[1], 'base64url'));
if (claims.aud !== 'acme') throw new Error(`aud is ${claims.aud}`);
