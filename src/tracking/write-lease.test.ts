import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';
import { MemoryFiles } from '../hrl/memory-files.ts';
import { DISKS_PER_VM_MAX } from '../model/limits.ts';
import type { Clock, OpenFile } from '../model/ports.ts';
import type { SealRecord } from '../model/records.ts';
import { DURABLE_MS, LEASE_MS, readLease, WriteLease } from './write-lease.ts';

const PATH = '/data/lease';
const WAIT_MS = 2000;
const seals: Record<string, SealRecord> = { d0: { kind: 'file', size: 512, mtimeNs: '1', ctimeNs: '1', inode: '3', device: '4' } };

/** Time that goes on only when told to. */
class HandClock implements Clock {
  time = 1_000_000;
  #sleepers: { at: number; wake: () => void }[] = [];

  now(): number {
    return this.time;
  }

  monotonic(): number {
    return this.time;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#sleepers.push({ at: this.time + ms, wake: resolve });
      signal?.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
    });
  }

  async pass(ms: number): Promise<void> {
    this.time += ms;
    for (const { at, wake } of this.#sleepers) if (at <= this.time) wake();
    await new Promise((resolve) => setImmediate(resolve));
  }
}

async function leaseOf(files: MemoryFiles, clock: HandClock): Promise<{ lease: WriteLease; file: OpenFile }> {
  const file = await files.open(PATH, files.inodes.has(PATH) ? 'write' : 'create');
  const { sequence } = await readLease(file);
  return { lease: new WriteLease(file, clock, sequence, () => WAIT_MS), file };
}

test('a write is covered by a record on file before it may start, and the next ones cost nothing', async () => {
  const [files, clock] = [new MemoryFiles(), new HandClock()];
  const { lease, file } = await leaseOf(files, clock);
  const covered = lease.cover();
  assert.notEqual(covered, null);
  await covered;
  assert.deepEqual((await readLease(file)).record, { kind: 'active', until: clock.time + LEASE_MS });
  const writes = files.writes;
  assert.equal(lease.cover(), null);
  assert.equal(files.writes, writes);
});

test('it is renewed beside the writes while some of it is left, and waited for when nothing is', async () => {
  const [files, clock] = [new MemoryFiles(), new HandClock()];
  const { lease, file } = await leaseOf(files, clock);
  await lease.cover();
  await clock.pass(LEASE_MS - 100);
  assert.equal(lease.cover(), null);
  await clock.pass(0);
  assert.deepEqual((await readLease(file)).record, { kind: 'active', until: clock.time + LEASE_MS });
  await clock.pass(LEASE_MS + 1);
  assert.notEqual(lease.cover(), null);
});

test('after a quiet record the first write waits for an active one', async () => {
  const [files, clock] = [new MemoryFiles(), new HandClock()];
  const { lease, file } = await leaseOf(files, clock);
  await lease.cover();
  await lease.quiet(seals);
  assert.deepEqual((await readLease(file)).record, { kind: 'quiet', seals });
  const covered = lease.cover();
  assert.notEqual(covered, null);
  await covered;
  assert.equal((await readLease(file)).record?.kind, 'active');
});

test('a quiet record that is ordered while a renewal is under way stays the newer one, and ends the cover', async () => {
  const [files, clock] = [new MemoryFiles(), new HandClock()];
  const { lease, file } = await leaseOf(files, clock);
  const renewal = lease.cover();
  const quiet = lease.quiet(seals);
  await Promise.all([renewal, quiet]);
  assert.equal((await readLease(file)).record?.kind, 'quiet');
  assert.notEqual(lease.cover(), null, 'a write would start under a quiet record');
});

test('a clock that was set back does not stretch the cover', async () => {
  const [files, clock] = [new MemoryFiles(), new HandClock()];
  const { lease, file } = await leaseOf(files, clock);
  await lease.cover();
  clock.time -= 3_600_000;
  await lease.cover();
  assert.deepEqual((await readLease(file)).record, { kind: 'active', until: clock.time + LEASE_MS });
});

for (const fate of ['hang', 'EIO'] as const) {
  test(`a record that cannot be written (${fate}) lets the guest go on after the bounded wait, and is not tried again`, async () => {
    const [files, clock] = [new MemoryFiles(), new HandClock()];
    const { lease } = await leaseOf(files, clock);
    files.fate = () => ({ bytes: 0, then: fate });
    let went = false;
    void lease.cover()!.then(() => (went = true));
    await clock.pass(WAIT_MS - 1);
    assert.equal(went, fate === 'EIO');
    await clock.pass(1);
    assert.equal(went, true);
    const writes = files.writes;
    assert.equal(lease.cover(), null);
    await lease.quiet(seals);
    assert.equal(files.writes, writes);
  });
}

test('a record that was cut by a crash leaves the one before it', async () => {
  for (const bytes of [0, 8, 15, 20, 40]) {
    const [files, clock] = [new MemoryFiles(), new HandClock()];
    const { lease } = await leaseOf(files, clock);
    await lease.quiet(seals);
    files.fate = () => ({ bytes, then: 'EIO' });
    await lease.cover();
    files.fate = () => undefined;
    const { file } = await leaseOf(files, clock);
    assert.deepEqual((await readLease(file)).record, { kind: 'quiet', seals }, `cut after ${bytes} bytes`);
  }
});

test('the sequence goes on over a restart, so that an old record never wins', async () => {
  const [files, clock] = [new MemoryFiles(), new HandClock()];
  for (let life = 0; life < 5; life++) {
    const { lease, file } = await leaseOf(files, clock);
    await lease.quiet(seals);
    await clock.pass(1000);
    await lease.cover();
    assert.deepEqual((await readLease(file)).record, { kind: 'active', until: clock.time + LEASE_MS }, `life ${life}`);
    await lease.close();
  }
});

test('an empty, short or strange file holds no record', async () => {
  for (const bytes of [new Uint8Array(0), new Uint8Array(100), new Uint8Array(8192), new Uint8Array(8192).fill(0xff)]) {
    const files = new MemoryFiles();
    files.put(PATH, bytes);
    assert.deepEqual(await readLease(await files.open(PATH, 'read')), { record: null, sequence: 0, aliveAt: null });
  }
});

/** What a VHDX may have at most: GUIDs, and marks of its file at the largest numbers that a file system has. */
const largest: SealRecord = {
  kind: 'vhdx', fileWriteGuid: 'f'.repeat(36), dataWriteGuid: 'd'.repeat(36),
  file: { kind: 'file', size: 2 ** 46, mtimeNs: '9'.repeat(19), ctimeNs: '9'.repeat(19), inode: '9'.repeat(20), device: '9'.repeat(20) },
};
const ofDisks = (count: number, seal: SealRecord) =>
  Object.fromEntries(Array.from({ length: count }, (_, index) => [`d${index}`, seal]));

test('the seals of as many disks as a VM may have fit', async () => {
  const [files, clock] = [new MemoryFiles(), new HandClock()];
  const { lease, file } = await leaseOf(files, clock);
  const all = ofDisks(DISKS_PER_VM_MAX, largest);
  for (let round = 0; round < 3; round++) {
    await lease.quiet(all);
    assert.deepEqual((await readLease(file)).record, { kind: 'quiet', seals: all });
  }
});

test('seals that do not fit leave a record that proves nothing', async () => {
  const [files, clock] = [new MemoryFiles(), new HandClock()];
  const { lease, file } = await leaseOf(files, clock);
  await lease.quiet(ofDisks(64, { ...largest, path: 'x'.repeat(2000) }));
  assert.deepEqual((await readLease(file)).record, { kind: 'quiet', seals: {} });
});

/** A file as version 1 wrote it: two slots of 4096 bytes, the quiet record the newer one. */
function ofVersion1(): Uint8Array {
  const bytes = Buffer.alloc(8192);
  for (const [sequence, record] of [[6, { kind: 'active', until: 999 }], [7, { kind: 'quiet', seals }]] as const) {
    const at = (sequence % 2) * 4096;
    const text = Buffer.from(JSON.stringify(record));
    bytes.writeBigUInt64LE(BigInt(sequence), at);
    bytes.writeUInt32LE(text.length, at + 8);
    bytes.set(text, at + 16);
    bytes.writeUInt32LE(crc32(text, crc32(bytes.subarray(at, at + 12))), at + 12);
  }
  return bytes;
}

test('a file of version 1 is read, and stays readable until a whole newer record stands', async () => {
  for (const bytes of [0, 8, 20, 40]) {
    const [files, clock] = [new MemoryFiles(), new HandClock()];
    files.put(PATH, ofVersion1());
    const { lease, file } = await leaseOf(files, clock);
    assert.deepEqual(await readLease(file), { record: { kind: 'quiet', seals }, sequence: 7, aliveAt: null });
    files.fate = () => ({ bytes, then: 'EIO' });
    await lease.cover();
    files.fate = () => undefined;
    assert.deepEqual((await readLease(file)).record, { kind: 'quiet', seals }, `cut after ${bytes} bytes`);
    const { lease: next } = await leaseOf(files, clock);
    await next.cover();
    assert.deepEqual(await readLease(file), { record: { kind: 'active', until: clock.time + LEASE_MS }, sequence: 8, aliveAt: clock.time });
  }
});

test('while disks may be written an instant is durable that is at most 10 s old; the sync goes on beside the writes until it must be waited for', async () => {
  const [files, clock] = [new MemoryFiles(), new HandClock()];
  const { lease, file } = await leaseOf(files, clock);
  let syncs = 0;
  const datasync = file.datasync.bind(file);
  file.datasync = async () => {
    await datasync();
    syncs++;
  };
  const first = clock.time;
  await lease.cover();
  assert.deepEqual([syncs, (await readLease(file)).aliveAt! >= first], [1, true]);
  for (let waited = 0; waited < 60_000; waited += 250) {
    await clock.pass(250);
    void lease.cover();
    await new Promise((resolve) => setImmediate(resolve));
    // What a power loss leaves: the other records may be anything.
    const alone = new MemoryFiles();
    const durable = Buffer.alloc(139_264 + 512);
    await file.read(durable, 0);
    alone.put(PATH, durable.fill(0, 0, 139_264));
    const { aliveAt } = await readLease(await alone.open(PATH, 'read'));
    assert.ok(aliveAt! > clock.time - DURABLE_MS, `${clock.time - aliveAt!} ms old`);
  }
  assert.ok(syncs <= 20, `${syncs} syncs in a minute`);
  await lease.quiet(seals);
  await clock.pass(60_000);
  const covered = lease.cover();
  assert.notEqual(covered, null);
  await covered;
  assert.ok((await readLease(file)).aliveAt! >= clock.time);
});

test('a loss is durable, and no other record follows before the catalog knows of it', async () => {
  const [files, clock] = [new MemoryFiles(), new HandClock()];
  const { lease, file } = await leaseOf(files, clock);
  await lease.cover();
  const loss = { kind: 'lost', trigger: 3, reason: 'ä'.repeat(500), mapHolds: true } as const;
  await lease.lost({ ...loss, reason: `${loss.reason} and more` });
  assert.deepEqual((await readLease(file)).record, loss);
  assert.equal(lease.cover(), null, 'nobody waits for a record that would say nothing');
  await lease.quiet(seals);
  assert.deepEqual((await readLease(file)).record, loss);
  lease.recorded();
  await lease.cover();
  assert.equal((await readLease(file)).record?.kind, 'active');
});
