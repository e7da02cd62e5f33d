/**
 * What a failover could serve at this very moment: every recovery point and the latest instant, read by the product's own views from a
 * copy of the replica's volume. Nothing of the running hosts is touched, and no simulated time passes.
 */
import assert from 'node:assert/strict';
import type { VirtualDisk } from '../../src/disk/virtual-disk.ts';
import { openDiffDiskFor } from '../../src/disk/differencing-diff.ts';
import { MemoryFiles } from '../../src/hrl/memory-files.ts';
import { pointId } from '../../src/model/recovery-points.ts';
import type { DiskRecord, InboxRecord } from '../../src/model/records.ts';
import { openLatest, openPoint } from '../../src/replication/replica-view.ts';
import { diffPath } from '../../src/resync/diff-files.ts';
import { openSimDisk } from './sim-disk.ts';
import { compute, type SimHost } from './sim-host.ts';
import { VM_ID, type World } from './world.ts';

export interface Instant {
  id: string;
  /** The newest set that it shows. */
  epoch: number;
  disks: Uint8Array[];
}

function snapshotOf({ volume }: SimHost, paths = volume.paths()): MemoryFiles {
  const files = new MemoryFiles();
  for (const path of paths) {
    const { buffer, byteLength } = volume.contents(path);
    files.give(path, Buffer.from(buffer, 0, byteLength));
  }
  return files;
}

/** What guests see of the disks of a host at this moment, whatever their format. */
export function disksOf(host: SimHost): Promise<Uint8Array[]> {
  const { disks } = host.relationships.vm(VM_ID);
  const files = snapshotOf(host, disks.map(({ path }) => path));
  return Promise.all(disks.map(async (disk) =>
    contentsOf(await openSimDisk(host.volume, files, disk, 'read', host.ports.random))));
}

/** `host`: whichever of the two is the replica. */
export async function instantsOf(world: World, host = world.replica): Promise<Instant[]> {
  const { catalog, volume } = host;
  const record = catalog.relationships.get(VM_ID)!;
  if (record.baselineId === '') return [];
  const files = snapshotOf(host);
  const vm = catalog.vms.get(record.vmId)!;
  const points = catalog.points.list(record.vmId);
  const waiting = catalog.inbox.list(record.vmId).filter(({ status }) => status === 'received');
  const base = (disk: DiskRecord) => openSimDisk(volume, files, disk, 'read', host.ports.random);
  const found: Instant[] = [];
  for (const [index, point] of points.entries()) {
    if (point.damaged !== null) continue;
    const disks: Uint8Array[] = [];
    for (const disk of vm.disks) {
      const view = await openPoint({ files, compute }, await base(disk), disk, points.slice(index),
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
    const plain = await base(disk);
    const seen = merging ? await openDiffDiskFor(files, diffPath(disk, record.resync!.token), plain, { readOnly: true, mustExist: true }) : plain;
    disks.push(await contentsOf(await openLatest({ files }, seen, disk, sets)));
  }
  return [...found, { id: 'latest', epoch, disks }];
}

/** Promises 2 and 3: each is one past instant, at any time, whatever runs or has crashed. */
export async function checkInstants(world: World): Promise<number> {
  const instants = await instantsOf(world);
  for (const { id, disks } of instants) {
    const contradiction = world.history.contradiction(disks);
    if (contradiction !== null) world.fail(`${id}: ${contradiction}`);
  }
  return instants.length;
}

/** Of raw disks the base alone is looked at, which is quick; of images everything that a failover could serve. */
export async function checkNow(world: World): Promise<void> {
  if (world.format === 'raw') world.checkReplica();
  else await checkInstants(world);
}

async function contentsOf(disk: VirtualDisk): Promise<Uint8Array> {
  const bytes = new Uint8Array(disk.virtualSize);
  await disk.read(bytes, 0);
  await disk.close();
  return bytes;
}
