import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { temporaryFolder } from '../rig/program.ts';
import type { TestServer } from '../rig/server.ts';
import { assertRequired, events, guestWrites, replicatingPair } from './resync-rig.ts';

const GIB = 2 ** 30;
const MIB = 2 ** 20;
const REGIONS = 300;

/** Bytes that the process has asked the kernel to read, from whatever file or socket. */
async function readBy(server: TestServer): Promise<number> {
  const found = /^rchar: (\d+)$/m.exec(await readFile(`/proc/${server.pid}/io`, 'utf8'));
  return Number(found![1]);
}

test('4: after a crash a 64 GiB disk with 300 dirty regions is compared in those regions only', async (t) => {
  const bootIdFile = join(await temporaryFolder(t), 'boot-id');
  await writeFile(bootIdFile, '11111111-1111-4111-8111-111111111111\n');
  const pair = await replicatingPair(t, { sizes: [64 * GIB], env: { UNDERSTUDY_BOOT_ID_FILE: bootIdFile } });
  // A quarter of each, so that there is something to read in each.
  await guestWrites(pair, 0, Array.from({ length: REGIONS }, (_, index) => ({ at: `${index * 217}M`, length: '256k', byte: 1 + (index % 200) })));
  await pair.primary.kill9();
  await writeFile(bootIdFile, '22222222-2222-4222-8222-222222222222\n');
  await pair.primary.start();
  await assertRequired(pair, { trigger: 4, rung: 'suspect-regions', reason: /the machine went down/ });
  const plan = await pair.primary.json<{ readBytes: number; disks: { ranges: number }[] }>('resync', 'plan', pair.vm);
  assert.deepEqual([plan.readBytes, plan.disks[0]!.ranges], [REGIONS * MIB, REGIONS]);
  const before = await Promise.all([readBy(pair.primary), readBy(pair.replica)]);
  await pair.primary.json('resume', pair.vm);
  await pair.untilState('Replicating');
  const after = await Promise.all([readBy(pair.primary), readBy(pair.replica)]);
  const seen = await events(pair.primary, pair);
  const started = seen.findLast(({ id }) => id === 29242)!.data['disks'] as { ranges: number; startBlock: number; endBlock: number }[];
  assert.deepEqual([started[0]!.ranges, started[0]!.startBlock, started[0]!.endBlock], [REGIONS, 0, ((REGIONS - 1) * 217 + 1) * 256 - 1]);
  for (const [index, side] of ['primary', 'replica'].entries()) {
    const bytes = after[index]! - before[index]!;
    // With what the merge reads on the replica, and the answers of the commands.
    assert.ok(bytes <= 2 * REGIONS * MIB + 32 * MIB, `the ${side} read ${bytes} bytes for ${REGIONS * MIB} dirty ones`);
  }
  await pair.compare();
});
