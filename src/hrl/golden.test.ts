/**
 * Files that version 1 wrote, opened by every later version. They are never written again: a new version gets a new
 * folder.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { blake3 } from '@napi-rs/blake-hash';
import { describeLog } from './describe-log.ts';
import { openLog } from './log-reader.ts';
import { recoverLog } from './log-recovery.ts';
import { MemoryFiles, memoryPorts } from './memory-files.ts';

const PATH = '/logs/disk0.hrl';
const DISK = 8 * 2 ** 30;
const golden = (name: string): Buffer => readFileSync(new URL(`../../test/golden/hrl/v1/${name}`, import.meta.url));

function volume(names: Record<string, string>): MemoryFiles {
  const files = new MemoryFiles();
  for (const [path, name] of Object.entries(names)) files.put(path, golden(name));
  return files;
}

test('a log that version 1 closed reads as it did then', async () => {
  const files = volume({ [PATH]: 'tracking.hrl' });
  const { digest, ...expected } = JSON.parse(golden('tracking.json').toString()) as { digest: string };
  assert.deepEqual(await describeLog(files, PATH), expected);
  assert.equal(blake3(files.get(PATH)).toString('hex'), digest);
  const log = await openLog(files, PATH, { diskSize: DISK });
  assert.deepEqual(await log.verify(), { entries: 146, dataBytes: 2536, zeroBytes: 3 * 2 ** 30 + 16 * 65_536 });
  const hash: Uint8Array[] = [];
  for await (const entry of log.entries()) {
    const data = new Uint8Array(entry.op === 'write' ? entry.length : 0);
    if (entry.op === 'write') await log.readData(entry, data);
    hash.push(data);
  }
  const dataDigest = blake3(Buffer.concat(hash)).toString('hex');
  assert.equal(dataDigest, 'ed097d8b1f8f3a0f237759e1f64aad50dcb9d419587cf5ed45bac49cdb498ab1');
});

test('a log that version 1 left open is shown and taken up again', async () => {
  const files = volume({ [PATH]: 'open.hrl', [`${PATH}.index`]: 'open.hrl.index' });
  const { digest: _, ...expected } = JSON.parse(golden('open.json').toString()) as { digest: string };
  assert.deepEqual(await describeLog(files, PATH), expected);
  const recovered = await recoverLog(memoryPorts(files), PATH);
  assert.ok(recovered.outcome === 'open');
  const { writer, unfinished } = recovered;
  assert.deepEqual([writer.recordCount, unfinished.length, recovered.torn], [144, 43, 0]);
  assert.deepEqual(unfinished[0], { number: 4, op: 'write', offset: 67_072, length: 19 });
  for (const { number } of unfinished) writer.finished(number);
  const closed = await writer.close();
  const log = await openLog(files, PATH, { diskSize: DISK });
  assert.equal((await log.verify()).entries, closed.entries);
});

test('the example of docs/formats/hrl.md is what it says', async () => {
  const page = readFileSync(new URL('../../docs/formats/hrl.md', import.meta.url), 'utf8');
  const file = Buffer.alloc(12_291);
  for (const [, at, hex] of page.matchAll(/^ +(\d+) {2}((?:[0-9a-f]{2} ?)+)$/gm)) {
    file.write(hex!.replaceAll(' ', ''), Number(at), 'hex');
  }
  const files = new MemoryFiles();
  files.put(PATH, file);
  const log = await openLog(files, PATH, { diskSize: 73_728 });
  assert.deepEqual(await log.verify(), { entries: 2, dataBytes: 3, zeroBytes: 65_536 });
  assert.equal(new Date(log.header.createdAt).toISOString(), '2026-11-23T00:00:00.000Z');
  const abc = new Uint8Array(3);
  await log.readData((await log.entries().next()).value!, abc);
  assert.equal(Buffer.from(abc).toString(), 'abc');
});
