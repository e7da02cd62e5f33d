/**
 * Proof, while the guest writes, that the replica equals a point of the primary.
 *
 * A log switch makes the point, and the replica waits at it. What the primary has written since is known from the change map: a
 * difference outside of those regions is real, one inside is not decided and is looked at again at the next point. So there is no
 * false alarm, and what stays undecided is said (`unprovenBytes`).
 */
import { UnderstudyError } from '../model/errors.ts';
import { replicatedDisks } from '../model/records.ts';
import type { AnySendingVm } from '../replication/sending-vm.ts';
import { StreamChannel } from './compare/frame-channel.ts';
import { runSource } from './compare/source.ts';
import type { Range } from './ladder.ts';
import { verifyCompareMessage, verifyHoldMessage } from './messages.ts';
import { Pacer } from './pacer.ts';

/** After so many points, what the guest keeps writing to stays unproven. */
const PASSES_MAX = 4;

export interface VerifyResult {
  equal: boolean;
  comparedBytes: number;
  differingBytes: number;
  unprovenBytes: number;
  /** The instant that the proof speaks of: the newest point that was compared. */
  at: number;
  /** Where differences begin. */
  findings: { path: string; offset: number; length: number }[];
}

export interface VerifyOptions {
  signal: AbortSignal;
  progress(comparedBytes: number, totalBytes: number): void;
}

export async function verify(primary: AnySendingVm, options: VerifyOptions): Promise<VerifyResult> {
  const disks = replicatedDisks(primary.vm);
  const result: VerifyResult = { equal: true, comparedBytes: 0, differingBytes: 0, unprovenBytes: 0, at: 0, findings: [] };
  let open = new Map<string, Range[]>(disks.map(({ diskId, virtualSize }) => [diskId, [{ offset: 0, length: virtualSize }]]));
  const total = sumOf(open);
  await primary.hold('verify');
  try {
    for (let pass = 0; pass < PASSES_MAX && sumOf(open) > 0; pass++) {
      const { epoch } = await primary.syncNow(options.signal);
      result.at = primary.relationship.lastAppliedTime ?? primary.ports.clock.now();
      const found = await onePoint(primary, epoch, open, (bytes) => options.progress(total - sumOf(open) + bytes, total), options.signal);
      result.differingBytes += found.differingBytes;
      result.findings.push(...found.findings);
      open = found.undecided;
    }
  } finally {
    await primary.letGo('verify');
  }
  result.unprovenBytes = sumOf(open);
  result.comparedBytes = total - result.unprovenBytes;
  result.equal = result.differingBytes === 0;
  return result;
}

/** Compares the ranges at one point; the replica holds its apply there meanwhile. */
async function onePoint(
  primary: AnySendingVm, epoch: number, ranges: Map<string, Range[]>, progress: (bytes: number) => void, signal: AbortSignal,
): Promise<{ differingBytes: number; undecided: Map<string, Range[]>; findings: VerifyResult['findings'] }> {
  const { vmId, ports } = primary;
  const token = ports.random.uuid();
  await primary.link().call(verifyHoldMessage, { vmId, token, epoch, hold: true }, undefined, { signal });
  const undecided = new Map<string, Range[]>();
  const findings: VerifyResult['findings'] = [];
  let differingBytes = 0;
  let done = 0;
  try {
    for (const [diskId, selected] of ranges) {
      const whole = await compare(primary, diskId, selected, token, (bytes) => progress(done + bytes), signal);
      done += sumOf(new Map([[diskId, selected]]));
      if (whole.equal) continue;
      // Without what was written since the point: what differs there is real. What was written during this second look is not.
      const touched = primary.tracked!.touchedSince(epoch, diskId);
      const quiet = subtract(selected, touched);
      const inQuiet = quiet.length === 0 ? null : await compare(primary, diskId, quiet, token, () => undefined, signal);
      const touchedNow = primary.tracked!.touchedSince(epoch, diskId);
      // A map that cannot be trusted does not name everything that was written (R10): then nothing is decided.
      const named = primary.tracked!.suspects() !== null;
      const real = named && inQuiet !== null && !inQuiet.equal && sumRanges(touchedNow) === sumRanges(touched);
      if (real) {
        differingBytes += inQuiet.differingBytes;
        const { path } = primary.vm.disks.find((disk) => disk.diskId === diskId)!;
        findings.push({ path, offset: inQuiet.firstDifference ?? 0, length: inQuiet.differingBytes });
      }
      undecided.set(diskId, intersect(selected, real || inQuiet === null || inQuiet.equal ? touchedNow : selected));
    }
  } finally {
    await primary.link().call(verifyHoldMessage, { vmId, token, epoch, hold: false }).catch(() => undefined);
  }
  return { differingBytes, undecided, findings };
}

async function compare(
  primary: AnySendingVm, diskId: string, ranges: Range[], token: string, progress: (bytes: number) => void, signal: AbortSignal,
) {
  const { vmId, ports } = primary;
  const tracked = primary.tracked?.disk(diskId);
  if (tracked === undefined) throw new UnderstudyError('state', 'VM_CLOSED', 'the disks were closed during the verify', 'Try again.');
  const stream = await primary.link().stream(verifyCompareMessage, { vmId, token, diskId }, { signal });
  const { diskBytesPerSec } = primary.relationship.settings.verify;
  const pacer = new Pacer(ports.clock, () => ({ diskBytesPerSec, linkBytesPerSec: null }), () => tracked.openOperations, signal);
  return runSource(new StreamChannel(stream, stream, ports.compute), {
    disk: tracked.disk, mode: 'compare-only', compute: ports.compute, session: { token, phase: 'verify' }, signal, ranges,
    pace: (bytes) => pacer.read(bytes), onProgress: ({ comparedBytes }) => progress(comparedBytes),
  });
}

const sumRanges = (ranges: Range[]): number => ranges.reduce((sum, { length }) => sum + length, 0);
const sumOf = (ranges: Map<string, Range[]>): number => [...ranges.values()].reduce((sum, some) => sum + sumRanges(some), 0);

/** What of `ranges` lies outside of `without`; both in order and without overlaps. */
export function subtract(ranges: Range[], without: Range[]): Range[] {
  const left: Range[] = [];
  for (const { offset, length } of ranges) {
    let from = offset;
    for (const hole of without) {
      if (hole.offset + hole.length <= from || hole.offset >= offset + length) continue;
      if (hole.offset > from) left.push({ offset: from, length: hole.offset - from });
      from = Math.max(from, hole.offset + hole.length);
    }
    if (from < offset + length) left.push({ offset: from, length: offset + length - from });
  }
  return left;
}

export function intersect(ranges: Range[], others: Range[]): Range[] {
  const common: Range[] = [];
  for (const { offset, length } of ranges) {
    for (const other of others) {
      const from = Math.max(offset, other.offset);
      const to = Math.min(offset + length, other.offset + other.length);
      if (from < to) common.push({ offset: from, length: to - from });
    }
  }
  return common;
}
