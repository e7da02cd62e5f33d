/**
 * A replica's disks at an instant, without changing them: an older point through undo logs, the latest through the logs that are not
 * applied yet. Nothing may be applied while a view is open (R15); what a set has written in part is no mixture in either of them.
 */
import { LayeredDisk, type DiskLayer } from '../disk/layered-disk.ts';
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import { UndoReader } from '../hrl/undo-reader.ts';
import { messageOf, UnderstudyError } from '../model/errors.ts';
import type { DiskRecord, InboxRecord, PointRecord } from '../model/records.ts';
import { defectOf } from './apply.ts';
import { LogLayer } from './log-layer.ts';
import type { ReplicaVm } from './replica-vm.ts';
import type { ReplicationPorts } from './replication-ports.ts';
import { UndoLayer } from './undo-layer.ts';

/** Entries of waiting logs that are indexed in memory (about 30 bytes each); beyond it the oldest are applied first. */
export const LOG_ENTRIES_MAX = 4_000_000;
/** Waiting logs up to this size are read whole before they are served; beyond it their structure is checked, and their digest was on arrival. */
const VERIFY_BYTES_MAX = 1 << 30;

/** What can be served at once as the latest instant. */
export interface Latest {
  /** The logs to look through, oldest first, verified as far as `VERIFY_BYTES_MAX` allows. */
  sets: InboxRecord[];
  throughEpoch: number;
  time: number | null;
  /** Why it is not newer, when a log that has arrived cannot be used. */
  defect: string | null;
}

/** The sets that follow what is applied, without a gap and without a defect. `through`: not beyond this one. */
export async function latestOf(ports: ReplicationPorts, vm: ReplicaVm, through = Number.MAX_SAFE_INTEGER): Promise<Latest> {
  const { relationship } = vm;
  const found: Latest = { sets: [], throughEpoch: relationship.lastAppliedEpoch, time: relationship.lastAppliedTime, defect: null };
  const waiting = vm.inbox.waiting().filter(({ epoch }) => epoch <= through);
  const bytes = waiting.reduce((sum, { disks }) => sum + disks.reduce((size, log) => size + log.size, 0), 0);
  let logs = relationship.lastAppliedLogs;
  for (const set of waiting) {
    if (set.epoch !== found.throughEpoch + 1) break;
    const data = bytes <= VERIFY_BYTES_MAX;
    const defect = await defectOf(ports, set, { ...relationship, lastAppliedLogs: logs }, vm.vm.disks, { data });
    if (defect !== null) {
      found.defect = `epoch ${set.epoch}: ${defect.reason}`;
      break;
    }
    logs = { ...logs, ...Object.fromEntries(set.disks.map(({ diskId, uniqueId }) => [diskId, uniqueId])) };
    found.sets.push(set);
    found.throughEpoch = set.epoch;
    found.time = Math.max(found.time ?? 0, set.closedAt);
  }
  return found;
}

/** Entries of the waiting sets: what serving them at once would have to index. */
export const entriesOf = (sets: readonly InboxRecord[]): number =>
  sets.reduce((sum, { disks }) => sum + disks.reduce((entries, log) => entries + log.entries, 0), 0);

/** One disk at the latest instant. `base`: the disk as a reader must see it, owned from here on. */
export async function openLatest(
  ports: Pick<ReplicationPorts, 'files'>, base: VirtualDisk, disk: DiskRecord, sets: readonly InboxRecord[],
): Promise<LayeredDisk> {
  const logs = sets.map(({ disks }) => disks.find(({ diskId }) => diskId === disk.diskId)!);
  return closingOnError(base, async () => {
    const layers = logs.length === 0 ? [] : [await LogLayer.open(ports.files, logs)];
    return new LayeredDisk(base, layers, logs.at(-1)?.diskSize ?? base.virtualSize);
  });
}

/**
 * One disk at an older point. `points`: it and all newer ones, oldest first. `damaged` is told which point's undo log turned out to be.
 * @throws UNDO_LOG_DAMAGED after telling
 */
export async function openPoint(
  ports: Pick<ReplicationPorts, 'files' | 'compute'>, base: VirtualDisk, disk: DiskRecord, points: readonly PointRecord[],
  damaged: (epoch: number, reason: string) => void,
): Promise<LayeredDisk> {
  return closingOnError(base, async () => {
    const layers: DiskLayer[] = [];
    try {
      for (const { epoch, disks } of points) {
        const log = disks.find(({ diskId }) => diskId === disk.diskId)!;
        if (log.end === 0) continue;
        const tell = (error: unknown) => damaged(epoch, messageOf(error));
        const reader = await UndoReader.open(ports, log.path, log.end).catch((error: unknown) => {
          tell(error);
          throw error;
        });
        layers.push(new UndoLayer(reader, tell));
      }
      return new LayeredDisk(base, layers, sizeAt(points[0]!, disk, base));
    } catch (error) {
      for (const layer of layers) await layer.close();
      throw error;
    }
  });
}

/**
 * The point of this epoch and those behind it: their undo shows its instant. Without the point itself it would be that of the next one.
 * @throws POINT_NOT_FOUND when it has gone
 */
export function pointsFrom(points: readonly PointRecord[], pointEpoch: number): PointRecord[] {
  const from = points.filter(({ epoch }) => epoch >= pointEpoch);
  if (from[0]?.epoch === pointEpoch) return from;
  throw new UnderstudyError('usage', 'POINT_NOT_FOUND', `the recovery point of epoch ${pointEpoch} has gone`,
    'Cancel the failover, and choose another point or the latest.');
}

function sizeAt(point: PointRecord, { diskId, path }: DiskRecord, { virtualSize }: VirtualDisk): number {
  const kept = point.disks.find((one) => one.diskId === diskId)!;
  if (virtualSize >= kept.virtualSize) return kept.virtualSize;
  throw new UnderstudyError('state', 'POINT_DISK_SHRUNK',
    `disk ${path} has ${virtualSize} bytes now, at the recovery point it had ${kept.virtualSize}`,
    'Choose a point from after the disk was made smaller, or the latest.');
}

async function closingOnError<T>(base: VirtualDisk, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    await base.close();
    throw error;
  }
}
