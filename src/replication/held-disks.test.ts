import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HeldDisks } from './held-disks.ts';

/** Disks that can be open once only, as image locks have it; closing takes until `finishClosing`. */
class Disks {
  static open = 0;
  closed = false;
  readonly #gate = Promise.withResolvers<void>();

  constructor() {
    assert.equal(Disks.open, 0, 'DISK_IN_USE: they are open already');
    Disks.open++;
  }

  finishClosing(): void {
    this.#gate.resolve();
  }

  async close(): Promise<void> {
    this.closed = true;
    await this.#gate.promise;
    Disks.open--;
  }
}

function held(): HeldDisks<Disks> {
  Disks.open = 0;
  return new HeldDisks(async () => new Disks());
}

test('the last one out closes the disks, and whoever comes then gets new ones', async () => {
  const disks = held();
  const first = await disks.hold('guest');
  assert.equal(await disks.hold('resize'), first);
  await disks.letGo('guest');
  assert.equal(first.closed, false);
  assert.equal(disks.heldBy('guest'), null, 'a guest that has left must hold again before it writes');
  const gone = disks.letGo('resize');
  await Promise.resolve();
  await Promise.resolve();
  assert.equal(first.closed, true);
  assert.equal(disks.current, null);
  const next = disks.hold('guest');
  first.finishClosing();
  await gone;
  assert.notEqual(await next, first, 'disks that were being closed were given out again');
  assert.equal(disks.heldBy('guest'), await next);
});

test('a guest that comes while the last holder leaves keeps the disks open', async () => {
  const disks = held();
  const first = await disks.hold('resize');
  const leaving = disks.letGo('resize');
  assert.equal(await disks.hold('guest'), first);
  await leaving;
  assert.equal(first.closed, false);
  assert.equal(disks.heldBy('guest'), first);
});

test('two who leave at once close the disks once, and both wait for it', async () => {
  const disks = held();
  const first = await disks.hold('guest');
  await disks.hold('resize');
  let ended = 0;
  const both = ['guest', 'resize'].map((holder) => disks.letGo(holder).then(() => ended++));
  await new Promise(setImmediate);
  assert.equal(first.closed, true);
  assert.equal(ended, 0);
  first.finishClosing();
  await Promise.all(both);
  assert.equal(Disks.open, 0);
});

test('an opening that failed is tried again by the next holder', async () => {
  let attempts = 0;
  const disks = new HeldDisks(async () => {
    if (attempts++ === 0) throw new Error('the disk is in use');
    return { close: async () => undefined };
  });
  await assert.rejects(disks.hold('guest'), /in use/);
  assert.equal(disks.heldBy('guest'), null);
  await disks.letGo('guest');
  await disks.hold('guest');
  assert.notEqual(disks.heldBy('guest'), null);
});
