/**
 * The leg from a replica to its extended replica on a third host: it sends the sets that are applied here, as a primary sends what its
 * guest writes. It copies and resynchronizes only while the replica itself is one instant (rest.ts); else it waits.
 */
import type { RelationshipRecord } from '../../model/records.ts';
import { announcementOf } from '../announcement.ts';
import { enableMessage } from '../messages.ts';
import type { ReplicaVm } from '../replica-vm.ts';
import type { ReplicationPorts } from '../replication-ports.ts';
import { SendingVm, type ResyncDriver } from '../sending-vm.ts';
import { AppliedSets } from './applied-sets.ts';
import { unrest } from './rest.ts';

export class ExtendedLeg extends SendingVm<AppliedSets> {
  #replica: ReplicaVm;

  /** `ports`: the leg's (extended-legs.ts). */
  constructor(ports: ReplicationPorts, replica: ReplicaVm, resync: ResyncDriver | null) {
    super(ports, replica.vmId, resync);
    this.#replica = replica;
  }

  /** Why the leg cannot be copied or compared now; null when it can. */
  get waitsFor(): string | null {
    return unrest(this.#replica.relationship);
  }

  /** The replica's disks show what the primary's showed then. */
  override presentInstant(): number | null {
    return this.#replica.relationship.lastAppliedTime;
  }

  override async announce(signal: AbortSignal): Promise<void> {
    const announcement = { ...announcementOf(this.ports, this.vm, this.relationship.settings), extended: true as const };
    await this.link().call(enableMessage, announcement, undefined, { signal });
  }

  protected override first({ state, resync }: RelationshipRecord, signal: AbortSignal): Promise<void> | null {
    // Its queue could not be opened before.
    if (this.tracked === null) return this.hold('leg').then(() => undefined, () => this.idle(signal));
    const reads = state === 'InitialReplicationInProgress' || state === 'WaitingForStartResynchronize' ||
      (state === 'Resynchronizing' && resync?.phase !== 'merging');
    return reads && this.waitsFor !== null ? this.idle(signal) : null;
  }

  protected openSource(): Promise<AppliedSets> {
    return AppliedSets.open(this.ports, this.#replica, (loss) => this.recordLoss(loss));
  }
}
