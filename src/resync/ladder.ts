/** Which repair is the smallest that is proven enough (design §7), and whether the two sides may be compared at all. Pure. */
import { shellWord } from '../disk/disk-errors.ts';
import { UnderstudyError } from '../model/errors.ts';
import type { DiskRecord, RequiredResync } from '../model/records.ts';
import { RESYNC_TRIGGERS, type Rung } from '../model/resync-trigger.ts';
import type { ReplicaCharacteristics } from './messages.ts';

export interface Range {
  offset: number;
  length: number;
}

export interface Plan {
  rung: Rung;
  /** Completes "rung X because …". */
  reason: string;
  /** What is to be compared, by disk id. */
  ranges: Map<string, Range[]>;
}

/**
 * `suspects`: what the change map names, by disk id; null where it is not to be trusted. A map explains a loss on the primary's
 * side whose writes it has seen: triggers 2, 3 and 4. What happened behind our back, or on the replica, no map has seen.
 */
export function planOf(
  required: Pick<RequiredResync, 'trigger' | 'mapKnows'>, disks: DiskRecord[], suspects: Map<string, Range[]> | null, missing: ReadonlySet<string>,
): Plan {
  const whole = new Map(disks.map(({ diskId, virtualSize }) => [diskId, [{ offset: 0, length: virtualSize }]]));
  const { because } = RESYNC_TRIGGERS[required.trigger];
  if (missing.size > 0) return { rung: 'full-copy', reason: 'the replica has no disk to compare with', ranges: whole };
  if (required.mapKnows === true && suspects !== null) {
    return { rung: 'suspect-regions', ranges: suspects, reason: required.trigger === 6
      ? 'the replica was written without a log, and every region that may differ is known'
      : 'the direction was reversed, and what both sides have written since they were equal is known' };
  }
  const seenByMap = required.trigger === 2 || required.trigger === 3 || required.trigger === 4;
  if (required.trigger === 8) return { rung: 'full-compare', reason: `${because}: everything is compared`, ranges: whole };
  if (!seenByMap) return { rung: 'full-compare', reason: `${because}, which no change map has seen`, ranges: whole };
  if (suspects === null) return { rung: 'full-compare', reason: `${because}, and the change map is not to be trusted`, ranges: whole };
  return { rung: 'suspect-regions', reason: `${because}, and the change map names every region that may differ`, ranges: suspects };
}

/** Bytes to be read on each side. */
export function readBytesOf(plan: Plan): number {
  return [...plan.ranges.values()].reduce((sum, ranges) => sum + ranges.reduce((bytes, { length }) => bytes + length, 0), 0);
}

/** Step 1: size, sector size, geometry and the set of disks must be the same; a missing file is none of these. */
export function checkCharacteristics(vmName: string, disks: DiskRecord[], theirs: ReplicaCharacteristics[], then = 'resume'): void {
  checkSet(vmName, disks, theirs);
  for (const disk of disks) {
    const other = theirs.find(({ diskId }) => diskId === disk.diskId)!;
    if (other.missing) continue;
    compareOne('SIZE_MISMATCH', 'bytes', disk.virtualSize, other.virtualSize, { disk, other, then });
    compareOne('SECTOR_SIZE_MISMATCH', 'bytes in a logical sector', disk.logicalSectorSize, other.logicalSectorSize, { disk, other, then });
    if (disk.geometry !== null && other.geometry !== null) {
      const chs = ({ cylinders, heads, sectorsPerTrack }: NonNullable<DiskRecord['geometry']>) => `${cylinders}/${heads}/${sectorsPerTrack}`;
      compareOne('GEOMETRY_MISMATCH', 'as geometry', chs(disk.geometry), chs(other.geometry), { disk, other, then });
    }
  }
}

function checkSet(vmName: string, disks: DiskRecord[], theirs: ReplicaCharacteristics[]): void {
  const ours = disks.find(({ diskId }) => !theirs.some((other) => other.diskId === diskId));
  const other = theirs.find(({ diskId }) => !disks.some((disk) => disk.diskId === diskId));
  if (ours === undefined && other === undefined) return;
  const which = [
    ...(ours === undefined ? [] : [`the replica has none for ${ours.path}`]), ...(other === undefined ? [] : [`the primary has none for ${other.path}`]),
  ];
  throw mismatch('DISK_SET_MISMATCH',
    `VM '${vmName}' has ${count(disks.length)} on the primary, its replica has ${count(theirs.length)}: ${which.join(', and ')}`,
    'Remove replication on both sides and enable it again with this set of disks.');
}

const count = (disks: number): string => `${disks} replicated disk${disks === 1 ? '' : 's'}`;

function compareOne<T>(
  code: string, what: string, ours: T, theirs: T, { disk, other, then }: { disk: DiskRecord; other: ReplicaCharacteristics; then: string },
): void {
  if (ours === theirs) return;
  throw mismatch(code, `disk ${disk.path} has ${String(ours)} ${what} on the primary, its replica ${other.path} has ${String(theirs)}`,
    code === 'SIZE_MISMATCH' && Number(ours) > Number(theirs)
      ? `On the replica host, bring its disk to that size (understudy disk resize ${shellWord(other.path)} ${String(ours)}), then ${then}.`
      : then === 'resume' ? 'On the replica host, move its disk away: it is then copied anew and whole. Then resume.'
        : `Put a copy like the primary's disk there, then ${then}; or start without --use-existing.`);
}

const mismatch = (code: string, message: string, remedy: string): UnderstudyError => new UnderstudyError('state', code, message, remedy);
