import assert from 'node:assert/strict';
import { cp, open, readdir, rename, rm, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { suiteEnd } from '../rig/at-end.ts';
import { formatsFor } from '../rig/disk-formats.ts';
import type { Pair } from '../rig/pair.ts';
import { assertEqual, assertRequired, diffFiles, events, guestWrites, holdImage, refusesToOverwrite, repair, replicatingPair, resyncStatus } from './resync-rig.ts';

for (const format of formatsFor('dear')) describe(`${format}: triggers of the replica, each by its real cause`, () => {
  const t = suiteEnd();
  let pair: Pair;

  before(async () => {
    pair = await replicatingPair(t, { format });
    await guestWrites(pair, 0, [{ at: '0', length: '4M', byte: 1 }]);
    await assertEqual(pair);
  });

  async function logsIn(folder: string): Promise<string[]> {
    const names = await readdir(folder, { recursive: true });
    return names.filter((name) => name.endsWith('.hrl')).map((name) => join(folder, name));
  }

  /** Two sets that have arrived and cannot be applied, as their disk is in somebody's hands; returns what lets it go. */
  async function held(at: number): Promise<() => Promise<void>> {
    const letGo = await holdImage(t, pair.replicaPath(0));
    for (const megabytes of [at, at + 1]) {
      await guestWrites(pair, 0, [{ at: `${megabytes}M`, length: '256k', byte: 3 + megabytes }]);
      const done = await pair.primary.cli('sync-now', pair.vm);
      assert.notEqual(done.status, 0, 'the set could be applied');
    }
    assert.equal((await logsIn(pair.replica.data)).length, 4);
    return letGo;
  }

  async function damage(path: string): Promise<void> {
    const file = await open(path, 'r+');
    await file.write(Buffer.alloc(512, 0xee), 0, 512, Math.floor((await file.stat()).size / 2));
    await file.close();
  }

  /** Pairs of logs of one disk take each other's places. */
  async function reorder(paths: string[]): Promise<void> {
    const byDisk = Map.groupBy([...paths].sort(), (path) => path.replace(/\.\d+\.hrl$/, ''));
    for (const [first, second] of byDisk.values()) {
      await rename(first!, `${first!}.other`);
      await rename(second!, first!);
      await rename(`${first!}.other`, second!);
    }
  }

  const each = (hurt: (path: string) => Promise<void>) => async (paths: string[]) => {
    for (const path of paths) await hurt(path);
  };
  const ways: [name: string, hurt: (paths: string[]) => Promise<void>][] = [
    ['corrupted', each(damage)], ['cut', each(async (path) => truncate(path, Math.floor((await stat(path)).size / 2)))],
    ['withheld', each((path) => rm(path))], ['reordered', reorder],
  ];

  for (const [index, [name, hurt]] of ways.entries()) {
    test(`no trigger: logs ${name} in the inbox are sent again while the primary has them`, async () => {
      const before = (await events(pair.primary, pair)).filter(({ id }) => id === 'ResynchronizationRequired').length;
      const letGo = await held(5 + 4 * index);
      await pair.replica.kill9();
      await hurt(await logsIn(pair.replica.data));
      await letGo();
      await pair.replica.start();
      await syncUntilDone();
      await pair.compare();
      const seen = (await events(pair.primary, pair)).filter(({ id }) => id === 'ResynchronizationRequired');
      assert.equal(seen.length, before, JSON.stringify(seen.at(-1)));
      assert.equal((await pair.status()).state, 'Replicating');
    });

    test(`6: logs ${name} in the inbox that the primary cannot supply again`, async () => {
      const letGo = await held(7 + 4 * index);
      await Promise.all([pair.replica.kill9(), pair.primary.kill9()]);
      await hurt(await logsIn(pair.replica.data));
      // The primary's logs lie beside its disks; one that is still open has an index.
      const names = await readdir(pair.folder);
      const ours = names.filter((file) => file.endsWith('.hrl') && !names.includes(`${file}.index`));
      assert.ok(ours.length >= 4, ours.join());
      for (const file of ours) await damage(join(pair.folder, file));
      await letGo();
      await Promise.all([pair.replica.start(), pair.primary.start()]);
      for (let left = 20; left > 0 && (await pair.status()).state === 'Replicating'; left--) await pair.primary.cli('sync-now', pair.vm);
      await assertRequired(pair, { trigger: 6, rung: 'full-compare', reason: /./ });
      await repair(pair);
    });
  }

  test('7: the replica disk was restored from an older copy: nothing starts by itself, whatever the settings', async () => {
    const older = `${pair.replicaPath(0)}.older`;
    await cp(pair.replicaPath(0), older, { preserveTimestamps: true });
    await guestWrites(pair, 0, [{ at: '9M', length: '1M', byte: 4 }]);
    await assertEqual(pair);
    await pair.replica.kill9();
    await rename(older, pair.replicaPath(0));
    await pair.replica.start();
    await pair.primary.json('set', pair.vm, '--auto-resync', 'on');
    await pair.primary.cli('sync-now', pair.vm);
    await assertRequired(pair, { trigger: 7, rung: 'full-compare',
      reason: /disk0\.\w+ was changed, replaced or restored behind our back/ });
    assert.equal((await pair.replica.json<{ state: string }>('status', pair.vm)).state, 'WaitingForStartResynchronize');
    await pair.primary.json('set', pair.vm, '--auto-resync', 'off');
    await refusesToOverwrite(pair);
    await repair(pair, '--resynchronize', '--overwrite-replica');
  });

  test('7: the whole data folder of the replica was restored: it is behind what it had reported', async () => {
    await pair.replica.stop();
    const older = `${pair.replica.data}.older`;
    await cp(pair.replica.data, older, { recursive: true, preserveTimestamps: true, filter: (path) => !path.endsWith('.sock') });
    await pair.replica.start();
    await guestWrites(pair, 0, [{ at: '11M', length: '64k', byte: 5 }]);
    await assertEqual(pair);
    await pair.replica.kill9();
    await rm(pair.replica.data, { recursive: true });
    await rename(older, pair.replica.data);
    await pair.replica.start();
    await pair.primary.cli('sync-now', pair.vm);
    await assertRequired(pair, { trigger: 7, rung: 'full-compare', reason: /./ });
    await refusesToOverwrite(pair);
    await repair(pair, '--resynchronize', '--overwrite-replica');
  });

  test('a loss of the primary on top of one of the replica does not make the repair smaller', async () => {
    const older = `${pair.replicaPath(0)}.older`;
    await cp(pair.replicaPath(0), older, { preserveTimestamps: true });
    await guestWrites(pair, 0, [{ at: '13M', length: '1M', byte: 6 }]);
    await assertEqual(pair);
    await pair.replica.kill9();
    await rename(older, pair.replicaPath(0));
    await pair.replica.start();
    await pair.primary.cli('sync-now', pair.vm);
    await pair.untilState('WaitingForStartResynchronize');
    await pair.primary.json('set', pair.vm, '--disk-rate', '3M');
    await pair.primary.json('resume', pair.vm, '--overwrite-replica');
    await pair.untilState('Resynchronizing');
    await pair.primary.until<{ phase: string }>(['resync', 'status', pair.vm], ({ phase }) => phase === 'comparing');
    let diffs = await diffFiles(pair);
    while (diffs.length === 0 && (await resyncStatus(pair)).phase === 'comparing') diffs = await diffFiles(pair);
    const ends = { raw: '.diff', vhd: '.avhd', vhdx: '.avhdx' };
    assert.ok(diffs.some((name) => name.includes(ends[format])), `${diffs.join()} over a ${format}`);
    // Still at 3 MB/s: a limit counts at once, and the resynchronization must not end before the log has grown.
    await pair.primary.json('set', pair.vm, '--log-limit', '0.1');
    await guestWrites(pair, 1, [{ at: '0', length: '512k', byte: 7 }]);
    await pair.untilState('WaitingForStartResynchronize');
    // The event tells of the log limit; what stays required is the worse of the two.
    assert.equal((await resyncStatus(pair)).trigger, 7);
    assert.equal((await pair.primary.json<{ rung: string }>('resync', 'plan', pair.vm)).rung, 'full-compare');
    await pair.primary.json('set', pair.vm, '--log-limit', '50', '--disk-rate', '0');
    await repair(pair, '--overwrite-replica');
  });

  async function syncUntilDone(): Promise<void> {
    for (let left = 20; left > 0; left--) if ((await pair.primary.cli('sync-now', pair.vm)).status === 0) return;
    assert.fail('sync-now never succeeds');
  }
});
