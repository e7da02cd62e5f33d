/** The thread of write-thread.ts: does one job after another, for ever. */
import { parentPort, workerData } from 'node:worker_threads';
import { libc } from './libc.ts';
import { WriteRing } from './write-ring.ts';

const ring = new WriteRing(libc(), workerData as SharedArrayBuffer);
parentPort!.postMessage('ready');
for (let sequence = 0; ; sequence++) {
  ring.awaitPosted(sequence);
  if (ring.perform(sequence)) parentPort!.postMessage('done');
}
