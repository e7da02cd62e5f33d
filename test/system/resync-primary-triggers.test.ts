import assert from 'node:assert/strict';
import { cp, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { atEnd, suiteEnd } from '../rig/at-end.ts';
import { formatsFor } from '../rig/disk-formats.ts';
import { DURABLE_MS } from '../../src/tracking/write-lease.ts';
import type { Pair, VmShape } from '../rig/pair.ts';
import { mustRun, temporaryFolder } from '../rig/program.ts';
import { TestServer } from '../rig/server.ts';
import { answerInside } from '../rig/answer-inside.ts';
import {
  assertEqual, assertRequired, crash, editFile, events, guestWrites, refusesToOverwrite, repair, replicatingPair, resyncStatus,
} from './resync-rig.ts';

for (const format of formatsFor('dear')) describe(`${format}: triggers of the primary, each by its real cause`, () => {
  const t = suiteEnd();
  const bootIds = ['11111111-1111-4111-8111-111111111111', '22222222-2222-4222-8222-222222222222', '44444444-4444-4444-8444-444444444444'];
  let pair: Pair;
  let bootIdFile: string;
  let hostIdFile: string;

  before(async () => {
    const folder = await temporaryFolder(t);
    [bootIdFile, hostIdFile] = [join(folder, 'boot-id'), join(folder, 'host-id')];
    await writeFile(hostIdFile, 'host-1\n');
    await writeFile(bootIdFile, `${bootIds[0]}\n`);
    pair = await replicatingPair(t, { format, sizes: [64 << 20, 16 << 20], env: { UNDERSTUDY_BOOT_ID_FILE: bootIdFile, UNDERSTUDY_HOST_ID_FILE: hostIdFile } });
    await guestWrites(pair, 0, [{ at: '0', length: '8M', byte: 1 }]);
    await guestWrites(pair, 1, [{ at: '1M', length: '1M', byte: 2 }]);
    await assertEqual(pair);
  });

  test('1: a disk edited while the VM is off needs a full compare; what differs travels, no more', async () => {
    await pair.primary.json('vm', 'stop', pair.vm);
    await editFile(pair.disks[0]!, '3M', 0x77);
    await pair.primary.json('vm', 'attach', pair.vm);
    await assertRequired(pair, { trigger: 1, rung: 'full-compare',
      reason: /disk0\.\w+ was modified while the VM was off \(.*mtimeNs was \d+, is \d+/ });
    await repair(pair);
    const started = (await events(pair.primary, pair)).findLast(({ id }) => id === 29242)!;
    assert.deepEqual((started.data['disks'] as object[])[0],
      { path: pair.disks[0], startBlock: 0, endBlock: (64 << 20) / 4096 - 1, ranges: 1 });
    const finished = (await events(pair.primary, pair)).findLast(({ id }) => id === 29244)!;
    assert.deepEqual(finished.data['disks'], [{ path: pair.disks[0], blocksSent: 16 }, { path: pair.disks[1], blocksSent: 0 }]);
    assert.equal(finished.data['result'], 'success');
    assert.ok(Number(finished.data['seconds']) >= 0);
  });

  test('1: a disk edited after kill -9 of a server whose guest was quiet needs a full compare', async () => {
    // The disks are sealed where they are once nothing was written for a moment.
    await new Promise((resolve) => setTimeout(resolve, 600));
    await pair.primary.kill9();
    await editFile(pair.disks[1]!, '5M', 0x55);
    await pair.primary.start();
    await assertRequired(pair, { trigger: 1, rung: 'full-compare', reason: /disk1\.\w+ was modified/ });
    await repair(pair);
  });

  test('no trigger: kill -9 of a server that nobody has written behind costs no resynchronization', async () => {
    await guestWrites(pair, 0, [{ at: '12M', length: '1M', byte: 9 }]);
    await crash(pair.primary);
    assert.equal((await pair.status()).state, 'Replicating');
    await assertEqual(pair);
  });

  test('2: logs past the limit while the replica is away: only what was written is compared', async () => {
    await pair.replica.kill9();
    await pair.primary.json('set', pair.vm, '--log-limit', '1');
    await guestWrites(pair, 0, [{ at: '20M', length: '2M', byte: 4 }]);
    const status = await pair.untilState('WaitingForStartResynchronize');
    assert.match(status.healthDetails[0]!, /the tracking logs hold \d+ bytes, the limit is 838860/);
    await guestWrites(pair, 1, [{ at: '9M', length: '64k', byte: 5 }]);
    await pair.replica.start();
    await assertRequired(pair, { trigger: 2, rung: 'suspect-regions', reason: /the tracking logs hold \d+ bytes/ });
    const plan = await pair.primary.json<{ readBytes: number }>('resync', 'plan', pair.vm);
    assert.ok(plan.readBytes >= 2 << 20 && plan.readBytes <= 24 << 20, `${plan.readBytes} bytes`);
    await pair.primary.json('set', pair.vm, '--log-limit', '50');
    await repair(pair);
    const ranges = ((await events(pair.primary, pair)).findLast(({ id }) => id === 29242)!.data['disks'] as { ranges: number }[]);
    assert.ok(ranges.every(({ ranges: count }) => count >= 1));
  });

  test('4: the machine crashed with the log open: only the regions of the change map are compared', async () => {
    await guestWrites(pair, 0, [{ at: '30M', length: '64k', byte: 6 }]);
    await pair.primary.kill9();
    await writeFile(bootIdFile, `${bootIds[1]}\n`);
    await pair.primary.start();
    await assertRequired(pair, { trigger: 4, rung: 'suspect-regions',
      reason: /the machine went down while the tracking log was open/ });
    await repair(pair);
  });

  test('4: another host took over the data folder and found the log open', async () => {
    await guestWrites(pair, 0, [{ at: '31M', length: '64k', byte: 7 }]);
    await pair.primary.kill9();
    // The next node of a cluster, with the data folder on shared storage.
    await Promise.all([writeFile(hostIdFile, 'host-2\n'), writeFile(bootIdFile, '55555555-5555-4555-8555-555555555555\n')]);
    await assert.rejects(pair.primary.start(), /DATA_FOLDER_IN_USE|is in use: host .* renewed its lease at/);
    // And the 30 s pass for which a host that does not answer may still be alive.
    const lease = join(pair.primary.data, 'lease.json');
    const { renewedAt, ...held } = JSON.parse(await readFile(lease, 'utf8')) as { renewedAt: number; hostId: string };
    assert.equal(held.hostId, 'host-1');
    await writeFile(lease, JSON.stringify({ ...held, renewedAt: renewedAt - 30_000 }));
    await pair.primary.start();
    await assertRequired(pair, { trigger: 4, rung: 'suspect-regions', reason: /the tracking log was left open by another host/ });
    await repair(pair);
  });

  test('4: another host started the VM from the same disk after this one went down: its writes are in no map, so all is compared', async () => {
    await guestWrites(pair, 0, [{ at: '32M', length: '64k', byte: 8 }]);
    await pair.primary.kill9();
    const down = Date.now();
    const folder = await temporaryFolder(t);
    await writeFile(join(folder, 'boot-id'), '33333333-3333-4333-8333-333333333333\n');
    const other = new TestServer('other', join(folder, 'other'), { UNDERSTUDY_BOOT_ID_FILE: join(folder, 'boot-id') });
    atEnd(t, () => other.kill9());
    await other.start();
    answerInside(other);
    const { disks } = await other.json<VmShape>('vm', 'add', 'standby', '--disk', pair.disks[0]!);
    await other.json('vm', 'attach', 'standby');
    // A host that comes within the reach of the last durable instant cannot be told from this one by its first writes; by its last ones.
    while (Date.now() <= down + DURABLE_MS) await new Promise((resolve) => setTimeout(resolve, 100));
    await mustRun('qemu-io', ['-f', 'raw', disks[0]!.uri, '-c', 'write -P 9 50M 64k', '-c', 'flush']);
    await other.kill9();
    await writeFile(bootIdFile, `${bootIds[2]}\n`);
    await pair.primary.start();
    await assertRequired(pair, { trigger: 4, rung: 'full-compare',
      reason: /the machine went down while the tracking log was open, and nobody can prove that disk .*disk0\.\w+ was not modified since: it was modified at/ });
    await repair(pair);
  });

  test('5: a disk file replaced by an older copy never starts by itself, and its full compare takes the replica back',
    async () => {
    await pair.primary.json('vm', 'stop', pair.vm);
    const older = `${pair.disks[0]}.older`;
    await cp(pair.disks[0]!, older, { preserveTimestamps: true });
    await pair.primary.json('vm', 'attach', pair.vm);
    await guestWrites(pair, 0, [{ at: '40M', length: '1M', byte: 8 }]);
    await assertEqual(pair);
    await pair.primary.json('vm', 'stop', pair.vm);
    await rename(older, pair.disks[0]!);
    await pair.primary.json('set', pair.vm, '--auto-resync', 'on');
    await pair.primary.json('vm', 'attach', pair.vm);
    await assertRequired(pair, { trigger: 5, rung: 'full-compare', reason: /disk0\.\w+ was replaced or reverted/ });
    await pair.primary.json('set', pair.vm, '--auto-resync', 'off');
    await refusesToOverwrite(pair);
    await repair(pair, '--resynchronize', '--overwrite-replica');
  });

  test('8: the user asks for it', async () => {
    await pair.primary.json('suspend', pair.vm);
    await pair.primary.json('resume', pair.vm, '--resynchronize', '--at', new Date(Date.now() + 3_600_000).toISOString());
    const status = await pair.status();
    assert.equal(status.state, 'WaitingForStartResynchronize');
    assert.equal((await resyncStatus(pair)).trigger, 8);
    assert.equal((await pair.primary.json<{ rung: string }>('resync', 'plan', pair.vm)).rung, 'full-compare');
    await pair.primary.json('cancel-resync', pair.vm);
    await assertRequired(pair, { trigger: 8, rung: 'full-compare', reason: /the user asked for it/ });
    await repair(pair);
  });
});
