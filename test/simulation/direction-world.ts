/**
 * The world of changes of direction: the two hosts of World, a guest that moves between them, and people who give every command at
 * every moment. What a guest has been answered is kept as a second truth beside the history: sector by sector, as it must read.
 */
import assert from 'node:assert/strict';
import { UnderstudyError } from '../../src/model/errors.ts';
import type { RelationshipRecord } from '../../src/model/records.ts';
import { disksOf, instantsOf, type Instant } from './instants.ts';
import type { SimHost } from './sim-host.ts';
import { DISK_BYTES, DISKS, VM_ID, World } from './world.ts';

const SECTOR = 512;
const SECTORS = DISK_BYTES / SECTOR;
const FAILED_OVER = ['FailedOverWaitingCompletion', 'FailedOver'];

export class DirectionWorld extends World {
  /** Where the guest is connected. */
  guestAt: SimHost | null = null;
  /** Nobody could ask the primary at the last unplanned failover, and the two have not met since (R22). */
  forced = false;
  /** Failovers, by their beginning, that nobody could ask the primary about. */
  readonly forcedAt = new Set<number>();
  /** A second guest has written on the old primary after a failover. */
  rogueWrote = false;
  /** Nothing that is a past instant of anybody's is left on its old primary since. */
  #rogueEver = false;
  /** The branch during which the machine of the other side went down. */
  #powerLostIn: string | null = null;
  /** What a test guest sees, by the host of the test. */
  readonly #tests = new Map<SimHost, Uint8Array[]>();
  /** Sectors by disk whose content is certain: id of the write that they hold; 0 is zeroes. */
  #certain = DISKS.map(() => new Map<number, number>());
  #truth = 0;
  #branch = '';
  #newest = DISKS.map(() => new Map<number, number>());
  #runs = true;

  other(host: SimHost): SimHost {
    return host === this.primary ? this.replica : this.primary;
  }

  record(host: SimHost): RelationshipRecord {
    return host.catalog.relationships.get(VM_ID)!;
  }

  hosts(): SimHost[] {
    return [this.primary, this.replica];
  }

  /** The side that guests belong to: one that has failed over, else the primary of the latest generation. */
  active(): SimHost {
    const failedOver = this.hosts().find((host) => FAILED_OVER.includes(this.record(host).state));
    if (failedOver !== undefined) return failedOver;
    return this.hosts().filter((host) => this.record(host).side === 'primary')
      .sort((a, b) => (this.record(b).generation ?? 0) - (this.record(a).generation ?? 0))[0] ?? assert.fail('nobody is the primary');
  }

  /** Takes the simple guest of World over. */
  async adopt(): Promise<void> {
    this.stopGuest();
    await this.scheduler.pass(5000);
    const disks = await disksOf(this.primary);
    this.#becomeTruth(disks);
    for (const host of this.hosts()) host.onChange = () => this.#watch();
    this.connect(this.primary);
    this.#burst();
  }

  /** A guest tries to open the disks; false when it is refused. */
  connect(host: SimHost): boolean {
    if (!host.life.alive || !host.letsIn(VM_ID)) return false;
    if (this.guestAt !== null && this.guestAt !== host) this.disconnect();
    this.guestAt = host;
    host.guestCount = 1;
    return true;
  }

  disconnect(): void {
    if (this.guestAt !== null) this.guestAt.guestCount = 0;
    this.guestAt = null;
  }

  /** R22: a guest could get in on one side at most, the forced case excepted. */
  checkOneWriter(): void {
    const open = this.hosts().filter((host) => host.life.alive && host.letsIn(VM_ID));
    if (open.length > 1 && !this.forced) this.fail(`guests are let in on ${open.map(({ name }) => name).join(' and ')}`);
  }

  /** R22's forced case, once both have met: the one keeps guests out and says why, the other says that its old primary is there again. */
  checkBothSaySo(): void {
    for (const host of this.hosts()) {
      const { failover = null, side, state } = this.record(host);
      if (side !== 'replica' || !FAILED_OVER.includes(state) || failover === null || !this.forcedAt.has(failover.startedAt)) continue;
      const old = this.record(this.other(host));
      // A machine crash on top of it is said by the state, and this by the error all the same.
      assert.equal(old.error?.code, 'PEER_FAILED_OVER', `${old.state}\n${this.story()}`);
      assert.equal(failover.primaryHolds, true, `${host.name} does not know that its old primary is there\n${this.story()}`);
      assert.ok(host.catalog.events({}).some(({ id, time }) => id === 'OldPrimaryMet' && time >= failover.startedAt), this.story());
    }
  }

  /** What the guest was answered is what it reads. */
  async checkTruth(what: string): Promise<void> {
    const host = this.active();
    if (!host.life.alive || (this.record(host).unmerged ?? null) !== null) return;
    // The guest goes on while its disks are read: what was certain before and still is must be there.
    const before = this.#certain.map((sectors) => new Map(sectors));
    const disks = await this.#read(host);
    if (disks === null) return;
    for (const [disk, sectors] of this.#certain.entries()) {
      const view: Buffer = Buffer.from(disks[disk]!.buffer);
      for (const [sector, id] of sectors) {
        if (before[disk]!.get(sector) !== id) continue;
        const found: number = view.readDoubleLE(sector * SECTOR);
        if (found !== id) this.fail(`${what}: disk ${disk} sector ${sector} of ${host.name} holds ${found}, the guest was answered ${id}`);
      }
    }
  }

  /** As a guest of this host would read them. */
  async contents(host: SimHost): Promise<Uint8Array[]> {
    if (FAILED_OVER.includes(this.record(host).state)) return this.#exported(host, 'vm');
    return disksOf(host);
  }

  #exported(host: SimHost, name: string): Promise<Uint8Array[]> {
    return Promise.all(DISKS.map(async (_, index) => {
      const bytes = new Uint8Array(DISK_BYTES);
      await host.exports.get(`${name}/${index}`)!.read(bytes, 0);
      return bytes;
    }));
  }

  /** After a loss that was to be expected, what is there now is the truth: it must be one past instant. */
  async rebirth(host: SimHost): Promise<void> {
    if ((this.record(host).unmerged ?? null) !== null) return;
    for (let disks = await this.#read(host); ; disks = await this.#read(host)) {
      if (disks !== null) return this.#becomeTruth(disks);
      await this.up(host);
    }
  }

  /** Null when the host dies over it: a crash may be on its way. */
  async #read(host: SimHost, name?: string): Promise<Uint8Array[] | null> {
    const { life } = host;
    let read = null as Uint8Array[] | null;
    (name === undefined ? this.contents(host) : this.#exported(host, name)).then((disks) => (read = disks), () => undefined);
    await this.scheduler.until(() => read !== null || !life.alive, 600_000);
    return read;
  }

  /** The machine of the side that the guest has left went down. */
  otherLostPower(): void {
    this.#powerLostIn = this.#branch;
  }

  async checkInstant(disks: Uint8Array[], what: string): Promise<void> {
    this.checks++;
    const wrong = this.history.contradiction(disks);
    if (wrong !== null) this.fail(`${what}: ${wrong}`);
  }

  /**
   * Promises 2 and 3, at any time and after any crash: whoever is a replica has at least one instant to fail over to, and each that it has
   * is one past instant of the VM. Read from a copy of its volume as a crash would leave it.
   */
  async checkReplicas(): Promise<void> {
    for (const host of this.hosts()) {
      const record = this.record(host);
      if (record.side !== 'replica' || record.baselineId === '' || record.state === 'FailedOver') continue;
      // What the second guest wrote is in no history; nor is a diverged old primary before it has been told.
      if (this.#rogueEver || (record.generation ?? 0) !== (this.record(this.other(host)).generation ?? 0)) continue;
      const instants = await instantsOf(this, host);
      const { applying, lastAppliedEpoch, consistentFrom, lost } = record;
      if (instants.length === 0 && lost === null) {
        this.fail(`${host.name} has nothing consistent to fail over to: ${
          JSON.stringify({ state: record.state, applying, lastAppliedEpoch, consistentFrom })}`);
      }
      for (const { id, disks } of instants) await this.checkInstant(disks, `${id} on replica ${host.name}`);
    }
  }

  /** A failover to an older point shows that point. */
  async checkPoint(host: SimHost, asked: Uint8Array[]): Promise<void> {
    const disks = await this.#read(host);
    if (disks !== null && !same(disks, asked)) this.fail(`${host.name} shows another point than the one asked for`);
  }

  /** The points that a person may choose from there, with what they hold. */
  async points(host: SimHost): Promise<Instant[]> {
    return this.record(host).side === 'replica' ? (await instantsOf(this, host)).filter(({ id }) => id !== 'latest') : [];
  }

  /** A test has begun: it shows one past instant, the one that was asked for. */
  async testBegan(host: SimHost, asked: Uint8Array[] | null): Promise<void> {
    const disks = await this.#read(host, 'vm - Test');
    if (disks === null) return;
    await this.checkInstant(disks, `test on ${host.name}`);
    if (asked !== null && !same(disks, asked)) this.fail('the test shows another point than the one asked for');
    this.#tests.set(host, disks);
  }

  /** A test guest writes and sees what it wrote, whatever goes on around it, and after any restart. */
  async checkTests(): Promise<void> {
    for (const host of this.hosts()) {
      const { testFailover = null, side } = this.record(host);
      if (testFailover === null) this.#tests.delete(host);
      const expected = this.#tests.get(host);
      if (expected === undefined || !host.life.alive) continue;
      assert.equal(side, 'replica');
      const found = await this.#read(host, 'vm - Test');
      // A failover or the end of the test that was still under way has taken it away.
      if (found === null || (this.record(host).testFailover ?? null) === null) continue;
      if (!same(found, expected)) this.fail(`the test guest on ${host.name} sees something else`);
      await this.#testWrites(host, expected);
    }
  }

  async #testWrites(host: SimHost, expected: Uint8Array[]): Promise<void> {
    const index = this.dice.between(0, expected.length - 1);
    const offset = this.dice.between(0, SECTORS - 1) * SECTOR;
    const data = Buffer.alloc(SECTOR, this.dice.between(1, 255));
    const served = host.exports.get(`vm - Test/${index}`)!;
    const outcome = await this.command(host, async () => {
      await served.write(data, offset, { fua: false });
      await served.flush();
    });
    if (outcome === null) expected[index]!.set(data, offset);
    else this.#tests.delete(host);
  }

  /** The pair of records, whatever has crashed: one primary that lets guests in, at most (docs/operating/direction.md has the table). */
  checkPair(): void {
    const [a, b] = this.hosts().map((host) => this.record(host));
    const sides = [a!, b!].filter(({ side }) => side === 'primary');
    if (sides.length === 0) this.fail('both are replicas');
    if (sides.length < 2) return;
    const [older, newer] = [a!, b!].sort((one, two) => (one.generation ?? 0) - (two.generation ?? 0));
    if ((older!.generation ?? 0) === (newer!.generation ?? 0)) this.fail('two primaries of one generation');
    if ((older!.prepared ?? older!.tookOver ?? null) === null) this.fail('the old primary still lets guests in');
  }

  /** The guest's truth goes with the side that is chosen: forward with a failover, back with its cancellation. */
  async noticeBranch(): Promise<void> {
    const host = this.active();
    const { generation = 0, failover = null, side } = this.record(host);
    const branch = `${host.name} ${side} ${generation} ${failover?.startedAt ?? 'none'}`;
    if (branch === this.#branch || !host.life.alive) return;
    const before = this.#branch;
    this.#branch = branch;
    // Whoever forces a failover has shut the guest down on the other side; the one who has not is `rogue`.
    if (this.guestAt !== null && this.guestAt !== host) this.disconnect();
    // An older point may be asked for also where the primary was prepared.
    const isPlanned = (this.record(this.other(host)).prepared ?? null) !== null && (failover?.pointEpoch ?? null) === null;
    if (side === 'replica' && !isPlanned) {
      const disks = await this.#read(host);
      if (disks === null) return void (this.#branch = before);
      await this.checkInstant(disks, `failed over to ${host.name}`);
      return this.#becomeTruth(disks);
    }
    if (side === 'primary' && before.includes(' replica ') && !before.startsWith(host.name)) {
      const disks = await this.#read(host);
      if (disks === null) return void (this.#branch = before);
      // A power loss took from it what its guest had not flushed, in any order; that is no past instant, and the guest's to bear.
      if (!this.rogueWrote && before !== this.#powerLostIn) await this.checkInstant(disks, `back on ${host.name}`);
      this.rogueWrote = false;
      return this.#becomeTruth(disks);
    }
    if (side === 'primary') this.rogueWrote = false;
    await this.checkTruth(branch);
  }

  /** A command as a person gives it: its refusal is an answer, anything else that fails is a bug. */
  async command(host: SimHost, work: () => Promise<unknown>): Promise<UnderstudyError | null | 'died'> {
    if (!host.life.alive) return 'died';
    const { life } = host;
    let outcome: UnderstudyError | null | 'died' | undefined;
    work().then(() => (outcome = null), (error: unknown) => {
      if (error instanceof UnderstudyError) outcome = error;
      else if (life.alive) outcome = assert.fail(`${String(error)} ${(error as Error).stack ?? ''}`);
    });
    await this.scheduler.until(() => outcome !== undefined || !life.alive, 900_000);
    return outcome === undefined ? 'died' : outcome;
  }

  /** Crashes a host after a while, in the middle of whatever is going on there then. */
  crashSoon(host: SimHost, afterMs: number): void {
    this.scheduler.after(afterMs, host.life, () => {
      if (this.guestAt === host) this.disconnect();
      host.guestCount = 0;
      host.crash('process');
    });
  }

  async up(host: SimHost): Promise<void> {
    if (!host.life.alive) await this.restart(host);
  }

  /** A second guest on an old primary that has not been reached yet; its writes are in no history. */
  async rogue(host: SimHost): Promise<void> {
    if (!host.life.alive || !host.letsIn(VM_ID) || this.guestAt === host) return;
    const sectors = [...this.#certain[0]!.keys()];
    if (sectors.length === 0) return;
    const primary = host.primaries.get(VM_ID);
    if (primary === undefined) return;
    const data = Buffer.alloc(SECTOR);
    for (const place of [0, SECTOR - 8]) data.writeDoubleLE(1e12, place);
    await this.command(host, async () => {
      const tracked = await primary.hold('guest');
      await tracked.disk('d0').write(data, this.dice.pick(sectors) * SECTOR);
      this.rogueWrote = true;
      this.#rogueEver = true;
    });
  }

  endGuest(): void {
    this.#runs = false;
    this.disconnect();
  }

  #burst(): void {
    if (!this.#runs) return;
    const host = this.guestAt;
    if (host !== null && host.life.alive) for (let left = this.dice.between(0, 4); left > 0; left--) void this.#write(host);
    this.scheduler.after(this.dice.between(1, 3000), null, () => this.#burst());
  }

  async #write(host: SimHost): Promise<void> {
    const disk = this.dice.between(0, DISKS.length - 1);
    const sector = this.dice.between(0, SECTORS / 8 - 1) * 8 + this.dice.between(0, 7);
    const { data, answered } = this.history.ask(disk, sector * SECTOR, SECTOR, this.scheduler.now, false);
    // From here on either content may be there, until the answer.
    this.#certain[disk]!.delete(sector);
    const id = Buffer.from(data.buffer, data.byteOffset).readDoubleLE(0);
    this.#newest[disk]!.set(sector, id);
    const truth = this.#truth;
    const failedOver = host.exports.get(`vm/${disk}`);
    try {
      if (failedOver !== undefined) await failedOver.write(data, sector * SECTOR, { fua: false });
      else await (await host.primaries.get(VM_ID)!.hold('guest')).disk(DISKS[disk]!).write(data, sector * SECTOR);
    } catch {
      return;
    }
    if (!host.life.alive) return;
    answered(this.scheduler.now);
    // Answered on a side that is no longer the one that counts: then it tells nothing of the other.
    if (truth === this.#truth && this.#newest[disk]!.get(sector) === id) this.#certain[disk]!.set(sector, id);
  }

  #becomeTruth(disks: Uint8Array[]): void {
    this.#truth++;
    for (const [disk, content] of disks.entries()) {
      this.history.reborn(disk, content, this.scheduler.now);
      const view = Buffer.from(content.buffer);
      const certain = this.#certain[disk]!;
      certain.clear();
      for (const sector of this.history.sectors(disk)) certain.set(sector, view.readDoubleLE(sector * SECTOR));
    }
  }

  #watch(): void {
    for (const host of this.hosts()) {
      if (!FAILED_OVER.includes(this.record(host).state)) continue;
      const { tookOver = null, prepared = null, side } = this.record(this.other(host));
      this.forced = side === 'primary' && tookOver === null && prepared === null;
      const { failover = null } = this.record(host);
      if (this.forced && failover !== null) this.forcedAt.add(failover.startedAt);
      return;
    }
    this.forced = false;
  }
}

const same = (some: Uint8Array[], others: Uint8Array[]): boolean => some.every((disk, index) => Buffer.compare(disk, others[index]!) === 0);
