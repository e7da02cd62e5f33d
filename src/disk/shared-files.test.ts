import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { atEnd } from '../../test/rig/at-end.ts';
import type { Files, OpenFile } from '../model/ports.ts';
import { hostFiles } from './host-files.ts';
import { sharedFiles } from './shared-files.ts';

async function folders(t: TestContext): Promise<{ hung: string; other: string }> {
  const folder = await mkdtemp(join(tmpdir(), 'understudy-shared-'));
  atEnd(t, () => rm(folder, { recursive: true }));
  const made = { hung: join(folder, 'hung'), other: join(folder, 'other') };
  for (const path of Object.values(made)) await mkdir(path);
  return made;
}

/** Writes in folders of this name stay under way until they are let go. */
function hanging(files: Files, folder: string) {
  const held: (() => void)[] = [];
  const order: number[] = [];
  const wrapped: Files = Object.assign(Object.create(files) as Files, {
    open: async (path: string, mode: 'read' | 'write' | 'create'): Promise<OpenFile> => {
      const file = await files.open(path, mode);
      if (!path.startsWith(folder)) return file;
      return Object.assign(Object.create(file) as OpenFile, {
        path, close: () => file.close(),
        write: async (buffers: readonly Uint8Array[], position: number) => {
          order.push(position);
          await new Promise<void>((resolve) => held.push(resolve));
          await file.write(buffers, position);
        },
      });
    },
  });
  return { files: wrapped, held, order };
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

test('a folder that hangs takes four operations at most; another folder and later turns are not concerned', async (t) => {
  const at = await folders(t);
  const { files, held, order } = hanging(hostFiles, at.hung);
  const shared = sharedFiles(files);
  const [stuck, other] = [await shared.open(`${at.hung}/a`, 'create'), await shared.open(`${at.other}/b`, 'create')];
  const writes = Array.from({ length: 10 }, (_, index) => stuck.write([Uint8Array.of(index)], index));
  let removed = false;
  const removal = shared.remove(`${at.hung}/c`).then(() => (removed = true));
  await settle();
  assert.deepEqual(order, [0, 1, 2, 3]);
  await other.write([Uint8Array.of(1)], 0);
  assert.equal(await other.size(), 1);
  let closed = false;
  const closing = stuck.close().then(() => (closed = true));
  for (let turns = 0; turns < 10; turns++) {
    assert.equal(closed, false, 'closed under an operation that had been asked for');
    while (held.length === 0) await settle();
    held.shift()!();
    await settle();
  }
  await Promise.all([...writes, closing, removal]);
  assert.deepEqual([order, removed], [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], true]);
});

test('a failed operation gives its turn on, and its error to whoever asked', async (t) => {
  const { other } = await folders(t);
  const shared = sharedFiles(hostFiles);
  const opened = Array.from({ length: 12 }, (_, index) => shared.open(`${other}/${index}`, 'read'));
  const results = await Promise.allSettled(opened);
  assert.ok(results.every(({ status }) => status === 'rejected'));
  await (await shared.open(`${other}/0`, 'create')).close();
});
