/** A resynchronization whose logs cannot be made, because their volume hangs: required as before, with the reason, and never a wait without end. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { primaryOf, resume, suspend } from './resync-rig.ts';
import { VM_ID, World } from './world.ts';

test('the volume of the logs hangs when a resynchronization begins: it stays required with the reason, and goes on by hand', async () => {
  const world = new World(3);
  let hangs = false;
  const waiting: (() => void)[] = [];
  const { volume } = world.primary;
  const mount = volume.mount.bind(volume);
  volume.mount = (life) => {
    const files = mount(life);
    return { ...files, open: async (path, mode) => {
      if (hangs && mode === 'create' && path.includes('.hrl')) await new Promise<void>((resolve) => waiting.push(resolve));
      return files.open(path, mode);
    } };
  };
  await world.begin();
  assert.ok(await world.scheduler.until(() => world.relationship.state === 'Replicating', 600_000), world.story());
  suspend(world);
  const now = world.primary.ports.clock.now();
  const required = { trigger: 8 as const, reason: 'the user asked for it', rung: 'full-compare' as const, since: now, startAt: now + 3_600_000 };
  await world.scheduler.pass(10);
  world.primary.relationships.perform(VM_ID, 'resynchronize', { error: null, required }, { startAt: 'later' });
  primaryOf(world).tracked!.goMapOnly();
  primaryOf(world).interrupt('a test');
  hangs = true;
  resume(world);
  const isRequired = () => waiting.length > 0 && world.relationship.state === 'WaitingForStartResynchronize';
  assert.ok(await world.scheduler.until(isRequired, 120_000), world.story());
  assert.equal(world.relationship.error?.code, 'LOG_VOLUME_HANGS');
  assert.match(world.relationship.error.message, /has not answered for 30 s/);
  assert.equal(world.relationship.resync, null);
  world.guestWrite();
  hangs = false;
  for (const goOn of waiting) goOn();
  await world.scheduler.pass(60_000);
  assert.equal(world.relationship.state, 'WaitingForStartResynchronize', 'a person starts it');
  assert.equal(world.tracked!.logging, false, 'the logs that came too late are kept');
  resume(world);
  await world.catchUp({ resync: true });
});
