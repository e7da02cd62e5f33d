/**
 * Proof, while the guest writes, that the replica equals a point of the primary.
 *
 * A log switch makes the point, and the replica waits at it. What the primary has written since is known from the change map: a
 * difference outside of those regions is real, one inside is not decided and is looked at again at a later point. So there is no
 * false alarm, and what stays undecided is said (`unprovenBytes`).
 *
 * Invariants
 * - The replica is held for one window of a few minutes at a time (verify-window.ts), each at a point of its own; between two windows it
 *   applies what has arrived. What was proven at one point stays so: from there on both sides change by the same logs only.
 * - After each window what is left to do is on record: a verify that is cut goes on there. The record is of one baseline: a resync voids it.
 * - Nothing counts as different that was compared with a replica which may have moved on: a hold that has ended ends its compare.
 */
import { UnderstudyError } from '../model/errors.ts';
import { replicatedDisks, type VerifyRecord } from '../model/records.ts';
import type { AnySendingVm } from '../replication/sending-vm.ts';
import { StreamChannel } from './compare/frame-channel.ts';
import { runSource } from './compare/source.ts';
import type { Range } from './ladder.ts';
import { verifyCompareMessage, verifyHoldMessage } from './messages.ts';
import { Pacer } from './pacer.ts';
import { intersect, subtract, sumOf, takeWindow, united, wholeLeaves, WindowSize, type DiskRanges } from './verify-window.ts';

/** After so many looks, what the guest keeps writing to stays unproven. */
const PASSES_MAX = 4;
/** Attempts at one window: a cycle may come between its point and its hold, and a hold that takes too long ends. */
const ATTEMPTS_MAX = 5;
/** What was proven longer ago is looked at anew. */
const GOES_ON_MS = 7 * 86_400_000;

export interface VerifyResult {
  equal: boolean;
  comparedBytes: number;
  differingBytes: number;
  unprovenBytes: number;
  /** The instants that the proof speaks of: the newest point that was compared, and the oldest. */
  at: number;
  from: number;
  /** Windows in which the replica was held, and how long it was held at most, in ms. */
  windows: number;
  longestHoldMs: number;
  /** Where differences begin. */
  findings: { path: string; offset: number; length: number }[];
}

/** How far a verify is; `heldSince` while a window holds the replica's apply, on the monotonic clock. */
export interface VerifyProgress {
  comparedBytes: number;
  totalBytes: number;
  differingBytes: number;
  windows: number;
  heldSince: number | null;
}

export interface VerifyOptions {
  signal: AbortSignal;
  progress(progress: VerifyProgress): void;
  /** Bytes of a window; default: as many as are compared in a few minutes. Small in the simulation. */
  windowBytes?: number;
}

export async function verify(primary: AnySendingVm, options: VerifyOptions): Promise<VerifyResult> {
  const { relationships, clock } = primary.ports;
  const { vmId } = primary;
  const total = replicatedDisks(primary.vm).reduce((sum, { virtualSize }) => sum + virtualSize, 0);
  const size = new WindowSize(primary.relationship.settings.verify.diskBytesPerSec, options.windowBytes);
  await primary.hold('verify');
  try {
    let run = takenUp(primary) ?? begun(primary);
    for (;;) {
      if (sumOf(run.open) === 0) {
        if (sumOf(run.again) === 0 || run.pass >= PASSES_MAX) break;
        run = { ...run, pass: run.pass + 1, open: run.again, again: {} };
      }
      const { window, rest } = await takeWindow(run.open, size.bytes, (diskId, { offset, length }) => diskOf(primary, diskId).disk.extents(offset, length));
      const tell = (bytes: number, heldSince: number | null) => options.progress({ totalBytes: total, heldSince, windows: run.windows,
        comparedBytes: total - sumOf(run.open) - sumOf(run.again) + bytes, differingBytes: run.differingBytes });
      const found = await oneWindow(primary, window, size, tell, options.signal);
      // It was too large for one hold: the same again in smaller pieces.
      if (found === null) continue;
      if (sumOf(rest) > 0) size.learn(found.heldMs);
      run = {
        ...run, open: rest, again: united(run.again, found.undecided), differingBytes: run.differingBytes + found.differingBytes,
        findings: [...run.findings, ...found.findings], from: run.from ?? found.at, at: found.at, windows: run.windows + 1,
        longestHoldMs: Math.max(run.longestHoldMs, found.heldMs),
      };
      relationships.update(vmId, { verifying: run });
      tell(0, null);
    }
    relationships.update(vmId, { verifying: null });
    const { differingBytes, findings, at, from, windows, longestHoldMs } = run;
    const unprovenBytes = sumOf(run.again);
    return { equal: differingBytes === 0, comparedBytes: total - unprovenBytes, differingBytes, unprovenBytes, at: at ?? clock.now(), from: from ?? clock.now(),
      windows, longestHoldMs, findings };
  } finally {
    await primary.letGo('verify');
  }
}

/** What an earlier one has left to do; null when there is none, or when it spoke of disks that are others now. */
function takenUp(primary: AnySendingVm): VerifyRecord | null {
  const { verifying = null, baselineId } = primary.relationship;
  if (verifying === null || verifying.baselineId !== baselineId) return null;
  if (primary.ports.clock.now() - verifying.startedAt > GOES_ON_MS) return null;
  const sizes = new Map(replicatedDisks(primary.vm).map(({ diskId, virtualSize }) => [diskId, virtualSize]));
  const same = Object.keys(verifying.sizes).length === sizes.size && Object.entries(verifying.sizes).every(([diskId, size]) => sizes.get(diskId) === size);
  return same ? verifying : null;
}

function begun(primary: AnySendingVm): VerifyRecord {
  const sizes = Object.fromEntries(replicatedDisks(primary.vm).map(({ diskId, virtualSize }) => [diskId, virtualSize]));
  return {
    baselineId: primary.relationship.baselineId, startedAt: primary.ports.clock.now(), sizes, pass: 1, from: null, at: null, windows: 0, longestHoldMs: 0,
    differingBytes: 0, findings: [], again: {},
    open: Object.fromEntries(Object.entries(sizes).map(([diskId, length]) => [diskId, [{ offset: 0, length }]])),
  };
}

interface Found {
  at: number;
  heldMs: number;
  differingBytes: number;
  undecided: DiskRanges;
  findings: VerifyResult['findings'];
}

/** Compares the ranges at a point of their own. Null: the hold ended before they were compared, and the window is to be smaller. */
async function oneWindow(
  primary: AnySendingVm, ranges: DiskRanges, size: WindowSize, tell: (bytes: number, heldSince: number) => void, signal: AbortSignal,
): Promise<Found | null> {
  const { clock } = primary.ports;
  for (let attempt = 1; ; attempt++) {
    const { epoch } = await primary.syncNow(signal);
    const at = primary.relationship.lastAppliedTime ?? clock.now();
    const began = clock.monotonic();
    let held = false;
    try {
      const found = await onePoint(primary, epoch, ranges, (bytes) => {
        held = true;
        tell(bytes, began);
      }, signal);
      return { ...found, at, heldMs: clock.monotonic() - began };
    } catch (error) {
      if (!(error instanceof UnderstudyError) || error.code !== 'REPLICA_BUSY' || signal.aborted) throw error;
      // A cycle has come between the point and its hold: at the next point. Or the hold was too long.
      if (held && size.halve()) return null;
      if (attempt >= ATTEMPTS_MAX) throw error;
    }
  }
}

/** The replica holds its apply at this point meanwhile. */
async function onePoint(
  primary: AnySendingVm, epoch: number, ranges: DiskRanges, progress: (bytes: number) => void, signal: AbortSignal,
): Promise<Pick<Found, 'differingBytes' | 'undecided' | 'findings'>> {
  const { vmId, ports } = primary;
  const token = ports.random.uuid();
  const undecided: DiskRanges = {};
  const findings: VerifyResult['findings'] = [];
  let differingBytes = 0;
  let done = 0;
  try {
    await primary.link().call(verifyHoldMessage, { vmId, token, epoch, hold: true }, undefined, { signal });
    progress(0);
    for (const [diskId, selected] of Object.entries(ranges)) {
      const whole = await compare(primary, diskId, selected, token, (bytes) => progress(done + bytes), signal);
      done += sumOf({ [diskId]: selected });
      if (whole.equal) continue;
      const { path, virtualSize } = primary.vm.disks.find((disk) => disk.diskId === diskId)!;
      // Without what was written since the point: what differs there is real. What was written during this second look is not.
      const touched = wholeLeaves(primary.tracked!.touchedSince(epoch, diskId), virtualSize);
      const quiet = subtract(selected, touched);
      const inQuiet = quiet.length === 0 ? null : await compare(primary, diskId, quiet, token, () => undefined, signal);
      const touchedNow = wholeLeaves(primary.tracked!.touchedSince(epoch, diskId), virtualSize);
      // A map that cannot be trusted does not name everything that was written (R10): then nothing is decided.
      const named = primary.tracked!.suspects() !== null;
      const real = named && inQuiet !== null && !inQuiet.equal && sumOf({ now: touchedNow }) === sumOf({ then: touched });
      if (real) {
        differingBytes += inQuiet.differingBytes;
        findings.push({ path, offset: inQuiet.firstDifference ?? 0, length: inQuiet.differingBytes });
      }
      const left = intersect(selected, real || inQuiet === null || inQuiet.equal ? touchedNow : selected);
      if (left.length > 0) undecided[diskId] = left;
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
  const tracked = diskOf(primary, diskId);
  const stream = await primary.link().stream(verifyCompareMessage, { vmId, token, diskId }, { signal });
  const { diskBytesPerSec } = primary.relationship.settings.verify;
  const pacer = new Pacer(ports, () => ({ diskBytesPerSec, linkBytesPerSec: null }), tracked, signal);
  return runSource(new StreamChannel(stream, stream, ports.compute), {
    disk: tracked.disk, mode: 'compare-only', compute: ports.compute, session: { token, phase: 'verify' }, signal, ranges,
    pace: (bytes) => pacer.read(bytes), readRate: () => pacer.readRate, onProgress: ({ comparedBytes }) => progress(comparedBytes),
  });
}

function diskOf(primary: AnySendingVm, diskId: string) {
  const tracked = primary.tracked?.disk(diskId);
  if (tracked === undefined) throw new UnderstudyError('state', 'VM_CLOSED', 'the disks were closed during the verify', 'Try again.');
  return tracked;
}
