// The packages that scripts/setup-tests puts under .test/npm.
import { createRequire } from 'node:module';

export const npm = createRequire(new URL('../../.test/npm/', import.meta.url));
