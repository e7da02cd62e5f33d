import assert from 'node:assert/strict';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import type { Pair, Status } from '../rig/pair.ts';
import { editFile, events, guestWrites, replicatingPair, type EventLine } from './resync-rig.ts';

/** Replication began days ago, or was verified then. */
async function daysPass(pair: Pair): Promise<void> {
  await pair.primary.stop();
  const catalog = new DatabaseSync(join(pair.primary.data, 'catalog.db'));
  const past = Date.now() - 3 * 86_400_000;
  catalog.exec(`UPDATE relationships SET body = json_set(body, '$.createdAt', ${past}, '$.lastVerifiedAt', ${past})`);
  catalog.close();
  await pair.primary.start();
}

const verified = (pair: Pair, id: string) => pair.primary.until<EventLine[]>(['events', pair.vm], (seen) => seen.some((event) => event.id === id));

test('verify on a schedule: proves equality by itself, finds a difference, and repairs nothing unasked', async (t) => {
  const pair = await replicatingPair(t, { sizes: [16 << 20], enable: ['--verify-every', '1'] });
  await guestWrites(pair, 0, [{ at: '0', length: '1M', byte: 1 }]);
  await pair.primary.json('sync-now', pair.vm);
  assert.ok(!(await events(pair.primary, pair)).some(({ id }) => String(id).startsWith('Verify')), 'before its day');
  await daysPass(pair);
  const passed = (await verified(pair, 'VerifyPassed')).find(({ id }) => id === 'VerifyPassed')!;
  assert.equal(passed.data['comparedBytes'], 16 << 20);
  // A sector that rots under the replica's feet, with every mark of the file as it was, is what no seal shows.
  await pair.replica.stop();
  await editFile(pair.replicaPath(0), '8M', 0x77);
  const catalog = new DatabaseSync(join(pair.replica.data, 'catalog.db'));
  catalog.exec(`UPDATE relationships SET body = json_set(body, '$.appliedSeals', json('{}'))`);
  catalog.close();
  await pair.replica.start();
  await daysPass(pair);
  const failed = (await verified(pair, 'VerifyFailed')).find(({ id }) => id === 'VerifyFailed')!;
  assert.equal(failed.data['differingBytes'], 64 << 10);
  assert.equal((await pair.primary.json<Status>('status', pair.vm)).state, 'Replicating');
});
