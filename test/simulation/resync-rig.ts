/** A resynchronization of the simulated pair, and what a user may do to it at any instant (as server/operations does). */
import assert from 'node:assert/strict';
import type { PrimaryVm } from '../../src/replication/primary-vm.ts';
import type { ReplicaVm } from '../../src/replication/replica-vm.ts';
import { World } from './world.ts';

/** A guest that writes on; much of the disks differs, and a full compare begins at this instant. */
export async function resyncBegins(seed: number): Promise<World> {
  const world = new World(seed);
  await world.begin();
  assert.ok(await world.scheduler.until(() => world.relationship.state === 'Replicating', 600_000), world.story());
  await world.scheduler.pass(45_000);
  suspend(world);
  await world.scheduler.pass(10);
  const { vmId } = world.relationship;
  const now = world.primary.ports.clock.now();
  const required = { trigger: 8 as const, reason: 'the user asked for it', rung: 'full-compare' as const, since: now, startAt: now + 60_000 };
  world.primary.relationships.perform(vmId, 'resynchronize', { error: null, required }, { startAt: 'later' });
  primaryOf(world).tracked!.goMapOnly();
  primaryOf(world).interrupt('a test');
  for (let count = 0; count < 150; count++) world.guestWrite();
  await world.scheduler.pass(1000);
  resume(world);
  return world;
}

export const primaryOf = (world: World): PrimaryVm => world.primary.primaries.get(world.relationship.vmId)!;
export const replicaOf = (world: World): ReplicaVm => world.replica.replicas!.get(world.relationship.vmId)!;

export function suspend(world: World): void {
  const { vmId, resync } = world.relationship;
  world.primary.relationships.perform(vmId, 'suspend', {}, { merging: resync?.phase === 'merging' });
  primaryOf(world).interrupt('paused');
}

/** Plain resume: starts what is required at once, continues what is paused. */
export function resume(world: World): void {
  const { vmId, state, required } = world.relationship;
  const starts = state === 'WaitingForStartResynchronize';
  const change = starts ? { required: { ...required!, startAt: world.primary.ports.clock.now(), held: false } } : {};
  world.primary.relationships.perform(vmId, 'resume', { error: null, ...change });
  primaryOf(world).interrupt('resumed');
}

export function cancel(world: World): void {
  const { vmId, resync, required } = world.relationship;
  world.primary.relationships.perform(vmId, 'cancel-resync', {
    error: null, required: { ...required!, held: true, startAt: null }, ...(resync === null ? {} : { resync: null, abandoned: resync.token }),
  }, { merging: resync?.phase === 'merging' });
  primaryOf(world).tracked?.goMapOnly();
  primaryOf(world).interrupt('cancelled');
}

/** An unplanned failover on the replica; what it serves, as bytes. */
export async function failOver(world: World): Promise<Uint8Array[]> {
  const { replica } = world;
  await world.during(replica.failover!.unplanned(world.relationship.vmId));
  const contents: Uint8Array[] = [];
  for (const name of [...replica.exports.keys()].sort()) {
    const served = replica.exports.get(name)!;
    const content = new Uint8Array(served.size);
    await world.during(Promise.resolve(served.read(content, 0)));
    contents.push(content);
  }
  return contents;
}
