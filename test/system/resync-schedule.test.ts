import assert from 'node:assert/strict';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { suiteEnd } from '../rig/at-end.ts';
import { formatsFor, makeDisk, scramble } from '../rig/disk-formats.ts';
import type { Pair, Status } from '../rig/pair.ts';
import { assertEqual, events, replicatingPair } from './resync-rig.ts';

const MINUTE_MS = 60_000;

for (const format of formatsFor('dear', 'vhd')) describe(`${format}: when a resynchronization starts`, () => {
  const t = suiteEnd();
  let pair: Pair;

  before(async () => {
    pair = await replicatingPair(t, { format, sizes: [16 << 20] });
    await pair.primary.json('suspend', pair.vm);
  });

  const at = (ms: number) => new Date(Date.now() + ms).toISOString();
  /** HH:MM of local time, minutes from now. */
  const wall = (minutes: number) => new Date(Date.now() + minutes * MINUTE_MS).toTimeString().slice(0, 5);

  test('a start in the past, or more than 7 days ahead, is wrong usage and changes nothing', async () => {
    for (const [time, code] of [[at(-5 * MINUTE_MS), 'START_TIME_IN_PAST'], ['04/15/2013 12:00:00', 'START_TIME_IN_PAST'],
      [at(7 * 24 * 60 * MINUTE_MS + 5 * MINUTE_MS), 'START_TIME_TOO_FAR']] as const) {
      const done = await pair.primary.cli('resume', pair.vm, '--resynchronize', '--at', time, '--json');
      assert.equal(done.status, 2, done.stdout);
      assert.equal((JSON.parse(done.stdout) as { error: { code: string } }).error.code, code);
    }
    assert.equal((await pair.status()).state, 'Suspended');
  });

  test('a start within 7 days is shown, survives a restart, and is dropped by cancel-resync', async () => {
    const time = at(6 * 24 * 60 * MINUTE_MS);
    const status = await pair.primary.json<Status>('resume', pair.vm, '--resynchronize', '--at', time);
    assert.deepEqual([status.state, status.resynchronizeStartTime], ['WaitingForStartResynchronize', time]);
    assert.ok(status.healthDetails[0]!.includes(`It starts by itself at ${time}`), status.healthDetails[0]);
    await pair.primary.kill9();
    await pair.primary.start();
    assert.equal((await pair.status()).resynchronizeStartTime, time);
    assert.ok((await events(pair.primary, pair)).some(({ id,
      data }) => id === 'ResynchronizationScheduled' && data['at'] === time));
    const dropped = await pair.primary.json<Status>('cancel-resync', pair.vm);
    assert.deepEqual([dropped.state, dropped.resynchronizeStartTime], ['WaitingForStartResynchronize', null]);
    assert.equal((await pair.primary.cli('cancel-resync', pair.vm)).status, 3);
  });

  test('HH:MM is its next occurrence', async () => {
    const status = await pair.primary.json<Status>('resume', pair.vm, '--at', wall(90));
    const ahead = Date.parse(status.resynchronizeStartTime!) - Date.now();
    assert.ok(ahead > 88 * MINUTE_MS && ahead <= 90 * MINUTE_MS, `${ahead} ms ahead`);
    await pair.primary.json('cancel-resync', pair.vm);
  });

  test('a daily window that is not open yet sets the start to its opening; an open one starts at once', async () => {
    // Not held any more: a cancelled one waits for a person.
    const cancelled = await pair.primary.json<Status>('set', pair.vm, '--auto-resync', 'on');
    assert.deepEqual([cancelled.state, cancelled.resynchronizeStartTime], ['WaitingForStartResynchronize', null]);
    await pair.primary.json('resume', pair.vm);
    await pair.untilState('Replicating');
    await pair.primary.json('set', pair.vm, '--auto-resync', `${wall(120)}-${wall(180)}`);
    await pair.primary.json('vm', 'stop', pair.vm);
    await scramble(pair.disks[0]!, 4096);
    await pair.primary.json('vm', 'attach', pair.vm);
    const waiting = await pair.untilState('WaitingForStartResynchronize');
    const ahead = Date.parse(waiting.resynchronizeStartTime!) - Date.now();
    assert.ok(ahead > 118 * MINUTE_MS && ahead <= 120 * MINUTE_MS, `${ahead} ms ahead`);
    assert.equal((await pair.primary.json<Status>('set', pair.vm, '--auto-resync', 'off')).resynchronizeStartTime, null);
    assert.notEqual((await pair.primary.json<Status>('set', pair.vm, '--auto-resync',
      `${wall(-60)}-${wall(60)}`)).resynchronizeStartTime, null);
    await pair.untilState('Replicating');
    await assertEqual(pair);
  });

  test('of two VMs one waits in the queue until the other is done', async () => {
    await pair.primary.json('set', pair.vm, '--auto-resync', 'off', '--disk-rate', '4M');
    await pair.primary.json('vm', 'stop', pair.vm);
    await scramble(pair.disks[0]!, 12 << 20);
    await pair.primary.json('vm', 'attach', pair.vm);
    await addSecond();
    await pair.primary.json('resume', pair.vm);
    await pair.untilState('Resynchronizing');
    await pair.primary.json('suspend', 'vm2');
    await pair.primary.json('resume', 'vm2', '--resynchronize');
    const queue = await pair.primary.until<{ vmName: string; standing: string; position: number }[]>(['resync', 'queue'],
      (found) => found.length === 2 && found.some(({ standing }) => standing === 'waiting'));
    assert.deepEqual(queue.map(({ vmName, standing, position }) => [vmName, standing, position]), [[pair.vm, 'running', 0],
      ['vm2', 'waiting', 1]]);
    await pair.untilState('Replicating');
    await pair.primary.until<Status>(['status', 'vm2'], ({ state }) => state === 'Replicating');
    const seen = await pair.primary.json<{ id: string | number }[]>('events', 'vm2');
    assert.ok(seen.some(({ id }) => id === 'ResynchronizationQueued'), JSON.stringify(seen.map(({ id }) => id)));
  });

  async function addSecond(): Promise<void> {
    const disk = join(pair.folder, `second.${format}`);
    await makeDisk(disk, format, 4 << 20);
    await pair.primary.json('vm', 'add', 'vm2', '--disk', disk);
    const { fingerprint } = await pair.replica.json<{ fingerprint: string }>('fingerprint');
    await pair.primary.json('enable', 'vm2', '--replica', `127.0.0.1:${pair.replica.peerPort}`, '--fingerprint', fingerprint,
      '--frequency', '30', '--auto-resync', 'off');
    await pair.primary.json('vm', 'attach', 'vm2');
    await pair.primary.json('start', 'vm2');
    await pair.primary.until<Status>(['status', 'vm2'], ({ state }) => state === 'Replicating');
  }
});
