import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UnderstudyError } from '../../src/model/errors.ts';
import { checkInstants, disksOf, instantsOf } from './instants.ts';
import { assertSameBytes } from '../rig/same-bytes.ts';
import { seedRuns } from './seeds.ts';
import { DISK_BYTES, World } from './world.ts';

/** Replays one seed: SIM_SEED=n SIM_COUNT=1 node --test test/simulation/failover.sim.test.ts */
for (const { seed, format } of seedRuns({ short: 10, long: 120, imageShare: 20, onlyLong: 'vhdx' })) {
  test(`${format}, seed ${seed}: failovers and tests at random with crashes of both sides: what is served is the point asked for, and stays so`, async (t) => {
    const drill = new Drill(seed, format);
    await drill.world.begin();
    await drill.world.scheduler.pass(drill.world.dice.between(60_000, 200_000));
    const rounds = drill.world.dice.between(3, 7);
    for (let round = 0; round < rounds; round++) await drill.round();
    if (drill.world.dice.chance(0.5)) await drill.endHere();
    else {
      await drill.world.catchUp({ resync: true });
      await checkInstants(drill.world);
    }
    t.diagnostic(`${drill.served.join(', ')}; ${drill.world.replicaRecord.state}`);
  });
}

/** Before: the choice was made, then apply was waited for; the next point stood in for the one that had gone meanwhile. */
test('a point that goes while apply is waited for is refused, and no other one is shown for it', async () => {
  const drill = new Drill(1, 'raw');
  const { world } = drill;
  Object.assign(world, { autoResync: true, recoveryHistory: 1 });
  world.replica.pointIntervalMs = 1000;
  await world.begin();
  await world.scheduler.until(() => world.relationship.state === 'Replicating', 600_000);
  await world.scheduler.pass(60_000);
  let gone = 0;
  for (let turn = 0; turn < 60; turn++) {
    // When a set is being applied: it makes a point, for which the only one goes.
    assert.ok(await world.scheduler.until(() => world.replicaRecord.applying !== null, 600_000), world.story());
    gone += await drill.askedForTheOldest();
  }
  assert.ok(gone > 0, 'no point went while it was asked for');
});

class Drill {
  readonly world: World;
  /** What was begun, for the report of a run. */
  readonly served: string[] = [];

  constructor(seed: number, format: World['format']) {
    this.world = new World(seed, format);
    const { world } = this;
    world.autoResync = true;
    world.recoveryHistory = world.dice.between(0, 3);
    world.replica.pointIntervalMs = world.dice.between(20_000, 100_000);
  }

  get vmId(): string {
    return this.world.replicaRecord.vmId;
  }

  /** Something is served, used, crashed over and ended; then replication goes on for a while. */
  async round(): Promise<void> {
    const { world } = this;
    const { dice } = world;
    const kind = dice.pick(['test', 'unplanned'] as const);
    const instants = await instantsOf(world);
    const asked = dice.chance(0.5) ? 'latest' : (dice.pick([...instants, { id: 'latest' }])).id;
    if (await this.#began(kind, asked)) {
      await this.#used(kind, asked === 'latest' ? null : instants.find(({ id }) => id === asked)!.disks);
      await this.#patiently(() => world.replica.failover!.cancel(this.vmId));
    }
    await world.scheduler.pass(dice.between(1000, 90_000));
    await checkInstants(world);
  }

  /** 1 when the oldest point was refused for having gone; what is served otherwise is that one. */
  async askedForTheOldest(): Promise<number> {
    const { world } = this;
    const [oldest] = await instantsOf(world);
    if (oldest === undefined || oldest.id === 'latest') return 0;
    const served = await this.#began('test', oldest.id);
    if (served) {
      assertSameDisks(await this.#served('vm - Test'), oldest.disks, 'the point that was asked for');
      await this.#patiently(() => world.replica.failover!.cancel(this.vmId));
    }
    await world.scheduler.pass(5000);
    return this.served.at(-1) === 'test refused: POINT_NOT_FOUND' ? 1 : 0;
  }

  /** The primary is lost; the failover is completed through crashes, and the disks become what the guest saw. */
  async endHere(): Promise<void> {
    const { world } = this;
    await checkInstants(world);
    const instants = await instantsOf(world);
    if (instants.length === 0) return;
    world.stopGuest();
    world.primary.crash('machine');
    const asked = world.dice.pick(instants);
    if (!(await this.#began('unplanned', asked.id))) return;
    const expected = await this.#used('unplanned', asked.id === 'latest' ? null : asked.disks);
    await this.#patiently(async () => {
      if (world.replicaRecord.state === 'FailedOverWaitingCompletion') await world.replica.failover!.complete(this.vmId);
    });
    for (let turn = 0; turn < 400 && world.replicaRecord.failover?.settling !== 'done'; turn++) {
      this.#write('vm', expected);
      await world.scheduler.pass(world.dice.between(1, 300));
      if (world.dice.chance(0.05)) await this.#crashReplica(expected);
    }
    assert.ok(await world.scheduler.until(() => world.replicaRecord.failover?.settling === 'done', 600_000), 'the disks are not put together');
    assertSameDisks(await this.#served('vm'), expected, 'what the plain disks serve');
    await world.during(world.replica.failover!.close());
    for (const [index, disk] of (await disksOf(world.replica)).entries()) {
      const plain = disk.subarray(0, expected[index]!.length);
      assert.ok(Buffer.compare(plain, expected[index]!) === 0, `the plain file of disk ${index} is not what the guest saw`);
    }
    assert.deepEqual(world.replica.volume.paths().filter((path) => /\.(hru|diff|map|avhdx?)$/.test(path) && path.startsWith('/store')), []);
  }

  async #began(kind: 'test' | 'unplanned', asked: string): Promise<boolean> {
    try {
      await this.world.during(this.world.replica.failover![kind](this.vmId, asked));
      this.served.push(`${kind} ${asked === 'latest' ? asked : 'point'}`);
      return true;
    } catch (error) {
      this.served.push(`${kind} refused: ${(error as UnderstudyError).code}`);
      // A resync, an initial copy that is not whole, a point that went meanwhile: refused in words, and nothing has changed.
      if (error instanceof UnderstudyError) return false;
      throw error;
    }
  }

  /** What is served is one instant (the one asked for, where that is known), and a crash does not change it. */
  async #used(kind: 'test' | 'unplanned', asked: Uint8Array[] | null): Promise<Uint8Array[]> {
    const { world } = this;
    const name = kind === 'test' ? 'vm - Test' : 'vm';
    const expected = await this.#served(name);
    const wrong = world.history.contradiction(expected);
    if (wrong !== null) world.fail(wrong);
    if (asked !== null) assertSameDisks(expected, asked, 'the point that was asked for');
    for (let turn = world.dice.between(1, 5); turn > 0; turn--) {
      this.#write(name, expected);
      await world.scheduler.pass(world.dice.between(1, 20_000));
      if (world.dice.chance(0.4)) await this.#crashReplica(expected, name);
      assertSameDisks(await this.#served(name), expected, `what ${name} serves, ${this.served.length} begun\n${world.story()}`);
      await checkInstants(world);
    }
    return expected;
  }

  /** The guest's writes that it has flushed outlive everything; it flushes before each crash here. */
  async #crashReplica(expected: Uint8Array[], name = 'vm'): Promise<void> {
    const { world } = this;
    await world.during(this.#writes);
    for (const index of expected.keys()) await world.during(Promise.resolve(world.replica.exports.get(`${name}/${index}`)!.flush()));
    await world.scheduler.pass(world.dice.between(0, 100));
    if (world.dice.chance(0.5)) world.replica.crash('process');
    else await world.powerLoss(world.replica);
    await world.restart(world.replica);
  }

  #write(name: string, expected: Uint8Array[]): void {
    const { dice } = this.world;
    for (let count = dice.between(0, 4); count > 0; count--) {
      const index = dice.between(0, expected.length - 1);
      const length = dice.between(1, 12) * 512;
      const offset = dice.between(0, (DISK_BYTES - length) / 512) * 512;
      const data = Buffer.alloc(length, dice.between(1, 255));
      expected[index]!.set(data, offset);
      // One after another, as a guest that orders what overlaps.
      this.#writes = this.#writes.then(() => this.world.replica.exports.get(`${name}/${index}`)!.write(data, offset, { fua: false }));
    }
    this.#writes.catch(() => undefined);
  }

  #writes: Promise<unknown> = Promise.resolve();

  async #served(name: string): Promise<Uint8Array[]> {
    await this.world.during(this.#writes);
    const disks: Uint8Array[] = [];
    for (let index = 0; ; index++) {
      const served = this.world.replica.exports.get(`${name}/${index}`);
      if (served === undefined) break;
      const bytes = new Uint8Array(served.size);
      await this.world.during(Promise.resolve(served.read(bytes, 0)));
      disks.push(bytes);
    }
    assert.equal(disks.length, 2, 'not all disks are served');
    return disks;
  }

  /** What is refused for a moment (a merge, a busy replica) is asked again. */
  async #patiently(work: () => Promise<unknown>): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      try {
        await this.world.during(work());
        return;
      } catch (error) {
        if (!(error instanceof UnderstudyError) || attempt > 50) throw error;
        await this.world.scheduler.pass(20_000);
      }
    }
  }
}

function assertSameDisks(found: readonly Uint8Array[], expected: readonly Uint8Array[], what: string): void {
  assert.equal(found.length, expected.length, what);
  for (const [index, disk] of expected.entries()) assertSameBytes(found[index], disk, `disk ${index} of ${what}`);
}
