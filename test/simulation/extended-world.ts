/** Three hosts: a primary, its replica, and the extended replica that the replica feeds. */
import assert from 'node:assert/strict';
import type { RelationshipRecord } from '../../src/model/records.ts';
import { relationshipSettingsSchema } from '../../src/model/settings.ts';
import { extend } from '../../src/replication/extended/extend.ts';
import type { ExtendedLeg } from '../../src/replication/extended/extended-leg.ts';
import type { ReplicaVm } from '../../src/replication/replica-vm.ts';
import { settle } from './scheduler.ts';
import type { SimHost } from './sim-host.ts';
import { DISKS, VM_ID, World } from './world.ts';

export class ExtendedWorld extends World {
  readonly third: SimHost;
  /** Of the extended replica. */
  thirdHistory = 0;
  thirdChecks = 0;
  /** Somebody else has written to the replica disk, and no resynchronization has mended that yet. */
  edited = false;

  constructor(seed: number) {
    super(seed);
    this.third = this.makeHost('third');
  }

  protected override hostNamed(fingerprint: string, near: SimHost): SimHost {
    const named = this.everyHost.find((host) => host !== undefined && host.fingerprint === fingerprint);
    return named ?? super.hostNamed(fingerprint, near);
  }

  override get everyHost(): SimHost[] {
    return [this.primary, this.replica, this.third];
  }

  get leg(): ExtendedLeg {
    return this.replica.extended!.leg(VM_ID);
  }

  get legRecord(): RelationshipRecord {
    return this.replica.catalog.extended.relationships.get(VM_ID)!;
  }

  get thirdRecord(): RelationshipRecord {
    return this.third.catalog.relationships.get(VM_ID)!;
  }

  get replicaVm(): ReplicaVm {
    return this.replica.replicas!.get(VM_ID)!;
  }

  /** The first leg replicates; the second one has been set up and begun. */
  async beginExtended(): Promise<void> {
    await this.begin();
    assert.ok(await this.scheduler.until(() => this.relationship.state === 'Replicating', 600_000), this.story());
    await this.during(this.third.start());
    this.third.catalog.authorizations.put(
      { fingerprint: this.replica.fingerprint, name: 'replica', storageLocation: '/store', trustGroup: 'DEFAULT', createdAt: 0 });
    const settings = relationshipSettingsSchema.parse({ frequencySec: 300, recoveryHistory: this.thirdHistory, logLimitPercent: 100,
      autoResync: { enabled: true, intervalStart: '00:00:00', intervalEnd: '23:59:59' } });
    const remote = { host: 'third', port: 1, fingerprint: this.third.fingerprint, name: 'third' };
    await this.during(extend(this.replica.extended!, this.replicaRecord, remote, settings, 'UTC'));
    this.replica.extended!.relationships.perform(VM_ID, 'start-initial');
    this.leg.interrupt('start');
  }

  async untilLegReplicates(ms = 3_600_000): Promise<void> {
    assert.ok(await this.scheduler.until(() => this.legRecord.state === 'Replicating', ms), this.story());
  }

  thirdDisks(): Uint8Array[] {
    return this.disksOf(this.third);
  }

  /** Promise 2 on the third host. */
  checkThird(): void {
    const record = this.third.catalog.relationships.get(VM_ID);
    if (record === undefined || record.baselineId === '' || record.applying !== null || record.initial !== null) return;
    if (record.lastAppliedEpoch < record.consistentFrom) return;
    this.thirdChecks++;
    const wrong = this.history.contradiction(this.thirdDisks());
    if (wrong !== null) this.fail(wrong);
  }

  /**
   * Whatever differs between replica and extended replica lies in a suspect region, while neither of them is being written: rung 1 of the leg
   * is safe (R27).
   */
  checkLegMap(): void {
    const suspects = this.replica.extended?.get(VM_ID)?.tracked?.suspects() ?? null;
    if (suspects === null || this.legRecord.baselineId === '' || this.legRecord.resync !== null || this.thirdRecord.resync !== null) return;
    if (this.legRecord.baselineId !== this.thirdRecord.baselineId || this.replicaRecord.resync?.phase === 'merging') return;
    const [ours, theirs] = [this.replica, this.third].map((host) =>
      host.relationships.vm(VM_ID).disks.map(({ path }) => host.volume.contents(path))) as [Uint8Array[], Uint8Array[]];
    for (const [index, diskId] of DISKS.entries()) {
      for (let from = 0; from < ours[index]!.length; from += 512) {
        if (Buffer.compare(ours[index]!.subarray(from, from + 512), theirs[index]!.subarray(from, from + 512)) === 0) continue;
        const covered = suspects.get(diskId)!.some(({ offset, length }) => offset <= from && from + 512 <= offset + length);
        if (!covered) this.fail(`disk ${diskId} at ${from} differs on the third host, and its region is not suspect`);
      }
    }
  }

  /** Everything healed, guest stopped: all three are equal. */
  async catchUpExtended(): Promise<void> {
    this.stopGuest();
    this.network.cut = false;
    this.network.lossRate = 0;
    for (const host of this.everyHost) if (!host.life.alive) await this.restart(host);
    // What waits for a person may be heard of only now, and a second one after the first.
    for (let round = 0; round < 3; round++) {
      this.autoStart();
      await this.scheduler.pass(500_000);
    }
    await this.catchUp({ resync: true });
    const caughtUp = () => this.legRecord.state === 'Replicating' && this.leg.tracked?.hasWrites === false &&
      this.thirdRecord.lastAppliedEpoch >= this.leg.outbox.newestClosed() && this.legRecord.resync === null;
    for (let waited = 0; waited < 14_400_000 && !(waited > 0 && caughtUp()); waited += 100_000) {
      this.autoStart();
      await this.scheduler.pass(100_000);
    }
    await settle();
    assert.equal(this.legRecord.state, 'Replicating', this.story());
    const [ours, theirs] = [this.primaryDisks(), this.thirdDisks()];
    for (const index of DISKS.keys()) assert.ok(Buffer.compare(ours[index]!, theirs[index]!) === 0, `disk ${index} of the third host is not equal\n${this.story()}`);
  }

  /** What waits for a person to start it begins now. */
  autoStart(): void {
    const now = this.primary.ports.clock.now();
    if (this.relationship.required !== null && this.primary.life.alive) {
      this.primary.relationships.update(VM_ID, { required: { ...this.relationship.required, startAt: now, held: false } });
      this.primary.primaries.get(VM_ID)?.wake();
    }
    if (this.legRecord.required !== null && this.replica.life.alive) {
      this.replica.extended!.relationships.update(VM_ID, { required: { ...this.legRecord.required, startAt: now, held: false } });
      this.leg.wake();
    }
  }
}
