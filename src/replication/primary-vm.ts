/**
 * The primary side of one VM: holds its disks while a guest may write, and sends what it writes.
 *
 * Invariant: while the VM is handed over, or yet to be put together after a failover, nobody opens its disks here but the code that does that.
 */
import { keptOut } from '../model/direction.ts';
import { UnderstudyError } from '../model/errors.ts';
import type { RelationshipRecord } from '../model/records.ts';
import { TrackedVm } from '../tracking/tracked-vm.ts';
import type { ReplicationPorts } from './replication-ports.ts';
import { SendingVm, type ResyncDriver } from './sending-vm.ts';

/** What is left to do after a change of direction; handed in because failover/ knows replication/, not the reverse. */
export interface TurnDriver {
  /** Merges what the guest wrote since the failover, and tells the old primary. Called by the loop until the record is clear. */
  settle(primary: PrimaryVm, signal: AbortSignal): Promise<void>;
  /** Called with the disks open and nobody else using them. After a rejection they are closed again. */
  mergeFailover(primary: PrimaryVm, tracked: TrackedVm, signal: AbortSignal): Promise<void>;
}

export class PrimaryVm extends SendingVm<TrackedVm> {
  #turn: TurnDriver | null;

  constructor(ports: ReplicationPorts, vmId: string, resync: ResyncDriver | null = null, turn: TurnDriver | null = null) {
    super(ports, vmId, resync);
    this.#turn = turn;
  }

  /** The disks, while they are held for a guest; null too while they are being closed. */
  get guestDisks(): TrackedVm | null {
    return this.source.heldBy('guest');
  }

  /** At the start of the server: takes up what a crash or a stop has left. */
  async start(): Promise<void> {
    const { attach, tracking } = this.vm;
    const { prepared = null, unmerged = null } = this.ports.relationships.find(this.vmId) ?? {};
    // Prepared: the disks are handed over as they are. Unmerged: the loop opens them, which may take its time.
    const opens = prepared === null && unmerged === null;
    if (opens && (attach === 'attached' || tracking?.running === true)) await this.hold('guest');
    this.run();
  }

  override async hold(holder: string): Promise<TrackedVm> {
    const relationship = this.ports.relationships.find(this.vmId);
    if ((relationship?.prepared ?? null) !== null) throw keptOut(this.vm.name, relationship)!;
    return super.hold(holder);
  }

  /** No holder, so that nothing here reads or writes the disks. */
  get disksClosed(): boolean {
    return this.source.closed;
  }

  /**
   * Closes and seals the disks, sends the last set, and waits until the replica has applied it; returns its epoch. The caller keeps
   * guests out. After a rejection the disks may be closed.
   */
  async handOverLast(signal: AbortSignal): Promise<number> {
    // Opened first: what a crash has left is taken up, and a disk that was changed meanwhile is found out.
    await this.hold('hand-over');
    await this.letGo('guest');
    await this.letGo('hand-over');
    if (!this.disksClosed) throw new UnderstudyError('state', 'VM_IN_USE', `the disks of VM '${this.vm.name}' are in use: ${this.source.holders.join(', ')}`,
      'Wait until that has ended.');
    const { epoch } = await this.syncNow(signal);
    return epoch;
  }

  protected override first(relationship: RelationshipRecord, signal: AbortSignal): Promise<void> | null {
    const turning = (relationship.turning ?? relationship.unmerged ?? null) !== null;
    return turning && this.#turn !== null ? this.#turn.settle(this, signal) : null;
  }

  protected async openSource(): Promise<TrackedVm> {
    const { unmerged = null } = this.ports.relationships.find(this.vmId) ?? {};
    const { vm } = await TrackedVm.open(this.ports, this.vm, {
      ...(unmerged === null ? {} : { opened: (tracked) => this.#turn!.mergeFailover(this, tracked, this.stopped) }),
      boundedWaitMs: () => this.ports.relationships.find(this.vmId)?.settings.boundedWaitMs ?? 2000,
      trackingLost: (lost) => this.recordLoss(lost),
    });
    return vm;
  }
}
