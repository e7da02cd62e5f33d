import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NbdExport } from '../nbd/export.ts';
import { GuestLatency } from './guest-latency.ts';

/** Only what is called here. */
function served(write: () => Promise<void>): NbdExport {
  const writeThen: NbdExport['writeThen'] = (_from, _offset, ended) => void write().then(() => ended(null), ended);
  return { read: () => undefined, write, writeThen, flush: () => Promise.reject(new Error('EIO')) } as unknown as NbdExport;
}

test('requests are counted in the bucket of their time; a read that is done at once stays so', async () => {
  let now = 0;
  const latency = new GuestLatency({ monotonic: () => now });
  const timed = latency.timed('id', served(async () => void (now += 3)));
  assert.equal(timed.read(Buffer.alloc(1), 0), undefined);
  await timed.write(Buffer.alloc(1), 0, { fua: false });
  assert.equal(await new Promise((resolve) => timed.writeThen!(Buffer.alloc(1), 0, resolve)), null);
  await assert.rejects(Promise.resolve(timed.flush()), /EIO/);
  const text = latency.text(() => 'a "b"\\');
  assert.match(text, /^# TYPE understudy_guest_io_seconds histogram$/m);
  assert.match(text, /_bucket{vm="a \\"b\\"\\\\",operation="write",le="0.0025"} 0$/m);
  assert.match(text, /operation="write",le="0.005"} 2$/m);
  assert.match(text, /operation="write",le="\+Inf"} 2$/m);
  assert.match(text, /_sum{vm=.*operation="write"} 0.006$/m);
  assert.match(text, /_count{vm=.*operation="read"} 1$/m);
  assert.match(text, /_count{vm=.*operation="flush"} 1$/m);
});

test('a VM that is gone is forgotten', () => {
  const latency = new GuestLatency({ monotonic: () => 0 });
  latency.timed('id', served(() => Promise.resolve()));
  assert.doesNotMatch(latency.text(() => null), /vm=/);
  assert.doesNotMatch(latency.text(() => 'again'), /vm=/);
});
