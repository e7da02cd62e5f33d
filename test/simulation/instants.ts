/**
 * What a failover could serve at this very moment: every recovery point and the latest instant, read by the product's own views from a
 * copy of the replica's volume. Nothing of the running hosts is touched, and no simulated time passes.
 */
import assert from 'node:assert/strict';
import type { VirtualDisk } from '../../src/disk/virtual-disk.ts';
import { openDiffDisk } from '../../src/disk/diff-disk.ts';
import { MemoryFiles } from '../../src/hrl/memory-files.ts';
import type { OpenFile } from '../../src/model/ports.ts';
import { pointId } from '../../src/model/recovery-points.ts';
import type { InboxRecord } from '../../src/model/records.ts';
import { openLatest, openPoint } from '../../src/replication/replica-view.ts';
import { diffPath } from '../../src/resync/diff-files.ts';
import { simDisk } from './sim-disk.ts';
import { compute } from './sim-host.ts';
import type { World } from './world.ts';

export interface Instant {
  id: string;
  /** The newest set that it shows. */
  epoch: number;
  disks: Uint8Array[];
}

export async function instantsOf(world: World): Promise<Instant[]> {
  const { catalog, volume } = world.replica;
  const record = world.replicaRecord;
  if (record.baselineId === '') return [];
  const files = new MemoryFiles();
  for (const path of volume.paths()) files.put(path, volume.contents(path));
  const vm = catalog.vms.get(record.vmId)!;
  const points = catalog.points.list(record.vmId);
  const waiting = catalog.inbox.list(record.vmId).filter(({ status }) => status === 'received');
  const base = async (path: string): Promise<VirtualDisk> => {
    const file: OpenFile = await files.open(path, 'write');
    return simDisk(volume, file, await file.size());
  };
  const found: Instant[] = [];
  for (const [index, point] of points.entries()) {
    if (point.damaged !== null) continue;
    const disks: Uint8Array[] = [];
    for (const disk of vm.disks) {
      const view = await openPoint({ files, compute }, await base(disk.path), disk, points.slice(index),
        (epoch, reason) => assert.fail(`point ${epoch}: ${reason}`));
      disks.push(await contentsOf(view));
    }
    found.push({ id: pointId(point), epoch: point.epoch, disks });
  }
  // What replication itself has found to be lost is for a resync to mend; older points are there all the same.
  if (record.lost !== null || record.wantedAgain !== null) return found;
  const sets: InboxRecord[] = [];
  for (const set of waiting) if (set.epoch === record.lastAppliedEpoch + 1 + sets.length) sets.push(set);
  const merging = record.resync !== null && record.resync.phase === 'merging';
  if (record.resync !== null && !merging) sets.length = 0;
  const epoch = record.lastAppliedEpoch + sets.length;
  if (epoch < record.consistentFrom || (record.applying !== null && epoch < record.applying)) return found;
  const disks: Uint8Array[] = [];
  for (const disk of vm.disks) {
    const plain = await base(disk.path);
    const seen = merging ? await openDiffDisk(files, diffPath(disk, record.resync!.token), plain) : plain;
    disks.push(await contentsOf(await openLatest({ files }, seen, disk, sets)));
  }
  return [...found, { id: 'latest', epoch, disks }];
}

/** Promises 2 and 3: each is one past instant, at any time, whatever runs or has crashed. */
export async function checkInstants(world: World): Promise<number> {
  const instants = await instantsOf(world);
  for (const { id, disks } of instants) {
    const contradiction = world.history.contradiction(disks);
    assert.equal(contradiction, null, `${id}: ${contradiction}\n${world.story()}`);
  }
  return instants.length;
}

async function contentsOf(disk: VirtualDisk): Promise<Uint8Array> {
  const bytes = new Uint8Array(disk.virtualSize);
  await disk.read(bytes, 0);
  await disk.close();
  return bytes;
}
