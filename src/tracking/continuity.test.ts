import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { SealRecord, TrackingRecord } from '../model/records.ts';
import { decideContinuity, type Continuity, type ContinuityFacts } from './continuity.ts';
import { DURABLE_MS } from './write-lease.ts';

const NOW = Date.UTC(2026, 4, 1, 12);
const ns = (time: number): string => `${BigInt(time) * 1_000_000n}`;

const file = (change: Record<string, unknown> = {}): SealRecord => (
  { kind: 'file', size: 1 << 30, mtimeNs: ns(NOW), ctimeNs: ns(NOW), inode: '11', device: '2', ...change });
const vhdx = (change: Record<string, unknown> = {}, inner: Record<string, unknown> = {}): SealRecord => (
  { kind: 'vhdx', fileWriteGuid: 'f1', dataWriteGuid: 'd1', file: file(inner), ...change });
const block = (change: Record<string, unknown> = {}): SealRecord => (
  { kind: 'block', size: 1 << 30, bootId: 'boot-1', sectorsWritten: '77', major: 8, minor: 16, diskSequence: '4', ...change });
const none: SealRecord = { kind: 'none', reason: 'an NBD server' };

const tracking: TrackingRecord = {
  epoch: 4, mode: 'logging', running: true, bootId: 'boot-1', hostId: 'host-1', seals: {}, chain: {}, mapTrusted: true,
};

interface Situation {
  running?: boolean;
  bootId?: string;
  hostId?: string;
  before?: SealRecord;
  lease?: 'none' | 'quiet' | { until: number } | { mapHolds: boolean };
  now?: SealRecord;
  trustDisk?: boolean;
  aliveAt?: number | null;
}

function decide(
  { running = true, bootId = 'boot-1', hostId = 'host-1', before, lease = 'none', now = file(), trustDisk = false, aliveAt = null }: Situation,
): Continuity {
  const seals: Record<string, SealRecord> = before === undefined ? {} : { d0: before };
  const record: ContinuityFacts['lease'] = lease === 'none' ? null : lease === 'quiet' ? { kind: 'quiet', seals }
    : 'mapHolds' in lease ? { kind: 'lost', trigger: 3, reason: 'the log volume is full', ...lease } : { kind: 'active', until: lease.until };
  return decideContinuity({
    tracking: { ...tracking, running, seals: running ? {} : seals }, bootId, hostId, lease: record, aliveAt,
    seals: { d0: now }, names: { d0: '/vm/a.raw' }, trustDisk,
  });
}

type Verdict = 'clean' | 'recover' | { trigger: 1 | 3 | 4 | 5; mapHolds: boolean; reason?: RegExp };
const unproven = (reason: RegExp): Verdict => ({ trigger: 1, mapHolds: false, reason });

/** One row for each combination of how it ended, what was recorded, and what is found. */
const table: [string, Situation, Verdict][] = [
  // After a clean stop.
  ['a file as it was sealed', { running: false, before: file() }, 'clean'],
  ['a file as it was sealed, after a reboot', { running: false, before: file(), bootId: 'boot-2' }, 'clean'],
  ['a file as it was sealed, on another host', { running: false, before: file(), hostId: 'host-2' }, 'clean'],
  ['a later mtime', { running: false, before: file(), now: file({ mtimeNs: ns(NOW + 5) }) }, unproven(/mtimeNs was .* is/)],
  ['a later ctime alone', { running: false, before: file(), now: file({ ctimeNs: ns(NOW + 5) }) }, unproven(/ctimeNs/)],
  ['another size', { running: false, before: file(), now: file({ size: 5 }) }, unproven(/size was 1073741824, is 5/)],
  ['an older mtime: restored', { running: false, before: file(), now: file({ mtimeNs: ns(NOW - 5000) }) }, { trigger: 5, mapHolds: false }],
  ['another inode: replaced', { running: false, before: file(), now: file({ inode: '12' }) }, { trigger: 5, mapHolds: false, reason: /another file/ }],
  ['another file system: replaced', { running: false, before: file(), now: file({ device: '3' }) }, { trigger: 5, mapHolds: false }],
  ['trust does not excuse a changed file', { running: false, before: file(), now: file({ size: 5 }), trustDisk: true }, unproven(/size/)],
  ['no seal at all', { running: false }, unproven(/was not sealed/)],
  ['another kind of disk', { running: false, before: file(), now: block() }, unproven(/was not sealed/)],
  ['a VHDX as it was sealed', { running: false, before: vhdx(), now: vhdx() }, 'clean'],
  ['a VHDX with another data GUID', { running: false, before: vhdx(), now: vhdx({ dataWriteGuid: 'd2' }) }, unproven(/dataWriteGuid was d1, is d2/)],
  ['a VHDX whose file was touched', { running: false, before: vhdx(), now: vhdx({}, { mtimeNs: ns(NOW + 5) }) }, unproven(/mtimeNs was \d+, is \d+/)],
  ['a VHDX that was compacted', { running: false, before: vhdx(), now: vhdx({ fileWriteGuid: 'f2' }, { mtimeNs: ns(NOW + 5), size: 9 }) }, 'clean'],
  ['a VHDX compacted and written', { running: false, before: vhdx(), now: vhdx({ fileWriteGuid: 'f2', dataWriteGuid: 'd2' }) }, unproven(/dataWriteGuid/)],
  ['a compacted VHDX in another file', { running: false, before: vhdx(), now: vhdx({ fileWriteGuid: 'f2' }, { inode: '12' }) }, { trigger: 5, mapHolds: false }],
  ['a compacted VHDX from an older day', { running: false, before: vhdx(),
    now: vhdx({ fileWriteGuid: 'f2' }, { mtimeNs: ns(NOW - 5000) }) }, { trigger: 5, mapHolds: false }],
  ['a VHDX that is another file', { running: false, before: vhdx(), now: vhdx({}, { inode: '12' }) }, { trigger: 5, mapHolds: false }],
  ['a block device in the same boot', { running: false, before: block(), now: block() }, 'clean'],
  ['a block device that was written to', { running: false, before: block(), now: block({ sectorsWritten: '78' }) }, unproven(/sectorsWritten was 77, is 78/)],
  ['a block device after a reboot', { running: false, before: block(), now: block({ bootId: 'boot-2' }), bootId: 'boot-2' }, unproven(/machine was restarted/)],
  ['an NBD disk', { running: false, before: none, now: none }, unproven(/does not tell/)],
  ['an NBD disk that the user vouches for', { running: false, before: none, now: none, trustDisk: true }, 'clean'],
  // After a crash.
  ['another boot', { bootId: 'boot-2', lease: 'quiet', before: file() }, { trigger: 4, mapHolds: true, reason: /machine went down/ }],
  ['another host', { hostId: 'host-2', lease: 'quiet', before: file() }, { trigger: 4, mapHolds: true, reason: /another host/ }],
  ['another boot, vouched for', { bootId: 'boot-2', now: none, trustDisk: true }, { trigger: 4, mapHolds: true }],
  ['another boot, nothing modified since this host was surely there', { bootId: 'boot-2', aliveAt: NOW - DURABLE_MS }, { trigger: 4, mapHolds: true }],
  ['another boot, modified when this host was gone', { bootId: 'boot-2', aliveAt: NOW - DURABLE_MS - 1 },
    { trigger: 4, mapHolds: false, reason: /machine went down.*\/vm\/a\.raw was not modified since: it was modified at 2026-05-01T12:00:00/ }],
  ['another host, and the file modified when this host was gone', { hostId: 'host-2', aliveAt: NOW - DURABLE_MS - 1 },
    { trigger: 4, mapHolds: false, reason: /another host.*it was modified at/ }],
  ['another boot, only the ctime is later', { bootId: 'boot-2', aliveAt: NOW - DURABLE_MS, now: file({ ctimeNs: ns(NOW + 2) }) }, { trigger: 4, mapHolds: false }],
  ['another boot, and no record', { bootId: 'boot-2' }, { trigger: 4, mapHolds: false, reason: /no record of the last writes/ }],
  ['another boot, a block device', { bootId: 'boot-2', aliveAt: NOW, now: block() }, { trigger: 4, mapHolds: false, reason: /does not tell/ }],
  ['another boot, a block device vouched for', { bootId: 'boot-2', now: block(), trustDisk: true }, { trigger: 4, mapHolds: true }],
  ['another boot, an NBD disk', { bootId: 'boot-2', aliveAt: NOW, now: none }, { trigger: 4, mapHolds: false }],
  ['no lease', {}, unproven(/no record of the last writes/)],
  ['quiet, and the file as recorded', { lease: 'quiet', before: file() }, 'recover'],
  ['quiet, and the file modified', { lease: 'quiet', before: file(), now: file({ mtimeNs: ns(NOW + 1) }) }, unproven(/mtimeNs/)],
  ['quiet, and the file reverted', { lease: 'quiet', before: file(), now: file({ mtimeNs: ns(NOW - 1000) }) }, { trigger: 5, mapHolds: false }],
  ['quiet, and no seal of this disk', { lease: 'quiet' }, unproven(/was not sealed/)],
  ['active, and nothing modified since', { lease: { until: NOW + 500 } }, 'recover'],
  ['active to the very instant', { lease: { until: NOW } }, 'recover'],
  ['active, and modified after it', { lease: { until: NOW - 1 } }, unproven(/was modified at 2026-05-01T12:00:00.000Z/)],
  ['active, and only the ctime after it', { lease: { until: NOW }, now: file({ ctimeNs: ns(NOW + 2) }) }, unproven(/was modified/)],
  ['active, a VHDX not modified since', { lease: { until: NOW + 500 }, now: vhdx() }, 'recover'],
  ['active, a VHDX modified after it', { lease: { until: NOW - 1 }, now: vhdx() }, unproven(/was modified/)],
  ['active, a block device', { lease: { until: NOW + 500 }, now: block() }, unproven(/does not tell/)],
  ['active, a block device vouched for', { lease: { until: NOW + 500 }, now: block(), trustDisk: true }, 'recover'],
  ['active, an NBD disk', { lease: { until: NOW + 500 }, now: none }, unproven(/does not tell/)],
  ['active, an NBD disk vouched for', { lease: { until: NOW + 500 }, now: none, trustDisk: true }, 'recover'],
  ['a loss that only the lease knows of', { lease: { mapHolds: true } }, { trigger: 3, mapHolds: true, reason: /log volume is full/ }],
  ['a map that only the lease knows to be useless', { lease: { mapHolds: false } }, { trigger: 3, mapHolds: false }],
  ['the same over a reboot', { lease: { mapHolds: false }, bootId: 'boot-2' }, { trigger: 4, mapHolds: false, reason: /machine went down/ }],
  ['the same on another host', { lease: { mapHolds: false }, hostId: 'host-2' }, { trigger: 4, mapHolds: false }],
  ['trust does not excuse a file modified after a crash', { lease: { until: NOW - 1 }, trustDisk: true }, unproven(/was modified/)],
];


for (const [name, situation, expected] of table) {
  const after = situation.running === false ? 'after a clean stop' : 'after a crash';
  test(`${after}, ${name}: ${typeof expected === 'string' ? expected : `trigger ${expected.trigger}`}`, () => {
    const found = decide(situation);
    if (typeof expected === 'string') return assert.deepEqual(found, { kind: expected });
    assert.equal(found.kind, 'lost');
    if (found.kind !== 'lost') return;
    assert.equal(found.trigger, expected.trigger, found.reason);
    assert.equal(found.mapHolds, expected.mapHolds);
    assert.match(found.reason, expected.reason ?? /./);
    assert.ok(!found.reason.includes('[object'), found.reason);
  });
}

test('one disk that cannot be proven is enough', () => {
  const found = decideContinuity({
    tracking: { ...tracking, running: false, seals: { d0: file(), d1: file() } }, bootId: 'boot-1', hostId: 'host-1', lease: null, aliveAt: null,
    seals: { d0: file(), d1: file({ size: 7 }) }, names: { d0: '/vm/a.raw', d1: '/vm/b.raw' }, trustDisk: false,
  });
  assert.equal(found.kind, 'lost');
  assert.match(found.kind === 'lost' ? found.reason : '', /b\.raw/);
});
