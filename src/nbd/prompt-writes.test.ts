import assert from 'node:assert/strict';
import { test } from 'node:test';
import { promptWrites } from './prompt-writes.ts';

function setUp() {
  const calls: string[] = [];
  const time = { now: 0, writeMs: 0.01 };
  const disk = {
    write: async () => void calls.push('pool'),
    writeNow: () => {
      calls.push('now');
      time.now += time.writeMs;
    },
  };
  const write = promptWrites(disk, { monotonic: () => time.now });
  const how = (length = 4096, offset = 0) => {
    const done = write(Buffer.alloc(length), offset);
    assert.equal(done === undefined, calls.at(-1) === 'now');
    return calls.at(-1);
  };
  return { time, how };
}

test('small aligned writes are done at once', () => {
  const { how } = setUp();
  assert.deepEqual([how(4096, 8192), how(64 * 1024)], ['now', 'now']);
});

test('large and crooked writes go to the thread pool', () => {
  const { how } = setUp();
  assert.deepEqual([how(64 * 1024 + 4096), how(512), how(4096, 512)], ['pool', 'pool', 'pool']);
});

test('a slow write sends the next ones to the thread pool, each time for longer', () => {
  const { time, how } = setUp();
  time.writeMs = 50;
  for (const restMs of [1000, 2000, 4000]) {
    assert.equal(how(), 'now');
    time.now += restMs - 1;
    assert.equal(how(), 'pool');
    time.now += 1;
  }
});

test('a long run of quick writes ends the bad spell', () => {
  const { time, how } = setUp();
  const slow = () => {
    time.writeMs = 50;
    assert.equal(how(), 'now');
    time.writeMs = 0.01;
  };
  slow();
  time.now += 1000;
  slow();
  time.now += 2000;
  for (let i = 0; i < 10_000; i += 1) assert.equal(how(), 'now');
  slow();
  time.now += 1000;
  assert.equal(how(), 'now');
});

test('what the file system refuses is thrown', () => {
  const full = { write: async () => undefined, writeNow: () => { throw Object.assign(new Error('full'), { code: 'ENOSPC' }); } };
  assert.throws(() => promptWrites(full, { monotonic: () => 0 })(Buffer.alloc(4096), 0), { code: 'ENOSPC' });
});
