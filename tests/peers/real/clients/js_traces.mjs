// Calls traced by weave's JavaScript client.
//
//   node js_traces.mjs CALLS
import { js } from '../../npm.mjs';

const weave = js('weave');

const client = await weave.init('team/real');
const double = weave.op(async function double(number) {
    return number * 2;
});
for (let number = 0; number < Number(process.argv[2]); number++) {
    if ((await double(number)) !== number * 2) throw new Error('wrong');
}
await client.waitForBatchProcessing();
