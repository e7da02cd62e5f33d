/** Two hosts, one VM with two disks, a guest that writes, and everything that may go wrong. One seed, one run. */
import assert from 'node:assert/strict';
import type { TrackedVm } from '../../src/tracking/tracked-vm.ts';
import { relationshipSettingsSchema } from '../../src/model/settings.ts';
import { newStatistics } from '../../src/model/statistics.ts';
import type { RelationshipRecord, VmRecord } from '../../src/model/records.ts';
import { PrimaryVm } from '../../src/replication/primary-vm.ts';
import { enableMessage } from '../../src/replication/messages.ts';
import { PAGE_BYTES } from '../../src/disk/diff-disk.ts';
import { diffPath } from '../../src/resync/diff-files.ts';
import { History } from './history.ts';
import { disksOf } from './instants.ts';
import { Dice } from './random.ts';
import { Scheduler, settle } from './scheduler.ts';
import { createSimDisk } from './sim-disk.ts';
import { SimHost } from './sim-host.ts';
import { simLink, type SimNetwork } from './sim-link.ts';

export const DISK_BYTES = 2 << 20;
const SECTOR = 512;
export const DISKS = ['d0', 'd1'];
export const VM_ID = '11111111-2222-4333-8444-555555555555';

export class World {
  readonly dice: Dice;
  readonly scheduler: Scheduler;
  readonly network: SimNetwork = { cut: false, lossRate: 0, delayMs: 5 };
  readonly history = new History(DISKS.length);
  readonly primary: SimHost;
  readonly replica: SimHost;
  /** Set for good when a machine crash (or another real cause) has made a resync necessary. */
  lossExpected = false;
  checks = 0;
  /** Resyncs start by themselves, at any time. */
  autoResync = false;
  /** Recovery points that are kept, and the time between them. */
  recoveryHistory = 0;
  keepRecoveryPoints = false;
  /** Of the disks on both sides. */
  readonly format: 'raw' | 'vhd' | 'vhdx';
  #guestRuns = false;

  constructor(seed: number, format: World['format'] = 'raw') {
    this.format = format;
    this.dice = new Dice(seed);
    this.scheduler = new Scheduler(this.dice);
    this.primary = this.makeHost('primary');
    this.replica = this.makeHost('replica');
  }

  protected makeHost(name: string): SimHost {
    return new SimHost(name, this.scheduler, (near, fingerprint) => simLink(this.scheduler, this.network, near.life, near.fingerprint, () => {
      const { life, dispatcher } = this.hostNamed(fingerprint, near);
      return dispatcher === null ? null : { life, dispatcher };
    }));
  }

  /** Of two hosts the other one. */
  protected hostNamed(_fingerprint: string, near: SimHost): SimHost {
    return near === this.primary ? this.replica : this.primary;
  }

  get everyHost(): SimHost[] {
    return [this.primary, this.replica];
  }

  get tracked(): TrackedVm | null {
    return this.primary.primaries.get(VM_ID)?.tracked ?? null;
  }

  get relationship(): RelationshipRecord {
    return this.primary.relationships.get(VM_ID);
  }

  get replicaRecord(): RelationshipRecord {
    return this.replica.relationships.get(VM_ID);
  }

  diskPath(index: number): string {
    return `/disks/${DISKS[index]!}.${this.format}`;
  }

  /** Both servers up, replication enabled and begun, the guest running. */
  async begin(frequencySec: 30 | 300 = 30): Promise<void> {
    const { format } = this;
    if (format === 'raw') for (const index of DISKS.keys()) this.primary.volume.makeFile(this.diskPath(index), new Uint8Array(DISK_BYTES));
    await this.during(this.primary.start());
    if (format !== 'raw') {
      const { files, ...ports } = this.primary.ports;
      await this.during(Promise.all(DISKS.keys().map((index) => createSimDisk(files, { path: this.diskPath(index), format }, DISK_BYTES, ports))));
    }
    await this.during(this.replica.start());
    this.replica.catalog.authorizations.put(
      { fingerprint: this.primary.fingerprint, name: 'primary', storageLocation: '/store', trustGroup: 'DEFAULT', createdAt: 0 });
    const now = this.primary.ports.clock.now();
    const vm: VmRecord = {
      vmId: VM_ID, name: 'vm', createdAt: now, side: 'primary', logFolder: null, attach: 'attached', trustDisk: false, tracking: null,
      disks: DISKS.map((diskId, index) => ({
        diskId, path: this.diskPath(index), format, virtualSize: DISK_BYTES, logicalSectorSize: 512, geometry: null })),
    };
    this.primary.catalog.vms.put(vm);
    this.primary.catalog.relationships.put(newRelationship(frequencySec, now, this));
    await this.during(this.primary.ports.link({ host: '', port: 0, fingerprint: '' }).call(enableMessage, {
      vmId: VM_ID, name: 'vm', primaryName: 'primary', frequencySec, recoveryHistory: this.recoveryHistory, primaryPort: 1,
      disks: vm.disks.map(({ path, ...disk }) => ({ ...disk, format, logicalSectorSize: 512 as const, fileName: path.slice(7) })),
    }));
    const primary = new PrimaryVm(this.primary.ports, VM_ID, this.primary.resync);
    this.primary.primaries.set(VM_ID, primary);
    await this.during(primary.start());
    this.primary.relationships.perform(VM_ID, 'start-initial');
    primary.interrupt('start');
    this.runGuest();
  }

  /** Lets time pass until the work is done. */
  async during<T>(work: Promise<T>): Promise<T> {
    let done = false;
    const marked = work.finally(() => (done = true));
    marked.catch(() => undefined);
    assert.ok(await this.scheduler.until(() => done, 600_000), 'the work does not end');
    return marked;
  }

  runGuest(): void {
    this.#guestRuns = true;
    const burst = () => {
      if (!this.#guestRuns) return;
      const count = this.dice.chance(0.2) ? 0 : this.dice.between(1, 6);
      for (let index = 0; index < count; index++) this.guestWrite();
      if (this.dice.chance(0.2)) this.tracked?.disk(this.dice.pick(DISKS)).flush().catch(() => undefined);
      this.scheduler.after(this.dice.between(1, 4000), null, burst);
    };
    burst();
  }

  stopGuest(): void {
    this.#guestRuns = false;
  }

  guestWrite(): void {
    const { tracked } = this;
    if (tracked === null) return;
    const disk = this.dice.between(0, DISKS.length - 1);
    // Whole pages are written at once where the disk can, other writes go the long way.
    const sectors = this.dice.chance(0.5) ? 8 : this.dice.between(1, 8);
    const unit = sectors === 8 ? 8 : 1;
    const offset = this.dice.between(0, (DISK_BYTES / SECTOR - sectors) / unit) * unit * SECTOR;
    const zero = this.dice.chance(0.15);
    const { data, answered } = this.history.ask(disk, offset, sectors * SECTOR, this.scheduler.now, zero);
    const target = tracked.disk(DISKS[disk]!);
    const done = zero ? target.zero(offset, data.length) : target.write(data, offset);
    done.then(() => answered(this.scheduler.now), () => undefined);
  }

  primaryDisks(): Uint8Array[] {
    return DISKS.map((_, index) => this.primary.volume.contents(this.diskPath(index)));
  }

  /** As a reader of the replica must see them: once a merge is on record, base and diff together (R19). */
  replicaDisks(): Uint8Array[] {
    return this.disksOf(this.replica);
  }

  protected disksOf(host: SimHost): Uint8Array[] {
    const { resync } = host.catalog.relationships.get(VM_ID)!;
    return host.catalog.vms.get(VM_ID)!.disks.map((disk) => {
      const base = host.volume.contents(disk.path);
      const diff = resync?.phase === 'merging' ? diffPath(disk, resync.token) : null;
      return diff === null || !host.volume.exists(`${diff}.map`) ? base : this.#overlay(host, base, diff);
    });
  }

  #overlay(host: SimHost, base: Uint8Array, diff: string): Uint8Array {
    const [pages, map] = [host.volume.contents(diff), host.volume.contents(`${diff}.map`)];
    for (let page = 0; page * PAGE_BYTES < base.length; page++) {
      if ((map[4096 + (page >> 3)]! & (1 << (page & 7))) === 0) continue;
      base.set(pages.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES), page * PAGE_BYTES);
    }
    return base;
  }

  /** Promise 2, at any time between two applies: the replica is one past instant of the VM. */
  checkReplica(): void {
    const record = this.replica.catalog.relationships.get(VM_ID);
    if (record === undefined || record.baselineId === '' || record.applying !== null) return;
    if (record.lastAppliedEpoch < record.consistentFrom) return;
    this.checks++;
    assert.equal(this.history.contradiction(this.replicaDisks()), null);
  }

  /**
   * Rung 1 is safe: whatever differs between the disks lies in a region whose bit is set, or in a log that is still under
   * way.
   */
  checkChangeMap(): void {
    const suspects = this.tracked?.suspects();
    if (suspects === null || suspects === undefined) return;
    const [ours, theirs] = [this.primaryDisks(), this.replicaDisks()];
    for (const [index, diskId] of DISKS.entries()) {
      for (let sector = 0; sector < DISK_BYTES / SECTOR; sector++) {
        const [from, to] = [sector * SECTOR, (sector + 1) * SECTOR];
        if (Buffer.compare(ours[index]!.subarray(from, to), theirs[index]!.subarray(from, to)) === 0) continue;
        const covered = suspects.get(diskId)!.some(({ offset, length }) => offset <= from && to <= offset + length);
        assert.ok(covered, `disk ${diskId} sector ${sector} differs and its region is not suspect`);
      }
    }
  }

  /** For checks that run at every step: the story is told only when one fails. */
  fail(what: string): never {
    assert.fail(`${what}\n${this.story()}`);
  }

  /** What both hosts recorded, for the message of a failed run. */
  story(): string {
    const of = (host: SimHost) => host.catalog.events({ limit: 30 })
      .map(({ time, id, message }) => `${host.name} ${new Date(time).toISOString()} ${id} ${message}`);
    return this.everyHost.flatMap(of).join('\n');
  }

  /** `kill -9` of the host's server, and a while later its start. */
  async killed(host: SimHost): Promise<void> {
    host.crash('process');
    await this.scheduler.pass(this.dice.between(0, 3000));
    await this.restart(host);
  }

  /** The primary's machine goes down; its disks are what it comes back with. */
  async powerLoss(host: SimHost): Promise<void> {
    host.crash('machine');
    if (host !== this.primary) return;
    for (const [index, content] of (await disksOf(host)).entries()) this.history.reborn(index, content, this.scheduler.now);
  }

  async restart(host: SimHost): Promise<void> {
    await this.during(host.start());
  }

  /** Everything healed, guest stopped: replication catches up and both sides are equal. */
  async catchUp(options: { resync: boolean } = { resync: false }): Promise<void> {
    this.stopGuest();
    this.network.cut = false;
    this.network.lossRate = 0;
    for (const host of this.everyHost) if (!host.life.alive) await this.restart(host);
    if (this.relationship.state === 'WaitingForStartResynchronize' && !options.resync) return;
    // An initial copy or a resync under way counts as behind, whatever its epochs say: a fresh relationship has none to wait for.
    const caughtUp = () => this.relationship.state === 'Replicating' && this.tracked?.hasWrites === false &&
      this.relationship.lastAppliedEpoch >= this.tracked.epoch() - 1;
    for (let waited = 0; waited < 7_200_000 && !(waited > 0 && caughtUp()); waited += 40_000) await this.scheduler.pass(40_000);
    await settle();
    assert.equal(this.relationship.state, 'Replicating', this.story());
    const [ours, theirs] = [await disksOf(this.primary), await disksOf(this.replica)];
    for (const index of DISKS.keys()) assert.ok(Buffer.compare(ours[index]!, theirs[index]!) === 0, `disk ${index} is not equal`);
  }
}

type Wanted = Pick<World, 'autoResync' | 'recoveryHistory' | 'keepRecoveryPoints'>;

function newRelationship(frequencySec: 30 | 300, now: number, { autoResync, recoveryHistory, keepRecoveryPoints }: Wanted): RelationshipRecord {
  return {
    vmId: VM_ID, side: 'primary', pairedBy: 'enable', state: 'ReadyForInitialReplication', createdAt: now, trustGroup: '', baselineId: '',
    remote: { host: 'replica', port: 1, fingerprint: 'replica-fingerprint', name: 'replica' },
    settings: relationshipSettingsSchema.parse({
      frequencySec, recoveryHistory, keepRecoveryPoints, logLimitPercent: 100,
      autoResync: { enabled: autoResync, intervalStart: '00:00:00', intervalEnd: '23:59:59' } }),
    initial: null, required: null, resync: null, error: null,
    lastReplicationTime: null, lastReceivedEpoch: -1, lastAppliedEpoch: -1, lastAppliedTime: null, lastAppliedLogs: {},
    consistentFrom: 0, appliedSeals: {}, applying: null, wantedAgain: null, lost: null, remoteState: null, mapTrusted: true,
    transferred: { initialBytes: 0, logBytes: 0, wireBytes: 0, resyncBytes: 0 },
    statistics: newStatistics(now, { monitoringIntervalSec: 43_200, monitoringStart: '09:00:00' }, 'UTC'),
  };
}
