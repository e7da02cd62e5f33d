/** Two hosts that replicate, with what the replica asks of its files and its catalog written down in order. */
import assert from 'node:assert/strict';
import type { PointRecord } from '../../src/model/records.ts';
import type { ReplicaVm } from '../../src/replication/replica-vm.ts';
import type { SimHost } from '../simulation/sim-host.ts';
import { World } from '../simulation/world.ts';
import { Watch } from './watched-files.ts';

export class ReplicaRig {
  readonly world: World;
  readonly watch = new Watch();

  private constructor(seed: number) {
    this.world = new World(seed);
    watchHost(this.world.replica, this.watch);
  }

  /** Both hosts up, the guest writing, the baseline made. `history`: so many recovery points, a minute apart. */
  static async replicating(seed = 1, { history = 0, keepPoints = false } = {}): Promise<ReplicaRig> {
    const rig = new ReplicaRig(seed);
    rig.world.recoveryHistory = history;
    rig.world.keepRecoveryPoints = keepPoints;
    rig.world.replica.pointIntervalMs = 60_000;
    await rig.world.begin();
    await rig.until(() => rig.world.relationship.state === 'Replicating');
    return rig;
  }

  get replica(): ReplicaVm {
    return this.world.replica.replicas!.get(this.world.relationship.vmId)!;
  }

  get applied(): number {
    return this.world.replicaRecord.lastAppliedEpoch;
  }

  get received(): number {
    return this.world.replicaRecord.lastReceivedEpoch;
  }

  points(): PointRecord[] {
    return this.world.replica.catalog.points.list(this.world.relationship.vmId);
  }

  async untilPoints(count: number): Promise<void> {
    await this.until(() => this.points().length >= count);
  }

  events(host: 'primary' | 'replica' = 'replica'): (string | number)[] {
    return this.world[host].catalog.events({ limit: 1000 }).map(({ id }) => id);
  }

  async until(condition: () => boolean, ms = 600_000): Promise<void> {
    assert.ok(await this.world.scheduler.until(condition, ms), this.world.story());
  }

  inboxPath(diskId: string, epoch: number): string {
    return `/replica/vms/${this.world.relationship.vmId}/inbox/${diskId}.${epoch}.hrl`;
  }

  /** Apply held back until `count` sets wait in the inbox; the returned function lets it go on. */
  async waitingInInbox(count: number): Promise<() => void> {
    const unpin = await this.world.during(this.replica.pin('a test'));
    await this.until(() => this.received >= this.applied + count);
    return unpin;
  }

  /** Takes a file away behind the replica's back. */
  async lose(path: string): Promise<void> {
    await this.world.during(this.world.replica.volume.mount({ alive: true }).remove(path));
  }

  /** The guest stops, everything arrives, and both sides are equal. */
  async endsEqual(): Promise<void> {
    await this.world.catchUp();
  }
}

function watchHost(host: SimHost, watch: Watch): void {
  const mount = host.volume.mount.bind(host.volume);
  host.volume.mount = (life) => watch.files(mount(life));
  const { relationships, inbox } = host.catalog;
  const [putRelationship, putInbox] = [relationships.put, inbox.put];
  relationships.put = (row) => {
    putRelationship(row);
    watch.note(`catalog applied=${row.lastAppliedEpoch} applying=${row.applying ?? 'none'} wanted=${row.wantedAgain ?? 'none'}`);
  };
  const putPoint = host.catalog.points.put;
  host.catalog.points.put = (row) => {
    putPoint(row);
    watch.note(`catalog point ${row.epoch} undone=${row.undoneThrough}`);
  };
  inbox.put = (row) => {
    putInbox(row);
    watch.note(`catalog inbox ${row.epoch} ${row.status}`);
  };
}
