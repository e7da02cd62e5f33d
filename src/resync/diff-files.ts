/** The diff disks of a resynchronization: where they lie, how they are opened, and which of them belong to nobody any more. */
import { removeDiffDisk, type DiffDisk } from '../disk/diff-disk.ts';
import { openDiffDiskFor } from '../disk/differencing-diff.ts';
import { replicatedDisks, type DiskRecord, type RelationshipRecord, type VmRecord } from '../model/records.ts';
import type { ReplicationPorts } from '../replication/replication-ports.ts';

export const diffPath = (disk: Pick<DiskRecord, 'path'>, token: string): string => `${disk.path}.${token.slice(0, 8)}.diff`;

/** Base and diff as one disk. What a run has put there counts: only a `fresh` one may be made. */
export async function openOverlay(
  ports: Pick<ReplicationPorts, 'files' | 'openDiskForReading'>, disk: DiskRecord, token: string,
  { fresh = false, readOnly = false } = {},
): Promise<DiffDisk> {
  const base = await ports.openDiskForReading(disk);
  try {
    return await openDiffDiskFor(ports.files, diffPath(disk, token), base, { mustExist: !fresh, readOnly });
  } catch (error) {
    await base.close();
    throw error;
  }
}

/** What a run's diff disk holds: all that its merge will write to the base. */
export async function* heldRanges(
  ports: Pick<ReplicationPorts, 'files' | 'openDiskForReading'>, disk: DiskRecord, token: string,
): AsyncGenerator<{ offset: number; length: number }> {
  const diff = await openOverlay(ports, disk, token, { readOnly: true });
  try {
    for await (const run of diff.runs(0, diff.virtualSize)) if (run.held) yield run;
  } finally {
    await diff.close();
  }
}

/** Removes the diff disks of runs that are over: a crash between putting that on record and removing them leaves them behind. */
export async function sweepDiffDisks(
  { files }: Pick<ReplicationPorts, 'files'>, vm: VmRecord, { resync }: Pick<RelationshipRecord, 'resync'>,
): Promise<void> {
  for (const { path } of replicatedDisks(vm)) {
    const [folder, name] = [path.slice(0, path.lastIndexOf('/')), path.slice(path.lastIndexOf('/') + 1)];
    const ours = resync === null ? null : diffPath({ path: name }, resync.token);
    for (const found of await files.list(folder)) {
      const diff = found.startsWith(`${name}.`) ? /^\.[0-9a-f]{8}\.diff/.exec(found.slice(name.length)) : null;
      if (diff === null || `${name}${diff[0]}` === ours) continue;
      if (found.endsWith('.map')) await removeDiffDisk(files, `${folder}/${name}${diff[0]}`);
      else await files.remove(`${folder}/${found}`);
    }
  }
}
