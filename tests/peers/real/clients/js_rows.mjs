// A run by W&B's JavaScript SDK.
//
//   node js_rows.mjs RUN ROWS
import { js } from '../../npm.mjs';

const wandb = js('@wandb/sdk').default;
const [run, rows] = process.argv.slice(2);

await wandb.init({ entity: 'team', project: 'real', id: run });
for (let row = 0; row < Number(rows); row++) {
    wandb.log({ row });
}
await wandb.finish();
