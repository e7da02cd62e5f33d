/**
 * Initial replication by external media with real processes: export while a guest writes, import, equal; and what must be refused.
 * Seen to fail: in export-run.ts, the switch at the end of the export left out; in import-reader.ts, the comparison of the digests, of
 * the tokens and of the sizes left out; in replica-vm.ts, the inbox cleared by the import.
 */
import assert from 'node:assert/strict';
import { cp, mkdir, open, readdir, readFile, stat, truncate, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { assertSameDisk, formatsFor, type TestFormat } from '../rig/disk-formats.ts';
import { Pair, type Status, type VmShape } from '../rig/pair.ts';
import { mustRun } from '../rig/program.ts';

interface ExportStatus extends Status {
  exportFolder?: string;
  exportFinished?: boolean;
}

async function attachedPair(t: TestContext, sizes: number[], format: TestFormat = 'raw'): Promise<Pair> {
  const pair = await Pair.make(t, { sizes, format, inside: true });
  await pair.primary.json('vm', 'attach', pair.vm);
  return pair;
}

const folderOf = (pair: Pair, medium = 'usb') => join(pair.folder, medium, `${pair.vm}_${pair.vmId}`);

async function exportTo(pair: Pair, medium = 'usb'): Promise<string> {
  await pair.primary.json('start', pair.vm, '--export', join(pair.folder, medium));
  await pair.primary.until<ExportStatus>(['status', pair.vm], ({ exportFinished, state }) => exportFinished === true || state === 'Error');
  return folderOf(pair, medium);
}

async function importFrom(pair: Pair, folder: string) {
  const done = await pair.replica.cli('import', pair.vm, '--from', folder, '--json');
  return { status: done.status, answer: JSON.parse(done.stdout) as { error?: { code: string; message: string; remedy: string }; state?: string } };
}

async function refused(pair: Pair, folder: string, code: string, message: RegExp): Promise<void> {
  const { status, answer } = await importFrom(pair, folder);
  assert.equal(answer.error?.code, code, JSON.stringify(answer));
  assert.match(answer.error!.message, message);
  assert.notEqual(status, 0);
  assert.ok(answer.error!.remedy.length > 0 && !answer.error!.message.includes('\n'));
  assert.equal((await pair.replica.json<Status>('status', pair.vm)).state, 'WaitingForInitialReplication');
  const made = await readdir(join(pair.folder, 'store', pair.vm, pair.vmId)).catch(() => [] as string[]);
  assert.deepEqual(made.filter((name) => !name.endsWith('.incoming')), [], 'it has become a replica disk');
}

/** Writes again and again over the whole disk until stopped; the bytes say which round they are of. */
function guest(uri: string, size: number): { stop(): Promise<void> } {
  let running = true;
  const rounds = (async () => {
    for (let round = 1; running; round++) {
      const lines: string[] = [];
      for (let index = 0; index < 16; index++) lines.push(`write -q -P ${(round % 254) + 1} ${((round * 37 + index * 11) * 65_536) % size} 4k`);
      await mustRun('qemu-io', ['-f', 'raw', uri], { input: `${lines.join('\n')}\nflush\nquit\n` });
    }
  })();
  return {
    async stop() {
      running = false;
      await rounds;
    },
  };
}

for (const format of formatsFor('dear')) test(`${format}: a copy that was carried over is merged with what the guest wrote since`, {
  timeout: 120_000,
}, async (t) => {
  const sizes = [96 << 20, 16 << 20];
  const pair = await attachedPair(t, sizes, format);
  const [uri0, uri1] = await pair.uris();
  await mustRun('qemu-io', ['-f', 'raw', uri0!], { input: 'write -q -P 7 0 40M\nflush\nquit\n' });
  const guests = [guest(uri0!, 80 << 20), guest(uri1!, sizes[1]!)];
  const folder = await exportTo(pair);
  for (const one of guests) await one.stop();

  const manifest = JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8')) as {
    vmId: string; firstEpoch: number; consistentFrom: number; disks: { fileName: string; virtualSize: number; bytes: number }[] };
  assert.equal(manifest.vmId, pair.vmId);
  // The guest wrote all the time: the epoch that was open when the copy ended was closed for it.
  assert.ok(manifest.consistentFrom >= manifest.firstEpoch, JSON.stringify(manifest));
  assert.deepEqual((await readdir(folder)).sort(), ['d0.raw', 'd1.raw', 'manifest.json']);
  const image = await stat(join(folder, 'd0.raw'));
  assert.equal(image.size, sizes[0]);
  assert.ok(image.blocks * 512 < sizes[0]! - (8 << 20), `holes were not kept: ${image.blocks * 512} bytes are allocated`);

  const waiting = await pair.status();
  assert.equal(waiting.state, 'InitialReplicationInProgress', JSON.stringify(waiting));
  const stopping = await pair.primary.cli('stop-initial', pair.vm, '--json');
  assert.equal(stopping.status, 3);
  assert.match(stopping.stdout, /EXPORT_FINISHED/);
  const exported = (await pair.primary.json<{ id: string }[]>('events', pair.vm)).filter(({ id }) => id === 'InitialReplicationExported');
  assert.equal(exported.length, 1);

  // The medium is carried over: the replica sees a copy of it elsewhere, named by its parent.
  const carried = join(pair.folder, 'carried');
  await mkdir(carried);
  await mustRun('cp', ['-r', '--sparse=always', folder, carried]);
  const { answer } = await importFrom(pair, carried);
  assert.equal(answer.state, 'Replicating', JSON.stringify(answer));
  await mustRun('qemu-io', ['-f', 'raw', uri0!], { input: 'write -q -P 9 1M 2M\nflush\nquit\n' });
  await pair.untilState('Replicating');
  await pair.primary.json('sync-now', pair.vm);
  await pair.compare();
  const again = await importFrom(pair, carried);
  assert.equal(again.status, 3, JSON.stringify(again.answer));
});

for (const format of formatsFor('dear', 'vhdx'))
test(`${format}: a copy that the replica has already is compared, and becomes the replica where it lies`, async (t) => {
  const pair = await attachedPair(t, [24 << 20, 8 << 20], format);
  const [uri0, uri1] = await pair.uris();
  await mustRun('qemu-io', ['-f', 'raw', uri0!], { input: 'write -q -P 7 0 12M\nwrite -q -P 8 20M 1M\nflush\nquit\n' });
  await pair.primary.json('vm', 'stop', pair.vm);
  const places = [join(pair.folder, 'store', pair.vm), join(pair.folder, 'store')];
  for (const [index, place] of places.entries()) {
    await mkdir(place, { recursive: true });
    await cp(pair.disks[index]!, join(place, basename(pair.disks[index]!)));
  }
  await pair.primary.json('vm', 'attach', pair.vm);
  for (const [uri, at] of [[uri0!, '2M'], [uri1!, '1M']] as const) {
    await mustRun('qemu-io', ['-f', 'raw', uri], { input: `write -q -P 9 ${at} 1M\nwrite -z 20k 64k\nflush\nquit\n` });
  }
  await pair.primary.json('start', pair.vm, '--use-existing');
  await pair.untilState('Replicating');
  await pair.primary.json('sync-now', pair.vm);
  const replicas = (await pair.replica.json<VmShape>('vm', 'show', pair.vm)).disks.map(({ path }) => path);
  assert.deepEqual(replicas, places.map((place, index) => join(place, basename(pair.disks[index]!))));
  for (const [index, path] of replicas.entries()) await assertSameDisk(pair.disks[index]!, path);
});

test('what is not the newest whole export of this VM is refused, and changes nothing', { timeout: 120_000 }, async (t) => {
  const sizes = [8 << 20, 4 << 20];
  const pair = await attachedPair(t, sizes);
  const [uri] = await pair.uris();
  await mustRun('qemu-io', ['-f', 'raw', uri!], { input: 'write -q -P 5 1M 3M\nflush\nquit\n' });
  await refused(pair, join(pair.folder, 'nowhere'), 'EXPORT_NOT_FOUND', /no manifest\.json in .*nowhere/);
  const first = await exportTo(pair);

  const copy = async (name: string) => {
    const to = join(pair.folder, name);
    await cp(first, to, { recursive: true });
    return to;
  };
  const flipped = await copy('flipped');
  const file = await open(join(flipped, 'd1.raw'), 'r+');
  await file.write(Buffer.from([1]), 0, 1, 3_000_001);
  await file.close();
  // The first image is whole: it must not become the replica's all the same.
  await refused(pair, flipped, 'EXPORT_DAMAGED', /d1\.raw cannot be used: its digest is [0-9a-f]{64}, exported was [0-9a-f]{64}/);
  const cut = await copy('cut');
  await truncate(join(cut, 'd0.raw'), 4 << 20);
  await refused(pair, cut, 'EXPORT_DAMAGED', /d0\.raw cannot be used: it has 4194304 bytes, exported were 8388608/);
  const edited = await copy('edited');
  const text = await readFile(join(edited, 'manifest.json'), 'utf8');
  await writeFile(join(edited, 'manifest.json'), text.replace('"firstEpoch": 1', '"firstEpoch": 2'));
  await refused(pair, edited, 'EXPORT_DAMAGED', /its digest is/);

  // A machine crash of the primary breaks the chain of logs: that export is void.
  await pair.primary.kill9();
  const bootId = join(pair.folder, 'boot-id');
  await writeFile(bootId, 'another-boot\n');
  pair.primary.env.UNDERSTUDY_BOOT_ID_FILE = bootId;
  await pair.primary.start();
  const failed = await pair.untilState('Error') as Status & { error: { code: string; remedy: string } };
  assert.equal(failed.error.code, 'EXPORT_FOLDER_IN_USE');
  await pair.primary.json('stop-initial', pair.vm);
  const second = await exportTo(pair, 'usb2');
  await refused(pair, first, 'EXPORT_OUTDATED', /is of run .* the primary has begun run/);
  assert.equal((await importFrom(pair, second)).answer.state, 'Replicating');
  await pair.untilState('Replicating');
  await pair.primary.json('sync-now', pair.vm);
  await pair.compare();
});

test('an export that cannot be written or was stopped leaves a way on', { timeout: 120_000 }, async (t) => {
  const pair = await attachedPair(t, [8 << 20]);
  const notAFolder = join(pair.folder, 'file');
  await writeFile(notAFolder, '');
  const bad = await pair.primary.cli('start', pair.vm, '--export', notAFolder, '--json');
  assert.equal(bad.status, 5);
  assert.match(bad.stdout, /EXPORT_FOLDER_UNUSABLE/);
  assert.equal((await pair.status()).state, 'ReadyForInitialReplication');

  await mkdir(folderOf(pair, 'full'), { recursive: true });
  await writeFile(join(folderOf(pair, 'full'), 'holiday.jpg'), 'x');
  const strange = await pair.primary.cli('start', pair.vm, '--export', join(pair.folder, 'full'), '--json');
  assert.equal(strange.status, 3);
  assert.match(strange.stdout, /EXPORT_FOLDER_IN_USE.*holiday\.jpg/);

  // While the replica is away the export cannot begin: it can still be stopped, and begun anew into the same folder.
  await pair.replica.kill9();
  await pair.primary.json('start', pair.vm, '--export', join(pair.folder, 'usb'));
  await pair.primary.json('stop-initial', pair.vm);
  await pair.replica.start();
  const folder = await exportTo(pair);
  assert.equal((await importFrom(pair, folder)).answer.state, 'Replicating');
  await pair.untilState('Replicating');
  await pair.compare();
});

test('kill -9 of both hosts during the import: it is repeated, and the logs of the meantime are still there', { timeout: 120_000 }, async (t) => {
  const pair = await attachedPair(t, [64 << 20, 8 << 20]);
  const [uri] = await pair.uris();
  await mustRun('qemu-io', ['-f', 'raw', uri!], { input: 'write -q -P 7 0 48M\nflush\nquit\n' });
  const folder = await exportTo(pair);
  await mustRun('qemu-io', ['-f', 'raw', uri!], { input: 'write -q -P 8 5M 1M\nflush\nquit\n' });
  const interrupted = pair.replica.cli('import', pair.vm, '--from', folder, '--json');
  const made = join(pair.folder, 'store', pair.vm, pair.vmId);
  while ((await readdir(made).catch(() => [])).length === 0) await new Promise(setImmediate);
  await Promise.all([pair.replica.kill9(), pair.primary.kill9()]);
  await interrupted;
  // In this order: a primary that finds no replica waits for a whole cycle.
  await pair.replica.start();
  await pair.primary.start();
  const { state } = await pair.replica.json<Status>('status', pair.vm);
  // So late that all was done is possible, though hardly so.
  if (state !== 'Replicating') assert.equal((await importFrom(pair, folder)).answer.state, 'Replicating');
  await pair.untilState('Replicating');
  await pair.primary.json('sync-now', pair.vm);
  await pair.compare();
  assert.deepEqual((await readdir(made)).sort(), ['disk0.raw', 'disk1.raw']);
});
