/**
 * After a start: may what was known of the disks still be believed? Pure; the facts are gathered by tracked-vm.ts.
 *
 * The answers are those of the design: rules R2 (process crash), R11 (machine crash), R24 (seals), R25 (other host), triggers
 * 1, 4 and 5.
 */
import { changedMarks, marksOf } from '../disk/seal.ts';
import type { SealRecord, TrackingRecord } from '../model/records.ts';
import type { TriggerNumber } from '../model/resync-trigger.ts';
import { DURABLE_MS, type LeaseRecord } from './write-lease.ts';

export type Continuity =
  /** Cleanly stopped and untouched since. */
  | { kind: 'clean' }
  /** This machine's page cache still holds everything: take the open logs up again. */
  | { kind: 'recover' }
  /** The disks may differ from what the logs say. `mapHolds`: the change map still names every region that may differ. */
  | { kind: 'lost'; trigger: TriggerNumber; reason: string; mapHolds: boolean; mayBeOlder?: true };

export interface ContinuityFacts {
  tracking: TrackingRecord;
  bootId: string;
  hostId: string;
  lease: LeaseRecord | null;
  /** The newest instant at which the host that wrote the lease was surely there. */
  aliveAt: number | null;
  /** By disk id, taken now. */
  seals: Record<string, SealRecord>;
  /** Disk id to what people call it. */
  names: Record<string, string>;
  trustDisk: boolean;
}

export function decideContinuity(facts: ContinuityFacts): Continuity {
  const { tracking } = facts;
  if (!tracking.running) return afterCleanStop(facts);
  // What the catalog could not be told before the crash (promise 1).
  const owed = facts.lease?.kind === 'lost' ? facts.lease : null;
  if (tracking.hostId !== facts.hostId) return afterMachineCrash(facts, 'the tracking log was left open by another host');
  if (tracking.bootId !== facts.bootId) return afterMachineCrash(facts, 'the machine went down while the tracking log was open');
  return owed ?? afterProcessCrash(facts);
}

function afterCleanStop(facts: ContinuityFacts): Continuity {
  for (const [diskId, name] of Object.entries(facts.names)) {
    const lost = compareSeals(name, facts.tracking.seals[diskId], facts.seals[diskId], facts);
    if (lost !== null) return lost;
  }
  return { kind: 'clean' };
}

/**
 * Trigger 4. The map knows of this host's own writes: it is enough only where nobody else has written since (another host of shared
 * storage, a rescue system).
 */
function afterMachineCrash(facts: ContinuityFacts, reason: string): Continuity {
  if (facts.lease?.kind === 'lost' && !facts.lease.mapHolds) return { kind: 'lost', trigger: 4, mapHolds: false, reason };
  for (const [diskId, name] of Object.entries(facts.names)) {
    const now = facts.seals[diskId];
    if (facts.trustDisk && (now === undefined || !isInFile(now))) continue;
    const why = writtenByOthers(diskId, now, facts);
    if (why === null) continue;
    const unknown = now === undefined || !isInFile(now);
    return { kind: 'lost', trigger: 4, mapHolds: false, ...(unknown && { mayBeOlder: true }),
      reason: `${reason}, and nobody can prove that disk ${name} was not modified since: ${why}` };
  }
  return { kind: 'lost', trigger: 4, mapHolds: true, reason };
}

/** Null when nobody else can have written after this host, but for the few seconds that a record reaches ahead. */
function writtenByOthers(diskId: string, now: SealRecord | undefined, { lease, aliveAt }: ContinuityFacts): string | null {
  if (now === undefined || !isInFile(now)) return 'such a disk does not tell who wrote to it last';
  const before = lease?.kind === 'quiet' ? lease.seals[diskId] : undefined;
  if (before !== undefined && before.kind === now.kind && changedMarks(before, now).length === 0) return null;
  if (aliveAt === null) return 'there is no record of the last writes';
  const { mtimeNs, ctimeNs } = marksOf(now);
  const latest = Math.max(milliseconds(mtimeNs), milliseconds(ctimeNs));
  if (latest <= aliveAt + DURABLE_MS) return null;
  return `it was modified at ${iso(latest)}, this host's last write was before ${iso(aliveAt + DURABLE_MS)}`;
}

function afterProcessCrash(facts: ContinuityFacts): Continuity {
  const { lease } = facts;
  for (const [diskId, name] of Object.entries(facts.names)) {
    const now = facts.seals[diskId];
    if (facts.trustDisk && now?.kind !== 'file') continue;
    if (lease === null || lease.kind === 'lost') return unproven(name, 'there is no record of the last writes');
    if (lease.kind === 'quiet') {
      const lost = compareSeals(name, lease.seals[diskId], now, facts);
      if (lost !== null) return lost;
    } else if (now !== undefined && isInFile(now)) {
      const { mtimeNs, ctimeNs } = marksOf(now);
      const latest = Math.max(milliseconds(mtimeNs), milliseconds(ctimeNs));
      if (latest > lease.until) {
        return unproven(name, `it was modified at ${iso(latest)}, this host's last write was before ${iso(lease.until)}`);
      }
    } else {
      return unmarked(name, 'such a disk does not tell who wrote to it last');
    }
  }
  return { kind: 'recover' };
}

/** Null when the seals prove that nobody wrote in between. */
function compareSeals(
  name: string, before: SealRecord | undefined, now: SealRecord | undefined, facts: ContinuityFacts,
): Extract<Continuity, { kind: 'lost' }> | null {
  if (now === undefined || now.kind === 'none') {
    return facts.trustDisk ? null : unmarked(name, 'such a disk does not tell whether somebody wrote to it, or which of its states it is in');
  }
  if (before === undefined || before.kind !== now.kind) return unproven(name, 'it was not sealed at the last stop');
  if (now.kind === 'block' && !facts.trustDisk && before.bootId !== now.bootId) {
    return unmarked(name, 'the machine was restarted, and a block device keeps no mark of writes over that');
  }
  const [old, found] = [marksOf(before), marksOf(now)];
  const changed = changedMarks(before, now);
  if (changed.length === 0) return null;
  const reverted = revertReason(before, now);
  if (reverted !== null) {
    return { kind: 'lost', trigger: 5, mapHolds: false, reason: `disk ${name} was replaced or reverted: ${reverted}` };
  }
  const what = changed.map((key) => `${key} was ${String(old[key])}, is ${String(found[key])}`).join('; ');
  return { kind: 'lost', trigger: 1, mapHolds: false, reason: `disk ${name} was modified while the VM was off (${what})` };
}

/** A file that is another one, or older than the one that was sealed, was put there by a restore, a copy or a revert. */
function revertReason(before: SealRecord, now: SealRecord): string | null {
  if (!isInFile(before)) return null;
  const [old, found] = [marksOf(before), marksOf(now)];
  if (old.inode !== found.inode || old.device !== found.device) return 'it is another file than at the last stop';
  if (milliseconds(found.mtimeNs) < milliseconds(old.mtimeNs)) {
    return `it is of ${iso(milliseconds(found.mtimeNs))}, at the last stop it was of ${iso(milliseconds(old.mtimeNs))}`;
  }
  return null;
}

const isInFile = ({ kind }: SealRecord): boolean => kind === 'file' || kind === 'vhdx';

const unproven = (name: string, why: string): Extract<Continuity, { kind: 'lost' }> =>
  ({ kind: 'lost', trigger: 1, mapHolds: false, reason: `nobody can prove that disk ${name} was not modified: ${why}` });

/** Not even whether it is older than the replica can be told. */
const unmarked = (name: string, why: string): Extract<Continuity, { kind: 'lost' }> => ({ ...unproven(name, why), mayBeOlder: true });

const milliseconds = (nanoseconds: unknown): number => Number(BigInt(String(nanoseconds)) / 1_000_000n);
const iso = (time: number): string => new Date(time).toISOString();
