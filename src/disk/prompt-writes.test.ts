import assert from 'node:assert/strict';
import { test } from 'node:test';
import { promptWrites } from './prompt-writes.ts';

function setUp() {
  const calls: string[] = [];
  const time = { now: 0, writeMs: 0.01 };
  const disk = {
    writeNow: () => {
      calls.push('now');
      time.now += time.writeMs;
      return true;
    },
  };
  const write = promptWrites(disk, { monotonic: () => time.now });
  const how = (length = 4096, offset = 0) => {
    const before = calls.length;
    const done = write(Buffer.alloc(length), offset);
    assert.equal(done, calls.length > before);
    return done ? 'now' : 'pool';
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

test('a slow write sends the next ones to the thread pool, for ten times as long as it took', () => {
  const { time, how } = setUp();
  for (const slowMs of [50, 6]) {
    time.writeMs = slowMs;
    assert.equal(how(), 'now');
    time.now += 10 * slowMs - 1;
    assert.equal(how(), 'pool');
    time.now += 1;
  }
});

test('what a busy scheduler adds to a write is not slow', () => {
  const { time, how } = setUp();
  time.writeMs = 5;
  assert.deepEqual([how(), how()], ['now', 'now']);
});

test('what the file system refuses is thrown', () => {
  const writeNow = () => {
    throw Object.assign(new Error('full'), { code: 'ENOSPC' });
  };
  const write = promptWrites({ writeNow }, { monotonic: () => 0 });
  assert.throws(() => write(Buffer.alloc(4096), 0), { code: 'ENOSPC' });
});

test('a disk that cannot, or does not want to, leaves it to the thread pool', () => {
  const clock = { monotonic: () => 0 };
  assert.equal(promptWrites({}, clock)(Buffer.alloc(4096), 0), false);
  assert.equal(promptWrites({ writeNow: () => false }, clock)(Buffer.alloc(4096), 0), false);
});
