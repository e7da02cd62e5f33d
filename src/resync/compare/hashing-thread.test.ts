import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { HashingThread } from './hashing-thread.ts';
import { TAG_BYTES, drawKey, portableTagger } from './leaf-tags.ts';
import type { ThreadDisk } from './leaf-worker.ts';

const folder = mkdtempSync(join(tmpdir(), 'understudy-thread-'));
after(() => rmSync(folder, { recursive: true }));
const LEAF = 65536;

function disk(name: string, fill: string): { disk: ThreadDisk; right: string } {
  const path = join(folder, name);
  const bytes = Buffer.alloc(LEAF, fill);
  writeFileSync(path, bytes);
  const key = drawKey();
  const tag = Buffer.alloc(TAG_BYTES);
  portableTagger(key)(bytes, tag, 0);
  return { disk: { paths: [path], virtualSize: LEAF, leafBytes: LEAF, key, stretchLeaves: 4 }, right: tag.toString('hex') };
}

async function tagged(thread: HashingThread): Promise<string> {
  const result = await thread.ask({ stretches: Uint32Array.of(0, 1), places: null, ask: { kind: 'leaves' } }, []);
  return Buffer.from(result as Uint8Array).toString('hex');
}

test('a thread goes from one disk to the next, and two users have two', async () => {
  const [a, b, c] = [disk('a', 'one'), disk('b', 'two'), disk('c', 'three')];
  const [first, second] = [HashingThread.take(a.disk), HashingThread.take(b.disk)];
  assert.notEqual(first, second);
  assert.deepEqual(await Promise.all([tagged(first), tagged(second)]), [a.right, b.right]);
  await first.close();
  const again = HashingThread.take(c.disk);
  assert.equal(again, first);
  assert.deepEqual(await Promise.all([tagged(again), tagged(second)]), [c.right, b.right]);
  await Promise.all([again.close(), second.close()]);
});

test('a file that cannot be opened fails every question, and the thread is good for the next disk', async () => {
  const good = disk('good', 'good');
  const thread = HashingThread.take({ ...good.disk, paths: [join(folder, 'none')] });
  for (let time = 0; time < 2; time++) await assert.rejects(tagged(thread), { code: 'ENOENT' });
  await thread.close();
  const next = HashingThread.take(good.disk);
  assert.equal(next, thread);
  assert.equal(await tagged(next), good.right);
  await next.close();
});

test('an idle thread does not keep a program running', () => {
  const { disk: one } = disk('idle', 'idle');
  const program = `
    import { HashingThread } from ${JSON.stringify(new URL('./hashing-thread.ts', import.meta.url))};
    const thread = HashingThread.take({ ...${JSON.stringify({ ...one, key: [...one.key] })}, key: Buffer.alloc(32) });
    await thread.ask({ stretches: Uint32Array.of(0, 1), places: null, ask: { kind: 'leaves' } }, []);
    await thread.close();
    console.log('done');`;
  const file = join(folder, 'program.mjs');
  writeFileSync(file, program);
  assert.equal(execFileSync(process.execPath, [file], { timeout: 30_000, encoding: 'utf8' }), 'done\n');
});
