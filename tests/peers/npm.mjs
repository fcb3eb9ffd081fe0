// The packages that scripts/setup-tests puts under .test/npm, and W&B's own clients, which are in .test/js.
import { createRequire } from 'node:module';

export const npm = createRequire(new URL('../../.test/npm/', import.meta.url));
export const js = createRequire(new URL('../../.test/js/', import.meta.url));
